//! The one writer of relation sizes: the communicator. Several of its threads share it behind a lock.
//!
//! A change is begun before its I/O and finished after it, before its completion is published. A size that was read is
//! kept only if no change of the fork was under way, or began, since the read was sent (R13). What is known is kept in
//! private memory too: no decision is taken from bytes of the region (I10).
//!
//! It allocates as changes and reads begin. Where there is no memory to tell what is under way, no size is certain any
//! more: then all are forgotten, and none is kept again by this writer. It never aborts for want of memory.
// A set of a model has one entry.
#![cfg_attr(any(feature = "loom", feature = "shuttle"), allow(clippy::modulo_one))]

use std::collections::HashMap;

use super::{begin, next, place_of, set_of, Size, CHANGED, FORK_SHIFT, NO_FORK, WHOLE};
use crate::layout::{SizeEntry, SET};
use crate::parts::Parts;
use crate::request::{Lsn, RelTag};
use crate::sync::{ord, Ordering};

/// A change of a fork's size that is under way. Give it to [`Writer::finish`]; while one is not, the fork is a miss.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Change(RelTag);

/// A read of a fork's size that is under way. Give it to [`Writer::fill`] or [`Writer::drop_asked`].
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    rel: RelTag,
    moment: u64,
}

/// What a change has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The fork has exactly so many blocks: create, update.
    Set(u32, Lsn),
    /// It has at least so many: extend.
    Raise(u32, Lsn),
    /// It has at most so many: truncate.
    Lower(u32, Lsn),
    /// It does not exist any more: unlink.
    Remove(Lsn),
    /// It failed, or may have been done before: what was known is not known any more.
    Unknown,
}

/// What is under way for a fork.
#[derive(Debug)]
struct Busy {
    changes: u32,
    reads: u32,
    /// When a change last began or ended, or the cache was emptied.
    moment: u64,
    /// The size, as far as changes that have ended tell it.
    known: Option<Size>,
}

/// Writes the relation sizes of a region. There is one at a time, held by whoever holds the communicator's role.
#[derive(Debug)]
pub struct Writer<'r> {
    parts: Parts<'r>,
    life: u32,
    /// What each entry holds, in the order of the entries.
    kept: Vec<Option<(RelTag, Size)>>,
    busy: HashMap<RelTag, Busy>,
    /// There was no memory for what is under way: nothing is known, and nothing is kept.
    is_blind: bool,
    moment: u64,
    turn: usize,
}

impl<'r> Writer<'r> {
    /// The writer of an empty cache; `None`: no memory. The caller holds the role, and makes one only.
    pub(crate) fn new(parts: &Parts<'r>) -> Option<Self> {
        let entries = parts.sizes.len() * SET;
        let mut kept = Vec::new();
        kept.try_reserve_exact(entries).ok()?;
        kept.resize(entries, None);
        let busy = HashMap::new();
        let mut new = Self { parts: *parts, life: 0, kept, busy, is_blind: false, moment: 0, turn: 0 };
        new.enter(parts.header.life.life.load(Ordering::Relaxed));
        Some(new)
    }

    /// Begins a change of the fork: call it before the I/O. The fork is a miss until the last change that is under way
    /// has ended.
    pub fn begin(&mut self, rel: RelTag) -> Change {
        self.follow_life();
        let place = self.place_of(rel);
        let known = place.and_then(|i| self.kept.get(i).copied().flatten()).map(|(_, size)| size);
        if let Some(entry) = place.and_then(|i| self.entry(i)) {
            begin(entry);
        }
        let moment = self.next_moment();
        if let Some(busy) = self.busy(rel, moment) {
            if busy.changes == 0 {
                busy.known = known;
            }
            busy.changes += 1;
            busy.moment = moment;
        }
        Change(rel)
    }

    /// Ends a change: call it after the I/O, before the request's completion is published.
    pub fn finish(&mut self, change: Change, outcome: Outcome) {
        let Change(rel) = change;
        let moment = self.next_moment();
        let Some(busy) = self.busy.get_mut(&rel) else { return };
        busy.changes = busy.changes.saturating_sub(1);
        busy.moment = moment;
        busy.known = after(busy.known, outcome);
        if busy.changes == 0 {
            let known = busy.known.take();
            self.keep(rel, known);
            self.tidy(rel);
        }
    }

    /// Says that the size of the fork is about to be asked of the page service.
    pub fn ask(&mut self, rel: RelTag) -> Asked {
        self.follow_life();
        let moment = self.next_moment();
        let since = self.busy(rel, moment).map(|busy| {
            busy.reads += 1;
            busy.moment
        });
        Asked { rel, moment: since.unwrap_or(moment) }
    }

    /// Keeps the size that was read (`None`: there is no such fork), unless a change began or ended meanwhile.
    pub fn fill(&mut self, asked: Asked, blocks: Option<u32>, lsn: Lsn) {
        self.follow_life();
        let Asked { rel, moment } = asked;
        let is_current = self.busy.get(&rel).is_some_and(|b| b.changes == 0 && b.moment == moment);
        if is_current && self.place_of(rel).is_none() {
            self.keep(rel, Some(Size { blocks, lsn, is_changed: false }));
        }
        self.drop_asked(Asked { rel, moment });
    }

    /// Ends a read that gave no size.
    pub fn drop_asked(&mut self, asked: Asked) {
        if let Some(busy) = self.busy.get_mut(&asked.rel) {
            busy.reads = busy.reads.saturating_sub(1);
        }
        self.tidy(asked.rel);
    }

