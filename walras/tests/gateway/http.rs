//! Every route of the OpenAPI document, its answers and its refusals.

use std::collections::BTreeSet;

use market::view::json::{
    BidAlone, Bids, Bill, History, LeaseAlone, LeasePage, MarketAlone, Markets, Quote, Why,
};
use market::view::transcript::{Act, Hash, Opening, Record, Salts, check_chain, origin};
use proto::StreamName;
use proto::market::{BidState, MarketCommand};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use walras::gateway::cursor::InExchange;
use walras::gateway::familiar::FamiliarHistory;

use super::clusters::clusters;
use super::process::{Answered, Asked, Walras, until};
use super::refusals::{self, check_problem};
use super::webhooks::webhooks;

/// Requests after which a tenant that goes on asking must have been refused: its burst and then some.
const FLOOD_REQUESTS_MAX: usize = 4_000;
/// The same for one address that has no token.
const STRANGER_REQUESTS_MAX: usize = 2_000;

#[test]
fn the_gateway_does_what_its_document_says() {
    let Some(walras) = Walras::start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { walras.bus("hypervisor").await.offer("oak/gp.small", 1, 4).await });
    what_is_public(&walras);
    a_bid_from_placing_to_its_end(&walras);
    leases_and_bills(&walras);
    quotes(&walras);
    a_command_repeated_is_answered_alike(&walras);
    pages(&walras);
    two_exchanges(&walras);
    stage(&walras);
    let mut wrong = refusals::bids(&walras);
    wrong.extend(refusals::requests(&walras));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let standing: InExchange<Bids> = read(&walras.ask("demo", "GET", "/v1/bids", &Value::Null), 200);
    assert!(standing.page.bids.iter().all(|bid| !bid.bid.as_str().starts_with('x')), "no refused bid stands");
    the_transcript_opens(&walras);
    clusters(&walras);
    webhooks(&walras);
    familiar_history(&walras);
    a_flood_costs_only_its_sender(&walras);
    a_flood_without_a_token_costs_no_tenant(&walras);
    health(&walras);
    the_document_holds(&walras);
}

fn read<T: DeserializeOwned>(answered: &Answered, status: u16) -> T {
    assert_eq!(answered.status, status, "{}", answered.text);
    assert_eq!(answered.header("content-type"), "application/json");
    serde_json::from_str(&answered.text).unwrap_or_else(|error| panic!("{error}: {}", answered.text))
}

fn bid(id: &str, quantity: u32, market: &str, limit: &str) -> Value {
    json!({"id": id, "cluster": "c", "pool": "p", "quantity": quantity,
        "options": [{"market": market, "limit": limit}]})
}

fn what_is_public(walras: &Walras) {
    // The gateway reads a moment behind what the hypervisor was answered.
    let path = "/v1/markets/oak/gp.small";
    until(|| (walras.ask("", "GET", path, &Value::Null).json()["supply"] == 4).then_some(()));
    let all: Markets = read(&walras.ask("", "GET", "/v1/markets", &Value::Null), 200);
    let names: Vec<&str> = all.markets.iter().map(|one| one.market.as_str()).collect();
    assert_eq!(names, ["oak/gp.large", "oak/gp.small", "yew/gp.small"], "both exchanges, by name");
    let page: Markets = read(&walras.ask("", "GET", "/v1/markets?limit=1", &Value::Null), 200);
    assert_eq!(page.next.as_ref().unwrap().as_str(), "oak/gp.large");
    let rest: Markets = read(&walras.ask("", "GET", "/v1/markets?after=oak/gp.large", &Value::Null), 200);
    assert_eq!((rest.markets.len(), rest.next), (2, None));
    let one: MarketAlone = read(&walras.ask("", "GET", "/v1/markets/oak/gp.small", &Value::Null), 200);
    assert_eq!(one.market.resources.as_deref(), Some("2 vCPU, 4 GiB"), "as the catalogue says");
    assert_eq!(all.markets[0].resources, None);
    let familiar = walras.ask("", "GET", "/percentiles.json", &Value::Null).json();
    let class = &familiar["regions"]["oak"]["serverclasses"]["gp.small-oak"];
    assert_eq!((&class["cpu"], &class["memory"]), (&json!("2"), &json!("4 GiB")), "{familiar}");
    assert_eq!(class["20_percentile"], Value::Null, "nobody has won");
    let price: f64 = class["market_price"].as_str().unwrap().parse().unwrap();
    assert_eq!(format!("{price:.6}"), class["market_price"], "six decimals");
    familiar_history(walras);
    let twice = walras.ask("", "GET", "/history/gp.small", &Value::Null);
    check_problem(&twice, 404, "unknown", "class", "gp.small").unwrap();
    assert_eq!(
        familiar["regions"]["oak"]["serverclasses"]["gp.large"]["market_price"],
        Value::Null,
        "no supply"
    );
    let head = walras.ask("", "HEAD", "/v1/markets", &Value::Null);
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    for header in ["x-content-type-options", "x-frame-options", "cache-control", "content-security-policy"] {
        assert!(!head.header(header).is_empty(), "{header}");
    }
    let console = walras.ask("", "GET", "/", &Value::Null);
    assert!(console.status == 200 && console.text.contains("<title>Walras</title>"));
}

