//! What a service's connection to the bus looks like from outside.

use prometheus::{IntCounter, IntGauge};
use tokio::sync::watch;

use super::meter::{Meter, MeterError};
use super::metrics;
use crate::bus::{Bus, BusCounts, Durability};
use crate::nats::server::ServerState;

/// Shows the bus's own counts from now on.
///
/// # Errors
/// When the meter's service has no bus among its metrics.
pub fn show_bus(meter: &Meter, bus: &Bus) -> Result<(), MeterError> {
    let shown = Shown {
        connected: meter.gauge(&metrics::BUS_CONNECTED)?,
        disconnects: meter.counter(&metrics::BUS_DISCONNECTS)?,
        slow_consumers: meter.counter(&metrics::BUS_SLOW_CONSUMERS)?,
        reopens: meter.counter(&metrics::BUS_READER_REOPENS)?,
        errors: meter.counter(&metrics::BUS_ERRORS)?,
    };
    let bus = bus.clone();
    meter.before_showing(move || shown.set(bus.counts(), bus.is_connected()));
    Ok(())
}

/// Shows what is known of the broker's durability.
///
/// # Errors
/// When the meter's service has no bus among its metrics.
pub fn show_durability(meter: &Meter, durability: &Durability) -> Result<(), MeterError> {
    meter.gauge(&metrics::BUS_DURABLE)?.set(i64::from(*durability == Durability::Always));
    Ok(())
}

struct Shown {
    connected: IntGauge,
    disconnects: IntCounter,
    slow_consumers: IntCounter,
    reopens: IntCounter,
    errors: IntCounter,
}

impl Shown {
    fn set(&self, counts: BusCounts, connected: bool) {
        self.connected.set(i64::from(connected));
        for (counter, count) in [
            (&self.disconnects, counts.disconnects),
            (&self.slow_consumers, counts.slow_consumers),
            (&self.reopens, counts.reader_reopens),
            (&self.errors, counts.broker_errors),
        ] {
            counter.inc_by(count.saturating_sub(counter.get()));
        }
    }
}

/// Shows how often the broker that is our child was started again.
///
/// # Errors
/// When the metric cannot be had.
pub fn show_broker(meter: &Meter, state: watch::Receiver<ServerState>) -> Result<(), MeterError> {
    let restarted = meter.of("nats").counter(&metrics::NATS_RESTARTS)?;
    meter.before_showing(move || {
        if let ServerState::Running { restarts, .. } = *state.borrow() {
            restarted.inc_by(u64::from(restarts).saturating_sub(restarted.get()));
        }
    });
    Ok(())
}
