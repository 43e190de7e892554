//! What is said to placement of planes: how they really are, whenever that is something else than was said.

use std::collections::{BTreeMap, BTreeSet};

use proto::placement::{
    KubernetesVersion, PlacementCommand, PlaneNumber, READY_HOSTS_MAX, ReportPlane, ReportPlaneGone,
    WORKERS_MAX,
};
use proto::{CommandId, HostId};

use crate::diff::{Phase, PlaneState};

/// What a report says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    generation: u64,
    ready_on: Vec<HostId>,
    version: Option<KubernetesVersion>,
    workers: u32,
    slow: bool,
    is_gone: bool,
}

/// One plane.
#[derive(Clone, Debug, Default)]
struct Reported {
    /// The newest order of which placement was told that it is carried out.
    generation: u64,
    state: Option<PlaneState>,
    workers: u32,
    slow: bool,
    told: Option<Told>,
}

/// What was said of planes so far, and what is to be said.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    planes: BTreeMap<PlaneNumber, Reported>,
    changed: BTreeSet<PlaneNumber>,
}

impl Reports {
    /// Takes in what placement knows of a plane: which order it was told to be carried out, and the rest of that
    /// report, which stands until something else is seen.
    pub fn known(&mut self, number: PlaneNumber, generation: u64, workers: u32, slow: bool) {
        let plane = self.planes.entry(number).or_default();
        plane.generation = plane.generation.max(generation);
        if plane.told.is_none() {
            (plane.workers, plane.slow) = (workers, slow);
        }
    }

    /// Takes in how a plane is.
    pub fn see(&mut self, state: PlaneState) {
        let number = state.number;
        let plane = self.planes.entry(number).or_default();
        plane.generation = plane.generation.max(state.reached.unwrap_or_default());
        plane.state = Some(state);
        self.changed.insert(number);
    }

    /// Takes in what was measured of a plane.
    pub fn measure(&mut self, number: PlaneNumber, workers: Option<u32>, slow: bool) {
        let Some(plane) = self.planes.get_mut(&number) else { return };
        plane.workers = workers.unwrap_or(plane.workers).min(WORKERS_MAX);
        plane.slow = slow;
        self.changed.insert(number);
    }

    /// Forgets a plane that is gone.
    pub fn forget(&mut self, number: PlaneNumber) {
        self.planes.remove(&number);
        self.changed.remove(&number);
    }

    /// Takes note that placement has taken up a host. What was said before of planes on it, it may have passed over.
    pub fn host_taken(&mut self, host: &HostId) {
        let on_it = |plane: &Reported| {
            plane.state.as_ref().is_some_and(|state| state.ready_on.contains(host.as_str()))
        };
        for (number, plane) in self.planes.iter_mut().filter(|(_, plane)| on_it(plane)) {
            plane.told = None;
            self.changed.insert(*number);
        }
    }

    /// Takes note that what was said of a plane may not have arrived.
    pub fn unsaid(&mut self, number: PlaneNumber) {
        if let Some(plane) = self.planes.get_mut(&number) {
            plane.told = None;
            self.changed.insert(number);
        }
    }

    /// What is to be said now, of at most so many planes. `id` makes ids that were never used.
    pub fn say(
        &mut self,
        planes_max: usize,
        mut id: impl FnMut() -> Option<CommandId>,
    ) -> Vec<(PlaneNumber, PlacementCommand)> {
        let mut commands = Vec::new();
        while commands.len() < planes_max
            && let Some(number) = self.changed.pop_first()
        {
            let Some(plane) = self.planes.get_mut(&number) else { continue };
            let Some(now) = plane.now() else { continue };
            if plane.told.as_ref() == Some(&now) {
                continue;
            }
            let Some(id) = id() else { continue };
            plane.told = Some(now.clone());
            commands.push((number, now.command(number, id)));
        }
        commands
    }
}

impl Reported {
    fn now(&self) -> Option<Told> {
        let state = self.state.as_ref()?;
        let ready_on = state.ready_on.iter().filter_map(|host| host.parse().ok()).take(READY_HOSTS_MAX);
        Some(Told {
            generation: self.generation,
            ready_on: ready_on.collect(),
            version: state.version,
            workers: self.workers,
            // What does not serve is not slow.
            slow: self.slow && !state.ready_on.is_empty(),
            is_gone: state.phase == Phase::Gone,
        })
    }
}

impl Told {
    fn command(self, plane: PlaneNumber, id: CommandId) -> PlacementCommand {
        if self.is_gone {
            return PlacementCommand::ReportPlaneGone(ReportPlaneGone { id, plane });
        }
        let Self { generation, ready_on, version, workers, slow, .. } = self;
        PlacementCommand::ReportPlane(ReportPlane { id, plane, generation, ready_on, version, workers, slow })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(reached: Option<u64>, ready_on: &[&str]) -> PlaneState {
        let mut state = PlaneState::new(7, Phase::Rolling);
        state.reached = reached;
        state.ready_on = ready_on.iter().map(|host| (*host).to_owned()).collect();
        state
    }

    fn said(reports: &mut Reports) -> Vec<PlacementCommand> {
        let id = || "i".parse().ok();
        reports.say(10, id).into_iter().map(|(_, command)| command).collect()
    }

    fn generation(command: &PlacementCommand) -> u64 {
        let PlacementCommand::ReportPlane(report) = command else { panic!("{command:?}") };
        report.generation
    }

    #[test]
    fn only_what_changed_is_said_and_no_order_is_taken_back() {
        let mut reports = Reports::default();
        reports.known(7, 4, 12, false);
        reports.see(state(None, &["a"]));
        let first = said(&mut reports);
        let PlacementCommand::ReportPlane(report) = &first[0] else { panic!("{first:?}") };
        assert_eq!((report.generation, report.workers, report.ready_on.len()), (4, 12, 1));
        reports.see(state(None, &["a"]));
        assert!(said(&mut reports).is_empty(), "nothing else is to be said");
        reports.host_taken(&"b".parse().unwrap());
        assert!(said(&mut reports).is_empty(), "it is on another");
        reports.host_taken(&"a".parse().unwrap());
        assert_eq!(said(&mut reports).len(), 1, "placement did not know the host");
        reports.see(state(Some(5), &["a"]));
        assert_eq!(generation(&said(&mut reports)[0]), 5);
        reports.see(state(None, &[]));
        assert_eq!(generation(&said(&mut reports)[0]), 5, "what was carried out stays so");
        reports.measure(7, Some(13), true);
        let measured = said(&mut reports);
        let PlacementCommand::ReportPlane(report) = &measured[0] else { panic!("{measured:?}") };
        assert_eq!((report.workers, report.slow), (13, false), "what does not serve is not slow");
        reports.host_taken(&"a".parse().unwrap());
        assert!(said(&mut reports).is_empty(), "nothing of it is there");
        reports.unsaid(7);
        assert_eq!(said(&mut reports).len(), 1, "what may not have arrived is said again");
    }

    #[test]
    fn an_end_is_said_as_such() {
        let mut reports = Reports::default();
        reports.see(PlaneState::new(7, Phase::Gone));
        assert!(matches!(said(&mut reports)[..], [PlacementCommand::ReportPlaneGone(_)]));
        reports.forget(7);
        reports.unsaid(7);
        assert!(said(&mut reports).is_empty());
    }
}
