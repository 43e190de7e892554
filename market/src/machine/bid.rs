//! The bids an exchange knows: those that stand or are still leaving, and those that finished not long ago.
//!
//! Of a finished bid nothing is asked any more but that it has ended: a tomb keeps its hashed name, number and end,
//! and what was decoded for it is let go. That happens with the next instant, because whoever is told of the end is
//! told by name, after the turn.

use std::collections::VecDeque;
use std::sync::Arc;

use proto::machine::CommandKey;
use proto::market::{BidNumber, MarketNumber, PlaceBid};
use proto::{PrincipalId, Timestamp};

use super::digest::{Kind, Sum, digest, text};
use super::index::{Index, spread};
use super::lease::Head;
use super::places::Places;
use crate::book::Lot;

/// Whether a bid stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Standing,
    Cancelled,
    Expired,
}

/// One option of a bid: a market and what a unit is worth there, in micro-dollars per hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) market: MarketNumber,
    pub(super) limit: u64,
    /// What a unit that holds a server there is worth: the limit, if nothing else was said.
    pub(super) running_limit: u64,
}

/// What a bid with several options, a minimum or a running limit says besides what every bid says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flexible {
    /// Fewer units than this are worth nothing.
    pub(super) minimum: u32,
    pub(super) options: Vec<Choice>,
    lots: Vec<Lot>,
}

impl Flexible {
    pub(super) const fn new(minimum: u32, options: Vec<Choice>) -> Self {
        Self { minimum, options, lots: Vec::new() }
    }

    /// Digest of its terms.
    fn digest(&self, number: BidNumber) -> u128 {
        let option = |(place, option): (usize, &Choice)| {
            let words = [number, ((place as u64) << 32) | u64::from(option.market), option.limit];
            digest(Kind::Option, [words[0], words[1], words[2], option.running_limit])
        };
        let minimum = digest(Kind::Option, [number, u64::MAX, u64::from(self.minimum), 0]);
        self.options.iter().enumerate().map(option).fold(minimum, u128::wrapping_add)
    }
}

/// A bid's lots, oldest first; nearly always one. A lot's number is its place in its market's book, or, where markets
/// clear together, among the coupled ones ([`super::coupled`]).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Lots {
    #[default]
    None,
    One(Lot),
    // Boxed once more, because few bids have many and a bid is to fill two cache lines.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Lot>>),
    Flexible(Box<Flexible>),
    /// None: an on-demand order, which stands beside the book at the age that the bid says ([`super::order`]).
    Ordered,
}

impl Lots {
    #[inline]
    pub(super) fn as_slice(&self) -> &[Lot] {
        match self {
            Self::None | Self::Ordered => &[],
            Self::One(lot) => std::slice::from_ref(lot),
            Self::Many(lots) => lots,
            Self::Flexible(flexible) => &flexible.lots,
        }
    }

    /// Takes all of them off; what the bid says besides stays.
    pub(super) fn take(&mut self) -> Vec<Lot> {
        if let Self::Flexible(flexible) = self {
            return std::mem::take(&mut flexible.lots);
        }
        std::mem::take(self).as_slice().to_vec()
    }

    /// Gives every lot another number.
    pub(super) fn renumber(&mut self, number: impl Fn(Lot) -> Lot) {
        match self {
            Self::None | Self::Ordered => {}
            Self::One(lot) => *lot = number(*lot),
            Self::Many(lots) => lots.iter_mut().for_each(|lot| *lot = number(*lot)),
            Self::Flexible(flexible) => flexible.lots.iter_mut().for_each(|lot| *lot = number(*lot)),
        }
    }

    /// Adds the youngest.
    pub(super) fn push(&mut self, lot: Lot) {
        match self {
            Self::None | Self::Ordered => *self = Self::One(lot),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, lot])),
            Self::Many(lots) => lots.push(lot),
            Self::Flexible(flexible) => flexible.lots.push(lot),
        }
    }

    pub(super) fn remove(&mut self, lot: Lot) {
        match self {
            Self::One(only) if *only == lot => *self = Self::None,
            Self::None | Self::One(_) | Self::Ordered => {}
            Self::Flexible(flexible) => flexible.lots.retain(|other| *other != lot),
            Self::Many(lots) => {
                lots.retain(|other| *other != lot);
                if let [only] = lots[..] {
                    *self = Self::One(only);
                }
            }
        }
    }
}

