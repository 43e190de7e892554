//! Reading events back: each finds what it is about and changes it as it did when it was decided.

use proto::Timestamp;
use proto::market::{BidNumber, MarketEvent};

use super::Market;
use super::bid::Status;
use super::record::Source;

impl Market {
    /// Lets one event change the state. An event that names what is not there changes nothing.
    pub(super) fn take_effect(&mut self, at: Timestamp, event: &MarketEvent) {
        self.now = at;
        self.bids.retire(at);
        match event {
            MarketEvent::CommandRefused(_) | MarketEvent::NoticeAcknowledged { .. } => {}
            MarketEvent::BidPlaced { .. } | MarketEvent::BidAmended { .. } => self.take_terms(event),
            MarketEvent::BidCancelled { number } => {
                self.for_bid(*number, |this, place| this.bid_ended(at, place, Status::Cancelled));
            }
            MarketEvent::BidExpired { number } => {
                self.for_bid(*number, |this, place| this.bid_ended(at, place, Status::Expired));
            }
            MarketEvent::SupplyChanged { market, source, generation, units, cause, gone_at, .. } => {
                let said =
                    Source { generation: *generation, units: *units, cause: *cause, gone_at: *gone_at };
                self.supply_changed(*market, source, said);
            }
            MarketEvent::MarketDefined { market, id, settings } => self.market_defined(*market, id, settings),
            MarketEvent::RulesAdopted { rules } => self.rules_adopted(rules),
            MarketEvent::TrustAdopted { trusted } => self.trust_adopted(trusted),
            MarketEvent::UnitsAwarded { number, market, leases, available_by, .. } => {
                self.for_bid(*number, |this, place| this.grant(place, *market, *leases, *available_by));
            }
            MarketEvent::UnitsMoved { number, market, leases, replaces, available_by, .. } => {
                self.for_bid(*number, |this, place| {
                    this.units_moved(place, *market, *leases, *replaces, *available_by);
                });
            }
            MarketEvent::NoticeGiven { number, leases, gone_at, reason, .. } => {
                self.for_bid(*number, |this, place| this.notice_given(place, *leases, *gone_at, *reason));
            }
            MarketEvent::NoticeWithdrawn { number, leases, .. } => {
                self.for_bid(*number, |this, place| this.notice_withdrawn(place, *leases));
            }
            MarketEvent::UnitsDelayed { number, leases, available_by, .. } => {
                self.for_bid(*number, |this, place| this.units_delayed(place, *leases, *available_by));
            }
            MarketEvent::WorkersReady { number, leases, .. } => {
                self.for_bid(*number, |this, place| this.workers_ready(place, *leases));
            }
            MarketEvent::WorkersDead { number, leases, .. } => {
                self.for_bid(*number, |this, place| this.workers_dead(place, *leases));
            }
            MarketEvent::UnitsReleased { number, leases, reason, .. } => {
                self.for_bid(*number, |this, place| this.units_released(at, place, *leases, *reason));
            }
            MarketEvent::BidPassedOver { number, short_by, .. } => self.passed_over.set(*number, *short_by),
            MarketEvent::PriceChanged { market, prices, .. } => self.price_changed(*market, *prices),
            MarketEvent::RoundClosed { round } => self.round_closed(at, *round),
            MarketEvent::BidForgotten { .. } => self.bid_forgotten(at),
        }
    }

    /// Placements and amendments.
    fn take_terms(&mut self, event: &MarketEvent) {
        match event {
            MarketEvent::BidPlaced { number, by, bid } => {
                let option = bid.options.first();
                if let Some(market) = option.and_then(|option| self.market_named(&option.market)) {
                    self.bid_placed(*number, by, bid, market);
                }
            }
            MarketEvent::BidAmended { number, version, amendment } => {
                let option = amendment.terms.options.first();
                if let Some(market) = option.and_then(|option| self.market_named(&option.market)) {
                    self.for_bid(*number, |this, place| {
                        this.bid_amended(place, *version, &amendment.terms, market);
                    });
                }
            }
            _ => {}
        }
    }

    fn for_bid(&mut self, number: BidNumber, change: impl FnOnce(&mut Self, u32)) {
        if let Some(place) = self.bids.numbered(number) {
            change(self, place);
        }
    }
}