/// The newest price in the familiar shape is the market's.
fn familiar_history(walras: &Walras) {
    let past: FamiliarHistory = read(&walras.ask("", "GET", "/history/gp.small-oak", &Value::Null), 200);
    let market: MarketAlone = read(&walras.ask("", "GET", "/v1/markets/oak/gp.small", &Value::Null), 200);
    assert_eq!(past.auction, "gp.small-oak");
    assert!(past.history.iter().all(|one| one.run_at > 1_700_000_000), "{past:?}");
    let newest = past.history.last().map(|one| format!("{:.6}", one.hammer_price));
    let price = market.market.prices.price.map(|price| format!("{:.6}", price.micros() as f64 / 1e6));
    assert_eq!(newest.unwrap(), price.unwrap(), "{past:?}");
}

fn a_bid_from_placing_to_its_end(walras: &Walras) {
    let first: BidAlone =
        read(&walras.ask("demo", "POST", "/v1/bids", &bid("first", 2, "oak/gp.small", "0.010")), 201);
    assert_eq!((first.bid.state, first.bid.tenant.as_str()), (BidState::Won, "demo"), "{first:?}");
    let other: BidAlone =
        read(&walras.ask("acme", "POST", "/v1/bids", &bid("first", 4, "oak/gp.small", "0.020")), 201);
    assert_eq!(
        (other.bid.state, other.bid.tenant.as_str()),
        (BidState::Won, "acme"),
        "an id is its tenant's"
    );
    let why: Why = read(&walras.ask("demo", "GET", "/v1/bids/first/why", &Value::Null), 200);
    assert_eq!((why.state, why.options[0].above, why.options[0].level), (BidState::Losing, 4, 0), "{why:?}");
    let wins_at = why.wins_at.clone().unwrap_or_default();
    assert_eq!(
        wins_at.iter().map(|option| option.limit.to_string()).collect::<Vec<_>>(),
        ["0.021"],
        "{why:?}"
    );
    assert_eq!(why.because.len(), 4, "{why:?}");
    let nobody = walras.ask("demo", "GET", "/v1/bids/none/why", &Value::Null);
    check_problem(&nobody, 404, "unknown", "bid", "none").unwrap();
    let lost: BidAlone = read(&walras.ask("demo", "GET", "/v1/bids/first", &Value::Null), 200);
    assert_eq!((lost.bid.state, lost.bid.units.leaving), (BidState::Losing, 2), "{lost:?}");

    let terms = json!({"quantity": 1, "options": [{"market": "oak/gp.small", "limit": "0.030"}]});
    let raised: BidAlone =
        read(&walras.ask("demo", "PATCH", "/v1/bids/first", &json!({"version": 1, "terms": terms})), 200);
    assert_eq!((raised.bid.version, raised.bid.units.winning), (2, 1), "{raised:?}");
    let leaving = raised.bid.leases.iter().filter(|leases| leases.notice.is_some());
    let leases: Vec<u64> = leaving.flat_map(|one| one.first..one.first + u64::from(one.units)).collect();
    assert!(!leases.is_empty(), "{raised:?}");
    let path = "/v1/bids/first/acknowledge";
    let left: BidAlone = read(&walras.ask("demo", "POST", path, &json!({"leases": leases})), 200);
    assert_eq!(left.bid.units.leaving, 0, "{left:?}");

    let history: History =
        read(&walras.ask("", "GET", "/v1/markets/oak/gp.small/history", &Value::Null), 200);
    let prices: Vec<String> =
        history.points.iter().filter_map(|point| Some(point.price?.to_string())).collect();
    assert_eq!(prices.last().map(String::as_str), Some("0.020"), "{history:?}");
    let from = history.points.last().unwrap().at;
    let path = format!("/v1/markets/oak/gp.small/history?from={from}&limit=1");
    let end: History = read(&walras.ask("", "GET", &path, &Value::Null), 200);
    assert_eq!(end.points.len(), 1);

    let ended: BidAlone = read(&walras.ask("demo", "DELETE", "/v1/bids/first?id=end", &Value::Null), 200);
    assert_eq!(ended.bid.state, BidState::Cancelled);
}

