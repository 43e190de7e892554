//! `walras up --no-demo` as a process with a folder of its own, and what it takes to ask it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use runtime::bus::{BrokerOptions, Bus, Listener};
use runtime::nats::access::inbox_prefix;
use runtime::nats::server::find;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::http::{Method, Request, Response};

/// How long a condition on a process may take before the test fails.
const CONDITION_WAIT_MAX: Duration = Duration::from_mins(1);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long a request may take.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(30);

/// Two exchanges, so that what belongs to one is not taken for the other's. Rounds close with the turn, so that an
/// answer is followed by its awards at once.
const CONFIGURATION: &str = r#"
[market.exchanges.main]
rules = { coalesce_milliseconds = 0 }
markets = [
  { region = "oak", class = "gp.small", resources = "2 vCPU, 4 GiB", reserve = "0.002", notice_seconds = 3600 },
  { region = "oak", class = "gp.large", reserve = "0.005", notice_seconds = 3600 },
]

[market.exchanges.west]
rules = { coalesce_milliseconds = 0 }
markets = [{ region = "yew", class = "gp.small", reserve = "0.001" }]

[placement.sites.main]
data_stores = [{ id = "sql", driver = "mysql", units_max = 2 }]
hosts = [
  { id = "host-1", zone = "z1", region = "oak", cpu_milli = 4000, memory_mib = 8000, pods = 20, hypervisor = "hypervisor" },
]

# Planes are not carried out here: what placement decides is what is looked at.
[controlplane]
simulated_hosts = 0

[webhooks]
private_addresses = true

[gateway]
requests_per_second = 5
burst = 400
stranger_requests_per_second = 5
stranger_burst = 900

[bus]
command_bytes_max = 67108864
event_bytes_max = 67108864
"#;

/// The running system. It ends with this.
pub(crate) struct Walras {
    child: Child,
    folder: TempDir,
    up: Value,
    agent: ureq::Agent,
    /// Every request so far: method, path and status.
    seen: RefCell<BTreeSet<(String, String, u16)>>,
}

/// What came back for a request.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) text: String,
}

impl Answered {
    /// The body as JSON; null where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// A header as text; empty where it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// What `Authorization` says; nothing where it is empty.
    pub(crate) authorization: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: &'a [u8],
}

impl Walras {
    /// Starts one and waits until it is up; `None` where there is no `nats-server` to run it with.
    pub(crate) fn start() -> Option<Self> {
        Self::start_as(CONFIGURATION)
    }

    /// Starts one with this configuration.
    pub(crate) fn start_as(configuration: &str) -> Option<Self> {
        if let Err(error) = find(None) {
            assert!(std::env::var_os("WALRAS_REQUIRE_NATS").is_none_or(|value| value != "1"), "{error}");
            println!("skipped: {error}");
            return None;
        }
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("walras.toml"), configuration).unwrap();
        let log = fs::File::create(path("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_walras"));
        command.args(["up", "--no-demo", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
        command.arg("--config").arg(path("walras.toml")).arg("--data-dir").arg(path("data"));
        // Whatever cluster somebody works with, tests leave it alone.
        command.env_remove("KUBECONFIG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + CONDITION_WAIT_MAX;
        let up = loop {
            if let Ok(text) = fs::read_to_string(path("data/up.json")) {
                break serde_json::from_str(&text).unwrap();
            }
            let ended = child.try_wait().unwrap();
            let log = || fs::read_to_string(path("log")).unwrap_or_default();
            assert!(ended.is_none() && Instant::now() < deadline, "not up ({ended:?}): {}", log());
            thread::sleep(LOOK);
        };
        let settings = ureq::Agent::config_builder().http_status_as_error(false);
        let agent = settings.timeout_global(Some(REQUEST_WAIT_MAX)).build().into();
        Some(Self { child, folder, up, agent, seen: RefCell::default() })
    }

    /// What it says of itself.
    pub(crate) fn told(&self, name: &str) -> &str {
        self.up[name].as_str().unwrap()
    }

    /// Where the kubeconfig of a site's management cluster is.
    pub(crate) fn kubeconfig(&self, site: &str) -> &Path {
        Path::new(self.up["kubeconfigs"][site].as_str().unwrap())
    }

    /// Every file that it keeps.
    pub(crate) fn files(&self) -> Vec<std::path::PathBuf> {
        let mut folders = vec![self.folder.path().join("data")];
        let mut files = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() { folders.push(entry.path()) } else { files.push(entry.path()) }
            }
        }
        files
    }

    /// Where a tenant's token is.
    pub(crate) fn token_file(&self, tenant: &str) -> &Path {
        Path::new(self.up["tokens"][tenant].as_str().unwrap())
    }

    /// What `Authorization` says for a tenant.
    pub(crate) fn bearer(&self, tenant: &str) -> String {
        let token = fs::read_to_string(self.up["tokens"][tenant].as_str().unwrap()).unwrap();
        format!("Bearer {}", token.trim())
    }

    /// Sends a request as it stands.
    pub(crate) fn send(&self, asked: &Asked<'_>) -> Answered {
        let mut response = self.open(asked, &[]);
        let mut text = String::new();
        response.body_mut().as_reader().read_to_string(&mut text).unwrap();
        Answered { status: response.status().as_u16(), headers: response.headers().clone(), text }
    }

