//! Gangs (rule 4): bids whose units are worth nothing if fewer than a minimum of them win.

use std::cmp::Reverse;

use super::{Joint, JointError, Lot, LotOption, LotTerms};

pub use proto::market::GANG_PASSES_MAX;

/// A lot's terms with its options.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OwnedTerms {
    /// As in [`LotTerms`].
    pub age: u64,
    /// As in [`LotTerms`].
    pub number: u64,
    /// As in [`LotTerms`].
    pub units: u32,
    /// As in [`LotTerms`].
    pub options: Vec<LotOption>,
}

impl OwnedTerms {
    /// The same, borrowed.
    pub fn terms(&self) -> LotTerms<'_> {
        LotTerms { age: self.age, number: self.number, units: self.units, options: &self.options }
    }
}

/// A gang.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gang {
    /// Arrival order: smaller is older.
    pub age: u64,
    /// The least that is worth anything, in units.
    pub minimum: u32,
    /// The markets of its options with the plain limit there, in micro-dollars per hour.
    pub limits: Vec<(u32, u64)>,
    /// Its lots. They are not in the joint clearing yet.
    pub lots: Vec<OwnedTerms>,
}

/// What became of a gang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It takes part in the clearing under these handles, and wins its minimum or nothing.
    Cleared(Vec<Lot>),
    /// It keeps the servers its incumbents have, which are taken out of the supply, and takes no part.
    Kept,
    /// It is left out, because this many units were missing.
    LeftOut {
        /// How many units it missed its minimum by.
        short_by: u32,
    },
}

/// A clearing with gangs, while it is made.
struct Passes<'a> {
    joint: &'a mut Joint,
    gangs: &'a [Gang],
    fates: Vec<Fate>,
    passes: u32,
}

/// Brings gangs into a joint clearing that holds all other lots, as rule 4 says. The servers of gangs that are kept
/// are afterwards missing from the supply. Returns what became of each, and how many clearings it took.
///
/// # Errors
/// Terms that cannot be.
pub fn settle(joint: &mut Joint, gangs: &[Gang], passes_max: u32) -> Result<(Vec<Fate>, u32), JointError> {
    let mut fates = Vec::with_capacity(gangs.len());
    for gang in gangs {
        let supply: u64 = gang.limits.iter().map(|&(market, _)| u64::from(joint.supply(market))).sum();
        let short_by = gang.minimum.saturating_sub(supply.min(u64::from(u32::MAX)) as u32);
        fates.push(if short_by > 0 { Fate::LeftOut { short_by } } else { Fate::Cleared(Vec::new()) });
    }
    let hopeless: Vec<bool> = fates.iter().map(|fate| matches!(fate, Fate::LeftOut { .. })).collect();
    let mut passes = Passes { joint, gangs, fates, passes: 1 };
    for (gang, _) in hopeless.iter().enumerate().filter(|&(_, &hopeless)| !hopeless) {
        passes.bring_in(gang)?;
    }
    passes.drop_the_short(passes_max)?;
    passes.offer_back(&hopeless, passes_max)?;
    Ok((passes.fates, passes.passes))
}

