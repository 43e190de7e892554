//! What a clearing with gangs comes to in each market (rules 2, 4 and 5): price, units sold, lowest winning bid.

use proto::Price;
use proto::market::{Ladder, PriceRule};

use super::{
    AGE_MAX, Fate, Gang, Joint, JointError, LotOption, LotTerms, NUMBER_MAX, OwnedTerms, Published, settle,
};
use crate::book::{rung_above, rung_at_or_above};

/// What gangs keep in a market beside the clearing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Their units there.
    pub units: u32,
    /// The lowest plain limit among them, in micro-dollars per hour.
    pub lowest_limit: Option<u64>,
}

/// What a market came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// What winners pay, in micro-dollars per hour; none without supply.
    pub price: Option<u64>,
    /// Units won, those of gangs that are kept beside the clearing included.
    pub sold: u32,
    /// The least legal limit with which a youngest bid for one unit would win now.
    pub lowest_winning_bid: Option<Price>,
}

/// How a clearing is made and told.
#[derive(Clone, Copy, Debug)]
pub struct Manner<'a> {
    /// How prices are set.
    pub rule: PriceRule,
    /// Clearings that are made for gangs at most.
    pub passes_max: u32,
    /// The legal limits of each market.
    pub ladders: &'a [&'a Ladder],
}

/// The options of a gang's lots at which it has incumbents.
fn kept(gang: &Gang) -> impl Iterator<Item = &LotOption> {
    gang.lots.iter().flat_map(|lot: &OwnedTerms| &lot.options).filter(|option| option.kept > 0)
}

impl Joint {
    /// What kept gangs have beside the clearing, by market.
    pub fn beside(&self, gangs: &[Gang], fates: &[Fate]) -> Vec<Beside> {
        let mut beside = vec![Beside::default(); self.markets() as usize];
        let is_kept = |(gang, fate)| matches!(fate, &Fate::Kept).then_some(gang);
        for option in gangs.iter().zip(fates).filter_map(is_kept).flat_map(kept) {
            let Some(beside) = beside.get_mut(option.market as usize) else { continue };
            let limit = option.plain_limit.unwrap_or(option.worth);
            beside.units += option.kept;
            beside.lowest_limit = Some(beside.lowest_limit.map_or(limit, |lowest| lowest.min(limit)));
        }
        beside
    }

    /// Takes gangs out again that [`settle`] brought in, and gives the servers back that kept ones have.
    ///
    /// # Errors
    /// Fates that are not those of these gangs in this clearing.
    pub fn unsettle(&mut self, gangs: &[Gang], fates: &[Fate]) -> Result<(), JointError> {
        for (gang, fate) in gangs.iter().zip(fates) {
            match fate {
                Fate::Cleared(lots) => {
                    for &lot in lots {
                        self.remove(lot)?;
                    }
                }
                Fate::Kept => {
                    for option in kept(gang) {
                        self.set_supply(option.market, self.supply(option.market) + option.kept)?;
                    }
                }
                Fate::LeftOut { .. } => {}
            }
        }
        Ok(())
    }

    /// What every market came to, with gangs as `settle` left them. They may have other handles afterwards: where
    /// gangs keep every server of a market, the lowest winning bid is found by clearing again.
    ///
    /// # Errors
    /// Gangs and fates that do not belong together.
    pub fn outcomes(
        &mut self,
        manner: Manner<'_>,
        gangs: &[Gang],
        fates: &mut Vec<Fate>,
    ) -> Result<Vec<Outcome>, JointError> {
        let Published { paid, largest } = self.published(manner.rule);
        let beside = self.beside(gangs, fates);
        let mut outcomes = Vec::with_capacity(beside.len());
        for (market, beside) in (0_u32..).zip(beside) {
            let place = market as usize;
            let at = |prices: &[Option<u64>]| prices.get(place).copied().flatten();
            let Some(ladder) = manner.ladders.get(place) else {
                outcomes.push(Outcome::default());
                continue;
            };
            let reserve = self.reserve(market);
            let sold = self.sold(market) + beside.units;
            let lowest_winning_bid = if sold < self.supply(market) + beside.units {
                rung_at_or_above(ladder, Price::micros_or_max(reserve))
            } else if let Some(largest) = at(&largest) {
                Price::from_micros(largest).and_then(|largest| rung_above(ladder, largest))
            } else if beside.units > 0 {
                self.least_against_gangs(market, ladder, manner.passes_max, gangs, fates)?
            } else {
                None
            };
            let price = at(&paid).or_else(|| beside.lowest_limit.map(|lowest| lowest.max(reserve)));
            outcomes.push(Outcome { price, sold, lowest_winning_bid });
        }
        Ok(outcomes)
    }

    /// The least legal limit with which a youngest bid for one unit would win where gangs keep every server: found by
    /// clearing again with such a bid, for no price says it.
    fn least_against_gangs(
        &mut self,
        market: u32,
        ladder: &Ladder,
        passes_max: u32,
        gangs: &[Gang],
        fates: &mut Vec<Fate>,
    ) -> Result<Option<Price>, JointError> {
        self.unsettle(gangs, fates)?;
        let (mut losing, mut winning) = (self.reserve(market).saturating_sub(1), Price::MAX.micros());
        let mut least = None;
        // Halves what is left each time: at most as many turns as a price has bits.
        while losing < winning {
            let middle = losing + (winning - losing).div_ceil(2);
            let Some(rung) = Price::from_micros(middle).and_then(|middle| rung_at_or_above(ladder, middle))
            else {
                winning = middle - 1;
                continue;
            };
            if self.newcomer_wins(market, rung.micros(), passes_max, gangs)? {
                least = Some(rung);
                winning = middle - 1;
            } else {
                losing = rung.micros().max(middle);
            }
        }
        (*fates, _) = settle(self, gangs, passes_max)?;
        Ok(least)
    }

    /// Whether a youngest bid for one unit would win beside gangs that are not brought in yet.
    fn newcomer_wins(
        &mut self,
        market: u32,
        limit: u64,
        passes_max: u32,
        gangs: &[Gang],
    ) -> Result<bool, JointError> {
        let options = [LotOption { market, worth: limit, plain_limit: None, kept: 0 }];
        let newcomer =
            self.insert(&LotTerms { age: AGE_MAX, number: NUMBER_MAX, units: 1, options: &options })?;
        let (fates, _) = settle(self, gangs, passes_max)?;
        let wins = self.won(newcomer, market) > 0;
        self.unsettle(gangs, &fates)?;
        self.remove(newcomer)?;
        Ok(wins)
    }
}
