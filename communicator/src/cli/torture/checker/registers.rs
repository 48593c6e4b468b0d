//! Blocks, sizes and existence over time. Each has one writer at a time, whose changes never overlap, so its values have
//! an order; what a read may have seen follows from the times alone.

use super::super::mix::{NOBODY, SHARED, SHARED_BLOCKS};
use super::requests::Story;
use super::{Faults, Key, Past, Summary, Write};
use crate::cli::content;
use crate::service::PAGE_SIZE;
use shmuring::request::Opcode;
use std::collections::{BTreeMap, HashMap};
use xxhash_rust::xxh3::xxh3_64;

/// The value of a block that is not there.
const ABSENT: u64 = u64::MAX;
/// Versions are times; all else that a register may have is smaller, but for [`ABSENT`].
const FIRST_VERSION: u64 = 1 << 24;
/// The log of what was read straight from the store.
const STORE: &str = "store";
/// The log of what was read through the ring at the end.
const SWEEP: &str = "sweep";

/// Whether a change came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ran {
    /// Acknowledged at that time.
    By(u64),
    /// It may have been applied, or never.
    Maybe,
    /// It was not.
    Never,
}

#[derive(Clone, Copy, Debug)]
struct Change {
    asked: u64,
    ran: Ran,
    value: u64,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    from: u64,
    to: u64,
    value: u64,
    whose: u32,
    id: u32,
}

/// Who has read a write that was acknowledged.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) in_the_run: bool,
    through_the_ring: bool,
    in_the_store: bool,
}

/// Every register of a round.
pub(super) struct Registers {
    past: HashMap<Key, u64>,
    changes: HashMap<Key, Vec<Change>>,
    looks: BTreeMap<Key, Vec<Look>>,
    stored: HashMap<Key, u64>,
    written: HashMap<Write, Seen>,
    seen: HashMap<Write, Seen>,
    hashes: HashMap<Write, u64>,
    names: Vec<String>,
}

impl Registers {
    pub(super) fn new(past: &Past) -> Self {
        Self {
            past: past.0.clone(),
            changes: HashMap::new(),
            looks: BTreeMap::new(),
            stored: HashMap::new(),
            written: HashMap::new(),
            seen: HashMap::new(),
            hashes: HashMap::new(),
            names: Vec::new(),
        }
    }

    /// What a register had before the round.
    fn before(&self, key: Key) -> u64 {
        let first = match key {
            Key::Block(SHARED, b) if b < SHARED_BLOCKS => 1,
            Key::Block(..) => ABSENT,
            Key::Size(SHARED) => SHARED_BLOCKS.into(),
            Key::Size(_) => 0,
            Key::Exists(NOBODY) => 0,
            Key::Exists(rel) => u64::from(rel < 100_000),
        };
        self.past.get(&key).copied().unwrap_or(first)
    }

