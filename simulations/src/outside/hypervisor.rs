//! Hypervisors: their supply wanders, fails, leaves with notice and comes back; workers on their servers become ready,
//! die, come back or do not.

use std::collections::BTreeMap;

use proto::machine::{Role, Sender};
use proto::market::{
    LeaseNumber, LeaseSpan, MarketCommand, ReportDead, ReportReady, SupplyCause, SupplyOffered,
};
use proto::{PrincipalId, SourceId, Timestamp};

use super::Listing;
use crate::chance::Chance;

/// Workers that a hypervisor keeps in mind; of more it says nothing.
const WORKERS_MAX: usize = 10_000;

/// How a hypervisor behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HypervisorHabits {
    /// Most servers it has in one market.
    pub units_max: u32,
    /// Mean time between two of its statements, in milliseconds.
    pub interval_milliseconds: u64,
    /// Of a thousand statements, how many say that a host leaves sooner than a notice lasts.
    pub host_leaves_permille: u64,
    /// Of a thousand statements, how many are sent again although they are known or old.
    pub repeats_permille: u64,
    /// Most time that a server takes until its worker is ready, in milliseconds.
    pub boot_milliseconds_max: u64,
    /// Of a thousand workers, how many die; half of those come back.
    pub dies_permille: u64,
}

impl Default for HypervisorHabits {
    fn default() -> Self {
        Self {
            units_max: 24,
            interval_milliseconds: 4_000,
            host_leaves_permille: 80,
            repeats_permille: 50,
            boot_milliseconds_max: 40_000,
            dies_permille: 100,
        }
    }
}

/// One market as a hypervisor serves it.
#[derive(Clone, Debug)]
struct Offer {
    listing: Listing,
    units: u32,
    generation: u64,
    last: Option<MarketCommand>,
}

/// What a hypervisor will say of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Saying {
    Ready,
    Dead,
    ReadyAgain,
}

/// A hypervisor.
#[derive(Clone, Debug)]
pub struct Hypervisor {
    principal: PrincipalId,
    habits: HypervisorHabits,
    chance: Chance,
    offers: Vec<Offer>,
    /// What it will say of workers, by when.
    workers: BTreeMap<(Timestamp, LeaseNumber), Saying>,
    next_at: Timestamp,
    commands: u64,
    run: String,
}

impl Hypervisor {
    /// A hypervisor that serves these markets from `start` on. `run` makes its command ids differ from those of
    /// an earlier life; `generation` must be above every one it has used.
    pub fn new(
        principal: PrincipalId,
        listings: &[Listing],
        habits: HypervisorHabits,
        run: &str,
        generation: u64,
        start: Timestamp,
        chance: Chance,
    ) -> Self {
        let offers = listings
            .iter()
            .map(|listing| Offer { listing: listing.clone(), units: 0, generation, last: None })
            .collect();
        let (workers, run) = (BTreeMap::new(), run.to_owned());
        Self { principal, habits, chance, offers, workers, next_at: start, commands: 0, run }
    }

    /// Who it is.
    pub fn sender(&self) -> Sender {
        Sender { role: Role::Hypervisor, principal: self.principal.clone() }
    }

    /// When it next does something.
    pub fn next_at(&self) -> Timestamp {
        self.workers.first_key_value().map_or(self.next_at, |(&(at, _), _)| at.min(self.next_at))
    }

    /// Leases were granted that will have servers of its; where all are still occupied, by an instant.
    pub fn grant(&mut self, now: Timestamp, leases: LeaseSpan, available_by: Option<Timestamp>) {
        for lease in leases.first..leases.end() {
            if self.workers.len() >= WORKERS_MAX {
                return;
            }
            let boot = self.chance.between(1, self.habits.boot_milliseconds_max.max(1));
            let from = available_by.map_or(now, |by| by.max(now));
            self.workers.insert((from.plus_micros((boot * 1_000) as i64), lease), Saying::Ready);
        }
    }

