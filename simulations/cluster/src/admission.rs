//! What may not be written: names, what never changes once made, quotas, and the rules of Kamaji's webhooks.

use serde_json::{Map, Value, json};

use crate::json::{at, items, members, quantity_millis, remove, set, text};
use crate::kind::{self, Kind};
use crate::selector::Selector;
use crate::status::Refusal;
use crate::store::Key;
use crate::{Cluster, behaviour, defaults};

/// The newest minor version of tenants' Kubernetes that Kamaji takes.
const TENANT_MINOR_MAX: u32 = 36;

/// Fields that must stay as they were made: kind, path.
const FIXED: &[(&str, &str)] = &[
    ("deployments", "spec.selector"),
    ("replicasets", "spec.selector"),
    ("statefulsets", "spec.selector"),
    ("statefulsets", "spec.serviceName"),
    ("rolebindings", "roleRef"),
    ("clusterrolebindings", "roleRef"),
    ("certificatesigningrequests", "spec"),
    ("datastores", "spec.driver"),
    ("tenantcontrolplanes", "spec.dataStoreSchema"),
    ("tenantcontrolplanes", "spec.dataStoreUsername"),
    ("tenantcontrolplanes", "spec.networkProfile.clusterDomain"),
    ("tenantcontrolplanes", "spec.networkProfile.serviceCidr"),
    ("tenantcontrolplanes", "spec.networkProfile.podCidr"),
    ("tenantcontrolplanes", "spec.networkProfile.loadBalancerClass"),
];

/// The members that Kamaji's definition knows; others are taken out with a warning.
const KNOWN: &[(&str, &[&str])] = &[
    ("spec.writePermissions", &["blockCreation", "blockUpdate", "blockDeletion"]),
    ("spec.controlPlane", &["deployment", "service", "ingress", "gateway"]),
    (
        "spec.controlPlane.deployment",
        &[
            "replicas",
            "strategy",
            "nodeSelector",
            "tolerations",
            "affinity",
            "topologySpreadConstraints",
            "runtimeClassName",
            "resources",
            "extraArgs",
            "probes",
            "registrySettings",
            "additionalMetadata",
            "podAdditionalMetadata",
            "additionalInitContainers",
            "additionalContainers",
            "additionalVolumes",
            "additionalVolumeMounts",
            "serviceAccountName",
            "automountServiceAccountToken",
            "containerSecurityContexts",
            "podSecurityContext",
        ],
    ),
    ("spec.addons", &["coreDNS", "kubeProxy", "konnectivity"]),
    (
        "spec.addons.konnectivity.agent",
        &["mode", "replicas", "hostNetwork", "image", "version", "tolerations", "extraArgs", "resources"],
    ),
];

/// A name that the kind may have.
pub(crate) fn check_name(kind: &Kind, name: &str, bytes_max: usize) -> Result<(), Refusal> {
    let letters = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let edges = label.bytes().next().is_some_and(inner) && label.bytes().last().is_some_and(inner);
        edges && label.bytes().all(|byte| inner(byte) || byte == b'-')
    };
    // Names of roles are path segments, nothing more.
    let loose = kind.group == "rbac.authorization.k8s.io";
    let subdomain = !name.is_empty() && name.split('.').all(letters);
    let fits = if loose { !name.is_empty() && !name.contains(['/', '%']) } else { subdomain };
    if !fits || name.len() > bytes_max {
        let why = format!("Invalid value: {name:?}: a lowercase RFC 1123 subdomain is needed");
        return Err(Refusal::invalid(kind, name, "metadata.name", &why));
    }
    let label = matches!(kind.plural, "services" | "tenantcontrolplanes");
    if label
        && (name.contains('.') || name.len() > 63 || name.starts_with(|first: char| first.is_ascii_digit()))
    {
        let why = format!("Invalid value: {name:?}: a DNS-1035 label is needed");
        return Err(Refusal::invalid(kind, name, "metadata.name", &why));
    }
    Ok(())
}

impl Cluster {
    /// Lets a change pass, completed with what depends on the rest of the cluster.
    pub(crate) fn admit(
        &mut self,
        kind: &'static Kind,
        key: &Key,
        before: &Value,
        new: &mut Value,
    ) -> Result<(), Refusal> {
        let made = before.is_null();
        if made && kind.namespaced {
            self.namespace_is_open(kind, key)?;
        }
        for (_, path) in FIXED.iter().filter(|(plural, _)| *plural == kind.plural) {
            if !made && !at(before, path).is_null() && at(before, path) != at(new, path) {
                let why = format!("Invalid value: {}: field is immutable", at(new, path));
                return Err(Refusal::invalid(kind, &key.name, path, &why));
            }
        }
        match key.kind {
            "deployments" | "replicasets" | "statefulsets" => check_template(kind, key, new),
            "pods" if made => {
                self.gate(new);
                defaults::tolerations(&mut new["spec"]);
                self.check_quota(kind, key, new)
            }
            "pods" => check_pod_change(kind, key, before, new),
            "services" => {
                self.address(new);
                Ok(())
            }
            "tenantcontrolplanes" => {
                self.prune(new);
                self.check_plane(kind, key, before, new)
            }
            _ => Ok(()),
        }
    }