/// What is known of one bid: two cache lines.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Bid {
    pub(super) key: CommandKey,
    pub(super) number: BidNumber,
    /// Limit in micro-dollars per hour; of the first option, if there are several.
    pub(super) limit: u64,
    /// Sum of its lots' ages: with the book's own digest this ties the lots to the bid. Of an on-demand order its age.
    pub(super) ages: u64,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) version: u32,
    pub(super) quantity: u32,
    /// Units that are won: leases that are served or wait.
    pub(super) live: u32,
    pub(super) leases: Head,
    pub(super) tenant: u32,
    pub(super) market: MarketNumber,
    pub(super) status: Status,
    /// Whether it has a tomb: it ended and has no leases any more.
    pub(super) is_finished: bool,
    pub(super) lots: Lots,
    /// As it was placed: its names stay true, its terms may have been amended.
    pub(super) placed: Arc<PlaceBid>,
    /// Who is told of it.
    pub(super) by: PrincipalId,
}

impl Bid {
    pub(super) fn stands(&self) -> bool {
        self.status == Status::Standing
    }

    /// Whether it is an on-demand order.
    pub(super) const fn is_order(&self) -> bool {
        matches!(self.lots, Lots::Ordered)
    }

    /// What it says besides, if it has several options, a minimum or a running limit.
    pub(super) fn flexible(&self) -> Option<&Flexible> {
        match &self.lots {
            Lots::Flexible(flexible) => Some(flexible),
            Lots::None | Lots::One(_) | Lots::Many(_) | Lots::Ordered => None,
        }
    }

    /// Its options, in its order.
    pub(super) fn options(&self) -> impl Iterator<Item = Choice> + Clone + '_ {
        let (one, several): (_, &[Choice]) = match self.flexible() {
            Some(flexible) => (None, &flexible.options),
            None => (Some(Choice { market: self.market, limit: self.limit, running_limit: self.limit }), &[]),
        };
        one.into_iter().chain(several.iter().copied())
    }

    /// Its limit in a market that it names.
    pub(super) fn limit_in(&self, market: MarketNumber) -> Option<u64> {
        self.options().find(|option| option.market == market).map(|option| option.limit)
    }

    /// Fewer units than this are worth nothing to it.
    pub(super) fn minimum(&self) -> u32 {
        self.flexible().map_or(1, |flexible| flexible.minimum)
    }

    /// Digest of what can change.
    #[inline]
    fn digest(&self) -> u128 {
        let expires = self.expires_at.map_or(i64::MIN, Timestamp::micros) as u64;
        let place =
            u64::from(self.market) | ((self.status as u64) << 16) | (u64::from(self.is_order()) << 32);
        let terms = (u64::from(self.quantity) << 32) | u64::from(self.version);
        let key = [self.key.0 as u64, (self.key.0 >> 64) as u64];
        let plain =
            digest(Kind::Bid, [self.number, self.limit, self.ages, expires, terms, place, key[0], key[1]]);
        match &self.lots {
            Lots::Flexible(flexible) => plain.wrapping_add(flexible.digest(self.number)),
            Lots::None | Lots::One(_) | Lots::Many(_) | Lots::Ordered => plain,
        }
    }

    /// Digest of what cannot.
    fn digest_of_names(&self) -> u128 {
        let placed = &self.placed;
        let bid = [text(placed.id.as_str()), text(placed.tenant.as_str())];
        let place = [text(placed.cluster.as_str()), text(placed.pool.as_str())];
        let by = text(self.by.as_str());
        digest(Kind::Names, [self.number, bid[0], bid[1], place[0], place[1], by])
    }
}

