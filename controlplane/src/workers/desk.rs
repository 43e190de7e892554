//! What is decided about workers: who joins, what a worker is told, what the market is told of it, and when nothing
//! of it is to be left. Everything follows from four things: the rosters of the exchanges, which key redeemed which
//! lease, what each worker said last, and the time. What was told to whom is remembered only so that it is not told
//! again at once.

use std::collections::BTreeMap;

use proto::envelope::EventBatch;
use proto::market::{LeaseNotice, MarketEvent, RosterState, WorkerStand};
use proto::worker::{
    Bound, Claim, NoticeOrder, RedemptionRefusal, Report, ReportAnswer, Verdict, WorkerId, WorkerState,
};
use proto::{ClusterId, MarketId, PoolId, SourceId, StreamName, TenantId, Timestamp};

use super::roster::{Gap, Lease, Roster};

/// The generation of a lease's server. A lease has one server from its grant to its release: who loses the server gets
/// another lease that replaces the first.
const GENERATION: u64 = 1;

/// With fewer workers than this, silence of all of them is believed. With more it is rather we who are deaf: then
/// nobody is called dead for it.
const DEAF_WORKERS_MIN: usize = 4;

/// The time limits of a desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeskSettings {
    /// A worker that was not heard to be well for so long is dead, in seconds.
    pub dead_seconds: u32,
    /// What was said and had no effect is said again after so long, in seconds.
    pub repeat_seconds: u32,
}

/// For whom a worker works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's cluster.
    pub cluster: ClusterId,
    /// The pool in it; unknown of a worker whose lease was over before this desk knew of it.
    pub pool: Option<PoolId>,
    /// Where its server is; as the pool.
    pub market: Option<MarketId>,
}

/// What becomes of a redemption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The first: this is to be remembered before anything is answered.
    Bind(Bound, Holder),
    /// The same key again: the same answer again.
    Again(Holder),
    /// What decides it is not known yet.
    Wait,
    /// Refused.
    Refuse(RedemptionRefusal),
}

/// What the market is told of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// It is ready.
    Ready,
    /// It is dead.
    Dead {
        /// When it was last heard to be well.
        last_heartbeat_at: Timestamp,
    },
    /// It has left.
    Released,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// The market is to be told.
    Tell(WorkerId, Statement),
    /// The worker is to be told, also before its next report.
    Order(WorkerId, ReportAnswer),
    /// Its lease is over: Node, certificates and memory of it are to go.
    Clean(WorkerId, Holder),
}

/// What a worker said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    sequence: u64,
    state: WorkerState,
}

/// A worker that has joined.
#[derive(Clone, Debug)]
struct Worker {
    bound: Bound,
    holder: Holder,
    heard: Option<Heard>,
    /// When it was last heard to be well, or when it could first have been.
    well_at: Timestamp,
    said: Option<(Statement, Timestamp)>,
    ordered: Option<LeaseNotice>,
    cleaned_at: Option<Timestamp>,
}

/// Who decides about workers.
#[derive(Clone, Debug)]
pub struct Desk {
    settings: DeskSettings,
    rosters: BTreeMap<StreamName, Option<Roster>>,
    workers: BTreeMap<WorkerId, Worker>,
    /// When anybody was heard last.
    heard_at: Timestamp,
}

impl Desk {
    /// A desk for exchanges whose rosters are not known yet.
    pub fn new(
        settings: DeskSettings,
        exchanges: impl IntoIterator<Item = StreamName>,
        now: Timestamp,
    ) -> Self {
        let rosters = exchanges.into_iter().map(|exchange| (exchange, None)).collect();
        Self { settings, rosters, workers: BTreeMap::new(), heard_at: now }
    }

    /// The exchanges whose workers are served.
    pub fn exchanges(&self) -> impl Iterator<Item = &StreamName> {
        self.rosters.keys()
    }

    /// Whether every exchange's roster is known. Before that nobody joins and nothing is done.
    pub fn is_ready(&self) -> bool {
        self.rosters.values().all(Option::is_some)
    }

    /// The workers that have joined and are not forgotten.
    pub fn workers(&self) -> impl Iterator<Item = (&WorkerId, &Holder, Option<WorkerState>)> {
        self.workers.iter().map(|(id, one)| (id, &one.holder, one.heard.map(|heard| heard.state)))
    }

    /// An exchange's owner says what there is.
    pub fn restore(&mut self, exchange: &StreamName, state: RosterState) {
        if let Some(roster) = self.rosters.get_mut(exchange) {
            *roster = Some(state.into());
        }
    }

