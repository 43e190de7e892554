//! Which lists are merged by key, which are sets, and what is replaced as a whole: all that server-side apply and
//! strategic merge need to know of a kind. Source: the `listType`, `listMapKey` and `mapType` marks of the Kubernetes
//! API (1.36) for the fields we write or meet; a list that is not named here is replaced as a whole.

use serde_json::Value;

use crate::status::Refusal;

/// How a value is merged with another.
#[derive(Debug)]
pub enum Shape {
    /// An object, member by member; members not named have the shape [`ANY`].
    Open(&'static [(&'static str, &'static Shape)]),
    /// A list of objects told apart by some of their members.
    Keyed(&'static [&'static str], &'static Shape),
    /// A list whose values are told apart by themselves.
    Set,
    /// Replaced as a whole.
    Atomic,
}

use Shape::{Atomic, Keyed, Open, Set};

/// An object of which nothing is known, or a list that is replaced as a whole, or a plain value.
pub static ANY: Shape = Open(&[]);
static ATOMIC: Shape = Atomic;
static BY_NAME: Shape = Keyed(&["name"], &ANY);
static BY_TYPE: Shape = Keyed(&["type"], &ANY);

static METADATA: Shape = Open(&[("finalizers", &Set), ("ownerReferences", &Keyed(&["uid"], &ANY))]);

static CONTAINER: Shape = Open(&[
    ("env", &BY_NAME),
    ("ports", &Keyed(&["containerPort", "protocol"], &ANY)),
    ("volumeMounts", &Keyed(&["mountPath"], &ANY)),
    ("volumeDevices", &Keyed(&["devicePath"], &ANY)),
    ("resources", &Open(&[("claims", &BY_NAME)])),
]);
static CONTAINERS: Shape = Keyed(&["name"], &CONTAINER);

static POD_SPEC: Shape = Open(&[
    ("containers", &CONTAINERS),
    ("initContainers", &CONTAINERS),
    ("ephemeralContainers", &CONTAINERS),
    ("volumes", &BY_NAME),
    ("imagePullSecrets", &BY_NAME),
    ("hostAliases", &Keyed(&["ip"], &ANY)),
    ("schedulingGates", &BY_NAME),
    ("topologySpreadConstraints", &Keyed(&["topologyKey", "whenUnsatisfiable"], &SPREAD)),
    ("nodeSelector", &ATOMIC),
    (
        "affinity",
        &Open(&[("nodeAffinity", &Open(&[("requiredDuringSchedulingIgnoredDuringExecution", &ATOMIC)]))]),
    ),
]);
static SPREAD: Shape = Open(&[("labelSelector", &ATOMIC)]);
static CONDITIONS: Shape = Open(&[("conditions", &BY_TYPE)]);

/// A kind of which only the metadata and conditions have keys.
pub static PLAIN: Shape = Open(&[("metadata", &METADATA), ("status", &CONDITIONS), ("selector", &ATOMIC)]);
/// Pods.
pub static POD: Shape = Open(&[("metadata", &METADATA), ("spec", &POD_SPEC), ("status", &POD_STATUS)]);
static POD_STATUS: Shape =
    Open(&[("conditions", &BY_TYPE), ("podIPs", &Keyed(&["ip"], &ANY)), ("hostIPs", &ATOMIC)]);
/// What holds a template of pods.
pub static WORKLOAD: Shape =
    Open(&[("metadata", &METADATA), ("spec", &WORKLOAD_SPEC), ("status", &CONDITIONS)]);
static WORKLOAD_SPEC: Shape = Open(&[("selector", &ATOMIC), ("template", &TEMPLATE)]);
static TEMPLATE: Shape = Open(&[("metadata", &METADATA), ("spec", &POD_SPEC)]);
/// Services.
pub static SERVICE: Shape = Open(&[
    ("metadata", &METADATA),
    ("spec", &Open(&[("ports", &Keyed(&["port", "protocol"], &ANY)), ("selector", &ATOMIC)])),
    ("status", &CONDITIONS),
]);
/// Hosts.
pub static NODE: Shape = Open(&[
    ("metadata", &METADATA),
    ("spec", &Open(&[("podCIDRs", &Set)])),
    ("status", &Open(&[("conditions", &BY_TYPE), ("addresses", &BY_TYPE)])),
]);
/// Budgets and policies whose selector is one thing.
pub static SELECTING: Shape = Open(&[
    ("metadata", &METADATA),
    ("spec", &Open(&[("selector", &ATOMIC), ("podSelector", &ATOMIC)])),
    ("status", &CONDITIONS),
]);
/// Service accounts.
pub static ACCOUNT: Shape =
    Open(&[("metadata", &METADATA), ("secrets", &BY_NAME), ("imagePullSecrets", &ATOMIC)]);

impl Shape {
    /// The shape of a member of an object.
    pub fn member(&self, name: &str) -> &'static Self {
        match self {
            Open(named) => named.iter().find(|(known, _)| *known == name).map_or(&ANY, |(_, shape)| *shape),
            _ => &ATOMIC,
        }
    }
}

/// What tells an item of a keyed list apart, as ownership records write it: the key's members as JSON.
///
/// # Errors
/// When the item lacks a member of its key.
pub fn item_key(item: &Value, keys: &[&str]) -> Result<String, Refusal> {
    let member = |key: &&str| {
        let value = match item.get(key) {
            Some(value) if !value.is_null() => value.clone(),
            // The one key with a default.
            _ if *key == "protocol" => Value::from("TCP"),
            _ => {
                let why = format!("an item of a list that is merged by {keys:?} lacks {key:?}: {item}");
                return Err(Refusal::new(422, "Invalid", why));
            }
        };
        Ok(((*key).to_owned(), value))
    };
    let members: serde_json::Map<_, _> = keys.iter().map(member).collect::<Result<_, _>>()?;
    Ok(Value::Object(members).to_string())
}
