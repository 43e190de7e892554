//! What is sent: a `CloudEvents` message (version 1.0, JSON in structured mode), as `README.md` describes it.

use proto::StreamName;
use proto::market::{Answer, LeaseNumber, LeaseSpan};
use proto::webhook::{Fact, FactKind};
use serde_json::{Map, Value, json};

/// Media type of what is sent.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";
/// Workers named in one message; a bid may have thousands.
pub const WORKERS_MAX: usize = 100;

/// What a worker is called, before its lease's number.
const WORKER_PREFIX: &str = "lease-";

/// The leases that a fact is about.
pub(crate) const fn leases_of(told: &Answer) -> Option<LeaseSpan> {
    match told {
        Answer::Awarded(fact) => Some(fact.leases),
        Answer::NoticeGiven(fact) => Some(fact.leases),
        Answer::NoticeWithdrawn(fact) => Some(fact.leases),
        Answer::Delayed(fact) => Some(fact.leases),
        Answer::Ready(fact) => Some(fact.leases),
        Answer::Dead(fact) => Some(fact.leases),
        Answer::Released(fact) => Some(fact.leases),
        Answer::Accepted(_) | Answer::Refused(_) | Answer::Expired(_) => None,
    }
}

/// The body of a delivery; `lease` is the one that is told by itself, with the keys that older readers know.
pub fn body(exchange: &StreamName, fact: &Fact, lease: Option<LeaseNumber>, is_legacy: bool) -> Vec<u8> {
    let mut data = match serde_json::to_value(&fact.told) {
        Ok(Value::Object(data)) => data,
        _ => Map::new(),
    };
    let mut leases = leases_of(&fact.told);
    if let Some(lease) = lease {
        leases = Some(LeaseSpan { first: lease, units: 1 });
        data.insert("leases".to_owned(), json!(leases));
    }
    let numbers = leases.into_iter().flat_map(|leases| leases.first..leases.end());
    let workers: Vec<String> =
        numbers.take(WORKERS_MAX).map(|lease| format!("{WORKER_PREFIX}{lease}")).collect();
    let kind = FactKind::of(&fact.told).map_or("unknown", FactKind::word);
    let id = match lease {
        Some(lease) => format!("{}-{lease}", fact.id(exchange)),
        None => fact.id(exchange),
    };
    let mut message = json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("walras/market/{exchange}"),
        "type": format!("walras.{kind}"),
        "time": fact.at,
        "subject": data.get("bid"),
        "datacontenttype": "application/json",
    });
    if is_legacy {
        message["cloudspace"] = data.get("cluster").cloned().unwrap_or_else(|| json!(""));
        message["Server"] = json!(workers.first().map_or("", String::as_str));
        message["IP"] = json!("");
        message["Time"] = json!(fact.at);
    }
    if !workers.is_empty() {
        data.insert("workers".to_owned(), json!(workers));
    }
    message["data"] = Value::Object(data);
    message.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_says_all_that_a_reader_needs() {
        let fact: Fact = serde_json::from_value(json!({
            "sequence": 812, "at": "2026-11-22T18:40:00Z",
            "told": {"type": "NoticeGiven", "tenant": "demo", "bid": "first", "cluster": "prod", "pool": "workers",
                "market": "eu-alder-1/gp.large", "leases": {"first": 7, "units": 2}, "round": 40,
                "gone_at": "2026-11-22T18:46:00Z", "reason": "outbid", "limit": "0.030", "price": "0.031", "kept_by": "0.032"},
        }))
        .unwrap();
        let exchange = "main".parse().unwrap();
        let sent: Value = serde_json::from_slice(&body(&exchange, &fact, None, false)).unwrap();
        assert!(sent["id"].as_str().unwrap().starts_with("main-812-"), "{sent}");
        assert_eq!(sent["type"], "walras.notice");
        assert_eq!(sent["subject"], "first");
        assert_eq!(sent["data"]["workers"], json!(["lease-7", "lease-8"]));
        assert_eq!((&sent["data"]["limit"], &sent["data"]["price"]), (&json!("0.030"), &json!("0.031")));
        assert!(sent.get("Server").is_none());
        let sent: Value = serde_json::from_slice(&body(&exchange, &fact, Some(8), true)).unwrap();
        let four = ["cloudspace", "Server", "IP", "Time"].map(|key| sent[key].as_str().unwrap().to_owned());
        assert_eq!(four, ["prod", "lease-8", "", "2026-11-22T18:40:00Z"]);
        assert_eq!(sent["data"]["leases"], json!({"first": 8, "units": 1}));
        assert_eq!(sent["id"], json!(format!("{}-8", fact.id(&exchange))));
    }
}
