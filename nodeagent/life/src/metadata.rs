//! What clouds and hypervisors say about the end of a server, at an address that only the server sees.

use std::time::Duration;

use proto::Timestamp;
use serde::Deserialize;

use crate::notice::When;

/// Longest answer read, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What Google's servers have from the first sign on.
const GOOGLE_NOTICE: Duration = Duration::from_secs(30);

/// What is left of a server of Azure's when its event has started already.
const STARTED: Duration = Duration::ZERO;

/// Longest reason kept, in characters.
const REASON_CHARACTERS: usize = 64;

/// Whose form the metadata have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// Our own: `GET /walras/v1/notice`, 404 while there is none.
    Walras,
    /// Amazon's: the action that an instance is scheduled for, 404 while there is none.
    Aws,
    /// Microsoft's scheduled events.
    Azure,
    /// Google's: whether the instance was pre-empted.
    Gcp,
}

/// A request to the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// `GET`, `PUT` or `POST`.
    pub method: &'static str,
    /// Path and query.
    pub path: &'static str,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body, empty for none.
    pub body: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// When the server will be gone.
    pub when: When,
    /// Why, in the provider's words.
    pub reason: String,
    /// By what name the provider is told that the server may go at once.
    pub event: Option<String>,
}

/// Why an answer is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Another status than the form has.
    #[error("metadata answer with status {0}")]
    Status(u16),
    /// Not the form.
    #[error("metadata: {field} cannot be read: {value:?}")]
    Field {
        /// Which field, or `body`.
        field: &'static str,
        /// What it holds, shortened.
        value: String,
    },
}

fn field(field: &'static str, value: &str) -> MetadataError {
    MetadataError::Field { field, value: short(value) }
}

fn short(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(REASON_CHARACTERS).collect()
}

impl Provider {
    /// Where the provider's own servers have the metadata.
    pub const fn address(self) -> &'static str {
        match self {
            Provider::Gcp => "metadata.google.internal:80",
            Provider::Walras | Provider::Aws | Provider::Azure => "169.254.169.254:80",
        }
    }

    /// The request for a session, where the provider wants one: its answer is the token of the others.
    pub fn session(self) -> Option<Ask> {
        let headers = vec![("x-aws-ec2-metadata-token-ttl-seconds", "21600".to_owned())];
        let ask = Ask { method: "PUT", path: "/latest/api/token", headers, body: String::new() };
        (self == Provider::Aws).then_some(ask)
    }

    /// The question.
    pub fn ask(self, token: Option<&str>) -> Ask {
        let (path, headers) = match self {
            Provider::Walras => ("/walras/v1/notice", Vec::new()),
            Provider::Aws => {
                let token = token.map(|token| ("x-aws-ec2-metadata-token", token.to_owned()));
                ("/latest/meta-data/spot/instance-action", token.into_iter().collect())
            }
            Provider::Azure => {
                ("/metadata/scheduledevents?api-version=2020-07-01", vec![("metadata", "true".to_owned())])
            }
            Provider::Gcp => {
                ("/computeMetadata/v1/instance/preempted", vec![("metadata-flavor", "Google".to_owned())])
            }
        };
        Ask { method: "GET", path, headers, body: String::new() }
    }

    /// How the provider is told that the server may go at once, where it can be told.
    pub fn acknowledge(self, event: &str) -> Option<Ask> {
        match self {
            Provider::Walras => Some(Ask {
                method: "POST",
                path: "/walras/v1/notice/acknowledge",
                headers: Vec::new(),
                body: String::new(),
            }),
            Provider::Azure => Some(Ask {
                method: "POST",
                path: "/metadata/scheduledevents?api-version=2020-07-01",
                headers: vec![
                    ("metadata", "true".to_owned()),
                    ("content-type", "application/json".to_owned()),
                ],
                body: serde_json::json!({ "StartRequests": [{ "EventId": event }] }).to_string(),
            }),
            Provider::Aws | Provider::Gcp => None,
        }
    }

    /// Reads an answer: none while the server is to stay. `server` is the name that Azure's events call it by; empty
    /// for any.
    ///
    /// # Errors
    /// When it is no answer of this form: it says nothing then, neither yes nor no.
    pub fn read(self, status: u16, body: &str, server: &str) -> Result<Option<Found>, MetadataError> {
        match (self, status) {
            (Provider::Walras | Provider::Aws, 404) => Ok(None),
            (Provider::Walras, 200) => walras(body).map(Some),
            (Provider::Aws, 200) => aws(body).map(Some),
            (Provider::Azure, 200) => azure(body, server),
            (Provider::Gcp, 200) => gcp(body),
            _ => Err(MetadataError::Status(status)),
        }
    }
}

