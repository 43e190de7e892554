//! Tells placement which hosts there are.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use controlplane::{HostRules, Hosts, KnownHost};
use placement::machine::SiteView;
use proto::{StreamName, Timestamp, subject};
use runtime::bus::Bus;
use runtime::shell::Stop;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use crate::clock::now;
use crate::figures::Traffic;
use crate::outlook::Outlook;
use crate::speaker::Voice;

/// How long placement may take to say which hosts it knows.
const STATE_WAIT: Duration = Duration::from_secs(20);
/// Pause between two comparisons, so that many changes at once are one.
const PAUSE: Duration = Duration::from_millis(200);
/// Pause after something failed or was refused.
const PAUSE_FAILED: Duration = Duration::from_secs(2);
/// How long until hosts are compared again even if nothing seems to have changed.
const LOOK_MAX: Duration = Duration::from_mins(5);

/// The site as placement answers.
#[derive(Deserialize)]
struct SiteAnswer {
    #[serde(flatten)]
    site: SiteView,
}

/// Compares hosts with Nodes.
pub(crate) struct Roster {
    pub(crate) bus: Bus,
    pub(crate) site: StreamName,
    pub(crate) rules: HostRules,
    pub(crate) voice: Voice,
    pub(crate) outlook: watch::Receiver<Outlook>,
    /// The last turn of placement in which something happened to hosts.
    pub(crate) hosts_changed: watch::Receiver<u64>,
    /// How often placement refused something.
    pub(crate) refused: watch::Receiver<u64>,
    pub(crate) traffic: Traffic,
}

impl Roster {
    /// Compares until the stop.
    pub(crate) async fn run(mut self, stop: Stop) -> Result<()> {
        let compare = async {
            let mut hosts = Hosts::new(self.rules.clone());
            // Before placement's events are followed nobody would tell that a host was taken up.
            let begins = |outlook: &Outlook| outlook.is_told && outlook.hosts.is_some();
            if self.outlook.wait_for(begins).await.is_err() {
                return;
            }
            let mut unusable = Vec::new();
            loop {
                let nap = match self.compare(&mut hosts, &mut unusable).await {
                    Ok(wake_at) => wake_at.map_or(LOOK_MAX, until).min(LOOK_MAX),
                    Err(error) => {
                        let error = format!("{error:#}");
                        tracing::warn!(site = %self.site, error, "hosts are compared again");
                        PAUSE_FAILED
                    }
                };
                tokio::time::sleep(PAUSE).await;
                tokio::select! {
                    Ok(()) = self.outlook.changed() => {}
                    Ok(()) = self.hosts_changed.changed() => {}
                    Ok(()) = self.refused.changed() => tokio::time::sleep(PAUSE_FAILED).await,
                    () = tokio::time::sleep(nap) => {}
                }
            }
        };
        tokio::select! {
            () = compare => stop.into_requested().await,
            () = stop.clone().into_requested() => {}
        }
        Ok(())
    }

    /// Says what is to be said. When time alone makes more to say.
    async fn compare(
        &mut self,
        hosts: &mut Hosts,
        unusable: &mut Vec<(String, &'static str)>,
    ) -> Result<Option<Timestamp>> {
        let sequence = *self.hosts_changed.borrow_and_update();
        let Some(nodes) = self.outlook.borrow_and_update().hosts.clone() else { return Ok(None) };
        let question = subject::query("placement", &self.site, "site");
        let payload = Bytes::from(json!({ "wait_for_sequence": sequence }).to_string());
        let parts = self.bus.request(&question, payload, STATE_WAIT).await?;
        let answered: SiteAnswer = serde_json::from_slice(&parts.concat())?;
        let known: Vec<KnownHost> = answered
            .site
            .hosts
            .into_iter()
            .map(|host| KnownHost {
                host: host.host,
                generation: host.generation,
                terms: host.terms,
                gone_at: host.gone_at,
            })
            .collect();
        let said = hosts.say(&nodes, &known, now(), || self.voice.id());
        self.traffic.show_hosts(nodes.len(), said.unusable.len());
        for (host, why) in said.unusable.iter().filter(|one| !unusable.contains(one)) {
            tracing::warn!(site = %self.site, host, "a Node is no host: {why}");
        }
        *unusable = said.unusable;
        for command in &said.commands {
            tracing::debug!(site = %self.site, ?command, "of a host");
            self.voice.say(command).await?;
        }
        self.traffic.said("hosts", said.commands.len());
        Ok(said.wake_at)
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::from_micros(u64::try_from(at.micros_since(now())).unwrap_or_default())
}
