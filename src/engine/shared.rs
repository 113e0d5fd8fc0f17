//! What is made once for all who ask for the same, and gone when nobody uses it any more.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

pub struct Shared<K, V> {
    places: Mutex<HashMap<K, Place<V>>>,
}

/// Locked while its value is made, so that it is made once.
type Place<V> = Arc<Mutex<Weak<V>>>;

impl<K, V> Default for Shared<K, V> {
    fn default() -> Self {
        Shared {
            places: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash, V> Shared<K, V> {
    /// What is there for `key`, else what `make` makes; who asks for the same meanwhile waits for it.
    pub fn get<E>(&self, key: K, make: impl FnOnce() -> Result<V, E>) -> Result<Arc<V>, E> {
        let place = self.place(key);
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = place.upgrade() {
            return Ok(value);
        }
        let value = Arc::new(make()?);
        *place = Arc::downgrade(&value);
        Ok(value)
    }

    fn place(&self, key: K) -> Place<V> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        // A place that somebody holds is being filled.
        places.retain(|_, place| {
            let is_held = Arc::strong_count(place) > 1;
            is_held || place.lock().is_ok_and(|value| value.strong_count() > 0)
        });
        places.entry(key).or_default().clone()
    }
}
