//! Streams and the subjects they keep, as text: the one place outside `proto` that spells them.
//!
//! | stream | subjects | full | kept |
//! |---|---|---|---|
//! | `walras-command-<machine>-<stream>` | `walras.v1.command.<machine>.<stream>.>` | refuses | until purged behind the owner's position |
//! | `walras-event-<machine>-<stream>` | `walras.v1.event.<machine>.<stream>` | forgets | 7 days |
//! | `walras-answer` | `walras.v1.answer.*` | forgets | 7 days |
//! | `walras-order` | `walras.v1.order.*.*` | forgets | 7 days |

use std::time::Duration;

use crate::bus::StreamSpec;

/// What every subject begins with.
pub const PREFIX: &str = "walras.v1";

/// Stream of the answers to all principals.
pub const ANSWER_STREAM: &str = "walras-answer";

/// Stream of the orders to all hypervisors and workers.
pub const ORDER_STREAM: &str = "walras-order";

/// Every public price.
pub const PRICES: &str = "walras.v1.price.>";

/// How long facts, answers and orders are kept.
pub const KEPT: Duration = Duration::from_hours(7 * 24);

/// How long a command stream remembers ids. The ids in it are chosen by parties that do not trust each
/// other, and the broker's memory of ids is one per stream: whoever published somebody else's id first would
/// have that command dropped as a duplicate. So it is kept as short as the broker allows; that a
/// repeated command does no harm is the machine's doing, by principal and command id.
pub const COMMAND_DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

/// Size at which a command stream refuses more, in bytes: what may wait while its owner is away.
pub const COMMAND_BYTES_MAX: u64 = 1 << 30;

/// Size at which other streams forget the oldest, in bytes.
pub const KEPT_BYTES_MAX: u64 = 2 << 30;

/// Name of the stream of commands to one stream of a machine.
#[must_use]
pub fn command_stream_name(machine: &str, stream: &str) -> String {
    format!("walras-command-{machine}-{stream}")
}

/// Name of the stream of a machine's events.
#[must_use]
pub fn event_stream_name(machine: &str, stream: &str) -> String {
    format!("walras-event-{machine}-{stream}")
}

/// Filter of all commands to one stream of a machine.
#[must_use]
pub fn commands(machine: &str, stream: &str) -> String {
    format!("{PREFIX}.command.{machine}.{stream}.>")
}

/// Filter of the commands one principal sends in one role, to whatever machine.
#[must_use]
pub fn commands_from(role: &str, principal: &str) -> String {
    format!("{PREFIX}.command.*.*.{role}.{principal}")
}

/// Subject of a machine's events.
#[must_use]
pub fn events(machine: &str, stream: &str) -> String {
    format!("{PREFIX}.event.{machine}.{stream}")
}

/// Subject of the answers to one principal.
#[must_use]
pub fn answers(principal: &str) -> String {
    format!("{PREFIX}.answer.{principal}")
}

/// Subject of the orders to one principal.
#[must_use]
pub fn orders(role: &str, principal: &str) -> String {
    format!("{PREFIX}.order.{role}.{principal}")
}

/// Under this name, as if it were a machine, questions about the markets' transcripts go.
pub const TRANSCRIPTS: &str = "transcript";

/// Under this name, as if it were a machine, the secrets of webhooks are asked for.
pub const WEBHOOK_SECRETS: &str = "webhook-secret";

/// Filter of the queries to a machine; `*` = to every machine.
#[must_use]
pub fn queries(machine: &str) -> String {
    format!("{PREFIX}.query.{machine}.>")
}

/// The stream commands to a machine wait in. Nothing in it is ever forgotten but by a purge.
#[must_use]
pub fn command_stream(machine: &str, stream: &str) -> StreamSpec {
    StreamSpec {
        discard_new: true,
        max_bytes: COMMAND_BYTES_MAX,
        duplicate_window: COMMAND_DUPLICATE_WINDOW,
        ..StreamSpec::new(command_stream_name(machine, stream), commands(machine, stream))
    }
}

/// The stream of a machine's events.
#[must_use]
pub fn event_stream(machine: &str, stream: &str) -> StreamSpec {
    kept(event_stream_name(machine, stream), events(machine, stream))
}

/// The stream of answers.
#[must_use]
pub fn answer_stream() -> StreamSpec {
    kept(ANSWER_STREAM.to_owned(), answers("*"))
}

/// The stream of orders.
#[must_use]
pub fn order_stream() -> StreamSpec {
    kept(ORDER_STREAM.to_owned(), orders("*", "*"))
}

fn kept(name: String, subject: String) -> StreamSpec {
    StreamSpec { max_age: Some(KEPT), max_bytes: KEPT_BYTES_MAX, ..StreamSpec::new(name, subject) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::filter;

    #[test]
    fn no_two_streams_keep_one_subject() {
        let specs = [
            command_stream("market", "main"),
            command_stream("market", "other"),
            event_stream("market", "main"),
            event_stream("placement", "main"),
            answer_stream(),
            order_stream(),
        ];
        for (index, one) in specs.iter().enumerate() {
            for other in specs.iter().skip(index + 1) {
                let (left, right) = (one.subjects.first().unwrap(), other.subjects.first().unwrap());
                assert!(!filter::overlap(left, right), "{left} and {right}");
            }
        }
    }

    #[test]
    fn the_layout_is_what_the_design_says() {
        assert_eq!(commands("market", "main"), "walras.v1.command.market.main.>");
        assert_eq!(commands_from("storefront", "s1"), "walras.v1.command.*.*.storefront.s1");
        assert_eq!(events("market", "main"), "walras.v1.event.market.main");
        assert_eq!(answers("s1"), "walras.v1.answer.s1");
        assert_eq!(orders("hypervisor", "h1"), "walras.v1.order.hypervisor.h1");
        assert_eq!(queries("market"), "walras.v1.query.market.>");
        assert!(filter::matches(&commands("market", "main"), "walras.v1.command.market.main.storefront.s1"));
    }
}
