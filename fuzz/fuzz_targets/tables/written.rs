//! The last-written table, and what it must answer.

use std::collections::BTreeMap;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use shmuring::parts::Parts;
use shmuring::request::{Lsn, RelTag};

use crate::attacker::number;

const RELS: u8 = 3;
/// Blocks that are noted and asked for, on both sides of the end of a chunk, and the last there is.
const BLOCKS: [u32; 8] = [0, 1, 2, 126, 127, 128, 300, u32::MAX];

fn rel(n: u8) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 5 + u32::from(n / 2), rel_number: 16384, fork: n % 2 }
}

/// Least LSNs of answers: those noted since the bytes were last written by someone else. Of a new region: see
/// [`Notes::reset`].
#[derive(Default)]
pub struct Notes {
    blocks: BTreeMap<(u8, u32), Lsn>,
    relations: BTreeMap<u8, Lsn>,
    floor: Lsn,
    /// The largest that was noted, rounded up; unless the bytes were written by someone else since the table was emptied.
    newest: Option<Lsn>,
}

fn raise(to: &mut Lsn, lsn: Lsn) {
    *to = lsn.max(*to);
}

impl Notes {
    /// The bytes are somebody's now, if they are `hit`.
    pub fn is_hit(&mut self, hit: bool) {
        if hit {
            *self = Self::default();
        }
    }

    /// The table was emptied.
    pub fn reset(&mut self, floor: Lsn) {
        *self = Self { floor, newest: Some(floor), ..Self::default() };
    }

    fn noted(&mut self, n: u8, blocks: impl Fn(u32) -> bool, lsn: Lsn) {
        for block in BLOCKS.into_iter().filter(|b| blocks(*b)) {
            raise(self.blocks.entry((n, block)).or_default(), lsn);
        }
    }

    /// One note.
    pub fn step(&mut self, u: &mut Unstructured<'_>, parts: &Parts<'_>) -> Result<()> {
        let (n, block) = (u.int_in_range(0..=RELS - 1)?, *u.choose(&BLOCKS)?);
        let lsn = if u.ratio(1, 4)? { number(u, 1 << 55)? } else { 8 * u.int_in_range(0..=31)? };
        let table = parts.last_written();
        match u.int_in_range(0..=7)? {
            0..=2 => {
                table.note(rel(n), block, lsn);
                self.noted(n, |b| b == block, lsn);
            }
            // Several, one after the other: more than a bucket has room for.
            3 | 4 => {
                for (block, more) in BLOCKS.into_iter().zip(0..) {
                    let lsn = lsn.saturating_add(8 * more);
                    table.note(rel(n), block, lsn);
                    self.noted(n, |b| b == block, lsn);
                    self.newest = self.newest.map(|newest| newest.max(round(lsn)));
                }
            }
            5 => {
                let count = number(u, 64 * 128)? as u32;
                table.note_range(rel(n), block, count, lsn);
                self.noted(n, |b| b >= block && b - block < count, lsn);
            }
            6 => {
                table.note_relation(rel(n), lsn);
                raise(self.relations.entry(n).or_default(), lsn);
            }
            _ => {
                table.note_all(lsn);
                raise(&mut self.floor, lsn);
            }
        }
        self.newest = self.newest.map(|newest| newest.max(round(lsn)));
        Ok(())
    }

    /// Every answer is at least what was noted, and at most the largest note. Bytes that change all the time hold nothing.
    pub fn check(&self, parts: &Parts<'_>, changes: bool) {
        let table = parts.last_written();
        let fits = |got: Lsn, truth: Lsn| {
            let least = truth.max(self.floor);
            assert!(changes || got >= least, "{got:#x} is below {least:#x}");
            assert!(changes || self.newest.is_none_or(|most| got <= most.max(self.floor)), "{got:#x} was never noted");
        };
        for n in 0..RELS {
            for block in BLOCKS {
                fits(table.get(rel(n), block), self.blocks.get(&(n, block)).copied().unwrap_or(0));
            }
            fits(table.get_relation(rel(n)), self.relations.get(&n).copied().unwrap_or(0));
            let of_database = self.relations.iter().filter(|(m, _)| **m / 2 == n / 2).map(|(_, lsn)| *lsn).max();
            fits(table.get_database(rel(n).db_oid), of_database.unwrap_or(0));
        }
    }
}

/// What an entry holds is in units of 8.
fn round(lsn: Lsn) -> Lsn {
    lsn.checked_next_multiple_of(8).unwrap_or(lsn)
}
