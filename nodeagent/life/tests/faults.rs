//! Faults one at a time: what a worker does where something is wrong for good, or for long.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

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
    let at = world.now;
    world.plan.notice = Some((at.as_secs(), 600));
    world.pending.push((at, order(at, Some(at + seconds(600)))));
    world.run(at + seconds(1));
    let on_disk = |world: &World| world.disk.as_ref().is_some_and(|saved| saved.notices.first().is_some());
    assert!(world.life.status().notice.is_some() && !on_disk(&world), "known, and not on disk");
    world.disk_is_full = false;
    world.run(at + seconds(300));
    assert!(on_disk(&world), "the notice is on disk");
}

#[test]
fn a_kubelet_that_crashes_again_and_again_is_started_ever_more_seldom() {
    let mut world = World::new(&calm(None));
    world.kubelet_lives = Some(seconds(1));
    world.run(seconds(3_600));
    assert_eq!(world.exit, None);
    // Every 6 s it would be 600.
    assert!((20..200).contains(&world.kubelets), "{} kubelets in an hour", world.kubelets);
    // The last of them may have ended, and not be started again yet.
    let counted = world.life.status().kubelet_restarts;
    assert!((world.kubelets - 1..=world.kubelets).contains(&counted), "{counted} of {}", world.kubelets);
    let restarts: Vec<u32> = world.reports.iter().map(|report| report.kubelet_restarts).collect();
    assert!(restarts.is_sorted() && restarts.last() > Some(&10), "the service is told: {restarts:?}");
    // It ends, whatever the kubelet does.
    let at = world.now;
    world.plan.notice = Some((at.as_secs(), 60));
    world.later(order(at, Some(at + seconds(60))));
    world.run(at + seconds(120));
    assert_eq!(world.exit, Some(Exit::Left));
}

#[test]
fn a_notice_that_is_past_is_acted_upon_at_once() {
    let mut world = World::new(&calm(None));
    world.run(seconds(100));
    let at = world.now;
    world.plan.notice = Some((at.as_secs() - 60, 0));
    world.pending.push((at, order(at, Some(at.saturating_sub(seconds(60))))));
    world.run(at + seconds(100));
    assert_eq!(world.exit, Some(Exit::Left));
    assert!(world.now < at + seconds(25), "{:?}", world.now);
}

#[test]
fn of_two_notices_the_earlier_counts() {
    for earlier_first in [true, false] {
        let mut world = World::new(&calm(None));
        world.run(seconds(100));
        let at = world.now;
        let metadata = |after: u64| Input::Noticed {
            source: Source::Metadata,
            when: When::At(instant(at + seconds(after))),
            reason: "host".into(),
        };
        let (first, second) = if earlier_first {
            (order(at, Some(at + seconds(60))), metadata(300))
        } else {
            (metadata(60), order(at, Some(at + seconds(300))))
        };
        world.pending.push((at, first));
        world.pending.push((at, second));
        // Both, and what comes of them at once; the market does not know of either, and takes the one back at the next
        // report.
        for _ in 0..2 {
            world.happen();
        }
        let notice = world.life.status().notice.expect("a notice");
        assert_eq!(notice.gone_at, instant(at + seconds(60)), "{earlier_first}");
    }
}

#[test]
fn a_notice_over_the_bus_is_heard_at_once_and_one_that_was_overtaken_not_at_all() {
    for (behind, is_heeded) in [(1, false), (20, false), (90, true)] {
        let mut world = World::new(&calm(None));
        world.run(seconds(100));
        let at = world.now;
        world.pending.push((at, order(at, Some(at + seconds(600)))));
        world.happen();
        assert!(world.life.status().notice.is_some(), "heard between two reports");
        // What the service said before, and comes later: the notice stands. Far behind it is rather the service's clock
        // that was set.
        world.pending.push((at, order(at.saturating_sub(seconds(behind)), None)));
        world.happen();
        assert_eq!(world.life.status().notice.is_none(), is_heeded, "{behind} s behind");
        assert_eq!(world.exit, None);
    }
}

#[test]
fn who_can_hear_the_bus_again_asks_what_was_missed() {
    let mut world = World::new(&calm(None));
    world.run(seconds(100));
    let (at, reports) = (world.now, world.reports.len());
    world.pending.push((at, Input::Bus(true)));
    world.happen();
    assert!(world.life.status().bus_open);
    // Without it the next report would come up to ten seconds later.
    let due = world.life.wake_at().expect("something is due");
    world.run(at + seconds(5));
    assert!(world.reports.len() > reports && due <= at + seconds(5));
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
