//! The joint clearing against the rules spelt out slowly: random markets and bids, sequences of events, ties.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "joint/oracle.rs"]
mod oracle;

use std::collections::BTreeMap;

use market::joint::{Joint, Lot, LotOption, LotTerms};
use oracle::{Assignment, Offer, Place, Worth};
use proptest::prelude::*;
use proto::market::PriceRule;

/// A random option: market, limit, how much more a running unit is worth.
type RandomOption = (u32, u64, u64);

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    Insert { units: u32, kept: u32, options: Vec<RandomOption> },
    Amend { which: usize, units: u32, kept: u32, options: Vec<RandomOption> },
    Remove { which: usize },
    Supply { market: u32, supply: u32 },
    Reserve { market: u32, reserve: u64 },
    Clear,
}

/// The engine beside what it should hold.
struct Pair {
    joint: Joint,
    places: Vec<Place>,
    offers: BTreeMap<u64, (Lot, Offer)>,
    next: u64,
}

fn options_of(offer: &Offer) -> Vec<LotOption> {
    let option = |&(market, worth, plain, kept): &oracle::Choice| LotOption {
        market: market as u32,
        worth,
        plain_limit: (plain < worth).then_some(plain),
        kept,
    };
    offer.options.iter().map(option).collect()
}

fn with_terms<T>(offer: &Offer, run: impl FnOnce(&LotTerms<'_>) -> T) -> T {
    let options = options_of(offer);
    run(&LotTerms { age: offer.age, number: offer.number, units: offer.units, options: &options })
}

impl Pair {
    fn new(places: &[(u32, u64)]) -> Self {
        let mut joint = Joint::new();
        let places: Vec<Place> = places.iter().map(|&(supply, reserve)| Place { supply, reserve }).collect();
        for place in &places {
            joint.add_market(place.reserve, place.supply).unwrap();
        }
        Self { joint, places, offers: BTreeMap::new(), next: 0 }
    }

    fn offer(&mut self, units: u32, kept: u32, options: &[RandomOption]) -> Offer {
        let number = self.next;
        self.next += 1;
        let mut choices: Vec<oracle::Choice> = Vec::new();
        let mut kept = kept.min(units);
        for &(market, limit, more) in options {
            let market = market as usize % self.places.len();
            if choices.iter().all(|choice| choice.0 != market) {
                choices.push((market, limit + more, limit, kept / 2));
                kept -= kept / 2;
            }
        }
        // Two lots of a bid share an age.
        Offer { age: number / 2, number, units, options: choices }
    }

    fn which(&self, which: usize) -> Option<u64> {
        let count = self.offers.len();
        (count > 0).then(|| *self.offers.keys().nth(which % count).unwrap())
    }

    fn play(&mut self, event: &Event) {
        match event {
            Event::Insert { units, kept, options } => {
                let offer = self.offer(*units, *kept, options);
                let lot = with_terms(&offer, |terms| self.joint.insert(terms)).unwrap();
                self.offers.insert(offer.number, (lot, offer));
            }
            Event::Amend { which, units, kept, options } => {
                let Some(number) = self.which(*which) else { return };
                let offer = self.offer(*units, *kept, options);
                let (lot, _) = self.offers.remove(&number).unwrap();
                with_terms(&offer, |terms| self.joint.amend(lot, terms)).unwrap();
                self.offers.insert(offer.number, (lot, offer));
            }
            Event::Remove { which } => {
                let Some(number) = self.which(*which) else { return };
                let (lot, _) = self.offers.remove(&number).unwrap();
                self.joint.remove(lot).unwrap();
            }
            Event::Supply { market, supply } => {
                let market = *market as usize % self.places.len();
                self.places[market].supply = *supply;
                self.joint.set_supply(market as u32, *supply).unwrap();
            }
            Event::Reserve { market, reserve } => {
                let market = *market as usize % self.places.len();
                self.places[market].reserve = *reserve;
                self.joint.set_reserve(market as u32, *reserve).unwrap();
            }
            Event::Clear => {
                let before = self.won();
                let mut expected = Vec::new();
                for (lot, offer) in self.offers.values_mut() {
                    for option in &mut offer.options {
                        let won = self.joint.won(*lot, option.0 as u32);
                        if option.3 != won {
                            expected.push((*lot, option.0 as u32, option.3, won));
                        }
                        option.3 = won;
                    }
                }
                let told = self.joint.clear().iter();
                let mut told: Vec<_> =
                    told.map(|change| (change.lot, change.market, change.before, change.after)).collect();
                told.sort_unstable();
                expected.sort_unstable();
                assert_eq!(told, expected, "the changes told");
                assert!(self.joint.clear().is_empty(), "clearing twice changes nothing");
                assert_eq!(self.won(), before, "clearing moves nobody");
            }
        }
    }

    fn won(&self) -> Vec<Vec<(u32, u32)>> {
        self.offers.values().map(|&(lot, _)| self.joint.won_of(lot).collect()).collect()
    }

    /// The same content, brought in at once in another order.
    fn loaded_anew(&self, backwards: bool) -> Pair {
        let places: Vec<_> = self.places.iter().map(|place| (place.supply, place.reserve)).collect();
        let mut pair = Pair::new(&places);
        let mut offers: Vec<Offer> = self.offers.values().map(|(_, offer)| offer.clone()).collect();
        if backwards {
            offers.reverse();
        }
        for offer in offers {
            let lot = with_terms(&offer, |terms| pair.joint.insert(terms)).unwrap();
            pair.offers.insert(offer.number, (lot, offer));
        }
        pair
    }

    fn check(&mut self) {
        self.joint.check().unwrap();
        let offers: Vec<Offer> = self.offers.values().map(|(_, offer)| offer.clone()).collect();
        let best = Assignment::best(&self.places, &offers);
        // Worth of the engine's own assignment, reckoned from its units.
        let mut worth = Worth::default();
        for (lot, offer) in self.offers.values() {
            for (index, &(market, limit, _, kept)) in offer.options.iter().enumerate() {
                let units = i128::from(self.joint.won(*lot, market as u32));
                let gain = i128::from(limit) - i128::from(self.places[market].reserve);
                let (age, number) = (i128::from(offer.age), i128::from(offer.number));
                let index = index as i128;
                let each = [gain, 0, 1, -age, -index, number * (index + 1)];
                let kept = i128::from(kept).min(units);
                worth = worth + Worth(each.map(|each| each * units)) + Worth([0, kept, 0, 0, 0, 0]);
            }
        }
        assert_eq!(worth, best.total(), "as good as the best");
        assert_eq!(worth.0[0], self.joint.surplus());
        for backwards in [false, true] {
            let mut scratch = self.loaded_anew(backwards);
            assert_eq!(scratch.won(), self.won(), "incremental is from scratch to the last tie");
            assert_eq!(scratch.joint.prices(), self.joint.prices());
        }
        Self::check_prices(&mut self.joint, &self.places, &best);
    }

    fn check_prices(joint: &mut Joint, places: &[Place], best: &Assignment<'_>) {
        let prices = joint.prices();
        for (rule, paid) in [
            (PriceRule::LowestAccepted, &prices.lowest_accepted),
            (PriceRule::HighestRejected, &prices.smallest),
        ] {
            let published = joint.published(rule);
            assert_eq!((&published.paid, &published.largest), (paid, &prices.largest));
        }
        let (low, high) = best.prices(&vec![i128::MAX / 2; places.len()]);
        let accepted = best.accepted();
        for (market, place) in places.iter().enumerate() {
            let price = |price: i128| (place.supply > 0).then_some(price as u64);
            assert_eq!(prices.smallest[market], price(low[market]), "smallest, market {market}");
            assert_eq!(prices.largest[market], price(high[market]), "largest, market {market}");
            assert_eq!(prices.lowest_accepted[market], price(accepted[market]), "accepted, market {market}");
        }
    }
}

impl Pair {
    /// A quote is the least limit that wins, and leaves everything as it was.
    fn check_quote(&mut self, markets: &[u32], units: u32) {
        let before = self.won();
        let quote = self.joint.quote(markets, units).unwrap();
        self.joint.check().unwrap();
        assert_eq!(self.won(), before, "a quote moves nobody");
        let mut wins = |limit: u64| {
            let option = |&market: &u32| LotOption { market, worth: limit, plain_limit: None, kept: 0 };
            let options: Vec<LotOption> = markets.iter().map(option).collect();
            let terms = LotTerms { age: 1 << 40, number: 1 << 40, units, options: &options };
            let lot = self.joint.insert(&terms).unwrap();
            let won: u32 = self.joint.won_of(lot).map(|(_, units)| units).sum();
            self.joint.remove(lot).unwrap();
            won == units
        };
        match quote {
            Some(limit) => {
                assert!(wins(limit), "{units} units win at the quoted {limit}");
                assert!(limit == 0 || !wins(limit - 1), "{units} units win below the quoted {limit}");
            }
            None => assert!(!wins(1_000_000), "there are not {units} servers"),
        }
    }
}

fn options(markets: u32) -> impl Strategy<Value = Vec<RandomOption>> {
    let limit = prop_oneof![4 => 998_u64..1_004, 1 => 1_000_u64..1_100, 1 => 0_u64..3];
    let more = prop_oneof![3 => Just(0_u64), 1 => 1_u64..6];
    prop::collection::vec((0..markets, limit, more), 1..5)
}

fn event(markets: u32) -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_u32..5, 0_u32..4, options(markets))
            .prop_map(|(units, kept, options)| Event::Insert { units, kept, options }),
        2 => (any::<usize>(), 1_u32..5, 0_u32..4, options(markets))
            .prop_map(|(which, units, kept, options)| Event::Amend { which, units, kept, options }),
        2 => any::<usize>().prop_map(|which| Event::Remove { which }),
        2 => (0..markets, 0_u32..7).prop_map(|(market, supply)| Event::Supply { market, supply }),
        1 => (0..markets, 998_u64..1_003).prop_map(|(market, reserve)| Event::Reserve { market, reserve }),
        3 => Just(Event::Clear),
    ]
}

