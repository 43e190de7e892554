//! Every invariant that can be seen in one state.

use std::collections::BTreeSet;

use proto::machine::Broken;

use super::Placement;
use super::due::{Due, Timers};
use super::record::PlaneRecord;

fn hold(is_so: bool, invariant: &'static str, details: impl FnOnce() -> String) -> Result<(), Broken> {
    if is_so { Ok(()) } else { Err(Broken { invariant, details: details() }) }
}

impl Placement {
    /// Checks everything. What takes long is for tests and simulation.
    pub(super) fn check_all(&self) -> Result<(), Broken> {
        self.fault.clone().map_or(Ok(()), Err)?;
        for plane in self.planes.values() {
            self.check_plane(plane)?;
        }
        self.check_hosts()?;
        self.check_moves()?;
        self.servers.check().map_err(|details| Broken { invariant: "I2", details })?;
        let followed = |plane: &PlaneRecord| self.bids.values().filter(|of| **of == plane.number).count();
        let miscounted = self.planes.values().find(|plane| plane.bids as usize != followed(plane));
        hold(miscounted.is_none(), "I2", || format!("bids of {miscounted:?} are counted wrongly"))?;
        hold(self.timers == self.timers_anew(), "I7", || "timers are not what the state says".to_owned())?;
        let (kept, anew) = (self.state_hash(), self.state_hash_anew());
        hold(kept == anew, "I7", || format!("the hash is {kept:?}, worked out anew {anew:?}"))
    }

    fn check_plane(&self, plane: &PlaneRecord) -> Result<(), Broken> {
        let number = plane.number;
        let known = self.plane_named(&plane.tenant, &plane.cluster).map(|named| named.number);
        let by_ord = self.plane_ords.get(&plane.ord).copied();
        hold(known == Some(number) && by_ord == Some(number), "I2", || {
            format!("plane {number} is misnamed")
        })?;
        let terms = self.site.terms(plane.ord);
        hold(terms == Some(&self.plane_terms(plane)), "I2", || {
            format!("plane {number} has other terms in the site")
        })?;
        let on = self.site.on(plane.ord);
        let hosts: BTreeSet<_> = on.iter().collect();
        hold(hosts.len() == on.len(), "I9", || format!("plane {number} has two replicas on one host"))?;
        let wanted = plane.replicas(&self.rules) as usize;
        hold(on.len() <= wanted, "I2", || format!("plane {number} has {} of {wanted} replicas", on.len()))?;
        let is_short = on.len() < wanted;
        hold(!is_short || plane.risk.is_some() || self.is_unsettled, "I9", || {
            format!("plane {number} lacks a replica, and nobody was told")
        })?;
        let order = self.order_of(plane);
        hold(plane.order == order || self.stale.contains(&number), "I11", || {
            format!("plane {number} is ordered as {:?}, and is to be {order:?}", plane.order)
        })
    }

    fn check_hosts(&self) -> Result<(), Broken> {
        for host in self.hosts.values() {
            let (number, ord) = (host.number, host.ord);
            let by_name = self.host_names.get(&host.id).copied();
            let by_ord = self.host_ords.get(&ord).copied();
            hold(by_name == Some(number) && by_ord == Some(number), "I2", || {
                format!("host {number} is misnamed")
            })?;
            hold(self.site.gone_at(ord) == host.gone_at, "I2", || {
                format!("host {number} goes at another time")
            })?;
            let Some(room) = self.site.room(ord) else { continue };
            // A host that holds too much has what was there before, and that is at risk or has somewhere to go.
            let is_over = room.iter().any(|room| *room < 0);
            let is_told = self
                .site
                .planes_on(ord)
                .iter()
                .any(|plane| self.plane_of(*plane).is_some_and(|plane| plane.risk.is_some()));
            hold(!is_over || is_told || self.is_unsettled || host.gone_at.is_some(), "I2", || {
                format!("host {number} holds too much: {room:?}")
            })?;
        }
        Ok(())
    }

    fn check_moves(&self) -> Result<(), Broken> {
        for step in self.rollout.steps() {
            let number = step.number;
            let is_known = self.plane_of(step.plane).is_some() && self.host_ords.contains_key(&step.to);
            hold(is_known, "I2", || format!("move {number} is of nobody, or leads nowhere"))?;
            let leads_on =
                |next: &crate::rollout::Step| next.plane == step.plane && next.from == Some(step.to);
            let belongs = self.site.on(step.plane).contains(&step.to) || self.rollout.steps().any(leads_on);
            hold(belongs, "I2", || format!("move {number} leads where its plane does not belong"))?;
            hold(step.begun == self.begun.contains_key(&number), "I2", || {
                format!("move {number} has begun, or not, and it is not known when")
            })?;
        }
        let moving = self.rollout.steps().filter(|step| step.begun && step.from.is_some());
        let moving: Vec<_> = moving.map(|step| step.plane).collect();
        let planes: BTreeSet<_> = moving.iter().collect();
        hold(planes.len() == moving.len(), "I9", || "two replicas of one plane move at once".to_owned())
    }

    fn timers_anew(&self) -> Timers {
        let mut anew = self.clone();
        anew.timers = Timers::default();
        for number in self.planes.keys() {
            anew.time_plane(*number);
        }
        for host in self.hosts.values() {
            anew.timers.set(Due::Gone(host.number), host.gone_at);
        }
        for number in self.begun.keys() {
            anew.time_move(*number);
        }
        anew.time_advice();
        anew.time_servers();
        anew.timers
    }
}
