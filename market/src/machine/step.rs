//! Deciding commands: who may, what is right, what follows.

use std::sync::Arc;

use proto::envelope::RefusalReason;
use proto::machine::{CommandKey, Received, Role, Sender};
use proto::market::{
    AcknowledgeNotice, AmendBid, CancelBid, LEASES_NAMED_MAX, LeaseNumber, LeaseSpan, LossReason,
    MarketCommand, MarketEvent, MarketNumber, PlaceBid, ReleaseReason,
};
use proto::{BidId, TenantId, Timestamp};

use super::Market;
use super::bid::{Bid, Known, Status};
use super::bounds::FINISHED_BIDS_MAX;
use super::lease::Stand;
use super::terms::{Asked, Checked, refuse};

type Events = Vec<MarketEvent>;

impl Market {
    /// Decides one command.
    pub(super) fn decide(&mut self, now: Timestamp, received: &Received<MarketCommand>, events: &mut Events) {
        self.now = now;
        self.bids.retire(now);
        let sender = &received.sender;
        let decided = match &received.command {
            MarketCommand::PlaceBid(bid) => self.place(now, sender, bid, events),
            MarketCommand::AmendBid(amendment) => self.amend(now, sender, amendment, events),
            MarketCommand::CancelBid(command) => self.cancel(now, sender, command, events),
            MarketCommand::AcknowledgeNotice(command) => self.acknowledge(now, sender, command, events),
            MarketCommand::SupplyOffered(offer) => self.offer(now, sender, offer, events),
            MarketCommand::ReportReady(command) => self.report_ready(now, sender, command, events),
            MarketCommand::ReportDead(command) => self.report_dead(now, sender, command, events),
            MarketCommand::ReportReleased(command) => self.report_released(now, sender, command, events),
            MarketCommand::MoveLeases(command) => self.move_leases(now, sender, command, events),
            MarketCommand::DefineMarket(command) => {
                operator_only(sender, "DefineMarket").and_then(|()| self.define(now, command, events))
            }
            MarketCommand::AdoptRules(command) => {
                operator_only(sender, "AdoptRules").and_then(|()| self.adopt_rules(now, command, events))
            }
            MarketCommand::AdoptTrust(command) => {
                operator_only(sender, "AdoptTrust").and_then(|()| self.adopt_trust(now, command, events))
            }
        };
        if let Err(refusal) = decided {
            events.push(MarketEvent::CommandRefused(*refusal));
        }
    }

    /// Refuses who may not speak for a tenant.
    #[inline]
    fn check_speaker(&mut self, sender: &Sender, tenant: &TenantId, known: Option<u32>) -> Checked<()> {
        if self.trusted.allows(sender, tenant, known, &mut self.tenants) {
            return Ok(());
        }
        let role = sender.role.token();
        if sender.role == Role::Storefront {
            let problem = format!("the storefront {} is not trusted for this tenant", sender.principal);
            return refuse(RefusalReason::NotAllowed, "tenant", tenant, problem);
        }
        refuse(RefusalReason::NotAllowed, "tenant", tenant, format!("a {role} does not speak for tenants"))
    }

    /// The standing bid of a name, for who may speak for its tenant. Another tenant's bid is as unknown as none: the
    /// name holds the tenant.
    fn standing_bid(
        &mut self,
        sender: &Sender,
        tenant: &TenantId,
        bid: &BidId,
        key: CommandKey,
    ) -> Checked<(u32, &Bid)> {
        let known = self.known_bid(sender, tenant, bid, key)?;
        match known.place.and_then(|place| Some((place, self.bids.get(place)?))) {
            Some(found) if known.status == Status::Standing => Ok(found),
            _ => {
                let how = if known.status == Status::Expired { "expired" } else { "was cancelled" };
                refuse(RefusalReason::Ended, "bid", bid, format!("this bid {how}"))
            }
        }
    }

    fn known_bid(
        &mut self,
        sender: &Sender,
        tenant: &TenantId,
        bid: &BidId,
        key: CommandKey,
    ) -> Checked<Known> {
        let found = self.bids.named(key);
        let known = found.and_then(|found| found.tenant).or_else(|| self.tenants.named(tenant));
        self.check_speaker(sender, tenant, known)?;
        match found {
            Some(found) => Ok(found),
            None => refuse(RefusalReason::Unknown, "bid", bid, "no such bid is known"),
        }
    }

