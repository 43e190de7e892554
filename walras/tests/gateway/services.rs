//! The services one by one, at a broker of one's own that was set up as `deploy/nats/README.md` says: keys from
//! `walras nats-key`, accounts from `walras nats-accounts`.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use runtime::nats::server::find;
use serde_json::{Value, json};

/// How long a condition on a process may take before the test fails.
const CONDITION_WAIT_MAX: Duration = Duration::from_mins(1);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// SHA-256 of `secret`.
const TOKEN_SHA256: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

/// Services that are run, each with a key of its own.
const SERVICES: [&str; 4] = ["market", "placement", "controlplane", "gateway"];

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn walras() -> Command {
    Command::new(env!("CARGO_BIN_EXE_walras"))
}

fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn start(command: &mut Command, log: &Path) -> Process {
    let log = fs::File::create(log).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Process(command.spawn().unwrap())
}

/// Asks until the answer has that status, and gives its body.
fn until(agent: &ureq::Agent, url: &str, status: u16, logs: &[&Path]) -> Value {
    let deadline = Instant::now() + CONDITION_WAIT_MAX;
    loop {
        if let Ok(mut response) = agent.get(url).call()
            && response.status().as_u16() == status
        {
            return serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap();
        }
        let log = || logs.iter().map(|log| fs::read_to_string(log).unwrap_or_default()).collect::<String>();
        assert!(Instant::now() < deadline, "{url} never answers {status}: {}", log());
        thread::sleep(LOOK);
    }
}

/// The configuration that all services share.
fn configuration(client: u16, monitoring: u16, web: u16, services: &[(&str, String)]) -> String {
    let mut configuration = format!(
        r#"
data_dir = "data"

[bus]
nats_url = "nats://127.0.0.1:{client}"
monitoring_url = "http://127.0.0.1:{monitoring}"
command_bytes_max = 67108864
event_bytes_max = 67108864

[market.exchanges.main]
markets = [{{ region = "oak", class = "gp.small", reserve = "0.002" }}]

[controlplane]
kubeconfig = "kubeconfig"

[controlplane.sites.main]
region = "oak"

[gateway]
listen = "127.0.0.1:{web}"

[[tenants]]
id = "acme"
token_sha256 = "{TOKEN_SHA256}"

"#
    );
    for (role, key) in services {
        let service =
            format!("[[services]]\nprincipal = \"{role}-1\"\nrole = \"{role}\"\nnkey = \"{key}\"\n\n");
        configuration.push_str(&service);
    }
    configuration
}

