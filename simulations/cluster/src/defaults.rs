//! What an object holds that nobody set: the defaults of the real server for the fields that somebody here reads.

use serde_json::{Value, json};

use crate::json::{at, entry, items, list, place, set, text};
use crate::kind::Kind;

/// Defaults of kinds: plural name, path, value as JSON.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("deployments", "spec.replicas", "1"),
    ("deployments", "spec.revisionHistoryLimit", "10"),
    ("deployments", "spec.progressDeadlineSeconds", "600"),
    ("deployments", "spec.strategy.type", "\"RollingUpdate\""),
    ("replicasets", "spec.replicas", "1"),
    ("statefulsets", "spec.replicas", "1"),
    ("statefulsets", "spec.podManagementPolicy", "\"OrderedReady\""),
    ("services", "spec.type", "\"ClusterIP\""),
    ("services", "spec.sessionAffinity", "\"None\""),
    ("secrets", "type", "\"Opaque\""),
    ("pods", "status.phase", "\"Pending\""),
    ("namespaces", "status.phase", "\"Active\""),
    ("networkpolicies", "spec.policyTypes", "[\"Ingress\"]"),
    ("tenantcontrolplanes", "spec.controlPlane.deployment.replicas", "2"),
    ("tenantcontrolplanes", "spec.controlPlane.deployment.strategy.type", "\"RollingUpdate\""),
    ("tenantcontrolplanes", "spec.controlPlane.deployment.strategy.rollingUpdate.maxSurge", "\"100%\""),
    ("tenantcontrolplanes", "spec.controlPlane.deployment.strategy.rollingUpdate.maxUnavailable", "0"),
    ("tenantcontrolplanes", "spec.controlPlane.deployment.serviceAccountName", "\"default\""),
    ("tenantcontrolplanes", "spec.networkProfile.port", "6443"),
    ("tenantcontrolplanes", "spec.networkProfile.clusterDomain", "\"cluster.local\""),
    ("tenantcontrolplanes", "spec.networkProfile.serviceCidr", "\"10.96.0.0/16\""),
    ("tenantcontrolplanes", "spec.networkProfile.podCidr", "\"10.244.0.0/16\""),
    ("tenantcontrolplanes", "spec.networkProfile.dnsServiceIPs", "[\"10.96.0.10\"]"),
    ("tenantcontrolplanes", "spec.dataStore", "\"default\""),
    ("kamajicontrolplanes", "spec.replicas", "2"),
];

const POD_DEFAULTS: &[(&str, &str)] = &[
    ("restartPolicy", "\"Always\""),
    ("dnsPolicy", "\"ClusterFirst\""),
    ("terminationGracePeriodSeconds", "30"),
    ("schedulerName", "\"default-scheduler\""),
    ("securityContext", "{}"),
];

fn default(value: &mut Value, path: &str, written: &str) {
    let place = place(value, path);
    if place.is_null() {
        // The tables hold JSON that a test reads; what is none would stay null.
        *place = serde_json::from_str(written).unwrap_or_default();
    }
}

/// Completes an object.
pub(crate) fn complete(kind: &Kind, object: &mut Value) {
    for (_, path, written) in DEFAULTS.iter().filter(|(plural, ..)| *plural == kind.plural) {
        default(object, path, written);
    }
    match kind.plural {
        "pods" => pod_spec(entry(object, "spec")),
        "deployments" => {
            if text(object, "spec.strategy.type") == "RollingUpdate" {
                default(object, "spec.strategy.rollingUpdate.maxSurge", "\"25%\"");
                default(object, "spec.strategy.rollingUpdate.maxUnavailable", "\"25%\"");
            }
            pod_spec(place(object, "spec.template.spec"));
        }
        "replicasets" | "statefulsets" => pod_spec(place(object, "spec.template.spec")),
        "services" => service(object),
        "namespaces" => {
            let name = text(object, "metadata.name").to_owned();
            place(object, "metadata.labels")["kubernetes.io/metadata.name"] = name.into();
            if at(object, "metadata.deletionTimestamp").is_null() {
                default(object, "spec.finalizers", "[\"kubernetes\"]");
            }
        }
        "secrets" => {
            let plain = crate::json::remove(object, "stringData").unwrap_or_default();
            for (name, value) in plain.as_object().into_iter().flatten() {
                let coded = base64(value.as_str().unwrap_or_default().as_bytes());
                place(object, "data")[name] = coded.into();
            }
        }
        "nodes" => node(object),
        "tenantcontrolplanes" if !at(object, "spec.addons.konnectivity").is_null() => {
            default(object, "spec.addons.konnectivity.server.port", "8132");
            default(object, "spec.addons.konnectivity.agent.mode", "\"DaemonSet\"");
        }
        _ => {}
    }
}

