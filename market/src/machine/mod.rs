//! The market as a machine: an exchange of markets that clear together, its bids, its leases.
//!
//! `step` checks a command, says what follows as events, and lets each event change the state through the very
//! function that [`proto::Machine::apply`] calls when it is read back; so folding is deciding without the checks.
//! Where the checks are: [`terms`], [`step`]; where events take effect: [`standing`], [`holding`], [`supply`],
//! [`rules`], [`round`] with [`loss`] and [`award`]; markets that clear together: [`coupled`]; what is due by itself: [`wake`]. The rules are told in `README.md` beside this crate.

mod apply;
mod award;
mod bid;
pub mod bounds;
mod check;
mod coupled;
mod digest;
mod holding;
mod index;
mod lease;
mod loss;
mod order;
mod places;
mod promises;
mod quote;
mod read;
mod record;
mod report;
mod round;
mod rules;
mod servers;
mod snapshot;
mod standing;
mod step;
mod stretches;
mod supply;
mod tell;
mod tenant;
mod terms;
mod wake;
mod why;

use std::collections::BTreeSet;

use proto::machine::{Broken, Publication, Received, RestoreError};
use proto::market::{BidNumber, LeaseNumber, MarketCommand, MarketEvent, MarketNumber, RoundNumber, Rules};
use proto::{Machine, MarketId, StateHash, StreamName, Timestamp};

pub use quote::{Quote, QuoteError};
pub use read::{BidView, LeaseView};
pub use why::{Why, WhyOption};

use bid::Bids;
use coupled::{Coupled, PassedOver};
use digest::{Kind, Sum, digest, text};
use index::Index;
use lease::Leases;
use record::MarketRecord;
use tenant::{Tenants, Trusted};

/// What is counted in an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counters {
    /// Number of the next bid.
    bid: BidNumber,
    /// Number of the next lease.
    lease: LeaseNumber,
    /// Next place in the queue.
    age: u64,
    /// Number of the last round, and when it was.
    round: RoundNumber,
    round_at: Option<Timestamp>,
    /// When something happened first since the last round: the next one closes some time after that.
    soiled_at: Option<Timestamp>,
    /// When bids were last forgotten.
    forgot_at: Option<Timestamp>,
}

/// An exchange: markets that clear together, one deterministic machine.
#[derive(Clone, Debug)]
pub struct Market {
    stream: StreamName,
    rules: Rules,
    rules_digest: u128,
    trusted: Trusted,
    markets: Vec<MarketRecord>,
    market_names: Index,
    tenants: Tenants,
    bids: Bids,
    leases: Leases,
    /// Units that stand in markets which clear together.
    coupled: Coupled,
    passed_over: PassedOver,
    next: Counters,
    /// The instant of the input or event at hand.
    now: Timestamp,
    /// Bids with an end, by when it comes.
    expiring: BTreeSet<(Timestamp, BidNumber)>,
    /// Markets by when something is due with their leases: some are gone, or without a worker for too long.
    departing: BTreeSet<(Timestamp, MarketNumber)>,
    /// Markets in which something happened since the last round.
    dirty: Vec<MarketNumber>,
    /// Markets in which units in line may get their servers later than they were told.
    shaken: BTreeSet<MarketNumber>,
    /// Digests of all markets as of the last round, and of sources.
    sealed: Sum,
    entries: Sum,
    /// A broken invariant that was met on the way. Nothing can be trusted from then on.
    fault: Option<Broken>,
    /// Lists that are used again, so that a turn allocates nothing of its own.
    scratch: round::Scratch,
}

impl Market {
    /// The market of a name.
    fn market_named(&self, id: &MarketId) -> Option<MarketNumber> {
        let is_it = |place: u32| self.markets.get(place as usize).is_some_and(|record| record.id == *id);
        self.market_names.find(text(id.as_str()), is_it).map(|place| place as MarketNumber)
    }

    fn market(&self, number: MarketNumber) -> Option<&MarketRecord> {
        self.markets.get(usize::from(number))
    }

    /// Notes that a market must be looked at in the next round.
    #[inline]
    fn soil(&mut self, number: MarketNumber) {
        if let Some(record) = self.markets.get_mut(usize::from(number))
            && !record.is_dirty
        {
            record.is_dirty = true;
            self.dirty.push(number);
            self.next.soiled_at.get_or_insert(self.now);
        }
    }

    /// Notes that units in line may get their servers later than they were told.
    fn shake(&mut self, number: MarketNumber) {
        if let Some(record) = self.markets.get_mut(usize::from(number))
            && record.servers.waiting() > 0
            && !record.is_shaken
        {
            record.is_shaken = true;
            self.shaken.insert(number);
            self.soil(number);
        }
    }

