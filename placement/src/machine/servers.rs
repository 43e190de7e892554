//! Deciding what is said of servers, and what follows for exchanges and hypervisors.

use std::collections::BTreeMap;

use proto::envelope::RefusalReason;
use proto::machine::{Role, Sender};
use proto::market::{LeaseNumber, SupplyCause};
use proto::placement::{
    GoneCause, KeepServers, NoticeServers, OfferServers, PlacementEvent, ReportServersGone,
    SERVERS_NAMED_MAX, ServerNumber,
};
use proto::{PrincipalId, ServerId, Timestamp};

use super::bounds::{DUE_MAX, LOST_MAX};
use super::due::Due;
use super::refuse::{Checked, refuse, within};
use super::{Events, Placement};
use crate::servers::{HYPERVISOR_SERVERS_MAX, HYPERVISORS_MAX, MARKETS_MAX, SERVERS_MAX};

/// Why supply is what it is, when servers are gone that it no longer counts, and leases that are lost with them.
#[derive(Clone, Debug, Default)]
pub(super) struct Because {
    pub(super) cause: SupplyCause,
    pub(super) gone_at: Option<Timestamp>,
    pub(super) lost: BTreeMap<(u32, u32), Vec<LeaseNumber>>,
}

impl Because {
    const fn of(cause: SupplyCause, gone_at: Option<Timestamp>) -> Self {
        Self { cause, gone_at, lost: BTreeMap::new() }
    }
}

impl Placement {
    /// Lets an event about servers take effect.
    pub(super) fn servers_affected(&mut self, event: &PlacementEvent) {
        use PlacementEvent as Event;
        match event {
            Event::ServersOffered { hypervisor, market, first, servers, again } => {
                self.servers.add(hypervisor, market, *first, servers, again);
            }
            Event::ServersNoticed { servers, gone_at, .. } => self.servers.leave(servers, Some(*gone_at)),
            Event::ServersKept { servers } => self.servers.leave(servers, None),
            Event::ServersGone { servers, .. } => self.servers.remove(servers),
            Event::LeaseDisplaced { exchange, lease, .. } => self.servers.displaced_told(exchange, *lease),
            Event::LeaseUnserved { exchange, lease } => self.servers.unserved_told(exchange, *lease),
            Event::SupplyStated { hypervisor, market, generation, units, .. } => {
                self.servers.supply_told(hypervisor, market, *generation, *units);
            }
            Event::ServerOrdered { server, generation, order } => {
                self.servers.ordered(*server, *generation, order);
            }
            _ => {}
        }
        self.time_servers();
    }

    /// Sets the timer of servers that go.
    pub(super) fn time_servers(&mut self) {
        self.timers.set(Due::Servers, self.servers.next_gone_at());
    }

    pub(super) fn offer_servers(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        asked: &OfferServers,
        events: &mut Events,
    ) -> Checked<()> {
        let OfferServers { hypervisor, market, servers, .. } = asked;
        speaks_for(sender, hypervisor)?;
        within("servers", servers.len() as u64, 1, SERVERS_NAMED_MAX as u64)?;
        check_once(servers)?;
        let (mut new, mut again) = (Vec::new(), Vec::new());
        for (place, name) in servers.iter().enumerate() {
            let Some(number) = self.servers.find(hypervisor, name) else {
                new.push(name.clone());
                continue;
            };
            let field = || format!("servers[{place}]");
            if let Some(sold_in) = self.servers.market_of(number).filter(|sold_in| *sold_in != market) {
                let problem = format!("this server is in {sold_in}");
                return refuse(RefusalReason::Duplicate, field(), name, problem);
            }
            if self.servers.gone_at(number).is_some() {
                let problem = "this server goes; keep it (KeepServers) before offering it again";
                return refuse(RefusalReason::NotAllowed, field(), name, problem);
            }
            again.push(number);
        }
        self.check_room(hypervisor, new.len())?;
        let (hypervisor, market) = (hypervisor.clone(), market.clone());
        let first = self.servers.next_number();
        self.emit(
            now,
            PlacementEvent::ServersOffered { hypervisor, market, first, servers: new, again },
            events,
        );
        self.settle_servers(now, &Because::of(SupplyCause::Ready, None), events);
        Ok(())
    }

