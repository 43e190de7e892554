//! Other places for what cannot stay where it is.

use proto::Timestamp;

use super::choose::{Shortage, fits};
use super::{Amounts, HostOrd, PlaneOrd, Room, Site};

/// How many replicas are tried out of the way of one that finds no room, before it is given up.
const TRIED_MAX: u32 = 512;

/// A replica that belongs on another host now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Whose replica.
    pub plane: PlaneOrd,
    /// Where it was; none if it was nowhere.
    pub from: Option<HostOrd>,
    /// Where it belongs.
    pub to: HostOrd,
    /// When its host is gone.
    pub gone_at: Option<Timestamp>,
    /// The plane that has to leave `to` first, as it made room.
    pub after: Option<PlaneOrd>,
}

/// A replica that has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtRisk {
    /// Whose replica.
    pub plane: PlaneOrd,
    /// Where it still is; none if it is nowhere.
    pub on: Option<HostOrd>,
    /// When its host is gone.
    pub gone_at: Option<Timestamp>,
    /// What stands in the way.
    pub shortage: Shortage,
}

/// What resettling came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resettled {
    /// Moves in the order in which they were decided, the most urgent first.
    pub moves: Vec<Move>,
    /// What remains.
    pub at_risk: Vec<AtRisk>,
}

/// A replica to be resettled. The order is the policy: the sooner its host is gone the earlier, then the larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Displaced {
    without_deadline: bool,
    gone_at: Option<Timestamp>,
    /// `u64::MAX` less its request of the scarcest resource.
    smallness: u64,
    plane: PlaneOrd,
    from: Option<HostOrd>,
}

impl Site {
    /// Finds other places for everything on leaving hosts and on hosts that hold too much, and places for what has
    /// none. A replica that finds no room directly may send another one elsewhere. What finds none stays where it is,
    /// at risk; asking again without a change changes nothing.
    pub fn resettle(&mut self) -> Resettled {
        let mut resettled = Resettled::default();
        // What moves away may leave room for others, so that those at risk are tried again as long as any are placed:
        // the last turn changes nothing, and neither would another.
        loop {
            let moves = resettled.moves.len();
            resettled.at_risk.clear();
            self.resettle_once(&mut resettled);
            if resettled.moves.len() == moves || resettled.at_risk.is_empty() {
                return resettled;
            }
        }
    }

    fn resettle_once(&mut self, resettled: &mut Resettled) {
        let mut displaced = self.displaced();
        displaced.sort_unstable();
        for displaced in displaced {
            self.resettle_one(displaced, resettled);
        }
    }

    /// Everything that cannot stay, or has no place.
    fn displaced(&self) -> Vec<Displaced> {
        let mut displaced = Vec::new();
        let mut note = |plane: PlaneOrd, from: Option<HostOrd>, gone_at: Option<Timestamp>| {
            if let Some(terms) = self.terms(plane) {
                let smallness = u64::MAX - terms.request[self.scarcest(&terms.request)];
                displaced.push(Displaced {
                    without_deadline: gone_at.is_none(),
                    gone_at,
                    smallness,
                    plane,
                    from,
                });
            }
        };
        for (ord, host) in (0..).zip(&self.hosts).filter_map(|(ord, host)| Some((ord, host.as_ref()?))) {
            if host.gone_at.is_some() {
                for plane in &host.planes {
                    note(*plane, Some(ord), host.gone_at);
                }
            } else if self.rooms[ord as usize].iter().any(|room| *room < 0) {
                for plane in self.excess(ord) {
                    note(plane, Some(ord), None);
                }
            }
        }
        for plane in self.short() {
            for _ in 0..self.missing(plane) {
                note(plane, None, None);
            }
        }
        displaced
    }

    /// Whether a replica that was listed as displaced still is.
    fn is_displaced(&self, plane: PlaneOrd, from: Option<HostOrd>) -> bool {
        let Some(from) = from else { return self.missing(plane) > 0 };
        let overfull = || self.rooms[from as usize].iter().any(|room| *room < 0);
        self.on(plane).contains(&from) && (self.gone_at(from).is_some() || overfull())
    }

