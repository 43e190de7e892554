//! Why a bid holds what it holds, in words.

use proto::MarketId;
use proto::market::{BidOption, BidState, MarketNumber};
use serde::Serialize;

use super::{View, json};
use crate::machine::{Why, WhyOption};

impl View {
    /// What the machine says of a bid, with the bid as it stands, in words. None where this view does not know the bid
    /// or one of its markets.
    pub fn explain(&self, alone: &json::BidAlone, why: &Why) -> Option<json::Why> {
        let bid = &alone.bid;
        let name = |market: MarketNumber| self.markets.get(&market).map(|market| market.id.clone());
        let options: Option<Vec<json::WhyOption>> =
            why.options.iter().map(|option| Some(option_as_json(name(option.market)?, option))).collect();
        let wins_at: Vec<BidOption> = why
            .wins_at
            .iter()
            .flat_map(|quote| &quote.options)
            .filter_map(|&(market, limit)| {
                Some(BidOption { market: name(market)?, limit, running_limit: None })
            })
            .collect();
        let options = options?;
        let mut because = vec![holdings(bid)];
        because.extend(bid.leases.iter().filter_map(leaving));
        if bid.on_demand && !is_over(bid.state) {
            because.push("It is an on-demand order: no bid takes a server from it, at any limit.".to_owned());
        }
        if is_over(bid.state) || bid.on_demand {
            return Some(assemble(alone, because, options, None));
        }
        because.extend(options.iter().map(meeting));
        because.extend(bid.short_by.map(|units| {
            format!(
                "It misses {} although a limit of its beats the price: a bid with a minimum is cleared whole or not \
                 at all, this one or another.",
                servers(units)
            )
        }));
        let wins_at = (why.won < bid.quantity).then_some(wins_at);
        because.extend(wins_at.as_deref().map(|wins_at| remedy(bid, wins_at)));
        Some(assemble(alone, because, options, wins_at))
    }
}

fn assemble(
    alone: &json::BidAlone,
    because: Vec<String>,
    options: Vec<json::WhyOption>,
    wins_at: Option<Vec<BidOption>>,
) -> json::Why {
    let bid = &alone.bid;
    json::Why {
        as_of: alone.as_of,
        bid: bid.bid.clone(),
        state: bid.state,
        quantity: bid.quantity,
        units: bid.units,
        because,
        options,
        wins_at,
    }
}

fn option_as_json(market: MarketId, option: &WhyOption) -> json::WhyOption {
    let WhyOption { limit, won, above, level, prices, .. } = *option;
    json::WhyOption { market, limit, won, above, level, prices }
}

const fn is_over(state: BidState) -> bool {
    matches!(state, BidState::Cancelled | BidState::Expired | BidState::Refused)
}

fn servers(units: u32) -> String {
    if units == 1 { "1 server".to_owned() } else { format!("{units} servers") }
}

/// What it holds.
fn holdings(bid: &json::Bid) -> String {
    match bid.state {
        BidState::Cancelled => return "Its tenant cancelled it.".to_owned(),
        BidState::Expired => return "Its time is over.".to_owned(),
        _ => {}
    }
    let held = format!("It has won {} of the {} it wants", bid.units.winning, servers(bid.quantity));
    if bid.units.waiting == 0 {
        return format!("{held}.");
    }
    let last = bid.leases.iter().filter_map(|leases| leases.available_by).max();
    let by = last.map_or_else(String::new, |by| format!(", by {by} at the latest"));
    format!("{held}; {} of these may still wait for whoever leaves one{by}.", bid.units.waiting)
}

/// What leaves, and why.
fn leaving(leases: &json::Leases) -> Option<String> {
    let notice = leases.notice?;
    let (market, units) = (&leases.market, servers(leases.units));
    let kept = notice.kept_by.map_or_else(String::new, |limit| {
        format!("; a limit of {limit} would have kept what was lost in round {}", notice.round)
    });
    Some(format!("{units} in {market} must be left by {}: {}{kept}.", notice.gone_at, word(&notice.reason)))
}

/// How it stands in one market.
fn meeting(option: &json::WhyOption) -> String {
    let json::WhyOption { market, limit, won, above, level, prices } = option;
    let (supply, wanted) = (prices.supply, prices.wanted);
    let Some(price) = prices.price else { return format!("{market} has no servers now.") };
    if *limit < prices.reserve {
        return format!(
            "{market}: the limit {limit} is below the reserve {}, and cannot win.",
            prices.reserve
        );
    }
    if prices.sold < supply {
        let left = servers(supply - prices.sold);
        return format!("{market} has {left} of {supply} left, so the price is the reserve, {price}.");
    }
    let place = above + level + u64::from(*won) + 1;
    let ahead = match (above, level) {
        (0, 0) => "nothing stands before it".to_owned(),
        (above, 0) => format!("{above} units of others offer more"),
        (0, level) => format!("{level} units of others offer as much and stand before it"),
        (above, level) => {
            format!("{above} units of others offer more, and {level} as much and stand before it")
        }
    };
    format!(
        "{market} is sold out at {price}: {wanted} wanted, {supply} there. With the limit {limit}, {ahead}: its next unit \
         would be number {place}."
    )
}

/// What would win it the rest.
fn remedy(bid: &json::Bid, wins_at: &[BidOption]) -> String {
    if wins_at.is_empty() {
        return format!(
            "There are not {} in these markets that could be won, at any limit.",
            servers(bid.quantity)
        );
    }
    let one = |option: &BidOption| format!("{} in {}", option.limit, option.market);
    let limits: Vec<String> = wins_at.iter().map(one).collect();
    let raised: Vec<&BidOption> = bid.options.iter().collect();
    let is_there = wins_at.iter().all(|wanted| {
        raised.iter().any(|option| option.market == wanted.market && option.limit >= wanted.limit)
    });
    if is_there {
        return "At these limits all its units would win now: the next round is to come.".to_owned();
    }
    format!("With limits of {} all its units would win now.", limits.join(", "))
}

/// The word a value is written as.
fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proto::Price;

    use super::*;

    fn option(limit: u64, above: u64, level: u64, won: u32, sold: u32) -> json::WhyOption {
        let price = Price::from_micros;
        json::WhyOption {
            market: "dfw/a".parse().unwrap(),
            limit: price(limit).unwrap(),
            won,
            above,
            level,
            prices: proto::market::Prices {
                price: price(20_000),
                lowest_winning_bid: price(21_000),
                reserve: price(1_000).unwrap(),
                supply: 10,
                sold,
                wanted: 14,
                on_demand: 0,
            },
        }
    }

    #[test]
    fn a_market_is_told_in_one_sentence() {
        assert_eq!(
            meeting(&option(20_000, 8, 1, 1, 10)),
            "dfw/a is sold out at 0.020: 14 wanted, 10 there. With the limit 0.020, 8 units of others offer more, and 1 as \
             much and stand before it: its next unit would be number 11."
        );
        assert_eq!(
            meeting(&option(20_000, 0, 0, 1, 7)),
            "dfw/a has 3 servers of 10 left, so the price is the reserve, 0.020."
        );
        assert_eq!(
            meeting(&option(500, 9, 0, 0, 10)),
            "dfw/a: the limit 0.0005 is below the reserve 0.001, and cannot win."
        );
    }
}
