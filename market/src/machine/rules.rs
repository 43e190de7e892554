//! What operators decide: markets, rules, trust.

use proto::envelope::RefusalReason;
use proto::machine::Role;
use proto::market::{
    AdoptRules, AdoptTrust, DefineMarket, Ladder, MarketEvent, MarketNumber, MarketSettings, Rules, Trust,
};
use proto::{MarketId, Price, Timestamp};

use super::Market;
use super::bounds::{
    COALESCE_MILLISECONDS_MAX, FINISHED_BIDS_KEPT_SECONDS_MAX, GANG_PASSES_PER_ROUND_MAX, MARKETS_MAX,
    NOTICE_SECONDS_MAX, RUNGS_MAX, STANDING_BIDS_MAX, WITHOUT_WORKER_SECONDS_MAX,
};
use super::digest::{Kind, bytes, text};
use super::record::MarketRecord;
use super::tenant::{TENANTS_TRUSTED_MAX, TRUSTED_MAX};
use super::terms::{Checked, refuse};
use crate::book::rung_at_or_above;

impl Market {
    pub(super) fn define(
        &mut self,
        _now: Timestamp,
        command: &DefineMarket,
        events: &mut Vec<MarketEvent>,
    ) -> Checked<()> {
        check_settings(&command.settings)?;
        let known = self.market_named(&command.market);
        if known.is_none() && self.markets.len() >= MARKETS_MAX {
            let problem = format!("an exchange has at most {MARKETS_MAX} markets");
            return refuse(RefusalReason::LimitReached, "market", &command.market, problem);
        }
        let market = known.unwrap_or(self.markets.len() as MarketNumber);
        let ordered = self.market(market).map_or(0, |record| record.ordered);
        if ordered > 0 && command.settings.on_demand_price.is_none() {
            let problem =
                format!("orders for {ordered} servers stand; on_demand_units_max: 0 takes no more of them");
            return refuse(RefusalReason::OutOfRange, "settings.on_demand_price", "none", problem);
        }
        let (id, settings) = (command.market.clone(), command.settings.clone());
        events.push(MarketEvent::MarketDefined { market, id, settings });
        self.market_defined(market, &command.market, &command.settings);
        Ok(())
    }

    /// A market is open, or has other settings.
    pub(super) fn market_defined(&mut self, number: MarketNumber, id: &MarketId, settings: &MarketSettings) {
        if self.is_coupled(number) {
            // What a unit that moves here is worth depends on the reserve.
            self.touch_coupled();
        }
        let usable_before = self.market(number).map_or(0, MarketRecord::usable);
        let done = match self.markets.get_mut(usize::from(number)) {
            Some(record) => record.set(settings.clone()),
            None => {
                MarketRecord::new(number, id.clone(), settings.clone(), self.rules.price_rule).map(|record| {
                    self.market_names.insert(text(id.as_str()), self.markets.len() as u32);
                    self.markets.push(record);
                })
            }
        };
        if let Err(error) = done {
            self.broke("I7", error.to_string());
        }
        self.divide_supply(number);
        if self.market(number).is_some_and(|record| record.usable() < usable_before) {
            self.shake(number);
        }
    }

    pub(super) fn adopt_rules(
        &mut self,
        _now: Timestamp,
        command: &AdoptRules,
        events: &mut Vec<MarketEvent>,
    ) -> Checked<()> {
        check_rules(&command.rules)?;
        events.push(MarketEvent::RulesAdopted { rules: command.rules.clone() });
        self.rules_adopted(&command.rules);
        Ok(())
    }

    /// Other rules hold.
    pub(super) fn rules_adopted(&mut self, rules: &Rules) {
        let is_other = self.rules.price_rule != rules.price_rule;
        let times = |rules: &Rules| (rules.provisioning_seconds_max, rules.dead_seconds_max);
        let has_other_times = times(&self.rules) != times(rules);
        let together = |rules: &Rules| (rules.move_cost, rules.gang_passes_max);
        let clears_otherwise = together(&self.rules) != together(rules);
        self.rules = rules.clone();
        self.rules_digest = digest_of(rules);
        if has_other_times {
            self.watch_leases();
        }
        if clears_otherwise {
            self.touch_coupled();
        }
        if is_other {
            for number in 0..self.markets.len() {
                self.markets[number].book.set_price_rule(rules.price_rule);
                self.soil(number as MarketNumber);
            }
        }
    }

    pub(super) fn adopt_trust(
        &mut self,
        _now: Timestamp,
        command: &AdoptTrust,
        events: &mut Vec<MarketEvent>,
    ) -> Checked<()> {
        check_trust(&command.trusted)?;
        events.push(MarketEvent::TrustAdopted { trusted: command.trusted.clone() });
        self.trusted.adopt(&command.trusted);
        Ok(())
    }

    /// Others are trusted.
    pub(super) fn trust_adopted(&mut self, trusted: &[Trust]) {
        self.trusted.adopt(trusted);
    }
}

/// Digest of rules.
pub(super) fn digest_of(rules: &Rules) -> u128 {
    // Rules are plain data; writing them to memory cannot fail.
    bytes(Kind::Rules, &serde_json::to_vec(rules).unwrap_or_default())
}

