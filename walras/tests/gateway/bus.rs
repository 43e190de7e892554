//! What a storefront, a hypervisor and an operator may send wrongly over the bus: each message gets a refusal that
//! names field and value, a counter moves, and the stream goes on.

use serde_json::{Value, json};

use super::process::{Party, Walras};

/// More bytes than a message of ours may have, fewer than make the broker refuse it.
const OVERSIZED_BYTES: usize = 800 << 10;

fn bid(id: &str) -> Value {
    json!({"type": "PlaceBid", "id": id, "tenant": "demo", "cluster": "c", "pool": "p", "quantity": 1,
        "options": [{"market": "oak/gp.small", "limit": "0.030"}]})
}

/// A bid with a text of it replaced, so that anything can be written.
fn with(id: &str, from: &str, to: &str) -> String {
    let text = bid(id).to_string();
    assert!(text.contains(from), "{from} stands in {text}");
    text.replace(from, to)
}

fn amend(id: &str, tenant: &str, bid: &str) -> String {
    let terms = json!({"quantity": 1, "options": [{"market": "oak/gp.small", "limit": "0.030"}]});
    json!({"type": "AmendBid", "id": id, "tenant": tenant, "bid": bid, "version": 1, "terms": terms})
        .to_string()
}

/// The list: what is sent, and reason, field and value of the refusal.
fn of_a_storefront() -> Vec<(String, &'static str, &'static str, &'static str)> {
    let limit = "\"limit\":\"0.030\"";
    let quantity = "\"quantity\":1";
    let option = json!({"market": "oak/gp.small", "limit": "0.030"}).to_string();
    let options = vec![option.clone(); 33].join(",");
    vec![
        ("{".to_owned(), "malformed", "message", "{"),
        ("no JSON at all".to_owned(), "malformed", "message", "no JSON at all"),
        ("[]".to_owned(), "malformed", "message", "[]"),
        ("{\"commands\":[]}".to_owned(), "malformed", "commands", "0"),
        (with("b", "PlaceBid", "Bid"), "malformed", "type", "\"Bid\""),
        (with("b", "\"pool\"", "\"colour\":\"red\",\"pool\""), "malformed", "colour", "\"red\""),
        (with("b", "\"cluster\":\"c\",", ""), "malformed", "cluster", "nothing"),
        (with("b1", "\"demo\"", "\"nobody\""), "not-allowed", "tenant", "nobody"),
        (with("b2", limit, "\"limit\":\"0.0305\""), "off-ladder", "options[0].limit", "0.0305"),
        (with("b3", limit, "\"limit\":\"0.001\""), "below-reserve", "options[0].limit", "0.001"),
        (with("b4", limit, "\"limit\":\"0\""), "below-reserve", "options[0].limit", "0.000"),
        (with("b5", limit, "\"limit\":\"-1\""), "malformed", "options[0].limit", "\"-1\""),
        (with("b6", limit, "\"limit\":\"1e5\""), "malformed", "options[0].limit", "\"1e5\""),
        (with("b7", limit, "\"limit\":0.1"), "malformed", "options[0].limit", "0.1"),
        (with("b8", quantity, "\"quantity\":0"), "out-of-range", "quantity", "0"),
        (with("b9", quantity, "\"quantity\":-1"), "malformed", "quantity", "-1"),
        (
            with("b10", quantity, "\"quantity\":9223372036854775808"),
            "malformed",
            "quantity",
            "9223372036854775808",
        ),
        (with("b11", &option, &options), "out-of-range", "options", "33"),
        (with("b12", "oak/gp.small", "elm/gp.small"), "unknown", "options[0].market", "elm/gp.small"),
        (with("good", quantity, "\"quantity\":2"), "id-reused", "id", "good"),
        (amend("a1", "acme", "good"), "unknown", "bid", "good"),
        (amend("a2", "demo", "none"), "unknown", "bid", "none"),
        (amend("a3", "demo", "over"), "ended", "bid", "over"),
    ]
}

/// Sends one message and says what is wrong with its answer.
async fn refused(party: &mut Party, sent: String, wanted: (&str, &str, &str)) -> Option<String> {
    let told = party.say(sent.clone(), 1).await;
    let text = |name: &str| told[0][name].as_str().unwrap_or_default().to_owned();
    let got = (text("reason"), text("field"), text("value"));
    let alike = (got.0.as_str(), got.1.as_str(), got.2.as_str()) == wanted;
    let names = text("message").contains(wanted.1) && text("message").contains(wanted.2);
    let shown: String = sent.chars().take(200).collect();
    (told.len() != 1 || !alike || !names).then(|| format!("{shown}: wanted {wanted:?}, got {told:?}"))
}

