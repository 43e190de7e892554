//! From limits to levels and back. Levels are the book's coordinates: consecutive numbers in the order of limits.

use proto::Price;
use proto::market::Ladder;

use super::{BookError, LEVELS_MAX, STEPS_MAX};

/// How limits are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grid {
    /// Micro-dollars per hour from level to level, where level `n` is `n` steps and nothing is looked up; else zero.
    step: u64,
    scale: Scale,
}

/// Where limits are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Scale {
    /// Nowhere: level `n` is `n` steps.
    Steps {
        /// Micro-dollars per hour.
        step: u64,
    },
    /// Steps, and between them some limits that lie off the ladder.
    Mixed {
        /// Micro-dollars per hour.
        step: u64,
        /// The limits between the steps, ascending, each with its level.
        between: Vec<(u64, u32)>,
    },
    /// Level `n` is the `n`-th of these limits, ascending: for explicit ladders.
    Listed(Vec<u64>),
}

impl Grid {
    /// The grid for a ladder and the limits that stand or are about to.
    pub(super) fn new(ladder: &Ladder, standing: impl Iterator<Item = u64>) -> Result<Self, BookError> {
        let scale = Scale::new(ladder, standing)?;
        let step = if let Scale::Steps { step } = scale { step } else { 0 };
        Ok(Self { step, scale })
    }

    /// The level of a limit that is on the grid.
    #[inline(always)]
    pub(super) fn level(&self, limit: u64) -> Option<u32> {
        // The default, spelt out so that it is a multiplication and not a division.
        if self.step == 1_000 { within_steps(limit / 1_000, limit % 1_000) } else { self.scale.level(limit) }
    }

    /// The lowest level whose limit is at least `limit`; it may be past the last one.
    pub(super) fn level_at_or_above(&self, limit: u64) -> u32 {
        match &self.scale {
            Scale::Steps { step } => steps_below(*step, limit),
            Scale::Mixed { step, between } => {
                steps_below(*step, limit) + between.partition_point(|&(other, _)| other < limit) as u32
            }
            Scale::Listed(limits) => limits.partition_point(|&listed| listed < limit) as u32,
        }
    }

    /// The limit of a level, in micro-dollars per hour.
    #[inline(always)]
    pub(super) fn limit(&self, level: u32) -> u64 {
        if self.step > 0 { self.step * u64::from(level) } else { self.scale.limit(level) }
    }

    /// The limit of a level, if the grid goes so far.
    pub(super) fn find_limit(&self, level: u32) -> Option<u64> {
        match &self.scale {
            Scale::Listed(limits) => limits.get(level as usize).copied(),
            _ => Some(self.limit(level)),
        }
    }

    /// Bytes reserved.
    pub(super) fn bytes(&self) -> usize {
        match &self.scale {
            Scale::Steps { .. } => 0,
            Scale::Mixed { between, .. } => between.capacity() * size_of::<(u64, u32)>(),
            Scale::Listed(limits) => limits.capacity() * size_of::<u64>(),
        }
    }
}

impl Scale {
    fn new(ladder: &Ladder, standing: impl Iterator<Item = u64>) -> Result<Self, BookError> {
        let mut listed: Vec<u64> = Vec::new();
        match ladder {
            Ladder::Step(step) => {
                let step = step.micros();
                if step == 0 {
                    return Err(BookError::Step);
                }
                let steps = Self::Steps { step };
                listed.extend(standing.filter(|&limit| steps.level(limit).is_none()));
                listed.sort_unstable();
                listed.dedup();
                check_levels(STEPS_MAX as usize + listed.len())?;
                if listed.is_empty() {
                    return Ok(steps);
                }
                let level = |(index, limit): (usize, u64)| (limit, steps_below(step, limit) + index as u32);
                Ok(Self::Mixed { step, between: listed.into_iter().enumerate().map(level).collect() })
            }
            Ladder::Rungs(rungs) => {
                if !rungs.is_sorted_by(|a, b| a < b) {
                    return Err(BookError::Rungs);
                }
                listed.extend(rungs.iter().map(|rung| rung.micros()));
                listed.extend(standing);
                listed.sort_unstable();
                listed.dedup();
                check_levels(listed.len())?;
                Ok(Self::Listed(listed))
            }
        }
    }

    #[cold]
    fn level(&self, limit: u64) -> Option<u32> {
        match self {
            Self::Steps { step } => within_steps(limit / step, limit % step),
            Self::Mixed { step, between } => {
                let index = between.partition_point(|&(other, _)| other < limit);
                match between.get(index) {
                    Some(&(other, level)) if other == limit => Some(level),
                    _ => Some(within_steps(limit / step, limit % step)? + index as u32),
                }
            }
            Self::Listed(limits) => limits.binary_search(&limit).ok().map(|level| level as u32),
        }
    }

