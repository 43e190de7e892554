//! Who may do what, on a real server: a table of subjects and users, and what an attacker would try.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

mod nats_support;
#[path = "nats_access/table.rs"]
mod table;
#[path = "nats_access/workers.rs"]
mod workers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event};
use bytes::Bytes;
use futures::StreamExt;
use nats_support::{TestServer, until};
use runtime::bus::{BrokerOptions, Bus, BusError, RequestError};
use runtime::nats::access::{
    Access, MachineStream, Party, ServiceRole, ServiceUser, Storefront, inbox_prefix,
};
use runtime::nats::callout::Issuer;
use runtime::nats::key::{UserKey, generate};
use runtime::nats::layout;
use table::{PUBLISH, SUBSCRIBE, USERS};

/// Longest wait for a message that must come.
const WAIT: Duration = Duration::from_secs(20);

const SERVICES: [(&str, ServiceRole); 4] = [
    ("market", ServiceRole::Market),
    ("placement", ServiceRole::Placement),
    ("controlplane", ServiceRole::Controlplane),
    ("gateway", ServiceRole::Gateway),
];

struct World {
    server: TestServer,
    keys: BTreeMap<&'static str, UserKey>,
    access: Access,
    issuer: Issuer,
}

impl World {
    async fn start() -> Option<Self> {
        Self::with(true).await
    }

    /// With or without users about whom the broker asks.
    async fn with(callout: bool) -> Option<Self> {
        if !nats_support::is_available() {
            return None;
        }
        let keys: BTreeMap<&str, UserKey> =
            USERS.iter().map(|(_, name)| (*name, generate().unwrap())).collect();
        let party = |name: &str| Party { principal: name.parse().unwrap(), nkey: keys[name].public.clone() };
        let storefront = |name: &str| {
            let Party { principal, nkey } = party(name);
            Storefront { principal, nkey, tenants: Vec::new() }
        };
        let service = |(name, role): (&str, ServiceRole)| ServiceUser {
            principal: name.parse().unwrap(),
            role,
            nkey: keys[name].public.clone(),
        };
        let stream = |machine| MachineStream { machine, stream: "main".parse().unwrap() };
        let issuer = Issuer::generate();
        let access = Access {
            streams: vec![stream(ServiceRole::Market), stream(ServiceRole::Placement)],
            services: SERVICES.into_iter().map(service).collect(),
            storefronts: vec![storefront("s1"), storefront("s2")],
            hypervisors: vec![party("h1")],
            workers: vec![party("w1")],
            operators: vec![party("o1")],
            observers: vec![party("v1")],
            system_nkey: None,
            worker_issuer: callout.then(|| issuer.public()),
        };
        let server = TestServer::with_access(Some(access.clone())).await;
        Some(Self { server, keys, access, issuer })
    }

    async fn bus(&self, name: &str) -> Bus {
        self.server.bus_as(name, &self.keys[name]).await
    }

    /// The streams, made by those who own them, and what parties replay from.
    async fn furnish(&self) -> Bus {
        let market = self.bus("market").await;
        for spec in [
            layout::command_stream("market", "main"),
            layout::event_stream("market", "main"),
            layout::answer_stream(),
            layout::order_stream(),
        ] {
            market.ensure_stream(&spec).await.unwrap();
        }
        for (stream, principal, filter) in self.access.replays() {
            market.ensure_replay(stream, &principal, &filter).await.unwrap();
            market.ensure_replay(stream, &principal, &filter).await.unwrap();
        }
        market
    }

    /// A bare client, and what the server reproaches it with.
    async fn client(&self, name: &str) -> (Client, Arc<Mutex<Vec<String>>>) {
        let reproaches = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&reproaches);
        let client = ConnectOptions::with_nkey(self.keys[name].seed.clone())
            .custom_inbox_prefix(inbox_prefix(name))
            .event_callback(move |event| {
                let heard = Arc::clone(&heard);
                async move {
                    if let Event::ServerError(error) = event {
                        heard.lock().unwrap().push(error.to_string().to_ascii_lowercase());
                    }
                }
            })
            .connect(self.server.server.url())
            .await
            .unwrap();
        (client, reproaches)
    }
}

