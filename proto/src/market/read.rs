//! Reading events: a stream that is loaded has millions of them, and telling them apart by a field that may stand
//! anywhere would put each into a buffer first.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use super::command::{AmendBid, PlaceBid, Trust};
use super::event::{LeaseSpan, LossReason, MarketEvent, Prices, ReleaseReason, SupplyCause};
use super::terms::{MarketSettings, Rules};
use super::{BidNumber, LeaseNumber, MarketNumber, RoundNumber};
use crate::decode::ByType;
use crate::envelope::Refusal;
use crate::id::{MarketId, PrincipalId, SourceId};
use crate::money::Price;
use crate::time::Timestamp;

impl<'de> Deserialize<'de> for MarketEvent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Read::deserialize(ByType(from))
    }
}

/// [`MarketEvent`] once more, for serde: derived with a `tag` it would be buffered. A variant that is missing here cannot be
/// read, which the golden corpus and the properties of the codec notice.
#[derive(Deserialize)]
#[serde(remote = "MarketEvent")]
#[allow(dead_code, reason = "it stands for another type and is never made")]
enum Read {
    CommandRefused(Refusal),
    BidPlaced {
        number: BidNumber,
        by: PrincipalId,
        #[serde(deserialize_with = "placed")]
        bid: Arc<PlaceBid>,
    },
    BidAmended {
        number: BidNumber,
        version: u32,
        #[serde(deserialize_with = "amended")]
        amendment: Arc<AmendBid>,
    },
    BidCancelled {
        number: BidNumber,
    },
    BidExpired {
        number: BidNumber,
    },
    NoticeAcknowledged {
        number: BidNumber,
        units: u32,
    },
    SupplyChanged {
        market: MarketNumber,
        source: SourceId,
        generation: u64,
        units: u32,
        supply: u32,
        cause: SupplyCause,
        #[serde(default)]
        gone_at: Option<Timestamp>,
    },
    MarketDefined {
        market: MarketNumber,
        id: MarketId,
        settings: MarketSettings,
    },
    RulesAdopted {
        rules: Rules,
    },
    TrustAdopted {
        trusted: Vec<Trust>,
    },
    UnitsAwarded {
        number: BidNumber,
        market: MarketNumber,
        leases: LeaseSpan,
        round: RoundNumber,
        #[serde(default)]
        available_by: Option<Timestamp>,
    },
    UnitsMoved {
        number: BidNumber,
        market: MarketNumber,
        leases: LeaseSpan,
        replaces: LeaseNumber,
        round: RoundNumber,
        #[serde(default)]
        available_by: Option<Timestamp>,
    },
    NoticeGiven {
        number: BidNumber,
        market: MarketNumber,
        leases: LeaseSpan,
        round: RoundNumber,
        gone_at: Timestamp,
        reason: LossReason,
        #[serde(default)]
        kept_by: Option<Price>,
    },
    NoticeWithdrawn {
        number: BidNumber,
        market: MarketNumber,
        leases: LeaseSpan,
        round: RoundNumber,
    },
    UnitsDelayed {
        number: BidNumber,
        market: MarketNumber,
        leases: LeaseSpan,
        round: RoundNumber,
        available_by: Timestamp,
    },
    WorkersReady {
        number: BidNumber,
        market: MarketNumber,
        leases: LeaseSpan,
    },
    WorkersDead {
        number: BidNumber,
        market: MarketNumber,
        leases: LeaseSpan,
        since: Timestamp,
    },
    UnitsReleased {
        number: BidNumber,
        market: MarketNumber,
        leases: LeaseSpan,
        reason: ReleaseReason,
    },
    BidPassedOver {
        number: BidNumber,
        round: RoundNumber,
        short_by: u32,
    },
    PriceChanged {
        market: MarketNumber,
        round: RoundNumber,
        #[serde(flatten)]
        prices: Prices,
    },
    RoundClosed {
        round: RoundNumber,
    },
    BidForgotten {
        number: BidNumber,
    },
}

/// Reads a bid and works out what its command had worked out when it was received.
fn placed<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<PlaceBid>, D::Error> {
    let mut bid = PlaceBid::deserialize(from)?;
    bid.seal();
    Ok(Arc::new(bid))
}

/// As [`placed`], for an amendment.
fn amended<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<AmendBid>, D::Error> {
    let mut amendment = AmendBid::deserialize(from)?;
    amendment.seal();
    Ok(Arc::new(amendment))
}
