//! In which order moves are carried out: the most urgent first, one at a time for each plane so that its other replicas
//! serve meanwhile, at most so many at once on a site, and none before there is room where it goes.
//!
//! [`Site`] says where replicas belong; until a move is done, its replica is still where it was and takes room there.
//! Moves are decided so that each has room once all earlier ones are done, so that the oldest can always begin. Where
//! later events change a move that others count on, steps may come to wait for one another: then the rollout is
//! [restarted](Rollout::restart) from where everything really is.

use std::collections::{BTreeMap, BTreeSet};

use proto::Timestamp;

use crate::site::{HostOrd, Move, PlaneOrd, Room, Site, SiteError};

/// A step's number: later decisions have larger ones.
pub type StepNumber = u64;

/// A move that is not done yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub number: StepNumber,
    /// Whose replica.
    pub plane: PlaneOrd,
    /// Where it is; none if it is nowhere.
    pub from: Option<HostOrd>,
    /// Where it goes.
    pub to: HostOrd,
    /// When `from` is gone, or when the host of a replica is gone for which this one makes room.
    pub gone_at: Option<Timestamp>,
    /// Whether it has begun.
    pub begun: bool,
}

/// A step that will not be done before its host is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Which step.
    pub number: StepNumber,
    /// Whose replica.
    pub plane: PlaneOrd,
    /// When it is expected to be done.
    pub done_at: Timestamp,
    /// When its host is gone.
    pub gone_at: Timestamp,
}

/// Moves that are decided and not done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rollout {
    steps: BTreeMap<StepNumber, Step>,
    next: StepNumber,
}

/// How urgent a step is. The order is the policy: the sooner its host is gone, the earlier; then as decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Urgency {
    without_deadline: bool,
    gone_at: Option<Timestamp>,
    number: StepNumber,
}

impl Step {
    fn urgency(&self) -> Urgency {
        Urgency { without_deadline: self.gone_at.is_none(), gone_at: self.gone_at, number: self.number }
    }
}

impl Rollout {
    /// Takes decided moves in, in their order, and finds what they mean for replicas that are not where earlier moves
    /// said: replicas of a plane are alike, so that one which is where another is wanted stays there.
    pub fn decided(&mut self, moves: &[Move]) {
        for decided in moves {
            let (plane, mut from, mut to) = (decided.plane, decided.from, decided.to);
            if let Some(step) = self.take_waiting(|step| step.plane == plane && Some(step.to) == from) {
                from = step.from; // It is still where it was before.
            }
            if let Some(step) = self.take_waiting(|step| step.plane == plane && step.from == Some(to)) {
                to = step.to; // One is there already, and stays: this one goes where that one was to go.
            }
            if from != Some(to) {
                let number = self.next;
                self.next += 1;
                self.steps
                    .insert(number, Step { number, plane, from, to, gone_at: decided.gone_at, begun: false });
            }
        }
    }

    /// Takes out the first step that has not begun and is of this kind.
    fn take_waiting(&mut self, which: impl Fn(&Step) -> bool) -> Option<Step> {
        let number = self.steps.values().find(|step| !step.begun && which(step))?.number;
        self.steps.remove(&number)
    }

    /// Whether steps wait for one another and none can begin.
    pub fn is_stuck(&self, site: &Site) -> bool {
        let under_way = self.steps.values().any(|step| step.begun);
        !self.steps.is_empty() && !under_way && self.ready(site, u32::MAX).is_empty()
    }

    /// If steps wait for one another and none can begin, takes decisions back: each replica belongs where it is, and
    /// [`Site::resettle`] decides anew from there. Whether it was so.
    pub fn restart(&mut self, site: &mut Site) -> bool {
        if !self.is_stuck(site) {
            return false;
        }
        let steps = std::mem::take(&mut self.steps);
        for step in steps.values() {
            site.take_back(step.plane, step.to);
        }
        for step in steps.values() {
            if let Some(from) = step.from {
                site.put_back(step.plane, from);
            }
        }
        true
    }

