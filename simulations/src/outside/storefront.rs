//! Storefronts: they place, amend, cancel and expire bids around what a unit is worth, repeat what was not
//! answered, drain early now and then, and remember every answer so that a second, different one is found out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::machine::{Broken, Command as _, CommandKey, Role, Sender};
use proto::market::{
    AcknowledgeNotice, AmendBid, Answer, BidOption, CancelBid, LeaseNumber, LeaseSpan, MarketCommand,
    PlaceBid, Terms,
};
use proto::{BidId, CommandId, Price, PrincipalId, TenantId, Timestamp};

use super::Listing;
use crate::chance::Chance;

/// How a storefront behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// About how many bids it keeps standing.
    pub standing: u64,
    /// How many bids it begins with, all at once.
    pub opening: u64,
    /// Of a thousand bids, how many end by themselves.
    pub expires_permille: u64,
    /// Mean time between two of its actions, in milliseconds.
    pub interval_milliseconds: u64,
    /// Most units of one bid.
    pub quantity_max: u64,
    /// Of a thousand bids, how many take any of several markets, want all or nothing, or declare what a running server
    /// is worth.
    pub flexible_permille: u64,
    /// Of a thousand actions, how many are none a market should accept.
    pub nonsense_permille: u64,
    /// After how many milliseconds without an answer a command is sent again.
    pub patience_milliseconds: u64,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            standing: 40,
            opening: 0,
            expires_permille: 150,
            interval_milliseconds: 400,
            quantity_max: 4,
            flexible_permille: 250,
            nonsense_permille: 20,
            patience_milliseconds: 4_000,
        }
    }
}

/// On-demand orders among what is placed, in a thousand.
const ORDERS_PERMILLE: u64 = 60;
/// Most answers remembered; a run that wants to be checked to the end stays below it.
const ANSWERS_MAX: usize = 1 << 20;

#[derive(Clone, Debug)]
struct Standing {
    tenant: TenantId,
    version: u32,
    terms: Terms,
    held: BTreeSet<LeaseNumber>,
    leaving: BTreeSet<LeaseNumber>,
}

#[derive(Clone, Debug)]
struct Unanswered {
    command: MarketCommand,
    sent_at: Timestamp,
}

/// A storefront.
#[derive(Clone, Debug)]
pub struct Storefront {
    principal: PrincipalId,
    tenants: Vec<TenantId>,
    listings: Vec<Listing>,
    habits: Habits,
    chance: Chance,
    run: String,
    next_at: Timestamp,
    commands: u64,
    standing: BTreeMap<BidId, Standing>,
    unanswered: BTreeMap<CommandId, Unanswered>,
    answers: BTreeMap<CommandId, Answer>,
    remembers: bool,
}

impl Storefront {
    /// A storefront that acts from `start` on. `run` makes its ids differ from those of an earlier life.
    pub fn new(
        principal: PrincipalId,
        tenants: Vec<TenantId>,
        listings: Vec<Listing>,
        habits: Habits,
        run: &str,
        start: Timestamp,
        chance: Chance,
    ) -> Self {
        Self {
            principal,
            tenants,
            listings,
            habits,
            chance,
            run: run.to_owned(),
            next_at: start,
            commands: 0,
            standing: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            answers: BTreeMap::new(),
            remembers: true,
        }
    }

    /// Lets it forget answers once they are read: a demo runs for months.
    #[must_use]
    pub fn forgetful(mut self) -> Self {
        self.remembers = false;
        self
    }

    /// Who it is.
    pub fn sender(&self) -> Sender {
        Sender { role: Role::Storefront, principal: self.principal.clone() }
    }

    /// When it next does something.
    pub const fn next_at(&self) -> Timestamp {
        self.next_at
    }

    /// How many commands wait for their answer.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// Every answer it got to a command, the first of each.
    pub const fn answers(&self) -> &BTreeMap<CommandId, Answer> {
        &self.answers
    }

