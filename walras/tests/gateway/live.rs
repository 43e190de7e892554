//! Server-sent events: what is told to whom, and what a reader gets whose connection broke.

use std::io::{BufRead, BufReader, Lines};

use serde_json::{Value, json};
use ureq::BodyReader;

use super::process::{Asked, Walras};
use super::refusals::check_problem;

/// Events read before the one that is waited for.
const EVENTS_MAX: usize = 1_000;

/// A stream of events as one reader has it open.
struct Events(Lines<BufReader<BodyReader<'static>>>);

#[derive(Clone, Debug, PartialEq)]
struct Event {
    kind: String,
    id: String,
    data: Value,
}

impl Events {
    /// Opens the stream, behind the event of that id where it is not empty, and reads the first event.
    fn open(walras: &Walras, tenant: &str, seen: &str) -> (Self, Event) {
        let authorization = if tenant.is_empty() { String::new() } else { walras.bearer(tenant) };
        let asked = Asked {
            method: "GET",
            path: "/v1/events",
            authorization: &authorization,
            content_type: "",
            body: b"",
        };
        let seen = [("last-event-id", seen)];
        let response = walras.open(&asked, if seen[0].1.is_empty() { &[] } else { &seen });
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = Self(BufReader::new(response.into_body().into_reader()).lines());
        let first = events.next();
        assert_eq!(first.kind, "Following");
        (events, first)
    }

    fn next(&mut self) -> Event {
        let mut event = Event { kind: String::new(), id: String::new(), data: Value::Null };
        loop {
            let line = self.0.next().expect("the stream goes on").expect("an event in time");
            match line.split_once(": ") {
                Some(("event", kind)) => kind.clone_into(&mut event.kind),
                Some(("id", id)) => id.clone_into(&mut event.id),
                Some(("data", data)) => event.data = serde_json::from_str(data).unwrap(),
                _ if line.is_empty() && !event.kind.is_empty() => return event,
                // A comment keeps the connection open.
                _ => {}
            }
        }
    }

    /// Reads until an event of that kind about that bid, and returns all that came until then, it included.
    fn until(&mut self, kind: &str, bid: &str) -> Vec<Event> {
        let mut read = Vec::new();
        while read.len() < EVENTS_MAX {
            read.push(self.next());
            let last = &read[read.len() - 1];
            if last.kind == kind && (bid.is_empty() || last.data["bid"] == bid) {
                return read;
            }
        }
        panic!("no {kind} of {bid} among {EVENTS_MAX} events");
    }
}

fn place(walras: &Walras, tenant: &str, id: &str, limit: &str) {
    let bid = json!({"id": id, "cluster": "c", "pool": "p", "quantity": 1,
        "options": [{"market": "oak/gp.small", "limit": limit}]});
    let placed = walras.ask(tenant, "POST", "/v1/bids", &bid);
    assert_eq!(placed.status, 201, "{}", placed.text);
}

#[test]
fn events_are_followed_through_broken_connections() {
    let Some(walras) = Walras::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { walras.bus("hypervisor").await.offer("oak/gp.small", 1, 2).await });
    let (mut demo, first) = Events::open(&walras, "demo", "");
    let exchanges = first.data["exchanges"].as_array().unwrap();
    assert_eq!(exchanges.iter().map(|one| &one["exchange"]).collect::<Vec<_>>(), ["main", "west"]);
    let (mut public, _) = Events::open(&walras, "", "");

    place(&walras, "demo", "one", "0.010");
    let seen = demo.until("Awarded", "one");
    assert!(seen.iter().all(|event| !event.id.is_empty()), "{seen:?}");
    let last = seen.last().unwrap().id.clone();
    drop(demo);

    // What happens while nobody listens.
    place(&walras, "acme", "two", "0.020");
    place(&walras, "acme", "three", "0.030");
    place(&walras, "demo", "four", "0.040");
    let (mut demo, following) = Events::open(&walras, "demo", &last);
    assert_eq!(following.id, last);
    let missed = demo.until("Awarded", "four");
    assert!(
        missed.iter().any(|event| event.kind == "NoticeGiven" && event.data["bid"] == "one"),
        "{missed:?}"
    );
    assert!(missed.iter().all(|event| event.kind != "Gap"), "{missed:?}");
    let tenants = missed.iter().filter_map(|event| event.data["tenant"].as_str());
    assert!(tenants.clone().count() > 0 && tenants.clone().all(|tenant| tenant == "demo"), "{missed:?}");

    // The same again, from the same place: nothing is told twice, nothing is left out.
    let (mut again, _) = Events::open(&walras, "demo", &last);
    assert_eq!(again.until("Awarded", "four"), missed);
    // From the last one on only what is new.
    let (mut onward, _) = Events::open(&walras, "demo", &missed.last().unwrap().id);
    place(&walras, "demo", "five", "0.050");
    let new = onward.until("Awarded", "five");
    assert!(new.iter().all(|event| !missed.contains(event)), "{new:?}");

    // From before anything that this gateway knows: the reader is told so, and then what is known.
    let (mut old, _) = Events::open(&walras, "demo", "main:0.0,west:0.0");
    let gap = old.next();
    assert_eq!((gap.kind.as_str(), &gap.data["exchange"]), ("Gap", &json!("main")));
    assert!(old.until("Awarded", "five").iter().any(|event| event.data["bid"] == "one"));

    let told = public.until("MarketReport", "");
    assert!(told.iter().all(|event| event.kind == "MarketReport"), "{told:?}");
    let authorization = walras.bearer("demo");
    for bad in ["main", "main:x", "5"] {
        let asked = Asked {
            method: "GET",
            path: "/v1/events",
            authorization: &authorization,
            content_type: "",
            body: b"",
        };
        let mut refused = walras.open(&asked, &[("last-event-id", bad)]);
        let text = refused.body_mut().read_to_string().unwrap();
        let (status, headers) = (refused.status().as_u16(), refused.headers().clone());
        check_problem(
            &super::process::Answered { status, headers, text },
            400,
            "malformed",
            "last-event-id",
            bad,
        )
        .unwrap();
    }
    assert!(walras.metric("walras_gateway_open_streams", &[]) >= 1.0);
}
