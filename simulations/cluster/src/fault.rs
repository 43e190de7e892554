//! Faults on request: what the real world does to a client of Kubernetes, by chance from a seed.

use serde::{Deserialize, Serialize};

use crate::json::mix;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// The request is refused with this HTTP status: 429 says when to come again, the others do not.
    Refuse(u16),
    /// The answer comes this much later, in microseconds.
    Delay(u32),
    /// What is read is so many versions old.
    Stale(u64),
    /// The request is carried out, and the connection breaks before the answer.
    LoseAnswer,
    /// A watch's connection breaks when it would have told something.
    DropWatch,
    /// A watch is told that its versions are gone.
    Expire,
}

/// A fault: what goes wrong with which requests, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Plural name of the kind; empty for all.
    #[serde(default)]
    pub kind: String,
    /// Verb: get, list, watch, create, update, patch, apply, delete, evict; empty for all.
    #[serde(default)]
    pub verb: String,
    /// How many of a thousand.
    #[serde(default = "always")]
    pub permille: u16,
    /// How many times at most; 0 for no end.
    #[serde(default)]
    pub times: u64,
    /// What goes wrong.
    pub harm: Harm,
}

fn always() -> u16 {
    1_000
}

/// Most faults in force at once.
pub const FAULTS_MAX: usize = 100;

/// The faults in force.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    seed: u64,
    draws: u64,
    in_force: Vec<(Fault, u64)>,
}

impl Faults {
    /// No faults yet; chance comes from the seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Sets the faults in force; the first [`FAULTS_MAX`] of them.
    pub fn set(&mut self, faults: Vec<Fault>) {
        self.in_force = faults.into_iter().take(FAULTS_MAX).map(|fault| (fault, 0)).collect();
    }

    /// What goes wrong with a request.
    pub fn draw(&mut self, kind: &str, verb: &str) -> Vec<Harm> {
        let mut harms = Vec::new();
        for (fault, happened) in &mut self.in_force {
            let concerned = (fault.kind.is_empty() || fault.kind == kind)
                && (fault.verb.is_empty() || fault.verb == verb);
            if !concerned || (fault.times > 0 && *happened >= fault.times) {
                continue;
            }
            self.draws += 1;
            if mix(self.seed ^ mix(self.draws)) % 1_000 < u64::from(fault.permille) {
                *happened += 1;
                harms.push(fault.harm.clone());
            }
        }
        harms
    }
}
