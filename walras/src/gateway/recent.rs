//! What lately happened in one exchange, numbered, so that a reader whose connection broke can go on behind what
//! it has seen, and learns of it when that is not possible.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use market::view::Told;
use tokio::sync::broadcast;

/// What is kept for readers that come back, and how far one may fall behind before its connection is ended.
pub(super) const TOLD_KEPT: usize = 4_096;

/// A place in what an exchange tells: the batch, and how many of its facts. All facts of a batch are [`ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) sequence: u64,
    pub(super) index: u32,
}

/// The index behind every fact of a batch.
const ALL: u32 = u32::MAX;

impl Place {
    /// Behind everything that a batch told.
    pub(super) const fn behind(sequence: u64) -> Self {
        Self { sequence, index: ALL }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.index {
            ALL => write!(out, "{}", self.sequence),
            index => write!(out, "{}.{index}", self.sequence),
        }
    }
}

impl FromStr for Place {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once('.') {
            None => Self::behind(text.parse()?),
            Some((sequence, index)) => Self { sequence: sequence.parse()?, index: index.parse()? },
        })
    }
}

/// One thing that happened, or the news that some things were missed.
#[derive(Debug)]
pub(super) struct Happened {
    pub(super) place: Place,
    /// `None`: what happened up to `place` is not known here and must be read from what stands.
    pub(super) told: Option<Told>,
}

/// What lately happened.
#[derive(Debug)]
pub(super) struct Recent {
    kept: Mutex<Kept>,
    live: broadcast::Sender<Arc<Happened>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Everything behind this place is in `ring`.
    since: Place,
    /// How far the exchange has got.
    reached: Place,
    ring: VecDeque<Arc<Happened>>,
}

/// What a reader gets that begins to follow.
pub(super) struct Followed {
    /// Up to where the reader knows everything: behind this comes `past`, then `live`.
    pub(super) place: Place,
    /// What it missed.
    pub(super) past: Vec<Arc<Happened>>,
    /// What happens from now on.
    pub(super) live: broadcast::Receiver<Arc<Happened>>,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { kept: Mutex::default(), live: broadcast::Sender::new(TOLD_KEPT) }
    }

    /// What one batch told, in order.
    pub(super) fn tell(&self, sequence: u64, told: Vec<Told>) {
        let mut kept = self.kept();
        for (index, told) in (1..).zip(told) {
            let happened = Arc::new(Happened { place: Place { sequence, index }, told: Some(told) });
            kept.ring.push_back(Arc::clone(&happened));
            if kept.ring.len() > TOLD_KEPT
                && let Some(oldest) = kept.ring.pop_front()
            {
                kept.since = oldest.place;
            }
            // Nobody may be listening.
            let _ = self.live.send(happened);
        }
        kept.reached = Place::behind(sequence);
    }

    /// The view was replaced by one at `sequence`: what happened before is not known, unless that is how far this
    /// had got.
    pub(super) fn restart(&self, sequence: u64) {
        let mut kept = self.kept();
        let place = Place::behind(sequence);
        if kept.reached == place {
            return;
        }
        *kept = Kept { since: place, reached: place, ring: VecDeque::new() };
        let _ = self.live.send(Arc::new(Happened { place, told: None }));
    }

    /// Begins to follow: behind `after`, or from now on.
    pub(super) fn follow(&self, after: Option<Place>) -> Followed {
        let kept = self.kept();
        // Taken under the lock: what is told next is in `live` and not in `past`.
        let live = self.live.subscribe();
        let Some(after) = after else {
            return Followed { place: kept.reached, past: Vec::new(), live };
        };
        let missed = (after < kept.since).then(|| Arc::new(Happened { place: kept.since, told: None }));
        let behind = kept.ring.iter().filter(|one| one.place > after).map(Arc::clone);
        Followed { place: after, past: missed.into_iter().chain(behind).collect(), live }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proto::market::{Answer, Expired};

    use super::*;

    fn told(count: usize) -> Vec<Told> {
        let expired = Expired { tenant: "t".parse().unwrap(), bid: "b".parse().unwrap() };
        vec![Told::Tenant("t".parse().unwrap(), Answer::Expired(expired)); count]
    }

    fn places(past: &[Arc<Happened>]) -> Vec<String> {
        let show = |one: &Arc<Happened>| match one.told {
            Some(_) => one.place.to_string(),
            None => format!("gap to {}", one.place),
        };
        past.iter().map(show).collect()
    }

    fn after(recent: &Recent, place: &str) -> Vec<String> {
        places(&recent.follow(Some(place.parse().unwrap())).past)
    }

    #[test]
    fn a_reader_goes_on_behind_what_it_has_seen() {
        let recent = Recent::new();
        recent.restart(7);
        assert_eq!(recent.follow(None).place.to_string(), "7");
        recent.tell(8, told(2));
        recent.tell(9, told(0));
        recent.tell(10, told(1));
        assert_eq!(recent.follow(None).place.to_string(), "10");
        assert_eq!(after(&recent, "7"), ["8.1", "8.2", "10.1"]);
        assert_eq!(after(&recent, "8.1"), ["8.2", "10.1"]);
        assert_eq!(after(&recent, "8"), ["10.1"]);
        assert!(after(&recent, "10").is_empty());
        // Ahead of what is known here, as after a change of gateways: nothing is missed.
        assert!(after(&recent, "11").is_empty());
        assert_eq!(after(&recent, "6"), ["gap to 7", "8.1", "8.2", "10.1"]);
    }

    #[test]
    fn what_is_forgotten_is_a_gap() {
        let recent = Recent::new();
        recent.tell(1, told(TOLD_KEPT));
        recent.tell(2, told(1));
        let past = after(&recent, "0");
        assert_eq!((past.len(), past[0].as_str(), past[1].as_str()), (TOLD_KEPT + 1, "gap to 1.1", "1.2"));
        assert_eq!(after(&recent, "1.1").len(), TOLD_KEPT);
        let mut live = recent.follow(None).live;
        recent.restart(9);
        assert_eq!(places(&[live.try_recv().unwrap()]), ["gap to 9"]);
        assert_eq!(after(&recent, "2"), ["gap to 9"]);
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["0", "7", "7.1", "18446744073709551615.4294967294"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for bad in ["", ".", "7.", "-1", "x", "7.x", "18446744073709551616"] {
            assert!(bad.parse::<Place>().is_err(), "{bad:?}");
        }
        assert!("7.4".parse::<Place>().unwrap() < "7".parse().unwrap());
    }
}
