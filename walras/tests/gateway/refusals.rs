//! What a tenant may send wrongly over HTTP, and what it is told.

use serde_json::{Value, json};

use super::process::{Answered, Asked, Walras};

/// Every refusal is a problem detail (RFC 9457) of its status, with a type, and says field and value.
pub(crate) fn check_problem(
    answered: &Answered,
    status: u16,
    kind: &str,
    field: &str,
    value: &str,
) -> Result<(), String> {
    let problem = answered.json();
    let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
    let got = (answered.status, text("type"), text("field"), text("value"));
    let wanted = (status, format!("/problems/{kind}"), field.to_owned(), value.to_owned());
    if got != wanted {
        return Err(format!("wanted {wanted:?}, got {got:?}: {}", answered.text));
    }
    if answered.header("content-type") != "application/problem+json" {
        return Err(format!("content-type {:?}", answered.header("content-type")));
    }
    if problem["status"] != json!(status) || text("title").is_empty() || text("detail").is_empty() {
        return Err(format!("not a whole problem: {}", answered.text));
    }
    let names = |part: &str| text("detail").contains(part);
    if !names(field) || !names(value) {
        return Err(format!("the detail names neither field nor value: {}", text("detail")));
    }
    if text("detail").lines().count() != 1 {
        return Err(format!("the detail is no line: {:?}", text("detail")));
    }
    let repeated = problem["retry_after_seconds"].as_u64().map(|seconds| seconds.to_string());
    if repeated.unwrap_or_default() != answered.header("retry-after") {
        return Err(format!("retry-after {:?} and {}", answered.header("retry-after"), answered.text));
    }
    Ok(())
}

fn bid() -> Value {
    json!({"id": "x", "cluster": "c", "pool": "p", "quantity": 1,
        "options": [{"market": "oak/gp.small", "limit": "0.030"}]})
}

/// The bid with one value changed, at a path such as `options/0/limit`; a number is given as text, so that numbers
/// can be written that no JSON library would.
fn changed(path: &str, text: &str) -> String {
    let mut json = bid();
    let mut here = &mut json;
    for part in path.split('/') {
        here = match part.parse::<usize>() {
            Ok(index) => &mut here[index],
            Err(_) => &mut here[part],
        };
    }
    *here = json!("@");
    json.to_string().replace("\"@\"", text)
}

fn options(count: usize) -> String {
    let option = |place: usize| json!({"market": format!("oak/m{place}"), "limit": "0.030"});
    Value::from((0..count).map(option).collect::<Vec<_>>()).to_string()
}

/// What a new bid may not say: where, what, and how it is refused.
pub(crate) fn bids(walras: &Walras) -> Vec<String> {
    let many = options(33);
    let unreadable: &[(&str, &str, u16, &str, &str, &str)] = &[
        ("options/0/limit", "0.1", 400, "malformed", "options[0].limit", "0.1"),
        ("options/0/limit", "\"1e5\"", 400, "malformed", "options[0].limit", "\"1e5\""),
        ("options/0/limit", "\"-0.010\"", 400, "malformed", "options[0].limit", "\"-0.010\""),
        ("options/0/limit", "\"0.0000001\"", 400, "malformed", "options[0].limit", "\"0.0000001\""),
        ("options/0/limit", "null", 400, "malformed", "options[0].limit", "null"),
        ("options/0/limit", "\"0\"", 422, "below-reserve", "options[0].limit", "0.000"),
        ("options/0/limit", "\"0.001\"", 422, "below-reserve", "options[0].limit", "0.001"),
        ("options/0/limit", "\"0.0305\"", 422, "off-ladder", "options[0].limit", "0.0305"),
        ("options/0/market", "\"oak\"", 400, "malformed", "options[0].market", "\"oak\""),
        ("options/0/market", "\"elm/gp.small\"", 404, "unknown", "options[0].market", "elm/gp.small"),
        ("options/0/colour", "\"red\"", 400, "malformed", "options[0].colour", "\"red\""),
        ("options", "[]", 422, "out-of-range", "options", "0"),
        ("options", &many, 422, "out-of-range", "options", "33"),
        ("options", "{}", 400, "malformed", "options", "{}"),
        ("quantity", "0", 422, "out-of-range", "quantity", "0"),
        ("quantity", "10001", 422, "out-of-range", "quantity", "10001"),
        ("quantity", "-1", 400, "malformed", "quantity", "-1"),
        ("quantity", "1.5", 400, "malformed", "quantity", "1.5"),
        ("quantity", "9223372036854775808", 400, "malformed", "quantity", "9223372036854775808"),
        ("quantity", "\"1\"", 400, "malformed", "quantity", "\"1\""),
        ("min_quantity", "2", 422, "out-of-range", "min_quantity", "2"),
        ("expires_at", "\"2020-01-01T00:00:00Z\"", 422, "out-of-range", "expires_at", "2020-01-01T00:00:00Z"),
        ("expires_at", "\"tomorrow\"", 400, "malformed", "expires_at", "\"tomorrow\""),
        ("id", "\"a b\"", 400, "malformed", "id", "\"a b\""),
        ("cluster", "\"\"", 400, "malformed", "cluster", "\"\""),
        // Who asks is said by the token: a tenant in the body is a field nobody knows.
        ("tenant", "\"acme\"", 400, "malformed", "tenant", "\"acme\""),
        ("colour", "\"red\"", 400, "malformed", "colour", "\"red\""),
    ];
    let mut wrong = Vec::new();
    for (number, (path, text, status, kind, field, value)) in unreadable.iter().enumerate() {
        let body = changed(path, text).replace("\"id\":\"x\"", &format!("\"id\":\"x{number}\""));
        let asked = post(&body);
        let answered = walras.send(&Asked { authorization: &walras.bearer("demo"), ..asked });
        if let Err(problem) = check_problem(&answered, *status, kind, field, value) {
            wrong.push(format!("{path} = {text}: {problem}"));
        }
    }
    wrong
}

