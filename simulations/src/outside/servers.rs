//! A hypervisor that tells its servers apart: it offers them to placement, boots them for the leases that it is ordered to,
//! and says when workers on them are ready; now and then servers fail, or leave with notice, and others come.

use std::collections::BTreeMap;

use proto::machine::{Role, Sender};
use proto::market::{LeaseNumber, MarketCommand, ReportDead, ReportReady};
use proto::placement::{
    NoticeServers, OfferServers, OrderedServer, PlacementCommand, ReportServersGone, SERVERS_NAMED_MAX,
};
use proto::{CommandId, MarketId, PrincipalId, ServerId, Timestamp};

use super::{HypervisorHabits, Listing};
use crate::chance::Chance;

/// Most servers in one market: their names are told in one command.
const UNITS_MAX: u32 = SERVERS_NAMED_MAX as u32;
/// A worker says again that it is ready after so many milliseconds: the market may have learned late that it has a server.
const AGAIN_MILLISECONDS: u64 = 30_000;

/// What a server does.
#[derive(Clone, Debug, Default)]
struct Server {
    generation: u64,
    lease: Option<LeaseNumber>,
    gone_at: Option<Timestamp>,
}

/// What it will say of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Saying {
    Ready,
    ReadyStill,
    Dead,
    ReadyAgain,
}

/// What it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// To placement.
    pub to_placement: Vec<PlacementCommand>,
    /// To the market.
    pub to_market: Vec<MarketCommand>,
}

/// A hypervisor.
#[derive(Clone, Debug)]
pub struct ServerHypervisor {
    principal: PrincipalId,
    habits: HypervisorHabits,
    chance: Chance,
    listings: Vec<Listing>,
    /// By market and number; their names are made of both.
    servers: BTreeMap<(usize, u32), Server>,
    /// What it will say of workers, by when.
    workers: BTreeMap<(Timestamp, LeaseNumber), Saying>,
    next_at: Timestamp,
    has_opened: bool,
    commands: u64,
    run: String,
}

impl ServerHypervisor {
    /// A hypervisor that serves these markets from `start` on. `run` makes its command ids differ from those of an earlier
    /// life; servers keep their names.
    pub fn new(
        principal: PrincipalId,
        listings: &[Listing],
        habits: HypervisorHabits,
        run: &str,
        start: Timestamp,
        chance: Chance,
    ) -> Self {
        let habits = HypervisorHabits { units_max: habits.units_max.clamp(1, UNITS_MAX), ..habits };
        Self {
            principal,
            habits,
            chance,
            listings: listings.to_vec(),
            servers: BTreeMap::new(),
            workers: BTreeMap::new(),
            next_at: start,
            has_opened: false,
            commands: 0,
            run: run.to_owned(),
        }
    }

    /// Who it is.
    pub fn sender(&self) -> Sender {
        Sender { role: Role::Hypervisor, principal: self.principal.clone() }
    }

    /// When it next does something.
    pub fn next_at(&self) -> Timestamp {
        self.workers.first_key_value().map_or(self.next_at, |(&(at, _), _)| at.min(self.next_at))
    }

    /// Hears what a server is to be. An order that is not newer than the last changes nothing.
    pub fn ordered(&mut self, now: Timestamp, ordered: &OrderedServer) {
        let names: Vec<(usize, u32)> = self.servers.keys().copied().collect();
        let named = names.into_iter().find(|key| self.name(*key).as_ref() == Some(&ordered.server));
        let Some(server) = named.and_then(|key| self.servers.get_mut(&key)) else { return };
        if ordered.generation <= server.generation {
            return;
        }
        server.generation = ordered.generation;
        let before = server.lease.take();
        server.lease = ordered.order.lease.as_ref().map(|served| served.lease);
        let lease = server.lease;
        if let Some(lease) = lease.filter(|_| lease != before && ordered.order.gone_at.is_none()) {
            let boot = self.chance.between(1, self.habits.boot_milliseconds_max.max(1));
            self.workers.insert((now.plus_micros((boot * 1_000) as i64), lease), Saying::Ready);
        }
    }

    /// What it says at `now`: nothing before [`ServerHypervisor::next_at`].
    pub fn act(&mut self, now: Timestamp) -> Said {
        let mut said = Said { to_market: self.report(now), to_placement: Vec::new() };
        self.servers.retain(|_, server| server.gone_at.is_none_or(|gone_at| gone_at > now));
        if !self.has_opened {
            self.has_opened = true;
            said.to_placement = (0..self.listings.len()).flat_map(|market| self.open(market)).collect();
        } else if self.next_at <= now {
            said.to_placement.extend(self.change(now));
        }
        if self.next_at <= now {
            let pause = self.chance.between(1, self.habits.interval_milliseconds.saturating_mul(2).max(1));
            self.next_at = now.plus_micros((pause * 1_000) as i64);
        }
        said
    }

    fn id(&mut self) -> Option<CommandId> {
        self.commands += 1;
        format!("{}-{}-{}", self.principal, self.run, self.commands).parse().ok()
    }

    fn market(&self, market: usize) -> Option<MarketId> {
        self.listings.get(market).map(|listing| listing.market.clone())
    }

