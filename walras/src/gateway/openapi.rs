//! The OpenAPI document of the gateway, made from the types that it reads and writes. Served at `/openapi.json`
//! and committed as `walras/openapi.json`.

use market::view::json::{
    BidAlone, Bids, Bill, History, LeaseAlone, LeasePage, MarketAlone, Markets, Quote, Why,
};
use market::view::transcript::{Record, Salts};
use placement::machine::{ClusterView, ClustersView};
use proto::market::{Answer, MarketReport};
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};
use webhook::WebhookView;

use super::bids::{AcknowledgeRequest, AmendRequest, PlaceRequest};
use super::clusters::{ChangeRequest, CreateRequest};
use super::cursor::InExchange;
use super::familiar::{FamiliarHistory, FamiliarPercentiles};
use super::kubeconfigs::KubeconfigView;
use super::live::{Following, Gap};
use super::problem::Problem;
use super::webhooks::{DeliveryList, WebhookList, WebhookRequest, WebhookSecret};

/// One operation of the API.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    /// Names in the path.
    path_parameters: &'static [&'static str],
    /// Names in the query: name, type, what it says.
    query: &'static [(&'static str, &'static str, &'static str)],
    body: Option<&'static str>,
    success: u16,
    answer: &'static str,
    needs_token: bool,
    refusals: &'static [u16],
}

const OF_EXCHANGE: (&str, &str, &str) = (
    "exchange",
    "string",
    "Of which exchange: a delivery's number is its exchange's. The first one where it is missing.",
);
const WAIT_FOR: (&str, &str, &str) =
    ("wait_for", "integer", "Wait until the exchange has got this far: the `sequence` of an answer.");
const EXCHANGE: (&str, &str, &str) =
    ("exchange", "string", "In which exchange; the first one, or the bid's own, where it is missing.");
const IN_EXCHANGE: (&str, &str, &str) =
    ("exchange", "string", "In this exchange only; in one after the other where it is missing.");
const SITE: (&str, &str, &str) = ("site", "string", "At which site; the first one where it is missing.");
const REQUEST_ID: (&str, &str, &str) = ("id", "string", "The request's own id; made up where it is missing.");
const WAIT_FOR_SITE: (&str, &str, &str) =
    ("wait_for", "integer", "Wait until the site has got this far: the `sequence` of an answer.");
const COMMAND_REFUSALS: &[u16] = &[400, 401, 403, 404, 409, 413, 415, 422, 429, 501, 503];
const READ_REFUSALS: &[u16] = &[400, 401, 404, 422, 429, 503];

