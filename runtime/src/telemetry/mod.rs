//! What a service tells about itself: log lines on stderr, numbers on `/metrics`.
//!
//! Every number is declared once, in [`metrics`]; a [`Meter`] hands out only what is declared, so dashboards
//! and alerts can be checked against that one list.

mod bus;
mod logging;
mod meter;
mod metric;
pub mod metrics;
mod process;

pub use bus::{show_broker, show_bus, show_durability};
pub use logging::{LogError, init};
pub use meter::{Meter, MeterError};
pub use metric::{Kind, Metric, NameError, Unit};
pub use metrics::METRICS;
pub use process::PROCESS_METRICS;
