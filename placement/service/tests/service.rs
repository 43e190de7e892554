//! The service over a memory bus and `SQLite`: the configuration comes into force, what is asked is answered, bids of an
//! exchange are followed, and a restart goes on where it was.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::{Journal, Owner};
use placement::machine::{ClustersView, OrdersView};
use placement_service::SiteAnswer;
use proto::machine::{Role, Sender};
use proto::subject;
use runtime::bus::Bus;
use runtime::config::{Config, Sources, load};
use runtime::nats::layout;
use runtime::shell::Shell;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long a condition may take before the test fails.
const CONDITION_WAIT_MAX: Duration = Duration::from_mins(1);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

const CONFIGURATION: &str = r#"
data_dir = "data"

[placement.sites.main]
data_stores = [{ id = "sql", driver = "mysql", units_max = 10 }]
hosts = [
  { id = "a", zone = "z1", region = "dfw", cpu_milli = 4000, memory_mib = 8000, pods = 20, hypervisor = "h1" },
  { id = "b", zone = "z2", region = "dfw", cpu_milli = 4000, memory_mib = 8000, pods = 20 },
]

[runner]
claim_seconds = 1
"#;

struct World {
    folder: TempDir,
    bus: Bus,
    config: Config,
    sent: u64,
}

impl World {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("walras.toml");
        std::fs::write(&file, CONFIGURATION).unwrap();
        let sources = Sources { file: Some(file), ..Sources::default() };
        let bus = Bus::memory();
        for spec in [
            layout::answer_stream(),
            layout::order_stream(),
            layout::command_stream("market", "main"),
            layout::command_stream("placement", "main"),
            layout::event_stream("placement", "main"),
            layout::event_stream("market", "main"),
        ] {
            bus.ensure_stream(&spec).await.unwrap();
        }
        Self { folder, bus, config: load(&sources).unwrap().config, sent: 0 }
    }

    /// Starts the service; it ends with the shell.
    async fn start(&self, owner: &str) -> Shell {
        let mut shell = Shell::bare("placement").unwrap();
        let path = self.folder.path().join("walras.db");
        let journal = Journal::open(&format!("sqlite:{}", path.display())).await.unwrap();
        let owner = Owner::new(owner).unwrap();
        placement_service::start(&mut shell, &self.bus, &journal, &self.config, &owner).unwrap();
        shell
    }

    async fn say(&mut self, role: Role, principal: &str, command: Value) {
        self.sent += 1;
        let sender = Sender { role, principal: principal.parse().unwrap() };
        let subject = subject::command("placement", &"main".parse().unwrap(), &sender);
        let payload = Bytes::from(command.to_string());
        self.bus.publish(&subject, &format!("test-{}", self.sent), &[], payload).await.unwrap();
    }

    async fn ask<T: DeserializeOwned>(&self, question: &str, asked: Value) -> Option<T> {
        let subject = subject::query("placement", &"main".parse().unwrap(), question);
        let answered = self.bus.request(&subject, Bytes::from(asked.to_string()), LOOK * 100).await;
        serde_json::from_slice(&answered.ok()?.concat()).ok()
    }

    async fn site_until(&self, what: &str, is_so: impl Fn(&SiteAnswer) -> bool) -> SiteAnswer {
        let deadline = Instant::now() + CONDITION_WAIT_MAX;
        loop {
            let answered: Option<SiteAnswer> = self.ask("site", json!({})).await;
            if let Some(site) = answered.as_ref().filter(|site| is_so(site)) {
                return site.clone();
            }
            assert!(Instant::now() < deadline, "{what}: in vain, {answered:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// An exchange says what it decided in a turn.
    async fn decides(&self, sequence: u64, events: &[Value]) {
        let batch = json!({
            "machine": "market", "stream": "main", "sequence": sequence, "at": "2026-01-01T00:00:00Z", "rules": 1,
            "entries": [{"events": events}],
        });
        let told = subject::events("market", &"main".parse().unwrap());
        let id = format!("row-{sequence}");
        self.bus.publish(&told, &id, &[], Bytes::from(batch.to_string())).await.unwrap();
    }

    /// What a stream holds for a subject once it holds so many messages. A successor may say again what its predecessor
    /// has said: that counts once.
    async fn messages(&self, stream: &str, filter: &str, count: usize) -> Vec<Value> {
        let mut reader = self.bus.read(stream, filter, None).await.unwrap();
        let mut found: Vec<Value> = Vec::new();
        let read = async {
            while found.len() < count {
                for delivery in reader.next_batch(16, 1 << 20).await.unwrap() {
                    let message = serde_json::from_slice(&delivery.payload).unwrap();
                    if !found.contains(&message) {
                        found.push(message);
                    }
                }
            }
        };
        tokio::time::timeout(CONDITION_WAIT_MAX, read).await.expect("too few messages");
        found
    }

    async fn clusters(&self) -> ClustersView {
        self.ask("clusters", json!({"tenant": "acme"})).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_configured_asked_and_goes_on_after_a_restart() {
    let mut world = World::new().await;
    let shell = world.start("one").await;
    let configured = |site: &SiteAnswer| site.site.hosts.len() == 2 && site.site.data_stores.len() == 1;
    world.site_until("the configuration is in force", configured).await;
    let terms = json!({"regions": ["dfw"], "version": "v1.35.0", "sleep_after_seconds": 3600});
    let create =
        json!({"type": "CreateCluster", "id": "c1", "tenant": "acme", "cluster": "prod", "terms": terms});
    world.say(Role::Gateway, "web", create.clone()).await;
    world.site_until("there is a plane", |site| site.site.planes == 1).await;
    let orders: OrdersView = world.ask("orders", json!({})).await.unwrap();
    let order = &orders.orders[0];
    assert_eq!(order.order.hosts.iter().map(proto::HostId::as_str).collect::<Vec<_>>(), ["a", "b"]);
    // A bid for it, as the market tells of it.
    let bid = json!({
        "id": "b1", "tenant": "acme", "cluster": "prod", "pool": "p", "quantity": 1,
        "options": [{"market": "dfw/gp", "limit": "0.030"}],
    });
    let placed = json!({"type": "BidPlaced", "number": 1, "by": "s1", "bid": bid});
    world.decides(5, &[placed]).await;
    let exchange = "main".parse().unwrap();
    world.site_until("the bid is followed", |site| site.site.routed.get(&exchange) == Some(&5)).await;
    assert_eq!(world.clusters().await.clusters[0].bids, 1);
    drop(shell);
    let _shell = world.start("two").await;
    let gone_at = "2100-01-01T00:00:00Z";
    world
        .say(
            Role::Hypervisor,
            "h1",
            json!({"type": "NoticeHost", "id": "n1", "host": "a", "gone_at": gone_at}),
        )
        .await;
    // The command sent again has no further effect; the notice has: no host is left for the second replica.
    world.say(Role::Gateway, "web", create).await;
    let site = world.site_until("the notice is heard", |site| !site.site.risks.is_empty()).await;
    assert_eq!((site.site.planes, site.site.advice.iter().map(|advice| advice.hosts).sum::<u32>()), (1, 1));
    let again = world.clusters().await;
    assert_eq!(again.clusters.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_are_offered_to_the_market_and_ordered_for_its_leases() {
    let mut world = World::new().await;
    let shell = world.start("one").await;
    world.site_until("the configuration is in force", |site| site.site.hosts.len() == 2).await;
    let settings = json!({"reserve": "0.001"});
    let market = json!({"type": "MarketDefined", "market": 0, "id": "dfw/gp", "settings": settings});
    world.decides(1, &[market]).await;
    let offer = json!({
        "type": "OfferServers", "id": "o1", "hypervisor": "h1", "market": "dfw/gp", "servers": ["a", "b"],
    });
    world.say(Role::Hypervisor, "h1", offer).await;
    let commands = subject::command_stream("market", &"main".parse().unwrap());
    let filter = "walras.v1.command.market.main.service.placement";
    let told = world.messages(&commands, filter, 1).await;
    let said = &told[0]["commands"][0];
    assert_eq!(
        (&said["type"], &said["source"], &said["units"]),
        (&json!("SupplyOffered"), &json!("h1"), &json!(2))
    );
    let bid = json!({
        "id": "b1", "tenant": "acme", "cluster": "prod", "pool": "p", "quantity": 1,
        "options": [{"market": "dfw/gp", "limit": "0.030"}],
    });
    let placed = json!({"type": "BidPlaced", "number": 1, "by": "s1", "bid": bid});
    let leases = json!({"first": 1, "units": 1});
    let awarded = json!({"type": "UnitsAwarded", "number": 1, "market": 0, "leases": leases, "round": 1});
    world.decides(2, &[placed, awarded]).await;
    let orders = "walras.v1.order.hypervisor.h1";
    let told = world.messages(subject::ORDER_STREAM, orders, 1).await;
    let order = &told[0]["orders"][0];
    assert_eq!((&order["server"], &order["generation"]), (&json!("a"), &json!(1)));
    assert_eq!((&order["lease"]["lease"], &order["lease"]["tenant"]), (&json!(1), &json!("acme")));
    // After a restart it goes on where it was: the departure displaces the lease, then the supply is stated.
    drop(shell);
    let _shell = world.start("two").await;
    let gone_at = "2100-01-01T00:00:00Z";
    let notice = json!({"type": "NoticeServers", "id": "n1", "hypervisor": "h1", "servers": ["a"], "gone_at": gone_at});
    world.say(Role::Hypervisor, "h1", notice).await;
    let told = world.messages(&commands, filter, 2).await;
    let kinds: Vec<&Value> =
        told[1]["commands"].as_array().unwrap().iter().map(|command| &command["type"]).collect();
    assert_eq!(kinds, ["MoveLeases", "SupplyOffered"]);
    assert_eq!(
        (&told[1]["commands"][1]["units"], &told[1]["commands"][1]["cause"]),
        (&json!(1), &json!("host"))
    );
    let site = world.site_until("the notice is heard", |site| site.site.servers.leaving == 1).await;
    assert_eq!((site.site.servers.leases, site.site.servers.markets[0].free), (1, 1));
}
