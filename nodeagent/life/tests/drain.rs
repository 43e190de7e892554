//! A drain against a Node that behaves as a cluster does: budgets that refuse, requests that take time or fail, pods
//! that take their grace to end, lists that are late.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail like tests")]
#![allow(clippy::unchecked_time_subtraction, reason = "a test that subtracts too much fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use life::{Answered, Drain, DrainAction, Limits, Pod, PodKind};
use proptest::prelude::*;

/// A pod, and how it behaves.
#[derive(Debug, Clone)]
struct Case {
    kind: PodKind,
    priority: i32,
    grace_seconds: u32,
    /// Its budget refuses evictions until then, in seconds; for ever if none.
    blocked_until: Option<u64>,
    /// What it takes to end, as a part of its grace in hundredths.
    ends_at_percent: u32,
    /// It never ends.
    stuck: bool,
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        8 => Just(PodKind::Ordinary),
        1 => Just(PodKind::Daemon),
        1 => Just(PodKind::Mirror),
        1 => Just(PodKind::Finished),
    ];
    let blocked = prop_oneof![4 => Just(Some(0)), 2 => (1_u64..100).prop_map(Some), 1 => Just(None)];
    let priority = prop_oneof![Just(0), Just(1_000), Just(2_000_000_000), -5..5];
    let grace = prop_oneof![Just(30_u32), Just(0), 1..10_u32, Just(600)];
    (kind, priority, grace, blocked, 0..=100_u32, prop::bool::weighted(0.05)).prop_map(
        |(kind, priority, grace_seconds, blocked_until, ends_at_percent, stuck)| Case {
            kind,
            priority,
            grace_seconds,
            blocked_until,
            ends_at_percent,
            stuck,
        },
    )
}

#[derive(Debug, Clone)]
struct World {
    now: Duration,
    deadline: Duration,
    pods: BTreeMap<String, (Case, Option<Duration>)>,
    /// What is under way: when it is answered, and to whom.
    answers: Vec<(Duration, Answer)>,
    delay_millis: u64,
    fails_permille: u64,
    chance: u64,
    volumes_until: Duration,
    /// How often each was asked to go, and whether it was deleted.
    evictions: BTreeMap<String, Vec<Duration>>,
    deletions: BTreeMap<String, Vec<Duration>>,
}

#[derive(Debug, Clone)]
enum Answer {
    List,
    Pod(String, Answered),
}

impl World {
    fn new(cases: &[Case], seconds: u64, delay_millis: u64, fails_permille: u64, chance: u64) -> World {
        let named = |(at, case): (usize, &Case)| (format!("u{at}"), (case.clone(), None));
        World {
            now: Duration::from_secs(1_000),
            deadline: Duration::from_secs(1_000 + seconds),
            pods: cases.iter().enumerate().map(named).collect(),
            answers: Vec::new(),
            delay_millis,
            fails_permille,
            chance,
            volumes_until: Duration::from_secs(1_000 + seconds / 2),
            evictions: BTreeMap::new(),
            deletions: BTreeMap::new(),
        }
    }

    fn draw(&mut self) -> u64 {
        self.chance =
            self.chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.chance >> 33
    }

    fn list(&self) -> Vec<Pod> {
        let pod = |(uid, (case, ends_at)): (&String, &(Case, Option<Duration>))| Pod {
            namespace: "default".into(),
            name: uid.clone(),
            uid: uid.clone(),
            priority: case.priority,
            grace_seconds: case.grace_seconds,
            kind: case.kind,
            ends_at: *ends_at,
        };
        self.pods.iter().map(pod).collect()
    }

    /// The cluster's answer to a request for a pod's end, and its effect.
    fn end(&mut self, pod: &Pod, grace_seconds: u32, force: bool) -> Answered {
        if self.draw() % 1_000 < self.fails_permille {
            return Answered::Failed("no answer".into());
        }
        let since = self.now.checked_sub(Duration::from_secs(1_000)).unwrap().as_secs();
        match self.pods.get_mut(&pod.uid) {
            None => Answered::Gone,
            Some((case, _)) if !force && case.blocked_until.is_none_or(|until| since < until) => {
                Answered::Blocked
            }
            Some((_, ends_at)) => {
                let end = self.now + Duration::from_secs(grace_seconds.into());
                *ends_at = Some(ends_at.map_or(end, |known| known.min(end)));
                Answered::Accepted
            }
        }
    }

