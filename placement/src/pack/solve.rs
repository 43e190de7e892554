//! The whole solution: what stands stays, what is missing is placed, and that again until nothing changes.

use super::fill::{Wanted, fill};
use super::packing::{Packing, Zones};
use super::problem::{Host, HostOrd, Problem, ProblemError};
use super::reason::{Reason, reason};
use super::reduce::reduce;
use super::search::Search;
use super::settle::{Settled, settle};

/// What ejecting a replica from the host where it was before costs, beside one that is new.
const KEPT_PRICE: u64 = 64;

/// Where everything goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Solution {
    /// By plane, the hosts of its replicas; those that it had before first, in their order. Hosts past the end of
    /// the problem's list are made from its template.
    pub on: Vec<Vec<HostOrd>>,
    /// Replicas on hosts on which their plane was not before.
    pub moves: u32,
    /// Hosts with at least one replica.
    pub hosts_used: u32,
    /// Planes with replicas that have no host, or only one that leaves.
    pub unplaced: Vec<Unplaced>,
}

/// A plane of which not everything could be placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// Which plane.
    pub plane: u32,
    /// Replicas without a host.
    pub missing: u32,
    /// Replicas that stay on hosts that leave.
    pub stranded: u32,
    /// What stands in the way.
    pub reason: Reason,
}

/// How good a placement is: more is better, and an earlier field counts before all later ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Merit {
    planes_whole: u32,
    replicas_placed: u32,
    replicas_on_staying_hosts: u32,
}

/// Packs planes onto hosts. `effort` is a number of steps: one step is one host or one replica looked at, some
/// nanoseconds each; only searching costs steps, so that with none of them a placement is still found in one pass.
///
/// Solving a problem in which the planes are where a solution put them changes nothing, with the same effort.
///
/// # Errors
/// When the problem is past a bound.
pub fn solve(problem: &Problem, effort: u64) -> Result<Solution, ProblemError> {
    problem.check()?;
    let mut working = problem.clone();
    let mut on: Vec<Vec<HostOrd>> = problem.planes.iter().map(|plane| plane.on.clone()).collect();
    // What stands as it is is kept unless something is gained.
    let mut known = stands(problem, &on).then(|| Merit::of(problem, &on));
    // A pass is a function of the problem and of where everything is. It is repeated until it gains nothing, so that
    // solving the solution, which is that last pass again, gains nothing either. Each turn raises the merit.
    loop {
        let next = pass(&working, &on, effort);
        let merit = Merit::of(&working, &next);
        if known.is_some_and(|known| merit <= known) {
            break;
        }
        let unchanged = next.iter().zip(&on).all(|(next, on)| same(next, on));
        if let Some(template) = &working.template {
            // As many as are used, as whoever solves the solution again lists no others.
            let last = next.iter().flatten().max().map_or(0, |host| *host as usize + 1);
            let made = last.saturating_sub(working.hosts.len());
            working.hosts.extend(std::iter::repeat_n(template.clone(), made));
        }
        if unchanged {
            break;
        }
        (on, known) = (next, Some(merit));
        if merit == Merit::full(&working) {
            break; // Another pass would leave it as it is.
        }
    }
    Ok(solution(problem, &working, on))
}

impl Merit {
    /// With everything placed and nothing on leaving hosts.
    fn full(problem: &Problem) -> Self {
        let replicas = problem.planes.iter().map(|plane| plane.replicas).sum();
        let planes_whole = problem.planes.len() as u32;
        Self { planes_whole, replicas_placed: replicas, replicas_on_staying_hosts: replicas }
    }

    fn of(problem: &Problem, on: &[Vec<HostOrd>]) -> Self {
        let mut merit = Self { planes_whole: 0, replicas_placed: 0, replicas_on_staying_hosts: 0 };
        for (plane, on) in problem.planes.iter().zip(on) {
            merit.planes_whole += u32::from(on.len() as u32 == plane.replicas);
            merit.replicas_placed += on.len() as u32;
            let leaving =
                |host: &&HostOrd| problem.hosts.get(**host as usize).is_some_and(|host| host.leaving);
            merit.replicas_on_staying_hosts += (on.len() - on.iter().filter(leaving).count()) as u32;
        }
        merit
    }
}

/// Whether two placements of a plane differ only in their order.
fn same(one: &[HostOrd], other: &[HostOrd]) -> bool {
    one.len() == other.len() && added(one, other) == 0
}

