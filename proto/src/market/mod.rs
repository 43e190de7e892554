//! What is said to the market and what it says: commands, events, answers, public reports.

mod answer;
mod command;
mod event;
mod read;
mod terms;

pub use answer::{
    Accepted, Answer, Awarded, BidState, Delayed, Expired, MarketReport, Noticed, Released, Withdrawn,
};
pub use command::{
    AcknowledgeNotice, AdoptRules, AdoptTrust, AmendBid, CancelBid, DefineMarket, MarketCommand, MoveLeases,
    PlaceBid, ReportDead, ReportReady, ReportReleased, SupplyOffered, Trust,
};
pub use event::{LeaseSpan, LossReason, MarketEvent, Prices, ReleaseReason, SupplyCause};
pub use terms::{BidOption, GANG_PASSES_MAX, Ladder, MarketSettings, PriceRule, Rules, Terms};

/// A bid's number: its place among all bids ever accepted by its exchange, counted from 1. Events name bids by
/// number; the [`MarketEvent::BidPlaced`] that introduced it carries the id.
pub type BidNumber = u64;
/// A lease's number within its exchange, counted from 1.
pub type LeaseNumber = u64;
/// A market's number within its exchange, in the order in which markets were defined, counted from 0.
pub type MarketNumber = u16;
/// A round's number within its exchange, counted from 1.
pub type RoundNumber = u64;

/// Most units of one bid.
pub const QUANTITY_MAX: u32 = 10_000;
/// Most options of one bid.
pub const OPTIONS_MAX: usize = 32;
/// Most servers a source may offer in one market.
pub const SUPPLY_MAX: u32 = 10_000_000;
/// Most leases one command may name.
pub const LEASES_NAMED_MAX: usize = 10_000;
