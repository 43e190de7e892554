//! `walras simulate swarm`.

use anyhow::{Result, bail};
use serde_json::json;
use simulations::world::{Outcome, World};

use super::table::{hex, print_json, print_line};
use crate::cli::SwarmArgs;

/// Runs seeds, each twice, and checks every invariant.
///
/// # Errors
/// The first seed that breaks an invariant or does not come out the same twice.
pub fn swarm(arguments: &SwarmArgs) -> Result<()> {
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        let outcome = run(seed, arguments.seconds)?;
        if outcome != run(seed, arguments.seconds)? {
            bail!("seed {seed}: two runs differ");
        }
        tell(&outcome, arguments.json)?;
    }
    Ok(())
}

fn run(seed: u64, seconds: u32) -> Result<Outcome> {
    World::new(seed).run(seconds).map_err(|broken| anyhow::anyhow!("seed {seed}: {broken}"))
}

fn tell(outcome: &Outcome, is_json: bool) -> Result<()> {
    let chain = hex(outcome.chain.get(..8).unwrap_or_default());
    let crashes: u64 = outcome.crashes.values().sum();
    if is_json {
        return print_json(&json!({
            "seed": outcome.seed, "rows": outcome.rows, "chain": chain, "answered": outcome.answered,
            "refused": outcome.refused, "awarded": outcome.awarded, "noticed": outcome.noticed,
            "withdrawn": outcome.withdrawn, "crashes": crashes, "fenced": outcome.fenced,
            "recreated": outcome.recreated,
        }));
    }
    print_line(&format!(
        "seed {}: {} rows, {} commands answered ({} refused), {} units awarded, {} noticed, {} withdrawn; \
         {crashes} crashes, {} fenced, {} streams recreated; journal {chain}; the same twice",
        outcome.seed,
        outcome.rows,
        outcome.answered,
        outcome.refused,
        outcome.awarded,
        outcome.noticed,
        outcome.withdrawn,
        outcome.fenced,
        outcome.recreated,
    ))
}
