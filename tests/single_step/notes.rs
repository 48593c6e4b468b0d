//! Notes in the last-written table (R12). Whoever dies in one, no answer is lower than the truth (I11).

use shmuring::lsn::written::{Written, CHUNK};
use shmuring::region::Region;
use shmuring::request::{Lsn, RelTag};

use crate::backends::{owner_of, BASE as BACKEND};
use crate::driver::Case;
use crate::support::process::REL;
use crate::tracee::Marks;
use crate::world::World;

/// What the victim notes.
const OWN: u32 = 1000;
/// A bucket's entries, all of them others'.
const ENTRIES: u32 = shmuring::layout::WAYS as u32;
/// More chunks than are noted one by one.
const MANY: u32 = 66 * CHUNK;

const BASE: Case = Case { kinds: &[], beside: is_true, at_last: is_exact, ..BACKEND };

pub const NOTE: &[Case] = &[
    Case { name: "note a block, the first", prepare: forget, victim: |r, m| note(r, m, newest(m.base)), ..BASE },
    Case {
        name: "note a block, known with an older LSN",
        prepare: know,
        victim: |r, m| note(r, m, newest(m.base)),
        ..BASE
    },
    Case { name: "note a block, and evict another", prepare: fill, victim: |r, m| note(r, m, newest(m.base)), ..BASE },
    Case {
        name: "note a block, older than all entries",
        prepare: fill,
        victim: |r, m| note(r, m, oldest(m.base)),
        ..BASE
    },
    Case { name: "note some blocks", prepare: fill, victim: note_some, ..BASE },
    Case { name: "note chunks", prepare: fill, victim: note_chunks, ..BASE },
    Case { name: "note everything", prepare: fill, victim: note_all, ..BASE },
    Case { name: "note a relation", prepare: fill, victim: note_relation, ..BASE },
];

/// Each kill's LSNs are larger than those before.
const fn oldest(base: u32) -> Lsn {
    base as Lsn * 64
}

const fn newest(base: u32) -> Lsn {
    oldest(base) + 256
}

fn note_one(w: &mut World<'_>, block: u32, lsn: Lsn) {
    w.parts.last_written().note(REL, block, lsn);
    w.noted.insert(block, lsn);
}

/// Every entry is another block's, with an LSN between the victim's.
fn fill(w: &mut World<'_>) {
    forget(w);
    let first = oldest(w.base) + 8;
    (0..ENTRIES).for_each(|block| note_one(w, block, first + 8 * Lsn::from(block)));
}

/// One is the victim's.
fn know(w: &mut World<'_>) {
    fill(w);
    let lsn = newest(w.base) - 8;
    note_one(w, OWN, lsn);
}

/// A table in which nothing was noted.
fn forget(w: &mut World<'_>) {
    use std::sync::atomic::Ordering::Relaxed;
    w.succeed().unwrap();
    w.noted.clear();
    for bucket in w.parts.written {
        bucket.evicted.store(0, Relaxed);
        bucket.entries.iter().for_each(|e| e.store(0, Relaxed));
    }
}

fn noting(region: &Region, m: &Marks, f: impl FnOnce(&Written<'_>)) {
    let b = owner_of(region);
    let written = b.last_written();
    m.begin();
    f(&written);
    m.reach(1);
    m.end();
}

fn note(region: &Region, m: &Marks, lsn: Lsn) {
    noting(region, m, |written| written.note(REL, OWN, lsn));
}

fn note_some(region: &Region, m: &Marks) {
    noting(region, m, |written| written.note_range(REL, OWN, 3, newest(m.base)));
}

fn note_chunks(region: &Region, m: &Marks) {
    noting(region, m, |written| written.note_range(REL, OWN, 2 * CHUNK, newest(m.base)));
}

fn note_all(region: &Region, m: &Marks) {
    noting(region, m, |written| written.note_range(REL, OWN, MANY, newest(m.base)));
}

fn note_relation(region: &Region, m: &Marks) {
    noting(region, m, |written| written.note_relation(REL, newest(m.base)));
}

/// Whatever was noted and ended is in the answers, and nothing newer than what was ever noted.
fn is_true(w: &mut World<'_>) -> Result<(), String> {
    let written = w.parts.last_written();
    let most = newest(w.base);
    for (block, lsn) in &w.noted {
        let got = written.get(REL, *block);
        if !(*lsn..=most).contains(&got) {
            return Err(format!("block {block} was noted as of {lsn}, and is as of {got}; the newest is {most}"));
        }
    }
    Ok(())
}

/// The next writer's notes are as good as ever, and what was noted before is no worse.
fn is_exact(w: &mut World<'_>) -> Result<(), String> {
    is_true(w)?;
    let lsn = newest(w.base) + 8;
    let rel = RelTag { rel_number: 77, ..REL };
    let written = w.parts.last_written();
    written.note(rel, 1, lsn);
    written.note_relation(rel, lsn);
    let got = [written.get(rel, 1), written.get_relation(rel), written.get_database(rel.db_oid)];
    if got != [lsn; 3] {
        return Err(format!("noted as of {lsn}, and as of {got:?}"));
    }
    Ok(())
}