fn a_command_repeated_is_answered_alike(walras: &Walras) {
    let again = bid("again", 1, "oak/gp.large", "0.006");
    let first: BidAlone = read(&walras.ask("demo", "POST", "/v1/bids", &again), 201);
    let second: BidAlone = read(&walras.ask("demo", "POST", "/v1/bids", &again), 201);
    assert_eq!(first.bid, second.bid);
    let other = walras.ask("demo", "POST", "/v1/bids", &bid("again", 2, "oak/gp.large", "0.006"));
    check_problem(&other, 409, "id-reused", "id", "again").unwrap();
    for _ in 0..2 {
        let ended: BidAlone =
            read(&walras.ask("demo", "DELETE", "/v1/bids/again?id=over", &Value::Null), 200);
        assert_eq!(ended.bid.state, BidState::Cancelled);
    }
    let unnamed = json!({"cluster": "c", "pool": "p", "quantity": 1,
        "options": [{"market": "oak/gp.large", "limit": "0.006"}]});
    let [one, two] = [(); 2].map(|()| {
        let placed: BidAlone = read(&walras.ask("initech", "POST", "/v1/bids", &unnamed), 201);
        placed.bid.bid
    });
    assert_ne!(one, two, "an id is made up for who names none");
}

fn pages(walras: &Walras) {
    for number in 0..5 {
        let placed = walras.ask(
            "initech",
            "POST",
            "/v1/bids",
            &bid(&format!("p{number}"), 1, "oak/gp.large", "0.006"),
        );
        assert_eq!(placed.status, 201, "{}", placed.text);
    }
    let (mut names, mut path) = (Vec::new(), "/v1/bids?limit=3".to_owned());
    loop {
        let page: InExchange<Bids> = read(&walras.ask("initech", "GET", &path, &Value::Null), 200);
        names.extend(page.page.bids.iter().map(|one| one.bid.to_string()));
        let Some(next) = page.next else { break };
        path = format!("/v1/bids?limit=3&after={next}");
    }
    assert_eq!(names.len(), 7);
    assert_eq!(names[2..], ["p0", "p1", "p2", "p3", "p4"], "oldest first");
    let sequence =
        read::<BidAlone>(&walras.ask("initech", "GET", "/v1/bids/p4", &Value::Null), 200).as_of.sequence;
    let own = walras.ask("initech", "GET", &format!("/v1/bids/p4?wait_for={sequence}"), &Value::Null);
    assert!(read::<BidAlone>(&own, 200).as_of.sequence >= sequence);
    let ahead = walras.ask("initech", "GET", "/v1/bids/p4?wait_for=1000000", &Value::Null);
    check_problem(&ahead, 503, "behind", "wait_for", "1000000").unwrap();
}

