//! What Kamaji makes of a plane: its Deployment, Service and Secrets.

use serde_json::{Map, Value, json};

use crate::Settings;
use crate::defaults::base64;
use crate::json::{at, digest, items, list, number, owner, place, remove, set, suffix, text};
use crate::store::Key;

/// Labels of Kamaji's.
const NAME: &str = "kamaji.clastix.io/name";
const CHECKSUM: &str = "component.kamaji.clastix.io/certificates";

/// The pod template's members that Kamaji sets from the plane at every pass, whatever somebody else wrote there: as
/// the template names them, and the plane's deployment.
const OVERWRITTEN: &[(&str, &str)] = &[
    ("nodeSelector", "nodeSelector"),
    ("tolerations", "tolerations"),
    ("affinity", "affinity"),
    ("topologySpreadConstraints", "topologySpreadConstraints"),
    ("runtimeClassName", "runtimeClassName"),
    ("serviceAccountName", "serviceAccountName"),
    ("securityContext", "podSecurityContext"),
    ("initContainers", "additionalInitContainers"),
    ("volumes", "additionalVolumes"),
];

/// Secrets besides the administrator's kubeconfig: ends of their names, and whether only the tunnel needs them.
pub(super) const SECRETS: &[(&str, bool)] = &[
    ("ca", false),
    ("api-server-certificate", false),
    ("api-server-kubelet-client-certificate", false),
    ("front-proxy-ca-certificate", false),
    ("front-proxy-client-certificate", false),
    ("sa-certificate", false),
    ("controller-manager-kubeconfig", false),
    ("scheduler-kubeconfig", false),
    ("konnectivity-certificate", true),
    ("konnectivity-kubeconfig", true),
    ("datastore-certificate", false),
    ("datastore-config", false),
];

pub(super) fn tunnel(plane: &Value) -> Option<&Value> {
    Some(at(plane, "spec.addons.konnectivity")).filter(|tunnel| !tunnel.is_null())
}

/// The state of a plane's Deployment after one more pass. Kamaji adds the tunnel and the certificates' checksum in
/// passes of their own, so that a new plane has several sets of pods one after the other.
pub(super) fn deployment(plane: &Value, live: Option<&Value>, driver: &str) -> Value {
    let named = text(plane, "metadata.name");
    let has = |name: &str| {
        live.is_some_and(|live| {
            items(live, "spec.template.spec.containers").iter().any(|one| text(one, "name") == name)
        })
    };
    let checked = live.is_some_and(|live| !at(live, "spec.template.metadata.labels")[CHECKSUM].is_null());
    let with_tunnel = tunnel(plane).is_some() && live.is_some();
    let with_checksum =
        checked || (live.is_some() && (tunnel(plane).is_none() || has("konnectivity-server")));

    let wanted = at(plane, "spec.controlPlane.deployment");
    let mut object = live.cloned().unwrap_or_else(|| {
        json!({ "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": named, "namespace": text(plane, "metadata.namespace") } })
    });
    for (name, value) in at(wanted, "additionalMetadata.labels").as_object().into_iter().flatten() {
        place(&mut object, "metadata.labels")[name] = value.clone();
    }
    for (name, value) in at(wanted, "additionalMetadata.annotations").as_object().into_iter().flatten() {
        place(&mut object, "metadata.annotations")[name] = value.clone();
    }
    place(&mut object, "metadata.labels")[NAME] = named.into();
    set(&mut object, "metadata.ownerReferences", json!([owner(plane, true)]));
    set(&mut object, "spec.replicas", number(wanted, "replicas"));
    set(&mut object, "spec.selector", json!({ "matchLabels": { NAME: named } }));
    set(&mut object, "spec.strategy", at(wanted, "strategy").clone());

    let mut labels = at(wanted, "podAdditionalMetadata.labels").clone();
    let store = text(plane, "status.storage.dataStoreName");
    for (name, value) in [
        (NAME, named),
        ("kamaji.clastix.io/component", "deployment"),
        ("component.kamaji.clastix.io/datastore", store),
    ] {
        crate::json::entry(&mut labels, name);
        labels[name] = value.into();
    }
    if with_checksum {
        let sans = at(plane, "spec.networkProfile.certSANs").to_string();
        labels[CHECKSUM] = suffix(digest([text(plane, "metadata.uid"), &sans, store]), 12).into();
    }
    let annotations = at(wanted, "podAdditionalMetadata.annotations").clone();
    set(&mut object, "spec.template.metadata", json!({ "labels": labels, "annotations": annotations }));
    for (name, from) in OVERWRITTEN {
        let value = at(wanted, from).clone();
        let path = format!("spec.template.spec.{name}");
        if value.is_null() { drop(remove(&mut object, &path)) } else { set(&mut object, &path, value) }
    }
    for constraint in list(&mut object, "spec.template.spec.topologySpreadConstraints") {
        if at(constraint, "labelSelector").is_null() {
            set(constraint, "labelSelector", json!({ "matchLabels": { NAME: named } }));
        }
    }
    let mut containers = containers(plane, wanted, driver, with_tunnel);
    // Of what somebody wrote into a container, only its life cycle stays.
    for container in &mut containers {
        let old = live.into_iter().flat_map(|live| items(live, "spec.template.spec.containers"));
        let old = old.into_iter().find(|old| old["name"] == container["name"]);
        if let Some(lifecycle) = old.and_then(|old| old.get("lifecycle")) {
            container["lifecycle"] = lifecycle.clone();
        }
    }
    set(&mut object, "spec.template.spec.containers", containers);
    if items(&object, "spec.template.spec.topologySpreadConstraints").is_empty() {
        remove(&mut object, "spec.template.spec.topologySpreadConstraints");
    }
    object
}