fn pod_spec(spec: &mut Value) {
    for (name, written) in POD_DEFAULTS {
        default(spec, name, written);
    }
    for group in ["containers", "initContainers"] {
        if at(spec, group).is_null() {
            continue;
        }
        for container in list(spec, group) {
            let image = text(container, "image");
            let always =
                image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or_default().contains(':');
            let policy = if always { "\"Always\"" } else { "\"IfNotPresent\"" };
            default(container, "imagePullPolicy", policy);
            default(container, "resources", "{}");
            if !at(container, "ports").is_null() {
                for port in list(container, "ports") {
                    default(port, "protocol", "\"TCP\"");
                }
            }
        }
    }
}

fn service(object: &mut Value) {
    if at(object, "spec.ports").is_null() {
        return;
    }
    for port in list(object, "spec.ports") {
        default(port, "protocol", "\"TCP\"");
        let number = at(port, "port").clone();
        if at(port, "targetPort").is_null() {
            port["targetPort"] = number;
        }
    }
}

/// A host that says nothing of itself has this much, and is called by its name.
fn node(object: &mut Value) {
    default(object, "status.capacity", "{\"cpu\":\"8\",\"memory\":\"32Gi\",\"pods\":\"110\"}");
    let capacity = at(object, "status.capacity").clone();
    if at(object, "status.allocatable").is_null() {
        set(object, "status.allocatable", capacity);
    }
    let name = text(object, "metadata.name").to_owned();
    if at(object, "status.addresses").is_null() {
        set(object, "status.addresses", json!([{ "type": "Hostname", "address": name }]));
    }
    let labels = place(object, "metadata.labels");
    entry(labels, "kubernetes.io/hostname");
    if labels["kubernetes.io/hostname"].is_null() {
        labels["kubernetes.io/hostname"] = name.into();
    }
}

/// Tolerations that every pod gets that says nothing about hosts that stop answering.
pub(crate) fn tolerations(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let covered = items(spec, "tolerations").iter().any(|one| {
            let effect = text(one, "effect");
            let all = text(one, "key").is_empty() && text(one, "operator") == "Exists";
            (effect.is_empty() || effect == "NoExecute") && (all || text(one, "key") == key)
        });
        if !covered {
            list(spec, "tolerations").push(json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
            }));
        }
    }
}

/// Bytes in base64, as Secrets hold them.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut written = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |place: usize| u32::from(chunk.get(place).copied().unwrap_or_default());
        let group = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(group >> (18 - 6 * place) & 63) as usize];
            written.push(if place <= chunk.len() as u32 { char::from(letter) } else { '=' });
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_hold_json_for_kinds_that_exist() {
        for (plural, path, written) in DEFAULTS {
            assert!(crate::kind::find(plural).is_some(), "{plural}");
            assert!(serde_json::from_str::<Value>(written).is_ok(), "{plural} {path}");
        }
        for (path, written) in POD_DEFAULTS {
            assert!(serde_json::from_str::<Value>(written).is_ok(), "{path}");
        }
    }

    #[test]
    fn base64_pads_as_everybody_does() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
