//! Workers of leases, whom no list names, and what hypervisors ask for them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use bytes::Bytes;
use futures::StreamExt;
use runtime::bus::Bus;
use runtime::nats::callout::{Applicant, CALLOUT_SUBJECT, Issuer};

use super::nats_support::until;
use super::{WAIT, World};

/// Lets in whoever shows the password, as the control planes' service does.
async fn callout(world: &World, password: &'static str) -> (Bus, runtime::bus::Serving) {
    let bus = world.bus("controlplane").await;
    let issuer = Arc::new(Issuer::from_seed(&world.issuer.seed().unwrap()).unwrap());
    let handler = move |query: runtime::bus::Query| {
        let issuer = Arc::clone(&issuer);
        async move {
            let who = Applicant::read(&query.payload).map_err(|error| error.to_string())?;
            let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            let now = proto::Timestamp::from_micros(since.as_micros() as i64);
            let order = format!("walras.v1.order.worker.{}", who.name);
            let answer = if who.password == password {
                issuer.admit(&who, now, now.plus_seconds(60), &[order])
            } else {
                issuer.refuse(&who, now, "no")
            };
            answer.map(Bytes::from).map_err(|error| error.to_string())
        }
    };
    let serving = bus.serve(CALLOUT_SUBJECT, handler).await.unwrap();
    (bus, serving)
}

/// A worker of a lease is in no list: it shows its password, hears what it is told itself, and says nothing at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_of_a_lease_hears_its_own_orders_and_nothing_else() {
    let Some(world) = World::start().await else { return };
    world.furnish().await;
    let (controlplane, _serving) = callout(&world, "good").await;
    let url = world.server.server.url();
    let connect = |name: &str, password: &str| {
        ConnectOptions::with_user_and_password(name.to_owned(), password.to_owned())
    };
    // Nobody gets in by the name of somebody who is listed.
    for (name, password) in [("main-7", "bad"), ("", ""), ("market", "bad")] {
        assert!(connect(name, password).connect(&url).await.is_err(), "{name}");
    }
    let reproaches = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&reproaches);
    let options = connect("main-7", "good").event_callback(move |event| {
        let heard = Arc::clone(&heard);
        async move {
            if let Event::ServerError(error) = event {
                heard.lock().unwrap().push(error.to_string().to_ascii_lowercase());
            }
        }
    });
    let worker = options.connect(&url).await.unwrap();
    let own = "walras.v1.order.worker.main-7";
    let mut orders = worker.subscribe(own).await.unwrap();
    let may_not =
        ["walras.v1.order.worker.main-8", "walras.v1.order.>", "walras.v1.price.>", "_INBOX.x", ">"];
    let mut others = Vec::new();
    for subject in may_not {
        others.push(worker.subscribe(subject).await.unwrap());
        until(subject, || {
            reproaches
                .lock()
                .unwrap()
                .iter()
                .any(|said| said.contains(&format!("\"{}\"", subject.to_ascii_lowercase())))
        })
        .await;
    }
    for subject in [own, "walras.v1.command.market.main.worker.lease-7", "$JS.API.INFO", "_INBOX.x"] {
        worker.publish(subject, Bytes::new()).await.unwrap();
        let quoted = format!("publish to \"{}\"", subject.to_ascii_lowercase());
        until(subject, || reproaches.lock().unwrap().iter().any(|said| said.contains(&quoted))).await;
    }
    controlplane.announce("walras.v1.order.worker.main-8", Bytes::from_static(b"not yours")).await.unwrap();
    controlplane.announce(own, Bytes::from_static(b"yours")).await.unwrap();
    let message = tokio::time::timeout(WAIT, orders.next()).await.unwrap().unwrap();
    assert_eq!(message.payload, "yours");
    assert_eq!(controlplane.counts().broker_errors, 0, "no right was missing");
}

/// A hypervisor asks for join secrets as itself, over its own account, and is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hypervisor_is_told_join_secrets() {
    let Some(world) = World::start().await else { return };
    let controlplane = world.bus("controlplane").await;
    let _serving = controlplane
        .serve("walras.v1.query.controlplane.main.join-secret.hypervisor.*", |query| async move {
            Ok(Bytes::from(format!("{} {}", query.subject, query.payload.len())))
        })
        .await
        .unwrap();
    let hypervisor = world.bus("h1").await;
    let subject = "walras.v1.query.controlplane.main.join-secret.hypervisor.h1";
    let parts = hypervisor.request(subject, Bytes::from_static(b"{}"), WAIT).await.unwrap();
    assert_eq!(parts.concat(), format!("{subject} 2").as_bytes());
    let foreign = "walras.v1.query.controlplane.main.join-secret.hypervisor.h2";
    assert!(hypervisor.request(foreign, Bytes::new(), Duration::from_millis(500)).await.is_err());
    assert_eq!(controlplane.counts().broker_errors, 0, "no right was missing");
}
