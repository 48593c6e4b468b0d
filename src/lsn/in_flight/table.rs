//! Holders and waiters of each key.
//!
//! A request takes its keys all at once, at one moment; on each key those that came earlier and conflict go first. So
//! whoever waits, waits for something that came before it: no cycle, no deadlock, nobody overtaken for ever.
//!
//! # Cost
//! Waiters of a key lie in runs of requests that do not conflict with each other, and a run is let in as a whole. Taking
//! and releasing a key cost the same however many hold it or wait for it. Memory: a node for each key touched by a request
//! in flight and for each key above it.

use super::super::slab::{List, Slab, NONE};
use super::key::{Key, Mode, MutationOrder};
use core::hash::{BuildHasher, Hasher};
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, VecDeque};

/// Nodes of relations and databases that are kept although nobody touches them, so that steady work makes none anew.
const IDLE: usize = 256;

/// Requests that do not conflict with each other, waiting to be let in.
#[derive(Debug)]
struct Run {
    modes: u8,
    /// A request of it, for messages.
    by: u64,
    units: Vec<u32>,
}

/// A key that requests in flight touch.
#[derive(Debug)]
pub(in super::super) struct Node {
    pub(in super::super) key: Key,
    pub(in super::super) parent: u32,
    /// Units and nodes below that name it.
    refs: u32,
    /// Modes of the run that is in, and how many of it are left.
    modes: u8,
    holders: u32,
    by: u64,
    waiting: VecDeque<Run>,
    /// Reads of the key that others may join.
    pub(in super::super) reads: List<2>,
}

/// What came of taking a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Acquired {
    /// Held now.
    Held,
    /// Waits for a request of this id, among others.
    Waits(u64),
}

/// Folded multiplication with a secret of this process: cheap, and its collisions cannot be chosen from outside.
#[derive(Debug, Clone, Copy)]
struct Mix(u64);

struct Mixer(u64);

impl BuildHasher for Mix {
    type Hasher = Mixer;
    fn build_hasher(&self) -> Mixer {
        Mixer(self.0)
    }
}

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    #[inline]
    fn write_u64(&mut self, v: u64) {
        let wide = u128::from(self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        self.0 = (wide as u64) ^ ((wide >> 64) as u64);
    }
}

/// A key as its words, hashed by three multiplications.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Words([u64; 3]);

impl core::hash::Hash for Words {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        for w in self.0 {
            state.write_u64(w);
        }
    }
}

/// The table of keys in flight.
#[derive(Debug)]
pub(in super::super) struct Table {
    nodes: Slab<Node>,
    numbers: HashMap<Words, u32, Mix>,
    order: MutationOrder,
    /// The relation asked for last: the next one is often the same.
    last: (Key, u32),
    idle: Vec<u32>,
}

impl Table {
    pub(in super::super) fn new(order: MutationOrder) -> Self {
        let secret = RandomState::new().hash_one(0u8) | 1;
        let numbers = HashMap::with_hasher(Mix(secret));
        Self { nodes: Slab::new(), numbers, order, last: (Key::None, NONE), idle: Vec::new() }
    }

