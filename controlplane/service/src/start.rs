//! Starts the control planes of a site.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::Result;
use controlplane::{Desired, Exposure, HostRules, Objectives, Site, Toleration};
use kube::Client;
use proto::StreamName;
use proto::placement::SiteRules;
use runtime::bus::Bus;
use runtime::config::{Config, ExposureKind, ExposureSettings, ManagementSettings};
use runtime::shell::{Shell, Stage};
use tokio::sync::{mpsc, watch};

use crate::feed::Feed;
use crate::figures::{Quickness, Traffic};
use crate::kubeconfig;
use crate::reconciler::Reconciler;
use crate::roster::Roster;
use crate::scrape::Scraper;
use crate::speaker::{Reporter, Voice, listen};

/// Orders, reports and measurements that wait: few, for each is taken at once or waits where it is counted.
const WAITING_MAX: usize = 256;

/// Starts the control planes of a site, whose management cluster is behind `client`. Everything of it stops together.
///
/// # Errors
/// When a metric or name is refused.
pub fn start(shell: &mut Shell, bus: &Bus, config: &Config, site: &StreamName, client: Client) -> Result<()> {
    let settings = config.controlplane.sites.get(site).cloned().unwrap_or_default();
    let placed = config.placement.sites.get(site).cloned().unwrap_or_default();
    let declared = placed.hosts.iter().map(|host| host.id.clone()).collect();
    let rules = HostRules {
        pool: settings.pool.clone(),
        region: settings.region.clone(),
        reserved: settings.reserved,
        declared,
    };
    let meter = shell.meter().of("controlplane");
    let traffic = Traffic::new(&meter, site)?;
    let desired = Desired::of_site(holds(&settings, &placed.rules));
    let (orders, ordered) = mpsc::channel(WAITING_MAX);
    let (reports, states) = mpsc::channel(WAITING_MAX);
    let (hear, heard) = mpsc::channel(WAITING_MAX);
    let (measure, measured) = mpsc::channel(WAITING_MAX);
    let (hosts_changed, refused) = (watch::Sender::new(0), watch::Sender::new(0));
    let planes = watch::Sender::new(BTreeMap::new());
    let voice = Voice::new(bus, site)?;
    let reconciler = Reconciler::new(client.clone(), site, desired, reports, &meter)?;
    let mut outlook = reconciler.outlook();
    let roster = Roster {
        bus: bus.clone(),
        site: site.clone(),
        rules,
        voice: voice.clone(),
        outlook: outlook.clone(),
        hosts_changed: hosts_changed.subscribe(),
        refused: refused.subscribe(),
        traffic: traffic.clone(),
    };
    let objectives = &settings.objectives;
    let scraper = Scraper {
        client: client.clone(),
        planes: planes.subscribe(),
        measured: measure,
        objectives: Objectives {
            api_micros: micros(objectives.api_milliseconds),
            commit_micros: micros(objectives.commit_milliseconds),
            controller_micros: micros(objectives.controller_milliseconds),
        },
        every: Duration::from_secs(settings.look_seconds.get().into()),
        figures: Quickness::new(&meter, site)?,
    };
    let reporter = Reporter { voice, states, heard, measured, planes, traffic: traffic.clone() };
    let answers = (bus.clone(), site.clone(), refused, traffic.clone());
    let feed = Feed { bus: bus.clone(), site: site.clone(), orders, heard: hear, hosts_changed, traffic };
    let condition = shell.health().condition(format!("control planes of site {site}"));
    shell.spawn(format!("control planes of {site}"), Stage::Runner, |stop| async move {
        tokio::select! {
            ended = reconciler.run(ordered, stop) => ended,
            // It only ever waits.
            () = async {
                condition.unmet("the management cluster is not read yet, or not all orders are known");
                if let Ok(outlook) = outlook.wait_for(crate::outlook::Outlook::is_ready).await {
                    let hosts = outlook.hosts.as_ref().map_or(0, |hosts| hosts.len());
                    condition.met(format!("following, {hosts} Nodes at the start"));
                }
                std::future::pending::<()>().await;
            } => Ok(()),
        }
    });
    shell.spawn(format!("orders of {site}"), Stage::Runner, |stop| feed.run(stop));
    shell.spawn(format!("reports of {site}"), Stage::Runner, |stop| reporter.run(stop));
    shell.spawn(format!("health of planes of {site}"), Stage::Entrance, |stop| scraper.run(stop));
    shell.spawn(format!("hosts of {site}"), Stage::Runner, |stop| roster.run(stop));
    shell.spawn(format!("answers to {site}"), Stage::Runner, |stop| {
        let (bus, site, refused, traffic) = answers;
        listen(bus, site, refused, traffic, stop)
    });
    let (bus, site) = (bus.clone(), site.clone());
    shell.spawn(format!("kubeconfigs of {site}"), Stage::Reader, |stop| async move {
        let _serving = kubeconfig::serve(&bus, &site, client).await?;
        stop.into_requested().await;
        Ok(())
    });
    Ok(())
}

fn micros(milliseconds: NonZeroU32) -> u64 {
    u64::from(milliseconds.get()) * 1_000
}

/// What holds for all planes of a site.
fn holds(settings: &ManagementSettings, rules: &SiteRules) -> Site {
    let tolerated = rules.tolerated.iter().map(|taint| Toleration {
        key: Some(taint.as_str().to_owned()),
        operator: "Exists".to_owned(),
        value: None,
        effect: None,
        toleration_seconds: None,
    });
    let ExposureSettings { by, name, namespace, domain } = settings.exposure.clone();
    let exposure = match by {
        ExposureKind::ClusterIp => Exposure::ClusterIp,
        ExposureKind::LoadBalancer => Exposure::LoadBalancer,
        ExposureKind::Ingress => Exposure::Ingress { class: name, domain },
        ExposureKind::Gateway => Exposure::Gateway { gateway: name, namespace, domain },
    };
    Site { pool: settings.pool.clone(), tolerations: tolerated.collect(), exposure, gates: settings.gates }
}
