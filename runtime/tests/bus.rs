//! One suite, two buses: what holds on the broker holds in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

mod nats_support;

use std::time::Duration;

use bytes::Bytes;
use nats_support::TestServer;
use runtime::bus::{
    Bus, BusError, Delivery, Position, PublishError, ReadEnd, Reader, Refusal, RequestError, StreamSpec,
};

/// Longest wait for a message that must come.
const WAIT: Duration = Duration::from_secs(30);

/// A bus, and what is needed to break it.
struct Ground {
    bus: Bus,
    server: Option<TestServer>,
}

impl Ground {
    fn memory() -> Self {
        Self { bus: Bus::memory(), server: None }
    }

    async fn broker() -> Option<Self> {
        if !nats_support::is_available() {
            return None;
        }
        let server = TestServer::start().await;
        Some(Self { bus: server.bus().await, server: Some(server) })
    }

    /// Deletes the stream and makes it again, as an operator's mistake would.
    async fn recreate(&self, spec: &StreamSpec) {
        if let Some(local) = self.bus.local() {
            local.recreate(&spec.name).unwrap();
            return;
        }
        let client = async_nats::connect(self.server.as_ref().unwrap().server.url()).await.unwrap();
        async_nats::jetstream::new(client).delete_stream(&spec.name).await.unwrap();
        self.bus.ensure_stream(spec).await.unwrap();
    }
}

/// Runs a test on both buses.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn memory() {
                super::suite::$name(super::Ground::memory()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn broker() {
                if let Some(ground) = super::Ground::broker().await {
                    super::suite::$name(ground).await;
                }
            }
        }
    )+};
}

on_both!(
    order_and_positions,
    resumes_behind_a_position,
    one_id_is_one_message,
    filters_by_subject,
    purges_a_prefix,
    a_full_stream_refuses,
    refuses_what_cannot_be,
    a_recreated_stream_is_read_from_its_first_message,
    unsafe_streams_are_refused,
    batches_are_bounded,
    a_waiting_reader_can_be_dropped,
    readers_wait_for_their_stream,
    questions_and_answers,
    long_answers_come_in_parts,
    announcements,
    a_slow_reader_loses_nothing,
    concurrent_publishers_share_a_stream,
);

fn spec() -> StreamSpec {
    StreamSpec::new("s", "a.>")
}

fn text(delivery: &Delivery) -> &str {
    std::str::from_utf8(&delivery.payload).unwrap()
}

async fn put(bus: &Bus, subject: &str, id: &str, payload: &str) -> Position {
    bus.publish(subject, id, &[("Walras-Test", "1")], Bytes::from(payload.to_owned())).await.unwrap()
}

async fn next(reader: &mut Reader, max_messages: usize) -> Result<Vec<Delivery>, ReadEnd> {
    tokio::time::timeout(WAIT, reader.next_batch(max_messages, 1 << 20)).await.expect("a batch in time")
}

/// Reads until `count` messages came.
async fn take(reader: &mut Reader, count: usize) -> Vec<Delivery> {
    let mut taken = Vec::new();
    while taken.len() < count {
        taken.extend(next(reader, count - taken.len()).await.unwrap());
    }
    taken
}

async fn is_quiet(reader: &mut Reader) -> bool {
    tokio::time::timeout(Duration::from_millis(100), reader.next_batch(1, 1)).await.is_err()
}

mod suite {
    use super::*;

    pub(super) async fn order_and_positions(ground: Ground) {
        let bus = &ground.bus;
        let state = bus.ensure_stream(&spec()).await.unwrap();
        assert_eq!((state.first, state.last, state.messages), (1, 0, 0));
        let mut reader = bus.read("s", ">", None).await.unwrap();
        let mut positions = Vec::new();
        for number in 0..50 {
            positions.push(put(bus, "a.x", &format!("i{number}"), &number.to_string()).await);
        }
        let read = take(&mut reader, 50).await;
        assert_eq!(read.iter().map(|delivery| delivery.position).collect::<Vec<_>>(), positions);
        assert_eq!(
            read.iter().map(text).collect::<Vec<_>>(),
            (0..50).map(|number| number.to_string()).collect::<Vec<_>>()
        );
        assert!(read.iter().all(|delivery| delivery.subject == "a.x"));
        assert_eq!(reader.position(), positions.last().copied());
        assert_eq!(positions.first(), Some(&Position { created: state.created, sequence: 1 }));
        let state = bus.stream_state("s").await.unwrap();
        assert_eq!((state.first, state.last, state.messages), (1, 50, 50));
        assert!(state.bytes > 50);
        assert_eq!(bus.counts().reader_reopens, 0);
    }

