//! What a worker is told, and what it tells.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::WorkerId;
use super::secret::RedemptionRefusal;
use crate::time::Timestamp;

/// The answer to a redemption.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum RedemptionAnswer {
    /// Everything a worker needs.
    Admitted(Box<Admission>),
    /// The certificate is not made yet; ask again.
    Wait {
        /// When, in seconds.
        seconds: u32,
    },
    /// Nothing will come of it.
    Refused {
        /// Why not.
        reason: RedemptionRefusal,
    },
}

/// Everything a worker needs to join its tenant's cluster. The same key gets the same, but for what expires.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// The instant at the service. Workers reckon with its clock, not with their own.
    pub now: Timestamp,
    /// Which worker it is, and what its Node is called.
    pub worker: WorkerId,
    /// Generation of the lease's server.
    pub generation: u64,
    /// Bearer token of its reports.
    pub session: String,
    /// Between two reports, in seconds.
    pub report_seconds: u32,
    /// Where the cluster is.
    pub cluster: ClusterTerms,
    /// What the kubelet is told.
    pub kubelet: KubeletTerms,
    /// Where the tunnel leads; none where the cluster's API server reaches its workers without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelTerms>,
    /// Where notices are heard at once; none where they come with the answers to reports alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus: Option<BusTerms>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Admission({} {}, …)", self.worker, self.generation)
    }
}

/// A cluster as its workers see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterTerms {
    /// The API server, `https://HOST:PORT`.
    pub api_server: String,
    /// Certificates of its authority, in PEM.
    pub certificate_authority: String,
    /// The Node's certificate, in PEM; its key never left the worker.
    pub certificate: String,
}

/// What the kubelet is told that another cluster's would be told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KubeletTerms {
    /// The cluster's domain, `cluster.local`.
    pub cluster_domain: String,
    /// Addresses of the cluster's name servers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cluster_dns: Vec<String>,
    /// Labels that the Node registers with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Taints that the Node registers with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<Taint>,
}

/// A taint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value, perhaps empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// What a taint does to pods that do not tolerate it, in Kubernetes' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaintEffect {
    /// They are placed elsewhere.
    NoSchedule,
    /// They are placed elsewhere if possible.
    PreferNoSchedule,
    /// They are placed elsewhere, and leave.
    NoExecute,
}

/// Where the tunnel leads.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelTerms {
    /// Name or address of the proxy servers.
    pub host: String,
    /// Their port.
    pub port: u16,
    /// The token to be shown to them.
    pub token: String,
    /// When the token expires. A stream that is open stays.
    pub token_expires_at: Timestamp,
}

impl fmt::Debug for TunnelTerms {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TunnelTerms({}:{}, …)", self.host, self.port)
    }
}

/// Where a worker hears on the bus what it is told: a [`ReportAnswer`] that comes by itself, on
/// [`crate::subject::worker_order`]. It may listen to nothing else there, and say nothing.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusTerms {
    /// The broker, `nats://HOST:PORT` or `tls://HOST:PORT`.
    pub url: String,
    /// What the worker shows beside its name, which is its user's.
    pub password: String,
    /// Certificates of an authority to trust beside the system's, in PEM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_authority: Option<String>,
}

impl fmt::Debug for BusTerms {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "BusTerms({}, …)", self.url)
    }
}

/// How far a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WorkerState {
    /// It has its admission, and no Node that is ready yet.
    Joining,
    /// Its Node is ready, and the tunnel leads to it.
    Ready,
    /// It was ready and is not: the kubelet or the tunnel fails.
    Failing,
    /// It is under notice and sends its pods away.
    Draining,
    /// It has sent away what it could: the notice is acknowledged.
    Drained,
    /// Kubelet and tunnel have ended. Its Node may be deleted and its server taken.
    Left,
}

/// What a worker says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// Who speaks.
    pub worker: WorkerId,
    /// Generation of the lease's server. A report of an older one is out of date.
    pub generation: u64,
    /// Counted up with every report, over restarts too: of two that arrive in the wrong order the larger counts.
    pub sequence: u64,
    /// How far it is.
    pub state: WorkerState,
    /// The notice it acts upon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
    /// What could not be done, once it is drained: at most 100, the others counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undone: Vec<Undone>,
    /// How many more there are.
    #[serde(default)]
    pub undone_more: u32,
    /// How often the kubelet was started again.
    #[serde(default)]
    pub kubelet_restarts: u32,
    /// Whether the tunnel's token is to be renewed.
    #[serde(default)]
    pub renew_token: bool,
}

/// Something that could not be done before the time was over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Undone {
    /// What.
    pub what: UndoneWhat,
    /// Which: namespace and name, or empty.
    pub which: String,
    /// Why not.
    pub why: String,
}

/// What it was that could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndoneWhat {
    /// The Node could not be cordoned.
    Cordon,
    /// A pod is still there.
    Pod,
    /// A volume is still attached.
    Volume,
    /// The kubelet still runs.
    Kubelet,
}

/// The answer to a report.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportAnswer {
    /// The instant at the service.
    pub now: Timestamp,
    /// Generation of the lease's server. Larger than the worker's: its lease is elsewhere, and it has to leave.
    pub generation: u64,
    /// The notice that stands; none if there is none, or it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<NoticeOrder>,
    /// The tunnel's terms with a new token, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<TunnelTerms>,
}

impl fmt::Debug for ReportAnswer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "ReportAnswer({}, {}, {:?})", self.now, self.generation, self.notice)
    }
}

/// The order to leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoticeOrder {
    /// When the server is taken.
    pub gone_at: Timestamp,
    /// Why, in the market's words.
    pub reason: String,
}

/// Asks for the join secret of a lease's server: the hypervisor that boots it does, when it does. Its subject says who
/// asks ([`crate::subject::join_secret`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinSecretQuestion {
    /// Of which lease.
    pub lease: crate::market::LeaseNumber,
}

/// A join secret, for the server that boots and nobody else. It is never written down by us.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinSecretAnswer {
    /// What the worker will be called.
    pub worker: WorkerId,
    /// Generation of the lease's server.
    pub generation: u64,
    /// The secret as text.
    pub secret: String,
    /// Until when it may be redeemed for the first time.
    pub expires_at: Timestamp,
}

impl fmt::Debug for JoinSecretAnswer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "JoinSecretAnswer({} {}, …)", self.worker, self.generation)
    }
}