/// Cells judged at once.
const PORTION: usize = 16;

fn is_said(reproaches: &Mutex<Vec<String>>, mark: &str) -> bool {
    // Quoted, so that portion 1 is not taken for portion 10.
    let quoted = format!("\"{mark}\"");
    reproaches.lock().unwrap().iter().any(|said| said.contains(&quoted))
}

/// Every cell of both tables.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_table_holds() {
    let Some(world) = World::start().await else { return };
    let mut wrong = Vec::new();
    for (letter, name) in USERS {
        let (client, reproaches) = world.client(name).await;
        // The server answers in order, so behind a reproach about a subject nobody may use everything before it
        // has been judged. In portions, because the client drops events that come faster than they are taken.
        let mut subscriptions = Vec::new();
        for (number, portion) in PUBLISH.chunks(PORTION).enumerate() {
            for (subject, _) in portion {
                client.publish(*subject, Bytes::new()).await.unwrap();
            }
            let mark = format!("nobody.may.publish.{number}");
            client.publish(mark.clone(), Bytes::new()).await.unwrap();
            until("publishes are judged", || is_said(&reproaches, &mark)).await;
        }
        for (number, portion) in SUBSCRIBE.chunks(PORTION).enumerate() {
            for (subject, _) in portion {
                subscriptions.push(client.subscribe(*subject).await.unwrap());
            }
            let mark = format!("nobody.may.subscribe.{number}");
            subscriptions.push(client.subscribe(mark.clone()).await.unwrap());
            until("subscriptions are judged", || is_said(&reproaches, &mark)).await;
        }
        let said = reproaches.lock().unwrap().clone();
        for (action, table) in [("publish to", PUBLISH), ("subscription to", SUBSCRIBE)] {
            for (subject, allowed) in table {
                let quoted = format!("{action} \"{}\"", subject.to_ascii_lowercase());
                let is_allowed = !said.iter().any(|reproach| reproach.contains(&quoted));
                if is_allowed != allowed.contains(letter) {
                    wrong.push(format!(
                        "{name}: {action} {subject}: {}",
                        if is_allowed { "may" } else { "may not" }
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} cells are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused() {
    let Some(world) = World::start().await else { return };
    let mut anonymous = BrokerOptions::new(world.server.server.url(), "x");
    anonymous.connect_timeout = Duration::from_secs(5);
    let mut stranger = anonymous.clone();
    stranger.seed = Some(generate().unwrap().seed);
    for options in [anonymous, stranger] {
        let outcome = Bus::connect(options).await;
        assert!(matches!(outcome, Err(BusError::Connect { .. })), "{outcome:?}");
    }
    let url = world.server.server.url();
    assert!(ConnectOptions::with_user_and_password("market".into(), "x".into()).connect(&url).await.is_err());
    assert!(ConnectOptions::with_token("market".into()).connect(&url).await.is_err());
}

/// The whole way of a bid and its answer, each step as the user who takes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_gets_its_answers_live_and_again() {
    let Some(world) = World::start().await else { return };
    let market = world.furnish().await;
    let (s1, s1_reproaches) = world.client("s1").await;
    let (s2, _) = world.client("s2").await;
    let mut live = s1.subscribe("walras.v1.answer.s1").await.unwrap();
    let mut foreign = s2.subscribe("walras.v1.answer.s2").await.unwrap();
    // A request of one's own account that is answered: both subscriptions are known to the server by then.
    let stored = s1.request("walras.v1.command.market.main.storefront.s1", "bid".into()).await.unwrap();
    assert!(String::from_utf8_lossy(&stored.payload).contains("walras-command-market-main"), "{stored:?}");
    s2.request("walras.v1.command.market.main.storefront.s2", "bid".into()).await.unwrap();

    let mut commands = market.read("walras-command-market-main", ">", None).await.unwrap();
    let mut subjects = Vec::new();
    while subjects.len() < 2 {
        let batch = tokio::time::timeout(WAIT, commands.next_batch(10, 1 << 20)).await.unwrap().unwrap();
        subjects.extend(batch.into_iter().map(|delivery| delivery.subject));
    }
    assert_eq!(
        subjects,
        ["walras.v1.command.market.main.storefront.s1", "walras.v1.command.market.main.storefront.s2"]
    );
    market.purge("walras-command-market-main", 2).await.unwrap();
    for number in 0..3 {
        let payload = Bytes::from(format!("answer {number}"));
        market.publish("walras.v1.answer.s1", &format!("a{number}"), &[], payload).await.unwrap();
    }
    for number in 0..3 {
        let message = tokio::time::timeout(WAIT, live.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, format!("answer {number}"));
    }

    // The same again from the durable consumer, each acknowledged; then nothing is left.
    let next = "$JS.API.CONSUMER.MSG.NEXT.walras-answer.s1";
    let inbox = s1.new_inbox();
    let mut replay = s1.subscribe(inbox.clone()).await.unwrap();
    s1.publish_with_reply(next, inbox.clone(), r#"{"batch":3,"expires":5000000000}"#.into()).await.unwrap();
    for number in 0..3 {
        let message = tokio::time::timeout(WAIT, replay.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, format!("answer {number}"), "{message:?}");
        s1.publish(message.reply.expect("something to acknowledge to"), Bytes::new()).await.unwrap();
    }
    // The stock client, in the domain: the same consumer, and nothing is left in it.
    let context = async_nats::jetstream::with_domain(s1.clone(), "walras");
    let mut left = (u64::MAX, usize::MAX);
    for _ in 0..200 {
        let consumer: async_nats::jetstream::consumer::PullConsumer =
            context.get_consumer_from_stream("s1", "walras-answer").await.unwrap();
        left = (consumer.cached_info().num_pending, consumer.cached_info().num_ack_pending);
        if left == (0, 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left, (0, 0), "what was acknowledged is done with");
    market.publish("walras.v1.answer.s1", "a3", &[], Bytes::from_static(b"answer 3")).await.unwrap();
    let consumer: async_nats::jetstream::consumer::PullConsumer =
        context.get_consumer_from_stream("s1", "walras-answer").await.unwrap();
    let mut messages = consumer.fetch().max_messages(5).messages().await.unwrap();
    let message = messages.next().await.unwrap().unwrap();
    assert_eq!(message.payload, "answer 3");
    message.double_ack().await.unwrap();
    assert!(s1_reproaches.lock().unwrap().is_empty(), "{s1_reproaches:?}");
    // s2 heard nothing of it; its own answer is the first thing it hears.
    market.publish("walras.v1.answer.s2", "b0", &[], Bytes::from_static(b"yours")).await.unwrap();
    assert_eq!(tokio::time::timeout(WAIT, foreign.next()).await.unwrap().unwrap().payload, "yours");
}

/// The broker sends an acknowledgement to whatever reply subject a publish names. Nothing may come of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledgements_cannot_be_redirected() {
    let Some(world) = World::start().await else { return };
    let market = world.furnish().await;
    let (s1, _) = world.client("s1").await;
    let (s2, _) = world.client("s2").await;
    let mut victim = s2.subscribe("walras.v1.answer.s2").await.unwrap();
    s2.request("walras.v1.command.market.main.storefront.s2", "known to the server".into()).await.unwrap();
    let command = "walras.v1.command.market.main.storefront.s1";
    let targets = [
        "walras.v1.answer.s1",
        "walras.v1.answer.s2",
        "walras.v1.order.hypervisor.h1",
        "walras.v1.event.market.main",
        "walras.v1.price.main.dfw.gp",
        "walras.v1.command.market.main.storefront.s2",
        "walras.v1.command.market.main.operator.o1",
        "walras.v1.query.market.main.state",
        "_INBOX_s2.x",
        "_INBOX_market.x",
        "$JS.API.STREAM.PURGE.walras-command-market-main",
        "$JS.API.STREAM.DELETE.walras-command-market-main",
    ];
    for target in targets {
        s1.publish_with_reply(command, target, "forged".into()).await.unwrap();
    }
    // On the same connection, so behind all of these.
    s1.request(command, "last".into()).await.unwrap();
    let commands = market.stream_state("walras-command-market-main").await.unwrap();
    assert_eq!(commands.messages, targets.len() as u64 + 2, "the publishes themselves, and nothing else");
    for stream in ["walras-answer", "walras-order", "walras-event-market-main"] {
        assert_eq!(market.stream_state(stream).await.unwrap().messages, 0, "{stream}");
    }
    market.publish("walras.v1.answer.s2", "b0", &[], Bytes::from_static(b"yours")).await.unwrap();
    assert_eq!(tokio::time::timeout(WAIT, victim.next()).await.unwrap().unwrap().payload, "yours");

    // To a subject that is its own and stored: it could as well have published there, once, no more.
    let before = market.stream_state("walras-command-market-main").await.unwrap().messages;
    s1.publish_with_reply(command, command, "loop".into()).await.unwrap();
    s1.request(command, "last".into()).await.unwrap();
    let after = market.stream_state("walras-command-market-main").await.unwrap().messages;
    assert!(after - before <= 3, "{} messages came of two publishes", after - before);
}

/// A party that names somebody else's message id, and one that floods ids, changes nothing for others once the
/// short window is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_id_blocks_nobody_for_long() {
    let Some(world) = World::start().await else { return };
    let market = world.furnish().await;
    let publish = |client: Client, name: &'static str| async move {
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", "bid-7");
        let subject = format!("walras.v1.command.market.main.storefront.{name}");
        let answer = client.request_with_headers(subject, headers, name.into()).await.unwrap();
        String::from_utf8_lossy(&answer.payload).contains("duplicate")
    };
    let (s1, s2) = (world.client("s1").await.0, world.client("s2").await.0);
    assert!(!publish(s2, "s2").await);
    let mut attempts = 1;
    while publish(s1.clone(), "s1").await {
        attempts += 1;
        assert!(attempts < 1_000, "a stolen id still blocks");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(market.stream_state("walras-command-market-main").await.unwrap().messages, 2);
}

/// Services do their work with the rights of their role.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_can_work() {
    let Some(world) = World::start().await else { return };
    let market = world.furnish().await;
    let gateway = world.bus("gateway").await;
    let command = Bytes::from_static(b"bid");
    let position =
        gateway.publish("walras.v1.command.market.main.gateway.gateway", "g1", &[], command).await.unwrap();
    assert_eq!(position.sequence, 1);
    market.publish("walras.v1.event.market.main", "e1", &[], Bytes::from_static(b"events")).await.unwrap();
    market.publish("walras.v1.answer.gateway", "a1", &[], Bytes::from_static(b"answer")).await.unwrap();
    for (stream, filter, payload) in
        [("walras-event-market-main", ">", "events"), ("walras-answer", "walras.v1.answer.gateway", "answer")]
    {
        let mut reader = gateway.read(stream, filter, None).await.unwrap();
        let batch = tokio::time::timeout(WAIT, reader.next_batch(10, 1 << 20)).await.unwrap().unwrap();
        assert_eq!(batch[0].payload, payload);
    }
    let length = 20 * runtime::bus::PART_BYTES_MAX;
    let _serving = market
        .serve("walras.v1.query.market.>", move |_| async move { Ok(Bytes::from(vec![7; length])) })
        .await
        .unwrap();
    let answer = gateway.request("walras.v1.query.market.main.state", Bytes::new(), WAIT).await.unwrap();
    assert_eq!(answer.len(), 20);
    let placement = world.bus("placement").await;
    for spec in [layout::command_stream("placement", "main"), layout::event_stream("placement", "main")] {
        placement.ensure_stream(&spec).await.unwrap();
    }
    let from_market = "walras.v1.command.placement.main.service.market";
    market.publish(from_market, "r1", &[], Bytes::new()).await.unwrap();
    assert_eq!(placement.stream_state("walras-command-placement-main").await.unwrap().messages, 1);
    for bus in [&market, &gateway, &placement] {
        assert_eq!(bus.counts().broker_errors, 0, "no right was missing");
    }
    // And no more than that: a foreign stream cannot even be asked about, let alone be purged.
    assert!(gateway.purge("walras-command-market-main", 1).await.is_err());
    let outcome = gateway
        .request("walras.v1.query.placement.main.state", Bytes::new(), Duration::from_millis(100))
        .await;
    assert!(matches!(outcome, Err(RequestError::NoResponder { .. })), "{outcome:?}");
}

/// Everything in one process works with one user that has every role.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_services_can_share_a_user() {
    if !nats_support::is_available() {
        return;
    }
    let key = generate().unwrap();
    let machines = [ServiceRole::Market, ServiceRole::Placement];
    let access = Access {
        streams: machines.map(|machine| MachineStream { machine, stream: "main".parse().unwrap() }).to_vec(),
        services: vec![ServiceUser {
            principal: "all-in-one".parse().unwrap(),
            role: ServiceRole::All,
            nkey: key.public.clone(),
        }],
        ..Access::default()
    };
    let server = TestServer::with_access(Some(access)).await;
    let bus = server.bus_as("all-in-one", &key).await;
    for spec in [
        layout::command_stream("market", "main"),
        layout::command_stream("placement", "main"),
        layout::event_stream("market", "main"),
        layout::event_stream("placement", "main"),
        layout::answer_stream(),
        layout::order_stream(),
    ] {
        bus.ensure_stream(&spec).await.unwrap();
    }
    for subject in [
        "walras.v1.command.market.main.gateway.all-in-one",
        "walras.v1.command.market.main.service.placement",
        "walras.v1.command.placement.main.service.market",
        "walras.v1.event.market.main",
        "walras.v1.event.placement.main",
        "walras.v1.answer.s1",
        "walras.v1.order.hypervisor.h1",
    ] {
        bus.publish(subject, subject, &[], Bytes::new()).await.unwrap();
    }
    let _serving = bus.serve("walras.v1.query.market.>", |_| async { Ok(Bytes::new()) }).await.unwrap();
    bus.request("walras.v1.query.market.main.state", Bytes::new(), WAIT).await.unwrap();
    let mut reader = bus.read("walras-command-market-main", ">", None).await.unwrap();
    assert!(tokio::time::timeout(WAIT, reader.next_batch(9, 9)).await.unwrap().is_ok());
    bus.purge("walras-command-market-main", 1).await.unwrap();
    assert_eq!(bus.counts().broker_errors, 0, "no right was missing");
}

/// Prices reach everybody, whatever account they are in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_hears_prices() {
    let Some(world) = World::start().await else { return };
    let market = world.bus("market").await;
    for name in ["v1", "s1", "h1", "o1", "gateway"] {
        let listener = world.bus(name).await;
        let mut prices = listener.listen("walras.v1.price.>").await.unwrap();
        let mut heard = None;
        for _ in 0..500 {
            market.announce("walras.v1.price.main.dfw.gp", Bytes::from_static(b"0.031")).await.unwrap();
            if let Ok(price) = tokio::time::timeout(Duration::from_millis(20), prices.next()).await {
                heard = price;
                break;
            }
        }
        assert_eq!(heard.expect("a price").payload, "0.031", "{name}");
    }
}

/// A party can be let in while the server runs, and those connected stay so; not where the broker asks about users it
/// does not know, for the list of those whom it knows is read once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_party_is_admitted_without_a_restart() {
    let Some(mut world) = World::with(false).await else { return };
    let market = world.furnish().await;
    let key = generate().unwrap();
    let mut options = BrokerOptions::new(world.server.server.url(), "s3");
    options.seed = Some(key.seed.clone());
    options.inbox_prefix = inbox_prefix("s3");
    assert!(Bus::connect(options.clone()).await.is_err());
    let nkey = key.public.clone();
    world.access.storefronts.push(Storefront { principal: "s3".parse().unwrap(), nkey, tenants: Vec::new() });
    let pid = world.server.server.pid();
    world.server.server.admit(world.access.clone()).await.unwrap();
    let connect = ConnectOptions::with_nkey(key.seed.clone()).custom_inbox_prefix(inbox_prefix("s3"));
    let client = connect.connect(world.server.server.url()).await.unwrap();
    client.request("walras.v1.command.market.main.storefront.s3", "bid".into()).await.unwrap();
    assert_eq!(market.stream_state("walras-command-market-main").await.unwrap().messages, 1);
    assert_eq!((world.server.server.pid(), market.counts().disconnects), (pid, 0));
}