    fn place(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        bid: &Arc<PlaceBid>,
        events: &mut Events,
    ) -> Checked<()> {
        let tenant = self.tenants.named(&bid.tenant);
        self.check_speaker(sender, &bid.tenant, tenant)?;
        let asked = Asked {
            prefix: "",
            quantity: bid.quantity,
            min_quantity: bid.min_quantity,
            options: &bid.options,
            is_order: bid.on_demand,
            expires_at: bid.expires_at,
        };
        let market = self.check_terms(now, asked, None)?;
        if bid.on_demand {
            self.check_order(&asked, market, None)?;
        }
        if self.bids.named(bid.key).is_some() {
            return refuse(RefusalReason::IdReused, "id", &bid.id, "a bid of this tenant has this id");
        }
        self.check_places_left(bid, tenant)?;
        self.check_rooms(&asked, market, None)?;
        let number = self.next.bid;
        events.push(MarketEvent::BidPlaced { number, by: sender.principal.clone(), bid: Arc::clone(bid) });
        self.bid_placed(number, &sender.principal, bid, market);
        Ok(())
    }

    /// Refuses a bid when as many stand as may.
    fn check_places_left(&self, bid: &PlaceBid, tenant: Option<u32>) -> Checked<()> {
        let most = self.rules.standing_bids_max;
        if self.bids.standing() >= most {
            let problem = format!("at most {most} bids stand in an exchange");
            return refuse(RefusalReason::LimitReached, "id", &bid.id, problem);
        }
        let most = self.rules.standing_bids_per_tenant_max;
        let standing = tenant.and_then(|tenant| self.tenants.get(tenant)).map_or(0, |tenant| tenant.standing);
        if standing >= most {
            let problem = format!("at most {most} bids of one tenant stand");
            return refuse(RefusalReason::LimitReached, "tenant", &bid.tenant, problem);
        }
        if self.bids.finished().len() >= 2 * FINISHED_BIDS_MAX {
            let problem = "too many bids have ended and are not forgotten yet";
            return refuse(RefusalReason::LimitReached, "id", &bid.id, problem);
        }
        Ok(())
    }

    fn amend(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        amendment: &Arc<AmendBid>,
        events: &mut Events,
    ) -> Checked<()> {
        let AmendBid { tenant, bid, key, terms, give_up, .. } = &**amendment;
        let (place, found) = self.standing_bid(sender, tenant, bid, *key)?;
        let number = found.number;
        if found.version != amendment.version {
            let problem = format!("version {} stands", found.version);
            return refuse(RefusalReason::Stale, "version", amendment.version, problem);
        }
        let Some(version) = found.version.checked_add(1) else {
            return refuse(
                RefusalReason::LimitReached,
                "version",
                amendment.version,
                "no version follows this one",
            );
        };
        let asked = Asked {
            prefix: "terms.",
            quantity: terms.quantity,
            min_quantity: terms.min_quantity,
            options: &terms.options,
            is_order: self.bids.get(place).is_some_and(Bid::is_order),
            expires_at: terms.expires_at,
        };
        let market = self.check_terms(now, asked, self.bids.get(place))?;
        self.check_named(place, give_up, "give_up", |_| true)?;
        match self.bids.get(place).filter(|bid| bid.is_order()) {
            Some(order) => self.check_order(&asked, market, Some(order))?,
            None => self.check_rooms(&asked, market, self.bids.get(place))?,
        }
        events.push(MarketEvent::BidAmended { number, version, amendment: Arc::clone(amendment) });
        self.bid_amended(place, version, terms, market);
        self.let_go_amended(now, place, give_up, events);
        Ok(())
    }

    /// Lets units go that an amended bid no longer wants: those in markets that it no longer names, and what it has
    /// more than it wants.
    fn let_go_amended(&mut self, now: Timestamp, place: u32, named: &[LeaseNumber], events: &mut Events) {
        let Some(bid) = self.bids.get(place) else { return };
        let live = self.leases.of(bid.leases).filter(|(_, span)| span.stand.is_live());
        let elsewhere = live.filter(|(_, span)| bid.limit_in(span.market).is_none());
        let elsewhere: u32 = elsewhere.map(|(_, span)| span.units).sum();
        if elsewhere > 0 {
            let markets: Vec<MarketNumber> = bid.options().map(|option| option.market).collect();
            let is_dropped = |market: MarketNumber| !markets.contains(&market);
            self.let_go(now, place, elsewhere, named, LossReason::Reduced, is_dropped, events);
        }
        let excess = self.bids.get(place).map_or(0, |bid| bid.live.saturating_sub(bid.quantity));
        if excess > 0 {
            self.let_go(now, place, excess, named, LossReason::Reduced, |_| true, events);
        }
    }

    fn cancel(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        command: &CancelBid,
        events: &mut Events,
    ) -> Checked<()> {
        let (place, found) = self.standing_bid(sender, &command.tenant, &command.bid, command.key)?;
        let number = found.number;
        events.push(MarketEvent::BidCancelled { number });
        self.end_bid(now, place, Status::Cancelled, LossReason::Cancelled, events);
        Ok(())
    }

