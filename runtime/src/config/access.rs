//! From the configuration to who may do what at the broker.

use crate::nats::access::{
    self, Access, AccessError, MachineStream, SYSTEM_ACCOUNT, ServiceRole, ServiceUser,
};

use super::parties::Party;
use super::settings::Config;

impl Config {
    /// Everybody who may connect to the broker, and the streams that their rights are about.
    pub fn access(&self) -> Access {
        let exchanges = self.market.exchanges.keys().map(|stream| (ServiceRole::Market, stream));
        let sites = self.placement.sites.keys().map(|stream| (ServiceRole::Placement, stream));
        let webhooks = self.market.exchanges.keys().map(|stream| (ServiceRole::Webhook, stream));
        let streams = exchanges.chain(webhooks).chain(sites);
        let services = self.services.iter().map(|one| ServiceUser {
            principal: one.principal.clone(),
            role: one.role,
            nkey: one.nkey.as_str().to_owned(),
        });
        let storefronts = self.storefronts.iter().map(|one| access::Storefront {
            principal: one.principal.clone(),
            nkey: one.nkey.as_str().to_owned(),
            tenants: one.tenants.clone(),
        });
        Access {
            streams: streams
                .map(|(machine, stream)| MachineStream { machine, stream: stream.clone() })
                .collect(),
            services: services.collect(),
            storefronts: storefronts.collect(),
            hypervisors: parties(&self.hypervisors),
            workers: Vec::new(),
            operators: parties(&self.operators),
            observers: parties(&self.observers),
            system_nkey: None,
        }
    }

    /// The accounts and permissions as a file that the configuration of a broker which is not our child includes.
    ///
    /// # Errors
    /// [`AccessError`], which a configuration that was loaded does not give.
    pub fn accounts_file(&self) -> Result<String, AccessError> {
        let accounts = self.access().accounts()?;
        Ok(format!("accounts: {accounts:#}\nsystem_account: {SYSTEM_ACCOUNT}\n"))
    }
}

fn parties(list: &[Party]) -> Vec<access::Party> {
    let party =
        |one: &Party| access::Party { principal: one.principal.clone(), nkey: one.nkey.as_str().to_owned() };
    list.iter().map(party).collect()
}