    /// Writes that were acknowledged, and who has read them.
    pub(super) fn writes(&self) -> impl Iterator<Item = (Write, Seen)> + '_ {
        self.written.keys().map(|w| (*w, self.seen.get(w).copied().unwrap_or_default()))
    }

    /// What the store ended with.
    pub(super) fn last_stored(self) -> HashMap<Key, u64> {
        self.stored
    }

    /// Takes what a request changed, or saw.
    pub(super) fn add(&mut self, name: &str, story: &Story, ran: Ran, faults: &mut Faults) {
        if self.names.last().is_none_or(|n| n != name) {
            self.names.push(name.to_string());
        }
        let Some(opcode) = story.opcode() else { return };
        if opcode.is_mutation() {
            self.change(story, opcode, ran, faults);
        } else if let Some(got) = story.got {
            let value = got.a;
            match (opcode, got.code) {
                (Opcode::RelSize, 0) => self.look(story, Key::Size(story.asked.rel), value, got.time),
                (Opcode::RelExists, 0) => self.look(story, Key::Exists(story.asked.rel), value, got.time),
                (Opcode::Nop, 0) if value != 0 => faults.add(format_args!("(a) {name}: nop answered {value}")),
                (Opcode::GetPage, e) if e == libc::ENXIO as u32 => {
                    let block = story.asked.block + value as u32;
                    self.look(story, Key::Block(story.asked.rel, block), ABSENT, got.time);
                }
                (Opcode::GetPage | Opcode::GetPageAt, 0) => self.pages(name, story, got.time, faults),
                _ => {}
            }
        }
    }

    fn look(&mut self, story: &Story, key: Key, value: u64, to: u64) {
        let whose = self.names.len() as u32 - 1;
        if self.names.last().is_some_and(|n| n == STORE) {
            self.stored.insert(key, value);
        }
        let look = Look { from: story.asked.time, to, value, whose, id: story.asked.id };
        self.looks.entry(key).or_default().push(look);
    }

    fn pages(&mut self, name: &str, story: &Story, to: u64, faults: &mut Faults) {
        let rel = story.asked.rel;
        for page in &story.pages {
            let write = Write { rel, block: page.block, version: page.a };
            if self.hash(write) != page.b {
                faults.add(format_args!(
                    "(a) {name} process {} request {}: block {} of relation {rel} is not what its version {} holds",
                    page.incarnation, page.id, page.block, page.a
                ));
                continue;
            }
            let seen = self.seen.entry(write).or_default();
            seen.in_the_store |= name == STORE;
            seen.through_the_ring |= name == SWEEP;
            seen.in_the_run |= name != STORE && name != SWEEP;
            if story.opcode() == Some(Opcode::GetPage) {
                self.look(story, Key::Block(rel, page.block), page.a, to);
            } else if page.a != story.asked.a {
                faults.add(format_args!(
                    "(b) {name}: block {} of {rel} as of {} has {}",
                    page.block, story.asked.a, page.a
                ));
            }
        }
    }

    /// Hash of all bytes of a page; version 0 is a page of zeros.
    fn hash(&mut self, w: Write) -> u64 {
        *self.hashes.entry(w).or_insert_with(|| match w.version {
            0 => xxh3_64(&[0; PAGE_SIZE]),
            version => xxh3_64(&content::page(w.rel, w.block, version)),
        })
    }

    fn change(&mut self, story: &Story, opcode: Opcode, ran: Ran, faults: &mut Faults) {
        let a = &story.asked;
        let (rel, block, version) = (a.rel, a.block, a.a);
        let mut put = |key, value| {
            self.changes.entry(key).or_default().push(Change { asked: a.time, ran, value });
        };
        let value = match opcode {
            Opcode::WritePage => {
                put(Key::Block(rel, block), version);
                1
            }
            Opcode::Extend => {
                put(Key::Block(rel, block), version);
                put(Key::Size(rel), u64::from(block) + 1);
                u64::from(block) + 1
            }
            Opcode::ZeroExtend => {
                let end = block + u32::from(a.count);
                (block..end).for_each(|b| put(Key::Block(rel, b), 0));
                put(Key::Size(rel), end.into());
                end.into()
            }
            Opcode::Truncate => {
                // More than any relation here ever has.
                (block..block + 1024).for_each(|b| put(Key::Block(rel, b), ABSENT));
                put(Key::Size(rel), block.into());
                block.into()
            }
            Opcode::Create | Opcode::Unlink => {
                put(Key::Exists(rel), u64::from(opcode == Opcode::Create));
                0
            }
            _ => 0,
        };
        if matches!(ran, Ran::By(_)) {
            if matches!(opcode, Opcode::WritePage | Opcode::Extend) {
                self.written.insert(Write { rel, block, version }, Seen::default());
                if self.hash(Write { rel, block, version }) != a.b {
                    faults.add(format_args!("(a) version {version} of block {block} of {rel} is not what was written"));
                }
            }
            if let Some(got) = story.got.filter(|g| g.a != value) {
                faults.add(format_args!("(a) {} answered {}, not {value}", opcode.name(), got.a));
            }
        }
    }

    /// Holds every look against the changes, and looks for acknowledged writes that nobody has read.
    pub(super) fn judge(&mut self, faults: &mut Faults, summary: &mut Summary) {
        for changes in self.changes.values_mut() {
            changes.retain(|c| c.ran != Ran::Never);
            changes.sort_by_key(|c| c.asked);
        }
        for (key, looks) in &self.looks {
            let none = Vec::new();
            let mut changes = self.changes.get(key).unwrap_or(&none).clone();
            // What one read has seen, the next must see as well.
            let mut by_end: Vec<&Look> = looks.iter().collect();
            by_end.sort_by_key(|l| l.to);
            for look in by_end {
                let before = self.before(*key);
                if let Err(why) = judge(before, &mut changes, look) {
                    let name = self.names.get(look.whose as usize).map_or("?", |n| n);
                    faults.add(format_args!("(b) {name} request {}: {key:?} was {}: {why}", look.id, show(look.value)));
                }
            }
        }
        for (write, seen) in self.writes() {
            summary.writes += 1;
            summary.read_back += u64::from(seen.in_the_run);
            if !seen.in_the_run && !seen.through_the_ring {
                faults.add(format_args!("(b) {write:?} was acknowledged, and no read shows it"));
            }
            if !seen.in_the_store {
                faults.add(format_args!("(b) {write:?} was acknowledged, and is not in the store"));
            }
        }
        self.is_swept(faults);
    }

    /// Everything that there is was read from the store.
    fn is_swept(&self, faults: &mut Faults) {
        let blocks = self.changes.keys().filter_map(|k| match k {
            Key::Block(rel, _) => Some(*rel),
            _ => None,
        });
        for rel in blocks.collect::<std::collections::HashSet<u32>>() {
            let size = self.stored.get(&Key::Size(rel)).copied();
            let missing = (0..size.unwrap_or(0) as u32).any(|b| !self.stored.contains_key(&Key::Block(rel, b)));
            if size.is_none() || missing {
                faults.add(format_args!("(b) relation {rel} was not read whole from the store"));
            }
        }
    }
}

fn show(value: u64) -> String {
    match value {
        ABSENT => "absent".into(),
        n => n.to_string(),
    }
}

/// Whether a look may have seen what it saw. What it saw of a change was there by its end: later looks must see it too.
fn judge(before: u64, changes: &mut [Change], look: &Look) -> Result<(), String> {
    // Changes asked for before the look ended, the last of them first.
    let end = changes.partition_point(|c| c.asked <= look.to);
    for i in (0..end).rev() {
        let c = changes[i];
        if c.value == look.value {
            // Only a version is of one change alone.
            let is_version = look.value >= FIRST_VERSION && look.value != ABSENT;
            if is_version && !matches!(c.ran, Ran::By(t) if t <= look.to) {
                changes[i].ran = Ran::By(look.to);
            }
            return Ok(());
        }
        if matches!(c.ran, Ran::By(t) if t < look.from) {
            return Err(format!(
                "{} was acknowledged {} us before it was asked",
                show(c.value),
                (look.from - time(c)) / 1000
            ));
        }
    }
    if look.value == before {
        return Ok(());
    }
    Err(format!("nobody made it so; it was {} at the beginning", show(before)))
}

fn time(c: Change) -> u64 {
    match c.ran {
        Ran::By(t) => t,
        _ => c.asked,
    }
}