    /// Pods end by themselves.
    fn pass(&mut self) {
        let now = self.now;
        self.pods.retain(|_, (case, ends_at)| {
            let grace = u64::from(case.grace_seconds) * u64::from(100 - case.ends_at_percent) * 10;
            let over =
                ends_at.is_some_and(|ends_at| ends_at.saturating_sub(Duration::from_millis(grace)) <= now);
            case.stuck || !over
        });
    }
}

/// Runs a drain to its end and checks, at every step, what is promised.
fn run(world: &mut World) -> Vec<proto::worker::Undone> {
    let limits = Limits::default();
    let mut drain = Drain::new(limits.clone(), world.now, world.deadline, world.chance);
    let (began, whole) = (world.now, world.deadline - world.now);
    let end = world.deadline - limits.drain_margin.min(whole / 10);
    let mut actions = Vec::new();
    for _ in 0..100_000 {
        world.pass();
        drain.poll(world.now, &mut actions);
        for action in actions.drain(..) {
            let delay = Duration::from_millis(world.draw() % world.delay_millis.max(1));
            let at = world.now + delay;
            match action {
                DrainAction::Done { undone } => {
                    assert!(world.now <= world.deadline, "done in time");
                    assert_eq!(drain.wake_at(), None);
                    return undone;
                }
                DrainAction::List => {
                    assert!(!world.answers.iter().any(|(_, answer)| matches!(answer, Answer::List)));
                    world.answers.push((at, Answer::List));
                }
                DrainAction::Evict { pod, grace_seconds } => {
                    assert_eq!(pod.kind, PodKind::Ordinary);
                    let asked_to = grace_seconds.unwrap_or(pod.grace_seconds);
                    assert!(asked_to <= pod.grace_seconds, "nobody gets more time than it wants");
                    let in_time = world.now + Duration::from_secs(asked_to.into()) <= end;
                    assert!(in_time || asked_to <= 1, "it ends in time");
                    let important = drain.has_less_important(pod.priority);
                    let earliest = began + (end - began) / 4;
                    assert!(!important || world.now >= earliest, "less important pods go first");
                    request(world, &limits, &pod);
                    world.evictions.entry(pod.uid.clone()).or_default().push(world.now);
                    let answered = world.end(&pod, asked_to, false);
                    world.answers.push((at, Answer::Pod(pod.uid, answered)));
                }
                DrainAction::Delete { pod, grace_seconds } => {
                    assert_eq!(pod.kind, PodKind::Ordinary);
                    assert!(grace_seconds >= 1, "never at once: two pods of one name could run");
                    assert!(grace_seconds <= pod.grace_seconds.max(1));
                    let half = (end - began) / 2;
                    let grace = Duration::from_secs(pod.grace_seconds.into()).min(half);
                    assert!(world.now + grace >= end, "budgets are respected until time forces");
                    request(world, &limits, &pod);
                    world.deletions.entry(pod.uid.clone()).or_default().push(world.now);
                    let answered = world.end(&pod, grace_seconds, true);
                    world.answers.push((at, Answer::Pod(pod.uid, answered)));
                }
            }
        }
        // What happens next: an answer, or the drain's own time.
        let wake = drain.wake_at().expect("it is not done");
        world.answers.sort_by_key(|(at, _)| *at);
        match world.answers.first().cloned() {
            Some((at, answer)) if at <= wake.max(world.now) => {
                world.answers.remove(0);
                world.now = world.now.max(at);
                world.pass();
                match answer {
                    Answer::List if world.draw() % 1_000 < world.fails_permille => {
                        drain.not_listed(world.now, "no answer".into());
                    }
                    Answer::List => {
                        let volumes = u32::from(world.now < world.volumes_until);
                        drain.listed(world.now, world.list(), volumes);
                    }
                    Answer::Pod(uid, answered) => drain.answered(world.now, &uid, answered),
                }
            }
            _ => {
                assert!(wake > world.now, "it wakes for nothing");
                world.now = wake;
            }
        }
    }
    panic!("it does not end");
}

