//! How well and how fast planes are packed.
//!
//! `cargo bench -p placement-bench --bench packing -- published` packs the instances of
//! <https://github.com/Vectorpack/experiments_vector_paper>, read from `vectorpack/` in the folder that
//! `WALRAS_SHARED_DATA` names (`../shared/data` beside the repository where it is not set); `planes` packs planes of
//! the sizes seen in the field, and perfect packings cut to pieces, beside first-fit, best-fit and dot-product;
//! `online` places planes one by one beside a scan of all hosts. All of it where nothing is named. Thread CPU time. Figures follow `--effort STEPS` where given.

// A measuring program: it may panic, print, and reckon in floating point.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout)]

mod generated;
mod online;
mod peers;
mod published;

/// CPU time of this thread, in nanoseconds.
fn cpu_nanoseconds() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let effort =
        words.iter().position(|word| word == "--effort").and_then(|at| words.get(at + 1)?.parse().ok());
    let named = |name: &str| words.iter().any(|word| word == name);
    let all = !["published", "planes", "online"].into_iter().any(named);
    if all || named("published") {
        published::run(effort);
    }
    if all || named("planes") {
        generated::run(effort);
    }
    if all || named("online") {
        online::run();
    }
}
