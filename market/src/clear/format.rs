//! The format of `walras clear` (DESIGN §10).

use proto::decode::document;
use proto::envelope::Refusal;
use proto::id::shorten;
use proto::market::{BidOption, Ladder, PriceRule};
use proto::{BidId, MarketId, Price};
use serde::{Deserialize, Serialize};

use super::clear;

/// Why a book was not cleared: one line that names field and value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClearError {
    /// The text is no book.
    #[error("{}", .0.message)]
    Format(Box<Refusal>),
    /// A value cannot be.
    #[error("{field}: {problem} (got {})", shorten(value))]
    Value {
        /// Which field, as a path such as `bids[0].options[0].limit`.
        field: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl ClearError {
    pub(super) fn twice(field: String, value: &str) -> Self {
        Self::Value { field, value: value.to_owned(), problem: "stands twice".to_owned() }
    }
}

/// A book to clear.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClearInput {
    /// How prices are set.
    #[serde(default)]
    pub price_rule: PriceRule,
    /// What moving a running unit costs, per hour; nothing where it is missing. Without effect on bids with one
    /// option.
    #[serde(default)]
    pub move_cost: Option<Price>,
    /// The markets.
    pub markets: Vec<BookMarket>,
    /// The bids, oldest first.
    pub bids: Vec<BookBid>,
}

/// A market of the book.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BookMarket {
    /// Its name.
    pub market: MarketId,
    /// Usable servers.
    pub supply: u32,
    /// No unit sells below this.
    pub reserve: Price,
    /// The legal limits, ascending; every $0.001 where they are missing.
    #[serde(default)]
    pub ladder: Option<Vec<Price>>,
}

impl BookMarket {
    pub(super) fn ladder(&self) -> Ladder {
        self.ladder.clone().map_or_else(Ladder::default, Ladder::Rungs)
    }
}

/// A bid of the book.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BookBid {
    /// Its id.
    pub id: BidId,
    /// How many units it wants.
    pub quantity: u32,
    /// Fewer than this are worth nothing.
    #[serde(default = "one")]
    pub min_quantity: u32,
    /// Where, at which limit.
    pub options: Vec<BidOption>,
    /// Units that hold a server.
    #[serde(default)]
    pub running: Vec<UnitsIn>,
}

fn one() -> u32 {
    1
}

/// Units in a market.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitsIn {
    /// Where.
    pub market: MarketId,
    /// How many.
    pub units: u32,
}

/// What a clearing came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClearOutput {
    /// The markets, as given.
    pub markets: Vec<MarketOutcome>,
    /// The bids, as given.
    pub bids: Vec<BidOutcome>,
    /// Σ(effective limit − reserve) over the units won, in dollars per hour.
    pub surplus: String,
    /// Bids left out although their limit beats the price.
    pub paradoxically_rejected: Vec<Rejected>,
}

/// What a market came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MarketOutcome {
    /// Its name.
    pub market: MarketId,
    /// What every winner pays; null without supply.
    pub price: Option<Price>,
    /// Units won.
    pub sold: u32,
    /// The least legal limit with which a youngest bid for one unit would win; null without supply.
    pub lowest_winning_bid: Option<Price>,
}

/// What a bid came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BidOutcome {
    /// Its id.
    pub id: BidId,
    /// What it won, by market; empty if nothing.
    pub units: Vec<UnitsIn>,
}

/// A bid that was left out although its limit beats the price.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its id.
    pub id: BidId,
    /// By how many units it missed.
    pub short_by: u32,
}

/// Clears a book given as JSON; the outcome as JSON.
///
/// # Errors
/// One line that names field and value.
pub fn clear_json(text: &str) -> Result<String, ClearError> {
    let input: ClearInput =
        document(text, "book").map_err(|refusal| ClearError::Format(Box::new(refusal)))?;
    let output = clear(&input)?;
    serde_json::to_string(&output).map_err(|error| ClearError::Value {
        field: "book".to_owned(),
        value: String::new(),
        problem: error.to_string(),
    })
}