    /// What it says of workers at `now`. A lease that is over, or still waits, is refused; then it says no more of it.
    fn report(&mut self, now: Timestamp) -> Vec<MarketCommand> {
        let mut said = Vec::new();
        while let Some((&(at, lease), &saying)) =
            self.workers.first_key_value().filter(|((at, _), _)| *at <= now)
        {
            self.workers.remove(&(at, lease));
            self.commands += 1;
            let Ok(id) = format!("{}-{}-{}", self.principal, self.run, self.commands).parse() else {
                continue;
            };
            let leases = vec![lease];
            let later = now.plus_micros((self.chance.between(5_000, 200_000) * 1_000) as i64);
            said.push(match saying {
                Saying::Ready | Saying::ReadyAgain => {
                    if self.chance.permille(self.habits.dies_permille) {
                        self.workers.insert((later, lease), Saying::Dead);
                    }
                    MarketCommand::ReportReady(ReportReady { id, leases })
                }
                Saying::Dead => {
                    if self.chance.permille(500) {
                        self.workers.insert((later, lease), Saying::ReadyAgain);
                    }
                    let ago = self.chance.between(0, 30_000) * 1_000;
                    let last_heartbeat_at = now.plus_micros(-(ago as i64));
                    MarketCommand::ReportDead(ReportDead { id, leases, last_heartbeat_at })
                }
            });
        }
        said
    }

    /// What it says at `now`: nothing before [`Hypervisor::next_at`].
    pub fn act(&mut self, now: Timestamp) -> Vec<MarketCommand> {
        let mut said = self.report(now);
        if self.next_at <= now {
            said.extend(self.offer(now));
        }
        said
    }

    fn offer(&mut self, now: Timestamp) -> Vec<MarketCommand> {
        let fresh: Vec<usize> = (0..self.offers.len()).filter(|&at| self.offers[at].last.is_none()).collect();
        if !fresh.is_empty() {
            return fresh.into_iter().filter_map(|at| self.open(at)).collect();
        }
        let pause = self.chance.between(1, self.habits.interval_milliseconds.saturating_mul(2).max(1));
        self.next_at = now.plus_micros((pause * 1_000) as i64);
        let at = self.chance.below(self.offers.len() as u64) as usize;
        if self.chance.permille(self.habits.repeats_permille) {
            return self.offers.get(at).and_then(|offer| offer.last.clone()).into_iter().collect();
        }
        self.change(at, now).into_iter().collect()
    }

    fn open(&mut self, at: usize) -> Option<MarketCommand> {
        let units =
            self.chance.between(u64::from(self.habits.units_max) / 3, u64::from(self.habits.units_max));
        self.state(at, units as u32, SupplyCause::Ready, None)
    }

    fn change(&mut self, at: usize, now: Timestamp) -> Option<MarketCommand> {
        let (units, most) = (self.offers.get(at)?.units, self.habits.units_max);
        if self.chance.permille(self.habits.host_leaves_permille) && units > 0 {
            let leaving = self.chance.between(1, u64::from(units)) as u32;
            let seconds = self.chance.between(5, 300) as u32;
            return self.state(at, units - leaving, SupplyCause::Host, Some(now.plus_seconds(seconds)));
        }
        let step = self.chance.between(1, u64::from(most / 8).max(1)) as u32;
        // Pulled back to two thirds of its room, so that a market is neither starved nor drowned for long.
        let grows = self.chance.below(u64::from(most)) >= u64::from(units) * 2 / 3;
        let (units, cause) = if grows {
            (units.saturating_add(step).min(most), SupplyCause::Ready)
        } else {
            (units.saturating_sub(step), SupplyCause::Failed)
        };
        self.state(at, units, cause, None)
    }

    fn state(
        &mut self,
        at: usize,
        units: u32,
        cause: SupplyCause,
        gone_at: Option<Timestamp>,
    ) -> Option<MarketCommand> {
        self.commands += 1;
        let id = format!("{}-{}-{}", self.principal, self.run, self.commands).parse().ok()?;
        let source: SourceId = self.principal.as_str().parse().ok()?;
        let offer = self.offers.get_mut(at)?;
        offer.units = units;
        offer.generation += 1;
        let command = MarketCommand::SupplyOffered(SupplyOffered {
            id,
            source,
            generation: offer.generation,
            market: offer.listing.market.clone(),
            units,
            cause,
            gone_at,
            lost: Vec::new(),
        });
        offer.last = Some(command.clone());
        Some(command)
    }
}
