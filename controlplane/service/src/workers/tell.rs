//! What the desk wants done, done: the market is told, workers are told, what is left of workers is removed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use controlplane::workers::{Act, Holder, Statement};
use proto::machine::{Role, Sender};
use proto::market::{MarketCommand, ReportDead, ReportReady, ReportReleased};
use proto::worker::{ReportAnswer, WorkerId};
use proto::{StreamName, subject};
use runtime::batcher::Batcher;
use tokio::task::JoinSet;

use super::{Office, bindings, clock};

/// The desk is asked at least this often: what is due by time is then late by so much.
const LOOK: Duration = Duration::from_secs(1);
/// And not more often than this, so that a thousand reports are one look.
const LOOK_APART: Duration = Duration::from_millis(50);
/// Requests under way at once, for what the market is told, for orders and for what is removed.
const UNDER_WAY_MAX: usize = 64;
/// In whose name the market is told.
const PRINCIPAL: &str = "controlplane";

/// Acts until it is dropped. `unique` differs from start to start of any process.
pub(super) async fn run(office: Arc<Office>, unique: String) -> Result<()> {
    let sender = Sender { role: Role::Service, principal: PRINCIPAL.parse()? };
    let exchanges: Vec<StreamName> = office.desk().exchanges().cloned().collect();
    let batchers: BTreeMap<StreamName, Batcher> = exchanges
        .into_iter()
        .map(|exchange| {
            let subject = subject::command("market", &exchange, &sender);
            let batcher = Batcher::start(office.bus.clone(), subject, format!("workers-{unique}-{exchange}"));
            (exchange, batcher)
        })
        .collect();
    let mut under_way = JoinSet::new();
    let mut count = 0_u64;
    loop {
        let acts = {
            let mut desk = office.desk();
            office.figures.show(&desk);
            desk.work(clock())
        };
        for act in acts {
            while under_way.len() >= UNDER_WAY_MAX {
                under_way.join_next().await;
            }
            count += 1;
            let office = Arc::clone(&office);
            match act {
                Act::Tell(worker, statement) => {
                    let batcher = batchers.get(worker.exchange()).cloned();
                    let id = format!("{unique}-{count}");
                    under_way.spawn(async move { tell(&office, batcher, &worker, statement, id).await });
                }
                Act::Order(worker, answer) => {
                    under_way.spawn(async move { order(&office, &worker, &answer).await });
                }
                Act::Clean(worker, holder) => {
                    under_way.spawn(async move { clean(&office, &worker, &holder).await });
                }
            }
        }
        while under_way.try_join_next().is_some() {}
        tokio::time::sleep(LOOK_APART).await;
        tokio::select! {
            () = office.news.notified() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Tells the market. What is not stored, or refused, is decided upon again by what the market then says.
async fn tell(
    office: &Office,
    batcher: Option<Batcher>,
    worker: &WorkerId,
    statement: Statement,
    id: String,
) {
    let told = async {
        let (id, leases) = (id.parse()?, vec![worker.lease()]);
        let (word, command) = match statement {
            Statement::Ready => ("ready", MarketCommand::ReportReady(ReportReady { id, leases })),
            Statement::Dead { last_heartbeat_at } => {
                ("dead", MarketCommand::ReportDead(ReportDead { id, leases, last_heartbeat_at }))
            }
            Statement::Released => ("released", MarketCommand::ReportReleased(ReportReleased { id, leases })),
        };
        office.figures.statements.with_label_values(&[word]).inc();
        tracing::info!(%worker, statement = word, "the market is told");
        let json = Bytes::from(serde_json::to_vec(&command)?);
        batcher.context("an exchange that is not served")?.send(json).await?;
        anyhow::Ok(())
    };
    if let Err(error) = told.await {
        tracing::warn!(%worker, error = %format!("{error:#}"), "the market was not told of a worker");
    }
}

/// Tells a worker. It hears the same with its next report, so once is enough.
async fn order(office: &Office, worker: &WorkerId, answer: &ReportAnswer) {
    let told = async {
        let json = Bytes::from(serde_json::to_vec(answer)?);
        office.bus.announce(&subject::worker_order(worker), json).await?;
        anyhow::Ok(())
    };
    let result = match told.await {
        Ok(()) => "told",
        Err(error) => {
            tracing::warn!(%worker, error = %format!("{error:#}"), "a worker hears its notice with its next report");
            "failed"
        }
    };
    office.figures.orders.with_label_values(&[result]).inc();
}

/// Removes what is left of a worker: its Node, then the memory of it, so that a crash between loses nothing.
async fn clean(office: &Office, worker: &WorkerId, holder: &Holder) {
    let cleaned = async {
        // Without a plane there is no Node either.
        if let Some(tenant) = office.tenants.of(holder).await? {
            tenant.delete_node(worker).await?;
        }
        bindings::forget(&office.management, holder, worker).await?;
        office.desk().forget(worker);
        tracing::info!(%worker, "its lease is over: Node and memory of it are gone");
        anyhow::Ok(())
    };
    let result = match cleaned.await {
        Ok(()) => "done",
        Err(error) => {
            tracing::warn!(%worker, error = %format!("{error:#}"), "something of a worker is left; tried again");
            "failed"
        }
    };
    office.figures.cleaned.with_label_values(&[result]).inc();
}
