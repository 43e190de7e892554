//! The equilibrium prices of the assignment (rule 2).
//!
//! A vector of prices is an equilibrium exactly if no arc gains more surplus than the price rises along it, the
//! outside costing nothing: then no unit prefers another of its options or none, none that is outside would pay, and
//! what is left over is at its reserve. So the smallest vector is the longest distance from the outside, and the
//! largest is minus the longest distance to it.

use std::collections::BinaryHeap;

use proto::market::PriceRule;

use super::{Joint, OUTSIDE, Place};

/// Prices by market, in micro-dollars per hour; none without supply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    /// The smallest equilibrium: highest rejected limits.
    pub smallest: Vec<Option<u64>>,
    /// The largest equilibrium.
    pub largest: Vec<Option<u64>>,
    /// The largest equilibrium that no running limit raises above its own plain limit, or above what it takes to
    /// keep others out: lowest accepted limits.
    pub lowest_accepted: Vec<Option<u64>>,
}

/// Prices by market under one price rule, in micro-dollars per hour; none without supply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// What every winner pays.
    pub paid: Vec<Option<u64>>,
    /// The largest equilibrium.
    pub largest: Vec<Option<u64>>,
}

fn by_market(places: &[Place], prices: &[i64]) -> Vec<Option<u64>> {
    let price = |(place, &price): (&Place, &i64)| (place.supply > 0).then_some(price as u64);
    places.iter().zip(prices).skip(1).map(price).collect()
}

impl Joint {
    /// What winners pay under a price rule, and the largest equilibrium, above which a newcomer is sure to win.
    /// The latter is kept up from one call to the next; the others, where the rule or a running limit asks for them,
    /// look at every arc.
    pub fn published(&mut self, rule: PriceRule) -> Published {
        self.flush();
        let largest = by_market(&self.places, self.ceiling.update(&mut self.arcs, &self.places));
        let paid = match rule {
            PriceRule::HighestRejected => by_market(&self.places, &self.smallest()),
            PriceRule::LowestAccepted if self.plain_limits.is_empty() => largest.clone(),
            PriceRule::LowestAccepted => {
                by_market(&self.places, &self.largest(&self.plain_ceilings(&self.smallest())))
            }
        };
        Published { paid, largest }
    }

    /// All there is to say about prices now. Looks at every arc several times.
    pub fn prices(&mut self) -> Prices {
        self.flush();
        let smallest = self.smallest();
        let largest = self.largest(&[]);
        let lowest_accepted = self.largest(&self.plain_ceilings(&smallest));
        Prices {
            smallest: by_market(&self.places, &smallest),
            largest: by_market(&self.places, &largest),
            lowest_accepted: by_market(&self.places, &lowest_accepted),
        }
    }

    /// By vertex, the least price of an equilibrium.
    pub(super) fn smallest(&self) -> Vec<i64> {
        let mut excess = vec![i64::MIN; self.places.len()];
        let mut frontier = BinaryHeap::from([(0, OUTSIDE)]);
        excess[OUTSIDE as usize] = 0;
        while let Some((here, vertex)) = frontier.pop() {
            if excess[vertex as usize] != here {
                continue;
            }
            let way = here + self.places[vertex as usize].potential.surplus;
            for edge in &self.arcs.out[vertex as usize] {
                let there = way + edge.surplus - self.places[edge.vertex as usize].potential.surplus;
                if there > excess[edge.vertex as usize] && edge.surplus > super::weight::NOTHING {
                    excess[edge.vertex as usize] = there;
                    frontier.push((there, edge.vertex));
                }
            }
        }
        self.places.iter().zip(excess).map(|(place, excess)| place.potential.surplus + excess).collect()
    }

    /// By vertex, the largest price of an equilibrium in which some are not above a ceiling.
    pub(super) fn largest(&self, ceilings: &[(u32, i64)]) -> Vec<i64> {
        let mut excess = vec![i64::MIN; self.places.len()];
        let mut frontier = BinaryHeap::from([(0, OUTSIDE)]);
        excess[OUTSIDE as usize] = 0;
        for &(vertex, ceiling) in ceilings {
            let here = self.places[vertex as usize].potential.surplus - ceiling;
            excess[vertex as usize] = here;
            frontier.push((here, vertex));
        }
        while let Some((here, vertex)) = frontier.pop() {
            if excess[vertex as usize] != here {
                continue;
            }
            let way = here - self.places[vertex as usize].potential.surplus;
            for edge in &self.arcs.into[vertex as usize] {
                let there = way + edge.surplus + self.places[edge.vertex as usize].potential.surplus;
                if there > excess[edge.vertex as usize] && edge.surplus > super::weight::NOTHING {
                    excess[edge.vertex as usize] = there;
                    frontier.push((there, edge.vertex));
                }
            }
        }
        let price = |(place, excess): (&Place, i64)| place.potential.surplus.saturating_sub(excess);
        self.places.iter().zip(excess).map(price).collect()
    }

    /// The markets where winners at a worth above their plain limit could raise the price, with how far they may.
    fn plain_ceilings(&self, smallest: &[i64]) -> Vec<(u32, i64)> {
        let mut ceilings: Vec<(u32, i64)> = Vec::new();
        // Ascending, so that the first of a market is its lowest.
        for &(vertex, plain) in self.plain_limits.keys() {
            if ceilings.last().is_none_or(|&(before, _)| before != vertex) {
                ceilings.push((vertex, plain.max(smallest[vertex as usize])));
            }
        }
        ceilings
    }
}
