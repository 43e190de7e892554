//! Faults one at a time: what a worker does where something is wrong for good, or for long.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

#[allow(dead_code, reason = "each test uses what it needs")]
mod world;

use std::time::Duration;

use life::{Exit, Input, Phase, Source, When};
use proto::worker::{NoticeOrder, ReportAnswer, WorkerState};
use world::{Plan, World, instant};

fn calm(notice: Option<(u64, u64)>) -> Plan {
    Plan {
        skew_seconds: 0,
        fails_permille: 0,
        crashes_permille: 0,
        notice,
        withdrawn: None,
        signal: None,
        pods: 5,
        chance: 11,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the service says over the bus at an instant of its own.
fn order(at: Duration, gone_at: Option<Duration>) -> Input {
    let notice = gone_at.map(|gone| NoticeOrder { gone_at: instant(gone), reason: "outbid".into() });
    Input::Told(Box::new(ReportAnswer { now: instant(at), generation: 3, notice, tunnel: None }))
}

#[test]
fn a_full_disk_stops_no_worker_and_no_leaving() {
    let mut world = World::new(&calm(Some((200, 60))));
    world.run(seconds(100));
    assert_eq!(world.life.status().phase, Phase::Serving);
    world.disk_is_full = true;
    world.run(seconds(900));
    assert_eq!(world.exit, Some(Exit::Left));
    assert!(world.now < seconds(262), "{:?}", world.now);
    assert!(world.pods.is_empty() && world.told(WorkerState::Left));
    assert!(!world.life.status().is_saved, "it shows that the disk takes nothing");
}

#[test]
fn a_disk_that_was_full_has_everything_once_it_takes_something() {
    let mut world = World::new(&calm(None));
    world.run(seconds(100));
    world.disk_is_full = true;
    world.later(order(seconds(100), Some(seconds(700))));
    world.run(seconds(101));
    assert!(!world.life.status().is_saved);
    world.disk_is_full = false;
    world.run(seconds(400));
    let saved = world.disk.as_ref().expect("a state");
    assert!(saved.notices.first().is_some(), "the notice is on disk");
}

#[test]
fn a_kubelet_that_crashes_again_and_again_is_started_ever_more_seldom() {
    let mut world = World::new(&calm(None));
    world.kubelet_lives = Some(seconds(1));
    world.run(seconds(3_600));
    assert_eq!(world.exit, None);
    // Every 6 s it would be 600.
    assert!((20..200).contains(&world.kubelets), "{} kubelets in an hour", world.kubelets);
    assert_eq!(world.life.status().kubelet_restarts + 1, world.kubelets);
    let restarts: Vec<u32> = world.reports.iter().map(|report| report.kubelet_restarts).collect();
    assert!(restarts.is_sorted() && restarts.last() > Some(&10), "the service is told: {restarts:?}");
    // It ends, whatever the kubelet does.
    let at = world.now;
    world.later(order(at, Some(at + seconds(60))));
    world.run(at + seconds(120));
    assert_eq!(world.exit, Some(Exit::Left));
}

#[test]
fn a_notice_that_is_past_is_acted_upon_at_once() {
    let mut world = World::new(&calm(None));
    world.run(seconds(100));
    world.later(order(seconds(100), Some(seconds(40))));
    world.run(seconds(200));
    assert_eq!(world.exit, Some(Exit::Left));
    assert!(world.now < seconds(125), "{:?}", world.now);
}

#[test]
fn of_two_notices_the_earlier_counts() {
    for earlier_first in [true, false] {
        let mut world = World::new(&calm(None));
        world.run(seconds(100));
        let metadata = |gone: u64| Input::Noticed {
            source: Source::Metadata,
            when: When::At(instant(seconds(gone))),
            reason: "host".into(),
        };
        let (first, second) = if earlier_first {
            (order(seconds(100), Some(seconds(160))), metadata(400))
        } else {
            (metadata(160), order(seconds(100), Some(seconds(400))))
        };
        world.pending.push((seconds(100), first));
        world.pending.push((seconds(101), second));
        world.run(seconds(102));
        let notice = world.life.status().notice.expect("a notice");
        assert_eq!(notice.gone_at, instant(seconds(160)), "{earlier_first}");
    }
}

#[test]
fn a_notice_over_the_bus_is_heard_at_once_and_one_that_was_overtaken_not_at_all() {
    let mut world = World::new(&calm(None));
    world.run(seconds(100));
    world.pending.push((seconds(100), order(seconds(100), Some(seconds(700)))));
    world.run(seconds(101));
    assert!(world.life.status().notice.is_some(), "heard between two reports");
    // What the service said a moment before comes a moment later: the notice stands.
    world.pending.push((seconds(101), order(seconds(99), None)));
    world.run(seconds(102));
    assert!(world.life.status().notice.is_some());
    // From a service whose clock is far behind: that is no word that was overtaken.
    let mut world = World::new(&calm(None));
    world.run(seconds(100));
    world.pending.push((seconds(100), order(seconds(100), Some(seconds(700)))));
    world.pending.push((seconds(101), order(seconds(10), None)));
    world.run(seconds(101) + Duration::from_millis(500));
    assert!(world.life.status().notice.is_none());
    assert_eq!(world.exit, None);
}

#[test]
fn an_hour_without_the_service_ends_nothing() {
    let mut world = World::new(&calm(None));
    world.run(seconds(100));
    let before = world.reports.len();
    world.plan.fails_permille = 1_000;
    world.run(seconds(3_700));
    let during = world.reports.len() - before;
    // Nothing is answered, neither by the service nor by the API server.
    assert!((30..400).contains(&during), "{during} reports in an hour of silence");
    assert_eq!(world.exit, None);
    assert!(world.kubelet && world.tunnel, "what runs goes on running");
    world.plan.fails_permille = 0;
    world.run(seconds(3_900));
    assert_eq!(world.life.status().phase, Phase::Serving);
    assert!(world.life.status().node_ready);
}
