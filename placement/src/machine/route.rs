//! What placement's decisions mean for exchanges: one pure function from an event to a command. The command's id is the
//! event's place, so that sending it again does nothing again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proto::envelope::Commands;
use proto::machine::{Publication, Role, Sender};
use proto::market::{MarketCommand, MoveLeases, ReportReleased, SupplyOffered};
use proto::placement::PlacementEvent;
use proto::{CommandId, Machine, PrincipalId, SourceId, StreamName, subject};
use sha2::{Digest, Sha256};

use super::{Decided, Placement};

/// `type` of a message of commands.
const COMMANDS: &str = "walras.commands";
/// Commands of one message. Each names at most [`super::bounds::LOST_MAX`] leases, nearly all of them one or none.
const COMMANDS_MAX: usize = 64;
/// Sites with longer names are named by a digest in ids of commands.
const SITE_LETTERS_MAX: usize = 20;

/// The command to an exchange that an event means, if it means one. `sequence` is its turn, `place` where it stands there.
pub fn route(
    site: &StreamName,
    sequence: u64,
    place: usize,
    event: &PlacementEvent,
) -> Option<(StreamName, MarketCommand)> {
    let id = || -> Option<CommandId> { format!("{}-{sequence}-{place}", token(site)).parse().ok() };
    let (exchange, command) = match event {
        PlacementEvent::SupplyStated {
            exchange,
            market,
            hypervisor,
            generation,
            units,
            cause,
            gone_at,
            lost,
        } => {
            let source: SourceId = hypervisor.as_str().parse().ok()?;
            let offered = SupplyOffered {
                id: id()?,
                source,
                generation: *generation,
                market: market.clone(),
                units: *units,
                cause: *cause,
                gone_at: *gone_at,
                lost: lost.clone(),
            };
            (exchange, MarketCommand::SupplyOffered(offered))
        }
        PlacementEvent::LeaseDisplaced { exchange, lease, gone_at } => {
            let moved = MoveLeases { id: id()?, leases: vec![*lease], gone_at: *gone_at };
            (exchange, MarketCommand::MoveLeases(moved))
        }
        PlacementEvent::LeaseUnserved { exchange, lease } => {
            (exchange, MarketCommand::ReportReleased(ReportReleased { id: id()?, leases: vec![*lease] }))
        }
        _ => return None,
    };
    Some((exchange.clone(), command))
}

/// The name of a site or an exchange, or what stands for a long one.
pub(super) fn token(site: &StreamName) -> String {
    if site.as_str().len() <= SITE_LETTERS_MAX {
        return site.as_str().to_owned();
    }
    let digest = Sha256::digest(site.as_str().as_bytes());
    let mut token = String::with_capacity(SITE_LETTERS_MAX);
    for byte in digest.iter().take(SITE_LETTERS_MAX / 2) {
        // Writing to memory cannot fail.
        let _ = write!(token, "{byte:02x}");
    }
    token
}

/// Routes the events of a turn, in order.
pub(super) fn route_all(site: &StreamName, decided: &Decided, out: &mut Vec<Publication>) {
    let mut letters: BTreeMap<StreamName, Vec<MarketCommand>> = BTreeMap::new();
    for (place, event) in decided.events.iter().enumerate() {
        if let Some((exchange, command)) = route(site, decided.sequence, place, event) {
            letters.entry(exchange).or_default().push(command);
        }
    }
    let Ok(principal) = Placement::NAME.parse::<PrincipalId>() else { return };
    let sender = Sender { role: Role::Service, principal };
    for (exchange, commands) in letters {
        for commands in commands.chunks(COMMANDS_MAX) {
            // Plain data; writing it to memory cannot fail.
            let payload = serde_json::to_vec(&Commands { commands: commands.to_vec() }).unwrap_or_default();
            let subject = subject::command("market", &exchange, &sender);
            out.push(Publication { subject, kind: COMMANDS, payload, durable: true });
        }
    }
}
