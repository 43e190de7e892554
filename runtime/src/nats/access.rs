//! Who may do what on the bus: our configuration in, the server's `accounts` block out. Pure.
//!
//! Services share the account `WALRAS`, where the streams are. Every party (a storefront, a hypervisor, a
//! worker, an operator) has an account of its own, `<ROLE>-<principal>`, that reaches the streams only through
//! imports of its own subjects:
//!
//! * its commands, as a service: the broker's acknowledgement comes back to the party's own account, so that a
//!   forged reply subject can neither be stored nor reach anybody else;
//! * its answers, and orders for those who get some, live, as a stream;
//! * its durable consumer over each of these, named after the principal, made by our services: the party may
//!   pull, look at and acknowledge that one, and create none. Clients use the `JetStream` domain `walras` for it.
//!
//! Everybody may listen to public prices; observers to nothing else. All permissions are allow lists.

use std::collections::BTreeSet;

use proto::id::{PrincipalId, StreamName, TenantId};
use proto::machine::Role;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use super::key::{self, KeyError};
use super::layout;
use super::permissions::{self, Permissions};

/// Account of our services, where every stream lives.
pub const SERVICES_ACCOUNT: &str = "WALRAS";

/// The server's own account, for operators who look at the server itself.
pub const SYSTEM_ACCOUNT: &str = "SYS";

/// Account of those who only listen to prices.
pub const OBSERVERS_ACCOUNT: &str = "OBSERVER";

/// The `JetStream` domain under which a party reaches its own durable consumers.
pub const API_DOMAIN: &str = "walras";

/// Connections one party may have at once.
pub const PARTY_CONNECTIONS_MAX: u32 = 64;

/// Subscriptions one party's connection may have at once.
pub const PARTY_SUBSCRIPTIONS_MAX: u32 = 256;

/// Everybody who may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// The machines' streams there are: services get rights to these by name.
    pub streams: Vec<MachineStream>,
    /// Our own services.
    pub services: Vec<ServiceUser>,
    /// Who publishes bids.
    pub storefronts: Vec<Storefront>,
    /// Who owns servers.
    pub hypervisors: Vec<Party>,
    /// Agents on leased servers.
    pub workers: Vec<Party>,
    /// Who sets rules and opens markets.
    pub operators: Vec<Party>,
    /// Who only listens to prices.
    pub observers: Vec<Party>,
    /// Public key of the user of the server's own account, if there is one.
    pub system_nkey: Option<String>,
}

/// One stream of a machine, such as `main` of `market`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineStream {
    /// The machine.
    pub machine: ServiceRole,
    /// Its stream.
    pub stream: StreamName,
}

/// One of our services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceUser {
    /// Its name; its inboxes are `_INBOX_<principal>`.
    pub principal: PrincipalId,
    /// What it does.
    pub role: ServiceRole,
    /// Public key.
    pub nkey: String,
}

/// What a service does, and so what it may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceRole {
    /// Runs exchanges, and their webhooks.
    Market,
    /// Runs webhooks.
    Webhook,
    /// Runs sites.
    Placement,
    /// Makes Kubernetes agree.
    Controlplane,
    /// The HTTP door for tenants.
    Gateway,
    /// Everything above in one process.
    All,
}

impl ServiceRole {
    /// The machine a service of this role owns streams of, as a token; also the principal in the commands it
    /// sends to other machines.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::Market => "market",
            Self::Webhook => "webhook",
            Self::Placement => "placement",
            Self::Controlplane => "controlplane",
            Self::Gateway => "gateway",
            Self::All => "all",
        }
    }

    const ALL: [Self; 6] =
        [Self::Market, Self::Webhook, Self::Placement, Self::Controlplane, Self::Gateway, Self::All];
}

/// A party with a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Its name, unique among everybody.
    pub principal: PrincipalId,
    /// Public key.
    pub nkey: String,
}

/// A storefront, and for whom it may speak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storefront {
    /// Its name, unique among everybody.
    pub principal: PrincipalId,
    /// Public key.
    pub nkey: String,
    /// The tenants it is trusted for. The broker does not know tenants; the market checks these.
    #[serde(default)]
    pub tenants: Vec<TenantId>,
}

/// Why an access list is not used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum AccessError {
    /// Two of everybody have one name: they would share answers.
    #[error("access: principal {principal}: named twice")]
    Twice {
        /// The name.
        principal: String,
    },
    /// A party has the name of one of our machines, and would get its answers.
    #[error("access: principal {principal}: reserved for a service of that role")]
    Reserved {
        /// The name.
        principal: String,
    },
    /// Two users have one key: the server could not tell them apart.
    #[error("access: nkey {nkey}: used twice")]
    SharedKey {
        /// The key.
        nkey: String,
    },
    /// Something that is no user's public key.
    #[error("access: principal {principal}: {source}")]
    Key {
        /// Whose.
        principal: String,
        /// What is wrong.
        source: KeyError,
    },
}