const _: () = assert!(size_of::<Option<Bid>>() == 128);

/// Half of a key's bits are plenty to spread keys that are hashes already.
#[inline]
const fn hash_of_key(key: CommandKey) -> u64 {
    (key.0 >> 64) as u64
}

/// What is left of a finished bid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tomb {
    pub(super) key: CommandKey,
    pub(super) finished_at: Timestamp,
    pub(super) number: BidNumber,
    pub(super) status: Status,
}

impl Tomb {
    fn digest(&self) -> u128 {
        let key = [self.key.0 as u64, (self.key.0 >> 64) as u64];
        let end = [self.finished_at.micros() as u64, self.status as u64];
        digest(Kind::Finished, [self.number, key[0], key[1], end[0], end[1], 0])
    }
}

/// Marks a value of the index of names that is a tomb's number.
const TOMB: u32 = 1 << 31;

/// What a name leads to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// Where the bid is, unless all that is left of it is a tomb.
    pub(super) place: Option<u32>,
    pub(super) status: Status,
    /// The tenant's place, unless the bid is finished.
    pub(super) tenant: Option<u32>,
}

/// All bids an exchange knows, by place, by name and by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Bids {
    bids: Places<Option<Bid>>,
    free: Vec<u32>,
    names: Index,
    numbers: Index,
    standing: u32,
    /// Finished bids, in the order in which they finished, numbered from `forgotten` on.
    tombs: VecDeque<Tomb>,
    forgotten: u32,
    /// Places of finished bids that are to be let go, with the numbers of their tombs.
    retiring: VecDeque<(u32, u32)>,
    pub(super) sum: Sum,
}

impl Bids {
    /// How many bids stand.
    pub(super) const fn standing(&self) -> u32 {
        self.standing
    }

    /// How many bids are known, finished ones included.
    pub(super) const fn known(&self) -> usize {
        self.names.len()
    }

    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<&Bid> {
        self.bids.get(place)?.as_ref()
    }

    /// What a name leads to.
    #[inline]
    pub(super) fn named(&self, key: CommandKey) -> Option<Known> {
        let is_it = |value: u32| match value & TOMB {
            0 => self.get(value).is_some_and(|bid| bid.key == key),
            _ => self.tomb(value).is_some_and(|tomb| tomb.key == key),
        };
        let value = self.names.find(hash_of_key(key), is_it)?;
        if value & TOMB != 0 {
            let status = self.tomb(value)?.status;
            return Some(Known { place: None, status, tenant: None });
        }
        let bid = self.get(value)?;
        let tenant = (!bid.is_finished).then_some(bid.tenant);
        Some(Known { place: Some(value), status: bid.status, tenant })
    }

    fn tomb(&self, value: u32) -> Option<&Tomb> {
        self.tombs.get((value.wrapping_sub(self.forgotten) & !TOMB) as usize)
    }

    /// Finished bids that are not forgotten, in the order in which they finished.
    pub(super) const fn finished(&self) -> &VecDeque<Tomb> {
        &self.tombs
    }

    /// The bid of a number.
    #[inline]
    pub(super) fn numbered(&self, number: BidNumber) -> Option<u32> {
        let is_it = |place| self.get(place).is_some_and(|bid| bid.number == number);
        self.numbers.find(spread(number), is_it)
    }

