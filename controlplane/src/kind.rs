//! The kinds of objects that are read or written, and their paths.

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A tenant's place.
    Namespace,
    /// Whom a plane's pods run as.
    ServiceAccount,
    /// How many pods a tenant's planes may have.
    Quota,
    /// Who reaches a plane's pods.
    NetworkPolicy,
    /// Who may read a tenant's kubeconfigs.
    Role,
    /// Who has that role.
    RoleBinding,
    /// How many pods of a plane may be disturbed at once.
    Budget,
    /// A plane, as Kamaji sees it.
    Plane,
    /// A plane's owner, where Cluster API has one.
    ClusterApiPlane,
    /// A pod of a plane.
    Pod,
    /// A store of planes' data.
    DataStore,
    /// A host.
    Host,
    /// What holds new pods until their host is known.
    Policy,
    /// What puts it in force.
    PolicyBinding,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Namespace,
        Self::ServiceAccount,
        Self::Quota,
        Self::NetworkPolicy,
        Self::Role,
        Self::RoleBinding,
        Self::Budget,
        Self::Plane,
        Self::ClusterApiPlane,
        Self::Pod,
        Self::DataStore,
        Self::Host,
        Self::Policy,
        Self::PolicyBinding,
    ];

    /// Group (empty for the core), version, name, plural.
    pub const fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        const RBAC: &str = "rbac.authorization.k8s.io";
        const ADMISSION: &str = "admissionregistration.k8s.io";
        match self {
            Self::Namespace => ("", "v1", "Namespace", "namespaces"),
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::Quota => ("", "v1", "ResourceQuota", "resourcequotas"),
            Self::NetworkPolicy => ("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Self::Role => (RBAC, "v1", "Role", "roles"),
            Self::RoleBinding => (RBAC, "v1", "RoleBinding", "rolebindings"),
            Self::Budget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::Plane => ("kamaji.clastix.io", "v1alpha1", "TenantControlPlane", "tenantcontrolplanes"),
            Self::ClusterApiPlane => {
                ("controlplane.cluster.x-k8s.io", "v1alpha2", "KamajiControlPlane", "kamajicontrolplanes")
            }
            Self::Pod => ("", "v1", "Pod", "pods"),
            Self::DataStore => ("kamaji.clastix.io", "v1alpha1", "DataStore", "datastores"),
            Self::Host => ("", "v1", "Node", "nodes"),
            Self::Policy => (ADMISSION, "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies"),
            Self::PolicyBinding => {
                (ADMISSION, "v1", "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
            }
        }
    }

    /// Whether its objects live in namespaces.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::DataStore | Self::Host | Self::Policy | Self::PolicyBinding)
    }

    /// Which objects of it are read: a label selector, empty for all.
    pub const fn selector(self) -> &'static str {
        match self {
            // Objects of others are read where they decide what we do.
            Self::Plane | Self::ClusterApiPlane | Self::DataStore | Self::Host => "",
            Self::Pod => "kamaji.clastix.io/component=deployment",
            _ => "app.kubernetes.io/managed-by=walras",
        }
    }

    /// Whether a management cluster may do without it: then nothing is read and nothing is there.
    pub const fn is_optional(self) -> bool {
        matches!(self, Self::ClusterApiPlane | Self::Policy | Self::PolicyBinding)
    }

    /// As objects name their version.
    pub fn api_version(self) -> String {
        let (group, version, ..) = self.names();
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
    }

    /// The path of an object, or of all objects where the name is empty.
    pub fn path(self, namespace: &str, name: &str) -> String {
        let (group, version, _, plural) = self.names();
        let mut path =
            if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        if self.is_namespaced() && !namespace.is_empty() {
            path = format!("{path}/namespaces/{namespace}");
        }
        path = format!("{path}/{plural}");
        if name.is_empty() { path } else { format!("{path}/{name}") }
    }
}

#[cfg(test)]
mod tests {
    use super::Kind;

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(Kind::Pod.path("a", "b"), "/api/v1/namespaces/a/pods/b");
        assert_eq!(Kind::Namespace.path("", "a"), "/api/v1/namespaces/a");
        assert_eq!(Kind::Budget.path("", ""), "/apis/policy/v1/poddisruptionbudgets");
        assert_eq!(
            Kind::Plane.path("a", "b"),
            "/apis/kamaji.clastix.io/v1alpha1/namespaces/a/tenantcontrolplanes/b"
        );
    }
}