/// How many of these hosts are not among those, each counted as often as it stands there.
fn added(these: &[HostOrd], those: &[HostOrd]) -> u32 {
    let mut those = those.to_vec();
    let mut added = 0;
    for host in these {
        match those.iter().position(|other| other == host) {
            Some(at) => {
                those.swap_remove(at);
            }
            None => added += 1,
        }
    }
    added
}

/// One pass over everything: where it leads.
fn pass(problem: &Problem, previous: &[Vec<HostOrd>], effort: u64) -> Vec<Vec<HostOrd>> {
    let Settled { mut packing, stranded } = settle(problem, previous);
    let kept: Vec<Vec<HostOrd>> = (0..packing.planes()).map(|plane| packing.on(plane).to_vec()).collect();
    let mut steps = effort;
    let lacking = |packing: &Packing<'_>| (0..packing.planes()).any(|plane| packing.missing(plane) > 0);
    if lacking(&packing) {
        fill_all(&mut packing, Zones::Even);
        if lacking(&packing) {
            fill_all(&mut packing, Zones::Enough);
        }
        if lacking(&packing) {
            let mut half = effort / 2;
            repair(&mut packing, &kept, &mut half);
            whole_first(&mut packing, &kept);
        }
        reduce(&mut packing, &kept, Zones::Enough, &mut steps);
        go_home(&mut packing, &kept);
    }
    stay(&mut packing, stranded);
    ordered(packing.into_on(), previous)
}

/// Replicas on leaving hosts that found no other place stay there.
fn stay(packing: &mut Packing<'_>, stranded: Vec<(u32, HostOrd)>) {
    for (plane, host) in stranded {
        if packing.missing(plane) > 0
            && packing.fits(plane, host)
            && packing.apart(plane, host, Zones::Enough)
        {
            packing.put(plane, host);
        }
    }
}

/// Whether everything may be where it is.
fn stands(problem: &Problem, on: &[Vec<HostOrd>]) -> bool {
    let Settled { mut packing, stranded } = settle(problem, on);
    stay(&mut packing, stranded);
    packing.into_on().iter().zip(on).all(|(settled, on)| same(settled, on))
}

/// Each plane's hosts, those that it had before first and in their order, so that a solution solved again is the same
/// text.
fn ordered(on: Vec<Vec<HostOrd>>, previous: &[Vec<HostOrd>]) -> Vec<Vec<HostOrd>> {
    let order = |(mut hosts, before): (Vec<HostOrd>, &Vec<HostOrd>)| {
        hosts.sort_unstable_by_key(|host| {
            (before.iter().position(|other| other == host).unwrap_or(usize::MAX), *host)
        });
        hosts
    };
    on.into_iter().zip(previous).map(order).collect()
}

/// Fills hosts with what is missing: those in use, the fullest first; then empty ones, the largest first; then hosts
/// made from the template.
fn fill_all(packing: &mut Packing<'_>, zones: Zones) {
    let mut wanted = Wanted::of(packing, 0..packing.planes());
    let mut hosts: Vec<(bool, u64, HostOrd)> = Vec::new();
    let mut parts = Vec::new();
    for host in (0..packing.hosts()).filter(|host| packing.usable(*host)) {
        packing.free_parts(host, &mut parts);
        let free: u64 = parts.iter().sum();
        let empty = packing.holds(host).is_empty();
        hosts.push((empty, if empty { u64::MAX - free } else { free }, host));
    }
    hosts.sort_unstable();
    for (_, _, host) in hosts {
        if wanted.is_empty() {
            return;
        }
        fill(packing, host, &mut wanted, zones);
    }
    // Each turn places a replica or ends.
    while !wanted.is_empty() && wanted.any_fits_template(packing) {
        let Some(host) = packing.open() else { return };
        if fill(packing, host, &mut wanted, zones) == 0 {
            return;
        }
    }
}

/// Places missing replicas by moving others out of the way, the largest first, each by a share of the budget.
fn repair(packing: &mut Packing<'_>, kept: &[Vec<HostOrd>], steps: &mut u64) {
    let mut missing: Vec<u32> = (0..packing.planes()).filter(|plane| packing.missing(*plane) > 0).collect();
    missing.sort_by_key(|plane| {
        (std::cmp::Reverse(packing.parts(*plane).iter().map(|part| u64::from(*part)).sum::<u64>()), *plane)
    });
    for (at, plane) in missing.iter().enumerate() {
        let share = *steps / (missing.len() - at) as u64;
        for _ in 0..packing.missing(*plane) {
            if *steps == 0 || !may_find_room(packing, *plane) {
                break;
            }
            let before = packing.clone();
            *steps = steps.saturating_sub(u64::from(packing.planes() + packing.hosts()));
            let mut pool = vec![*plane];
            let mut search = Search::new(packing, kept, Some(KEPT_PRICE), Zones::Enough, steps);
            if !search.place(packing, &mut pool, share) {
                *packing = before;
                break;
            }
        }
    }
}

