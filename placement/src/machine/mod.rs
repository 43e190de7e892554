//! Placement as a machine: a site with its hosts, data stores, clusters and their planes.
//!
//! `step` checks a command and says what follows as events; each takes effect through the very function that
//! [`proto::Machine::apply`] calls when it is read back. Where the checks are: [`cluster`], [`host`], [`report`]; where
//! events take effect: [`apply`]; what follows from every change (where replicas belong, which move now, what is ordered,
//! what is at risk): [`advance`]; what is due by itself: [`wake`]. `README.md` beside this crate says what is promised.

mod advance;
mod apply;
mod bids;
pub mod bounds;
mod check;
mod cluster;
mod digest;
mod due;
mod heard;
mod host;
mod plane;
mod read;
mod record;
mod refuse;
mod report;
mod route;
mod rules;
mod save;
mod servers;
mod step;
mod tell;
mod wake;

use std::collections::{BTreeMap, BTreeSet};

use proto::machine::{Broken, Publication, Received, RestoreError};
use proto::market::BidNumber;
use proto::placement::{
    HostNumber, HostsAdvised, MoveNumber, PlacementCommand, PlacementEvent, PlaneNumber, SiteRules,
};
use proto::{
    ClusterId, DataStoreId, HostId, Machine, RegionName, StateHash, StreamName, TaintName, TenantId,
    Timestamp, ZoneName,
};
use serde::{Deserialize, Serialize};

pub use heard::{REPORT_PREFIX, reports};
pub use read::{
    ClusterView, ClustersView, DataStoreView, HostView, OrderView, OrdersView, PlaneState, SiteView,
};
pub use route::route;

use crate::rollout::Rollout;
use crate::servers::Servers;
use crate::site::{AtRisk, HostOrd, PlaneOrd, Site};
pub(crate) use digest::digest;
use due::Timers;
use record::{Begun, HostRecord, PlaneRecord, StoreRecord};

/// Numbers that come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counters {
    plane: PlaneNumber,
    host: HostNumber,
}

/// A site: one deterministic machine.
#[derive(Clone, Debug)]
pub struct Placement {
    stream: StreamName,
    rules: SiteRules,
    next: Counters,
    zones: Vec<ZoneName>,
    regions: Vec<RegionName>,
    taints: Vec<TaintName>,
    hosts: BTreeMap<HostNumber, HostRecord>,
    host_names: BTreeMap<HostId, HostNumber>,
    host_ords: BTreeMap<HostOrd, HostNumber>,
    stores: BTreeMap<DataStoreId, StoreRecord>,
    planes: BTreeMap<PlaneNumber, PlaneRecord>,
    plane_names: BTreeMap<TenantId, BTreeMap<ClusterId, PlaneNumber>>,
    plane_ords: BTreeMap<PlaneOrd, PlaneNumber>,
    /// Where replicas belong, and how they get there.
    site: Site,
    rollout: Rollout,
    begun: BTreeMap<MoveNumber, Begun>,
    /// The plane for which each standing bid is.
    bids: BTreeMap<(StreamName, BidNumber), PlaneNumber>,
    bids_sum: u128,
    /// The last turn of each exchange that was reported, and its last part.
    routed: BTreeMap<StreamName, (u64, u32)>,
    /// Servers of hypervisors, and the leases on them.
    servers: Servers,
    advice: Vec<HostsAdvised>,
    advised_at: Option<Timestamp>,
    wants_advice: bool,
    timers: Timers,
    /// Whether replicas may belong elsewhere since that was last worked out.
    is_unsettled: bool,
    /// What had no place when that was last worked out; `None` if it was not since the state was loaded.
    unplaced: Option<Vec<AtRisk>>,
    /// Planes whose order may be another.
    stale: BTreeSet<PlaneNumber>,
    /// What is in the sum of digests as it no longer is.
    touched_planes: BTreeSet<PlaneNumber>,
    touched_hosts: BTreeSet<HostNumber>,
    sealed: u128,
    /// A broken invariant that was met on the way.
    fault: Option<Broken>,
}

/// What one turn decided.
type Decided = proto::machine::Decided<PlacementCommand, PlacementEvent>;
type Events = Vec<PlacementEvent>;

impl Placement {
    /// Notes a broken invariant: the state is no longer to be trusted.
    fn broke(&mut self, invariant: &'static str, details: impl Into<String>) {
        let details = details.into();
        debug_assert!(false, "invariant {invariant} is broken: {details}");
        self.fault.get_or_insert(Broken { invariant, details });
    }

    /// Lets an event take effect and tells it.
    fn emit(&mut self, now: Timestamp, event: PlacementEvent, events: &mut Events) {
        self.take_effect(now, &event);
        events.push(event);
    }

    fn plane_named(&self, tenant: &TenantId, cluster: &ClusterId) -> Option<&PlaneRecord> {
        self.planes.get(self.plane_names.get(tenant)?.get(cluster)?)
    }

    fn host_named(&self, id: &HostId) -> Option<&HostRecord> {
        self.hosts.get(self.host_names.get(id)?)
    }

    fn plane_of(&self, ord: PlaneOrd) -> Option<&PlaneRecord> {
        self.planes.get(self.plane_ords.get(&ord)?)
    }

    /// Notes that a plane changed: its digest, and perhaps its order, is another.
    fn touch(&mut self, plane: PlaneNumber) {
        self.touched_planes.insert(plane);
        self.stale.insert(plane);
    }
}

impl Machine for Placement {
    const NAME: &'static str = "placement";
    const RULES: u32 = 1;
    const SNAPSHOT: u32 = 1;
    type Command = PlacementCommand;
    type Event = PlacementEvent;

    fn new(stream: &StreamName) -> Self {
        Self::empty(stream, SiteRules::default())
    }

    fn step(&mut self, now: Timestamp, received: &Received<PlacementCommand>, events: &mut Events) {
        self.seal();
        self.decide(now, received, events);
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| at)
    }

    fn wake(&mut self, now: Timestamp, events: &mut Events) {
        self.seal();
        self.do_due(now, events);
    }

    fn apply(&mut self, at: Timestamp, event: &PlacementEvent) {
        self.seal();
        self.take_effect(at, event);
    }

    fn hash(&self) -> StateHash {
        self.state_hash()
    }

    fn snapshot(&self) -> Vec<u8> {
        self.save()
    }

    fn restore(stream: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        Self::load(stream, bytes)
    }

    fn check(&self) -> Result<(), Broken> {
        self.check_all()
    }

    fn check_turn(&self) -> Result<(), Broken> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn is_refusal(answer: &PlacementEvent) -> bool {
        matches!(answer, PlacementEvent::CommandRefused(_))
    }

    fn tell(&self, decided: &Decided, out: &mut Vec<Publication>) {
        tell::answers(&self.stream, decided, out);
        tell::orders(self, decided, out);
        route::route_all(&self.stream, decided, out);
    }

    fn retell(
        stream: &StreamName,
        sequence: u64,
        at: Timestamp,
        received: &Received<PlacementCommand>,
        events: &[PlacementEvent],
    ) -> Option<Publication> {
        tell::again(stream, sequence, at, received, events)
    }
}
