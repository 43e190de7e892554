//! The secrets that deliveries are signed with: worked out from a key in a file, for each webhook its own. They are never
//! journaled, and told to nobody but whoever asks for a tenant that is known.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use proto::{StreamName, TenantId, WebhookId, subject};
use runtime::bus::{Bus, Query, Serving};
use serde::{Deserialize, Serialize};

use crate::sign::{hexadecimal, hmac};

/// Under this name, as if it were a machine, secrets are asked for.
pub const QUERIED_AS: &str = runtime::nats::layout::WEBHOOK_SECRETS;
/// The file with the key, in the data folder.
const FILE: &str = "webhook.secret";
/// Bytes of the key.
const KEY_BYTES: usize = 32;

/// The key that all secrets follow from.
#[derive(Clone)]
pub(crate) struct Secrets(Arc<[u8; KEY_BYTES]>);

impl Secrets {
    /// Reads the key, or makes it at the first start, readable by its owner alone. Replicas must be given one key.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("folder {}", folder.display()))?;
        let path = folder.join(FILE);
        let shown = || format!("file {}", path.display());
        if !path.exists() {
            let mut key = [0; KEY_BYTES];
            File::open("/dev/urandom")
                .and_then(|mut source| source.read_exact(&mut key))
                .context("/dev/urandom")?;
            let mut file = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .with_context(shown)?;
            file.write_all(&key).with_context(shown)?;
            file.sync_all().with_context(shown)?;
        }
        let bytes = fs::read(&path).with_context(shown)?;
        ensure!(bytes.len() == KEY_BYTES, "{}: holds {} bytes, not {KEY_BYTES}", shown(), bytes.len());
        let mut key = [0; KEY_BYTES];
        key.copy_from_slice(&bytes);
        Ok(Self(Arc::new(key)))
    }

    /// The secret of a webhook: the same in every exchange and as long as the key is, whatever its address becomes.
    pub(crate) fn of(&self, tenant: &TenantId, webhook: &WebhookId) -> String {
        // Names hold no spaces.
        let name = format!("walras webhook {tenant} {webhook}");
        hexadecimal(&hmac(&self.0[..], &[name.as_bytes()]))
    }
}

/// Whose secret is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretQuestion {
    tenant: TenantId,
    webhook: WebhookId,
}

/// A webhook's secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretAnswer {
    /// What its deliveries are signed with.
    pub secret: String,
}

/// Answers `secret` until the returned value is dropped.
pub(crate) async fn serve(bus: &Bus, exchange: &StreamName, secrets: Secrets) -> Result<Serving> {
    let filter = subject::query(QUERIED_AS, exchange, ">");
    let answer = move |query: Query| {
        let secrets = secrets.clone();
        async move {
            let asked: SecretQuestion =
                serde_json::from_slice(&query.payload).map_err(|error| error.to_string())?;
            let secret = secrets.of(&asked.tenant, &asked.webhook);
            serde_json::to_vec(&SecretAnswer { secret }).map(Bytes::from).map_err(|error| error.to_string())
        }
    };
    Ok(bus.serve(&filter, answer).await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_secret_stays_and_is_a_webhook_s_own() {
        let folder = tempfile::tempdir().unwrap();
        let first = Secrets::open(folder.path()).unwrap();
        let again = Secrets::open(folder.path()).unwrap();
        let of = |secrets: &Secrets, tenant: &str, webhook: &str| {
            secrets.of(&tenant.parse().unwrap(), &webhook.parse().unwrap())
        };
        assert_eq!(of(&first, "t", "w"), of(&again, "t", "w"));
        for other in [of(&first, "t", "v"), of(&first, "u", "w")] {
            assert_ne!(of(&first, "t", "w"), other);
        }
        assert_eq!(of(&first, "t", "w").len(), 64);
    }
}
