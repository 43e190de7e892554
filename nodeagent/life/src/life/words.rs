//! What goes into a life, and what comes out.

use std::time::Duration;

use proto::worker::{Admission, RedemptionRefusal, Report, ReportAnswer, Undone};
use serde::{Deserialize, Serialize};

use crate::drain::{Answered, DrainAction, Pod};
use crate::notice::{Notice, Source, When};
use crate::saved::Saved;

/// How far a life is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Asking for admission.
    Redeeming,
    /// Admitted; writing files.
    Configuring,
    /// Waiting for the Node to be ready and for the tunnel.
    Joining,
    /// In service.
    Serving,
    /// Under notice: pods are sent away.
    Draining,
    /// Drained, and saying so.
    Drained,
    /// Kubelet and tunnel are ending.
    Stopping,
    /// They have; the last report.
    Left,
    /// Nothing is to be done any more.
    Over,
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The worker has left.
    Left,
    /// The secret is refused, and asking again would change nothing.
    Refused(RedemptionRefusal),
}

/// The Node as it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Whether it is ready.
    pub ready: bool,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Time passed.
    Tick,
    /// Admission.
    Redeemed(Box<Admission>),
    /// Admission after so long.
    RedeemLater(Duration),
    /// No admission, ever.
    RedeemRefused(RedemptionRefusal),
    /// No answer.
    RedeemFailed,
    /// What was to be saved is on disk.
    Saved,
    /// It is not.
    SaveFailed,
    /// Files are written.
    Configured,
    /// They are not.
    ConfigureFailed,
    /// The kubelet ended, or could not be started.
    KubeletEnded,
    /// Whether a tunnel's stream is open now.
    Tunnel(bool),
    /// The Node was looked at.
    Looked(Look),
    /// It could not be.
    LookFailed,
    /// There is no such Node.
    NoNode,
    /// A notice.
    Noticed {
        /// By whom.
        source: Source,
        /// When the server will be gone.
        when: When,
        /// Why.
        reason: String,
    },
    /// A notice was taken back.
    Withdrawn(Source),
    /// The Node takes new pods, or does not, as asked.
    Cordoned {
        /// Whether it takes none.
        cordoned: bool,
    },
    /// The API server refused that, or did not answer.
    CordonFailed(String),
    /// The Node's pods, and how many volumes are attached.
    Listed {
        /// The pods.
        pods: Vec<Pod>,
        /// The volumes.
        volumes: u32,
    },
    /// They could not be listed.
    NotListed(String),
    /// The answer to a request about a pod.
    Answered {
        /// Which pod.
        uid: String,
        /// The answer.
        answered: Answered,
    },
    /// The service took a report.
    Reported(Box<ReportAnswer>),
    /// It did not.
    ReportFailed,
    /// Whether the bus can be heard now.
    Bus(bool),
    /// The service said something without having been asked.
    Told(Box<ReportAnswer>),
}

/// What is to be done. Whoever does it says how it went, where [`Input`] has a word for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for admission.
    Redeem,
    /// Put this on disk before anything that follows.
    Save(Box<Saved>),
    /// Write the kubelet's files, and the tunnel's.
    Configure(Box<Admission>),
    /// Replace the tunnel's token.
    RenewToken(Box<Admission>),
    /// Start the kubelet, unless it runs.
    StartKubelet,
    /// Ask it to end.
    StopKubelet,
    /// End it.
    KillKubelet,
    /// Bring up the tunnel.
    StartTunnel(Box<Admission>),
    /// Ask the other side for no new connections.
    DrainTunnel,
    /// End it.
    StopTunnel,
    /// Look at the Node.
    Look,
    /// Let it take no new pods, or let it again.
    Cordon(bool),
    /// Something of the drain's; never that it is done.
    Drain(DrainAction),
    /// Tell the service.
    Report(Box<Report>),
    /// Tell whoever gave notice beside the service that the server may go.
    Acknowledge,
    /// End.
    Exit(Exit),
}

/// What is shown of a life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::struct_excessive_bools, reason = "each is shown as a gauge of its own")]
pub struct Status {
    /// How far it is.
    pub phase: Phase,
    /// Which worker it is, once it is admitted.
    pub worker: Option<String>,
    /// Whether its Node was ready when last looked at.
    pub node_ready: bool,
    /// Whether a tunnel's stream is open.
    pub tunnel_open: bool,
    /// Whether the bus can be heard.
    pub bus_open: bool,
    /// Whether the kubelet runs.
    pub kubelet_running: bool,
    /// How often it was started again.
    pub kubelet_restarts: u32,
    /// The notice that counts.
    pub notice: Option<Notice>,
    /// Pods that have still to go.
    pub pods_remaining: usize,
    /// What could not be done.
    pub undone: Vec<Undone>,
    /// Whether the newest state is on disk.
    pub is_saved: bool,
    /// The service's clock less the worker's, in seconds.
    pub skew_seconds: i64,
}