    fn namespace_is_open(&self, kind: &Kind, key: &Key) -> Result<(), Refusal> {
        let namespace = self.get("namespaces", "", &key.namespace);
        let namespace =
            namespace.ok_or_else(|| Refusal::not_found(kind::known("namespaces"), &key.namespace))?;
        if at(namespace, "metadata.deletionTimestamp").is_null() {
            return Ok(());
        }
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            key.namespace
        );
        Err(Refusal::forbidden(kind, &key.name, &why))
    }

    /// Refuses a pod that would take its namespace beyond a quota.
    fn check_quota(&self, kind: &Kind, key: &Key, pod: &Value) -> Result<(), Refusal> {
        for (quota, object) in self.store.list("resourcequotas", Some(&key.namespace)) {
            for (resource, hard) in at(object, "spec.hard").as_object().into_iter().flatten() {
                let uses = |pod: &Value| behaviour::quota_use(pod, resource);
                let pods = self.store.list("pods", Some(&key.namespace));
                let used: i128 = pods.map(|(_, pod)| uses(pod)).sum();
                if uses(pod) > 0 && used + uses(pod) > quantity_millis(hard).unwrap_or(i128::MAX) {
                    let why = format!("exceeded quota: {}, limited: {resource}={hard}", quota.name);
                    return Err(Refusal::forbidden(kind, &key.name, &why));
                }
            }
        }
        Ok(())
    }

    /// Gives a service its addresses.
    fn address(&mut self, service: &mut Value) {
        let kind = text(service, "spec.type").to_owned();
        if text(service, "spec.clusterIP").is_empty() && kind != "ExternalName" {
            self.made_up += 1;
            let number = self.made_up;
            let address = format!("10.96.{}.{}", number / 250 % 250, number % 250 + 1);
            set(service, "spec.clusterIP", address.as_str());
            set(service, "spec.clusterIPs", json!([address]));
        }
        if kind == "LoadBalancer" && items(service, "status.loadBalancer.ingress").is_empty() {
            self.made_up += 1;
            let number = self.made_up;
            let address = format!("198.18.{}.{}", number / 250 % 250, number % 250 + 1);
            set(service, "status.loadBalancer.ingress", json!([{ "ip": address, "ipMode": "VIP" }]));
        }
    }

    fn prune(&mut self, plane: &mut Value) {
        for (path, known) in KNOWN {
            let unknown: Vec<String> = at(plane, path)
                .as_object()
                .map(|members: &Map<String, Value>| {
                    members.keys().filter(|name| !known.contains(&name.as_str()))
                })
                .into_iter()
                .flatten()
                .map(|name| format!("{path}.{name}"))
                .collect();
            for path in unknown {
                remove(plane, &path);
                self.warnings.push(format!("unknown field \"{path}\""));
            }
        }
    }

    fn check_plane(&self, kind: &Kind, key: &Key, before: &Value, new: &Value) -> Result<(), Refusal> {
        let refuse = |field: &str, why: &str| Err(Refusal::invalid(kind, &key.name, field, why));
        if text(new, "spec.controlPlane.service.serviceType").is_empty() {
            return refuse("spec.controlPlane.service.serviceType", "Required value");
        }
        let version = text(new, "spec.kubernetes.version");
        let Some(wanted) = minor_and_patch(version) else {
            return refuse("spec.kubernetes.version", &format!("Invalid value: {version:?}: not a version"));
        };
        if wanted.0 > TENANT_MINOR_MAX {
            return refuse(
                "spec.kubernetes.version",
                "unable to use a version newer than the supported one (v1.36)",
            );
        }
        if let Some(installed) = minor_and_patch(text(before, "spec.kubernetes.version")) {
            if wanted < installed {
                return refuse("spec.kubernetes.version", "unable to downgrade a TenantControlPlane");
            }
            if wanted.0 > installed.0 + 1 {
                return refuse(
                    "spec.kubernetes.version",
                    "unable to upgrade by more than one minor version at once",
                );
            }
        }
        let deployment = "spec.controlPlane";
        if !at(new, deployment)["ingress"].is_null() && !at(new, deployment)["gateway"].is_null() {
            return refuse("spec.controlPlane", "ingress and gateway exclude each other");
        }
        self.check_data_store(kind, key, before, new)
    }

    fn check_data_store(&self, kind: &Kind, key: &Key, before: &Value, new: &Value) -> Result<(), Refusal> {
        let field = "spec.dataStore";
        let name = text(new, field);
        let unchanged = text(before, field) == name;
        let Some(store) = self.get("datastores", "", name) else {
            if unchanged {
                return Ok(());
            }
            let why = format!("{name} DataStore does not exist");
            return Err(Refusal::invalid(kind, &key.name, field, &why));
        };
        let driver = text(store, "spec.driver");
        let old =
            self.get("datastores", "", text(before, field)).map_or("", |store| text(store, "spec.driver"));
        if !old.is_empty() && old != driver {
            let why = format!("migration between different drivers is not supported: {old} to {driver}");
            return Err(Refusal::invalid(kind, &key.name, field, &why));
        }
        let place = format!("{}/{}", key.namespace, key.name);
        let others = items(store, "status.usedBy").iter().any(|user| user != place.as_str());
        if driver == "NATS" && others && !unchanged {
            let why = "a NATS DataStore holds one TenantControlPlane only";
            return Err(Refusal::invalid(kind, &key.name, field, why));
        }
        Ok(())
    }
}

