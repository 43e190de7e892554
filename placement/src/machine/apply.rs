//! Events taking effect: the only way in which the state changes.

use proto::Timestamp;
use proto::placement::{HostNumber, MoveNumber, PlacementEvent, PlaneMove, PlaneNumber, ReplicaMove};

use super::Placement;
use super::bounds::ADVICE_PAUSE_MICROSECONDS;
use super::due::Due;
use super::record::{Begun, HostRecord, PlaneRecord, StoreRecord, size_for, size_named, spare_size_for};
use crate::site::Move;

impl Placement {
    /// Lets one event take effect.
    pub(super) fn take_effect(&mut self, at: Timestamp, event: &PlacementEvent) {
        use PlacementEvent as Event;
        match event {
            Event::CommandRefused(_) => {}
            Event::ClusterCreated { .. } => self.cluster_created(at, event),
            Event::ClusterChanged { .. }
            | Event::ClusterDeleted { .. }
            | Event::PlaneGone { .. }
            | Event::PlaneSlept { .. }
            | Event::PlaneWoken { .. }
            | Event::PlaneSized { .. }
            | Event::PlaneSlow { .. }
            | Event::PlaneReported { .. } => self.plane_affected(at, event),
            Event::HostOffered { .. } => self.host_offered(event),
            Event::HostNoticed { host, gone_at, .. } => self.host_leaves(*host, Some(*gone_at)),
            Event::HostKept { host } => self.host_leaves(*host, None),
            Event::HostGone { host, .. } => self.forget_host(*host),
            Event::DataStoreOffered { data_store, generation, terms } => {
                let record = StoreRecord { generation: *generation, terms: terms.clone() };
                self.stores.insert(data_store.clone(), record);
            }
            Event::BidsReported { .. } => self.exchange_reported(at, event),
            Event::ServersOffered { .. }
            | Event::ServersNoticed { .. }
            | Event::ServersKept { .. }
            | Event::ServersGone { .. }
            | Event::LeaseDisplaced { .. }
            | Event::LeaseUnserved { .. }
            | Event::SupplyStated { .. }
            | Event::ServerOrdered { .. } => self.servers_affected(event),
            Event::SiteRulesAdopted { rules } => self.rules_adopted(rules),
            Event::MovesDecided { moves } => self.decided(moves),
            Event::MovesWithdrawn => {
                self.touch_moving();
                self.rollout.restart(&mut self.site);
                self.is_unsettled = true;
            }
            Event::MovesBegun { moves } => self.moves_begun(at, moves),
            Event::MoveDone { number, plane } => {
                self.rollout.done(*number);
                self.move_ended(*number, *plane);
            }
            Event::MoveFailed { number, plane } => {
                self.rollout.failed(*number);
                self.move_ended(*number, *plane);
            }
            Event::PlaneOrdered { plane, generation, order, gone_at } => {
                if let Some(record) = self.planes.get_mut(plane) {
                    record.generation = *generation;
                    record.gone_at = *gone_at;
                    record.order = Some(order.clone());
                }
                self.touched_planes.insert(*plane);
                self.stale.remove(plane);
            }
            Event::PlaneAtRisk { plane, risk } => self.note_risk(*plane, Some(*risk)),
            Event::PlaneSafe { plane } => self.note_risk(*plane, None),
            Event::HostsAdvised { advice } => {
                self.advice.clone_from(advice);
                self.advised_at = Some(at);
                self.wants_advice = false;
                self.timers.set(Due::Advice, None);
            }
        }
    }

