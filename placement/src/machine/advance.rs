//! What follows from every change: where replicas belong now, which of them move, what is ordered for each plane, and
//! what is at risk. Asking again without a change decides nothing.

use std::collections::BTreeMap;

use proto::Timestamp;
use proto::placement::{
    HostsAdvised, PlacementEvent, PlaneMove, PlaneNumber, PlaneOrder, ReplicaMove, Risk, RiskReason,
};

use super::bounds::SETTLES_MAX;
use super::record::{PlaneRecord, amount, size_named};
use super::{Events, Placement};
use crate::site::{AtRisk, HostOrd, Move, Shortage};

impl Placement {
    /// Decides what follows.
    pub(super) fn advance(&mut self, now: Timestamp, events: &mut Events) {
        for _ in 0..SETTLES_MAX {
            self.settle(now, events);
            if !self.rollout.is_stuck(&self.site) {
                break;
            }
            self.emit(now, PlacementEvent::MovesWithdrawn, events);
        }
        self.begin(now, events);
        let stale = std::mem::take(&mut self.stale);
        for number in stale {
            self.order(now, number, false, events);
        }
        self.judge(now, events);
    }

    /// Works out where replicas belong, if that may have changed.
    fn settle(&mut self, now: Timestamp, events: &mut Events) {
        if !self.is_unsettled && self.unplaced.is_some() {
            return;
        }
        self.is_unsettled = false;
        let resettled = self.site.resettle();
        // It is the event that takes effect, here as where it is read back.
        self.site.undo(&resettled.moves);
        let told: Vec<ReplicaMove> =
            resettled.moves.iter().filter_map(|decided| self.told(decided)).collect();
        self.unplaced = Some(resettled.at_risk);
        if !told.is_empty() {
            self.emit(now, PlacementEvent::MovesDecided { moves: told }, events);
        }
    }

    pub(super) fn told(&self, decided: &Move) -> Option<ReplicaMove> {
        let host = |ord: HostOrd| self.host_ords.get(&ord).copied();
        let from = match decided.from {
            Some(from) => Some(host(from)?),
            None => None,
        };
        let (plane, to) = (self.plane_of(decided.plane)?.number, host(decided.to)?);
        Some(ReplicaMove { plane, from, to, gone_at: decided.gone_at })
    }

    /// Begins moves that may begin.
    fn begin(&mut self, now: Timestamp, events: &mut Events) {
        let ready = self.rollout.ready(&self.site, self.rules.moves_max);
        let begun = ready.iter().filter_map(|step| {
            let host = |ord: HostOrd| self.host_ords.get(&ord).copied();
            let plane = self.plane_of(step.plane)?;
            let from = step.from.and_then(host);
            // The order that follows says so.
            let generation = plane.generation + 1;
            Some(PlaneMove { number: step.number, plane: plane.number, from, to: host(step.to)?, generation })
        });
        let moves: Vec<PlaneMove> = begun.collect();
        if moves.is_empty() {
            return;
        }
        let mut planes: Vec<PlaneNumber> = moves.iter().map(|begun| begun.plane).collect();
        planes.sort_unstable();
        planes.dedup();
        self.emit(now, PlacementEvent::MovesBegun { moves }, events);
        for number in planes {
            // Also when it says the same as the last: a move that failed begins again with an order of its own.
            self.order(now, number, true, events);
        }
    }

    /// Tells how a plane is to be, if that is something else than was told, or in any case.
    fn order(&mut self, now: Timestamp, number: PlaneNumber, in_any_case: bool, events: &mut Events) {
        let Some(plane) = self.planes.get(&number) else { return };
        let Some(order) = self.order_of(plane) else { return };
        if in_any_case || plane.order.as_ref() != Some(&order) {
            let generation = plane.generation + 1;
            let moving = self.rollout.steps().filter(|step| step.begun && step.plane == plane.ord);
            let gone_at = moving.filter_map(|step| step.gone_at).min();
            self.emit(
                now,
                PlacementEvent::PlaneOrdered { plane: number, generation, order, gone_at },
                events,
            );
        }
    }

