//! Random instances of B bids × P markets × k options with quantities 1 to 16 and supply at half of demand, and the
//! events that follow: 50 % new limits for a bid, 24 % new bids, 24 % cancelled ones, 2 % supply.

use market::joint::{LotOption, LotTerms};

/// Rungs of $0.001 that limits are drawn from, evenly.
const RUNGS: u64 = 8_192;
const RESERVE: u64 = 1_000;
/// Supply moves by at most this much at once.
const SUPPLY_STEP: u32 = 32;

/// The shape of an instance.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) bids: u32,
    pub(crate) markets: u32,
    pub(crate) options: u32,
    /// Of a hundred bids, how many have one option only.
    pub(crate) single_percent: u32,
}

/// A bid.
#[derive(Clone)]
pub(crate) struct Bid {
    pub(crate) age: u64,
    pub(crate) units: u32,
    pub(crate) options: Vec<LotOption>,
}

impl Bid {
    pub(crate) fn terms(&self) -> LotTerms<'_> {
        LotTerms { age: self.age, number: self.age, units: self.units, options: &self.options }
    }
}

/// One event. Bids are named by where they stand in a list in which the last takes a cancelled one's place.
pub(crate) enum Event {
    Add(Bid),
    Cancel(u32),
    /// The same bid with other limits.
    Amend(u32, Bid),
    Supply(u32, u32),
}

/// An instance, and what then happens to it.
pub(crate) struct Stream {
    pub(crate) reserve: u64,
    pub(crate) supply: Vec<u32>,
    pub(crate) bids: Vec<Bid>,
    pub(crate) events: Vec<Event>,
}

/// A small generator of numbers, the same everywhere (xorshift64*).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((word * u64::from(end)) >> 32) as u32
    }

    fn bid(&mut self, shape: Shape, age: u64) -> Bid {
        let units = 1 + self.below(16);
        let count = if self.below(100) < shape.single_percent { 1 } else { shape.options.min(shape.markets) };
        let mut options: Vec<LotOption> = Vec::new();
        while (options.len() as u32) < count {
            let market = self.below(shape.markets);
            if options.iter().all(|option| option.market != market) {
                options.push(LotOption { market, worth: self.limit(), plain_limit: None, kept: 0 });
            }
        }
        Bid { age, units, options }
    }

    fn limit(&mut self) -> u64 {
        1_000 * (1 + u64::from(self.below(RUNGS as u32)))
    }
}

/// A stream of so many events.
pub(crate) fn stream(seed: u64, shape: Shape, count: usize) -> Stream {
    let mut numbers = Numbers(seed);
    let bids: Vec<Bid> = (0..u64::from(shape.bids)).map(|age| numbers.bid(shape, age)).collect();
    let demand: u64 = bids.iter().map(|bid| u64::from(bid.units)).sum();
    let half = (demand / 2 / u64::from(shape.markets)) as u32;
    let mut supply = vec![half; shape.markets as usize];
    let first = supply.clone();
    let mut standing = bids.clone();
    let mut age = u64::from(shape.bids);
    let mut events = Vec::with_capacity(count);
    while events.len() < count {
        let which = numbers.below(standing.len() as u32);
        events.push(match numbers.below(100) {
            0..50 => {
                let bid = &mut standing[which as usize];
                for option in &mut bid.options {
                    option.worth = numbers.limit();
                }
                Event::Amend(which, bid.clone())
            }
            50..74 => {
                let bid = numbers.bid(shape, age);
                age += 1;
                standing.push(bid.clone());
                Event::Add(bid)
            }
            74..98 => {
                standing.swap_remove(which as usize);
                Event::Cancel(which)
            }
            _ => {
                let market = numbers.below(shape.markets);
                let supply = &mut supply[market as usize];
                *supply = (*supply + numbers.below(2 * SUPPLY_STEP + 1)).saturating_sub(SUPPLY_STEP);
                Event::Supply(market, *supply)
            }
        });
    }
    Stream { reserve: RESERVE, supply: first, bids, events }
}
