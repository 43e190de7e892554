//! What a bid would have won and cost since an instant, had it been placed then (DESIGN §5, rule 11): the same machine
//! decides again what was asked since, with one bid more.
//!
//! The bid takes servers from others and moves prices, as it would have. What was reported of single leases is left out
//! (ready, dead, drained, moved, lost): its numbers are those of leases that were granted without the bid. So others' leases
//! end with their notices, and the bid's own are ready as soon as they have a server. Supply, bids, amendments, cancellations,
//! settings and rules are taken as they came.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::envelope::Refusal;
use proto::machine::{Received, Role, Sender};
use proto::market::{
    AdoptRules, BidNumber, LeaseNumber, LossReason, MarketCommand, MarketEvent, PlaceBid, ReportReady, Rules,
};
use proto::{BidId, Charge, CommandId, Machine, MarketId, PrincipalId, TenantId, Timestamp};
use serde::Serialize;

use crate::Market;
use crate::billing::Month;
use crate::view::{BILL_PAGE_MAX, View};

/// Wakes in a row at one instant before something is taken to go round in circles.
const WAKES_MAX: u32 = 1_000_000;
/// Pages of a bill that are read.
const BILL_PAGES_MAX: usize = 100_000;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CounterfactualError {
    /// The bid would have been refused.
    #[error("the bid would have been refused: {}", .0.message)]
    Refused(Box<Refusal>),
    /// An id that is made up here is none. It cannot be.
    #[error("{0} is no id")]
    Id(String),
    /// The machine wakes without end.
    #[error("the machine wakes without end at {0}")]
    Wakes(Timestamp),
}

/// What the bid holds from an instant until the next one's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// From when on.
    pub at: Timestamp,
    /// Units won, by market; none where it holds nothing.
    pub units: BTreeMap<MarketId, u32>,
}

/// What the bid would have won and cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// From when on.
    pub since: Timestamp,
    /// Up to when.
    pub until: Timestamp,
    /// Seconds in which units were won, of all units together.
    pub won_unit_seconds: u64,
    /// The same for the units that it wanted.
    pub wanted_unit_seconds: u64,
    /// Seconds in which it had all that it wanted.
    pub whole_seconds: u64,
    /// Units awarded.
    pub awards: u64,
    /// Units given notice, by reason.
    pub notices: BTreeMap<LossReason, u64>,
    /// What it would have paid, in dollars.
    pub cost: Charge,
    /// What it held, whenever that changed.
    pub held: Vec<Held>,
}

/// An exchange with one bid more.
#[derive(Clone, Debug)]
pub struct Counterfactual {
    market: Market,
    view: View,
    number: BidNumber,
    tenant: TenantId,
    bid: BidId,
    quantity: u32,
    operator: Sender,
    since: Timestamp,
    now: Timestamp,
    commands: u64,
    sequence: u64,
    won: u32,
    won_microseconds: u128,
    whole_microseconds: u128,
    awards: u64,
    notices: BTreeMap<LossReason, u64>,
    held: Vec<Held>,
}

impl Counterfactual {
    /// Places the bid at an instant in an exchange as it stood then; `view` is the fold of all that it had decided.
    ///
    /// # Errors
    /// See [`CounterfactualError`].
    pub fn begin(
        market: Market,
        view: View,
        at: Timestamp,
        bid: &Arc<PlaceBid>,
        rules: &Rules,
    ) -> Result<Self, CounterfactualError> {
        let operator = Sender { role: Role::Operator, principal: id::<PrincipalId>("counterfactual")? };
        let mut this = Self {
            sequence: view.as_of().sequence,
            market,
            view,
            number: 0,
            tenant: bid.tenant.clone(),
            bid: BidId::from(&bid.id),
            quantity: bid.quantity,
            operator,
            since: at,
            now: at,
            commands: 0,
            won: 0,
            won_microseconds: 0,
            whole_microseconds: 0,
            awards: 0,
            notices: BTreeMap::new(),
            held: Vec::new(),
        };
        // Nobody reports of leases from now on.
        this.adopt(rules)?;
        let placed = MarketCommand::PlaceBid(Arc::clone(bid));
        let events = this.decide(at, this.operator.clone(), placed);
        match events.first() {
            Some(MarketEvent::BidPlaced { number, .. }) => this.number = *number,
            Some(MarketEvent::CommandRefused(refusal)) => {
                return Err(CounterfactualError::Refused(Box::new(refusal.clone())));
            }
            _ => {}
        }
        Ok(this)
    }

