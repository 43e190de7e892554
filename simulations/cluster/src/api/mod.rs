//! The API: requests to answers.

mod parts;
mod read;
mod remove;
mod write;

use crate::fault::Harm;
use crate::kind::Part;
use crate::request::{Query, Request, Target, target};
use crate::status::Refusal;
use crate::watch::Watch;
use crate::{Answer, Body, Cluster, discovery};

/// The largest body taken, in bytes; etcd's own limit on a request is 1.5 MiB.
const BODY_BYTES_MAX: usize = 3 << 20;

/// Longest name that an object may have.
pub(crate) const NAME_BYTES_MAX: usize = 253;

impl Cluster {
    /// Answers a request.
    pub(crate) fn answer(&mut self, request: &Request) -> Result<Answer, Refusal> {
        let steps = request.steps();
        let names: Vec<&str> = steps.iter().map(String::as_str).collect();
        let target = match names[..] {
            ["api", "v1", "namespaces", namespace, "pods", pod, "proxy", "metrics"] => {
                let named = pod.strip_prefix("https:").and_then(|rest| rest.strip_suffix(":10257"));
                let shown = named.and_then(|pod| self.controller_metrics(namespace, pod));
                return shown.ok_or_else(|| {
                    let why = format!("nothing answers at {pod}");
                    Refusal::new(503, "ServiceUnavailable", why)
                });
            }
            ["api", version, _, ..] => target("", version, &steps[2..])?,
            ["apis", group, version, _, ..] => target(group, version, &steps[3..])?,
            _ if request.method == "GET" => {
                return discovery::answer(&names).map(|body| Answer::json(200, body));
            }
            _ => {
                return Err(Refusal::new(
                    404,
                    "NotFound",
                    "the server could not find the requested resource",
                ));
            }
        };
        if request.body.len() > BODY_BYTES_MAX {
            let why =
                format!("the body has {} bytes; at most {BODY_BYTES_MAX} are taken", request.body.len());
            return Err(Refusal::new(413, "RequestEntityTooLarge", why));
        }
        let query = Query::parse(&request.query);
        let verb = verb(request, &query, &target)?;
        let mut delay_micros = 0;
        let mut lost = false;
        let mut stale = 0;
        for harm in self.faults.draw(target.kind.plural, verb) {
            match harm {
                Harm::Refuse(code) => return Err(injected(code)),
                Harm::Delay(micros) => delay_micros += u64::from(micros),
                Harm::Stale(versions) => stale = versions,
                Harm::LoseAnswer => lost = true,
                Harm::Expire => return Err(Refusal::expired(0, self.store.oldest())),
                // It happens when the watch has something to tell.
                Harm::DropWatch => {}
            }
        }
        let mut answer = self.carry_out(verb, &target, &query, request, stale)?;
        answer.delay_micros = delay_micros;
        answer.lost = lost;
        Ok(answer)
    }

    fn carry_out(
        &mut self,
        verb: &str,
        target: &Target,
        query: &Query,
        request: &Request,
        stale: u64,
    ) -> Result<Answer, Refusal> {
        let format = request.format(query);
        match (verb, target.part) {
            ("watch", _) => {
                let mut watch = Watch::new(&self.store, target.clone(), query, request, self.now)?;
                watch.generation = self.watch_generation;
                Ok(Answer {
                    body: Body::Watch(Box::new(watch)),
                    ..Answer::json(200, serde_json::Value::Null)
                })
            }
            ("get", Some(Part::Scale(..))) => Ok(Answer::json(200, self.scale(target)?)),
            ("get", _) => self.get_one(target, stale, format).map(|body| Answer::json(200, body)),
            ("list", _) => self.list(target, query, stale, format).map(|body| Answer::json(200, body)),
            ("create", Some(Part::Binding)) => self.bind(target, &request.json()?),
            ("create", None) => self.create(target, query, request),
            ("create", Some(Part::Token)) => self.token(target, &request.json()?),
            ("evict", _) => self.evict(target, query, &request.json()?),
            ("update" | "patch" | "apply", Some(Part::Scale(desired, ..))) => {
                self.write_scale(verb, target, query, request, desired)
            }
            ("update", _) => self.update(target, query, request),
            ("patch" | "apply", _) => self.patch(target, query, request),
            ("delete", None) => self.delete_one(target, query, request),
            ("deletecollection", None) => self.delete_many(target, query, request),
            _ => Err(not_allowed()),
        }
    }
}

fn verb(request: &Request, query: &Query, target: &Target) -> Result<&'static str, Refusal> {
    let one = !target.name.is_empty();
    Ok(match (request.method.as_str(), one) {
        ("GET", _) if query.truth("watch") => "watch",
        ("GET", true) => "get",
        ("GET", false) => "list",
        ("POST", true) if target.part == Some(Part::Eviction) => "evict",
        ("POST", _) if !one || matches!(target.part, Some(Part::Binding | Part::Token)) => "create",
        ("PUT", true) => "update",
        ("PATCH", true) if request.content_type.starts_with("application/apply-patch") => "apply",
        ("PATCH", true) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => return Err(not_allowed()),
    })
}

fn not_allowed() -> Refusal {
    Refusal::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
}

fn injected(code: u16) -> Refusal {
    let (reason, message) = match code {
        429 => ("TooManyRequests", "too many requests, please try again later"),
        409 => ("Conflict", "the object has been modified; please apply your changes to the latest version"),
        503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
        504 => ("Timeout", "the server was unable to return a response in the time allotted"),
        _ => ("InternalError", "an internal error was injected"),
    };
    let mut refusal = Refusal::new(code, reason, message);
    if code == 429 {
        refusal.details = serde_json::json!({ "retryAfterSeconds": 1 });
    }
    refusal
}
