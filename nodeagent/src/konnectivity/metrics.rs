//! What the tunnel shows of itself. Names, help texts, types and labels are upstream's, so that its dashboards,
//! alerts and tests go on working; the tunnel's own are called `walras_nodeagent_tunnel_…`.

use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    Opts, Registry, TextEncoder,
};
use tunnel::{Counts, Kind};

const PREFIX: &str = "konnectivity_network_proxy_agent_";

/// Upper bounds of durations, in seconds, as upstream has them.
const LATENCY_SECONDS: [f64; 7] = [0.005, 0.025, 0.1, 0.5, 2.5, 10.0, 30.0];

/// The direction of a packet, as upstream calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Segment {
    FromAgent,
    ToAgent,
}

/// Counters, gauges and histograms of one agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    dial_seconds: Histogram,
    /// Upstream's tests want no reason shown that has not occurred.
    dial_failures: IntCounterVec,
    servers: Gauge,
    server_count: Gauge,
    endpoints: Gauge,
    sent: [IntCounter; 8],
    received: [IntCounter; 8],
    server_failures: IntCounterVec,
    stream_errors: IntCounterVec,
    attempts: IntCounterVec,
    slow: IntCounter,
    unanswered: IntCounter,
    unflushed: IntCounter,
    draining: IntGauge,
}

impl Metrics {
    /// All of them, at zero.
    ///
    /// # Errors
    /// Where two have one name, which a test would have shown.
    pub fn new() -> Result<Metrics, prometheus::Error> {
        let registry = Registry::new();
        let own = |name: &str, help: &str| Opts::new(format!("walras_nodeagent_tunnel_{name}"), help);
        let dials =
            histogram("dial_duration_seconds", "Latency of dial to the remote endpoint in seconds", &[])?;
        let dial_failures = counters(
            "endpoint_dial_failure_total",
            "Number of failures dialing the remote endpoint, by reason (example: timeout).",
            &["reason"],
        )?;
        let servers = gauge("open_server_connections", "Current number of open server connections.")?;
        let server_count =
            gauge("known_server_count", "Current number of servers agent is trying to connect to.")?;
        let endpoints = gauge("open_endpoint_connections", "Current number of open endpoint connections.")?;
        let packets = counters(
            "stream_packets_total",
            "Count of packets processed, by segment and packet type (example: from_client, DIAL_REQ)",
            &["segment", "packet_type"],
        )?;
        let stream_errors = counters(
            "stream_errors_total",
            "Count of gRPC stream errors, by segment, grpc Code, packet type. (example: from_agent, Code.Unavailable, DIAL_RSP)",
            &["segment", "code", "packet_type"],
        )?;
        let server_failures = counters(
            "server_connection_failure_count",
            "Count of failures to send to or receive from the proxy server, labeled by the direction (from_server or to_server). DEPRECATED, please use stream_events_error_total",
            &["direction"],
        )?;
        let attempts =
            IntCounterVec::new(own("attempts_total", "Attempts to open a stream, by result."), &["result"])?;
        let slow =
            own("slow_endpoints_total", "Connections closed because their endpoint took data too slowly.");
        let slow = IntCounter::with_opts(slow)?;
        let unanswered =
            own("unanswered_packets_total", "Packets unanswered because too many answers waited.");
        let unanswered = IntCounter::with_opts(unanswered)?;
        let unflushed = own(
            "unflushed_connections_total",
            "Connections whose last bytes an endpoint did not take in time.",
        );
        let unflushed = IntCounter::with_opts(unflushed)?;
        let draining = IntGauge::with_opts(own("draining", "Whether the agent asks for no new dials."))?;
        let all: [Box<dyn Collector>; 13] = [
            Box::new(dials.clone()),
            Box::new(dial_failures.clone()),
            Box::new(servers.clone()),
            Box::new(server_count.clone()),
            Box::new(endpoints.clone()),
            Box::new(packets.clone()),
            Box::new(stream_errors.clone()),
            Box::new(server_failures.clone()),
            Box::new(attempts.clone()),
            Box::new(slow.clone()),
            Box::new(unanswered.clone()),
            Box::new(unflushed.clone()),
            Box::new(draining.clone()),
        ];
        for collector in all {
            registry.register(collector)?;
        }
        let of = |segment: &str| Kind::ALL.map(|kind| packets.with_label_values(&[segment, kind.name()]));
        Ok(Metrics {
            registry,
            dial_seconds: dials.with_label_values::<&str>(&[]),
            dial_failures,
            servers: servers.with_label_values::<&str>(&[]),
            server_count: server_count.with_label_values::<&str>(&[]),
            endpoints: endpoints.with_label_values::<&str>(&[]),
            sent: of("from_agent"),
            received: of("to_agent"),
            server_failures,
            stream_errors,
            attempts,
            slow,
            unanswered,
            unflushed,
            draining,
        })
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// Where a metric cannot be written, which does not happen.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(8 << 10);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Servers that streams lead to now.
    pub fn open_servers(&self) -> usize {
        self.servers.get() as usize
    }

    pub(crate) fn dialed(&self, took: Duration) {
        self.dial_seconds.observe(took.as_secs_f64());
    }

    pub(crate) fn dial_failed(&self, timed_out: bool) {
        let reason = if timed_out { "timeout" } else { "unknown" };
        self.dial_failures.with_label_values(&[reason]).inc();
    }

    pub(crate) fn show_servers(&self, live: usize, wanted: usize) {
        self.servers.set(live as f64);
        self.server_count.set(wanted as f64);
    }

    pub(crate) fn endpoint_opened(&self) {
        self.endpoints.inc();
    }

    pub(crate) fn endpoint_closed(&self) {
        self.endpoints.dec();
    }

    pub(crate) fn packet(&self, segment: Segment, kind: Kind) {
        let counters = match segment {
            Segment::FromAgent => &self.sent,
            Segment::ToAgent => &self.received,
        };
        if let Some(counter) = counters.get(kind as usize) {
            counter.inc();
        }
    }

    pub(crate) fn stream_error(&self, segment: Segment, code: &str) {
        if code == "OK" {
            return;
        }
        let (segment, direction) = match segment {
            Segment::FromAgent => ("from_agent", "to_server"),
            Segment::ToAgent => ("to_agent", "from_server"),
        };
        self.stream_errors.with_label_values(&[segment, code, "Unknown"]).inc();
        self.server_failures.with_label_values(&[direction]).inc();
    }

    pub(crate) fn attempt(&self, result: &str) {
        self.attempts.with_label_values(&[result]).inc();
    }

    pub(crate) fn draining(&self) {
        self.draining.set(1);
    }

    /// Adds what a stream counted since `before`.
    pub(crate) fn counts(&self, before: Counts, after: Counts) {
        self.slow.inc_by(after.slow.saturating_sub(before.slow));
        self.unanswered.inc_by(after.unanswered.saturating_sub(before.unanswered));
        self.unflushed.inc_by(after.unflushed.saturating_sub(before.unflushed));
    }
}

fn histogram(name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, prometheus::Error> {
    let options = HistogramOpts::new(format!("{PREFIX}{name}"), help).buckets(LATENCY_SECONDS.to_vec());
    HistogramVec::new(options, labels)
}

fn counters(name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
    IntCounterVec::new(Opts::new(format!("{PREFIX}{name}"), help), labels)
}

fn gauge(name: &str, help: &str) -> Result<GaugeVec, prometheus::Error> {
    GaugeVec::new(Opts::new(format!("{PREFIX}{name}"), help), &[])
}
