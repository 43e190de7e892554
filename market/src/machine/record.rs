//! One market of an exchange.

use std::collections::BTreeMap;

use proto::market::{MarketNumber, MarketSettings, PriceRule, Prices, SupplyCause};
use proto::{MarketId, Price, SourceId, Timestamp};

use super::bounds::DEPARTURES_MAX;
use super::coupled::Coupling;
use super::digest::{Kind, bytes, digest, text};
use super::servers::Servers;
use crate::book::{Book, BookError, Lot};

/// What a source said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) generation: u64,
    pub(super) units: u32,
    pub(super) cause: SupplyCause,
    pub(super) gone_at: Option<Timestamp>,
}

/// Servers that go before the market's notice would be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Departure {
    pub(super) gone_at: Timestamp,
    pub(super) units: u32,
}

/// One market: its settings, its book, its servers.
#[derive(Clone, Debug)]
pub(super) struct MarketRecord {
    pub(super) number: MarketNumber,
    pub(super) id: MarketId,
    pub(super) settings: MarketSettings,
    settings_digest: u128,
    /// Empty while the market clears together with others.
    pub(super) book: Book,
    pub(super) coupling: Coupling,
    /// Place of the bid that each lot of the book belongs to, by the lot's number.
    holders: Vec<u32>,
    pub(super) sources: BTreeMap<SourceId, Source>,
    pub(super) supply: u32,
    /// On-demand orders by age, with their bids' places; servers that they want together.
    pub(super) orders: BTreeMap<u64, u32>,
    pub(super) ordered: u32,
    /// Deadlines of servers withdrawn since the last round, ascending.
    pub(super) departures: Vec<Departure>,
    /// The public figures as last told.
    pub(super) told: Option<Prices>,
    pub(super) servers: Servers,
    /// The instant under which the market stands among the timers.
    pub(super) timer: Option<Timestamp>,
    /// Whether units in line may get their servers later than they were told.
    pub(super) is_shaken: bool,
    /// Whether something happened since the last round.
    pub(super) is_dirty: bool,
    /// Its digest as of the last round.
    pub(super) sealed: u128,
}

impl MarketRecord {
    /// A market without bids and servers.
    pub(super) fn new(
        number: MarketNumber,
        id: MarketId,
        settings: MarketSettings,
        price_rule: PriceRule,
    ) -> Result<Self, BookError> {
        let book = Book::new(settings.ladder.clone(), settings.reserve, price_rule)?;
        let settings_digest = digest_of_settings(&id, &settings);
        Ok(Self {
            number,
            id,
            settings,
            settings_digest,
            book,
            coupling: Coupling::default(),
            holders: Vec::new(),
            sources: BTreeMap::new(),
            supply: 0,
            orders: BTreeMap::new(),
            ordered: 0,
            departures: Vec::new(),
            told: None,
            servers: Servers::default(),
            timer: None,
            is_shaken: false,
            is_dirty: false,
            sealed: 0,
        })
    }

    /// Puts other settings in force.
    pub(super) fn set(&mut self, settings: MarketSettings) -> Result<(), BookError> {
        if self.settings.ladder != settings.ladder {
            self.book.set_ladder(settings.ladder.clone())?;
        }
        if self.settings.reserve != settings.reserve {
            self.book.set_reserve(settings.reserve);
        }
        self.settings = settings;
        self.settings_digest = digest_of_settings(&self.id, &self.settings);
        Ok(())
    }

    /// The bid a lot belongs to.
    #[inline]
    pub(super) fn holder(&self, lot: Lot) -> u32 {
        self.holders.get(lot.0 as usize).copied().unwrap_or(u32::MAX)
    }

    #[inline]
    pub(super) fn set_holder(&mut self, lot: Lot, place: u32) {
        let index = lot.0 as usize;
        if index >= self.holders.len() {
            self.holders.resize(index + 1, u32::MAX);
        }
        self.holders[index] = place;
    }

    /// The public figures as they are now, of a market that clears by itself.
    pub(super) fn figures(&self) -> Prices {
        Prices {
            price: self.book.price().and_then(Price::from_micros),
            lowest_winning_bid: self.book.lowest_winning_bid().and_then(Price::from_micros),
            reserve: self.settings.reserve,
            supply: self.auctioned(),
            sold: self.book.sold(),
            wanted: u64::from(self.book.demand()),
            on_demand: self.on_demand(),
        }
    }