    /// What it sends at `now`; nothing before [`Storefront::next_at`].
    pub fn act(&mut self, now: Timestamp) -> Vec<MarketCommand> {
        if now < self.next_at {
            return Vec::new();
        }
        let pause = self.chance.between(1, self.habits.interval_milliseconds.saturating_mul(2).max(1));
        self.next_at = now.plus_micros((pause * 1_000) as i64);
        let mut sent = self.repeat(now);
        for _ in 0..std::mem::take(&mut self.habits.opening) {
            let bid = self.place(now);
            sent.extend(self.fresh(bid, now));
        }
        let fresh = if self.chance.permille(self.habits.nonsense_permille) {
            self.nonsense()
        } else {
            self.sense(now)
        };
        sent.extend(self.fresh(fresh, now));
        sent
    }

    /// Remembers that a new command waits for its answer.
    fn fresh(&mut self, command: Option<MarketCommand>, now: Timestamp) -> Option<MarketCommand> {
        let command = command?;
        let waiting = Unanswered { command: command.clone(), sent_at: now };
        self.unanswered.insert(command.id().clone(), waiting);
        Some(command)
    }

    /// What is sent again because nobody answered, and nothing new: how a run ends.
    pub fn repeat(&mut self, now: Timestamp) -> Vec<MarketCommand> {
        let patience = (self.habits.patience_milliseconds * 1_000) as i64;
        let mut sent = Vec::new();
        for waiting in self.unanswered.values_mut() {
            if now.micros_since(waiting.sent_at) >= patience {
                waiting.sent_at = now;
                sent.push(waiting.command.clone());
            }
        }
        sent
    }

    fn id(&mut self) -> Option<CommandId> {
        self.commands += 1;
        format!("{}-{}-{}", self.principal, self.run, self.commands).parse().ok()
    }

    fn sense(&mut self, now: Timestamp) -> Option<MarketCommand> {
        if let Some((bid, standing)) = self.leaving()
            && self.chance.permille(250)
        {
            return self.acknowledge(bid, standing);
        }
        let few = (self.standing.len() as u64) < self.habits.standing;
        match self.chance.below(100) {
            0..30 => self.amend(now),
            30..45 if !few => self.cancel(),
            _ if few => self.place(now),
            _ => self.cancel(),
        }
    }

    fn leaving(&mut self) -> Option<(BidId, Standing)> {
        let leaving = self.standing.iter().find(|(_, standing)| !standing.leaving.is_empty())?;
        Some((leaving.0.clone(), leaving.1.clone()))
    }

    fn limit(&mut self, listing: &Listing) -> Price {
        let step = listing.step.micros().max(1);
        let rungs = (listing.worth.micros() / step).max(2);
        // The mean of two draws: most bids lie near what a unit is worth.
        let rung = u64::midpoint(self.chance.between(1, rungs * 2), self.chance.between(1, rungs * 2));
        Price::micros_or_max((rung * step).max(listing.reserve.micros()))
    }

    fn terms(&mut self, now: Timestamp, listing: &Listing) -> Terms {
        let limit = self.limit(listing);
        let expires = self.chance.permille(self.habits.expires_permille);
        let mut terms = Terms {
            quantity: self.chance.between(1, self.habits.quantity_max) as u32,
            min_quantity: 1,
            options: vec![BidOption { market: listing.market.clone(), limit, running_limit: None }],
            expires_at: expires.then(|| now.plus_seconds(self.chance.between(10, 3_600) as u32)),
        };
        if self.chance.permille(self.habits.flexible_permille) {
            self.make_flexible(&mut terms);
        }
        terms
    }

    /// Adds markets that would do as well, and now and then a minimum or a running limit.
    fn make_flexible(&mut self, terms: &mut Terms) {
        for _ in 0..self.chance.below(3) {
            let Some(other) = self.chance.pick(&self.listings).cloned() else { return };
            if terms.options.iter().all(|option| option.market != other.market) {
                let limit = self.limit(&other);
                terms.options.push(BidOption { market: other.market, limit, running_limit: None });
            }
        }
        if self.chance.permille(150) {
            terms.min_quantity = self.chance.between(1, u64::from(terms.quantity)) as u32;
        }
        if self.chance.permille(300) {
            for option in &mut terms.options {
                let more = option.limit.micros() * self.chance.below(100) / 100;
                option.running_limit = Some(Price::micros_or_max(option.limit.micros() + more));
            }
        }
    }

