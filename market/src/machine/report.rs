//! What hypervisors and workers say of leases: who is ready, who is dead, who is gone.
//!
//! A worker speaks of its own lease, as the principal `lease-` and its number. A source of a market speaks of every lease
//! there, because the market does not know which server is whose; so do operators and our own services.

use proto::envelope::RefusalReason;
use proto::machine::{Role, Sender};
use proto::market::{
    BidNumber, LEASES_NAMED_MAX, LeaseNumber, LeaseSpan, LossReason, MarketEvent, MarketNumber, MoveLeases,
    ReleaseReason, ReportDead, ReportReady, ReportReleased,
};
use proto::{SourceId, Timestamp};

use super::Market;
use super::bounds::DEAD_LATE_MICROSECONDS_MAX;
use super::lease::{Span, Stand, Worker};
use super::terms::{Checked, refuse};

/// What the principal of a worker is called, before its lease's number.
const WORKER_PREFIX: &str = "lease-";

/// Services that know which lease has a server, whatever the counts here say: the one that gives leases their servers, and
/// the one that workers report to.
const KNOW_SERVERS: [&str; 2] = ["placement", "controlplane"];

/// Whether the sender knows better than our counts which lease has a server.
fn knows_servers(sender: &Sender) -> bool {
    sender.role == Role::Service && KNOW_SERVERS.contains(&sender.principal.as_str())
}

/// Leases of one bid that are in one state and follow one another.
struct Named {
    place: u32,
    number: BidNumber,
    market: MarketNumber,
    leases: LeaseSpan,
}

impl Market {
    pub(super) fn report_ready(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        command: &ReportReady,
        events: &mut Vec<MarketEvent>,
    ) -> Checked<()> {
        let named = self.named_leases(sender, &command.leases, |span| match span.stand {
            // A hypervisor may mistake the lease; a worker, or who gave it the server, knows better than our counts.
            Stand::Waiting if sender.role != Role::Worker && !knows_servers(sender) => {
                Err("waits for a server")
            }
            Stand::Waiting | Stand::Served | Stand::Leaving(_) => Ok(()),
        })?;
        for Named { place, number, market, leases } in named {
            let replaced = self.replaced_by(place, leases);
            events.push(MarketEvent::WorkersReady { number, market, leases });
            self.workers_ready(place, leases);
            for (market, leases) in replaced {
                let reason = ReleaseReason::Replaced;
                events.push(MarketEvent::UnitsReleased { number, market, leases, reason });
                self.units_released(now, place, leases, reason);
            }
        }
        Ok(())
    }

    /// Leaving leases that leases of the same bid replace, as pieces of spans with their markets.
    fn replaced_by(&self, place: u32, leases: LeaseSpan) -> Vec<(MarketNumber, LeaseSpan)> {
        let Some(bid) = self.bids.get(place) else { return Vec::new() };
        let found = self.leases.find(bid.leases, leases.first).map(|index| self.leases.span(index));
        let Some(span) = found.filter(|span| span.replaces != 0) else { return Vec::new() };
        let first = span.replaces + (leases.first - span.first);
        let end = first + u64::from(leases.units);
        let leaving = self.leases.of(bid.leases).filter(|(_, span)| matches!(span.stand, Stand::Leaving(_)));
        let within = leaving.filter_map(|(_, span)| {
            let (from, to) = (span.first.max(first), span.leases().end().min(end));
            (from < to).then(|| (span.market, LeaseSpan { first: from, units: (to - from) as u32 }))
        });
        within.collect()
    }