    /// Lets an event about one plane take effect.
    fn plane_affected(&mut self, at: Timestamp, event: &PlacementEvent) {
        use PlacementEvent as Event;
        match event {
            Event::ClusterChanged { plane, version, terms, data_store } => {
                self.change_plane(at, *plane, |plane| {
                    plane.version = *version;
                    plane.terms = terms.clone();
                    plane.data_store = data_store.clone();
                });
            }
            Event::ClusterDeleted { plane } => self.change_plane(at, *plane, |plane| plane.is_deleted = true),
            Event::PlaneGone { plane } => self.forget_plane(*plane),
            Event::PlaneSlept { plane } => self.change_plane(at, *plane, |plane| plane.is_asleep = true),
            Event::PlaneWoken { plane } => self.change_plane(at, *plane, |plane| {
                plane.is_asleep = false;
                plane.idle_since = None;
            }),
            Event::PlaneSized { plane, size } => self.change_plane(at, *plane, |plane| {
                plane.size = size.clone();
                plane.shrink_since = None;
            }),
            Event::PlaneSlow { plane, moves } => {
                let was_crowded = self.planes.get(plane).is_some_and(|plane| plane.is_crowded);
                self.want_advice(was_crowded || !moves);
                self.change_plane(at, *plane, |plane| {
                    plane.calmed_at = Some(at);
                    plane.is_crowded = !moves;
                });
            }
            Event::PlaneReported { plane, generation, ready_on, version, workers, slow } => {
                let was_crowded = self.planes.get(plane).is_some_and(|plane| plane.is_crowded);
                self.want_advice(was_crowded && !slow);
                self.change_plane(at, *plane, |plane| {
                    plane.reported = *generation;
                    plane.ready_on.clone_from(ready_on);
                    plane.served = version.or(plane.served);
                    plane.workers = *workers;
                    plane.slow_since = slow.then(|| plane.slow_since.unwrap_or(at));
                    plane.is_crowded &= *slow;
                });
            }
            _ => {}
        }
    }

    fn cluster_created(&mut self, at: Timestamp, event: &PlacementEvent) {
        let PlacementEvent::ClusterCreated { plane: number, by, tenant, cluster, terms, data_store } = event
        else {
            return;
        };
        let (Some(store), Some((_, size))) = (self.stores.get(data_store), size_for(&self.rules, 0)) else {
            self.broke("I2", format!("plane {number} has no data store or size"));
            return;
        };
        let mut record = PlaneRecord {
            number: *number,
            ord: 0,
            by: by.clone(),
            tenant: tenant.clone(),
            cluster: cluster.clone(),
            terms: terms.clone(),
            version: 1,
            data_store: data_store.clone(),
            driver: store.terms.driver,
            size: size.name.clone(),
            is_asleep: false,
            is_deleted: false,
            generation: 0,
            order: None,
            gone_at: None,
            reported: 0,
            ready_on: Vec::new(),
            served: None,
            workers: 0,
            bids: 0,
            idle_since: Some(at),
            slow_since: None,
            calmed_at: None,
            is_crowded: false,
            shrink_since: None,
            risk: None,
            sealed: 0,
        };
        match self.site.add_plane(&self.plane_terms(&record)) {
            Ok(ord) => record.ord = ord,
            Err(error) => {
                self.broke("I2", format!("plane {number}: {error}"));
                return;
            }
        }
        self.next.plane = number + 1;
        self.plane_ords.insert(record.ord, *number);
        self.plane_names.entry(tenant.clone()).or_default().insert(cluster.clone(), *number);
        self.planes.insert(*number, record);
        self.is_unsettled = true;
        self.touch(*number);
        self.time_plane(*number);
    }

    /// Changes what is known of a plane, and what follows from that without a decision.
    pub(super) fn change_plane(
        &mut self,
        at: Timestamp,
        number: PlaneNumber,
        change: impl FnOnce(&mut PlaneRecord),
    ) {
        let Some(plane) = self.planes.get_mut(&number) else { return };
        change(plane);
        plane.idle_since = plane.is_idle().then(|| plane.idle_since.unwrap_or(at));
        let has = size_named(&self.rules, &plane.size).map_or(0, |(place, _)| place);
        let could_do = spare_size_for(&self.rules, plane.workers).is_some_and(|(place, _)| place < has);
        plane.shrink_since = could_do.then(|| plane.shrink_since.unwrap_or(at));
        self.refit(number);
        self.touch(number);
        self.time_plane(number);
    }

