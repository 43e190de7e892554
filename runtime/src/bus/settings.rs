//! A stream's settings as the broker knows them, and which of them are unsafe.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

use super::{Storage, StreamSpec};

/// The broker's settings for a spec.
pub(super) fn config_of(spec: &StreamSpec) -> Config {
    Config {
        name: spec.name.clone(),
        subjects: spec.subjects.clone(),
        retention: RetentionPolicy::Limits,
        discard: if spec.discard_new { DiscardPolicy::New } else { DiscardPolicy::Old },
        max_age: spec.max_age.unwrap_or_default(),
        max_bytes: i64::try_from(spec.max_bytes).unwrap_or(i64::MAX),
        max_messages: -1,
        max_consumers: -1,
        max_message_size: i32::try_from(spec.max_message_bytes).unwrap_or(i32::MAX),
        max_messages_per_subject: spec
            .max_per_subject
            .map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX)),
        storage: match spec.storage {
            Storage::File => StorageType::File,
            Storage::Memory => StorageType::Memory,
        },
        duplicate_window: spec.duplicate_window,
        num_replicas: usize::from(spec.replicas),
        // Nobody edits history; forgetting a prefix (purge) is all that is ever needed.
        deny_delete: true,
        ..Default::default()
    }
}

/// The settings that may change while a stream is in use.
pub(super) fn tunable(config: &Config) -> (Duration, i64, i32, i64, Duration, usize) {
    (
        config.max_age,
        config.max_bytes,
        config.max_message_size,
        config.max_messages_per_subject,
        config.duplicate_window,
        config.num_replicas,
    )
}

/// What of an existing stream would lose or forge messages, or cannot be changed in place.
pub(super) fn unsafe_settings(have: &Config, want: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let mut differs = |is: bool, problem: String| {
        if is {
            problems.push(problem);
        }
    };
    differs(
        have.subjects != want.subjects,
        format!("subjects are {:?}, must be {:?}", have.subjects, want.subjects),
    );
    differs(
        have.storage != want.storage,
        format!("storage is {:?}, must be {:?}", have.storage, want.storage),
    );
    differs(
        have.discard != want.discard,
        format!("discard is {:?}, must be {:?}", have.discard, want.discard),
    );
    differs(
        have.retention != want.retention,
        format!("retention is {:?}, must be {:?}", have.retention, want.retention),
    );
    differs(have.max_messages > 0, format!("max_msgs is {}, must be unlimited", have.max_messages));
    differs(have.discard_new_per_subject, "discard_new_per_subject is on, must be off".to_owned());
    differs(have.no_ack, "no_ack is on, must be off".to_owned());
    differs(have.sealed, "sealed is on, must be off".to_owned());
    differs(have.allow_rollup, "allow_rollup_hdrs is on, must be off".to_owned());
    differs(!have.deny_delete, "deny_delete is off, must be on".to_owned());
    differs(have.mirror.is_some(), "mirror is set, must not be".to_owned());
    differs(
        have.sources.as_ref().is_some_and(|sources| !sources.is_empty()),
        "sources are set, must not be".to_owned(),
    );
    differs(have.republish.is_some(), "republish is set, must not be".to_owned());
    differs(have.subject_transform.is_some(), "subject_transform is set, must not be".to_owned());
    differs(have.allow_message_ttl, "allow_msg_ttl is on, must be off".to_owned());
    problems
}
