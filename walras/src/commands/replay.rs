//! `walras replay`: reads a journal back, archive and database, and checks every hash; with `--audit` decides
//! everything again, and compares the transcript, where one is kept, with the journal.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use journal::Journal;
use market::Market;
use proto::StreamName;
use runtime::config::Config;
use serde_json::json;
use turn::{Audited, Settings, Turn};

use super::table::{hex, print_json, print_line};
use super::transcript::Comparison;
use crate::cli::ReplayArgs;

/// Rows read from the database at a time.
const ROWS_MAX: usize = 256;
/// Bytes read from the database at a time.
const BYTES_MAX: usize = 32 << 20;

/// What reading an exchange back came to.
#[derive(Default)]
struct Replayed {
    rows: u64,
    decided: u64,
    archived: u64,
    input_bytes: u64,
    /// The transcript, if one is compared.
    transcript: Option<Comparison>,
}

/// Reads exchanges back.
///
/// # Errors
/// The first row that is not what was written, or that is decided differently today.
pub fn replay(arguments: &ReplayArgs) -> Result<()> {
    let config = arguments.config.load()?.config;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let url = config.journal.database_url.as_ref().context("journal.database_url: is not set")?;
        let journal = Journal::open(url.expose()).await?;
        let names: Vec<&StreamName> = match &arguments.exchange {
            Some(exchange) => vec![exchange],
            None => config.market.exchanges.keys().collect(),
        };
        for exchange in names {
            one(arguments, &config, &journal, exchange)
                .await
                .with_context(|| format!("exchange {exchange}"))?;
        }
        journal.close().await;
        Ok(())
    })
}

async fn one(
    arguments: &ReplayArgs,
    config: &Config,
    journal: &Journal,
    exchange: &StreamName,
) -> Result<()> {
    let settings = Settings { answers_kept: config.runner.answers_kept.get() as usize };
    let mut turn = Turn::<Market>::new(exchange.clone(), settings);
    let mut replayed = Replayed::default();
    if arguments.audit {
        replayed.transcript = Comparison::of(&market_service::transcript_dir(config), exchange)?;
    }
    let stream = runtime::runner::journal_stream::<Market>(exchange);
    if let Some(folder) = config.runner.archive_dir.as_deref().filter(|folder| Path::is_dir(folder)) {
        for row in journal::archived_rows(folder, &stream, 0)? {
            take(arguments.audit, &mut turn, row?, &mut replayed)?;
            replayed.archived += 1;
        }
    }
    loop {
        let rows = journal.load_from(&stream, turn.sequence(), ROWS_MAX, BYTES_MAX).await?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            take(arguments.audit, &mut turn, row, &mut replayed)?;
        }
    }
    turn.check()?;
    let transcript = replayed.transcript.take().map(Comparison::end).transpose()?;
    let chain = hex(&turn.chain());
    if arguments.json {
        return print_json(&json!({
            "exchange": exchange, "rows": replayed.rows, "archived": replayed.archived,
            "decided_again": replayed.decided, "input_bytes": replayed.input_bytes, "chain": chain,
            "transcript_records": transcript,
        }));
    }
    let how = if arguments.audit {
        format!("{} decided again alike", replayed.decided)
    } else {
        "folded".to_owned()
    };
    let transcript =
        transcript.map_or_else(String::new, |records| format!("; {records} records of the transcript fit"));
    print_line(&format!(
        "exchange {exchange}: {} rows ({} archived), {how}; every hash fits; chain {chain}{transcript}",
        replayed.rows, replayed.archived
    ))
}

fn take(audit: bool, turn: &mut Turn<Market>, row: journal::Row, replayed: &mut Replayed) -> Result<()> {
    let row = runtime::runner::turn_row(row);
    replayed.rows += 1;
    replayed.input_bytes += row.input.len() as u64;
    if audit {
        let audited = turn.audit(&row)?;
        replayed.decided += u64::from(audited == Audited::Decided);
        if let Some(transcript) = &mut replayed.transcript {
            transcript.row(row.sequence, &row.events)?;
        }
    } else {
        turn.fold(&row, false)?;
    }
    ensure!(turn.hash() == row.state_hash, "row {}: the state has another hash", row.sequence);
    Ok(())
}
