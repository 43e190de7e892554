//! On-demand orders (DESIGN §5, rule 8): bids that have servers before the auction, at a price of their own, and that
//! never lose one to another bid.
//!
//! An order stands in its market beside the book. Of the servers that are not held back orders have as many as they want,
//! the oldest first; the auction has the rest. An order is taken only where there are servers for it, so orders lose units
//! only when servers go; then the youngest lose first.

use proto::Price;
use proto::envelope::RefusalReason;
use proto::machine::Broken;
use proto::market::{BidNumber, MarketNumber};

use super::Market;
use super::bid::Bid;
use super::check::{hold, same};
use super::record::MarketRecord;
use super::round::Shift;
use super::terms::{Asked, Checked};

/// What an order's units count for where units are put in order: nobody offers more.
pub(super) const ORDER_LIMIT: u64 = u64::MAX;

impl MarketRecord {
    /// What a server of an order costs per hour: the on-demand price, but no more than the order's limit. There is a price
    /// as long as orders stand.
    pub(super) fn order_price(&self, order: &Bid) -> Option<Price> {
        self.settings.on_demand_price.map(|price| price.min(Price::micros_or_max(order.limit)))
    }
}

impl Market {
    /// Checks what an on-demand order asks for; `amended` is the order as it stands.
    pub(super) fn check_order(
        &self,
        asked: &Asked<'_>,
        market: MarketNumber,
        amended: Option<&Bid>,
    ) -> Checked<()> {
        let (Some(record), [option]) = (self.market(market), asked.options) else {
            let problem = "an on-demand order has one option";
            return asked.refuse(RefusalReason::OutOfRange, "options", asked.options.len(), problem);
        };
        let name = &record.id;
        if amended.is_some_and(|order| order.market != market) {
            let problem = "an on-demand order stays in its market";
            return asked.refuse(RefusalReason::OutOfRange, "options[0].market", name, problem);
        }
        if asked.min_quantity > 1 {
            let problem = "an on-demand order has no minimum: it is taken whole";
            return asked.refuse(RefusalReason::OutOfRange, "min_quantity", asked.min_quantity, problem);
        }
        if let Some(running_limit) = option.running_limit {
            let problem = "an on-demand order is never outbid";
            let field = "options[0].running_limit";
            return asked.refuse(RefusalReason::OutOfRange, field, running_limit, problem);
        }
        // Of a standing order the limit may be what it was, whatever the price is now.
        let stands = amended.is_some_and(|order| order.limit == option.limit.micros());
        match record.settings.on_demand_price {
            None if amended.is_none() => {
                let problem = format!("{name} sells nothing on demand");
                return asked.refuse(RefusalReason::Unsupported, "on_demand", true, problem);
            }
            Some(price) if option.limit < price && !stands => {
                let problem = format!("is below the on-demand price {price} of {name}");
                return asked.refuse(RefusalReason::BelowReserve, "options[0].limit", option.limit, problem);
            }
            _ => {}
        }
        let own = amended.map_or(0, |order| order.quantity);
        let most = record.settings.on_demand_units_max.unwrap_or(u32::MAX).min(record.usable());
        let left = most.saturating_sub(record.ordered - own);
        if asked.quantity > own && asked.quantity > left {
            let problem = format!("{name} has {left} servers left for it");
            return asked.refuse(RefusalReason::LimitReached, "quantity", asked.quantity, problem);
        }
        Ok(())
    }

    /// An order stands in its market from now on.
    pub(super) fn enter_order(&mut self, place: u32) {
        self.load_order(place);
        if let Some(market) = self.bids.get(place).map(|order| order.market) {
            self.divide_supply(market);
        }
    }

    /// As [`Market::enter_order`], while a snapshot is read: the servers are divided at its end.
    pub(super) fn load_order(&mut self, place: u32) {
        let Some(order) = self.bids.get(place) else { return };
        if let Some(record) = self.markets.get_mut(usize::from(order.market)) {
            record.orders.insert(order.ages, place);
            record.ordered += order.quantity;
        }
    }

    /// An order is over.
    pub(super) fn leave_orders(&mut self, place: u32) {
        let Some(order) = self.bids.get(place) else { return };
        let market = order.market;
        if let Some(record) = self.markets.get_mut(usize::from(market))
            && record.orders.remove(&order.ages).is_some()
        {
            record.ordered -= order.quantity;
        }
        self.divide_supply(market);
    }

    /// An order wants another number of servers; it keeps its age.
    pub(super) fn resize_order(&mut self, place: u32, quantity: u32) {
        let Some(order) = self.bids.get(place) else { return };
        let (market, before) = (order.market, order.quantity);
        if let Some(record) = self.markets.get_mut(usize::from(market)) {
            record.ordered = record.ordered - before + quantity;
        }
        self.divide_supply(market);
    }

    /// Adds which orders of a market have more or fewer units than they hold, and to `kept` that what they lose they lose
    /// to supply.
    pub(super) fn shift_orders(
        &self,
        market: MarketNumber,
        shifts: &mut Vec<Shift>,
        kept: &mut Vec<(BidNumber, u32)>,
    ) {
        let Some(record) = self.market(market) else { return };
        let mut left = record.on_demand();
        for (&age, &place) in &record.orders {
            let Some(order) = self.bids.get(place) else { continue };
            let (number, before, after) = (order.number, order.live, order.quantity.min(left));
            left -= after;
            if before != after {
                shifts.push(Shift { number, place, market, before, after, limit: ORDER_LIMIT, age });
            }
            if after < before {
                kept.push((number, before - after));
            }
        }
        kept.sort_unstable();
    }

    /// An order stands in its market's list, or in none once it is over.
    pub(super) fn check_standing_order(&self, place: u32, order: &Bid) -> Result<(), Broken> {
        let kept = self.market(order.market).and_then(|record| record.orders.get(&order.ages));
        let kept = kept.filter(|_| order.stands()).copied();
        same("I2", &format!("where order {} stands", order.number), kept, order.stands().then_some(place))
    }

    /// What is kept of a market's orders is what they say, and between rounds they hold what they may have.
    pub(super) fn check_orders(&self, record: &MarketRecord) -> Result<(), Broken> {
        let name = &record.id;
        let all = self.bids.all().map(|(_, bid)| bid);
        let standing = all.filter(|bid| bid.is_order() && bid.stands() && bid.market == record.number);
        let (mut orders, mut ordered) = (0, 0);
        for order in standing {
            orders += 1;
            ordered += order.quantity;
        }
        same("I2", &format!("orders in {name}"), (record.orders.len(), record.ordered), (orders, ordered))?;
        let mut left = record.on_demand();
        for order in record.orders.values().filter_map(|&place| self.bids.get(place)) {
            let won = order.quantity.min(left);
            left -= won;
            hold(record.is_dirty || order.live == won, "I2", || {
                format!("order {} in {name} has {} of {won}", order.number, order.live)
            })?;
        }
        Ok(())
    }
}
