//! An exchange that only tells: event streams that could have happened, and beside each a model that knows every
//! lease by itself, slow and obvious, to compare a view with.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use proto::machine::CommandKey;
use proto::market::{
    AmendBid, BidNumber, BidOption, BidState, LeaseNumber, LeaseSpan, LossReason, MarketEvent, MarketNumber,
    MarketSettings, PlaceBid, Prices, ReleaseReason, Terms,
};
use proto::{MarketId, Price, Timestamp};

pub(crate) const MARKETS: [&str; 3] = ["dfw/gp.large", "iad/gp.large", "dfw/ch.large"];
pub(crate) const TENANTS: u8 = 7;

/// Something that happens next; numbers choose among what there is.
#[derive(Clone, Debug)]
pub(crate) enum Next {
    Place { tenant: u8, options: Vec<(u8, u16)>, quantity: u8 },
    Amend { bid: u8, options: Vec<(u8, u16)>, quantity: u8 },
    Cancel { bid: u8 },
    Expire { bid: u8 },
    Award { bid: u8, option: u8, units: u8, waits: bool },
    Notice { bid: u8, from: u8, units: u8, reason: LossReason },
    Withdraw { bid: u8, from: u8, units: u8 },
    Delay { bid: u8, from: u8, units: u8 },
    Release { bid: u8, from: u8, units: u8 },
    Forget { bid: u8 },
    Price { market: u8, mills: Option<u16>, sold: u8 },
    Round,
    Pass { seconds: u16 },
}

pub(crate) fn next() -> impl Strategy<Value = Next> {
    let options = || proptest::collection::vec((0..MARKETS.len() as u8, 1..60_u16), 1..3);
    let reason = proptest::sample::select(vec![LossReason::Outbid, LossReason::Supply, LossReason::Reduced]);
    let part = || (any::<u8>(), 0..12_u8, 1..6_u8);
    prop_oneof![
        4 => (0..TENANTS, options(), 1..9_u8)
            .prop_map(|(tenant, options, quantity)| Next::Place { tenant, options, quantity }),
        2 => (any::<u8>(), options(), 1..9_u8)
            .prop_map(|(bid, options, quantity)| Next::Amend { bid, options, quantity }),
        1 => any::<u8>().prop_map(|bid| Next::Cancel { bid }),
        1 => any::<u8>().prop_map(|bid| Next::Expire { bid }),
        5 => (any::<u8>(), any::<u8>(), 1..6_u8, any::<bool>())
            .prop_map(|(bid, option, units, waits)| Next::Award { bid, option, units, waits }),
        3 => (part(), reason).prop_map(|((bid, from, units), reason)| Next::Notice { bid, from, units, reason }),
        2 => part().prop_map(|(bid, from, units)| Next::Withdraw { bid, from, units }),
        1 => part().prop_map(|(bid, from, units)| Next::Delay { bid, from, units }),
        3 => part().prop_map(|(bid, from, units)| Next::Release { bid, from, units }),
        1 => any::<u8>().prop_map(|bid| Next::Forget { bid }),
        2 => (0..MARKETS.len() as u8, proptest::option::of(1..60_u16), any::<u8>())
            .prop_map(|(market, mills, sold)| Next::Price { market, mills, sold }),
        3 => Just(Next::Round),
        1 => (0..2_000_u16).prop_map(|seconds| Next::Pass { seconds }),
    ]
}

/// One lease, by itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lease {
    pub(crate) bid: BidNumber,
    pub(crate) market: MarketNumber,
    pub(crate) available_by: Option<Timestamp>,
    pub(crate) notice: Option<(Timestamp, LossReason)>,
}

/// One bid, as it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bid {
    pub(crate) name: String,
    pub(crate) tenant: u8,
    pub(crate) terms: Terms,
    pub(crate) version: u32,
    pub(crate) end: Option<BidState>,
}

/// What happened: the events, and the model after all of them.
#[derive(Clone, Default)]
pub(crate) struct Told {
    pub(crate) events: Vec<(Timestamp, u64, MarketEvent)>,
    pub(crate) bids: BTreeMap<BidNumber, Bid>,
    pub(crate) leases: BTreeMap<LeaseNumber, Lease>,
    pub(crate) at: Timestamp,
    sequence: u64,
    bids_ever: u64,
    leases_ever: u64,
    pub(crate) round: u64,
    commands: u64,
}

pub(crate) fn mills(mills: u16) -> Price {
    Price::micros_or_max(u64::from(mills) * 1_000)
}

pub(crate) fn market_id(number: u8) -> MarketId {
    MARKETS[usize::from(number)].parse().unwrap()
}

