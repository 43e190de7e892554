//! Random histories: the machine against the model, folding against deciding, restarts in between.

use proptest::prelude::*;
use proto::machine::{Role, Sender};
use proto::market::{LossReason, MarketCommand, MarketEvent, ReleaseReason};
use proto::{Machine, Price, Timestamp};
use serde_json::json;

use super::driver::*;
use super::model::{Fact, Instant, Model, Worker};

const MARKETS: [&str; 2] = ["dfw/a", "iad/b"];
const SECOND: Instant = 1_000_000;
/// Bids per history at most.
const BIDS: u64 = 12;

/// What happens next. Numbers are taken modulo what there is when it happens.
#[derive(Clone, Debug)]
enum Step {
    Wait(i64),
    Place {
        market: usize,
        quantity: u32,
        limit: u64,
        lives: Option<i64>,
    },
    Amend {
        bid: u64,
        market: usize,
        quantity: u32,
        limit: u64,
        is_stale: bool,
        named: Option<u64>,
        lives: Option<i64>,
    },
    Cancel {
        bid: u64,
    },
    Acknowledge {
        bid: u64,
        first: u64,
        count: u64,
    },
    Supply {
        market: usize,
        source: usize,
        units: u32,
        gone_in: Option<i64>,
        lost: Option<u64>,
        is_stale: bool,
    },
    Define {
        market: usize,
        reserve: u64,
        step: u64,
        notice: i64,
        until: Option<i64>,
    },
    Rules {
        pause: i64,
        is_highest_rejected: bool,
        booting_max: i64,
        dead_max: i64,
    },
    /// A source, or the worker itself, says what became of workers.
    Report {
        what: Report,
        first: u64,
        count: usize,
        ago: i64,
    },
    /// The turn ends here.
    Turn,
    Restart,
    TakeOver,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    Ready,
    Dead,
    Released,
    Moved,
}

fn limits() -> impl Strategy<Value = u64> {
    // Few rungs, so that ties are the rule; some off the ladder, some below the reserve.
    prop_oneof![12 => (1..=4_u64).prop_map(|rung| rung * 2_000), 1 => 1_000..9_000_u64]
}

fn step() -> impl Strategy<Value = Step> {
    let lives = || prop::option::weighted(0.2, 1..30_i64);
    let place = (0..2_usize, 1..=4_u32, limits(), lives())
        .prop_map(|(market, quantity, limit, lives)| Step::Place { market, quantity, limit, lives });
    let amend = (
        0..BIDS,
        0..2_usize,
        1..=5_u32,
        limits(),
        prop::bool::weighted(0.05),
        prop::option::of(0..9_u64),
        lives(),
    )
        .prop_map(|(bid, market, quantity, limit, is_stale, named, lives)| Step::Amend {
            bid,
            // Mostly the market it is in, which for most bids is the first.
            market: usize::from(market == 1 && quantity == 1),
            quantity,
            limit,
            is_stale,
            named,
            lives,
        });
    let supply = (
        0..2_usize,
        0..2_usize,
        0..=4_u32,
        prop::option::weighted(0.3, -2..12_i64),
        prop::option::weighted(0.3, 0..20_u64),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(market, source, units, gone_in, lost, is_stale)| Step::Supply {
            market,
            source,
            units,
            gone_in,
            lost,
            is_stale,
        });
    let define = (0..2_usize, 1..=4_u64, 1..=2_u64, 1..12_i64, prop::option::of(0..12_i64)).prop_map(
        |(market, reserve, step, notice, until)| Step::Define {
            market,
            reserve: reserve * 1_500,
            step: step * 1_000,
            notice,
            until: until.map(|until| until.min(notice)),
        },
    );
    prop_oneof![
        6 => (0..6_i64).prop_map(Step::Wait),
        8 => place,
        8 => amend,
        3 => (0..BIDS).prop_map(|bid| Step::Cancel { bid }),
        4 => (0..BIDS, 0..6_u64, 1..3_u64).prop_map(|(bid, first, count)| Step::Acknowledge { bid, first, count }),
        8 => supply,
        1 => define,
        1 => (0..3_i64, any::<bool>(), 0..8_i64, 0..8_i64).prop_map(
            |(pause, is_highest_rejected, booting_max, dead_max)| Step::Rules {
                pause,
                is_highest_rejected,
                booting_max,
                dead_max,
            }
        ),
        8 => (
            prop_oneof![3 => Just(Report::Ready), 2 => Just(Report::Dead), 1 => Just(Report::Released), 1 => Just(Report::Moved)],
            0..30_u64,
            1..5_usize,
            -1..9_i64,
        )
            .prop_map(|(what, first, count, ago)| Step::Report { what, first, count, ago }),
        10 => Just(Step::Turn),
        1 => Just(Step::Restart),
        1 => Just(Step::TakeOver),
    ]
}

