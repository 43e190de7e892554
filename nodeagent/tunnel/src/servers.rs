//! How many streams to open, and when.
//!
//! All servers stand behind one address, so an agent dials it again and again until it has met as many different
//! ones as there are. Every attempt may cost a server a token review, which it can make only few of a second: an
//! agent that has what it needs attempts nothing, or, where the number of servers may change, rarely.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backoff::{Backoff, spread};

/// When attempts are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServersConfig {
    /// Between two attempts while servers are missing.
    pub sync_interval: Duration,
    /// What that grows to while attempts fail or meet only servers that are known.
    pub sync_interval_cap: Duration,
    /// Between two attempts while none is missing, to find out that there are more; none: no such attempts.
    pub recheck_interval: Option<Duration>,
}

/// What an attempt led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// A stream to a server that none led to before. It is to be used.
    New,
    /// A stream to a server that another one leads to. It is to be closed.
    Duplicate,
}

/// The servers that streams lead to.
#[derive(Debug)]
pub struct Servers {
    config: ServersConfig,
    backoff: Backoff,
    /// Identity of each server, with the number of servers that it stated.
    live: BTreeMap<String, usize>,
    /// What the last one said, for when none is live.
    last_count: usize,
    /// Counted elsewhere, for instance from leases.
    counted: Option<usize>,
    next_attempt: Option<Duration>,
    draining: bool,
}

/// Servers that one agent keeps streams to. A header that says more is not believed.
const SERVERS_MAX: usize = 64;

impl Servers {
    /// None is known; the first attempt is due at once.
    pub fn new(config: ServersConfig) -> Self {
        Servers {
            backoff: Backoff::new(config.sync_interval, config.sync_interval_cap),
            config,
            live: BTreeMap::new(),
            last_count: 1,
            counted: None,
            next_attempt: Some(Duration::ZERO),
            draining: false,
        }
    }

    /// Servers that streams lead to.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Servers that there should be: what was counted elsewhere if anything was, else the most that any live
    /// server states, else what the last one stated.
    pub fn wanted(&self) -> usize {
        let stated = self.live.values().copied().max().unwrap_or(self.last_count);
        self.counted.unwrap_or(stated).clamp(1, SERVERS_MAX)
    }

    /// When the next attempt is due; none: not before something changes.
    pub fn next_attempt(&self) -> Option<Duration> {
        if self.draining { None } else { self.next_attempt }
    }

    /// An attempt begins. The next is not due before its end.
    pub fn attempting(&mut self) {
        self.next_attempt = None;
    }

    /// An attempt met `server`, which says that there are `count`.
    pub fn met(&mut self, now: Duration, server: &str, count: usize, chance: u64) -> Attempt {
        let count = count.clamp(1, SERVERS_MAX);
        if let Some(stated) = self.live.get_mut(server) {
            // Fresher than what it said when its stream began.
            *stated = count;
            self.last_count = count;
            self.schedule_after_nothing_new(now, chance);
            return Attempt::Duplicate;
        }
        self.live.insert(server.to_owned(), count);
        self.last_count = count;
        self.backoff.reset();
        self.next_attempt = if self.live.len() < self.wanted() {
            Some(now + spread(self.config.sync_interval, chance))
        } else {
            self.recheck(now, chance)
        };
        Attempt::New
    }

    /// An attempt failed.
    pub fn failed(&mut self, now: Duration, chance: u64) {
        self.next_attempt = Some(now + self.backoff.step(chance));
    }

    /// The stream to `server` ended.
    pub fn lost(&mut self, now: Duration, server: &str, chance: u64) {
        if self.live.remove(server).is_none() {
            return;
        }
        // Every agent of this server notices at the same moment: the first attempt is spread, too.
        let soon = now + spread(self.config.sync_interval, chance);
        self.next_attempt = Some(self.next_attempt.map_or(soon, |due| due.min(soon)));
    }

    /// The number of servers was counted elsewhere; none: it no longer is.
    pub fn counted(&mut self, now: Duration, count: Option<usize>) {
        self.counted = count;
        if self.live.len() < self.wanted()
            && self.next_attempt.is_none_or(|due| due > now + self.config.sync_interval_cap)
        {
            self.next_attempt = Some(now);
        }
    }

