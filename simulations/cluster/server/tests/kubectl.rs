//! The real `kubectl` against the cluster, as processes. Skipped with a line where there is no `kubectl`.

#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    clippy::too_many_lines,
    reason = "helpers of tests"
)]

use std::collections::BTreeSet;
use std::io::BufRead;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Settings;
use cluster_server::{Shared, serve};

/// How long something may take that ends by itself.
const PATIENCE: Duration = Duration::from_mins(1);

struct Kubectl {
    server: String,
    home: tempfile::TempDir,
    shared: Arc<Shared>,
    /// The server runs in it.
    _runtime: tokio::runtime::Runtime,
}

impl Kubectl {
    /// A cluster with hosts whose pods start fast, or none if there is no `kubectl`.
    fn new() -> Option<Self> {
        let mut ask = Command::new("kubectl");
        ask.args(["version", "--client"]).stdout(Stdio::null()).stderr(Stdio::null());
        if !ask.status().is_ok_and(|status| status.success()) {
            println!("skipped: there is no kubectl");
            return None;
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let settings = Settings {
            base_url: server.clone(),
            pod_start_micros: 50_000,
            pod_stop_micros: 50_000,
            kamaji_pass_micros: 5_000,
            kamaji_certificates_micros: 50_000,
            ..Settings::default()
        };
        let shared = Shared::new(settings);
        shared.with(|cluster, now| cluster.furnish(now, 3));
        runtime.spawn(serve(listener, Arc::clone(&shared)));
        Some(Self { server, home: tempfile::tempdir().unwrap(), shared, _runtime: runtime })
    }

    /// A line as arguments: blanks divide them, `~` stands for a blank inside of one.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(line.split_whitespace().map(|word| word.replace('~', " ")))
            .env("HOME", self.home.path())
            .env_remove("KUBECONFIG");
        command.stdin(Stdio::null());
        if !line.contains("--kubeconfig") {
            command.args(["--server", &self.server]);
        }
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs a line that succeeds, and gives back what it says.
    fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "kubectl {line}: {}", said(&output.stderr));
        said(&output.stdout)
    }

    /// Runs a line that fails, and gives back why.
    fn fails(&self, line: &str) -> String {
        let output = self.run(line);
        assert!(!output.status.success(), "kubectl {line} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn until(&self, line: &str, wanted: &str) {
        let begun = Instant::now();
        while self.ok(line) != wanted {
            assert!(begun.elapsed() < PATIENCE, "kubectl {line}: {:?}, never {wanted:?}", self.ok(line));
        }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Kubectl {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

const WEB: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: t}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: t}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: 'web:1', ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: t}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

const PLANE: &str = "
apiVersion: kamaji.clastix.io/v1alpha1
kind: TenantControlPlane
metadata: {name: acme, namespace: t}
spec:
  dataStore: default
  controlPlane:
    deployment: {replicas: 1}
    service: {serviceType: LoadBalancer}
  kubernetes: {version: v1.35.0}
  addons: {konnectivity: {}}
";

#[test]
fn people_apply_look_scale_and_delete() {
    let Some(kubectl) = Kubectl::new() else { return };
    let file = kubectl.file("web.yaml", WEB);
    assert!(kubectl.ok(&format!("apply -f {file}")).contains("deployment.apps/web created"));
    assert!(
        kubectl.ok("rollout status deployment/web -n t --timeout 60s").contains("successfully rolled out")
    );
    // Applying the same again changes nothing.
    assert!(!kubectl.ok(&format!("apply -f {file}")).contains("configured"));

    let nodes = kubectl.ok("get nodes");
    assert_eq!(nodes.lines().filter(|line| line.contains(" Ready ")).count(), 3, "{nodes}");
    let pods = kubectl.ok("get pods -n t -l app=web -o wide --no-headers");
    assert_eq!(
        pods.lines().filter(|line| line.contains("1/1") && line.contains("Running")).count(),
        2,
        "{pods}"
    );
    assert!(kubectl.ok("get all -n t").contains("service/web"));
    assert_eq!(kubectl.ok("get deploy web -n t -o jsonpath={.status.readyReplicas}"), "2");
    let told = kubectl.ok("describe deployment web -n t");
    assert!(told.contains("2 desired | 2 updated | 2 total | 2 available"), "{told}");
    assert!(kubectl.ok("describe pods -n t").contains("Controlled By:  ReplicaSet/web-"));
    assert!(kubectl.ok("describe node mgmt-1").contains("Capacity:"));

    let newer = kubectl.file("newer.yaml", &WEB.replace("web:1", "web:2"));
    assert!(kubectl.ok(&format!("diff -f {file}")).is_empty());
    assert!(kubectl.ok(&format!("apply -f {newer}")).contains("deployment.apps/web configured"));
    kubectl.ok("rollout status deployment/web -n t --timeout 60s");
    assert_eq!(kubectl.ok("get deploy web -n t -o jsonpath={..image}"), "web:2");
    kubectl.ok("scale deployment/web -n t --replicas 3");
    kubectl.until("get deploy web -n t -o jsonpath={.status.readyReplicas}", "3");
    kubectl.ok("label deploy web -n t colour=red");
    kubectl.ok("annotate deploy web -n t why=test");
    kubectl.ok("cordon mgmt-1");
    assert!(kubectl.ok("get node mgmt-1").contains("Ready,SchedulingDisabled"));
    kubectl.ok("drain mgmt-1 --ignore-daemonsets --timeout 60s");
    assert_eq!(kubectl.ok("get pods -n t --field-selector spec.nodeName=mgmt-1 -o name"), "");
    kubectl.ok("uncordon mgmt-1");
    kubectl.ok("wait --for=condition=Available deployment/web -n t --timeout 60s");

    assert!(kubectl.fails("get deploy none -n t").contains("deployments.apps \"none\" not found"));
    assert!(kubectl.fails(&format!("create -f {file}")).contains("already exists"));
    // It waits until what it deletes is gone.
    kubectl.ok("delete deployment web -n t --cascade=foreground");
    assert_eq!(kubectl.ok("get pods -n t -l app=web -o name"), "");
    kubectl.ok("delete namespace t");
    assert!(kubectl.fails("get namespace t").contains("not found"));
}

