//! How much an address may ask without the token of a tenant: public pages, and guessing at tokens.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use runtime::admin::BoundedListener;

use super::identity::whole_seconds;
use super::problem::Problem;

/// Requests after which addresses that have been quiet are forgotten.
const FORGET_EVERY: u32 = 1 << 14;
/// Bits of an IPv6 address that name a customer: whoever has one such prefix has all addresses in it.
const CUSTOMER_BITS: u32 = 64;

/// The address at the other end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Peer(IpAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        let peer: &SocketAddr = stream.remote_addr();
        Self(peer.ip())
    }
}

impl Peer {
    /// What is limited together.
    fn customer(self) -> IpAddr {
        match self.0.to_canonical() {
            IpAddr::V6(address) => {
                let prefix = address.to_bits() >> (128 - CUSTOMER_BITS) << (128 - CUSTOMER_BITS);
                IpAddr::V6(Ipv6Addr::from_bits(prefix))
            }
            address @ IpAddr::V4(_) => address,
        }
    }
}

/// Knows how much each address asked lately.
pub struct Strangers {
    limits: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
    asked: AtomicU32,
}

impl Strangers {
    /// What each address may ask: so many requests a second, in bursts of so many.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { limits: RateLimiter::keyed(quota), clock: DefaultClock::default(), asked: AtomicU32::new(0) }
    }

    /// Lets an address ask once more.
    ///
    /// # Errors
    /// 429 beyond its limit.
    pub fn admit(&self, peer: Peer) -> Result<(), Problem> {
        // An address costs memory as long as it is remembered, and a flood has many.
        if self.asked.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.limits.retain_recent();
        }
        self.limits
            .check_key(&peer.customer())
            .map_err(|not_until| Problem::too_many(whole_seconds(not_until.wait_time_from(self.clock.now()))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(address: &str) -> Peer {
        Peer(address.parse().unwrap())
    }

    #[test]
    fn one_addresss_flood_costs_no_other_address() {
        let strangers = Strangers::new(NonZeroU32::MIN, NonZeroU32::new(3).unwrap());
        let admitted = |address: &str| (0..10).filter(|_| strangers.admit(peer(address)).is_ok()).count();
        assert!((3..=4).contains(&admitted("192.0.2.1")));
        let refused = strangers.admit(peer("192.0.2.1")).unwrap_err();
        assert_eq!((refused.status, refused.retry_after_seconds.is_some()), (429, true));
        assert!(strangers.admit(peer("192.0.2.2")).is_ok());
    }

    #[test]
    fn addresses_of_one_customer_are_one() {
        let customers = |one: &str, other: &str| (peer(one).customer(), peer(other).customer());
        let (one, other) = customers("2001:db8:1:2::1", "2001:db8:1:2:ffff::9");
        assert_eq!(one, other);
        let (one, other) = customers("2001:db8:1:2::1", "2001:db8:1:3::1");
        assert_ne!(one, other);
        let (one, other) = customers("192.0.2.1", "::ffff:192.0.2.1");
        assert_eq!(one, other);
    }

    #[test]
    fn who_was_quiet_is_forgotten() {
        let strangers = Strangers::new(NonZeroU32::new(1_000_000).unwrap(), NonZeroU32::new(8).unwrap());
        for number in 0..3 * FORGET_EVERY {
            strangers.admit(Peer(IpAddr::V4(number.into()))).unwrap();
        }
        assert!(strangers.limits.len() < 2 * FORGET_EVERY as usize, "{}", strangers.limits.len());
    }
}
