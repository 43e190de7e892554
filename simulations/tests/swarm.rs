//! Seeds with every fault there is, each run twice and compared.

use std::collections::BTreeSet;

use simulations::world::{CrashPoint, Outcome, World};

/// Seeds of a full test run; `WALRAS_SIMULATION_SEEDS` sets another number.
const SEEDS: u64 = 50;
/// Virtual time of each, in seconds.
const SECONDS: u32 = 300;

#[allow(clippy::disallowed_methods, reason = "how many seeds a test runs is no decision of the core's")]
fn seeds() -> u64 {
    std::env::var("WALRAS_SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(SEEDS)
}

fn run(seed: u64) -> Outcome {
    World::new(seed).run(SECONDS).unwrap_or_else(|broken| panic!("seed {seed}: {broken}"))
}

#[test]
fn every_invariant_holds_in_every_world_and_a_seed_is_a_whole_run() {
    let mut crashed = BTreeSet::new();
    let mut total = Outcome::default();
    for seed in 1..=seeds() {
        let outcome = run(seed);
        assert_eq!(outcome, run(seed), "seed {seed}: two runs differ");
        crashed.extend(outcome.crashes.keys().copied());
        total.answered += outcome.answered;
        total.refused += outcome.refused;
        total.awarded += outcome.awarded;
        total.noticed += outcome.noticed;
        total.withdrawn += outcome.withdrawn;
        total.ready += outcome.ready;
        total.died += outcome.died;
        total.fenced += outcome.fenced;
        total.recreated += outcome.recreated;
    }
    println!("{total:?}, crashes at {crashed:?}");
    if seeds() >= SEEDS {
        assert_eq!(crashed, CrashPoint::ALL.into(), "some step of a turn never crashed");
        for (what, count) in [
            ("answered", total.answered),
            ("refused", total.refused),
            ("awarded", total.awarded),
            ("noticed", total.noticed),
            ("withdrawn", total.withdrawn),
            ("ready", total.ready),
            ("died", total.died),
            ("fenced", total.fenced),
            ("recreated", total.recreated),
        ] {
            assert!(count > 0, "in {SEEDS} worlds nothing was {what}");
        }
    }
}
