//! The whole state as bytes and back.
//!
//! What can be worked out is left out: books are made anew from the bids' lots, servers and timers from the leases.
//! Everything is written in an order that does not depend on how the state came about, so equal states give equal
//! bytes.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use proto::machine::{CommandKey, RestoreError};
use proto::market::{
    BidNumber, BidOption, LeaseNumber, LeaseSpan, LossReason, MarketNumber, PlaceBid, Prices, RoundNumber,
    Rules, SupplyCause,
};
use proto::{Machine, Price, PrincipalId, SourceId, StreamName, TenantId, Timestamp};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Serialize, Serializer};

use super::Market;
use super::bid::{Bid, Choice, Lots, Status, Tomb};
use super::coupled::Coupling;
use super::digest::{Sum, text};
use super::lease::{Head, Leases, Span, Stand, Worker};
use super::record::{Departure, MarketRecord, Source, digest_of_source};
use crate::book::{Book, LotTerms};

/// Micro-seconds since 1970.
type Instant = i64;

/// `B`: the bids, each made when it is written, and a list of them when they are read.
#[derive(Serialize, Deserialize)]
struct Saved<B> {
    version: u32,
    /// As JSON, which may leave out what has its default.
    rules: Vec<u8>,
    /// As JSON: these are few, and their form is fixed there already.
    trusted: Vec<u8>,
    next: SavedCounters,
    markets: Vec<SavedMarket>,
    /// Names that bids share, in the order in which bids use them first.
    names: Vec<String>,
    bids: B,
    /// Key, number, when they finished, how they ended; in the order in which they finished.
    finished: Vec<(u128, BidNumber, Instant, SavedStatus)>,
    /// Bids passed over, with the units that they miss.
    passed_over: Vec<(BidNumber, u32)>,
}

#[derive(Serialize, Deserialize)]
struct SavedCounters {
    bid: BidNumber,
    lease: LeaseNumber,
    age: u64,
    round: RoundNumber,
    round_at: Option<Instant>,
    soiled_at: Option<Instant>,
    dirty: Vec<MarketNumber>,
    forgot_at: Option<Instant>,
}

#[derive(Serialize, Deserialize)]
struct SavedMarket {
    id: String,
    /// As JSON.
    settings: Vec<u8>,
    sources: Vec<(String, u64, u32, SupplyCause, Option<Instant>)>,
    departures: Vec<(Instant, u32)>,
    told: Option<SavedFigures>,
    is_shaken: bool,
    /// If it clears together with others.
    coupled: Option<SavedCoupling>,
}

#[derive(Serialize, Deserialize)]
struct SavedCoupling {
    /// Since which round no flexible bid names it.
    idle_since: Option<RoundNumber>,
}

#[derive(Serialize, Deserialize)]
struct SavedFlexible {
    minimum: u32,
    /// Market, limit and running limit.
    options: Vec<(MarketNumber, u64, u64)>,
}

#[derive(Serialize, Deserialize)]
struct SavedFigures {
    price: Option<u64>,
    lowest_winning_bid: Option<u64>,
    reserve: u64,
    supply: u32,
    sold: u32,
    wanted: u64,
    on_demand: u32,
}

#[derive(Serialize, Deserialize)]
struct SavedBid<'a> {
    key: u128,
    number: BidNumber,
    #[serde(borrow)]
    id: Cow<'a, str>,
    /// Tenant, cluster, pool and who placed it, among the names.
    names: [u32; 4],
    version: u32,
    quantity: u32,
    market: MarketNumber,
    limit: u64,
    expires_at: Option<Instant>,
    status: SavedStatus,
    on_demand: bool,
    /// Where there is more to say than one limit.
    flexible: Option<SavedFlexible>,
    /// Age and units; oldest first.
    lots: Vec<(u64, u32)>,
    /// Oldest first.
    leases: Vec<SavedLeases>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum SavedStatus {
    Standing,
    Cancelled,
    Expired,
}

