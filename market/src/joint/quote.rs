//! Quotes (rule 5): the least limit at which so many units would win.

use super::weight::Weight;
use super::{AGE_MAX, Joint, JointError, LotOption, LotTerms, NUMBER_MAX, WORTH_MAX};

impl Joint {
    /// The least limit, in micro-dollars per hour, at which so many units of a youngest bid for any of these markets
    /// would all win, if every limit were legal; none where there are not so many servers. What wins now is afterwards
    /// what won before.
    ///
    /// # Errors
    /// No such market, a market twice, no markets or too many, no units or too many.
    pub fn quote(&mut self, markets: &[u32], units: u32) -> Result<Option<u64>, JointError> {
        let option = |&market: &u32| LotOption { market, worth: WORTH_MAX, plain_limit: None, kept: 0 };
        let options: Vec<LotOption> = markets.iter().map(option).collect();
        let terms = LotTerms { age: AGE_MAX, number: NUMBER_MAX, units, options: &options };
        self.check_terms(&terms)?;
        // Seated by force at a limit nobody has, every path tells how much less it could have been. The last costs
        // most, because each takes the cheapest way that is left.
        let lot = self.lots.insert(&terms);
        let seated = self.seat_at_any_price(lot, units);
        let opened = self.unseat(lot);
        self.flush();
        self.lots.clear_out(lot);
        self.forget(lot);
        self.open(&opened);
        let Some(spared) = seated else { return Ok(None) };
        // At exactly that limit the newcomer wins only if the other fields of the weight are for it.
        let rest = Weight { surplus: 0, ..spared };
        let least = WORTH_MAX as i64 - spared.surplus + i64::from(rest <= Weight::default());
        Ok(u64::try_from(least).ok().filter(|&least| least <= WORTH_MAX))
    }

    /// Gives a lot's handle back at once, as if it had never stood.
    fn forget(&mut self, lot: u32) {
        if let Some(at) = self.touched.iter().rposition(|&touched| touched == lot) {
            self.touched.swap_remove(at);
            self.lots.record_mut(lot).is_touched = false;
        }
        self.lots.remove(lot);
    }

    /// Seats all units of a lot as [`Joint::insert`] does; what the last one gains, or none if one finds no server
    /// at any price.
    fn seat_at_any_price(&mut self, lot: u32, units: u32) -> Option<Weight> {
        let mut left = units;
        let mut gain = None;
        // Each turn gives a server to at least one unit.
        while left > 0 {
            self.search.begin();
            for at in 1..self.lots.record(lot).width {
                let vertex = self.lots.cell(lot, at).vertex;
                let excess = self.lots.weight_of_entering(lot, at) - self.places[vertex as usize].potential;
                if excess > Weight::default() {
                    self.search.label(vertex, excess);
                }
            }
            self.flush();
            let found = self.search.forward(&self.arcs, &mut self.places, Weight::default())?;
            let at = self.lots.find(lot, found.first)?;
            let room = left.min(self.room_on_path());
            if room == 0 {
                return None;
            }
            self.move_on_path(room);
            let seated = self.lots.cell(lot, at).units + room;
            self.set_units(lot, &[(at, seated)]);
            left -= room;
            gain = Some(found.gain);
        }
        gain
    }
}
