//! Placement's metrics: what happens from the events, what is from the site as they leave it.

use std::collections::BTreeMap;

use placement::machine::{Placement, SiteView};
use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use proto::market::LeaseNumber;
use proto::placement::{LeaseChange, MoveNumber, PlacementEvent, ReplicaMove, RiskReason};
use proto::{StreamName, Timestamp};
use runtime::telemetry::{Meter, MeterError, metrics};

const MICROS: f64 = 1e6;
const PERMILLE: u64 = 1_000;
/// Moves whose beginning is remembered, and leases whose server goes.
const BEGUN_MAX: usize = 65_536;
/// What servers are.
const STATES: [&str; 3] = ["free", "leased", "leaving"];

const REASONS: [(RiskReason, &str); 4] = [
    (RiskReason::NoHosts, "no-hosts"),
    (RiskReason::TooLarge, "too-large"),
    (RiskReason::Full, "full"),
    (RiskReason::TooLate, "too-late"),
];

/// What one site tells. Its gauges are gone with it: a process that no longer runs the site must not go on showing it.
#[derive(Debug)]
pub(crate) struct Figures {
    stream: StreamName,
    planes: IntGauge,
    asleep: IntGauge,
    slow: IntGauge,
    hosts: IntGauge,
    leaving: IntGauge,
    moving: IntGauge,
    waiting: IntGauge,
    advised: IntGauge,
    used: IntGaugeVec,
    stranded: IntGaugeVec,
    at_risk: IntGaugeVec,
    decided: IntCounterVec,
    failed: IntCounter,
    lost: IntCounter,
    notice_lead: Histogram,
    move_duration: Histogram,
    begun_at: BTreeMap<MoveNumber, Timestamp>,
    servers: IntGaugeVec,
    unserved: IntGauge,
    displaced: IntCounter,
    lost_leases: IntCounter,
    replacement: Histogram,
    /// Since when leases, or those that take their place, have to have another server.
    displaced_at: BTreeMap<(StreamName, LeaseNumber), Timestamp>,
}

/// Why a replica was moved.
fn cause(decided: &ReplicaMove) -> &'static str {
    match (decided.from, decided.gone_at) {
        (None, _) => "missing",
        (Some(_), Some(_)) => "notice",
        (Some(_), None) => "room",
    }
}

impl Figures {
    pub(crate) fn new(meter: &Meter, stream: &StreamName) -> Result<Self, MeterError> {
        let name = [stream.as_str()];
        let gauge = |metric| meter.gauges(metric).map(|gauges| gauges.with_label_values(&name));
        let decided = meter.counters(&metrics::MOVES_DECIDED)?;
        for cause in ["missing", "notice", "room"] {
            // At zero before the first: otherwise the first would be invisible to a rate.
            let _ = decided.with_label_values(&[stream.as_str(), cause]);
        }
        Ok(Self {
            stream: stream.clone(),
            planes: gauge(&metrics::PLANES)?,
            asleep: gauge(&metrics::PLANES_ASLEEP)?,
            slow: gauge(&metrics::PLANES_SLOW)?,
            hosts: gauge(&metrics::HOSTS)?,
            leaving: gauge(&metrics::HOSTS_LEAVING)?,
            moving: gauge(&metrics::MOVES_UNDER_WAY)?,
            waiting: gauge(&metrics::MOVES_WAITING)?,
            advised: gauge(&metrics::HOSTS_ADVISED)?,
            used: meter.gauges(&metrics::HOSTS_USED)?,
            stranded: meter.gauges(&metrics::HOSTS_STRANDED)?,
            at_risk: meter.gauges(&metrics::PLANES_AT_RISK)?,
            decided,
            failed: meter.counters(&metrics::MOVES_FAILED)?.with_label_values(&name),
            lost: meter.counters(&metrics::REPLICAS_LOST)?.with_label_values(&name),
            notice_lead: meter.histograms(&metrics::HOST_NOTICE_LEAD)?.with_label_values(&name),
            move_duration: meter.histograms(&metrics::MOVE_DURATION)?.with_label_values(&name),
            begun_at: BTreeMap::new(),
            servers: meter.gauges(&metrics::SERVERS)?,
            unserved: gauge(&metrics::LEASES_UNSERVED)?,
            displaced: meter.counters(&metrics::LEASES_DISPLACED)?.with_label_values(&name),
            lost_leases: meter.counters(&metrics::LEASES_LOST)?.with_label_values(&name),
            replacement: meter.histograms(&metrics::LEASE_REPLACEMENT)?.with_label_values(&name),
            displaced_at: BTreeMap::new(),
        })
    }

    /// Tells of one event.
    pub(crate) fn tell(&mut self, at: Timestamp, event: &PlacementEvent) {
        match event {
            PlacementEvent::MovesDecided { moves } => {
                for decided in moves {
                    self.decided.with_label_values(&[self.stream.as_str(), cause(decided)]).inc();
                }
            }
            PlacementEvent::MovesBegun { moves } => {
                self.begun_at.extend(moves.iter().map(|begun| (begun.number, at)));
                // Moves of what is gone end without a word.
                while self.begun_at.len() > BEGUN_MAX {
                    self.begun_at.pop_first();
                }
            }
            PlacementEvent::MoveDone { number, .. } => {
                if let Some(begun_at) = self.begun_at.remove(number) {
                    self.move_duration.observe(at.micros_since(begun_at) as f64 / MICROS);
                }
            }
            PlacementEvent::MoveFailed { number, .. } => {
                self.begun_at.remove(number);
                self.failed.inc();
            }
            PlacementEvent::HostNoticed { gone_at, .. } => {
                self.notice_lead.observe(gone_at.micros_since(at).max(0) as f64 / MICROS);
            }
            PlacementEvent::HostGone { lost, .. } => self.lost.inc_by(u64::from(*lost)),
            _ => self.tell_of_leases(at, event),
        }
    }