fn terms(options: &[(u8, u16)], quantity: u8) -> Terms {
    let mut options = options.to_vec();
    options.sort_unstable();
    options.dedup_by_key(|(market, _)| *market);
    let option = |(market, limit): (u8, u16)| BidOption {
        market: market_id(market),
        limit: mills(limit),
        running_limit: limit.is_multiple_of(7).then(|| mills(limit + 5)),
    };
    let options = options.into_iter().map(option).collect();
    let expires_at = quantity.is_multiple_of(3).then(|| Timestamp::from_micros(9_000_000_000_000_000));
    Terms { quantity: quantity.into(), min_quantity: 1, options, expires_at }
}

impl Told {
    /// A told exchange with its markets open.
    pub(crate) fn open() -> Self {
        let mut told = Self { at: Timestamp::from_micros(1_700_000_000_000_000), ..Self::default() };
        for (number, id) in (0..).zip(MARKETS) {
            let settings: MarketSettings = serde_json::from_value(
                serde_json::json!({ "reserve": "0.005", "withdraw_until_seconds": 90 }),
            )
            .unwrap();
            told.say(MarketEvent::MarketDefined { market: number, id: id.parse().unwrap(), settings });
        }
        told
    }

    /// All that happens, one after another.
    pub(crate) fn all(steps: &[Next]) -> Self {
        let mut told = Self::open();
        for step in steps {
            told.happen(step);
        }
        told
    }

    fn say(&mut self, event: MarketEvent) {
        // A few events share a batch, as they do in life.
        if self.events.len().is_multiple_of(3) {
            self.sequence += 1;
            self.at = self.at.plus_micros(1_000);
        }
        self.events.push((self.at, self.sequence, event));
    }

    fn pick(&self, bid: u8) -> Option<BidNumber> {
        let count = self.bids.len();
        self.bids.keys().copied().nth(usize::from(bid) % count.max(1))
    }