fn json<'a, T: Deserialize<'a>>(body: &'a str) -> Result<T, MetadataError> {
    serde_json::from_str(body).map_err(|_| field("body", body))
}

fn instant(name: &'static str, text: &str) -> Result<When, MetadataError> {
    text.parse().map(When::At).map_err(|_| field(name, text))
}

fn walras(body: &str) -> Result<Found, MetadataError> {
    #[derive(Deserialize)]
    struct Body {
        gone_at: String,
        #[serde(default)]
        reason: String,
    }
    let Body { gone_at, reason } = json(body)?;
    Ok(Found { when: instant("gone_at", &gone_at)?, reason: short(&reason), event: Some(String::new()) })
}

/// To hibernate and to stop is the end for a worker, too.
fn aws(body: &str) -> Result<Found, MetadataError> {
    #[derive(Deserialize)]
    struct Body {
        action: String,
        time: String,
    }
    let Body { action, time } = json(body)?;
    Ok(Found { when: instant("time", &time)?, reason: short(&action), event: None })
}

fn gcp(body: &str) -> Result<Option<Found>, MetadataError> {
    match body.trim() {
        "FALSE" => Ok(None),
        "TRUE" => {
            let reason = "preempted".to_owned();
            Ok(Some(Found { when: When::In(GOOGLE_NOTICE), reason, event: None }))
        }
        other => Err(field("body", other)),
    }
}

fn azure(body: &str, server: &str) -> Result<Option<Found>, MetadataError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Body {
        #[serde(default)]
        events: Vec<Event>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Event {
        event_id: String,
        event_type: String,
        #[serde(default)]
        resources: Vec<String>,
        #[serde(default)]
        not_before: String,
    }
    let Body { events } = json(body)?;
    let mut first: Option<Found> = None;
    for event in events {
        let concerns = server.is_empty()
            || event.resources.is_empty()
            || event.resources.iter().any(|name| name == server);
        if !concerns || !matches!(event.event_type.as_str(), "Preempt" | "Terminate") {
            continue;
        }
        // An event that has started names no instant any more.
        let when = match event.not_before.as_str() {
            "" => When::In(STARTED),
            text => http_date(text).map_or_else(|| instant("NotBefore", text), |at| Ok(When::At(at)))?,
        };
        let earlier = |found: &Found| match (when, found.when) {
            (When::At(this), When::At(that)) => this < that,
            (When::In(_), When::At(_)) => true,
            (_, When::In(_)) => false,
        };
        if first.as_ref().is_none_or(earlier) {
            first = Some(Found { when, reason: short(&event.event_type), event: Some(event.event_id) });
        }
    }
    Ok(first)
}

