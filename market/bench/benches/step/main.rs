//! What a command costs the market as a whole, beside its book alone on the same events in the same run.
//!
//! `cargo bench -p market-bench --bench step`. Thread CPU time, best of several; figures are nanoseconds per command:
//! checking who may and what is right, looking the bid up by its hashed name, the book, the events as they are
//! journaled, leases and notices, public figures, the state hash. Once with a round at every command, and once with
//! turns of 64 commands. Commands are decoded beforehand, as they are on another thread. Arguments: how many events,
//! and one size instead of all.

// A measuring program: it may panic, print, and reckon in floating point.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

#[allow(dead_code)]
#[path = "../book/ours.rs"]
mod ours;
#[path = "../book/stream.rs"]
mod stream;

use std::hint::black_box;

use market::Market;
use ours::Ours;
use proto::machine::{CommandKey, Received, Role, Sender};
use proto::market::{
    AdoptRules, AmendBid, BidOption, CancelBid, DefineMarket, Ladder, MarketCommand, MarketEvent,
    MarketSettings, PlaceBid, Rules, SupplyCause, SupplyOffered, Terms,
};
use proto::{CommandId, Machine, Price, Timestamp};
use stream::{Event, Stream, stream};

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
const RUNGS: u32 = 8_192;
const EVENTS: usize = 300_000;
const RUNS: usize = 3;
/// Commands of the larger turns.
const TURN: usize = 64;
/// Tenants that the bids belong to.
const TENANTS: u32 = 997;
/// A market's notice, in seconds. Time passes so that there are as many commands in a notice as bids stand: each bid
/// changes every few minutes.
const NOTICE_SECONDS: u32 = 360;

/// CPU time of this thread, in nanoseconds.
fn cpu_nanoseconds() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Commands written at a time.
const BATCH: usize = 256;

/// Makes commands of events. A bid's name is its number and how often the number was used.
#[derive(Clone)]
struct Writer {
    ids: u64,
    /// By number: uses, version, units.
    bids: Vec<(u32, u32, u32)>,
    generation: u64,
}

impl Writer {
    fn id(&mut self) -> CommandId {
        self.ids += 1;
        format!("c{}", self.ids).parse().unwrap()
    }

    fn command(&mut self, event: Event) -> Received<MarketCommand> {
        let gateway = Sender { role: Role::Gateway, principal: "web".parse().unwrap() };
        let operator = Sender { role: Role::Operator, principal: "ops".parse().unwrap() };
        let option = |rung: u32| BidOption {
            market: "dfw/gp.large".parse().unwrap(),
            limit: Price::from_micros(u64::from(rung) * 1_000).unwrap(),
            running_limit: None,
        };
        let tenant = |bid: u32| format!("t{}", bid % TENANTS).parse().unwrap();
        match event {
            Event::Add { bid, rung, units } => {
                if self.bids.len() <= bid as usize {
                    self.bids.resize(bid as usize + 1, (0, 0, 0));
                }
                let uses = self.bids[bid as usize].0 + 1;
                self.bids[bid as usize] = (uses, 1, units);
                let command = PlaceBid {
                    id: format!("b{bid}-{uses}").parse().unwrap(),
                    tenant: tenant(bid),
                    cluster: "c".parse().unwrap(),
                    pool: "p".parse().unwrap(),
                    quantity: units,
                    min_quantity: 1,
                    options: vec![option(rung)],
                    on_demand: false,
                    expires_at: None,
                    key: CommandKey::default(),
                };
                Received::new(gateway, MarketCommand::PlaceBid(command.into()))
            }
            Event::Reprice { bid, rung } => {
                let id = self.id();
                let (uses, version, units) = self.bids[bid as usize];
                self.bids[bid as usize].1 += 1;
                let terms =
                    Terms { quantity: units, min_quantity: 1, options: vec![option(rung)], expires_at: None };
                let command = AmendBid {
                    id,
                    tenant: tenant(bid),
                    bid: format!("b{bid}-{uses}").parse().unwrap(),
                    version,
                    terms,
                    give_up: Vec::new(),
                    key: CommandKey::default(),
                };
                Received::new(gateway, MarketCommand::AmendBid(command.into()))
            }
            Event::Cancel { bid } => {
                let id = self.id();
                let bid_id = format!("b{bid}-{}", self.bids[bid as usize].0).parse().unwrap();
                let command = CancelBid { id, tenant: tenant(bid), bid: bid_id, key: CommandKey::default() };
                Received::new(gateway, MarketCommand::CancelBid(command))
            }
            Event::Supply { supply } => {
                self.generation += 1;
                let command = SupplyOffered {
                    id: self.id(),
                    source: "h1".parse().unwrap(),
                    generation: self.generation,
                    market: "dfw/gp.large".parse().unwrap(),
                    units: supply,
                    cause: SupplyCause::default(),
                    gone_at: None,
                    lost: Vec::new(),
                };
                Received::new(operator, MarketCommand::SupplyOffered(command))
            }
        }
    }

