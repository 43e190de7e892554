//! Operations: each ends at the best assignment.

use super::weight::Weight;
use super::{Joint, JointError, Lot, LotTerms, OUTSIDE, error};

impl Joint {
    /// Adds a lot.
    ///
    /// # Errors
    /// Terms that cannot be; see [`JointError`].
    pub fn insert(&mut self, terms: &LotTerms<'_>) -> Result<Lot, JointError> {
        self.check_terms(terms)?;
        let lot = self.lots.insert(terms);
        self.seat(lot, terms.units);
        Ok(Lot(lot))
    }

    /// Takes a lot away, and gives its servers to others.
    ///
    /// # Errors
    /// No such lot.
    pub fn remove(&mut self, lot: Lot) -> Result<(), JointError> {
        let lot = self.check_lot(lot)?;
        let opened = self.unseat(lot);
        self.flush();
        // Its handle is free again after the round, when it is off the list of those to be told about.
        self.lots.clear_out(lot);
        self.open(&opened);
        Ok(())
    }

    /// Replaces all terms of a lot.
    ///
    /// # Errors
    /// No such lot, or terms that cannot be.
    pub fn amend(&mut self, lot: Lot, terms: &LotTerms<'_>) -> Result<(), JointError> {
        let lot = self.check_lot(lot)?;
        self.check_terms(terms)?;
        // Its servers are held open while it is seated anew: usually it takes them again, and nobody else is moved.
        let opened = self.unseat(lot);
        for &(vertex, units) in &opened {
            self.places[vertex as usize].held_open = units;
        }
        self.flush();
        self.lots.clear_out(lot);
        self.lots.lay_out(lot, terms);
        self.seat(lot, terms.units);
        let opened: Vec<(u32, u32)> = opened
            .into_iter()
            .map(|(vertex, _)| (vertex, std::mem::take(&mut self.places[vertex as usize].held_open)))
            .collect();
        self.open(&opened);
        Ok(())
    }

    /// Sets how many servers a market has.
    ///
    /// # Errors
    /// No such market, or too many servers.
    pub fn set_supply(&mut self, market: u32, supply: u32) -> Result<(), JointError> {
        let vertex = self.check_market(market)?;
        error::check_supply(supply)?;
        let place = &mut self.places[vertex as usize];
        let before = std::mem::replace(&mut place.supply, supply);
        if supply >= before {
            self.open(&[(vertex, supply - before)]);
            return Ok(());
        }
        let unsold = place.free.min(before - supply);
        place.free -= unsold;
        self.settle_outside(vertex);
        self.evict(vertex, before - supply - unsold);
        Ok(())
    }

    /// Sets the least a unit sells for in a market.
    ///
    /// # Errors
    /// No such market, or a reserve past its bound.
    pub fn set_reserve(&mut self, market: u32, reserve: u64) -> Result<(), JointError> {
        let vertex = self.check_market(market)?;
        error::check_reserve(reserve)?;
        let place = &mut self.places[vertex as usize];
        let before = std::mem::replace(&mut place.reserve, reserve as i64);
        self.settle_outside(vertex);
        if before < reserve as i64 {
            self.reserve_servers(vertex);
        } else {
            self.fill(vertex);
        }
        Ok(())
    }

    /// Finds places for so many units of a lot that stand nowhere, and leaves the rest outside.
    fn seat(&mut self, lot: u32, units: u32) {
        let mut left = units;
        // Each turn gives a server to at least one unit.
        while left > 0 {
            self.search.begin();
            let width = self.lots.record(lot).width;
            let mut gains = false;
            for at in 1..width {
                let vertex = self.lots.cell(lot, at).vertex;
                let potential = self.places[vertex as usize].potential;
                if self.lots.cell(lot, at).worth < potential.surplus {
                    continue;
                }
                let excess = self.lots.weight_of_entering(lot, at) - potential;
                if excess > Weight::default() {
                    self.search.label(vertex, excess);
                    gains = true;
                }
            }
            if !gains {
                break;
            }
            self.flush();
            let Some(found) = self.search.forward(&self.arcs, &mut self.places, Weight::default()) else {
                break;
            };
            let Some(at) = self.lots.find(lot, found.first) else { break };
            let mut room = left.min(self.lots.room_for_entering(lot, at)).min(self.room_on_path());
            if found.last != OUTSIDE {
                let held_open = &mut self.places[found.last as usize].held_open;
                room = room.min(*held_open);
                *held_open -= room;
            }
            if room == 0 {
                break;
            }
            self.move_on_path(room);
            let seated = self.lots.cell(lot, at).units + room;
            self.set_units(lot, &[(at, seated)]);
            left -= room;
        }
        self.set_units(lot, &[(0, left)]);
    }

    /// Takes all units of a lot off their places, and returns the servers they had, which are nobody's now.
    pub(super) fn unseat(&mut self, lot: u32) -> Vec<(u32, u32)> {
        let mut opened = Vec::new();
        for at in 0..self.lots.record(lot).width {
            let cell = self.lots.cell(lot, at);
            if at > 0 && cell.units > 0 {
                opened.push((cell.vertex, cell.units));
            }
            self.set_units(lot, &[(at, 0)]);
        }
        opened
    }

    /// Frees servers, and lets others win them.
    pub(super) fn open(&mut self, opened: &[(u32, u32)]) {
        for &(vertex, servers) in opened.iter().filter(|&&(_, servers)| servers > 0) {
            self.places[vertex as usize].free += servers;
            self.settle_outside(vertex);
            self.fill(vertex);
        }
    }

    /// Sells free servers of a market while somebody gains by having them.
    fn fill(&mut self, vertex: u32) {
        // Each turn sells at least one.
        while self.places[vertex as usize].free > 0 {
            let place = &self.places[vertex as usize];
            let excess = place.potential - Weight::of_free(place.reserve);
            if excess <= Weight::default() {
                break;
            }
            self.search.begin();
            self.search.label(vertex, excess);
            self.flush();
            if self.search.backward(&self.arcs, &mut self.places, Weight::default()).is_none() {
                break;
            }
            let room = self.room_on_path().min(self.places[vertex as usize].free);
            if room == 0 {
                break;
            }
            self.move_on_path(room);
            self.places[vertex as usize].free -= room;
            self.settle_outside(vertex);
        }
    }

    /// Takes servers away from units of a market, those that lose least by it.
    fn evict(&mut self, vertex: u32, servers: u32) {
        let mut left = servers;
        // Each turn takes at least one.
        while left > 0 {
            self.search.begin();
            self.search.label(vertex, Weight::default());
            self.flush();
            if self.search.forward(&self.arcs, &mut self.places, Weight::LEAST).is_none() {
                break;
            }
            let room = self.room_on_path().min(left);
            if room == 0 {
                break;
            }
            self.move_on_path(room);
            left -= room;
        }
    }

    /// Takes servers away from units that are worth less than a reserve that was raised.
    fn reserve_servers(&mut self, vertex: u32) {
        // Each turn takes at least one.
        loop {
            let place = &self.places[vertex as usize];
            let excess = Weight::of_free(place.reserve) - place.potential;
            if excess <= Weight::default() {
                break;
            }
            self.search.begin();
            self.search.label(vertex, excess);
            self.flush();
            if self.search.forward(&self.arcs, &mut self.places, Weight::default()).is_none() {
                break;
            }
            let room = self.room_on_path();
            if room == 0 {
                break;
            }
            self.move_on_path(room);
            self.places[vertex as usize].free += room;
            self.settle_outside(vertex);
        }
    }
}
