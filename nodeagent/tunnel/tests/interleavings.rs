//! Any interleaving of packets, socket events and time, against a world that remembers what it was promised.

#![allow(clippy::expect_used, reason = "tests panic where an expectation fails, helpers included")]

mod world;

use std::time::Duration;

use proptest::prelude::*;
use tunnel::Limits;
use world::{Step, World};

fn small() -> Limits {
    Limits {
        dials: 6,
        connections: 12,
        address_bytes: 16,
        packet_bytes: 7,
        read_ahead_bytes: 20,
        outbound_bytes: 50,
        endpoint_bytes: 60,
        inbound_bytes: 150,
        progress_bytes: 20,
        answers: 4,
        ..Limits::default()
    }
}

fn steps() -> impl Strategy<Value = Step> {
    let which = || any::<u8>();
    prop_oneof![
        4 => Just(Step::Dial),
        1 => Just(Step::DialAgain),
        1 => Just(Step::DialTooLong),
        4 => which().prop_map(Step::Dialed),
        1 => which().prop_map(Step::DialFailed),
        6 => (which(), 0_usize..40).prop_map(|(which, count)| Step::Data(which, count)),
        1 => (which(), 0_usize..40).prop_map(|(which, count)| Step::DataRegardless(which, count)),
        2 => which().prop_map(Step::CloseRequest),
        2 => which().prop_map(Step::CloseDial),
        1 => any::<i64>().prop_map(Step::Stray),
        1 => Just(Step::Junk),
        6 => (which(), 0_usize..30).prop_map(|(which, count)| Step::Receive(which, count)),
        6 => (which(), 0_usize..60).prop_map(|(which, count)| Step::Write(which, count)),
        2 => which().prop_map(Step::Ended),
        1 => which().prop_map(Step::WriteFailed),
        4 => (0_u64..3_000).prop_map(|millis| Step::Pass(Duration::from_millis(millis))),
        8 => (0_usize..10).prop_map(Step::Send),
        1 => Just(Step::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_disordered_or_kept(steps in prop::collection::vec(steps(), 1..150), lost in any::<bool>()) {
        let mut world = World::new(small());
        for step in &steps {
            world.step(step);
        }
        if lost {
            world.lose();
        } else {
            world.finish();
        }
    }
}

#[test]
fn a_million_connections_leave_nothing_behind() {
    let mut world = World::new(Limits { connections: 64, dials: 32, ..Limits::default() });
    // A simple generator: the sequence has to be long and varied, not good.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    while world.dials() < 1_000_000 {
        let which = next(256) as u8;
        let step = match next(16) {
            0..=2 => Step::Dial,
            3..=5 => Step::Dialed(which),
            6 => Step::Receive(which, next(2_000) as usize),
            7 => Step::Data(which, next(2_000) as usize),
            8 => Step::Write(which, next(4_000) as usize),
            9 => Step::Ended(which),
            10 => Step::CloseRequest(which),
            11 => Step::DialFailed(which),
            12 => Step::CloseDial(which),
            13 => Step::Pass(Duration::from_millis(next(500))),
            _ => Step::Send(8),
        };
        world.quick_step(&step);
    }
    world.finish();
}