    pub(super) fn move_leases(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        command: &MoveLeases,
        events: &mut Vec<MarketEvent>,
    ) -> Checked<()> {
        let gone_at = command.gone_at;
        if gone_at < now {
            let problem = format!("must not be before now, {now}");
            return refuse(RefusalReason::OutOfRange, "gone_at", gone_at, problem);
        }
        if sender.role == Role::Worker {
            let problem = "a worker moves nothing";
            return refuse(RefusalReason::NotAllowed, "type", "MoveLeases", problem);
        }
        let is_placed = knows_servers(sender);
        let named = self.named_leases(sender, &command.leases, |span| match span.stand {
            Stand::Served => Ok(()),
            // Who gives leases their servers knows better than our counts.
            Stand::Waiting if is_placed => Ok(()),
            Stand::Waiting => Err("has no server that could go"),
            Stand::Leaving(_) if is_placed && gone_at < span.until => Ok(()),
            Stand::Leaving(_) => Err("has to leave already"),
        })?;
        let reason = if sender.role == Role::Operator { LossReason::Operator } else { LossReason::Host };
        for piece in named {
            match self.leaving_for(&piece) {
                // The tenant's own exit stays that; what might have been taken back goes with its server now.
                Some(had) => {
                    let reason = if had.is_withdrawable() { reason } else { had };
                    self.hurry_piece(&piece, gone_at, reason, events);
                }
                None => self.move_piece(&piece, gone_at, reason, events),
            }
        }
        Ok(())
    }

    /// Why a piece has to leave already, if it has.
    fn leaving_for(&self, piece: &Named) -> Option<LossReason> {
        let head = self.bids.get(piece.place)?.leases;
        match self.leases.span(self.leases.find(head, piece.leases.first)?).stand {
            Stand::Leaving(reason) => Some(reason),
            Stand::Served | Stand::Waiting => None,
        }
    }

    /// Gives notice again to leases that have it, as their servers go sooner. Nothing takes their place: their bids lost the
    /// units, or others replace them already.
    fn hurry_piece(
        &mut self,
        piece: &Named,
        gone_at: Timestamp,
        reason: LossReason,
        events: &mut Vec<MarketEvent>,
    ) {
        let Named { place, number, market, leases } = *piece;
        let (round, kept_by) = (self.next.round, None);
        events.push(MarketEvent::NoticeGiven { number, market, leases, round, gone_at, reason, kept_by });
        self.notice_given(place, leases, gone_at, reason);
    }

    /// Gives notice to leases and grants others in their place: where servers are vacant at once, else in line.
    fn move_piece(
        &mut self,
        piece: &Named,
        gone_at: Timestamp,
        reason: LossReason,
        events: &mut Vec<MarketEvent>,
    ) {
        let Named { place, number, market, leases } = *piece;
        let (round, kept_by) = (self.next.round, None);
        events.push(MarketEvent::NoticeGiven { number, market, leases, round, gone_at, reason, kept_by });
        self.notice_given(place, leases, gone_at, reason);
        let Some(record) = self.market(market) else { return };
        let served = leases.units.min(record.servers.vacant());
        let in_line = leases.units - served;
        // Between rounds more may be won than there are servers: then nobody knows better than the host's own end.
        let promised = (in_line > 0).then(|| record.servers.promise(in_line).unwrap_or(gone_at));
        let mut replaces = leases.first;
        for (units, available_by) in [(served, None), (in_line, promised)] {
            if units > 0 {
                let leases = LeaseSpan { first: self.next.lease, units };
                events.push(MarketEvent::UnitsMoved {
                    number,
                    market,
                    leases,
                    replaces,
                    round,
                    available_by,
                });
                self.units_moved(place, market, leases, replaces, available_by);
                replaces += u64::from(units);
            }
        }
    }

    pub(super) fn report_dead(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        command: &ReportDead,
        events: &mut Vec<MarketEvent>,
    ) -> Checked<()> {
        let last = command.last_heartbeat_at;
        if last > now {
            let problem = format!("must not be later than now, {now}");
            return refuse(RefusalReason::OutOfRange, "last_heartbeat_at", last, problem);
        }
        let named = self.named_leases(sender, &command.leases, |span| match span.worker {
            Worker::Booting => Err("has no ready worker"),
            Worker::Ready | Worker::Dead => Ok(()),
        })?;
        let since = last.max(now.plus_micros(-DEAD_LATE_MICROSECONDS_MAX));
        for Named { place, number, market, leases } in named {
            events.push(MarketEvent::WorkersDead { number, market, leases, since });
            self.workers_dead(place, leases);
        }
        Ok(())
    }

