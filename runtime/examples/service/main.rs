//! What a durable service reaches with the toy machine: latency beside an empty service, throughput beside its
//! floors, and a restart. The market is measured alike by `market/service/examples/service`.
//!
//! `cargo run --release -p runtime --example service -- [latency [SECONDS] | throughput [SECONDS] | restart [COMMANDS]]`

#![allow(clippy::print_stdout, reason = "the report is this program's output")]

mod chain;
mod client;
mod cpu;
mod engine;
mod envelopes;
mod floors;
mod latency;
mod restart;
mod served;
mod throughput;

use engine::Workload;
use runtime::runner::NoView;
use turn::testing::Tally;

struct Additions;

impl Workload for Additions {
    type Machine = Tally;
    type View = NoView;
    const SUBJECT: &'static str = "walras.v1.command.tally.main.storefront.load";
    const QUESTION: &'static str = "state";

    fn preparations() -> Vec<(&'static str, String)> {
        Vec::new()
    }

    fn command(number: u64) -> String {
        format!(r#"{{"type":"Add","id":"c{number:010}","tenant":"t{}","amount":1}}"#, number % 1_000)
    }
}

fn main() -> anyhow::Result<()> {
    engine::main::<Additions>()
}
