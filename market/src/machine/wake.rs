//! What is due by itself: leases that are gone, bids that expire, rounds, ended bids that are forgotten.

use proto::Timestamp;
use proto::market::{LossReason, MarketEvent, ReleaseReason};

use super::Market;
use super::bid::Status;
use super::bounds::{FINISHED_BIDS_MAX, FORGET_PAUSE_MICROSECONDS, FORGOTTEN_AT_ONCE_MAX};
use super::lease::{Stand, Worker};

impl Market {
    /// When something is due next.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let gone = self.departing.first().map(|&(at, _)| at);
        let expiry = self.expiring.first().map(|&(at, _)| at);
        [gone, expiry, self.round_due(), self.forget_due(self.next.forgot_at)].into_iter().flatten().min()
    }

    /// When the round closes: `coalesce` after the first change since the last one, or, where nothing has changed,
    /// when delays are to be told.
    fn round_due(&self) -> Option<Timestamp> {
        let coalesce = i64::from(self.rules.coalesce_milliseconds) * 1_000;
        let closes_at = self.next.soiled_at.map(|at| at.plus_micros(coalesce));
        closes_at.or_else(|| self.delays_due())
    }

    /// When the longest finished bid may be forgotten: after the instant at which it ended, so that whoever is told
    /// of that can be told its name.
    fn forget_due(&self, forgot_at: Option<Timestamp>) -> Option<Timestamp> {
        let finished_at = self.bids.finished().front()?.finished_at;
        let kept = if self.bids.finished().len() > FINISHED_BIDS_MAX {
            0
        } else {
            self.rules.finished_bids_kept_seconds
        };
        let due = finished_at.plus_seconds(kept).plus_micros(1);
        let pause_ends = forgot_at.map(|at| at.plus_micros(FORGET_PAUSE_MICROSECONDS));
        Some(pause_ends.map_or(due, |ends| due.max(ends)))
    }

    /// Does what has become due by `now`.
    pub(super) fn do_due(&mut self, now: Timestamp, events: &mut Vec<MarketEvent>) {
        self.now = now;
        self.bids.retire(now);
        self.release_gone(now, events);
        self.expire(now, events);
        if self.round_due().is_some_and(|due| due <= now) {
            self.close_round(now, events);
        }
        self.forget(now, events);
    }

    fn release_gone(&mut self, now: Timestamp, events: &mut Vec<MarketEvent>) {
        if self.departing.first().is_none_or(|&(at, _)| at > now) {
            return;
        }
        let mut gone = Vec::new();
        for &(_, market) in self.departing.iter().take_while(|(at, _)| *at <= now) {
            if let Some(record) = self.market(market) {
                record.servers.gone_by(&self.leases, now, &mut gone);
                let since =
                    |seconds: u32| (seconds > 0).then(|| now.plus_micros(-1_000_000 * i64::from(seconds)));
                let rules = &self.rules;
                let (booting, dead) = (since(rules.provisioning_seconds_max), since(rules.dead_seconds_max));
                record.servers.overdue(&self.leases, booting, dead, &mut gone);
            }
        }
        // Lease numbers are an order that does not depend on how the state came about.
        gone.sort_unstable_by_key(|&index| self.leases.span(index).first);
        for index in gone {
            let span = *self.leases.span(index);
            let reason = match (span.stand, span.worker) {
                (Stand::Served, Worker::Dead) => ReleaseReason::WorkerDead,
                (Stand::Served, _) => ReleaseReason::ProvisioningTimedOut,
                _ => ReleaseReason::NoticeEnded,
            };
            let (number, market, leases) = (span.number, span.market, span.leases());
            events.push(MarketEvent::UnitsReleased { number, market, leases, reason });
            self.release(now, span.bid, index, reason);
        }
    }

    fn expire(&mut self, now: Timestamp, events: &mut Vec<MarketEvent>) {
        while let Some(&(at, number)) = self.expiring.first()
            && at <= now
        {
            events.push(MarketEvent::BidExpired { number });
            if let Some(place) = self.bids.numbered(number) {
                self.end_bid(now, place, Status::Expired, LossReason::Expired, events);
            }
            // Ending the bid took it off the list; were it not there, this ends the loop all the same.
            self.expiring.remove(&(at, number));
        }
    }

    fn forget(&mut self, now: Timestamp, events: &mut Vec<MarketEvent>) {
        // All of one instant go together: the pause is between instants.
        let forgot_at = self.next.forgot_at;
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            let is_due = self.forget_due(forgot_at).is_some_and(|due| due <= now);
            let Some(number) = self.bids.finished().front().map(|tomb| tomb.number).filter(|_| is_due) else {
                break;
            };
            events.push(MarketEvent::BidForgotten { number });
            self.bid_forgotten(now);
        }
    }

    /// The bid that finished first is no longer known.
    pub(super) fn bid_forgotten(&mut self, at: Timestamp) {
        self.next.forgot_at = Some(at);
        self.bids.forget();
    }
}