    pub(super) async fn resumes_behind_a_position(ground: Ground) {
        let bus = &ground.bus;
        bus.ensure_stream(&spec()).await.unwrap();
        let mut positions = Vec::new();
        for number in 0..10 {
            positions.push(put(bus, "a.x", "", &number.to_string()).await);
        }
        for (index, position) in positions.iter().enumerate() {
            let mut reader = bus.read("s", "a.*", Some(*position)).await.unwrap();
            assert_eq!(reader.position(), Some(*position));
            let rest = take(&mut reader, 9 - index).await;
            assert!(rest.iter().map(text).eq((index + 1..10).map(|number| number.to_string())));
            assert!(is_quiet(&mut reader).await);
        }
    }

    pub(super) async fn one_id_is_one_message(ground: Ground) {
        let bus = &ground.bus;
        bus.ensure_stream(&spec()).await.unwrap();
        let first = put(bus, "a.x", "same", "one").await;
        let other = put(bus, "a.x", "other", "two").await;
        // Stream-wide: another subject, another content, the same id.
        let again = put(bus, "a.y", "same", "three").await;
        assert_eq!((first.sequence, other.sequence, again), (1, 2, first));
        assert_eq!(bus.stream_state("s").await.unwrap().messages, 2);
        let without = [put(bus, "a.x", "", "four").await, put(bus, "a.x", "", "five").await];
        assert_eq!(without.map(|position| position.sequence), [3, 4]);
    }

    pub(super) async fn filters_by_subject(ground: Ground) {
        let bus = &ground.bus;
        bus.ensure_stream(&spec()).await.unwrap();
        for subject in ["a.x", "a.y", "a.x.z", "a.y.z", "a.x"] {
            put(bus, subject, "", subject).await;
        }
        for (filter, expected) in [
            (">", vec![1, 2, 3, 4, 5]),
            ("a.x", vec![1, 5]),
            ("a.*", vec![1, 2, 5]),
            ("a.x.>", vec![3]),
            ("a.*.z", vec![3, 4]),
        ] {
            let mut reader = bus.read("s", filter, None).await.unwrap();
            let read = take(&mut reader, expected.len()).await;
            assert_eq!(
                read.iter().map(|delivery| delivery.position.sequence).collect::<Vec<_>>(),
                expected,
                "{filter}"
            );
            assert!(is_quiet(&mut reader).await, "{filter}");
        }
    }

    pub(super) async fn purges_a_prefix(ground: Ground) {
        let bus = &ground.bus;
        bus.ensure_stream(&spec()).await.unwrap();
        for number in 1..=10 {
            put(bus, "a.x", "", &number.to_string()).await;
        }
        bus.purge("s", 7).await.unwrap();
        let state = bus.stream_state("s").await.unwrap();
        assert_eq!((state.first, state.last, state.messages), (8, 10, 3));
        let mut reader = bus.read("s", ">", None).await.unwrap();
        assert!(take(&mut reader, 3).await.iter().map(text).eq(["8", "9", "10"]));
        // Nothing left is not a regression: the sequence goes on.
        bus.purge("s", 10).await.unwrap();
        let state = bus.stream_state("s").await.unwrap();
        assert_eq!((state.first, state.last, state.messages, state.bytes), (11, 10, 0, 0));
        let mut resumed = bus.read("s", ">", reader.position()).await.unwrap();
        assert_eq!(put(bus, "a.x", "", "11").await.sequence, 11);
        for reader in [&mut reader, &mut resumed] {
            assert!(take(reader, 1).await.iter().map(text).eq(["11"]));
        }
        assert!(matches!(
            bus.purge("none", 1).await,
            Err(BusError::NoSuchStream { .. } | BusError::Broker { .. })
        ));
    }

