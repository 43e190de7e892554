//! The format of `walras pack` (DESIGN §10).

use std::collections::BTreeMap;

use proto::decode::document;
use proto::envelope::Refusal;
use proto::id::shorten;
use serde::{Deserialize, Serialize};

use super::packing::less_reserve;
use super::problem::{AMOUNT_MAX, HOSTS_MAX, Host, HostOrd, PERMILLE, PLANES_MAX, Plane, Problem};
use super::problem::{REPLICAS_MAX, RESOURCES_MAX};
use super::reason::Reason;
use super::solve::{Solution, Unplaced, solve};

/// Longest id of a host or plane, zone or resource, in bytes.
pub const NAME_BYTES_MAX: usize = 253;
/// Steps that a packing from a file may search: less than a second for problems of some thousand replicas.
pub const EFFORT: u64 = 30_000_000;

/// Amounts by the name of their resource.
pub type Amounts = BTreeMap<String, u64>;

/// Why a problem was not packed: one line that names field and value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The text is no problem.
    #[error("{}", .0.message)]
    Format(Box<Refusal>),
    /// A value cannot be.
    #[error("{field}: {problem} (got {})", shorten(value))]
    Value {
        /// Which field, as a path such as `planes[0].request.pods`.
        field: String,
        /// Its value.
        value: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// A problem to pack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackInput {
    /// The hosts; or a template of them.
    #[serde(default)]
    pub hosts: Option<Vec<HostInput>>,
    /// A host of which there are as many as it takes.
    #[serde(default)]
    pub hosts_template: Option<TemplateInput>,
    /// The planes.
    pub planes: Vec<PlaneInput>,
    /// What every host keeps free of each resource, for pods that replace others.
    #[serde(default)]
    pub surge_reserve_permille: u32,
}

/// A host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostInput {
    /// Its name.
    pub id: String,
    /// Its zone; hosts without one share one.
    #[serde(default)]
    pub zone: String,
    /// What it has.
    pub capacity: Amounts,
    /// It goes away.
    #[serde(default)]
    pub leaving: bool,
}

/// A host of which there are as many as it takes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateInput {
    /// Its zone.
    #[serde(default)]
    pub zone: String,
    /// What it has.
    pub capacity: Amounts,
}

/// A plane.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlaneInput {
    /// Its name.
    pub id: String,
    /// How many pods.
    pub replicas: u32,
    /// What each of them takes.
    pub request: Amounts,
    /// Its replicas go to different hosts, and to different zones where there are enough.
    #[serde(default = "yes")]
    pub spread: bool,
    /// Where its replicas are. A host that is not listed is gone.
    #[serde(default)]
    pub on: Vec<String>,
}

fn yes() -> bool {
    true
}

/// What a packing came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackOutput {
    /// The planes, as given.
    pub planes: Vec<PlaneOutput>,
    /// Replicas on hosts on which their plane was not before.
    pub moves: u32,
    /// Hosts with at least one replica.
    pub hosts_used: u32,
    /// Planes with replicas that have no host, or only one that leaves.
    pub unplaced: Vec<UnplacedOutput>,
}

/// Where a plane is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlaneOutput {
    /// Its name.
    pub id: String,
    /// The hosts of its replicas.
    pub on: Vec<String>,
}

/// A plane of which not everything could be placed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnplacedOutput {
    /// Its name.
    pub id: String,
    /// How much of it is missing, and what stands in the way.
    pub why: String,
}

/// Packs a problem given as JSON; the outcome as JSON.
///
/// # Errors
/// One line that names field and value.
pub fn pack_json(text: &str) -> Result<String, PackError> {
    let input: PackInput =
        document(text, "problem").map_err(|refusal| PackError::Format(Box::new(refusal)))?;
    let output = pack(&input, EFFORT)?;
    serde_json::to_string(&output).map_err(|error| wrong("problem", &"", error.to_string()))
}

fn wrong(field: impl Into<String>, value: &dyn ToString, problem: impl Into<String>) -> PackError {
    PackError::Value { field: field.into(), value: value.to_string(), problem: problem.into() }
}

fn bound(field: &str, found: u64, most: u64) -> Result<(), PackError> {
    if found <= most { Ok(()) } else { Err(wrong(field, &found, format!("at most {most}"))) }
}