#[derive(Serialize, Deserialize)]
struct SavedLeases {
    first: LeaseNumber,
    units: u32,
    market: MarketNumber,
    stand: SavedStand,
    replaces: LeaseNumber,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum SavedStand {
    Ready,
    Booting(Instant),
    Dead(Instant),
    Waiting(Instant),
    Leaving(Instant, LossReason, SavedWorker),
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum SavedWorker {
    Booting,
    Ready,
    Dead,
}

#[allow(clippy::needless_pass_by_value)] // so that it can stand in `map_err`
fn unreadable(problem: impl ToString) -> RestoreError {
    RestoreError::Unreadable { problem: problem.to_string() }
}

/// Names that many bids share, written once.
#[derive(Default)]
struct Names<'a> {
    places: BTreeMap<&'a str, u32>,
    names: Vec<String>,
}

impl<'a> Names<'a> {
    fn place(&mut self, name: &'a str) -> u32 {
        let next = self.names.len() as u32;
        let place = *self.places.entry(name).or_insert(next);
        if place == next {
            self.names.push(name.to_owned());
        }
        place
    }

    fn places(&mut self, bid: &'a Bid) -> [u32; 4] {
        let placed = &bid.placed;
        let shared = [placed.tenant.as_str(), placed.cluster.as_str(), placed.pool.as_str(), bid.by.as_str()];
        shared.map(|name| self.place(name))
    }
}

/// Room for most bids, so that the bytes of a large state are not moved again and again while they are written.
const SAVED_BID_BYTES_USUAL: usize = 96;

/// Bids by number with the places of their names. There are millions: none is kept in the form in which it is
/// written.
struct EachBid<'a> {
    market: &'a Market,
    order: &'a [&'a Bid],
    names: &'a [[u32; 4]],
}

impl Serialize for EachBid<'_> {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        let mut list = out.serialize_seq(Some(self.order.len()))?;
        for (bid, names) in self.order.iter().zip(self.names) {
            list.serialize_element(&self.market.save_bid(bid, *names))?;
        }
        list.end()
    }
}

impl Market {
    /// The state as bytes.
    pub(super) fn save(&self) -> Vec<u8> {
        let mut order: Vec<&Bid> = self.bids.all().map(|(_, bid)| bid).collect();
        order.sort_unstable_by_key(|bid| bid.number);
        let mut names = Names::default();
        let places: Vec<[u32; 4]> = order.iter().map(|bid| names.places(bid)).collect();
        let bids = EachBid { market: self, order: &order, names: &places };
        let bytes = SAVED_BID_BYTES_USUAL * order.len();
        let next = &self.next;
        let saved = Saved {
            version: Self::SNAPSHOT,
            rules: serde_json::to_vec(&self.rules).unwrap_or_default(),
            trusted: serde_json::to_vec(self.trusted.list()).unwrap_or_default(),
            next: SavedCounters {
                bid: next.bid,
                lease: next.lease,
                age: next.age,
                round: next.round,
                round_at: next.round_at.map(Timestamp::micros),
                soiled_at: next.soiled_at.map(Timestamp::micros),
                dirty: self
                    .markets
                    .iter()
                    .filter(|record| record.is_dirty)
                    .map(|record| record.number)
                    .collect(),
                forgot_at: next.forgot_at.map(Timestamp::micros),
            },
            markets: self.markets.iter().map(save_market).collect(),
            names: names.names,
            bids,
            finished: self.bids.finished().iter().map(save_tomb).collect(),
            passed_over: self.passed_over.iter().collect(),
        };
        // These are plain data; writing them to memory cannot fail.
        postcard::to_extend(&saved, Vec::with_capacity(bytes)).unwrap_or_default()
    }

