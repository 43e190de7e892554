//! A reconciler against a simulated management cluster over HTTP.

#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cluster::fault::{Fault, Harm};
use cluster::{Control, Settings};
use cluster_server::{Shared, serve};
use controlplane::{Amount, Desired, Plane, PlaneState};
use controlplane_service::{Order, Reconciler, client_of};
use kube::{Client, Config};
use proto::placement::{Driver, PlaneNumber};
use runtime::shell::Stop;
use runtime::telemetry::Meter;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How long something may take that ends by itself.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// A cluster in which everything is quick.
pub(crate) async fn start(hosts: u32) -> (Arc<Shared>, Client) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let settings = Settings {
        base_url: url.clone(),
        reaction_micros: 1_000,
        pod_start_micros: 30_000,
        pod_stop_micros: 30_000,
        kamaji_pass_micros: 2_000,
        kamaji_certificates_micros: 10_000,
        kamaji_migration_micros: 50_000,
        kamaji_concurrency: 8,
        ..Settings::default()
    };
    let shared = Shared::new(settings);
    shared.with(|cluster, now| cluster.furnish(now, hosts));
    tokio::spawn(serve(listener, Arc::clone(&shared)));
    (shared, client_of(Config::new(url.parse().unwrap())).unwrap())
}

pub(crate) fn harm(shared: &Shared, faults: &[(&str, &str, u16, Harm)]) {
    let faults = faults.iter().map(|(kind, verb, permille, harm)| Fault {
        kind: (*kind).to_owned(),
        verb: (*verb).to_owned(),
        permille: *permille,
        times: 0,
        harm: harm.clone(),
    });
    let faults = Control::Faults(faults.collect());
    shared.with(|cluster, now| cluster.control(now, faults)).unwrap();
}

/// A reconciler that runs.
pub(crate) struct Running {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) states: watch::Receiver<BTreeMap<PlaneNumber, PlaneState>>,
    pub(crate) meter: Meter,
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    pub(crate) fn new(client: Client) -> Self {
        let (orders, given) = mpsc::channel(64);
        let (reports, mut told) = mpsc::channel::<PlaneState>(64);
        let meter = Meter::new("controlplane").unwrap();
        let reconciler =
            Reconciler::new(client, &"main".parse().unwrap(), Desired::default(), reports, &meter).unwrap();
        let (stop, stopped) = Stop::new();
        let task = tokio::spawn(reconciler.run(given, stopped));
        let (known, states) = watch::channel(BTreeMap::new());
        tokio::spawn(async move {
            while let Some(state) = told.recv().await {
                known.send_modify(|known| drop(known.insert(state.number, state)));
            }
        });
        Self { orders, states, meter, stop, task }
    }

    pub(crate) async fn tell(&self, order: Order) {
        self.orders.send(order).await.unwrap();
    }

    /// Orders planes, and that these are all.
    pub(crate) async fn order(&self, planes: &[(PlaneNumber, &Plane)]) {
        for (number, plane) in planes {
            self.tell(Order::Set(*number, (*plane).clone())).await;
        }
        self.tell(Order::CaughtUp).await;
    }

    /// Waits until a plane is so.
    pub(crate) async fn until(&mut self, number: PlaneNumber, what: &str, is: impl Fn(&PlaneState) -> bool) {
        let waited = self.states.wait_for(|states| states.get(&number).is_some_and(&is));
        let Ok(met) = tokio::time::timeout(PATIENCE, waited).await else {
            panic!("{what}: {:?}", self.states.borrow().get(&number));
        };
        met.unwrap();
    }

    /// Waits until an order for a plane is carried out.
    pub(crate) async fn reached(&mut self, number: PlaneNumber, generation: u64) {
        let what = format!("plane {number}, order {generation}");
        self.until(number, &what, |state| state.reached == Some(generation)).await;
    }

    /// Ends it as a crash would: whatever it was doing stays half done.
    pub(crate) fn crash(self) {
        self.task.abort();
    }

    pub(crate) async fn stop(self) {
        self.stop.send_replace(true);
        within("the end", self.task).await.unwrap().unwrap();
    }
}

/// A plane on hosts of these numbers.
pub(crate) fn plane(tenant: &str, cluster: &str, hosts: &[u32]) -> Plane {
    Plane {
        tenant: tenant.parse().unwrap(),
        cluster: cluster.parse().unwrap(),
        generation: 1,
        deleted: false,
        replicas: hosts.len() as u32,
        hosts: names(hosts),
        gone_at: None,
        version: "v1.34.0".parse().unwrap(),
        request: Amount { cpu_milli: 500, memory_mib: 1200 },
        data_store: "default".to_owned(),
        driver: Driver::Etcd,
    }
}

pub(crate) fn names(hosts: &[u32]) -> Vec<String> {
    hosts.iter().map(|number| format!("mgmt-{number}")).collect()
}
