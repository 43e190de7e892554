//! `walras leases|bill`.

use std::io::Write;

use anyhow::{Result, bail};
use market::billing::{BillLine, BillSegment, Month};
use market::view::json::{Bill, LeaseAlone, LeasePage, LeaseState};
use proto::{Charge, Price};

use super::table::{print, print_json, print_line};
use crate::cli::{BillArgs, LeasesArgs};
use crate::client::Client;
use crate::gateway::cursor::InExchange;

/// Lists the tenant's leases, or shows one with what it cost.
///
/// # Errors
/// What the gateway refused, in one line.
pub fn leases(arguments: &LeasesArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    if let Some(lease) = arguments.lease {
        let shown: LeaseAlone = client.get(&format!("/v1/leases/{lease}"))?;
        if arguments.connection.json {
            return print_json(&shown);
        }
        print_line(&format!("lease {} of bid {}: {} so far", shown.lease, shown.bid, shown.charge))?;
        let rows: Vec<_> = shown.segments.iter().map(|one| segment_row(&one.segment)).collect();
        return print(&SEGMENT_HEADING, &rows);
    }
    let pages = client.pages::<LeasePage>("/v1/leases")?;
    let all: Vec<_> = pages.into_iter().flat_map(|page| page.page.leases).collect();
    if arguments.connection.json {
        return print_json(&all);
    }
    let rows: Vec<_> = all
        .iter()
        .map(|of| {
            let leases = &of.leases;
            let until = leases.notice.map(|notice| notice.gone_at).or(leases.available_by);
            vec![
                leases.first.to_string(),
                leases.units.to_string(),
                leases.market.to_string(),
                of.bid.to_string(),
                state(leases.state).to_owned(),
                until.map_or_else(|| "-".to_owned(), |until| until.to_string()),
                leases.charge.to_string(),
            ]
        })
        .collect();
    print(&["first", "units", "market", "bid", "state", "until", "charge"], &rows)
}

const fn state(state: LeaseState) -> &'static str {
    match state {
        LeaseState::Granted => "granted",
        LeaseState::Provisioning => "provisioning",
        LeaseState::Ready => "ready",
        LeaseState::WorkerDead => "worker-dead",
        LeaseState::Leaving => "leaving",
    }
}

const SEGMENT_HEADING: [&str; 10] =
    ["bid", "market", "first", "units", "from", "to", "rate", "limit", "reason", "charge"];

fn segment_row(segment: &BillSegment) -> Vec<String> {
    let word = |value: serde_json::Result<serde_json::Value>| match value {
        Ok(serde_json::Value::String(word)) => word,
        _ => "-".to_owned(),
    };
    vec![
        segment.bid.to_string(),
        segment.market.to_string(),
        segment.first.to_string(),
        segment.units.to_string(),
        segment.from.to_string(),
        segment.to.to_string(),
        word(serde_json::to_value(segment.rate)),
        segment.limit.map_or_else(|| "-".to_owned(), |limit: Price| limit.to_string()),
        word(serde_json::to_value(segment.reason)),
        segment.charge.to_string(),
    ]
}

/// Shows the tenant's bills for a month, one of each exchange: lines, or with `--segments` what they are made of.
///
/// # Errors
/// As [`leases`], and when the token is another tenant's than the one named.
pub fn bill(arguments: &BillArgs) -> Result<()> {
    let client = Client::new(&arguments.connection)?;
    let bills = bills(&client, arguments.month)?;
    let Some(newest) = bills.iter().map(|bill| &bill.page).max_by_key(|bill| bill.as_of.at) else {
        bail!("the gateway knows no exchange");
    };
    if let Some(tenant) = arguments.tenant.as_ref().filter(|&tenant| *tenant != newest.tenant) {
        bail!("the token is that of tenant {}, not of {tenant}", newest.tenant);
    }
    if arguments.connection.json {
        return print_json(&bills);
    }
    let (heading, rows): (&[&str], Vec<Vec<String>>) = if arguments.segments {
        let segments = bills.iter().flat_map(|bill| &bill.page.segments);
        (&SEGMENT_HEADING, segments.map(segment_row).collect())
    } else {
        let lines = bills.iter().flat_map(|bill| &bill.page.lines);
        (&LINE_HEADING, lines.map(line_row).collect())
    };
    if arguments.csv {
        return print_csv(heading, &rows);
    }
    print(heading, &rows)?;
    let total = Charge::from_nanos(bills.iter().map(|bill| bill.page.total.nanos()).sum());
    let state = if bills.iter().all(|bill| bill.page.is_final) { "final" } else { "so far" };
    print_line(&format!("{} of {}: {total} {state}, as of {}", newest.month, newest.tenant, newest.as_of.at))
}

/// The bill of each exchange, whole.
fn bills(client: &Client, month: Month) -> Result<Vec<InExchange<Bill>>> {
    let mut bills: Vec<InExchange<Bill>> = Vec::new();
    for part in client.pages::<Bill>(&format!("/v1/bills/{month}"))? {
        match bills.last_mut().filter(|bill| bill.exchange == part.exchange) {
            Some(bill) => {
                bill.page.lines.extend(part.page.lines);
                bill.page.segments.extend(part.page.segments);
            }
            None => bills.push(InExchange { next: None, ..part }),
        }
    }
    Ok(bills)
}

const LINE_HEADING: [&str; 7] = ["bid", "cluster", "pool", "market", "unit_seconds", "segments", "charge"];

fn line_row(line: &BillLine) -> Vec<String> {
    vec![
        line.bid.to_string(),
        line.cluster.to_string(),
        line.pool.to_string(),
        line.market.to_string(),
        line.unit_seconds.to_string(),
        line.segments.to_string(),
        line.charge.to_string(),
    ]
}

/// Comma-separated values (RFC 4180). Names, numbers and instants hold nothing that would have to be quoted.
fn print_csv(heading: &[&str], rows: &[Vec<String>]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    write!(out, "{}\r\n", heading.join(","))?;
    for row in rows {
        let cells: Vec<&str> = row.iter().map(|cell| if cell == "-" { "" } else { cell }).collect();
        write!(out, "{}\r\n", cells.join(","))?;
    }
    Ok(())
}
