//! Every bound of the placement machine that no rule sets.

use crate::site::Amounts;

/// Most clusters that a rule may allow a site.
pub const CLUSTERS_MAX: u32 = 100_000;
/// Most hosts of a site.
pub const HOSTS_MAX: usize = 20_000;
/// Most data stores of a site.
pub const DATA_STORES_MAX: usize = 1_024;
/// Most zones, regions and kinds of taints that a site's hosts may ever have had.
pub const NAMES_MAX: usize = 64;
/// Most bids that are followed.
pub const BIDS_MAX: usize = 4_000_000;
/// Most exchanges whose bids are followed.
pub const EXCHANGES_MAX: usize = 256;
/// Most moves that a rule may allow at once.
pub const MOVES_AT_ONCE_MAX: u32 = 10_000;
/// Longest time that a rule may set, in seconds.
pub const RULE_SECONDS_MAX: u32 = 31_622_400;
/// Least time without workers and bids after which a plane may sleep, in seconds.
pub const SLEEP_SECONDS_MIN: u32 = 60;
/// What would help is worked out anew at most this often, in microseconds.
pub const ADVICE_PAUSE_MICROSECONDS: i64 = 5_000_000;
/// How often moves are decided within one turn: once, and again after decisions that stood in each other's way were
/// taken back; the third would only show that this has an end.
pub const SETTLES_MAX: u32 = 3;
/// Most things that become due in one wake; the rest follow in the next.
pub const DUE_MAX: usize = 1_024;
/// Most leases that one statement of supply tells to be lost; of more it is stated again.
pub const LOST_MAX: usize = 1_000;
/// Resources that are packed: thousandths of a processor, MiB of memory, pods.
pub const RESOURCES: usize = 3;
/// A large host. Rooms beyond it are not told apart.
pub const LARGEST: Amounts = [64_000, 262_144, 256, 0];