/// The prefix of a principal's inboxes, the only ones it may subscribe to.
#[must_use]
pub fn inbox_prefix(principal: &str) -> String {
    format!("_INBOX_{principal}")
}

/// The account of a party.
#[must_use]
pub fn account_of(role: Role, principal: &PrincipalId) -> String {
    format!("{}-{principal}", role.token().to_ascii_uppercase())
}

impl Access {
    /// Every party with its role, in a fixed order.
    fn parties(&self) -> Vec<(Role, &PrincipalId, &str)> {
        let storefronts =
            self.storefronts.iter().map(|one| (Role::Storefront, &one.principal, one.nkey.as_str()));
        let hypervisors = self.hypervisors.iter().map(|one| (Role::Hypervisor, one));
        let workers = self.workers.iter().map(|one| (Role::Worker, one));
        let operators = self.operators.iter().map(|one| (Role::Operator, one));
        let others = hypervisors.chain(workers).chain(operators);
        storefronts.chain(others.map(|(role, one)| (role, &one.principal, one.nkey.as_str()))).collect()
    }

    /// The server's `accounts` block.
    ///
    /// # Errors
    /// See [`AccessError`].
    pub fn accounts(&self) -> Result<Value, AccessError> {
        self.check()?;
        let mut accounts = serde_json::Map::new();
        let system: Vec<Value> = self.system_nkey.iter().map(|nkey| json!({ "nkey": nkey })).collect();
        accounts.insert(SYSTEM_ACCOUNT.to_owned(), json!({ "users": system }));
        accounts.insert(SERVICES_ACCOUNT.to_owned(), self.services_account());
        for (role, principal, nkey) in self.parties() {
            let permissions = permissions::of_party(role, principal.as_str());
            accounts.insert(account_of(role, principal), party_account(role, principal, nkey, &permissions));
        }
        let observers = self
            .observers
            .iter()
            .map(|one| user(&one.nkey, &permissions::of_observer(one.principal.as_str())));
        accounts.insert(
            OBSERVERS_ACCOUNT.to_owned(),
            json!({
                "limits": party_limits(),
                "users": observers.collect::<Vec<_>>(),
                "imports": [import("stream", layout::PRICES)],
            }),
        );
        Ok(Value::Object(accounts))
    }

    /// What of each party's is kept for it: stream, principal and filter of the durable consumer it replays
    /// from. Services make these with [`crate::bus::Bus::ensure_replay`].
    #[must_use]
    pub fn replays(&self) -> Vec<(&'static str, String, String)> {
        let of_party = |(role, principal, _): (Role, &PrincipalId, &str)| {
            let principal = principal.as_str().to_owned();
            kept_for(role, &principal)
                .into_iter()
                .map(move |(stream, filter)| (stream, principal.clone(), filter))
        };
        self.parties().into_iter().flat_map(of_party).collect()
    }

    fn services_account(&self) -> Value {
        let users =
            self.services.iter().map(|service| user(&service.nkey, &permissions::of_service(service, self)));
        let mut exports = vec![json!({ "stream": layout::PRICES })];
        for (role, principal, _) in self.parties() {
            exports.extend(exports_to(role, principal));
        }
        json!({ "jetstream": "enabled", "users": users.collect::<Vec<_>>(), "exports": exports })
    }

    fn check(&self) -> Result<(), AccessError> {
        let services = self.services.iter().map(|one| (&one.principal, one.nkey.as_str()));
        let observers = self.observers.iter().map(|one| (&one.principal, one.nkey.as_str()));
        let parties = self.parties();
        let outsiders = parties.iter().map(|(_, principal, nkey)| (*principal, *nkey)).chain(observers);
        let mut principals = BTreeSet::new();
        let mut keys: BTreeSet<&str> = self.system_nkey.iter().map(String::as_str).collect();
        for (principal, _) in outsiders.clone() {
            if ServiceRole::ALL.iter().any(|role| role.token() == principal.as_str()) {
                return Err(AccessError::Reserved { principal: principal.to_string() });
            }
        }
        for (principal, nkey) in services.chain(outsiders) {
            key::check_public(nkey)
                .map_err(|source| AccessError::Key { principal: principal.to_string(), source })?;
            if !principals.insert(principal) {
                return Err(AccessError::Twice { principal: principal.to_string() });
            }
            if !keys.insert(nkey) {
                return Err(AccessError::SharedKey { nkey: nkey.to_owned() });
            }
        }
        Ok(())
    }
}

/// The streams in which something is kept for a party, each with the party's part of it.
pub(super) fn kept_for(role: Role, principal: &str) -> Vec<(&'static str, String)> {
    let mut kept = vec![(layout::ANSWER_STREAM, layout::answers(principal))];
    if matches!(role, Role::Hypervisor | Role::Worker) {
        kept.push((layout::ORDER_STREAM, layout::orders(role.token(), principal)));
    }
    kept
}

