//! What a site has once: the policy that holds new pods, and data stores.

use std::collections::BTreeMap;

use proto::placement::Driver;
use serde::Serialize;

use super::{Manifest, Metadata, Spec, manifest};
use crate::desired::{DataStore, SecretKey};
use crate::kind::Kind;
use crate::{GATE, MANAGED_BY};

/// The policy's name.
const POLICY: &str = "walras-placement";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    match_constraints: Constraints,
    failure_policy: &'static str,
    reinvocation_policy: &'static str,
    mutations: [Mutation; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Constraints {
    namespace_selector: Labels,
    object_selector: Labels,
    resource_rules: [Rule; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Labels {
    match_labels: BTreeMap<&'static str, &'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: [&'static str; 1],
    api_versions: [&'static str; 1],
    operations: [&'static str; 1],
    resources: [&'static str; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Mutation {
    patch_type: &'static str,
    apply_configuration: Expression,
}

#[derive(Serialize)]
struct Expression {
    expression: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    policy_name: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Store {
    driver: &'static str,
    endpoints: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    basic_auth: Option<BasicAuth>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_config: Option<Tls>,
}

#[derive(Serialize)]
struct BasicAuth {
    username: Leaf,
    password: Leaf,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tls {
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority: Option<Pair>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_certificate: Option<Pair>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pair {
    certificate: Leaf,
    private_key: Leaf,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Leaf {
    secret_reference: SecretKey,
}

/// The policy that holds new pods of planes in our namespaces, and its binding. A policy that fails holds nothing:
/// then the scheduler decides, which is worse, but serves.
pub(crate) fn policies() -> [Manifest; 2] {
    let expression = format!(
        "Object{{spec: Object.spec{{schedulingGates: [Object.spec.schedulingGates{{name: \"{GATE}\"}}]}}}}"
    );
    let policy = Policy {
        match_constraints: Constraints {
            namespace_selector: Labels { match_labels: BTreeMap::from([MANAGED_BY]) },
            object_selector: Labels {
                match_labels: BTreeMap::from([("kamaji.clastix.io/component", "deployment")]),
            },
            resource_rules: [Rule {
                api_groups: [""],
                api_versions: ["v1"],
                operations: ["CREATE"],
                resources: ["pods"],
            }],
        },
        failure_policy: "Ignore",
        reinvocation_policy: "Never",
        mutations: [Mutation {
            patch_type: "ApplyConfiguration",
            apply_configuration: Expression { expression },
        }],
    };
    [
        manifest(Kind::Policy, Metadata::new("", POLICY), &Spec { spec: policy }),
        manifest(
            Kind::PolicyBinding,
            Metadata::new("", POLICY),
            &Spec { spec: Binding { policy_name: POLICY } },
        ),
    ]
}

/// A driver as Kamaji spells it.
pub(crate) const fn kamaji_driver(driver: Driver) -> &'static str {
    match driver {
        Driver::Etcd => "etcd",
        Driver::MySql => "MySQL",
        Driver::PostgreSql => "PostgreSQL",
    }
}

/// A data store.
pub(crate) fn data_store(name: &str, store: &DataStore) -> Manifest {
    let leaf = |key: &SecretKey| Leaf { secret_reference: key.clone() };
    let pair = |keys: &Option<(SecretKey, SecretKey)>| {
        keys.as_ref()
            .map(|(certificate, key)| Pair { certificate: leaf(certificate), private_key: leaf(key) })
    };
    let tls = Tls { certificate_authority: pair(&store.authority), client_certificate: pair(&store.client) };
    let has_tls = tls.certificate_authority.is_some() || tls.client_certificate.is_some();
    let spec = Store {
        driver: kamaji_driver(store.driver),
        endpoints: store.endpoints.clone(),
        basic_auth: store
            .basic_auth
            .as_ref()
            .map(|(user, password)| BasicAuth { username: leaf(user), password: leaf(password) }),
        tls_config: has_tls.then_some(tls),
    };
    manifest(Kind::DataStore, Metadata::new("", name), &Spec { spec })
}
