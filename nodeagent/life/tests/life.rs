//! A life against a world that fails, is late, and breaks it off at any step.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]

mod world;

use std::time::Duration;

use life::{Action, Exit, Input, Limits, Phase, Saved, Source, When};
use proptest::prelude::*;
use proto::worker::{RedemptionRefusal, ReportAnswer, UndoneWhat, WorkerState};
use world::{Plan, World, admission, instant, life, plan};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_life_keeps_its_promises(plan in plan()) {
        let limits = Limits::default();
        let mut world = World::new(&plan);
        let gone = plan.notice.map(|(at, seconds)| at + seconds);
        world.run(Duration::from_mins(15));
        let quiet = plan.fails_permille == 0 && plan.crashes_permille == 0;
        if let Some(gone) = gone.filter(|_| plan.withdrawn.is_none()) {
            // Whatever fails: it ends soon after the server should be gone, as it heard of the notice at the
            // latest a report's distance and the largest wait later.
            let heard = limits.retry_cap.as_secs() * 3;
            let latest = gone + limits.last_report.as_secs() + heard + 60;
            prop_assert_eq!(world.exit, Some(Exit::Left), "{:?} at {:?}", world.life.status(), world.now);
            prop_assert!(world.now.as_secs() <= latest, "{:?}", world.now);
        }
        if let Some((_, seconds)) = plan.notice.filter(|(_, seconds)| *seconds >= 60 && quiet)
            && plan.withdrawn.is_none()
            && world.disk.is_some()
        {
            prop_assert!(world.pods.is_empty(), "{} s were enough", seconds);
            prop_assert!(world.told(WorkerState::Drained) && world.told(WorkerState::Left));
            prop_assert!(world.now.as_secs() <= gone.unwrap());
            prop_assert!(world.cordoned || world.disk.as_ref().is_none_or(|saved| saved.undone.is_empty()));
        }
        if plan.notice.is_none() && plan.signal.is_none() {
            prop_assert_eq!(world.exit, None);
            if plan.crashes_permille == 0 && plan.fails_permille == 0 {
                prop_assert_eq!(world.life.status().phase, Phase::Serving);
                prop_assert!(world.told(WorkerState::Ready) && !world.cordoned);
                prop_assert!(world.reports.len() < 200, "{} reports", world.reports.len());
                // Of a token that lives for 300 s a new one is asked for in time.
                prop_assert!(world.reports.iter().any(|report| report.renew_token));
            }
        }
        if plan.skew_seconds != 0 && plan.fails_permille == 0 && world.disk.is_some() {
            let skew = world.disk.as_ref().unwrap().skew_micros;
            prop_assert!((skew + plan.skew_seconds * 1_000_000).abs() < 1_000_000, "{skew}");
        }
    }

    #[test]
    fn a_notice_that_is_withdrawn_in_time_leaves_a_worker_in_service(chance in any::<u64>(), crashes_permille in prop_oneof![Just(0_u64), Just(20)]) {
        let plan = Plan {
            skew_seconds: 0,
            fails_permille: 0,
            crashes_permille,
            notice: Some((60, 600)),
            withdrawn: Some(62),
            signal: None,
            pods: 0,
            chance,
        };
        let mut world = World::new(&plan);
        world.run(Duration::from_secs(500));
        if world.told(WorkerState::Drained) {
            // It was drained before it heard: then it leaves.
            prop_assert_eq!(world.exit, Some(Exit::Left));
        } else {
            prop_assert_eq!(world.exit, None);
            prop_assert!(!world.cordoned, "{:?}", world.life.status());
            prop_assert!(world.kubelet && (world.tunnel || world.crashes > 0));
            if crashes_permille == 0 {
                prop_assert_eq!(world.life.status().phase, Phase::Serving);
            }
        }
    }
}

fn calm(notice: Option<(u64, u64)>) -> Plan {
    Plan {
        skew_seconds: 600,
        fails_permille: 0,
        crashes_permille: 0,
        notice,
        withdrawn: None,
        signal: None,
        pods: 5,
        chance: 7,
    }
}

