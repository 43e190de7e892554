//! What is due by itself: hosts go, moves are late, planes shrink and fall asleep, advice is worked out.

use proto::Timestamp;
use proto::placement::{GoneCause, PlacementEvent};

use super::bounds::DUE_MAX;
use super::due::Due;
use super::record::spare_size_for;
use super::{Events, Placement};

impl Placement {
    /// Does what is due by `now`, and decides what follows.
    pub(super) fn do_due(&mut self, now: Timestamp, events: &mut Events) {
        let mut was_due = false;
        for _ in 0..DUE_MAX {
            let Some((_, due)) = self.timers.first().filter(|(at, _)| *at <= now) else { break };
            was_due = true;
            match due {
                Due::Gone(host) => self.lose_host(now, host, GoneCause::NoticeEnded, events),
                Due::Late(number) => self.give_up(now, number, events),
                Due::Shrink(plane) => self.shrink(now, plane, events),
                Due::Slow(plane) => self.ease(now, plane, events),
                Due::Sleep(plane) => self.emit(now, PlacementEvent::PlaneSlept { plane }, events),
                Due::Servers => self.servers_due(now, events),
                Due::Advice => {
                    let advice = self.advise();
                    self.emit(now, PlacementEvent::HostsAdvised { advice }, events);
                }
            }
            // More servers may be gone than are taken off at once.
            let is_servers = due == Due::Servers;
            if self.timers.first().is_some_and(|(at, still)| still == due && at <= now && !is_servers) {
                self.broke("I13", format!("{due:?} stays due"));
                self.timers.set(due, None);
            }
        }
        if was_due {
            self.advance(now, events);
        }
    }

    fn give_up(&mut self, now: Timestamp, number: u64, events: &mut Events) {
        let plane = self.rollout.step(number).and_then(|step| Some(self.plane_of(step.plane)?.number));
        if let Some(plane) = plane {
            self.emit(now, PlacementEvent::MoveFailed { number, plane }, events);
        }
    }

    /// Moves a replica of a plane that is slow to a host with more room, if there is one.
    fn ease(&mut self, now: Timestamp, plane: u64, events: &mut Events) {
        let Some(ord) = self.planes.get(&plane).map(|plane| plane.ord) else { return };
        // One that moves anyway is to be looked at again when it has.
        let is_moving = self.rollout.steps().any(|step| step.plane == ord);
        let eased = if is_moving { None } else { self.site.roomier(ord) };
        let told = eased.and_then(|decided| self.told(&decided));
        let moves = told.is_some() || is_moving;
        self.emit(now, PlacementEvent::PlaneSlow { plane, moves }, events);
        if let Some(told) = told {
            self.emit(now, PlacementEvent::MovesDecided { moves: vec![told] }, events);
        }
    }

    fn shrink(&mut self, now: Timestamp, plane: u64, events: &mut Events) {
        let workers = self.planes.get(&plane).map_or(0, |plane| plane.workers);
        if let Some((_, size)) = spare_size_for(&self.rules, workers) {
            let size = size.name.clone();
            self.emit(now, PlacementEvent::PlaneSized { plane, size }, events);
        }
    }
}