fn quotes(walras: &Walras) {
    // acme holds all four servers of oak/gp.small at 0.020, or as many as its bid is for.
    let quote: Quote =
        read(&walras.ask("", "GET", "/v1/quotes?units=4&markets=oak/gp.small", &Value::Null), 200);
    assert_eq!((quote.units, quote.options.len()), (4, 1), "{quote:?}");
    assert_eq!(quote.options[0].limit.to_string(), "0.021");
    let none: Quote = read(
        &walras.ask("", "GET", "/v1/quotes?units=5&markets=oak/gp.small,oak/gp.large", &Value::Null),
        200,
    );
    assert_eq!((none.limit, none.options), (None, Vec::new()));
    let refused = walras.ask("", "GET", "/v1/quotes?units=0&markets=oak/gp.small", &Value::Null);
    check_problem(&refused, 422, "out-of-range", "units", "0").unwrap();
    let refused = walras.ask("", "GET", "/v1/quotes?markets=elm/gp.small", &Value::Null);
    check_problem(&refused, 404, "unknown", "markets", "elm/gp.small").unwrap();
    let refused = walras.ask("", "GET", "/v1/quotes?markets=oak/gp.small,oak/gp.small", &Value::Null);
    check_problem(&refused, 422, "out-of-range", "markets", "oak/gp.small").unwrap();
}

fn leases_and_bills(walras: &Walras) {
    let held: InExchange<LeasePage> = read(&walras.ask("acme", "GET", "/v1/leases", &Value::Null), 200);
    let first = held.page.leases.first().expect("acme holds servers");
    assert_eq!(first.bid.as_str(), "first");
    let path = format!("/v1/leases/{}", first.leases.first);
    let alone: LeaseAlone = read(&walras.ask("acme", "GET", &path, &Value::Null), 200);
    assert_eq!((alone.lease, alone.bid.as_str()), (first.leases.first, "first"));
    assert!(alone.held.is_some_and(|held| held.market.as_str() == "oak/gp.small"));
    let number = first.leases.first.to_string();
    let foreign = walras.ask("demo", "GET", &path, &Value::Null);
    check_problem(&foreign, 404, "unknown", "lease", &number).unwrap();

    let now = held.page.as_of.at.to_string();
    let path = format!("/v1/bills/{}", &now[..7]);
    let bill: InExchange<Bill> = read(&walras.ask("acme", "GET", &path, &Value::Null), 200);
    assert_eq!(bill.next.unwrap().to_string(), "west", "each exchange has a bill of its own");
    let bill = bill.page;
    assert_eq!((bill.month.as_str(), bill.tenant.as_str()), (&now[..7], "acme"));
    assert_eq!(bill.total, proto::Charge::default(), "no worker was ever ready");
    let wrong = walras.ask("acme", "GET", "/v1/bills/2026-13", &Value::Null);
    check_problem(&wrong, 400, "malformed", "month", "2026-13").unwrap();
}

