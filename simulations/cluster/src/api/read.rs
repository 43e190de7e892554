//! Reading: one object, or a list in pieces that are all of one version.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::Cluster;
use crate::request::{Format, Query, Target};
use crate::status::Refusal;
use crate::store::Key;
use crate::table;

impl Cluster {
    pub(super) fn get_one(&self, target: &Target, stale: u64, format: Format) -> Result<Value, Refusal> {
        let key = target.key();
        let nothing = || Refusal::not_found(target.kind, &target.name);
        let object = if stale == 0 {
            self.store.get(&key).map(Arc::clone)
        } else {
            self.store.list_at(key.kind, Some(&key.namespace), self.stale_version(stale))?.remove(&key)
        };
        let object = object.ok_or_else(nothing)?;
        Ok(match format {
            Format::Objects => (*object).clone(),
            Format::Metadata => table::only_metadata(&object),
            Format::Table { whole } => {
                let metadata = json!({ "resourceVersion": object["metadata"]["resourceVersion"] });
                table::table(target.kind, [&*object], &metadata, whole, self.now)
            }
        })
    }

    fn stale_version(&self, stale: u64) -> u64 {
        self.store.version().saturating_sub(stale).max(self.store.oldest())
    }

    /// A list. Its pieces are all of the version that the first one was of; once that is forgotten, the next piece
    /// is refused with 410.
    pub(super) fn list(
        &self,
        target: &Target,
        query: &Query,
        stale: u64,
        format: Format,
    ) -> Result<Value, Refusal> {
        let (labels, fields) = query.selectors()?;
        let asked = query.number("resourceVersion")?.unwrap_or_default();
        if asked > self.store.version() {
            let why = format!("Too large resource version: {asked}, current: {}", self.store.version());
            let mut refusal = Refusal::new(504, "Timeout", why);
            refusal.details = json!({ "retryAfterSeconds": 1,
                "causes": [{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }] });
            return Err(refusal);
        }
        let exact = query.text("resourceVersionMatch") == "Exact";
        let (version, after) = match query.text("continue") {
            "" if exact && asked > 0 => (asked, None),
            "" if stale > 0 => (self.stale_version(stale), None),
            "" => (self.store.version(), None),
            token => read_token(token, target.kind.plural).map(|(version, key)| (version, Some(key)))?,
        };
        let namespace = target.namespace.as_deref();
        let past;
        let all: Box<dyn Iterator<Item = (&Key, &Arc<Value>)> + '_> = if version == self.store.version() {
            Box::new(self.store.list(target.kind.plural, namespace))
        } else {
            past = self.store.list_at(target.kind.plural, namespace, version)?;
            Box::new(past.iter())
        };
        let limit = query.number("limit")?.filter(|limit| *limit > 0).unwrap_or(u64::MAX) as usize;
        let mut rest = all
            .filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after))
            .filter(|(_, object)| labels.selects(object) && fields.selects_fields(object));
        let piece: Vec<_> = rest.by_ref().take(limit).collect();
        let mut metadata = json!({ "resourceVersion": version.to_string() });
        let left = rest.count();
        if let (Some((last, _)), true) = (piece.last(), left > 0) {
            metadata["continue"] = format!("{version}:{}:{}", last.namespace, last.name).into();
            if labels.is_empty() && fields.is_empty() {
                metadata["remainingItemCount"] = left.into();
            }
        }
        let objects = piece.iter().map(|(_, object)| &***object);
        Ok(match format {
            Format::Objects => json!({
                "kind": format!("{}List", target.kind.kind), "apiVersion": target.kind.api_version(),
                "metadata": metadata, "items": objects.collect::<Vec<_>>(),
            }),
            Format::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                "items": objects.map(table::only_metadata).collect::<Vec<_>>(),
            }),
            Format::Table { whole } => table::table(target.kind, objects, &metadata, whole, self.now),
        })
    }
}

fn read_token(token: &str, kind: &'static str) -> Result<(u64, Key), Refusal> {
    let read = || {
        let (version, key) = token.split_once(':')?;
        let (namespace, name) = key.split_once(':')?;
        Some((version.parse().ok()?, Key::new(kind, namespace, name)))
    };
    read().ok_or_else(|| Refusal::bad_request(format!("continue key is not valid: {token:?}")))
}
