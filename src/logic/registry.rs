//! Which connections exist. A connection exists only through a [`Place`], whatever the door.
//!
//! One lock holds ids and the limit for all doors. Dropping a place frees it, on every path.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Our own unguessable name of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(Arc<str>);

impl ConnectionId {
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for ConnectionId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

/// Why a place is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("all {0} places are taken (max-connections); try again when a visitor has left")]
    Full(u32),
    #[error("a connection with the id {0:?} exists already")]
    Duplicate(String),
    #[error("the server is shutting down")]
    Closed,
}

struct Entry<T> {
    external_id: Option<String>,
    /// Absent until the answer was handed out.
    handle: Option<T>,
}

struct Inner<T> {
    entries: HashMap<ConnectionId, Entry<T>>,
    limit: u32,
    closed: bool,
}

/// The connections of one `rtcsessionsrc`; `T` is what reaches one of them.
pub struct Registry<T> {
    inner: Arc<Mutex<Inner<T>>>,
}

impl<T> Clone for Registry<T> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
        }
    }
}

impl<T: Clone> Registry<T> {
    pub fn new(limit: u32) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                entries: HashMap::new(),
                limit,
                closed: false,
            })),
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner<T>) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes a place; it is free again when the returned value is dropped.
    pub fn reserve(&self, external_id: Option<&str>) -> Result<Place<T>, Refused> {
        self.with(|inner| {
            if inner.closed {
                return Err(Refused::Closed);
            }
            if let Some(id) = external_id
                && inner
                    .entries
                    .values()
                    .any(|e| e.external_id.as_deref() == Some(id))
            {
                return Err(Refused::Duplicate(id.to_owned()));
            }
            if inner.entries.len() as u64 >= u64::from(inner.limit) {
                return Err(Refused::Full(inner.limit));
            }
            let id = ConnectionId::random();
            inner.entries.insert(
                id.clone(),
                Entry {
                    external_id: external_id.map(str::to_owned),
                    handle: None,
                },
            );
            Ok(Place {
                id,
                registry: self.clone(),
            })
        })
    }

    /// The connection of that id, if its answer was handed out and it has not ended.
    pub fn find(&self, id: &ConnectionId) -> Option<T> {
        self.with(|inner| inner.entries.get(id)?.handle.clone())
    }

    pub fn all(&self) -> Vec<T> {
        self.with(|inner| {
            inner
                .entries
                .values()
                .filter_map(|e| e.handle.clone())
                .collect()
        })
    }

    /// Places taken, by connections and by offers being answered.
    pub fn len(&self) -> usize {
        self.with(|inner| inner.entries.len())
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Nothing is admitted any more.
    pub fn close(&self) {
        self.with(|inner| inner.closed = true);
    }
}

/// A place in the registry.
pub struct Place<T: Clone> {
    id: ConnectionId,
    registry: Registry<T>,
}

impl<T: Clone> Place<T> {
    pub fn id(&self) -> &ConnectionId {
        &self.id
    }

    /// The answer was handed out: by-id calls reach the connection from now on. Refused once the registry
    /// is closed, so that nothing slips in behind a shutdown that has already collected everyone.
    pub fn commit(&self, handle: T) -> Result<(), Refused> {
        self.registry.with(|inner| {
            if inner.closed {
                return Err(Refused::Closed);
            }
            if let Some(entry) = inner.entries.get_mut(&self.id) {
                entry.handle = Some(handle);
            }
            Ok(())
        })
    }
}

impl<T: Clone> Drop for Place<T> {
    fn drop(&mut self) {
        // The handle may hold the last reference to something that takes locks of its own.
        let entry = self.registry.with(|inner| inner.entries.remove(&self.id));
        drop(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_place_is_free_again() {
        let registry = Registry::<u32>::new(1);
        let place = registry.reserve(None).unwrap();
        assert_eq!(registry.reserve(None).err(), Some(Refused::Full(1)));
        drop(place);
        assert!(registry.is_empty());
        assert!(registry.reserve(None).is_ok());
    }

    #[test]
    fn a_connection_is_found_between_commit_and_end() {
        let registry = Registry::new(2);
        let place = registry.reserve(None).unwrap();
        let id = place.id().clone();
        assert_eq!(registry.find(&id), None);
        place.commit(7).unwrap();
        assert_eq!(registry.find(&id), Some(7));
        drop(place);
        assert_eq!(registry.find(&id), None);
    }

    #[test]
    fn external_ids_are_unique_while_they_live() {
        let registry = Registry::<u32>::new(2);
        let place = registry.reserve(Some("abc")).unwrap();
        assert_eq!(
            registry.reserve(Some("abc")).err(),
            Some(Refused::Duplicate("abc".into()))
        );
        drop(place);
        assert!(registry.reserve(Some("abc")).is_ok());
    }

    #[test]
    fn a_closed_registry_admits_nobody_not_even_who_was_being_answered() {
        let registry = Registry::<u32>::new(2);
        let early = registry.reserve(None).unwrap();
        registry.close();
        assert_eq!(registry.reserve(None).err(), Some(Refused::Closed));
        assert_eq!(early.commit(1), Err(Refused::Closed));
    }
}
