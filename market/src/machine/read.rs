//! What others may see of the state: for tests, for the simulator's invariants, for comparing views with.

use proto::market::{
    BidNumber, BidState, LeaseNumber, LeaseSpan, LossReason, MarketNumber, Prices, RoundNumber,
};
use proto::{BidId, MarketId, Price, TenantId, Timestamp};

use super::Market;
use super::bid::{Bid, Status};
use super::lease::{Stand, Worker};

/// Leases of a bid that are in one state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// Which leases.
    pub leases: LeaseSpan,
    /// Where.
    pub market: MarketNumber,
    /// By when they were told that a server is there, while they wait for one.
    pub available_by: Option<Timestamp>,
    /// Whether they have a server without a ready worker so far.
    pub is_booting: bool,
    /// When they are gone and why, while they leave.
    pub leaving: Option<(Timestamp, LossReason)>,
}

/// A bid as the machine knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BidView {
    /// Its number.
    pub number: BidNumber,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its name.
    pub id: BidId,
    /// What it is.
    pub state: BidState,
    /// Its version.
    pub version: u32,
    /// Where it wants servers: the market of its first option.
    pub market: MarketNumber,
    /// Its options: market, limit, and what a unit that holds a server there is worth.
    pub options: Vec<(MarketNumber, Price, Price)>,
    /// Whether it is an on-demand order.
    pub on_demand: bool,
    /// Fewer units than this are worth nothing.
    pub min_quantity: u32,
    /// How many.
    pub quantity: u32,
    /// The most one may cost per hour there.
    pub limit: Price,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// Units won as of the last round.
    pub won: u32,
    /// Its leases, oldest first.
    pub leases: Vec<LeaseView>,
}

impl Market {
    /// The markets with their public figures as last told, by number.
    pub fn markets(&self) -> impl Iterator<Item = (MarketNumber, &MarketId, Option<Prices>)> {
        self.markets.iter().map(|record| (record.number, &record.id, record.told))
    }

    /// All bids that stand or still have leases, by number.
    pub fn bids(&self) -> Vec<BidView> {
        let mut views: Vec<BidView> = self.bids.all().map(|(_, bid)| self.view(bid)).collect();
        views.sort_unstable_by_key(|view| view.number);
        views
    }

    /// The finished bids that are still known, by number.
    pub fn finished(&self) -> Vec<(BidNumber, BidState)> {
        let state = |status| if status == Status::Expired { BidState::Expired } else { BidState::Cancelled };
        let tombs = self.bids.finished().iter();
        let mut finished: Vec<_> = tombs.map(|tomb| (tomb.number, state(tomb.status))).collect();
        finished.sort_unstable_by_key(|&(number, _)| number);
        finished
    }

    /// A bid that is not finished.
    pub fn bid(&self, number: BidNumber) -> Option<BidView> {
        self.bids
            .numbered(number)
            .and_then(|place| self.bids.get(place))
            .filter(|bid| !bid.is_finished)
            .map(|bid| self.view(bid))
    }

    /// Bids that are passed over, with the units that they miss.
    pub fn passed_over(&self) -> Vec<(BidNumber, u32)> {
        self.passed_over.iter().collect()
    }

    /// Whether a market clears together with others.
    pub fn is_joint(&self, market: MarketNumber) -> bool {
        self.is_coupled(market)
    }

    /// A market's servers: usable ones, those that orders have of them, and those that the auction has.
    pub fn division(&self, market: MarketNumber) -> Option<(u32, u32, u32)> {
        self.market(market).map(|record| (record.usable(), record.on_demand(), record.auctioned()))
    }

    /// The number of the last round.
    pub fn round(&self) -> RoundNumber {
        self.next.round
    }

    /// The number that the next lease will have.
    pub fn next_lease(&self) -> LeaseNumber {
        self.next.lease
    }

    /// Units won and units leaving in a market.
    pub fn held(&self, market: MarketNumber) -> Option<(u32, u32)> {
        self.market(market).map(|record| (record.servers.live(), record.servers.leaving()))
    }

    fn view(&self, bid: &Bid) -> BidView {
        let mut leases: Vec<LeaseView> = self
            .leases
            .of(bid.leases)
            .map(|(_, span)| {
                let leaving = match span.stand {
                    Stand::Leaving(reason) => Some((span.until, reason)),
                    Stand::Served | Stand::Waiting => None,
                };
                let available_by = (span.stand == Stand::Waiting).then_some(span.until);
                let is_booting = span.stand != Stand::Waiting && span.worker == Worker::Booting;
                LeaseView { leases: span.leases(), market: span.market, available_by, is_booting, leaving }
            })
            .collect();
        leases.reverse();
        let state = match bid.status {
            Status::Cancelled => BidState::Cancelled,
            Status::Expired => BidState::Expired,
            Status::Standing if bid.live >= bid.quantity => BidState::Won,
            Status::Standing if bid.live > 0 => BidState::PartlyWon,
            Status::Standing if leases.is_empty() => BidState::Queued,
            Status::Standing => BidState::Losing,
        };
        BidView {
            number: bid.number,
            tenant: bid.placed.tenant.clone(),
            id: bid.name(),
            state,
            version: bid.version,
            market: bid.market,
            options: bid
                .options()
                .map(|option| {
                    let [limit, running] = [option.limit, option.running_limit].map(Price::micros_or_max);
                    (option.market, limit, running)
                })
                .collect(),
            on_demand: bid.is_order(),
            min_quantity: bid.minimum(),
            quantity: bid.quantity,
            limit: Price::micros_or_max(bid.limit),
            expires_at: bid.expires_at,
            won: bid.live,
            leases,
        }
    }
}