/// Packs a problem, with `effort` steps of searching.
///
/// # Errors
/// The first value that cannot be, named by its field.
pub fn pack(input: &PackInput, effort: u64) -> Result<PackOutput, PackError> {
    let mut names = Names::default();
    let problem = problem(input, &mut names)?;
    let solution = solve(&problem, effort).map_err(|error| wrong("problem", &"", error.to_string()))?;
    Ok(names.output(input, &problem, &solution))
}

/// Names of what the problem numbers.
#[derive(Default)]
struct Names<'i> {
    resources: Vec<&'i str>,
    hosts: Vec<&'i str>,
    host_ords: BTreeMap<&'i str, HostOrd>,
    zones: BTreeMap<&'i str, u32>,
}

fn problem<'i>(input: &'i PackInput, names: &mut Names<'i>) -> Result<Problem, PackError> {
    let listed = input.hosts.as_deref().unwrap_or_default();
    let (capacity_field, capacity) = match (&input.hosts, &input.hosts_template) {
        (Some(_), Some(_)) => return Err(wrong("hosts_template", &"both", "stands beside hosts")),
        (None, None) => return Err(wrong("hosts", &"none", "is missing, and so is hosts_template")),
        (Some(hosts), None) => ("hosts[0].capacity", hosts.first().map(|host| &host.capacity)),
        (None, Some(template)) => ("hosts_template.capacity", Some(&template.capacity)),
    };
    bound("hosts", listed.len() as u64, HOSTS_MAX as u64)?;
    bound("planes", input.planes.len() as u64, PLANES_MAX as u64)?;
    bound("surge_reserve_permille", input.surge_reserve_permille.into(), PERMILLE.into())?;
    let first = capacity.or(input.planes.first().map(|plane| &plane.request));
    names.resources = first.into_iter().flat_map(BTreeMap::keys).map(String::as_str).collect();
    bound(capacity_field, names.resources.len() as u64, RESOURCES_MAX as u64)?;
    let mut problem = Problem { resources: names.resources.len(), ..Problem::default() };
    let keep = input.surge_reserve_permille;
    for (at, host) in listed.iter().enumerate() {
        name(&format!("hosts[{at}].id"), &host.id)?;
        if names.host_ords.insert(&host.id, at as u32).is_some() {
            return Err(wrong(format!("hosts[{at}].id"), &host.id, "stands twice"));
        }
        names.hosts.push(&host.id);
        let capacity = names.amounts(&format!("hosts[{at}].capacity"), &host.capacity)?;
        problem.hosts.push(names.host(&host.zone, capacity, keep, host.leaving));
    }
    let template = match &input.hosts_template {
        None => None,
        Some(template) => {
            let capacity = names.amounts("hosts_template.capacity", &template.capacity)?;
            Some(names.host(&template.zone, capacity, keep, false))
        }
    };
    planes(input, names, &mut problem, template.as_ref())?;
    problem.template = template;
    Ok(problem)
}

fn planes<'i>(
    input: &'i PackInput,
    names: &mut Names<'i>,
    problem: &mut Problem,
    template: Option<&Host>,
) -> Result<(), PackError> {
    let mut ids = BTreeMap::new();
    let mut replicas = 0;
    for (at, plane) in input.planes.iter().enumerate() {
        let field = |name: &str| format!("planes[{at}].{name}");
        name(&field("id"), &plane.id)?;
        if ids.insert(&plane.id, at).is_some() {
            return Err(wrong(field("id"), &plane.id, "stands twice"));
        }
        replicas += u64::from(plane.replicas);
        if replicas > u64::from(REPLICAS_MAX) {
            let most = format!("at most {REPLICAS_MAX} replicas of all planes together");
            return Err(wrong(field("replicas"), &plane.replicas, most));
        }
        bound(&field("on"), plane.on.len() as u64, REPLICAS_MAX.into())?;
        let request = names.amounts(&field("request"), &plane.request)?;
        let mut on = Vec::with_capacity(plane.on.len());
        for (index, host) in plane.on.iter().enumerate() {
            name(&field(&format!("on[{index}]")), host)?;
            // With a template, a host is there because something is on it.
            if let Some(template) = template
                && !names.host_ords.contains_key(host.as_str())
            {
                bound("hosts", problem.hosts.len() as u64 + 1, HOSTS_MAX as u64)?;
                names.host_ords.insert(host, problem.hosts.len() as u32);
                names.hosts.push(host);
                problem.hosts.push(template.clone());
            }
            on.push(names.host_ords.get(host.as_str()).copied().unwrap_or(HostOrd::MAX));
        }
        problem.planes.push(Plane { replicas: plane.replicas, request, spread: plane.spread, on });
    }
    Ok(())
}