    /// An exchange decided something.
    ///
    /// # Errors
    /// When something before it is missing: its owner is to be asked.
    pub fn follow(&mut self, exchange: &StreamName, batch: &EventBatch<MarketEvent>) -> Result<(), Gap> {
        match self.rosters.get_mut(exchange).and_then(Option::as_mut) {
            Some(roster) => roster.follow(batch),
            None => Ok(()),
        }
    }

    fn roster(&self, worker: &WorkerId) -> Option<&Roster> {
        self.rosters.get(worker.exchange()).and_then(Option::as_ref)
    }

    fn lease(&self, worker: &WorkerId) -> Option<&Lease> {
        self.roster(worker)?.lease(worker.lease())
    }

    /// For whom a worker would work whose lease is not over.
    pub fn holder(&self, worker: &WorkerId) -> Option<Holder> {
        let roster = self.roster(worker)?;
        let lease = roster.lease(worker.lease())?;
        let (tenant, cluster, pool) = roster.holder(lease.bid)?;
        let (tenant, cluster, pool) = (tenant.clone(), cluster.clone(), Some(pool.clone()));
        Some(Holder { tenant, cluster, pool, market: roster.market(lease.market).cloned() })
    }

    /// The generation of a lease's server, if the lease is not over.
    pub fn generation(&self, worker: &WorkerId) -> Option<u64> {
        self.lease(worker).map(|_| GENERATION)
    }

    /// Whether a lease was there once and is no more. Who asks is not told whose it was, so anybody may be told.
    pub fn is_over(&self, worker: &WorkerId) -> bool {
        let roster = self.roster(worker);
        let lease = worker.lease();
        roster.is_some_and(|roster| roster.was_granted(lease) && roster.lease(lease).is_none())
    }

    /// Whether somebody who has servers may be told the secret of a lease: it is not over, and they are in its market.
    /// The generation to be minted, if so.
    pub fn may_boot(&self, worker: &WorkerId, source: &SourceId) -> Option<u64> {
        let roster = self.roster(worker)?;
        let lease = roster.lease(worker.lease())?;
        roster.is_source(lease.market, source).then_some(GENERATION)
    }

    /// Decides on a redemption. `stored` is what the management cluster remembers of it.
    pub fn judge(&self, now: Timestamp, claim: &Claim, stored: Option<&Bound>) -> Judged {
        let Some(roster) = self.rosters.get(claim.worker.exchange()) else {
            return Judged::Refuse(RedemptionRefusal::Over);
        };
        // A lease that we have not heard of yet may have been granted a moment ago.
        let Some(roster) = roster.as_ref().filter(|roster| roster.was_granted(claim.worker.lease())) else {
            return Judged::Wait;
        };
        let live = roster.lease(claim.worker.lease()).map(|_| GENERATION);
        match (claim.judge(now, live, stored), self.holder(&claim.worker)) {
            (Verdict::Refuse(reason), _) => Judged::Refuse(reason),
            (_, None) => Judged::Refuse(RedemptionRefusal::Over),
            (Verdict::Bind(bound), Some(holder)) => Judged::Bind(bound, holder),
            (Verdict::Again, Some(holder)) => Judged::Again(holder),
        }
    }

    /// The management cluster remembers that a worker joined. One that is known already stays as it is.
    pub fn remember(&mut self, now: Timestamp, worker: WorkerId, bound: Bound, holder: Holder) {
        let holder = self.holder(&worker).unwrap_or(holder);
        let fresh =
            Worker { bound, holder, heard: None, well_at: now, said: None, ordered: None, cleaned_at: None };
        self.workers.entry(worker).or_insert(fresh);
    }

    /// Nothing of a worker is left.
    pub fn forget(&mut self, worker: &WorkerId) {
        self.workers.remove(worker);
    }

    /// Which key a worker joined with, and for whom it works.
    pub fn bound(&self, worker: &WorkerId) -> Option<(&Bound, &Holder)> {
        self.workers.get(worker).map(|one| (&one.bound, &one.holder))
    }