    fn check_room(&self, hypervisor: &PrincipalId, new: usize) -> Checked<()> {
        let [servers, hypervisors, markets, _] = self.servers.counts();
        let theirs = self.servers.all_of(hypervisor).len();
        for (count, most, what) in [
            (servers + new, SERVERS_MAX, "servers"),
            (theirs + new, HYPERVISOR_SERVERS_MAX, "servers of one hypervisor"),
            (hypervisors + 1, HYPERVISORS_MAX, "hypervisors"),
            (markets + 1, MARKETS_MAX, "markets"),
        ] {
            if count > most {
                let problem = format!("at most {most} {what}");
                return refuse(RefusalReason::LimitReached, "servers", new, problem);
            }
        }
        Ok(())
    }

    pub(super) fn notice_servers(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        asked: &NoticeServers,
        events: &mut Events,
    ) -> Checked<()> {
        let gone_at = asked.gone_at;
        let mut servers = self.servers_named(sender, &asked.hypervisor, &asked.servers)?;
        if gone_at <= now {
            self.lose_servers(now, servers, GoneCause::NoticeEnded, events);
            return Ok(());
        }
        // What goes sooner already goes sooner.
        servers.retain(|number| self.servers.gone_at(*number).is_none_or(|stands| gone_at < stands));
        let displaced = self.servers.outlasting(&servers, gone_at);
        let leased = displaced.len() as u32;
        self.emit(now, PlacementEvent::ServersNoticed { servers, gone_at, leased }, events);
        // Before the exchange hears of fewer servers: it takes units from bids, and first those that leave anyway.
        for (_, exchange, lease) in displaced {
            self.emit(now, PlacementEvent::LeaseDisplaced { exchange, lease, gone_at }, events);
        }
        self.settle_servers(now, &Because::of(SupplyCause::Host, Some(gone_at)), events);
        Ok(())
    }

    pub(super) fn keep_servers(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        asked: &KeepServers,
        events: &mut Events,
    ) -> Checked<()> {
        let mut servers = self.servers_named(sender, &asked.hypervisor, &asked.servers)?;
        servers.retain(|number| self.servers.gone_at(*number).is_some());
        self.emit(now, PlacementEvent::ServersKept { servers }, events);
        self.settle_servers(now, &Because::of(SupplyCause::Ready, None), events);
        Ok(())
    }

    pub(super) fn servers_gone(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        asked: &ReportServersGone,
        events: &mut Events,
    ) -> Checked<()> {
        let servers = if asked.servers.is_empty() {
            self.servers_named(sender, &asked.hypervisor, &[])?
        } else {
            // What is not known is gone already.
            speaks_for(sender, &asked.hypervisor)?;
            within("servers", asked.servers.len() as u64, 1, SERVERS_NAMED_MAX as u64)?;
            check_once(&asked.servers)?;
            asked.servers.iter().filter_map(|name| self.servers.find(&asked.hypervisor, name)).collect()
        };
        let had_notice = servers.iter().all(|number| self.servers.gone_at(*number).is_some());
        let cause = if had_notice { GoneCause::Left } else { GoneCause::Died };
        self.lose_servers(now, servers, cause, events);
        Ok(())
    }

    /// Servers whose notice is over are gone.
    pub(super) fn servers_due(&mut self, now: Timestamp, events: &mut Events) {
        let servers = self.servers.gone_by(now, DUE_MAX);
        self.lose_servers(now, servers, GoneCause::NoticeEnded, events);
    }

    fn lose_servers(
        &mut self,
        now: Timestamp,
        servers: Vec<ServerNumber>,
        cause: GoneCause,
        events: &mut Events,
    ) {
        let mut because = Because::of(SupplyCause::Failed, None);
        let outlasting = self.servers.outlasting(&servers, now);
        let lost = outlasting.len() as u32;
        for (number, _, lease) in outlasting {
            if let Some(offer) = self.servers.offer_of(number) {
                because.lost.entry(offer).or_default().push(lease);
            }
        }
        self.emit(now, PlacementEvent::ServersGone { servers, cause, lost }, events);
        self.settle_servers(now, &because, events);
    }

