//! Placement's orders, as they are carried out.

use proto::Timestamp;
use proto::placement::PlaneOrder;

use crate::desired::{Amount, Plane};

impl Plane {
    /// The plane that an order asks for.
    pub fn ordered(generation: u64, order: &PlaneOrder, gone_at: Option<Timestamp>) -> Self {
        Self {
            tenant: order.tenant.clone(),
            cluster: order.cluster.clone(),
            generation,
            deleted: order.deleted,
            replicas: order.replicas,
            hosts: order.hosts.iter().map(|host| host.as_str().to_owned()).collect(),
            gone_at,
            version: order.version,
            request: Amount { cpu_milli: order.request.cpu_milli, memory_mib: order.request.memory_mib },
            data_store: order.data_store.as_str().to_owned(),
            driver: order.driver,
        }
    }
}
