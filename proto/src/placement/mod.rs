//! What is said to placement and what it says: clusters, hosts, data stores, and what is ordered for each plane.

mod answer;
mod command;
mod event;
mod server;
mod terms;

pub use answer::{PlacementAccepted, PlacementAnswer};
pub use command::{
    AdoptSiteRules, BidStands, ChangeCluster, CreateCluster, DeleteCluster, KeepHost, NoticeHost,
    OfferDataStore, OfferHost, PlacementCommand, ReportBids, ReportHostGone, ReportPlane, ReportPlaneGone,
    WakeCluster,
};
pub use event::{
    GoneCause, HostsAdvised, PlacementEvent, PlaneMove, PlaneOrder, ReplicaMove, Risk, RiskReason,
};
pub use server::{
    KeepServers, LeaseChange, MarketNamed, NoticeServers, OfferServers, OrderedServer, ReportServersGone,
    ServedLease, ServerOrder, ServerOrders,
};
pub use terms::{
    Amount, Availability, ClusterTerms, DataStoreTerms, Driver, HostTerms, KubernetesVersion, Near,
    SiteRules, SizeClass, VersionError,
};

/// A plane's number within its site, counted from 1 and never used again.
pub type PlaneNumber = u64;
/// A host's number within its site, counted from 1 and never used again.
pub type HostNumber = u64;
/// A server's number within its site, counted from 1 and never used again.
pub type ServerNumber = u64;
/// The number of a move of a replica within its site; later decisions have larger ones.
pub type MoveNumber = u64;

/// Most regions that a cluster's workers may be in.
pub const REGIONS_MAX: usize = 16;
/// Most taints of a host.
pub const TAINTS_MAX: usize = 16;
/// Most hosts that a plane is reported to be ready on.
pub const READY_HOSTS_MAX: usize = 64;
/// Most bids that one report names, and most changes of leases, and markets.
pub const BIDS_REPORTED_MAX: usize = 4_096;
/// Most leases that the changes of one report concern together.
pub const LEASES_REPORTED_MAX: u64 = 1_000_000;
/// Most servers that one command names.
pub const SERVERS_NAMED_MAX: usize = 1_024;
/// Most sizes of planes.
pub const SIZES_MAX: usize = 16;
/// Most workers that a cluster may be reported to have.
pub const WORKERS_MAX: u32 = 1_000_000;
