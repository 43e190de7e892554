//! The loop: what was seen or ordered makes work, work makes writes, what they answer is seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use controlplane::{
    Desired, Kind, Observed, Plan, Plane, PlaneState, Request, Touched, Unreadable, announce, diff_site,
    diff_tenant, namespace_name,
};
use kube::Client;
use proto::placement::PlaneNumber;
use proto::{StreamName, TenantId, Timestamp};
use runtime::shell::Stop;
use runtime::telemetry::{Meter, MeterError};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock::now;
use crate::figures::Figures;
use crate::outlook::Outlook;
use crate::pace;
use crate::sight::{Sight, follow};
use crate::write::{Written, carry_out};

/// Tenants that are written for at once.
pub const WRITERS_MAX: usize = 16;
/// Things seen that wait to be taken in; watches wait when there are more.
const SIGHTS_MAX: usize = 4_096;
/// Things seen that are taken in before work is looked for again.
const SIGHTS_AT_ONCE_MAX: usize = 1_024;
/// How long it sleeps at most, so that a clock that was set is noticed.
const NAP_MAX: Duration = Duration::from_secs(30);

/// What a reconciler is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// How a plane is to be from now on.
    Set(PlaneNumber, Plane),
    /// A plane was gone, and is to be forgotten.
    Forget(PlaneNumber),
    /// All orders that were given before this began are told.
    CaughtUp,
}

/// What is looked at and written for as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Work {
    Site,
    Tenant(TenantId),
}

/// Work that failed.
struct Failed {
    times: u32,
    until: Instant,
}

/// Makes a management cluster agree with orders.
pub struct Reconciler {
    client: Client,
    desired: Desired,
    observed: Observed,
    namespaces: BTreeMap<String, TenantId>,
    listed: BTreeSet<Kind>,
    is_told: bool,
    dirty: BTreeSet<Work>,
    busy: BTreeSet<Work>,
    failed: BTreeMap<Work, Failed>,
    /// What was written last for work that is not done.
    last: BTreeMap<Work, Vec<String>>,
    wakes: BTreeMap<Work, Timestamp>,
    states: BTreeMap<PlaneNumber, PlaneState>,
    reports: mpsc::Sender<PlaneState>,
    outlook: watch::Sender<Outlook>,
    figures: Figures,
}

impl Reconciler {
    /// A reconciler for the cluster of a site, behind a client. It begins with what holds for the site, and tells how
    /// planes are whenever that changes.
    ///
    /// # Errors
    /// When a metric is refused.
    pub fn new(
        client: Client,
        site: &StreamName,
        desired: Desired,
        reports: mpsc::Sender<PlaneState>,
        meter: &Meter,
    ) -> Result<Self, MeterError> {
        let figures = Figures::new(meter, site)?;
        figures.begin();
        Ok(Self {
            client,
            desired,
            observed: Observed::default(),
            namespaces: BTreeMap::new(),
            listed: BTreeSet::new(),
            is_told: false,
            dirty: BTreeSet::new(),
            busy: BTreeSet::new(),
            failed: BTreeMap::new(),
            last: BTreeMap::new(),
            wakes: BTreeMap::new(),
            states: BTreeMap::new(),
            reports,
            outlook: watch::Sender::new(Outlook::default()),
            figures,
        })
    }

    /// How far it has got, and which hosts there are.
    pub fn outlook(&self) -> watch::Receiver<Outlook> {
        self.outlook.subscribe()
    }

