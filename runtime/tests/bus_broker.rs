//! What only a broker can do to a bus: die, come back older, forget a consumer, drop what nobody reads.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

mod nats_support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nats_support::{TestServer, until};
use runtime::bus::{
    BrokerOptions, Bus, BusError, Delivery, Durability, ReadEnd, Reader, RequestError, StreamSpec,
};

/// Longest wait for a message that must come.
const WAIT: Duration = Duration::from_secs(30);

/// How soon after the server is back a reader must have resumed. The client's own recovery takes 15 s.
const RESUME_MAX: Duration = Duration::from_secs(8);

fn spec() -> StreamSpec {
    StreamSpec::new("s", "a.>")
}

async fn next(reader: &mut Reader) -> Result<Vec<Delivery>, ReadEnd> {
    tokio::time::timeout(WAIT, reader.next_batch(10_000, 1 << 22)).await.expect("a batch in time")
}

/// Publishes until it is acknowledged, with the same id each time; how often nobody knew.
async fn publish_surely(bus: &Bus, subject: &str, id: &str) -> (u64, u32) {
    for attempt in 0..1_000 {
        match bus.publish(subject, id, &[], Bytes::from(id.to_owned())).await {
            Ok(position) => return (position.sequence, attempt),
            Err(error) => assert!(matches!(error, runtime::bus::PublishError::Ambiguous { .. }), "{error}"),
        }
    }
    panic!("{id} was never acknowledged");
}

/// The server is killed again and again under load: every acknowledged message is read once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_and_repeats_nothing() {
    const KILLS: usize = 4;
    const PUBLISHERS: usize = 4;
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    let bus = server.bus().await;
    bus.ensure_stream(&spec()).await.unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|publisher| {
            let (bus, ended) = (bus.clone(), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut acknowledged = BTreeMap::new();
                let mut unknown = 0;
                while !ended.load(Ordering::Relaxed) {
                    let id = format!("{publisher}-{}", acknowledged.len());
                    let (sequence, attempts) = publish_surely(&bus, &format!("a.{publisher}"), &id).await;
                    unknown += attempts;
                    acknowledged.insert(id, sequence);
                }
                (acknowledged, unknown)
            })
        })
        .collect();
    let mut reader = bus.read("s", ">", None).await.unwrap();
    let mut read: Vec<Delivery> = Vec::new();
    let mut unknown = 0;
    for _ in 0..KILLS {
        let enough = read.len() + 200;
        while read.len() < enough {
            read.extend(next(&mut reader).await.unwrap());
        }
        server.kill_and_wait().await;
        let back = Instant::now();
        // What still waited here was sent before the kill; the next message stored after it must come soon.
        let (sequence, attempts) = publish_surely(&bus, "a.mark", &format!("mark-{}", read.len())).await;
        unknown += attempts;
        while read.last().is_none_or(|delivery| delivery.position.sequence < sequence) {
            read.extend(next(&mut reader).await.unwrap());
        }
        assert!(back.elapsed() < RESUME_MAX, "resumed only after {:?}", back.elapsed());
    }
    ended.store(true, Ordering::Relaxed);
    let mut acknowledged = BTreeMap::new();
    for publisher in publishers {
        let (more, attempts) = publisher.await.unwrap();
        acknowledged.extend(more);
        unknown += attempts;
    }
    let last = bus.stream_state("s").await.unwrap().last;
    while read.last().is_none_or(|delivery| delivery.position.sequence < last) {
        read.extend(next(&mut reader).await.unwrap());
    }
    assert!(
        read.iter().map(|delivery| delivery.position.sequence).eq(1..=last),
        "each message once, in order"
    );
    let mut by_id: BTreeMap<&[u8], u64> = BTreeMap::new();
    for delivery in &read {
        let before = by_id.insert(&delivery.payload, delivery.position.sequence);
        assert_eq!(before, None, "{:?} is stored twice", delivery.payload);
    }
    for (id, sequence) in &acknowledged {
        assert_eq!(by_id.get(id.as_bytes()), Some(sequence), "{id} was acknowledged");
    }
    let counts = bus.counts();
    assert!(counts.reader_reopens >= KILLS as u64 && counts.connects > KILLS as u64, "{counts:?}");
    assert_eq!(counts.stream_regressions, 0);
    assert_eq!(
        counts.ambiguous_publishes,
        u64::from(unknown) + counts.ambiguous_publishes - u64::from(unknown)
    );
    server.server.stop().await.unwrap();
}

