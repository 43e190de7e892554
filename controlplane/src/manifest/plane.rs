//! A plane as Kamaji is asked for it.

use std::collections::BTreeMap;

use proto::placement::{Driver, KubernetesVersion, PlaneNumber};
use serde::Serialize;

use super::tenant::ACCOUNT;
use super::{Manifest, Metadata, Resources, Spec, manifest};
use crate::ROLLOUT;
use crate::desired::{Amount, Exposure, Plane, Site, Toleration};
use crate::kind::Kind;
use crate::name::{namespace_name, plane_name};

/// Where the API server of a plane listens.
pub(super) const API_PORT: u16 = 6443;
/// Where controller managers show what they count.
pub(crate) const CONTROLLER_PORT: u16 = 10257;
/// Where the tunnel of a plane listens for agents.
pub(super) const TUNNEL_PORT: u16 = 8132;

/// How long pods stay on a host that stopped answering, in seconds. Kubernetes itself would say 300, for which a plane
/// would lack a replica.
pub(crate) const UNREACHABLE_SECONDS: u32 = 30;
/// Failures after which a starting API server is given up, one each 10 s: Kamaji's own 3 are too few for images that
/// are pulled.
const STARTUP_FAILURES_MAX: u32 = 30;

/// Thousandths of a replica's processor and memory that each container beside the API server gets; that has the rest.
/// The shares are about those of small and middle clusters in kubermatic's published measurements.
const CONTROLLER_PERMILLE: (u32, u32) = (140, 140);
const SCHEDULER_PERMILLE: (u32, u32) = (40, 70);
const STORE_PERMILLE: (u32, u32) = (100, 60);
const TUNNEL_PERMILLE: (u32, u32) = (60, 40);

/// Admission plugins of planes: those that Kamaji turns on where nobody says, and `NodeRestriction`, which keeps a
/// worker from speaking for others.
const ADMISSION: [&str; 18] = [
    "CertificateApproval",
    "CertificateSigning",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "DefaultStorageClass",
    "DefaultTolerationSeconds",
    "LimitRanger",
    "MutatingAdmissionWebhook",
    "NamespaceLifecycle",
    "NodeRestriction",
    "PersistentVolumeClaimResize",
    "Priority",
    "ResourceQuota",
    "RuntimeClass",
    "ServiceAccount",
    "StorageObjectInUseProtection",
    "TaintNodesByCondition",
    "ValidatingAdmissionWebhook",
];

/// What a plane is asked to be now, which may be a step on the way to what it is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlaneTerms<'a> {
    pub(crate) number: PlaneNumber,
    pub(crate) plane: &'a Plane,
    pub(crate) site: &'a Site,
    pub(crate) version: KubernetesVersion,
    pub(crate) data_store: &'a str,
    /// Another number makes new pods.
    pub(crate) rollout: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PlaneSpec<'a> {
    data_store: &'a str,
    control_plane: ControlPlane<'a>,
    kubernetes: Kubernetes,
    network_profile: Network,
    addons: Addons,
}

