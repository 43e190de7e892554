//! Readiness of the bus.

use std::time::Duration;

use super::health::Health;
use crate::bus::{Bus, Durability};
use crate::shell::Stop;
use crate::telemetry::{Meter, MeterError, show_durability};

/// How often the connection is looked at. Only for telling people: who uses the bus finds out by itself.
const LOOK: Duration = Duration::from_secs(1);

/// Tells `health` whether the bus is connected and durable, until it is told to stop. The broker is asked for
/// its durability at every new connection, because it may be another broker, or one with other settings.
///
/// A broker that does not sync is a reason not to be ready; one that does not say is not, because a service may
/// have no way to its monitoring port: the metric shows 0 for both.
///
/// # Errors
/// When the meter's service has no bus among its metrics.
pub async fn watch_bus(bus: Bus, health: Health, meter: Meter, mut stop: Stop) -> Result<(), MeterError> {
    let connected = health.condition("bus connected");
    let durable = health.condition("bus durable");
    let mut asked_at = None;
    loop {
        let connects = bus.counts().connects;
        let is_connected = bus.is_connected();
        if is_connected {
            connected.met("connected");
        } else {
            connected.unmet("the connection is down and tried again");
        }
        if is_connected && asked_at != Some(connects) {
            let durability = tokio::select! {
                durability = bus.durable() => durability,
                () = stop.requested() => return Ok(()),
            };
            show_durability(&meter, &durability)?;
            match &durability {
                Durability::Always => durable.met("synced before it is acknowledged"),
                Durability::Interval(every) => {
                    durable.unmet(format!("the broker syncs every {} s only", every.as_secs()));
                }
                Durability::Unknown { why } => durable.met(format!("not known: {why}")),
            }
            asked_at = Some(connects);
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.requested() => return Ok(()),
        }
    }
}
