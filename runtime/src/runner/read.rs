//! First stage: reads the command stream and decodes what comes.

use std::time::{Duration, Instant};

use proto::subject;
use tokio::sync::mpsc;
use turn::{Decoded, Delivery, Position, TURN_COMMANDS_MAX, TURN_DELIVERIES_MAX, decode};

use super::{Context, Ended, Runnable};
use crate::bus::{self, BusError, ReadEnd, Reader};
use crate::shell::Stop;

/// Bytes of one batch of messages.
pub(super) const BATCH_BYTES_MAX: usize = 4 << 20;
/// Batches decoded ahead of the step.
pub(super) const BATCHES_AHEAD: usize = 2;
/// Pause after the bus gave up opening the stream.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// What the reader hands on.
pub(super) enum Input<C> {
    /// Messages in order, and when they were read.
    Batch(Vec<Decoded<C>>, Instant),
    /// The stream went backwards: what follows begins with its first message.
    Regressed {
        /// When the stream that is there now was created.
        created: i64,
    },
}

/// Reads until it is told to stop.
pub(super) async fn run<M: Runnable>(
    context: Context,
    after: Position,
    output: mpsc::Sender<Input<M::Command>>,
    mut stop: Stop,
) -> Result<(), Ended> {
    let mut reader = open(&context, M::NAME, after).await.map_err(|error| gone(&error))?;
    loop {
        let batch = tokio::select! {
            batch = reader.next_batch(TURN_DELIVERIES_MAX, BATCH_BYTES_MAX) => batch,
            () = stop.requested() => return Ok(()),
        };
        let input = match batch {
            Ok(deliveries) => {
                if hand_on::<M>(&context, deliveries, &output).await {
                    continue;
                }
                return Ok(());
            }
            Err(ReadEnd::StreamRegressed { old, new, .. }) => {
                context.shown.regressions.inc();
                tracing::error!(
                    stream = %context.stream, ?old, ?new,
                    "the command stream went backwards; it is read again from its first message"
                );
                Input::Regressed { created: new.created }
            }
            Err(end @ ReadEnd::GaveUp { .. }) => {
                tracing::warn!(stream = %context.stream, "{end}");
                tokio::select! {
                    () = tokio::time::sleep(READ_PAUSE) => continue,
                    () = stop.requested() => return Ok(()),
                }
            }
        };
        // The next stage is gone only when the pipeline ends, and it says why.
        if output.send(input).await.is_err() {
            return Ok(());
        }
    }
}

/// Decodes messages and hands them on a turn's worth at a time, so that the first is decided while the next is
/// decoded. False: the next stage is gone.
async fn hand_on<M: Runnable>(
    context: &Context,
    deliveries: Vec<bus::Delivery>,
    output: &mpsc::Sender<Input<M::Command>>,
) -> bool {
    let read_at = Instant::now();
    let (mut decoded, mut commands) = (Vec::new(), 0);
    for from in deliveries {
        let one = decode::<M>(&context.stream, delivery(from));
        commands += one.commands();
        decoded.push(one);
        if commands >= TURN_COMMANDS_MAX {
            commands = 0;
            if output.send(Input::Batch(std::mem::take(&mut decoded), read_at)).await.is_err() {
                return false;
            }
            // Who was woken may only run on this thread, and decoding would keep it waiting.
            tokio::task::yield_now().await;
        }
    }
    decoded.is_empty() || output.send(Input::Batch(decoded, read_at)).await.is_ok()
}

async fn open(context: &Context, machine: &str, after: Position) -> Result<Reader, BusError> {
    let name = subject::command_stream(machine, &context.stream);
    let filter = subject::commands(machine, &context.stream);
    let after = (after != Position::default())
        .then_some(bus::Position { created: after.created, sequence: after.sequence });
    context.bus.read(&name, &filter, after).await
}

fn gone(error: &BusError) -> Ended {
    Ended::Gone { stage: "reading", problem: error.to_string() }
}

fn delivery(from: bus::Delivery) -> Delivery {
    let position = Position { created: from.position.created, sequence: from.position.sequence };
    Delivery { subject: from.subject, position, payload: from.payload }
}
