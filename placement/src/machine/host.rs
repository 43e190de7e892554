//! Deciding what is said of hosts and data stores.

use proto::envelope::RefusalReason;
use proto::machine::{Role, Sender};
use proto::placement::{
    GoneCause, HostTerms, KeepHost, NoticeHost, OfferDataStore, OfferHost, PlacementEvent, ReportHostGone,
    TAINTS_MAX,
};
use proto::{HostId, Timestamp};

use super::bounds::{DATA_STORES_MAX, HOSTS_MAX, NAMES_MAX};
use super::record::HostRecord;
use super::refuse::{Checked, refuse, within};
use super::{Events, Placement};

impl Placement {
    pub(super) fn offer_host(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        asked: &OfferHost,
        events: &mut Events,
    ) -> Checked<()> {
        let mut terms = asked.terms.clone();
        if sender.role == Role::Hypervisor {
            if terms.hypervisor.as_ref().is_some_and(|named| *named != sender.principal) {
                let problem = "a hypervisor offers hosts of its own";
                let named = terms.hypervisor.as_ref().map_or("", |named| named.as_str());
                return refuse(RefusalReason::NotAllowed, "terms.hypervisor", named, problem);
            }
            terms.hypervisor = Some(sender.principal.clone());
        }
        let known = self.host_named(&asked.host);
        if let Some(host) = known {
            if sender.role == Role::Hypervisor && host.terms.hypervisor.as_ref() != Some(&sender.principal) {
                let problem = "a host of this name is another's";
                return refuse(RefusalReason::NotAllowed, "host", &asked.host, problem);
            }
            if asked.generation <= host.generation {
                let problem = format!("{} is known", host.generation);
                return refuse(RefusalReason::Stale, "generation", asked.generation, problem);
            }
        } else if self.hosts.len() >= HOSTS_MAX {
            let problem = format!("a site has at most {HOSTS_MAX} hosts");
            return refuse(RefusalReason::LimitReached, "host", &asked.host, problem);
        }
        self.check_host_terms(&terms)?;
        let number = known.map_or(self.next.host, |host| host.number);
        let (id, generation) = (asked.host.clone(), asked.generation);
        self.emit(now, PlacementEvent::HostOffered { host: number, id, generation, terms }, events);
        Ok(())
    }

    fn check_host_terms(&self, terms: &HostTerms) -> Checked<()> {
        within("terms.taints", terms.taints.len() as u64, 0, TAINTS_MAX as u64)?;
        let full = |field: &str, value: &dyn ToString| {
            let problem = format!("hosts of a site have at most {NAMES_MAX} different ones");
            refuse(RefusalReason::LimitReached, field, value.to_string(), problem)
        };
        if !self.zones.contains(&terms.zone) && self.zones.len() >= NAMES_MAX {
            return full("terms.zone", &terms.zone);
        }
        if !self.regions.contains(&terms.region) && self.regions.len() >= NAMES_MAX {
            return full("terms.region", &terms.region);
        }
        let new: std::collections::BTreeSet<_> =
            terms.taints.iter().filter(|taint| !self.taints.contains(taint)).collect();
        if let Some(taint) = new.first().filter(|_| self.taints.len() + new.len() > NAMES_MAX) {
            return full("terms.taints", taint);
        }
        self.site.check_host(&self.host_terms(terms)).or_else(|error| {
            refuse(RefusalReason::OutOfRange, "terms.capacity", &terms.zone, error.to_string())
        })
    }

    pub(super) fn notice(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        asked: &NoticeHost,
        events: &mut Events,
    ) -> Checked<()> {
        let host = self.host_of(sender, &asked.host)?;
        // A notice that says nothing new is answered with what stands.
        let gone_at = host.gone_at.map_or(asked.gone_at, |stands| stands.min(asked.gone_at));
        let (number, ord) = (host.number, host.ord);
        let replicas = self.site.planes_on(ord).len() as u32;
        self.emit(now, PlacementEvent::HostNoticed { host: number, gone_at, replicas }, events);
        if gone_at <= now {
            self.lose_host(now, number, GoneCause::NoticeEnded, events);
        }
        Ok(())
    }

    pub(super) fn keep(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        asked: &KeepHost,
        events: &mut Events,
    ) -> Checked<()> {
        let host = self.host_of(sender, &asked.host)?.number;
        self.emit(now, PlacementEvent::HostKept { host }, events);
        Ok(())
    }

    pub(super) fn host_gone(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        asked: &ReportHostGone,
        events: &mut Events,
    ) -> Checked<()> {
        let host = self.host_of(sender, &asked.host)?;
        let cause = if host.gone_at.is_some() { GoneCause::Left } else { GoneCause::Died };
        let number = host.number;
        self.lose_host(now, number, cause, events);
        Ok(())
    }

    /// Says that a host is gone, with how many replicas really were on it: those that were to leave it still, too.
    pub(super) fn lose_host(&mut self, now: Timestamp, host: u64, cause: GoneCause, events: &mut Events) {
        let Some(record) = self.hosts.get(&host) else { return };
        let leaving = self.rollout.steps().filter(|step| step.from == Some(record.ord)).count();
        let coming = self.rollout.steps().filter(|step| step.to == record.ord && !step.begun).count();
        let lost = (self.site.planes_on(record.ord).len() + leaving).saturating_sub(coming) as u32;
        self.emit(now, PlacementEvent::HostGone { host, cause, lost }, events);
    }

    /// A host of which the sender may speak. Another hypervisor's is as unknown as none.
    fn host_of(&self, sender: &Sender, id: &HostId) -> Checked<&HostRecord> {
        let is_theirs = |host: &&HostRecord| {
            sender.role != Role::Hypervisor || host.terms.hypervisor.as_ref() == Some(&sender.principal)
        };
        match self.host_named(id).filter(is_theirs) {
            Some(host) => Ok(host),
            None => refuse(RefusalReason::Unknown, "host", id, "no such host is known"),
        }
    }

    pub(super) fn offer_store(
        &mut self,
        now: Timestamp,
        asked: &OfferDataStore,
        events: &mut Events,
    ) -> Checked<()> {
        let OfferDataStore { data_store, generation, terms, .. } = asked;
        match self.stores.get(data_store) {
            Some(store) if *generation <= store.generation => {
                let problem = format!("{} is known", store.generation);
                return refuse(RefusalReason::Stale, "generation", generation, problem);
            }
            Some(store) if store.terms.driver != terms.driver => {
                let problem = format!("this data store is {}", store.terms.driver.word());
                return refuse(RefusalReason::Unsupported, "terms.driver", terms.driver.word(), problem);
            }
            None if self.stores.len() >= DATA_STORES_MAX => {
                let problem = format!("a site has at most {DATA_STORES_MAX} data stores");
                return refuse(RefusalReason::LimitReached, "data_store", data_store, problem);
            }
            _ => {}
        }
        let (data_store, generation, terms) = (data_store.clone(), *generation, terms.clone());
        self.emit(now, PlacementEvent::DataStoreOffered { data_store, generation, terms }, events);
        Ok(())
    }
}