fn story() -> impl Strategy<Value = (Vec<(u32, u64)>, Vec<Event>)> {
    (1_u32..=12).prop_flat_map(|markets| {
        let place = (0_u32..6, prop_oneof![Just(1_000_u64), 998_u64..1_003]);
        (prop::collection::vec(place, markets as usize), prop::collection::vec(event(markets), 1..24))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn after_every_event_the_assignment_is_the_best_and_the_prices_are_as_ruled((places, events) in story()) {
        let mut pair = Pair::new(&places);
        for event in &events {
            pair.play(event);
            pair.check();
        }
    }

    #[test]
    fn quotes((places, events) in story(), markets in prop::collection::btree_set(0_u32..12, 1..4), units in 1_u32..6) {
        let mut pair = Pair::new(&places);
        for event in &events {
            pair.play(event);
        }
        let count = places.len() as u32;
        let markets: Vec<u32> = markets.into_iter().filter(|&market| market < count).collect();
        if !markets.is_empty() {
            pair.check_quote(&markets, units);
        }
    }

    #[test]
    fn the_oracle_itself_is_right(
        places in prop::collection::vec((0_u32..3, 0_u64..3), 1..3),
        lots in prop::collection::vec((1_u32..3, prop::collection::vec((0_u32..3, 0_u64..6, Just(0_u64)), 1..3)), 1..4),
    ) {
        let mut pair = Pair::new(&places);
        for (units, options) in &lots {
            pair.play(&Event::Insert { units: *units, kept: 0, options: options.clone() });
        }
        let offers: Vec<Offer> = pair.offers.values().map(|(_, offer)| offer.clone()).collect();
        let best = Assignment::best(&pair.places, &offers);
        // Every assignment there is.
        let units: Vec<&Offer> = offers.iter().flat_map(|offer| vec![offer; offer.units as usize]).collect();
        let mut most = i128::MIN;
        every(&units, &pair.places, &mut pair.places.iter().map(|place| place.supply).collect(), 0, &mut most);
        prop_assert_eq!(best.total().0[0], most);
        // Every vector of prices there could be.
        let prices: Vec<Vec<i128>> = match pair.places.len() {
            1 => (0..8).map(|a| vec![a]).collect(),
            _ => (0..8).flat_map(|a| (0..8).map(move |b| vec![a, b])).collect(),
        };
        let open = |market: &usize| pair.places[*market].supply > 0;
        let closed: Vec<usize> = (0..pair.places.len()).filter(|market| !open(market)).collect();
        let equilibria: Vec<&Vec<i128>> =
            prices.iter().filter(|prices| closed.is_empty() && best.is_equilibrium(prices)).collect();
        let (low, high) = best.prices(&vec![i128::MAX / 2; pair.places.len()]);
        if closed.is_empty() {
            for market in 0..pair.places.len() {
                prop_assert_eq!(equilibria.iter().map(|prices| prices[market]).min(), Some(low[market]));
                prop_assert_eq!(equilibria.iter().map(|prices| prices[market]).max(), Some(high[market]));
            }
            prop_assert!(equilibria.contains(&&low) && equilibria.contains(&&high));
        }
    }
}

/// The most surplus any assignment has.
fn every(units: &[&Offer], places: &[Place], left: &mut Vec<u32>, surplus: i128, most: &mut i128) {
    let Some((unit, rest)) = units.split_first() else {
        *most = surplus.max(*most);
        return;
    };
    every(rest, places, left, surplus, most);
    for &(market, limit, _, _) in &unit.options {
        if left[market] > 0 {
            left[market] -= 1;
            let gain = i128::from(limit) - i128::from(places[market].reserve);
            every(rest, places, left, surplus + gain, most);
            left[market] += 1;
        }
    }
}
