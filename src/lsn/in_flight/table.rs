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
use super::index::Index;
use super::key::{Key, Mode, MutationOrder};
use std::collections::VecDeque;

/// Nodes of relations and databases that are kept although nobody touches them, so that steady work makes none anew.
const IDLE: usize = 256;
/// Relations that are found without a search.
const LATELY: usize = 256;

/// Requests that do not conflict with each other, waiting to be let in.
#[derive(Debug)]
struct Run {
    modes: u8,
    /// A request of it, for messages.
    by: u64,
    units: Vec<u32>,
}

/// A key that requests in flight touch. One line of a cache.
#[derive(Debug)]
#[repr(align(64))]
pub(in super::super) struct Node {
    pub(in super::super) key: Key,
    pub(in super::super) parent: u32,
    /// Units and nodes below that name it.
    refs: u32,
    /// Modes of the run that is in, and how many of it are left.
    modes: u8,
    holders: u32,
    by: u64,
    /// Its runs, in [`Table::waiting`]; `NONE`: nobody waits.
    waiting: u32,
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

/// Where in [`Table::lately`] a relation is.
#[inline]
const fn lately(key: Key) -> Option<usize> {
    match key {
        Key::Relation(rel) => Some((rel.rel_number.wrapping_mul(5).wrapping_add(rel.fork as u32)) as usize % LATELY),
        _ => None,
    }
}

/// The table of keys in flight.
#[derive(Debug)]
pub(in super::super) struct Table {
    nodes: Slab<Node>,
    numbers: Index,
    /// Who waits, of the keys that are waited for. None of them is empty.
    waiting: Slab<VecDeque<Run>>,
    order: MutationOrder,
    /// Numbers of relations asked for lately, by part of their names. They may have gone to other keys since.
    lately: [u32; LATELY],
    idle: Vec<u32>,
}

impl Table {
    pub(in super::super) fn new(order: MutationOrder) -> Self {
        let (nodes, waiting) = (Slab::new(), Slab::new());
        Self { nodes, numbers: Index::new(), waiting, order, lately: [NONE; LATELY], idle: Vec::new() }
    }

    pub(in super::super) fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number)
    }

    pub(in super::super) fn node_mut(&mut self, number: u32) -> Option<&mut Node> {
        self.nodes.get_mut(number)
    }

    /// Asks for the line of a node that will be changed soon.
    pub(in super::super) fn ask_ahead(&self, number: u32) {
        self.nodes.ask_ahead(number);
    }

    /// Keys that are held in memory.
    pub(in super::super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The node of `key`, which lives until as many calls of [`Table::leave`].
    pub(in super::super) fn enter(&mut self, key: Key) -> u32 {
        let lately = lately(key);
        if let Some(number) = lately.and_then(|at| self.lately.get(at).copied()) {
            if let Some(node) = self.nodes.get_mut(number).filter(|node| node.key == key) {
                node.refs += 1;
                return number;
            }
        }
        let hash = self.numbers.hash(key);
        let nodes = &self.nodes;
        let found = self.numbers.find(hash, |n| nodes.get(n).is_some_and(|node| node.key == key));
        let number = match found.and_then(|n| self.nodes.get_mut(n).map(|node| (n, node))) {
            Some((number, node)) => {
                node.refs += 1;
                number
            }
            None => self.make(key, hash),
        };
        if let Some(place) = lately.and_then(|at| self.lately.get_mut(at)) {
            *place = number;
        }
        number
    }

    fn make(&mut self, key: Key, hash: u32) -> u32 {
        let parent = key.parent().map_or(NONE, |above| self.enter(above));
        let node = Node { key, parent, refs: 1, modes: 0, holders: 0, by: 0, waiting: NONE, reads: List::default() };
        let number = self.nodes.insert(node);
        self.numbers.insert(hash, number);
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
        self.numbers.remove(self.numbers.hash(node.key), number);
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
        if node.waiting == NONE && (node.holders == 0 || node.modes & conflicts == 0) {
            node.modes = if node.holders == 0 { mode as u8 } else { node.modes | mode as u8 };
            node.holders += 1;
            node.by = id;
            return Acquired::Held;
        }
        let by = node.by;
        if node.waiting == NONE {
            node.waiting = self.waiting.insert(VecDeque::new());
        }
        let Some(waiting) = self.waiting.get_mut(node.waiting) else { return Acquired::Held };
        let ahead = match waiting.back_mut() {
            Some(last) if last.modes & conflicts == 0 => {
                last.modes |= mode as u8;
                last.units.push(unit);
                return Acquired::Waits(waiting.iter().rev().nth(1).map_or(by, |r| r.by));
            }
            Some(last) => last.by,
            None => by,
        };
        waiting.push_back(Run { modes: mode as u8, by: id, units: vec![unit] });
        Acquired::Waits(ahead)
    }

    /// Whether a read of `leaf` would have to wait now: a mutation of it, or of what is above, is in flight or waits.
    pub(in super::super) fn read_must_wait(&self, leaf: u32) -> bool {
        let (mut at, mut mode) = (leaf, Mode::Read);
        // A key has at most two above it.
        for _ in 0..3 {
            let Some(node) = self.nodes.get(at) else { return false };
            let conflicts = mode.conflicts(self.order);
            if node.waiting != NONE || (node.holders > 0 && node.modes & conflicts != 0) {
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
        let Some(waiting) = self.waiting.get_mut(node.waiting) else { return };
        if let Some(run) = waiting.pop_front() {
            node.modes = run.modes;
            node.by = run.by;
            node.holders = run.units.len() as u32;
            granted.extend(run.units);
        }
        if waiting.is_empty() {
            self.waiting.remove(core::mem::replace(&mut node.waiting, NONE));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_line_of_a_cache() {
        assert_eq!([size_of::<Node>(), size_of::<Option<Node>>()], [64; 2]);
    }
}
