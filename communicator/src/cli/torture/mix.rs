//! What a backend asks for: the mix of the demo, and more that is cancelled, that has a short deadline, and that goes
//! through a registered pool. It judges nothing: the checker does, from the logs.

use super::super::content;
use super::super::pool::POOL;
use super::buffers::POOL_PER_SLOT;
use super::session::{Plan, Work};
use shmuring::clock;
use shmuring::request::{Completion, Opcode};
use std::collections::HashSet;
use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// The relation that everybody reads and nobody changes.
pub(super) const SHARED: u32 = 1;
/// Its blocks.
pub(super) const SHARED_BLOCKS: u32 = 1024;
/// A relation that nobody makes.
pub(super) const NOBODY: u32 = 999;
/// Most blocks of one request: the bounce blocks of a slot.
pub(super) const MAX_VECTOR: u32 = 8;
/// Blocks that a backend's relation begins with, and is cut down to.
const FIRST_BLOCKS: u32 = 32;
/// Size at which it is cut down.
const CUT_AT: u32 = 256;

/// The relation that only the backends of a post write.
pub(super) const fn own(post: u32) -> u32 {
    1000 + post
}

/// The relation that only they make and remove.
pub(super) const fn scratch(post: u32) -> u32 {
    100_000 + post
}

/// xorshift64.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % u64::from(n.max(1))) as u32
    }
}

/// One backend's work.
pub(super) struct Mix {
    post: u32,
    posts: u32,
    depth: u32,
    random: Random,
    told: Arc<AtomicBool>,
    /// A backend whose parent is gone has nobody to work for.
    parent: u32,
    asked: u32,
    /// Of the own relation; `None`: to be asked for.
    size: Option<u32>,
    exists: Option<bool>,
    asked_size: bool,
    asked_exists: bool,
    knows_exists: bool,
    /// Blocks with a change in flight: what is in flight has no order (R4).
    busy: HashSet<u32>,
    changing: u32,
    resizing: bool,
    cutting: bool,
    /// Requests in flight.
    out: u32,
}

impl Mix {
    /// Work for a process of `post`, one of `posts`, until `told` is set.
    pub(super) fn new(post: u32, posts: u32, depth: u32, seed: u64, told: Arc<AtomicBool>) -> Self {
        Self {
            post,
            posts,
            depth,
            random: Random(seed | 1),
            told,
            parent: parent_id(),
            asked: 0,
            size: None,
            exists: None,
            asked_size: false,
            asked_exists: false,
            knows_exists: false,
            busy: HashSet::new(),
            changing: 0,
            resizing: false,
            cutting: false,
            out: 0,
        }
    }

    fn count(&mut self, most: u32) -> u32 {
        1 + self.random.below(most)
    }

    /// A read of any of the relations, through either pool.
    fn read(&mut self, rel: u32, blocks: u32, vector: bool) -> Plan {
        let by_pool = self.random.below(4) == 0;
        let most = if by_pool { POOL_PER_SLOT } else { MAX_VECTOR };
        let count = if vector { self.count(most).min(blocks) } else { 1 };
        let block = self.random.below(blocks - count + 1);
        let mut plan = Plan::new(Opcode::GetPage, rel, block, count as u8);
        if by_pool {
            plan.pool = POOL;
        }
        match self.random.below(100) {
            // At once, and after a time in which it is likely to be copied.
            0..=3 => plan.cancel_after = Some(0),
            4..=9 => plan.cancel_after = Some(u64::from(self.random.below(300_000))),
            10..=13 => {
                plan.expires_ms = Some(1 + self.random.below(20));
            }
            _ => {}
        }
        plan
    }

    fn read_others(&mut self) -> Plan {
        let post = self.random.below(self.posts);
        // May be past the end: then that is the answer.
        let blocks = if self.random.below(4) == 0 { CUT_AT } else { FIRST_BLOCKS };
        self.read(own(post), blocks, true)
    }

    fn change(&mut self, opcode: Opcode, block: u32) -> Plan {
        let mut plan = Plan::new(opcode, own(self.post), block, 1);
        plan.lsn = clock::now();
        plan.image = content::page(plan.rel, block, plan.lsn);
        if self.random.below(4) == 0 {
            plan.pool = POOL;
        }
        self.busy.insert(block);
        self.changing += 1;
        plan
    }

    fn write(&mut self) -> Option<Plan> {
        let size = self.size.filter(|n| *n > 0)?;
        let block = self.random.below(size);
        if self.cutting || self.busy.contains(&block) {
            return None;
        }
        Some(self.change(Opcode::WritePage, block))
    }