    fn save_bid<'a>(&self, bid: &'a Bid, names: [u32; 4]) -> SavedBid<'a> {
        let placed = &bid.placed;
        let option = |option: &Choice| (option.market, option.limit, option.running_limit);
        let flexible = bid.flexible();
        let mut leases: Vec<SavedLeases> = self
            .leases
            .of(bid.leases)
            .map(|(_, span)| {
                let until = span.until.micros();
                let stand = match (span.stand, span.worker) {
                    (Stand::Served, Worker::Booting) => SavedStand::Booting(until),
                    (Stand::Served, Worker::Ready) => SavedStand::Ready,
                    (Stand::Served, Worker::Dead) => SavedStand::Dead(until),
                    (Stand::Waiting, _) => SavedStand::Waiting(until),
                    (Stand::Leaving(reason), worker) => {
                        SavedStand::Leaving(until, reason, save_worker(worker))
                    }
                };
                {
                    let Span { first, units, market, replaces, .. } = *span;
                    SavedLeases { first, units, market, stand, replaces }
                }
            })
            .collect();
        leases.reverse();
        SavedBid {
            key: bid.key.0,
            number: bid.number,
            id: Cow::Borrowed(placed.id.as_str()),
            names,
            version: bid.version,
            quantity: bid.quantity,
            market: bid.market,
            limit: bid.limit,
            expires_at: bid.expires_at.map(Timestamp::micros),
            status: save_status(bid.status),
            on_demand: bid.is_order(),
            flexible: flexible.map(|said| SavedFlexible {
                minimum: said.minimum,
                options: said.options.iter().map(option).collect(),
            }),
            lots: self.places_of(bid),
            leases,
        }
    }

    /// The state that bytes hold.
    pub(super) fn load(stream: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        let (saved, rest) =
            postcard::take_from_bytes::<Saved<Vec<SavedBid<'_>>>>(bytes).map_err(unreadable)?;
        if saved.version != Self::SNAPSHOT || !rest.is_empty() {
            return Err(unreadable(format!("version {}, {} bytes too many", saved.version, rest.len())));
        }
        let mut market = Self::new(stream);
        market.rules_adopted(&serde_json::from_slice::<Rules>(&saved.rules).map_err(unreadable)?);
        if saved.trusted != b"[]" {
            market.trusted.adopt(&serde_json::from_slice::<Vec<_>>(&saved.trusted).map_err(unreadable)?);
        }
        for (number, saved) in saved.markets.into_iter().enumerate() {
            market.load_market(number as MarketNumber, saved)?;
        }
        let lots = market.load_bids(saved.bids, &saved.names)?;
        market.load_books(lots)?;
        for (number, short_by) in saved.passed_over {
            market.passed_over.set(number, short_by);
        }
        for (key, number, finished_at, status) in saved.finished {
            let (key, finished_at) = (CommandKey(key), Timestamp::from_micros(finished_at));
            market.bids.insert_tomb(Tomb { key, finished_at, number, status: load_status(status) });
        }
        market.next = super::Counters {
            bid: saved.next.bid,
            lease: saved.next.lease,
            age: saved.next.age,
            round: saved.next.round,
            round_at: saved.next.round_at.map(Timestamp::from_micros),
            soiled_at: saved.next.soiled_at.map(Timestamp::from_micros),
            forgot_at: saved.next.forgot_at.map(Timestamp::from_micros),
        };
        market.watch_leases();
        market.settle(&saved.next.dirty);
        Ok(market)
    }

    fn load_market(&mut self, number: MarketNumber, saved: SavedMarket) -> Result<(), RestoreError> {
        let settings = serde_json::from_slice(&saved.settings).map_err(unreadable)?;
        let id = saved.id.parse().map_err(unreadable)?;
        let mut record =
            MarketRecord::new(number, id, settings, self.rules.price_rule).map_err(unreadable)?;
        for (id, generation, units, cause, gone_at) in saved.sources {
            let id: SourceId = id.parse().map_err(unreadable)?;
            let source = Source { generation, units, cause, gone_at: gone_at.map(Timestamp::from_micros) };
            record.supply = record.supply.checked_add(units).ok_or_else(|| unreadable("supply overflows"))?;
            self.entries.add(digest_of_source(number, &id, &source));
            record.sources.insert(id, source);
        }
        let departure = |(gone_at, units)| Departure { gone_at: Timestamp::from_micros(gone_at), units };
        record.departures = saved.departures.into_iter().map(departure).collect();
        record.told = saved.told.map(|told| Prices {
            price: told.price.map(Price::micros_or_max),
            lowest_winning_bid: told.lowest_winning_bid.map(Price::micros_or_max),
            reserve: Price::micros_or_max(told.reserve),
            supply: told.supply,
            sold: told.sold,
            wanted: told.wanted,
            on_demand: told.on_demand,
        });
        record.is_shaken = saved.is_shaken;
        if let Some(SavedCoupling { idle_since }) = saved.coupled {
            record.coupling = Coupling { is_coupled: true, idle_since, ..Coupling::default() };
            self.leases.touched.get_or_insert_default();
        }
        if saved.is_shaken {
            self.shaken.insert(number);
        }
        let usable = record.usable();
        record.servers.set_supply(&mut self.leases, usable, Timestamp::MIN);
        self.market_names.insert(text(record.id.as_str()), u32::from(number));
        self.markets.push(record);
        Ok(())
    }

    /// Loads bids and leases; returns the lots of each market with the places of their bids.
    fn load_bids(
        &mut self,
        bids: Vec<SavedBid<'_>>,
        names: &[String],
    ) -> Result<Vec<Vec<(LotTerms, u32)>>, RestoreError> {
        let mut shared = Shared::default();
        let mut lots = vec![Vec::new(); self.markets.len()];
        let mut last = 0;
        let mut spans = Vec::new();
        for saved in bids {
            if saved.number <= last || usize::from(saved.market) >= self.markets.len() {
                return Err(unreadable(format!("bid {} is out of order or in no market", saved.number)));
            }
            last = saved.number;
            let (limit, market) = (saved.limit, saved.market);
            let lots_saved: Vec<LotTerms> = saved
                .lots
                .iter()
                .map(|&(age, units)| LotTerms { limit, plain_limit: None, age, units, held: 0 })
                .collect();
            let is_order = saved.on_demand;
            let leases_saved = self.load_bid(saved, names, &mut shared, &lots_saved)?;
            let place = leases_saved.0;
            if is_order {
                for _ in &lots_saved {
                    self.load_order(place);
                }
                spans.extend(leases_saved.1.into_iter().map(|leases| (leases.first, place, leases)));
                continue;
            }
            lots[usize::from(market)].extend(lots_saved.into_iter().map(|terms| (terms, place)));
            spans.extend(leases_saved.1.into_iter().map(|leases| (leases.first, place, leases)));
        }
        // Granted in the order of their numbers, as they were.
        spans.sort_unstable_by_key(|&(first, ..)| first);
        let mut next = 0;
        for (_, place, leases) in spans {
            if leases.first < next || usize::from(leases.market) >= self.markets.len() || leases.units == 0 {
                return Err(unreadable(format!("lease {} stands twice or in no market", leases.first)));
            }
            next = leases.first.saturating_add(u64::from(leases.units));
            self.load_leases(place, &leases);
        }
        Ok(lots)
    }

    fn load_bid(
        &mut self,
        saved: SavedBid<'_>,
        names: &[String],
        shared: &mut Shared,
        lots: &[LotTerms],
    ) -> Result<(u32, Vec<SavedLeases>), RestoreError> {
        let name = |place: usize| {
            names.get(saved.names[place] as usize).ok_or_else(|| unreadable("a name is missing"))
        };
        let expires_at = saved.expires_at.map(Timestamp::from_micros);
        let status = load_status(saved.status);
        let tenant: TenantId = shared.get(name(0)?)?;
        let by: PrincipalId = name(3)?.parse().map_err(unreadable)?;
        let said = saved.flexible.unwrap_or_else(|| SavedFlexible {
            minimum: 1,
            options: vec![(saved.market, saved.limit, saved.limit)],
        });
        let options = self.load_options(&said.options)?;
        let placed = Arc::new(PlaceBid {
            id: saved.id.parse().map_err(unreadable)?,
            tenant: tenant.clone(),
            cluster: name(1)?.parse().map_err(unreadable)?,
            pool: name(2)?.parse().map_err(unreadable)?,
            quantity: saved.quantity,
            min_quantity: said.minimum,
            options,
            on_demand: saved.on_demand,
            expires_at,
            key: CommandKey(saved.key),
        });
        let units: u64 = lots.iter().map(|terms| u64::from(terms.units)).sum();
        if (status == Status::Standing) != (units > 0) || units > u64::from(saved.quantity) {
            return Err(unreadable(format!("bid {} stands with {units} units", saved.number)));
        }
        let place_of_tenant = match status {
            Status::Standing => self.tenants.enter(&tenant),
            _ => self.tenants.enter_ended(&tenant),
        };
        if let Some(expires_at) = expires_at.filter(|_| status == Status::Standing) {
            self.expiring.insert((expires_at, saved.number));
        }
        let lots_of_bid = if placed.on_demand {
            Lots::Ordered
        } else {
            self.lots_for(&placed.options, placed.min_quantity)
        };
        if let (Lots::Flexible(flexible), Status::Standing) = (&lots_of_bid, status) {
            for option in &flexible.options {
                self.markets[usize::from(option.market)].coupling.flexible += 1;
            }
        }
        let place = self.bids.insert(Bid {
            key: CommandKey(saved.key),
            number: saved.number,
            limit: saved.limit,
            ages: lots.iter().fold(0, |sum, terms| sum.wrapping_add(terms.age)),
            expires_at,
            version: saved.version,
            quantity: saved.quantity,
            live: 0,
            leases: Head::default(),
            tenant: place_of_tenant,
            market: saved.market,
            status,
            is_finished: false,
            lots: lots_of_bid,
            placed,
            by,
        });
        Ok((place, saved.leases))
    }

    fn load_options(&self, options: &[(MarketNumber, u64, u64)]) -> Result<Vec<BidOption>, RestoreError> {
        let option = |&(market, limit, running): &(MarketNumber, u64, u64)| {
            let record = self.market(market).ok_or_else(|| unreadable("a bid is in no market"))?;
            let running_limit = (running > limit).then(|| Price::micros_or_max(running));
            Ok(BidOption { market: record.id.clone(), limit: Price::micros_or_max(limit), running_limit })
        };
        options.iter().map(option).collect()
    }

    fn load_leases(&mut self, place: u32, saved: &SavedLeases) {
        let record = &mut self.markets[usize::from(saved.market)];
        let Some(bid) = self.bids.holder(place) else { return };
        let (stand, worker, until) = match saved.stand {
            SavedStand::Ready => (Stand::Served, Worker::Ready, 0),
            SavedStand::Booting(since) => (Stand::Served, Worker::Booting, since),
            SavedStand::Dead(since) => (Stand::Served, Worker::Dead, since),
            SavedStand::Waiting(until) => (Stand::Waiting, Worker::Booting, until),
            SavedStand::Leaving(until, reason, worker) => {
                (Stand::Leaving(reason), load_worker(worker), until)
            }
        };
        let until = Timestamp::from_micros(until);
        let leases = LeaseSpan { first: saved.first, units: saved.units };
        let mut span = Leases::new_span(leases, bid.number, place, saved.market, stand, until);
        (span.worker, span.replaces) = (worker, saved.replaces);
        self.leases.grant(&mut record.servers, &mut bid.leases, span);
        bid.live += if stand.is_live() { saved.units } else { 0 };
        self.set_timer(saved.market);
    }

    /// Makes the books from the lots, and the coupled places. The oldest units of a bid are those that it holds.
    fn load_books(&mut self, lots: Vec<Vec<(LotTerms, u32)>>) -> Result<(), RestoreError> {
        let mut left: BTreeMap<u32, u32> = BTreeMap::new();
        for (number, mut lots) in lots.into_iter().enumerate() {
            if self.is_coupled(number as MarketNumber) {
                let record = &mut self.markets[number];
                record.book.set_supply(record.auctioned()).map_err(unreadable)?;
                for (terms, place) in lots {
                    self.stand_at(place, terms.age, terms.units);
                }
                continue;
            }
            for (terms, place) in &mut lots {
                let live = self.bids.get(*place).map_or(0, |bid| bid.live);
                let left = left.entry(*place).or_insert(live);
                terms.held = terms.units.min(*left);
                *left -= terms.held;
            }
            let record = &mut self.markets[number];
            let terms: Vec<LotTerms> = lots.iter().map(|&(terms, _)| terms).collect();
            let (ladder, reserve) = (record.settings.ladder.clone(), record.settings.reserve);
            let (rule, supply) = (self.rules.price_rule, record.auctioned());
            record.book = Book::load(ladder, reserve, rule, supply, &terms).map_err(unreadable)?;
            for (lot, (_, place)) in lots.into_iter().enumerate() {
                let lot = crate::book::Lot(lot as u32);
                record.set_holder(lot, place);
                if let Some(bid) = self.bids.holder(place) {
                    bid.lots.push(lot);
                }
            }
        }
        Ok(())
    }

    /// Seals every market, and notes where something happened since the last round.
    fn settle(&mut self, dirty: &[MarketNumber]) {
        self.sealed = Sum::default();
        // Loading touched markets; what matters is where something had happened when this was saved.
        self.dirty.clear();
        for record in &mut self.markets {
            record.is_dirty = false;
            record.sealed = record.digest();
            self.sealed.add(record.sealed);
        }
        for &number in dirty {
            self.soil(number);
        }
    }
}

