//! Planes of the sizes seen in the field, and perfect packings cut to pieces, so that the optimum is known.

use placement::pack::{Host, Plane, Problem, solve};

use crate::cpu_nanoseconds;
use crate::peers::{Outcome, best_fit, dot_product, first_fit};

const ZONES: u32 = 3;
/// milli-CPU, MiB and pods of a host.
const CAPACITY: [u64; 3] = [7_500, 30_000, 110];
const EFFORT: u64 = 2_000_000;
const SEEDS: u64 = 5;

/// A sequence of numbers from a seed (`SplitMix64`).
pub(crate) struct Draws(pub(crate) u64);

impl Draws {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn unit(&mut self) -> f64 {
        ((self.draw() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// A log-normal amount.
    pub(crate) fn around(&mut self, median: f64, sigma: f64) -> f64 {
        let normal = (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos();
        median * (sigma * normal).exp()
    }
}

fn hosts(count: u32) -> Vec<Host> {
    let host = |at: u32| Host { zone: at % ZONES, capacity: CAPACITY.to_vec(), leaving: false };
    (0..count).map(host).collect()
}

/// 70 % small, 22 % medium, 7 % large, 1 % very large; 40 % with one replica, 45 % with two, 15 % with three; three in
/// five are idle and take what an empty plane takes.
fn field(planes: usize, seed: u64) -> Problem {
    let mut draws = Draws(seed);
    let mut plane = || {
        let (cores, gib) = match draws.below(100) {
            0..70 => (0.19, 0.65),
            70..92 => (0.5, 1.1),
            92..99 => (2.0, 3.0),
            _ => (6.0, 10.0),
        };
        let idle = draws.below(100) < 60;
        let (cores, gib) = if idle { (0.05, 0.55) } else { (cores, gib) };
        let milli = (draws.around(cores, 0.6) * 1000.0).clamp(10.0, 7_500.0) as u64;
        let mib = (draws.around(gib, 0.35) * 1024.0).clamp(64.0, 30_000.0) as u64;
        let replicas = match draws.below(100) {
            0..40 => 1,
            40..85 => 2,
            _ => 3,
        };
        Plane { replicas, request: vec![milli, mib, 1], spread: true, on: Vec::new() }
    };
    let planes: Vec<Plane> = (0..planes).map(|_| plane()).collect();
    let bound = bound(&planes);
    Problem { resources: 3, hosts: hosts(bound * 3 / 2 + 9), template: None, planes }
}

/// Hosts that the sum of all requests needs.
fn bound(planes: &[Plane]) -> u32 {
    let needed = |resource: usize| {
        let sum: u64 = planes.iter().map(|plane| plane.request[resource] * u64::from(plane.replicas)).sum();
        sum.div_ceil(CAPACITY[resource]) as u32
    };
    (0..CAPACITY.len()).map(needed).max().unwrap()
}

/// Hosts, three at a time and one of them in each zone, cut into the same pieces that fill them to the last unit; the
/// three pieces of a kind are one plane of three replicas, or one of two and one of one, or three of one. Of a
/// thousand planes, `left_out` are left out.
fn perfect(triples: u32, left_out: u64, seed: u64) -> Problem {
    let mut draws = Draws(seed);
    let mut planes = Vec::new();
    for _ in 0..triples {
        let pieces = 4 + draws.below(9) as usize;
        let cut: Vec<Vec<u64>> = CAPACITY.iter().map(|whole| cuts(&mut draws, *whole, pieces)).collect();
        for piece in 0..pieces {
            let request: Vec<u64> = cut.iter().map(|amounts| amounts[piece]).collect();
            let replicas: &[u32] = [&[3][..], &[2, 1], &[1, 1, 1]][draws.below(3) as usize];
            for replicas in replicas {
                if draws.below(1_000) >= left_out {
                    let (replicas, request) = (*replicas, request.clone());
                    planes.push(Plane { replicas, request, spread: true, on: Vec::new() });
                }
            }
        }
    }
    for at in (1..planes.len()).rev() {
        planes.swap(at, draws.below(at as u64 + 1) as usize);
    }
    Problem { resources: 3, hosts: hosts(triples * ZONES * 3 / 2), template: None, planes }
}

/// A whole cut into so many pieces, none empty, that add up to it.
fn cuts(draws: &mut Draws, whole: u64, pieces: usize) -> Vec<u64> {
    let mut at: Vec<u64> = (1..pieces).map(|_| 1 + draws.below(whole - pieces as u64)).collect();
    at.extend([0, whole - pieces as u64]);
    at.sort_unstable();
    // Each gets one besides, so that none is empty.
    at.windows(2).map(|pair| pair[1] - pair[0] + 1).collect()
}

pub(crate) fn run(effort: Option<u64>) {
    let effort = effort.unwrap_or(EFFORT);
    println!("hosts used over the bound in %, mean of {SEEDS} seeds; (replicas left out) if any; CPU time");
    println!(
        "{:<28} {:>7} {:>17} {:>17} {:>17} {:>17} {:>17}",
        "problem", "bound", "first-fit", "best-fit", "dot-product", "one pass", "searched"
    );
    for planes in [100, 1_000, 5_000] {
        let problems: Vec<Problem> = (1..=SEEDS).map(|seed| field(planes, seed)).collect();
        compare(&format!("field, {planes} planes"), &problems, effort);
    }
    for (triples, left_out) in [(10, 0), (100, 0), (100, 30), (100, 100)] {
        let problems: Vec<Problem> = (1..=SEEDS).map(|seed| perfect(triples, left_out, seed)).collect();
        for problem in &problems {
            // What was cut adds up to the hosts it was cut from.
            assert!(left_out > 0 || bound(&problem.planes) == triples * ZONES);
        }
        let title = format!("perfect, {} hosts, {}% out", triples * ZONES, left_out / 10);
        compare(&title, &problems, effort);
    }
}

fn compare(title: &str, problems: &[Problem], effort: u64) {
    let bounds: Vec<u32> = problems.iter().map(|problem| bound(&problem.planes)).collect();
    let mean = f64::from(bounds.iter().sum::<u32>()) / bounds.len() as f64;
    print!("{title:<28} {mean:>7.1}");
    let ours = |problem: &Problem, effort: u64| {
        let solution = solve(problem, effort).unwrap();
        let unplaced = solution.unplaced.iter().map(|unplaced| unplaced.missing as usize).sum();
        Outcome { hosts: solution.hosts_used as usize, unplaced }
    };
    let methods: [&dyn Fn(&Problem) -> Outcome; 5] =
        [&first_fit, &best_fit, &dot_product, &|problem| ours(problem, 0), &|problem| ours(problem, effort)];
    for method in methods {
        let begun = cpu_nanoseconds();
        let outcomes: Vec<Outcome> = problems.iter().map(method).collect();
        let milliseconds = (cpu_nanoseconds() - begun) as f64 / 1e6 / problems.len() as f64;
        let over = |(outcome, bound): (&Outcome, &u32)| outcome.hosts as f64 / f64::from(*bound) - 1.0;
        let gap = outcomes.iter().zip(&bounds).map(over).sum::<f64>() / problems.len() as f64 * 100.0;
        let unplaced: usize = outcomes.iter().map(|outcome| outcome.unplaced).sum();
        let unplaced = if unplaced > 0 { format!("({unplaced}) ") } else { String::new() };
        print!(" {:>17}", format!("{unplaced}{gap:.2} {milliseconds:.0}ms"));
    }
    println!();
}
