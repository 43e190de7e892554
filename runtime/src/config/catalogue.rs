//! The markets an exchange opens with.

use std::ops::RangeInclusive;

use proto::Price;
use proto::id::{ClassName, MarketId, RegionName};
use proto::market::{Ladder, MarketSettings};
use serde::{Deserialize, Serialize};

/// The catalogue that an exchange gets which names none.
pub(super) const BUILT_IN: &str = include_str!("../../../deploy/catalogue.toml");
/// What errors call it.
pub(super) const BUILT_IN_NAME: &str = "built-in catalogue";

/// Markets of one exchange.
pub const MARKETS_MAX: usize = 1_024;
/// Rungs of one explicit ladder.
pub const RUNGS_MAX: usize = 4_096;
/// Characters of `resources`.
const RESOURCES_CHARACTERS_MAX: usize = 200;
/// How long a notice may be, in seconds.
const NOTICE_SECONDS: RangeInclusive<u32> = 1..=2_592_000;

/// A catalogue file: markets and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalogue {
    pub(super) markets: Vec<CatalogueMarket>,
}

/// One market of the catalogue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogueMarket {
    /// Where its servers are.
    pub region: RegionName,
    /// What they are.
    pub class: ClassName,
    /// What one has, for people, such as `4 vCPU, 16 GiB`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resources: String,
    /// No unit sells below this.
    pub reserve: Price,
    /// The legal limits.
    #[serde(default)]
    pub ladder: Ladder,
    /// Notice that a losing unit gets, in seconds.
    #[serde(default = "MarketSettings::notice_seconds_default")]
    pub notice_seconds: u32,
    /// A promised server's notice is not withdrawn in its last seconds: this many; half the notice if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraw_until_seconds: Option<u32>,
    /// What a server costs on demand, per hour; no on-demand orders are taken if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand_price: Option<Price>,
    /// On-demand orders together may be for so many servers; for all of them if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand_units_max: Option<u32>,
    /// Servers that nobody gets.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_back_units: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(units: &u32) -> bool {
    *units == 0
}

impl CatalogueMarket {
    /// Its id.
    pub fn market(&self) -> MarketId {
        MarketId::new(&self.region, &self.class)
    }

    /// What the market is opened with.
    pub fn settings(&self) -> MarketSettings {
        MarketSettings {
            reserve: self.reserve,
            ladder: self.ladder.clone(),
            notice_seconds: self.notice_seconds,
            withdraw_until_seconds: self.withdraw_until_seconds,
            on_demand_price: self.on_demand_price,
            on_demand_units_max: self.on_demand_units_max,
            held_back_units: self.held_back_units,
        }
    }

    /// What is wrong with it: the key and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        // A class such as `a..b` is a class name but no part of a market's.
        if self.market().as_str().parse::<MarketId>().is_err() {
            return Some(("class", format!("{} cannot be part of a market's name", self.class)));
        }
        if self.resources.chars().count() > RESOURCES_CHARACTERS_MAX
            || self.resources.chars().any(char::is_control)
        {
            return Some(("resources", format!("one line of at most {RESOURCES_CHARACTERS_MAX} characters")));
        }
        if let Some(problem) = ladder_problem(&self.ladder) {
            return Some(("ladder", problem));
        }
        if !NOTICE_SECONDS.contains(&self.notice_seconds) {
            let (least, most) = (NOTICE_SECONDS.start(), NOTICE_SECONDS.end());
            return Some(("notice_seconds", format!("{} is not in {least} … {most}", self.notice_seconds)));
        }
        if let Some(price) = self.on_demand_price.filter(|&price| price < self.reserve) {
            return Some(("on_demand_price", format!("{price} is below the reserve {}", self.reserve)));
        }
        match self.withdraw_until_seconds {
            Some(until) if until > self.notice_seconds => {
                let problem = format!("{until} is more than notice_seconds, {}", self.notice_seconds);
                Some(("withdraw_until_seconds", problem))
            }
            _ => None,
        }
    }
}

fn ladder_problem(ladder: &Ladder) -> Option<String> {
    match ladder {
        Ladder::Step(Price::ZERO) => Some("a step of 0 has no rungs".to_owned()),
        Ladder::Step(_) => None,
        Ladder::Rungs(rungs) if rungs.is_empty() || rungs.len() > RUNGS_MAX => {
            Some(format!("has {} rungs, must have 1 … {RUNGS_MAX}", rungs.len()))
        }
        Ladder::Rungs(rungs) => {
            let pair = rungs.windows(2).find(|pair| pair.first() >= pair.last())?;
            let text: Vec<String> = pair.iter().map(|price| format!("\"{price}\"")).collect();
            Some(format!("rungs must ascend, {} do not", text.join(", ")))
        }
    }
}