/// What a party may ask of the broker about its own durable consumer of `stream`: each subject as the party says
/// it, and as it is among the services.
///
/// The API answers under the domain [`API_DOMAIN`], because every account has the server's own, empty API under
/// the plain subjects, and both would answer. Pulling is possible under the plain subject too: nothing else
/// answers there, and clients that know no domains can use it.
pub(super) fn replay_subjects(stream: &str, principal: &str) -> [(String, String); 4] {
    let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{principal}");
    let info = format!("$JS.API.CONSUMER.INFO.{stream}.{principal}");
    let acknowledge = format!("$JS.ACK.{stream}.{principal}.>");
    let in_domain = |subject: &str| subject.replacen("$JS.API", &format!("$JS.{API_DOMAIN}.API"), 1);
    [
        (in_domain(&next), next.clone()),
        (in_domain(&info), info),
        (next.clone(), next),
        (acknowledge.clone(), acknowledge),
    ]
}

fn exports_to(role: Role, principal: &PrincipalId) -> Vec<Value> {
    let to = [account_of(role, principal)];
    let mut exports =
        vec![json!({ "service": layout::commands_from(role.token(), principal.as_str()), "accounts": to })];
    for (stream, filter) in kept_for(role, principal.as_str()) {
        exports.push(json!({ "stream": filter, "accounts": to }));
        let subjects: BTreeSet<String> =
            replay_subjects(stream, principal.as_str()).into_iter().map(|(_, subject)| subject).collect();
        for subject in subjects {
            // One pull is answered by many messages.
            exports.push(json!({ "service": subject, "accounts": to, "response": "stream" }));
        }
    }
    exports
}

fn party_account(role: Role, principal: &PrincipalId, nkey: &str, permissions: &Permissions) -> Value {
    let mut imports = vec![
        import("stream", layout::PRICES),
        import("service", &layout::commands_from(role.token(), principal.as_str())),
    ];
    for (stream, filter) in kept_for(role, principal.as_str()) {
        imports.push(import("stream", &filter));
        for (said, meant) in replay_subjects(stream, principal.as_str()) {
            imports.push(json!({ "service": { "account": SERVICES_ACCOUNT, "subject": meant }, "to": said }));
        }
    }
    json!({ "limits": party_limits(), "users": [user(nkey, permissions)], "imports": imports })
}

fn party_limits() -> Value {
    json!({ "max_connections": PARTY_CONNECTIONS_MAX, "max_subscriptions": PARTY_SUBSCRIPTIONS_MAX })
}

fn import(kind: &str, subject: &str) -> Value {
    json!({ kind: { "account": SERVICES_ACCOUNT, "subject": subject } })
}

fn user(nkey: &str, permissions: &Permissions) -> Value {
    json!({
        "nkey": nkey,
        "permissions": {
            "publish": { "allow": permissions.publish },
            "subscribe": { "allow": permissions.subscribe },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::key::generate;

    fn party(principal: &str) -> Party {
        Party { principal: principal.parse().unwrap(), nkey: generate().unwrap().public }
    }

    fn access() -> Access {
        let storefront = party("s1");
        Access {
            streams: vec![MachineStream { machine: ServiceRole::Market, stream: "main".parse().unwrap() }],
            storefronts: vec![Storefront {
                principal: storefront.principal,
                nkey: storefront.nkey,
                tenants: vec![],
            }],
            hypervisors: vec![party("h1")],
            ..Access::default()
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let twice = Access { observers: vec![party("s1")], ..access() };
        let reserved = Access { operators: vec![party("market")], ..access() };
        let mut shared = access();
        shared.workers =
            vec![Party { principal: "w1".parse().unwrap(), nkey: shared.hypervisors[0].nkey.clone() }];
        let mut no_key = access();
        no_key.hypervisors[0].nkey = "UABC".to_owned();
        assert!(access().accounts().is_ok());
        assert!(matches!(twice.accounts(), Err(AccessError::Twice { .. })));
        assert!(matches!(reserved.accounts(), Err(AccessError::Reserved { .. })));
        assert!(matches!(shared.accounts(), Err(AccessError::SharedKey { .. })));
        assert!(matches!(no_key.accounts(), Err(AccessError::Key { .. })));
    }

    #[test]
    fn a_party_has_one_account_and_only_its_own_subjects() {
        let accounts = access().accounts().unwrap();
        let text = accounts["STOREFRONT-s1"].to_string();
        assert!(text.contains("walras.v1.command.*.*.storefront.s1") && text.contains("walras.v1.answer.s1"));
        for foreign in
            ["h1", "walras.v1.event", "walras.v1.query", "walras-order", "$JS.API.STREAM", "CONSUMER.CREATE"]
        {
            assert!(!text.contains(foreign), "{foreign} in {text}");
        }
    }

    #[test]
    fn orders_are_replayed_by_those_who_get_some() {
        let replays = access().replays();
        let of = |principal: &str| {
            replays
                .iter()
                .filter(|(_, name, _)| name == principal)
                .map(|(stream, ..)| *stream)
                .collect::<Vec<_>>()
        };
        assert_eq!(of("s1"), ["walras-answer"]);
        assert_eq!(of("h1"), ["walras-answer", "walras-order"]);
    }
}