    /// Extends, zero-extends, or cuts down what has grown too long; one such change at a time.
    fn resize(&mut self, zero: bool) -> Option<Plan> {
        let size = self.size?;
        if self.resizing || (size >= CUT_AT && self.changing > 0) {
            return None;
        }
        self.resizing = true;
        if size < CUT_AT && !zero {
            return Some(self.change(Opcode::Extend, size));
        }
        self.changing += 1;
        let mut plan = Plan::new(Opcode::ZeroExtend, own(self.post), size, 0);
        if size < CUT_AT {
            plan.arg = 4;
        } else {
            self.cutting = true;
            (plan.opcode, plan.block) = (Opcode::Truncate, FIRST_BLOCKS);
        }
        plan.lsn = clock::now();
        Some(plan)
    }

    fn ask(&mut self) -> Plan {
        let post = self.random.below(self.posts);
        match self.random.below(5) {
            0 => Plan::new(Opcode::RelSize, SHARED, 0, 0),
            1 => Plan::new(Opcode::RelSize, own(post), 0, 0),
            2 => Plan::new(Opcode::RelExists, NOBODY, 0, 0),
            3 => Plan::new(Opcode::RelExists, own(post), 0, 0),
            _ => Plan::new(Opcode::RelExists, scratch(post), 0, 0),
        }
    }

    /// Makes the scratch relation, or removes it.
    fn toggle(&mut self) -> Option<Plan> {
        let exists = self.exists.take()?;
        let opcode = if exists { Opcode::Unlink } else { Opcode::Create };
        let mut plan = Plan::new(opcode, scratch(self.post), 0, 0);
        plan.lsn = clock::now();
        Some(plan)
    }

    /// What must be known before anything is changed.
    fn learn(&mut self) -> Option<Plan> {
        if !self.asked_size {
            self.asked_size = true;
            return Some(Plan::new(Opcode::RelSize, own(self.post), 0, 0));
        }
        if !self.asked_exists {
            self.asked_exists = true;
            return Some(Plan::new(Opcode::RelExists, scratch(self.post), 0, 0));
        }
        None
    }

    fn pick(&mut self) -> Option<Plan> {
        match self.random.below(1000) {
            0 => Some(Plan::new(Opcode::Sync, SHARED, 0, 0)),
            1..=10 => Some(Plan::new(Opcode::Prefetch, SHARED, 0, 8)),
            11..=150 => Some(self.read(SHARED, SHARED_BLOCKS, true)),
            151..=330 => Some(self.read_others()),
            331..=430 => self.write(),
            431..=470 => self.resize(false),
            471..=480 => self.resize(true),
            481..=530 => Some(self.ask()),
            531..=540 => Some(Plan::new(Opcode::Nop, SHARED, 0, 0)),
            541..=550 => self.toggle(),
            _ => None,
        }
    }

    fn landed(&mut self, plan: &Plan) {
        self.out -= 1;
        match plan.opcode {
            Opcode::WritePage => {
                self.busy.remove(&plan.block);
            }
            Opcode::Extend => {
                self.busy.remove(&plan.block);
                self.resizing = false;
            }
            Opcode::ZeroExtend | Opcode::Truncate => (self.resizing, self.cutting) = (false, false),
            _ => return,
        }
        self.changing -= 1;
    }
}

impl Work for Mix {
    fn next(&mut self) -> Option<Plan> {
        self.asked = self.asked.wrapping_add(1);
        if self.asked.is_multiple_of(256) && parent_id() != self.parent {
            self.told.store(true, Ordering::Relaxed);
        }
        if self.told.load(Ordering::Relaxed) || self.out >= self.depth {
            return None;
        }
        let grow = self.size.is_some_and(|n| n < FIRST_BLOCKS).then(|| self.resize(false)).flatten();
        let plan = self.learn().or(grow).or_else(|| self.pick());
        let plan = plan.unwrap_or_else(|| self.read(SHARED, SHARED_BLOCKS, false));
        self.out += 1;
        Some(plan)
    }

    fn is_over(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    fn answered(&mut self, plan: &Plan, done: &Completion) {
        self.landed(plan);
        if !done.is_ok() {
            return;
        }
        let mine = plan.rel == own(self.post);
        match plan.opcode {
            Opcode::RelSize if mine && self.size.is_none() => self.size = Some(done.value as u32),
            // The first answer alone: only that question was surely asked before anything changed.
            Opcode::RelExists if plan.rel == scratch(self.post) && !self.knows_exists => {
                self.knows_exists = true;
                self.exists = Some(done.value == 1);
            }
            Opcode::Extend => self.size = Some(plan.block + 1),
            Opcode::ZeroExtend => self.size = Some(plan.block + plan.arg),
            Opcode::Truncate => self.size = Some(plan.block),
            Opcode::Create => self.exists = Some(true),
            Opcode::Unlink => self.exists = Some(false),
            _ => {}
        }
    }

    fn cancelled(&mut self, plan: &Plan) {
        self.landed(plan);
    }
}