    /// Goes on with what was asked at an instant.
    ///
    /// # Errors
    /// See [`CounterfactualError`].
    pub fn take(
        &mut self,
        at: Timestamp,
        asked: &[Received<MarketCommand>],
    ) -> Result<(), CounterfactualError> {
        self.wait_until(at)?;
        for received in asked {
            if let MarketCommand::AdoptRules(command) = &received.command {
                self.adopt(&command.rules)?;
            } else if let Some(command) = without_leases(&received.command) {
                self.decide(at, received.sender.clone(), command);
            }
        }
        self.wait_until(at)
    }

    /// What the bid would have won and cost up to an instant.
    ///
    /// # Errors
    /// See [`CounterfactualError`].
    pub fn end(mut self, until: Timestamp) -> Result<Outcome, CounterfactualError> {
        self.wait_until(until)?;
        self.view.settle(until, self.sequence);
        let lasted = u128::from(until.micros_since(self.since).max(0).unsigned_abs());
        let seconds = |microseconds: u128| u64::try_from(microseconds / 1_000_000).unwrap_or(u64::MAX);
        Ok(Outcome {
            since: self.since,
            until,
            won_unit_seconds: seconds(self.won_microseconds),
            wanted_unit_seconds: seconds(lasted * u128::from(self.quantity)),
            whole_seconds: seconds(self.whole_microseconds),
            awards: self.awards,
            cost: Charge::from_nanos(self.cost(until)),
            notices: self.notices,
            held: self.held,
        })
    }

    /// What the bid's lines of all bills come to, in nano-dollars.
    fn cost(&self, until: Timestamp) -> i128 {
        let (mut month, last) = (Month::of(self.since), Month::of(until));
        let mut cost = 0;
        while month <= last {
            let mut after = 0;
            for _ in 0..BILL_PAGES_MAX {
                let bill = self.view.bill(&self.tenant, month, after, BILL_PAGE_MAX);
                let own = bill.lines.iter().filter(|line| line.bid == self.bid);
                cost += own.map(|line| line.charge.nanos()).sum::<i128>();
                match bill.next {
                    Some(next) => after = next,
                    None => break,
                }
            }
            month = month.plus(1);
        }
        cost
    }

    /// Lets time go by, with what is due on the way.
    fn wait_until(&mut self, at: Timestamp) -> Result<(), CounterfactualError> {
        let mut wakes = 0;
        while let Some(due) = self.market.wake_at().filter(|&due| due <= at) {
            let due = due.max(self.now);
            wakes = if due > self.now { 0 } else { wakes + 1 };
            if wakes > WAKES_MAX {
                return Err(CounterfactualError::Wakes(due));
            }
            self.pass(due);
            let mut events = Vec::new();
            self.market.wake(due, &mut events);
            self.note(&events);
            self.report_ready()?;
        }
        self.pass(at);
        Ok(())
    }

    /// Counts what was held until an instant.
    fn pass(&mut self, at: Timestamp) {
        let lasted = u128::from(at.micros_since(self.now).max(0).unsigned_abs());
        self.won_microseconds += lasted * u128::from(self.won);
        self.whole_microseconds += if self.won >= self.quantity { lasted } else { 0 };
        self.now = self.now.max(at);
    }

