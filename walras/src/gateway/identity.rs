//! Who asks: a tenant is known by its token alone, never by anything in a path or body.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use proto::TenantId;
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// Longest token, in bytes: longer ones are nobody's and are not hashed.
const TOKEN_BYTES_MAX: usize = 512;

/// SHA-256 of a token: all that is kept of it.
pub type TokenHash = [u8; 32];

/// The hash under which a token is known.
pub fn hash_token(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// Knows the tenants' tokens and how much each may ask.
pub struct Identity {
    tenants: BTreeMap<TokenHash, TenantId>,
    limits: DefaultKeyedRateLimiter<TenantId>,
    clock: DefaultClock,
}

impl Identity {
    /// Tenants by the hash of their token, and what each may ask: so many requests a second, in bursts of so
    /// many.
    pub fn new(tenants: BTreeMap<TokenHash, TenantId>, per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { tenants, limits: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// The tenant whose token the request carries, if it may ask now.
    ///
    /// # Errors
    /// 401 without a token that is somebody's; 429 beyond the tenant's limit.
    pub fn admit(&self, headers: &HeaderMap) -> Result<TenantId, Problem> {
        let tenant = self.tenant(headers).ok_or_else(Problem::unauthenticated)?;
        match self.limits.check_key(tenant) {
            Ok(()) => Ok(tenant.clone()),
            Err(not_until) => {
                Err(Problem::too_many(whole_seconds(not_until.wait_time_from(self.clock.now()))))
            }
        }
    }

    /// The tenant whose token the request carries, if it carries one.
    pub fn tenant(&self, headers: &HeaderMap) -> Option<&TenantId> {
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "))
            .filter(|token| token.len() <= TOKEN_BYTES_MAX)?;
        // Looked up by hash: how long a look-up takes tells nothing about any token.
        self.tenants.get(&hash_token(token))
    }
}

/// A wait in whole seconds: one at least, and never sooner than there is room.
pub(super) fn whole_seconds(wait: Duration) -> u64 {
    (wait + Duration::from_millis(999)).as_secs().max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(burst: u32) -> Identity {
        let tenants = [("secret-a", "a"), ("secret-b", "b")]
            .map(|(token, tenant)| (hash_token(token), tenant.parse().unwrap()));
        Identity::new(tenants.into(), NonZeroU32::MIN, NonZeroU32::new(burst).unwrap())
    }

    fn bearing(authorization: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        headers
    }

    #[test]
    fn only_a_known_token_is_somebody() {
        let identity = identity(100);
        assert_eq!(identity.admit(&bearing("Bearer secret-a")).unwrap().as_str(), "a");
        assert_eq!(identity.admit(&bearing("Bearer secret-b")).unwrap().as_str(), "b");
        for bad in
            ["", "secret-a", "Bearer", "Bearer ", "Bearer secret-c", "bearer secret-a", "Basic secret-a"]
        {
            assert_eq!(identity.admit(&bearing(bad)).unwrap_err().status, 401, "{bad:?}");
        }
        assert_eq!(identity.admit(&HeaderMap::new()).unwrap_err().status, 401);
    }

    #[test]
    fn one_tenants_flood_costs_no_other_tenant() {
        let identity = identity(3);
        let floods = (0..10).filter(|_| identity.admit(&bearing("Bearer secret-a")).is_ok()).count();
        assert!((3..=4).contains(&floods), "{floods}");
        let refused = identity.admit(&bearing("Bearer secret-a")).unwrap_err();
        assert_eq!((refused.status, refused.retry_after_seconds.is_some()), (429, true));
        assert!(identity.admit(&bearing("Bearer secret-b")).is_ok());
    }
}