    /// The servers that a command names: those of the hypervisor, or all of them if none is named.
    fn servers_named(
        &self,
        sender: &Sender,
        hypervisor: &PrincipalId,
        named: &[ServerId],
    ) -> Checked<Vec<ServerNumber>> {
        speaks_for(sender, hypervisor)?;
        within("servers", named.len() as u64, 0, SERVERS_NAMED_MAX as u64)?;
        check_once(named)?;
        if named.is_empty() {
            let all = self.servers.all_of(hypervisor);
            if all.is_empty() {
                let problem = "this hypervisor has no servers here";
                return refuse(RefusalReason::Unknown, "hypervisor", hypervisor, problem);
            }
            return Ok(all);
        }
        let number = |(place, name): (usize, &ServerId)| {
            self.servers.find(hypervisor, name).ok_or(()).or_else(|()| {
                let problem = "the hypervisor has no such server";
                refuse(RefusalReason::Unknown, format!("servers[{place}]"), name, problem)
            })
        };
        named.iter().enumerate().map(number).collect()
    }

    /// Decides what follows of anything that happened to servers and leases: exchanges are told what there is and what is
    /// over, who waits is served, hypervisors get their orders.
    pub(super) fn settle_servers(&mut self, now: Timestamp, because: &Because, events: &mut Events) {
        let mut offers = self.servers.take_dirty();
        offers.extend(because.lost.keys().copied());
        offers.sort_unstable();
        offers.dedup();
        for offer in offers {
            self.state_supply(now, offer, because, events);
        }
        for (exchange, lease, gone_at) in self.servers.displaced() {
            self.emit(now, PlacementEvent::LeaseDisplaced { exchange, lease, gone_at }, events);
        }
        for (exchange, lease) in self.servers.unserved() {
            self.emit(now, PlacementEvent::LeaseUnserved { exchange, lease }, events);
        }
        while let Some((key, server)) = self.servers.next_served() {
            let Some(order) = self.servers.order_to_serve(key) else {
                self.broke("I2", format!("lease {key:?} cannot be named"));
                break;
            };
            let generation = self.servers.next_generation();
            self.emit(now, PlacementEvent::ServerOrdered { server, generation, order }, events);
            if self.servers.is_waiting(key) {
                self.broke("I2", format!("lease {key:?} does not get server {server}"));
                break;
            }
        }
        while let Some((server, order)) = self.servers.next_order() {
            let generation = self.servers.next_generation();
            self.emit(now, PlacementEvent::ServerOrdered { server, generation, order }, events);
        }
    }

    /// Tells an exchange what a hypervisor has in a market, if that is news.
    fn state_supply(&mut self, now: Timestamp, offer: (u32, u32), because: &Because, events: &mut Events) {
        let Some(supply) = self.servers.supply(offer) else { return };
        let lost = because.lost.get(&offer).map(Vec::as_slice).unwrap_or_default();
        if !supply.is_news && lost.is_empty() {
            return;
        }
        let mut generation = supply.generation;
        let mut pieces: Vec<&[LeaseNumber]> = lost.chunks(LOST_MAX).collect();
        if pieces.is_empty() {
            pieces.push(&[]);
        }
        for lost in pieces {
            // Above whatever the hypervisor has said to the exchange itself before: that counts up from instants, too.
            generation = (generation + 1).max(now.micros().unsigned_abs());
            let event = PlacementEvent::SupplyStated {
                exchange: supply.exchange.clone(),
                market: supply.market.clone(),
                hypervisor: supply.hypervisor.clone(),
                generation,
                units: supply.units,
                cause: because.cause,
                gone_at: because.gone_at,
                lost: lost.to_vec(),
            };
            self.emit(now, event, events);
        }
    }
}

fn speaks_for(sender: &Sender, hypervisor: &PrincipalId) -> Checked<()> {
    if sender.role != Role::Hypervisor || sender.principal == *hypervisor {
        return Ok(());
    }
    let problem = format!("the hypervisor {} speaks for itself only", sender.principal);
    refuse(RefusalReason::NotAllowed, "hypervisor", hypervisor, problem)
}

fn check_once(named: &[ServerId]) -> Checked<()> {
    let mut seen = std::collections::BTreeSet::new();
    match named.iter().enumerate().find(|(_, name)| !seen.insert(*name)) {
        Some((place, name)) => {
            refuse(RefusalReason::Duplicate, format!("servers[{place}]"), name, "stands twice")
        }
        None => Ok(()),
    }
}