    fn rules(&mut self) -> Received<MarketCommand> {
        let operator = Sender { role: Role::Operator, principal: "ops".parse().unwrap() };
        // Ended bids are remembered as long as a notice is, so that forgetting is measured, too.
        let rules = Rules {
            coalesce_milliseconds: 0,
            finished_bids_kept_seconds: NOTICE_SECONDS,
            ..Rules::default()
        };
        Received::new(operator, MarketCommand::AdoptRules(AdoptRules { id: self.id(), rules }))
    }

    fn open(&mut self) -> Received<MarketCommand> {
        let operator = Sender { role: Role::Operator, principal: "ops".parse().unwrap() };
        let settings = MarketSettings {
            reserve: Price::from_micros(1_000).unwrap(),
            ladder: Ladder::default(),
            notice_seconds: NOTICE_SECONDS,
            withdraw_until_seconds: None,
            on_demand_price: None,
            on_demand_units_max: None,
            held_back_units: 0,
        };
        let command = DefineMarket { id: self.id(), market: "dfw/gp.large".parse().unwrap(), settings };
        Received::new(operator, MarketCommand::DefineMarket(command))
    }
}

/// A market with its standing bids, and the writer of what comes.
fn prepare(stream: &Stream) -> (Market, Writer) {
    let mut writer = Writer { ids: 0, bids: Vec::new(), generation: 0 };
    let mut market = Market::new(&"main".parse().unwrap());
    let mut events = Vec::new();
    let start = Timestamp::from_micros(0);
    for received in [writer.open(), writer.rules()] {
        market.step(start, &received, &mut events);
    }
    for &event in &stream.standing {
        let received = writer.command(event);
        market.step(start, &received, &mut events);
        events.clear();
    }
    let received = writer.command(Event::Supply { supply: stream.supply });
    market.step(start, &received, &mut events);
    wake(&mut market, start, &mut events);
    (market, writer)
}

#[inline]
fn wake(market: &mut Market, now: Timestamp, events: &mut Vec<MarketEvent>) {
    while market.wake_at().is_some_and(|due| due <= now) {
        market.wake(now, events);
    }
}

/// What a run took.
struct Taken {
    nanoseconds: f64,
    events: f64,
}

/// All commands in turns of so many. Commands are written in batches right before they are decided, off the clock:
/// they are in the cache, as commands are that were just decoded.
fn run(market: &mut Market, writer: &mut Writer, stream: &Stream, turn: usize) -> Taken {
    let pace_microseconds = i64::from(NOTICE_SECONDS) * 1_000_000 / stream.standing.len() as i64;
    let mut events = Vec::with_capacity(4_096);
    let (mut sum, mut count, mut taken) = (0_u64, 0, 0);
    let mut now = Timestamp::from_micros(0);
    for batch in stream.events.chunks(BATCH) {
        let commands: Vec<_> = batch.iter().map(|&event| writer.command(event)).collect();
        let begun = cpu_nanoseconds();
        for commands in commands.chunks(turn) {
            now = now.plus_micros(pace_microseconds * turn as i64);
            if turn > 1 {
                sum = commands.iter().fold(sum, |sum, received| sum ^ market.touch(received));
            }
            wake(market, now, &mut events);
            for received in commands {
                market.step(now, received, &mut events);
            }
            wake(market, now, &mut events);
            sum = sum.wrapping_mul(3).wrapping_add(market.hash().0 as u64);
            count += events.len();
            events.clear();
        }
        taken += cpu_nanoseconds() - begun;
    }
    black_box(sum);
    let commands = stream.events.len() as f64;
    Taken { nanoseconds: taken as f64 / commands, events: count as f64 / commands }
}

fn main() {
    let numbers: Vec<usize> = std::env::args().filter_map(|word| word.parse().ok()).collect();
    let events = numbers.first().copied().unwrap_or(EVENTS);
    let sizes = numbers.get(1).map_or(SIZES.to_vec(), |&bids| vec![bids as u32]);
    println!(
        "{:>9} {:>8} {:>9} {:>7} {:>8} {:>9} {:>7} {:>8}",
        "bids", "book", "step", "ratio", "ev/cmd", "of 64", "ratio", "ev/cmd"
    );
    for bids in sizes {
        let mix = stream(1, bids, RUNGS, events);
        let mut book = f64::INFINITY;
        let mut steps = [(f64::INFINITY, 0.0); 2];
        let (market, writer) = prepare(&mix);
        for _ in 0..RUNS {
            let mut ours = Ours::new(&mix);
            let begun = cpu_nanoseconds();
            black_box(ours.run(&mix.events));
            book = book.min((cpu_nanoseconds() - begun) as f64 / events as f64);
            for (place, turn) in [1, TURN].into_iter().enumerate() {
                let (mut market, mut writer) = (market.clone(), writer.clone());
                let taken = run(&mut market, &mut writer, &mix, turn);
                steps[place].0 = steps[place].0.min(taken.nanoseconds);
                steps[place].1 = taken.events;
                market.check_turn().expect("a sound market");
            }
        }
        let [(single, single_events), (many, many_events)] = steps;
        println!(
            "{bids:>9} {book:>8.1} {single:>9.1} {:>7.2} {single_events:>8.2} {many:>9.1} {:>7.2} {many_events:>8.2}",
            single / book,
            many / book,
        );
    }
}
