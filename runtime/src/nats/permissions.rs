//! The subjects each kind of user may publish and subscribe to: allow lists only.

use proto::machine::Role;

use super::access::{
    Access, ServiceRole, ServiceUser, inbox_prefix, kept_for, questions_of, replay_subjects,
};
use super::callout::CALLOUT_SUBJECT;
use super::layout;

/// What one user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Permissions {
    pub(super) publish: Vec<String>,
    pub(super) subscribe: Vec<String>,
    /// Whether it answers those whose inboxes are not among our services'.
    pub(super) answers_strangers: bool,
}

/// A party: its commands, its answers and orders, its own replay, public prices, its own inboxes.
pub(super) fn of_party(role: Role, principal: &str) -> Permissions {
    let mut publish = vec![layout::commands_from(role.token(), principal)];
    publish.extend(questions_of(role, principal));
    let mut subscribe = vec![own_inboxes(principal), layout::PRICES.to_owned()];
    for (stream, filter) in kept_for(role, principal) {
        subscribe.push(filter);
        publish.extend(replay_subjects(stream, principal).map(|(said, _)| said));
    }
    Permissions { publish, subscribe, answers_strangers: false }
}

/// An observer: public prices.
pub(super) fn of_observer(principal: &str) -> Permissions {
    // An empty allow list would mean everything, so there is one subject that leads nowhere: in its own inboxes
    // nobody but itself listens.
    Permissions {
        publish: vec![own_inboxes(principal)],
        subscribe: vec![own_inboxes(principal), layout::PRICES.to_owned()],
        answers_strangers: false,
    }
}

/// A service: what its role needs, on the streams that exist.
pub(super) fn of_service(service: &ServiceUser, access: &Access) -> Permissions {
    let principal = service.principal.as_str();
    let mut permissions = Permissions {
        publish: Vec::new(),
        subscribe: vec![own_inboxes(principal), layout::PRICES.to_owned()],
        answers_strangers: false,
    };
    // Answers to questions, and signs of life for long ones, go to the inboxes of other services.
    permissions.publish.extend(access.services.iter().map(|other| own_inboxes(other.principal.as_str())));
    // What is asked of the control-plane service is a tenant's key: only who checks tenants' tokens asks for it.
    for asked in ["market", layout::TRANSCRIPTS, "placement"] {
        permissions.publish.push(layout::queries(asked));
    }
    for one in &access.streams {
        permissions
            .publish
            .extend(read_stream(&layout::event_stream_name(one.machine.token(), one.stream.as_str())));
        let commands = layout::command_stream_name(one.machine.token(), one.stream.as_str());
        // Where a command was stored is told as a position, and that names the stream's creation.
        permissions.publish.push(format!("$JS.API.STREAM.INFO.{commands}"));
    }
    let has = |role: ServiceRole| match service.role {
        ServiceRole::All => true,
        ServiceRole::Market => matches!(role, ServiceRole::Market | ServiceRole::Webhook),
        own => own == role,
    };
    for role in ROLES.into_iter().filter(|role| has(*role)) {
        permissions.add_role(role, principal, access);
    }
    permissions.publish.sort();
    permissions.publish.dedup();
    permissions.subscribe.sort();
    permissions.subscribe.dedup();
    permissions
}

/// The roles `All` is made of.
const ROLES: [ServiceRole; 5] = [
    ServiceRole::Market,
    ServiceRole::Webhook,
    ServiceRole::Placement,
    ServiceRole::Controlplane,
    ServiceRole::Gateway,
];

impl Permissions {
    fn add_role(&mut self, role: ServiceRole, principal: &str, access: &Access) {
        if role == ServiceRole::Gateway {
            self.publish.push(layout::commands_from(Role::Gateway.token(), principal));
            // Not what parties ask there, in whose name a question is longer: join secrets are none of its business.
            self.publish.push(layout::short_queries(ServiceRole::Controlplane.token()));
            // Where a tenant is told, and with which key, is for the tenant, whose token only a gateway checks.
            self.publish.push(layout::queries(ServiceRole::Webhook.token()));
            self.publish.push(layout::queries(layout::WEBHOOK_SECRETS));
            self.publish.extend(read_stream(layout::ANSWER_STREAM));
            self.subscribe.push(layout::answers(principal));
            return;
        }
        let machine = role.token();
        self.publish.push(layout::commands_from(Role::Service.token(), machine));
        self.subscribe.push(layout::answers(machine));
        self.publish.push(layout::answers("*"));
        self.publish.push(layout::orders("*", "*"));
        for shared in [layout::ANSWER_STREAM, layout::ORDER_STREAM] {
            self.publish.extend(read_stream(shared));
            self.publish.extend(own_stream(shared));
        }
        if role == ServiceRole::Market {
            self.publish.push(layout::PRICES.to_owned());
            self.subscribe.push(layout::queries(layout::TRANSCRIPTS));
        }
        if role == ServiceRole::Webhook {
            // What is to be told, and to whom, is asked of who runs the machine, which may be another process.
            self.publish.push(layout::queries(machine));
            self.subscribe.push(layout::queries(layout::WEBHOOK_SECRETS));
        }
        self.subscribe.push(layout::queries(machine));
        if role == ServiceRole::Controlplane {
            self.answers_strangers = true;
            self.subscribe.extend(access.worker_issuer.as_ref().map(|_| CALLOUT_SUBJECT.to_owned()));
        }
        for one in access.streams.iter().filter(|one| one.machine == role) {
            let stream = one.stream.as_str();
            let (commands, events) =
                (layout::command_stream_name(machine, stream), layout::event_stream_name(machine, stream));
            self.publish.push(layout::events(machine, stream));
            self.publish.extend(read_stream(&commands));
            self.publish.extend(own_stream(&commands));
            self.publish.extend(own_stream(&events));
            self.publish.push(format!("$JS.API.STREAM.PURGE.{commands}"));
        }
    }
}

/// Looking at a stream and reading it by consumers of one's own.
fn read_stream(stream: &str) -> [String; 3] {
    [
        format!("$JS.API.STREAM.INFO.{stream}"),
        format!("$JS.API.CONSUMER.CREATE.{stream}.>"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
    ]
}

/// Bringing a stream into being and up to date. Nobody may delete one.
fn own_stream(stream: &str) -> [String; 2] {
    [format!("$JS.API.STREAM.CREATE.{stream}"), format!("$JS.API.STREAM.UPDATE.{stream}")]
}

fn own_inboxes(principal: &str) -> String {
    format!("{}.>", inbox_prefix(principal))
}
