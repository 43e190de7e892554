//! What the market reaches as a durable service: latency of answers and awards beside an empty service,
//! throughput beside its floors, and a restart.
//!
//! `cargo run --release -p market-service --example service -- [latency [SECONDS] | throughput [SECONDS] | restart [COMMANDS]]`

#![allow(clippy::print_stdout, reason = "the report is this program's output")]

#[path = "../../../../runtime/examples/service/chain.rs"]
mod chain;
#[path = "../../../../runtime/examples/service/client.rs"]
mod client;
#[path = "../../../../runtime/examples/service/cpu.rs"]
mod cpu;
#[path = "../../../../runtime/examples/service/engine.rs"]
mod engine;
#[path = "../../../../runtime/examples/service/envelopes.rs"]
mod envelopes;
#[path = "../../../../runtime/examples/service/floors.rs"]
mod floors;
#[path = "../../../../runtime/examples/service/latency.rs"]
mod latency;
#[path = "../../../../runtime/examples/service/restart.rs"]
mod restart;
#[path = "../../../../runtime/examples/service/served.rs"]
mod served;
#[path = "../../../../runtime/examples/service/throughput.rs"]
mod throughput;

use engine::Workload;
use market::Market;
use market_service::Reading;

const OPERATOR: &str = "walras.v1.command.market.main.operator.op";
const HYPERVISOR: &str = "walras.v1.command.market.main.hypervisor.hv";

/// Tenants in turn, so that no bound on one tenant's bids is reached.
const TENANTS: u64 = 1_000;

/// Bids that all win at once: each is answered and awarded in the round of its own turn.
struct Bids;

impl Workload for Bids {
    type Machine = Market;
    type View = Reading;
    const SUBJECT: &'static str = "walras.v1.command.market.main.storefront.load";
    const QUESTION: &'static str = "markets";
    const AWARDS: bool = true;

    fn preparations() -> Vec<(&'static str, String)> {
        let command = |text: &str| text.to_owned();
        vec![
            (
                OPERATOR,
                command(
                    r#"{"type":"AdoptRules","id":"r1","rules":{"coalesce_milliseconds":0,"standing_bids_max":16000000,"standing_bids_per_tenant_max":16000}}"#,
                ),
            ),
            (
                OPERATOR,
                command(
                    r#"{"type":"AdoptTrust","id":"t1","trusted":[{"role":"storefront","principal":"load"}]}"#,
                ),
            ),
            (
                OPERATOR,
                command(
                    r#"{"type":"DefineMarket","id":"m1","market":"dfw/gp.large","settings":{"reserve":"0.001"}}"#,
                ),
            ),
            (
                HYPERVISOR,
                command(
                    r#"{"type":"SupplyOffered","id":"s1","source":"hv","generation":1,"market":"dfw/gp.large","units":10000000}"#,
                ),
            ),
        ]
    }

    fn command(number: u64) -> String {
        let (tenant, limit) = (number % TENANTS, 1 + number * 7_919 % 999);
        format!(
            r#"{{"type":"PlaceBid","id":"c{number:010}","tenant":"t{tenant}","cluster":"c","pool":"p","quantity":1,"options":[{{"market":"dfw/gp.large","limit":"0.{limit:03}"}}]}}"#
        )
    }
}

fn main() -> anyhow::Result<()> {
    engine::main::<Bids>()
}
