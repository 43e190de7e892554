//! The packing problem in integers: hosts and planes are ordinals, capacities and requests are vectors.

/// Largest amount of one resource on a host or in a request. 2⁴⁰ MiB are an exbibyte; sums of a million such amounts
/// still fit an `i64`.
pub const AMOUNT_MAX: u64 = 1 << 40;
/// Most kinds of resources.
pub const RESOURCES_MAX: usize = 32;
/// Most hosts of a problem.
pub const HOSTS_MAX: usize = 100_000;
/// Most planes of a problem.
pub const PLANES_MAX: usize = 1_000_000;
/// Most replicas of all planes together.
pub const REPLICAS_MAX: u32 = 1_000_000;
/// A whole, in permille.
pub const PERMILLE: u32 = 1_000;

/// A host's number: its place in [`Problem::hosts`], or, past their end, a host made from the template.
pub type HostOrd = u32;

/// A host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The number of its zone.
    pub zone: u32,
    /// What it has of each resource, the surge reserve already taken off.
    pub capacity: Vec<u64>,
    /// It goes away: nothing comes to it, and what is on it is placed elsewhere.
    pub leaving: bool,
}

/// A plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plane {
    /// How many pods.
    pub replicas: u32,
    /// What each of them takes of each resource.
    pub request: Vec<u64>,
    /// Its replicas go to different hosts, and to different zones where there are enough.
    pub spread: bool,
    /// Where its replicas are; a host past the end of the list is gone.
    pub on: Vec<HostOrd>,
}

/// What is to be packed. Every capacity and request has [`Problem::resources`] amounts, each at most [`AMOUNT_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// How many resources there are.
    pub resources: usize,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// A host of which there are as many as it takes, behind [`Problem::hosts`].
    pub template: Option<Host>,
    /// The planes.
    pub planes: Vec<Plane>,
}

/// Why a problem cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProblemError {
    /// A number is past its bound.
    #[error("{what}: {found} are too many, at most {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many there are.
        found: u64,
        /// How many there may be.
        most: u64,
    },
    /// A vector does not have as many amounts as there are resources.
    #[error("{what} {ordinal}: {found} amounts, but there are {resources} resources")]
    Amounts {
        /// Whose vector.
        what: &'static str,
        /// Which of them.
        ordinal: usize,
        /// How many amounts it has.
        found: usize,
        /// How many it should have.
        resources: usize,
    },
}

impl Problem {
    /// Checks the bounds of everything.
    ///
    /// # Errors
    /// The first thing past its bound.
    pub fn check(&self) -> Result<(), ProblemError> {
        most("resources", self.resources as u64, RESOURCES_MAX as u64)?;
        most("hosts", self.hosts.len() as u64, HOSTS_MAX as u64)?;
        most("planes", self.planes.len() as u64, PLANES_MAX as u64)?;
        let replicas = self.planes.iter().map(|plane| u64::from(plane.replicas)).sum();
        most("replicas", replicas, u64::from(REPLICAS_MAX))?;
        for (ordinal, host) in self.hosts.iter().chain(&self.template).enumerate() {
            self.amounts("host", ordinal, &host.capacity)?;
        }
        for (ordinal, plane) in self.planes.iter().enumerate() {
            self.amounts("plane", ordinal, &plane.request)?;
        }
        Ok(())
    }

    fn amounts(&self, what: &'static str, ordinal: usize, amounts: &[u64]) -> Result<(), ProblemError> {
        if amounts.len() != self.resources {
            let (found, resources) = (amounts.len(), self.resources);
            return Err(ProblemError::Amounts { what, ordinal, found, resources });
        }
        most("units of one resource", amounts.iter().copied().max().unwrap_or(0), AMOUNT_MAX)
    }
}

fn most(what: &'static str, found: u64, most: u64) -> Result<(), ProblemError> {
    if found <= most { Ok(()) } else { Err(ProblemError::TooMany { what, found, most }) }
}