#[test]
fn services_run_at_a_broker_of_ones_own() {
    let Ok(nats_server) = find(None) else {
        assert!(std::env::var_os("WALRAS_REQUIRE_NATS").is_none_or(|value| value != "1"), "no nats-server");
        println!("skipped: no nats-server");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let key = |name: &str| printed(walras().arg("nats-key").arg(path(name)));
    let services: Vec<(&str, String)> =
        SERVICES.iter().map(|role| (*role, key(&format!("{role}.nk")))).collect();
    let again = walras().arg("nats-key").arg(path("market.nk")).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "a key is never written over");
    let [client, monitoring, web, market_admin, gateway_admin] = [(); 5].map(|()| free_port());
    let [placement_admin, controlplane_admin] = [(); 2].map(|()| free_port());
    let cluster = management_cluster(&path("kubeconfig"));
    let configuration = configuration(client, monitoring, web, &services);
    fs::write(path("walras.toml"), configuration).unwrap();
    let accounts = printed(walras().arg("nats-accounts").arg("--config").arg(path("walras.toml")));
    fs::write(path("accounts.conf"), accounts).unwrap();
    let broker = format!(
        "host: 127.0.0.1\nport: {client}\nhttp: \"127.0.0.1:{monitoring}\"\nmax_payload: 1MB\n\
         jetstream {{ store_dir: {:?}, sync_interval: always }}\ninclude \"accounts.conf\"\n",
        path("jetstream")
    );
    fs::write(path("nats-server.conf"), broker).unwrap();
    let logs = ["broker.log", "market.log", "gateway.log", "placement.log", "controlplane.log"].map(path);
    let [broker_log, market_log, gateway_log, placement_log, controlplane_log] = &logs;
    let _broker = start(Command::new(nats_server).arg("-c").arg(path("nats-server.conf")), broker_log);

    let service = |name: &str, admin: u16| {
        let mut command = walras();
        command.arg(name).arg("--config").arg(path("walras.toml"));
        command.arg("--set").arg(format!("bus.seed_file={}", path(&format!("{name}.nk")).display()));
        command.arg("--admin-listen").arg(format!("127.0.0.1:{admin}"));
        command
    };
    // The gateway first: it waits for what the market service makes.
    let _gateway = start(&mut service("gateway", gateway_admin), gateway_log);
    let _controlplane = start(&mut service("controlplane", controlplane_admin), controlplane_log);
    let _market = start(&mut service("market", market_admin), market_log);
    let _placement = start(&mut service("placement", placement_admin), placement_log);
    let shown: Vec<&Path> = logs.iter().map(std::path::PathBuf::as_path).collect();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(CONDITION_WAIT_MAX))
        .build()
        .into();
    until(&agent, &format!("http://127.0.0.1:{market_admin}/readyz"), 200, &shown);
    until(&agent, &format!("http://127.0.0.1:{gateway_admin}/readyz"), 200, &shown);
    until(&agent, &format!("http://127.0.0.1:{controlplane_admin}/readyz"), 200, &shown);
    let bid = json!({"id": "b", "cluster": "c", "pool": "p", "quantity": 1,
        "options": [{"market": "oak/gp.small", "limit": "0.030"}]});
    let bids = format!("http://127.0.0.1:{web}/v1/bids");
    let request =
        agent.post(&bids).header("authorization", "Bearer secret").header("content-type", "application/json");
    let mut placed = request.send(serde_json::to_vec(&bid).unwrap()).unwrap();
    let text = placed.body_mut().read_to_string().unwrap();
    assert_eq!(placed.status().as_u16(), 201, "{text}");
    let placed: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&placed["tenant"], &placed["state"]), (&json!("acme"), &json!("queued")));
    has_a_cluster(&agent, &format!("http://127.0.0.1:{web}"), &shown);
    drop(cluster);
}

/// A cluster is asked for at the gateway, decided by placement, made by the control-plane service.
fn has_a_cluster(agent: &ureq::Agent, gateway: &str, logs: &[&Path]) {
    let clusters = format!("{gateway}/v1/clusters");
    let terms = json!({"regions": ["oak"], "version": "v1.35.0", "availability": "single"});
    let request = agent.post(&clusters).header("authorization", "Bearer secret");
    let request = request.header("content-type", "application/json");
    let made = request.send(json!({"cluster": "prod", "terms": terms}).to_string()).unwrap();
    assert_eq!(made.status().as_u16(), 201);
    let deadline = Instant::now() + CONDITION_WAIT_MAX;
    loop {
        let path = format!("{clusters}/prod/kubeconfig");
        let mut found = agent.get(path).header("authorization", "Bearer secret").call().unwrap();
        if found.status().as_u16() == 200 {
            let found: Value = serde_json::from_str(&found.body_mut().read_to_string().unwrap()).unwrap();
            assert!(found["kubeconfig"].as_str().unwrap().contains("/tenants/walras-acme/prod"));
            return;
        }
        let log = || logs.iter().map(|log| fs::read_to_string(log).unwrap_or_default()).collect::<String>();
        assert!(Instant::now() < deadline, "no kubeconfig: {}", log());
        thread::sleep(LOOK);
    }
}

/// A simulated management cluster in this process, and its kubeconfig in a file.
fn management_cluster(kubeconfig: &Path) -> tokio::runtime::Runtime {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let shared =
        cluster_server::Shared::new(cluster::Settings { base_url: url.clone(), ..Default::default() });
    shared.with(|cluster, now| cluster.furnish(now, 3));
    runtime.spawn(cluster_server::serve(listener, shared));
    let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "m",
        "clusters": [{"name": "m", "cluster": {"server": url}}], "users": [{"name": "m", "user": {}}],
        "contexts": [{"name": "m", "context": {"cluster": "m", "user": "m"}}]});
    fs::write(kubeconfig, text.to_string()).unwrap();
    runtime
}
