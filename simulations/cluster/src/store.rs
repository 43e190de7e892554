//! What the cluster holds, and every change of it that is still remembered.
//!
//! One counter numbers all changes; an object's resource version is the number of its last change. The present and
//! the changes since give any past state that is not compacted away: lists in pieces and stale reads are such states.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;

use crate::json::{set, text};
use crate::status::Refusal;

/// Where an object stands: its kind's plural name, its namespace (empty for what lives in none), its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Plural name of the kind.
    pub kind: &'static str,
    /// Namespace, empty for kinds that live in none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// A key.
    pub fn new(kind: &'static str, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// The key of another kind with the same names.
    #[must_use]
    pub fn with_kind(&self, kind: &'static str) -> Self {
        Self { kind, ..self.clone() }
    }
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its number.
    pub version: u64,
    /// The object.
    pub key: Key,
    /// The object before, none if this made it.
    pub before: Option<Arc<Value>>,
    /// The object after, none if this took it away.
    pub after: Option<Arc<Value>>,
}

/// Objects and their recent changes.
#[derive(Clone, Debug)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    changes: VecDeque<Change>,
    version: u64,
    changes_kept: usize,
    /// Changes that the controllers have not heard of: compaction does not touch them.
    news: Vec<Change>,
}

/// The first version, so that none is ever 0, which means "any".
const FIRST_VERSION: u64 = 1_000;

impl Store {
    /// An empty store that remembers so many changes.
    pub fn new(changes_kept: usize) -> Self {
        Self {
            objects: BTreeMap::new(),
            changes: VecDeque::new(),
            version: FIRST_VERSION,
            changes_kept,
            news: Vec::new(),
        }
    }

    /// The number of the last change.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The oldest version whose state can still be told.
    pub fn oldest(&self) -> u64 {
        self.changes.front().map_or(self.version, |change| change.version - 1)
    }

    /// The object as it is.
    pub fn get(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    /// Objects of a kind as they are, in all namespaces or in one, in the order of namespace and name.
    pub fn list<'a>(
        &'a self,
        kind: &'static str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> + 'a {
        let from = Key::new(kind, namespace.unwrap_or_default(), "");
        let within = move |key: &Key| key.kind == kind && namespace.is_none_or(|only| key.namespace == only);
        self.objects.range(from..).take_while(move |(key, _)| within(key))
    }

    /// Objects of a kind as they were at a version.
    ///
    /// # Errors
    /// When that version is compacted away.
    pub fn list_at(
        &self,
        kind: &'static str,
        namespace: Option<&str>,
        version: u64,
    ) -> Result<BTreeMap<Key, Arc<Value>>, Refusal> {
        if version < self.oldest() {
            return Err(Refusal::expired(version, self.oldest()));
        }
        let now = self.list(kind, namespace).map(|(key, object)| (key.clone(), Arc::clone(object)));
        let mut then: BTreeMap<_, _> = now.collect();
        for change in self.changes.iter().rev().take_while(|change| change.version > version) {
            let concerned =
                change.key.kind == kind && namespace.is_none_or(|only| change.key.namespace == only);
            match &change.before {
                _ if !concerned => {}
                Some(before) => {
                    then.insert(change.key.clone(), Arc::clone(before));
                }
                None => {
                    then.remove(&change.key);
                }
            }
        }
        Ok(then)
    }

    /// Puts an object, with the next number as its resource version.
    pub fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.version += 1;
        set(&mut object, "metadata.resourceVersion", self.version.to_string());
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        self.remember(key, before, Some(Arc::clone(&object)));
        object
    }

    /// Takes an object away. Gives back its last state, with the number of its end.
    pub fn take(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        let mut last = (*before).clone();
        set(&mut last, "metadata.resourceVersion", self.version.to_string());
        self.remember(key.clone(), Some(before), None);
        Some(Arc::new(last))
    }

    fn remember(&mut self, key: Key, before: Option<Arc<Value>>, after: Option<Arc<Value>>) {
        let change = Change { version: self.version, key, before, after };
        self.news.push(change.clone());
        self.changes.push_back(change);
        while self.changes.len() > self.changes_kept {
            self.changes.pop_front();
        }
    }

    /// Forgets all changes: whoever has not read them is told that they are gone.
    pub fn compact(&mut self) {
        self.changes.clear();
    }

    /// The changes after a version, oldest first.
    ///
    /// # Errors
    /// When some of them are forgotten.
    pub fn changes_after(&self, version: u64) -> Result<impl Iterator<Item = &Change>, Refusal> {
        if version < self.oldest() {
            return Err(Refusal::expired(version, self.oldest()));
        }
        let from = self.changes.partition_point(|change| change.version <= version);
        Ok(self.changes.range(from..))
    }

    /// The changes since this was asked last, for the controllers.
    pub fn take_news(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.news)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// The resource version that an object states.
pub fn version_of(object: &Value) -> u64 {
    text(object, "metadata.resourceVersion").parse().unwrap_or_default()
}
