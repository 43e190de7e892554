//! What one event costs the market's book, beside other order books and beside sorting.
//!
//! `cargo bench -p market-bench --bench book`. Thread CPU time, best of several; figures are nanoseconds per event.
//! The book is first compared with sorting on the same streams. A smaller number of events may be given as an
//! argument.

// A measuring program: it may panic, print, and reckon in floating point.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

mod naive;
mod ours;
mod peers;
mod stream;

use std::hint::black_box;

use naive::Naive;
use ours::Ours;
use peers::{Matchcore, Obcore};
use stream::{Stream, stream};

const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];
/// Rungs of the mix, and of a ladder so coarse that everything ties.
const RUNGS: u32 = 8_192;
const RUNGS_COARSE: u32 = 10;
const EVENTS: usize = 2_000_000;
const RUNS: usize = 3;

/// CPU time of this thread, in nanoseconds.
fn cpu_nanoseconds() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

/// Nanoseconds per event, best of several runs from the same start.
fn measure<T>(events: usize, start: impl Fn() -> T, run: impl Fn(&mut T) -> u64) -> f64 {
    (0..RUNS)
        .map(|_| {
            let mut subject = start();
            let begun = cpu_nanoseconds();
            black_box(run(&mut subject));
            (cpu_nanoseconds() - begun) as f64 / events as f64
        })
        .fold(f64::INFINITY, f64::min)
}

/// The book against sorting, after every event: price, and what every touched bid wins.
fn check(bids: u32, rungs: u32, events: usize) {
    let stream = stream(7, bids, rungs, events);
    let mut ours = Ours::new(&stream);
    let mut naive = Naive::new(&stream);
    for (number, &event) in stream.events.iter().enumerate() {
        naive.change(event);
        naive.clear();
        let expected = naive.price;
        ours.operate(event);
        ours.book.clear();
        assert_eq!(ours.book.price(), Some(expected), "price after event {number} of {event:?}");
        assert!(number % 64 != 0 || same_winners(&ours, &naive), "winners after event {number}");
    }
    assert!(same_winners(&ours, &naive), "winners at the end");
    assert_eq!(ours.book.content_hash(), ours.book.content_hash_from_scratch());
}

fn same_winners(ours: &Ours, naive: &Naive) -> bool {
    naive.numbers().all(|bid| naive.won(bid) == ours.won(bid))
}

fn naive_nanoseconds(stream: &Stream, events: usize) -> f64 {
    measure(
        events,
        || Naive::new(stream),
        |naive| {
            stream.events.iter().take(events).fold(0, |sum, &event| {
                naive.change(event);
                sum + naive.clear().len() as u64 + naive.price
            })
        },
    )
}

fn main() {
    if let Some(bids) = std::env::var("PROFILE").ok().and_then(|text| text.parse().ok()) {
        let events = std::env::var("EVENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(EVENTS);
        let mix = stream(1, bids, RUNGS, events);
        let book = measure(events, || Ours::new(&mix), |ours| ours.run(&mix.events));
        println!("{bids} {book:.1}");
        return;
    }
    let events = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(EVENTS);
    check(1_000, RUNGS, 20_000);
    check(1_000, RUNGS_COARSE, 20_000);
    check(100_000, RUNGS, 60);
    println!("the book agrees with sorting on {} events", 40_060);
    println!(
        "{:>9} {:>8} {:>8} {:>8} {:>9} {:>12} {:>9} {:>8} {:>8}",
        "bids", "book", "obcore", "matchc.", "best/book", "naive", "naive/b.", "coarse", "B/bid"
    );
    let mut figures = Vec::new();
    for bids in SIZES {
        let mix = stream(1, bids, RUNGS, events);
        let coarse = stream(2, bids, RUNGS_COARSE, events);
        let book = measure(events, || Ours::new(&mix), |ours| ours.run(&mix.events));
        let tied = measure(events, || Ours::new(&coarse), |ours| ours.run(&coarse.events));
        let obcore = measure(events, || Obcore::new(&mix), |peer| peer.run(&mix.events));
        let matchcore = measure(events, || Matchcore::new(&mix), |peer| peer.run(&mix.events));
        let naive = match bids {
            0..10_000 => naive_nanoseconds(&mix, 2_000),
            10_000..1_000_000 => naive_nanoseconds(&mix, 20),
            _ => f64::NAN,
        };
        let best = obcore.min(matchcore);
        let bytes = Ours::new(&mix).book.bytes() as f64 / f64::from(bids);
        println!(
            "{bids:>9} {book:>8.1} {obcore:>8.1} {matchcore:>8.1} {:>9.1} {naive:>12.0} {:>9.0} {tied:>8.1} {bytes:>8.1}",
            best / book,
            naive / book,
        );
        figures.push(book);
    }
    println!("1 million : 1 thousand = {:.2}", figures[2] / figures[0]);
}