    /// Steps that are not done, as decided.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.steps.values()
    }

    /// Steps that may begin now, in this order, so that at most `at_once_max` are under way. Replicas that are nowhere
    /// yet interrupt nobody and do not count.
    pub fn ready(&self, site: &Site, at_once_max: u32) -> Vec<Step> {
        let mut rooms = self.rooms(site);
        let begun = || self.steps.values().filter(|step| step.begun);
        let mut busy: BTreeSet<PlaneOrd> = begun().map(|step| step.plane).collect();
        // Replicas that are nowhere may start beside one another, but not beside one that moves.
        let mut moving: BTreeSet<PlaneOrd> =
            begun().filter(|step| step.from.is_some()).map(|step| step.plane).collect();
        let mut under_way =
            self.steps.values().filter(|step| step.begun && step.from.is_some()).count() as u32;
        let mut ready = Vec::new();
        for step in self.in_order().into_iter().filter(|step| !step.begun) {
            let taken = if step.from.is_some() { &busy } else { &moving };
            let waits = taken.contains(&step.plane) || self.is_there(step.plane, step.to);
            if waits || (step.from.is_some() && under_way >= at_once_max) {
                continue;
            }
            let (Some(terms), Some(room)) = (site.terms(step.plane), rooms.get_mut(&step.to)) else {
                continue;
            };
            let request = terms.request.map(|amount| amount as i64);
            if room.iter().zip(&request).any(|(free, wanted)| free < wanted) {
                continue;
            }
            for (free, wanted) in room.iter_mut().zip(&request) {
                *free -= wanted;
            }
            if step.from.is_some() {
                under_way += 1;
                moving.insert(step.plane);
            }
            busy.insert(step.plane);
            ready.push(step);
        }
        ready
    }

    /// Says that a step has begun; whether there is one with this number that had not.
    pub fn begin(&mut self, number: StepNumber) -> bool {
        let waiting = self.steps.get_mut(&number).filter(|step| !step.begun);
        waiting.is_some_and(|step| {
            step.begun = true;
            true
        })
    }

    /// Says that a step is done; the step, if there was one with this number that had begun.
    pub fn done(&mut self, number: StepNumber) -> Option<Step> {
        self.steps.get(&number).filter(|step| step.begun)?;
        self.steps.remove(&number)
    }

    /// Says that a step that has begun did not succeed, and may begin again.
    pub fn failed(&mut self, number: StepNumber) -> bool {
        let Some(step) = self.steps.get_mut(&number).filter(|step| step.begun) else { return false };
        step.begun = false;
        let step = *step;
        // If it was to go on from there, it goes directly.
        if self.follow(step.plane, step.to, step.from) {
            self.steps.remove(&number);
        }
        true
    }

    /// Lets the step that was to start where another would have led start from somewhere else; whether there is one.
    fn follow(&mut self, plane: PlaneOrd, at: HostOrd, from: Option<HostOrd>) -> bool {
        let next = self.steps.values_mut().find(|next| next.plane == plane && next.from == Some(at));
        let Some(next) = next else { return false };
        next.from = from;
        if next.from == Some(next.to) {
            let number = next.number;
            self.steps.remove(&number);
        }
        true
    }

    /// Moves that are decided and not done, as they were saved: the steps and the next number.
    pub fn restored(steps: impl IntoIterator<Item = Step>, next: StepNumber) -> Self {
        Self { steps: steps.into_iter().map(|step| (step.number, step)).collect(), next }
    }

    /// The number of the next step.
    pub fn next_number(&self) -> StepNumber {
        self.next
    }

    /// A step that is not done.
    pub fn step(&self, number: StepNumber) -> Option<&Step> {
        self.steps.get(&number)
    }

    /// Forgets steps that lead where their plane no longer belongs, as it has other terms.
    pub fn prune(&mut self, site: &Site, plane: PlaneOrd) {
        // Later steps may lead on from where earlier ones lead.
        let mut wanted: BTreeSet<HostOrd> = site.on(plane).iter().copied().collect();
        for step in self.steps.values().rev().filter(|step| step.plane == plane).copied().collect::<Vec<_>>()
        {
            if wanted.contains(&step.to) {
                wanted.extend(step.from);
            } else {
                self.steps.remove(&step.number);
            }
        }
    }

    /// Says when a host is gone from which steps lead away; `None`: it stays.
    pub fn hurry(&mut self, host: HostOrd, gone_at: Option<Timestamp>) {
        for step in self.steps.values_mut().filter(|step| step.from == Some(host)) {
            step.gone_at = gone_at;
        }
    }

    /// Forgets a plane's steps, as the plane is gone.
    pub fn forget_plane(&mut self, plane: PlaneOrd) {
        self.steps.retain(|_, step| step.plane != plane);
    }

    /// Forgets a host that is gone, as [`Site::remove_host`] does. What was to come to it belongs where it is again.
    ///
    /// # Errors
    /// When there is no such host.
    pub fn remove_host(&mut self, site: &mut Site, host: HostOrd) -> Result<(), SiteError> {
        site.remove_host(host)?;
        let cancelled: Vec<Step> = self.steps.values().filter(|step| step.to == host).copied().collect();
        self.steps.retain(|_, step| step.to != host);
        for step in cancelled {
            if self.follow(step.plane, host, step.from) {
                continue;
            }
            let mut there = step.from;
            while let Some(host) = there.filter(|host| !site.put_back(step.plane, *host)) {
                // Another replica was to come there, and stays where it is instead.
                let other = self.take_waiting(|other| other.plane == step.plane && other.to == host);
                there = other.and_then(|other| other.from);
            }
        }
        for step in self.steps.values_mut().filter(|step| step.from == Some(host)) {
            step.from = None;
        }
        Ok(())
    }

    /// Steps that come too late if each takes `step_seconds` and at most `at_once_max` are under way at a time.
    pub fn late(&self, now: Timestamp, step_seconds: u32, at_once_max: u32) -> Vec<Late> {
        let at_once_max = u64::from(at_once_max.max(1));
        let mut late = Vec::new();
        // What is under way comes first, and is taken to have just begun.
        let (begun, waiting): (Vec<Step>, Vec<Step>) =
            self.in_order().into_iter().partition(|step| step.begun);
        // By plane, how many of its steps come before.
        let mut turns: BTreeMap<PlaneOrd, u64> = BTreeMap::new();
        for (place, step) in (0_u64..).zip(begun.into_iter().chain(waiting)) {
            let turn = turns.entry(step.plane).or_insert(0);
            *turn = (*turn).max(place / at_once_max) + 1;
            let micros = turn.saturating_mul(u64::from(step_seconds)).saturating_mul(1_000_000);
            let done_at = now.plus_micros(i64::try_from(micros).unwrap_or(i64::MAX));
            if let Some(gone_at) = step.gone_at.filter(|gone_at| *gone_at < done_at) {
                late.push(Late { number: step.number, plane: step.plane, done_at, gone_at });
            }
        }
        late
    }

    /// Whether a replica of a plane is still on a host that it is to leave.
    fn is_there(&self, plane: PlaneOrd, host: HostOrd) -> bool {
        self.steps.values().any(|step| step.plane == plane && step.from == Some(host))
    }

    fn in_order(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = self.steps.values().copied().collect();
        steps.sort_unstable_by_key(Step::urgency);
        steps
    }

    /// By host that a step goes to, what is free there now: replicas that left by decision only are still there, and
    /// those that came by decision only are not there yet.
    fn rooms(&self, site: &Site) -> BTreeMap<HostOrd, Room> {
        let mut rooms: BTreeMap<HostOrd, Room> = BTreeMap::new();
        for step in self.steps.values() {
            if let Some(room) = site.room(step.to) {
                rooms.entry(step.to).or_insert(*room);
            }
        }
        let mut shift = |plane: PlaneOrd, host: HostOrd, sign: i64| {
            if let (Some(terms), Some(room)) = (site.terms(plane), rooms.get_mut(&host)) {
                for (free, amount) in room.iter_mut().zip(&terms.request) {
                    *free += sign * *amount as i64;
                }
            }
        };
        for step in self.steps.values() {
            if !step.begun {
                shift(step.plane, step.to, 1);
            }
            if let Some(from) = step.from {
                shift(step.plane, from, -1);
            }
        }
        rooms
    }
}
