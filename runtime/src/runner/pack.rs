//! Between deciding and committing: makes rows as they are stored, while the commit before is under way.

use journal::Row;
use tokio::sync::mpsc;

use super::rows::Packer;
use super::step::Stepped;
use super::{Ended, Runnable};

/// Turns packed ahead of the commit.
pub(super) const PACKED_AHEAD: usize = 1;

/// A turn, and its row as it is stored.
pub(super) struct Packed<M: Runnable> {
    pub(super) turned: Stepped<M>,
    pub(super) row: Option<Row>,
}

/// Packs until the step stage ends.
pub(super) async fn run<M: Runnable>(
    mut input: mpsc::Receiver<Stepped<M>>,
    output: mpsc::Sender<Packed<M>>,
) -> Result<(), Ended> {
    let mut packer = Packer::default();
    while let Some(turned) = input.recv().await {
        let row = turned.row.as_ref().map(|row| packer.journal_row(row));
        // The next stage is gone only when the pipeline ends, and it says why.
        if output.send(Packed { turned, row }).await.is_err() {
            return Ok(());
        }
        // Who was woken may only run on this thread, and the next row would keep it waiting.
        tokio::task::yield_now().await;
    }
    Ok(())
}