fn two_exchanges(walras: &Walras) {
    let placed: BidAlone =
        read(&walras.ask("acme", "POST", "/v1/bids", &bid("far", 1, "yew/gp.small", "0.002")), 201);
    assert_eq!(placed.bid.state, BidState::Queued, "nobody offers servers there");
    let list = |query: &str| -> InExchange<Bids> {
        read(&walras.ask("acme", "GET", &format!("/v1/bids{query}"), &Value::Null), 200)
    };
    let west = list("?exchange=west");
    assert_eq!((west.exchange.as_str(), west.page.bids.len(), &west.next), ("west", 1, &None));
    let main = list("?exchange=main");
    assert_eq!((main.exchange.as_str(), &main.next), ("main", &None));
    let first = list("");
    assert_eq!(
        (first.page.bids, first.exchange.as_str()),
        (main.page.bids, "main"),
        "one exchange after the other"
    );
    let rest = list(&format!("?after={}", first.next.unwrap()));
    assert_eq!((rest.page.bids, rest.next), (west.page.bids, None));
    let found: BidAlone = read(&walras.ask("acme", "GET", "/v1/bids/far", &Value::Null), 200);
    assert_eq!(found.bid, placed.bid);
    let path = "/v1/bids/far?exchange=main";
    check_problem(&walras.ask("acme", "GET", path, &Value::Null), 404, "unknown", "bid", "far").unwrap();
    let mut both = bid("both", 1, "oak/gp.small", "0.010");
    let here = json!({"market": "yew/gp.small", "limit": "0.002"});
    both["options"].as_array_mut().unwrap().push(here);
    let apart = walras.ask("acme", "POST", "/v1/bids", &both);
    check_problem(&apart, 422, "out-of-range", "options[1].market", "yew/gp.small").unwrap();
    let names = ["yew/gp.small", "west", "oak/gp.small", "main"];
    assert!(names.iter().all(|name| apart.text.contains(name)), "both are named: {}", apart.text);
    let ended: BidAlone = read(&walras.ask("acme", "DELETE", "/v1/bids/far", &Value::Null), 200);
    assert_eq!(ended.bid.state, BidState::Cancelled);
}

/// The bids that the refusals are about.
fn stage(walras: &Walras) {
    for (tenant, id) in [("demo", "standing"), ("demo", "ended"), ("acme", "foreign")] {
        let placed = walras.ask(tenant, "POST", "/v1/bids", &bid(id, 1, "oak/gp.large", "0.006"));
        assert_eq!(placed.status, 201, "{}", placed.text);
    }
    assert_eq!(walras.ask("demo", "DELETE", "/v1/bids/ended", &Value::Null).status, 200);
}

/// Everybody reads records that follow one another; a tenant finds its bid in them, and nobody else can.
fn the_transcript_opens(walras: &Walras) {
    let exchange: StreamName = "main".parse().unwrap();
    let sent = bid("recorded", 3, "oak/gp.small", "0.011");
    let placed = walras.ask("demo", "POST", "/v1/bids", &sent);
    assert_eq!(placed.status, 201, "{}", placed.text);
    let salts: Salts = read(&walras.ask("demo", "GET", "/v1/bids/recorded/salts", &Value::Null), 200);
    let mut command = sent.clone();
    command["type"] = "PlaceBid".into();
    command["tenant"] = "demo".into();
    let MarketCommand::PlaceBid(content) = serde_json::from_value(command).unwrap() else { unreachable!() };
    let salt = salts.salts[0].salt;
    let opening = Opening { number: salts.number, version: 1, act: Act::Placed(content), salt };
    // The transcript is written a moment behind the journal.
    let records = until(|| {
        let records = transcript(walras);
        records.iter().any(|record| record.holds(&opening)).then_some(records)
    });
    assert_eq!(records.iter().filter(|record| record.holds(&opening)).count(), 1);
    check_chain(origin(&exchange), &records).unwrap();
    let unsalted = Opening { salt: Hash([0; 32]), ..opening };
    assert!(!records.iter().any(|record| record.holds(&unsalted)), "without its salt a bid is not found");
    let foreign = walras.ask("acme", "GET", "/v1/bids/recorded/salts", &Value::Null);
    check_problem(&foreign, 404, "unknown", "bid", "recorded").unwrap();
    let unknown = walras.ask("", "GET", "/v1/transcripts/south", &Value::Null);
    check_problem(&unknown, 404, "unknown", "exchange", "south").unwrap();
    assert_eq!(walras.ask("demo", "DELETE", "/v1/bids/recorded", &Value::Null).status, 200);
}

/// All records of the exchange, page by page.
fn transcript(walras: &Walras) -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    loop {
        let after = records.last().map_or(0, |record| record.round);
        let path = format!("/v1/transcripts/main?limit=3&after={after}");
        let page = walras.ask("", "GET", &path, &Value::Null);
        assert_eq!(
            (page.status, page.header("content-type")),
            (200, "application/x-ndjson"),
            "{}",
            page.text
        );
        let before = records.len();
        records.extend(page.text.lines().map(|line| serde_json::from_str::<Record>(line).unwrap()));
        if records.len() == before {
            return records;
        }
    }
}

