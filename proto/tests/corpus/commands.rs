//! Commands, alone and in envelopes.

use std::sync::Arc;

use proto::Role;
use proto::envelope::Commands;
use proto::machine::CommandKey;
use proto::market::{
    AcknowledgeNotice, AdoptRules, AdoptTrust, AmendBid, CancelBid, DefineMarket, MarketCommand, MoveLeases,
    PlaceBid, ReportDead, ReportReady, ReportReleased, Rules, SupplyCause, SupplyOffered, Terms, Trust,
};

use super::{
    Golden, LATER, NOON, each, each_kind, full_terms, golden, id, instant, plain_terms, price_rules,
    settings, word,
};

type Examples = Vec<(String, MarketCommand)>;

const KEY: CommandKey = CommandKey(0);

pub(super) fn all() -> Vec<Golden> {
    let kinds = each_kind!(MarketCommand:
        PlaceBid => bids(),
        AmendBid => amendments(),
        CancelBid => one(MarketCommand::CancelBid(CancelBid {
            id: id("cancel-1"), tenant: id("acme"), bid: id("bid-1"), key: KEY,
        })),
        AcknowledgeNotice => one(MarketCommand::AcknowledgeNotice(AcknowledgeNotice {
            id: id("drained-1"), tenant: id("acme"), bid: id("bid-1"), leases: vec![17, 18], key: KEY,
        })),
        SupplyOffered => supplies(),
        ReportReady => one(MarketCommand::ReportReady(ReportReady { id: id("ready-1"), leases: vec![17, 18] })),
        ReportDead => one(MarketCommand::ReportDead(ReportDead {
            id: id("dead-1"), leases: vec![17], last_heartbeat_at: instant(NOON),
        })),
        ReportReleased => one(MarketCommand::ReportReleased(ReportReleased { id: id("gone-1"), leases: vec![17] })),
        MoveLeases => one(MarketCommand::MoveLeases(MoveLeases {
            id: id("move-1"), leases: vec![17, 18], gone_at: instant(LATER),
        })),
        DefineMarket => markets(),
        AdoptRules => rules(),
        AdoptTrust => trusts(),
    );
    let mut files = Vec::new();
    let mut together = Vec::new();
    for (kind, examples) in kinds {
        for (name, command) in examples {
            files.push(golden("command", kind, &name, &command));
            together.push(command);
        }
    }
    files.push(golden("commands", "", "one", &Commands { commands: together[..1].to_vec() }));
    files.push(golden("commands", "", "all", &Commands { commands: together }));
    files
}

/// A bid with the terms.
pub(super) fn place(terms: Terms) -> Arc<PlaceBid> {
    Arc::new(PlaceBid {
        id: id("bid-1"),
        tenant: id("acme"),
        cluster: id("prod"),
        pool: id("workers"),
        quantity: terms.quantity,
        min_quantity: terms.min_quantity,
        options: terms.options,
        on_demand: false,
        expires_at: terms.expires_at,
        key: KEY,
    })
}

/// Bids, and an on-demand order.
fn bids() -> Examples {
    let mut order = place(plain_terms());
    Arc::make_mut(&mut order).on_demand = true;
    let mut all =
        two(MarketCommand::PlaceBid(place(plain_terms())), MarketCommand::PlaceBid(place(full_terms())));
    all.push(("on-demand".to_owned(), MarketCommand::PlaceBid(order)));
    all
}

pub(super) fn amend(terms: Terms, give_up: Vec<u64>) -> Arc<AmendBid> {
    let (id, tenant, bid) = (id("amend-1"), id("acme"), id("bid-1"));
    Arc::new(AmendBid { id, tenant, bid, version: 1, terms, give_up, key: KEY })
}

pub(super) fn trusted() -> Vec<Trust> {
    let listed =
        Trust { role: Role::Storefront, principal: id("s1"), tenants: Some(vec![id("acme"), id("bolt")]) };
    let roles = each!(Role: Storefront, Gateway, Hypervisor, Worker, Operator, Service);
    let everybody = roles.into_iter().map(|role| Trust {
        role,
        principal: id(&format!("{}-1", word(&role))),
        tenants: None,
    });
    std::iter::once(listed).chain(everybody).collect()
}

pub(super) fn causes() -> Vec<SupplyCause> {
    each!(SupplyCause: Inventory, Ready, Failed, Host, Operator)
}

fn one(command: MarketCommand) -> Examples {
    vec![(String::new(), command)]
}

fn two(plain: MarketCommand, full: MarketCommand) -> Examples {
    vec![("plain".to_owned(), plain), ("full".to_owned(), full)]
}

fn amendments() -> Examples {
    two(
        MarketCommand::AmendBid(amend(plain_terms(), Vec::new())),
        MarketCommand::AmendBid(amend(full_terms(), vec![17, 19])),
    )
}

fn supplies() -> Examples {
    let plain = SupplyOffered {
        id: id("supply-1"),
        source: id("hv-1"),
        generation: 1,
        market: id("dfw/gp.large"),
        units: 40,
        cause: SupplyCause::Inventory,
        gone_at: None,
        lost: Vec::new(),
    };
    let full = SupplyOffered {
        generation: u64::MAX,
        units: 0,
        cause: SupplyCause::Host,
        gone_at: Some(instant(LATER)),
        lost: vec![1, u64::MAX],
        ..plain.clone()
    };
    let mut examples = two(MarketCommand::SupplyOffered(plain.clone()), MarketCommand::SupplyOffered(full));
    examples.extend(
        causes().into_iter().map(|cause| {
            (word(&cause), MarketCommand::SupplyOffered(SupplyOffered { cause, ..plain.clone() }))
        }),
    );
    examples
}

fn markets() -> Examples {
    let command = |settings| {
        MarketCommand::DefineMarket(DefineMarket { id: id("open-1"), market: id("dfw/gp.large"), settings })
    };
    settings().into_iter().map(|(name, settings)| (name.to_owned(), command(settings))).collect()
}

fn rules() -> Examples {
    let command = |price_rule| {
        let rules = Rules { price_rule, ..Rules::default() };
        MarketCommand::AdoptRules(AdoptRules { id: id("rules-1"), rules })
    };
    price_rules().into_iter().map(|rule| (word(&rule), command(rule))).collect()
}

fn trusts() -> Examples {
    let command = |trusted| MarketCommand::AdoptTrust(AdoptTrust { id: id("trust-1"), trusted });
    vec![("nobody".to_owned(), command(Vec::new())), ("everybody".to_owned(), command(trusted()))]
}
