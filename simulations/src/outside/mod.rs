//! The outside world: storefronts and hypervisors that behave by chance from a seed. The demo of `walras up` and
//! the simulator's [`crate::world::World`] run the same ones.

mod clusters;
mod hypervisor;
mod servers;
mod storefront;

pub use clusters::Clusters;
pub use hypervisor::{Hypervisor, HypervisorHabits};
pub use servers::{Said, ServerHypervisor};
pub use storefront::{Habits, Storefront};

use proto::{MarketId, Price};

/// A market as those outside know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// Which market.
    pub market: MarketId,
    /// About what a unit there is worth per hour.
    pub worth: Price,
    /// The step of its ladder.
    pub step: Price,
    /// No unit sells below this.
    pub reserve: Price,
}