    /// Notes a broken invariant: the state is no longer to be trusted.
    fn broke(&mut self, invariant: &'static str, details: impl Into<String>) {
        let details = details.into();
        debug_assert!(false, "invariant {invariant} is broken: {details}");
        self.fault.get_or_insert(Broken { invariant, details });
    }

    fn digest_of_counters(&self) -> u128 {
        let instant = |at: Option<Timestamp>| at.map_or(i64::MIN, Timestamp::micros) as u64;
        let next = &self.next;
        let times = [instant(next.round_at), instant(next.forgot_at), instant(next.soiled_at)];
        let numbers = [next.bid, next.lease, next.age, next.round];
        digest(
            Kind::Counters,
            [numbers[0], numbers[1], numbers[2], numbers[3], times[0], times[1], times[2], 0],
        )
    }

    /// Takes the digests of the markets that changed into the sum, once their round is over.
    fn seal(&mut self) {
        for place in 0..self.dirty.len() {
            let Some(record) = self.markets.get_mut(usize::from(self.dirty[place])) else { continue };
            record.is_dirty = false;
            self.sealed.remove(record.sealed);
            record.sealed = record.digest();
            self.sealed.add(record.sealed);
        }
        self.dirty.clear();
    }
}

impl Machine for Market {
    const NAME: &'static str = "market";
    const RULES: u32 = 3;
    const SNAPSHOT: u32 = 4;
    type Command = MarketCommand;
    type Event = MarketEvent;

    fn new(stream: &StreamName) -> Self {
        let rules = Rules::default();
        Self {
            stream: stream.clone(),
            rules_digest: rules::digest_of(&rules),
            rules,
            trusted: Trusted::default(),
            markets: Vec::new(),
            market_names: Index::default(),
            tenants: Tenants::default(),
            bids: Bids::default(),
            leases: Leases::default(),
            coupled: Coupled::default(),
            passed_over: PassedOver::default(),
            next: Counters {
                bid: 1,
                lease: 1,
                age: 1,
                round: 0,
                round_at: None,
                soiled_at: None,
                forgot_at: None,
            },
            now: Timestamp::MIN,
            expiring: BTreeSet::new(),
            departing: BTreeSet::new(),
            dirty: Vec::new(),
            shaken: BTreeSet::new(),
            sealed: Sum::default(),
            entries: Sum::default(),
            fault: None,
            scratch: round::Scratch::default(),
        }
    }

    fn step(&mut self, now: Timestamp, received: &Received<MarketCommand>, events: &mut Vec<MarketEvent>) {
        self.decide(now, received, events);
    }

    fn wake_at(&self) -> Option<Timestamp> {
        self.next_due()
    }

    fn wake(&mut self, now: Timestamp, events: &mut Vec<MarketEvent>) {
        self.do_due(now, events);
    }

    fn apply(&mut self, at: Timestamp, event: &MarketEvent) {
        self.take_effect(at, event);
    }

    fn hash(&self) -> StateHash {
        let mut sum = self.sealed;
        for &number in &self.dirty {
            if let Some(record) = self.market(number) {
                sum.remove(record.sealed);
                sum.add(record.digest());
            }
        }
        for part in [self.bids.sum, self.leases.sum, self.entries, self.coupled.sum, self.passed_over.sum] {
            sum.add(part.0);
        }
        sum.add(self.digest_of_counters());
        sum.add(self.rules_digest);
        sum.add(self.trusted.digest());
        StateHash(sum.0)
    }

    fn snapshot(&self) -> Vec<u8> {
        self.save()
    }

    fn restore(stream: &StreamName, bytes: &[u8]) -> Result<Self, RestoreError> {
        Self::load(stream, bytes)
    }

    fn check(&self) -> Result<(), Broken> {
        self.check_all()
    }

    fn check_turn(&self) -> Result<(), Broken> {
        self.check_markets()
    }

    fn is_refusal(answer: &MarketEvent) -> bool {
        matches!(answer, MarketEvent::CommandRefused(_))
    }

    fn tell(&self, decided: &Decided, out: &mut Vec<Publication>) {
        self.tell_all(decided, out);
    }

    fn retell(
        stream: &StreamName,
        sequence: u64,
        at: Timestamp,
        received: &Received<MarketCommand>,
        events: &[MarketEvent],
    ) -> Option<Publication> {
        tell::again(stream, sequence, at, received, events)
    }

    fn touch(&self, received: &Received<MarketCommand>) -> u64 {
        match &received.command {
            MarketCommand::PlaceBid(command) => self.bids.touch(command.key),
            MarketCommand::AmendBid(command) => self.touch_bid(command.key),
            MarketCommand::CancelBid(command) => self.touch_bid(command.key),
            MarketCommand::AcknowledgeNotice(command) => self.touch_bid(command.key),
            _ => 0,
        }
    }
}

/// What one turn of the market decided.
type Decided = proto::machine::Decided<MarketCommand, MarketEvent>;
