//! What is said to placement of hosts: Nodes of the management cluster are hosts as long as they are there and answer.
//!
//! It looks at levels: what placement knows is compared with the Nodes there are, so that what was lost on the way is
//! said again. Placement may end a host by itself (its notice ran out, its hypervisor said so) while its Node lingers;
//! such a Node is not offered again as long as it is the same.

use std::collections::{BTreeMap, BTreeSet};

use proto::placement::{
    Amount, HostTerms, KeepHost, NoticeHost, OfferHost, PlacementCommand, ReportHostGone, TAINTS_MAX,
};
use proto::{CommandId, HostId, RegionName, TaintName, Timestamp};

use crate::host::Host;
use crate::manifest::UNREACHABLE_SECONDS;

/// A host that does not answer for so many seconds is gone: by then its pods are being ended.
pub const HOST_SILENT_SECONDS: u32 = UNREACHABLE_SECONDS;
/// The zone of hosts whose Nodes name none: they may fail together.
const ZONE_UNKNOWN: &str = "unknown";

/// Which Nodes are hosts, and what they have for planes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    /// Labels that a host must have; none: every Node is one.
    pub pool: BTreeMap<String, String>,
    /// The region of hosts whose Nodes name none.
    pub region: Option<RegionName>,
    /// What of each host is not for planes.
    pub reserved: Amount,
    /// Hosts of which the operator's configuration speaks: nothing is said of them here.
    pub declared: BTreeSet<HostId>,
}

/// A host as placement knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownHost {
    /// Its name.
    pub host: HostId,
    /// The newest statement about it.
    pub generation: u64,
    /// What it is.
    pub terms: HostTerms,
    /// When it is gone, if it leaves.
    pub gone_at: Option<Timestamp>,
}

/// What is to be said of hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostsSaid {
    /// Commands to placement.
    pub commands: Vec<PlacementCommand>,
    /// When time alone makes something to say.
    pub wake_at: Option<Timestamp>,
    /// Nodes that cannot be hosts, and why.
    pub unusable: Vec<(String, &'static str)>,
}

/// What was seen and said of hosts so far.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    rules: HostRules,
    /// Identities of Nodes whose hosts placement knew.
    known: BTreeMap<HostId, String>,
    /// Notices that Nodes gave.
    noticed: BTreeMap<HostId, Timestamp>,
    /// Nodes whose hosts placement ended by itself.
    ended: BTreeMap<HostId, String>,
}

