//! The stream of events: 50 % re-price, 24 % add, 24 % cancel, 2 % supply, on so many standing bids that half of
//! their units win. Bids have 1 to 16 units.

/// One event. Bids are named by dense numbers that are used again, the last freed first, as a slab does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Add { bid: u32, rung: u32, units: u32 },
    Cancel { bid: u32 },
    Reprice { bid: u32, rung: u32 },
    Supply { supply: u32 },
}

/// The standing bids and what then happens to them.
pub(crate) struct Stream {
    pub(crate) standing: Vec<Event>,
    pub(crate) supply: u32,
    pub(crate) events: Vec<Event>,
}

/// A small generator of numbers, the same everywhere (xorshift64*).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((word * u64::from(end)) >> 32) as u32
    }
}

/// Supply moves by at most this much at once.
const SUPPLY_STEP: u32 = 32;

/// A stream on `rungs` rungs, from rung 1 on, drawn evenly.
pub(crate) fn stream(seed: u64, bids: u32, rungs: u32, events: usize) -> Stream {
    let mut numbers = Numbers(seed);
    let mut standing: Vec<u32> = (0..bids).collect();
    let mut free: Vec<u32> = Vec::new();
    let mut next = bids;
    let mut demand = 0;
    let mut units_of: Vec<u32> = Vec::new();
    let first = (0..bids)
        .map(|bid| {
            let units = 1 + numbers.below(16);
            demand += units;
            units_of.push(units);
            Event::Add { bid, rung: 1 + numbers.below(rungs), units }
        })
        .collect();
    let half = demand / 2;
    let mut supply = half;
    let mut list = Vec::with_capacity(events);
    while list.len() < events {
        let rung = 1 + numbers.below(rungs);
        let which = numbers.below(standing.len() as u32) as usize;
        list.push(match numbers.below(100) {
            0..50 => Event::Reprice { bid: standing[which], rung },
            // As many adds as cancels; a book that has drifted a twentieth off its size is led back.
            50..98 => {
                let drift = (standing.len() as u32).abs_diff(bids) > bids / 20;
                let adds = if drift { standing.len() < bids as usize } else { numbers.below(2) == 0 };
                if adds {
                    let bid = free.pop().unwrap_or_else(|| {
                        next += 1;
                        next - 1
                    });
                    standing.push(bid);
                    let units = 1 + numbers.below(16);
                    units_of.resize(next as usize, 0);
                    units_of[bid as usize] = units;
                    demand += units;
                    Event::Add { bid, rung, units }
                } else {
                    let bid = standing.swap_remove(which);
                    free.push(bid);
                    demand -= units_of[bid as usize];
                    Event::Cancel { bid }
                }
            }
            _ => {
                // A walk that stays near half of the demand.
                let half = demand / 2;
                let step = 1 + numbers.below(SUPPLY_STEP);
                let up =
                    if supply.abs_diff(half) > half / 50 { supply < half } else { numbers.below(2) == 0 };
                supply = if up { supply + step } else { supply.saturating_sub(step) };
                Event::Supply { supply }
            }
        });
    }
    Stream { standing: first, supply: half, events: list }
}
