//! Answers to who sent commands.

use std::collections::BTreeMap;

use proto::envelope::{Answers, Refused};
use proto::machine::{Command, Publication, Received, Role};
use proto::placement::{
    OrderedServer, PlacementAccepted, PlacementAnswer, PlacementCommand, PlacementEvent, ServerOrders,
};
use proto::{Machine, PrincipalId, StreamName, Timestamp, subject};

use super::{Decided, Placement};

/// `type` of a message of answers.
const ANSWERS: &str = "walras.answers";
/// `type` of a message of orders.
const ORDERS: &str = "walras.orders";
/// Orders of one message. Each has at most seven names of 64 letters, so that so many fit.
const ORDERS_MAX: usize = 1_024;
/// Answers of one message. Each has at most a few ids and a short text, so that so many fit.
const ANSWERS_MAX: usize = 384;

/// Tells every sender of a turn what became of its commands.
pub(super) fn answers(stream: &StreamName, decided: &Decided, out: &mut Vec<Publication>) {
    let mut letters: BTreeMap<&PrincipalId, Vec<PlacementAnswer>> = BTreeMap::new();
    for (entry, events) in decided.iter() {
        if let (Some(received), Some(event)) = (&entry.received, events.first()) {
            let answer = answer_to(decided.sequence, received, event);
            letters.entry(&received.sender.principal).or_default().push(answer);
        }
    }
    for (principal, answers) in letters {
        for answers in answers.chunks(ANSWERS_MAX) {
            out.push(letter(stream, decided.sequence, decided.at, principal, answers.to_vec()));
        }
    }
}

/// Tells hypervisors what their servers are to be.
pub(super) fn orders(machine: &Placement, decided: &Decided, out: &mut Vec<Publication>) {
    let mut letters: BTreeMap<&PrincipalId, Vec<OrderedServer>> = BTreeMap::new();
    for event in &decided.events {
        // A server that is gone at the end of the turn needs no order.
        if let PlacementEvent::ServerOrdered { server, generation, order } = event
            && let Some((hypervisor, name)) = machine.servers.name_of(*server)
        {
            let (server, generation, order) = (name.clone(), *generation, order.clone());
            letters.entry(hypervisor).or_default().push(OrderedServer { server, generation, order });
        }
    }
    for (hypervisor, orders) in letters {
        for orders in orders.chunks(ORDERS_MAX) {
            let letter = ServerOrders {
                machine: Placement::NAME.to_owned(),
                stream: machine.stream.clone(),
                sequence: decided.sequence,
                at: decided.at,
                orders: orders.to_vec(),
            };
            let subject = subject::order(Role::Hypervisor, hypervisor);
            // As above.
            let payload = serde_json::to_vec(&letter).unwrap_or_default();
            out.push(Publication { subject, kind: ORDERS, payload, durable: true });
        }
    }
}

/// The answer to a command that was sent again.
pub(super) fn again(
    stream: &StreamName,
    sequence: u64,
    at: Timestamp,
    received: &Received<PlacementCommand>,
    events: &[PlacementEvent],
) -> Option<Publication> {
    let answer = answer_to(sequence, received, events.first()?);
    Some(letter(stream, sequence, at, &received.sender.principal, vec![answer]))
}

fn letter(
    stream: &StreamName,
    sequence: u64,
    at: Timestamp,
    to: &PrincipalId,
    answers: Vec<PlacementAnswer>,
) -> Publication {
    let machine = Placement::NAME.to_owned();
    let letter = Answers { machine, stream: stream.clone(), sequence: Some(sequence), at, answers };
    // Answers are plain data; writing them to memory cannot fail.
    let payload = serde_json::to_vec(&letter).unwrap_or_default();
    Publication { subject: subject::answer(to), kind: ANSWERS, payload, durable: true }
}

/// The answer to a command, made from itself and its first event.
fn answer_to(
    sequence: u64,
    received: &Received<PlacementCommand>,
    event: &PlacementEvent,
) -> PlacementAnswer {
    let command = &received.command;
    let (id, tenant) = (command.id().clone(), command.tenant().cloned());
    if let PlacementEvent::CommandRefused(refusal) = event {
        let (id, sequence, refusal) = (Some(id), Some(sequence), refusal.clone());
        return PlacementAnswer::Refused(Refused { id, tenant, sequence, refusal });
    }
    let cluster = match command {
        PlacementCommand::CreateCluster(asked) => Some(asked.cluster.clone()),
        PlacementCommand::ChangeCluster(asked) => Some(asked.cluster.clone()),
        PlacementCommand::DeleteCluster(asked) => Some(asked.cluster.clone()),
        PlacementCommand::WakeCluster(asked) => Some(asked.cluster.clone()),
        _ => None,
    };
    let version = match event {
        PlacementEvent::ClusterCreated { .. } => Some(1),
        PlacementEvent::ClusterChanged { version, .. } => Some(*version),
        _ => None,
    };
    PlacementAnswer::Accepted(PlacementAccepted { id, tenant, cluster, version, sequence })
}