    fn adopt(&mut self, rules: &Rules) -> Result<(), CounterfactualError> {
        let rules = Rules { provisioning_seconds_max: 0, dead_seconds_max: 0, ..rules.clone() };
        let id = self.next_id()?;
        let (at, operator) = (self.now, self.operator.clone());
        self.decide(at, operator, MarketCommand::AdoptRules(AdoptRules { id, rules }));
        Ok(())
    }

    fn next_id(&mut self) -> Result<CommandId, CounterfactualError> {
        self.commands += 1;
        id(&format!("counterfactual-{}", self.commands))
    }

    fn decide(&mut self, at: Timestamp, sender: Sender, command: MarketCommand) -> Vec<MarketEvent> {
        let mut events = Vec::new();
        self.market.step(at, &Received::new(sender, command), &mut events);
        self.note(&events);
        events
    }

    /// Says that the bid's leases are ready as soon as they have a server.
    fn report_ready(&mut self) -> Result<(), CounterfactualError> {
        let ready: Vec<LeaseNumber> = self.booting();
        if ready.is_empty() {
            return Ok(());
        }
        for leases in ready.chunks(proto::market::LEASES_NAMED_MAX) {
            let id = self.next_id()?;
            let (at, operator) = (self.now, self.operator.clone());
            self.decide(
                at,
                operator,
                MarketCommand::ReportReady(ReportReady { id, leases: leases.to_vec() }),
            );
        }
        Ok(())
    }

    /// The bid's leases that have a server and no ready worker.
    fn booting(&self) -> Vec<LeaseNumber> {
        let Some(bid) = self.market.bid(self.number) else { return Vec::new() };
        let booting = bid.leases.iter().filter(|held| held.is_booting);
        booting.flat_map(|held| held.leases.first..held.leases.end()).collect()
    }

    /// Folds what was decided, and looks at what the bid holds now.
    fn note(&mut self, events: &[MarketEvent]) {
        self.sequence += 1;
        for event in events {
            self.view.apply(self.now, self.sequence, event);
            match event {
                MarketEvent::UnitsAwarded { number, leases, .. } if *number == self.number => {
                    self.awards += u64::from(leases.units);
                }
                MarketEvent::NoticeGiven { number, leases, reason, .. } if *number == self.number => {
                    *self.notices.entry(*reason).or_default() += u64::from(leases.units);
                }
                _ => {}
            }
        }
        let mut units: BTreeMap<MarketId, u32> = BTreeMap::new();
        if let Some(bid) = self.market.bid(self.number) {
            self.won = bid.won;
            for held in bid.leases.iter().filter(|held| held.leaving.is_none()) {
                if let Some((_, name, _)) = self.market.markets().find(|&(number, ..)| number == held.market)
                {
                    *units.entry(name.clone()).or_default() += held.leases.units;
                }
            }
        } else {
            self.won = 0;
        }
        if self.held.last().is_none_or(|last| last.units != units) {
            match self.held.last_mut().filter(|last| last.at == self.now) {
                Some(last) => last.units = units,
                None => self.held.push(Held { at: self.now, units }),
            }
        }
    }
}

fn id<T: std::str::FromStr>(text: &str) -> Result<T, CounterfactualError> {
    text.parse().map_err(|_| CounterfactualError::Id(text.to_owned()))
}

/// A command without what it says of single leases; none if it says nothing else.
fn without_leases(command: &MarketCommand) -> Option<MarketCommand> {
    match command {
        MarketCommand::AcknowledgeNotice(_)
        | MarketCommand::ReportReady(_)
        | MarketCommand::ReportDead(_)
        | MarketCommand::ReportReleased(_)
        | MarketCommand::MoveLeases(_) => None,
        MarketCommand::SupplyOffered(offer) => {
            let mut offer = offer.clone();
            offer.lost.clear();
            Some(MarketCommand::SupplyOffered(offer))
        }
        MarketCommand::AmendBid(amendment) => {
            let mut amendment = Arc::clone(amendment);
            Arc::make_mut(&mut amendment).give_up.clear();
            Some(MarketCommand::AmendBid(amendment))
        }
        other => Some(other.clone()),
    }
}
