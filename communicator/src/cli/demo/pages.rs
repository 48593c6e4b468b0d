//! The workload on a `store`: a relation that all backends read, and one each that it writes and the others read as well.

use super::super::content;
use super::super::Failure;
use super::call;
use super::driver::{Plan, Workload};
use super::ledger::{Ledger, Phase, MAX_BLOCKS};
use super::tally::Tally;
use crate::service::{Rel, PAGE_SIZE};
use shmuring::backend::Backend;
use shmuring::lsn::written::Written;
use shmuring::request::{Completion, Opcode, RelTag, Request};
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Blocks of the shared relation.
pub(super) const SHARED_BLOCKS: u32 = 1024;
/// A relation that nobody makes.
const NOBODY: u32 = 999;
/// Blocks that a backend's relation begins with, and is cut down to.
const FIRST_BLOCKS: u32 = 32;
/// Size at which it is cut down.
const CUT_AT: u32 = 512;

/// The relation of that file number in the demo's database.
pub(super) const fn rel(rel_number: u32) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 1, rel_number, fork: 0 }
}

/// The relation that everybody reads.
pub(super) const SHARED: u32 = 1;

const fn own_number(index: u32) -> u32 {
    1000 + index
}

/// What a request must come to.
#[derive(Clone, Debug)]
pub(super) enum Expect {
    Shared,
    Own { block: u32, between: Vec<(u64, u64)> },
    Other { index: u32, cuts: u64, floor: u64 },
    Write { block: u32 },
    Extend { block: u32 },
    ZeroExtend,
    Truncate { blocks: u32 },
    Value(u64),
    Size(u64),
    Nothing,
}

/// The state of one backend's work.
pub(super) struct Pages<'r> {
    index: u32,
    ledgers: Vec<Ledger>,
    shared: Ledger,
    /// Since when pages and sizes are as they are: noted before a write, asked for a read (R12).
    written: Written<'r>,
    /// Blocks of the own relation with a request in flight: requests in flight have no order (R4).
    busy: HashSet<u32>,
    /// Requests in flight that need the own relation's size to stay.
    flying: u32,
    resizing: bool,
    /// The relation is being cut down: leave it alone.
    cutting: bool,
    cursor: u32,
    max_vector: u32,
    rng: u64,
}

impl<'r> Pages<'r> {
    /// Opens the ledgers; brings the own relation and its ledger together, as a successor must after a death.
    pub(super) fn open(
        dir: &Path,
        index: u32,
        backends: u32,
        max_vector: u32,
        backend: &mut Backend<'r>,
        tally: &mut Tally,
    ) -> Result<Self, Failure> {
        let ledgers = (0..backends).map(|i| Ledger::open(dir, i)).collect::<Result<Vec<_>, _>>()?;
        let rng = u64::from(std::process::id()) << 20 | u64::from(index) << 1 | 1;
        let this = Self {
            index,
            ledgers,
            shared: Ledger::shared(dir)?,
            written: backend.last_written(),
            busy: HashSet::new(),
            flying: 0,
            resizing: false,
            cutting: false,
            cursor: 0,
            max_vector: max_vector.clamp(1, 32),
            rng,
        };
        this.settle_own(backend, tally)?;
        Ok(this)
    }

    fn own(&self) -> &Ledger {
        &self.ledgers[self.index as usize]
    }