    /// Ends a bid whose end was just told: what it holds leaves.
    pub(super) fn end_bid(
        &mut self,
        now: Timestamp,
        place: u32,
        status: Status,
        reason: LossReason,
        events: &mut Events,
    ) {
        self.bid_ended(now, place, status);
        let live = self.bids.get(place).map_or(0, |bid| bid.live);
        if live > 0 {
            self.let_go(now, place, live, &[], reason, |_| true, events);
        }
    }

    fn acknowledge(
        &mut self,
        now: Timestamp,
        sender: &Sender,
        command: &AcknowledgeNotice,
        events: &mut Events,
    ) -> Checked<()> {
        let AcknowledgeNotice { tenant, bid, leases, key, .. } = command;
        // Of a finished bid no place may be left; it has no leases, so whichever are named are none of its.
        let place = self.known_bid(sender, tenant, bid, *key)?.place.unwrap_or(u32::MAX);
        if leases.is_empty() || leases.len() > LEASES_NAMED_MAX {
            let problem = format!("1 to {LEASES_NAMED_MAX} leases are acknowledged at once");
            return refuse(RefusalReason::OutOfRange, "leases", leases.len(), problem);
        }
        let pieces = self.check_named(place, leases, "leases", |stand| matches!(stand, Stand::Leaving(_)))?;
        let Some(number) = self.bids.get(place).map(|bid| bid.number) else { return Ok(()) };
        events.push(MarketEvent::NoticeAcknowledged { number, units: leases.len() as u32 });
        for (market, leases) in pieces {
            let reason = ReleaseReason::Acknowledged;
            events.push(MarketEvent::UnitsReleased { number, market, leases, reason });
            self.units_released(now, place, leases, reason);
        }
        Ok(())
    }

    /// Checks leases that a command names: each once, each one of the bid's in a state that `fits`. Returns them in
    /// order, as pieces of spans.
    fn check_named(
        &self,
        place: u32,
        named: &[LeaseNumber],
        field: &str,
        fits: impl Fn(Stand) -> bool,
    ) -> Checked<Vec<(MarketNumber, LeaseSpan)>> {
        let mut pieces: Vec<(MarketNumber, LeaseSpan)> = Vec::new();
        if named.is_empty() {
            return Ok(pieces);
        }
        if named.len() > LEASES_NAMED_MAX {
            let problem = format!("a command names at most {LEASES_NAMED_MAX} leases");
            return refuse(RefusalReason::OutOfRange, field, named.len(), problem);
        }
        let mut ascending: Vec<(LeaseNumber, usize)> =
            named.iter().enumerate().map(|(index, &lease)| (lease, index)).collect();
        ascending.sort_unstable();
        let head = self.bids.get(place).map(|bid| bid.leases).unwrap_or_default();
        let mut spans: Vec<_> =
            self.leases.of(head).map(|(_, span)| (span.leases(), span.market, span.stand)).collect();
        let mut last = None;
        for (lease, index) in ascending {
            let at = || format!("{field}[{index}]");
            if last.replace(lease) == Some(lease) {
                return refuse(RefusalReason::Duplicate, at(), lease, "stands twice");
            }
            // Spans come off the end: the oldest first, as the leases do.
            while spans.last().is_some_and(|(span, ..)| span.end() <= lease) {
                spans.pop();
            }
            let Some(&(span, market, stand)) = spans.last().filter(|(span, ..)| span.contains(lease)) else {
                return refuse(RefusalReason::Unknown, at(), lease, "the bid has no such lease");
            };
            if !fits(stand) {
                return refuse(RefusalReason::Unknown, at(), lease, "no notice stands for this lease");
            }
            match pieces.last_mut() {
                Some((_, piece)) if piece.end() == lease && span.contains(piece.first) => piece.units += 1,
                _ => pieces.push((market, LeaseSpan { first: lease, units: 1 })),
            }
        }
        Ok(pieces)
    }

    /// Loads what a command about a bid will need.
    pub(super) fn touch_bid(&self, key: CommandKey) -> u64 {
        let known = self.bids.named(key).and_then(|known| known.place);
        let Some(bid) = known.and_then(|place| self.bids.get(place)) else { return 0 };
        let lot = bid.lots.as_slice().first().copied();
        let terms = lot.zip(self.market(bid.market)).and_then(|(lot, record)| record.book.terms(lot));
        terms.map_or(bid.number, |terms| terms.age)
    }
}

fn operator_only(sender: &Sender, kind: &str) -> Checked<()> {
    // A service brings the operator's configuration into force.
    if matches!(sender.role, Role::Operator | Role::Service) {
        return Ok(());
    }
    let problem = format!("only an operator may ask this, not a {}", sender.role.token());
    refuse(RefusalReason::NotAllowed, "type", kind, problem)
}