    pub(super) async fn a_full_stream_refuses(ground: Ground) {
        let bus = &ground.bus;
        let small = StreamSpec { discard_new: true, max_bytes: 4_096, max_message_bytes: 2_048, ..spec() };
        bus.ensure_stream(&small).await.unwrap();
        let kilobyte = || Bytes::from(vec![b'x'; 1_024]);
        let mut stored = 0;
        let refusal = loop {
            match bus.publish("a.x", &format!("i{stored}"), &[], kilobyte()).await {
                Ok(position) => stored = position.sequence,
                Err(refusal) => break refusal,
            }
            assert!(stored < 10, "a stream of 4 KiB took 10 KiB");
        };
        assert!(
            matches!(&refusal, PublishError::Refused { reason: Refusal::Full { .. }, .. }),
            "{refusal:?}"
        );
        assert_eq!(bus.stream_state("s").await.unwrap().messages, stored);
        let large = bus.publish("a.x", "", &[], Bytes::from(vec![b'x'; 3_000])).await;
        assert!(
            matches!(&large, Err(PublishError::Refused { reason: Refusal::TooLarge { .. }, .. })),
            "{large:?}"
        );
        assert_eq!(bus.counts().refused_publishes, 2);
        // Room again: the same id goes through.
        bus.purge("s", 1).await.unwrap();
        assert_eq!(
            bus.publish("a.x", &format!("i{stored}"), &[], kilobyte()).await.unwrap().sequence,
            stored + 1
        );
    }

