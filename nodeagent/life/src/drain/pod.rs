//! A pod, and what is known of its end.

use std::time::Duration;

use tunnel::spread;

/// How far waits grow, as a multiple of the first.
const GROWTH: u32 = 5;

/// What a drain does with a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodKind {
    /// Sends it away.
    Ordinary,
    /// Leaves it: a `DaemonSet` would bring it back at once.
    Daemon,
    /// Leaves it: it is the API's picture of a pod that the kubelet has from a file.
    Mirror,
    /// Leaves it: it has run.
    Finished,
}

/// A pod on the Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Which pod of that name.
    pub uid: String,
    /// How important it is.
    pub priority: i32,
    /// The time it wants for ending, in seconds.
    pub grace_seconds: u32,
    /// What is done with it.
    pub kind: PodKind,
    /// When it will be killed, if it is ending already.
    pub ends_at: Option<Duration>,
}

/// How far a pod's end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nobody has asked it to go.
    Here,
    /// It is ending.
    Ending,
}

/// A pod that has to go.
#[derive(Debug, Clone)]
pub(super) struct Tracked {
    pub(super) pod: Pod,
    pub(super) progress: Progress,
    /// A request about it is under way.
    pub(super) asked: bool,
    /// It was deleted whatever its budget says.
    pub(super) forced: bool,
    /// When its eviction may be asked again.
    pub(super) retry_at: Duration,
    /// When its deletion may be asked again.
    pub(super) force_again_at: Duration,
    pub(super) attempts: u32,
    pub(super) problem: Option<String>,
    /// When it will be killed at the latest.
    pub(super) ends_at: Option<Duration>,
    /// When it will be killed if the request under way is accepted.
    pub(super) asked_to_end_at: Duration,
}

impl Tracked {
    pub(super) fn new(pod: Pod, now: Duration) -> Tracked {
        let ends_at = pod.ends_at;
        Tracked {
            progress: if ends_at.is_some() { Progress::Ending } else { Progress::Here },
            asked: false,
            forced: false,
            retry_at: now,
            force_again_at: now,
            attempts: 0,
            problem: None,
            ends_at,
            asked_to_end_at: now,
            pod,
        }
    }

    /// The same pod in a later list.
    pub(super) fn seen(mut self, pod: Pod) -> Tracked {
        if pod.ends_at.is_some() {
            self.progress = Progress::Ending;
            self.ends_at = pod.ends_at;
        }
        self.pod = pod;
        self
    }

    /// Something refused: it is asked again later, each time a little later.
    pub(super) fn wait(&mut self, now: Duration, first: Duration, chance: u64, why: String) {
        self.attempts = self.attempts.saturating_add(1).min(GROWTH);
        let wait = spread(first * self.attempts, chance.rotate_left(7 * self.attempts));
        self.retry_at = now + wait;
        self.problem = Some(why);
    }

    /// The time it wants for ending.
    pub(super) fn grace(&self) -> Duration {
        Duration::from_secs(self.pod.grace_seconds.into())
    }

    /// Why it is still there.
    pub(super) fn why(&self) -> String {
        let still = if self.progress == Progress::Ending { "it has not ended" } else { "nobody was asked" };
        self.problem.clone().unwrap_or_else(|| still.to_owned())
    }
}
