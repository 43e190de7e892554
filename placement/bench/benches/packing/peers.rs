//! The usual heuristics, with the same rules: first-fit and best-fit decreasing, and dot-product, host by host.

use placement::pack::Problem;

/// A packing as the heuristics keep it.
struct State<'p> {
    problem: &'p Problem,
    free: Vec<Vec<u64>>,
    on: Vec<Vec<usize>>,
    used: Vec<bool>,
}

impl<'p> State<'p> {
    fn new(problem: &'p Problem) -> Self {
        Self {
            problem,
            free: problem.hosts.iter().map(|host| host.capacity.clone()).collect(),
            on: vec![Vec::new(); problem.planes.len()],
            used: vec![false; problem.hosts.len()],
        }
    }

    fn may(&self, plane: usize, host: usize) -> bool {
        let terms = &self.problem.planes[plane];
        let zone = self.problem.hosts[host].zone;
        terms.request.iter().zip(&self.free[host]).all(|(wanted, free)| wanted <= free)
            && self.on[plane].iter().all(|other| *other != host && self.problem.hosts[*other].zone != zone)
    }

    fn put(&mut self, plane: usize, host: usize) {
        for (free, wanted) in self.free[host].iter_mut().zip(&self.problem.planes[plane].request) {
            *free -= wanted;
        }
        self.on[plane].push(host);
        self.used[host] = true;
    }

    fn part(&self, amount: u64, resource: usize) -> f64 {
        amount as f64 / self.problem.hosts[0].capacity[resource] as f64
    }

    fn size(&self, plane: usize) -> f64 {
        let request = self.problem.planes[plane].request.iter().enumerate();
        request.map(|(resource, amount)| self.part(*amount, resource)).sum()
    }

    fn outcome(&self) -> Outcome {
        let wanted: usize = self.problem.planes.iter().map(|plane| plane.replicas as usize).sum();
        let placed: usize = self.on.iter().map(Vec::len).sum();
        Outcome { hosts: self.used.iter().filter(|used| **used).count(), unplaced: wanted - placed }
    }

    /// Replicas, the largest first.
    fn decreasing(&self) -> Vec<usize> {
        let mut planes: Vec<usize> = (0..self.problem.planes.len()).collect();
        planes.sort_by(|one, other| self.size(*other).total_cmp(&self.size(*one)));
        let replicas =
            |plane: &usize| std::iter::repeat_n(*plane, self.problem.planes[*plane].replicas as usize);
        planes.iter().flat_map(replicas).collect()
    }
}

/// What a heuristic came to.
pub(crate) struct Outcome {
    pub(crate) hosts: usize,
    pub(crate) unplaced: usize,
}

/// Each replica to the first host with room, the largest first.
pub(crate) fn first_fit(problem: &Problem) -> Outcome {
    let mut state = State::new(problem);
    for plane in state.decreasing() {
        if let Some(host) = (0..problem.hosts.len()).find(|host| state.may(plane, *host)) {
            state.put(plane, host);
        }
    }
    state.outcome()
}

/// Each replica to the fullest host with room, the largest first.
pub(crate) fn best_fit(problem: &Problem) -> Outcome {
    let mut state = State::new(problem);
    for plane in state.decreasing() {
        let free = |host: &usize| {
            let free = state.free[*host].iter().enumerate();
            free.map(|(resource, amount)| state.part(*amount, resource)).sum::<f64>()
        };
        let hosts = (0..problem.hosts.len()).filter(|host| state.may(plane, *host));
        if let Some(host) = hosts.min_by(|one, other| free(one).total_cmp(&free(other))) {
            state.put(plane, host);
        }
    }
    state.outcome()
}

/// Host by host, each time the replica whose request points most along what is free, weighed by the mean request.
pub(crate) fn dot_product(problem: &Problem) -> Outcome {
    let mut state = State::new(problem);
    let planes = || 0..problem.planes.len();
    let weights: Vec<f64> = (0..problem.resources)
        .map(|resource| {
            planes().map(|plane| state.part(problem.planes[plane].request[resource], resource)).sum()
        })
        .collect();
    for host in 0..problem.hosts.len() {
        loop {
            let score = |plane: &usize| -> f64 {
                let request = problem.planes[*plane].request.iter().zip(&state.free[host]).enumerate();
                request
                    .map(|(resource, (wanted, free))| {
                        weights[resource] * state.part(*wanted, resource) * state.part(*free, resource)
                    })
                    .sum()
            };
            let missing = |plane: &usize| state.on[*plane].len() < problem.planes[*plane].replicas as usize;
            let candidates = planes().filter(|plane| missing(plane) && state.may(*plane, host));
            let Some(best) = candidates.max_by(|one, other| score(one).total_cmp(&score(other))) else {
                break;
            };
            state.put(best, host);
        }
    }
    state.outcome()
}
