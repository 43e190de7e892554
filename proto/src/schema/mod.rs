//! The machine-readable description of what travels on the bus: a JSON Schema (2020-12) per message and an
//! `AsyncAPI` 3.0 document over them.
//!
//! The files under `proto/schemas/` are these documents, word for word; a test fails when they differ.

mod asyncapi;

use std::borrow::Cow;

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

use crate::envelope::{Answers, Commands, EventBatch, Refused};
use crate::market::{Answer, MarketCommand, MarketEvent, MarketReport};
use crate::placement::{PlacementAnswer, PlacementCommand, PlacementEvent};
use crate::webhook::{WebhookAnswer, WebhookCommand, WebhookEvent};

/// A message's schema: its file, what it is called, what it is for.
struct Message {
    file: &'static str,
    /// Last part of the schema's `$id`.
    name: &'static str,
    title: &'static str,
    schema: fn() -> Value,
}

/// Every message there is. Append-only: names and files are public.
const MESSAGES: [Message; 13] = [
    Message {
        file: "market-command.schema.json",
        name: "market:command",
        title: "A command to the market",
        schema: read_by_us::<MarketCommand>,
    },
    Message {
        file: "market-commands.schema.json",
        name: "market:commands",
        title: "An envelope of commands to the market",
        schema: read_by_us::<Commands<MarketCommand>>,
    },
    Message {
        file: "market-events.schema.json",
        name: "market:events",
        title: "A batch of the market's events",
        schema: written_by_us::<EventBatch<MarketEvent>>,
    },
    Message {
        file: "market-answers.schema.json",
        name: "market:answers",
        title: "The market's answers to one principal",
        schema: written_by_us::<Answers<Answer>>,
    },
    Message {
        file: "market-report.schema.json",
        name: "market:report",
        title: "A market's public figures",
        schema: written_by_us::<MarketReport>,
    },
    Message {
        file: "refused.schema.json",
        name: "refused",
        title: "The answer to a command that was not carried out",
        schema: written_by_us::<Refused>,
    },
    Message {
        file: "placement-command.schema.json",
        name: "placement:command",
        title: "A command to placement",
        schema: read_by_us::<PlacementCommand>,
    },
    Message {
        file: "placement-commands.schema.json",
        name: "placement:commands",
        title: "An envelope of commands to placement",
        schema: read_by_us::<Commands<PlacementCommand>>,
    },
    Message {
        file: "placement-events.schema.json",
        name: "placement:events",
        title: "A batch of placement's events",
        schema: written_by_us::<EventBatch<PlacementEvent>>,
    },
    Message {
        file: "placement-answers.schema.json",
        name: "placement:answers",
        title: "Placement's answers to one principal",
        schema: written_by_us::<Answers<PlacementAnswer>>,
    },
    Message {
        file: "webhook-command.schema.json",
        name: "webhook:command",
        title: "A command about webhooks",
        schema: read_by_us::<WebhookCommand>,
    },
    Message {
        file: "webhook-events.schema.json",
        name: "webhook:events",
        title: "A batch of what was decided about webhooks",
        schema: written_by_us::<EventBatch<WebhookEvent>>,
    },
    Message {
        file: "webhook-answers.schema.json",
        name: "webhook:answers",
        title: "Answers about webhooks to one principal",
        schema: written_by_us::<Answers<WebhookAnswer>>,
    },
];

/// Every document as file name and text, in the order in which they should be read.
pub fn documents() -> Vec<(Cow<'static, str>, String)> {
    let mut documents = vec![("asyncapi.json".into(), text(asyncapi::document()))];
    documents.extend(MESSAGES.iter().map(|message| {
        let mut schema = (message.schema)();
        schema["$id"] = json!(format!("urn:walras:v1:{}", message.name));
        schema["title"] = json!(message.title);
        (message.file.into(), text(schema))
    }));
    documents
}

/// What others write and we read: a field with a default may be left out.
fn read_by_us<T: JsonSchema>() -> Value {
    schema::<T>(Contract::Deserialize)
}

/// What we write and others read: a field that is always written is always there.
fn written_by_us<T: JsonSchema>() -> Value {
    schema::<T>(Contract::Serialize)
}

fn schema<T: JsonSchema>(contract: Contract) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.contract = contract);
    SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value()
}

/// A document as it is committed: keys in order whatever features the build has, a newline at the end.
fn text(mut document: Value) -> String {
    document.sort_all_objects();
    // A `Value` always has a text.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}
