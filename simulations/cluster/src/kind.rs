//! The kinds that this cluster holds, as one table: names, subresources, how they merge, how they are printed.

use serde_json::Value;

use crate::json::at;
use crate::shape::{self, Shape};
use crate::table::{self, Cell, Column};

/// One kind of object.
#[derive(Debug)]
pub struct Kind {
    /// API group, empty for the core.
    pub group: &'static str,
    /// Version in the group; one for each kind.
    pub version: &'static str,
    /// As objects name it.
    pub kind: &'static str,
    /// As paths name it; unique in the table.
    pub plural: &'static str,
    /// Shorter names for the command line.
    pub short: &'static [&'static str],
    /// Groups of kinds for the command line.
    pub categories: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether the server knows the kind's structure; a custom kind has no strategic merge.
    pub builtin: bool,
    /// Subresources besides the object itself.
    pub parts: &'static [Part],
    /// How it merges.
    pub shape: &'static Shape,
    /// How it is printed after its name and before its age.
    pub columns: &'static [Column],
}

/// A subresource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What is observed, written apart from what is desired.
    Status,
    /// Paths of the desired count, the observed count and the selector as text.
    Scale(&'static str, &'static str, &'static str),
    /// A pod's eviction.
    Eviction,
    /// A pod's binding to a host.
    Binding,
    /// Approval of a certificate.
    Approval,
    /// An account's tokens.
    Token,
    /// The end of a namespace.
    Finalize,
}

impl Part {
    /// As paths name it.
    pub fn name(self) -> &'static str {
        match self {
            Part::Status => "status",
            Part::Scale(..) => "scale",
            Part::Eviction => "eviction",
            Part::Binding => "binding",
            Part::Approval => "approval",
            Part::Token => "token",
            Part::Finalize => "finalize",
        }
    }
}

impl Kind {
    /// Group and version as objects name them.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// As messages name it: `deployments.apps`.
    pub fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// The subresource of a name.
    pub fn part(&self, name: &str) -> Option<Part> {
        self.parts.iter().copied().find(|part| part.name() == name)
    }

    /// Whether status is written apart.
    pub fn has_status(&self) -> bool {
        self.parts.contains(&Part::Status)
    }
}

/// The kind of a plural name, if there is one.
pub fn find(plural: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.plural == plural)
}

/// The kind of a plural name that is in the table.
///
/// # Panics
/// When it is not: the name is a literal of ours.
pub fn known(plural: &str) -> &'static Kind {
    find(plural).unwrap_or_else(|| unreachable!("no kind {plural:?} in the table"))
}

/// The kind that an object says it is.
pub fn of(object: &Value) -> Option<&'static Kind> {
    let (version, name) = (at(object, "apiVersion").as_str()?, at(object, "kind").as_str()?);
    KINDS.iter().find(|kind| kind.kind == name && kind.api_version() == version)
}

const STATUS: &[Part] = &[Part::Status];
const APPS_SCALE: Part = Part::Scale("spec.replicas", "status.replicas", "spec.selector");
const ALL: &[&str] = &["all"];

const fn core(kind: &'static str, plural: &'static str, short: &'static [&'static str]) -> Kind {
    Kind {
        group: "",
        version: "v1",
        kind,
        plural,
        short,
        categories: &[],
        namespaced: true,
        builtin: true,
        parts: &[],
        shape: &shape::PLAIN,
        columns: &[],
    }
}

const fn grouped(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group, ..core(kind, plural, &[]) }
}

const RBAC: &str = "rbac.authorization.k8s.io";
const ADMISSION: &str = "admissionregistration.k8s.io";

