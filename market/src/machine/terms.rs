//! What a bid may say.

use proto::envelope::{Refusal, RefusalReason};
use proto::market::{BidOption, MarketNumber, OPTIONS_MAX, QUANTITY_MAX};
use proto::{Price, Timestamp};

use super::Market;
use super::bid::Bid;
use super::record::MarketRecord;
use crate::book::{DEMAND_MAX, LOTS_MAX, is_rung};

/// A refusal on its way out: boxed, because it is rare and what is returned instead of it is small.
pub(super) type Checked<T> = Result<T, Box<Refusal>>;

/// Says why a command is refused, with field and value.
#[cold]
pub(super) fn refuse<T>(
    reason: RefusalReason,
    field: impl AsRef<str>,
    value: impl ToString,
    problem: impl AsRef<str>,
) -> Checked<T> {
    Err(Box::new(Refusal::new(reason, field.as_ref(), value, problem.as_ref())))
}

/// What a bid asks for, borrowed from a placement or an amendment.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// What stands before a field's name: nothing, or `terms.`.
    pub(super) prefix: &'static str,
    pub(super) quantity: u32,
    pub(super) min_quantity: u32,
    pub(super) options: &'a [BidOption],
    /// Whether it is an on-demand order: its limit need not be on the ladder.
    pub(super) is_order: bool,
    pub(super) expires_at: Option<Timestamp>,
}

impl Asked<'_> {
    #[cold]
    pub(super) fn refuse<T>(
        &self,
        reason: RefusalReason,
        field: impl AsRef<str>,
        value: impl ToString,
        problem: impl AsRef<str>,
    ) -> Checked<T> {
        refuse(reason, format!("{}{}", self.prefix, field.as_ref()), value, problem)
    }
}

impl Market {
    /// Checks what a bid asks for and finds the market of its first option. `amended` is the bid as it stands, whose limits stay
    /// legal in their markets whatever became of ladder and reserve.
    pub(super) fn check_terms(
        &self,
        now: Timestamp,
        asked: Asked<'_>,
        amended: Option<&Bid>,
    ) -> Checked<MarketNumber> {
        let Asked { quantity, min_quantity, options, expires_at, .. } = asked;
        if !(1..=QUANTITY_MAX).contains(&quantity) {
            let problem = format!("a bid is for 1 to {QUANTITY_MAX} servers");
            return asked.refuse(RefusalReason::OutOfRange, "quantity", quantity, problem);
        }
        if !(1..=quantity).contains(&min_quantity) {
            let problem = format!("must be 1 to the quantity {quantity}");
            return asked.refuse(RefusalReason::OutOfRange, "min_quantity", min_quantity, problem);
        }
        if let Some(expires_at) = expires_at.filter(|&expires_at| expires_at <= now) {
            let problem = format!("must be later than now, {now}");
            return asked.refuse(RefusalReason::OutOfRange, "expires_at", expires_at, problem);
        }
        if options.is_empty() || options.len() > OPTIONS_MAX {
            let problem = format!("a bid has 1 to {OPTIONS_MAX} options");
            return asked.refuse(RefusalReason::OutOfRange, "options", options.len(), problem);
        }
        let mut first = None;
        for (place, option) in options.iter().enumerate() {
            let number = self.check_option(&asked, place, option, amended)?;
            first.get_or_insert(number);
            if options[..place].iter().any(|before| before.market == option.market) {
                let field = format!("options[{place}].market");
                return asked.refuse(RefusalReason::Duplicate, field, &option.market, "stands twice");
            }
        }
        match first {
            Some(number) => Ok(number),
            None => asked.refuse(RefusalReason::OutOfRange, "options", 0, "a bid has at least one option"),
        }
    }

    fn check_option(
        &self,
        asked: &Asked<'_>,
        place: usize,
        option: &BidOption,
        amended: Option<&Bid>,
    ) -> Checked<MarketNumber> {
        // An amendment nearly always stays in its market: one comparison instead of a search.
        let here = amended.map(|bid| bid.market);
        let is_here = |number| self.market(number).is_some_and(|record| record.id == option.market);
        let number = here.filter(|&number| is_here(number)).or_else(|| self.market_named(&option.market));
        let Some((number, record)) = number.and_then(|number| Some((number, self.market(number)?))) else {
            let field = format!("options[{place}].market");
            let problem = "no such market is open in this exchange";
            return asked.refuse(RefusalReason::Unknown, field, &option.market, problem);
        };
        let stands = amended.is_some_and(|bid| bid.limit_in(number) == Some(option.limit.micros()));
        if !stands && !asked.is_order {
            check_limit(asked, place, option.limit, record)?;
        }
        if let Some(running_limit) = option.running_limit.filter(|&running| running < option.limit) {
            let field = format!("options[{place}].running_limit");
            let problem = format!("must be at least the limit {}", option.limit);
            return asked.refuse(RefusalReason::OutOfRange, field, running_limit, problem);
        }
        Ok(number)
    }

    /// Refuses what the markets of a bid have no room for. So many units come to each market that `amended`, the bid as
    /// it stands, does not name yet, and so many more than it has to the others; with at most one new place.
    pub(super) fn check_rooms(
        &self,
        asked: &Asked<'_>,
        first: MarketNumber,
        amended: Option<&Bid>,
    ) -> Checked<()> {
        for (place, option) in asked.options.iter().enumerate() {
            // The first is known already, and nearly always the only one.
            let number = if place == 0 { Some(first) } else { self.market_named(&option.market) };
            let Some(number) = number else { continue };
            let before = amended.filter(|bid| bid.limit_in(number).is_some()).map_or(0, |bid| bid.quantity);
            self.check_room(asked, number, asked.quantity.saturating_sub(before), 1)?;
        }
        Ok(())
    }

    /// Refuses what a market has no room for. `places` is how many more places in the queue are needed.
    fn check_room(&self, asked: &Asked<'_>, number: MarketNumber, units: u32, places: u32) -> Checked<()> {
        let Some(record) = self.market(number) else { return Ok(()) };
        let coupling = &record.coupling;
        let wanted = u64::from(record.book.demand()) + coupling.wanted;
        if wanted + u64::from(units) > u64::from(DEMAND_MAX) {
            let problem = format!("all bids of a market together want at most {DEMAND_MAX} servers");
            return asked.refuse(RefusalReason::LimitReached, "quantity", asked.quantity, problem);
        }
        if record.book.len() + coupling.places + places > LOTS_MAX {
            let problem = format!("a market has at most {LOTS_MAX} places in its queue");
            return asked.refuse(RefusalReason::LimitReached, "quantity", asked.quantity, problem);
        }
        Ok(())
    }
}

/// Checks a limit against a market's ladder and reserve.
#[inline]
fn check_limit(asked: &Asked<'_>, place: usize, limit: Price, record: &MarketRecord) -> Checked<()> {
    let settings = &record.settings;
    if limit < settings.reserve {
        let problem = format!("is below the reserve {} of {}", settings.reserve, record.id);
        return asked.refuse(RefusalReason::BelowReserve, format!("options[{place}].limit"), limit, problem);
    }
    if !is_rung(&settings.ladder, limit) {
        let problem = format!("is not on the ladder of {}", record.id);
        return asked.refuse(RefusalReason::OffLadder, format!("options[{place}].limit"), limit, problem);
    }
    Ok(())
}