const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/v1/bids",
        id: "placeBid",
        summary: "Place a bid. Repeating the request with the same id and content has no further effect.",
        path_parameters: &[],
        query: &[],
        body: Some("PlaceRequest"),
        success: 201,
        answer: "BidAlone",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/bids",
        id: "listBids",
        summary: "Your bids, one exchange after the other, oldest first.",
        path_parameters: &[],
        query: &[
            ("after", "string", "List what comes after this, as the previous page's `next` says."),
            ("limit", "integer", "At most so many, up to 1,000; 100 where it is missing."),
            IN_EXCHANGE,
            WAIT_FOR,
        ],
        body: None,
        success: 200,
        answer: "BidsInExchange",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/bids/{id}",
        id: "showBid",
        summary: "One of your bids.",
        path_parameters: &["id"],
        query: &[EXCHANGE, WAIT_FOR],
        body: None,
        success: 200,
        answer: "BidAlone",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "patch",
        path: "/v1/bids/{id}",
        id: "amendBid",
        summary: "Replace a bid's terms, all of them, naming the version that is amended.",
        path_parameters: &["id"],
        query: &[],
        body: Some("AmendRequest"),
        success: 200,
        answer: "BidAlone",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "delete",
        path: "/v1/bids/{id}",
        id: "cancelBid",
        summary: "End a bid; what it holds is released within the notice.",
        path_parameters: &["id"],
        query: &[("id", "string", "The cancellation's own id; made up where it is missing.")],
        body: None,
        success: 200,
        answer: "BidAlone",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "post",
        path: "/v1/bids/{id}/acknowledge",
        id: "acknowledgeNotice",
        summary: "Say that leaving servers are drained, so that they are released and billed no longer.",
        path_parameters: &["id"],
        query: &[],
        body: Some("AcknowledgeRequest"),
        success: 200,
        answer: "BidAlone",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/bids/{id}/why",
        id: "explainBid",
        summary: "Why one of your bids holds what it holds: its place, the prices, what would change it.",
        path_parameters: &["id"],
        query: &[EXCHANGE, WAIT_FOR],
        body: None,
        success: 200,
        answer: "Why",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/bids/{id}/salts",
        id: "showSalts",
        summary: "What it takes, beside what you sent, to find one of your bids in the transcript.",
        path_parameters: &["id"],
        query: &[EXCHANGE],
        body: None,
        success: 200,
        answer: "Salts",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "post",
        path: "/v1/clusters",
        id: "createCluster",
        summary: "Ask for a cluster. Repeating the request with the same id and content has no further effect.",
        path_parameters: &[],
        query: &[],
        body: Some("CreateRequest"),
        success: 201,
        answer: "ClusterView",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/clusters",
        id: "listClusters",
        summary: "Your clusters, by name.",
        path_parameters: &[],
        query: &[SITE, WAIT_FOR_SITE],
        body: None,
        success: 200,
        answer: "ClustersView",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/clusters/{cluster}",
        id: "showCluster",
        summary: "One of your clusters.",
        path_parameters: &["cluster"],
        query: &[SITE, WAIT_FOR_SITE],
        body: None,
        success: 200,
        answer: "ClusterView",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/clusters/{cluster}/kubeconfig",
        id: "showKubeconfig",
        summary: "The administrator's kubeconfig of one of your clusters. Who has it administers the cluster.",
        path_parameters: &["cluster"],
        query: &[SITE, WAIT_FOR_SITE],
        body: None,
        success: 200,
        answer: "KubeconfigView",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "patch",
        path: "/v1/clusters/{cluster}",
        id: "changeCluster",
        summary: "Replace a cluster's terms, all of them, naming the version that is replaced.",
        path_parameters: &["cluster"],
        query: &[SITE],
        body: Some("ChangeRequest"),
        success: 200,
        answer: "ClusterView",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "delete",
        path: "/v1/clusters/{cluster}",
        id: "deleteCluster",
        summary: "Give a cluster up, with everything in it.",
        path_parameters: &["cluster"],
        query: &[REQUEST_ID, SITE],
        body: None,
        success: 200,
        answer: "ClusterView",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "post",
        path: "/v1/clusters/{cluster}/wake",
        id: "wakeCluster",
        summary: "Wake a cluster that sleeps; one that does not stays awake for its whole time again.",
        path_parameters: &["cluster"],
        query: &[REQUEST_ID, SITE],
        body: None,
        success: 200,
        answer: "ClusterView",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/transcripts/{exchange}",
        id: "readTranscript",
        summary: "What each round left for those who want to check it: a record to a line, chained by hash.",
        path_parameters: &["exchange"],
        query: &[
            ("after", "integer", "Records of the rounds behind this one."),
            ("limit", "integer", "At most so many, up to 1,000; 100 where it is missing."),
        ],
        body: None,
        success: 200,
        answer: "Record",
        needs_token: false,
        refusals: &[400, 404, 422, 429, 503],
    },
    Operation {
        method: "get",
        path: "/v1/leases",
        id: "listLeases",
        summary: "Your leases that are not over, one exchange after the other, by bid, with what they have cost.",
        path_parameters: &[],
        query: &[
            ("after", "string", "List what comes after this, as the previous page's `next` says."),
            ("limit", "integer", "Those of at most so many bids, up to 1,000; 100 where it is missing."),
            IN_EXCHANGE,
            WAIT_FOR,
        ],
        body: None,
        success: 200,
        answer: "LeasePageInExchange",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/leases/{lease}",
        id: "showLease",
        summary: "One of your leases: what it has cost, segment by segment, price by price.",
        path_parameters: &["lease"],
        query: &[EXCHANGE, WAIT_FOR],
        body: None,
        success: 200,
        answer: "LeaseAlone",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/bills/{month}",
        id: "showBill",
        summary: "Your bill of each exchange for a month such as 2026-11: total, ledger, and a page of lines and segments.",
        path_parameters: &["month"],
        query: &[
            ("after", "string", "Lines and segments after these, as the previous page's `next` says."),
            ("limit", "integer", "At most so many of each, up to 1,000."),
            IN_EXCHANGE,
            WAIT_FOR,
        ],
        body: None,
        success: 200,
        answer: "BillInExchange",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/webhooks",
        id: "listWebhooks",
        summary: "Your webhooks, with how many deliveries wait and how many were given up.",
        path_parameters: &[],
        query: &[],
        body: None,
        success: 200,
        answer: "WebhookList",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "put",
        path: "/v1/webhooks/{webhook}",
        id: "setWebhook",
        summary: "Be told over HTTP what happens to your bids; a webhook of the same name is replaced.",
        path_parameters: &["webhook"],
        query: &[],
        body: Some("WebhookRequest"),
        success: 200,
        answer: "WebhookView",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "delete",
        path: "/v1/webhooks/{webhook}",
        id: "removeWebhook",
        summary: "Be told no more; what waits is dropped.",
        path_parameters: &["webhook"],
        query: &[("id", "string", "The request's own id; made up where it is missing.")],
        body: None,
        success: 200,
        answer: "WebhookList",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/webhooks/{webhook}/secret",
        id: "showWebhookSecret",
        summary: "What a webhook's deliveries are signed with.",
        path_parameters: &["webhook"],
        query: &[],
        body: None,
        success: 200,
        answer: "WebhookSecret",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/deliveries",
        id: "listDeliveries",
        summary: "What is still to be told your webhooks, and what was given up, with the reason.",
        path_parameters: &[],
        query: &[OF_EXCHANGE, ("limit", "integer", "At most so many, up to 1,000; 100 where it is missing.")],
        body: None,
        success: 200,
        answer: "DeliveryList",
        needs_token: true,
        refusals: READ_REFUSALS,
    },
    Operation {
        method: "post",
        path: "/v1/deliveries/{delivery}/again",
        id: "deliverAgain",
        summary: "Try a delivery now that waits or was given up.",
        path_parameters: &["delivery"],
        query: &[OF_EXCHANGE],
        body: None,
        success: 200,
        answer: "DeliveryList",
        needs_token: true,
        refusals: COMMAND_REFUSALS,
    },
    Operation {
        method: "get",
        path: "/v1/quotes",
        id: "showQuote",
        summary: "What a bid must offer to win so many servers now, in any of several markets.",
        path_parameters: &[],
        query: &[
            ("units", "integer", "How many servers, all of which are to win; 1 where it is missing."),
            ("markets", "string", "The markets that would do, with commas between them."),
        ],
        body: None,
        success: 200,
        answer: "Quote",
        needs_token: false,
        refusals: &[400, 404, 422, 429, 503],
    },
    Operation {
        method: "get",
        path: "/v1/markets",
        id: "listMarkets",
        summary: "Every market: price, reserve, the bid to win now, supply and demand.",
        path_parameters: &[],
        query: &[
            ("after", "string", "List what comes after this market."),
            ("limit", "integer", "At most so many."),
        ],
        body: None,
        success: 200,
        answer: "Markets",
        needs_token: false,
        refusals: &[400, 422, 429, 503],
    },
    Operation {
        method: "get",
        path: "/v1/markets/{region}/{class}",
        id: "showMarket",
        summary: "One market.",
        path_parameters: &["region", "class"],
        query: &[],
        body: None,
        success: 200,
        answer: "MarketAlone",
        needs_token: false,
        refusals: &[400, 404, 429, 503],
    },
    Operation {
        method: "get",
        path: "/v1/markets/{region}/{class}/history",
        id: "showMarketHistory",
        summary: "A market's prices, where they changed.",
        path_parameters: &["region", "class"],
        query: &[
            ("from", "string", "From this instant on, RFC 3339."),
            ("limit", "integer", "At most so many points."),
        ],
        body: None,
        success: 200,
        answer: "History",
        needs_token: false,
        refusals: &[400, 404, 422, 429, 503],
    },
    Operation {
        method: "get",
        path: "/history/{class}",
        id: "showFamiliarHistory",
        summary: "The prices of a class, `class-region` where several regions offer it, for tools that read Rackspace Spot's.",
        path_parameters: &["class"],
        query: &[],
        body: None,
        success: 200,
        answer: "FamiliarHistory",
        needs_token: false,
        refusals: &[400, 404, 429, 503],
    },
    Operation {
        method: "get",
        path: "/percentiles.json",
        id: "listFamiliarPercentiles",
        summary: "Prices and percentiles of all markets, for tools that read Rackspace Spot's.",
        path_parameters: &[],
        query: &[],
        body: None,
        success: 200,
        answer: "FamiliarPercentiles",
        needs_token: false,
        refusals: &[503],
    },
];