fn price(micros: u64) -> String {
    Price::from_micros(micros).unwrap().to_string()
}

fn micros(at: Timestamp) -> Instant {
    at.micros_since(START)
}

/// Machine and model side by side.
struct Race {
    world: World,
    model: Model,
    commands: Vec<(Sender, MarketCommand)>,
    /// What the model says of each command waiting.
    expected: Vec<Vec<Fact>>,
    ids: u64,
    generations: [[u64; 2]; 2],
}

impl Race {
    fn new() -> Self {
        let mut race = Self {
            world: World::new(),
            model: Model::default(),
            commands: Vec::new(),
            expected: Vec::new(),
            ids: 0,
            generations: [[0; 2]; 2],
        };
        for market in 0..2 {
            race.take(&Step::Define { market, reserve: 2_000, step: 1_000, notice: 6, until: None });
        }
        race.take(&Step::Turn);
        race
    }

    fn now(&self) -> Instant {
        micros(self.world.now)
    }

    /// What is due comes before the first command of a turn; the model must see it at the same place.
    fn begin(&mut self) {
        if self.expected.is_empty() {
            let mut facts = Vec::new();
            self.model.wake(self.now(), &mut facts);
            self.expected.push(facts);
        }
    }

    fn push(&mut self, sender: Sender, mut json: serde_json::Value, facts: Vec<Fact>) {
        self.ids += 1;
        if json.get("id").is_none() {
            json["id"] = format!("x{}", self.ids).into();
        }
        self.commands.push((sender, command(json)));
        self.expected.push(facts);
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Wait(seconds) => {
                self.turn();
                self.world.wait(*seconds);
            }
            Step::Turn => self.turn(),
            Step::Restart => {
                self.turn();
                self.world.restart();
            }
            Step::TakeOver => {
                self.turn();
                self.world.take_over();
            }
            command => {
                self.begin();
                self.ask(command);
            }
        }
    }

    fn turn(&mut self) {
        self.begin();
        let mut last = Vec::new();
        self.model.wake(self.now(), &mut last);
        self.expected.push(last);
        let commands = std::mem::take(&mut self.commands);
        let by_report: Vec<bool> =
            commands.iter().map(|(_, command)| matches!(command, MarketCommand::ReportReleased(_))).collect();
        let inputs = self.world.turn(commands);
        let expected = std::mem::take(&mut self.expected);
        assert_eq!(inputs.len(), expected.len());
        for (place, (events, mut expected)) in inputs.iter().zip(expected).enumerate() {
            let mut facts = facts(events);
            if place > 0 && by_report.get(place - 1) == Some(&true) {
                // How the leases lie in spans decides how many acknowledgements there are.
                facts.retain(|fact| !matches!(fact, Fact::Acknowledged(..)));
            }
            // Within one input the order of facts about single leases is not the model's business, but who comes
            // first in line is: lease numbers say that.
            facts.sort();
            expected.sort();
            assert_eq!(facts, expected, "machine (left) and model (right) differ at {}", self.now() / SECOND);
        }
    }

    fn ask(&mut self, step: &Step) {
        let now = self.now();
        match step {
            Step::Place { market, quantity, limit, lives } => self.place(*market, *quantity, *limit, *lives),
            Step::Amend { .. } => self.amend(step),
            Step::Cancel { bid } => {
                let Some((number, name)) = self.pick(*bid) else { return };
                let stands = self.model.bids[number as usize - 1].stands;
                let mut facts = vec![if stands { Fact::Cancelled(number) } else { Fact::Refused("ended") }];
                if stands {
                    self.model.end(now, number, LossReason::Cancelled, &mut facts);
                }
                self.push(gateway(), json!({"type": "CancelBid", "tenant": "t", "bid": name}), facts);
            }
            Step::Acknowledge { bid, first, count } => self.acknowledge(*bid, *first, *count),
            Step::Supply { .. } => self.supply(step),
            Step::Define { market, reserve, step, notice, until } => {
                let (notice_micros, until_micros) = (notice * SECOND, until.map(|until| until * SECOND));
                self.model.define(*market, *reserve, *step, notice_micros, until_micros);
                let mut settings = json!({"reserve": price(*reserve), "ladder": {"step": price(*step)}, "notice_seconds": notice});
                if let Some(until) = until {
                    settings["withdraw_until_seconds"] = json!(until);
                }
                let json = json!({"type": "DefineMarket", "market": MARKETS[*market], "settings": settings});
                self.push(operator(), json, vec![Fact::Other]);
            }
            Step::Report { what, first, count, ago } => self.report(*what, *first, *count, *ago),
            Step::Rules { pause, is_highest_rejected, booting_max, dead_max } => {
                self.model.pause = pause * SECOND;
                (self.model.booting_max, self.model.dead_max) = (booting_max * SECOND, dead_max * SECOND);
                if self.model.is_highest_rejected != *is_highest_rejected {
                    self.model.is_highest_rejected = *is_highest_rejected;
                    self.model.touch();
                }
                let rule = if *is_highest_rejected { "highest-rejected" } else { "lowest-accepted" };
                let rules = json!({
                    "price_rule": rule, "coalesce_milliseconds": pause * 1_000,
                    "provisioning_seconds_max": booting_max, "dead_seconds_max": dead_max,
                });
                self.push(operator(), json!({"type": "AdoptRules", "rules": rules}), vec![Fact::Other]);
            }
            Step::Wait(_) | Step::Turn | Step::Restart | Step::TakeOver => unreachable!(),
        }
    }

    /// Reports on living leases side by side, now and then on one that is over or never was.
    fn report(&mut self, what: Report, first: u64, count: usize, ago: i64) {
        let now = self.now();
        let all: Vec<u64> = self.model.leases().iter().map(|&(lease, ..)| lease).collect();
        let mut leases: Vec<u64> =
            all.iter().copied().cycle().skip(first as usize).take(count.min(all.len())).collect();
        if first == 7 {
            leases.push(1);
        }
        // How many leases go into one event depends on spans: one at a time tells the same.
        leases.truncate(if what == Report::Moved { 1 } else { 9 });
        leases.sort_unstable();
        leases.dedup();
        if leases.is_empty() {
            leases.push(first);
        }
        let (mut facts, mut refusals) = (Vec::new(), Vec::new());
        for &lease in &leases {
            let is_leaving = all.contains(&lease)
                && self
                    .model
                    .leases()
                    .iter()
                    .any(|&(other, bid, _)| other == lease && self.model.are_leaving(bid, &[lease]));
            match (self.model.worker(lease), what) {
                _ if lease == 0 || lease >= self.model.next_lease() => refusals.push("unknown"),
                _ if !all.contains(&lease) => refusals.push("ended"),
                (None, Report::Ready) | (Some(Worker::Booting(_)) | None, Report::Dead) => {
                    refusals.push("not-allowed");
                }
                (_, Report::Released) if !is_leaving => refusals.push("not-allowed"),
                (_, Report::Moved) if !self.model.is_served(lease) => refusals.push("not-allowed"),
                (Some(_), Report::Ready) => facts.push(Fact::Ready { lease }),
                (Some(_), Report::Dead) => facts.push(Fact::Dead { lease, since: now - ago * SECOND }),
                (_, Report::Released) => facts.push(Fact::Acknowledged(lease, 1)),
                (_, Report::Moved) => facts.push(Fact::Moved { lease, from: lease, by: None }),
            }
        }
        let is_past = (what == Report::Dead && ago < 0) || (what == Report::Moved && ago > 0);
        if is_past {
            refusals.insert(0, "other");
        }
        if let Some(reason) = refusals.first() {
            facts = vec![Fact::Refused(reason)];
        } else {
            let told = std::mem::take(&mut facts);
            for fact in told {
                match fact {
                    Fact::Ready { lease } => self.model.ready(lease, &mut facts),
                    Fact::Moved { lease, .. } => {
                        let by_operator = !first.is_multiple_of(2);
                        let reason = if by_operator { LossReason::Operator } else { LossReason::Host };
                        self.model.move_lease(&[vec![lease]], now - ago * SECOND, reason, &mut facts);
                        continue;
                    }
                    Fact::Dead { lease, .. } if self.model.worker(lease) == Some(Worker::Ready) => {
                        self.model.set_worker(lease, Worker::Dead(now));
                    }
                    Fact::Acknowledged(lease, _) => {
                        self.model.release(lease, ReleaseReason::Acknowledged, &mut facts);
                        continue;
                    }
                    _ => {}
                }
                facts.push(fact);
            }
        }
        let kind = match what {
            Report::Ready => "ReportReady",
            Report::Dead => "ReportDead",
            Report::Released => "ReportReleased",
            Report::Moved => "MoveLeases",
        };
        let mut json = json!({"type": kind, "leases": leases});
        if what == Report::Dead {
            json["last_heartbeat_at"] = json!(START.plus_micros(now - ago * SECOND));
        }
        if what == Report::Moved {
            json["gone_at"] = json!(START.plus_micros(now - ago * SECOND));
        }
        let by = if first.is_multiple_of(2) { sender(Role::Service, "watch") } else { operator() };
        self.push(by, json, facts);
    }

    fn pick(&self, bid: u64) -> Option<(u64, String)> {
        let count = self.model.bids.len() as u64;
        let number = (count > 0).then(|| bid % count + 1)?;
        Some((number, format!("b{number}")))
    }

    fn limit_refused(&self, market: usize, limit: u64) -> Option<Fact> {
        let place = &self.model.markets[market];
        if limit < place.reserve {
            return Some(Fact::Refused("below-reserve"));
        }
        (!limit.is_multiple_of(place.step)).then_some(Fact::Refused("off-ladder"))
    }

    fn place(&mut self, market: usize, quantity: u32, limit: u64, lives: Option<i64>) {
        if self.model.bids.len() as u64 >= BIDS {
            return;
        }
        let name = format!("b{}", self.model.bids.len() + 1);
        let expires_at = lives.map(|lives| self.now() + lives * SECOND);
        let fact = self.limit_refused(market, limit);
        let name = if fact.is_some() { format!("r{}", self.ids) } else { name };
        let fact =
            fact.unwrap_or_else(|| Fact::Placed(self.model.place(market, quantity, limit, expires_at)));
        let mut json = json!({
            "type": "PlaceBid", "id": name, "tenant": "t", "cluster": "c", "pool": "p", "quantity": quantity,
            "options": [{"market": MARKETS[market], "limit": price(limit)}],
        });
        if let Some(expires_at) = expires_at {
            json["expires_at"] = json!(START.plus_micros(expires_at));
        }
        self.push(gateway(), json, vec![fact]);
    }

    fn amend(&mut self, step: &Step) {
        let Step::Amend { bid, market, quantity, limit, is_stale, named, lives } = step else { return };
        let now = self.now();
        let Some((number, name)) = self.pick(*bid) else { return };
        let found = self.model.bids[number as usize - 1].clone();
        let version = found.version + u32::from(*is_stale);
        let expires_at = lives.map(|lives| now + lives * SECOND);
        let named: Vec<u64> = named.iter().map(|named| named % self.model.next_lease() + 1).collect();
        let stands_so = found.market == *market && found.limit == *limit;
        let refused = if !found.stands {
            Some(Fact::Refused("ended"))
        } else if *is_stale {
            Some(Fact::Refused("stale"))
        } else if let Some(fact) = self.limit_refused(*market, *limit).filter(|_| !stands_so) {
            Some(fact)
        } else {
            named.iter().any(|&lease| !self.model.has(number, lease)).then_some(Fact::Refused("unknown"))
        };
        let mut facts = Vec::new();
        match refused {
            Some(fact) => facts.push(fact),
            None => {
                self.model.amend(now, number, (*market, *quantity, *limit), expires_at, &named, &mut facts);
            }
        }
        let mut terms =
            json!({"quantity": quantity, "options": [{"market": MARKETS[*market], "limit": price(*limit)}]});
        if let Some(expires_at) = expires_at {
            terms["expires_at"] = json!(START.plus_micros(expires_at));
        }
        let json = json!({
            "type": "AmendBid", "tenant": "t", "bid": name, "version": version, "terms": terms, "give_up": named,
        });
        self.push(gateway(), json, facts);
    }

    fn acknowledge(&mut self, bid: u64, first: u64, count: u64) {
        let Some((number, name)) = self.pick(bid) else { return };
        let mine: Vec<u64> = self
            .model
            .leases()
            .into_iter()
            .filter(|&(_, bid, _)| bid == number)
            .map(|(lease, ..)| lease)
            .collect();
        let mut leases: Vec<u64> =
            mine.iter().copied().filter(|&lease| self.model.are_leaving(number, &[lease])).collect();
        let turned = first as usize % leases.len().max(1);
        leases.rotate_left(turned);
        leases.truncate(count as usize);
        // Now and then one that is not leaving, or not the bid's.
        if first == 5 {
            leases.push(first + count);
            leases.dedup();
        }
        let has_twice = leases.iter().any(|lease| leases.iter().filter(|other| *other == lease).count() > 1);
        if leases.is_empty() || has_twice {
            return;
        }
        let mut facts = Vec::new();
        if self.model.are_leaving(number, &leases) {
            facts.push(Fact::Acknowledged(number, leases.len() as u32));
            for &lease in &leases {
                self.model.release(lease, ReleaseReason::Acknowledged, &mut facts);
            }
        } else {
            facts.push(Fact::Refused("unknown"));
        }
        let json = json!({"type": "AcknowledgeNotice", "tenant": "t", "bid": name, "leases": leases});
        self.push(gateway(), json, facts);
    }

    fn supply(&mut self, step: &Step) {
        let Step::Supply { market, source, units, gone_in, lost, is_stale } = step else { return };
        let now = self.now();
        let name = format!("h{source}");
        let lost: Vec<u64> = match lost {
            Some(lost) => {
                let all: Vec<u64> = self
                    .model
                    .leases()
                    .iter()
                    .filter(|(.., at)| at == market)
                    .map(|&(lease, ..)| lease)
                    .collect();
                if all.is_empty() { Vec::new() } else { vec![all[*lost as usize % all.len()]] }
            }
            None => Vec::new(),
        };
        let before = self.generations[*market][*source];
        let is_stale = *is_stale && before > 0;
        let generation = if is_stale { before - 1 } else { before + 1 };
        let gone_at = gone_in.map(|gone_in| now + gone_in * SECOND);
        let mut facts = Vec::new();
        if is_stale {
            facts.push(Fact::Refused("stale"));
        } else {
            self.generations[*market][*source] = generation;
            let supply = self.model.offer(*market, &name, (generation, *units, gone_at));
            facts.push(Fact::Supply(supply));
            for &lease in &lost {
                self.model.release(lease, ReleaseReason::ServerLost, &mut facts);
            }
        }
        let mut json = json!({
            "type": "SupplyOffered", "source": name, "market": MARKETS[*market], "generation": generation,
            "units": units, "lost": lost,
        });
        if let Some(gone_at) = gone_at {
            json["gone_at"] = json!(START.plus_micros(gone_at));
        }
        self.push(sender(Role::Hypervisor, &name), json, facts);
    }
}

