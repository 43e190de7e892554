//! Tenants that have bids, and who may speak for them.

use proto::machine::{Role, Sender};
use proto::market::Trust;
use proto::{PrincipalId, TenantId};

use super::digest::{Kind, bytes, text};
use super::index::Index;

/// Most principals that can be trusted.
pub(super) const TRUSTED_MAX: usize = 1_024;
/// Most tenants that all principals together can be trusted for by name.
pub(super) const TENANTS_TRUSTED_MAX: usize = 100_000;

/// One tenant with bids.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) id: TenantId,
    /// Its bids that stand.
    pub(super) standing: u32,
    /// Its bids that are known.
    pub(super) known: u32,
    /// The storefront that was last found to be trusted for it, by its place and the count of adoptions. What is
    /// remembered here saves a search and decides nothing.
    verified: (u32, u32),
}

/// All tenants with bids.
#[derive(Clone, Debug, Default)]
pub(super) struct Tenants {
    tenants: Vec<Tenant>,
    free: Vec<u32>,
    names: Index,
}

impl Tenants {
    pub(super) fn get(&self, place: u32) -> Option<&Tenant> {
        self.tenants.get(place as usize)
    }

    #[inline]
    pub(super) fn named(&self, id: &TenantId) -> Option<u32> {
        self.names.find(text(id.as_str()), |place| self.get(place).is_some_and(|tenant| tenant.id == *id))
    }

    /// Counts a bid of a tenant in.
    pub(super) fn enter(&mut self, id: &TenantId) -> u32 {
        let place = self.named(id).unwrap_or_else(|| self.add(id));
        self.tenants[place as usize].standing += 1;
        self.tenants[place as usize].known += 1;
        place
    }

    /// Counts in a bid that has ended, as when a snapshot is read.
    pub(super) fn enter_ended(&mut self, id: &TenantId) -> u32 {
        let place = self.enter(id);
        self.tenants[place as usize].standing -= 1;
        place
    }

    fn add(&mut self, id: &TenantId) -> u32 {
        let tenant = Tenant { id: id.clone(), standing: 0, known: 0, verified: (u32::MAX, 0) };
        let place = if let Some(place) = self.free.pop() {
            self.tenants[place as usize] = tenant;
            place
        } else {
            self.tenants.push(tenant);
            self.tenants.len() as u32 - 1
        };
        self.names.insert(text(id.as_str()), place);
        place
    }

    /// A bid of the tenant has ended.
    pub(super) fn ended(&mut self, place: u32) {
        if let Some(tenant) = self.tenants.get_mut(place as usize) {
            tenant.standing -= 1;
        }
    }

    /// A bid of the tenant is forgotten; a tenant without bids is, too.
    pub(super) fn leave(&mut self, place: u32) {
        let Some(tenant) = self.tenants.get_mut(place as usize) else { return };
        tenant.known -= 1;
        if tenant.known == 0 {
            let hash = text(tenant.id.as_str());
            self.names.remove(hash, place);
            self.free.push(place);
        }
    }
}

/// Who is trusted for whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Trusted {
    /// By role and principal, each with its tenants ascending.
    list: Vec<Trust>,
    /// Counts adoptions, so that what was verified before is verified again.
    adoption: u32,
    /// The storefront that was looked up last: commands come in envelopes of one sender.
    last: Option<(PrincipalId, u32)>,
    digest: u128,
}

impl Trusted {
    /// Everybody who is trusted, by role and principal.
    pub(super) fn list(&self) -> &[Trust] {
        &self.list
    }

    pub(super) const fn digest(&self) -> u128 {
        self.digest
    }

    pub(super) fn adopt(&mut self, trusted: &[Trust]) {
        self.list = trusted.to_vec();
        for trust in &mut self.list {
            if let Some(tenants) = &mut trust.tenants {
                tenants.sort_unstable();
            }
        }
        self.list.sort_unstable_by(|a, b| (a.role, &a.principal).cmp(&(b.role, &b.principal)));
        self.adoption = self.adoption.wrapping_add(1);
        self.last = None;
        self.digest = self.digest_from_scratch();
    }

    pub(super) fn digest_from_scratch(&self) -> u128 {
        // An empty list is what a machine starts with.
        if self.list.is_empty() {
            return 0;
        }
        bytes(Kind::Trust, &serde_json::to_vec(&self.list).unwrap_or_default())
    }

    fn place_of(&mut self, principal: &PrincipalId) -> Option<u32> {
        if let Some((last, place)) = &self.last
            && last == principal
        {
            return Some(*place);
        }
        let wanted = (Role::Storefront, principal);
        let place =
            self.list.binary_search_by(|trust| (trust.role, &trust.principal).cmp(&wanted)).ok()? as u32;
        self.last = Some((principal.clone(), place));
        Some(place)
    }

    /// Whether a sender may speak for a tenant; `known` is the tenant's place if it has bids.
    pub(super) fn allows(
        &mut self,
        sender: &Sender,
        tenant: &TenantId,
        known: Option<u32>,
        tenants: &mut Tenants,
    ) -> bool {
        match sender.role {
            Role::Gateway | Role::Operator => true,
            Role::Storefront => self.is_trusted(&sender.principal, tenant, known, tenants),
            Role::Hypervisor | Role::Worker | Role::Service => false,
        }
    }

    fn is_trusted(
        &mut self,
        principal: &PrincipalId,
        tenant: &TenantId,
        known: Option<u32>,
        tenants: &mut Tenants,
    ) -> bool {
        let Some(place) = self.place_of(principal) else { return false };
        let stamp = (place, self.adoption);
        let mut record = known.and_then(|known| tenants.tenants.get_mut(known as usize));
        if record.as_ref().is_some_and(|record| record.verified == stamp) {
            return true;
        }
        let is_trusted = match &self.list[place as usize].tenants {
            None => true,
            Some(listed) => listed.binary_search(tenant).is_ok(),
        };
        if let Some(record) = &mut record
            && is_trusted
        {
            record.verified = stamp;
        }
        is_trusted
    }
}