/// Minor version and patch of a version such as `v1.35.2`.
pub(crate) fn minor_and_patch(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim_start_matches('v').split('.');
    (numbers.next()? == "1").then_some(())?;
    let minor = numbers.next()?.parse().ok()?;
    Some((minor, numbers.next().map_or(Some(0), |patch| patch.parse().ok())?))
}

fn check_template(kind: &Kind, key: &Key, new: &Value) -> Result<(), Refusal> {
    let selector = Selector::of_object(at(new, "spec.selector"));
    if selector.is_empty() {
        return Err(Refusal::invalid(kind, &key.name, "spec.selector", "Required value"));
    }
    if !selector.selects(at(new, "spec.template")) {
        let why = "`selector` does not match template `labels`";
        return Err(Refusal::invalid(kind, &key.name, "spec.template.metadata.labels", why));
    }
    if items(new, "spec.template.spec.containers").is_empty() {
        return Err(Refusal::invalid(kind, &key.name, "spec.template.spec.containers", "Required value"));
    }
    Ok(())
}

/// A pod's specification stays as it is, except images, gates that go, tolerations that come, and, while it is
/// gated, where it may run, if that becomes narrower.
fn check_pod_change(kind: &Kind, key: &Key, before: &Value, new: &Value) -> Result<(), Refusal> {
    let forbid = |field: &str, why: &str| Err(Refusal::invalid(kind, &key.name, field, why));
    let (old, now) = (&before["spec"], &new["spec"]);
    if old == now {
        return Ok(());
    }
    let gated = !items(old, "schedulingGates").is_empty();
    let kept = |list: &str| items(now, list).iter().all(|one| items(old, list).contains(one));
    if !kept("schedulingGates") {
        return forbid("spec.schedulingGates", "only deletion is allowed");
    }
    if !items(old, "tolerations").iter().all(|one| items(now, "tolerations").contains(one)) {
        return forbid(
            "spec.tolerations",
            "existing toleration can not be modified except its tolerationSeconds",
        );
    }
    if gated && !narrower(old, now) {
        return forbid("spec.affinity", "a gated pod's node affinity and selector can only become narrower");
    }
    let comparable = |spec: &Value| {
        let mut spec = spec.clone();
        for name in [
            "schedulingGates",
            "tolerations",
            "terminationGracePeriodSeconds",
            "activeDeadlineSeconds",
            "nodeName",
        ] {
            remove(&mut spec, name);
        }
        if gated {
            remove(&mut spec, "nodeSelector");
            remove(&mut spec, "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
            for emptied in ["affinity.nodeAffinity", "affinity"] {
                if at(&spec, emptied).as_object().is_some_and(Map::is_empty) {
                    remove(&mut spec, emptied);
                }
            }
        }
        let containers = spec.get_mut("containers").and_then(Value::as_array_mut).into_iter().flatten();
        containers.for_each(|container| drop(remove(container, "image")));
        spec
    };
    if comparable(old) != comparable(now) {
        return forbid(
            "spec",
            "Forbidden: pod updates may not change fields other than images, gates and tolerations",
        );
    }
    let (bound, host) = (text(old, "nodeName"), text(now, "nodeName"));
    if bound != host && !bound.is_empty() {
        return forbid("spec.nodeName", "field is immutable");
    }
    Ok(())
}

/// Whether a pod's node selector and required node affinity only gained conditions: the selector's pairs are all
/// there, and every term begins with what the old term said.
fn narrower(old: &Value, new: &Value) -> bool {
    let pairs = members(old, "nodeSelector").all(|(name, value)| new["nodeSelector"][name] == value);
    let path = "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    let (old, new) = (items(old, path), items(new, path));
    let within = |name: &str, (old, new): (&Value, &Value)| {
        items(old, name).iter().all(|one| items(new, name).contains(one))
    };
    let terms = old.is_empty()
        || (old.len() == new.len()
            && old
                .iter()
                .zip(new)
                .all(|pair| within("matchExpressions", pair) && within("matchFields", pair)));
    pairs && terms
}
