//! What the parties are told: answers to who sent a command or placed a bid, public figures to everybody.

use std::collections::BTreeMap;

use proto::envelope::{MESSAGE_BYTES_MAX, Refused};
use proto::machine::{Command, Publication, Received};
use proto::market::{
    Accepted, Answer, Awarded, Delayed, Expired, MarketCommand, MarketEvent, MarketNumber, MarketReport,
    Noticed, Released, Withdrawn,
};
use proto::{BidId, Machine, MarketId, Price, PrincipalId, StreamName, Timestamp, subject};

use super::bid::Bid;
use super::{Decided, Market};

/// `type` of a message of answers.
const ANSWERS: &str = "walras.answers";
/// `type` of a message of public figures.
const REPORT: &str = "walras.market-report";
/// Answers go out when they are this long, so that the last one still fits.
const ANSWERS_BYTES: usize = MESSAGE_BYTES_MAX - 16 * 1_024;

/// Room for most answers.
const ANSWER_BYTES_USUAL: usize = 192;

/// One principal's answers, as they are written.
struct Letter {
    principal: PrincipalId,
    json: Vec<u8>,
    /// Length of what stands before the first answer.
    head: usize,
}

/// Everybody's letters of one turn, in the order in which they were begun.
struct Letters<'a> {
    stream: &'a StreamName,
    sequence: u64,
    at: Timestamp,
    letters: Vec<Letter>,
    places: BTreeMap<PrincipalId, usize>,
    last: usize,
    full: Vec<Publication>,
    /// Room for the first letter, in bytes: nearly always all answers are one principal's.
    room: usize,
}

impl<'a> Letters<'a> {
    fn new(stream: &'a StreamName, sequence: u64, at: Timestamp, answers: usize) -> Self {
        let room = (answers * ANSWER_BYTES_USUAL).min(ANSWERS_BYTES);
        let (letters, full) = (Vec::new(), Vec::new());
        Self { stream, sequence, at, letters, places: BTreeMap::new(), last: 0, full, room }
    }

    fn write(&mut self, to: &PrincipalId, answer: &Answer) {
        let is_last = self.letters.get(self.last).is_some_and(|letter| letter.principal == *to);
        if !is_last {
            self.last = match self.places.get(to) {
                Some(&place) => place,
                None => self.begin(to),
            };
        }
        let letter = &mut self.letters[self.last];
        if letter.json.len() > letter.head {
            letter.json.push(b',');
        }
        // Answers are plain data; writing them to memory cannot fail.
        let _ = proto::json::write(answer, &mut letter.json);
        if letter.json.len() > ANSWERS_BYTES {
            let head = letter.json[..letter.head].to_vec();
            let json = std::mem::replace(&mut letter.json, head);
            self.full.push(publication(to, json));
        }
    }

    fn begin(&mut self, to: &PrincipalId) -> usize {
        let (stream, at) = (self.stream, self.at);
        // Names and instants hold nothing that JSON would have to escape.
        let head = format!(
            r#"{{"machine":"{}","stream":"{stream}","sequence":{},"at":"{at}","answers":["#,
            Market::NAME,
            self.sequence
        );
        let mut json = Vec::with_capacity(4 * head.len() + std::mem::take(&mut self.room));
        json.extend_from_slice(head.as_bytes());
        self.letters.push(Letter { principal: to.clone(), json, head: head.len() });
        self.places.insert(to.clone(), self.letters.len() - 1);
        self.letters.len() - 1
    }

    fn send(self, out: &mut Vec<Publication>) {
        out.extend(self.full);
        for letter in self.letters {
            if letter.json.len() > letter.head {
                out.push(publication(&letter.principal, letter.json));
            }
        }
    }
}

fn publication(to: &PrincipalId, mut json: Vec<u8>) -> Publication {
    json.extend_from_slice(b"]}");
    Publication { subject: subject::answer(to), kind: ANSWERS, payload: json, durable: true }
}

/// The answer to a command that was sent again.
pub(super) fn again(
    stream: &StreamName,
    sequence: u64,
    at: Timestamp,
    received: &Received<MarketCommand>,
    events: &[MarketEvent],
) -> Option<Publication> {
    let answer = answer_to(sequence, received, events.first()?);
    let mut letters = Letters::new(stream, sequence, at, 1);
    letters.write(&received.sender.principal, &answer);
    let mut out = Vec::new();
    letters.send(&mut out);
    out.pop()
}

/// The answer to a command, made from itself and its first event.
fn answer_to(sequence: u64, received: &Received<MarketCommand>, event: &MarketEvent) -> Answer {
    let command = &received.command;
    let (id, tenant) = (command.id().clone(), command.tenant().cloned());
    if let MarketEvent::CommandRefused(refusal) = event {
        let (id, sequence, refusal) = (Some(id), Some(sequence), refusal.clone());
        return Answer::Refused(Refused { id, tenant, sequence, refusal });
    }
    let bid = match command {
        MarketCommand::PlaceBid(placed) => Some(BidId::from(&placed.id)),
        MarketCommand::AmendBid(amendment) => Some(amendment.bid.clone()),
        MarketCommand::CancelBid(command) => Some(command.bid.clone()),
        MarketCommand::AcknowledgeNotice(command) => Some(command.bid.clone()),
        _ => None,
    };
    let version = match event {
        MarketEvent::BidPlaced { .. } => Some(1),
        MarketEvent::BidAmended { version, .. } => Some(*version),
        _ => None,
    };
    Answer::Accepted(Accepted { id, tenant, bid, version, sequence })
}

