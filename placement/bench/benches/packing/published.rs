//! Published instances of vector packing, against the known optimum, or the bound where it is not known.

use std::path::{Path, PathBuf};
use std::process::Command;

use placement::pack::{Host, Plane, Problem, solve};

use crate::cpu_nanoseconds;

/// Steps: none is a single pass.
const EFFORTS: [u64; 2] = [0, 1_000_000];

struct Instance {
    problem: Problem,
    replicas: usize,
    /// The optimum, or the bound where it is not known.
    reference: u32,
    optimum_known: bool,
    /// The best of 351 heuristics.
    best: u32,
}

pub(crate) fn run(effort: Option<u64>) {
    let data = std::env::var("WALRAS_SHARED_DATA")
        .map_or_else(|_| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"), PathBuf::from);
    let folder = data.join("vectorpack");
    if !folder.is_dir() {
        println!("skipped: the published instances are not in {}", folder.display());
        return;
    }
    let efforts = effort.map_or(EFFORTS.to_vec(), |effort| vec![effort]);
    println!("gap to the optimum or bound, mean over all instances; CPU time per instance");
    println!(
        "{:<10} {:>9} {:>10} {:>7} {:>11} {:>9} {:>12} {:>9}",
        "set", "instances", "steps", "gap %", "best of 351", "optimal", "mean n=500", "longest"
    );
    for set in ["Panigrahy", "New"] {
        let instances = load(&folder, set);
        for effort in &efforts {
            measure(set, &instances, *effort);
        }
    }
}

fn measure(set: &str, instances: &[Instance], effort: u64) {
    let (mut gap, mut best_gap, mut optimal, mut known) = (0.0, 0.0, 0, 0);
    let (mut large, mut large_nanoseconds, mut longest) = (0, 0, 0);
    for instance in instances {
        let begun = cpu_nanoseconds();
        let solution = solve(&instance.problem, effort).unwrap();
        let taken = cpu_nanoseconds() - begun;
        assert!(solution.unplaced.is_empty() && solution.hosts_used >= instance.reference);
        let over = |hosts: u32| f64::from(hosts - instance.reference) / f64::from(instance.reference);
        gap += over(solution.hosts_used);
        best_gap += over(instance.best);
        known += u32::from(instance.optimum_known);
        optimal += u32::from(instance.optimum_known && solution.hosts_used == instance.reference);
        longest = longest.max(taken);
        if instance.replicas == 500 {
            large += 1;
            large_nanoseconds += taken;
        }
    }
    let percent = 100.0 / instances.len() as f64;
    println!(
        "{set:<10} {:>9} {effort:>10} {:>7.3} {:>11.3} {:>9} {:>9.3} ms {:>6.0} ms",
        instances.len(),
        gap * percent,
        best_gap * percent,
        format!("{optimal}/{known}"),
        large_nanoseconds as f64 / f64::from(large) / 1e6,
        longest as f64 / 1e6,
    );
}

/// Reads a set's summary, and its instances out of their archive.
fn load(folder: &Path, set: &str) -> Vec<Instance> {
    let unpacked = std::env::temp_dir().join(format!("walras-vectorpack-{}", std::process::id()));
    std::fs::create_dir_all(&unpacked).unwrap();
    let archive = folder.join(format!("{set}_instances.tar.gz"));
    let status = Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&unpacked).status().unwrap();
    assert!(status.success(), "tar cannot read {}", archive.display());
    let summary = std::fs::read_to_string(folder.join(format!("{set}_summary_known.csv"))).unwrap();
    let instances = summary.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let class = fields[0].split('_').next().unwrap();
        let file = unpacked.join(format!("{set}_instances_multidim/{class}/{}.vbp", fields[0]));
        instance(&std::fs::read_to_string(file).unwrap(), &fields)
    });
    let instances = instances.collect();
    std::fs::remove_dir_all(&unpacked).unwrap();
    instances
}

/// Dimensions, capacities, number of rows; each row sizes and how many there are of it.
fn instance(text: &str, fields: &[&str]) -> Instance {
    let mut numbers = text.split_ascii_whitespace().map(|word| word.parse::<u64>().unwrap());
    let mut next = || numbers.next().unwrap();
    let resources = next() as usize;
    let capacity: Vec<u64> = (0..resources).map(|_| next()).collect();
    let rows = next();
    let planes: Vec<Plane> = (0..rows)
        .map(|_| {
            let request = (0..resources).map(|_| next()).collect();
            Plane { replicas: next() as u32, request, spread: false, on: Vec::new() }
        })
        .collect();
    let optimum = fields[2].trim().parse().ok();
    Instance {
        replicas: planes.iter().map(|plane| plane.replicas as usize).sum(),
        problem: Problem {
            resources,
            hosts: Vec::new(),
            template: Some(Host { zone: 0, capacity, leaving: false }),
            planes,
        },
        reference: optimum.unwrap_or_else(|| fields[1].parse().unwrap()),
        optimum_known: optimum.is_some(),
        best: fields[3].parse().unwrap(),
    }
}