    /// No further attempts.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether [`Servers::drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    fn schedule_after_nothing_new(&mut self, now: Duration, chance: u64) {
        self.next_attempt = if self.live.len() < self.wanted() {
            Some(now + self.backoff.step(chance))
        } else {
            self.backoff.reset();
            self.recheck(now, chance)
        };
    }

    fn recheck(&self, now: Duration, chance: u64) -> Option<Duration> {
        self.config.recheck_interval.map(|interval| now + spread(interval, chance))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::{Attempt, Servers, ServersConfig};

    const SECOND: Duration = Duration::from_secs(1);

    fn config(recheck: Option<Duration>) -> ServersConfig {
        ServersConfig { sync_interval: SECOND, sync_interval_cap: 10 * SECOND, recheck_interval: recheck }
    }

    /// Runs until `until` against servers behind a balancer that hands them out in turn; returns the attempts made.
    fn run(servers: &mut Servers, from: Duration, until: Duration, names: &[&str]) -> usize {
        let mut attempts = 0;
        let mut now = from;
        while let Some(due) = servers.next_attempt().filter(|due| *due <= until) {
            now = now.max(due);
            servers.attempting();
            match names.get(attempts % names.len().max(1)) {
                Some(name) => {
                    servers.met(now, name, names.len(), u64::MAX / 2);
                }
                None => servers.failed(now, u64::MAX / 2),
            }
            attempts += 1;
        }
        attempts
    }

    #[test]
    fn an_agent_meets_every_server_and_then_rests() {
        let mut servers = Servers::new(config(None));
        assert_eq!(run(&mut servers, Duration::ZERO, 3600 * SECOND, &["a", "b", "c"]), 3);
        assert_eq!((servers.live(), servers.wanted(), servers.next_attempt()), (3, 3, None));
        servers.lost(4000 * SECOND, "b", 0);
        assert!(servers.next_attempt().is_some_and(|due| due <= 4002 * SECOND));
        run(&mut servers, 4000 * SECOND, 5000 * SECOND, &["a", "b", "c"]);
        assert_eq!((servers.live(), servers.next_attempt()), (3, None));
    }

    #[test]
    fn attempts_are_rare_while_nothing_is_missing_or_nothing_helps() {
        // Nothing missing, but there may be more one day.
        let mut servers = Servers::new(config(Some(45 * SECOND)));
        assert!(run(&mut servers, Duration::ZERO, 3600 * SECOND, &["a"]) <= 162);
        // A balancer that always leads to the same server of three.
        let mut servers = Servers::new(config(None));
        servers.met(Duration::ZERO, "a", 3, 0);
        let mut attempts = 0;
        while let Some(due) = servers.next_attempt().filter(|due| *due <= 3600 * SECOND) {
            assert_eq!(servers.met(due, "a", 3, u64::MAX / 2), Attempt::Duplicate);
            attempts += 1;
        }
        assert!((300..=370).contains(&attempts), "{attempts}");
        // Nobody there for an hour.
        let mut servers = Servers::new(config(None));
        assert!(run(&mut servers, Duration::ZERO, 3600 * SECOND, &[]) <= 370);
    }

    #[test]
    fn a_changed_count_is_followed() {
        let mut servers = Servers::new(config(Some(45 * SECOND)));
        run(&mut servers, Duration::ZERO, 10 * SECOND, &["a"]);
        run(&mut servers, 10 * SECOND, 600 * SECOND, &["a", "b"]);
        assert_eq!((servers.live(), servers.wanted()), (2, 2));
        servers.counted(600 * SECOND, Some(3));
        assert_eq!((servers.wanted(), servers.next_attempt()), (3, Some(600 * SECOND)));
        servers.counted(600 * SECOND, None);
        assert_eq!(servers.wanted(), 2);
        servers.drain();
        assert_eq!(servers.next_attempt(), None);
    }

    proptest! {
        /// Whatever happens: unless draining or at rest with enough servers, an attempt is due, in bounded time.
        #[test]
        fn an_agent_never_gives_up(steps in prop::collection::vec((0_u8..4, 0_u8..5, 0_usize..200, any::<u64>(), 0_u64..20), 1..200)) {
            let mut servers = Servers::new(config(None));
            let mut now = Duration::ZERO;
            for (what, server, count, chance, pass) in steps {
                now += Duration::from_secs(pass);
                let name = format!("server-{server}");
                match what {
                    0 => { servers.attempting(); servers.failed(now, chance); }
                    1 | 2 => { servers.attempting(); servers.met(now, &name, count, chance); }
                    _ => servers.lost(now, &name, chance),
                }
                if servers.live() < servers.wanted() {
                    let due = servers.next_attempt();
                    prop_assert!(due.is_some_and(|due| due <= now + Duration::from_secs(16)), "{due:?} at {now:?}");
                }
            }
        }
    }
}