fn a_flood_costs_only_its_sender(walras: &Walras) {
    let limited = walras.metric("walras_gateway_rate_limited_total", &[]);
    let authorization = walras.bearer("globex");
    let asked =
        Asked { method: "GET", path: "/v1/bids", authorization: &authorization, content_type: "", body: b"" };
    let refused =
        (0..FLOOD_REQUESTS_MAX).map(|_| walras.send(&asked)).find(|answered| answered.status != 200);
    let refused = refused.expect("a flood is refused");
    check_problem(&refused, 429, "too-many-requests", "", "").unwrap();
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(walras.ask("demo", "GET", "/v1/bids", &Value::Null).status, 200);
    assert!(walras.metric("walras_gateway_rate_limited_total", &[]) > limited);
}

fn a_flood_without_a_token_costs_no_tenant(walras: &Walras) {
    let public = |token: &'static str| Asked {
        method: "GET",
        path: "/v1/markets",
        authorization: token,
        content_type: "",
        body: b"",
    };
    for token in ["", "Bearer guessed"] {
        let asked = public(token);
        let refused =
            (0..STRANGER_REQUESTS_MAX).map(|_| walras.send(&asked)).find(|answered| answered.status != 200);
        let refused = refused.expect("a flood is refused");
        check_problem(&refused, 429, "too-many-requests", "", "").unwrap();
    }
    assert_eq!(walras.ask("demo", "GET", "/v1/markets", &Value::Null).status, 200);
}

fn health(walras: &Walras) {
    let ready = walras.admin("/readyz");
    assert_eq!(ready.status, 200, "{}", ready.text);
    let conditions: Vec<String> =
        ready.json()["conditions"].as_array().unwrap().iter().map(|one| one["name"].to_string()).collect();
    for name in ["bus connected", "gateway", "configuration of main", "configuration of west"] {
        assert!(conditions.contains(&format!("\"{name}\"")), "{name}: {conditions:?}");
    }
    assert_eq!(walras.admin("/livez").status, 200);
    for status in ["400", "401", "404", "409", "413", "415", "422", "429", "405"] {
        let label = format!("\"{status}\"");
        assert!(walras.metric("walras_gateway_requests_total", &[&label]) > 0.0, "{status} is counted");
    }
    assert!(walras.metric("walras_gateway_bodies_refused_total", &[]) >= 1.0);
}

/// Every operation was tried and succeeded once, and nothing was answered with a status that the document does not
/// name for it.
fn the_document_holds(walras: &Walras) {
    let document = walras.ask("demo", "GET", "/openapi.json", &Value::Null).json();
    let committed = include_str!("../../openapi.json");
    let same = document == serde_json::from_str::<Value>(committed).unwrap();
    assert!(same, "WALRAS_UPDATE=1 cargo test -p walras --lib writes openapi.json anew");
    let mut succeeded = BTreeSet::new();
    let mut operations = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        operations.extend(methods.as_object().unwrap().keys().map(|method| (path.clone(), method.clone())));
    }
    for (method, path, status) in walras.seen() {
        let method = method.to_lowercase();
        let Some((pattern, _)) =
            operations.iter().find(|(pattern, of)| *of == method && fits(pattern, &path))
        else {
            continue;
        };
        let declared = &document["paths"][pattern][&method]["responses"];
        assert!(!declared[status.to_string()].is_null(), "{method} {pattern} answers {status}: {declared}");
        if status < 300 {
            succeeded.insert((pattern.clone(), method));
        }
    }
    for elsewhere in ["/v1/events", "/v1/clusters/{cluster}/kubeconfig"] {
        operations.remove(&(elsewhere.to_owned(), "get".to_owned()));
    }
    assert_eq!(
        succeeded, operations,
        "every operation was tried; events and kubeconfigs have tests of their own"
    );
}

fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len()
        && pattern.iter().zip(path).all(|(one, other)| one.starts_with('{') || *one == other)
}
