//! Deciding on what is reported of planes and bids.

use std::collections::BTreeSet;

use proto::Timestamp;
use proto::envelope::RefusalReason;
use proto::placement::{
    BIDS_REPORTED_MAX, BidStands, LEASES_REPORTED_MAX, MoveNumber, PlacementEvent, PlaneNumber,
    READY_HOSTS_MAX, ReportBids, ReportPlane, ReportPlaneGone, WORKERS_MAX,
};

use super::bounds::{BIDS_MAX, EXCHANGES_MAX};
use super::record::{PlaneRecord, size_for, size_named};
use super::refuse::{Checked, refuse, within};
use super::servers::Because;
use super::{Events, Placement};

impl Placement {
    pub(super) fn plane_reported(
        &mut self,
        now: Timestamp,
        asked: &ReportPlane,
        events: &mut Events,
    ) -> Checked<()> {
        let plane = self.numbered(asked.plane)?;
        if asked.generation < plane.reported {
            let problem = format!("order {} was reported", plane.reported);
            return refuse(RefusalReason::Stale, "generation", asked.generation, problem);
        }
        within("generation", asked.generation, 0, plane.generation)?;
        within("workers", asked.workers.into(), 0, WORKERS_MAX.into())?;
        within("ready_on", asked.ready_on.len() as u64, 0, READY_HOSTS_MAX as u64)?;
        let number = plane.number;
        // What is ready on hosts that are gone is soon not ready any more.
        let known = asked.ready_on.iter().filter_map(|id| Some(self.host_named(id)?.number));
        let ready_on: BTreeSet<_> = known.collect();
        let event = PlacementEvent::PlaneReported {
            plane: number,
            generation: asked.generation,
            ready_on: ready_on.into_iter().collect(),
            version: asked.version,
            workers: asked.workers,
            slow: asked.slow,
        };
        self.emit(now, event, events);
        for number in self.moves_done(number) {
            self.emit(now, PlacementEvent::MoveDone { number, plane: asked.plane }, events);
        }
        self.grow(now, number, events);
        self.rouse(now, number, events);
        Ok(())
    }

    /// Moves of a plane that are done as far as was reported.
    fn moves_done(&self, number: PlaneNumber) -> Vec<MoveNumber> {
        let Some(plane) = self.planes.get(&number) else { return Vec::new() };
        let is_ready = |ord: u32| {
            self.host_ords.get(&ord).is_some_and(|host| plane.ready_on.binary_search(host).is_ok())
        };
        let begun = self.rollout.steps().filter(|step| step.begun && step.plane == plane.ord);
        let done = begun.filter(|step| {
            let ordered = self.begun.get(&step.number).map(|begun| begun.generation);
            ordered.is_some_and(|generation| generation <= plane.reported)
                && is_ready(step.to)
                && !step.from.is_some_and(is_ready)
        });
        done.map(|step| step.number).collect()
    }

    /// Gives a plane a larger size at once if it needs one.
    fn grow(&mut self, now: Timestamp, number: PlaneNumber, events: &mut Events) {
        let Some(plane) = self.planes.get(&number) else { return };
        let has = size_named(&self.rules, &plane.size).map_or(0, |(place, _)| place);
        if let Some((place, size)) = size_for(&self.rules, plane.workers)
            && place > has
            && !plane.is_deleted
        {
            let size = size.name.clone();
            self.emit(now, PlacementEvent::PlaneSized { plane: number, size }, events);
        }
    }

    /// Wakes a plane that is needed.
    fn rouse(&mut self, now: Timestamp, number: PlaneNumber, events: &mut Events) {
        let is_wanted = |plane: &PlaneRecord| plane.is_asleep && !plane.is_deleted && !plane.is_idle();
        if self.planes.get(&number).is_some_and(is_wanted) {
            self.emit(now, PlacementEvent::PlaneWoken { plane: number }, events);
        }
    }

    pub(super) fn plane_gone(
        &mut self,
        now: Timestamp,
        asked: &ReportPlaneGone,
        events: &mut Events,
    ) -> Checked<()> {
        let plane = self.numbered(asked.plane)?;
        if !plane.is_deleted {
            let problem = "this plane is to be there: make it again";
            return refuse(RefusalReason::NotAllowed, "plane", asked.plane, problem);
        }
        self.emit(now, PlacementEvent::PlaneGone { plane: asked.plane }, events);
        Ok(())
    }

    fn numbered(&self, number: PlaneNumber) -> Checked<&PlaneRecord> {
        match self.planes.get(&number) {
            Some(plane) => Ok(plane),
            None => refuse(RefusalReason::Unknown, "plane", number, "no such plane is known"),
        }
    }

    pub(super) fn bids_reported(
        &mut self,
        now: Timestamp,
        asked: &ReportBids,
        events: &mut Events,
    ) -> Checked<()> {
        let ReportBids { exchange, sequence, part, markets, placed, leases, ended, .. } = asked;
        within("markets", markets.len() as u64, 0, BIDS_REPORTED_MAX as u64)?;
        within("placed", placed.len() as u64, 0, BIDS_REPORTED_MAX as u64)?;
        within("leases", leases.len() as u64, 0, BIDS_REPORTED_MAX as u64)?;
        within("ended", ended.len() as u64, 0, BIDS_REPORTED_MAX as u64)?;
        let units = leases.iter().map(|change| u64::from(change.leases().units)).sum();
        within("leases", units, 0, LEASES_REPORTED_MAX)?;
        match self.routed.get(exchange) {
            Some(known) if (*sequence, *part) <= *known => {
                let problem = format!("part {} of turn {} was reported", known.1, known.0);
                return refuse(RefusalReason::Stale, "sequence", sequence, problem);
            }
            None if self.routed.len() >= EXCHANGES_MAX => {
                let problem = format!("bids of at most {EXCHANGES_MAX} exchanges are followed");
                return refuse(RefusalReason::LimitReached, "exchange", exchange, problem);
            }
            _ => {}
        }
        if self.servers.counts()[3] + placed.len() > BIDS_MAX {
            let problem = format!("at most {BIDS_MAX} bids are followed");
            return refuse(RefusalReason::LimitReached, "placed", placed.len(), problem);
        }
        let number = |bid: &BidStands| Some(self.plane_named(&bid.tenant, &bid.cluster)?.number);
        let wanted: BTreeSet<PlaneNumber> = placed.iter().filter_map(number).collect();
        let new: BTreeSet<u64> = placed.iter().map(|placed| placed.bid).collect();
        // Of others nobody told.
        let is_known = |bid: &&u64| new.contains(*bid) || self.servers.knows_bid(exchange, **bid);
        let ended = ended.iter().filter(is_known).copied().collect();
        let reported = PlacementEvent::BidsReported {
            exchange: exchange.clone(),
            sequence: *sequence,
            part: *part,
            markets: markets.clone(),
            placed: placed.clone(),
            leases: leases.clone(),
            ended,
        };
        self.emit(now, reported, events);
        for number in wanted {
            self.rouse(now, number, events);
        }
        self.settle_servers(now, &Because::default(), events);
        Ok(())
    }
}
