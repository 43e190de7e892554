//! What follows from facts and attempts: what is queued, when it is tried again, when it is given up.

use proto::Timestamp;
use proto::envelope::RefusalReason;
use proto::market::{Answer, LeaseNumber};
use proto::webhook::{
    DeliveryNumber, FACTS_MAX, FAILURE_BYTES_MAX, Fact, FactKind, ReportAttempt, ReportFacts, WebhookEvent,
    WebhookNumber,
};

use crate::machine::{Checked, Events, Webhooks, refuse};
use crate::message::leases_of;
use crate::state::{ATTEMPTS_MAX, DEAD_PER_WEBHOOK_MAX, WAITING_PER_WEBHOOK_MAX, Webhook};

/// Pause after the first attempt that failed, in seconds; each next one is twice as long.
const PAUSE_SECONDS: u32 = 5;
/// Longest pause, in seconds.
const PAUSE_SECONDS_MAX: u32 = 3_600;

/// How long to wait after so many attempts that failed.
fn pause_seconds(attempts: u32) -> u32 {
    let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    PAUSE_SECONDS.saturating_mul(doubled).min(PAUSE_SECONDS_MAX)
}

/// Whose fact it is; of no tenant what answers a command.
pub fn tenant_of(told: &Answer) -> Option<&proto::TenantId> {
    match told {
        Answer::Awarded(fact) => Some(&fact.tenant),
        Answer::NoticeGiven(fact) => Some(&fact.tenant),
        Answer::NoticeWithdrawn(fact) => Some(&fact.tenant),
        Answer::Delayed(fact) => Some(&fact.tenant),
        Answer::Ready(fact) => Some(&fact.tenant),
        Answer::Dead(fact) => Some(&fact.tenant),
        Answer::Released(fact) => Some(&fact.tenant),
        Answer::Expired(fact) => Some(&fact.tenant),
        Answer::Accepted(_) | Answer::Refused(_) => None,
    }
}

impl Webhooks {
    pub(crate) fn facts(&mut self, now: Timestamp, asked: &ReportFacts, events: &mut Events) -> Checked<()> {
        if asked.facts.len() > FACTS_MAX {
            let problem = format!("at most {FACTS_MAX} facts are reported at once");
            return refuse(RefusalReason::OutOfRange, "facts", asked.facts.len(), problem);
        }
        let upto = asked.upto;
        if let Some(known) = self.state.reported.filter(|known| *known >= upto) {
            let problem = format!("message {} was reached already", known.sequence);
            return refuse(RefusalReason::Stale, "upto.sequence", upto.sequence, problem);
        }
        self.emit(now, WebhookEvent::FactsReported { upto }, events);
        for fact in &asked.facts {
            let (Some(kind), Some(tenant)) = (FactKind::of(&fact.told), tenant_of(&fact.told)) else {
                continue;
            };
            let wants = self.state.of_tenant(tenant).filter(|webhook| webhook.wants(kind));
            let wants: Vec<(WebhookNumber, bool)> =
                wants.map(|one: &Webhook| (one.number, one.legacy)).collect();
            for (webhook, is_legacy) in wants {
                self.queue(now, webhook, is_legacy, fact, events);
            }
        }
        Ok(())
    }

    /// Queues a fact for a webhook: once, or once for each of its leases.
    fn queue(
        &mut self,
        now: Timestamp,
        webhook: WebhookNumber,
        is_legacy: bool,
        fact: &Fact,
        events: &mut Events,
    ) {
        let leases: Vec<Option<LeaseNumber>> = match leases_of(&fact.told).filter(|_| is_legacy) {
            Some(leases) => (leases.first..leases.end()).map(Some).collect(),
            None => vec![None],
        };
        for lease in leases {
            let number = self.state.next_delivery;
            let fact = Box::new(fact.clone());
            self.emit(now, WebhookEvent::DeliveryQueued { number, webhook, fact, lease }, events);
            let waiting = self.state.waiting.get(&webhook).map_or(0, std::collections::BTreeSet::len);
            if waiting > WAITING_PER_WEBHOOK_MAX {
                let failure = format!("{WAITING_PER_WEBHOOK_MAX} deliveries wait already");
                self.give_up(now, number, webhook, failure, events);
            }
        }
    }

    fn give_up(
        &mut self,
        now: Timestamp,
        number: DeliveryNumber,
        webhook: WebhookNumber,
        failure: String,
        events: &mut Events,
    ) {
        self.emit(now, WebhookEvent::DeliveryDead { number, failure }, events);
        while let Some(dead) = self.state.dead.get(&webhook)
            && dead.len() > DEAD_PER_WEBHOOK_MAX
            && let Some(&number) = dead.first()
        {
            self.emit(now, WebhookEvent::DeliveryForgotten { number }, events);
        }
    }

    pub(crate) fn attempted(
        &mut self,
        now: Timestamp,
        asked: &ReportAttempt,
        events: &mut Events,
    ) -> Checked<()> {
        let number = asked.delivery;
        let waiting = self.state.deliveries.get(&number).filter(|delivery| delivery.next_at.is_some());
        let Some(delivery) = waiting else {
            return refuse(RefusalReason::Unknown, "delivery", number, "no such delivery waits");
        };
        let (webhook, attempts) = (delivery.webhook, delivery.attempts + 1);
        if asked.attempt != attempts {
            let problem = format!("attempt {attempts} is the next one");
            return refuse(RefusalReason::Stale, "attempt", asked.attempt, problem);
        }
        let Some(failure) = &asked.failure else {
            self.emit(now, WebhookEvent::DeliveryDone { number }, events);
            return Ok(());
        };
        let failure = one_line(failure);
        if attempts >= ATTEMPTS_MAX {
            self.give_up(now, number, webhook, failure, events);
        } else {
            let next_at = now.plus_seconds(pause_seconds(attempts));
            self.emit(now, WebhookEvent::DeliveryFailed { number, attempts, next_at, failure }, events);
        }
        Ok(())
    }
}

/// A text from outside, short and on one line.
fn one_line(text: &str) -> String {
    let mut line: String = text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect();
    while line.len() > FAILURE_BYTES_MAX {
        line.pop();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let pauses: Vec<u32> = (1..ATTEMPTS_MAX).map(pause_seconds).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1_280, 2_560, 3_600]);
        assert_eq!(pause_seconds(u32::MAX), PAUSE_SECONDS_MAX);
    }

    #[test]
    fn a_failure_is_told_in_a_bounded_line() {
        assert_eq!(one_line("a\r\nb"), "a  b");
        assert!(one_line(&"ü".repeat(FAILURE_BYTES_MAX)).len() <= FAILURE_BYTES_MAX);
    }
}
