//! Other terms for a bid that stands in coupled markets, before or afterwards.

use proto::market::{BidOption, MarketNumber, Terms};

use super::super::Market;
use super::super::bid::{Bid, Choice, Flexible, Lots};
use super::super::bounds::PLACES_PER_BID_MAX;

/// Where a bid's units stand in the queue after an amendment: age and units, oldest first; and whether the new age was
/// taken. `keeps` incumbents stay, and these are the oldest units. Of the others the youngest go if the bid shrinks; if
/// it was raised, those that are left take a new place along with those added.
fn requeued(
    places: &[(u64, u32)],
    keeps: u32,
    quantity: u32,
    is_raised: bool,
    age: u64,
) -> (Vec<(u64, u32)>, bool) {
    let before: u32 = places.iter().map(|&(_, units)| units).sum();
    let stays = if is_raised { keeps.min(quantity) } else { before.min(quantity) };
    let mut left = stays;
    let mut after = Vec::with_capacity(places.len() + 1);
    for &(age, units) in places {
        let units = units.min(left);
        left -= units;
        if units > 0 {
            after.push((age, units));
        }
    }
    let mut added = quantity - stays;
    if added == 0 {
        return (after, false);
    }
    // Too many places: the youngest goes along to the end of the queue.
    if after.len() >= PLACES_PER_BID_MAX
        && let Some((_, units)) = after.pop()
    {
        added += units;
    }
    after.push((age, added));
    (after, true)
}

impl Market {
    /// Options by market number; one whose market is not open is left out, which no checked bid has.
    pub(in super::super) fn choices(&self, options: &[BidOption]) -> Vec<Choice> {
        let choice = |option: &BidOption| {
            let limit = option.limit.micros();
            let running_limit = option.running_limit.map_or(limit, |running| running.micros().max(limit));
            Some(Choice { market: self.market_named(&option.market)?, limit, running_limit })
        };
        options.iter().filter_map(choice).collect()
    }

    /// What a bid begins with: what it says besides its first option, if it says anything.
    pub(in super::super) fn lots_for(&self, options: &[BidOption], minimum: u32) -> Lots {
        let plain = |option: &BidOption| option.running_limit.is_none_or(|running| running <= option.limit);
        if minimum <= 1 && matches!(options, [option] if plain(option)) {
            return Lots::None;
        }
        Lots::Flexible(Box::new(Flexible::new(minimum, self.choices(options))))
    }

    /// Gives a bid other options, another minimum or quantity where its markets clear together, before or afterwards.
    pub(in super::super) fn amend_together(&mut self, place: u32, terms: &Terms, market: MarketNumber) {
        let Some(bid) = self.bids.get(place) else { return };
        let before: Vec<Choice> = bid.options().collect();
        let after = self.choices(&terms.options);
        let live = self.leases.of(bid.leases).filter(|(_, span)| span.stand.is_live());
        let stays = live.filter(|(_, span)| after.iter().any(|option| option.market == span.market));
        let keeps = stays.map(|(_, span)| span.units).sum();
        let is_raised = after.iter().any(|option| {
            let known = before.iter().find(|before| before.market == option.market);
            known.is_none_or(|known| option.limit > known.limit)
        });
        let stood = self.places_of(bid);
        let (places, takes_age) = requeued(&stood, keeps, terms.quantity, is_raised, self.next.age);
        // What changes nothing for the round makes none.
        let is_same = places == stood && before == after && bid.minimum() == terms.min_quantity;
        if is_same && self.stands_coupled(bid) {
            return;
        }
        self.leave_queue(place);
        self.set_flexible(place, self.lots_for(&terms.options, terms.min_quantity));
        self.bids.change(place, |bid| {
            bid.market = market;
            bid.limit = after.first().map_or(0, |option| option.limit);
        });
        if !self.is_coupled(market) {
            // Nothing was held there and no place taken before: all its units are new.
            let units = places.iter().map(|&(_, units)| units).sum();
            let limit = self.bids.get(place).map_or(0, |bid| bid.limit);
            return self.join_queue(place, market, limit, units, 0);
        }
        self.next.age += u64::from(takes_age);
        for (age, units) in places {
            self.stand_at(place, age, units);
        }
    }

    /// Whether an amendment of a bid concerns markets that clear together.
    pub(in super::super) fn is_amended_together(
        &self,
        bid: &Bid,
        terms: &Terms,
        market: MarketNumber,
    ) -> bool {
        let is_plain = matches!(self.lots_for(&terms.options, terms.min_quantity), Lots::None);
        !is_plain || self.stands_coupled(bid) || self.is_coupled(market)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_kept_lost_and_taken_as_ruled() {
        let places = [(3, 2), (7, 4)];
        let cases = [
            // Nothing changes.
            ((4, 6, false), vec![(3, 2), (7, 4)], false),
            // Added units go behind.
            ((4, 8, false), vec![(3, 2), (7, 4), (9, 2)], true),
            // The youngest go first.
            ((4, 3, false), vec![(3, 2), (7, 1)], false),
            ((4, 2, false), vec![(3, 2)], false),
            // Raised: incumbents keep their places, the others take a new one.
            ((3, 6, true), vec![(3, 2), (7, 1), (9, 3)], true),
            ((3, 8, true), vec![(3, 2), (7, 1), (9, 5)], true),
            ((6, 6, true), vec![(3, 2), (7, 4)], false),
            ((0, 5, true), vec![(9, 5)], true),
            ((5, 3, true), vec![(3, 2), (7, 1)], false),
        ];
        for ((keeps, quantity, is_raised), after, takes_age) in cases {
            let found = requeued(&places, keeps, quantity, is_raised, 9);
            assert_eq!(found, (after, takes_age), "{keeps} kept of {quantity}, raised: {is_raised}");
        }
        let many: Vec<(u64, u32)> = (0..PLACES_PER_BID_MAX as u64).map(|age| (age, 1)).collect();
        let (after, _) = requeued(&many, 1, 66, false, 99);
        assert_eq!((after.len(), after.last()), (PLACES_PER_BID_MAX, Some(&(99, 3))));
    }
}
