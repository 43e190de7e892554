//! The meter of leases that have the same history: what each has cost, in pieces without a gap from grant to release.

use std::collections::VecDeque;

use proto::Timestamp;
use proto::market::MarketNumber;
use serde::{Deserialize, Serialize};

use super::amount::Exact;
use super::month::Month;
use super::tariff::{Rate, Tariff};

/// Pieces younger than this stay on the meter, in microseconds: what is told late of a worker can still change them.
pub(crate) const LATE_MICROSECONDS_MAX: i64 = 24 * 3_600 * 1_000_000;
/// Pieces that stay on a meter whatever their age is; the oldest of more are settled early.
const PIECES_MAX: usize = 64;

/// Why time is not charged.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Unbilled {
    /// The lease had no ready worker yet.
    Provisioning,
    /// The worker was dead, from its last heartbeat on.
    WorkerDead,
    /// The server was lost, from its real end on.
    ServerLost,
    /// The server was lost before its notice was over: from its real end to the instant that was promised.
    NoticeBroken,
}

/// How a piece of a lease's time is charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Basis {
    Billed(Rate),
    Unbilled(Unbilled),
}

impl Basis {
    pub(crate) const fn rate(self) -> Rate {
        match self {
            Self::Billed(rate) => rate,
            Self::Unbilled(_) => Rate::Nothing,
        }
    }

    pub(crate) const fn is_billed(self) -> bool {
        matches!(self, Self::Billed(_))
    }
}

/// What is known of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Worker {
    Booting,
    Ready,
    Dead,
    Lost,
}

/// A piece of a lease's time, within one month: half-open, `amount` for one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    from_micros: i64,
    to_micros: i64,
    pub(crate) basis: Basis,
    pub(crate) amount: Exact,
}

impl Piece {
    pub(crate) const fn from(&self) -> Timestamp {
        Timestamp::from_micros(self.from_micros)
    }

    pub(crate) const fn to(&self) -> Timestamp {
        Timestamp::from_micros(self.to_micros)
    }

    /// The piece that begins where this one ends with `to`; none if nothing is left.
    fn unbilled(from_micros: i64, to_micros: i64, why: Unbilled) -> Option<Self> {
        let basis = Basis::Unbilled(why);
        (from_micros < to_micros).then_some(Self { from_micros, to_micros, basis, amount: 0 })
    }
}

/// Consecutive leases of one bid with the same history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Meter {
    pub(crate) units: u32,
    pub(crate) market: MarketNumber,
    worker: Worker,
    /// Whether there ever was a ready worker: of other leases nothing is settled.
    pub(crate) was_ready: bool,
    /// What a unit pays at most while nothing of it leaves: nothing but gangs and on-demand units need to be told.
    rate: Rate,
    /// What it pays at most while it leaves, and until when it may stay.
    leaving: Option<(u64, i64)>,
    /// Closed pieces that are not settled yet.
    pieces: VecDeque<Piece>,
    /// What was settled of one unit.
    settled: Exact,
    /// Since when the open piece runs, and the tariff's value then.
    from_micros: i64,
    opened: Exact,
}

impl Meter {
    /// A meter of leases that were just granted.
    pub(crate) fn new(at: Timestamp, units: u32, market: MarketNumber, rate: Rate) -> Self {
        Self {
            units,
            market,
            worker: Worker::Booting,
            was_ready: false,
            rate,
            leaving: None,
            pieces: VecDeque::new(),
            settled: 0,
            from_micros: at.micros(),
            opened: 0,
        }
    }

    /// How time is charged now.
    pub(crate) const fn basis(&self) -> Basis {
        match (self.worker, self.leaving, self.rate) {
            (Worker::Booting, ..) => Basis::Unbilled(Unbilled::Provisioning),
            (Worker::Dead, ..) => Basis::Unbilled(Unbilled::WorkerDead),
            (Worker::Lost, None, _) => Basis::Unbilled(Unbilled::ServerLost),
            (Worker::Lost, Some(_), _) => Basis::Unbilled(Unbilled::NoticeBroken),
            // What is never interrupted pays its own price to the end.
            (Worker::Ready, Some((cap, _)), Rate::Market | Rate::Capped(_)) => {
                Basis::Billed(Rate::Capped(cap))
            }
            (Worker::Ready, _, rate) => Basis::Billed(rate),
        }
    }

    /// The part of the leases from the `units`-th on, as a meter of its own.
    pub(crate) fn part(&mut self, tariff: &mut Tariff, units: u32) -> Self {
        let mut rest = self.clone();
        rest.units = self.units.saturating_sub(units);
        self.units = units;
        tariff.enter(rest.basis().rate());
        rest
    }

    /// Changes what the meter knows; where that changes how time is charged, a piece ends and another begins.
    fn change(&mut self, tariff: &mut Tariff, at: Timestamp, change: impl FnOnce(&mut Self)) {
        let before = self.basis();
        change(self);
        let after = self.basis();
        if before == after {
            return;
        }
        self.close(tariff, at, before);
        tariff.exit(before.rate());
        tariff.enter(after.rate());
        self.opened = tariff.value(after.rate(), at);
    }

    /// Ends the open piece; the next one begins where it ended.
    fn close(&mut self, tariff: &Tariff, at: Timestamp, basis: Basis) {
        let to_micros = at.micros();
        if self.from_micros < to_micros {
            let amount = tariff.value(basis.rate(), at) - self.opened;
            self.pieces.push_back(Piece { from_micros: self.from_micros, to_micros, basis, amount });
        }
        self.from_micros = to_micros;
    }

    /// A month is over: what runs on is of the next one.
    pub(crate) fn end_month(&mut self, tariff: &Tariff, end: Timestamp) {
        let basis = self.basis();
        self.close(tariff, end, basis);
        self.opened = tariff.value(basis.rate(), end);
    }

