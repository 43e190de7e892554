//! Rules 1 and 2 for several markets, spelt out the slow way: units one by one, any assignment at first, and as long
//! as some ring of moves gains, carry it out. An assignment without such a ring is the best there is. Prices are
//! read from their definition by letting them rise, or fall, until nobody prefers anything else.

// Each of the tests that share this file uses a part of it.
#![allow(dead_code)]

use std::ops::{Add, Sub};

/// Surplus, incumbents kept, units sold, −Σ arrival, −Σ index, Σ number × (index + 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Worth(pub(crate) [i128; 6]);

impl Add for Worth {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] + other.0[at]))
    }
}

impl Sub for Worth {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] - other.0[at]))
    }
}

/// A lot's option: market, what a unit is worth, plain limit, incumbents.
pub(crate) type Choice = (usize, u64, u64, u32);

/// A lot, as the rules see it.
#[derive(Clone, Debug)]
pub(crate) struct Offer {
    pub(crate) age: u64,
    pub(crate) number: u64,
    pub(crate) units: u32,
    pub(crate) options: Vec<Choice>,
}

/// A market: supply and reserve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) supply: u32,
    pub(crate) reserve: u64,
}

#[derive(Clone, Debug)]
struct Unit {
    offer: usize,
    incumbent: Option<usize>,
    at: Option<usize>,
}

#[derive(Clone, Debug)]
pub(crate) struct Assignment<'a> {
    places: &'a [Place],
    offers: &'a [Offer],
    units: Vec<Unit>,
}

/// Who moves in a step of a ring: a unit, or a free server.
#[derive(Clone, Copy, Debug)]
struct Step {
    gain: Worth,
    unit: Option<usize>,
}

impl<'a> Assignment<'a> {
    pub(crate) fn best(places: &'a [Place], offers: &'a [Offer]) -> Self {
        let mut units = Vec::new();
        for (offer, terms) in offers.iter().enumerate() {
            let incumbents = terms.options.iter().flat_map(|option| vec![Some(option.0); option.3 as usize]);
            let all = incumbents.chain(std::iter::repeat(None)).take(terms.units as usize);
            units.extend(all.map(|incumbent| Unit { offer, incumbent, at: None }));
        }
        let mut assignment = Self { places, offers, units };
        while assignment.improve() {}
        assignment
    }

    fn free(&self, market: usize) -> u32 {
        let taken = self.units.iter().filter(|unit| unit.at == Some(market)).count() as u32;
        self.places[market].supply - taken
    }

    /// What a unit is worth in a market; none if that is none of its options.
    fn worth(&self, unit: &Unit, market: Option<usize>) -> Option<Worth> {
        let Some(market) = market else { return Some(Worth::default()) };
        let offer = &self.offers[unit.offer];
        let index = offer.options.iter().position(|option| option.0 == market)?;
        let surplus = i128::from(offer.options[index].1) - i128::from(self.places[market].reserve);
        let kept = i128::from(unit.incumbent == Some(market));
        let cross = i128::from(offer.number) * (index as i128 + 1);
        Some(Worth([surplus, kept, 1, -i128::from(offer.age), -(index as i128), cross]))
    }

    fn step(&self, from: Option<usize>, to: Option<usize>) -> Option<Step> {
        let mut best: Option<Step> = None;
        let mut offer = |gain: Worth, unit| {
            if best.is_none_or(|best| gain > best.gain) {
                best = Some(Step { gain, unit });
            }
        };
        for (number, unit) in self.units.iter().enumerate().filter(|(_, unit)| unit.at == from) {
            if let (Some(there), Some(here)) = (self.worth(unit, to), self.worth(unit, from)) {
                offer(there - here, Some(number));
            }
        }
        if from.is_none() || (to.is_none() && from.is_some_and(|market| self.free(market) > 0)) {
            offer(Worth::default(), None);
        }
        best
    }