/// Every kind, the core group first; kinds of a group stand together.
pub static KINDS: &[Kind] = &[
    Kind {
        namespaced: false,
        parts: &[Part::Status, Part::Finalize],
        columns: &[Column("Status", 0, Cell::Path("status.phase"))],
        ..core("Namespace", "namespaces", &["ns"])
    },
    Kind {
        namespaced: false,
        parts: STATUS,
        shape: &shape::NODE,
        columns: table::NODE,
        ..core("Node", "nodes", &["no"])
    },
    Kind {
        parts: &[Part::Status, Part::Eviction, Part::Binding],
        categories: ALL,
        shape: &shape::POD,
        columns: table::POD,
        ..core("Pod", "pods", &["po"])
    },
    Kind {
        parts: STATUS,
        categories: ALL,
        shape: &shape::SERVICE,
        columns: table::SERVICE,
        ..core("Service", "services", &["svc"])
    },
    Kind { columns: &[Column("Data", 0, Cell::Count("data"))], ..core("ConfigMap", "configmaps", &["cm"]) },
    Kind {
        columns: &[Column("Type", 0, Cell::Path("type")), Column("Data", 0, Cell::Count("data"))],
        ..core("Secret", "secrets", &[])
    },
    Kind {
        parts: &[Part::Token],
        shape: &shape::ACCOUNT,
        columns: &[Column("Secrets", 0, Cell::Count("secrets"))],
        ..core("ServiceAccount", "serviceaccounts", &["sa"])
    },
    Kind { parts: STATUS, ..core("ResourceQuota", "resourcequotas", &["quota"]) },
    Kind { columns: table::EVENT, ..core("Event", "events", &["ev"]) },
    Kind {
        parts: &[Part::Status, APPS_SCALE],
        short: &["deploy"],
        categories: ALL,
        shape: &shape::WORKLOAD,
        columns: table::DEPLOYMENT,
        ..grouped("apps", "Deployment", "deployments")
    },
    Kind {
        parts: &[Part::Status, APPS_SCALE],
        short: &["rs"],
        categories: ALL,
        shape: &shape::WORKLOAD,
        columns: table::REPLICA_SET,
        ..grouped("apps", "ReplicaSet", "replicasets")
    },
    Kind {
        parts: &[Part::Status, APPS_SCALE],
        short: &["sts"],
        categories: ALL,
        shape: &shape::WORKLOAD,
        columns: &[Column("Ready", 0, Cell::Of("status.readyReplicas", "spec.replicas"))],
        ..grouped("apps", "StatefulSet", "statefulsets")
    },
    Kind {
        parts: STATUS,
        short: &["pdb"],
        shape: &shape::SELECTING,
        columns: table::BUDGET,
        ..grouped("policy", "PodDisruptionBudget", "poddisruptionbudgets")
    },
    Kind {
        short: &["netpol"],
        shape: &shape::SELECTING,
        ..grouped("networking.k8s.io", "NetworkPolicy", "networkpolicies")
    },
    Kind {
        parts: STATUS,
        short: &["ing"],
        columns: &[Column("Class", 0, Cell::Path("spec.ingressClassName"))],
        ..grouped("networking.k8s.io", "Ingress", "ingresses")
    },
    Kind { namespaced: false, ..grouped(ADMISSION, "MutatingAdmissionPolicy", "mutatingadmissionpolicies") },
    Kind {
        namespaced: false,
        ..grouped(ADMISSION, "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings")
    },
    grouped(RBAC, "Role", "roles"),
    grouped(RBAC, "RoleBinding", "rolebindings"),
    Kind { namespaced: false, ..grouped(RBAC, "ClusterRole", "clusterroles") },
    Kind { namespaced: false, ..grouped(RBAC, "ClusterRoleBinding", "clusterrolebindings") },
    Kind {
        columns: &[Column("Holder", 0, Cell::Path("spec.holderIdentity"))],
        ..grouped("coordination.k8s.io", "Lease", "leases")
    },
    Kind {
        parts: &[Part::Status, Part::Approval],
        short: &["csr"],
        namespaced: false,
        columns: table::SIGNING,
        ..grouped("certificates.k8s.io", "CertificateSigningRequest", "certificatesigningrequests")
    },
    Kind {
        columns: &[Column("AddressType", 0, Cell::Path("addressType"))],
        ..grouped("discovery.k8s.io", "EndpointSlice", "endpointslices")
    },
    Kind {
        version: "v1alpha1",
        builtin: false,
        short: &["tcp"],
        categories: &["kamaji"],
        parts: &[
            Part::Status,
            Part::Scale(
                "spec.controlPlane.deployment.replicas",
                "status.kubernetesResources.deployment.replicas",
                "status.kubernetesResources.deployment.selector",
            ),
        ],
        columns: table::PLANE,
        ..grouped("kamaji.clastix.io", "TenantControlPlane", "tenantcontrolplanes")
    },
    Kind {
        version: "v1alpha1",
        builtin: false,
        namespaced: false,
        parts: STATUS,
        columns: &[
            Column("Driver", 0, Cell::Path("spec.driver")),
            Column("Ready", 0, Cell::Path("status.ready")),
        ],
        ..grouped("kamaji.clastix.io", "DataStore", "datastores")
    },
    Kind {
        version: "v1alpha2",
        builtin: false,
        short: &["ktcp"],
        categories: &["cluster-api"],
        parts: &[Part::Status, Part::Scale("spec.replicas", "status.replicas", "status.selector")],
        columns: &[
            Column("Version", 0, Cell::Path("spec.version")),
            Column("Ready", 0, Cell::Path("status.ready")),
        ],
        ..grouped("controlplane.cluster.x-k8s.io", "KamajiControlPlane", "kamajicontrolplanes")
    },
];
