//! The whole state as bytes and back.
//!
//! JSON, in an order that does not depend on how the state came about. What can be worked out is left out: names,
//! timers, digests, and the site but for where replicas belong.

use std::collections::{BTreeMap, BTreeSet};

use proto::machine::RestoreError;
use proto::market::BidNumber;
use proto::placement::{HostsAdvised, MoveNumber, PlaneNumber, SiteRules};
use proto::{DataStoreId, Machine, RegionName, StreamName, TaintName, Timestamp, ZoneName};
use serde::{Deserialize, Serialize};

use super::bounds::{LARGEST, RESOURCES};
use super::digest::digest_of_bid;
use super::due::{Due, Timers};
use super::record::{Begun, HostRecord, PlaneRecord, StoreRecord};
use super::{Counters, Placement};
use crate::rollout::{Rollout, Step};
use crate::servers::{SavedServers, Servers};
use crate::site::{HostOrd, PlaneOrd, SavedHost, SavedPlane, SavedSite, Site};

#[derive(Serialize, Deserialize)]
struct Saved {
    version: u32,
    rules: SiteRules,
    next: Counters,
    zones: Vec<ZoneName>,
    regions: Vec<RegionName>,
    taints: Vec<TaintName>,
    labels: Vec<(u32, u32, u64)>,
    used: (u32, u32),
    hosts: Vec<HostRecord>,
    stores: BTreeMap<DataStoreId, StoreRecord>,
    /// Each with where its replicas belong.
    planes: Vec<(PlaneRecord, Vec<HostOrd>)>,
    steps: Vec<SavedStep>,
    next_step: MoveNumber,
    begun: BTreeMap<MoveNumber, Begun>,
    bids: Vec<(StreamName, BidNumber, PlaneNumber)>,
    routed: BTreeMap<StreamName, (u64, u32)>,
    advice: Vec<HostsAdvised>,
    advised_at: Option<Timestamp>,
    wants_advice: bool,
    servers: SavedServers,
}

#[derive(Serialize, Deserialize)]
struct SavedStep {
    number: MoveNumber,
    plane: PlaneOrd,
    from: Option<HostOrd>,
    to: HostOrd,
    gone_at: Option<Timestamp>,
    begun: bool,
}

#[allow(clippy::needless_pass_by_value)] // so that it can stand in `map_err`
fn unreadable(problem: impl ToString) -> RestoreError {
    RestoreError::Unreadable { problem: problem.to_string() }
}

impl Placement {
    /// A site of which nothing is known yet.
    pub(super) fn empty(stream: &StreamName, rules: SiteRules) -> Self {
        let nothing = SavedSite::default();
        let reserve = rules.surge_reserve_permille;
        let site = Site::restored(RESOURCES, &LARGEST, reserve, &nothing);
        let fault = site.as_ref().err().map(|error| proto::machine::Broken {
            invariant: "I13",
            details: format!("surge reserve: {error}"),
        });
        Self {
            stream: stream.clone(),
            rules,
            next: Counters { plane: 1, host: 1 },
            zones: Vec::new(),
            regions: Vec::new(),
            taints: Vec::new(),
            hosts: BTreeMap::new(),
            host_names: BTreeMap::new(),
            host_ords: BTreeMap::new(),
            stores: BTreeMap::new(),
            planes: BTreeMap::new(),
            plane_names: BTreeMap::new(),
            plane_ords: BTreeMap::new(),
            site: site.unwrap_or_default(),
            rollout: Rollout::default(),
            begun: BTreeMap::new(),
            bids: BTreeMap::new(),
            bids_sum: 0,
            routed: BTreeMap::new(),
            servers: Servers::default(),
            advice: Vec::new(),
            advised_at: None,
            wants_advice: false,
            timers: Timers::default(),
            is_unsettled: false,
            unplaced: None,
            stale: BTreeSet::new(),
            touched_planes: BTreeSet::new(),
            touched_hosts: BTreeSet::new(),
            sealed: 0,
            fault,
        }
    }