    /// Sets the timers of a plane.
    pub(super) fn time_plane(&mut self, number: PlaneNumber) {
        let Some(plane) = self.planes.get(&number) else { return };
        self.timers.set(Due::Sleep(number), plane.sleep_at());
        self.timers.set(Due::Slow(number), plane.slow_at(&self.rules));
        let shrink_after = self.rules.shrink_after_seconds;
        let shrink_since = plane.shrink_since.filter(|_| !plane.is_deleted);
        self.timers.set(Due::Shrink(number), shrink_since.map(|since| since.plus_seconds(shrink_after)));
    }

    fn forget_plane(&mut self, number: PlaneNumber) {
        let Some(plane) = self.planes.remove(&number) else { return };
        self.sealed = self.sealed.wrapping_sub(plane.sealed);
        self.rollout.forget_plane(plane.ord);
        self.prune_begun();
        if let Err(error) = self.site.remove_plane(plane.ord) {
            self.broke("I2", format!("plane {number}: {error}"));
        }
        self.plane_ords.remove(&plane.ord);
        if let Some(names) = self.plane_names.get_mut(&plane.tenant) {
            names.remove(&plane.cluster);
            if names.is_empty() {
                self.plane_names.remove(&plane.tenant);
            }
        }
        let theirs: Vec<_> =
            self.bids.iter().filter(|(_, of)| **of == number).map(|(bid, _)| bid.clone()).collect();
        for (exchange, bid) in theirs {
            self.forget_bid(&exchange, bid);
        }
        self.timers.set(Due::Sleep(number), None);
        self.timers.set(Due::Shrink(number), None);
        self.timers.set(Due::Slow(number), None);
        self.touched_planes.remove(&number);
        self.stale.remove(&number);
        self.want_advice(plane.risk.is_some() || plane.is_crowded);
        self.is_unsettled = true;
    }

    fn host_offered(&mut self, event: &PlacementEvent) {
        let PlacementEvent::HostOffered { host: number, id, generation, terms } = event else { return };
        let is_news = self.name_host(terms);
        let named = self.host_terms(terms);
        let placed = match self.hosts.get_mut(number) {
            Some(host) => {
                (host.generation, host.terms) = (*generation, terms.clone());
                self.site.amend_host(host.ord, &named)
            }
            None => self.site.add_host(&named).map(|ord| {
                let (number, id) = (*number, id.clone());
                let record = HostRecord {
                    number,
                    ord,
                    id: id.clone(),
                    generation: *generation,
                    terms: terms.clone(),
                    gone_at: None,
                    sealed: 0,
                };
                self.next.host = number + 1;
                self.host_names.insert(id, number);
                self.host_ords.insert(ord, number);
                self.hosts.insert(number, record);
            }),
        };
        if let Err(error) = placed {
            self.broke("I2", format!("host {id}: {error}"));
        }
        if is_news {
            self.refit_all();
        }
        self.touched_hosts.insert(*number);
        self.is_unsettled = true;
    }

    fn host_leaves(&mut self, number: HostNumber, gone_at: Option<Timestamp>) {
        let Some(host) = self.hosts.get_mut(&number) else { return };
        host.gone_at = gone_at;
        let ord = host.ord;
        let said = match gone_at {
            Some(gone_at) => self.site.leave(ord, gone_at),
            None => self.site.stay(ord),
        };
        if let Err(error) = said {
            self.broke("I2", format!("host {number}: {error}"));
        }
        self.rollout.hurry(ord, gone_at);
        self.timers.set(Due::Gone(number), gone_at);
        self.touched_hosts.insert(number);
        self.is_unsettled = true;
    }

