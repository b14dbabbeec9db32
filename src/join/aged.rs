//! A map that knows its oldest entry: what a bounded table forgets first.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use super::Key;

/// Values by key, in the order in which their keys came.
#[derive(Debug)]
pub(super) struct Aged<V> {
    entries: HashMap<Key, Entry<V>>,
    order: BTreeMap<u64, (Key, Instant)>,
    next: u64,
}

#[derive(Debug)]
struct Entry<V> {
    number: u64,
    value: V,
}

impl<V> Default for Aged<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), next: 0 }
    }
}

impl<V: Default> Aged<V> {
    /// The value of `key`; one that is not there yet begins at `now`.
    pub(super) fn entry(&mut self, key: &Key, now: Instant) -> &mut V {
        let entry = self.entries.entry(key.clone()).or_insert_with(|| {
            let number = self.next;
            self.next += 1;
            self.order.insert(number, (key.clone(), now));
            Entry { number, value: V::default() }
        });
        &mut entry.value
    }
}

impl<V> Aged<V> {
    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut V> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<V> {
        let entry = self.entries.remove(key)?;
        self.order.remove(&entry.number);
        Some(entry.value)
    }

    /// Since when the oldest key is here.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.order.first_key_value().map(|(_, (_, since))| *since)
    }

    pub(super) fn pop_oldest(&mut self) -> Option<V> {
        self.pop_oldest_entry().map(|(_, value)| value)
    }

    pub(super) fn pop_oldest_entry(&mut self) -> Option<(Key, V)> {
        let (_, (key, _)) = self.order.pop_first()?;
        let value = self.entries.remove(&key)?.value;
        Some((key, value))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