#[derive(Serialize)]
struct ControlPlane<'a> {
    deployment: Deployment<'a>,
    service: Service,
    #[serde(skip_serializing_if = "Option::is_none")]
    ingress: Option<Ingress<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<Gateway<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Deployment<'a> {
    replicas: u32,
    strategy: Strategy,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    node_selector: &'a BTreeMap<String, String>,
    tolerations: Vec<Toleration>,
    topology_spread_constraints: [Spread; 2],
    resources: BTreeMap<&'static str, Resources>,
    extra_args: ExtraArgs,
    probes: Probes,
    pod_additional_metadata: PodMetadata,
    service_account_name: &'static str,
    automount_service_account_token: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Strategy {
    #[serde(rename = "type")]
    kind: &'static str,
    rolling_update: RollingUpdate,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RollingUpdate {
    max_surge: &'static str,
    max_unavailable: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spread {
    max_skew: u32,
    topology_key: &'static str,
    when_unsatisfiable: &'static str,
    match_label_keys: [&'static str; 1],
    node_affinity_policy: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtraArgs {
    api_server: [&'static str; 2],
    controller_manager: [&'static str; 1],
}

#[derive(Serialize)]
pub(super) struct Probes {
    startup: Probe,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Probe {
    failure_threshold: u32,
}

#[derive(Serialize)]
pub(super) struct PodMetadata {
    annotations: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Service {
    service_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Ingress<'a> {
    ingress_class_name: &'a str,
    hostname: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Gateway<'a> {
    parent_refs: [Parent<'a>; 1],
    hostname: String,
}

#[derive(Serialize)]
struct Parent<'a> {
    name: &'a str,
    namespace: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Kubernetes {
    version: String,
    admission_controllers: &'static [&'static str],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Network {
    port: u16,
    #[serde(rename = "certSANs", skip_serializing_if = "Vec::is_empty")]
    cert_sans: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Addons {
    #[serde(rename = "coreDNS")]
    core_dns: Empty,
    kube_proxy: Empty,
    konnectivity: Tunnel,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Tunnel {
    server: TunnelServer,
    agent: TunnelAgent,
}

#[derive(Serialize)]
struct TunnelServer {
    port: u16,
    resources: Resources,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TunnelAgent {
    extra_args: [&'static str; 1],
    host_network: bool,
    tolerations: [Toleration; 1],
}

/// A plane's manifest.
pub(crate) fn plane(terms: &PlaneTerms<'_>) -> Manifest {
    let PlaneTerms { number, plane, site, version, data_store, rollout } = *terms;
    let (namespace, name) = (namespace_name(&plane.tenant), plane_name(&plane.cluster));
    let hostname = |domain: &str| format!("{name}.{namespace}.{domain}");
    let (service_type, ingress, gateway, host) = match &site.exposure {
        Exposure::ClusterIp => ("ClusterIP", None, None, None),
        Exposure::LoadBalancer => ("LoadBalancer", None, None, None),
        Exposure::Ingress { class, domain } => {
            let hostname = hostname(domain);
            let ingress = Ingress { ingress_class_name: class, hostname: hostname.clone() };
            ("ClusterIP", Some(ingress), None, Some(hostname))
        }
        Exposure::Gateway { gateway, namespace, domain } => {
            let hostname = hostname(domain);
            let parent_refs = [Parent { name: gateway, namespace }];
            ("ClusterIP", None, Some(Gateway { parent_refs, hostname: hostname.clone() }), Some(hostname))
        }
    };
    let spec = PlaneSpec {
        data_store,
        control_plane: ControlPlane {
            deployment: Deployment {
                replicas: plane.replicas,
                strategy: strategy(),
                node_selector: &site.pool,
                tolerations: tolerations(site),
                topology_spread_constraints: spread(),
                resources: containers(plane.request, plane.driver),
                // Clients are told to go elsewhere while the server still answers.
                extra_args: ExtraArgs {
                    api_server: api_server_args(),
                    controller_manager: controller_args(),
                },
                probes: probes(),
                pod_additional_metadata: pod_metadata(rollout),
                service_account_name: ACCOUNT,
                automount_service_account_token: false,
            },
            service: Service { service_type },
            ingress,
            gateway,
        },
        kubernetes: Kubernetes { version: version.to_string(), admission_controllers: admission() },
        network_profile: Network { port: API_PORT, cert_sans: host.into_iter().collect() },
        addons: addons(plane.request),
    };
    let metadata = Metadata::new(&namespace, &name)
        .of_plane(number)
        .annotated("walras.dev/tenant", plane.tenant.as_str())
        .annotated("walras.dev/cluster", plane.cluster.as_str());
    manifest(Kind::Plane, metadata, &Spec { spec })
}

/// New pods first, all of them, then the old ones go.
pub(super) fn strategy() -> Strategy {
    Strategy {
        kind: "RollingUpdate",
        rolling_update: RollingUpdate { max_surge: "100%", max_unavailable: 0 },
    }
}

pub(super) fn api_server_args() -> [&'static str; 2] {
    ["--shutdown-delay-duration=15s", "--shutdown-send-retry-after=true"]
}

/// Whoever reaches a controller manager may read how long it takes: nothing there is secret, and a credential for it
/// would be one more.
pub(super) fn controller_args() -> [&'static str; 1] {
    ["--authorization-always-allow-paths=/healthz,/livez,/readyz,/metrics"]
}

pub(super) fn admission() -> &'static [&'static str] {
    &ADMISSION
}

pub(super) fn probes() -> Probes {
    Probes { startup: Probe { failure_threshold: STARTUP_FAILURES_MAX } }
}

pub(super) fn pod_metadata(rollout: u64) -> PodMetadata {
    PodMetadata { annotations: BTreeMap::from([(ROLLOUT, rollout.to_string())]) }
}

pub(super) fn tolerations(site: &Site) -> Vec<Toleration> {
    let leaving = |key: &str| Toleration {
        key: Some(format!("node.kubernetes.io/{key}")),
        operator: "Exists".to_owned(),
        value: None,
        effect: Some("NoExecute".to_owned()),
        toleration_seconds: Some(UNREACHABLE_SECONDS.into()),
    };
    site.tolerations.iter().cloned().chain(["not-ready", "unreachable"].map(leaving)).collect()
}

/// One pod of a template on a host, which must hold also for pods that may run on one host only: so their own
/// affinity does not narrow down what they are spread over. Zones are spread over as far as possible.
pub(super) fn spread() -> [Spread; 2] {
    let one = |topology_key, when_unsatisfiable| Spread {
        max_skew: 1,
        topology_key,
        when_unsatisfiable,
        match_label_keys: ["pod-template-hash"],
        node_affinity_policy: "Ignore",
    };
    [one("kubernetes.io/hostname", "DoNotSchedule"), one("topology.kubernetes.io/zone", "ScheduleAnyway")]
}

/// What a replica's containers request: together exactly what placement counts for the replica.
pub(super) fn containers(request: Amount, driver: Driver) -> BTreeMap<&'static str, Resources> {
    let mut shares = vec![("controllerManager", CONTROLLER_PERMILLE), ("scheduler", SCHEDULER_PERMILLE)];
    // etcd needs no go-between.
    if driver != Driver::Etcd {
        shares.push(("kine", STORE_PERMILLE));
    }
    let tunnel = share(request, TUNNEL_PERMILLE);
    let mut left = Amount {
        cpu_milli: request.cpu_milli - tunnel.cpu_milli,
        memory_mib: request.memory_mib - tunnel.memory_mib,
    };
    let mut all = BTreeMap::new();
    for (name, permille) in shares {
        let part = share(request, permille);
        left.cpu_milli -= part.cpu_milli;
        left.memory_mib -= part.memory_mib;
        all.insert(name, Resources::new(part.cpu_milli, part.memory_mib));
    }
    all.insert("apiServer", Resources::new(left.cpu_milli, left.memory_mib));
    all
}

/// Thousandths of an amount, rounded down: below a whole, and below it together.
fn share(request: Amount, (cpu, memory): (u32, u32)) -> Amount {
    let part = |whole: u32, permille: u32| (u64::from(whole) * u64::from(permille) / 1_000) as u32;
    Amount { cpu_milli: part(request.cpu_milli, cpu), memory_mib: part(request.memory_mib, memory) }
}

pub(super) fn addons(request: Amount) -> Addons {
    let tunnel = share(request, TUNNEL_PERMILLE);
    let everything = Toleration {
        key: None,
        operator: "Exists".to_owned(),
        value: None,
        effect: None,
        toleration_seconds: None,
    };
    Addons {
        core_dns: Empty {},
        kube_proxy: Empty {},
        konnectivity: Tunnel {
            server: TunnelServer {
                port: TUNNEL_PORT,
                resources: Resources::new(tunnel.cpu_milli, tunnel.memory_mib),
            },
            agent: TunnelAgent {
                // Otherwise agents keep to the servers they found first, and a new pod has none.
                extra_args: ["--sync-forever=true"],
                host_network: true,
                tolerations: [everything],
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use proto::placement::Driver;

    use super::{addons, containers};
    use crate::desired::Amount;

    #[test]
    fn containers_request_together_what_the_replica_does() {
        for (cpu_milli, memory_mib) in [(500, 1200), (501, 1201), (1, 1), (0, 0), (6_000, 10_240)] {
            let request = Amount { cpu_milli, memory_mib };
            for driver in [Driver::Etcd, Driver::MySql, Driver::PostgreSql] {
                let mut all: Vec<_> = containers(request, driver).into_values().collect();
                all.push(addons(request).konnectivity.server.resources);
                let sum = |name: &str, unit: &str| -> u32 {
                    all.iter()
                        .map(|one| one.requests[name].trim_end_matches(unit).parse::<u32>().unwrap())
                        .sum()
                };
                assert_eq!((sum("cpu", "m"), sum("memory", "Mi")), (cpu_milli, memory_mib));
            }
        }
    }
}
