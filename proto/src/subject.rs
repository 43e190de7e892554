//! The subjects of the bus: every one is built and parsed here and nowhere else (DESIGN §9).

use std::fmt;

use crate::id::{IdError, MarketId, PrincipalId, StreamName};
use crate::machine::{Role, Sender};

/// First tokens of every subject.
pub const ROOT: &str = "walras.v1";

/// Why a subject is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubjectError {
    /// Not the form of a command's subject.
    #[error("a command's subject is {ROOT}.command.MACHINE.STREAM.ROLE.PRINCIPAL, this is {subject:?}")]
    Form {
        /// The subject as it came.
        subject: String,
    },
    /// A role nobody has.
    #[error("no role is called {role:?}")]
    Role {
        /// The token where a role should stand.
        role: String,
    },
    /// A token that is no id.
    #[error(transparent)]
    Id(#[from] IdError),
}

/// Where a command came from and where it goes, as its subject says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSubject {
    /// The machine that decides, such as `market`.
    pub machine: String,
    /// The machine's stream, such as the exchange `main`.
    pub stream: StreamName,
    /// Who speaks. The broker's permissions fix both role and principal.
    pub sender: Sender,
}

impl CommandSubject {
    /// Takes a command's subject apart.
    ///
    /// # Errors
    /// When the subject does not have the form, names no role, or holds a token that is no id.
    pub fn parse(subject: &str) -> Result<Self, SubjectError> {
        let form = || SubjectError::Form { subject: crate::id::shorten(subject) };
        let rest = subject.strip_prefix("walras.v1.command.").ok_or_else(form)?;
        let mut tokens = rest.split('.');
        let mut next = || tokens.next().ok_or_else(form);
        let (machine, stream, role, principal) = (next()?, next()?, next()?, next()?);
        if tokens.next().is_some() {
            return Err(form());
        }
        let role = Role::from_token(role).ok_or_else(|| SubjectError::Role { role: role.to_owned() })?;
        Ok(Self {
            machine: machine.to_owned(),
            stream: stream.parse()?,
            sender: Sender { role, principal: principal.parse()? },
        })
    }
}

impl fmt::Display for CommandSubject {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&command(&self.machine, &self.stream, &self.sender))
    }
}

/// Where a sender's commands to a machine's stream go.
pub fn command(machine: &str, stream: &StreamName, sender: &Sender) -> String {
    format!("{ROOT}.command.{machine}.{stream}.{}.{}", sender.role.token(), sender.principal)
}

/// All commands to a machine's stream.
pub fn commands(machine: &str, stream: &StreamName) -> String {
    format!("{ROOT}.command.{machine}.{stream}.>")
}

/// Whole batches of a stream's events: for services only, they carry every tenant's facts.
pub fn events(machine: &str, stream: &StreamName) -> String {
    format!("{ROOT}.event.{machine}.{stream}")
}

/// What concerns one sender of commands.
pub fn answer(principal: &PrincipalId) -> String {
    format!("{ROOT}.answer.{principal}")
}

/// What one party has to do.
pub fn order(role: Role, principal: &PrincipalId) -> String {
    format!("{ROOT}.order.{}.{principal}", role.token())
}

/// A market's public prices. A class holds dots, so its tokens come last.
pub fn price(exchange: &StreamName, market: &MarketId) -> String {
    format!("{ROOT}.price.{exchange}.{}.{}", market.region(), market.class())
}

/// All public prices of an exchange.
pub fn prices(exchange: &StreamName) -> String {
    format!("{ROOT}.price.{exchange}.>")
}

/// A question to the owner of a stream.
pub fn query(machine: &str, stream: &StreamName, question: &str) -> String {
    format!("{ROOT}.query.{machine}.{stream}.{question}")
}

/// Where whoever boots a lease's server asks for its join secret: as itself, in its own role.
pub fn join_secret(exchange: &StreamName, role: Role, principal: &PrincipalId) -> String {
    format!("{ROOT}.query.controlplane.{exchange}.join-secret.{}.{principal}", role.token())
}

/// All questions for join secrets of an exchange from principals of a role.
pub fn join_secrets(exchange: &StreamName, role: Role) -> String {
    format!("{ROOT}.query.controlplane.{exchange}.join-secret.{}.*", role.token())
}

/// What a worker has to know, told to it alone. A worker is known by its lease.
pub fn worker_order(worker: &crate::worker::WorkerId) -> String {
    format!("{ROOT}.order.{}.{worker}", Role::Worker.token())
}

/// The broker's stream that holds the commands to a machine's stream.
pub fn command_stream(machine: &str, stream: &StreamName) -> String {
    format!("walras-command-{machine}-{stream}")
}

/// The broker's stream that holds a machine's event batches.
pub fn event_stream(machine: &str, stream: &StreamName) -> String {
    format!("walras-event-{machine}-{stream}")
}

/// The broker's stream of answers to all senders.
pub const ANSWER_STREAM: &str = "walras-answer";

/// The broker's stream of orders to all parties.
pub const ORDER_STREAM: &str = "walras-order";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_subject_is_built_and_parsed_alike() {
        let text = "walras.v1.command.market.main.storefront.s1";
        let subject = CommandSubject::parse(text).unwrap();
        assert_eq!(subject.sender.role, Role::Storefront);
        assert_eq!(subject.to_string(), text);
    }

    #[test]
    fn other_subjects_are_refused() {
        for bad in [
            "",
            "walras.v1.command.market.main.storefront",
            "walras.v1.command.market.main.storefront.s1.x",
            "walras.v1.command.market.main.king.s1",
            "walras.v1.command.market.main.storefront.s 1",
            "walras.v1.command.market..storefront.s1",
            "walras.v2.command.market.main.storefront.s1",
            "walras.v1.event.market.main",
        ] {
            assert!(CommandSubject::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_price_subject_ends_with_the_class() {
        let market = "dfw/gp.vs1.large-dfw".parse().unwrap();
        assert_eq!(price(&"main".parse().unwrap(), &market), "walras.v1.price.main.dfw.gp.vs1.large-dfw");
    }
}
