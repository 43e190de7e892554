//! What an exchange's decisions mean for a site: one pure function from a turn to commands. Their ids are the turn's place,
//! so that sending them again does nothing again.

use proto::StreamName;
use proto::envelope::EventBatch;
use proto::market::{BidNumber, MarketEvent};
use proto::placement::{BidStands, LeaseChange, MarketNamed, PlacementCommand, ReportBids};

use super::route::token;

/// What ids of reports begin with.
pub const REPORT_PREFIX: &str = "bids-";
/// Entries of one report. Each has at most two names of 64 letters, so that so many fit into a message.
const ENTRIES_MAX: usize = 1_024;
/// Leases that the changes of one report concern together, unless a single one concerns more.
const UNITS_MAX: u32 = 50_000;

/// What one turn of an exchange means for a site, in as many parts as it takes; none, if it means nothing.
pub fn reports(exchange: &StreamName, batch: &EventBatch<MarketEvent>) -> Vec<PlacementCommand> {
    let mut parts: Vec<ReportBids> = Vec::new();
    let (mut entries, mut units) = (0, 0);
    for event in batch.entries.iter().flat_map(|entry| &entry.events) {
        let Some(said) = said(event) else { continue };
        let leases = match &said {
            Said::Lease(change) => change.leases().units,
            _ => 0,
        };
        // What ends is taken in behind all else of its part: so whatever follows an end is in another.
        let is_behind_an_end =
            !matches!(said, Said::Ended(_)) && parts.last().is_some_and(|part| !part.ended.is_empty());
        if parts.is_empty() || entries == ENTRIES_MAX || units + leases > UNITS_MAX || is_behind_an_end {
            (entries, units) = (0, 0);
            let part = parts.len() as u32;
            let id = format!("{REPORT_PREFIX}{}-{}-{part}", token(exchange), batch.sequence);
            // Three short parts of letters and digits are an id.
            let Ok(id) = id.parse() else { continue };
            parts.push(ReportBids {
                id,
                exchange: exchange.clone(),
                sequence: batch.sequence,
                part,
                markets: Vec::new(),
                placed: Vec::new(),
                leases: Vec::new(),
                ended: Vec::new(),
            });
        }
        let Some(part) = parts.last_mut() else { continue };
        (entries, units) = (entries + 1, units + leases);
        match said {
            Said::Market(named) => part.markets.push(named),
            Said::Placed(bid) => part.placed.push(bid),
            Said::Lease(change) => part.leases.push(change),
            Said::Ended(bid) => part.ended.push(bid),
        }
    }
    parts.into_iter().map(PlacementCommand::ReportBids).collect()
}

/// What one event means for a site.
enum Said {
    Market(MarketNamed),
    Placed(BidStands),
    Lease(LeaseChange),
    Ended(BidNumber),
}

fn said(event: &MarketEvent) -> Option<Said> {
    let change = match event {
        MarketEvent::MarketDefined { market, id, .. } => {
            return Some(Said::Market(MarketNamed { market: *market, id: id.clone() }));
        }
        MarketEvent::BidPlaced { number, bid, .. } => {
            let (tenant, cluster) = (bid.tenant.clone(), bid.cluster.clone());
            return Some(Said::Placed(BidStands { bid: *number, tenant, cluster }));
        }
        MarketEvent::BidCancelled { number } | MarketEvent::BidExpired { number } => {
            return Some(Said::Ended(*number));
        }
        MarketEvent::UnitsAwarded { number, market, leases, .. } => {
            LeaseChange::Awarded { bid: *number, market: *market, leases: *leases, replaces: None }
        }
        MarketEvent::UnitsMoved { number, market, leases, replaces, .. } => {
            let replaces = Some(*replaces);
            LeaseChange::Awarded { bid: *number, market: *market, leases: *leases, replaces }
        }
        MarketEvent::NoticeGiven { leases, gone_at, .. } => {
            LeaseChange::Noticed { leases: *leases, gone_at: *gone_at }
        }
        MarketEvent::NoticeWithdrawn { leases, .. } => LeaseChange::Withdrawn { leases: *leases },
        MarketEvent::UnitsReleased { leases, .. } => LeaseChange::Released { leases: *leases },
        _ => return None,
    };
    Some(Said::Lease(change))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_told_by_the_bids_that_came_and_went() {
        let batch = |events: &str| {
            let json = format!(
                r#"{{"machine":"market","stream":"main","sequence":7,"at":"2026-01-01T00:00:00Z","rules":1,"entries":[{{"events":[{events}]}}]}}"#
            );
            serde_json::from_str::<EventBatch<MarketEvent>>(&json).unwrap()
        };
        let exchange = "main".parse().unwrap();
        assert_eq!(reports(&exchange, &batch(r#"{"type":"RoundClosed","round":3}"#)), []);
        let bid = r#"{"type":"BidPlaced","number":4,"by":"s1","bid":{"id":"b","tenant":"t","cluster":"c","pool":"p","quantity":1,"options":[{"market":"dfw/a","limit":"0.030"}]}}"#;
        let leases = r#""market":2,"leases":{"first":5,"units":2},"round":9"#;
        let awarded = format!(r#"{{"type":"UnitsAwarded","number":4,{leases}}}"#);
        let moved = format!(r#"{{"type":"UnitsMoved","number":4,"replaces":3,{leases}}}"#);
        let cancelled = r#"{"type":"BidCancelled","number":3}"#;
        let turn = batch(&format!("{bid},{awarded},{cancelled},{moved}"));
        let told: Vec<String> =
            reports(&exchange, &turn).iter().map(|report| serde_json::to_string(report).unwrap()).collect();
        let leases = r#""market":2,"leases":{"first":5,"units":2}"#;
        let first = format!(
            r#"{{"type":"ReportBids","id":"bids-main-7-0","exchange":"main","sequence":7,"placed":[{{"bid":4,"tenant":"t","cluster":"c"}}],"leases":[{{"type":"Awarded","bid":4,{leases}}}],"ended":[3]}}"#
        );
        let second = format!(
            r#"{{"type":"ReportBids","id":"bids-main-7-1","exchange":"main","sequence":7,"part":1,"leases":[{{"type":"Awarded","bid":4,{leases},"replaces":3}}]}}"#
        );
        assert_eq!(told, [first, second]);
    }

    #[test]
    fn a_large_turn_is_told_in_parts_that_each_fit() {
        let units = UNITS_MAX / 2 + 1;
        let event = |number: u64| {
            format!(
                r#"{{"type":"UnitsReleased","number":{number},"market":2,"leases":{{"first":{number},"units":{units}}},"reason":"replaced"}}"#
            )
        };
        let events: Vec<String> = (1..4).map(event).collect();
        let json = format!(
            r#"{{"machine":"market","stream":"main","sequence":7,"at":"2026-01-01T00:00:00Z","rules":1,"entries":[{{"events":[{}]}}]}}"#,
            events.join(",")
        );
        let turn = serde_json::from_str(&json).unwrap();
        let parts = reports(&"main".parse().unwrap(), &turn);
        assert_eq!(parts.len(), 3);
    }
}