    fn name(&self, (market, number): (usize, u32)) -> Option<ServerId> {
        let class = self.listings.get(market)?.market.class().to_string();
        // A class may be as long as a name; its place tells markets apart.
        let class: String = class.chars().take(40).collect();
        format!("{class}.{market}.{number}").parse().ok()
    }

    /// What it has in a market to begin with. What an earlier life had beyond that is gone.
    fn open(&mut self, market: usize) -> Vec<PlacementCommand> {
        let most = self.habits.units_max;
        let units = self.chance.between(u64::from(most.div_ceil(3)), u64::from(most)) as u32;
        let gone: Vec<ServerId> = (units..most).filter_map(|number| self.name((market, number))).collect();
        let mut said = Vec::new();
        said.extend(self.add(market, 0..units));
        if let Some(id) = self.id().filter(|_| !gone.is_empty()) {
            let hypervisor = self.principal.clone();
            let gone = ReportServersGone { id, hypervisor, servers: gone };
            said.push(PlacementCommand::ReportServersGone(gone));
        }
        said
    }

    fn add(&mut self, market: usize, numbers: impl IntoIterator<Item = u32>) -> Option<PlacementCommand> {
        let mut servers = Vec::new();
        for number in numbers {
            servers.push(self.name((market, number))?);
            self.servers.insert((market, number), Server::default());
        }
        let (id, hypervisor, market) = (self.id()?, self.principal.clone(), self.market(market)?);
        let offer = OfferServers { id, hypervisor, market, servers };
        (!offer.servers.is_empty()).then_some(PlacementCommand::OfferServers(offer))
    }

    /// Servers come, fail or leave, in one market.
    fn change(&mut self, now: Timestamp) -> Option<PlacementCommand> {
        let market = self.chance.below(self.listings.len() as u64) as usize;
        let here: Vec<(usize, u32)> = self.servers.keys().filter(|(of, _)| *of == market).copied().collect();
        let stay: Vec<(usize, u32)> =
            here.iter().filter(|key| self.servers[*key].gone_at.is_none()).copied().collect();
        let most = self.habits.units_max;
        if self.chance.permille(self.habits.host_leaves_permille) && !stay.is_empty() {
            let leaving = self.chance.between(1, stay.len() as u64) as usize;
            let gone_at = now.plus_seconds(self.chance.between(5, 300) as u32);
            let leaving = stay.get(..leaving)?;
            for key in leaving {
                self.servers.get_mut(key)?.gone_at = Some(gone_at);
            }
            let servers = leaving.iter().filter_map(|key| self.name(*key)).collect();
            let (id, hypervisor) = (self.id()?, self.principal.clone());
            return Some(PlacementCommand::NoticeServers(NoticeServers { id, hypervisor, servers, gone_at }));
        }
        let step = self.chance.between(1, u64::from(most / 8).max(1)) as usize;
        // Pulled back to two thirds of its room, so that a market is neither starved nor drowned for long.
        if self.chance.below(u64::from(most)) >= stay.len() as u64 * 2 / 3 {
            let missing: Vec<u32> =
                (0..most).filter(|number| !here.contains(&(market, *number))).take(step).collect();
            return self.add(market, missing);
        }
        let failed = stay.get(stay.len().saturating_sub(step)..)?;
        let servers: Vec<ServerId> = failed.iter().filter_map(|key| self.name(*key)).collect();
        let failed: Vec<(usize, u32)> = failed.to_vec();
        self.servers.retain(|key, _| !failed.contains(key));
        let (id, hypervisor) = (self.id()?, self.principal.clone());
        let gone = ReportServersGone { id, hypervisor, servers };
        (!gone.servers.is_empty()).then_some(PlacementCommand::ReportServersGone(gone))
    }

    /// What it says of workers at `now`, as long as their servers serve the leases.
    fn report(&mut self, now: Timestamp) -> Vec<MarketCommand> {
        let mut said = Vec::new();
        while let Some((&(at, lease), &saying)) =
            self.workers.first_key_value().filter(|((at, _), _)| *at <= now)
        {
            self.workers.remove(&(at, lease));
            if self.servers.values().all(|server| server.lease != Some(lease)) {
                continue;
            }
            let Some(id) = self.id() else { continue };
            let later = |milliseconds: u64| now.plus_micros((milliseconds * 1_000) as i64);
            let leases = vec![lease];
            said.push(match saying {
                Saying::Ready | Saying::ReadyStill | Saying::ReadyAgain => {
                    if self.chance.permille(self.habits.dies_permille) {
                        let at = later(self.chance.between(5_000, 200_000));
                        self.workers.insert((at, lease), Saying::Dead);
                    } else if saying == Saying::Ready {
                        self.workers.insert((later(AGAIN_MILLISECONDS), lease), Saying::ReadyStill);
                    }
                    MarketCommand::ReportReady(ReportReady { id, leases })
                }
                Saying::Dead => {
                    if self.chance.permille(500) {
                        let at = later(self.chance.between(5_000, 200_000));
                        self.workers.insert((at, lease), Saying::ReadyAgain);
                    }
                    let ago = self.chance.between(0, 30_000) * 1_000;
                    let last_heartbeat_at = now.plus_micros(-(ago as i64));
                    MarketCommand::ReportDead(ReportDead { id, leases, last_heartbeat_at })
                }
            });
        }
        said
    }
}