    /// All bids that are not finished, in no particular order.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Bid)> + '_ {
        let places = self.bids.iter().enumerate();
        let known = places.filter_map(|(place, bid)| bid.as_ref().map(|bid| (place as u32, bid)));
        known.filter(|(_, bid)| !bid.is_finished)
    }

    /// Loads what a look-up of this name will need.
    pub(super) fn touch(&self, key: CommandKey) -> u64 {
        let slot = self.names.touch(hash_of_key(key));
        let place = (slot as u32).wrapping_sub(1);
        self.get(place).map_or(slot, |bid| bid.number ^ bid.limit)
    }

    pub(super) fn insert(&mut self, bid: Bid) -> u32 {
        self.sum.add(bid.digest());
        self.sum.add(bid.digest_of_names());
        self.standing += u32::from(bid.stands());
        let (key, number) = (bid.key, bid.number);
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(free) = self.bids.get_mut(place) {
                    *free = Some(bid);
                }
                place
            }
            None => self.bids.push(Some(bid)),
        };
        self.names.insert(hash_of_key(key), place);
        self.numbers.insert(spread(number), place);
        place
    }

    /// Changes what counts in the digest.
    #[inline]
    pub(super) fn change<T>(&mut self, place: u32, change: impl FnOnce(&mut Bid) -> T) -> Option<T> {
        let bid = self.bids.get_mut(place)?.as_mut()?;
        self.sum.remove(bid.digest());
        let stood = bid.stands();
        let result = change(bid);
        self.sum.add(bid.digest());
        self.standing -= u32::from(stood && !bid.stands());
        Some(result)
    }

    /// A bid whose leases, or how many of them are won, are changed: these do not count in its own digest.
    #[inline]
    pub(super) fn holder(&mut self, place: u32) -> Option<&mut Bid> {
        self.bids.get_mut(place)?.as_mut()
    }

    /// A bid has ended and has no leases any more: from now on it counts as its tomb. Returns its tenant's place.
    pub(super) fn finish(&mut self, at: Timestamp, place: u32) -> Option<u32> {
        let bid = self.bids.get_mut(place)?.as_mut().filter(|bid| !bid.is_finished)?;
        self.sum.remove(bid.digest());
        self.sum.remove(bid.digest_of_names());
        bid.is_finished = true;
        let tenant = bid.tenant;
        let tomb = Tomb { key: bid.key, finished_at: at, number: bid.number, status: bid.status };
        self.retiring.push_back((place, self.next_tomb()));
        self.bury(tomb);
        Some(tenant)
    }

    fn next_tomb(&self) -> u32 {
        TOMB | self.forgotten.wrapping_add(self.tombs.len() as u32)
    }

    fn bury(&mut self, tomb: Tomb) {
        self.sum.add(tomb.digest());
        self.tombs.push_back(tomb);
    }

    /// Adds what was left of a finished bid, as when a snapshot is read.
    pub(super) fn insert_tomb(&mut self, tomb: Tomb) {
        self.names.insert(hash_of_key(tomb.key), self.next_tomb());
        self.bury(tomb);
    }

    /// Lets go of what was decoded for bids that finished before `now`.
    #[inline]
    pub(super) fn retire(&mut self, now: Timestamp) {
        while let Some(&(place, value)) = self.retiring.front()
            && self.tomb(value).is_none_or(|tomb| tomb.finished_at < now)
        {
            self.retiring.pop_front();
            self.let_go(place, value);
        }
    }

    fn let_go(&mut self, place: u32, value: u32) {
        let Some(bid) = self.bids.get_mut(place).and_then(Option::take) else { return };
        self.names.replace(hash_of_key(bid.key), place, value);
        self.numbers.remove(spread(bid.number), place);
        self.free.push(place);
    }

    /// Forgets the bid that finished first.
    pub(super) fn forget(&mut self) {
        let value = TOMB | self.forgotten;
        if self.retiring.front().is_some_and(|&(_, first)| first == value)
            && let Some((place, value)) = self.retiring.pop_front()
        {
            self.let_go(place, value);
        }
        if let Some(tomb) = self.tombs.pop_front() {
            self.sum.remove(tomb.digest());
            self.names.remove(hash_of_key(tomb.key), value);
            self.forgotten = self.forgotten.wrapping_add(1) & !TOMB;
        }
    }

    /// The sum of all digests, worked out anew.
    pub(super) fn sum_from_scratch(&self) -> Sum {
        let mut sum = Sum::default();
        for (_, bid) in self.all() {
            sum.add(bid.digest());
            sum.add(bid.digest_of_names());
        }
        self.tombs.iter().for_each(|tomb| sum.add(tomb.digest()));
        sum
    }
}
