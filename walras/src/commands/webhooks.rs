//! `walras webhook set|list|remove|secret|deliveries|again`.

use anyhow::Result;
use proto::webhook::FactKind;
use serde_json::json;
use webhook::{DeliveryView, WebhookView};

use super::table::{print, print_json, print_line};
use crate::cli::{AgainArgs, NamedWebhookArgs, ReadArgs, SetWebhookArgs, WebhookCommand};
use crate::client::Client;
use crate::gateway::webhooks::{DeliveryList, WebhookList, WebhookRequest, WebhookSecret};

/// Carries out one of the commands.
///
/// # Errors
/// What the gateway refused, in one line.
pub fn run(command: &WebhookCommand) -> Result<()> {
    match command {
        WebhookCommand::Set(arguments) => set(arguments),
        WebhookCommand::List(arguments) => list(arguments),
        WebhookCommand::Remove(arguments) => remove(arguments),
        WebhookCommand::Secret(arguments) => secret(arguments),
        WebhookCommand::Deliveries(arguments) => deliveries(arguments),
        WebhookCommand::Again(arguments) => again(arguments),
    }
}

fn set(arguments: &SetWebhookArgs) -> Result<()> {
    let request = WebhookRequest {
        id: None,
        url: arguments.to.clone(),
        kinds: arguments.kinds.clone(),
        legacy: arguments.legacy,
    };
    let path = format!("/v1/webhooks/{}", arguments.webhook);
    let set: WebhookView = Client::new(&arguments.connection)?.put(&path, &request)?;
    if arguments.connection.json { print_json(&set) } else { table(&[set]) }
}

fn list(arguments: &ReadArgs) -> Result<()> {
    let known: WebhookList = Client::new(&arguments.connection)?.get("/v1/webhooks")?;
    if arguments.connection.json { print_json(&known) } else { table(&known.webhooks) }
}

fn remove(arguments: &NamedWebhookArgs) -> Result<()> {
    let path = format!("/v1/webhooks/{}", arguments.webhook);
    let left: WebhookList = Client::new(&arguments.connection)?.delete(&path)?;
    if arguments.connection.json { print_json(&left) } else { table(&left.webhooks) }
}

fn secret(arguments: &NamedWebhookArgs) -> Result<()> {
    let path = format!("/v1/webhooks/{}/secret", arguments.webhook);
    let told: WebhookSecret = Client::new(&arguments.connection)?.get(&path)?;
    if arguments.connection.json { print_json(&told) } else { print_line(&told.secret) }
}

fn deliveries(arguments: &ReadArgs) -> Result<()> {
    let known: DeliveryList = Client::new(&arguments.connection)?.get("/v1/deliveries")?;
    show(arguments.connection.json, &known)
}

fn again(arguments: &AgainArgs) -> Result<()> {
    let path = format!("/v1/deliveries/{}/again", arguments.delivery);
    let known: DeliveryList = Client::new(&arguments.connection)?.post(&path, &json!({}))?;
    show(arguments.connection.json, &known)
}

fn show(is_json: bool, known: &DeliveryList) -> Result<()> {
    if is_json {
        return print_json(known);
    }
    let row = |one: &DeliveryView| {
        let kind = FactKind::of(&one.fact.told).map_or("-", FactKind::word);
        vec![
            one.delivery.to_string(),
            one.webhook.to_string(),
            kind.to_owned(),
            one.fact.at.to_string(),
            one.attempts.to_string(),
            one.next_at.map_or_else(|| "given up".to_owned(), |at| at.to_string()),
            one.failure.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    let rows: Vec<_> = known.deliveries.iter().map(row).collect();
    print(&["delivery", "webhook", "fact", "of", "attempts", "next", "failure"], &rows)
}

fn table(webhooks: &[WebhookView]) -> Result<()> {
    let row = |one: &WebhookView| {
        let kinds: Vec<&str> = one.kinds.iter().map(|kind| kind.word()).collect();
        vec![
            one.webhook.to_string(),
            one.url.clone(),
            if kinds.is_empty() { "all".to_owned() } else { kinds.join(", ") },
            one.waiting.to_string(),
            one.dead.to_string(),
        ]
    };
    let rows: Vec<_> = webhooks.iter().map(row).collect();
    print(&["webhook", "to", "facts", "waiting", "given up"], &rows)
}