    fn place(&mut self, now: Timestamp) -> Option<MarketCommand> {
        let listing = self.chance.pick(&self.listings)?.clone();
        let tenant = self.chance.pick(&self.tenants)?.clone();
        let mut terms = self.terms(now, &listing);
        let on_demand = self.chance.permille(ORDERS_PERMILLE);
        if on_demand {
            let limit = listing.worth.max(listing.reserve);
            terms.options = vec![BidOption { market: listing.market, limit, running_limit: None }];
            terms.min_quantity = 1;
        }
        let id = self.id()?;
        let cluster = format!("cluster-{}", self.chance.below(5)).parse().ok()?;
        Some(MarketCommand::PlaceBid(Arc::new(PlaceBid {
            id,
            tenant,
            cluster,
            pool: "workers".parse().ok()?,
            quantity: terms.quantity,
            min_quantity: terms.min_quantity,
            options: terms.options,
            on_demand,
            expires_at: terms.expires_at,
            key: CommandKey::default(),
        })))
    }

    fn some_bid(&mut self) -> Option<(BidId, Standing)> {
        let at = self.chance.below(self.standing.len() as u64) as usize;
        self.standing.iter().nth(at).map(|(bid, standing)| (bid.clone(), standing.clone()))
    }

    fn amend(&mut self, now: Timestamp) -> Option<MarketCommand> {
        let (bid, standing) = self.some_bid()?;
        let mut terms = standing.terms.clone();
        let market = &terms.options.first()?.market;
        let listing = self.listings.iter().find(|listing| listing.market == *market)?.clone();
        match self.chance.below(10) {
            0..5 => {
                let limit = self.limit(&listing);
                let option = terms.options.first_mut()?;
                option.limit = limit;
                option.running_limit = option.running_limit.map(|running| running.max(limit));
            }
            5..8 => {
                terms.quantity = self.chance.between(1, self.habits.quantity_max) as u32;
                terms.min_quantity = terms.min_quantity.min(terms.quantity);
            }
            8 => {
                let elsewhere = self.chance.pick(&self.listings)?.clone();
                terms = self.terms(now, &elsewhere);
            }
            _ => terms.expires_at = Some(now.plus_seconds(self.chance.between(1, 900) as u32)),
        }
        let shrinks = terms.quantity < standing.terms.quantity;
        let give_up = if shrinks { standing.held.iter().take(1).copied().collect() } else { Vec::new() };
        Some(MarketCommand::AmendBid(Arc::new(AmendBid {
            id: self.id()?,
            tenant: standing.tenant,
            bid,
            version: standing.version,
            terms,
            give_up,
            key: CommandKey::default(),
        })))
    }

    fn cancel(&mut self) -> Option<MarketCommand> {
        let (bid, standing) = self.some_bid()?;
        let id = self.id()?;
        Some(MarketCommand::CancelBid(CancelBid {
            id,
            tenant: standing.tenant,
            bid,
            key: CommandKey::default(),
        }))
    }

    fn acknowledge(&mut self, bid: BidId, standing: Standing) -> Option<MarketCommand> {
        let id = self.id()?;
        let leases = standing.leaving.into_iter().collect();
        let tenant = standing.tenant;
        Some(MarketCommand::AcknowledgeNotice(AcknowledgeNotice {
            id,
            tenant,
            bid,
            leases,
            key: CommandKey::default(),
        }))
    }

    /// Well-formed, and wrong.
    fn nonsense(&mut self) -> Option<MarketCommand> {
        let listing = self.chance.pick(&self.listings)?.clone();
        let now = self.next_at;
        let mut terms = self.terms(now, &listing);
        let mut tenant = self.chance.pick(&self.tenants)?.clone();
        match self.chance.below(6) {
            0 => terms.quantity = 0,
            1 => terms.quantity = u32::MAX,
            2 => terms.options.first_mut()?.limit = Price::micros_or_max(listing.step.micros() + 1),
            3 => terms.options.first_mut()?.market = "nowhere/none".parse().ok()?,
            4 => terms.options.push(terms.options.first()?.clone()),
            _ => tenant = "somebody-else".parse().ok()?,
        }
        let id = self.id()?;
        Some(MarketCommand::PlaceBid(Arc::new(PlaceBid {
            id,
            tenant,
            cluster: "c".parse().ok()?,
            pool: "p".parse().ok()?,
            quantity: terms.quantity,
            min_quantity: terms.min_quantity,
            options: terms.options,
            on_demand: false,
            expires_at: terms.expires_at,
            key: CommandKey::default(),
        })))
    }