fn check_settings(settings: &MarketSettings) -> Checked<()> {
    let out = RefusalReason::OutOfRange;
    if !(1..=NOTICE_SECONDS_MAX).contains(&settings.notice_seconds) {
        let problem = format!("a notice is 1 to {NOTICE_SECONDS_MAX} seconds");
        return refuse(out, "settings.notice_seconds", settings.notice_seconds, problem);
    }
    if let Some(until) = settings.withdraw_until_seconds.filter(|&until| until > settings.notice_seconds) {
        let problem = format!("must be at most the notice of {} seconds", settings.notice_seconds);
        return refuse(out, "settings.withdraw_until_seconds", until, problem);
    }
    match &settings.ladder {
        Ladder::Step(step) if *step == Price::ZERO => {
            return refuse(out, "settings.ladder.step", step, "a step must be above zero");
        }
        Ladder::Step(_) => {}
        Ladder::Rungs(rungs) => check_rungs(rungs)?,
    }
    if let Some(price) = settings.on_demand_price.filter(|&price| price < settings.reserve) {
        let problem = format!("must be at least the reserve {}", settings.reserve);
        return refuse(out, "settings.on_demand_price", price, problem);
    }
    if rung_at_or_above(&settings.ladder, settings.reserve).is_none() {
        return refuse(out, "settings.reserve", settings.reserve, "no legal limit reaches it");
    }
    Ok(())
}

fn check_rungs(rungs: &[Price]) -> Checked<()> {
    let out = RefusalReason::OutOfRange;
    if rungs.is_empty() || rungs.len() > RUNGS_MAX {
        let problem = format!("a ladder lists 1 to {RUNGS_MAX} limits");
        return refuse(out, "settings.ladder.rungs", rungs.len(), problem);
    }
    let mut below = Price::ZERO;
    for (place, &rung) in rungs.iter().enumerate() {
        if rung <= below {
            let problem = format!("limits ascend from above zero; {below} stands before it");
            return refuse(out, format!("settings.ladder.rungs[{place}]"), rung, problem);
        }
        below = rung;
    }
    Ok(())
}

fn check_rules(rules: &Rules) -> Checked<()> {
    let bounded = |field: &str, value: u32, least: u32, most: u32| {
        if (least..=most).contains(&value) {
            return Ok(());
        }
        let problem = format!("must be {least} to {most}");
        refuse(RefusalReason::OutOfRange, format!("rules.{field}"), value, problem)
    };
    bounded("coalesce_milliseconds", rules.coalesce_milliseconds, 0, COALESCE_MILLISECONDS_MAX)?;
    bounded("standing_bids_max", rules.standing_bids_max, 1, STANDING_BIDS_MAX)?;
    bounded("standing_bids_per_tenant_max", rules.standing_bids_per_tenant_max, 1, STANDING_BIDS_MAX)?;
    bounded("provisioning_seconds_max", rules.provisioning_seconds_max, 0, WITHOUT_WORKER_SECONDS_MAX)?;
    bounded("gang_passes_max", rules.gang_passes_max, 1, GANG_PASSES_PER_ROUND_MAX)?;
    bounded("dead_seconds_max", rules.dead_seconds_max, 0, WITHOUT_WORKER_SECONDS_MAX)?;
    let kept = rules.finished_bids_kept_seconds;
    bounded("finished_bids_kept_seconds", kept, 0, FINISHED_BIDS_KEPT_SECONDS_MAX)
}

/// Storefronts are trusted for the tenants listed for them. A gateway may be listed, but only for every tenant: it
/// speaks for all of them, listed or not.
fn check_trust(trusted: &[Trust]) -> Checked<()> {
    if trusted.len() > TRUSTED_MAX {
        let problem = format!("at most {TRUSTED_MAX} principals can be trusted");
        return refuse(RefusalReason::LimitReached, "trusted", trusted.len(), problem);
    }
    let mut principals: Vec<_> = trusted.iter().map(|trust| (trust.role, &trust.principal)).collect();
    principals.sort_unstable();
    let mut tenants_named = 0;
    for (place, trust) in trusted.iter().enumerate() {
        let field = |name: &str| format!("trusted[{place}].{name}");
        match (trust.role, &trust.tenants) {
            (Role::Storefront, _) | (Role::Gateway, None) => {}
            (Role::Gateway, Some(tenants)) => {
                let problem = "a gateway speaks for every tenant";
                return refuse(RefusalReason::OutOfRange, field("tenants"), tenants.len(), problem);
            }
            (role, _) => {
                let problem = "only storefronts are trusted for tenants";
                return refuse(RefusalReason::OutOfRange, field("role"), role.token(), problem);
            }
        }
        let first = principals.partition_point(|&other| other < (trust.role, &trust.principal));
        if principals.get(first + 1) == Some(&(trust.role, &trust.principal)) {
            return refuse(RefusalReason::Duplicate, field("principal"), &trust.principal, "stands twice");
        }
        let tenants = trust.tenants.as_deref().unwrap_or_default();
        tenants_named += tenants.len();
        if tenants_named > TENANTS_TRUSTED_MAX {
            let problem = format!("at most {TENANTS_TRUSTED_MAX} tenants can be named in all");
            return refuse(RefusalReason::LimitReached, field("tenants"), tenants.len(), problem);
        }
        let mut names: Vec<_> = tenants.iter().collect();
        names.sort_unstable();
        if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse(RefusalReason::Duplicate, field("tenants"), pair[0], "stands twice");
        }
    }
    Ok(())
}
