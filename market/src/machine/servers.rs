//! The servers of one market as counts: how many are occupied, who waits for one, who has to leave one and when.
//!
//! When servers become free, and for whom, is in [`super::promises`]. Which server a lease has is not decided here. A
//! new lease is served while fewer servers are occupied than there
//! are; else it waits in line, and is promised the first server to become free that nobody before it is promised.

use std::collections::VecDeque;

use proto::Timestamp;

use super::lease::{Leases, NONE, Span, Stand, Worker};
use super::stretches::Stretches;

/// Leases that leave at one instant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departing {
    pub(super) gone_at: Timestamp,
    pub(super) units: u32,
    /// One of their spans; the others are linked behind it.
    head: u32,
}

/// The first and the last of linked spans.
type Ends = (u32, u32);

/// The lists of linked spans that a market has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum List {
    /// Who waits for a server, by lease number.
    Line,
    /// Who has had one without a ready worker so far, by since when.
    Booting,
    /// Whose worker is dead, by since when.
    Dead,
}

/// One market's servers.
#[derive(Clone, Debug)]
pub(super) struct Servers {
    /// Servers there are.
    pub(super) supply: u32,
    /// Servers held by leases, leaving ones included. More than `supply` while servers that are no longer counted
    /// are still held.
    pub(super) occupied: u32,
    /// Units that wait, and their spans in line: oldest lease first.
    pub(super) waiting: u32,
    pub(super) line: Ends,
    pub(super) stretches: Stretches,
    /// Spans without a ready worker, where that is watched.
    booting: Ends,
    dead: Ends,
    /// By instant, ascending. Entries in the middle may have become empty.
    pub(super) departing: VecDeque<Departing>,
    /// Units that leave.
    pub(super) leaving: u32,
}

impl Default for Servers {
    fn default() -> Self {
        Self {
            supply: 0,
            occupied: 0,
            waiting: 0,
            line: (NONE, NONE),
            stretches: Stretches::default(),
            booting: (NONE, NONE),
            dead: (NONE, NONE),
            departing: VecDeque::new(),
            leaving: 0,
        }
    }
}

impl Servers {
    pub(super) const fn occupied(&self) -> u32 {
        self.occupied
    }

    pub(super) const fn waiting(&self) -> u32 {
        self.waiting
    }

    pub(super) const fn leaving(&self) -> u32 {
        self.leaving
    }

    /// Units that count as won.
    pub(super) const fn live(&self) -> u32 {
        self.occupied - self.leaving + self.waiting
    }

    /// Servers that a new lease could have at once.
    pub(super) const fn vacant(&self) -> u32 {
        self.supply.saturating_sub(self.occupied)
    }

    /// The next instant at which leases are gone.
    pub(super) fn next_gone_at(&self) -> Option<Timestamp> {
        self.departing.front().map(|departing| departing.gone_at)
    }

    /// Who waits first.
    pub(super) const fn first_in_line(&self) -> u32 {
        self.line.0
    }

    /// The spans that are gone by `now`, in no particular order.
    pub(super) fn gone_by(&self, leases: &Leases, now: Timestamp, out: &mut Vec<u32>) {
        for departing in self.departing.iter().take_while(|departing| departing.gone_at <= now) {
            let mut index = departing.head;
            while index != NONE {
                out.push(index);
                index = leases.span(index).behind;
            }
        }
    }

    /// Other servers are there; who waits is served if he can be.
    pub(super) fn set_supply(&mut self, leases: &mut Leases, supply: u32, now: Timestamp) {
        self.supply = supply;
        self.serve_line(leases, now);
    }

    /// Gives vacant servers to those in line.
    pub(super) fn serve_line(&mut self, leases: &mut Leases, now: Timestamp) {
        while self.vacant() > 0 && self.line.0 != NONE {
            let mut index = self.line.0;
            let vacant = self.vacant();
            if leases.span(index).units > vacant {
                index = leases.part_oldest(self, index, vacant);
            }
            leases.turn(self, index, Stand::Served, now);
        }
    }