    #[cold]
    fn limit(&self, level: u32) -> u64 {
        match self {
            Self::Steps { step } => step * u64::from(level),
            Self::Mixed { step, between } => {
                let index = between.partition_point(|&(_, other)| other < level);
                match between.get(index) {
                    Some(&(limit, other)) if other == level => limit,
                    _ => step * (u64::from(level) - index as u64),
                }
            }
            Self::Listed(limits) => limits[level as usize],
        }
    }
}

fn check_levels(levels: usize) -> Result<(), BookError> {
    if levels > LEVELS_MAX as usize { Err(BookError::Levels { levels }) } else { Ok(()) }
}

/// How many steps, zero included, are below a limit.
fn steps_below(step: u64, limit: u64) -> u32 {
    limit.div_ceil(step).min(u64::from(STEPS_MAX)) as u32
}

#[inline(always)]
fn within_steps(level: u64, rest: u64) -> Option<u32> {
    (rest == 0 && level < u64::from(STEPS_MAX)).then_some(level as u32)
}

/// The least legal limit that is at least `price`, if there is one.
pub fn rung_at_or_above(ladder: &Ladder, price: Price) -> Option<Price> {
    match ladder {
        Ladder::Step(step) => {
            let step = step.micros();
            let rung = price.micros().max(1).checked_next_multiple_of(step)?;
            (rung / step < u64::from(STEPS_MAX)).then(|| Price::from_micros(rung)).flatten()
        }
        Ladder::Rungs(rungs) => rungs.get(rungs.partition_point(|&rung| rung < price)).copied(),
    }
}

/// The least legal limit above `price`, if there is one.
pub fn rung_above(ladder: &Ladder, price: Price) -> Option<Price> {
    rung_at_or_above(ladder, Price::from_micros(price.micros().checked_add(1)?)?)
}

/// Whether `limit` is one of the ladder's.
pub fn is_rung(ladder: &Ladder, limit: Price) -> bool {
    rung_at_or_above(ladder, limit) == Some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn price(micros: u64) -> Price {
        Price::from_micros(micros).unwrap()
    }

    #[test]
    fn rungs_of_a_step_ladder() {
        let ladder = Ladder::default();
        assert_eq!(rung_at_or_above(&ladder, price(0)), Some(price(1_000)));
        assert_eq!(rung_at_or_above(&ladder, price(1_000)), Some(price(1_000)));
        assert_eq!(rung_at_or_above(&ladder, price(1_001)), Some(price(2_000)));
        assert_eq!(rung_above(&ladder, price(1_000)), Some(price(2_000)));
        let highest = price(u64::from(STEPS_MAX - 1) * 1_000);
        assert_eq!(rung_at_or_above(&ladder, highest), Some(highest));
        assert_eq!(rung_above(&ladder, highest), None);
        assert_eq!(rung_above(&ladder, Price::MAX), None);
        assert!(is_rung(&ladder, price(31_000)) && !is_rung(&ladder, price(31_500)));
        assert!(!is_rung(&ladder, price(0)));
    }

    #[test]
    fn rungs_of_an_explicit_ladder() {
        let ladder = Ladder::Rungs(vec![price(10_000), price(30_000)]);
        assert_eq!(rung_at_or_above(&ladder, price(0)), Some(price(10_000)));
        assert_eq!(rung_above(&ladder, price(10_000)), Some(price(30_000)));
        assert_eq!(rung_above(&ladder, price(30_000)), None);
    }

    #[test]
    fn a_grid_lists_what_is_off_the_steps() {
        let steps = Grid::new(&Ladder::default(), [5_000, 7_000].into_iter()).unwrap();
        assert_eq!(steps.step, 1_000);
        let mixed = Grid::new(&Ladder::default(), [5_000, 5_500].into_iter()).unwrap();
        assert_eq!(mixed.level(5_500), Some(6));
        assert_eq!(mixed.level(6_000), Some(7));
        assert_eq!(mixed.limit(6), 5_500);
        assert_eq!(mixed.level(5_501), None);
        assert_eq!(mixed.level_at_or_above(5_501), 7);
        assert_eq!(mixed.level_at_or_above(5_500), 6);
        // A limit above the highest step is between steps too, and every limit finds its way back.
        let far = Grid::new(&Ladder::default(), [1_500, 1_600, 2_500, 1 << 40].into_iter()).unwrap();
        let limits = [0, 1_000, 1_500, 1_600, 2_000, 2_500, 3_000, 262_143_000, 1 << 40];
        let levels: Vec<u32> = limits.iter().map(|&limit| far.level(limit).unwrap()).collect();
        assert_eq!(levels, [0, 1, 2, 3, 4, 5, 6, STEPS_MAX + 2, STEPS_MAX + 3]);
        for (level, limit) in levels.into_iter().zip(limits) {
            assert_eq!((far.limit(level), far.level_at_or_above(limit)), (limit, level));
        }
        assert_eq!(far.level(262_144_000), None);
        assert!(Grid::new(&Ladder::Step(Price::ZERO), std::iter::empty()).is_err());
        assert!(Grid::new(&Ladder::Rungs(vec![price(2), price(1)]), std::iter::empty()).is_err());
    }
}
