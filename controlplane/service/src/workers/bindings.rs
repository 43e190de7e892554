//! Which key redeemed which lease, remembered in the management cluster: a `ConfigMap` in the tenant's namespace, where
//! the tenant has no rights. That its name is taken once, whoever asks, is what binds a lease to one key.

use controlplane::workers::Holder;
use controlplane::{MANAGED_BY, namespace_name};
use kube::Client;
use proto::worker::{Bound, WorkerId};
use serde_json::{Value, json};

use super::ask::{AskError, ask, text};

/// The label of these objects, and its value.
const LABEL: (&str, &str) = ("walras.dev/worker", "joined");
/// Objects of a list that are asked for at once.
const PAGE_OBJECTS: u32 = 500;
/// Pages at most: more workers than any site has.
const PAGES_MAX: usize = 1_000;

/// What is remembered of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub(crate) worker: WorkerId,
    pub(crate) bound: Bound,
    pub(crate) holder: Holder,
}

fn path(holder: &Holder, worker: &WorkerId) -> String {
    let namespace = namespace_name(&holder.tenant);
    format!("/api/v1/namespaces/{namespace}/configmaps/worker-{worker}")
}

fn read(object: &Value) -> Option<Binding> {
    let field = |name: &str| text(object, &format!("/data/{name}")).to_owned();
    Some(Binding {
        worker: field("worker").parse().ok()?,
        bound: Bound { generation: field("generation").parse().ok()?, fingerprint: field("fingerprint") },
        holder: Holder {
            tenant: field("tenant").parse().ok()?,
            cluster: field("cluster").parse().ok()?,
            pool: None,
            market: None,
        },
    })
}

/// Everything that is remembered.
///
/// # Errors
/// [`AskError`].
pub(crate) async fn list(client: &Client) -> Result<Vec<Binding>, AskError> {
    let (mut found, mut next) = (Vec::new(), String::new());
    for _ in 0..PAGES_MAX {
        let (name, value) = (LABEL.0.replace('/', "%2F"), LABEL.1);
        let mut path = format!("/api/v1/configmaps?labelSelector={name}%3D{value}&limit={PAGE_OBJECTS}");
        if !next.is_empty() {
            path = format!("{path}&continue={next}");
        }
        let page = ask(client, "GET", &path, None).await?.unwrap_or_default();
        for object in page["items"].as_array().into_iter().flatten() {
            if let Some(binding) = read(object) {
                found.push(binding);
            } else {
                let name = text(object, "/metadata/name");
                tracing::warn!(name, "what is remembered of a worker cannot be read, and is passed over");
            }
        }
        text(&page, "/metadata/continue").clone_into(&mut next);
        if next.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// What is remembered of a worker of this holder.
///
/// # Errors
/// [`AskError`].
pub(crate) async fn find(
    client: &Client,
    holder: &Holder,
    worker: &WorkerId,
) -> Result<Option<Bound>, AskError> {
    let object = ask(client, "GET", &path(holder, worker), None).await?;
    Ok(object.as_ref().and_then(read).map(|binding| binding.bound))
}

/// Remembers who redeemed; false if another was remembered first.
///
/// # Errors
/// [`AskError`]; then it may be remembered or not.
pub(crate) async fn keep(
    client: &Client,
    holder: &Holder,
    worker: &WorkerId,
    bound: &Bound,
) -> Result<bool, AskError> {
    let namespace = namespace_name(&holder.tenant);
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {
            "name": format!("worker-{worker}"), "namespace": namespace,
            "labels": { LABEL.0: LABEL.1, MANAGED_BY.0: MANAGED_BY.1 },
        },
        "data": {
            "worker": worker, "generation": bound.generation.to_string(), "fingerprint": bound.fingerprint,
            "tenant": holder.tenant, "cluster": holder.cluster,
        },
    });
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    match ask(client, "POST", &path, Some(&object)).await {
        Ok(made) => Ok(made.is_some()),
        Err(error) if error.code() == Some(409) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Remembers nothing more.
///
/// # Errors
/// [`AskError`].
pub(crate) async fn forget(client: &Client, holder: &Holder, worker: &WorkerId) -> Result<(), AskError> {
    ask(client, "DELETE", &path(holder, worker), None).await.map(drop)
}