    /// Sends a request and leaves the answer's body to be read.
    pub(crate) fn open(&self, asked: &Asked<'_>, headers: &[(&str, &str)]) -> Response<ureq::Body> {
        let method = Method::from_bytes(asked.method.as_bytes()).unwrap();
        let mut request = Request::builder().method(method);
        request = request.uri(format!("{}{}", self.told("gateway_url"), asked.path));
        for (name, value) in [("authorization", asked.authorization), ("content-type", asked.content_type)]
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .chain(headers)
        {
            request = request.header(*name, *value);
        }
        let sent = if asked.body.is_empty() && !matches!(asked.method, "POST" | "PATCH") {
            self.agent.run(request.body(()).unwrap())
        } else {
            self.agent.run(request.body(asked.body).unwrap())
        };
        let answered = sent.unwrap_or_else(|error| panic!("{} {}: {error}", asked.method, asked.path));
        let path = asked.path.split('?').next().unwrap_or_default();
        self.seen.borrow_mut().insert((asked.method.to_owned(), path.to_owned(), answered.status().as_u16()));
        answered
    }

    /// Every request so far: method, path without query, status.
    pub(crate) fn seen(&self) -> Vec<(String, String, u16)> {
        self.seen.borrow().iter().cloned().collect()
    }

    /// A request of a tenant with a JSON body; null is none.
    pub(crate) fn ask(&self, tenant: &str, method: &str, path: &str, body: &Value) -> Answered {
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
        let authorization = if tenant.is_empty() { String::new() } else { self.bearer(tenant) };
        let content_type = if body.is_empty() { "" } else { "application/json" };
        self.send(&Asked { method, path, authorization: &authorization, content_type, body: &body })
    }

    /// A page of the endpoints for operators.
    pub(crate) fn admin(&self, path: &str) -> Answered {
        let mut response = self.agent.get(format!("{}{path}", self.told("admin_url"))).call().unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        Answered { status: response.status().as_u16(), headers: response.headers().clone(), text }
    }

    /// The sum of a metric's series whose labels hold all of these.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.admin("/metrics").text;
        let of = |line: &&str| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
            rest.is_some_and(|rest| labels.iter().all(|label| rest.contains(label)))
        };
        text.lines().filter(of).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// A connection to the bus of one who has a key.
    pub(crate) async fn bus(&self, principal: &str) -> Party {
        let mut options = BrokerOptions::new(self.told("nats_url"), format!("test {principal}"));
        options.inbox_prefix = inbox_prefix(principal);
        let seed = Path::new(self.up["credentials"][principal].as_str().unwrap());
        options.seed = Some(fs::read_to_string(seed).unwrap().trim().to_owned());
        options.may_see_streams = false;
        let bus = Bus::connect(options).await.unwrap();
        let answers = bus.listen(&format!("walras.v1.answer.{principal}")).await.unwrap();
        Party {
            subject: format!("walras.v1.command.market.main.{principal}.{principal}"),
            bus,
            answers,
            sent: 0,
        }
    }
}

/// Looks until there is something, and fails the test if there never is.
pub(crate) fn until<T>(look: impl FnMut() -> Option<T>) -> T {
    until_within(CONDITION_WAIT_MAX, look)
}

/// The same for what takes longer.
pub(crate) fn until_within<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain for {patience:?}");
        thread::sleep(LOOK);
    }
}

impl Drop for Walras {
    fn drop(&mut self) {
        // It ends its broker with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One party on the bus; its role is its name.
pub(crate) struct Party {
    pub(crate) bus: Bus,
    subject: String,
    answers: Listener,
    sent: u64,
}

impl Party {
    /// Speaks to the site instead of the exchange from now on.
    pub(crate) fn with_placement(mut self) -> Self {
        self.subject = self.subject.replace(".market.", ".placement.");
        self
    }

    /// Sends one message as it stands, and returns the answers to it: as many as it says.
    pub(crate) async fn say(&mut self, payload: impl Into<Bytes>, answers: usize) -> Vec<Value> {
        self.sent += 1;
        // Ids of messages are the stream's, not the sender's.
        let id = format!("{}-{}", self.subject, self.sent);
        let sent = self.bus.publish(&self.subject, &id, &[], payload.into()).await;
        sent.unwrap_or_else(|error| panic!("{}: {error}", self.subject));
        let mut told = Vec::new();
        while told.len() < answers {
            told.extend(self.next().await);
        }
        told
    }

    /// The next answers to commands: what happens to bids by itself is left out.
    async fn next(&mut self) -> Vec<Value> {
        let told = tokio::time::timeout(CONDITION_WAIT_MAX, self.answers.next()).await;
        let told = told.expect("an answer in time").expect("the bus goes on");
        let told: Value = serde_json::from_slice(&told.payload).unwrap();
        let answers = told["answers"].as_array().unwrap().iter();
        answers.filter(|one| one["type"] == "Accepted" || one["type"] == "Refused").cloned().collect()
    }

    /// Offers servers, as the hypervisor.
    pub(crate) async fn offer(&mut self, market: &str, generation: u64, units: u32) {
        let offer = json!({"type": "SupplyOffered", "id": format!("offer-{market}-{generation}").replace(['/', '.'], "-"),
            "source": "hypervisor", "market": market, "generation": generation, "units": units});
        let told = self.say(serde_json::to_vec(&offer).unwrap(), 1).await;
        assert_eq!(told[0]["type"], "Accepted", "{told:?}");
    }
}