    pub(crate) fn ready(&mut self, tariff: &mut Tariff, at: Timestamp) {
        self.was_ready = true;
        self.change(tariff, at, |this| this.worker = Worker::Ready);
    }

    /// The worker has been dead since an instant that may be past.
    pub(crate) fn dead(&mut self, tariff: &mut Tariff, at: Timestamp, since: Timestamp) {
        if self.worker == Worker::Ready {
            self.change(tariff, at, |this| this.worker = Worker::Dead);
            self.stopped_at(tariff, at, since);
        }
    }

    /// The leases have to leave; until then they pay at most `cap`.
    pub(crate) fn leave(&mut self, tariff: &mut Tariff, at: Timestamp, cap: u64, gone_at: Timestamp) {
        self.change(tariff, at, |this| this.leaving = Some((cap, gone_at.micros())));
    }

    /// They stay after all.
    pub(crate) fn stay(&mut self, tariff: &mut Tariff, at: Timestamp) {
        self.change(tariff, at, |this| this.leaving = None);
    }

    /// The bid has another limit: what leaves pays at most the highest it had, what stays and has a cap the new one.
    pub(crate) fn recap(&mut self, tariff: &mut Tariff, at: Timestamp, limit: u64) {
        self.change(tariff, at, |this| {
            if let Some((cap, _)) = &mut this.leaving {
                *cap = limit.max(*cap);
            }
            if let Rate::Capped(cap) = &mut this.rate {
                *cap = limit;
            }
        });
    }

    /// The leases' own price is another one; what pays the market's price is not meant.
    pub(crate) fn reprice(&mut self, tariff: &mut Tariff, at: Timestamp, price: u64) {
        self.change(tariff, at, |this| {
            if let Rate::Flat(own) = &mut this.rate {
                *own = price;
            }
        });
    }

    /// The leases are over; their servers were gone at `ended`, which may be past. Returns what was not settled.
    pub(crate) fn release(
        mut self,
        tariff: &mut Tariff,
        at: Timestamp,
        ended: Option<Timestamp>,
    ) -> impl Iterator<Item = Piece> {
        if let Some(ended) = ended {
            let was_ready = self.worker == Worker::Ready;
            self.change(tariff, at, |this| this.worker = Worker::Lost);
            if was_ready {
                self.stopped_at(tariff, at, ended);
            }
        }
        let basis = self.basis();
        self.close(tariff, at, basis);
        tariff.exit(basis.rate());
        if let (Some((_, gone_at)), Some(_)) = (self.leaving, ended) {
            self.add_unbilled(gone_at, Unbilled::NoticeBroken);
            let rest = Piece::unbilled(self.from_micros, gone_at, Unbilled::NoticeBroken);
            self.pieces.extend(rest);
        }
        self.pieces.into_iter()
    }

    /// Takes back what was charged since an instant: the open piece, which is not charged, begins there. What was
    /// charged before the worker last became ready, or was settled, stays.
    fn stopped_at(&mut self, tariff: &Tariff, at: Timestamp, since: Timestamp) {
        let Basis::Unbilled(why) = self.basis() else { return };
        let earliest = tariff.kept_from().max(at.plus_micros(-LATE_MICROSECONDS_MAX));
        let since = since.max(earliest).min(at).micros();
        while let Some(piece) = self.pieces.back_mut() {
            if !piece.basis.is_billed() || piece.to_micros <= since {
                break;
            }
            if piece.from_micros >= since {
                self.from_micros = piece.from_micros;
                self.pieces.pop_back();
                continue;
            }
            let (from, to) = (Timestamp::from_micros(since), piece.to());
            piece.amount -= tariff.walk(piece.basis.rate(), from, to);
            piece.to_micros = since;
            self.from_micros = since;
        }
        // Pieces are of one month each.
        self.add_unbilled(at.micros(), why);
        self.opened = 0;
    }

    /// Closes unbilled pieces at the ends of months before an instant.
    fn add_unbilled(&mut self, to_micros: i64, why: Unbilled) {
        let mut end = Month::of(Timestamp::from_micros(self.from_micros)).end().micros();
        while end <= to_micros && self.from_micros < end {
            self.pieces.extend(Piece::unbilled(self.from_micros, end, why));
            self.from_micros = end;
            end = Month::of(Timestamp::from_micros(end)).end().micros();
        }
    }

    /// Takes off the meter what nothing said late can change any more.
    pub(crate) fn settle(&mut self, at: Timestamp) -> Option<Piece> {
        let oldest = self.pieces.front().filter(|_| self.was_ready)?;
        let is_final = at.micros() - oldest.to_micros > LATE_MICROSECONDS_MAX;
        if !is_final && self.pieces.len() <= PIECES_MAX {
            return None;
        }
        let piece = self.pieces.pop_front()?;
        self.settled += piece.amount;
        Some(piece)
    }

    /// The pieces that are not settled, with the open one up to `at`.
    pub(crate) fn unsettled(&self, tariff: &Tariff, at: Timestamp) -> impl Iterator<Item = Piece> {
        let basis = self.basis();
        let (from_micros, to_micros) = (self.from_micros, at.micros());
        let amount = tariff.value(basis.rate(), at.max(Timestamp::from_micros(from_micros))) - self.opened;
        let open = (from_micros < to_micros).then_some(Piece { from_micros, to_micros, basis, amount });
        self.pieces.iter().copied().chain(open)
    }

    /// What one unit has cost in all by `at`.
    pub(crate) fn total(&self, tariff: &Tariff, at: Timestamp) -> Exact {
        self.settled + self.unsettled(tariff, at).map(|piece| piece.amount).sum::<Exact>()
    }
}