    pub(super) async fn refuses_what_cannot_be(ground: Ground) {
        let bus = &ground.bus;
        for (bad, field) in [
            (StreamSpec::new("a.b", "a.>"), "name"),
            (StreamSpec::new("s", "a..b"), "subjects"),
            (StreamSpec { subjects: vec![], ..spec() }, "subjects"),
            (StreamSpec { max_message_bytes: 0, ..spec() }, "max_message_bytes"),
            (StreamSpec { max_message_bytes: u32::MAX, ..spec() }, "max_message_bytes"),
            (StreamSpec { max_bytes: 10, ..spec() }, "max_bytes"),
            (StreamSpec { duplicate_window: Duration::ZERO, ..spec() }, "duplicate_window"),
            (StreamSpec { replicas: 2, ..spec() }, "replicas"),
        ] {
            match bus.ensure_stream(&bad).await {
                Err(BusError::Invalid { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
        bus.ensure_stream(&spec()).await.unwrap();
        for subject in ["", "a..b", "a.*", "a.>", "a b", "a.x\r\nPUB b 1\r\nx"] {
            let outcome = bus.publish(subject, "", &[], Bytes::new()).await;
            assert!(
                matches!(outcome, Err(PublishError::Refused { reason: Refusal::Subject, .. })),
                "{subject:?}"
            );
        }
        let outcome = bus.publish("a.x", "id\r\nX: y", &[], Bytes::new()).await;
        assert!(
            matches!(outcome, Err(PublishError::Refused { reason: Refusal::Header { .. }, .. })),
            "{outcome:?}"
        );
        let outcome = bus.publish("nobody.keeps", "id", &[], Bytes::new()).await;
        assert!(matches!(outcome, Err(PublishError::Ambiguous { .. })), "{outcome:?}");
        assert!(matches!(bus.read("s", "a.>.b", None).await, Err(BusError::Invalid { field: "filter", .. })));
        assert!(matches!(bus.read("s.t", ">", None).await, Err(BusError::Invalid { field: "stream", .. })));
        assert!(matches!(bus.stream_state("none").await, Err(BusError::NoSuchStream { .. })));
        assert!(matches!(
            bus.ensure_stream(&StreamSpec::new("t", "a.x")).await,
            Err(BusError::Broker { .. })
        ));
    }

    pub(super) async fn a_recreated_stream_is_read_from_its_first_message(ground: Ground) {
        let bus = &ground.bus;
        let before = bus.ensure_stream(&spec()).await.unwrap();
        for number in 0..5 {
            put(bus, "a.x", "", &number.to_string()).await;
        }
        let mut live = bus.read("s", ">", None).await.unwrap();
        let position = take(&mut live, 5).await.last().unwrap().position;
        ground.recreate(&spec()).await;
        // More messages than before: the sequence alone would hide it.
        for number in 0..8 {
            assert!(put(bus, "a.x", "", &format!("new {number}")).await.created > before.created);
        }
        let mut late = bus.read("s", ">", Some(position)).await.unwrap();
        for reader in [&mut live, &mut late] {
            match next(reader, 10).await {
                Err(ReadEnd::StreamRegressed { stream, old, new }) => {
                    assert_eq!((stream.as_str(), old), ("s", position));
                    assert!(new.created > before.created);
                }
                other => panic!("{other:?}"),
            }
            let read = take(reader, 8).await;
            assert!(read.iter().map(text).eq((0..8).map(|number| format!("new {number}"))));
            assert!(read.iter().all(|delivery| delivery.position.created > before.created));
            assert!(is_quiet(reader).await, "told once");
        }
        assert_eq!(bus.counts().stream_regressions, 2);
    }

    pub(super) async fn unsafe_streams_are_refused(ground: Ground) {
        let bus = &ground.bus;
        let created = bus.ensure_stream(&spec()).await.unwrap().created;
        let grown = StreamSpec { max_bytes: 2 << 30, max_age: Some(Duration::from_hours(1)), ..spec() };
        assert_eq!(bus.ensure_stream(&grown).await.unwrap().created, created, "sizes and ages may change");
        for (other, setting) in [
            (StreamSpec { discard_new: true, ..spec() }, "discard"),
            (StreamSpec { subjects: vec!["a.x".to_owned()], ..spec() }, "subjects"),
        ] {
            match bus.ensure_stream(&other).await {
                Err(BusError::UnsafeStream { problems, .. }) => {
                    assert!(problems.contains(setting), "{problems}");
                }
                outcome => panic!("{setting}: {outcome:?}"),
            }
        }
    }

    pub(super) async fn batches_are_bounded(ground: Ground) {
        let bus = &ground.bus;
        bus.ensure_stream(&spec()).await.unwrap();
        for _ in 0..10 {
            bus.publish("a.x", "", &[], Bytes::from(vec![0; 1_000])).await.unwrap();
        }
        let mut reader = bus.read("s", ">", None).await.unwrap();
        let mut read = 0;
        while read < 10 {
            // Room for two and a half; then for less than one, which still comes alone.
            let (room, most) = if read < 6 { (2_500, 2) } else { (10, 1) };
            let batch = tokio::time::timeout(WAIT, reader.next_batch(100, room)).await.unwrap().unwrap();
            assert!((1..=most).contains(&batch.len()), "{} messages in {room} bytes", batch.len());
            read += batch.len();
        }
        assert_eq!(reader.position().map(|position| position.sequence), Some(10));
    }

    pub(super) async fn a_waiting_reader_can_be_dropped(ground: Ground) {
        let bus = ground.bus.clone();
        bus.ensure_stream(&spec()).await.unwrap();
        let mut reader = bus.read("s", ">", None).await.unwrap();
        let publisher = tokio::spawn(async move {
            for number in 0..200 {
                put(&bus, "a.x", "", &number.to_string()).await;
            }
        });
        // Waiting in slices far shorter than opening the stream takes.
        let (mut read, mut slices) = (Vec::new(), 0_u32);
        while read.len() < 200 {
            if let Ok(batch) =
                tokio::time::timeout(Duration::from_micros(200), reader.next_batch(3, 1 << 20)).await
            {
                read.extend(batch.unwrap());
            }
            slices += 1;
            assert!(slices < 1_000_000, "the reader never gets on");
        }
        publisher.await.unwrap();
        assert!(read.iter().map(text).eq((0..200).map(|number| number.to_string())));
    }

    pub(super) async fn readers_wait_for_their_stream(ground: Ground) {
        let bus = &ground.bus;
        let mut reader = bus.read("s", ">", None).await.unwrap();
        assert!(is_quiet(&mut reader).await);
        bus.ensure_stream(&spec()).await.unwrap();
        put(bus, "a.x", "", "here").await;
        assert!(take(&mut reader, 1).await.iter().map(text).eq(["here"]));
    }

    pub(super) async fn questions_and_answers(ground: Ground) {
        let bus = &ground.bus;
        let nobody = bus.request("q.x", Bytes::new(), Duration::from_millis(100)).await;
        assert!(matches!(nobody, Err(RequestError::NoResponder { .. })), "{nobody:?}");
        let serving = bus
            .serve("q.*", |query| async move {
                match query.subject.as_str() {
                    "q.refuse" => Err("not\r\nyou".to_owned()),
                    "q.never" => std::future::pending().await,
                    _ => Ok(Bytes::from([query.subject.as_bytes(), b"=", &query.payload].concat())),
                }
            })
            .await
            .unwrap();
        let answer = bus.request("q.x", Bytes::from_static(b"why"), WAIT).await.unwrap();
        assert_eq!(answer, [Bytes::from_static(b"q.x=why")]);
        match bus.request("q.refuse", Bytes::new(), WAIT).await {
            Err(RequestError::Refused { why, .. }) => {
                assert!(why.starts_with("not") && why.ends_with("you"), "{why:?}");
            }
            other => panic!("{other:?}"),
        }
        let never = bus.request("q.never", Bytes::new(), Duration::from_millis(100)).await;
        assert!(matches!(never, Err(RequestError::TimedOut { parts: 0, .. })), "{never:?}");
        drop(serving);
        // The broker forgets the server when the subscription's end reaches it.
        for _ in 0..1_000 {
            if bus.request("q.x", Bytes::new(), Duration::from_millis(10)).await.is_err() {
                return;
            }
        }
        panic!("a dropped server still answers");
    }

    pub(super) async fn long_answers_come_in_parts(ground: Ground) {
        let bus = &ground.bus;
        let _serving = bus
            .serve("q.long", |query| async move {
                let length: usize = String::from_utf8_lossy(&query.payload).parse().unwrap();
                Ok((0..length).map(|index| (index % 251) as u8).collect::<Vec<u8>>().into())
            })
            .await
            .unwrap();
        let part = runtime::bus::PART_BYTES_MAX;
        for (length, parts) in [(0, 1), (1, 1), (part, 1), (part + 1, 2), (20 * part + 5, 21)] {
            let answer = bus.request("q.long", Bytes::from(length.to_string()), WAIT).await.unwrap();
            assert_eq!(answer.len(), parts, "{length} bytes");
            assert!(answer.iter().all(|part| part.len() <= runtime::bus::PART_BYTES_MAX));
            assert!(
                answer.concat().into_iter().eq((0..length).map(|index| (index % 251) as u8)),
                "{length} bytes"
            );
        }
    }

    pub(super) async fn announcements(ground: Ground) {
        let bus = &ground.bus;
        let mut listener = bus.listen("p.>").await.unwrap();
        // A subscription is known to the broker a moment after it is made.
        let mut heard = None;
        for number in 0..1_000 {
            bus.announce("p.dfw", Bytes::from(number.to_string())).await.unwrap();
            bus.announce("q.dfw", Bytes::new()).await.unwrap();
            if let Ok(first) = tokio::time::timeout(Duration::from_millis(20), listener.next()).await {
                heard = first;
                break;
            }
        }
        assert_eq!(heard.expect("an announcement").subject, "p.dfw");
        assert!(matches!(bus.announce("p.*", Bytes::new()).await, Err(BusError::Invalid { .. })));
        assert!(matches!(bus.listen("p..x").await, Err(BusError::Invalid { .. })));
    }

    pub(super) async fn a_slow_reader_loses_nothing(ground: Ground) {
        let bus = &ground.bus;
        let quick = StreamSpec { storage: runtime::bus::Storage::Memory, max_bytes: 64 << 20, ..spec() };
        bus.ensure_stream(&quick).await.unwrap();
        let mut reader = bus.read("s", ">", None).await.unwrap();
        put(bus, "a.x", "", "0").await;
        let mut read = take(&mut reader, 1).await;
        // Several pulls' worth arrive while the reader sleeps over its first message.
        let publishes = (1..10_000).map(|number: u32| {
            let bus = bus.clone();
            async move { bus.publish("a.x", "", &[], Bytes::from(number.to_string())).await.unwrap() }
        });
        let publishes: Vec<_> =
            futures::StreamExt::collect(futures::StreamExt::buffered(futures::stream::iter(publishes), 256))
                .await;
        assert_eq!(publishes.len(), 9_999);
        read.extend(take(&mut reader, 9_999).await);
        let sequences: Vec<u64> = read.iter().map(|delivery| delivery.position.sequence).collect();
        assert!(sequences.into_iter().eq(1..=10_000));
        assert_eq!((bus.counts().slow_consumers, bus.counts().reader_reopens), (0, 0));
    }

    pub(super) async fn concurrent_publishers_share_a_stream(ground: Ground) {
        let bus = &ground.bus;
        bus.ensure_stream(&spec()).await.unwrap();
        let publishers: Vec<_> = (0..8)
            .map(|publisher| {
                let bus = bus.clone();
                tokio::spawn(async move {
                    let mut positions = Vec::new();
                    for number in 0..50 {
                        positions.push(
                            put(&bus, &format!("a.{publisher}"), &format!("{publisher}-{number}"), "").await,
                        );
                    }
                    positions
                })
            })
            .collect();
        let mut sequences = Vec::new();
        for publisher in publishers {
            let positions = publisher.await.unwrap();
            assert!(
                positions.is_sorted_by_key(|position| position.sequence),
                "one publisher's messages keep their order"
            );
            sequences.extend(positions.iter().map(|position| position.sequence));
        }
        sequences.sort_unstable();
        assert!(sequences.into_iter().eq(1..=400));
    }
}
