//! Whether what stands is what was asked for.

use serde_json::Value;

/// Whether an object holds everything that a manifest says. Members that the manifest does not name are others'
/// business or defaults; lists must have the same items, each of which may hold more.
pub(crate) fn covers(manifest: &Value, live: &Value) -> bool {
    match (manifest, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            wanted.iter().all(|(name, wanted)| live.get(name).is_some_and(|live| covers(wanted, live)))
        }
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len() && wanted.iter().zip(live).all(|(wanted, live)| covers(wanted, live))
        }
        _ => manifest == live,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::covers;

    #[test]
    fn more_is_enough_and_less_is_not() {
        let manifest = json!({ "a": { "b": 1, "c": [{ "d": "x" }] } });
        assert!(covers(
            &manifest,
            &json!({ "a": { "b": 1, "c": [{ "d": "x", "e": 2 }], "f": null }, "g": 1 })
        ));
        for less in [
            json!({ "a": { "b": 2, "c": [{ "d": "x" }] } }),
            json!({ "a": { "b": 1, "c": [] } }),
            json!({ "a": { "b": 1, "c": [{ "d": "x" }, { "d": "y" }] } }),
            json!({ "a": { "b": 1 } }),
            json!({}),
        ] {
            assert!(!covers(&manifest, &less), "{less}");
        }
    }
}
