//! Every bound of the market machine that no rule sets.

use proto::market::SUPPLY_MAX;

/// Most markets of an exchange.
pub const MARKETS_MAX: usize = 1_024;
/// Most sources of supply of one market.
pub const SOURCES_MAX: usize = 1_024;
/// Most servers of one market, all sources together.
pub const SUPPLY_TOTAL_MAX: u64 = 100 * SUPPLY_MAX as u64;
/// Most bids that a rule may let stand at once.
pub const STANDING_BIDS_MAX: u32 = 16_000_000;
/// Most places in the queue that the units of one bid stand at. Units added beyond that take the bid's youngest
/// place along to the end of the queue.
pub const PLACES_PER_BID_MAX: usize = 64;
/// Most legal limits of a market that lists them.
pub const RUNGS_MAX: usize = 65_536;
/// Longest that a round may wait after its first command, in milliseconds.
pub const COALESCE_MILLISECONDS_MAX: u32 = 60_000;
/// Most clearings that a rule may let a round make for its gangs.
pub const GANG_PASSES_PER_ROUND_MAX: u32 = 4_096;
/// Longest notice, in seconds: 30 days.
pub const NOTICE_SECONDS_MAX: u32 = 2_592_000;
/// Longest that a rule may let a lease be without a ready worker, in seconds: 30 days.
pub const WITHOUT_WORKER_SECONDS_MAX: u32 = 2_592_000;
/// Longest that a worker may have been dead before it is said, in microseconds: a day. What was charged before stays.
pub const DEAD_LATE_MICROSECONDS_MAX: i64 = 24 * 3_600 * 1_000_000;
/// Longest that a finished bid may be remembered by name, in seconds: ten years.
pub const FINISHED_BIDS_KEPT_SECONDS_MAX: u32 = 10 * 366 * 24 * 3_600;
/// Finished bids that are remembered by name; beyond that the oldest are forgotten early, and beyond twice that no
/// bid is placed.
pub const FINISHED_BIDS_MAX: usize = 4_194_304;
/// Most bids forgotten at one instant, so that a batch of events stays well below the largest message.
pub const FORGOTTEN_AT_ONCE_MAX: usize = 4_096;
/// Least time between two instants at which bids are forgotten, in microseconds.
pub const FORGET_PAUSE_MICROSECONDS: i64 = 250_000;
/// Units in line whose server comes later than they were told are told at most this often, in microseconds.
pub const DELAYS_TOLD_EVERY_MICROSECONDS: i64 = 5_000_000;
/// What they are then told is later by the market's notice divided by this, so that the next small delay is within
/// what they know.
pub const DELAY_MARGIN_DIVISOR: i64 = 16;
/// Most bids that a round tells to be passed over; beyond that the oldest are told.
pub const PASSED_OVER_TOLD_MAX: usize = 1_024;
/// Most different deadlines of departing servers that are kept apart until the next round of a market.
pub const DEPARTURES_MAX: usize = 64;