    /// Where everything belongs, for making the site anew.
    pub(super) fn saved_site(&self) -> SavedSite {
        let host = |host: &HostRecord| SavedHost {
            ord: host.ord,
            terms: self.host_terms(&host.terms),
            gone_at: host.gone_at,
        };
        let plane = |plane: &PlaneRecord| {
            let mut on = self.site.on(plane.ord).to_vec();
            on.sort_unstable();
            Some(SavedPlane { ord: plane.ord, terms: *self.site.terms(plane.ord)?, on })
        };
        SavedSite {
            hosts: self.hosts.values().map(host).collect(),
            planes: self.planes.values().filter_map(plane).collect(),
            used: self.site.used(),
            labels: self.site.labels(),
        }
    }

    /// The state as bytes.
    pub(super) fn save(&self) -> Vec<u8> {
        let on = |plane: &PlaneRecord| {
            let mut on = self.site.on(plane.ord).to_vec();
            on.sort_unstable();
            (plane.clone(), on)
        };
        let step = |step: &Step| {
            let Step { number, plane, from, to, gone_at, begun } = *step;
            SavedStep { number, plane, from, to, gone_at, begun }
        };
        let saved = Saved {
            version: Self::SNAPSHOT,
            rules: self.rules.clone(),
            next: self.next,
            zones: self.zones.clone(),
            regions: self.regions.clone(),
            taints: self.taints.clone(),
            labels: self.site.labels(),
            used: self.site.used(),
            hosts: self.hosts.values().cloned().collect(),
            stores: self.stores.clone(),
            planes: self.planes.values().map(on).collect(),
            steps: self.rollout.steps().map(step).collect(),
            next_step: self.rollout.next_number(),
            begun: self.begun.clone(),
            bids: self.bids.iter().map(|((exchange, bid), plane)| (exchange.clone(), *bid, *plane)).collect(),
            routed: self.routed.clone(),
            advice: self.advice.clone(),
            advised_at: self.advised_at,
            wants_advice: self.wants_advice,
            servers: self.servers.saved(),
        };
        // These are plain data; writing them to memory cannot fail.
        serde_json::to_vec(&saved).unwrap_or_default()
    }

    /// The state that bytes hold.
    pub(super) fn load(stream: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        let saved: Saved = serde_json::from_slice(bytes).map_err(unreadable)?;
        if saved.version != Self::SNAPSHOT {
            return Err(unreadable(format!("version {}", saved.version)));
        }
        let mut state = Self::empty(stream, saved.rules);
        (state.next, state.zones, state.regions) = (saved.next, saved.zones, saved.regions);
        (state.taints, state.stores) = (saved.taints, saved.stores);
        for host in saved.hosts {
            state.host_names.insert(host.id.clone(), host.number);
            state.host_ords.insert(host.ord, host.number);
            state.timers.set(Due::Gone(host.number), host.gone_at);
            state.touched_hosts.insert(host.number);
            state.hosts.insert(host.number, host);
        }
        let mut site = SavedSite { used: saved.used, labels: saved.labels, ..state.saved_site() };
        for (plane, on) in saved.planes {
            let terms = state.plane_terms(&plane);
            site.planes.push(SavedPlane { ord: plane.ord, terms, on });
            state.plane_ords.insert(plane.ord, plane.number);
            state
                .plane_names
                .entry(plane.tenant.clone())
                .or_default()
                .insert(plane.cluster.clone(), plane.number);
            state.touched_planes.insert(plane.number);
            let number = plane.number;
            state.planes.insert(number, plane);
            state.time_plane(number);
        }
        let reserve = state.rules.surge_reserve_permille;
        state.site = Site::restored(RESOURCES, &LARGEST, reserve, &site).map_err(unreadable)?;
        let step = |step: SavedStep| {
            let SavedStep { number, plane, from, to, gone_at, begun } = step;
            Step { number, plane, from, to, gone_at, begun }
        };
        state.rollout = Rollout::restored(saved.steps.into_iter().map(step), saved.next_step);
        state.begun = saved.begun;
        for number in state.begun.keys().copied().collect::<Vec<_>>() {
            state.time_move(number);
        }
        for (exchange, bid, plane) in saved.bids {
            state.bids_sum = state.bids_sum.wrapping_add(digest_of_bid(&exchange, bid, plane));
            state.bids.insert((exchange, bid), plane);
        }
        (state.routed, state.advice, state.advised_at) = (saved.routed, saved.advice, saved.advised_at);
        state.wants_advice = saved.wants_advice;
        state.time_advice();
        state.servers = Servers::restored(saved.servers);
        state.time_servers();
        state.seal();
        Ok(state)
    }
}
