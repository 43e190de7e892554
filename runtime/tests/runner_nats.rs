//! Runners on a real broker that is killed under them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets an error fails")]

mod nats_support;
mod runner_support;

use std::time::Duration;

use nats_support::TestServer;
use runner_support::{Chance, World, envelope};

/// Broker and runner are killed in turn, and both at once, while commands come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_broker_and_runner_loses_and_repeats_nothing() {
    const ROUNDS: u64 = 9;
    if !nats_support::is_available() {
        return;
    }
    let server = TestServer::start().await;
    let mut world = World::new(server.bus().await).await;
    let mut chance = Chance(7);
    let mut sent = 0;
    let mut running = world.start("a");
    for round in 0..ROUNDS {
        for _ in 0..chance.below(30) {
            world.add(sent).await;
            sent += 1;
        }
        world.send(&envelope(sent..sent + 100)).await;
        sent += 100;
        // Not a wait for anything: where the kill comes is the chance that is tested.
        tokio::time::sleep(Duration::from_micros(chance.below(20_000))).await;
        if round % 3 != 0 {
            running.kill().await;
            running = world.start("a");
        }
        if round % 3 != 1 {
            server.kill_and_wait().await;
        }
    }
    world.until_answered(0..sent).await;
    running.stop().await;
    world.check(sent).await;
}
