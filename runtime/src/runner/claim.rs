//! Holding the claim on a stream.

use std::time::Duration;

use super::{Context, Ended};

/// A claim is renewed this many times within its life.
const RENEWALS_PER_LIFE: u32 = 3;

/// How long a claim lives, in microseconds.
fn life_micros(context: &Context) -> i64 {
    i64::from(context.settings.claim_seconds.get()) * 1_000_000
}

/// How long to wait before asking again, whoever holds the claim.
pub(super) fn pause(context: &Context) -> Duration {
    Duration::from_secs(u64::from(context.settings.claim_seconds.get())) / RENEWALS_PER_LIFE
}

/// Tries to take or renew the claim. `Err` with the holder's name where it is another's.
pub(super) async fn take(context: &Context) -> Result<Result<u64, String>, journal::JournalError> {
    let now = context.clock.wall_micros();
    let claim =
        context.journal.claim(&context.journal_stream, &context.owner, now, life_micros(context)).await?;
    if claim.is_held_by(&context.owner) { Ok(Ok(claim.generation)) } else { Ok(Err(claim.owner.to_string())) }
}

/// Renews the claim until it is lost. A renewal that fails is tried again: losing the claim by it costs another
/// runner's start, never safety.
pub(super) async fn run(context: Context) -> Result<(), Ended> {
    loop {
        tokio::time::sleep(pause(&context)).await;
        match take(&context).await {
            Ok(Ok(_)) => {}
            Ok(Err(owner)) => return Err(Ended::ClaimLost { owner }),
            Err(error) => {
                tracing::warn!(stream = %context.stream, "the claim is not renewed: {error}");
            }
        }
    }
}
