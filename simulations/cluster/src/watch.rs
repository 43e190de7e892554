//! Watches: cursors over the changes of one kind.

use std::sync::Arc;

use proto::Timestamp;
use serde_json::{Value, json};

use crate::json::{set, text};
use crate::request::{Format, Query, Request, Target, watch_until};
use crate::selector::Selector;
use crate::status::Refusal;
use crate::store::{Key, Store};
use crate::table;

/// One watch. It owns its position; the shell asks for what came since.
#[derive(Debug)]
pub struct Watch {
    target: Target,
    labels: Selector,
    fields: Selector,
    format: Format,
    position: u64,
    first: Vec<Arc<Value>>,
    initial_end: bool,
    table_begun: bool,
    /// When the next bookmark is due, if it wants any.
    bookmark_at: Option<Timestamp>,
    until: Timestamp,
    ended: bool,
    /// Distinguishes it among the watches that faults may drop.
    pub generation: u64,
    /// The plane whose cluster it watches, if not the management cluster.
    pub plane: Option<Key>,
}

/// How often a watch that wants bookmarks gets one, in seconds.
const BOOKMARK_SECONDS: u32 = 10;

impl Watch {
    /// A watch as a request asks for it.
    ///
    /// # Errors
    /// When the query cannot be read.
    pub fn new(
        store: &Store,
        target: Target,
        query: &Query,
        request: &Request,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        let (labels, fields) = query.selectors()?;
        let from = query.number("resourceVersion")?.unwrap_or_default();
        let initial = query.truth("sendInitialEvents");
        let mut watch = Self {
            labels,
            fields,
            format: request.format(query),
            position: if from == 0 || initial { store.version() } else { from },
            first: Vec::new(),
            initial_end: initial,
            table_begun: false,
            bookmark_at: query.truth("allowWatchBookmarks").then(|| now.plus_seconds(BOOKMARK_SECONDS)),
            until: watch_until(query, now)?,
            ended: false,
            generation: 0,
            plane: None,
            target,
        };
        // Without a version, or when asked to, a watch begins with what there is.
        if from == 0 || initial {
            let all = store.list(watch.target.kind.plural, watch.target.namespace.as_deref());
            watch.first =
                all.map(|(_, object)| Arc::clone(object)).filter(|one| watch.selects(one)).collect();
        }
        Ok(watch)
    }

    /// The kind watched.
    pub fn watched_kind(&self) -> &'static str {
        self.target.kind.plural
    }

    /// Whether nothing will come any more.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// When it wants to be asked even if nothing changes.
    pub fn wake_at(&self) -> Timestamp {
        self.bookmark_at.map_or(self.until, |at| at.min(self.until))
    }

    fn selects(&self, object: &Value) -> bool {
        let named = self.target.name.is_empty() || text(object, "metadata.name") == self.target.name;
        named && self.labels.selects(object) && self.fields.selects_fields(object)
    }

    fn line(&mut self, kind: &str, object: &Value, now: Timestamp) -> Value {
        let object = match self.format {
            Format::Objects => object.clone(),
            Format::Metadata => table::only_metadata(object),
            Format::Table { whole } => {
                let metadata = json!({ "resourceVersion": text(object, "metadata.resourceVersion") });
                let mut rows = table::table(self.target.kind, [object], &metadata, whole, now);
                // Headings come once; the real server leaves them out of every later event.
                if self.table_begun {
                    rows["columnDefinitions"] = Value::Null;
                }
                self.table_begun = true;
                rows
            }
        };
        json!({ "type": kind, "object": object })
    }

    fn bookmark(&self, initial_end: bool) -> Value {
        let kind = self.target.kind;
        let mut object = json!({ "kind": kind.kind, "apiVersion": kind.api_version(),
            "metadata": { "resourceVersion": self.position.to_string(), "creationTimestamp": null } });
        if initial_end {
            set(&mut object, "metadata.annotations", json!({ "k8s.io/initial-events-end": "true" }));
        }
        if matches!(self.format, Format::Table { .. }) {
            object = json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
                "columnDefinitions": null, "rows": [] });
        }
        json!({ "type": "BOOKMARK", "object": object })
    }

    /// Ends it, with a last line that says that its versions are gone.
    pub fn expire(&mut self, oldest: u64) -> Value {
        self.ended = true;
        json!({ "type": "ERROR", "object": Refusal::expired(self.position, oldest).body() })
    }

    /// Ends it without a word, as a broken connection does.
    pub fn drop_now(&mut self) {
        self.ended = true;
    }

    /// What came since it was asked last, as the lines of its stream.
    pub fn lines(&mut self, store: &Store, now: Timestamp) -> Vec<Value> {
        if self.ended {
            return Vec::new();
        }
        let first = std::mem::take(&mut self.first);
        let mut lines: Vec<_> = first.iter().map(|object| self.line("ADDED", object, now)).collect();
        if std::mem::take(&mut self.initial_end) {
            lines.push(self.bookmark(true));
        }
        let Ok(changes) = store.changes_after(self.position) else {
            lines.push(self.expire(store.oldest()));
            return lines;
        };
        for change in changes {
            self.position = change.version;
            let namespace = self.target.namespace.as_deref();
            if change.key.kind != self.watched_kind()
                || namespace.is_some_and(|only| only != change.key.namespace)
            {
                continue;
            }
            let was = change.before.as_ref().filter(|object| self.selects(object));
            let is = change.after.as_ref().filter(|object| self.selects(object));
            match (was, is) {
                (None, Some(object)) => lines.push(self.line("ADDED", object, now)),
                (Some(_), Some(object)) => lines.push(self.line("MODIFIED", object, now)),
                (Some(object), None) => {
                    // The last state that was seen, with the number of the change that ended it.
                    let mut last = (**object).clone();
                    set(&mut last, "metadata.resourceVersion", change.version.to_string());
                    lines.push(self.line("DELETED", &last, now));
                }
                (None, None) => {}
            }
        }
        self.position = self.position.max(store.version());
        if self.bookmark_at.is_some_and(|at| now >= at) {
            self.bookmark_at = Some(now.plus_seconds(BOOKMARK_SECONDS));
            lines.push(self.bookmark(false));
        }
        self.ended = now >= self.until;
        lines
    }
}
