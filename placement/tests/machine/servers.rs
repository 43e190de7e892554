//! Servers and leases: who gets which server, what exchanges and hypervisors are told, what is refused.

use proto::machine::Role;
use proto::placement::PlacementEvent;
use serde_json::{Value, json};

use super::driver::*;

fn exchange() -> proto::machine::Sender {
    sender(Role::Service, "placement")
}

struct Desk {
    world: World,
    sequence: u64,
}

impl Desk {
    fn new() -> Self {
        let mut desk = Self { world: World::new(), sequence: 0 };
        desk.reports(json!({"markets": [{"market": 0, "id": "dfw/gp"}]}));
        desk
    }

    fn reports(&mut self, mut json: Value) -> Vec<String> {
        self.sequence += 1;
        json["type"] = "ReportBids".into();
        json["exchange"] = "main".into();
        json["sequence"] = self.sequence.into();
        self.world.send(&exchange(), json)
    }

    fn bid(&mut self, bid: u64, tenant: &str) {
        self.reports(json!({"placed": [{"bid": bid, "tenant": tenant, "cluster": "c"}]}));
    }

    fn awards(&mut self, bid: u64, first: u64, units: u32) -> Vec<String> {
        let leases = json!({"first": first, "units": units});
        self.reports(json!({"leases": [{"type": "Awarded", "bid": bid, "market": 0, "leases": leases}]}))
    }

    fn says(&mut self, hypervisor: &str, mut json: Value) -> Vec<String> {
        json["hypervisor"] = hypervisor.into();
        self.world.send(&sender(Role::Hypervisor, hypervisor), json)
    }

    fn offers(&mut self, hypervisor: &str, servers: &[&str]) -> Vec<String> {
        self.says(hypervisor, json!({"type": "OfferServers", "market": "dfw/gp", "servers": servers}))
    }

    fn notices(&mut self, hypervisor: &str, servers: &[&str], seconds: i64) -> Vec<String> {
        let gone_at = self.world.now.plus_micros(seconds * 1_000_000);
        self.says(hypervisor, json!({"type": "NoticeServers", "servers": servers, "gone_at": gone_at}))
    }

    fn change(&mut self, kind: &str, first: u64, gone_after_seconds: Option<i64>) -> Vec<String> {
        let mut change = json!({"type": kind, "leases": {"first": first, "units": 1}});
        if let Some(seconds) = gone_after_seconds {
            change["gone_at"] = json!(self.world.now.plus_micros(seconds * 1_000_000));
        }
        self.reports(json!({"leases": [change]}))
    }
}

#[test]
fn a_tenant_s_leases_are_on_different_hypervisors() {
    let mut desk = Desk::new();
    desk.offers("h1", &["a", "b"]);
    desk.offers("h2", &["a", "b"]);
    desk.bid(1, "acme");
    let told = desk.awards(1, 1, 2);
    assert_eq!(told, ["bids main 3", "server 1 serves 1", "server 3 serves 2"]);
}

#[test]
fn awards_wait_and_are_served_in_their_order() {
    let mut desk = Desk::new();
    desk.bid(1, "acme");
    desk.bid(2, "globex");
    assert_eq!(desk.awards(2, 5, 1), ["bids main 4"]);
    assert_eq!(desk.awards(1, 3, 1), ["bids main 5"]);
    let told = desk.offers("h1", &["a"]);
    assert_eq!(told, ["servers h1 +1 =0", "supply h1 dfw/gp 1 ready lost []", "server 1 serves 3"]);
    assert_eq!(desk.change("Released", 3, None), ["bids main 6", "server 1 serves 5"]);
}

#[test]
fn a_departure_displaces_every_lease_once_and_then_states_the_supply() {
    let mut desk = Desk::new();
    desk.offers("h1", &["a", "b", "c"]);
    desk.bid(1, "acme");
    desk.awards(1, 1, 2);
    let told = desk.notices("h1", &[], 100);
    let supply = "supply h1 dfw/gp 0 host lost []";
    assert_eq!(told, ["notice [1, 2, 3] x2 at 100", "displaced 1 by 100", "displaced 2 by 100", supply]);
    // Said again, or later, it is no news; sooner, it is.
    assert_eq!(desk.notices("h1", &[], 200), ["notice [] x0 at 200"]);
    assert_eq!(desk.notices("h1", &["a"], 50), ["notice [1] x1 at 50", "displaced 1 by 50"]);
    // One that has notice by then anyway is not told again.
    desk.change("Noticed", 2, Some(20));
    assert_eq!(desk.notices("h1", &["b"], 30), ["notice [2] x0 at 30"]);
}