impl Hosts {
    /// Nothing seen yet.
    pub fn new(rules: HostRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// What is to be said, given the Nodes there are and the hosts that placement knows. `id` makes ids that were
    /// never used.
    pub fn say(
        &mut self,
        nodes: &BTreeMap<String, Host>,
        known: &[KnownHost],
        now: Timestamp,
        mut id: impl FnMut() -> Option<CommandId>,
    ) -> HostsSaid {
        let mut said = HostsSaid::default();
        let mut seen = BTreeMap::new();
        for (name, node) in nodes.iter().filter(|(_, node)| self.is_in_pool(node)) {
            match name.parse::<HostId>() {
                Ok(host) if self.rules.declared.contains(&host) => {}
                Ok(host) => drop(seen.insert(host, node)),
                Err(_) => said.unusable.push((name.clone(), "its name is no host's")),
            }
        }
        let mut wanted = Vec::new();
        for host in known {
            if !self.rules.declared.contains(&host.host) {
                self.of_known(host, seen.remove(&host.host), now, &mut wanted, &mut said);
            }
        }
        for (host, node) in &seen {
            self.of_new(host, node, now, &mut wanted, &mut said);
        }
        let names: BTreeSet<&HostId> = known.iter().map(|known| &known.host).chain(seen.keys()).collect();
        self.known.retain(|host, _| names.contains(host));
        self.noticed.retain(|host, _| names.contains(host));
        self.ended.retain(|host, _| names.contains(host));
        said.commands = wanted.into_iter().filter_map(|wanted| Some(wanted.command(id()?))).collect();
        said
    }

    fn is_in_pool(&self, node: &Host) -> bool {
        self.rules.pool.iter().all(|(name, value)| node.labels.get(name) == Some(value))
    }

    /// Of a host that placement knows.
    fn of_known(
        &mut self,
        known: &KnownHost,
        node: Option<&Host>,
        now: Timestamp,
        wanted: &mut Vec<Wanted>,
        said: &mut HostsSaid,
    ) {
        let host = &known.host;
        let Some(node) = node else {
            // A hypervisor may offer a host before its Node is there.
            if self.known.remove(host).is_some() || known.terms.hypervisor.is_none() {
                wanted.push(Wanted::Gone(host.clone()));
            }
            return;
        };
        let is_another = self.known.get(host).is_some_and(|uid| *uid != node.uid);
        let silent_until = node.silent_since.map(|since| since.plus_seconds(HOST_SILENT_SECONDS));
        if is_another || silent_until.is_some_and(|until| until <= now) {
            self.known.remove(host);
            return wanted.push(Wanted::Gone(host.clone()));
        }
        said.wake_at = said.wake_at.into_iter().chain(silent_until).min();
        self.known.insert(host.clone(), node.uid.clone());
        match self.terms(node, known.terms.hypervisor.clone()) {
            Ok(terms) if terms == known.terms => {}
            Ok(terms) => {
                wanted.push(Wanted::Offer(host.clone(), known.generation.saturating_add(1), terms));
            }
            Err(why) => said.unusable.push((host.as_str().to_owned(), why)),
        }
        let given = self.noticed.get(host).copied().filter(|given| known.gone_at == Some(*given));
        match node.gone_at {
            Some(at) if known.gone_at.is_none_or(|stands| at < stands) => {
                self.noticed.insert(host.clone(), at);
                wanted.push(Wanted::Notice(host.clone(), at));
            }
            // A later instant replaces ours only after that was taken back.
            later if given.is_some() && later != given => {
                self.noticed.remove(host);
                wanted.push(Wanted::Keep(host.clone()));
            }
            _ => {}
        }
    }

    /// Of a Node whose host placement does not know.
    fn of_new(
        &mut self,
        host: &HostId,
        node: &Host,
        now: Timestamp,
        wanted: &mut Vec<Wanted>,
        said: &mut HostsSaid,
    ) {
        if let Some(uid) = self.known.remove(host)
            && uid == node.uid
        {
            self.ended.insert(host.clone(), uid);
        }
        let is_ended = self.ended.get(host) == Some(&node.uid);
        if is_ended || !node.ready || node.gone_at.is_some_and(|at| at <= now) {
            return;
        }
        match self.terms(node, None) {
            Ok(terms) => wanted.push(Wanted::Offer(host.clone(), 1, terms)),
            Err(why) => said.unusable.push((host.as_str().to_owned(), why)),
        }
    }

    /// What a Node says of its host. Whose notices count, its hypervisor may have said before.
    fn terms(&self, node: &Host, hypervisor: Option<proto::PrincipalId>) -> Result<HostTerms, &'static str> {
        let zone = if node.zone.is_empty() { ZONE_UNKNOWN } else { &node.zone };
        let region = match &self.rules.region {
            Some(region) if node.region.is_empty() => region.clone(),
            _ => node.region.parse().map_err(|_| "it names no region")?,
        };
        let taints: Vec<TaintName> = node.taints.iter().filter_map(|taint| taint.parse().ok()).collect();
        if taints.len() < node.taints.len() || taints.len() > TAINTS_MAX {
            return Err("its taints are too many, or one of them has no usable name");
        }
        let Amount { cpu_milli, memory_mib, pods } = self.rules.reserved;
        Ok(HostTerms {
            zone: zone.parse().map_err(|_| "its zone has no usable name")?,
            region,
            capacity: Amount {
                cpu_milli: node.capacity.cpu_milli.saturating_sub(cpu_milli),
                memory_mib: node.capacity.memory_mib.saturating_sub(memory_mib),
                pods: node.capacity.pods.saturating_sub(pods),
            },
            taints,
            hypervisor: node.hypervisor.parse().ok().or(hypervisor),
        })
    }
}

/// Something to say, without an id.
enum Wanted {
    Offer(HostId, u64, HostTerms),
    Notice(HostId, Timestamp),
    Keep(HostId),
    Gone(HostId),
}

impl Wanted {
    fn command(self, id: CommandId) -> PlacementCommand {
        match self {
            Self::Offer(host, generation, terms) => {
                PlacementCommand::OfferHost(OfferHost { id, host, generation, terms })
            }
            Self::Notice(host, gone_at) => PlacementCommand::NoticeHost(NoticeHost { id, host, gone_at }),
            Self::Keep(host) => PlacementCommand::KeepHost(KeepHost { id, host }),
            Self::Gone(host) => PlacementCommand::ReportHostGone(ReportHostGone { id, host }),
        }
    }
}