    /// Reads one answer. Facts about bids may come twice after a crash.
    ///
    /// # Errors
    /// I1 when a command gets a second answer that is not the first one.
    pub fn told(&mut self, answer: &Answer) -> Result<(), Broken> {
        match answer {
            Answer::Accepted(accepted) => {
                let asked = self.unanswered.remove(&accepted.id);
                self.accepted(asked.map(|asked| asked.command), accepted.version);
                self.record(&accepted.id.clone(), answer)
            }
            Answer::Refused(refused) => match &refused.id {
                Some(id) => {
                    self.unanswered.remove(id);
                    self.record(&id.clone(), answer)
                }
                None => Ok(()),
            },
            Answer::Awarded(fact) => {
                self.span(&fact.bid, fact.leases, |standing, lease| {
                    standing.held.insert(lease);
                });
                Ok(())
            }
            Answer::NoticeGiven(fact) => {
                self.span(&fact.bid, fact.leases, |standing, lease| {
                    standing.held.remove(&lease);
                    standing.leaving.insert(lease);
                });
                Ok(())
            }
            Answer::NoticeWithdrawn(fact) => {
                self.span(&fact.bid, fact.leases, |standing, lease| {
                    standing.leaving.remove(&lease);
                    standing.held.insert(lease);
                });
                Ok(())
            }
            Answer::Released(fact) => {
                self.span(&fact.bid, fact.leases, |standing, lease| {
                    standing.leaving.remove(&lease);
                    standing.held.remove(&lease);
                });
                Ok(())
            }
            Answer::Expired(fact) => {
                self.standing.remove(&fact.bid);
                Ok(())
            }
            Answer::Delayed(_) | Answer::Ready(_) | Answer::Dead(_) => Ok(()),
        }
    }

    fn span(&mut self, bid: &BidId, span: LeaseSpan, mut each: impl FnMut(&mut Standing, LeaseNumber)) {
        if let Some(standing) = self.standing.get_mut(bid) {
            (span.first..span.end()).for_each(|lease| each(standing, lease));
        }
    }

    fn accepted(&mut self, asked: Option<MarketCommand>, version: Option<u32>) {
        match asked {
            Some(MarketCommand::PlaceBid(placed)) => {
                let Ok(bid) = placed.id.as_str().parse::<BidId>() else { return };
                let standing = Standing {
                    tenant: placed.tenant.clone(),
                    version: version.unwrap_or(1),
                    terms: placed.terms(),
                    held: BTreeSet::new(),
                    leaving: BTreeSet::new(),
                };
                self.standing.insert(bid, standing);
            }
            Some(MarketCommand::AmendBid(amended)) => {
                if let Some(standing) = self.standing.get_mut(&amended.bid) {
                    standing.version = version.unwrap_or(standing.version + 1);
                    standing.terms = amended.terms.clone();
                }
            }
            Some(MarketCommand::CancelBid(cancelled)) => {
                self.standing.remove(&cancelled.bid);
            }
            _ => {}
        }
    }

    fn record(&mut self, id: &CommandId, answer: &Answer) -> Result<(), Broken> {
        if !self.remembers || self.answers.len() >= ANSWERS_MAX {
            return Ok(());
        }
        match self.answers.get(id) {
            None => {
                self.answers.insert(id.clone(), answer.clone());
                Ok(())
            }
            Some(first) if first == answer => Ok(()),
            Some(first) => Err(Broken {
                invariant: "I1",
                details: format!("command {id} was answered {first:?} and then {answer:?}"),
            }),
        }
    }
}
