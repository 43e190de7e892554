//! Emptying a Node: which pods are asked to go, when, and how they are made to go when time runs out.

mod pod;

use std::collections::BTreeMap;
use std::time::Duration;

use proto::worker::{Undone, UndoneWhat};

use crate::limits::Limits;
pub use pod::{Pod, PodKind};
use pod::{Progress, Tracked};

/// A deadline that moves by less than this is the same: clocks are compared all the time.
const SOONER: Duration = Duration::from_secs(1);

/// Least distance of two lists.
const LIST_LEAST: Duration = Duration::from_millis(200);

/// How an API server answered a request about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answered {
    /// The pod will end.
    Accepted,
    /// A disruption budget does not allow it now.
    Blocked,
    /// There is no such pod, or another one of its name.
    Gone,
    /// Anything else, in words.
    Failed(String),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DrainAction {
    /// List the Node's pods, and count its volumes.
    List,
    /// Ask for a pod's eviction, which its budget may refuse.
    Evict {
        /// Which.
        pod: Pod,
        /// Its time to end, where its own is longer than the time left.
        grace_seconds: Option<u32>,
    },
    /// Delete a pod, whatever its budget says.
    Delete {
        /// Which.
        pod: Pod,
        /// Its time to end.
        grace_seconds: u32,
    },
    /// The drain is over.
    Done {
        /// What could not be done.
        undone: Vec<Undone>,
    },
}

/// One drain.
#[derive(Debug, Clone)]
pub struct Drain {
    limits: Limits,
    began: Duration,
    deadline: Duration,
    seed: u64,
    pods: BTreeMap<String, Tracked>,
    volumes: u32,
    /// Whether pods were ever listed.
    listed: bool,
    listing: bool,
    list_at: Duration,
    list_problem: Option<String>,
    asked: usize,
    done: bool,
}

impl Drain {
    /// A drain that begins now and has to be over at `deadline`. Waits are spread by `seed`.
    pub fn new(limits: Limits, now: Duration, deadline: Duration, seed: u64) -> Drain {
        Drain {
            limits,
            began: now,
            deadline: deadline.max(now),
            seed,
            pods: BTreeMap::new(),
            volumes: 0,
            listed: false,
            listing: false,
            list_at: now,
            list_problem: None,
            asked: 0,
            done: false,
        }
    }

    /// Another deadline, sooner or later than the one so far. Pods that were asked to end in time for the old one are
    /// asked again if that is too late now.
    pub fn set_deadline(&mut self, now: Duration, deadline: Duration) {
        let sooner = deadline.saturating_add(SOONER) < self.deadline;
        self.deadline = deadline.max(now);
        for tracked in self.pods.values_mut().filter(|_| sooner) {
            tracked.forced = false;
        }
    }

    /// When the drain has to be over.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How many pods have still to go.
    pub fn remaining(&self) -> usize {
        self.pods.len()
    }

    /// Whether a less important pod has still to go.
    pub fn has_less_important(&self, priority: i32) -> bool {
        self.pods.values().any(|tracked| tracked.pod.priority < priority)
    }

    /// The Node's pods as they are now, and how many volumes are attached to it.
    pub fn listed(&mut self, now: Duration, pods: Vec<Pod>, volumes: u32) {
        (self.listing, self.listed, self.list_problem, self.volumes) = (false, true, None, volumes);
        self.list_at = self.next_list(now);
        let mut before = std::mem::take(&mut self.pods);
        for pod in pods.into_iter().filter(|pod| pod.kind == PodKind::Ordinary) {
            let tracked = match before.remove(&pod.uid) {
                Some(known) => known.seen(pod),
                None => Tracked::new(pod, now),
            };
            self.pods.insert(tracked.pod.uid.clone(), tracked);
        }
        // Where a request is under way, the pod is kept until it is answered.
        self.pods.extend(before.into_iter().filter(|(_, tracked)| tracked.asked));
    }

    /// The list could not be had.
    pub fn not_listed(&mut self, now: Duration, problem: String) {
        self.listing = false;
        self.list_at = self.next_list(now);
        self.list_problem = Some(problem);
    }

    /// Lists come closer together towards the end, when it matters who is still there.
    fn next_list(&self, now: Duration) -> Duration {
        let left = self.deadline.saturating_sub(now) / 4;
        now + self.limits.drain_list.min(left.max(LIST_LEAST))
    }

    /// The answer to a request about a pod.
    pub fn answered(&mut self, now: Duration, uid: &str, answered: Answered) {
        self.asked = self.asked.saturating_sub(1);
        let Some(tracked) = self.pods.get_mut(uid) else { return };
        tracked.asked = false;
        match answered {
            Answered::Accepted => {
                tracked.progress = Progress::Ending;
                tracked.ends_at = Some(tracked.asked_to_end_at);
                tracked.problem = None;
            }
            Answered::Gone => {
                self.pods.remove(uid);
            }
            Answered::Blocked => {
                let why = "a disruption budget does not allow it".to_owned();
                tracked.wait(now, self.limits.drain_retry, spread_by(self.seed, uid), why);
            }
            Answered::Failed(why) => {
                tracked.wait(now, self.limits.drain_retry, spread_by(self.seed, uid), why);
                // A deletion that failed has to be asked again.
                if std::mem::take(&mut tracked.forced) {
                    tracked.force_again_at = tracked.retry_at;
                }
            }
        }
    }

