//! What the joint clearing refuses.

use super::{AGE_MAX, Joint, LotTerms, NUMBER_MAX, OPTIONS_MAX, SUPPLY_MAX, UNITS_MAX, WORTH_MAX};

/// Why an operation was not carried out. Everything is then as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JointError {
    /// No such lot stands.
    #[error("lot {lot} does not stand")]
    UnknownLot {
        /// The number.
        lot: u32,
    },
    /// No such market.
    #[error("there is no market {market}")]
    UnknownMarket {
        /// The number.
        market: u32,
    },
    /// A market twice among a lot's options.
    #[error("market {market} stands twice among the options")]
    MarketTwice {
        /// The number.
        market: u32,
    },
    /// No options, or too many.
    #[error("a lot has 1 to {OPTIONS_MAX} options, not {options}")]
    Options {
        /// How many.
        options: usize,
    },
    /// No units, or too many.
    #[error("a lot has 1 to {UNITS_MAX} units, not {units}")]
    Units {
        /// How many.
        units: u32,
    },
    /// More incumbents than units.
    #[error("a lot of {units} units cannot have {kept} incumbents")]
    Kept {
        /// How many incumbents.
        kept: u64,
        /// How many units.
        units: u32,
    },
    /// An age or a number past its bound.
    #[error(
        "an age is at most {AGE_MAX} and a lot's number at most {NUMBER_MAX}; these are {age} and {number}"
    )]
    Age {
        /// The age.
        age: u64,
        /// The number.
        number: u64,
    },
    /// A worth or a reserve past its bound.
    #[error("a worth is at most {WORTH_MAX} micro-dollars per hour, not {worth}")]
    Worth {
        /// The amount, in micro-dollars per hour.
        worth: u64,
    },
    /// A plain limit above what the unit is worth.
    #[error("the plain limit {plain_limit} is above the worth {worth}, both in micro-dollars per hour")]
    PlainLimit {
        /// The plain limit, in micro-dollars per hour.
        plain_limit: u64,
        /// The worth, in micro-dollars per hour.
        worth: u64,
    },
    /// Too many servers.
    #[error("a market has at most {SUPPLY_MAX} servers, not {supply}")]
    Supply {
        /// How many.
        supply: u32,
    },
}

pub(super) fn check_reserve(reserve: u64) -> Result<(), JointError> {
    if reserve > WORTH_MAX { Err(JointError::Worth { worth: reserve }) } else { Ok(()) }
}

pub(super) fn check_supply(supply: u32) -> Result<(), JointError> {
    if supply > SUPPLY_MAX { Err(JointError::Supply { supply }) } else { Ok(()) }
}

impl Joint {
    pub(super) fn check_market(&self, market: u32) -> Result<u32, JointError> {
        if market < self.markets() { Ok(market + 1) } else { Err(JointError::UnknownMarket { market }) }
    }

    pub(super) fn check_lot(&self, lot: super::Lot) -> Result<u32, JointError> {
        if self.lots.stands(lot.0) { Ok(lot.0) } else { Err(JointError::UnknownLot { lot: lot.0 }) }
    }

    pub(super) fn check_terms(&self, terms: &LotTerms<'_>) -> Result<(), JointError> {
        let &LotTerms { age, number, units, options } = terms;
        if options.is_empty() || options.len() > OPTIONS_MAX {
            return Err(JointError::Options { options: options.len() });
        }
        if units == 0 || units > UNITS_MAX {
            return Err(JointError::Units { units });
        }
        if age > AGE_MAX || number > NUMBER_MAX {
            return Err(JointError::Age { age, number });
        }
        let mut kept = 0_u64;
        for (at, option) in options.iter().enumerate() {
            self.check_market(option.market)?;
            if options.iter().take(at).any(|before| before.market == option.market) {
                return Err(JointError::MarketTwice { market: option.market });
            }
            if option.worth > WORTH_MAX {
                return Err(JointError::Worth { worth: option.worth });
            }
            if let Some(plain_limit) = option.plain_limit.filter(|&plain| plain > option.worth) {
                return Err(JointError::PlainLimit { plain_limit, worth: option.worth });
            }
            kept += u64::from(option.kept);
        }
        if kept > u64::from(units) { Err(JointError::Kept { kept, units }) } else { Ok(()) }
    }
}