fn post(body: &str) -> Asked<'_> {
    Asked {
        method: "POST",
        path: "/v1/bids",
        authorization: "",
        content_type: "application/json",
        body: body.as_bytes(),
    }
}

/// Requests that are wrong as a whole.
#[allow(clippy::too_many_lines, reason = "a table")]
pub(crate) fn requests(walras: &Walras) -> Vec<String> {
    let demo = walras.bearer("demo");
    let good = bid().to_string();
    let large = changed("pool", &format!("\"{}\"", "p".repeat(70_000)));
    let bytes = large.len().to_string();
    let ask = |method, path, authorization, content_type, body| Asked {
        method,
        path,
        authorization,
        content_type,
        body,
    };
    let plain = |method, path| ask(method, path, demo.as_str(), "", &b""[..]);
    let json = |method, path, body: &'static str| {
        ask(method, path, demo.as_str(), "application/json", body.as_bytes())
    };
    let place =
        |authorization, content_type, body| ask("POST", "/v1/bids", authorization, content_type, body);
    let amendment =
        r#"{"version":1,"terms":{"quantity":1,"options":[{"market":"oak/gp.small","limit":"0.030"}]}}"#;
    let stale =
        r#"{"version":9,"terms":{"quantity":1,"options":[{"market":"oak/gp.small","limit":"0.030"}]}}"#;
    let unknown = "unauthenticated";
    let cases: Vec<(Asked<'_>, u16, &str, &str, &str)> = vec![
        (place("", "application/json", good.as_bytes()), 401, unknown, "", ""),
        (place("Bearer nobody", "application/json", good.as_bytes()), 401, unknown, "", ""),
        (place("Basic ZGVtbzpkZW1v", "application/json", good.as_bytes()), 401, unknown, "", ""),
        (ask("GET", "/v1/bids", "", "", b""), 401, unknown, "", ""),
        (ask("GET", "/v1/bids/first", "Bearer nobody", "", b""), 401, unknown, "", ""),
        (ask("DELETE", "/v1/bids/first", "", "", b""), 401, unknown, "", ""),
        (ask("GET", "/v1/events", "Bearer nobody", "", b""), 401, unknown, "", ""),
        (place(&demo, "text/plain", good.as_bytes()), 415, "media-type", "content-type", "text/plain"),
        (
            place(&demo, "application/x-www-form-urlencoded", b"quantity=1"),
            415,
            "media-type",
            "content-type",
            "application/x-www-form-urlencoded",
        ),
        (place(&demo, "application/json", large.as_bytes()), 413, "too-large", "body", &bytes),
        (json("POST", "/v1/bids", ""), 400, "malformed", "cluster", "nothing"),
        (json("POST", "/v1/bids", "[1]"), 400, "malformed", "body", "[1]"),
        (json("POST", "/v1/bids", "{\"id\":"), 400, "malformed", "body", "{\"id\":"),
        (json("POST", "/v1/bids", "{\"id\":\"a\",\"id\":\"b\"}"), 400, "malformed", "id", "\"b\""),
        (place(&demo, "application/json", b"{\"\xff\":1}"), 400, "malformed", "body", "{\"\u{fffd}\":1}"),
        (json("PATCH", "/v1/bids/none", amendment), 404, "unknown", "bid", "none"),
        (json("PATCH", "/v1/bids/foreign", amendment), 404, "unknown", "bid", "foreign"),
        (json("PATCH", "/v1/bids/ended", amendment), 409, "ended", "bid", "ended"),
        (json("PATCH", "/v1/bids/standing", stale), 409, "stale", "version", "9"),
        (json("PATCH", "/v1/bids/standing", "{}"), 400, "malformed", "version", "nothing"),
        (plain("DELETE", "/v1/bids/none"), 404, "unknown", "bid", "none"),
        (plain("DELETE", "/v1/bids/foreign"), 404, "unknown", "bid", "foreign"),
        (plain("DELETE", "/v1/bids/ended"), 409, "ended", "bid", "ended"),
        (plain("DELETE", "/v1/bids/ended?id=a%20b"), 400, "malformed", "id", "a b"),
        (plain("GET", "/v1/bids/none"), 404, "unknown", "bid", "none"),
        (plain("GET", "/v1/bids/foreign"), 404, "unknown", "bid", "foreign"),
        (plain("GET", "/v1/bids/a%20b"), 400, "malformed", "id", "a b"),
        (plain("GET", "/v1/bids/%FF"), 400, "malformed", "path", "/v1/bids/%FF"),
        (plain("GET", "/v1/bids?limit=0"), 422, "out-of-range", "limit", "0"),
        (plain("GET", "/v1/bids?limit=1001"), 422, "out-of-range", "limit", "1001"),
        (plain("GET", "/v1/bids?limit=many"), 400, "malformed", "limit", "many"),
        (plain("GET", "/v1/bids?colour=red"), 400, "malformed", "colour", "red"),
        (plain("GET", "/v1/bids?limit=1&limit=2"), 400, "malformed", "limit", "1"),
        (plain("GET", "/v1/bids?after=main:-1"), 400, "malformed", "after", "main:-1"),
        (plain("GET", "/v1/bids?after=main:1&exchange=west"), 400, "malformed", "after", "main:1"),
        (plain("GET", "/v1/bids?after=south:1"), 404, "unknown", "exchange", "south"),
        (plain("GET", "/v1/bids?exchange=south"), 404, "unknown", "exchange", "south"),
        (json("POST", "/v1/bids/none/acknowledge", "{\"leases\":[1]}"), 404, "unknown", "bid", "none"),
        (json("POST", "/v1/bids/foreign/acknowledge", "{\"leases\":[1]}"), 404, "unknown", "bid", "foreign"),
        (
            json("POST", "/v1/bids/standing/acknowledge", "{\"leases\":[]}"),
            422,
            "out-of-range",
            "leases",
            "0",
        ),
        (json("POST", "/v1/bids/standing/acknowledge", "{\"leases\":[1]}"), 404, "unknown", "leases[0]", "1"),
        (plain("GET", "/v1/markets?limit=0"), 422, "out-of-range", "limit", "0"),
        (plain("GET", "/history/gp.huge"), 404, "unknown", "class", "gp.huge"),
        (plain("GET", "/v1/markets?after=oak"), 400, "malformed", "after", "oak"),
        (plain("GET", "/v1/markets/elm/gp.small"), 404, "unknown", "market", "elm/gp.small"),
        (plain("GET", "/v1/markets/oak/gp%20small"), 400, "malformed", "market", "oak/gp small"),
        (plain("GET", "/v1/markets/elm/gp.small/history"), 404, "unknown", "market", "elm/gp.small"),
        (plain("GET", "/v1/markets/oak/gp.small/history?from=noon"), 400, "malformed", "from", "noon"),
        (plain("GET", "/v1/markets/oak/gp.small/history?limit=0"), 422, "out-of-range", "limit", "0"),
        (plain("GET", "/v2/bids"), 404, "unknown", "path", "/v2/bids"),
        (plain("PUT", "/v1/bids"), 405, "method", "method", "PUT"),
        (plain("DELETE", "/v1/markets"), 405, "method", "method", "DELETE"),
        (plain("POST", "/v1/events"), 405, "method", "method", "POST"),
    ];
    let mut wrong = Vec::new();
    for (asked, status, kind, field, value) in &cases {
        let answered = walras.send(asked);
        if let Err(problem) = check_problem(&answered, *status, kind, field, value) {
            wrong.push(format!("{} {}: {problem}", asked.method, asked.path));
        }
        if *status == 405 && answered.header("allow").is_empty() {
            wrong.push(format!("{} {}: no Allow", asked.method, asked.path));
        }
        if *status == 401 && answered.header("www-authenticate") != "Bearer" {
            wrong.push(format!("{} {}: no WWW-Authenticate", asked.method, asked.path));
        }
    }
    wrong
}
