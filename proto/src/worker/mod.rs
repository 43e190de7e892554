//! What a worker and the service that keeps its control plane say to one another over HTTPS, and what both sides work
//! out from it alone: the join secret, who may redeem it, the request for a certificate.
//!
//! A worker is known by its lease ([`WorkerId`], also the name of its Node). Whoever boots its server gives it a
//! [`JoinSecret`]. The agent makes a key, signs a request for the certificate of exactly this Node
//! ([`certificate::request_info`]) and redeems the secret for an [`Admission`]. The first key that redeems it is the
//! lease's: it gets the same answer as often as it asks, every other is refused, and somebody is told. From then on
//! the worker sends a [`Report`] now and then, and learns from the answer whether it has to leave.

pub mod certificate;
mod hmac;
mod id;
mod message;
mod secret;

pub use certificate::{CertificateError, PublicKey};
pub use id::{WorkerId, WorkerIdError};
pub use message::{
    Admission, BusTerms, ClusterTerms, JoinSecretAnswer, JoinSecretQuestion, KubeletTerms, NoticeOrder,
    RedemptionAnswer, Report, ReportAnswer, Taint, TaintEffect, TunnelTerms, Undone, UndoneWhat, WorkerState,
};
pub use secret::{Bound, Claim, JoinSecret, Redemption, RedemptionRefusal, SecretError, SiteKey, Verdict};

/// Where a secret is redeemed: `POST` with a [`Redemption`], answered with a [`RedemptionAnswer`].
pub const REDEEM_PATH: &str = "/v1/workers/redeem";

/// Where a worker reports: `POST` with a [`Report`] and its session as bearer token, answered with a
/// [`ReportAnswer`].
pub const REPORT_PATH: &str = "/v1/workers/report";

/// Longest message of either side, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 256 << 10;