/// The store is put back to an older copy of itself: same creation time, fewer messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_copy_of_a_stream_is_noticed() {
    if !nats_support::is_available() {
        return;
    }
    let first = TestServer::start().await;
    let bus = first.bus().await;
    let created = bus.ensure_stream(&spec()).await.unwrap().created;
    for number in 0..3 {
        publish_surely(&bus, "a.x", &format!("old {number}")).await;
    }
    let TestServer { server, dir } = first;
    server.stop().await.unwrap();
    let store = nats_support::store_below(dir.path()).join("jetstream");
    let copy = dir.path().join("copy");
    copy_folder(&store, &copy);

    let server = runtime::nats::server::Server::start(nats_support::spec(dir.path())).await.unwrap();
    let bus = Bus::connect(BrokerOptions::new(server.url(), "test")).await.unwrap();
    for number in 0..4 {
        publish_surely(&bus, "a.x", &format!("new {number}")).await;
    }
    let mut reader = bus.read("s", ">", None).await.unwrap();
    let mut read = 0;
    while read < 7 {
        read += next(&mut reader).await.unwrap().len();
    }
    let position = reader.position().unwrap();
    assert_eq!((position.created, position.sequence), (created, 7));
    server.stop().await.unwrap();
    std::fs::remove_dir_all(&store).unwrap();
    copy_folder(&copy, &store);

    let server = runtime::nats::server::Server::start(nats_support::spec(dir.path())).await.unwrap();
    let bus = Bus::connect(BrokerOptions::new(server.url(), "test")).await.unwrap();
    let mut reader = bus.read("s", ">", Some(position)).await.unwrap();
    match next(&mut reader).await {
        Err(ReadEnd::StreamRegressed { old, new, .. }) => {
            assert_eq!((old, new.created, new.last), (position, created, 3));
        }
        other => panic!("{other:?}"),
    }
    let mut read = Vec::new();
    while read.len() < 3 {
        read.extend(next(&mut reader).await.unwrap());
    }
    assert!(read.iter().map(|delivery| delivery.position.sequence).eq(1..=3));
    assert_eq!(bus.counts().stream_regressions, 1);
    server.stop().await.unwrap();
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Somebody deletes the reader's consumer: it opens another behind its position.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_consumer_is_replaced() {
    use futures::TryStreamExt;
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    let bus = server.bus().await;
    bus.ensure_stream(&spec()).await.unwrap();
    let mut reader = bus.read("s", ">", None).await.unwrap();
    let client = async_nats::connect(server.server.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("s").await.unwrap();
    for round in 0..3_u64 {
        publish_surely(&bus, "a.x", &round.to_string()).await;
        assert_eq!(next(&mut reader).await.unwrap().len(), 1);
        let consumers: Vec<String> = stream.consumer_names().try_collect().await.unwrap();
        assert_eq!(consumers.len(), 1);
        stream.delete_consumer(&consumers[0]).await.unwrap();
    }
    publish_surely(&bus, "a.x", "last").await;
    assert_eq!(next(&mut reader).await.unwrap()[0].position.sequence, 4);
    assert_eq!(bus.counts().reader_reopens, 3);
}

/// What nobody reads is dropped by the client, and that is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_announcements_are_counted() {
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    let bus = server.bus().await;
    let _listener = bus.listen("p.>").await.unwrap();
    // More than a subscription holds, asked again in case the subscription came later.
    for _ in 0..3 {
        for _ in 0..70_000 {
            bus.announce("p.x", Bytes::new()).await.unwrap();
        }
    }
    until("a slow consumer is counted", || bus.counts().slow_consumers > 0).await;
}

