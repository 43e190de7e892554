//! Deciding commands: who may, what is right, what follows.

use proto::Timestamp;
use proto::machine::{Received, Role};
use proto::placement::{PlacementCommand, PlacementEvent};

use super::refuse::only;
use super::{Events, Placement};

/// Who speaks for tenants: whoever has checked their tokens.
const FOR_TENANTS: [Role; 3] = [Role::Gateway, Role::Operator, Role::Service];
/// Who runs the site.
const RUNS_SITE: [Role; 2] = [Role::Operator, Role::Service];
/// Who knows hosts and servers.
const KNOWS_HOSTS: [Role; 3] = [Role::Operator, Role::Service, Role::Hypervisor];

impl Placement {
    /// Decides one command, and what follows from it.
    pub(super) fn decide(
        &mut self,
        now: Timestamp,
        received: &Received<PlacementCommand>,
        events: &mut Events,
    ) {
        use PlacementCommand as Asked;
        let sender = &received.sender;
        let may = |roles: &[Role], what: &str| only(sender, roles, what);
        let decided =
            match &received.command {
                Asked::CreateCluster(asked) => may(&FOR_TENANTS, "CreateCluster")
                    .and_then(|()| self.create(now, &sender.principal, asked, events)),
                Asked::ChangeCluster(asked) => {
                    may(&FOR_TENANTS, "ChangeCluster").and_then(|()| self.change(now, asked, events))
                }
                Asked::DeleteCluster(asked) => {
                    may(&FOR_TENANTS, "DeleteCluster").and_then(|()| self.delete(now, asked, events))
                }
                Asked::WakeCluster(asked) => {
                    may(&FOR_TENANTS, "WakeCluster").and_then(|()| self.wake_cluster(now, asked, events))
                }
                Asked::OfferHost(asked) => {
                    may(&KNOWS_HOSTS, "OfferHost").and_then(|()| self.offer_host(now, sender, asked, events))
                }
                Asked::NoticeHost(asked) => {
                    may(&KNOWS_HOSTS, "NoticeHost").and_then(|()| self.notice(now, sender, asked, events))
                }
                Asked::KeepHost(asked) => {
                    may(&KNOWS_HOSTS, "KeepHost").and_then(|()| self.keep(now, sender, asked, events))
                }
                Asked::ReportHostGone(asked) => may(&KNOWS_HOSTS, "ReportHostGone")
                    .and_then(|()| self.host_gone(now, sender, asked, events)),
                Asked::OfferDataStore(asked) => {
                    may(&RUNS_SITE, "OfferDataStore").and_then(|()| self.offer_store(now, asked, events))
                }
                Asked::ReportPlane(asked) => may(&[Role::Service], "ReportPlane")
                    .and_then(|()| self.plane_reported(now, asked, events)),
                Asked::ReportPlaneGone(asked) => may(&[Role::Service], "ReportPlaneGone")
                    .and_then(|()| self.plane_gone(now, asked, events)),
                Asked::ReportBids(asked) => {
                    may(&[Role::Service], "ReportBids").and_then(|()| self.bids_reported(now, asked, events))
                }
                Asked::OfferServers(asked) => may(&KNOWS_HOSTS, "OfferServers")
                    .and_then(|()| self.offer_servers(now, sender, asked, events)),
                Asked::NoticeServers(asked) => may(&KNOWS_HOSTS, "NoticeServers")
                    .and_then(|()| self.notice_servers(now, sender, asked, events)),
                Asked::KeepServers(asked) => may(&KNOWS_HOSTS, "KeepServers")
                    .and_then(|()| self.keep_servers(now, sender, asked, events)),
                Asked::ReportServersGone(asked) => may(&KNOWS_HOSTS, "ReportServersGone")
                    .and_then(|()| self.servers_gone(now, sender, asked, events)),
                Asked::AdoptSiteRules(asked) => {
                    may(&RUNS_SITE, "AdoptSiteRules").and_then(|()| self.adopt(now, &asked.rules, events))
                }
            };
        match decided {
            Ok(()) => self.advance(now, events),
            Err(refusal) => events.push(PlacementEvent::CommandRefused(*refusal)),
        }
    }
}