/// Names read once and shared, as they were before.
#[derive(Default)]
struct Shared(BTreeMap<String, TenantId>);

impl Shared {
    fn get(&mut self, name: &str) -> Result<TenantId, RestoreError> {
        if let Some(known) = self.0.get(name) {
            return Ok(known.clone());
        }
        let id: TenantId = name.parse().map_err(unreadable)?;
        self.0.insert(name.to_owned(), id.clone());
        Ok(id)
    }
}

const fn save_status(status: Status) -> SavedStatus {
    match status {
        Status::Standing => SavedStatus::Standing,
        Status::Cancelled => SavedStatus::Cancelled,
        Status::Expired => SavedStatus::Expired,
    }
}

const fn load_status(status: SavedStatus) -> Status {
    match status {
        SavedStatus::Standing => Status::Standing,
        SavedStatus::Cancelled => Status::Cancelled,
        SavedStatus::Expired => Status::Expired,
    }
}

const fn save_worker(worker: Worker) -> SavedWorker {
    match worker {
        Worker::Booting => SavedWorker::Booting,
        Worker::Ready => SavedWorker::Ready,
        Worker::Dead => SavedWorker::Dead,
    }
}

const fn load_worker(worker: SavedWorker) -> Worker {
    match worker {
        SavedWorker::Booting => Worker::Booting,
        SavedWorker::Ready => Worker::Ready,
        SavedWorker::Dead => Worker::Dead,
    }
}