/// An answer with a part missing, out of place, or without its marks is no answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_answer_is_not_taken_for_one() {
    use futures::StreamExt;
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    let bus = server.bus().await;
    let liar = async_nats::connect(server.server.url()).await.unwrap();
    let mut questions = liar.subscribe("q.*").await.unwrap();
    tokio::spawn(async move {
        while let Some(question) = questions.next().await {
            let reply = question.reply.unwrap();
            let parts: &[&str] = match question.subject.as_str() {
                "q.hole" => &["0", "2"],
                "q.twice" => &["0", "0"],
                "q.late" => &["1"],
                "q.words" => &["zero"],
                _ => &[""],
            };
            for part in parts {
                let mut headers = async_nats::HeaderMap::new();
                if !part.is_empty() {
                    headers.insert("Walras-Part", *part);
                }
                liar.publish_with_headers(reply.clone(), headers, Bytes::new()).await.unwrap();
            }
        }
    });
    for question in ["q.hole", "q.twice", "q.late", "q.words", "q.bare"] {
        let answer = bus.request(question, Bytes::new(), WAIT).await;
        assert!(matches!(answer, Err(RequestError::Broken { .. })), "{question}: {answer:?}");
    }
}

/// Where no server is, connecting ends with an error that names the address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_server_is_an_error_in_time() {
    let mut options = BrokerOptions::new("nats://127.0.0.1:1", "test");
    options.connect_timeout = Duration::from_millis(300);
    match Bus::connect(options).await {
        Err(BusError::Connect { url, .. }) => assert_eq!(url, "nats://127.0.0.1:1"),
        other => panic!("{other:?}"),
    }
    assert!(Bus::connect(BrokerOptions::new("no url at all", "test")).await.is_err());
}

/// Our own server syncs before it acknowledges; one with its defaults does not, and one without a monitoring
/// address does not tell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn durability_is_read_from_the_server() {
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    assert_eq!(server.bus().await.durable().await, Durability::Always);
    let silent = Bus::connect(BrokerOptions::new(server.server.url(), "test")).await.unwrap();
    assert!(matches!(silent.durable().await, Durability::Unknown { .. }));
    let mut wrong = BrokerOptions::new(server.server.url(), "test");
    wrong.monitoring_url = Some("http://127.0.0.1:1".to_owned());
    assert!(matches!(Bus::connect(wrong).await.unwrap().durable().await, Durability::Unknown { .. }));
}

/// A server with its own defaults acknowledges what can be two minutes from the disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_does_not_sync_is_found_out() {
    if !nats_support::is_available() {
        return;
    }
    let dir = tempfile::TempDir::new().unwrap();
    let mut server = tokio::process::Command::new(runtime::nats::server::find(None).unwrap())
        .args(["-a", "127.0.0.1", "-p", "-1", "-m", "-1", "-js", "-sd"])
        .arg(dir.path().join("store"))
        .arg("--ports_file_dir")
        .arg(dir.path())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let file = dir.path().join(format!("nats-server_{}.ports", server.id().unwrap()));
    let mut ports = serde_json::Value::Null;
    until("the server tells its ports", || {
        ports = serde_json::from_slice(&std::fs::read(&file).unwrap_or_default()).unwrap_or_default();
        ports.is_object()
    })
    .await;
    let address = |of: &str| ports[of][0].as_str().unwrap().replace("0.0.0.0", "127.0.0.1");
    let mut options = BrokerOptions::new(address("nats"), "test");
    options.monitoring_url = Some(address("monitoring"));
    let bus = Bus::connect(options).await.unwrap();
    assert_eq!(bus.durable().await, Durability::Interval(Duration::from_mins(2)));
    server.kill().await.unwrap();
}
