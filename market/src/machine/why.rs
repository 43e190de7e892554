//! Why a bid holds what it holds, in numbers: where its next unit stands, and at which limit all its units would win.

use std::cmp::Ordering;

use proto::machine::CommandKey;
use proto::market::{MarketNumber, Prices};
use proto::{BidId, Price, TenantId};

use super::bid::{Bid, Choice};
use super::{Market, Quote, QuoteError};

/// What a bid meets in the market of one of its options, as of the last round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WhyOption {
    /// Where.
    pub market: MarketNumber,
    /// The bid's limit there.
    pub limit: Price,
    /// Units that it has won there.
    pub won: u32,
    /// Units of other bids that are worth more than the limit to them there.
    pub above: u64,
    /// Units of other bids with just that limit that stand before the bid's next unit: incumbents, and older ones.
    pub level: u64,
    /// The market's figures.
    pub prices: Prices,
}

/// Why a bid holds what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// Units won.
    pub won: u32,
    /// What it meets, option by option; nothing where it is an on-demand order.
    pub options: Vec<WhyOption>,
    /// Where it stands and does not win all it wants: the least limit, the same in every option, at which it would now,
    /// however late its units came; none where there are not so many servers.
    pub wins_at: Option<Quote>,
}

/// A place in the order in which units win: worth, whether it is no incumbent, age.
#[derive(Clone, Copy)]
struct Standing {
    limit: u64,
    is_queued: bool,
    age: u64,
}

impl Market {
    /// Why a bid holds what it holds; none where the tenant has no bid of this name that stands or still holds
    /// anything. Looks at every bid of the exchange; for whoever answers questions.
    ///
    /// # Errors
    /// What a quote is refused for ([`QuoteError`]): nothing a bid that stands could be.
    pub fn why(&self, tenant: &TenantId, bid: &BidId) -> Result<Option<Why>, QuoteError> {
        let key = CommandKey::of_tenant(tenant, bid.as_str());
        let place = self.bids.named(key).and_then(|known| known.place);
        let found = place.and_then(|place| Some((place, self.bids.get(place)?)));
        let Some((place, bid)) = found.filter(|(_, bid)| !bid.is_finished) else { return Ok(None) };
        let misses = bid.stands() && !bid.is_order() && bid.live < bid.quantity;
        let wins_at = if misses { self.quote_instead(place)? } else { None };
        Ok(Some(Why { won: bid.live, options: self.meets(place, bid), wins_at }))
    }

    /// What a bid meets in the markets that it names.
    fn meets(&self, place: u32, bid: &Bid) -> Vec<WhyOption> {
        if bid.is_order() {
            return Vec::new();
        }
        let next = self.next_unit(bid);
        let own: Vec<(Choice, Standing)> = bid.options().map(|option| (option, next(&option))).collect();
        let mut ahead = vec![(0_u64, 0_u64); own.len()];
        for (other_place, other) in self.bids.all().filter(|(_, other)| other.stands() && !other.is_order()) {
            if other_place == place {
                continue;
            }
            for option in other.options() {
                let Some(at) = own.iter().position(|(mine, _)| mine.market == option.market) else {
                    continue;
                };
                let (above, level) = self.units_before(other, &option, own[at].1);
                ahead[at] = (ahead[at].0 + above, ahead[at].1 + level);
            }
        }
        let met = own.iter().zip(ahead).map(|(&(option, _), (above, level))| WhyOption {
            market: option.market,
            limit: Price::micros_or_max(option.limit),
            won: self.won_in(bid, option.market),
            above,
            level,
            prices: self.market(option.market).and_then(|record| record.told).unwrap_or_default(),
        });
        met.collect()
    }

    /// Where a bid's first unit that holds nothing stands, or the last one if all hold something.
    fn next_unit(&self, bid: &Bid) -> impl Fn(&Choice) -> Standing + use<> {
        let is_queued = bid.live < bid.quantity;
        let places = self.places_of(bid);
        let mut below = 0_u32;
        let next = places.iter().find(|&&(_, units)| {
            below += units;
            below > bid.live
        });
        let age = next.or(places.last()).map_or(u64::MAX, |&(age, _)| age);
        move |option| {
            let limit = if is_queued { option.limit } else { option.running_limit };
            Standing { limit, is_queued, age }
        }
    }

    fn won_in(&self, bid: &Bid, market: MarketNumber) -> u32 {
        let live = self.leases.of(bid.leases).filter(|(_, span)| span.stand.is_live());
        live.filter(|(_, span)| span.market == market).map(|(_, span)| span.units).sum()
    }

    /// Units of a bid that are worth more than `mine` in an option's market, and those worth as much that stand before
    /// it.
    fn units_before(&self, other: &Bid, option: &Choice, mine: Standing) -> (u64, u64) {
        if option.running_limit < mine.limit {
            return (0, 0);
        }
        let held = self.won_in(other, option.market);
        // Units that hold something elsewhere have better than this.
        let queued = other.quantity.saturating_sub(other.live);
        let (mut above, mut level) = (0, 0);
        let places = self.places_of(other);
        let older = places.iter().take_while(|&&(age, _)| age < mine.age);
        let older: u64 = older.map(|&(_, units)| u64::from(units)).sum();
        match option.running_limit.cmp(&mine.limit) {
            Ordering::Greater => above += u64::from(held),
            Ordering::Equal if mine.is_queued => level += u64::from(held),
            _ => level += older.min(u64::from(held)),
        }
        match option.limit.cmp(&mine.limit) {
            Ordering::Greater => above += u64::from(queued),
            // The oldest units are the ones that hold something.
            Ordering::Equal if mine.is_queued => level += older.saturating_sub(u64::from(other.live)),
            _ => {}
        }
        (above, level)
    }
}
