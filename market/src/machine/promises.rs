//! When the servers of one market become free, and for whom: those that leave first go to those in line, in order.

use std::collections::{VecDeque, vec_deque};

use proto::Timestamp;

use super::lease::{Leases, NONE};
use super::servers::{Departing, Servers};

impl Servers {
    /// Leaving units whose server is spoken for: those that make up for servers no longer counted, and those that
    /// units in line are promised. They are the first to go.
    fn promised(&self) -> u32 {
        if self.waiting == 0 { 0 } else { self.occupied.saturating_sub(self.supply) + self.waiting }
    }

    /// When the `more`-th unit behind those in line would get a server at the latest; none if fewer leave.
    pub(super) fn promise(&self, more: u32) -> Option<Timestamp> {
        self.promise_at(self.waiting + more)
    }

    /// When the unit at a place in line, counted from 1, gets a server at the latest.
    fn promise_at(&self, place: u32) -> Option<Timestamp> {
        let wanted = self.occupied.saturating_sub(self.supply) + place;
        let mut beyond = self.leaving.checked_sub(wanted)?;
        // From the end: in a market that is sold out the last to leave is the last one promised.
        for departing in self.departing.iter().rev() {
            if beyond < departing.units {
                return Some(departing.gone_at);
            }
            beyond -= departing.units;
        }
        None
    }

    /// How many of the units that leave at an instant nobody is promised.
    pub(super) fn unpromised_at(&self, gone_at: Timestamp) -> u32 {
        let mut beyond = self.leaving.saturating_sub(self.promised());
        for departing in self.departing.iter().rev() {
            let unpromised = beyond.min(departing.units);
            if departing.gone_at == gone_at {
                return unpromised;
            }
            beyond -= unpromised;
            if beyond == 0 {
                return 0;
            }
        }
        0
    }

    /// A span in line was told another instant.
    pub(super) fn told(&mut self, leases: &Leases, index: u32) {
        self.stretches.tell(leases, index);
    }

    /// The spans in line that get their server later than they were told, with when.
    pub(super) fn delayed(&mut self, leases: &Leases) -> Vec<(u32, Timestamp)> {
        let mut late = Vec::new();
        let mut freed = Freed::of(&self.departing);
        // The last unit of a span is the `wanted`-th to be served.
        let mut wanted = self.occupied.saturating_sub(self.supply);
        for stretch in self.stretches.iter_mut() {
            let mut after = freed.clone();
            if after.at(wanted + stretch.units).is_some_and(|at| at <= stretch.least_until) {
                (freed, wanted) = (after, wanted + stretch.units);
                continue;
            }
            let mut left = stretch.units;
            let mut index = stretch.head;
            stretch.least_until = Timestamp::MAX;
            while left > 0 {
                let span = leases.span(index);
                wanted += span.units;
                if let Some(at) = freed.at(wanted).filter(|&at| at > span.until) {
                    late.push((index, at));
                }
                stretch.least_until = stretch.least_until.min(span.until);
                left -= span.units;
                index = span.behind;
            }
        }
        late
    }

    /// What is wrong with what is kept beside the line, if anything is: for [`super::Market::check_all`].
    pub(super) fn fault(&self, leases: &Leases) -> Option<String> {
        let mut line = Vec::new();
        let mut index = self.line.0;
        while index != NONE {
            line.push(index);
            index = leases.span(index).behind;
        }
        let mut late = Vec::new();
        let mut wanted = self.occupied.saturating_sub(self.supply);
        let mut freed = Freed::of(&self.departing);
        for &index in &line {
            wanted += leases.span(index).units;
            let at = freed.at(wanted).filter(|&at| at > leases.span(index).until);
            late.extend(at.map(|at| (index, at)));
        }
        let kept = self.clone().delayed(leases);
        let is_right = kept == late;
        let fault = self.stretches.fault(leases, &line);
        fault.or_else(|| (!is_right).then(|| format!("{kept:?} are late, in truth {late:?}")))
    }
}

/// When servers become free, one after another.
#[derive(Clone)]
struct Freed<'a> {
    departing: vec_deque::Iter<'a, Departing>,
    /// Units that have left by the instant `last`.
    gone: u32,
    last: Option<Timestamp>,
}

impl<'a> Freed<'a> {
    fn of(departing: &'a VecDeque<Departing>) -> Self {
        let mut departing = departing.iter();
        let first = departing.next();
        Self { departing, gone: first.map_or(0, |first| first.units), last: first.map(|first| first.gone_at) }
    }

    /// When the `wanted`-th is free at the latest; none if fewer leave. To be asked in ascending order.
    fn at(&mut self, wanted: u32) -> Option<Timestamp> {
        while self.gone < wanted && self.last.is_some() {
            let next = self.departing.next();
            self.gone += next.map_or(0, |next| next.units);
            self.last = next.map(|next| next.gone_at);
        }
        self.last
    }
}
