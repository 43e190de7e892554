//! Quotes (DESIGN §5, rule 5): at which limit so many units of a youngest bid would win now.

use std::collections::BinaryHeap;

use proto::Price;
use proto::market::{MarketNumber, OPTIONS_MAX, QUANTITY_MAX};

use super::Market;
use crate::book::rung_at_or_above;

/// What it takes to win so many units now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The least single limit, were every limit legal.
    pub limit: Price,
    /// The markets where that is not below the reserve, each with the least legal limit that is no lower.
    pub options: Vec<(MarketNumber, Price)>,
}

/// Why there is no quote.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// Not so many units, or markets.
    #[error("{field}: must be 1 to {most}, not {value}")]
    OutOfRange {
        /// Which number.
        field: &'static str,
        /// What it is.
        value: usize,
        /// What it may be at most.
        most: usize,
    },
    /// A market that is not open, or that stands twice.
    #[error("market {0} is not open, or stands twice")]
    Market(MarketNumber),
    /// The clearing refused what was asked of it.
    #[error("the clearing refuses it: {0}")]
    Refused(String),
}

impl Market {
    /// The least limit at which `units` units of a youngest bid for any of these markets would all win now; none where
    /// there are not so many servers. Nothing is changed. Where the markets clear by themselves this costs a look at
    /// their lots; where they clear together a copy of the exchange is cleared with the bid.
    ///
    /// # Errors
    /// See [`QuoteError`].
    pub fn quote(&self, markets: &[MarketNumber], units: u32) -> Result<Option<Quote>, QuoteError> {
        if units == 0 || units > QUANTITY_MAX {
            let (value, most) = (units as usize, QUANTITY_MAX as usize);
            return Err(QuoteError::OutOfRange { field: "units", value, most });
        }
        if markets.is_empty() || markets.len() > OPTIONS_MAX {
            let (value, most) = (markets.len(), OPTIONS_MAX);
            return Err(QuoteError::OutOfRange { field: "markets", value, most });
        }
        for (at, &market) in markets.iter().enumerate() {
            if self.market(market).is_none() || markets[..at].contains(&market) {
                return Err(QuoteError::Market(market));
            }
        }
        self.quote_without(markets, units, None)
    }

    /// What a bid would have to offer to win all its units now, however late they came: a quote for them, as if the bid
    /// did not stand.
    pub(super) fn quote_instead(&self, place: u32) -> Result<Option<Quote>, QuoteError> {
        let Some(bid) = self.bids.get(place) else { return Ok(None) };
        let markets: Vec<MarketNumber> = bid.options().map(|option| option.market).collect();
        self.quote_without(&markets, bid.quantity, Some(place))
    }

    fn quote_without(
        &self,
        markets: &[MarketNumber],
        units: u32,
        without: Option<u32>,
    ) -> Result<Option<Quote>, QuoteError> {
        let limit = if markets.iter().any(|&market| self.is_coupled(market)) {
            self.quote_together(markets, units, without)?
        } else {
            self.quote_in_books(markets, units, without)
        };
        Ok(limit.and_then(Price::from_micros).map(|limit| self.legal(markets, limit)))
    }

    /// A limit in each market's own rungs.
    fn legal(&self, markets: &[MarketNumber], limit: Price) -> Quote {
        let options = markets.iter().filter_map(|&market| {
            let settings = &self.market(market)?.settings;
            let rung = rung_at_or_above(&settings.ladder, limit).filter(|_| limit >= settings.reserve)?;
            Some((market, rung))
        });
        Quote { limit, options: options.collect() }
    }

    /// By what the units cost that would have to go: free servers the reserve, others just more than who has them
    /// offers. The dearest of the cheapest `units` is the limit.
    fn quote_in_books(&self, markets: &[MarketNumber], units: u32, without: Option<u32>) -> Option<u64> {
        let mut cheapest: BinaryHeap<(u64, u32)> = BinaryHeap::new();
        let mut found = 0_u64;
        let mut offer = |cost: u64, servers: u32| {
            if servers == 0 {
                return;
            }
            cheapest.push((cost, servers));
            found += u64::from(servers);
            while let Some(&(_, most)) = cheapest.peek()
                && found - u64::from(most) >= u64::from(units)
            {
                cheapest.pop();
                found -= u64::from(most);
            }
        };
        for record in markets.iter().filter_map(|&market| self.market(market)) {
            // What came since the last round counts.
            let mut cleared = None;
            let own =
                without.and_then(|place| self.bids.get(place)).filter(|bid| bid.market == record.number);
            if record.is_dirty || own.is_some() {
                let mut book = record.book.clone();
                // A lot of a standing bid stands in its book.
                own.iter().flat_map(|bid| bid.lots.as_slice()).for_each(|&lot| _ = book.remove(lot));
                book.clear();
                cleared = Some(book);
            }
            let book = cleared.as_ref().unwrap_or(&record.book);
            let reserve = record.settings.reserve.micros();
            offer(reserve, book.supply().saturating_sub(book.sold()));
            for (_, terms) in book.lots().filter(|(_, terms)| terms.held > 0) {
                offer(reserve.max(terms.limit + 1), terms.held);
            }
        }
        (found >= u64::from(units)).then(|| cheapest.peek().map(|&(cost, _)| cost)).flatten()
    }

    fn quote_together(
        &self,
        markets: &[MarketNumber],
        units: u32,
        without: Option<u32>,
    ) -> Result<Option<u64>, QuoteError> {
        let mut copy = self.clone();
        if let Some(place) = without {
            copy.leave_queue(place);
        }
        copy.quote_on_copy(markets, units).map_err(|error| QuoteError::Refused(error.to_string()))
    }
}