/// An instant as HTTP writes it, `Mon, 19 Sep 2016 18:29:47 GMT` (RFC 9110, section 5.6.7).
fn http_date(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u8 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let (year, clock) = (words.next()?.parse::<u16>().ok()?, words.next()?);
    if words.next() != Some("GMT") || words.next().is_some() {
        return None;
    }
    format!("{year:04}-{month:02}-{day:02}T{clock}Z").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> When {
        When::At(text.parse().expect("an instant"))
    }

    fn found(when: When, reason: &str, event: Option<&str>) -> Found {
        Found { when, reason: reason.into(), event: event.map(str::to_owned) }
    }

    #[test]
    fn each_form_is_read() {
        let azure = |kind: &str, name: &str, not_before: &str| {
            format!(
                r#"{{"DocumentIncarnation":1,"Events":[{{"EventId":"e1","EventType":"{kind}","ResourceType":"VirtualMachine","Resources":["{name}"],"EventStatus":"Scheduled","NotBefore":"{not_before}"}}]}}"#
            )
        };
        let soon = "Mon, 19 Sep 2016 18:29:47 GMT";
        for (provider, status, body, expected) in [
            (Provider::Walras, 404, String::new(), None),
            (
                Provider::Walras,
                200,
                r#"{"gone_at":"2026-11-22T08:30:00Z","reason":"outbid"}"#.into(),
                Some(found(at("2026-11-22T08:30:00Z"), "outbid", Some(""))),
            ),
            (Provider::Aws, 404, "not found".into(), None),
            (
                Provider::Aws,
                200,
                r#"{"action":"terminate","time":"2017-09-18T08:22:00Z"}"#.into(),
                Some(found(at("2017-09-18T08:22:00Z"), "terminate", None)),
            ),
            (Provider::Gcp, 200, "FALSE".into(), None),
            (Provider::Gcp, 200, "TRUE\n".into(), Some(found(When::In(GOOGLE_NOTICE), "preempted", None))),
            (Provider::Azure, 200, r#"{"DocumentIncarnation":0,"Events":[]}"#.into(), None),
            (
                Provider::Azure,
                200,
                azure("Preempt", "vm0", soon),
                Some(found(at("2016-09-19T18:29:47Z"), "Preempt", Some("e1"))),
            ),
            (Provider::Azure, 200, azure("Preempt", "vm1", soon), None),
            (Provider::Azure, 200, azure("Freeze", "vm0", soon), None),
            (
                Provider::Azure,
                200,
                azure("Preempt", "vm0", ""),
                Some(found(When::In(STARTED), "Preempt", Some("e1"))),
            ),
        ] {
            assert_eq!(provider.read(status, &body, "vm0"), Ok(expected), "{provider:?} {body}");
        }
    }

    #[test]
    fn what_has_another_form_says_nothing() {
        for (provider, status, body) in [
            (Provider::Walras, 200, "{}"),
            (Provider::Walras, 200, r#"{"gone_at":"soon"}"#),
            (Provider::Walras, 500, ""),
            (Provider::Aws, 200, "<html>"),
            (Provider::Aws, 401, ""),
            (Provider::Aws, 200, r#"{"action":"terminate","time":"x"}"#),
            (Provider::Gcp, 200, "maybe"),
            (Provider::Gcp, 404, ""),
            (
                Provider::Azure,
                200,
                r#"{"Events":[{"EventId":"e","EventType":"Preempt","NotBefore":"Mon, 99 Sep 2016 18:29:47 GMT"}]}"#,
            ),
        ] {
            assert!(provider.read(status, body, "").is_err(), "{provider:?} {body}");
        }
    }

    #[test]
    fn of_several_events_the_first_counts() {
        let event = |id: &str, not_before: &str| {
            format!(r#"{{"EventId":"{id}","EventType":"Preempt","NotBefore":"{not_before}"}}"#)
        };
        let (late, soon) = ("Mon, 19 Sep 2016 18:29:47 GMT", "2016-09-19T18:00:00Z");
        for (events, first) in [
            (vec![event("a", late), event("b", soon)], "b"),
            (vec![event("a", soon), event("b", late)], "a"),
            (vec![event("a", soon), event("b", ""), event("c", "")], "b"),
        ] {
            let body = format!(r#"{{"Events":[{}]}}"#, events.join(","));
            let found = Provider::Azure.read(200, &body, "anything").expect("events").expect("an event");
            assert_eq!(found.event.as_deref(), Some(first));
        }
    }

    #[test]
    fn only_some_can_be_told() {
        assert!(Provider::Aws.acknowledge("e").is_none() && Provider::Gcp.acknowledge("e").is_none());
        let azure = Provider::Azure.acknowledge("e\"1").expect("a request");
        assert_eq!(azure.body, r#"{"StartRequests":[{"EventId":"e\"1"}]}"#);
        assert_eq!(Provider::Walras.acknowledge("").expect("a request").method, "POST");
        let ask = Provider::Aws.ask(Some("t"));
        assert_eq!(ask.headers, [("x-aws-ec2-metadata-token", "t".to_owned())]);
        assert!(Provider::Aws.session().is_some() && Provider::Gcp.session().is_none());
    }
}