    /// Takes a report of a worker that has shown its session, and says what it is answered; the token is not added
    /// yet. Nothing is answered to a worker that has not joined, or while rosters are not known.
    pub fn report(&mut self, now: Timestamp, report: &Report) -> Option<ReportAnswer> {
        self.roster(&report.worker)?;
        let worker = self.workers.get_mut(&report.worker)?;
        self.heard_at = self.heard_at.max(now);
        let is_news = worker.heard.is_none_or(|heard| report.sequence > heard.sequence);
        if report.generation == worker.bound.generation && is_news {
            // Two that left differ in nothing that follows; who left stays away.
            let has_left = worker.heard.is_some_and(|heard| heard.state == WorkerState::Left);
            let state = if has_left { WorkerState::Left } else { report.state };
            worker.heard = Some(Heard { sequence: report.sequence, state });
            if is_well(state) {
                worker.well_at = worker.well_at.max(now);
            }
        }
        let answer = self.order(now, &report.worker)?;
        let known = self.lease(&report.worker).and_then(|lease| lease.notice);
        if let Some(worker) = self.workers.get_mut(&report.worker) {
            worker.ordered = known;
        }
        Some(answer)
    }

    /// What a worker is to know now.
    fn order(&self, now: Timestamp, worker: &WorkerId) -> Option<ReportAnswer> {
        let known = self.workers.get(worker)?;
        let lease = self.lease(worker);
        // A lease that is over is nobody's any more; so the worker has to leave.
        let generation = known.bound.generation + u64::from(lease.is_none());
        let notice = lease.and_then(|lease| lease.notice);
        let notice =
            notice.map(|notice| NoticeOrder { gone_at: notice.gone_at, reason: word(notice.reason) });
        Some(ReportAnswer { now, generation, notice, tunnel: None })
    }

    /// What is to be done now. What it says is taken as begun: it is said again only if nothing comes of it.
    pub fn work(&mut self, now: Timestamp) -> Vec<Act> {
        let mut acts = Vec::new();
        let ids: Vec<WorkerId> = self.workers.keys().cloned().collect();
        let dead = i64::from(self.settings.dead_seconds) * 1_000_000;
        let is_deaf = ids.len() >= DEAF_WORKERS_MIN && now.micros_since(self.heard_at) > dead;
        for id in ids {
            let Some(roster) = self.roster(&id) else { continue };
            let lease = roster.lease(id.lease()).copied();
            let order = self.order(now, &id);
            let repeat = i64::from(self.settings.repeat_seconds) * 1_000_000;
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            let is_due = |at: Timestamp| now.micros_since(at) >= repeat;
            let Some(lease) = lease else {
                if worker.cleaned_at.is_none_or(is_due) {
                    worker.cleaned_at = Some(now);
                    acts.push(Act::Clean(id, worker.holder.clone()));
                }
                continue;
            };
            if let Some(order) = order.filter(|_| lease.notice != worker.ordered) {
                worker.ordered = lease.notice;
                acts.push(Act::Order(id.clone(), order));
            }
            let is_silent = !is_deaf && now.micros_since(worker.well_at) > dead;
            let Some(statement) = worker.statement(&lease, is_silent) else {
                worker.said = None;
                continue;
            };
            let is_said = worker.said.is_some_and(|(said, at)| said == statement && !is_due(at));
            if !is_said {
                worker.said = Some((statement, now));
                acts.push(Act::Tell(id, statement));
            }
        }
        acts
    }
}

impl Worker {
    /// What the market does not know yet.
    fn statement(&self, lease: &Lease, is_silent: bool) -> Option<Statement> {
        let state = self.heard.map(|heard| heard.state);
        let dead = Statement::Dead { last_heartbeat_at: self.well_at };
        match (state, lease.worker) {
            (Some(WorkerState::Left), _) if lease.notice.is_some() => Some(Statement::Released),
            // Who left of itself is no longer charged; what becomes of the lease is the market's.
            (Some(WorkerState::Left), WorkerStand::Ready) => Some(dead),
            (Some(WorkerState::Left), _) => None,
            (Some(WorkerState::Ready), WorkerStand::Booting) => Some(Statement::Ready),
            (_, WorkerStand::Ready) if is_silent => Some(dead),
            (Some(state), WorkerStand::Dead) if is_well(state) && !is_silent => Some(Statement::Ready),
            _ => None,
        }
    }
}

/// Whether a worker is of use to its tenant, or was until it was told to go.
const fn is_well(state: WorkerState) -> bool {
    matches!(state, WorkerState::Ready | WorkerState::Draining | WorkerState::Drained)
}

/// A reason in the market's words.
fn word(reason: proto::market::LossReason) -> String {
    use proto::market::LossReason as Reason;
    let word = match reason {
        Reason::Outbid => "outbid",
        Reason::Supply => "supply",
        Reason::Reserve => "reserve",
        Reason::Host => "host",
        Reason::Moved => "moved",
        Reason::Operator => "operator",
        Reason::Cancelled => "cancelled",
        Reason::Expired => "expired",
        Reason::Reduced => "reduced",
    };
    word.to_owned()
}
