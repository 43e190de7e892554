//! The bids an exchange knows: those that stand, and those that ended not long ago.

use std::sync::Arc;

use proto::machine::CommandKey;
use proto::market::{BidNumber, MarketNumber, PlaceBid};
use proto::{PrincipalId, Timestamp};

use super::digest::{Kind, Sum, digest, text};
use super::index::{Index, spread};
use super::lease::Head;
use crate::book::Lot;

/// Whether a bid stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Standing,
    Cancelled,
    Expired,
}

/// A bid's lots, oldest first; nearly always one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Lots {
    #[default]
    None,
    One(Lot),
    // Boxed once more, because few bids have many and a bid is to fill two cache lines.
    #[allow(clippy::box_collection)]
    Many(Box<Vec<Lot>>),
}

impl Lots {
    #[inline]
    pub(super) fn as_slice(&self) -> &[Lot] {
        match self {
            Self::None => &[],
            Self::One(lot) => std::slice::from_ref(lot),
            Self::Many(lots) => lots,
        }
    }

    /// Adds the youngest.
    pub(super) fn push(&mut self, lot: Lot) {
        match self {
            Self::None => *self = Self::One(lot),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, lot])),
            Self::Many(lots) => lots.push(lot),
        }
    }

    pub(super) fn remove(&mut self, lot: Lot) {
        match self {
            Self::One(only) if *only == lot => *self = Self::None,
            Self::None | Self::One(_) => {}
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
    /// Limit in micro-dollars per hour.
    pub(super) limit: u64,
    /// Sum of its lots' ages: with the book's own digest this ties the lots to the bid.
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

    /// Digest of what can change.
    #[inline]
    fn digest(&self) -> u128 {
        let expires = self.expires_at.map_or(i64::MIN, Timestamp::micros) as u64;
        let place = u64::from(self.market) | ((self.status as u64) << 16);
        let terms = (u64::from(self.quantity) << 32) | u64::from(self.version);
        let key = [self.key.0 as u64, (self.key.0 >> 64) as u64];
        digest(Kind::Bid, [self.number, self.limit, self.ages, expires, terms, place, key[0], key[1]])
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

/// All bids an exchange knows, by place, by name and by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Bids {
    bids: Vec<Option<Bid>>,
    free: Vec<u32>,
    names: Index,
    numbers: Index,
    standing: u32,
    pub(super) sum: Sum,
}

impl Bids {
    /// How many bids stand.
    pub(super) const fn standing(&self) -> u32 {
        self.standing
    }

    /// How many bids are known, ended ones included.
    pub(super) const fn known(&self) -> usize {
        self.names.len()
    }

    #[inline]
    pub(super) fn get(&self, place: u32) -> Option<&Bid> {
        self.bids.get(place as usize)?.as_ref()
    }

    /// The bid of a name.
    #[inline]
    pub(super) fn named(&self, key: CommandKey) -> Option<(u32, &Bid)> {
        let hash = hash_of_key(key);
        let place = self.names.find(hash, |place| self.get(place).is_some_and(|bid| bid.key == key))?;
        Some((place, self.get(place)?))
    }

    /// The bid of a number.
    #[inline]
    pub(super) fn numbered(&self, number: BidNumber) -> Option<u32> {
        let is_it = |place| self.get(place).is_some_and(|bid| bid.number == number);
        self.numbers.find(spread(number), is_it)
    }

    /// All known bids, in no particular order.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, &Bid)> + '_ {
        let places = self.bids.iter().enumerate();
        places.filter_map(|(place, bid)| bid.as_ref().map(|bid| (place as u32, bid)))
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
        let place = if let Some(place) = self.free.pop() {
            self.bids[place as usize] = Some(bid);
            place
        } else {
            self.bids.push(Some(bid));
            self.bids.len() as u32 - 1
        };
        self.names.insert(hash_of_key(key), place);
        self.numbers.insert(spread(number), place);
        place
    }

    /// Changes what counts in the digest.
    #[inline]
    pub(super) fn change<T>(&mut self, place: u32, change: impl FnOnce(&mut Bid) -> T) -> Option<T> {
        let bid = self.bids.get_mut(place as usize)?.as_mut()?;
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
        self.bids.get_mut(place as usize)?.as_mut()
    }

    /// Forgets a bid that has ended.
    pub(super) fn remove(&mut self, place: u32) -> Option<Bid> {
        let bid = self.bids.get_mut(place as usize)?.take()?;
        self.sum.remove(bid.digest());
        self.sum.remove(bid.digest_of_names());
        self.names.remove(hash_of_key(bid.key), place);
        self.numbers.remove(spread(bid.number), place);
        self.free.push(place);
        Some(bid)
    }

    /// The sum of all digests, worked out anew.
    pub(super) fn sum_from_scratch(&self) -> Sum {
        let mut sum = Sum::default();
        for (_, bid) in self.all() {
            sum.add(bid.digest());
            sum.add(bid.digest_of_names());
        }
        sum
    }
}