fn name(field: &str, name: &str) -> Result<(), PackError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err(wrong(field, &name, format!("must be 1 to {NAME_BYTES_MAX} bytes")));
    }
    Ok(())
}

impl<'i> Names<'i> {
    /// Amounts in the order of the resources.
    fn amounts(&self, field: &str, amounts: &Amounts) -> Result<Vec<u64>, PackError> {
        if let Some(unknown) = amounts.keys().find(|name| !self.resources.contains(&name.as_str())) {
            let value = amounts.get(unknown).copied().unwrap_or_default();
            return Err(wrong(
                format!("{field}.{unknown}"),
                &value,
                "no such resource where they stand first",
            ));
        }
        let amount = |name: &&str| match amounts.get(*name) {
            None => Err(wrong(format!("{field}.{name}"), &"nothing", "is missing")),
            Some(amount) => bound(&format!("{field}.{name}"), *amount, AMOUNT_MAX).map(|()| *amount),
        };
        self.resources.iter().map(amount).collect()
    }

    fn host(&mut self, zone: &'i str, capacity: Vec<u64>, keep: u32, leaving: bool) -> Host {
        let next = self.zones.len() as u32;
        let zone = *self.zones.entry(zone).or_insert(next);
        let capacity = capacity.into_iter().map(|amount| less_reserve(amount, keep)).collect();
        Host { zone, capacity, leaving }
    }

    fn output(&self, input: &PackInput, problem: &Problem, solution: &Solution) -> PackOutput {
        let made = self.made(input, problem, solution);
        let host = |ord: &HostOrd| {
            let listed = self.hosts.get(*ord as usize).map(|name| (*name).to_owned());
            let made = || made.get(*ord as usize - self.hosts.len()).cloned();
            listed.or_else(made).unwrap_or_default()
        };
        let planes = input.planes.iter().zip(&solution.on);
        PackOutput {
            planes: planes
                .map(|(plane, on)| PlaneOutput { id: plane.id.clone(), on: on.iter().map(host).collect() })
                .collect(),
            moves: solution.moves,
            hosts_used: solution.hosts_used,
            unplaced: solution
                .unplaced
                .iter()
                .filter_map(|unplaced| {
                    let id = input.planes.get(unplaced.plane as usize)?.id.clone();
                    Some(UnplacedOutput { id, why: self.why(problem, unplaced) })
                })
                .collect(),
        }
    }

    /// Names for hosts made from the template: `h1`, `h2` and so on, without those that are taken.
    fn made(&self, input: &PackInput, problem: &Problem, solution: &Solution) -> Vec<String> {
        let last = solution.on.iter().flatten().max().map_or(0, |ord| *ord as usize + 1);
        let wanted = last.saturating_sub(problem.hosts.len());
        let free = (1_u64..).map(|number| format!("h{number}"));
        let free = free.filter(|name| !self.host_ords.contains_key(name.as_str()));
        if input.hosts_template.is_some() { free.take(wanted).collect() } else { Vec::new() }
    }

    fn why(&self, problem: &Problem, unplaced: &Unplaced) -> String {
        let replicas = problem.planes.get(unplaced.plane as usize).map_or(0, |plane| plane.replicas);
        let mut parts = Vec::new();
        if unplaced.missing > 0 {
            parts.push(format!("{} of {replicas} replicas without a host", unplaced.missing));
        }
        if unplaced.stranded > 0 {
            parts.push(format!("{} of {replicas} replicas still on a leaving host", unplaced.stranded));
        }
        let resource = |resource: usize| self.resources.get(resource).copied().unwrap_or_default();
        let reason = match unplaced.reason {
            Reason::NoHosts => "there is no host that stays".to_owned(),
            Reason::TooLarge { resource: which, wanted, most } => {
                format!("no host has {wanted} {}, the most is {most}", resource(which))
            }
            Reason::NoSuchHost => "no host has enough of all resources at once".to_owned(),
            Reason::TooFewHosts { hosts } => {
                format!("only {hosts} hosts could hold one, and each must be on another")
            }
            Reason::Apart => "hosts with room, or their zones, have a replica of it already".to_owned(),
            Reason::Full { resource: which, hosts } => {
                format!("the {hosts} hosts that could hold one are full, most of {}", resource(which))
            }
        };
        format!("{}: {reason}", parts.join(", "))
    }
}
