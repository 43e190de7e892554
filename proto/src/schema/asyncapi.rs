//! The `AsyncAPI` document: which message travels on which subject, and who sends and reads it.

use serde_json::{Map, Value, json};

use crate::envelope::{COMMANDS_MAX, MESSAGE_BYTES_MAX};
use crate::id::ID_BYTES_MAX;
use crate::machine::Role;
use crate::subject::ROOT;

/// Who does what on which channel with which messages. `true`: the party sends, `false`: it reads.
const OPERATIONS: [(Role, bool, &str, &[&str], &str); 14] = [
    (Role::Storefront, true, "command", &["command", "commands"], "Bids for the tenants it is trusted for."),
    (Role::Storefront, false, "answer", &["answers"], "Answers, awards and notices of the bids it placed."),
    (
        Role::Gateway,
        true,
        "command",
        &["command", "commands", "placement-command", "placement-commands", "webhook-command"],
        "Bids, clusters and webhooks of tenants whose tokens it has checked.",
    ),
    (
        Role::Gateway,
        false,
        "answer",
        &["answers", "placement-answers", "webhook-answers"],
        "Answers, awards and notices of what it asked.",
    ),
    (Role::Gateway, false, "event", &["events"], "Everything, to answer readers from its own view."),
    (Role::Gateway, true, "query", &["question"], "What stands, to begin from or to read once."),
    (
        Role::Hypervisor,
        true,
        "command",
        &["command", "commands", "placement-command", "placement-commands"],
        "What servers (`SupplyOffered`) and hosts (`OfferHost`) it has, and which of these go (`NoticeHost`).",
    ),
    (Role::Hypervisor, false, "answer", &["answers", "placement-answers"], "Answers to what it offered."),
    (
        Role::Operator,
        true,
        "command",
        &["command", "commands", "placement-command", "placement-commands"],
        "Markets, rules, trust, hosts, data stores; anything a storefront may.",
    ),
    (Role::Operator, false, "answer", &["answers", "placement-answers"], "Answers to what it asked."),
    (
        Role::Service,
        true,
        "event",
        &["events", "placement-events", "webhook-events"],
        "The owner of a stream says what it decided.",
    ),
    (Role::Service, false, "query", &["question"], "The owner of a stream answers from a view of it."),
    (
        Role::Service,
        true,
        "answer",
        &["answers", "placement-answers", "webhook-answers"],
        "The owner of a stream answers each sender.",
    ),
    (Role::Service, true, "price", &["report"], "The owner of an exchange reports each changed market."),
];

/// The document, as JSON.
pub(super) fn document() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Walras",
            "version": "1.0.0",
            "description": "What travels on the bus of a Walras installation. A storefront, hypervisor or adapter in any \
                language needs nothing but this document and a NATS client.",
            "license": { "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0" },
        },
        "defaultContentType": "application/json",
        "channels": channels(),
        "operations": operations(),
        "components": { "messages": messages() },
    })
}

fn channels() -> Value {
    let stream = id("The machine's stream: for the market, the exchange; for placement, the site.");
    let machine =
        json!({ "description": "The machine that decides.", "enum": ["market", "placement", "webhook"] });
    let role = json!({
        "description": "What the sender is; the broker's permissions fix it.",
        "enum": Role::ALL.map(Role::token),
    });
    let sender = id("Who sends; the broker's permissions fix it.");
    json!({
        "command": {
            "address": format!("{ROOT}.command.{{machine}}.{{stream}}.{{role}}.{{principal}}"),
            "description": format!(
                "What a machine is asked: one command, or an envelope of up to {COMMANDS_MAX} commands and \
                 {MESSAGE_BYTES_MAX} bytes. Every command is answered on the answer channel exactly once in effect \
                 and as often as it is sent."
            ),
            "parameters": { "machine": &machine, "stream": &stream, "role": role, "principal": &sender },
            "messages": references(&["command", "commands", "placement-command", "placement-commands", "webhook-command"]),
        },
        "event": {
            "address": format!("{ROOT}.event.{{machine}}.{{stream}}"),
            "description": "Whole batches of what a machine decided, without gaps. For services only: they carry every \
                tenant's facts.",
            "parameters": { "machine": machine, "stream": stream },
            "messages": references(&["events", "placement-events", "webhook-events"]),
        },
        "answer": {
            "address": format!("{ROOT}.answer.{{principal}}"),
            "description": "What concerns one sender of commands.",
            "parameters": { "principal": id("Who is answered.") },
            "messages": references(&["answers", "placement-answers", "webhook-answers"]),
        },
        "query": {
            "address": format!("{ROOT}.query.{{machine}}.{{stream}}.{{question}}"),
            "description": "Request and reply, for services only: the answers hold every tenant's facts. The reply \
                comes in parts, in order, with the header Walras-Part (from 0) and on the last one Walras-Last; each \
                part that itself names a reply subject is confirmed there with an empty message, or no more follow. \
                Walras-Refused says in words why there is no answer.",
            "parameters": {
                "machine": { "description": "Who is asked: a machine, `transcript` for what its rounds leave, or `webhook-secret`.",
                    "enum": ["market", "placement", "webhook", "transcript", "webhook-secret"] },
                "stream": id("The machine's stream: for the market, the exchange."),
                "question": { "description": "What is asked.",
                    "enum": ["state", "bids", "leases", "bill", "markets", "history", "quote", "why", "records",
                        "salts", "clusters", "orders", "site", "webhooks", "deliveries", "due", "tenants", "secret"] },
            },
            "messages": references(&["question"]),
        },
        "price": {
            "address": format!("{ROOT}.price.{{exchange}}.{{region}}.{{class}}"),
            "description": "A market's public figures, each time they change. Not stored: the next replaces the last.",
            "parameters": {
                "exchange": id("The exchange."),
                "region": id("The market's region."),
                "class": id("The market's server class. It may hold dots, and so be several tokens of the subject."),
            },
            "messages": references(&["report"]),
        },
    })
}