    /// What has to go from a host that holds too much: those that cure most, the smaller ones first.
    fn excess(&self, host: HostOrd) -> Vec<PlaneOrd> {
        let mut room = self.rooms[host as usize];
        let mut planes = self.planes_on(host).to_vec();
        let mut excess = Vec::new();
        // Each turn takes one.
        while room.iter().any(|room| *room < 0) {
            let request =
                |plane: PlaneOrd| self.terms(plane).map_or([0; super::RESOURCES_MAX], |terms| terms.request);
            let relief = |plane: &PlaneOrd| {
                let request = request(*plane);
                let amounts = request.iter().zip(&room);
                let left: i64 = amounts.map(|(amount, room)| (-room - *amount as i64).max(0)).sum();
                (left, request, *plane)
            };
            let Some(plane) = planes.iter().copied().min_by_key(relief) else { break };
            planes.retain(|other| *other != plane);
            for (room, amount) in room.iter_mut().zip(request(plane)) {
                *room += amount as i64;
            }
            excess.push(plane);
        }
        excess
    }

    fn resettle_one(&mut self, displaced: Displaced, resettled: &mut Resettled) {
        let Displaced { plane, from, gone_at, .. } = displaced;
        if !self.is_displaced(plane, from) {
            return; // It has made room for another, or another for it, since it was listed.
        }
        if let Some(from) = from {
            self.take(plane, from);
        }
        let shortage = match self.choose(plane, from) {
            Ok(score) => {
                self.put(plane, score.host);
                resettled.moves.push(Move { plane, from, to: score.host, gone_at, after: None });
                return;
            }
            Err(shortage) => shortage,
        };
        if shortage == Shortage::Full
            && let Some((other, host, to)) = self.make_room(plane, from)
        {
            self.take(other, host);
            self.put(other, to);
            self.put(plane, host);
            resettled.moves.push(Move { plane: other, from: Some(host), to, gone_at, after: None });
            resettled.moves.push(Move { plane, from, to: host, gone_at, after: Some(other) });
            return;
        }
        if let Some(from) = from {
            self.put(plane, from);
        }
        resettled.at_risk.push(AtRisk { plane, on: from, gone_at, shortage });
    }

    /// A replica of another plane whose place would do, where that is, and where it could go itself. Hosts that lack
    /// least are tried first.
    fn make_room(
        &mut self,
        plane: PlaneOrd,
        except: Option<HostOrd>,
    ) -> Option<(PlaneOrd, HostOrd, HostOrd)> {
        let request = self.terms(plane)?.request;
        let resource = self.scarcest(&request);
        let from = self.scale.step(resource, request[resource] as i64);
        let mut tried = 0;
        // By label, so that it does not matter which of them was there first.
        let shelves: Vec<u32> = self.shelf_of.values().copied().collect();
        for shelf in shelves {
            let hosts: Vec<HostOrd> =
                self.shelves[shelf as usize].down_from(resource, from).take(TRIED_MAX as usize).collect();
            for host in hosts {
                if except == Some(host) || !self.allowed(plane, host) {
                    continue;
                }
                let room = self.rooms[host as usize];
                let mut others: Vec<(Amounts, PlaneOrd)> = self
                    .planes_on(host)
                    .iter()
                    .filter_map(|other| {
                        let theirs = self.terms(*other)?.request;
                        (theirs[resource] < request[resource] && fits(&request, &joined(&room, &theirs)))
                            .then_some((theirs, *other))
                    })
                    .collect();
                others.sort_unstable();
                for (_, other) in others {
                    tried += 1;
                    if tried > TRIED_MAX {
                        return None;
                    }
                    self.take(other, host);
                    // The newcomer is still where it was while the other makes room for it.
                    if let Some(from) = except {
                        self.put(plane, from);
                    }
                    let found = self.choose(other, Some(host));
                    if let Some(from) = except {
                        self.take(plane, from);
                    }
                    self.put(other, host);
                    if let Ok(score) = found {
                        return Some((other, host, score.host));
                    }
                }
            }
        }
        None
    }
}

/// A host's room with a replica's request added.
fn joined(room: &Room, request: &Amounts) -> Room {
    let mut joined = *room;
    for (joined, amount) in joined.iter_mut().zip(request) {
        *joined += *amount as i64;
    }
    joined
}