/// The whole document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for operation in OPERATIONS {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = describe(operation);
    }
    paths.insert("/v1/events".to_owned(), json!({ "get": events() }));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Walras",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "The open spot market for hosted Kubernetes.",
            "description": "Prices and limits are texts in dollars per hour, never JSON numbers. A tenant is known by its token alone.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } }
        }
    })
}

fn describe(operation: &Operation) -> Value {
    let mut parameters: Vec<Value> = operation
        .path_parameters
        .iter()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(operation.query.iter().map(
        |(name, kind, says)| json!({ "name": name, "in": "query", "description": says, "schema": { "type": kind } }),
    ));
    let mut responses = Map::new();
    responses.insert(
        operation.success.to_string(),
        json!({ "description": "Done.", "content": { media_type(operation): { "schema": reference(operation.answer) } } }),
    );
    for status in operation.refusals {
        responses.insert(status.to_string(), refusal());
    }
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(body) = operation.body {
        described["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": reference(body) } } });
    }
    if operation.needs_token {
        described["security"] = json!([{ "token": [] }]);
    }
    described
}

/// A transcript is a record to a line, everything else is one JSON value.
fn media_type(operation: &Operation) -> &'static str {
    if operation.answer == "Record" { "application/x-ndjson" } else { "application/json" }
}