    /// Counts a span in, by its state.
    pub(super) fn enter(&mut self, leases: &mut Leases, index: u32) {
        let span = *leases.span(index);
        match span.stand {
            Stand::Served => {
                self.occupied += span.units;
                if let Some(list) = list_of(leases, &span) {
                    // Time goes on: who is counted in now has been without a worker for the shortest time.
                    let last = self.ends(list).1;
                    self.link(leases, list, last, index, NONE);
                }
            }
            Stand::Waiting => {
                self.waiting += span.units;
                self.join_line(leases, index);
                self.stretches.join(leases, index);
            }
            Stand::Leaving(_) => {
                self.occupied += span.units;
                self.leaving += span.units;
                let place = self.place_of(span.until);
                let head = std::mem::replace(&mut self.departing[place].head, index);
                self.departing[place].units += span.units;
                leases.span_mut(index).behind = head;
                leases.span_mut(index).ahead = NONE;
                if head != NONE {
                    leases.span_mut(head).ahead = index;
                }
            }
        }
    }

    /// Puts a span in line by its lease numbers: those are given by award round, limit and age. Newcomers are the
    /// youngest, so the search from the end is short.
    fn join_line(&mut self, leases: &mut Leases, index: u32) {
        let first = leases.span(index).first;
        let mut ahead = self.line.1;
        while ahead != NONE && leases.span(ahead).first > first {
            ahead = leases.span(ahead).ahead;
        }
        let behind = if ahead == NONE { self.line.0 } else { leases.span(ahead).behind };
        self.link(leases, List::Line, ahead, index, behind);
    }

    const fn ends(&mut self, list: List) -> &mut Ends {
        match list {
            List::Line => &mut self.line,
            List::Booting => &mut self.booting,
            List::Dead => &mut self.dead,
        }
    }

    fn link(&mut self, leases: &mut Leases, list: List, ahead: u32, index: u32, behind: u32) {
        leases.span_mut(index).ahead = ahead;
        leases.span_mut(index).behind = behind;
        let ends = self.ends(list);
        if ahead == NONE {
            ends.0 = index;
        } else {
            leases.span_mut(ahead).behind = index;
        }
        if behind == NONE {
            ends.1 = index;
        } else {
            leases.span_mut(behind).ahead = index;
        }
    }

    /// Takes a span out of the list that it stands in, if it stands in one.
    pub(super) fn unlink(&mut self, leases: &mut Leases, index: u32) {
        let Span { ahead, behind, .. } = *leases.span(index);
        let Some(list) = list_of(leases, leases.span(index)) else { return };
        let ends = self.ends(list);
        if ahead == NONE {
            ends.0 = behind;
        } else {
            leases.span_mut(ahead).behind = behind;
        }
        if behind == NONE {
            ends.1 = ahead;
        } else {
            leases.span_mut(behind).ahead = ahead;
        }
    }

    /// Lists served spans without a ready worker, those longest without first.
    pub(super) fn list_anew(&mut self, leases: &mut Leases, spans: &[u32]) {
        (self.booting, self.dead) = ((NONE, NONE), (NONE, NONE));
        for &index in spans {
            leases.span_mut(index).ahead = NONE;
            leases.span_mut(index).behind = NONE;
            if let Some(list) = list_of(leases, leases.span(index)) {
                let last = self.ends(list).1;
                self.link(leases, list, last, index, NONE);
            }
        }
    }

    /// Since when the span that has been booting longest is, and that whose worker has been dead longest; only where
    /// that is watched.
    pub(super) fn longest_without(&self, leases: &Leases) -> (Option<Timestamp>, Option<Timestamp>) {
        let since = |first: u32| (first != NONE).then(|| leases.span(first).until);
        (since(self.booting.0), since(self.dead.0))
    }

