//! Pods that are held until their host is known, and pods that wait for a host where they can no longer go.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::tenants::Place;
use super::{GATE_SECONDS_MAX, Note, Plan, Reason};
use crate::change::Change;
use crate::host::Host;
use crate::kind::Kind;
use crate::observed::Pod;

/// The pods of a plane that stay.
pub(super) fn of_plane<'a>(place: &Place<'a>, name: &'a str) -> impl Iterator<Item = (&'a str, &'a Pod)> {
    place.observed.pods_in(place.namespace).filter(move |(_, pod)| pod.plane == name && !pod.deleting)
}

/// Whether pods of a plane are there, ending ones as well.
pub(super) fn any_left(place: &Place<'_>, name: &str) -> bool {
    place.observed.pods_in(place.namespace).any(|(_, pod)| pod.plane == name)
}

/// Sends held pods on: of each template one to each host. A pod that is tied to a host where it cannot go, or not any
/// more, ends, so that another is made.
pub(super) fn place_held(
    place: &Place<'_>,
    plane: &str,
    hosts: &[String],
    pods: &[(&str, &Pod)],
    plan: &mut Plan,
    notes: &mut Vec<Note>,
) {
    let takes_pods = |host: &String| place.observed.host(host).is_some_and(Host::takes_pods);
    let unfit: Vec<&str> = hosts.iter().filter(|host| !takes_pods(host)).map(String::as_str).collect();
    let mut templates: BTreeMap<&str, Vec<(&str, &Pod)>> = BTreeMap::new();
    for (name, pod) in pods {
        templates.entry(&pod.template).or_default().push((name, pod));
    }
    for mut pods in templates.into_values() {
        pods.sort_by_key(|(name, pod)| (pod.created_at, *name));
        let mut taken: BTreeSet<&String> = pods.iter().filter_map(|(_, pod)| pod.host.as_ref()).collect();
        for (name, pod) in pods.iter().filter(|(_, pod)| pod.host.is_none() && pod.gate.is_none()) {
            let Some(host) = &pod.pinned else { continue };
            // Two may have been tied to one host by somebody who saw the first too late.
            if !(hosts.contains(host) && takes_pods(host) && taken.insert(host)) {
                let (namespace, name, uid) =
                    (place.namespace.to_owned(), (*name).to_owned(), pod.uid.clone());
                // It may have been bound meanwhile: then it stays.
                let on_version = Some(pod.version);
                plan.changes.push(Change::Delete { kind: Kind::Pod, namespace, name, uid, on_version });
            }
        }
        let mut free = hosts.iter().filter(|host| !taken.contains(host) && takes_pods(host));
        for (name, pod) in pods.iter().filter(|(_, pod)| pod.gate.is_some()) {
            match free.next() {
                Some(host) => release(place, name, pod, Some(host), plan),
                None => release_late(place, name, pod, plan),
            }
        }
    }
    if !unfit.is_empty() && pods.iter().any(|(_, pod)| pod.gate.is_some()) {
        let message = format!("{} take no pods, where replicas of {plane} are to be", unfit.join(", "));
        notes.push(Note { reason: Reason::HostUnfit, message });
    }
}

/// Sends on, after their time, pods that are held for planes of which nothing is known.
pub(super) fn let_go(place: &Place<'_>, known: &BTreeSet<String>, plan: &mut Plan) {
    for (name, pod) in place.observed.pods_in(place.namespace) {
        if !pod.deleting && !known.contains(&pod.plane) {
            release_late(place, name, pod, plan);
        }
    }
}

fn release_late(place: &Place<'_>, name: &str, pod: &Pod, plan: &mut Plan) {
    let late = pod.created_at.plus_seconds(GATE_SECONDS_MAX);
    if pod.gate.is_some() && late > place.now {
        plan.wake(late);
    } else {
        release(place, name, pod, None, plan);
    }
}

fn release(place: &Place<'_>, name: &str, pod: &Pod, host: Option<&str>, plan: &mut Plan) {
    if let Some(gate) = pod.gate {
        let to = host.map(|host| (host.to_owned(), narrowed(&pod.affinity, host)));
        let (namespace, name, uid) = (place.namespace.to_owned(), name.to_owned(), pod.uid.clone());
        plan.changes.push(Change::Release { namespace, name, uid, gate, to });
    }
}

/// An affinity that in each of its terms also wants one host. Terms are alternatives, so that each needs it; of a pod
/// that is held, an affinity may only become narrower.
fn narrowed(affinity: &Value, host: &str) -> Value {
    let field = json!({ "key": "metadata.name", "operator": "In", "values": [host] });
    let mut narrowed = if affinity.is_object() { affinity.clone() } else { json!({}) };
    let required = &mut narrowed["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    if required["nodeSelectorTerms"].as_array().is_none_or(Vec::is_empty) {
        required["nodeSelectorTerms"] = json!([{}]);
    }
    for term in required["nodeSelectorTerms"].as_array_mut().into_iter().flatten() {
        match term["matchFields"].as_array_mut() {
            Some(fields) => fields.push(field.clone()),
            None => term["matchFields"] = json!([field]),
        }
    }
    narrowed
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::narrowed;

    #[test]
    fn every_alternative_is_tied_to_the_host() {
        let field = json!({ "key": "metadata.name", "operator": "In", "values": ["h"] });
        let terms = |terms: Value| json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } });
        assert_eq!(narrowed(&Value::Null, "h"), terms(json!([{ "matchFields": [field] }])));
        let label = json!({ "key": "pool", "operator": "Exists" });
        let before = terms(json!([{ "matchExpressions": [label] }, { "matchFields": [{ "key": "x" }] }]));
        let after = terms(json!([
            { "matchExpressions": [label], "matchFields": [field] },
            { "matchFields": [{ "key": "x" }, field] }
        ]));
        assert_eq!(narrowed(&before, "h"), after);
        let apart = json!({ "podAntiAffinity": { "a": 1 } });
        assert_eq!(narrowed(&apart, "h")["podAntiAffinity"], apart["podAntiAffinity"]);
    }
}