fn events() -> Value {
    let told = ["Following", "Gap", "MarketReport", "Answer"].map(reference);
    json!({
        "operationId": "followEvents",
        "summary": "Server-sent events: `MarketReport` for everybody, and with a token what happens to your bids.",
        "description": "Each event's name is its type, its data is JSON. The first is Following. An event's id says how far the exchanges had got; sent back as Last-Event-ID it makes the stream go on behind it. A Gap says that something is not known any more: read what stands.",
        "parameters": [{ "name": "last-event-id", "in": "header", "description": "The id of the last event that was seen.", "schema": { "type": "string" } }],
        "security": [{}, { "token": [] }],
        "responses": {
            "200": {
                "description": "A stream of events.",
                "content": { "text/event-stream": { "schema": { "anyOf": told } } }
            },
            "400": refusal(),
            "401": refusal(),
            "429": refusal()
        }
    })
}

fn refusal() -> Value {
    json!({
        "description": "Refused; nothing was changed unless the type says that the outcome is unknown.",
        "content": { "application/problem+json": { "schema": reference("Problem") } }
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn schemas() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
    });
    let mut generator = SchemaGenerator::new(settings);
    generator.subschema_for::<PlaceRequest>();
    generator.subschema_for::<AmendRequest>();
    generator.subschema_for::<AcknowledgeRequest>();
    generator.subschema_for::<CreateRequest>();
    generator.subschema_for::<ChangeRequest>();
    generator.subschema_for::<ClusterView>();
    generator.subschema_for::<ClustersView>();
    generator.subschema_for::<KubeconfigView>();
    generator.subschema_for::<BidAlone>();
    generator.subschema_for::<InExchange<Bids>>();
    generator.subschema_for::<InExchange<LeasePage>>();
    generator.subschema_for::<LeaseAlone>();
    generator.subschema_for::<InExchange<Bill>>();
    generator.subschema_for::<WebhookRequest>();
    generator.subschema_for::<WebhookList>();
    generator.subschema_for::<WebhookView>();
    generator.subschema_for::<WebhookSecret>();
    generator.subschema_for::<DeliveryList>();
    generator.subschema_for::<Quote>();
    generator.subschema_for::<Why>();
    generator.subschema_for::<MarketAlone>();
    generator.subschema_for::<Markets>();
    generator.subschema_for::<History>();
    generator.subschema_for::<FamiliarHistory>();
    generator.subschema_for::<FamiliarPercentiles>();
    generator.subschema_for::<Salts>();
    generator.subschema_for::<Record>();
    generator.subschema_for::<Following>();
    generator.subschema_for::<Gap>();
    generator.subschema_for::<MarketReport>();
    generator.subschema_for::<Answer>();
    generator.subschema_for::<Problem>();
    Value::Object(generator.take_definitions(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by this test with `WALRAS_UPDATE=1`, compared by it without.
    #[test]
    fn the_committed_document_is_the_served_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("WALRAS_UPDATE").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == text, "walras/openapi.json is stale: run the tests with WALRAS_UPDATE=1");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
