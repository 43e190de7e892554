//! One run of all stages, from a loaded state to the first reason to end.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::commit::{self, Outputs, Settled};
use super::follower::{self, FOLLOWER_QUEUE_ROWS};
use super::load::{Loaded, load};
use super::progress::Progress;
use super::step::{Stepper, TURNS_AHEAD};
use super::view::View;
use super::{Context, Ended, Runnable, claim, pack, publish, read};
use crate::shell::Stop;

/// Which stage a task is: those that end by themselves when the stage before them has ended, and those that
/// only serve them.
enum Stage {
    Chain,
    Side,
}

/// Loads, says so, and runs until it is told to stop, or until something ends it. On return no stage runs any more.
pub(super) async fn run<M: Runnable, V: View<M>>(
    context: &Context,
    stop: &Stop,
    loaded: impl FnOnce(),
) -> Result<(), Ended> {
    let begun = std::time::Instant::now();
    let Loaded { turn, unpublished, source } = load::<M, V>(context).await?;
    let taken = begun.elapsed();
    context.shown.load.set(taken.as_secs_f64());
    context.shown.applied.set(turn.sequence() as i64);
    context.shown.input.set(turn.position().sequence as i64);
    tracing::info!(
        stream = %context.stream, sequence = turn.sequence(), unpublished = unpublished.len(),
        seconds = taken.as_secs_f64(), "loaded"
    );
    loaded();
    let progress = Arc::new(Progress::new(turn.sequence(), turn.published_journaled()));
    context.shown.watch(Some(Arc::clone(&progress)));

    let (read_out, step_in) = mpsc::channel(read::BATCHES_AHEAD);
    let (step_out, pack_in) = mpsc::channel(TURNS_AHEAD);
    let (pack_out, commit_in) = mpsc::channel(pack::PACKED_AHEAD);
    let (answers, answers_in) = mpsc::channel(publish::ANSWERS_QUEUE_TURNS);
    let (events, events_in) = mpsc::channel(publish::EVENTS_QUEUE_ROWS);
    let (follower_out, follower_in) = mpsc::channel(FOLLOWER_QUEUE_ROWS);
    let (settled, purge_in) = watch::channel(Settled::default());
    let (indexed_out, indexed) = watch::channel(0);
    let outputs = Outputs { answers, settled };
    let after = turn.position();

    let mut stages: JoinSet<Result<Stage, Ended>> = JoinSet::new();
    let reading = read::run::<M>(context.clone(), after, read_out, stop.clone());
    let stepping = Stepper::new(context.clone(), turn, Arc::clone(&progress), indexed).run(step_in, step_out);
    let committing = {
        let (context, progress) = (context.clone(), Arc::clone(&progress));
        async move {
            // What the last runner left goes out first.
            for rest in unpublished {
                outputs.tell(Some(rest.sequence), None, rest.outgoing, Vec::new(), None).await;
            }
            commit::run::<M>(context, progress, commit_in, outputs).await
        }
    };
    let answering =
        publish::run_answers::<M>(context.clone(), Arc::clone(&progress), answers_in, events, follower_out);
    let telling = publish::run_events::<M>(context.clone(), Arc::clone(&progress), events_in);
    let following = follower::run::<M, V>(context.clone(), source, follower_in, indexed_out);
    stages.spawn(async { reading.await.map(|()| Stage::Chain) });
    stages.spawn(async { stepping.await.map(|()| Stage::Chain) });
    stages.spawn(async { pack::run::<M>(pack_in, pack_out).await.map(|()| Stage::Chain) });
    stages.spawn(async { committing.await.map(|()| Stage::Chain) });
    stages.spawn(async { answering.await.map(|()| Stage::Chain) });
    stages.spawn(async { telling.await.map(|()| Stage::Chain) });
    let purging = publish::run_purge::<M>(context.clone(), purge_in);
    stages.spawn(async { purging.await.map(|()| Stage::Side) });
    let holding = claim::run(context.clone());
    stages.spawn(async { holding.await.map(|()| Stage::Side) });
    stages.spawn(async { following.await.map(|()| Stage::Side) });
    let ended = until_end(&mut stages).await;
    stages.shutdown().await;
    context.shown.watch(None);
    ended
}

/// Stages of the chain: reading, stepping, packing, committing, answers, events.
const CHAIN_STAGES: usize = 6;

async fn until_end(stages: &mut JoinSet<Result<Stage, Ended>>) -> Result<(), Ended> {
    let mut chain = CHAIN_STAGES;
    while let Some(joined) = stages.join_next().await {
        match joined {
            Ok(Ok(Stage::Chain)) => chain -= 1,
            Ok(Ok(Stage::Side)) => {}
            Ok(Err(ended)) => return Err(ended),
            Err(error) => return Err(Ended::Gone { stage: "a panicked", problem: error.to_string() }),
        }
        if chain == 0 {
            return Ok(());
        }
    }
    Ok(())
}
