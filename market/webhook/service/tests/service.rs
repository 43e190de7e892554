//! The service over a memory bus and `SQLite`, with a receiver that fails, answers and is away.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use journal::{Journal, Owner};
use proto::machine::{Role, Sender};
use proto::subject;
use runtime::bus::Bus;
use runtime::config::{Config, Sources, load};
use runtime::nats::layout;
use runtime::shell::Shell;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tempfile::TempDir;
use webhook::{DeliveriesView, WebhooksView};
use webhook_service::{QUERIED_AS, SIGNATURE_HEADER, SecretAnswer, signature};

/// How long a condition may take before the test fails.
const CONDITION_WAIT_MAX: Duration = Duration::from_mins(1);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

const CONFIGURATION: &str = r#"
data_dir = "data"

[webhooks]
private_addresses = true

[runner]
claim_seconds = 1
"#;

/// One request as it came.
#[derive(Clone, Debug)]
struct Request {
    signature: String,
    body: String,
}

/// A receiver that refuses the first so many requests and takes the rest.
struct Receiver {
    url: String,
    taken: Arc<Mutex<Vec<Request>>>,
}

impl Receiver {
    fn start(refuses: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let taken = Arc::<Mutex<Vec<Request>>>::default();
        let into = Arc::clone(&taken);
        std::thread::spawn(move || {
            let mut left = refuses;
            for stream in listener.incoming() {
                let mut stream = BufReader::new(stream.unwrap());
                let (mut length, mut signature) = (0, String::new());
                loop {
                    let mut line = String::new();
                    stream.read_line(&mut line).unwrap();
                    let line = line.trim().to_ascii_lowercase();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(text) = line.strip_prefix("content-length: ") {
                        length = text.parse().unwrap();
                    }
                    if let Some(text) = line.strip_prefix(&format!("{SIGNATURE_HEADER}: ")) {
                        text.clone_into(&mut signature);
                    }
                }
                let mut body = vec![0; length];
                stream.read_exact(&mut body).unwrap();
                let status = if left > 0 { "500 Not now" } else { "204 Taken" };
                if left > 0 {
                    left -= 1;
                } else {
                    into.lock().unwrap().push(Request { signature, body: String::from_utf8(body).unwrap() });
                }
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                stream.get_mut().write_all(answer.as_bytes()).unwrap();
            }
        });
        Self { url, taken }
    }

