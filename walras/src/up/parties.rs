//! Who speaks on the bus of an installation on one machine: those of the configuration, and where it names
//! nobody, one storefront, one hypervisor and one operator with keys made at the first start.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::Result;
use proto::machine::Role;
use proto::market::{Ladder, Trust};
use proto::{Price, PrincipalId, StreamName, TenantId, Timestamp};
use runtime::config::{Config, ExchangeSettings};
use runtime::nats::access::{Access, Party, ServiceRole, ServiceUser, Storefront};
use simulations::chance::Chance;
use simulations::outside::{self, Habits, Hypervisor, HypervisorHabits, Listing, ServerHypervisor};

use super::demo;
use super::keys::Keys;
use crate::gateway::{TokenHash, hash_token};

/// The principal of all services in one process.
pub(super) const SERVICE: &str = "all";
/// Tenants of an installation whose configuration names none: the first is whoever tries it, the others are those
/// for whom the demo bids. Percentiles are told where five tenants win.
const TENANTS: [&str; 8] = ["demo", "acme", "globex", "initech", "hooli", "stark", "tyrell", "wonka"];

/// The principal that asks for clusters in the name of the demo's tenants.
const WISHES: &str = "demo-operator";

/// Everybody.
pub(super) struct Parties {
    pub(super) access: Access,
    pub(super) service_seed: String,
    pub(super) tenants: Vec<TenantId>,
    pub(super) tokens: BTreeMap<TokenHash, TenantId>,
    trusted: Vec<Trust>,
    local: BTreeMap<&'static str, &'static str>,
    demo_seeds: BTreeMap<String, String>,
    wishes_seed: Option<String>,
    keys: Keys,
}

/// A party of the demo, ready to connect.
pub(super) struct DemoParty {
    pub(super) principal: String,
    pub(super) seed: Option<String>,
    pub(super) exchange: StreamName,
    pub(super) party: demo::Party,
}

/// For whom the configuration's storefronts may speak.
pub(super) fn trusted(config: &Config) -> Vec<Trust> {
    let trust = |one: &runtime::config::Storefront| Trust {
        role: Role::Storefront,
        principal: one.principal.clone(),
        tenants: (!one.every_tenant).then(|| one.tenants.clone()),
    };
    config.storefronts.iter().map(trust).collect()
}

impl Parties {
    /// Reads or makes every key and token that is needed.
    pub(super) fn prepare(config: &Config, wants_demo: bool) -> Result<Self> {
        let keys = Keys::in_folder(&config.data_dir)?;
        let mut access = config.access();
        let service = keys.user(SERVICE)?;
        access.services.push(ServiceUser {
            principal: SERVICE.parse()?,
            role: ServiceRole::All,
            nkey: service.public,
        });
        let (tenants, tokens) = tenants(config, &keys)?;
        let mut parties = Self {
            trusted: trusted(config),
            access,
            service_seed: service.seed,
            tenants,
            tokens,
            local: BTreeMap::new(),
            demo_seeds: BTreeMap::new(),
            wishes_seed: None,
            keys,
        };
        for role in ["storefront", "hypervisor", "operator"] {
            parties.add(role, role, false)?;
            parties.local.insert(role, role);
        }
        if wants_demo {
            parties.add("storefront", "demo-storefront", true)?;
            parties.add("hypervisor", "demo-hypervisor", true)?;
            parties.add("operator", WISHES, true)?;
            parties.wishes_seed = parties.demo_seeds.remove(WISHES);
        }
        Ok(parties)
    }

    fn add(&mut self, role: &str, name: &str, is_demo: bool) -> Result<()> {
        let principal: PrincipalId = name.parse()?;
        let user = self.keys.user(name)?;
        if is_demo {
            self.demo_seeds.insert(name.to_owned(), user.seed);
        }
        let party = Party { principal: principal.clone(), nkey: user.public.clone() };
        match role {
            "storefront" => {
                let tenants = self.tenants.clone();
                self.access.storefronts.push(Storefront {
                    principal: principal.clone(),
                    nkey: user.public,
                    tenants: tenants.clone(),
                });
                self.trusted.push(Trust { role: Role::Storefront, principal, tenants: Some(tenants) });
            }
            "hypervisor" => self.access.hypervisors.push(party),
            _ => self.access.operators.push(party),
        }
        Ok(())
    }

    /// For whom each principal may speak.
    pub(super) fn trusted(&self) -> &[Trust] {
        &self.trusted
    }

    /// The principals made here, by role.
    pub(super) fn principals(&self) -> &BTreeMap<&'static str, &'static str> {
        &self.local
    }

