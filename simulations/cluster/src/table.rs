//! Objects as rows of a table, for people.

use proto::Timestamp;
use serde_json::{Value, json};

use crate::json::{at, items, members, number, text};
use crate::kind::Kind;

/// A column: its heading, its priority (above 0 only when wide output is asked for), and what stands in it.
#[derive(Debug)]
pub struct Column(pub &'static str, pub u8, pub Cell);

/// What stands in a column.
#[derive(Debug)]
pub enum Cell {
    /// The value at a path.
    Path(&'static str),
    /// The number at a path, 0 if there is none.
    Number(&'static str),
    /// How many members or items stand at a path.
    Count(&'static str),
    /// Two numbers with a slash between.
    Of(&'static str, &'static str),
    /// How long ago the instant at a path was.
    Since(&'static str),
    /// Something made of several fields.
    Made(fn(&Value) -> String),
}

pub(crate) const NODE: &[Column] = &[
    Column("Status", 0, Cell::Made(node_status)),
    Column("Roles", 0, Cell::Made(|_| "<none>".to_owned())),
    Column("Version", 0, Cell::Path("status.nodeInfo.kubeletVersion")),
];
pub(crate) const POD: &[Column] = &[
    Column("Ready", 0, Cell::Made(pod_ready)),
    Column("Status", 0, Cell::Made(pod_status)),
    Column("Restarts", 0, Cell::Made(|_| "0".to_owned())),
    Column("IP", 1, Cell::Path("status.podIP")),
    Column("Node", 1, Cell::Path("spec.nodeName")),
];
pub(crate) const SERVICE: &[Column] = &[
    Column("Type", 0, Cell::Path("spec.type")),
    Column("Cluster-IP", 0, Cell::Path("spec.clusterIP")),
    Column("External-IP", 0, Cell::Made(external)),
    Column("Port(s)", 0, Cell::Made(ports)),
];
pub(crate) const EVENT: &[Column] = &[
    Column("Last Seen", 0, Cell::Since("lastTimestamp")),
    Column("Type", 0, Cell::Path("type")),
    Column("Reason", 0, Cell::Path("reason")),
    Column(
        "Object",
        0,
        Cell::Made(|event| {
            format!(
                "{}/{}",
                text(event, "involvedObject.kind").to_lowercase(),
                text(event, "involvedObject.name")
            )
        }),
    ),
    Column("Message", 0, Cell::Path("message")),
];
pub(crate) const DEPLOYMENT: &[Column] = &[
    Column("Ready", 0, Cell::Of("status.readyReplicas", "spec.replicas")),
    Column("Up-to-date", 0, Cell::Number("status.updatedReplicas")),
    Column("Available", 0, Cell::Number("status.availableReplicas")),
];
pub(crate) const REPLICA_SET: &[Column] = &[
    Column("Desired", 0, Cell::Number("spec.replicas")),
    Column("Current", 0, Cell::Number("status.replicas")),
    Column("Ready", 0, Cell::Number("status.readyReplicas")),
];
pub(crate) const BUDGET: &[Column] = &[
    Column("Min Available", 0, Cell::Path("spec.minAvailable")),
    Column("Max Unavailable", 0, Cell::Path("spec.maxUnavailable")),
    Column("Allowed Disruptions", 0, Cell::Number("status.disruptionsAllowed")),
];
pub(crate) const SIGNING: &[Column] = &[
    Column("SignerName", 0, Cell::Path("spec.signerName")),
    Column("Requestor", 0, Cell::Path("spec.username")),
    Column(
        "Condition",
        0,
        Cell::Made(|request| {
            let types: Vec<_> =
                items(request, "status.conditions").iter().map(|one| text(one, "type")).collect();
            if types.is_empty() { "Pending".to_owned() } else { types.join(",") }
        }),
    ),
];
pub(crate) const PLANE: &[Column] = &[
    Column("Version", 0, Cell::Path("spec.kubernetes.version")),
    Column("Installed Version", 0, Cell::Path("status.kubernetesResources.version.version")),
    Column("Status", 0, Cell::Path("status.kubernetesResources.version.status")),
    Column("Control-Plane endpoint", 0, Cell::Path("status.controlPlaneEndpoint")),
    Column("Kubeconfig", 0, Cell::Path("status.kubeconfig.admin.secretName")),
    Column("Datastore", 0, Cell::Path("status.storage.dataStoreName")),
];

fn node_status(node: &Value) -> String {
    let ready = items(node, "status.conditions").iter().find(|one| text(one, "type") == "Ready");
    let ready = ready.is_some_and(|one| text(one, "status") == "True");
    let cordoned = at(node, "spec.unschedulable").as_bool().unwrap_or_default();
    format!(
        "{}{}",
        if ready { "Ready" } else { "NotReady" },
        if cordoned { ",SchedulingDisabled" } else { "" }
    )
}

fn pod_ready(pod: &Value) -> String {
    let containers = items(pod, "status.containerStatuses");
    let ready = containers.iter().filter(|one| one["ready"] == true).count();
    format!("{ready}/{}", items(pod, "spec.containers").len())
}

fn pod_status(pod: &Value) -> String {
    if !at(pod, "metadata.deletionTimestamp").is_null() {
        return "Terminating".to_owned();
    }
    let scheduled = items(pod, "status.conditions").iter().find(|one| text(one, "type") == "PodScheduled");
    match scheduled.map(|one| text(one, "reason")) {
        Some("SchedulingGated") => "SchedulingGated".to_owned(),
        _ if text(pod, "status.phase") == "Pending" && !text(pod, "spec.nodeName").is_empty() => {
            "ContainerCreating".to_owned()
        }
        _ => text(pod, "status.phase").to_owned(),
    }
}

fn external(service: &Value) -> String {
    let addresses = items(service, "status.loadBalancer.ingress");
    let written: Vec<_> = addresses.iter().map(|address| text(address, "ip")).collect();
    match (text(service, "spec.type"), written.is_empty()) {
        ("LoadBalancer", true) => "<pending>".to_owned(),
        (_, true) => "<none>".to_owned(),
        _ => written.join(","),
    }
}

fn ports(service: &Value) -> String {
    let written = items(service, "spec.ports").iter();
    let written: Vec<_> =
        written.map(|port| format!("{}/{}", number(port, "port"), text(port, "protocol"))).collect();
    written.join(",")
}

/// The largest two units of a span of time, as the command line shows ages.
fn ago(now: Timestamp, since: &str) -> String {
    let Ok(since) = since.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    let seconds = (now.micros_since(since) / 1_000_000).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn cell(object: &Value, cell: &Cell, now: Timestamp) -> Value {
    match cell {
        Cell::Path(path) => match at(object, path) {
            Value::Null => "<none>".into(),
            plain @ (Value::String(_) | Value::Number(_)) => plain.clone(),
            other => other.to_string().into(),
        },
        Cell::Count(path) => match at(object, path) {
            Value::Object(members) => members.len().into(),
            Value::Array(items) => items.len().into(),
            _ => 0.into(),
        },
        Cell::Number(path) => number(object, path).into(),
        Cell::Of(part, whole) => format!("{}/{}", number(object, part), number(object, whole)).into(),
        Cell::Since(path) => ago(now, text(object, path)).into(),
        Cell::Made(make) => make(object).into(),
    }
}

fn columns(kind: &Kind) -> impl Iterator<Item = &Column> {
    static NAME: Column = Column("Name", 0, Cell::Path("metadata.name"));
    static AGE: Column = Column("Age", 0, Cell::Since("metadata.creationTimestamp"));
    let age = (kind.plural != "events").then_some(&AGE);
    std::iter::once(&NAME).chain(kind.columns).chain(age)
}

/// The objects as a table. `whole` puts the whole objects beside the cells, else only their metadata stands there.
pub(crate) fn table<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    metadata: &Value,
    whole: bool,
    now: Timestamp,
) -> Value {
    let definitions = columns(kind).map(|Column(name, priority, cell)| {
        let format = if *name == "Name" { "name" } else { "" };
        let values = if matches!(cell, Cell::Count(_) | Cell::Number(_)) { "integer" } else { "string" };
        json!({ "name": name, "type": values, "format": format, "priority": priority, "description": name })
    });
    let rows = objects.into_iter().map(|object| {
        let cells: Vec<_> = columns(kind).map(|column| cell(object, &column.2, now)).collect();
        json!({ "cells": cells, "object": if whole { object.clone() } else { only_metadata(object) } })
    });
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": definitions.collect::<Vec<_>>(), "rows": rows.collect::<Vec<_>>(),
    })
}

/// An object without what is desired and observed of it.
pub(crate) fn only_metadata(object: &Value) -> Value {
    json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] })
}

/// Texts at a path, as `a=b,c=d`.
pub(crate) fn pairs(object: &Value, path: &str) -> String {
    members(object, path).map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}