    /// How a plane is to be now: its replicas where they belong, but for those whose move has not begun.
    pub(super) fn order_of(&self, plane: &PlaneRecord) -> Option<PlaneOrder> {
        let mut on: Vec<HostOrd> = self.site.on(plane.ord).to_vec();
        let steps = || self.rollout.steps().filter(|step| step.plane == plane.ord);
        for step in steps().filter(|step| !step.begun) {
            on.retain(|host| *host != step.to);
        }
        on.extend(steps().filter(|step| !step.begun).filter_map(|step| step.from));
        let name = |ord: HostOrd| Some(self.hosts.get(self.host_ords.get(&ord)?)?.id.clone());
        let mut hosts: Vec<_> = on.into_iter().filter_map(name).collect();
        hosts.sort_unstable();
        hosts.dedup();
        let (_, size) = size_named(&self.rules, &plane.size)?;
        Some(PlaneOrder {
            tenant: plane.tenant.clone(),
            cluster: plane.cluster.clone(),
            deleted: plane.is_deleted,
            replicas: plane.replicas(&self.rules),
            hosts,
            version: plane.terms.version,
            size: size.name.clone(),
            request: size.request,
            data_store: plane.data_store.clone(),
            driver: plane.driver,
        })
    }

    /// Tells what is at risk now that was not, and what is safe now.
    fn judge(&mut self, now: Timestamp, events: &mut Events) {
        let risks = self.risks(now);
        let were =
            self.planes.values().filter(|plane| plane.risk.is_some() || risks.contains_key(&plane.number));
        let changes: Vec<(PlaneNumber, Option<Risk>)> = were
            .map(|plane| (plane.number, plane.risk, risks.get(&plane.number).copied()))
            .filter(|(_, was, is)| was != is)
            .map(|(number, _, is)| (number, is))
            .collect();
        for (plane, risk) in changes {
            let event = match risk {
                Some(risk) => PlacementEvent::PlaneAtRisk { plane, risk },
                None => PlacementEvent::PlaneSafe { plane },
            };
            self.emit(now, event, events);
        }
    }

    /// Every plane at risk, with its replica that is in most danger.
    fn risks(&self, now: Timestamp) -> BTreeMap<PlaneNumber, Risk> {
        let mut risks: BTreeMap<PlaneNumber, Risk> = BTreeMap::new();
        let mut note = |plane: Option<&PlaneRecord>, risk: Risk| {
            let Some(plane) = plane.filter(|plane| !plane.is_deleted) else { return };
            let danger = |risk: &Risk| (risk.gone_at.is_none(), risk.gone_at, risk.why, risk.host);
            let worst = risks.entry(plane.number).or_insert(risk);
            if danger(&risk) < danger(worst) {
                *worst = risk;
            }
        };
        let host = |ord: HostOrd| self.host_ords.get(&ord).copied();
        for AtRisk { plane, on, gone_at, shortage } in self.unplaced.iter().flatten() {
            let why = match shortage {
                Shortage::NoHosts => RiskReason::NoHosts,
                Shortage::TooLarge => RiskReason::TooLarge,
                Shortage::Full => RiskReason::Full,
            };
            note(self.plane_of(*plane), Risk { host: on.and_then(host), gone_at: *gone_at, why });
        }
        for late in self.rollout.late(now, self.rules.move_seconds, self.rules.moves_max) {
            // What is under way may be nearly done; it is what has not begun that will not be in time.
            let Some(step) = self.rollout.step(late.number).filter(|step| !step.begun) else { continue };
            let (at, gone_at) = (step.from.and_then(host), Some(late.gone_at));
            note(self.plane_of(late.plane), Risk { host: at, gone_at, why: RiskReason::TooLate });
        }
        risks
    }

    /// What would give everything a place that has none, and more room to what is slow.
    pub(super) fn advise(&self) -> Vec<HostsAdvised> {
        let lacks = |risk: Risk| risk.why != RiskReason::TooLate;
        let is_short = self.planes.values().any(|plane| plane.risk.is_some_and(lacks));
        let crowded =
            self.planes.values().find(|plane| plane.is_crowded && !plane.is_asleep).map(|plane| plane.ord);
        let told = |advice: crate::site::Advice| {
            let region = self.regions.get(advice.region as usize)?.clone();
            let zone = self.zones.get(advice.zone as usize).cloned();
            Some(HostsAdvised { hosts: advice.hosts, region, zone, capacity: amount(&advice.capacity) })
        };
        let mut advice = if is_short { self.site.advice() } else { Vec::new() };
        // One host more is a beginning; if that is not enough, it is asked for again.
        if let Some(more) = crowded.filter(|_| advice.is_empty()).and_then(|plane| self.site.another(plane)) {
            advice.push(more);
        }
        advice.into_iter().filter_map(told).collect()
    }
}
