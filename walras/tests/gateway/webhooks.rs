//! A tenant's webhook over HTTP, by command, with a receiver that is busy at first.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use walras::gateway::webhooks::{DeliveryList, WebhookList, WebhookSecret};
use webhook::WebhookView;
use webhook_service::signature;

use super::process::{Walras, until};
use super::refusals::check_problem;

/// How often a tenant looks: it may ask only so often.
const LOOK: Duration = Duration::from_millis(150);

/// One request as it came: what signs it, and its body.
type Came = (String, String);

/// A receiver whose first answer is that it is busy.
fn receiver() -> (String, Receiver<Came>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let (tell, came) = channel();
    std::thread::spawn(move || {
        for (count, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut length, mut signed) = (0, String::new());
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let line = line.trim().to_ascii_lowercase();
                if line.is_empty() {
                    break;
                }
                if let Some(text) = line.strip_prefix("content-length: ") {
                    length = text.parse().unwrap();
                } else if let Some(text) = line.strip_prefix("walras-signature: ") {
                    text.clone_into(&mut signed);
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let status = if count == 0 { "503 Busy" } else { "200 Taken" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
            if count > 0 {
                let _ = tell.send((signed, String::from_utf8(body).unwrap()));
            }
        }
    });
    (url, came)
}

fn ask<T: DeserializeOwned>(walras: &Walras, method: &str, path: &str, body: &Value) -> T {
    let answered = walras.ask("initech", method, path, body);
    assert_eq!(answered.status, 200, "{method} {path}: {}", answered.text);
    serde_json::from_str(&answered.text).unwrap_or_else(|error| panic!("{error}: {}", answered.text))
}

/// Servers of oak/gp.small are all held by others: a high bid wins one, to be there after a notice.
pub(crate) fn webhooks(walras: &Walras) {
    let (url, came) = receiver();
    let refused = walras.ask("initech", "PUT", "/v1/webhooks/ops", &json!({"url": "ftp://example.org"}));
    check_problem(&refused, 422, "out-of-range", "url", "ftp://example.org").unwrap();
    let set: WebhookView =
        ask(walras, "PUT", "/v1/webhooks/ops", &json!({"url": url, "kinds": ["won"], "legacy": true}));
    assert_eq!((set.webhook.as_str(), set.waiting), ("ops", 0));
    let listed: WebhookList = ask(walras, "GET", "/v1/webhooks", &Value::Null);
    assert_eq!(listed.webhooks.len(), 1, "one over both exchanges");
    let others: WebhookList =
        serde_json::from_str(&walras.ask("demo", "GET", "/v1/webhooks", &Value::Null).text).unwrap();
    assert_eq!(others.webhooks, []);
    let hidden = walras.ask("demo", "GET", "/v1/webhooks/ops/secret", &Value::Null);
    check_problem(&hidden, 404, "unknown", "webhook", "ops").unwrap();
    let WebhookSecret { secret } = ask(walras, "GET", "/v1/webhooks/ops/secret", &Value::Null);
    let bid = json!({"id": "hooked", "cluster": "prod", "pool": "p", "quantity": 1,
        "options": [{"market": "oak/gp.small", "limit": "0.500"}]});
    assert_eq!(walras.ask("initech", "POST", "/v1/bids", &bid).status, 201);
    let failed = until(|| {
        std::thread::sleep(LOOK);
        let known: DeliveryList = ask(walras, "GET", "/v1/deliveries?limit=10", &Value::Null);
        known.deliveries.into_iter().find(|one| one.attempts == 1)
    });
    assert_eq!(failed.failure.as_deref(), Some("the receiver answers 503"));
    let none = walras.ask("demo", "POST", &format!("/v1/deliveries/{}/again", failed.delivery), &json!({}));
    check_problem(&none, 404, "unknown", "delivery", &failed.delivery.to_string()).unwrap();
    let _: DeliveryList =
        ask(walras, "POST", &format!("/v1/deliveries/{}/again", failed.delivery), &json!({}));
    let (signed, body) = until(|| came.try_recv().ok());
    let seconds: i64 = signed[2..].split(',').next().unwrap().parse().unwrap();
    assert_eq!(signed, signature(&secret, seconds, body.as_bytes()), "{body}");
    let message: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&message["type"], &message["subject"]),
        (&json!("walras.won"), &json!("hooked")),
        "{message}"
    );
    assert_eq!(message["data"]["limit"], json!("0.500"));
    let worker = message["data"]["workers"][0].clone();
    assert_eq!((&message["Server"], &message["cloudspace"]), (&worker, &json!("prod")), "{message}");
    until(|| {
        std::thread::sleep(LOOK);
        let known: DeliveryList = ask(walras, "GET", "/v1/deliveries", &Value::Null);
        known.deliveries.is_empty().then_some(())
    });
    by_command(walras);
    let left: WebhookList = ask(walras, "DELETE", "/v1/webhooks/ops", &Value::Null);
    assert_eq!(left.webhooks, []);
    assert_eq!(walras.ask("initech", "DELETE", "/v1/bids/hooked", &Value::Null).status, 200);
}

fn by_command(walras: &Walras) {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_walras"));
        command.args(["webhook"]).args(arguments).args(["--url", walras.told("gateway_url")]);
        let output = command.arg("--token-file").arg(walras.token_file("initech")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listed = run(&["list"]);
    assert!(listed.contains("ops") && listed.contains("won"), "{listed}");
    assert!(run(&["deliveries", "--json"]).contains("\"deliveries\""));
}