/// Whether moving others could help at all: there is a host that could hold the replica if it were empty, and as
/// much free on all hosts together as it takes.
fn may_find_room(packing: &Packing<'_>, plane: u32) -> bool {
    let mut sums = vec![0_i64; packing.resources];
    let mut any = false;
    for host in 0..packing.hosts() {
        if !packing.usable(host) {
            continue;
        }
        any |= packing.could_hold(plane, host) && packing.allowed(plane, host, Zones::Enough);
        for (sum, free) in sums.iter_mut().zip(packing.free(host)) {
            *sum += free;
        }
    }
    any && packing.request(plane).iter().zip(&sums).all(|(request, sum)| request <= sum)
}

/// Whole planes before parts of planes: new replicas of planes that lack others make room for planes that then
/// are whole, the smallest first.
fn whole_first(packing: &mut Packing<'_>, kept: &[Vec<HostOrd>]) {
    let mut short: Vec<u32> = (0..packing.planes()).filter(|plane| packing.missing(*plane) > 0).collect();
    for plane in &short {
        for host in packing.on(*plane).to_vec() {
            if !kept[*plane as usize].contains(&host) {
                packing.take(*plane, host);
            }
        }
    }
    let size = |plane: u32| packing.parts(plane).iter().map(|part| u64::from(*part)).sum::<u64>();
    short.sort_by_key(|plane| (size(*plane) * u64::from(packing.missing(*plane)), *plane));
    for whole in [true, false] {
        for plane in &short {
            let before = packing.on(*plane).to_vec();
            while packing.missing(*plane) > 0 {
                let Some(host) = fullest(packing, *plane) else { break };
                packing.put(*plane, host);
            }
            if whole && packing.missing(*plane) > 0 {
                for host in packing.on(*plane).to_vec() {
                    if !before.contains(&host) {
                        packing.take(*plane, host);
                    }
                }
            }
        }
    }
}

/// The fullest host that may take a replica.
fn fullest(packing: &Packing<'_>, plane: u32) -> Option<HostOrd> {
    let mut parts = Vec::new();
    let may = |host: &HostOrd| packing.fits(plane, *host) && packing.allowed(plane, *host, Zones::Enough);
    (0..packing.hosts()).filter(may).min_by_key(|host| {
        packing.free_parts(*host, &mut parts);
        (packing.holds(*host).is_empty(), parts.iter().sum::<u64>(), *host)
    })
}

/// Replicas that had to make room go back where they were, where there is room again.
fn go_home(packing: &mut Packing<'_>, kept: &[Vec<HostOrd>]) {
    for (plane, homes) in (0..packing.planes()).zip(kept) {
        for home in homes {
            let away = packing.on(plane).iter().copied().find(|host| !homes.contains(host));
            let Some(away) = away.filter(|_| !packing.on(plane).contains(home)) else { continue };
            packing.take(plane, away);
            let back = packing.fits(plane, *home) && packing.allowed(plane, *home, Zones::Enough);
            packing.put(plane, if back { *home } else { away });
        }
    }
}

fn solution(problem: &Problem, working: &Problem, on: Vec<Vec<HostOrd>>) -> Solution {
    let moves = problem.planes.iter().zip(&on).map(|(plane, on)| added(on, &plane.on)).sum();
    let mut used: Vec<HostOrd> = on.iter().flatten().copied().collect();
    used.sort_unstable();
    used.dedup();
    let leaving =
        |host: &&HostOrd| working.hosts.get(**host as usize).is_some_and(|host: &Host| host.leaving);
    let mut packing = None;
    let mut unplaced = Vec::new();
    for (ordinal, (plane, hosts)) in (0_u32..).zip(problem.planes.iter().zip(&on)) {
        let stranded = hosts.iter().filter(leaving).count() as u32;
        let missing = plane.replicas - hosts.len() as u32;
        if missing + stranded > 0 {
            let packing = packing.get_or_insert_with(|| Packing::placed(working, &on));
            unplaced.push(Unplaced { plane: ordinal, missing, stranded, reason: reason(packing, ordinal) });
        }
    }
    Solution { moves, hosts_used: used.len() as u32, unplaced, on }
}