    pub(super) fn report_released(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        command: &ReportReleased,
        events: &mut Vec<MarketEvent>,
    ) -> Checked<()> {
        let named = self.named_leases(sender, &command.leases, |span| match span.stand {
            Stand::Leaving(_) => Ok(()),
            Stand::Served | Stand::Waiting => Err("is not under notice"),
        })?;
        for Named { place, number, market, leases } in named {
            events.push(MarketEvent::NoticeAcknowledged { number, units: leases.units });
            let reason = ReleaseReason::Acknowledged;
            events.push(MarketEvent::UnitsReleased { number, market, leases, reason });
            self.units_released(now, place, leases, reason);
        }
        Ok(())
    }

    /// Finds the leases that a command names, in order and as pieces of spans: each once, each one that is not over, is
    /// the sender's to speak of, and `fits`.
    fn named_leases(
        &self,
        sender: &Sender,
        named: &[LeaseNumber],
        fits: impl Fn(&Span) -> Result<(), &'static str>,
    ) -> Checked<Vec<Named>> {
        if named.is_empty() || named.len() > LEASES_NAMED_MAX {
            let problem = format!("a command names 1 to {LEASES_NAMED_MAX} leases");
            return refuse(RefusalReason::OutOfRange, "leases", named.len(), problem);
        }
        let mut ascending: Vec<(LeaseNumber, usize)> =
            named.iter().enumerate().map(|(index, &lease)| (lease, index)).collect();
        ascending.sort_unstable();
        let mut pieces: Vec<Named> = Vec::new();
        let mut last: Option<(LeaseNumber, u32)> = None;
        for (lease, index) in ascending {
            let at = || format!("leases[{index}]");
            if last.is_some_and(|(before, _)| before == lease) {
                return refuse(RefusalReason::Duplicate, at(), lease, "stands twice");
            }
            let holder = self.leases.holder(lease).and_then(|place| Some((place, self.bids.get(place)?)));
            let found = holder.and_then(|(place, bid)| Some((place, self.leases.find(bid.leases, lease)?)));
            let Some((place, index_of_span)) = found else {
                let (reason, problem) = if lease == 0 || lease >= self.next.lease {
                    (RefusalReason::Unknown, "no such lease was ever granted")
                } else {
                    (RefusalReason::Ended, "this lease is over")
                };
                return refuse(reason, at(), lease, problem);
            };
            let span = self.leases.span(index_of_span);
            self.check_reporter(sender, span.market, lease, &at)?;
            if let Err(problem) = fits(span) {
                return refuse(RefusalReason::NotAllowed, at(), lease, format!("this lease {problem}"));
            }
            match (pieces.last_mut(), last) {
                (Some(piece), Some((before, same))) if same == index_of_span && before + 1 == lease => {
                    piece.leases.units += 1;
                }
                _ => pieces.push(Named {
                    place,
                    number: span.number,
                    market: span.market,
                    leases: LeaseSpan { first: lease, units: 1 },
                }),
            }
            last = Some((lease, index_of_span));
        }
        Ok(pieces)
    }

    /// Refuses who may not speak of a lease.
    fn check_reporter(
        &self,
        sender: &Sender,
        market: MarketNumber,
        lease: LeaseNumber,
        at: &impl Fn() -> String,
    ) -> Checked<()> {
        let principal = sender.principal.as_str();
        let speaks = match sender.role {
            Role::Operator | Role::Service => true,
            Role::Hypervisor => principal
                .parse::<SourceId>()
                .is_ok_and(|id| self.market(market).is_some_and(|record| record.sources.contains_key(&id))),
            Role::Worker => principal
                .strip_prefix(WORKER_PREFIX)
                .is_some_and(|number| number.parse() == Ok(lease) && !number.starts_with(['0', '+'])),
            Role::Storefront | Role::Gateway => false,
        };
        if speaks {
            return Ok(());
        }
        let problem = match sender.role {
            Role::Hypervisor => format!("the hypervisor {principal} has no servers in this market"),
            Role::Worker => format!("the worker {principal} speaks of its own lease only"),
            role => format!("a {} does not speak of servers", role.token()),
        };
        refuse(RefusalReason::NotAllowed, at(), lease, problem)
    }
}