/// Nobody is asked twice at once, and not everybody at once.
fn request(world: &World, limits: &Limits, pod: &Pod) {
    let under_way = |answer: &Answer| matches!(answer, Answer::Pod(uid, _) if *uid == pod.uid);
    assert!(!world.answers.iter().any(|(_, answer)| under_way(answer)), "asked twice at once");
    let asked = world.answers.iter().filter(|(_, answer)| matches!(answer, Answer::Pod(..)));
    assert!(asked.count() < limits.drain_requests, "too much at once");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_drain_keeps_its_promises(
        cases in prop::collection::vec(case(), 0..25),
        seconds in 0_u64..200,
        delay_millis in prop_oneof![Just(1_u64), Just(200), Just(5_000)],
        fails_permille in prop_oneof![3 => Just(0_u64), 1 => Just(200), 1 => Just(1_000)],
        chance in any::<u64>(),
    ) {
        let mut world = World::new(&cases, seconds, delay_millis, fails_permille, chance);
        let undone = run(&mut world);
        world.pass();
        if fails_permille == 0 && delay_millis == 1 && seconds >= 20 {
            // With a cluster that answers, only what cannot be helped is left.
            for (uid, (case, _)) in &world.pods {
                prop_assert!(case.kind != PodKind::Ordinary || case.stuck, "{uid} {case:?} {:?}", world.deletions);
            }
            let stuck = world.pods.values().filter(|(case, _)| case.stuck && case.kind == PodKind::Ordinary);
            prop_assert_eq!(undone.len(), stuck.count());
        }
        for (uid, (case, _)) in &world.pods {
            if case.kind == PodKind::Ordinary && case.stuck && fails_permille == 0 && delay_millis == 1 && seconds >= 20 {
                let name = format!("default/{uid}");
                prop_assert!(undone.iter().any(|undone| undone.which == name), "{name} is not reported");
            }
        }
    }
}

fn ordinary(grace_seconds: u32, blocked_until: Option<u64>) -> Case {
    Case {
        kind: PodKind::Ordinary,
        priority: 0,
        grace_seconds,
        blocked_until,
        ends_at_percent: 0,
        stuck: false,
    }
}

#[test]
fn a_budget_is_asked_again_until_time_forces() {
    let mut world = World::new(&[ordinary(10, None)], 60, 1, 0, 1);
    let undone = run(&mut world);
    assert_eq!(undone, []);
    // Of 60 s five are kept free, ten are its own: it is deleted 45 s after the beginning and not before.
    assert_eq!(world.deletions["u0"], [Duration::from_secs(1_045)]);
    let asked = &world.evictions["u0"];
    assert!((8..60).contains(&asked.len()), "{asked:?}");
}

#[test]
fn a_pod_that_wants_more_time_than_there_is_is_told_so() {
    let mut world = World::new(&[ordinary(600, Some(0))], 60, 1, 0, 1);
    assert_eq!(run(&mut world), []);
    assert_eq!((world.evictions["u0"].len(), world.deletions.len()), (1, 0));
}

#[test]
fn an_empty_node_is_done_soon_after_it_is_seen_to_be() {
    let mut world = World::new(&[], 60, 1, 0, 1);
    world.volumes_until = Duration::ZERO;
    assert_eq!(run(&mut world), []);
    assert_eq!(world.now, Duration::from_secs(1_003));
}

#[test]
fn what_is_not_known_is_reported() {
    let mut world = World::new(&[ordinary(1, Some(0))], 10, 1, 1_000, 1);
    let undone = run(&mut world);
    assert_eq!(undone.len(), 1);
    assert_eq!((undone[0].which.as_str(), undone[0].why.as_str()), ("", "no answer"));
}

#[test]
fn a_sooner_deadline_ends_pods_sooner() {
    let limits = Limits::default();
    let second = Duration::from_secs;
    let mut drain = Drain::new(limits, second(0), second(600), 1);
    let pod = Pod {
        namespace: "n".into(),
        name: "p".into(),
        uid: "u".into(),
        priority: 0,
        grace_seconds: 300,
        kind: PodKind::Ordinary,
        ends_at: None,
    };
    let mut actions = Vec::new();
    drain.poll(second(0), &mut actions);
    drain.listed(second(0), vec![pod.clone()], 0);
    drain.poll(second(0), &mut actions);
    assert_eq!(actions[1], DrainAction::Evict { pod: pod.clone(), grace_seconds: None });
    drain.answered(second(0), "u", Answered::Accepted);
    drain.set_deadline(second(10), second(40));
    actions.clear();
    drain.poll(second(10), &mut actions);
    let until = actions.iter().find_map(|action| match action {
        DrainAction::Delete { grace_seconds, .. } => Some(*grace_seconds),
        _ => None,
    });
    assert_eq!(until, None, "there is time yet: {actions:?}");
    let wake = second(20);
    drain.poll(wake, &mut actions);
    assert!(actions.contains(&DrainAction::Delete { pod, grace_seconds: 16 }), "{actions:?}");
}