    /// Says what is to be done now.
    pub fn poll(&mut self, now: Duration, actions: &mut Vec<DrainAction>) {
        if self.done {
            return;
        }
        let empty = self.listed && self.pods.is_empty() && self.volumes == 0 && self.list_problem.is_none();
        if (empty && now >= self.settled_at()) || now >= self.deadline {
            self.done = true;
            actions.push(DrainAction::Done { undone: self.undone() });
            return;
        }
        if now >= self.list_at && !self.listing {
            self.listing = true;
            actions.push(DrainAction::List);
        }
        for uid in self.in_order() {
            if self.asked >= self.limits.drain_requests {
                break;
            }
            if let Some(action) = self.ask(now, &uid) {
                self.asked += 1;
                actions.push(action);
            }
        }
    }

    /// When something is to be done next, if nothing happens until then.
    pub fn wake_at(&self) -> Option<Duration> {
        if self.done {
            return None;
        }
        let list = (!self.listing).then_some(self.list_at);
        let mut wake = list.map_or(self.deadline, |list| list.min(self.deadline));
        if self.listed && self.pods.is_empty() && self.volumes == 0 && self.list_problem.is_none() {
            wake = wake.min(self.settled_at());
        }
        if self.asked < self.limits.drain_requests {
            let idle = self.pods.values().filter(|tracked| !tracked.asked);
            let due = idle.flat_map(|tracked| [self.force_due(tracked), self.evict_due(tracked)]);
            wake = due.flatten().fold(wake, Duration::min);
        }
        Some(wake)
    }

    /// Least important first.
    fn in_order(&self) -> Vec<String> {
        let mut uids: Vec<_> =
            self.pods.values().map(|tracked| (tracked.pod.priority, &tracked.pod.uid)).collect();
        uids.sort();
        uids.into_iter().map(|(_, uid)| uid.clone()).collect()
    }

    /// Until then an empty Node may still be given a pod by a scheduler that has not heard that it is cordoned.
    fn settled_at(&self) -> Duration {
        let whole = self.deadline.saturating_sub(self.began);
        self.began + self.limits.drain_settle.min(whole / 10)
    }

    /// When all pods should have ended.
    fn end(&self) -> Duration {
        let whole = self.deadline.saturating_sub(self.began);
        self.deadline.saturating_sub(self.limits.drain_margin.min(whole / 10))
    }

    /// When a pod is deleted without asking its budget: in time for it to end in order. Half of the whole time is
    /// for asking, whatever time a pod wants.
    fn force_at(&self, tracked: &Tracked) -> Duration {
        let end = self.end();
        let half = end.saturating_sub(self.began) / 2;
        end.saturating_sub(tracked.grace().min(half))
    }

    /// When a pod may be asked to go: at once if nobody less important is left, else after half of the time that
    /// there is for asking it.
    fn evict_at(&self, tracked: &Tracked) -> Duration {
        if !self.has_less_important(tracked.pod.priority) {
            return tracked.retry_at;
        }
        let asking = self.force_at(tracked).saturating_sub(self.began);
        tracked.retry_at.max(self.began + asking / 2)
    }

    /// When a pod is to be deleted, unless it has been, or ends in time without.
    fn force_due(&self, tracked: &Tracked) -> Option<Duration> {
        let ends_late = tracked.ends_at.is_none_or(|ends_at| ends_at > self.end());
        (ends_late && !tracked.forced).then(|| self.force_at(tracked).max(tracked.force_again_at))
    }

    /// When a pod is to be asked to go, unless it is going.
    fn evict_due(&self, tracked: &Tracked) -> Option<Duration> {
        (tracked.progress == Progress::Here && !tracked.forced).then(|| self.evict_at(tracked))
    }

    fn ask(&mut self, now: Duration, uid: &str) -> Option<DrainAction> {
        let tracked = self.pods.get(uid).filter(|tracked| !tracked.asked)?;
        let left = self.end().saturating_sub(now).as_secs();
        let left = u32::try_from(left).unwrap_or(u32::MAX).max(1);
        if self.force_due(tracked).is_some_and(|at| at <= now) {
            let grace_seconds = tracked.pod.grace_seconds.clamp(1, left);
            let tracked = self.pods.get_mut(uid)?;
            (tracked.asked, tracked.forced) = (true, true);
            tracked.asked_to_end_at = now + Duration::from_secs(grace_seconds.into());
            return Some(DrainAction::Delete { pod: tracked.pod.clone(), grace_seconds });
        }
        if self.evict_due(tracked).is_none_or(|at| now < at) {
            return None;
        }
        let grace_seconds = (tracked.pod.grace_seconds > left).then_some(left);
        let ends_at = now + Duration::from_secs(tracked.pod.grace_seconds.min(left).into());
        let tracked = self.pods.get_mut(uid)?;
        tracked.asked = true;
        tracked.asked_to_end_at = ends_at;
        Some(DrainAction::Evict { pod: tracked.pod.clone(), grace_seconds })
    }

    fn undone(&self) -> Vec<Undone> {
        let mut undone = Vec::new();
        if !self.listed || self.list_problem.is_some() {
            let why = self.list_problem.clone().unwrap_or_else(|| "no answer in time".to_owned());
            undone.push(Undone { what: UndoneWhat::Pod, which: String::new(), why });
        }
        for uid in self.in_order() {
            let Some(tracked) = self.pods.get(&uid) else { continue };
            let which = format!("{}/{}", tracked.pod.namespace, tracked.pod.name);
            undone.push(Undone { what: UndoneWhat::Pod, which, why: tracked.why() });
        }
        if self.volumes > 0 {
            let why = format!("{} attached", self.volumes);
            undone.push(Undone { what: UndoneWhat::Volume, which: String::new(), why });
        }
        undone
    }
}

/// A number of a pod's own, so that retries of many do not fall on one instant.
fn spread_by(seed: u64, uid: &str) -> u64 {
    // FNV-1a.
    uid.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
