//! A line of waiting spans in stretches of neighbouring lease numbers, so that a look at who gets a server later than
//! he was told passes over all stretches in which nobody does.
//!
//! Servers become free in order, so within a stretch nobody gets one later than its last unit does. If that one's
//! instant is no later than what any of the stretch was told, nobody there is late.

use std::collections::VecDeque;

use proto::Timestamp;

use super::lease::{Leases, Span};

/// Lease numbers of one stretch.
const LEASES_PER_STRETCH: u64 = 512;

/// The spans in line whose leases begin with numbers of one stretch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    number: u64,
    /// Their units; never none.
    pub(super) units: u32,
    /// The first of them in line.
    pub(super) head: u32,
    /// No span was told an earlier instant; all may have been told later ones.
    pub(super) least_until: Timestamp,
}

/// All stretches of a line, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Stretches(VecDeque<Stretch>);

const fn number_of(span: &Span) -> u64 {
    span.first / LEASES_PER_STRETCH
}

impl Stretches {
    /// The place of a stretch, or where it would be. Nearly always the last or the first.
    fn place_of(&self, number: u64) -> Result<usize, usize> {
        match self.0.back() {
            None => return Err(0),
            Some(last) if last.number < number => return Err(self.0.len()),
            Some(last) if last.number == number => return Ok(self.0.len() - 1),
            Some(_) => {}
        }
        if self.0.front().is_some_and(|first| first.number == number) {
            return Ok(0);
        }
        self.0.binary_search_by_key(&number, |stretch| stretch.number)
    }

    /// A span has joined the line.
    pub(super) fn join(&mut self, leases: &Leases, index: u32) {
        let span = leases.span(index);
        let number = number_of(span);
        match self.place_of(number) {
            Err(place) => {
                let stretch = Stretch { number, units: span.units, head: index, least_until: span.until };
                self.0.insert(place, stretch);
            }
            Ok(place) => {
                let stretch = &mut self.0[place];
                stretch.units += span.units;
                stretch.least_until = stretch.least_until.min(span.until);
                if span.first < leases.span(stretch.head).first {
                    stretch.head = index;
                }
            }
        }
    }

    /// A span is about to leave the line, where its neighbours still know it.
    pub(super) fn leave(&mut self, leases: &Leases, index: u32) {
        let span = leases.span(index);
        let Ok(place) = self.place_of(number_of(span)) else { return };
        let stretch = &mut self.0[place];
        stretch.units -= span.units;
        if stretch.units == 0 {
            self.0.remove(place);
        } else if stretch.head == index {
            stretch.head = span.behind;
        }
    }

    /// A span in line was parted: the older part stands where it stood, the younger may begin a stretch of its own.
    pub(super) fn part(&mut self, leases: &Leases, older: u32, younger: u32) {
        let (first, rest) = (leases.span(older), leases.span(younger));
        let Ok(place) = self.place_of(number_of(first)) else { return };
        let stretch = &mut self.0[place];
        if stretch.head == younger {
            stretch.head = older;
        }
        if number_of(rest) != number_of(first) {
            stretch.units -= rest.units;
            self.join(leases, younger);
        }
    }

    /// A span in line was told another instant.
    pub(super) fn tell(&mut self, leases: &Leases, index: u32) {
        let span = leases.span(index);
        if let Ok(place) = self.place_of(number_of(span)) {
            let stretch = &mut self.0[place];
            stretch.least_until = stretch.least_until.min(span.until);
        }
    }

    /// All of them, in order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stretch> {
        self.0.iter_mut()
    }

    /// What is wrong with them, if anything is, beside the line itself: for [`super::Market::check_all`].
    pub(super) fn fault(&self, leases: &Leases, line: &[u32]) -> Option<String> {
        let mut anew: Vec<Stretch> = Vec::new();
        for &index in line {
            let span = leases.span(index);
            if let Some(last) = anew.last_mut().filter(|last| last.number == number_of(span)) {
                last.units += span.units;
                last.least_until = last.least_until.min(span.until);
            } else {
                let (number, units) = (number_of(span), span.units);
                anew.push(Stretch { number, units, head: index, least_until: span.until });
            }
        }
        let is_same = |(kept, anew): (&Stretch, &Stretch)| {
            (kept.number, kept.units, kept.head) == (anew.number, anew.units, anew.head)
                && kept.least_until <= anew.least_until
        };
        let is_right = self.0.len() == anew.len() && self.0.iter().zip(&anew).all(is_same);
        (!is_right).then(|| format!("kept as {:?} and is {anew:?}", self.0))
    }
}