#[test]
fn who_takes_the_place_of_a_displaced_lease_has_its_turn() {
    let mut desk = Desk::new();
    desk.offers("h1", &["a"]);
    desk.bid(1, "acme");
    desk.bid(2, "globex");
    desk.awards(1, 1, 1);
    desk.awards(2, 4, 1);
    desk.notices("h1", &["a"], 100);
    let moved =
        json!({"type": "Awarded", "bid": 1, "market": 0, "leases": {"first": 9, "units": 1}, "replaces": 1});
    let noticed = json!({"type": "Noticed", "leases": {"first": 1, "units": 1}, "gone_at": desk.world.now.plus_micros(100_000_000)});
    let told = desk.reports(json!({"leases": [noticed, moved]}));
    assert_eq!(told, ["bids main 6", "server 1 serves 1 by 100"]);
    // Lease 4 was awarded before 9, but 9 stands in for 1.
    let told = desk.offers("h2", &["a"]);
    assert_eq!(told[2..], ["server 2 serves 9"]);
    // Ready there, the old one is released: its server goes anyway.
    assert_eq!(desk.change("Released", 1, None), ["bids main 7", "server 1 serves nothing"]);
    assert_eq!(desk.world.wait(100).due(), ["gone [1] notice-ended x0"]);
}

#[test]
fn a_server_that_dies_takes_its_lease_with_it() {
    let mut desk = Desk::new();
    desk.offers("h1", &["a", "b"]);
    desk.bid(1, "acme");
    desk.awards(1, 1, 1);
    let gone = json!({"type": "ReportServersGone", "servers": ["a", "never-there"]});
    let told = desk.says("h1", gone.clone());
    assert_eq!(told, ["gone [1] died x1", "supply h1 dfw/gp 1 failed lost [1]"]);
    // It waits for nothing: what takes its place is the exchange's to say.
    assert_eq!(desk.change("Released", 1, None), ["bids main 4"]);
    assert_eq!(desk.says("h1", gone), ["gone [] left x0"]);
}

#[test]
fn a_notice_that_is_over_loses_nobody_who_knew() {
    let mut desk = Desk::new();
    desk.offers("h1", &["a", "b"]);
    desk.bid(1, "acme");
    desk.awards(1, 1, 2);
    desk.notices("h1", &[], 60);
    desk.change("Noticed", 1, Some(60));
    let told = desk.world.wait(60).due();
    assert_eq!(told, ["gone [1, 2] notice-ended x1", "supply h1 dfw/gp 0 failed lost [2]"]);
}

#[test]
fn a_notice_taken_back_while_its_server_goes_displaces_the_lease() {
    let mut desk = Desk::new();
    desk.offers("h1", &["a"]);
    desk.bid(1, "acme");
    desk.awards(1, 1, 1);
    assert_eq!(desk.change("Noticed", 1, Some(30)), ["bids main 4", "server 1 serves 1 by 30"]);
    assert_eq!(desk.notices("h1", &[], 60), ["notice [1] x0 at 60", "supply h1 dfw/gp 0 host lost []"]);
    let told = desk.change("Withdrawn", 1, None);
    assert_eq!(told, ["bids main 5", "displaced 1 by 60", "server 1 serves 1"]);
}

#[test]
fn a_lease_with_notice_and_no_server_is_over_at_once() {
    let mut desk = Desk::new();
    desk.offers("h1", &["a"]);
    desk.bid(1, "acme");
    desk.awards(1, 1, 2);
    assert_eq!(desk.change("Noticed", 2, Some(30)), ["bids main 4", "unserved 2"]);
    // Taken back before the exchange heard: it waits again.
    assert_eq!(desk.change("Withdrawn", 2, None), ["bids main 5"]);
    assert_eq!(desk.offers("h2", &["b"])[2..], ["server 2 serves 2"]);
}

#[test]
fn of_leases_in_markets_that_others_serve_nothing_is_said() {
    let mut desk = Desk::new();
    desk.bid(1, "acme");
    desk.awards(1, 1, 1);
    assert_eq!(desk.change("Noticed", 1, Some(30)), ["bids main 4"]);
}

