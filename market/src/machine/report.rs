//! What hypervisors and workers say of leases: who is ready, who is dead, who is gone.
//!
//! A worker speaks of its own lease, as the principal `lease-` and its number. A source of a market speaks of every lease
//! there, because the market does not know which server is whose; so do operators and our own services.

use proto::envelope::RefusalReason;
use proto::machine::{Role, Sender};
use proto::market::{
    BidNumber, LEASES_NAMED_MAX, LeaseNumber, LeaseSpan, MarketEvent, MarketNumber, ReleaseReason,
    ReportDead, ReportReady, ReportReleased,
};
use proto::{SourceId, Timestamp};

use super::Market;
use super::bounds::DEAD_LATE_MICROSECONDS_MAX;
use super::lease::{Span, Stand, Worker};
use super::terms::{Checked, refuse};

/// What the principal of a worker is called, before its lease's number.
const WORKER_PREFIX: &str = "lease-";

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
        sender: &Sender,
        command: &ReportReady,
        events: &mut Vec<MarketEvent>,
    ) -> Checked<()> {
        let named = self.named_leases(sender, &command.leases, |span| match span.stand {
            Stand::Waiting => Err("waits for a server"),
            Stand::Served | Stand::Leaving(_) => Ok(()),
        })?;
        for Named { place, number, market, leases } in named {
            events.push(MarketEvent::WorkersReady { number, market, leases });
            self.workers_ready(place, leases);
        }
        Ok(())
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
