//! From a bid, its places and its leases to the lots that the joint clearing works with (DESIGN §5, rule 1).
//!
//! Units of a bid are worth the same unless they hold a server: then the running limit counts where they are, and what
//! a move costs is taken off elsewhere. So a place has a lot for its units without servers, and one for the units that
//! hold servers in an option's market, where that makes a difference. Which of a bid's units hold the servers its
//! leases do not say: the oldest do, option by option.

use proto::Price;

use super::super::Market;
use super::super::bid::{Bid, Choice};
use super::super::lease::Stand;
use crate::book::Lot;
use crate::joint::{LotOption, OwnedTerms};

/// Kinds of lots of one place that have numbers of their own: fewer than this.
const CLASSES: u64 = 128;
/// The kind of units without a server, and of those that a server makes no difference to.
const PLAIN: u8 = 0;
/// From here on: units that hold a server in the market of an option, by option.
const HOLDING: u8 = 1;
/// From here on: units that are to leave a server in the market of an option, by option.
const LEAVING: u8 = 33;

/// A lot that a place should have.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) place: Lot,
    pub(super) class: u8,
    pub(super) terms: OwnedTerms,
}

/// What a bid's leases say of one option.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    served: u32,
    waiting: u32,
    /// Under a notice that is taken back if the bid wins again.
    leaving: u32,
}

/// Units of a place that hold no server of their own worth, as they are counted together.
struct Queued {
    place: Lot,
    age: u64,
    /// Incumbents among them, by option in `options`.
    units: u32,
    options: Vec<LotOption>,
    /// Units that are no incumbents.
    left: u32,
}

impl Held {
    /// Takes up to so many units off a count.
    fn take(count: &mut u32, most: u32) -> u32 {
        let taken = (*count).min(most);
        *count -= taken;
        taken
    }
}

impl Market {
    /// What a unit that would have to move is worth in an option's market.
    fn worth_moved(&self, option: &Choice) -> u64 {
        let cost = self.rules.move_cost.map_or(option.limit / 10, Price::micros);
        let reserve = self.market(option.market).map_or(0, |record| record.settings.reserve.micros());
        // A limit below the reserve cannot win, moved or not.
        option.limit.saturating_sub(cost).max(reserve.min(option.limit))
    }

    /// The options of units without a server.
    fn plain_options(options: &[Choice]) -> Vec<LotOption> {
        let plain = |option: &Choice| LotOption {
            market: u32::from(option.market),
            worth: option.limit,
            plain_limit: None,
            kept: 0,
        };
        options.iter().map(plain).collect()
    }

    /// The options of units that hold a server at `home`; of units that leave it, nothing is taken off elsewhere, for
    /// they are interrupted anyway.
    fn options_at(&self, options: &[Choice], home: usize, is_leaving: bool) -> Vec<LotOption> {
        let at = |(place, option): (usize, &Choice)| {
            let market = u32::from(option.market);
            let (worth, plain_limit) = if place == home {
                let (limit, running) = (option.limit, option.running_limit);
                (running, (limit < running).then_some(limit))
            } else if is_leaving {
                (option.limit, None)
            } else {
                (self.worth_moved(option), None)
            };
            LotOption { market, worth, plain_limit, kept: 0 }
        };
        options.iter().enumerate().map(at).collect()
    }

    fn held_by(&self, bid: &Bid, options: &[Choice]) -> Vec<Held> {
        let mut held = vec![Held::default(); options.len()];
        for (_, span) in self.leases.of(bid.leases) {
            let at = options.iter().position(|option| option.market == span.market);
            let Some(held) = at.and_then(|at| held.get_mut(at)) else { continue };
            match span.stand {
                Stand::Served => held.served += span.units,
                Stand::Waiting => held.waiting += span.units,
                Stand::Leaving(reason) if reason.is_withdrawable() => held.leaving += span.units,
                Stand::Leaving(_) => {}
            }
        }
        held
    }

    /// The lots that a bid's units should be in the joint clearing, by place and kind.
    pub(super) fn lots_wanted(&self, bid: &Bid) -> Vec<Wanted> {
        let options: Vec<Choice> = bid.options().collect();
        let mut held = self.held_by(bid, &options);
        let plain = Self::plain_options(&options);
        let holding: Vec<Option<Vec<LotOption>>> = (0..options.len())
            .map(|home| Some(self.options_at(&options, home, false)).filter(|at| *at != plain))
            .collect();
        let mut wanted = Vec::new();
        let mut queued: Vec<Queued> = Vec::new();
        for &lot in bid.lots.as_slice() {
            let Some(place) = self.coupled.place(lot) else { continue };
            let mut left = place.units;
            let (mut plain, mut units) = (plain.clone(), 0);
            for (home, held) in held.iter_mut().enumerate() {
                let served = Held::take(&mut held.served, left);
                left -= served;
                let waiting = Held::take(&mut held.waiting, left);
                left -= waiting;
                let in_plain = match holding.get(home).and_then(Option::as_ref).filter(|_| served > 0) {
                    Some(options) => {
                        let mut options = options.clone();
                        options[home].kept = served;
                        wanted.push(want(lot, place.age, HOLDING + home as u8, served, options));
                        waiting
                    }
                    None => served + waiting,
                };
                plain[home].kept = in_plain;
                units += in_plain;
            }
            queued.push(Queued { place: lot, age: place.age, units, options: plain, left });
        }
        self.seat_leaving(&options, &mut held, &mut queued, &mut wanted);
        for Queued { place, age, units, options, left } in queued {
            if units + left > 0 {
                wanted.push(want(place, age, PLAIN, units + left, options));
            }
        }
        wanted
    }

    /// Units that are to leave a server where it is worth more than the limit count that much there, the most valuable
    /// first; no more of them than the bid has units queued.
    fn seat_leaving(
        &self,
        options: &[Choice],
        held: &mut [Held],
        queued: &mut [Queued],
        wanted: &mut Vec<Wanted>,
    ) {
        let mut homes: Vec<usize> = (0..options.len())
            .filter(|&home| held[home].leaving > 0 && options[home].running_limit > options[home].limit)
            .collect();
        homes.sort_by_key(|&home| std::cmp::Reverse(options[home].running_limit));
        for home in homes {
            for queued in queued.iter_mut() {
                let leaving = Held::take(&mut held[home].leaving, queued.left);
                if leaving > 0 {
                    queued.left -= leaving;
                    let options = self.options_at(options, home, true);
                    wanted.push(want(queued.place, queued.age, LEAVING + home as u8, leaving, options));
                }
            }
        }
    }
}

fn want(place: Lot, age: u64, class: u8, units: u32, options: Vec<LotOption>) -> Wanted {
    let number = age * CLASSES + u64::from(class);
    Wanted { place, class, terms: OwnedTerms { age, number, units, options } }
}
