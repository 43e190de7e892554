//! Prices in the shape that tools made for Rackspace Spot read: `/history/{class}` and `/percentiles.json`.
//!
//! Those tools know server classes whose names are unique, so a class that several regions offer is called
//! `class-region` here; and they know prices as JSON numbers. Here the numbers are the
//! exact prices' nearest floating-point ones, for showing; who bids by them reads `/v1/markets`, which also says
//! what a new bid must offer.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use market::view::PAGE_MAX;
use market::view::json::{History, Market};
use proto::{MarketId, Price};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Gateway;
use super::asked::Parted;
use super::problem::Problem;

/// Most pages of one market's past, or of markets, that one answer is put together from.
const PAGES_MAX: usize = 64;

/// What a server class cost, in the order of time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FamiliarHistory {
    /// The class.
    pub auction: String,
    /// Its prices, where they changed; instants without supply, and so without a price, are left out.
    pub history: Vec<Hammer>,
}

/// A price from an instant on.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hammer {
    /// From when on, in seconds of the Unix era.
    pub run_at: i64,
    /// Dollars per hour.
    pub hammer_price: f64,
}

/// All markets, by region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FamiliarPercentiles {
    /// The regions, by name.
    pub regions: BTreeMap<String, FamiliarRegion>,
}

/// The markets of a region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FamiliarRegion {
    /// Which generation of that service its shape is: always `v1`.
    pub generation: String,
    /// Its server classes, by the names that `/history/{class}` knows.
    pub serverclasses: BTreeMap<String, FamiliarClass>,
}

/// A server class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FamiliarClass {
    /// Its name.
    pub display_name: String,
    /// Its name up to the first dot.
    pub category: String,
    /// What one of its servers has, in words.
    pub description: String,
    /// Processors of a server, as text.
    pub cpu: String,
    /// Memory of a server, as text.
    pub memory: String,
    /// Dollars per hour, as text; null without supply.
    pub market_price: Option<String>,
    /// The limit that 20 in 100 units won do not exceed; null with few winning tenants.
    #[serde(rename = "20_percentile")]
    pub p20: Option<f64>,
    /// The limit that half the units won do not exceed.
    #[serde(rename = "50_percentile")]
    pub p50: Option<f64>,
    /// The limit that 80 in 100 units won do not exceed.
    #[serde(rename = "80_percentile")]
    pub p80: Option<f64>,
}

/// `GET /percentiles.json`
pub(super) async fn percentiles(State(gateway): State<Arc<Gateway>>) -> Result<Response, Problem> {
    let mut all = FamiliarPercentiles::default();
    let markets = markets(&gateway).await?;
    for (name, market) in names(&markets).iter().zip(&markets) {
        let region = market.market.region().to_owned();
        let of = all.regions.entry(region).or_insert_with(|| FamiliarRegion {
            generation: "v1".to_owned(),
            serverclasses: BTreeMap::new(),
        });
        of.serverclasses.insert(name.clone(), familiar(name, market));
    }
    Ok(Json(all).into_response())
}

/// `GET /history/{class}`
pub(super) async fn history(
    State(gateway): State<Arc<Gateway>>,
    Parted(class): Parted<String>,
) -> Result<Response, Problem> {
    let markets = markets(&gateway).await?;
    match names(&markets).iter().zip(&markets).find(|(name, _)| **name == class) {
        Some((_, market)) => past(&gateway, &market.market, class).await,
        None => Err(Problem::not_found("class", &class)),
    }
}

/// What each market is called where regions have no say: its class, and its region too where others share it.
fn names(markets: &[Market]) -> Vec<String> {
    let mut offered: BTreeMap<&str, usize> = BTreeMap::new();
    for market in markets {
        *offered.entry(market.market.class()).or_default() += 1;
    }
    let name = |market: &Market| {
        let (region, class) = (market.market.region(), market.market.class());
        let shared = offered.get(class).is_some_and(|regions| *regions > 1);
        if shared { format!("{class}-{region}") } else { class.to_owned() }
    };
    markets.iter().map(name).collect()
}

async fn past(gateway: &Gateway, market: &MarketId, class: String) -> Result<Response, Problem> {
    let exchange = gateway.desk.exchange_of(Some(market));
    let (mut history, mut from) = (Vec::new(), None);
    for _ in 0..PAGES_MAX {
        let page = gateway.desk.read(exchange, 0, |view| view.history(market, from, PAGE_MAX)).await?;
        let History { points, next, .. } = page.ok_or_else(|| Problem::not_found("class", &class))?;
        history.extend(points.iter().filter_map(|point| {
            point.price.map(|price| Hammer {
                run_at: point.at.micros().div_euclid(MICROS_PER_SECOND),
                hammer_price: dollars(price),
            })
        }));
        from = next;
        if from.is_none() {
            break;
        }
    }
    Ok(Json(FamiliarHistory { auction: class, history }).into_response())
}

const MICROS_PER_SECOND: i64 = 1_000_000;

/// All markets of all exchanges, described.
async fn markets(gateway: &Gateway) -> Result<Vec<Market>, Problem> {
    let mut all = Vec::new();
    for exchange in gateway.desk.exchanges() {
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let page = gateway.desk.read(exchange, 0, |view| view.markets(after.as_ref(), PAGE_MAX)).await?;
            all.extend(page.markets);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    for market in &mut all {
        gateway.describe(market);
    }
    Ok(all)
}

fn familiar(class: &str, market: &Market) -> FamiliarClass {
    let description = market.resources.clone().unwrap_or_default();
    let part = |unit: &[&str]| {
        let mut parts = description.split(',').map(str::trim);
        parts.find(|part| unit.iter().any(|unit| part.ends_with(unit))).unwrap_or_default().to_owned()
    };
    FamiliarClass {
        display_name: class.to_owned(),
        category: class.split('.').next().unwrap_or_default().to_owned(),
        cpu: part(&["CPU"]).trim_end_matches("CPU").trim_end_matches([' ', 'v']).to_owned(),
        memory: part(&["GiB", "GB", "MiB"]),
        market_price: market.prices.price.map(|price| format!("{:.6}", dollars(price))),
        p20: market.percentiles.map(|percentiles| dollars(percentiles.p20)),
        p50: market.percentiles.map(|percentiles| dollars(percentiles.p50)),
        p80: market.percentiles.map(|percentiles| dollars(percentiles.p80)),
        description,
    }
}

/// The number nearest to a price. Prices have at most 15 digits, all of which it keeps.
#[allow(clippy::cast_precision_loss)] // below 2^50
fn dollars(price: Price) -> f64 {
    price.micros() as f64 / 1e6
}