impl Bid {
    /// The bid's name: its placement's id.
    pub(super) fn name(&self) -> BidId {
        BidId::from(&self.placed.id)
    }
}

impl Market {
    pub(super) fn tell_all(&self, decided: &Decided, out: &mut Vec<Publication>) {
        let mut letters = Letters::new(&self.stream, decided.sequence, decided.at, decided.events.len());
        for (entry, events) in decided.iter() {
            if let (Some(received), Some(event)) = (&entry.received, events.first()) {
                let answer = answer_to(decided.sequence, received, event);
                letters.write(&received.sender.principal, &answer);
            }
        }
        let mut reports: BTreeMap<MarketNumber, MarketReport> = BTreeMap::new();
        for event in &decided.events {
            if let MarketEvent::PriceChanged { market, round, prices } = event {
                let Some(record) = self.market(*market) else { continue };
                let (market, id, round, at) = (*market, record.id.clone(), *round, decided.at);
                reports.insert(market, MarketReport { market: id, round, at, prices: *prices });
            } else if let Some((bid, answer)) = self.answer_of(event) {
                letters.write(&bid.by, &answer);
            }
        }
        letters.send(out);
        for report in reports.into_values() {
            let subject = subject::price(&self.stream, &report.market);
            let payload = serde_json::to_vec(&report).unwrap_or_default();
            out.push(Publication { subject, kind: REPORT, payload, durable: false });
        }
    }

    /// What an event means to who placed the bid it is about.
    fn answer_of(&self, event: &MarketEvent) -> Option<(&Bid, Answer)> {
        let named = |number: u64| self.bids.numbered(number).and_then(|place| self.bids.get(place));
        Some(match *event {
            MarketEvent::UnitsAwarded { number, market, leases, round, available_by }
            | MarketEvent::UnitsMoved { number, market, leases, round, available_by, .. } => {
                let bid = named(number)?;
                let (market, price) = self.place_and_price(bid, market)?;
                let (tenant, name, cluster, pool) = names(bid);
                let awarded =
                    Awarded { tenant, bid: name, cluster, pool, market, leases, round, price, available_by };
                (bid, Answer::Awarded(awarded))
            }
            MarketEvent::NoticeGiven { number, market, leases, round, gone_at, reason, kept_by } => {
                let bid = named(number)?;
                let (market, price) = self.place_and_price(bid, market)?;
                let (tenant, name, cluster, pool) = names(bid);
                let noticed = Noticed {
                    tenant,
                    bid: name,
                    cluster,
                    pool,
                    market,
                    leases,
                    round,
                    gone_at,
                    reason,
                    price,
                    kept_by,
                };
                (bid, Answer::NoticeGiven(noticed))
            }
            MarketEvent::NoticeWithdrawn { number, market, leases, round } => {
                let (bid, market) = (named(number)?, self.market(market)?.id.clone());
                let (tenant, name, ..) = names(bid);
                (bid, Answer::NoticeWithdrawn(Withdrawn { tenant, bid: name, market, leases, round }))
            }
            MarketEvent::UnitsDelayed { number, market, leases, round, available_by } => {
                let (bid, market) = (named(number)?, self.market(market)?.id.clone());
                let (tenant, name, ..) = names(bid);
                let delayed = Delayed { tenant, bid: name, market, leases, round, available_by };
                (bid, Answer::Delayed(delayed))
            }
            MarketEvent::UnitsReleased { number, market, leases, reason } => {
                let (bid, market) = (named(number)?, self.market(market)?.id.clone());
                let (tenant, name, ..) = names(bid);
                (bid, Answer::Released(Released { tenant, bid: name, market, leases, reason }))
            }
            MarketEvent::BidExpired { number } => {
                let bid = named(number)?;
                let (tenant, name, ..) = names(bid);
                (bid, Answer::Expired(Expired { tenant, bid: name }))
            }
            _ => return None,
        })
    }

    /// A market's name, and what a unit of a bid pays there as of the last round.
    fn place_and_price(&self, bid: &Bid, number: MarketNumber) -> Option<(MarketId, Option<Price>)> {
        let record = self.market(number)?;
        let price =
            if bid.is_order() { record.order_price(bid) } else { record.told.and_then(|told| told.price) };
        Some((record.id.clone(), price))
    }
}

/// Tenant, bid, cluster and pool.
fn names(bid: &Bid) -> (proto::TenantId, BidId, proto::ClusterId, proto::PoolId) {
    let placed = &bid.placed;
    (placed.tenant.clone(), bid.name(), placed.cluster.clone(), placed.pool.clone())
}
