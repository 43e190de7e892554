//! What a bid says and what rules a market has.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::MarketId;
use crate::money::Price;
use crate::time::Timestamp;

/// One market a bid would take units in, and what a unit there is worth to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BidOption {
    /// Where.
    pub market: MarketId,
    /// The most a unit may cost per hour, from the market's ladder.
    pub limit: Price,
    /// What a unit that already holds a server there is worth, if more than `limit`: the tenant's declared cost
    /// of interruption.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_limit: Option<Price>,
}

/// What a bid asks for. Amending replaces all of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// How many servers.
    #[schemars(range(min = 1, max = 10_000))]
    pub quantity: u32,
    /// Fewer than this are worth nothing; equal to `quantity`: all or nothing.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub min_quantity: u32,
    /// Where, at which limit; each unit takes at most one.
    #[schemars(length(min = 1, max = 32))]
    pub options: Vec<BidOption>,
    /// When the bid ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_one(quantity: &u32) -> bool {
    *quantity == 1
}

/// Clearings that a round makes for its gangs unless the rules say otherwise (DESIGN §5, rule 4).
pub const GANG_PASSES_MAX: u32 = 64;

/// How a round sets its prices (DESIGN §5, rule 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PriceRule {
    /// Winners pay the lowest accepted limit.
    #[default]
    LowestAccepted,
    /// Winners pay the highest rejected limit.
    HighestRejected,
}

/// The legal limits of a market.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ladder {
    /// Every multiple of this, above zero.
    Step(Price),
    /// Just these, ascending.
    Rungs(Vec<Price>),
}

impl Default for Ladder {
    fn default() -> Self {
        Self::Step(Price::micros_or_max(1_000))
    }
}

/// What an operator decides about a market.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MarketSettings {
    /// No unit sells below this.
    pub reserve: Price,
    /// The legal limits.
    #[serde(default)]
    pub ladder: Ladder,
    /// Notice that a losing unit gets, in seconds.
    #[serde(default = "MarketSettings::notice_seconds_default")]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub notice_seconds: u32,
    /// A notice whose server is promised to somebody is not withdrawn in its last seconds: this many. Half of the
    /// notice where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdraw_until_seconds: Option<u32>,
    /// What a server costs on demand, per hour; no on-demand orders are taken where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand_price: Option<Price>,
    /// On-demand orders together may be for so many servers; for all of them where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_demand_units_max: Option<u32>,
    /// Servers that nobody gets.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub held_back_units: u32,
}

impl MarketSettings {
    /// Six minutes, as the best-known spot market gives.
    pub const fn notice_seconds_default() -> u32 {
        360
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_gang_passes_default(passes: &u32) -> bool {
    *passes == GANG_PASSES_MAX
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_zero(seconds: &u32) -> bool {
    *seconds == 0
}

/// What an operator decides about an exchange.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// How prices are set.
    pub price_rule: PriceRule,
    /// How long after its first command a round closes, in milliseconds; 0: with every turn that changed anything.
    pub coalesce_milliseconds: u32,
    /// Most bids that may stand at once in the exchange.
    pub standing_bids_max: u32,
    /// Most bids of one tenant that may stand at once.
    pub standing_bids_per_tenant_max: u32,
    /// How long a finished bid is remembered by name, in seconds.
    pub finished_bids_kept_seconds: u32,
    /// How long a lease may be without a ready worker once it has a server, in seconds; 0: for ever. Then it is
    /// released, and its unit queues again.
    #[serde(skip_serializing_if = "is_zero")]
    pub provisioning_seconds_max: u32,
    /// How long a lease's worker may be dead, in seconds; 0: for ever. Then the lease is released, and its unit queues
    /// again.
    #[serde(skip_serializing_if = "is_zero")]
    pub dead_seconds_max: u32,
    /// What a unit that holds a server counts against a move, in dollars per hour: its other options are worth that
    /// much less to it, though not below the reserve. A tenth of the other option's limit where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub move_cost: Option<Price>,
    /// Clearings that a round makes for its gangs; past these all gangs that are short are left out together.
    #[serde(skip_serializing_if = "is_gang_passes_default")]
    #[schemars(range(min = 1, max = 4_096))]
    pub gang_passes_max: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            price_rule: PriceRule::default(),
            coalesce_milliseconds: 250,
            standing_bids_max: 4_000_000,
            standing_bids_per_tenant_max: 100_000,
            finished_bids_kept_seconds: 7 * 24 * 3600,
            provisioning_seconds_max: 0,
            dead_seconds_max: 0,
            move_cost: None,
            gang_passes_max: GANG_PASSES_MAX,
        }
    }
}