    fn tell_of_leases(&mut self, at: Timestamp, event: &PlacementEvent) {
        match event {
            PlacementEvent::LeaseDisplaced { exchange, lease, .. } => {
                self.displaced.inc();
                self.displaced_at.entry((exchange.clone(), *lease)).or_insert(at);
                while self.displaced_at.len() > BEGUN_MAX {
                    self.displaced_at.pop_first();
                }
            }
            PlacementEvent::BidsReported { exchange, leases, .. } if !self.displaced_at.is_empty() => {
                for change in leases {
                    self.follow(exchange, *change);
                }
            }
            PlacementEvent::ServerOrdered { order, .. } if order.gone_at.is_none() => {
                let served = order.lease.as_ref().map(|served| (served.exchange.clone(), served.lease));
                if let Some(since) = served.and_then(|served| self.displaced_at.remove(&served)) {
                    self.replacement.observe(at.micros_since(since) as f64 / MICROS);
                }
            }
            PlacementEvent::ServersGone { lost, .. } => self.lost_leases.inc_by(u64::from(*lost)),
            _ => {}
        }
    }

    /// A lease that takes another's place has waited since the other's server was announced to go.
    fn follow(&mut self, exchange: &StreamName, change: LeaseChange) {
        match change {
            LeaseChange::Awarded { leases, replaces: Some(replaced), .. } => {
                for (lease, replaced) in (leases.first..leases.end()).zip(replaced..) {
                    if let Some(since) = self.displaced_at.remove(&(exchange.clone(), replaced)) {
                        self.displaced_at.insert((exchange.clone(), lease), since);
                    }
                }
            }
            LeaseChange::Released { leases } => {
                for lease in leases.first..leases.end() {
                    self.displaced_at.remove(&(exchange.clone(), lease));
                }
            }
            _ => {}
        }
    }

    /// Shows a site as it is.
    pub(crate) fn show(&self, site: &Placement) {
        let view = site.site_view();
        self.planes.set(view.planes.into());
        self.asleep.set(view.asleep.into());
        self.slow.set(view.slow.into());
        self.hosts.set(view.hosts.len() as i64);
        self.leaving.set(view.hosts.iter().filter(|host| host.gone_at.is_some()).count() as i64);
        self.moving.set(view.moving.into());
        self.waiting.set(view.waiting.into());
        self.advised.set(view.advice.iter().map(|advice| i64::from(advice.hosts)).sum());
        let markets = &view.servers.markets;
        let free: u32 = markets.iter().map(|market| market.free).sum();
        let units: u32 = markets.iter().map(|market| market.units).sum();
        for (state, servers) in STATES.into_iter().zip([free, units - free.min(units), view.servers.leaving])
        {
            self.servers.with_label_values(&[self.stream.as_str(), state]).set(servers.into());
        }
        self.unserved.set(markets.iter().map(|market| i64::from(market.waiting)).sum());
        for (reason, word) in REASONS {
            let planes = view.risks.get(&reason).copied().unwrap_or(0);
            self.at_risk.with_label_values(&[self.stream.as_str(), word]).set(planes.into());
        }
        for (resource, room) in [
            ("cpu", Room::of(&view, |amount| amount.cpu_milli)),
            ("memory", Room::of(&view, |amount| amount.memory_mib)),
        ] {
            let labels = [self.stream.as_str(), resource];
            self.used.with_label_values(&labels).set(room.used_permille());
            self.stranded.with_label_values(&labels).set(room.stranded_permille());
        }
    }
}

/// Of one resource, how much the hosts that stay have together.
struct Room {
    all: u64,
    free: u64,
    /// What is free on hosts on which no replica of the smallest size has room.
    stranded: u64,
}

impl Room {
    fn of(view: &SiteView, part: impl Fn(&proto::placement::Amount) -> u32) -> Self {
        let smallest = view.rules.sizes.first().map(|size| size.request).unwrap_or_default();
        let mut room = Self { all: 0, free: 0, stranded: 0 };
        for host in view.hosts.iter().filter(|host| host.gone_at.is_none()) {
            let free = u64::from(part(&host.free));
            room.all += u64::from(part(&host.terms.capacity));
            room.free += free;
            let is_full = host.free.cpu_milli < smallest.cpu_milli
                || host.free.memory_mib < smallest.memory_mib
                || host.free.pods < smallest.pods;
            room.stranded += if is_full { free } else { 0 };
        }
        room
    }

    fn used_permille(&self) -> i64 {
        ((self.all - self.free.min(self.all)) * PERMILLE / self.all.max(1)) as i64
    }

    fn stranded_permille(&self) -> i64 {
        (self.stranded * PERMILLE / self.all.max(1)) as i64
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        let gauges = [
            &self.planes,
            &self.asleep,
            &self.slow,
            &self.hosts,
            &self.leaving,
            &self.moving,
            &self.waiting,
            &self.advised,
            &self.unserved,
        ];
        for gauge in gauges {
            gauge.set(0);
        }
        for (_, word) in REASONS {
            let _ = self.at_risk.remove_label_values(&[self.stream.as_str(), word]);
        }
        for state in STATES {
            let _ = self.servers.remove_label_values(&[self.stream.as_str(), state]);
        }
        for resource in ["cpu", "memory"] {
            let _ = self.used.remove_label_values(&[self.stream.as_str(), resource]);
            let _ = self.stranded.remove_label_values(&[self.stream.as_str(), resource]);
        }
    }
}