    /// The size of a fork, if it is known and no change of it is under way.
    #[must_use]
    pub fn known(&mut self, rel: RelTag) -> Option<Size> {
        self.follow_life();
        if self.busy.get(&rel).is_some_and(|b| b.changes > 0) {
            return None;
        }
        self.place_of(rel).and_then(|i| self.kept.get(i).copied().flatten()).map(|(_, size)| size)
    }

    /// Empties the cache if a new server life has begun (R1).
    fn follow_life(&mut self) {
        // Relaxed: a new life issues no request before it is raised, and its requests carry their own edges.
        let life = self.parts.header.life.life.load(Ordering::Relaxed);
        if life != self.life {
            self.enter(life);
        }
    }

    /// Empties the cache, and lets backends of this life in.
    fn enter(&mut self, life: u32) {
        super::empty(self.parts.sizes);
        self.kept.fill(None);
        self.moment += 1;
        for busy in self.busy.values_mut() {
            (busy.moment, busy.known) = (self.moment, None);
        }
        self.life = life;
        // ORD(RS_3): pairs with the Acquire in `Sizes::get`; publishes that older sizes are gone.
        self.parts.header.tables.sizes_life.store(u64::from(life), ord!(RS_3, Release));
    }

    /// What is under way for a fork, if there is memory to tell it.
    fn busy(&mut self, rel: RelTag, moment: u64) -> Option<&mut Busy> {
        if !self.is_blind && self.busy.try_reserve(1).is_err() {
            self.is_blind = true;
            self.busy.clear();
            self.kept.fill(None);
            super::empty(self.parts.sizes);
        }
        let idle = Busy { changes: 0, reads: 0, moment, known: None };
        (!self.is_blind).then(|| self.busy.entry(rel).or_insert(idle))
    }

    /// Puts a size into the fork's entry, or into one that it takes from another fork; `None` gives its entry up.
    fn keep(&mut self, rel: RelTag, size: Option<Size>) {
        let own = self.place_of(rel);
        let size = size.filter(|s| s.lsn >> FORK_SHIFT == 0 && s.blocks != Some(NO_FORK));
        let place = own.or_else(|| size.and_then(|_| self.make_room(rel)));
        let Some(place) = place else { return };
        let Some(entry) = self.entry(place) else { return };
        begin(entry);
        if let Some(size) = size {
            publish(entry, rel, size);
        }
        if let Some(kept) = self.kept.get_mut(place) {
            *kept = size.map(|size| (rel, size));
        }
    }

    /// An entry of the fork's set that is empty, or else whose fork is not being changed: each of them in turn.
    fn make_room(&mut self, rel: RelTag) -> Option<usize> {
        let first = set_of(rel, self.parts.sizes.len()) * SET;
        let entries = first..first + SET;
        let free = entries.clone().find(|i| matches!(self.kept.get(*i), Some(None)));
        self.turn = self.turn.wrapping_add(1);
        free.or_else(|| {
            let is_still = |i: &usize| {
                let Some(Some((other, _))) = self.kept.get(*i) else { return false };
                self.busy.get(other).is_none_or(|b| b.changes == 0)
            };
            entries.cycle().skip(self.turn % SET).take(SET).find(is_still)
        })
    }

    /// Where the fork's entry is.
    fn place_of(&self, rel: RelTag) -> Option<usize> {
        let first = set_of(rel, self.parts.sizes.len()) * SET;
        (first..first + SET).find(|i| matches!(self.kept.get(*i), Some(Some((of, _))) if *of == rel))
    }

    fn entry(&self, place: usize) -> Option<&'r SizeEntry> {
        self.parts.sizes.get(place / SET)?.entries.get(place % SET)
    }

    fn next_moment(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    /// Forgets a fork for which nothing is under way.
    fn tidy(&mut self, rel: RelTag) {
        if self.busy.get(&rel).is_some_and(|b| b.changes == 0 && b.reads == 0) {
            self.busy.remove(&rel);
        }
    }
}

/// What is known after a change.
fn after(known: Option<Size>, outcome: Outcome) -> Option<Size> {
    let changed = |blocks, lsn: Lsn| Some(Size { blocks, lsn: lsn.max(known.map_or(0, |k| k.lsn)), is_changed: true });
    let blocks = known.and_then(|k| k.blocks);
    match outcome {
        Outcome::Set(n, lsn) => changed(Some(n), lsn),
        Outcome::Raise(n, lsn) => blocks.and_then(|b| changed(Some(b.max(n)), lsn)),
        Outcome::Lower(n, lsn) => blocks.and_then(|b| changed(Some(b.min(n)), lsn)),
        Outcome::Remove(lsn) => changed(None, lsn),
        Outcome::Unknown => None,
    }
}

/// Writes an entry that is not whole, and makes it whole.
fn publish(entry: &SizeEntry, rel: RelTag, size: Size) {
    // Relaxed: we alone write it.
    let stamp = next(entry.stamp.load(Ordering::Relaxed));
    let blocks = u64::from(rel.rel_number) << 32 | u64::from(size.blocks.unwrap_or(NO_FORK));
    // ORD(RS_2): pairs with the Acquires in `read`; whoever sees one of these words sees the stamp of `begin`.
    entry.place.store(place_of(rel), ord!(RS_2, Release));
    entry.size.store(blocks, ord!(RS_2, Release));
    entry.lsn.store(u64::from(rel.fork) << FORK_SHIFT | size.lsn, ord!(RS_2, Release));
    let whole = stamp | WHOLE | if size.is_changed { CHANGED } else { 0 };
    // ORD(RS_1): pairs with the Acquire in `read`; publishes the words.
    entry.stamp.store(whole, ord!(RS_1, Release));
}