    fn forget_host(&mut self, number: HostNumber) {
        let Some(host) = self.hosts.remove(&number) else { return };
        self.sealed = self.sealed.wrapping_sub(host.sealed);
        let mut planes: Vec<_> = self.site.planes_on(host.ord).to_vec();
        let moving = self.rollout.steps().filter(|step| step.from == Some(host.ord) || step.to == host.ord);
        planes.extend(moving.map(|step| step.plane));
        if let Err(error) = self.rollout.remove_host(&mut self.site, host.ord) {
            self.broke("I2", format!("host {number}: {error}"));
        }
        self.prune_begun();
        for ord in planes {
            if let Some(plane) = self.plane_ords.get(&ord).copied() {
                self.touch(plane);
                // Nothing is ready there any more.
                if let Some(plane) = self.planes.get_mut(&plane) {
                    plane.ready_on.retain(|ready| *ready != number);
                }
            }
        }
        self.host_names.remove(&host.id);
        self.host_ords.remove(&host.ord);
        self.timers.set(Due::Gone(number), None);
        self.touched_hosts.remove(&number);
        self.is_unsettled = true;
    }

    fn decided(&mut self, moves: &[ReplicaMove]) {
        let in_ords = |decided: &ReplicaMove| {
            let from = match decided.from {
                Some(from) => Some(self.hosts.get(&from)?.ord),
                None => None,
            };
            let (plane, to) = (self.planes.get(&decided.plane)?.ord, self.hosts.get(&decided.to)?.ord);
            Some(Move { plane, from, to, gone_at: decided.gone_at, after: None })
        };
        let ords: Vec<Move> = moves.iter().filter_map(in_ords).collect();
        if ords.len() != moves.len() {
            self.broke("I2", "a move of an unknown plane or host");
        }
        self.site.carry(&ords);
        self.rollout.decided(&ords);
        self.prune_begun();
        for decided in moves {
            self.touch(decided.plane);
        }
    }

    fn moves_begun(&mut self, at: Timestamp, moves: &[PlaneMove]) {
        for begun in moves {
            if !self.rollout.begin(begun.number) {
                self.broke("I2", format!("move {} cannot begin", begun.number));
                continue;
            }
            self.begun.insert(begun.number, Begun { at, generation: begun.generation });
            self.touch(begun.plane);
            self.time_move(begun.number);
        }
    }

    fn move_ended(&mut self, number: MoveNumber, plane: PlaneNumber) {
        self.begun.remove(&number);
        self.timers.set(Due::Late(number), None);
        self.prune_begun();
        self.touch(plane);
    }

    /// Sets the timer of a move that was begun.
    pub(super) fn time_move(&mut self, number: MoveNumber) {
        let late = self.begun.get(&number).map(|begun| begun.at.plus_seconds(self.rules.move_seconds_max));
        self.timers.set(Due::Late(number), late);
    }

    /// Forgets when moves were begun that are not under way any more.
    pub(super) fn prune_begun(&mut self) {
        let is_over = |number: &MoveNumber| !self.rollout.step(*number).is_some_and(|step| step.begun);
        let over: Vec<MoveNumber> = self.begun.keys().copied().filter(is_over).collect();
        for number in over {
            self.begun.remove(&number);
            self.timers.set(Due::Late(number), None);
        }
    }

    fn touch_moving(&mut self) {
        let moving: Vec<_> = self.rollout.steps().map(|step| step.plane).collect();
        for ord in moving {
            if let Some(plane) = self.plane_ords.get(&ord).copied() {
                self.touch(plane);
            }
        }
    }

    fn note_risk(&mut self, number: PlaneNumber, risk: Option<proto::placement::Risk>) {
        if let Some(plane) = self.planes.get_mut(&number) {
            plane.risk = risk;
        }
        self.touched_planes.insert(number);
        self.want_advice(true);
    }

    /// Notes that what would help may be something else now.
    fn want_advice(&mut self, is_wanted: bool) {
        if is_wanted {
            self.wants_advice = true;
            self.time_advice();
        }
    }

    /// Sets the timer of advice.
    pub(super) fn time_advice(&mut self) {
        let at = match self.advised_at {
            Some(at) => at.plus_micros(ADVICE_PAUSE_MICROSECONDS),
            None => Timestamp::MIN,
        };
        self.timers.set(Due::Advice, self.wants_advice.then_some(at));
    }
}