    /// Where their seeds are.
    pub(super) fn credential_files(&self) -> BTreeMap<&'static str, PathBuf> {
        self.local.values().map(|principal| (*principal, self.keys.credential_file(principal))).collect()
    }

    /// Where the tenants' tokens are.
    pub(super) fn token_files(&self) -> BTreeMap<String, PathBuf> {
        self.keys.token_files(&self.tenants)
    }

    /// For whom the demo speaks: somebody's own bids and clusters are not mixed with those of the demo, where there is
    /// anybody else.
    fn demo_tenants(&self) -> Vec<TenantId> {
        let others = self.tenants.iter().filter(|tenant| tenant.as_str() != TENANTS[0]);
        let others: Vec<TenantId> = others.cloned().collect();
        if others.is_empty() { self.tenants.clone() } else { others }
    }

    /// Who asks for clusters in the demo: principal, seed of its key, wishes. Nobody where no demo was wanted.
    pub(super) fn wishes(
        &self,
        config: &Config,
        now: Timestamp,
    ) -> Result<Option<(PrincipalId, String, outside::Clusters)>> {
        let Some(seed) = &self.wishes_seed else { return Ok(None) };
        let exchanges = config.market.exchanges.values();
        let regions: BTreeSet<_> =
            exchanges.flat_map(ExchangeSettings::all_markets).map(|market| market.region.clone()).collect();
        let principal: PrincipalId = WISHES.parse()?;
        let (run, chance) = (format!("{:x}", now.micros()), Chance::new(config.demo.seed));
        let regions = regions.into_iter().collect();
        let wishes =
            outside::Clusters::new(principal.clone(), self.demo_tenants(), regions, &run, now, chance);
        Ok(Some((principal, seed.clone(), wishes)))
    }

    /// The demo's parties; none where no demo was wanted.
    pub(super) fn demo(&self, config: &Config, now: Timestamp) -> Result<Vec<DemoParty>> {
        let Some((exchange, settings)) = config.market.exchanges.iter().next() else {
            return Ok(Vec::new());
        };
        let listings: Vec<Listing> = settings.all_markets().map(listing).collect();
        let mut chance = Chance::new(config.demo.seed);
        let run = format!("{:x}", now.micros());
        let mut parties = Vec::new();
        for (name, seed) in &self.demo_seeds {
            let principal: PrincipalId = name.parse()?;
            let fork = chance.fork();
            let party = if name.ends_with("hypervisor") {
                let units_max = config.demo.servers_per_market;
                let habits = HypervisorHabits {
                    units_max,
                    interval_milliseconds: 1_500,
                    ..HypervisorHabits::default()
                };
                if let Some(site) = config.placement.sites.keys().next() {
                    let party = ServerHypervisor::new(principal, &listings, habits, &run, now, fork);
                    demo::Party::Servers(Box::new(party), site.clone())
                } else {
                    // Nobody tells servers apart.
                    let generation = now.micros().unsigned_abs();
                    demo::Party::Hypervisor(Box::new(Hypervisor::new(
                        principal, &listings, habits, &run, generation, now, fork,
                    )))
                }
            } else {
                let standing = u64::from(config.demo.servers_per_market) * listings.len() as u64 / 2;
                let habits = Habits {
                    standing,
                    // Who looks on need not wait until markets are full; and what an earlier run left behind ends.
                    opening: standing,
                    expires_permille: 1_000,
                    interval_milliseconds: 1_000 / u64::from(config.demo.bids_per_second.get()),
                    ..Habits::default()
                };
                let tenants = self.demo_tenants();
                let storefront =
                    outside::Storefront::new(principal, tenants, listings.clone(), habits, &run, now, fork);
                demo::Party::Storefront(Box::new(storefront.forgetful()))
            };
            parties.push(DemoParty {
                principal: name.clone(),
                seed: Some(seed.clone()),
                exchange: exchange.clone(),
                party,
            });
        }
        Ok(parties)
    }
}

fn tenants(config: &Config, keys: &Keys) -> Result<(Vec<TenantId>, BTreeMap<TokenHash, TenantId>)> {
    if !config.tenants.is_empty() {
        let known = config.tenants.iter().map(|one| (*one.token_sha256.bytes(), one.id.clone())).collect();
        return Ok((config.tenants.iter().map(|one| one.id.clone()).collect(), known));
    }
    let mut tokens = BTreeMap::new();
    let mut tenants = Vec::new();
    for name in TENANTS {
        let tenant: TenantId = name.parse()?;
        tokens.insert(hash_token(&keys.token(name)?), tenant.clone());
        tenants.push(tenant);
    }
    Ok((tenants, tokens))
}

fn listing(market: &runtime::config::CatalogueMarket) -> Listing {
    let step = match &market.ladder {
        Ladder::Step(step) => *step,
        Ladder::Rungs(rungs) => rungs.first().copied().unwrap_or(Price::micros_or_max(1_000)),
    };
    Listing {
        market: market.market(),
        // Bids lie around a few times the reserve, so that a demo's prices move above it.
        worth: Price::micros_or_max(market.reserve.micros().saturating_mul(4)),
        step,
        reserve: market.reserve,
    }
}