    /// Runs until it is stopped, or nobody gives orders any more. Writes that are under way are waited for.
    ///
    /// # Errors
    /// When a task of its own panics.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>, mut stop: Stop) -> anyhow::Result<()> {
        let (sender, mut sights) = mpsc::channel(SIGHTS_MAX);
        let mut watches = JoinSet::new();
        for kind in Kind::ALL {
            let failures = self.figures.watch_failures(kind);
            watches.spawn(follow(self.client.clone(), kind, sender.clone(), failures));
        }
        drop(sender);
        let mut writers: JoinSet<Written> = JoinSet::new();
        loop {
            let nap = self.nap(writers.len());
            tokio::select! {
                () = stop.requested() => break,
                Some(sight) = sights.recv() => {
                    self.see(sight);
                    for _ in 1..SIGHTS_AT_ONCE_MAX {
                        let Ok(sight) = sights.try_recv() else { break };
                        self.see(sight);
                    }
                }
                order = orders.recv() => match order {
                    Some(order) => self.take(order),
                    None => break,
                },
                Some(written) = writers.join_next() => self.settle(written?),
                () = tokio::time::sleep(nap) => {}
            }
            self.work(&mut writers).await;
        }
        while let Some(written) = writers.join_next().await {
            self.settle(written?);
        }
        Ok(())
    }

    fn see(&mut self, sight: Sight) {
        let of_hosts = matches!(&sight, Sight::There(Kind::Host, _) | Sight::Gone(Kind::Host, ..));
        match sight {
            Sight::There(kind, object) => {
                let taken = self.observed.take(kind, object);
                self.taken(taken);
            }
            Sight::Gone(kind, namespace, name, version) => {
                let touched = self.observed.forget(kind, &namespace, &name, version);
                self.touch(touched);
            }
            Sight::Only(kind, listed) => {
                for touched in self.observed.keep_only(kind, &listed) {
                    self.touch(touched);
                }
                if self.listed.insert(kind) && self.listed.len() == Kind::ALL.len() {
                    tracing::info!(objects = self.observed.len(), "the management cluster is read");
                    self.touch(Touched::Everything);
                    self.outlook.send_modify(|outlook| outlook.is_read = true);
                }
                self.show_hosts();
            }
        }
        if of_hosts {
            self.show_hosts();
        }
        self.figures.objects.set(i64::try_from(self.observed.len()).unwrap_or(i64::MAX));
    }

    /// Tells which hosts there are, once all are known.
    fn show_hosts(&self) {
        if self.listed.contains(&Kind::Host) {
            self.outlook.send_if_modified(|outlook| {
                let is_new = outlook.hosts.as_deref().is_none_or(|known| {
                    known.len() != self.observed.hosts().len()
                        || known
                            .iter()
                            .zip(self.observed.hosts())
                            .any(|(known, host)| known.0 != host.0 || !known.1.says_the_same(host.1))
                });
                if is_new {
                    outlook.hosts = Some(Arc::new(self.observed.hosts().clone()));
                }
                is_new
            });
        }
    }

    fn taken(&mut self, taken: Result<Touched, Unreadable>) {
        match taken {
            Ok(touched) => self.touch(touched),
            Err(error) => {
                self.figures.unreadable.inc();
                tracing::warn!(%error, "an object was passed over");
            }
        }
    }

    fn touch(&mut self, touched: Touched) {
        match touched {
            Touched::Nothing => {}
            Touched::Namespace(namespace) => {
                if let Some(tenant) = self.namespaces.get(&namespace) {
                    self.dirty.insert(Work::Tenant(tenant.clone()));
                }
            }
            Touched::Everything => {
                self.dirty.insert(Work::Site);
                self.dirty.extend(self.desired.tenants().cloned().map(Work::Tenant));
            }
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Set(number, plane) => {
                let tenant = plane.tenant.clone();
                if self.desired.order(number, plane) {
                    self.namespaces.insert(namespace_name(&tenant), tenant.clone());
                    // What failed before may be what the order mends.
                    self.failed.remove(&Work::Tenant(tenant.clone()));
                    self.dirty.insert(Work::Tenant(tenant));
                } else {
                    tracing::warn!(number, "an older order than is known, or one for another tenant's plane");
                }
            }
            Order::Forget(number) => {
                self.desired.forget(number);
                let before = self.states.remove(&number);
                self.figures.change(before.as_ref(), None);
            }
            Order::CaughtUp => {
                self.is_told = true;
                self.figures.caught_up.set(1);
                self.outlook.send_modify(|outlook| outlook.is_told = true);
                self.touch(Touched::Everything);
            }
        }
    }

    /// Looks at what may have changed, and begins to write what follows.
    async fn work(&mut self, writers: &mut JoinSet<Written>) {
        if !self.is_told || self.listed.len() < Kind::ALL.len() {
            return;
        }
        let now = now();
        let due: Vec<Work> =
            self.wakes.iter().filter(|(_, at)| **at <= now).map(|(work, _)| work.clone()).collect();
        for work in due {
            self.wakes.remove(&work);
            self.dirty.insert(work);
        }
        let instant = Instant::now();
        let ready = |work: &&Work| {
            !self.busy.contains(*work) && self.failed.get(*work).is_none_or(|failed| failed.until <= instant)
        };
        let ready: Vec<Work> = self.dirty.iter().filter(ready).cloned().collect();
        for work in ready {
            if writers.len() >= WRITERS_MAX {
                break;
            }
            self.dirty.remove(&work);
            let plan = self.plan(&work, now);
            match plan.wake_at {
                Some(at) => self.wakes.insert(work.clone(), at),
                None => self.wakes.remove(&work),
            };
            let mut said = Vec::new();
            for state in plan.states {
                self.announce(&state, now, &mut said);
                self.tell(state).await;
            }
            if plan.changes.is_empty() {
                self.failed.remove(&work);
                self.last.remove(&work);
            }
            if !plan.changes.is_empty() || !said.is_empty() {
                self.busy.insert(work.clone());
                let (client, figures) = (self.client.clone(), self.figures.clone());
                writers.spawn(carry_out(client, work, plan.changes, said, figures));
            }
        }
    }

    fn plan(&self, work: &Work, now: Timestamp) -> Plan {
        let _timer = self.figures.diff.start_timer();
        match work {
            Work::Site => diff_site(&self.desired, &self.observed),
            Work::Tenant(tenant) => diff_tenant(&self.desired, tenant, &self.observed, now),
        }
    }

    /// Says to people why a plane is not as ordered, where that was not said.
    fn announce(&self, state: &PlaneState, now: Timestamp, said: &mut Vec<Request>) {
        let known = self.states.get(&state.number).map(|before| &before.notes);
        let Some(plane) = self.desired.plane(state.number) else { return };
        for note in state.notes.iter().filter(|note| known.is_none_or(|known| !known.contains(note))) {
            tracing::warn!(plane = state.number, reason = note.reason.word(), "{}", note.message);
            said.push(announce(plane, note, now));
        }
    }

    /// Tells how a plane is, if that is something else than was told.
    async fn tell(&mut self, state: PlaneState) {
        let before = self.states.get(&state.number);
        if before == Some(&state) {
            return;
        }
        if before.map(|before| before.phase) != Some(state.phase) {
            tracing::info!(plane = state.number, phase = state.phase.word(), "plane");
        }
        self.figures.change(before, Some(&state));
        let number = state.number;
        self.states.insert(number, state.clone());
        // Whoever does not listen any more stops us soon.
        let _told = self.reports.send(state).await;
    }

    /// Takes in what writes answered; what failed is tried again later.
    fn settle(&mut self, written: Written) {
        let Written { work, signatures, objects, error } = written;
        self.busy.remove(&work);
        // What was written is known before the watch tells it: nothing is worked out on a state before our own write.
        for (kind, object) in objects {
            let taken = self.observed.answer(kind, object);
            self.taken(taken);
        }
        match error {
            None if signatures.is_empty() => {}
            None => {
                let last = self.last.insert(work.clone(), signatures);
                if last.is_some() && last.as_ref() == self.last.get(&work) {
                    // It was done, and is to be done again: somebody undoes it, or the server leaves out what it
                    // does not know. That must not become a race.
                    tracing::debug!(?work, "a write had no effect");
                    self.put_off(&work, None);
                } else {
                    self.failed.remove(&work);
                }
            }
            Some(error) => {
                if error.word() == "refused" {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a write was refused");
                }
                self.put_off(&work, error.retry_after());
            }
        }
        // What was done may make room for more.
        self.dirty.insert(work);
    }

    /// Lets work wait, longer each time.
    fn put_off(&mut self, work: &Work, asked: Option<Duration>) {
        let times = self.failed.get(work).map_or(0, |failed| failed.times).saturating_add(1);
        let wait = pace::wait(times, asked);
        tracing::debug!(?work, ?wait, times, "tried again later");
        self.failed.insert(work.clone(), Failed { times, until: Instant::now() + wait });
    }

    /// How long until time alone makes work.
    fn nap(&self, writers: usize) -> Duration {
        // With all hands busy, the first that is done wakes it.
        if writers >= WRITERS_MAX || !self.is_told || self.listed.len() < Kind::ALL.len() {
            return NAP_MAX;
        }
        let now = now();
        let until =
            |at: Timestamp| Duration::from_micros(u64::try_from(at.micros_since(now)).unwrap_or_default());
        let wakes = self.wakes.values().map(|at| until(*at));
        let instant = Instant::now();
        let failed =
            self.failed.iter().filter(|(work, _)| self.dirty.contains(work) && !self.busy.contains(work));
        let failed = failed.map(|(_, failed)| failed.until.saturating_duration_since(instant));
        // A millisecond at least, so that rounding never makes it spin.
        wakes.chain(failed).min().unwrap_or(NAP_MAX).clamp(Duration::from_millis(1), NAP_MAX)
    }
}