    /// After a start or a death: what is there must be what was acknowledged or attempted; from then on it is exact.
    fn settle_own(&self, backend: &mut Backend<'_>, tally: &mut Tally) -> Result<(), Failure> {
        let (own, tag) = (self.own(), rel(own_number(self.index)));
        if own.created().load(Ordering::SeqCst) == 0 {
            let done = call(backend, &Request::new(Opcode::Create, tag), &mut [])?;
            if !done.is_ok() && i32::from(done.errno) != libc::EEXIST {
                return Err(format!("create: errno {}", { done.errno }).into());
            }
            own.created().store(1, Ordering::SeqCst);
        }
        let size = Request { lsn: self.written.get_relation(tag), ..Request::new(Opcode::RelSize, tag) };
        let found = call(backend, &size, &mut [])?;
        let (acknowledged, attempted) = own.size().get();
        let size = found.value;
        if !found.is_ok() || (size != acknowledged && size != attempted) {
            tally.page(Err(format!(
                "relation {tag:?}: size {size}, acknowledged {acknowledged}, attempted {attempted}"
            )));
        }
        own.size().settle(size);
        for block in 0..size as u32 {
            let mut page = vec![0; PAGE_SIZE];
            let done = call(backend, &Request::get_page(tag, block, 1, self.written.get(tag, block)), &mut page)?;
            if !done.is_ok() {
                tally.error(format!("{tag:?} block {block}: errno {}", { done.errno }));
                continue;
            }
            let between = own.block(block).get();
            match content::verify(&page, tag.rel_number, block).and_then(|v| within(block, v, between).map(|()| v)) {
                Ok(version) => {
                    own.block(block).settle(version);
                    tally.page(Ok(()));
                }
                Err(why) => tally.page(Err(why)),
            }
        }
        for block in size as u32..MAX_BLOCKS {
            own.block(block).settle(0);
        }
        if own.cuts().load(Ordering::SeqCst) % 2 == 1 {
            own.cuts().fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// The LSN of a change, which is the version of the page too. WAL is one line of positions for all, in units of 8.
    fn next_lsn(&self) -> u64 {
        let lsn = self.shared.wal().fetch_add(8, Ordering::SeqCst) + 8;
        self.own().version().store(lsn, Ordering::SeqCst);
        lsn
    }

    /// A read says since when what it asks for is as it is.
    fn since(&self, mut plan: Plan<Expect>) -> Plan<Expect> {
        plan.phase = self.shared.phase();
        match plan.opcode {
            Opcode::GetPage | Opcode::Prefetch if plan.count > 1 => {
                plan.block_lsns = vec![0; plan.count.into()];
                self.written.get_range(plan.rel, plan.block, &mut plan.block_lsns);
            }
            Opcode::GetPage => plan.lsn = self.written.get(plan.rel, plan.block),
            Opcode::RelSize | Opcode::RelExists => plan.lsn = self.written.get_relation(plan.rel),
            _ => {}
        }
        plan
    }

    fn random(&mut self, below: u32) -> u32 {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        ((self.rng >> 32) % u64::from(below.max(1))) as u32
    }

    fn size(&self) -> u32 {
        self.own().size().get().0 as u32
    }

    fn read_shared(&mut self, count: u32) -> Plan<Expect> {
        let block = if count == 1 {
            self.random(SHARED_BLOCKS)
        } else {
            self.cursor = (self.cursor + count) % (SHARED_BLOCKS - count);
            self.cursor
        };
        Plan::new(Opcode::GetPage, rel(SHARED), block, count as u8, Expect::Shared)
    }

    fn read_own(&mut self) -> Option<Plan<Expect>> {
        let size = self.size();
        let block = self.random(size);
        let count = (1 + self.random(self.max_vector.min(4))).min(size.saturating_sub(block));
        let blocks = block..block + count;
        if count == 0 || self.cutting || blocks.clone().any(|b| self.busy.contains(&b)) {
            return None;
        }
        self.busy.extend(blocks.clone());
        self.flying += 1;
        let between = blocks.map(|b| self.own().block(b).get()).collect();
        let tag = rel(own_number(self.index));
        Some(Plan::new(Opcode::GetPage, tag, block, count as u8, Expect::Own { block, between }))
    }

    fn read_other(&mut self) -> Option<Plan<Expect>> {
        let index = self.random(self.ledgers.len() as u32);
        let other = &self.ledgers[index as usize];
        let cuts = other.cuts().load(Ordering::SeqCst);
        let size = other.size().get().0 as u32;
        if index == self.index || size == 0 || cuts % 2 == 1 {
            return None;
        }
        let block = self.random(size);
        let floor = self.ledgers[index as usize].block(block).get().0;
        let expect = Expect::Other { index, cuts, floor };
        Some(Plan::new(Opcode::GetPage, rel(own_number(index)), block, 1, expect))
    }

    fn write(&mut self, opcode: Opcode, block: u32, expect: Expect) -> Plan<Expect> {
        let version = self.next_lsn();
        self.own().block(block).attempt(version);
        self.busy.insert(block);
        self.flying += 1;
        let number = own_number(self.index);
        self.written.note(rel(number), block, version);
        let mut plan = Plan::new(opcode, rel(number), block, 1, expect);
        plan.image = content::page(number, block, version);
        plan.lsn = version;
        plan
    }

    fn write_own(&mut self) -> Option<Plan<Expect>> {
        let size = self.size();
        let block = self.random(size);
        if size == 0 || self.cutting || self.busy.contains(&block) {
            return None;
        }
        Some(self.write(Opcode::WritePage, block, Expect::Write { block }))
    }

    /// Extends, zero-extends, or cuts down what has grown too long; one such change at a time.
    fn resize(&mut self, zero: bool) -> Option<Plan<Expect>> {
        let size = self.size();
        if self.resizing || (size >= CUT_AT && self.flying > 0) {
            return None;
        }
        self.resizing = true;
        if size < CUT_AT && !zero {
            self.own().size().attempt(u64::from(size) + 1);
            let plan = self.write(Opcode::Extend, size, Expect::Extend { block: size });
            self.written.note_relation(plan.rel, plan.lsn);
            return Some(plan);
        }
        self.flying += 1;
        let tag = rel(own_number(self.index));
        let mut plan = if size < CUT_AT {
            let mut plan = Plan::new(Opcode::ZeroExtend, tag, size, 0, Expect::ZeroExtend);
            plan.arg = 4;
            self.own().size().attempt(u64::from(size) + 4);
            plan
        } else {
            self.cutting = true;
            self.own().cuts().fetch_add(1, Ordering::SeqCst);
            self.own().size().attempt(u64::from(FIRST_BLOCKS));
            Plan::new(Opcode::Truncate, tag, FIRST_BLOCKS, 0, Expect::Truncate { blocks: FIRST_BLOCKS })
        };
        plan.lsn = self.next_lsn();
        self.written.note_range(tag, plan.block, plan.arg, plan.lsn);
        self.written.note_relation(tag, plan.lsn);
        Some(plan)
    }

    fn ask(&mut self) -> Option<Plan<Expect>> {
        let shared = rel(SHARED);
        Some(match self.random(4) {
            0 => Plan::new(Opcode::RelSize, shared, 0, 0, Expect::Value(u64::from(SHARED_BLOCKS))),
            1 => Plan::new(Opcode::RelExists, shared, 0, 0, Expect::Value(1)),
            2 => Plan::new(Opcode::RelExists, rel(NOBODY), 0, 0, Expect::Value(0)),
            _ if self.resizing => return None,
            _ => {
                self.resizing = true;
                self.flying += 1;
                let size = u64::from(self.size());
                Plan::new(Opcode::RelSize, rel(own_number(self.index)), 0, 0, Expect::Size(size))
            }
        })
    }

    /// An own request has come back.
    fn landed(&mut self, plan: &Plan<Expect>) {
        match &plan.expect {
            Expect::Own { block, between } => (0..between.len() as u32).for_each(|i| {
                self.busy.remove(&(block + i));
            }),
            Expect::Write { block } => {
                self.busy.remove(block);
            }
            Expect::Extend { block } => {
                self.busy.remove(block);
                self.resizing = false;
            }
            Expect::ZeroExtend | Expect::Truncate { .. } | Expect::Size(_) => {
                self.resizing = false;
                self.cutting = false;
            }
            _ => return,
        }
        self.flying -= 1;
    }

    /// A mutation was acknowledged: the ledger says so.
    fn acknowledge(&self, expect: &Expect) {
        let own = self.own();
        match expect {
            Expect::Write { block } => own.block(*block).acknowledge(),
            Expect::Extend { block } => {
                own.block(*block).acknowledge();
                own.size().acknowledge();
            }
            Expect::ZeroExtend => own.size().acknowledge(),
            Expect::Truncate { blocks } => {
                (*blocks..MAX_BLOCKS).for_each(|b| own.block(b).settle(0));
                own.size().acknowledge();
                own.cuts().fetch_add(1, Ordering::SeqCst);
            }
            _ => {}
        }
    }

    /// Whether a failure is what a race with another backend's truncate looks like.
    fn is_expected(&self, plan: &Plan<Expect>, errno: i32) -> bool {
        match &plan.expect {
            Expect::Other { index, cuts, .. } => {
                errno == libc::ENXIO && self.ledgers[*index as usize].cuts().load(Ordering::SeqCst) != *cuts
            }
            _ => false,
        }
    }

    fn judge_page(&self, plan: &Plan<Expect>, i: usize, page: &[u8]) -> Result<(), String> {
        let block = plan.block + i as u32;
        let version = content::verify(page, plan.rel.rel_number, block)?;
        match &plan.expect {
            Expect::Shared => within(block, version, (1, 1)),
            Expect::Own { between, .. } => within(block, version, between.get(i).copied().unwrap_or((0, 0))),
            Expect::Other { index, cuts, floor } => {
                let other = &self.ledgers[*index as usize];
                let newest = other.version().load(Ordering::SeqCst);
                // If nothing was cut meanwhile, what was acknowledged before we asked is the least that we may see.
                let floor = if other.cuts().load(Ordering::SeqCst) == *cuts { *floor } else { 0 };
                within(block, version, (floor, newest))
            }
            _ => Err(format!("an unexpected page of block {block}")),
        }
    }
}

fn within(block: u32, version: u64, (least, most): (u64, u64)) -> Result<(), String> {
    if (least..=most).contains(&version) {
        return Ok(());
    }
    Err(format!("block {block}: version {version}, acknowledged {least}, attempted {most}"))
}

impl Workload for Pages<'_> {
    type Expect = Expect;

    fn next(&mut self) -> Option<Plan<Expect>> {
        if self.size() < FIRST_BLOCKS {
            if let Some(plan) = self.resize(false) {
                return Some(plan);
            }
        }
        let plan = match self.random(1000) {
            0 => Some(Plan::new(Opcode::Sync, rel(SHARED), 0, 0, Expect::Nothing)),
            1..=10 => {
                let mut plan = self.read_shared(1);
                plan.cancel = true;
                Some(plan)
            }
            11..=20 => Some(Plan::new(Opcode::Prefetch, rel(SHARED), self.cursor, 8, Expect::Nothing)),
            21..=150 => {
                let count = 2 + self.random(self.max_vector - 1);
                Some(self.read_shared(count.min(self.max_vector)))
            }
            151..=250 => self.read_own(),
            251..=330 => self.read_other(),
            331..=430 => self.write_own(),
            431..=470 => self.resize(false),
            471..=480 => self.resize(true),
            481..=530 => self.ask(),
            531..=540 => Some(Plan::new(Opcode::Nop, rel(SHARED), 0, 0, Expect::Nothing)),
            _ => None,
        };
        let plan = plan.unwrap_or_else(|| self.read_shared(1));
        Some(self.since(plan))
    }

    fn is_timed(&self) -> bool {
        self.shared.phase() != Phase::Untold
    }

    fn timed(&mut self, plan: &Plan<Expect>, latency: Duration, tally: &mut Tally) {
        let phase = self.shared.phase();
        if plan.phase != phase || phase == Phase::Untold || plan.opcode != Opcode::GetPage {
            return;
        }
        match plan.expect {
            // Nobody ever writes it again.
            Expect::Shared if plan.count == 1 => tally.ready(phase == Phase::Held, latency),
            Expect::Own { .. } | Expect::Other { .. } if phase == Phase::Held => tally.hidden(latency),
            _ => {}
        }
    }

    fn judge<'p>(
        &mut self,
        plan: &Plan<Expect>,
        done: &Completion,
        page: &dyn Fn(usize) -> Option<&'p [u8]>,
        tally: &mut Tally,
    ) {
        let errno = i32::from(done.errno);
        if errno != 0 {
            if !self.is_expected(plan, errno) {
                let (op, block) = (plan.opcode.name(), plan.block);
                tally.error(format!("{op} of {} block {block}: errno {errno}", Rel(plan.rel)));
            }
        } else if plan.opcode == Opcode::GetPage {
            for i in 0..usize::from(plan.count) {
                let verdict = page(i).ok_or_else(|| "no page".to_string()).and_then(|p| self.judge_page(plan, i, p));
                tally.page(verdict);
            }
        } else {
            if let Expect::Value(n) | Expect::Size(n) = plan.expect {
                let (op, found) = (plan.opcode.name(), done.value);
                if found != n {
                    tally.page(Err(format!("{op} of {}: {found}, not {n}", Rel(plan.rel))));
                }
            }
            self.acknowledge(&plan.expect);
        }
        self.landed(plan);
    }

    fn cancelled(&mut self, plan: &Plan<Expect>) {
        self.landed(plan);
    }
}

/// Makes the relation that everybody reads.
pub(super) fn seed(backend: &mut Backend<'_>) -> Result<(), Failure> {
    let tag = rel(SHARED);
    let mut ask = |r: &Request<'_>| -> Result<(), Failure> {
        let done = call(backend, r, &mut [])?;
        if done.is_ok() {
            return Ok(());
        }
        Err(format!("{} while seeding: errno {}", r.opcode.name(), { done.errno }).into())
    };
    ask(&Request::new(Opcode::Create, tag))?;
    let mut grow = Request::new(Opcode::ZeroExtend, tag);
    grow.arg = SHARED_BLOCKS;
    ask(&grow)?;
    for block in (0..SHARED_BLOCKS).step_by(4) {
        let image: Vec<u8> = (block..block + 4).flat_map(|b| content::page(SHARED, b, 1)).collect();
        ask(&Request::write_page(tag, block, 4, 1, &image))?;
    }
    ask(&Request::new(Opcode::Sync, tag))
}