#[test]
fn servers_that_are_offered_again_are_told_again() {
    let mut desk = Desk::new();
    desk.offers("h1", &["a", "b"]);
    desk.bid(1, "acme");
    desk.awards(1, 1, 1);
    assert_eq!(desk.offers("h1", &["a", "b"]), ["servers h1 +0 =2", "server 1 serves 1"]);
    assert_eq!(desk.notices("h1", &["b"], 60)[0], "notice [2] x0 at 60");
    assert_eq!(desk.offers("h1", &["b"]), ["refused not-allowed servers[0]=b"]);
    let kept = desk.says("h1", json!({"type": "KeepServers", "servers": ["b"]}));
    assert_eq!(kept, ["kept [2]", "supply h1 dfw/gp 2 ready lost []"]);
}

#[test]
fn supply_is_told_once_its_market_is_known() {
    let mut desk = Desk { world: World::new(), sequence: 0 };
    assert_eq!(desk.offers("h1", &["a"]), ["servers h1 +1 =0"]);
    let told = desk.reports(json!({"markets": [{"market": 3, "id": "dfw/gp"}]}));
    assert_eq!(told, ["bids main 1", "supply h1 dfw/gp 1 inventory lost []"]);
}

#[test]
fn what_is_wrong_with_servers_is_refused() {
    let mut desk = Desk::new();
    desk.offers("h1", &["a"]);
    let many: Vec<String> = (0..1_025).map(|of| format!("s{of}")).collect();
    let gone_at = desk.world.now.plus_micros(1);
    for (json, refused) in [
        (
            json!({"type": "OfferServers", "market": "dfw/gp", "servers": []}),
            "refused out-of-range servers=0",
        ),
        (
            json!({"type": "OfferServers", "market": "dfw/gp", "servers": many}),
            "refused out-of-range servers=1025",
        ),
        (
            json!({"type": "OfferServers", "market": "dfw/gp", "servers": ["x", "x"]}),
            "refused duplicate servers[1]=x",
        ),
        (
            json!({"type": "OfferServers", "market": "dfw/other", "servers": ["a"]}),
            "refused duplicate servers[0]=a",
        ),
        (
            json!({"type": "NoticeServers", "servers": ["z"], "gone_at": gone_at}),
            "refused unknown servers[0]=z",
        ),
        (json!({"type": "KeepServers", "servers": ["z"]}), "refused unknown servers[0]=z"),
    ] {
        assert_eq!(desk.says("h1", json), [refused]);
    }
    let other = json!({"type": "NoticeServers", "gone_at": gone_at});
    assert_eq!(desk.says("h2", other.clone()), ["refused unknown hypervisor=h2"]);
    let mut foreign = other;
    foreign["hypervisor"] = "h1".into();
    let sent = desk.world.send(&sender(Role::Hypervisor, "h2"), foreign);
    assert_eq!(sent, ["refused not-allowed hypervisor=h1"]);
    let units = json!([{"type": "Released", "leases": {"first": 1, "units": 1_000_001}}]);
    assert_eq!(desk.reports(json!({"leases": units})), ["refused out-of-range leases=1000001"]);
    desk.sequence -= 1;
    assert_eq!(desk.reports(json!({"part": 1})), ["bids main 2"]);
    desk.sequence -= 1;
    assert_eq!(desk.reports(json!({"part": 1})), ["refused stale sequence=2"]);
}

/// Events of servers as short lines.
pub(crate) fn line(event: &PlacementEvent) -> String {
    match event {
        PlacementEvent::ServersOffered { hypervisor, servers, again, .. } => {
            format!("servers {hypervisor} +{} ={}", servers.len(), again.len())
        }
        PlacementEvent::ServersNoticed { servers, gone_at, leased } => {
            format!("notice {servers:?} x{leased} at {}", seconds(*gone_at))
        }
        PlacementEvent::ServersKept { servers } => format!("kept {servers:?}"),
        PlacementEvent::ServersGone { servers, cause, lost } => {
            format!("gone {servers:?} {} x{lost}", word(cause))
        }
        PlacementEvent::LeaseDisplaced { lease, gone_at, .. } => {
            format!("displaced {lease} by {}", seconds(*gone_at))
        }
        PlacementEvent::LeaseUnserved { lease, .. } => format!("unserved {lease}"),
        PlacementEvent::SupplyStated { hypervisor, market, units, cause, lost, .. } => {
            format!("supply {hypervisor} {market} {units} {} lost {lost:?}", word(cause))
        }
        PlacementEvent::ServerOrdered { server, order, .. } => {
            let lease = order.lease.as_ref().map_or("nothing".to_owned(), |served| served.lease.to_string());
            let by = order.gone_at.map_or(String::new(), |gone_at| format!(" by {}", seconds(gone_at)));
            format!("server {server} serves {lease}{by}")
        }
        other => format!("{other:?}"),
    }
}
