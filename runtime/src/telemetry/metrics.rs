//! Every metric of Walras, declared once.
//!
//! Code registers from here, and the dashboards and alerts under `deploy/` may name only what stands here.

use super::metric::{Kind, Metric, Unit};

/// Every service there is.
pub const SERVICES: [&str; 7] =
    ["market", "webhook", "placement", "controlplane", "gateway", "nats", "process"];

/// Services that run a machine.
const RUNNERS: &[&str] = &["market", "webhook", "placement"];
const MARKET: &[&str] = &["market"];
const PLACEMENT: &[&str] = &["placement"];
const CONTROLPLANE: &[&str] = &["controlplane"];
const GATEWAY: &[&str] = &["gateway"];
/// Services that hold a connection to the bus.
const BUS: &[&str] = &["market", "placement", "controlplane", "gateway"];
const NATS: &[&str] = &["nats"];
const PROCESS: &[&str] = &["process"];

/// From half a broker's sync to what an operator calls down, in seconds.
const LATENCY_SECONDS: &[f64] =
    &[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Up to two full envelopes of commands.
const BATCH_COMMANDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0];
/// From no notice at all to the longest that is usual, in seconds.
const NOTICE_SECONDS: &[f64] = &[0.0, 15.0, 30.0, 60.0, 120.0, 240.0, 300.0, 360.0, 600.0, 1_800.0, 3_600.0];

