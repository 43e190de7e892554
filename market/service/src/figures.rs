//! The market's metrics, from the same events that the view is made of.

use market::view::View;
use prometheus::{GaugeVec, Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use proto::market::{BidNumber, LeaseSpan, LossReason, MarketEvent, MarketNumber, Prices, ReleaseReason};
use proto::{MarketId, Price, StreamName, Timestamp};
use runtime::telemetry::{Meter, MeterError, metrics};

/// Micro-dollars per dollar, microseconds per second.
const MICROS: f64 = 1e6;

/// What one exchange tells. Its gauges are gone with it: a process that no longer runs the exchange must not
/// go on showing its prices.
#[derive(Debug)]
pub(crate) struct Figures {
    stream: StreamName,
    markets: Vec<MarketId>,
    standing: IntGauge,
    rounds: IntCounter,
    awards: IntCounter,
    notices: IntCounterVec,
    withdrawn: IntCounter,
    lead: Histogram,
    breaches: IntCounter,
    by_market: ByMarket,
}

#[derive(Debug)]
struct ByMarket {
    price: GaugeVec,
    lowest_winning_bid: GaugeVec,
    reserve: GaugeVec,
    supply: IntGaugeVec,
    demand: IntGaugeVec,
    sold: IntGaugeVec,
    leaving: IntGaugeVec,
}

impl ByMarket {
    fn new(meter: &Meter) -> Result<Self, MeterError> {
        Ok(Self {
            price: meter.decimals(&metrics::PRICE)?,
            lowest_winning_bid: meter.decimals(&metrics::LOWEST_WINNING_BID)?,
            reserve: meter.decimals(&metrics::RESERVE)?,
            supply: meter.gauges(&metrics::SUPPLY_UNITS)?,
            demand: meter.gauges(&metrics::DEMAND_UNITS)?,
            sold: meter.gauges(&metrics::SOLD_UNITS)?,
            leaving: meter.gauges(&metrics::LEAVING_UNITS)?,
        })
    }

    fn set(&self, labels: &[&str; 2], prices: &Prices) {
        for (gauge, price) in
            [(&self.price, prices.price), (&self.lowest_winning_bid, prices.lowest_winning_bid)]
        {
            match price {
                Some(price) => gauge.with_label_values(labels).set(dollars(price)),
                // Without supply there is no price; it was perhaps never told, which is fine too.
                None => drop(gauge.remove_label_values(labels)),
            }
        }
        self.reserve.with_label_values(labels).set(dollars(prices.reserve));
        self.supply.with_label_values(labels).set(i64::from(prices.supply));
        self.demand.with_label_values(labels).set(i64::try_from(prices.wanted).unwrap_or(i64::MAX));
        self.sold.with_label_values(labels).set(i64::from(prices.sold));
    }

    fn forget(&self, labels: &[&str; 2]) {
        for gauge in [&self.price, &self.lowest_winning_bid, &self.reserve] {
            let _ = gauge.remove_label_values(labels);
        }
        for gauge in [&self.supply, &self.demand, &self.sold, &self.leaving] {
            let _ = gauge.remove_label_values(labels);
        }
    }
}

/// For showing only: money that is owed is never computed from it.
fn dollars(price: Price) -> f64 {
    price.micros() as f64 / MICROS
}

impl Figures {
    /// Tells what `view` holds, and from then on what it is told.
    pub(crate) fn new(meter: &Meter, stream: &StreamName, view: &View) -> Result<Self, MeterError> {
        let name = [stream.as_str()];
        let notices = meter.counters(&metrics::NOTICES)?;
        for reason in REASONS {
            // At zero before the first: otherwise the first would be invisible to a rate.
            let _ = notices.with_label_values(&[stream.as_str(), reason_text(reason)]);
        }
        let mut figures = Self {
            stream: stream.clone(),
            markets: Vec::new(),
            standing: meter.gauges(&metrics::STANDING_BIDS)?.with_label_values(&name),
            rounds: meter.counters(&metrics::ROUNDS)?.with_label_values(&name),
            awards: meter.counters(&metrics::AWARDS)?.with_label_values(&name),
            notices,
            withdrawn: meter.counters(&metrics::NOTICES_WITHDRAWN)?.with_label_values(&name),
            lead: meter.histograms(&metrics::NOTICE_LEAD)?.with_label_values(&name),
            breaches: meter.counters(&metrics::NOTICE_BREACHES)?.with_label_values(&name),
            by_market: ByMarket::new(meter)?,
        };
        figures.standing.set(view.standing_bids() as i64);
        for number in view.market_numbers() {
            figures.market(view, number);
        }
        for (number, units) in view.leaving_by_market() {
            figures.leaving(view, number, units as i64);
        }
        Ok(figures)
    }

    /// Takes up a market, or tells its figures anew.
    fn market(&mut self, view: &View, number: MarketNumber) {
        let Some(market) = view.figures(number) else { return };
        let labels = [self.stream.as_str(), market.id.as_str()];
        self.by_market.set(&labels, market.prices);
        // Told as 0 from the start.
        let _ = self.by_market.leaving.with_label_values(&labels);
        if !self.markets.contains(market.id) {
            self.markets.push(market.id.clone());
        }
    }

    fn leaving(&self, view: &View, number: MarketNumber, change: i64) {
        if let Some(market) = view.figures(number).filter(|_| change != 0) {
            self.by_market.leaving.with_label_values(&[self.stream.as_str(), market.id.as_str()]).add(change);
        }
    }

    /// Tells of one event, after `view` has folded it. `left` is what [`leaving_of`] said before.
    pub(crate) fn tell(&mut self, at: Timestamp, event: &MarketEvent, view: &View, left: Option<Touched>) {
        if let Some(before) = left {
            let now = view.units_of(before.number).map_or(0, |(_, leaving)| leaving);
            self.leaving(view, before.market, i64::from(now) - i64::from(before.leaving));
        }
        match event {
            MarketEvent::BidPlaced { .. } => self.standing.inc(),
            MarketEvent::BidCancelled { .. } | MarketEvent::BidExpired { .. } => self.standing.dec(),
            MarketEvent::MarketDefined { market, .. } => self.market(view, *market),
            MarketEvent::PriceChanged { market, prices, .. } => {
                if let Some(market) = view.figures(*market) {
                    self.by_market.set(&[self.stream.as_str(), market.id.as_str()], prices);
                }
            }
            MarketEvent::UnitsAwarded { leases, .. } => self.awards.inc_by(u64::from(leases.units)),
            MarketEvent::NoticeGiven { market, leases, gone_at, reason, .. } => {
                self.notice(view, *market, *leases, gone_at.micros().saturating_sub(at.micros()), *reason);
            }
            MarketEvent::NoticeWithdrawn { leases, .. } => self.withdrawn.inc_by(u64::from(leases.units)),
            MarketEvent::UnitsReleased { leases, reason: ReleaseReason::ServerLost, .. } => {
                self.breaches.inc_by(u64::from(leases.units));
            }
            MarketEvent::RoundClosed { .. } => self.rounds.inc(),
            _ => {}
        }
    }

    fn notice(
        &self,
        view: &View,
        market: MarketNumber,
        leases: LeaseSpan,
        lead_micros: i64,
        reason: LossReason,
    ) {
        let units = u64::from(leases.units);
        self.notices.with_label_values(&[self.stream.as_str(), reason_text(reason)]).inc_by(units);
        let lead_seconds = lead_micros.max(0) as f64 / MICROS;
        // A notice is one observation, however many units it is for: the loop stays bounded by events.
        self.lead.observe(lead_seconds);
        let promised = view.figures(market).map_or(0, |market| market.settings.notice_seconds);
        if !reason.is_own_exit() && lead_seconds < f64::from(promised) {
            self.breaches.inc_by(units);
        }
    }
}

impl Drop for Figures {
    fn drop(&mut self) {
        for market in &self.markets {
            self.by_market.forget(&[self.stream.as_str(), market.as_str()]);
        }
        self.standing.set(0);
    }
}

/// A bid whose leases an event changes, and how many of its units leave before that.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touched {
    number: BidNumber,
    market: MarketNumber,
    leaving: u32,
}

