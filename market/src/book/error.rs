//! What a book refuses to do.

use super::{AGE_MAX, DEMAND_MAX, LEVELS_MAX, LOTS_MAX, UNITS_MAX};

/// Why an operation was not carried out. The book is then as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// No such lot stands.
    #[error("lot {lot} does not stand in this book")]
    UnknownLot {
        /// The number.
        lot: u32,
    },
    /// A newcomer's age is not above all ages before it.
    #[error("age {age} is not a new one: the next newcomer's is at least {least} and at most {AGE_MAX}")]
    Age {
        /// The age.
        age: u64,
        /// The least that is new.
        least: u64,
    },
    /// Two loaded lots have the same age.
    #[error("two lots have the age {age}")]
    AgeTwice {
        /// The age.
        age: u64,
    },
    /// No units, or too many for one lot.
    #[error("a lot has 1 to {UNITS_MAX} units, not {units}")]
    Units {
        /// The number of units.
        units: u32,
    },
    /// More units held than there are.
    #[error("a lot of {units} units cannot hold {held}")]
    Held {
        /// Units held.
        held: u32,
        /// Units in all.
        units: u32,
    },
    /// A plain limit above the one the lot stands at.
    #[error(
        "the plain limit {plain_limit} is above the running limit {limit}, both in micro-dollars per hour"
    )]
    PlainLimit {
        /// The plain limit.
        plain_limit: u64,
        /// The running limit.
        limit: u64,
    },
    /// The book would hold too many lots.
    #[error("a book holds at most {LOTS_MAX} lots")]
    Lots,
    /// The book would hold too many units, or have too many for sale.
    #[error("a book holds and sells at most {DEMAND_MAX} units; this would make it {units}")]
    Demand {
        /// How many it would be.
        units: u64,
    },
    /// Too many different limits.
    #[error("a book holds at most {LEVELS_MAX} different limits; these are {levels}")]
    Levels {
        /// How many it would be.
        levels: usize,
    },
    /// A step ladder without a step.
    #[error("the step of a ladder is above zero")]
    Step,
    /// An explicit ladder out of order.
    #[error("the rungs of a ladder ascend")]
    Rungs,
}
