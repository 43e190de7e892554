//! The bus that a world stands on: in memory, or a real broker.

use std::collections::BTreeMap;

use runtime::bus::{BrokerOptions, Bus};
use runtime::nats::access::{
    Access, MachineStream, Party, ServiceRole, ServiceUser, Storefront, inbox_prefix,
};
use runtime::nats::callout::Issuer;
use runtime::nats::guard::GuardCommand;
use runtime::nats::key::{UserKey, generate};
use runtime::nats::server::{Server, ServerSpec};
use tempfile::TempDir;

/// The bus of a world.
pub(super) struct Ground {
    pub(super) bus: Bus,
    pub(super) parties: BTreeMap<&'static str, Bus>,
    pub(super) broker: Option<Server>,
    /// What the configuration says of it.
    pub(super) settings: String,
}

/// The parties of a world with a broker.
const PARTIES: [&str; 3] = ["h1", "h2", "s1"];

impl Ground {
    pub(super) fn memory() -> Ground {
        Ground {
            bus: Bus::memory(),
            parties: BTreeMap::new(),
            broker: None,
            settings: "report_seconds = 1\ndead_seconds = 4\n".to_owned(),
        }
    }

    /// A real broker, at which everybody has what their roles allow and no more.
    pub(super) async fn broker(folder: &TempDir) -> Ground {
        let issuer = Issuer::generate();
        let seed = folder.path().join("issuer.seed");
        std::fs::write(&seed, issuer.seed().expect("a seed")).expect("written");
        let key = || generate().expect("a key");
        let (service, keys) = (key(), PARTIES.map(|name| (name, key())));
        let party = |index: usize| {
            let (name, key): &(&str, UserKey) = &keys[index];
            Party { principal: name.parse().expect("a principal"), nkey: key.public.clone() }
        };
        let storefront = party(2);
        let main = "main".parse().expect("a name");
        let access = Access {
            streams: vec![MachineStream { machine: ServiceRole::Market, stream: main }],
            services: vec![ServiceUser {
                principal: "all-in-one".parse().expect("a principal"),
                role: ServiceRole::All,
                nkey: service.public.clone(),
            }],
            hypervisors: vec![party(0), party(1)],
            storefronts: vec![Storefront {
                principal: storefront.principal,
                nkey: storefront.nkey,
                tenants: Vec::new(),
            }],
            worker_issuer: Some(issuer.public()),
            ..Access::default()
        };
        let arguments = ["guard_child", "--exact", "--ignored", "--nocapture", "--"];
        let guard = GuardCommand {
            program: std::env::current_exe().expect("this program"),
            arguments: arguments.map(std::ffi::OsString::from).to_vec(),
        };
        let spec = ServerSpec { access: Some(access), ..ServerSpec::new(folder.path().join("nats"), guard) };
        let server = Server::start(spec).await.expect("a broker");
        let connect = async |name: &str, seed: &str, is_service: bool| {
            let mut options = BrokerOptions::new(server.url(), name);
            options.seed = Some(seed.to_owned());
            options.inbox_prefix = inbox_prefix(name);
            options.may_see_streams = is_service;
            Bus::connect(options).await.expect("a connection")
        };
        let mut parties = BTreeMap::new();
        for (name, key) in &keys {
            parties.insert(*name, connect(name, &key.seed, false).await);
        }
        let bus = connect("all-in-one", &service.seed, true).await;
        // A notice that came with the answer to a report would be half a minute late.
        let settings = format!(
            "report_seconds = 60\ndead_seconds = 120\nbus_url = \"{}\"\nbus_issuer = \"{}\"\n\
             bus_issuer_seed_file = \"{}\"\n",
            server.url(),
            issuer.public(),
            seed.display(),
        );
        Ground { bus, parties, broker: Some(server), settings }
    }
}