    /// Servers that somebody may have.
    pub(super) const fn usable(&self) -> u32 {
        self.supply.saturating_sub(self.settings.held_back_units)
    }

    /// Servers that on-demand orders have before the auction.
    pub(super) fn on_demand(&self) -> u32 {
        self.ordered.min(self.usable())
    }

    /// Servers that the auction has.
    pub(super) fn auctioned(&self) -> u32 {
        self.usable() - self.on_demand()
    }

    /// Full notice from `now` on.
    pub(super) const fn notice_from(&self, now: Timestamp) -> Timestamp {
        now.plus_seconds(self.settings.notice_seconds)
    }

    /// Until when, from `now`, a notice whose server is promised is final.
    pub(super) fn withdraw_until(&self, now: Timestamp) -> Timestamp {
        match self.settings.withdraw_until_seconds {
            Some(seconds) => now.plus_seconds(seconds),
            None => now.plus_micros(i64::from(self.settings.notice_seconds) * 500_000),
        }
    }

    /// Notes that servers go at an instant.
    pub(super) fn note_departure(&mut self, gone_at: Timestamp, units: u32) {
        let place = self.departures.partition_point(|departure| departure.gone_at < gone_at);
        if let Some(same) = self.departures.get_mut(place)
            && same.gone_at == gone_at
        {
            same.units = same.units.saturating_add(units);
        } else if self.departures.len() < DEPARTURES_MAX {
            self.departures.insert(place, Departure { gone_at, units });
        } else {
            // Too many to keep apart: these go with the next sooner ones, or the soonest of all become sooner.
            let place = place.saturating_sub(1);
            if let Some(sooner) = self.departures.get_mut(place) {
                sooner.gone_at = sooner.gone_at.min(gone_at);
                sooner.units = sooner.units.saturating_add(units);
            }
        }
    }

    /// Digest of everything but bids, leases and sources.
    pub(super) fn digest(&self) -> u128 {
        let told = self.told.unwrap_or_default();
        let price = told.price.map_or(u64::MAX, Price::micros);
        let lowest = told.lowest_winning_bid.map_or(u64::MAX, Price::micros);
        let coupling = &self.coupling;
        let flags = u64::from(self.told.is_some())
            | (u64::from(self.is_shaken) << 1)
            | (u64::from(coupling.is_coupled) << 2);
        let place = u64::from(self.number) | (flags << 32);
        let sold = (u64::from(told.supply) << 32) | u64::from(told.sold);
        let words = [
            place,
            self.book.content_hash(),
            price,
            lowest,
            told.reserve.micros(),
            sold,
            told.wanted,
            u64::from(self.supply),
        ];
        let mut sum = digest(Kind::Market, words).wrapping_add(self.settings_digest);
        if told.on_demand > 0 {
            let words = [u64::from(self.number), u64::from(told.on_demand), 2, 0];
            sum = sum.wrapping_add(digest(Kind::Settings, words));
        }
        if let Some(round) = coupling.idle_since {
            sum = sum.wrapping_add(digest(Kind::Settings, [u64::from(self.number), round, 1, 0]));
        }
        for departure in &self.departures {
            let words =
                [u64::from(self.number), departure.gone_at.micros() as u64, u64::from(departure.units), 0];
            sum = sum.wrapping_add(digest(Kind::Departure, words));
        }
        sum
    }
}

/// Digest of what a source said.
pub(super) fn digest_of_source(market: MarketNumber, id: &SourceId, source: &Source) -> u128 {
    let gone_at = source.gone_at.map_or(i64::MIN, Timestamp::micros) as u64;
    let place = u64::from(market) | ((source.cause as u64) << 16) | (u64::from(source.units) << 32);
    digest(Kind::Source, [text(id.as_str()), place, source.generation, gone_at])
}

fn digest_of_settings(id: &MarketId, settings: &MarketSettings) -> u128 {
    // Settings are plain data; writing them to memory cannot fail.
    let mut text = serde_json::to_vec(settings).unwrap_or_default();
    text.extend_from_slice(id.as_str().as_bytes());
    bytes(Kind::Settings, &text)
}