    fn taken(&self) -> Vec<Request> {
        self.taken.lock().unwrap().clone()
    }
}

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
            layout::command_stream("webhook", "main"),
            layout::event_stream("webhook", "main"),
        ] {
            bus.ensure_stream(&spec).await.unwrap();
        }
        Self { folder, bus, config: load(&sources).unwrap().config, sent: 0 }
    }

    /// Starts the service; it ends with the shell.
    async fn start(&self, owner: &str) -> Shell {
        let mut shell = Shell::bare("market").unwrap();
        let path = self.folder.path().join("walras.db");
        let journal = Journal::open(&format!("sqlite:{}", path.display())).await.unwrap();
        let owner_named = Owner::new(owner).unwrap();
        webhook_service::start(&mut shell, &self.bus, &journal, &self.config, &owner_named, owner).unwrap();
        shell
    }

    async fn say(&mut self, command: Value) {
        self.sent += 1;
        let sender = Sender { role: Role::Gateway, principal: "web".parse().unwrap() };
        let subject = subject::command("webhook", &"main".parse().unwrap(), &sender);
        let payload = Bytes::from(command.to_string());
        self.bus.publish(&subject, &format!("test-{}", self.sent), &[], payload).await.unwrap();
    }

    /// What the market tells a principal.
    async fn told(&mut self, sequence: u64, answers: Value) {
        let letter = json!({"machine": "market", "stream": "main", "sequence": sequence,
            "at": "2026-11-22T18:40:00Z", "answers": answers});
        let payload = Bytes::from(letter.to_string());
        let subject = subject::answer(&"s1".parse().unwrap());
        self.bus.publish(&subject, &format!("row-{sequence}"), &[], payload).await.unwrap();
    }

    async fn ask<T: DeserializeOwned>(&self, machine: &str, question: &str, asked: Value) -> Option<T> {
        let subject = subject::query(machine, &"main".parse().unwrap(), question);
        let answered = self.bus.request(&subject, Bytes::from(asked.to_string()), LOOK * 100).await;
        serde_json::from_slice(&answered.ok()?.concat()).ok()
    }

    async fn until<T: DeserializeOwned + std::fmt::Debug>(
        &self,
        question: &str,
        is_so: impl Fn(&T) -> bool,
    ) -> T {
        let deadline = Instant::now() + CONDITION_WAIT_MAX;
        loop {
            let answered: Option<T> = self.ask("webhook", question, json!({"tenant": "acme"})).await;
            match answered {
                Some(answer) if is_so(&answer) => return answer,
                other => assert!(Instant::now() < deadline, "{question}: in vain, {other:?}"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn notice(tenant: &str, first: u64) -> Value {
    json!({"type": "NoticeGiven", "tenant": tenant, "bid": "b1", "cluster": "prod", "pool": "p", "market": "dfw/a",
        "leases": {"first": first, "units": 1}, "round": 3, "gone_at": "2026-11-22T18:46:00Z", "reason": "outbid",
        "limit": "0.030", "price": "0.031"})
}

async fn until_taken(receiver: &Receiver, count: usize) -> Vec<Request> {
    let deadline = Instant::now() + CONDITION_WAIT_MAX;
    loop {
        let taken = receiver.taken();
        if taken.len() >= count {
            return taken;
        }
        assert!(Instant::now() < deadline, "{} of {count} came", taken.len());
        tokio::time::sleep(LOOK).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_reaches_its_tenant_signed_whatever_is_restarted() {
    let mut world = World::new().await;
    // Refused once, it is delivered five seconds later.
    let receiver = Receiver::start(1);
    let shell = world.start("one").await;
    let set =
        json!({"type": "SetWebhook", "id": "w1", "tenant": "acme", "webhook": "ops", "url": receiver.url});
    world.say(set).await;
    world.until("webhooks", |view: &WebhooksView| view.webhooks.len() == 1).await;
    world
        .told(
            5,
            json!([notice("acme", 7), notice("bolt", 8), {"type": "Accepted", "id": "x", "sequence": 5}]),
        )
        .await;
    let failed = |view: &DeliveriesView| view.deliveries.iter().any(|one| one.attempts == 1);
    let waiting = world.until("deliveries", failed).await;
    assert_eq!(waiting.deliveries[0].failure.as_deref(), Some("the receiver answers 500"));
    drop(shell);
    // What was told while nobody was there is told afterwards, and nothing twice.
    world.told(6, json!([notice("acme", 9)])).await;
    let _shell = world.start("two").await;
    let taken = until_taken(&receiver, 2).await;
    world.until("deliveries", |view: &DeliveriesView| view.deliveries.is_empty()).await;
    let asked = json!({"tenant": "acme", "webhook": "ops"});
    let SecretAnswer { secret } = world.ask(QUERIED_AS, "secret", asked).await.unwrap();
    let mut workers = Vec::new();
    for Request { signature: signed, body } in &taken {
        let seconds: i64 = signed[2..].split(',').next().unwrap().parse().unwrap();
        assert_eq!(*signed, signature(&secret, seconds, body.as_bytes()), "{body}");
        let message: Value = serde_json::from_str(body).unwrap();
        assert_eq!((&message["type"], &message["data"]["limit"]), (&json!("walras.notice"), &json!("0.030")));
        workers.push(message["data"]["workers"][0].as_str().unwrap().to_owned());
    }
    workers.sort();
    assert_eq!(workers, ["lease-7", "lease-9"]);
    assert_eq!(receiver.taken().len(), 2);
}