    /// The spans that have been booting since `booting` or before, and those whose workers have been dead since `dead`
    /// or before.
    pub(super) fn overdue(
        &self,
        leases: &Leases,
        booting: Option<Timestamp>,
        dead: Option<Timestamp>,
        out: &mut Vec<u32>,
    ) {
        for (first, since) in [(self.booting.0, booting), (self.dead.0, dead)] {
            let Some(since) = since else { continue };
            let mut index = first;
            while index != NONE && leases.span(index).until <= since {
                out.push(index);
                index = leases.span(index).behind;
            }
        }
    }

    /// Counts a span out.
    pub(super) fn exit(&mut self, leases: &mut Leases, index: u32) {
        let span = *leases.span(index);
        match span.stand {
            Stand::Served => {
                self.occupied -= span.units;
                self.unlink(leases, index);
            }
            Stand::Waiting => {
                self.waiting -= span.units;
                self.stretches.leave(leases, index);
                self.unlink(leases, index);
            }
            Stand::Leaving(_) => {
                self.occupied -= span.units;
                self.leaving -= span.units;
                let place = self.place_of(span.until);
                self.departing[place].units -= span.units;
                if span.ahead == NONE {
                    self.departing[place].head = span.behind;
                } else {
                    leases.span_mut(span.ahead).behind = span.behind;
                }
                if span.behind != NONE {
                    leases.span_mut(span.behind).ahead = span.ahead;
                }
                self.drop_empty_ends();
            }
        }
        leases.span_mut(index).ahead = NONE;
        leases.span_mut(index).behind = NONE;
    }

    /// A span was parted: the older part takes its place just ahead of the younger, in the same queue.
    pub(super) fn joined_ahead(&mut self, leases: &mut Leases, older: u32, younger: u32) {
        let stand = leases.span(younger).stand;
        let ahead = leases.span(younger).ahead;
        match stand {
            Stand::Served | Stand::Waiting => {
                if let Some(list) = list_of(leases, leases.span(younger)) {
                    self.link(leases, list, ahead, older, younger);
                    if list == List::Line {
                        self.stretches.part(leases, older, younger);
                    }
                }
            }
            Stand::Leaving(_) => {
                let place = self.place_of(leases.span(younger).until);
                leases.span_mut(older).ahead = ahead;
                leases.span_mut(older).behind = younger;
                leases.span_mut(younger).ahead = older;
                if ahead == NONE {
                    self.departing[place].head = older;
                } else {
                    leases.span_mut(ahead).behind = older;
                }
            }
        }
    }

    /// The place of an instant among the departing, made if it is new. Nearly always the last one.
    fn place_of(&mut self, gone_at: Timestamp) -> usize {
        let new = Departing { gone_at, units: 0, head: NONE };
        match self.departing.back().map(|last| last.gone_at.cmp(&gone_at)) {
            Some(std::cmp::Ordering::Equal) => self.departing.len() - 1,
            None | Some(std::cmp::Ordering::Less) => {
                self.departing.push_back(new);
                self.departing.len() - 1
            }
            Some(std::cmp::Ordering::Greater) => {
                let place = self.departing.partition_point(|departing| departing.gone_at < gone_at);
                if self.departing[place].gone_at != gone_at {
                    self.departing.insert(place, new);
                }
                place
            }
        }
    }

    fn drop_empty_ends(&mut self) {
        while self.departing.front().is_some_and(|departing| departing.units == 0) {
            self.departing.pop_front();
        }
        while self.departing.back().is_some_and(|departing| departing.units == 0) {
            self.departing.pop_back();
        }
    }
}

/// The list that a span stands in, if it stands in one.
const fn list_of(leases: &Leases, span: &Span) -> Option<List> {
    match (span.stand, span.worker) {
        (Stand::Waiting, _) => Some(List::Line),
        (Stand::Served, Worker::Booting) if leases.watched.booting => Some(List::Booting),
        (Stand::Served, Worker::Dead) if leases.watched.dead => Some(List::Dead),
        _ => None,
    }
}