    /// Some consecutive leases of a bid that all do, or all do not, leave.
    fn pick_leases(
        &self,
        bid: u8,
        from: u8,
        units: u8,
        leaving: bool,
    ) -> Option<(BidNumber, MarketNumber, LeaseSpan)> {
        let number = self.pick(bid)?;
        let of_bid: Vec<_> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.bid == number && lease.notice.is_some() == leaving)
            .collect();
        let (first, lease) = *of_bid.get(usize::from(from) % of_bid.len().max(1))?;
        let span = of_bid
            .iter()
            .filter(|(number, _)| *number >= first)
            .zip(*first..)
            .take_while(|((number, other), expected)| **number == *expected && other.market == lease.market)
            .take(units.into())
            .count();
        Some((number, lease.market, LeaseSpan { first: *first, units: span as u32 }))
    }

    fn place(&mut self, tenant: u8, options: &[(u8, u16)], quantity: u8) {
        self.bids_ever += 1;
        let number = self.bids_ever;
        let terms = terms(options, quantity);
        // The same id for different tenants is nothing special.
        let name = format!("bid-{}", number / 2);
        let mut bid = PlaceBid {
            id: name.parse().unwrap(),
            tenant: tenant_id(tenant),
            cluster: "prod".parse().unwrap(),
            pool: "workers".parse().unwrap(),
            quantity: terms.quantity,
            min_quantity: terms.min_quantity,
            options: terms.options.clone(),
            on_demand: false,
            expires_at: terms.expires_at,
            key: CommandKey::default(),
        };
        bid.seal();
        let is_used = self.bids.values().any(|bid| (bid.tenant, &bid.name) == (tenant, &name));
        if !is_used {
            self.say(MarketEvent::BidPlaced { number, by: "s1".parse().unwrap(), bid: Arc::new(bid) });
            self.bids.insert(number, Bid { name, tenant, terms, version: 1, end: None });
        }
    }

    pub(crate) fn happen(&mut self, next: &Next) {
        let key = CommandKey::default();
        self.commands += 1;
        let id = format!("c-{}", self.commands);
        match next {
            Next::Place { tenant, options, quantity } => self.place(*tenant, options, *quantity),
            Next::Amend { bid, options, quantity } => {
                let Some(number) = self.pick(*bid) else { return };
                let bid = self.bids.get_mut(&number).unwrap();
                if bid.end.is_none() {
                    bid.version += 1;
                    bid.terms = terms(options, *quantity);
                    let (version, terms) = (bid.version, bid.terms.clone());
                    let (tenant, bid) = (tenant_id(bid.tenant), bid.name.parse().unwrap());
                    let amendment = AmendBid {
                        id: id.parse().unwrap(),
                        tenant,
                        bid,
                        version: version - 1,
                        terms,
                        give_up: vec![],
                        key,
                    };
                    self.say(MarketEvent::BidAmended { number, version, amendment: Arc::new(amendment) });
                }
            }
            Next::Cancel { bid } => self.end(*bid, BidState::Cancelled),
            Next::Expire { bid } => self.end(*bid, BidState::Expired),
            Next::Forget { bid } => {
                let Some(number) = self.pick(*bid) else { return };
                if self.leases.values().all(|lease| lease.bid != number) && self.bids[&number].end.is_some() {
                    self.bids.remove(&number);
                    self.say(MarketEvent::BidForgotten { number });
                }
            }
            Next::Price { market, mills: price, sold } => {
                let price = price.map(mills);
                let prices = Prices {
                    price,
                    lowest_winning_bid: price,
                    reserve: mills(5),
                    supply: 9,
                    sold: (*sold).into(),
                    wanted: 3,
                    on_demand: 0,
                };
                self.say(MarketEvent::PriceChanged {
                    market: (*market).into(),
                    round: self.round + 1,
                    prices,
                });
            }
            Next::Round => {
                self.round += 1;
                self.say(MarketEvent::RoundClosed { round: self.round });
            }
            Next::Pass { seconds } => self.at = self.at.plus_seconds((*seconds).into()),
            other => self.happen_to_leases(other),
        }
    }

    fn end(&mut self, bid: u8, state: BidState) {
        let Some(number) = self.pick(bid) else { return };
        let bid = self.bids.get_mut(&number).unwrap();
        if bid.end.is_none() {
            bid.end = Some(state);
            self.say(match state {
                BidState::Expired => MarketEvent::BidExpired { number },
                _ => MarketEvent::BidCancelled { number },
            });
        }
    }

    fn happen_to_leases(&mut self, next: &Next) {
        let round = self.round + 1;
        match next {
            Next::Award { bid, option, units, waits } => {
                let Some(number) = self.pick(*bid) else { return };
                let options = &self.bids[&number].terms.options;
                let option = &options[usize::from(*option) % options.len()];
                let market =
                    MARKETS.iter().position(|id| *id == option.market.as_str()).unwrap() as MarketNumber;
                if self.bids[&number].end.is_some() {
                    return;
                }
                let leases = LeaseSpan { first: self.leases_ever + 1, units: (*units).into() };
                self.leases_ever = leases.end() - 1;
                let available_by = waits.then(|| self.at.plus_seconds(360));
                for lease in leases.first..leases.end() {
                    self.leases.insert(lease, Lease { bid: number, market, available_by, notice: None });
                }
                self.say(MarketEvent::UnitsAwarded { number, market, leases, round, available_by });
            }
            Next::Notice { bid, from, units, reason } => {
                let Some((number, market, leases)) = self.pick_leases(*bid, *from, *units, false) else {
                    return;
                };
                let gone_at = self.at.plus_seconds(360);
                self.each(leases, |lease| lease.notice = Some((gone_at, *reason)));
                let (reason, kept_by) = (*reason, Some(mills(33)));
                self.say(MarketEvent::NoticeGiven {
                    number,
                    market,
                    leases,
                    round,
                    gone_at,
                    reason,
                    kept_by,
                });
            }
            Next::Withdraw { bid, from, units } => {
                let Some((number, market, leases)) = self.pick_leases(*bid, *from, *units, true) else {
                    return;
                };
                self.each(leases, |lease| lease.notice = None);
                self.say(MarketEvent::NoticeWithdrawn { number, market, leases, round });
            }
            Next::Delay { bid, from, units } => {
                let Some((number, market, leases)) = self.pick_leases(*bid, *from, *units, false) else {
                    return;
                };
                let available_by = self.at.plus_seconds(500);
                self.each(leases, |lease| lease.available_by = Some(available_by));
                self.say(MarketEvent::UnitsDelayed { number, market, leases, round, available_by });
            }
            Next::Release { bid, from, units } => {
                let is_leaving = !from.is_multiple_of(3);
                let Some((number, market, leases)) = self.pick_leases(*bid, *from, *units, is_leaving) else {
                    return;
                };
                self.leases.retain(|lease, _| !leases.contains(*lease));
                let reason = if is_leaving { ReleaseReason::NoticeEnded } else { ReleaseReason::ServerLost };
                self.say(MarketEvent::UnitsReleased { number, market, leases, reason });
            }
            _ => {}
        }
    }

    fn each(&mut self, leases: LeaseSpan, change: impl Fn(&mut Lease)) {
        for lease in leases.first..leases.end() {
            change(self.leases.get_mut(&lease).unwrap());
        }
    }
}

pub(crate) fn tenant_id(tenant: u8) -> proto::TenantId {
    format!("t{tenant}").parse().unwrap()
}