fn containers(plane: &Value, wanted: &Value, driver: &str, with_tunnel: bool) -> Vec<Value> {
    let version = text(plane, "spec.kubernetes.version");
    let registry = match text(wanted, "registrySettings.registry") {
        "" => "registry.k8s.io",
        registry => registry,
    };
    let extra = |name: &str| at(wanted, "extraArgs").get(name).cloned().unwrap_or_else(|| json!([]));
    let one = |container: &str, name: &str, image: String, mut arguments: Vec<Value>| {
        arguments.extend(extra(name).as_array().into_iter().flatten().cloned());
        let mut made = json!({ "name": container, "image": image, "args": arguments });
        for (member, from) in
            [("resources", format!("resources.{name}")), ("probes", format!("probes.{name}"))]
        {
            match (member, at(wanted, &from)) {
                (_, Value::Null) => {}
                ("probes", probes) => made["startupProbe"] = at(probes, "startup").clone(),
                (_, value) => made[member] = value.clone(),
            }
        }
        made
    };
    let image = |name: &str| format!("{registry}/{name}:{version}");
    let port = number(plane, "spec.networkProfile.port");
    let store = text(plane, "status.storage.dataStoreName");
    let admission = at(plane, "spec.kubernetes.admissionControllers").as_array().into_iter().flatten();
    let admission: Vec<_> = admission.filter_map(Value::as_str).collect();
    let mut server = vec![
        json!(format!("--secure-port={port}")),
        json!(format!("--etcd-servers={store}")),
        json!(format!("--enable-admission-plugins={}", admission.join(","))),
    ];
    let replicas = number(wanted, "replicas");
    if with_tunnel {
        server.push("--egress-selector-config-file=/etc/kubernetes/konnectivity/egress-selector.yaml".into());
    }
    let mut made: Vec<Value> =
        at(wanted, "additionalContainers").as_array().into_iter().flatten().cloned().collect();
    made.push(one("kube-apiserver", "apiServer", image("kube-apiserver"), server));
    made.push(one("kube-scheduler", "scheduler", image("kube-scheduler"), Vec::new()));
    made.push(one(
        "kube-controller-manager",
        "controllerManager",
        image("kube-controller-manager"),
        Vec::new(),
    ));
    if driver != "etcd" {
        made.push(one("kine", "kine", "rancher/kine:v0.11.10".to_owned(), Vec::new()));
    }
    if let Some(tunnel) = tunnel(plane).filter(|_| with_tunnel) {
        let minor = crate::admission::minor_and_patch(version).map_or(0, |(minor, _)| minor);
        let agents = number(tunnel, "server.port");
        // The count of servers is an argument: every change of replicas is a change of the template.
        let mut container = json!({
            "name": "konnectivity-server",
            "image": format!("registry.k8s.io/kas-network-proxy/proxy-server:v0.{minor}.0"),
            "args": [format!("--agent-port={agents}"), format!("--server-count={replicas}")],
        });
        if !at(tunnel, "server.resources").is_null() {
            container["resources"] = at(tunnel, "server.resources").clone();
        }
        made.push(container);
    }
    made
}