#[test]
fn a_worker_with_a_wrong_clock_leaves_in_time() {
    for skew_seconds in [-600, 600] {
        let mut world = World::new(&Plan { skew_seconds, ..calm(Some((100, 60))) });
        world.run(Duration::from_mins(15));
        assert_eq!(world.exit, Some(Exit::Left));
        assert!(world.pods.is_empty() && world.now < Duration::from_secs(160), "{:?}", world.now);
        let order: Vec<WorkerState> = {
            let mut states: Vec<_> = world.reports.iter().map(|report| report.state).collect();
            states.dedup();
            states
        };
        let usual = [
            WorkerState::Joining,
            WorkerState::Ready,
            WorkerState::Draining,
            WorkerState::Drained,
            WorkerState::Left,
        ];
        assert_eq!(order, usual);
        assert!(world.disk.as_ref().is_some_and(|saved| saved.phase == Phase::Over));
    }
}

#[test]
fn a_refused_secret_is_the_end() {
    for reason in [RedemptionRefusal::Foreign, RedemptionRefusal::OtherKey] {
        let mut life = life(&calm(None), Duration::ZERO, None);
        let mut actions = Vec::new();
        life.step(Duration::ZERO, Input::Tick, &mut actions);
        assert_eq!(actions, [Action::Redeem]);
        actions.clear();
        life.step(Duration::ZERO, Input::RedeemRefused(reason), &mut actions);
        assert_eq!(actions, [Action::Exit(Exit::Refused(reason))]);
        assert_eq!(life.wake_at(), None);
    }
}

#[test]
fn a_control_plane_that_is_away_is_asked_ever_more_seldom() {
    let mut life = life(&calm(None), Duration::ZERO, None);
    let (mut asked, mut now) = (Vec::new(), Duration::ZERO);
    while now < Duration::from_hours(1) {
        let mut actions = Vec::new();
        life.step(now, Input::Tick, &mut actions);
        assert_eq!(actions, [Action::Redeem]);
        asked.push(now);
        life.step(now, Input::RedeemFailed, &mut Vec::new());
        now = life.wake_at().expect("it asks again");
    }
    assert!((50..130).contains(&asked.len()), "{}", asked.len());
}

#[test]
fn what_another_version_saved_is_not_guessed_at() {
    let mut world = World::new(&calm(None));
    world.run(Duration::from_secs(100));
    let text = String::from_utf8(world.disk.unwrap().write().unwrap()).unwrap();
    assert!(Saved::read(text.as_bytes()).is_ok());
    assert!(Saved::read(text.replace("\"version\": 1", "\"version\": 2").as_bytes()).is_err());
    assert!(Saved::read(&text.as_bytes()[..text.len() / 2]).is_err());
    assert!(Saved::read(b"").is_err());
}

#[test]
fn a_kubelet_that_does_not_end_is_killed_and_reported() {
    let mut life = life(&calm(None), Duration::ZERO, None);
    let (mut now, mut said) = (Duration::ZERO, Vec::new());
    let mut inputs = vec![Input::Redeemed(Box::new(admission(now))), Input::Configured];
    inputs.push(Input::Noticed {
        source: Source::Signal,
        when: When::In(Duration::from_mins(1)),
        reason: "stopped".into(),
    });
    inputs.push(Input::NoNode);
    for input in inputs {
        life.step(now, input, &mut said);
    }
    let answer = ReportAnswer { now: instant(now), generation: 3, notice: None, tunnel: None };
    for _ in 0..200 {
        let mut actions = Vec::new();
        life.step(now, Input::Tick, &mut actions);
        if actions.iter().any(|action| matches!(action, Action::Report(_))) || said.len() < 12 {
            life.step(
                now,
                Input::Reported(Box::new(ReportAnswer { now: instant(now), ..answer.clone() })),
                &mut actions,
            );
        }
        said.append(&mut actions);
        match life.wake_at() {
            Some(at) => now = at,
            None => break,
        }
    }
    let at = |wanted: &Action| said.iter().position(|action| action == wanted);
    assert!(at(&Action::StopKubelet) < at(&Action::KillKubelet), "{said:?}");
    assert!(at(&Action::KillKubelet).is_some() && at(&Action::Exit(Exit::Left)).is_some());
    assert!(life.status().undone.iter().any(|undone| undone.what == UndoneWhat::Kubelet));
}