/// A channel's parameter that is an id.
fn id(description: &str) -> Value {
    json!({ "description": format!("{description} At most {ID_BYTES_MAX} letters, digits, - and _.") })
}

fn references(messages: &[&str]) -> Value {
    let one = |name: &&str| ((*name).to_owned(), json!({ "$ref": format!("#/components/messages/{name}") }));
    Value::Object(messages.iter().map(one).collect())
}

fn operations() -> Value {
    let mut operations = Map::new();
    for (role, sends, channel, messages, summary) in OPERATIONS {
        let on_channel = |name: &&str| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") });
        let mut operation = json!({
            "action": if sends { "send" } else { "receive" },
            "channel": { "$ref": format!("#/channels/{channel}") },
            "messages": messages.iter().map(on_channel).collect::<Vec<_>>(),
            "summary": summary,
            "tags": [{ "name": role.token() }],
        });
        if sends && channel == "command" {
            operation["reply"] = json!({ "channel": { "$ref": "#/channels/answer" } });
        }
        let verb = if sends { "sends" } else { "reads" };
        operations.insert(format!("{}-{verb}-{channel}", role.token()), operation);
    }
    let mut observer = json!({
        "action": "receive",
        "channel": { "$ref": "#/channels/price" },
        "messages": [{ "$ref": "#/channels/price/messages/report" }],
        "summary": "Prices are public: every role may read them.",
    });
    observer["tags"] = Role::ALL.map(|role| json!({ "name": role.token() })).into();
    operations.insert("all-read-price".to_owned(), observer);
    Value::Object(operations)
}

fn messages() -> Value {
    let message = |file: &str, kind: &str, title: &str, summary: &str| {
        json!({
            "name": kind,
            "title": title,
            "summary": summary,
            "contentType": "application/json",
            "payload": { "$ref": format!("./{file}") },
        })
    };
    json!({
        "command": message("market-command.schema.json", "command", "One command",
            "Something asked of the market, with an id chosen by the sender. Unknown fields are refused."),
        "commands": message("market-commands.schema.json", "commands", "An envelope of commands",
            "Commands sent together; each is decided and answered for itself."),
        "events": message("market-events.schema.json", "events", "A batch of events",
            "What one turn of the market decided. Readers tolerate fields they do not know."),
        "answers": message("market-answers.schema.json", "answers", "Answers",
            "What one turn of the market means for one principal. Readers tolerate fields they do not know."),
        "question": {
            "name": "question",
            "title": "A question",
            "summary": "Which part is asked for. Of `state`, nothing; the others take what they need of these fields.",
            "contentType": "application/json",
            "payload": { "type": "object", "properties": {
                "tenant": { "type": "string", "description": "bids, clusters: whose." },
                "cluster": { "type": "string", "description": "clusters: only this one." },
                "bid": { "type": "string", "description": "bids: only this one." },
                "market": { "type": "string", "description": "markets: only this one; history: of which." },
                "from": { "type": "string", "format": "date-time", "description": "history: from this instant on." },
                "after": { "description": "bids, markets, records: what comes behind this one." },
                "limit": { "type": "integer", "description": "At most so many." },
                "number": { "type": "integer", "description": "salts: the bid's number." },
                "version": { "type": "integer", "description": "salts: its newest version." },
                "end": { "type": "string", "enum": ["cancelled", "expired"], "description": "salts: how it ended." },
            } },
        },
        "placement-command": message("placement-command.schema.json", "placement-command", "One command to placement",
            "Something asked of placement, with an id chosen by the sender. Unknown fields are refused."),
        "placement-commands": message("placement-commands.schema.json", "placement-commands",
            "An envelope of commands to placement", "Commands sent together; each is decided and answered for itself."),
        "placement-events": message("placement-events.schema.json", "placement-events", "A batch of placement's events",
            "What one turn of placement decided. Readers tolerate fields they do not know."),
        "placement-answers": message("placement-answers.schema.json", "placement-answers", "Placement's answers",
            "What one turn of placement means for one principal. Readers tolerate fields they do not know."),
        "webhook-command": message("webhook-command.schema.json", "webhook-command", "One command about webhooks",
            "Where a tenant wants to be told, what happened, what came of an attempt. Unknown fields are refused."),
        "webhook-events": message("webhook-events.schema.json", "webhook-events", "A batch of events about webhooks",
            "What one turn decided about webhooks. Readers tolerate fields they do not know."),
        "webhook-answers": message("webhook-answers.schema.json", "webhook-answers", "Answers about webhooks",
            "What one turn means for one principal. Readers tolerate fields they do not know."),
        "report": message("market-report.schema.json", "report", "Public figures",
            "Price, lowest winning bid, reserve, supply and demand of one market."),
    })
}
