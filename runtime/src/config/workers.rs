//! How workers are served: the endpoint where they redeem their secrets and report.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Between two reports of a worker at most, in seconds.
pub const REPORT_SECONDS_MAX: u32 = 300;
/// A worker is given up after this at the latest, in seconds.
pub const DEAD_SECONDS_MAX: u32 = 3_600;
/// A join secret is good for this at most, in seconds: whoever boots a server asks when it does.
pub const JOIN_SECONDS_MAX: u32 = 86_400;

/// The endpoint for workers. Without `listen` there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkersSettings {
    /// Where it listens, such as `0.0.0.0:8443`; workers come from anywhere.
    pub listen: Option<SocketAddr>,
    /// Its certificate, with those between it and an authority, a PEM file.
    pub certificate_file: Option<PathBuf>,
    /// The certificate's key, a PEM file.
    pub key_file: Option<PathBuf>,
    /// The file with the site's key, at least 32 bytes, under which join secrets are made. Every replica has the same.
    pub site_key_file: Option<PathBuf>,
    /// Between two reports of a worker, in seconds.
    pub report_seconds: NonZeroU32,
    /// A worker that was not heard to be well for so long is dead, in seconds: it is no longer charged.
    pub dead_seconds: NonZeroU32,
    /// How long a join secret may be redeemed for the first time, in seconds.
    pub join_seconds: NonZeroU32,
    /// Connections open at once; the others wait.
    pub connections_max: NonZeroU32,
    /// Address of the broker as workers reach it, such as `tls://bus.example:4222`: there they hear notices at once.
    /// Absent: they hear them with the answers to their reports.
    pub bus_url: Option<String>,
    /// Certificate authority that workers trust there beside the system's, a PEM file.
    pub bus_certificate_authority: Option<PathBuf>,
    /// Public nkey of the account in whose name workers are let into the bus, `A` and 55 more characters.
    pub bus_issuer: Option<String>,
    /// The file with its seed.
    pub bus_issuer_seed_file: Option<PathBuf>,
}

impl Default for WorkersSettings {
    fn default() -> Self {
        Self {
            listen: None,
            certificate_file: None,
            key_file: None,
            site_key_file: None,
            report_seconds: NonZeroU32::MIN.saturating_add(19),
            dead_seconds: NonZeroU32::MIN.saturating_add(89),
            join_seconds: NonZeroU32::MIN.saturating_add(899),
            connections_max: NonZeroU32::MIN.saturating_add(2_047),
            bus_url: None,
            bus_certificate_authority: None,
            bus_issuer: None,
            bus_issuer_seed_file: None,
        }
    }
}

impl WorkersSettings {
    /// The key that cannot be so, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        if self.listen.is_some() {
            let files = [
                ("certificate_file", &self.certificate_file),
                ("key_file", &self.key_file),
                ("site_key_file", &self.site_key_file),
            ];
            if let Some((key, _)) = files.into_iter().find(|(_, file)| file.is_none()) {
                return Some((key, "is not set, and workers.listen is".to_owned()));
            }
        }
        let most = [
            ("report_seconds", self.report_seconds, REPORT_SECONDS_MAX),
            ("dead_seconds", self.dead_seconds, DEAD_SECONDS_MAX),
            ("join_seconds", self.join_seconds, JOIN_SECONDS_MAX),
        ];
        if let Some((key, value, most)) = most.into_iter().find(|(_, value, most)| value.get() > *most) {
            return Some((key, format!("{value} is more than {most}")));
        }
        if let Some(url) = &self.bus_url {
            if !["nats://", "tls://"].iter().any(|scheme| url.starts_with(scheme)) {
                return Some(("bus_url", format!("{url:?} is neither nats://HOST:PORT nor tls://HOST:PORT")));
            }
            let needed = [
                ("bus_issuer", self.bus_issuer.is_none()),
                ("bus_issuer_seed_file", self.bus_issuer_seed_file.is_none()),
            ];
            if let Some((key, _)) = needed.into_iter().find(|(_, is_missing)| *is_missing) {
                return Some((key, "is not set, and workers.bus_url is".to_owned()));
            }
        }
        // One report that is lost kills nobody.
        if self.dead_seconds.get() < 2 * self.report_seconds.get() {
            let problem = format!(
                "{} is less than two reports last, {} seconds each",
                self.dead_seconds, self.report_seconds
            );
            return Some(("dead_seconds", problem));
        }
        None
    }
}
