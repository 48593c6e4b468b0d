//! The last-written cache of Neon's compute: least recently used entries, and a maximum over all that fell out.

use ::shmuring::lsn::in_flight::Key;
use ::shmuring::request::Lsn;
use std::collections::{BTreeMap, HashMap};

/// See the module.
#[derive(Debug)]
pub(super) struct Lru {
    entries: HashMap<Key, (Lsn, u64)>,
    /// By when they were used last.
    uses: BTreeMap<u64, Key>,
    used: u64,
    capacity: usize,
    global: Lsn,
}

impl Lru {
    pub(super) fn new(capacity: usize, floor: Lsn) -> Self {
        Self { entries: HashMap::new(), uses: BTreeMap::new(), used: 0, capacity: capacity.max(1), global: floor }
    }

    /// What is answered for a key that has no entry.
    pub(super) fn global(&self) -> Lsn {
        self.global
    }

    /// The entry of a key, which counts as used now.
    pub(super) fn get(&mut self, key: Key) -> Option<Lsn> {
        let lsn = self.entries.get(&key)?.0;
        self.put(key, lsn);
        Some(lsn)
    }

    /// Neon's lookup: a miss answers the global maximum, and is entered with it.
    pub(super) fn get_or_enter(&mut self, key: Key) -> Lsn {
        let global = self.global;
        self.get(key).unwrap_or_else(|| {
            self.put(key, global);
            global
        })
    }

    /// A key was written, or read, at `lsn`: the entry is the larger of it and what it was.
    pub(super) fn raise(&mut self, key: Key, lsn: Lsn) {
        let before = self.entries.get(&key).map_or(0, |e| e.0);
        self.put(key, lsn.max(before));
    }

    /// Something that has no entry was written at `lsn`.
    pub(super) fn raise_global(&mut self, lsn: Lsn) {
        self.global = self.global.max(lsn);
    }

    fn put(&mut self, key: Key, lsn: Lsn) {
        self.used += 1;
        if let Some((_, before)) = self.entries.insert(key, (lsn, self.used)) {
            self.uses.remove(&before);
        }
        self.uses.insert(self.used, key);
        if self.entries.len() > self.capacity {
            let oldest = self.uses.pop_first().and_then(|(_, key)| self.entries.remove(&key));
            self.global = self.global.max(oldest.map_or(0, |e| e.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_falls_out_raises_what_a_miss_answers() {
        let key = |i| Key::DbSize(i);
        let mut lru = Lru::new(2, 10);
        assert_eq!(lru.get_or_enter(key(1)), 10);
        lru.raise(key(2), 500);
        lru.raise(key(2), 400);
        assert_eq!(lru.get(key(1)), Some(10), "used: 2 is the older now");
        lru.raise(key(3), 20);
        assert_eq!((lru.get(key(2)), lru.global()), (None, 500));
        assert_eq!(lru.get_or_enter(key(2)), 500, "and 1 fell out");
        assert_eq!((lru.get(key(1)), lru.get(key(3)), lru.global()), (None, Some(20), 500));
    }
}
