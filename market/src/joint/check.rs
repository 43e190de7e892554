//! Whether everything holds that must: for tests, the simulator and audits. Looks at every lot and arc.

use super::arcs::Mover;
use super::weight::Weight;
use super::{Joint, OUTSIDE};

/// What does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A market serves another number of units than it has servers for.
    #[error("market {market} serves {served} units, with {free} of {supply} servers free")]
    Servers {
        /// The market.
        market: u32,
        /// Units of all lots there.
        served: u32,
        /// Servers counted as free.
        free: u32,
        /// Servers in all.
        supply: u32,
    },
    /// The arcs say that somebody else moves first than the lots do.
    #[error("the best move from vertex {from} to {to} is not the one at hand")]
    Mover {
        /// From where, 0 for outside and market + 1 else.
        from: u32,
        /// To where.
        to: u32,
    },
    /// The potentials do not prove the assignment the best.
    #[error("a move from vertex {from} to {to} gains more than the potential rises")]
    Potential {
        /// From where, 0 for outside and market + 1 else.
        from: u32,
        /// To where.
        to: u32,
    },
}

impl Joint {
    /// Checks servers and units against each other, the arcs against the lots, and that the potentials prove the
    /// assignment the best there is.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&mut self) -> Result<(), Broken> {
        self.flush();
        let mut served = vec![0_u32; self.places.len()];
        let mut best: Vec<Weight> = vec![Weight::NOTHING; self.arcs.arcs.len()];
        for (arc, best) in self.arcs.arcs.iter().zip(&mut best) {
            if arc.from == OUTSIDE {
                *best = Weight::of_free(self.places[arc.to as usize].reserve);
            } else if arc.to == OUTSIDE && self.places[arc.from as usize].free > 0 {
                *best = Weight::of_free(-self.places[arc.from as usize].reserve);
            }
        }
        for lot in self.lots.numbers() {
            for (from, cell) in self.lots.cells(lot).iter().enumerate().filter(|(_, cell)| cell.units > 0) {
                served[cell.vertex as usize] += cell.units;
                for (to, target) in self.lots.cells(lot).iter().enumerate().filter(|&(to, _)| to != from) {
                    let weight = self.lots.weight_of_move(lot, from as u32, to as u32);
                    if let Some(arc) = self.arcs.known(cell.vertex, target.vertex) {
                        best[arc as usize] = best[arc as usize].max(weight);
                    } else {
                        return Err(Broken::Mover { from: cell.vertex, to: target.vertex });
                    }
                }
            }
        }
        for (market, (place, &served)) in (0_u32..).zip(self.places.iter().zip(&served).skip(1)) {
            let (free, supply) = (place.free, place.supply);
            if served + free != supply {
                return Err(Broken::Servers { market, served, free, supply });
            }
        }
        for (arc, best) in self.arcs.arcs.iter().zip(best) {
            let (from, to) = (arc.from, arc.to);
            if arc.weight != best || (arc.mover == Mover::Nobody) != (best == Weight::NOTHING) {
                return Err(Broken::Mover { from, to });
            }
            let rise = self.places[to as usize].potential - self.places[from as usize].potential;
            if best != Weight::NOTHING && best > rise {
                return Err(Broken::Potential { from, to });
            }
        }
        Ok(())
    }
}
