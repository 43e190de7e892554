//! Refusals.

use proto::envelope::{Refusal, RefusalReason};
use proto::machine::{Role, Sender};

/// A refusal on its way out.
pub(super) type Checked<T> = Result<T, Box<Refusal>>;

/// Says why a command is refused, with field and value.
pub(super) fn refuse<T>(
    reason: RefusalReason,
    field: impl AsRef<str>,
    value: impl ToString,
    problem: impl AsRef<str>,
) -> Checked<T> {
    Err(Box::new(Refusal::new(reason, field.as_ref(), value, problem.as_ref())))
}

/// Refuses a number outside of a range.
pub(super) fn within(field: impl AsRef<str>, value: u64, least: u64, most: u64) -> Checked<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    refuse(RefusalReason::OutOfRange, field, value, format!("must be {least} to {most}"))
}

/// Refuses senders of other roles.
pub(super) fn only(sender: &Sender, roles: &[Role], what: &str) -> Checked<()> {
    if roles.contains(&sender.role) {
        return Ok(());
    }
    let role = sender.role.token();
    refuse(RefusalReason::NotAllowed, "type", what, format!("is not for a {role} to say"))
}
