//! The parts of every change: serving who waits, charging, leaving a server.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use proto::market::{LeaseNumber, MarketNumber};

use super::facts::{Award, Charge, Fact, Suit};
use super::{Lease, ServerNumber, Servers};

impl Servers {
    /// Gives free servers to those that wait. Each turn serves one.
    pub(super) fn serve(&mut self, market: MarketNumber, facts: &mut Vec<Fact>) {
        while let Some(turn) = self.waiting.get(&market).and_then(BTreeSet::first).copied() {
            let Some(lease) = self.leases.get(&turn.lease).copied() else { return };
            let Some(suit) = self.suit(&lease.award) else { return };
            if let Some(waiting) = self.waiting.get_mut(&market) {
                waiting.remove(&turn);
            }
            self.unset_free(suit.server);
            if let Some(server) = self.servers.get_mut(&suit.server) {
                server.lease = Some(turn.lease);
            }
            if let Some(lease) = self.leases.get_mut(&turn.lease) {
                lease.server = Some(suit.server);
            }
            *self.held.entry((lease.award.tenant, suit.hypervisor)).or_insert(0) += 1;
            facts.push(Fact::Assigned { lease: turn.lease, server: suit.server, replaces: lease.leaving });
        }
    }

    /// The free server that suits a lease best.
    fn suit(&self, award: &Award) -> Option<Suit> {
        let free = self.free.get(&award.market)?;
        let suits = free.iter().filter_map(|(hypervisor, servers)| {
            let tenant_leases = self.held.get(&(award.tenant, *hypervisor)).copied().unwrap_or(0);
            Some(Suit { tenant_leases, hypervisor: *hypervisor, server: *servers.first()? })
        });
        suits.min()
    }

    pub(super) fn charge_of(&self, lease: &Lease) -> Charge {
        let on = lease.leaving.or(lease.server).and_then(|server| self.servers.get(&server));
        let gone_at = on.and_then(|server| self.hypervisors.get(&server.hypervisor)?.gone_at);
        let (stays, served) = (gone_at.is_none(), lease.server.is_some());
        Charge { stays, gone_at, served, turn: Reverse(lease.award.turn()) }
    }

    /// Queues a lease for a server, unless it has one that stays, or ends.
    pub(super) fn wait(&mut self, number: LeaseNumber) {
        if let Some(lease) = self.leases.get(&number).filter(|lease| lease.server.is_none() && !lease.ends) {
            self.waiting.entry(lease.award.market).or_default().insert(lease.award.turn());
        }
    }

    /// A lease that waits for nothing any more, and gives back what it does not use yet.
    pub(super) fn end(&mut self, number: LeaseNumber) {
        let Some(lease) = self.leases.get_mut(&number) else { return };
        lease.ends = true;
        let lease = *lease;
        let (bid, market) = (lease.award.bid, lease.award.market);
        if let Some(waiting) = self.waiting.get_mut(&market) {
            waiting.remove(&lease.award.turn());
        }
        if let (Some(unused), Some(_)) = (lease.server, lease.leaving) {
            self.leave_server(number, unused);
        }
        if let Some(leases) = self.of_bid.get_mut(&(bid, market)) {
            leases.remove(&number);
            if leases.is_empty() {
                self.of_bid.remove(&(bid, market));
            }
        }
    }

    pub(super) fn forget(&mut self, number: LeaseNumber) {
        self.end(number);
        self.leases.remove(&number);
    }

    /// Takes a lease off a server, which is free then if its hypervisor stays.
    pub(super) fn leave_server(&mut self, number: LeaseNumber, left: ServerNumber) {
        let Some(server) = self.servers.get_mut(&left).filter(|server| server.lease == Some(number)) else {
            return;
        };
        server.lease = None;
        let hypervisor = server.hypervisor;
        let Some(lease) = self.leases.get_mut(&number) else { return };
        lease.server = lease.server.filter(|server| *server != left);
        lease.leaving = lease.leaving.filter(|server| *server != left);
        let key = (lease.award.tenant, hypervisor);
        if let Some(held) = self.held.get_mut(&key) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(&key);
            }
        }
        if self.hypervisors.get(&hypervisor).is_some_and(|hypervisor| hypervisor.gone_at.is_none()) {
            self.set_free(left);
        }
    }

    pub(super) fn set_free(&mut self, number: ServerNumber) {
        if let Some(server) = self.servers.get(&number) {
            self.free.entry(server.market).or_default().entry(server.hypervisor).or_default().insert(number);
        }
    }

    pub(super) fn unset_free(&mut self, number: ServerNumber) {
        let Some(server) = self.servers.get(&number) else { return };
        let Some(hypervisors) = self.free.get_mut(&server.market) else { return };
        if let Some(free) = hypervisors.get_mut(&server.hypervisor) {
            free.remove(&number);
            if free.is_empty() {
                hypervisors.remove(&server.hypervisor);
            }
        }
    }
}