fn save_tomb(tomb: &Tomb) -> (u128, BidNumber, Instant, SavedStatus) {
    (tomb.key.0, tomb.number, tomb.finished_at.micros(), save_status(tomb.status))
}

fn save_market(record: &MarketRecord) -> SavedMarket {
    let said = |(id, source): (&SourceId, &Source)| {
        let gone_at = source.gone_at.map(Timestamp::micros);
        (id.as_str().to_owned(), source.generation, source.units, source.cause, gone_at)
    };
    SavedMarket {
        id: record.id.as_str().to_owned(),
        settings: serde_json::to_vec(&record.settings).unwrap_or_default(),
        sources: record.sources.iter().map(said).collect(),
        departures: record
            .departures
            .iter()
            .map(|departure| (departure.gone_at.micros(), departure.units))
            .collect(),
        told: record.told.map(|told| SavedFigures {
            price: told.price.map(Price::micros),
            lowest_winning_bid: told.lowest_winning_bid.map(Price::micros),
            reserve: told.reserve.micros(),
            supply: told.supply,
            sold: told.sold,
            wanted: told.wanted,
            on_demand: told.on_demand,
        }),
        is_shaken: record.is_shaken,
        coupled: record
            .coupling
            .is_coupled
            .then_some(SavedCoupling { idle_since: record.coupling.idle_since }),
    }
}
