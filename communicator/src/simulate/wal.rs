//! The write-ahead log: how far it was when, and what each key was last written at.

use super::scenario::{Change, Time};
use shmuring::lsn::in_flight::Key;
use shmuring::request::{Lsn, Opcode};
use std::collections::HashMap;

/// An exact map with a floor. It stands for the last-written table: as exact as memory without bound makes it, so what
/// is measured with it is what scheduling does, without the share of a table's own error. S7: an answer never goes back.
#[derive(Debug, Default)]
pub struct Exact {
    map: HashMap<Key, Lsn>,
    floor: Lsn,
}

impl Exact {
    /// An empty one.
    #[must_use]
    pub fn new(floor: Lsn) -> Self {
        Self { map: HashMap::new(), floor }
    }

    /// The key was written at `lsn`.
    pub fn note(&mut self, key: Key, lsn: Lsn) {
        let entry = self.map.entry(key).or_insert(0);
        debug_assert!(*entry <= lsn, "S7: {key} goes back from {entry} to {lsn}");
        *entry = lsn.max(*entry);
    }

    /// not_modified_since of the key.
    #[must_use]
    pub fn get(&self, key: Key) -> Lsn {
        self.map.get(&key).copied().unwrap_or(0).max(self.floor)
    }
}

/// The keys that a change notes.
pub fn noted(change: &Change) -> impl Iterator<Item = Key> {
    let block = matches!(change.op, Opcode::WritePage | Opcode::Extend);
    let size = change.op != Opcode::WritePage;
    let (rel, number) = (change.rel, change.block);
    block.then_some(Key::Block(rel, number)).into_iter().chain(size.then_some(Key::Size(rel)))
}

/// The log.
#[derive(Debug)]
pub struct Wal {
    /// (when, up to where), both growing.
    history: Vec<(Time, Lsn)>,
}

impl Wal {
    /// A log that is at `start`.
    #[must_use]
    pub fn new(start: Lsn) -> Self {
        Self { history: vec![(0, start)] }
    }

    /// A record that ends at `lsn`, written and flushed at `now`.
    pub fn append(&mut self, now: Time, lsn: Lsn) {
        if lsn > self.end() {
            self.history.push((now, lsn));
        }
    }

    /// Up to where it is flushed.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.history.last().map_or(0, |h| h.1)
    }

    /// Up to where it was flushed at `at`.
    #[must_use]
    pub fn at(&self, at: Time) -> Lsn {
        let after = self.history.partition_point(|h| h.0 <= at);
        after.checked_sub(1).and_then(|i| self.history.get(i)).map_or(0, |h| h.1)
    }
}
