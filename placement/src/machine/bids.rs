//! What exchanges report: leases, for servers; bids as they come to stand and end, the only thing of the market that a
//! plane's sleep depends on.

use proto::market::BidNumber;
use proto::placement::{BidStands, PlacementEvent, PlaneNumber};
use proto::{StreamName, Timestamp};

use super::Placement;
use super::digest::digest_of_bid;

impl Placement {
    /// Lets what an exchange decided take effect.
    pub(super) fn exchange_reported(&mut self, at: Timestamp, event: &PlacementEvent) {
        let PlacementEvent::BidsReported { exchange, sequence, part, markets, placed, leases, ended } = event
        else {
            return;
        };
        self.routed.insert(exchange.clone(), (*sequence, *part));
        for named in markets {
            self.servers.open(exchange, named);
        }
        for bid in placed {
            self.servers.place(exchange, bid.bid, &bid.tenant, &bid.cluster);
        }
        for change in leases {
            self.servers.change(exchange, *change);
        }
        for bid in ended {
            self.servers.end_bid(exchange, *bid);
        }
        self.follow_bids(at, exchange, placed, ended);
        self.time_servers();
    }

    pub(super) fn follow_bids(
        &mut self,
        at: Timestamp,
        exchange: &StreamName,
        placed: &[BidStands],
        ended: &[BidNumber],
    ) {
        for bid in placed {
            let Some(number) = self.plane_named(&bid.tenant, &bid.cluster).map(|plane| plane.number) else {
                continue;
            };
            if self.bids.insert((exchange.clone(), bid.bid), number).is_none() {
                self.bids_sum = self.bids_sum.wrapping_add(digest_of_bid(exchange, bid.bid, number));
                self.change_plane(at, number, |plane| plane.bids += 1);
            }
        }
        for bid in ended {
            if let Some(number) = self.forget_bid(exchange, *bid) {
                self.change_plane(at, number, |plane| plane.bids = plane.bids.saturating_sub(1));
            }
        }
    }

    pub(super) fn forget_bid(&mut self, exchange: &StreamName, bid: BidNumber) -> Option<PlaneNumber> {
        let number = self.bids.remove(&(exchange.clone(), bid))?;
        self.bids_sum = self.bids_sum.wrapping_sub(digest_of_bid(exchange, bid, number));
        Some(number)
    }
}