#[test]
fn appliers_conflict_until_forced() {
    let Some(kubectl) = Kubectl::new() else { return };
    let file = kubectl.file("web.yaml", WEB);
    kubectl.ok(&format!("apply --server-side -f {file}"));
    let other = kubectl.file("other.yaml", &WEB.replace("replicas: 2", "replicas: 1"));
    let why = kubectl.fails(&format!("apply --server-side --field-manager other -f {other}"));
    assert!(why.contains("conflict with \"kubectl\"") && why.contains(".spec.replicas"), "{why}");
    kubectl.ok(&format!("apply --server-side --field-manager other --force-conflicts -f {other}"));
    kubectl.until("get deploy web -n t -o jsonpath={.status.readyReplicas}", "1");
    assert!(kubectl.fails(&format!("apply --server-side -f {file}")).contains("conflict with \"other\""));
}

#[test]
fn planes_are_seen_and_serve() {
    let Some(kubectl) = Kubectl::new() else { return };
    kubectl.ok(&format!(
        "apply -f {}",
        kubectl.file("t.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: t}\n")
    ));
    kubectl.ok(&format!("apply --server-side -f {}", kubectl.file("plane.yaml", PLANE)));
    let word = "get tcp acme -n t -o jsonpath={.status.kubernetesResources.version.status}";
    kubectl.until(word, "Ready");
    let row = kubectl.ok("get tcp -n t");
    assert!(row.contains("CONTROL-PLANE ENDPOINT") && row.contains("acme-admin-kubeconfig"), "{row}");
    assert!(kubectl.ok("describe tcp acme -n t").contains("Observed Generation:"));
    let secret =
        "get secret acme-admin-kubeconfig -n t -o go-template={{index~.data~\"admin.conf\"|base64decode}}";
    let config = kubectl.file("acme.conf", &kubectl.ok(secret));
    let inside = kubectl.ok(&format!("--kubeconfig {config} get namespaces -o name"));
    assert!(inside.contains("namespace/kube-system") && !inside.contains("namespace/t\n"), "{inside}");
    kubectl.ok("scale tcp acme -n t --replicas 0");
    kubectl.until(word, "Sleeping");
    kubectl.ok("delete tcp acme -n t");
}

#[test]
fn watches_tell_what_happens() {
    let Some(kubectl) = Kubectl::new() else { return };
    kubectl.ok(&format!("apply -f {}", kubectl.file("web.yaml", WEB)));
    let mut watch = kubectl.command("get pods -n t --watch -o name").stdout(Stdio::piped()).spawn().unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    let lines = std::io::BufReader::new(watch.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| tell.send(line)));
    let mut names = BTreeSet::new();
    let mut until = |several| {
        while names.len() < several {
            names.insert(told.recv_timeout(PATIENCE).unwrap());
        }
    };
    until(2);
    kubectl.ok("delete pods -n t -l app=web");
    // The two that replace them.
    until(4);
    watch.kill().unwrap();
    watch.wait().unwrap();
    drop(told);
    let _ended = reader.join().unwrap();
}