#[tokio::test]
async fn bad_input_on_the_bus_is_refused_and_the_stream_goes_on() {
    let Some(walras) = Walras::start() else { return };
    let mut storefront = walras.bus("storefront").await;
    let mut hypervisor = walras.bus("hypervisor").await;
    let mut operator = walras.bus("operator").await;
    hypervisor.offer("oak/gp.small", 1, 10).await;
    for id in ["good", "over"] {
        assert_eq!(storefront.say(bid(id).to_string(), 1).await[0]["type"], "Accepted");
    }
    let cancel = json!({"type": "CancelBid", "id": "c1", "tenant": "demo", "bid": "over"});
    assert_eq!(storefront.say(cancel.to_string(), 1).await[0]["type"], "Accepted");

    let count = |result: &str| walras.metric("walras_market_commands_total", &["\"main\"", result]) as usize;
    let malformed = || walras.metric("walras_market_malformed_total", &["\"main\""]) as usize;
    let before = (count("refused"), count("conflicting"), malformed());
    let cases = of_a_storefront();
    let unreadable = cases.iter().filter(|(_, reason, ..)| *reason == "malformed").count();
    let decided = cases.len() - unreadable - 1;
    let mut wrong = Vec::new();
    for (sent, reason, field, value) in cases {
        wrong.extend(refused(&mut storefront, sent, (reason, field, value)).await);
    }
    let large = " ".repeat(OVERSIZED_BYTES);
    wrong.extend(refused(&mut storefront, large, ("too-large", "message", "819200")).await);
    // Nobody but an operator opens markets, and a hypervisor speaks of itself alone.
    let offer = json!({"type": "SupplyOffered", "id": "o1", "source": "hypervisor", "market": "elm/gp.small",
        "generation": 1, "units": 1});
    wrong.extend(refused(&mut hypervisor, offer.to_string(), ("unknown", "market", "elm/gp.small")).await);
    let foreign = offer.to_string().replace("\"hypervisor\"", "\"other\"").replace("o1", "o2");
    wrong.extend(refused(&mut hypervisor, foreign, ("not-allowed", "source", "other")).await);
    let rules = json!({"type": "AdoptRules", "id": "r1", "rules": {"coalesce_milliseconds": 60_001}});
    let range = ("out-of-range", "rules.coalesce_milliseconds", "60001");
    wrong.extend(refused(&mut operator, rules.to_string(), range).await);
    let presumed = rules.to_string().replace("r1", "r2").replace("60001", "100");
    wrong.extend(refused(&mut storefront, presumed, ("not-allowed", "type", "AdoptRules")).await);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // One bad command does not cost its neighbours in the envelope.
    let envelope =
        format!("{{\"commands\":[{},{},{}]}}", bid("n1"), with("n2", "\"0.030\"", "3e-2"), bid("n3"));
    let told = storefront.say(envelope, 3).await;
    let kinds: Vec<(&str, &str)> =
        told.iter().map(|one| (one["id"].as_str().unwrap(), one["type"].as_str().unwrap())).collect();
    for (id, kind) in [("n1", "Accepted"), ("n2", "Refused"), ("n3", "Accepted")] {
        assert!(kinds.contains(&(id, kind)), "{kinds:?}");
    }
    // What was answered is counted, and a repeat gets the same answer.
    assert_eq!(storefront.say(bid("good").to_string(), 1).await[0]["type"], "Accepted");
    assert_eq!(count("refused") - before.0, decided + 4);
    assert_eq!(count("conflicting") - before.1, 1);
    assert_eq!(malformed() - before.2, unreadable + 2);
    // A gateway that reads what it can says the same.
    let stands = walras.ask("demo", "GET", "/v1/bids/good", &Value::Null);
    assert_eq!((stands.status, &stands.json()["state"]), (200, &json!("won")), "{}", stands.text);
}

#[test]
fn a_configuration_with_a_typing_error_is_one_line() {
    let program = env!("CARGO_BIN_EXE_walras");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("walras.toml");
    for (text, key, value) in [
        ("[gateway]\nlissten = \"127.0.0.1:0\"\n", "gateway.lissten", "lissten"),
        ("[gateway]\nburst = 0\n", "gateway.burst", "0"),
        (
            "[market.exchanges.main]\nmarkets = [{ region = \"a\", class = \"b\", reserve = 0.1 }]\n",
            "reserve",
            "0.1",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let output =
            std::process::Command::new(program).args(["up", "--config"]).arg(&path).output().unwrap();
        let line = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert!(line.contains(key) && line.contains(value) && line.contains("walras.toml"), "{line}");
    }
}