/// Events as facts about single leases.
fn facts(events: &[MarketEvent]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for event in events {
        match event {
            MarketEvent::CommandRefused(refusal) => {
                let reason = serde_json::to_value(refusal.reason).unwrap();
                let known = ["not-allowed", "ended", "stale", "unknown", "below-reserve", "off-ladder"];
                let reason = known.into_iter().find(|known| reason == **known).unwrap_or("other");
                facts.push(Fact::Refused(reason));
            }
            MarketEvent::BidPlaced { number, .. } => facts.push(Fact::Placed(*number)),
            MarketEvent::BidAmended { number, version, .. } => facts.push(Fact::Amended(*number, *version)),
            MarketEvent::BidCancelled { number } => facts.push(Fact::Cancelled(*number)),
            MarketEvent::BidExpired { number } => facts.push(Fact::Expired(*number)),
            MarketEvent::NoticeAcknowledged { number, units } => {
                facts.push(Fact::Acknowledged(*number, *units));
            }
            MarketEvent::SupplyChanged { supply, .. } => facts.push(Fact::Supply(*supply)),
            MarketEvent::MarketDefined { .. } | MarketEvent::RulesAdopted { .. } => facts.push(Fact::Other),
            MarketEvent::TrustAdopted { .. }
            | MarketEvent::BidForgotten { .. }
            | MarketEvent::BidPassedOver { .. } => {}
            MarketEvent::UnitsAwarded { number, leases, available_by, .. } => {
                let by = available_by.map(micros);
                facts.extend((leases.first..leases.end()).map(|lease| Fact::Awarded {
                    lease,
                    bid: *number,
                    by,
                }));
            }
            MarketEvent::NoticeGiven { leases, gone_at, reason, kept_by, .. } => {
                let (gone_at, reason, kept_by) = (micros(*gone_at), *reason, kept_by.map(Price::micros));
                let of = |lease| Fact::Notice { lease, gone_at, reason, kept_by };
                facts.extend((leases.first..leases.end()).map(of));
            }
            MarketEvent::UnitsMoved { leases, replaces, available_by, .. } => {
                let by = available_by.map(micros);
                let of = |lease| Fact::Moved { lease, from: replaces + (lease - leases.first), by };
                facts.extend((leases.first..leases.end()).map(of));
            }
            MarketEvent::NoticeWithdrawn { leases, .. } => {
                facts.extend((leases.first..leases.end()).map(|lease| Fact::Withdrawn { lease }));
            }
            MarketEvent::UnitsDelayed { leases, available_by, .. } => {
                let by = micros(*available_by);
                facts.extend((leases.first..leases.end()).map(|lease| Fact::Delayed { lease, by }));
            }
            MarketEvent::WorkersReady { leases, .. } => {
                facts.extend((leases.first..leases.end()).map(|lease| Fact::Ready { lease }));
            }
            MarketEvent::WorkersDead { leases, since, .. } => {
                let since = micros(*since);
                facts.extend((leases.first..leases.end()).map(|lease| Fact::Dead { lease, since }));
            }
            MarketEvent::UnitsReleased { leases, reason, .. } => {
                let of = |lease| Fact::Released { lease, reason: *reason };
                facts.extend((leases.first..leases.end()).map(of));
            }
            MarketEvent::PriceChanged { market, prices, .. } => facts.push(Fact::Price {
                market: usize::from(*market),
                price: prices.price.map(Price::micros),
                lowest: prices.lowest_winning_bid.map(Price::micros),
                reserve: prices.reserve.micros(),
                supply: prices.supply,
                sold: prices.sold,
                wanted: prices.wanted,
            }),
            MarketEvent::RoundClosed { round } => facts.push(Fact::Round(*round)),
        }
    }
    facts
}

proptest! {
    // More of them by hand: PROPTEST_CASES=10000.
    #[test]
    fn the_machine_does_what_the_model_says(steps in prop::collection::vec(step(), 1..120)) {
        let mut race = Race::new();
        for step in &steps {
            race.take(step);
        }
        // To the end of every notice.
        for _ in 0..4 {
            race.take(&Step::Wait(10));
        }
        race.take(&Step::Turn);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_restoring_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>()) {
        let stream = "main".parse().unwrap();
        let _ = market::Market::restore(&stream, &bytes);
        // Nor do snapshots with one byte changed; most of them are another state, which the hash tells.
        let mut race = Race::new();
        race.take(&Step::Supply { market: 0, source: 0, units: 2, gone_in: None, lost: None, is_stale: false });
        race.take(&Step::Place { market: 0, quantity: 3, limit: 4_000, lives: Some(9) });
        race.take(&Step::Turn);
        let mut saved = race.world.machine.snapshot();
        let place = at.index(saved.len());
        saved[place] ^= bytes.pop().unwrap_or(1).max(1);
        if let Ok(other) = market::Market::restore(&stream, &saved) {
            prop_assert!(other.hash() != race.world.machine.hash() || other.snapshot() == race.world.machine.snapshot());
        }
    }
}
