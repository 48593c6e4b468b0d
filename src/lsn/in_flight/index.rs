//! Numbers of nodes by their keys.
//!
//! An open table of pairs (part of the key's hash, number): eight bytes an entry, so that that of ten thousand keys stays
//! in a core's own cache, and a key that is not there is mostly told without a look at any node. The hash depends on a
//! secret of this process: its collisions cannot be chosen from outside. At most three quarters full; grows by doubling,
//! and keeps what it has.

use super::super::slab::NONE;
use super::key::Key;
use core::hash::BuildHasher;
use std::collections::hash_map::RandomState;

/// A pair, or nothing.
#[derive(Clone, Copy, Debug)]
struct Entry {
    tag: u32,
    number: u32,
}

const EMPTY: Entry = Entry { tag: 0, number: NONE };
/// Entries at first.
const FIRST: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Index {
    entries: Vec<Entry>,
    len: usize,
    secret: [u64; 3],
}

/// Folded multiplication.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128).wrapping_mul(b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

impl Index {
    pub(super) fn new() -> Self {
        let secrets = RandomState::new();
        let secret = [0u8, 1, 2].map(|i| secrets.hash_one(i) | 1);
        Self { entries: vec![EMPTY; FIRST], len: 0, secret }
    }

    /// The hash by which a key is found.
    #[inline]
    pub(super) fn hash(&self, key: Key) -> u32 {
        let [a, b, c] = key.words();
        let [x, y, z] = self.secret;
        (fold(fold(a ^ x, b ^ y) ^ c, z) >> 16) as u32
    }

    fn mask(&self) -> usize {
        self.entries.len().wrapping_sub(1)
    }

    /// The number under `hash` of which `is` says that it is the one.
    #[inline]
    pub(super) fn find(&self, hash: u32, is: impl Fn(u32) -> bool) -> Option<u32> {
        let mut at = hash as usize & self.mask();
        loop {
            // The mask keeps it below the length; and a quarter of the entries is empty.
            let entry = self.entries.get(at)?;
            if entry.number == NONE {
                return None;
            }
            if entry.tag == hash && is(entry.number) {
                return Some(entry.number);
            }
            at = (at + 1) & self.mask();
        }
    }

    /// Adds a number that is not there.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        if (self.len + 1) * 4 > self.entries.len() * 3 {
            self.grow();
        }
        self.len += 1;
        self.put(Entry { tag: hash, number });
    }

    fn put(&mut self, entry: Entry) {
        let mask = self.mask();
        let mut at = entry.tag as usize & mask;
        while let Some(place) = self.entries.get_mut(at) {
            if place.number == NONE {
                *place = entry;
                return;
            }
            at = (at + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let bigger = vec![EMPTY; self.entries.len() * 2];
        for entry in core::mem::replace(&mut self.entries, bigger) {
            if entry.number != NONE {
                self.put(entry);
            }
        }
    }

    /// Takes a number out; what lies behind it moves up, so no search ends too early.
    pub(super) fn remove(&mut self, hash: u32, number: u32) {
        let mask = self.mask();
        let mut hole = hash as usize & mask;
        loop {
            match self.entries.get(hole) {
                Some(e) if e.number == number => break,
                Some(e) if e.number != NONE => hole = (hole + 1) & mask,
                _ => return,
            }
        }
        self.len -= 1;
        let mut at = hole;
        loop {
            at = (at + 1) & mask;
            let Some(entry) = self.entries.get(at).copied().filter(|e| e.number != NONE) else { break };
            // It may move up unless its own place lies between the hole and it.
            let home = entry.tag as usize & mask;
            if (at.wrapping_sub(home) & mask) >= (at.wrapping_sub(hole) & mask) {
                if let Some(place) = self.entries.get_mut(hole) {
                    *place = entry;
                }
                hole = at;
            }
        }
        if let Some(place) = self.entries.get_mut(hole) {
            *place = EMPTY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn numbers_are_found_under_their_hashes_as_in_a_map_also_where_hashes_collide() {
        let mut index = Index::new();
        let mut map = BTreeMap::new();
        let mut seed = 1u64;
        for step in 0..20_000u32 {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            // Few hashes, at the end of the table too, so that runs are long and go around.
            let (number, hash) = ((seed >> 33) as u32 % 120, ((seed >> 40) as u32 % 9).wrapping_sub(5));
            match map.remove(&number) {
                Some(old) => index.remove(old, number),
                None => {
                    index.insert(hash, number);
                    map.insert(number, hash);
                }
            }
            if step % 97 == 0 {
                for n in 0..120 {
                    let found = (0..9u32).find(|h| index.find(h.wrapping_sub(5), |m| m == n).is_some());
                    assert_eq!(found.map(|h| h.wrapping_sub(5)), map.get(&n).copied(), "{n} after {step}");
                }
            }
        }
        assert_eq!(index.len, map.len());
    }
}
