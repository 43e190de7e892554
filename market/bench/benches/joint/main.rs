//! What one event costs the joint clearing of several markets.
//!
//! `cargo bench -p market-bench --bench joint`. After every event the assignment is the best, changes are told and
//! winners incumbent, and the prices reckoned; `prices` is the latter's share. Percentiles are of the wall clock, means of
//! the thread's CPU time. At the end of each run the engine's proof that its assignment is the best is checked.
//! `INSTANCE=file` writes the 10,000 × 50 × 4 instance as JSON instead, for `highs.py` beside this file.

// A measuring program: it may panic, print, and reckon in floating point.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

mod stream;

use std::hint::black_box;
use std::time::Instant;

use market::joint::{Gang, Joint, Lot, OwnedTerms, settle};
use proto::market::PriceRule;
use stream::{Event, Shape, Stream, stream};

const EVENTS: usize = 20_000;

/// CPU time of this thread, in nanoseconds.
fn cpu_nanoseconds() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

struct Ours {
    joint: Joint,
    lots: Vec<Lot>,
}

impl Ours {
    fn new(stream: &Stream) -> Self {
        let mut joint = Joint::new();
        for &supply in &stream.supply {
            joint.add_market(stream.reserve, supply).expect("bounds");
        }
        let lots = stream.bids.iter().map(|bid| joint.insert(&bid.terms()).expect("bounds")).collect();
        joint.clear();
        // The first winners become incumbents of their markets: that is listed when somebody next looks, and belongs to the
        // load, not to the first event.
        black_box(joint.published(PriceRule::LowestAccepted));
        Self { joint, lots }
    }

    fn play(&mut self, event: &Event) -> usize {
        match event {
            Event::Add(bid) => self.lots.push(self.joint.insert(&bid.terms()).expect("bounds")),
            Event::Cancel(which) => {
                let lot = self.lots.swap_remove(*which as usize);
                self.joint.remove(lot).expect("it stands");
            }
            Event::Amend(which, bid) => {
                let lot = self.lots[*which as usize];
                // What it holds stays incumbent.
                let mut bid = bid.clone();
                for option in &mut bid.options {
                    option.kept = self.joint.won(lot, option.market);
                }
                self.joint.amend(lot, &bid.terms()).expect("bounds");
            }
            &Event::Supply(market, supply) => self.joint.set_supply(market, supply).expect("bounds"),
        }
        let changes = self.joint.clear().len();
        black_box(self.joint.published(PriceRule::LowestAccepted));
        changes
    }
}

/// Microseconds at a fraction of sorted nanoseconds.
fn percentile(sorted: &[u64], fraction: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * fraction) as usize] as f64 / 1_000.0
}

fn measure(shape: Shape, events: usize) -> f64 {
    let stream = stream(1, shape, events);
    let begun = cpu_nanoseconds();
    let mut ours = Ours::new(&stream);
    let load = (cpu_nanoseconds() - begun) as f64 / f64::from(shape.bids) / 1_000.0;
    let mut nanoseconds = Vec::with_capacity(events);
    let mut changes = 0;
    let begun = cpu_nanoseconds();
    for event in &stream.events {
        let before = Instant::now();
        changes += black_box(ours.play(event));
        nanoseconds.push(before.elapsed().as_nanos() as u64);
    }
    let mean = (cpu_nanoseconds() - begun) as f64 / events as f64 / 1_000.0;
    nanoseconds.sort_unstable();
    let begun = cpu_nanoseconds();
    for _ in 0..100 {
        black_box(ours.joint.published(PriceRule::LowestAccepted));
    }
    let prices = (cpu_nanoseconds() - begun) as f64 / 100_000.0;
    ours.joint.check().expect("the assignment is the best");
    println!(
        "{:>9} {:>4} {:>3} {:>4} {load:>8.2} {mean:>8.2} {:>8.2} {:>8.2} {:>9.2} {:>8.2} {:>8.2}",
        shape.bids,
        shape.markets,
        shape.options,
        shape.single_percent,
        percentile(&nanoseconds, 0.5),
        percentile(&nanoseconds, 0.99),
        percentile(&nanoseconds, 1.0),
        prices,
        changes as f64 / events as f64,
    );
    mean
}

