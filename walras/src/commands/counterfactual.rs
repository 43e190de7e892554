//! `walras simulate counterfactual`: what a bid would have won and cost since an instant, decided again from the journal.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use journal::Journal;
use market::Market;
use market::counterfactual::{Counterfactual, Outcome};
use market::view::View;
use proto::envelope::EventBatch;
use proto::machine::CommandKey;
use proto::market::{MarketEvent, PlaceBid};
use proto::{Price, StreamName, Timestamp};
use serde_json::json;
use turn::{Row, Settings, Turn, decided_input};

use super::table::{print_json, print_line};
use crate::cli::CounterfactualArgs;

/// Rows read from the database at a time.
const ROWS_MAX: usize = 256;
/// Bytes read from the database at a time.
const BYTES_MAX: usize = 32 << 20;

/// The exchange as it was, until the bid is placed; then as it would have been.
struct Past {
    exchange: StreamName,
    since: Timestamp,
    until: Option<Timestamp>,
    bid: Arc<PlaceBid>,
    turn: Turn<Market>,
    view: View,
    last_at: Timestamp,
    otherwise: Option<Counterfactual>,
}

/// Says what would have been.
///
/// # Errors
/// The first row that cannot be read, or why the bid would have been refused.
pub fn run(arguments: &CounterfactualArgs) -> Result<()> {
    let config = arguments.config.load()?.config;
    let exchange = match &arguments.exchange {
        Some(exchange) => exchange.clone(),
        None => config.market.exchanges.keys().next().cloned().context("market.exchanges: none is listed")?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        let url = config.journal.database_url.as_ref().context("journal.database_url: is not set")?;
        let journal = Journal::open(url.expose()).await?;
        let settings = Settings { answers_kept: config.runner.answers_kept.get() as usize };
        let mut past = Past {
            since: arguments.since,
            until: arguments.until,
            bid: Arc::new(bid(arguments)?),
            turn: Turn::new(exchange.clone(), settings),
            view: View::new(),
            last_at: Timestamp::MIN,
            otherwise: None,
            exchange,
        };
        let stream = runtime::runner::journal_stream::<Market>(&past.exchange);
        let mut sequence = 0;
        if let Some(folder) = config.runner.archive_dir.as_deref().filter(|folder| Path::is_dir(folder)) {
            for row in journal::archived_rows(folder, &stream, 0)? {
                let row = runtime::runner::turn_row(row?);
                sequence = row.sequence;
                past.take(&row)?;
            }
        }
        loop {
            let rows = journal.load_from(&stream, sequence, ROWS_MAX, BYTES_MAX).await?;
            let Some(last) = rows.last().map(|row| row.seq) else { break };
            for row in rows {
                past.take(&runtime::runner::turn_row(row))?;
            }
            sequence = last;
        }
        journal.close().await;
        past.end()
    })?;
    tell(&outcome, arguments.json)
}

fn bid(arguments: &CounterfactualArgs) -> Result<PlaceBid> {
    let terms = &arguments.terms;
    Ok(PlaceBid {
        id: "counterfactual".parse()?,
        tenant: "counterfactual".parse()?,
        cluster: "counterfactual".parse()?,
        pool: "counterfactual".parse()?,
        quantity: terms.quantity,
        min_quantity: terms.min_quantity.unwrap_or(1),
        options: terms.options.clone(),
        on_demand: arguments.on_demand,
        expires_at: terms.expires_at,
        key: CommandKey::default(),
    })
}

impl Past {
    fn take(&mut self, row: &Row) -> Result<()> {
        if self.until.is_some_and(|until| row.at > until) {
            return Ok(());
        }
        if row.at >= self.since && self.otherwise.is_none() {
            self.begin()?;
        }
        self.last_at = row.at;
        if let Some(otherwise) = &mut self.otherwise {
            let entries = decided_input::<Market>(&self.exchange, row)?;
            let asked: Vec<_> = entries.into_iter().filter_map(|entry| entry.received).collect();
            return Ok(otherwise.take(row.at, &asked)?);
        }
        self.turn.fold(row, false)?;
        let batch: EventBatch<MarketEvent> =
            serde_json::from_slice(&row.events).with_context(|| format!("row {}", row.sequence))?;
        self.view.apply_batch(&batch)?;
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        let rules = self.view.rules().clone();
        let market = self.turn.machine().clone();
        let view = std::mem::take(&mut self.view);
        self.otherwise = Some(Counterfactual::begin(market, view, self.since, &self.bid, &rules)?);
        Ok(())
    }

    fn end(mut self) -> Result<Outcome> {
        if self.otherwise.is_none() {
            self.begin()?;
        }
        let until = self.until.unwrap_or(self.last_at).max(self.since);
        let otherwise = self.otherwise.context("the bid was never placed")?;
        Ok(otherwise.end(until)?)
    }
}

fn tell(outcome: &Outcome, is_json: bool) -> Result<()> {
    if is_json {
        return print_json(outcome);
    }
    let Outcome { since, until, won_unit_seconds, wanted_unit_seconds, cost, awards, notices, .. } = outcome;
    let percent = won_unit_seconds.saturating_mul(100).checked_div(*wanted_unit_seconds).unwrap_or(0);
    print_line(&format!(
        "from {since} to {until} it would have held {won_unit_seconds} of {wanted_unit_seconds} server-seconds \
         ({percent} %), all it wanted for {} seconds, and paid {cost} dollars{}",
        outcome.whole_seconds,
        per_hour(outcome)
    ))?;
    let lost: Vec<String> = notices
        .iter()
        .map(|(reason, units)| {
            let word = json!(reason);
            format!("{units} {}", word.as_str().unwrap_or_default())
        })
        .collect();
    let lost = if lost.is_empty() {
        "none given notice".to_owned()
    } else {
        format!("notices: {}", lost.join(", "))
    };
    print_line(&format!("{awards} units awarded, {lost}"))
}

/// What an hour of a server would have cost on average.
fn per_hour(outcome: &Outcome) -> String {
    let micros = outcome.cost.nanos().checked_mul(36).and_then(|cost| {
        // Nano-dollars × 3,600 seconds an hour / 1,000 = micro-dollars × seconds an hour.
        (cost / 10).checked_div(i128::from(outcome.won_unit_seconds))
    });
    let price = micros.and_then(|micros| u64::try_from(micros).ok()).and_then(Price::from_micros);
    price.map_or_else(String::new, |price| format!(", {price} per server and hour on average"))
}
