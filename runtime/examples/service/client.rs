//! A storefront: sends, and watches its answers.

use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::Bytes;
use runtime::bus::{Bus, Position, PublishError, Reader};

/// Longest wait for the next answer.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(30);

/// The given share of the values is at most this many milliseconds.
pub(crate) fn quantile(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    let at = ((values.len() as f64 - 1.0) * share).round() as usize;
    values.get(at).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
}

/// The principal that a subject of commands names.
pub(crate) fn principal(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or_default()
}

/// The answers to `principal` from now on.
pub(crate) async fn answers_from_now(bus: &Bus, principal: &str) -> Result<Reader> {
    let state = bus.stream_state("walras-answer").await?;
    let after = Position { created: state.created, sequence: state.last };
    let after = (state.last > 0).then_some(after);
    Ok(bus.read("walras-answer", &format!("walras.v1.answer.{principal}"), after).await?)
}

/// Publishes until the broker has it.
pub(crate) async fn publish(bus: &Bus, subject: &str, id: &str, payload: Bytes) -> Result<()> {
    const ATTEMPTS_MAX: u32 = 1_000;
    for _ in 0..ATTEMPTS_MAX {
        match bus.publish(subject, id, &[], payload.clone()).await {
            Ok(_) => return Ok(()),
            Err(PublishError::Ambiguous { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    anyhow::bail!("{id} was never stored")
}

pub(crate) fn nanos(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