/// What to remember before `view` folds `event`, for [`Figures::tell`].
pub(crate) fn leaving_of(view: &View, event: &MarketEvent) -> Option<Touched> {
    let (MarketEvent::NoticeGiven { number, market, .. }
    | MarketEvent::NoticeWithdrawn { number, market, .. }
    | MarketEvent::UnitsReleased { number, market, .. }) = event
    else {
        return None;
    };
    let leaving = view.units_of(*number).map_or(0, |(_, leaving)| leaving);
    Some(Touched { number: *number, market: *market, leaving })
}

const REASONS: [LossReason; 9] = [
    LossReason::Outbid,
    LossReason::Supply,
    LossReason::Reserve,
    LossReason::Host,
    LossReason::Moved,
    LossReason::Operator,
    LossReason::Cancelled,
    LossReason::Expired,
    LossReason::Reduced,
];

/// The reason as it is on the wire.
const fn reason_text(reason: LossReason) -> &'static str {
    match reason {
        LossReason::Outbid => "outbid",
        LossReason::Supply => "supply",
        LossReason::Reserve => "reserve",
        LossReason::Host => "host",
        LossReason::Moved => "moved",
        LossReason::Operator => "operator",
        LossReason::Cancelled => "cancelled",
        LossReason::Expired => "expired",
        LossReason::Reduced => "reduced",
    }
}