    pub(in super::super) fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number)
    }

    pub(in super::super) fn node_mut(&mut self, number: u32) -> Option<&mut Node> {
        self.nodes.get_mut(number)
    }

    /// Keys that are held in memory.
    pub(in super::super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node of `key`, which lives until as many calls of [`Table::leave`].
    pub(in super::super) fn enter(&mut self, key: Key) -> u32 {
        if key == self.last.0 {
            if let Some(node) = self.nodes.get_mut(self.last.1) {
                node.refs += 1;
                return self.last.1;
            }
        }
        let words = Words(key.words());
        let found = self.numbers.get(&words).copied();
        let number = match found.and_then(|n| self.nodes.get_mut(n).map(|node| (n, node))) {
            Some((number, node)) => {
                node.refs += 1;
                number
            }
            None => self.make(key, words),
        };
        if matches!(key, Key::Relation(_)) {
            self.last = (key, number);
        }
        number
    }

    fn make(&mut self, key: Key, words: Words) -> u32 {
        let parent = key.parent().map_or(NONE, |above| self.enter(above));
        let node = Node {
            key,
            parent,
            refs: 1,
            modes: 0,
            holders: 0,
            by: 0,
            waiting: VecDeque::new(),
            reads: List::default(),
        };
        let number = self.nodes.insert(node);
        self.numbers.insert(words, number);
        number
    }

    pub(in super::super) fn leave(&mut self, number: u32) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        node.refs = node.refs.saturating_sub(1);
        if node.refs > 0 {
            return;
        }
        if matches!(node.key, Key::Relation(_) | Key::Database(_)) {
            self.idle.push(number);
            if self.idle.len() > IDLE {
                self.drop_idle();
            }
            return;
        }
        self.drop_node(number);
    }

    fn drop_node(&mut self, number: u32) {
        let Some(node) = self.nodes.remove(number) else { return };
        self.numbers.remove(&Words(node.key.words()));
        if self.last.1 == number {
            self.last = (Key::None, NONE);
        }
        if node.parent != NONE {
            self.leave(node.parent);
        }
    }

    /// Forgets the keys that nobody has touched since they were left. Every so many leaves, so each pays a constant share.
    fn drop_idle(&mut self) {
        for number in core::mem::take(&mut self.idle) {
            if self.nodes.get(number).is_some_and(|n| n.refs == 0) {
                self.drop_node(number);
            }
        }
    }

    /// Takes `number` for `unit`, a unit of request `id`; or queues it, and a later [`Table::release`] names it.
    pub(in super::super) fn acquire(&mut self, number: u32, mode: Mode, unit: u32, id: u64) -> Acquired {
        let Some(node) = self.nodes.get_mut(number) else { return Acquired::Held };
        let conflicts = mode.conflicts(self.order);
        if node.waiting.is_empty() && (node.holders == 0 || node.modes & conflicts == 0) {
            node.modes = if node.holders == 0 { mode as u8 } else { node.modes | mode as u8 };
            node.holders += 1;
            node.by = id;
            return Acquired::Held;
        }
        let ahead = match node.waiting.back_mut() {
            Some(last) if last.modes & conflicts == 0 => {
                last.modes |= mode as u8;
                last.units.push(unit);
                return Acquired::Waits(if node.waiting.len() == 1 {
                    node.by
                } else {
                    node.waiting.iter().rev().nth(1).map_or(node.by, |r| r.by)
                });
            }
            Some(last) => last.by,
            None => node.by,
        };
        node.waiting.push_back(Run { modes: mode as u8, by: id, units: vec![unit] });
        Acquired::Waits(ahead)
    }

    /// Whether a read of `leaf` would have to wait now: a mutation of it, or of what is above, is in flight or waits.
    pub(in super::super) fn read_must_wait(&self, leaf: u32) -> bool {
        let (mut at, mut mode) = (leaf, Mode::Read);
        // A key has at most two above it.
        for _ in 0..3 {
            let Some(node) = self.nodes.get(at) else { return false };
            let conflicts = mode.conflicts(self.order);
            if !node.waiting.is_empty() || (node.holders > 0 && node.modes & conflicts != 0) {
                return true;
            }
            (at, mode) = (node.parent, mode.above());
        }
        false
    }

    /// Gives a held key back; the units that are let in go to `granted`.
    pub(in super::super) fn release(&mut self, number: u32, granted: &mut Vec<u32>) {
        let Some(node) = self.nodes.get_mut(number) else { return };
        node.holders = node.holders.saturating_sub(1);
        if node.holders > 0 {
            return;
        }
        node.modes = 0;
        if let Some(run) = node.waiting.pop_front() {
            node.modes = run.modes;
            node.by = run.by;
            node.holders = run.units.len() as u32;
            granted.extend(run.units);
        }
    }
}
