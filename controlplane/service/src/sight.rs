//! What is seen of the management cluster: one watch for each kind.

use std::collections::BTreeSet;
use std::pin::pin;

use controlplane::Kind;
use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use prometheus::IntCounter;
use serde_json::Value;
use tokio::sync::mpsc;

/// Something that was seen.
#[derive(Debug)]
pub(crate) enum Sight {
    /// An object is there, or is otherwise.
    There(Kind, Value),
    /// An object is gone, as of a version: namespace, name, version.
    Gone(Kind, String, String, u64),
    /// Of a kind there are these and no others.
    Only(Kind, BTreeSet<(String, String)>),
}

/// Objects of a list that are asked for at once.
const PAGE_OBJECTS: u32 = 500;

/// Follows all objects of a kind, through broken watches and forgotten versions, as long as somebody listens. A kind
/// that the cluster does not have, if it may do without, has no objects.
pub(crate) async fn follow(client: Client, kind: Kind, sights: mpsc::Sender<Sight>, failures: IntCounter) {
    let (group, version, name, plural) = kind.names();
    let resource = ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: kind.api_version(),
        kind: name.to_owned(),
        plural: plural.to_owned(),
    };
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    if kind.is_optional() {
        match api.list(&ListParams::default().limit(1)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {
                // Nobody listens any more if this fails.
                let _told = sights.send(Sight::Only(kind, BTreeSet::new())).await;
                return;
            }
            // Everything else the watch meets as well, and tries again.
            _ => {}
        }
    }
    let config = watcher::Config::default().labels(kind.selector()).page_size(PAGE_OBJECTS);
    let mut events = pin!(watcher(api, config).default_backoff());
    let mut listed = BTreeSet::new();
    while let Some(event) = events.next().await {
        let sight = match event {
            Ok(watcher::Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(watcher::Event::InitApply(object)) => {
                listed.insert(name_of(&object));
                there(kind, object)
            }
            Ok(watcher::Event::InitDone) => Some(Sight::Only(kind, std::mem::take(&mut listed))),
            Ok(watcher::Event::Apply(object)) => there(kind, object),
            Ok(watcher::Event::Delete(object)) => {
                let (namespace, name) = name_of(&object);
                // Versions of one API server are numbers; of one that says otherwise nothing is taken in at all.
                let version = object.resource_version().and_then(|version| version.parse().ok());
                Some(Sight::Gone(kind, namespace, name, version.unwrap_or_default()))
            }
            Err(error) => {
                failures.inc();
                tracing::debug!(%error, plural, "watch begins again");
                None
            }
        };
        if let Some(sight) = sight
            && sights.send(sight).await.is_err()
        {
            return;
        }
    }
}

fn name_of(object: &DynamicObject) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

fn there(kind: Kind, object: DynamicObject) -> Option<Sight> {
    match serde_json::to_value(object) {
        Ok(object) => Some(Sight::There(kind, object)),
        Err(error) => {
            tracing::warn!(%error, plural = kind.names().3, "an object cannot be read");
            None
        }
    }
}
