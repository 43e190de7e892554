//! What a tenant has in the management cluster beside its planes.

use std::collections::BTreeMap;

use proto::placement::PlaneNumber;
use serde::Serialize;

use super::plane::{API_PORT, CONTROLLER_PORT, TUNNEL_PORT};
use super::{Manifest, Metadata, Spec, manifest};
use crate::PLANE_OF_POD;
use crate::desired::Plane;
use crate::kind::Kind;
use crate::name::{namespace_name, plane_name};

/// Pods that a replica may have at once: a rollout doubles them, a rollout that replaces another counts those that
/// end as well, and a new plane has three sets of pods one after the other.
const PODS_PER_REPLICA_MAX: u32 = 4;
/// Replicas that a sleeping plane is counted as, so that it can wake before the quota is raised.
const REPLICAS_ASLEEP: u32 = 2;
/// Whom the role is given to: what hands a kubeconfig to its tenant.
const KUBECONFIG_READERS: &str = "walras:kubeconfig-readers";
/// Whom pods of planes run as: somebody without any right in the management cluster.
pub(super) const ACCOUNT: &str = "plane";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    automount_service_account_token: bool,
}

#[derive(Serialize)]
struct Quota {
    hard: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LabelSelector {
    match_labels: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NetworkPolicy {
    pod_selector: Empty,
    policy_types: [&'static str; 1],
    ingress: [Ingress; 1],
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Ingress {
    ports: [Port; 3],
}

#[derive(Serialize)]
struct Port {
    port: u16,
    protocol: &'static str,
}

#[derive(Serialize)]
struct Rules {
    rules: [Rule; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: [&'static str; 1],
    resources: [&'static str; 1],
    resource_names: Vec<String>,
    verbs: [&'static str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    role_ref: Reference,
    subjects: [Reference; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    api_group: &'static str,
    kind: &'static str,
    name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Budget {
    min_available: u32,
    selector: LabelSelector,
    unhealthy_pod_eviction_policy: &'static str,
}

/// Namespace, account, role, quota and network policy of a tenant, the namespace first.
pub(crate) fn tenant(planes: &[(PlaneNumber, &Plane)]) -> Vec<Manifest> {
    let Some((_, first)) = planes.first() else { return Vec::new() };
    let namespace = namespace_name(&first.tenant);
    let named = |name: &str| Metadata::new(&namespace, name);
    let place = Metadata::new("", &namespace).annotated("walras.dev/tenant", first.tenant.as_str());
    let replicas = planes.iter().map(|(_, plane)| plane.replicas.max(REPLICAS_ASLEEP));
    let pods = replicas.fold(0_u32, u32::saturating_add).saturating_mul(PODS_PER_REPLICA_MAX);
    // Only pods are counted: a quota of resources refuses pods with a container that requests none, and Kamaji adds
    // one to planes whose data store speaks TLS.
    let quota = Quota { hard: BTreeMap::from([("pods", pods.to_string())]) };
    // The API server and the tunnel, for everybody: workers come from anywhere. What controllers count, for us, who
    // come by the API server's proxy. What a plane's pods reach is not limited: data stores, names and webhooks are at
    // addresses that only the operator knows.
    let port = |port| Port { port, protocol: "TCP" };
    let network = NetworkPolicy {
        pod_selector: Empty {},
        policy_types: ["Ingress"],
        ingress: [Ingress { ports: [API_PORT, TUNNEL_PORT, CONTROLLER_PORT].map(port) }],
    };
    let mut secrets: Vec<String> =
        planes.iter().map(|(_, plane)| format!("{}-admin-kubeconfig", plane_name(&plane.cluster))).collect();
    secrets.sort();
    let rule = Rule { api_groups: [""], resources: ["secrets"], resource_names: secrets, verbs: ["get"] };
    let group = "rbac.authorization.k8s.io";
    let binding = Binding {
        role_ref: Reference { api_group: group, kind: "Role", name: "kubeconfig-reader" },
        subjects: [Reference { api_group: group, kind: "Group", name: KUBECONFIG_READERS }],
    };
    let account = Account { automount_service_account_token: false };
    vec![
        manifest(Kind::Namespace, place, &()),
        manifest(Kind::ServiceAccount, named(ACCOUNT), &account),
        manifest(Kind::Role, named("kubeconfig-reader"), &Rules { rules: [rule] }),
        manifest(Kind::RoleBinding, named("kubeconfig-reader"), &binding),
        manifest(Kind::Quota, named("planes"), &Spec { spec: quota }),
        manifest(Kind::NetworkPolicy, named("planes"), &Spec { spec: network }),
    ]
}

/// The budget of a plane: all but one of its pods stay, and the only one stays, so that moving it means a new one
/// first. Kamaji makes none.
pub(crate) fn budget(number: PlaneNumber, plane: &Plane) -> Manifest {
    let name = plane_name(&plane.cluster);
    let spec = Budget {
        min_available: plane.replicas.saturating_sub(1).max(1),
        selector: LabelSelector { match_labels: BTreeMap::from([(PLANE_OF_POD, name.clone())]) },
        unhealthy_pod_eviction_policy: "AlwaysAllow",
    };
    let metadata = Metadata::new(&namespace_name(&plane.tenant), &name).of_plane(number);
    manifest(Kind::Budget, metadata, &Spec { spec })
}