/// A plane's Service.
pub(super) fn service(plane: &Value, live: Option<&Value>) -> Value {
    let named = text(plane, "metadata.name");
    let mut object = live.cloned().unwrap_or_else(|| {
        json!({ "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": named, "namespace": text(plane, "metadata.namespace") } })
    });
    let wanted = at(plane, "spec.controlPlane.service");
    for part in ["labels", "annotations"] {
        for (name, value) in
            at(wanted, &format!("additionalMetadata.{part}")).as_object().into_iter().flatten()
        {
            place(&mut object, &format!("metadata.{part}"))[name] = value.clone();
        }
    }
    place(&mut object, "metadata.labels")[NAME] = named.into();
    set(&mut object, "metadata.ownerReferences", json!([owner(plane, true)]));
    set(&mut object, "spec.type", text(wanted, "serviceType"));
    set(&mut object, "spec.selector", json!({ NAME: named }));
    let port = |name: &str, number: i64| json!({ "name": name, "port": number, "targetPort": number, "protocol": "TCP" });
    let mut ports = vec![port("kube-apiserver", number(plane, "spec.networkProfile.port"))];
    ports.extend(tunnel(plane).map(|tunnel| port("konnectivity-server", number(tunnel, "server.port"))));
    ports.extend(items(wanted, "additionalPorts").iter().cloned());
    set(&mut object, "spec.ports", ports);
    object
}

/// A plane's Secret. The administrator's kubeconfig is one that works against this cluster; the other Secrets hold
/// texts in the place of keys.
pub(super) fn secret(plane: &Value, end: &str, settings: &Settings) -> Value {
    let (namespace, named) = (text(plane, "metadata.namespace"), text(plane, "metadata.name"));
    let coded = |plain: &str| Value::from(base64(plain.as_bytes()));
    let data = if end == "admin-kubeconfig" {
        let (base_url, authority) = (&settings.base_url, &settings.certificate_authority);
        let outside = format!("{base_url}/tenants/{namespace}/{named}");
        let inside = format!("https://{named}.{namespace}.svc:{}", number(plane, "spec.networkProfile.port"));
        let files = [
            ("admin.conf", &outside),
            ("super-admin.conf", &outside),
            ("admin.svc", &inside),
            ("super-admin.svc", &inside),
        ];
        let files =
            files.map(|(name, server)| (name.to_owned(), coded(&kubeconfig(named, server, authority))));
        Value::Object(Map::from_iter(files))
    } else {
        json!({ "content": coded(&format!("{end} of {}", text(plane, "metadata.uid"))) })
    };
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
        "metadata": { "name": format!("{named}-{end}"), "namespace": namespace,
            "labels": { NAME: named }, "ownerReferences": [owner(plane, true)] },
    })
}

fn kubeconfig(named: &str, server: &str, authority: &str) -> String {
    let mut cluster = json!({ "server": server });
    if !authority.is_empty() {
        cluster["certificate-authority-data"] = base64(authority.as_bytes()).into();
    }
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": named, "preferences": {},
        "clusters": [{ "name": named, "cluster": cluster }],
        "users": [{ "name": "kubernetes-admin", "user": {} }],
        "contexts": [{ "name": named, "context": { "cluster": named, "user": "kubernetes-admin" } }],
    })
    .to_string()
}

/// The key of a Secret of a plane.
pub(super) fn secret_key(plane: &Key, end: &str) -> Key {
    Key::new("secrets", &plane.namespace, &format!("{}-{end}", plane.name))
}