/// What it takes to win so many units in any of four markets, asked of a book that stands and stays as it is.
fn quotes(shape: Shape, count: usize) {
    let stream = stream(1, shape, 0);
    let mut ours = Ours::new(&stream);
    let surplus = ours.joint.surplus();
    let mut nanoseconds = Vec::with_capacity(count);
    for at in 0..count as u32 {
        let markets = [0, 1, 2, 3].map(|next| (at * 7 + next * 13) % shape.markets);
        let before = Instant::now();
        black_box(ours.joint.quote(&markets, 1 + at % 16).expect("bounds"));
        nanoseconds.push(before.elapsed().as_nanos() as u64);
    }
    ours.joint.check().expect("the assignment is the best");
    assert_eq!(ours.joint.surplus(), surplus, "a quote changes nothing");
    nanoseconds.sort_unstable();
    println!(
        "{count} quotes for 1 to 16 units in any of 4 markets with {} bids standing, µs: median {:.1}, 99th percentile {:.1}, \
         longest {:.1}",
        shape.bids,
        percentile(&nanoseconds, 0.5),
        percentile(&nanoseconds, 0.99),
        percentile(&nanoseconds, 1.0),
    );
}

/// Half of the busiest market's servers go at once.
fn starve(shape: Shape) {
    let stream = stream(1, shape, 0);
    let mut ours = Ours::new(&stream);
    let begun = cpu_nanoseconds();
    ours.joint.set_supply(0, stream.supply[0] / 2).expect("bounds");
    let changes = ours.joint.clear().len();
    let milliseconds = (cpu_nanoseconds() - begun) as f64 / 1_000_000.0;
    ours.joint.check().expect("the assignment is the best");
    println!(
        "{} of {} servers go with {} bids standing: {milliseconds:.1} ms, {changes} changes",
        stream.supply[0] / 2,
        stream.supply[0],
        shape.bids
    );
}

/// So many gangs come into markets that stand, each all or nothing.
fn cascade(shape: Shape, gangs: u32) {
    let mut stream = stream(1, shape, 0);
    let last = stream.bids.split_off((shape.bids - gangs) as usize);
    let mut ours = Ours::new(&stream);
    let gang = |bid: &stream::Bid| Gang {
        age: bid.age,
        minimum: bid.units,
        limits: bid.options.iter().map(|option| (option.market, option.worth)).collect(),
        lots: vec![OwnedTerms {
            age: bid.age,
            number: bid.age,
            units: bid.units,
            options: bid.options.clone(),
        }],
    };
    let gangs: Vec<Gang> = last.iter().map(gang).collect();
    let begun = cpu_nanoseconds();
    let (fates, passes) = settle(&mut ours.joint, &gangs, market::joint::GANG_PASSES_MAX).expect("bounds");
    let milliseconds = (cpu_nanoseconds() - begun) as f64 / 1_000_000.0;
    let left_out = fates.iter().filter(|fate| matches!(fate, market::joint::Fate::LeftOut { .. })).count();
    println!(
        "{} gangs come to {} bids: {milliseconds:.1} ms, {passes} clearings, {left_out} left out",
        gangs.len(),
        stream.bids.len()
    );
}

fn write_instance(path: &str) {
    let stream = stream(1, Shape { bids: 10_000, markets: 50, options: 4, single_percent: 0 }, 0);
    let bids: Vec<String> = stream
        .bids
        .iter()
        .map(|bid| {
            let options: Vec<String> =
                bid.options.iter().map(|option| format!("[{},{}]", option.market, option.worth)).collect();
            format!("[{},[{}]]", bid.units, options.join(","))
        })
        .collect();
    let text = format!(
        "{{\"reserve\":{},\"supply\":{:?},\"bids\":[{}],\"surplus\":{}}}",
        stream.reserve,
        stream.supply,
        bids.join(","),
        Ours::new(&stream).joint.surplus()
    );
    std::fs::write(path, text).expect("a place to write");
}

fn main() {
    if let Ok(path) = std::env::var("INSTANCE") {
        return write_instance(&path);
    }
    let events = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(EVENTS);
    println!("microseconds per event; changes, incumbents and prices included");
    println!(
        "{:>9} {:>4} {:>3} {:>4} {:>8} {:>8} {:>8} {:>8} {:>9} {:>8} {:>8}",
        "bids", "mkts", "opt", "1op%", "load", "mean", "p50", "p99", "max", "prices", "changes"
    );
    let shape = |bids, markets, options, single_percent| Shape { bids, markets, options, single_percent };
    measure(shape(1_000, 50, 4, 0), events);
    measure(shape(10_000, 50, 4, 0), events);
    measure(shape(100_000, 50, 4, 0), events);
    measure(shape(10_000, 200, 8, 0), events);
    measure(shape(10_000, 50, 4, 100), events);
    let small = measure(shape(10_000, 64, 4, 50), events);
    if std::env::var("SMALL").is_ok() {
        return;
    }
    let large = measure(shape(1_000_000, 64, 4, 50), events);
    println!("1 million : 10 thousand, half of the bids flexible = {:.2}", large / small);
    quotes(shape(1_000_000, 64, 4, 50), 1_000);
    starve(shape(1_000_000, 64, 4, 50));
    cascade(shape(100_000, 64, 4, 50), 1_000);
}
