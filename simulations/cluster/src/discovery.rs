//! What the server says of itself: version, groups, resources, and as much of an `OpenAPI` document as clients need to
//! find that the server validates fields and takes which patches.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::kind::{KINDS, Kind, Part};
use crate::status::Refusal;

/// The version of Kubernetes that this behaves as, major, minor and patch.
pub(crate) const VERSION: (u32, u32, u32) = (1, 36, 2);

/// Answers a path outside of the resources.
pub(crate) fn answer(names: &[&str]) -> Result<Value, Refusal> {
    match *names {
        ["version"] => {
            let (major, minor, patch) = VERSION;
            Ok(json!({ "major": major.to_string(), "minor": minor.to_string(),
                "gitVersion": format!("v{major}.{minor}.{patch}"), "platform": "linux/amd64" }))
        }
        ["api"] => Ok(json!({ "kind": "APIVersions", "versions": ["v1"] })),
        ["apis"] => {
            let groups: Vec<_> =
                groups().into_keys().filter(|(group, _)| !group.is_empty()).map(group).collect();
            Ok(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["api", version] => resources("", version),
        ["apis", group, version] => resources(group, version),
        ["apis", named] => groups()
            .into_keys()
            .find(|(group, _)| *group == named)
            .map(|found| {
                let mut object = group(found);
                object["kind"] = "APIGroup".into();
                object["apiVersion"] = "v1".into();
                object
            })
            .ok_or_else(nothing),
        ["openapi", "v3"] => {
            let paths = groups().into_keys().map(|(group, version)| {
                let path = path(group, version);
                let url = json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash=1") });
                (path, url)
            });
            Ok(json!({ "paths": paths.collect::<Map<_, _>>() }))
        }
        ["openapi", "v3", "api", version] => schema("", version),
        ["openapi", "v3", "apis", group, version] => schema(group, version),
        ["livez" | "readyz" | "healthz", ..] => Ok("ok".into()),
        [] => Ok(json!({ "paths": ["/api", "/apis", "/livez", "/openapi/v3", "/readyz", "/version"] })),
        _ => Err(nothing()),
    }
}

fn nothing() -> Refusal {
    Refusal::new(404, "NotFound", "the server could not find the requested resource")
}

fn groups() -> BTreeMap<(&'static str, &'static str), Vec<&'static Kind>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for kind in KINDS {
        groups.entry((kind.group, kind.version)).or_default().push(kind);
    }
    groups
}

fn path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn group((group, version): (&str, &str)) -> Value {
    let one = json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    json!({ "name": group, "versions": [one], "preferredVersion": one })
}

fn of(group: &str, version: &str) -> Result<Vec<&'static Kind>, Refusal> {
    groups().remove(&(group, version)).ok_or_else(nothing)
}

fn resources(group: &str, version: &str) -> Result<Value, Refusal> {
    let mut resources = Vec::new();
    let kinds = of(group, version)?;
    for kind in &kinds {
        resources.push(json!({
            "name": kind.plural, "singularName": kind.kind.to_lowercase(), "namespaced": kind.namespaced,
            "kind": kind.kind, "shortNames": kind.short, "categories": kind.categories,
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }));
        for part in kind.parts {
            let (group, version, named, verbs): (_, _, _, &[&str]) = match part {
                Part::Scale(..) => ("autoscaling", "v1", "Scale", &["get", "patch", "update"]),
                Part::Eviction => ("policy", "v1", "Eviction", &["create"]),
                Part::Binding => ("", "v1", "Binding", &["create"]),
                Part::Token => ("authentication.k8s.io", "v1", "TokenRequest", &["create"]),
                Part::Finalize => (kind.group, kind.version, kind.kind, &["update"]),
                Part::Status | Part::Approval => {
                    (kind.group, kind.version, kind.kind, &["get", "patch", "update"])
                }
            };
            resources.push(json!({
                "name": format!("{}/{}", kind.plural, part.name()), "singularName": "",
                "namespaced": kind.namespaced, "group": group, "version": version, "kind": named, "verbs": verbs,
            }));
        }
    }
    let version = kinds.first().map(|kind| kind.api_version()).unwrap_or_default();
    Ok(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources }),
    )
}

/// Schemas without structure: the server takes any field, says so, and merges lists by its own table.
fn schema(group: &str, version: &str) -> Result<Value, Refusal> {
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for kind in of(group, version)? {
        let place = if kind.namespaced { "namespaces/{namespace}/" } else { "" };
        let url = format!("/{}/{place}{}/{{name}}", path(group, version), kind.plural);
        let marks = json!({ "group": group, "kind": kind.kind, "version": version });
        let parameters: Vec<_> = ["dryRun", "fieldManager", "fieldValidation", "force"]
            .iter()
            .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }))
            .collect();
        let content = json!({ "application/merge-patch+json": {}, "application/apply-patch+yaml": {} });
        let patch = json!({ "parameters": parameters, "requestBody": { "content": content }, "responses": {},
            "x-kubernetes-action": "patch", "x-kubernetes-group-version-kind": marks });
        paths.insert(url, json!({ "patch": patch }));
        let name = format!("{}.{version}.{}", if group.is_empty() { "core" } else { group }, kind.kind);
        let schema = json!({ "type": "object", "x-kubernetes-group-version-kind": [marks],
            "x-kubernetes-preserve-unknown-fields": true });
        schemas.insert(name, schema);
    }
    let info =
        json!({ "title": "Kubernetes", "version": format!("v{}.{}.{}", VERSION.0, VERSION.1, VERSION.2) });
    Ok(json!({ "openapi": "3.0.0", "info": info, "paths": paths, "components": { "schemas": schemas } }))
}
