//! The vocabulary of Walras: what services, storefronts, hypervisors and workers say to one another.
//!
//! This crate may not see a clock, a socket, a file, a thread or a random number. It holds typed ids
//! ([`id`]), exact money ([`money`]), time ([`time`]), the subjects of the bus ([`subject`]), what travels on
//! them ([`envelope`]) and its description for others ([`schema`]), commands, events and answers of the market
//! ([`market`]) and of placement ([`placement`]), what a worker and its control plane say to one another ([`worker`]),
//! and the contract every deciding part of the system fulfils ([`machine`]). [`json`] writes all of it.

pub mod decode;
pub mod envelope;
pub mod id;
pub mod json;
pub mod machine;
pub mod market;
pub mod money;
pub mod placement;
pub mod schema;
pub mod subject;
pub mod time;
pub mod worker;

pub use id::{
    BidId, ClassName, ClusterId, CommandId, DataStoreId, HostId, MarketId, PoolId, PrincipalId, RegionName,
    SizeName, SourceId, StreamName, TaintName, TenantId, ZoneName,
};
pub use machine::{Machine, Publication, Role, Sender, StateHash};
pub use money::{Charge, Price};
pub use time::Timestamp;