macro_rules! declare {
    ($($constant:ident: $services:ident, $what:literal, $unit:expr, $kind:expr, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help] pub const $constant: Metric = Metric {
            services: $services,
            what: $what,
            unit: $unit,
            kind: $kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every metric there is.
        pub const METRICS: &[(&str, Metric)] = &[$((stringify!($constant), $constant)),*];
    };
}

use Kind::{Counter, Decimal, Gauge, Histogram};
use Unit::{Count, DollarsPerHour, Flag, Seconds, Sequence, Total};

declare! {
    // A runner: one machine, one stream.
    APPLIED_SEQUENCE: RUNNERS, "applied", Sequence, Gauge, ["stream"],
        "Sequence of the last journal row that was committed.";
    INPUT_SEQUENCE: RUNNERS, "input", Sequence, Gauge, ["stream"],
        "Place in the command stream up to which commands are decided and committed.";
    INPUT_LAG: RUNNERS, "input_lag", Seconds, Decimal, ["stream"],
        "Age of the oldest command that waits to be decided; 0 when none waits.";
    TURNS: RUNNERS, "turns", Total, Counter, ["stream"],
        "Turns that changed something and were committed.";
    TURN_COMMANDS: RUNNERS, "turn", Count("commands"), Histogram(BATCH_COMMANDS), ["stream"],
        "Commands per turn.";
    STEP_DURATION: RUNNERS, "step_duration", Seconds, Histogram(LATENCY_SECONDS), ["stream"],
        "Time the machine takes for one turn.";
    COMMANDS: RUNNERS, "commands", Total, Counter, ["stream", "result"],
        "Commands answered, by result: accepted, refused, repeated, conflicting.";
    MALFORMED: RUNNERS, "malformed", Total, Counter, ["stream", "reason"],
        "Messages that are no commands, by what is wrong with them.";
    JOURNAL_COMMIT_DURATION: RUNNERS, "journal_commit_duration", Seconds, Histogram(LATENCY_SECONDS), ["stream"],
        "Time one commit to the journal takes.";
    JOURNAL_FAILURES: RUNNERS, "journal_failures", Total, Counter, ["stream"],
        "Commits that failed or whose outcome is unknown; each drops the state and loads it again.";
    RELOADS: RUNNERS, "reloads", Total, Counter, ["stream"],
        "Times the state was dropped and loaded from the journal.";
    LOAD_DURATION: RUNNERS, "load_duration", Seconds, Decimal, ["stream"],
        "Time the last load from the journal took.";
    FENCED: RUNNERS, "fenced", Total, Counter, ["stream"],
        "Commits refused because another runner had written to the stream.";
    CLAIM_HELD: RUNNERS, "claim", Flag("held"), Gauge, ["stream"],
        "1 while this process runs the stream, 0 while it stands by.";
    STREAM_REGRESSIONS: RUNNERS, "stream_regressions", Total, Counter, ["stream"],
        "Times the command stream was found recreated or shorter than what had been read.";
    CLOCK_STEPS: RUNNERS, "clock_steps", Total, Counter, ["stream"],
        "Times the wall clock stepped too far from the monotonic one and the runner stepped down.";
    INVARIANTS_BROKEN: RUNNERS, "invariants_broken", Total, Counter, ["stream"],
        "Broken invariants found; the stream stops at the first.";
    UNPUBLISHED_ROWS: RUNNERS, "unpublished", Count("rows"), Gauge, ["stream"],
        "Committed journal rows that are not known to be published yet.";
    UNPUBLISHED_LAG: RUNNERS, "unpublished_lag", Seconds, Decimal, ["stream"],
        "Age of the oldest committed journal row that is not known to be published; 0 when there is none.";
    PUBLISH_DURATION: RUNNERS, "publish_duration", Seconds, Histogram(LATENCY_SECONDS), ["stream"],
        "Time until the broker acknowledged a publication.";
    PUBLISH_ERRORS: RUNNERS, "publish_errors", Total, Counter, ["stream", "reason"],
        "Publishes that failed and were repeated, by reason: refused, ambiguous.";
    FOLLOWER_LAG_ROWS: RUNNERS, "follower_lag", Count("rows"), Gauge, ["stream"],
        "Committed rows that the follower, which answers queries, has not folded yet.";
    SNAPSHOT_SEQUENCE: RUNNERS, "snapshot", Sequence, Gauge, ["stream"],
        "Sequence of the newest snapshot saved.";
    SNAPSHOT_FAILURES: RUNNERS, "snapshot_failures", Total, Counter, ["stream"],
        "Snapshots that could not be saved.";

    // The bus, seen from a service.
    BUS_CONNECTED: BUS, "bus", Flag("connected"), Gauge, [],
        "1 while the connection to the broker is up.";
    BUS_DURABLE: BUS, "bus", Flag("durable"), Gauge, [],
        "1 when the broker syncs before it acknowledges; 0 when it does not or nobody can tell.";
    BUS_DISCONNECTS: BUS, "bus_disconnects", Total, Counter, [],
        "Connections to the broker that were lost.";
    BUS_SLOW_CONSUMERS: BUS, "bus_slow_consumers", Total, Counter, [],
        "Times the client dropped messages of a subscription that was not read fast enough.";
    BUS_READER_REOPENS: BUS, "bus_reader_reopens", Total, Counter, [],
        "Times a reader opened its stream again behind its position.";
    BUS_ERRORS: BUS, "bus_errors", Total, Counter, [],
        "Errors the broker reported on the connection, such as a missing permission.";

    // The broker that is our child.
    NATS_RESTARTS: NATS, "server_restarts", Total, Counter, [],
        "Times the nats-server child ended by itself and was started again.";

    // The market. `market` is region/class, bounded by the configuration.
    ROUNDS: MARKET, "rounds", Total, Counter, ["stream"],
        "Rounds that changed something.";
    STANDING_BIDS: MARKET, "standing", Count("bids"), Gauge, ["stream"],
        "Bids that stand: queued, partly won or won.";
    PRICE: MARKET, "price", DollarsPerHour, Decimal, ["stream", "market"],
        "What a unit costs now; absent while there is no supply.";
    RESERVE: MARKET, "reserve", DollarsPerHour, Decimal, ["stream", "market"],
        "Below this no unit sells.";
    LOWEST_WINNING_BID: MARKET, "lowest_winning_bid", DollarsPerHour, Decimal, ["stream", "market"],
        "Least legal limit with which a new one-unit bid would win now; absent while there is no supply.";
    SUPPLY_UNITS: MARKET, "supply", Count("units"), Gauge, ["stream", "market"],
        "Usable servers, leased or free.";
    DEMAND_UNITS: MARKET, "demand", Count("units"), Gauge, ["stream", "market"],
        "Units that standing bids want.";
    SOLD_UNITS: MARKET, "sold", Count("units"), Gauge, ["stream", "market"],
        "Units that win now.";
    LEAVING_UNITS: MARKET, "leaving", Count("units"), Gauge, ["stream", "market"],
        "Units under notice that still occupy a server.";
    AWARDS: MARKET, "awards", Total, Counter, ["stream"],
        "Units awarded.";
    NOTICES: MARKET, "notices", Total, Counter, ["stream", "reason"],
        "Units given notice, by reason: outbid, supply, reserve, host, moved, operator, or the tenant's own cancelled, expired, reduced.";
    NOTICES_WITHDRAWN: MARKET, "notices_withdrawn", Total, Counter, ["stream"],
        "Units whose notice was withdrawn because their bid won again.";
    NOTICE_LEAD: MARKET, "notice_lead", Seconds, Histogram(NOTICE_SECONDS), ["stream"],
        "Time between a notice and the instant its unit is gone.";
    NOTICE_BREACHES: MARKET, "notice_breaches", Total, Counter, ["stream"],
        "Units given less notice than their market promises, without having asked to leave, and units whose server died.";

    // Placement: one site, one stream.
    PLANES: PLACEMENT, "", Count("planes"), Gauge, ["stream"],
        "Planes there are, those that sleep and are being deleted included.";
    PLANES_ASLEEP: PLACEMENT, "asleep", Count("planes"), Gauge, ["stream"],
        "Planes that sleep.";
    PLANES_AT_RISK: PLACEMENT, "at_risk", Count("planes"), Gauge, ["stream", "reason"],
        "Planes with a replica that is missing or may be lost, by reason: no-hosts, too-large, full, too-late.";
    PLANES_SLOW: PLACEMENT, "slow", Count("planes"), Gauge, ["stream"],
        "Planes that answer, commit or reconcile more slowly than they should.";
    HOSTS: PLACEMENT, "", Count("hosts"), Gauge, ["stream"],
        "Hosts there are, leaving ones included.";
    HOSTS_LEAVING: PLACEMENT, "leaving", Count("hosts"), Gauge, ["stream"],
        "Hosts under notice.";
    HOSTS_ADVISED: PLACEMENT, "advised", Count("hosts"), Gauge, ["stream"],
        "Hosts that would give a place to every replica that has none.";
    HOSTS_USED: PLACEMENT, "used", Count("permille"), Gauge, ["stream", "resource"],
        "What planes take of the hosts that stay, the surge reserve counted as taken, by resource: cpu, memory.";
    HOSTS_STRANDED: PLACEMENT, "stranded", Count("permille"), Gauge, ["stream", "resource"],
        "What is free on hosts on which no replica of the smallest size has room, by resource: cpu, memory.";
    MOVES_UNDER_WAY: PLACEMENT, "under_way", Count("moves"), Gauge, ["stream"],
        "Moves of replicas that have begun and are not done.";
    MOVES_WAITING: PLACEMENT, "waiting", Count("moves"), Gauge, ["stream"],
        "Moves of replicas that are decided and wait for their turn.";
    MOVES_DECIDED: PLACEMENT, "moves_decided", Total, Counter, ["stream", "cause"],
        "Moves of replicas decided, by cause: missing, notice, room.";
    MOVES_FAILED: PLACEMENT, "moves_failed", Total, Counter, ["stream"],
        "Moves that took longer than they may and began again.";
    REPLICAS_LOST: PLACEMENT, "replicas_lost", Total, Counter, ["stream"],
        "Replicas that were still on a host when it was gone.";
    HOST_NOTICE_LEAD: PLACEMENT, "host_notice_lead", Seconds, Histogram(NOTICE_SECONDS), ["stream"],
        "Time between a host's notice and the instant it is gone.";
    MOVE_DURATION: PLACEMENT, "move_duration", Seconds, Histogram(NOTICE_SECONDS), ["stream"],
        "Time from the beginning of a move to its end.";

    // The gateway.
    REQUESTS: GATEWAY, "requests", Total, Counter, ["route", "status"],
        "HTTP requests answered, by route and status.";
    REQUEST_DURATION: GATEWAY, "request_duration", Seconds, Histogram(LATENCY_SECONDS), ["route"],
        "Time from a request to its answer.";
    RATE_LIMITED: GATEWAY, "rate_limited", Total, Counter, [],
        "Requests refused because their tenant asked too often, or too many were at work.";
    STREAMS_OPEN: GATEWAY, "open", Count("streams"), Gauge, [],
        "Server-sent event streams that are open.";
    BODY_REFUSED: GATEWAY, "bodies_refused", Total, Counter, [],
        "Requests refused because their body was too large.";

    // Control planes. `stream` is the site.
    CONTROLPLANE_CAUGHT_UP: CONTROLPLANE, "orders", Flag("caught_up"), Gauge, ["stream"],
        "1 once all orders given before the start are known; before that nothing is written.";
    CONTROLPLANE_OBJECTS: CONTROLPLANE, "known", Count("objects"), Gauge, ["stream"],
        "Objects of the management cluster that are known.";
    CONTROLPLANE_DIFF: CONTROLPLANE, "diff_duration", Seconds, Histogram(LATENCY_SECONDS), ["stream"],
        "Time to work out what is to be written for one tenant.";
    CONTROLPLANE_PLANES: CONTROLPLANE, "ordered", Count("planes"), Gauge, ["stream", "phase"],
        "Planes by what they are doing.";
    CONTROLPLANE_HELD_BACK: CONTROLPLANE, "held_back", Count("planes"), Gauge, ["stream", "reason"],
        "Planes that are not as ordered for a reason that somebody may have to mend.";
    CONTROLPLANE_WRITES: CONTROLPLANE, "writes", Total, Counter, ["stream", "what", "result"],
        "Writes to the management cluster, by verb and kind, and result: done, conflict, later, failed, refused.";
    CONTROLPLANE_WATCH_FAILURES: CONTROLPLANE, "watch_failures", Total, Counter, ["stream", "kind"],
        "Watches of the management cluster that broke with an error and began again.";
    CONTROLPLANE_UNREADABLE: CONTROLPLANE, "unreadable_objects", Total, Counter, ["stream"],
        "Objects of the management cluster that were passed over because they lack what every object has.";
    CONTROLPLANE_FOLLOWED: CONTROLPLANE, "followed", Sequence, Gauge, ["stream"],
        "Sequence of the last turn of placement whose orders are known.";
    CONTROLPLANE_ANEW: CONTROLPLANE, "orders_asked_anew", Total, Counter, ["stream"],
        "Times all orders were asked for again because an event was missing or the bus or placement failed.";
    CONTROLPLANE_REPORTS: CONTROLPLANE, "reports", Total, Counter, ["stream", "about"],
        "What was said to placement, of planes and of hosts.";
    CONTROLPLANE_REPORTS_REFUSED: CONTROLPLANE, "reports_refused", Total, Counter, ["stream"],
        "What was said to placement and refused.";
    CONTROLPLANE_HOSTS: CONTROLPLANE, "seen", Count("hosts"), Gauge, ["stream"],
        "Nodes of the management cluster.";
    CONTROLPLANE_HOSTS_UNUSABLE: CONTROLPLANE, "unusable", Count("hosts"), Gauge, ["stream"],
        "Nodes of the management cluster that name no region, or whose names placement cannot take.";

    CONTROLPLANE_API_LATENCY: CONTROLPLANE, "plane_api_latency", Seconds, Histogram(LATENCY_SECONDS), ["stream"],
        "Within what time almost all requests to a plane were answered since it was looked at before, one value for each look.";
    CONTROLPLANE_COMMIT_LATENCY: CONTROLPLANE, "plane_commit_latency", Seconds, Histogram(LATENCY_SECONDS), ["stream"],
        "Within what time almost all writes of a plane were committed by its data store, one value for each look.";
    CONTROLPLANE_LOOP_DURATION: CONTROLPLANE, "plane_loop_duration", Seconds, Histogram(LATENCY_SECONDS), ["stream"],
        "Within what time almost all pieces of work of a plane's controllers were done, one value for each look.";
    CONTROLPLANE_LOOKS: CONTROLPLANE, "plane_looks", Total, Counter, ["stream", "result"],
        "Looks at how quick planes are, by result: done, failed.";

    // The process, whatever it runs.
    READY: PROCESS, "check", Flag("ready"), Gauge, ["check"],
        "1 while this condition of readiness holds.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_name_follows_the_convention_and_is_there_once() {
        let mut names = BTreeSet::new();
        for (constant, metric) in METRICS {
            assert!(metric.help.ends_with('.') && metric.help.len() > 10, "{constant}: help is a sentence");
            for service in metric.services {
                assert!(SERVICES.contains(service), "{constant}: unknown service {service}");
                let name = metric.checked_name(service).unwrap();
                assert!(names.insert(name.clone()), "{name} is there twice");
            }
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{constant}: bounds ascend");
            }
        }
    }
}