impl Passes<'_> {
    fn bring_in(&mut self, gang: usize) -> Result<(), JointError> {
        let terms = &self.gangs[gang].lots;
        let lots: Result<Vec<Lot>, JointError> =
            terms.iter().map(|terms| self.joint.insert(&terms.terms())).collect();
        self.fates[gang] = Fate::Cleared(lots?);
        Ok(())
    }

    fn take_out(&mut self, gang: usize, fate: Fate) -> Result<(), JointError> {
        if let Fate::Cleared(lots) = std::mem::replace(&mut self.fates[gang], fate) {
            for lot in lots {
                self.joint.remove(lot)?;
            }
        }
        Ok(())
    }

    /// Units that a gang wins, if it takes part.
    fn won(&self, gang: usize) -> Option<u32> {
        let Fate::Cleared(lots) = &self.fates[gang] else { return None };
        Some(lots.iter().flat_map(|&lot| self.joint.won_of(lot)).map(|(_, units)| units).sum())
    }

    /// The order in which gangs are left out: the least valuable first, then queued before incumbent, younger, larger
    /// number.
    fn rank(&self, gang: usize) -> (i64, bool, Reverse<u64>, Reverse<usize>) {
        let terms = &self.gangs[gang];
        let gain = |&(market, limit): &(u32, u64)| limit as i64 - self.joint.reserve(market) as i64;
        let best = terms.limits.iter().map(gain).max().unwrap_or_default();
        let is_incumbent = terms.lots.iter().flat_map(|lot| &lot.options).any(|option| option.kept > 0);
        (best, is_incumbent, Reverse(terms.age), Reverse(gang))
    }

    fn short(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        (0..self.gangs.len()).filter_map(|gang| {
            let won = self.won(gang)?;
            (won > 0 && won < self.gangs[gang].minimum).then(|| (gang, self.gangs[gang].minimum - won))
        })
    }

    /// Leaves out, or keeps beside the clearing, gangs that are short, until none is.
    fn drop_the_short(&mut self, passes_max: u32) -> Result<(), JointError> {
        // Each turn takes at least one gang out, and none comes back here.
        loop {
            let Some((gang, short_by)) = self.short().min_by_key(|&(gang, _)| self.rank(gang)) else {
                return Ok(());
            };
            if self.passes >= passes_max {
                let all: Vec<(usize, u32)> = self.short().collect();
                for (gang, short_by) in all {
                    self.take_out(gang, Fate::LeftOut { short_by })?;
                }
                continue;
            }
            self.take_out(gang, Fate::LeftOut { short_by })?;
            self.passes += 1;
            if self.keep_beside(gang)? {
                self.fates[gang] = Fate::Kept;
            }
        }
    }

    /// Whether a gang that was just taken out holds so many servers, and is worth so much there, that it keeps them.
    /// Then they are out of the supply.
    fn keep_beside(&mut self, gang: usize) -> Result<bool, JointError> {
        let options: Vec<LotOption> =
            self.gangs[gang].lots.iter().flat_map(|lot| lot.options.iter().copied()).collect();
        let held: u64 = options.iter().map(|option| u64::from(option.kept)).sum();
        if held < u64::from(self.gangs[gang].minimum) {
            return Ok(false);
        }
        let without = self.joint.surplus();
        let mut beside = 0_i128;
        let mut fits = true;
        let mut before = Vec::new();
        for option in options.iter().filter(|option| option.kept > 0) {
            let (supply, reserve) = (self.joint.supply(option.market), self.joint.reserve(option.market));
            if option.worth < reserve || option.kept > supply {
                fits = false;
                break;
            }
            beside += i128::from(option.kept) * i128::from(option.worth - reserve);
            before.push((option.market, option.kept));
            self.joint.set_supply(option.market, supply - option.kept)?;
        }
        if fits {
            self.passes += 1;
            // At equal surplus nobody is interrupted who need not be.
            if self.joint.surplus() + beside >= without {
                return Ok(true);
            }
        }
        for (market, kept) in before {
            self.joint.set_supply(market, self.joint.supply(market) + kept)?;
        }
        Ok(false)
    }

    /// Offers each gang that was left out once more, most valuable first, and lets it in where every gang stays whole.
    fn offer_back(&mut self, hopeless: &[bool], passes_max: u32) -> Result<(), JointError> {
        let mut left_out: Vec<usize> = (0..self.gangs.len())
            .filter(|&gang| !hopeless[gang] && matches!(self.fates[gang], Fate::LeftOut { .. }))
            .collect();
        left_out.sort_unstable_by_key(|&gang| Reverse(self.rank(gang)));
        for gang in left_out {
            if self.passes >= passes_max {
                break;
            }
            let whole: Vec<usize> = (0..self.gangs.len())
                .filter(|&other| self.won(other).is_some_and(|won| won > 0))
                .chain([gang])
                .collect();
            let fate = self.fates[gang].clone();
            self.bring_in(gang)?;
            self.passes += 1;
            let stays_whole = |&other: &usize| self.won(other) >= Some(self.gangs[other].minimum);
            if !whole.iter().all(stays_whole) {
                self.take_out(gang, fate)?;
            }
        }
        Ok(())
    }
}
