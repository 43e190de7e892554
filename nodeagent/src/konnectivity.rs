//! The tunnel's shell: one agent, with a stream to each proxy server.

mod agent;
mod connect;
mod endpoint;
mod http_proxy;
mod metrics;
mod percent;
mod status;
mod stream;
mod tls;

pub(crate) use agent::chance;
pub use agent::{Agent, AgentConfig, AgentId};
pub use connect::{ConnectError, ServerAddress};
pub use metrics::Metrics;
pub use status::Status;
pub use tls::{TlsError, TlsFiles};
