//! Supply: what sources say they have.

use proto::envelope::RefusalReason;
use proto::machine::{Role, Sender};
use proto::market::{
    LEASES_NAMED_MAX, LeaseNumber, LeaseSpan, MarketEvent, MarketNumber, ReleaseReason, SUPPLY_MAX,
    SupplyOffered,
};
use proto::{SourceId, Timestamp};

use super::Market;
use super::bounds::{SOURCES_MAX, SUPPLY_TOTAL_MAX};
use super::record::{MarketRecord, Source, digest_of_source};
use super::terms::{Checked, refuse};

impl Market {
    pub(super) fn offer(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        offer: &SupplyOffered,
        events: &mut Vec<MarketEvent>,
    ) -> Checked<()> {
        check_source(sender, offer)?;
        let Some(market) = self.market_named(&offer.market) else {
            let problem = "no such market is open in this exchange";
            return refuse(RefusalReason::Unknown, "market", &offer.market, problem);
        };
        let Some(record) = self.market(market) else { return Ok(()) };
        let supply = check_units(record, offer)?;
        let lost = self.check_lost(market, &offer.lost)?;
        let source = Source {
            generation: offer.generation,
            units: offer.units,
            cause: offer.cause,
            gone_at: offer.gone_at,
        };
        if let Some(known) = record.sources.get(&offer.source) {
            let said = known.generation;
            if offer.generation < said {
                let problem = format!("the source has stated generation {said} already");
                return refuse(RefusalReason::Stale, "generation", offer.generation, problem);
            }
            // A lost lease that is not over was not among those that this generation named.
            if offer.generation == said && (*known != source || !lost.is_empty()) {
                let problem = "the source stated this generation with other content";
                return refuse(RefusalReason::Stale, "generation", offer.generation, problem);
            }
        }
        events.push(MarketEvent::SupplyChanged {
            market,
            source: offer.source.clone(),
            generation: offer.generation,
            units: offer.units,
            supply,
            cause: offer.cause,
            gone_at: offer.gone_at,
        });
        self.supply_changed(market, &offer.source, source);
        for (place, leases) in lost {
            let Some(number) = self.bids.get(place).map(|bid| bid.number) else { continue };
            let reason = ReleaseReason::ServerLost;
            events.push(MarketEvent::UnitsReleased { number, market, leases, reason });
            self.units_released(now, place, leases, reason);
        }
        Ok(())
    }

    /// Checks the leases whose servers died; returns those that are not over, as pieces of spans, with their bids.
    fn check_lost(&self, market: MarketNumber, lost: &[LeaseNumber]) -> Checked<Vec<(u32, LeaseSpan)>> {
        if lost.len() > LEASES_NAMED_MAX {
            let problem = format!("a command names at most {LEASES_NAMED_MAX} leases");
            return refuse(RefusalReason::OutOfRange, "lost", lost.len(), problem);
        }
        let mut ascending: Vec<(LeaseNumber, usize)> =
            lost.iter().enumerate().map(|(index, &lease)| (lease, index)).collect();
        ascending.sort_unstable();
        let mut pieces: Vec<(u32, LeaseSpan)> = Vec::new();
        let mut last: Option<(LeaseNumber, u32)> = None;
        for (lease, index) in ascending {
            let at = || format!("lost[{index}]");
            if last.is_some_and(|(before, _)| before == lease) {
                return refuse(RefusalReason::Duplicate, at(), lease, "stands twice");
            }
            if lease == 0 || lease >= self.next.lease {
                return refuse(RefusalReason::Unknown, at(), lease, "no such lease was ever granted");
            }
            let holder = self.leases.holder(lease).and_then(|place| Some((place, self.bids.get(place)?)));
            let span = holder.and_then(|(place, bid)| Some((place, self.leases.find(bid.leases, lease)?)));
            let Some((place, span)) = span else {
                last = Some((lease, u32::MAX));
                continue;
            };
            if self.leases.span(span).market != market {
                return refuse(RefusalReason::Unknown, at(), lease, "the market has no such lease");
            }
            match (pieces.last_mut(), last) {
                (Some((_, piece)), Some((before, at))) if at == span && before + 1 == lease => {
                    piece.units += 1;
                }
                _ => pieces.push((place, LeaseSpan { first: lease, units: 1 })),
            }
            last = Some((lease, span));
        }
        Ok(pieces)
    }

    /// A source has said what it has. Said again, it changes nothing.
    pub(super) fn supply_changed(&mut self, market: MarketNumber, id: &SourceId, source: Source) {
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        let before = record.sources.get(id);
        if before == Some(&source) {
            return;
        }
        let units_before = before.map_or(0, |before| before.units);
        if let Some(before) = before {
            self.entries.remove(digest_of_source(market, id, before));
        }
        self.entries.add(digest_of_source(market, id, &source));
        let supply_before = record.supply;
        let supply = supply_before - units_before + source.units;
        if let Some(gone_at) = source.gone_at.filter(|_| source.units < units_before) {
            record.note_departure(gone_at, units_before - source.units);
        }
        record.sources.insert(id.clone(), source);
        record.supply = supply;
        self.divide_supply(market);
        if supply < supply_before {
            self.shake(market);
        }
    }

    /// Gives a market's servers to those who may have them: leases to all that are not held back, the auction to those that
    /// orders leave.
    pub(super) fn divide_supply(&mut self, market: MarketNumber) {
        let Some(record) = self.markets.get_mut(usize::from(market)) else { return };
        let (usable, auctioned) = (record.usable(), record.auctioned());
        let done = record.book.set_supply(auctioned);
        record.servers.set_supply(&mut self.leases, usable, self.now);
        if let Err(error) = done {
            self.broke("I2", error.to_string());
        }
        // Who was served just now is without a worker from now on.
        self.set_timer(market);
        self.soil(market);
    }
}

/// Who may speak for a source: a hypervisor for itself, our services and operators for all.
fn check_source(sender: &Sender, offer: &SupplyOffered) -> Checked<()> {
    match sender.role {
        Role::Service | Role::Operator => Ok(()),
        Role::Hypervisor if sender.principal.as_str() == offer.source.as_str() => Ok(()),
        Role::Hypervisor => {
            let problem = format!("the hypervisor {} speaks for itself only", sender.principal);
            refuse(RefusalReason::NotAllowed, "source", &offer.source, problem)
        }
        role => {
            let problem = format!("a {} has no servers to offer", role.token());
            refuse(RefusalReason::NotAllowed, "source", &offer.source, problem)
        }
    }
}

/// Checks a number of servers; returns how many all sources have together with it.
fn check_units(record: &MarketRecord, offer: &SupplyOffered) -> Checked<u32> {
    if offer.units > SUPPLY_MAX {
        let problem = format!("a source has at most {SUPPLY_MAX} servers in a market");
        return refuse(RefusalReason::OutOfRange, "units", offer.units, problem);
    }
    let known = record.sources.get(&offer.source);
    if known.is_none() && record.sources.len() >= SOURCES_MAX {
        let problem = format!("a market has at most {SOURCES_MAX} sources");
        return refuse(RefusalReason::LimitReached, "source", &offer.source, problem);
    }
    let before = known.map_or(0, |known| known.units);
    let supply = u64::from(record.supply - before) + u64::from(offer.units);
    if supply > SUPPLY_TOTAL_MAX {
        let problem = format!("all sources of a market together have at most {SUPPLY_TOTAL_MAX} servers");
        return refuse(RefusalReason::LimitReached, "units", offer.units, problem);
    }
    Ok(supply as u32)
}
