//! Does the broker sync a message to disk before it acknowledges it?

use std::time::Duration;

use serde::Deserialize;

use crate::nats::monitoring;

/// What an acknowledgement is worth when the power goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Every message is on disk before it is acknowledged (`sync_interval: always`).
    Always,
    /// Messages reach the disk this often; what was acknowledged since can be lost.
    Interval(Duration),
    /// It could not be found out.
    Unknown {
        /// Why not.
        why: String,
    },
}

#[derive(Deserialize)]
struct Jsz {
    config: Option<JetStreamConfig>,
    #[serde(default)]
    disabled: bool,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
    /// Nanoseconds.
    #[serde(default)]
    sync_interval: u64,
}

/// Reads it from the server's monitoring address.
pub(super) async fn read(monitoring_url: &str) -> Durability {
    match monitoring::get(monitoring_url, "/jsz").await {
        Ok(answer) if answer.status == 200 => judge(&answer.body),
        Ok(answer) => Durability::Unknown { why: format!("{monitoring_url}/jsz answered {}", answer.status) },
        Err(error) => Durability::Unknown { why: error.to_string() },
    }
}

fn judge(body: &[u8]) -> Durability {
    match serde_json::from_slice::<Jsz>(body) {
        Ok(Jsz { disabled: true, .. } | Jsz { config: None, .. }) => {
            Durability::Unknown { why: "JetStream is not enabled".to_owned() }
        }
        Ok(Jsz { config: Some(config), .. }) if config.sync_always => Durability::Always,
        Ok(Jsz { config: Some(config), .. }) => {
            Durability::Interval(Duration::from_nanos(config.sync_interval))
        }
        Err(error) => Durability::Unknown { why: format!("/jsz is unreadable: {error}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_monitoring_page_says() {
        let two_minutes = Durability::Interval(Duration::from_mins(2));
        for (body, expected) in [
            (r#"{"config":{"sync_always":true,"sync_interval":120000000000}}"#, Some(Durability::Always)),
            (r#"{"config":{"sync_interval":120000000000}}"#, Some(two_minutes)),
            (r#"{"disabled":true,"config":{"sync_always":true}}"#, None),
            (r"{}", None),
            ("not json", None),
        ] {
            let read = judge(body.as_bytes());
            match expected {
                Some(expected) => assert_eq!(read, expected, "{body}"),
                None => assert!(matches!(read, Durability::Unknown { .. }), "{body}: {read:?}"),
            }
        }
    }
}