    /// Finds a ring of moves that gains, if there is one, and carries it out.
    fn improve(&mut self) -> bool {
        let vertices: Vec<Option<usize>> =
            std::iter::once(None).chain((0..self.places.len()).map(Some)).collect();
        let count = vertices.len();
        let steps: Vec<Vec<Option<Step>>> = vertices
            .iter()
            .map(|&from| {
                let step = |&to: &Option<usize>| if from == to { None } else { self.step(from, to) };
                vertices.iter().map(step).collect()
            })
            .collect();
        let mut length = vec![Worth::default(); count];
        let mut before: Vec<Option<usize>> = vec![None; count];
        for round in 0..=count {
            let mut changed = None;
            for from in 0..count {
                for to in 0..count {
                    if let Some(step) = steps[from][to]
                        && length[from] + step.gain > length[to]
                    {
                        length[to] = length[from] + step.gain;
                        before[to] = Some(from);
                        changed = Some(to);
                    }
                }
            }
            let Some(mut at) = changed else { return false };
            if round == count {
                for _ in 0..count {
                    at = before[at].unwrap();
                }
                let start = at;
                loop {
                    let from = before[at].unwrap();
                    if let Some(unit) = steps[from][at].unwrap().unit {
                        self.units[unit].at = vertices[at];
                    }
                    at = from;
                    if at == start {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// What all of it is worth.
    pub(crate) fn total(&self) -> Worth {
        self.units.iter().filter_map(|unit| self.worth(unit, unit.at)).fold(Worth::default(), Add::add)
    }

    /// Units of an offer in a market.
    pub(crate) fn won(&self, offer: usize, market: usize) -> u32 {
        self.units.iter().filter(|unit| unit.offer == offer && unit.at == Some(market)).count() as u32
    }

    /// What a unit may not prefer: (from, to, by how much the price must rise at least).
    fn demands(&self) -> Vec<(Option<usize>, Option<usize>, i128)> {
        let mut demands = Vec::new();
        for unit in &self.units {
            let options = &self.offers[unit.offer].options;
            let limit = |market: Option<usize>| {
                let there = options.iter().find(|option| Some(option.0) == market);
                there.map_or(0, |option| i128::from(option.1))
            };
            for to in options.iter().map(|option| Some(option.0)).chain([None]) {
                demands.push((unit.at, to, limit(to) - limit(unit.at)));
            }
        }
        demands
    }

    /// The smallest equilibrium prices, and the largest that are not above the ceilings.
    pub(crate) fn prices(&self, ceilings: &[i128]) -> (Vec<i128>, Vec<i128>) {
        let demands = self.demands();
        let is_open = |market: usize| self.places[market].supply > 0;
        let mut low: Vec<i128> = self.places.iter().map(|place| i128::from(place.reserve)).collect();
        let mut high = ceilings.to_vec();
        for (market, high) in high.iter_mut().enumerate() {
            if self.free(market) > 0 {
                *high = (*high).min(low[market]);
            }
        }
        let price = |prices: &[i128], market: Option<usize>| market.map_or(0, |market| prices[market]);
        loop {
            let (low_before, high_before) = (low.clone(), high.clone());
            for &(from, to, rise) in &demands {
                if let Some(to) = to {
                    low[to] = low[to].max(price(&low, from) + rise);
                }
                if let Some(from) = from
                    && to.is_none_or(is_open)
                {
                    high[from] = high[from].min(price(&high, to) - rise);
                }
            }
            if low == low_before && high == high_before {
                return (low, high);
            }
        }
    }

    /// The prices as ruled under `lowest-accepted`.
    pub(crate) fn accepted(&self) -> Vec<i128> {
        let (low, _) = self.prices(&vec![i128::MAX / 2; self.places.len()]);
        let ceiling = |market: usize| {
            let winners = self.units.iter().filter(|unit| unit.at == Some(market));
            let plain = |unit: &Unit| {
                let options = &self.offers[unit.offer].options;
                options.iter().find(|option| option.0 == market).map(|option| i128::from(option.2))
            };
            winners.filter_map(plain).min().unwrap_or(0).max(low[market])
        };
        let ceilings: Vec<i128> = (0..self.places.len()).map(ceiling).collect();
        self.prices(&ceilings).1
    }

    /// Whether these prices are an equilibrium, by its definition.
    pub(crate) fn is_equilibrium(&self, prices: &[i128]) -> bool {
        let value = |unit: &Unit, market: Option<usize>| {
            market.map_or(0, |market| {
                let options = &self.offers[unit.offer].options;
                let limit = options.iter().find(|option| option.0 == market).map_or(0, |option| option.1);
                i128::from(limit) - prices[market]
            })
        };
        (0..self.places.len()).all(|market| {
            let reserve = i128::from(self.places[market].reserve);
            prices[market] >= reserve && (self.free(market) == 0 || prices[market] == reserve)
        }) && self.units.iter().all(|unit| {
            let options = &self.offers[unit.offer].options;
            value(unit, unit.at) >= 0
                && options.iter().all(|option| value(unit, Some(option.0)) <= value(unit, unit.at))
        })
    }
}
