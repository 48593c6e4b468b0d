//! The end of a round: everything is read back, through the ring and then straight from the store, into logs like those
//! of the backends.

use super::super::{content, Failure};
use super::checker::Write;
use super::fleet::OWN_SLOTS;
use super::log::{Kind, Record, Writer};
use super::mix::{own, scratch, MAX_VECTOR, SHARED, SHARED_BLOCKS};
use super::session::{rel, Plan, Session, Work, PATIENCE_MS};
use crate::service::store::{Store, StoreOptions};
use crate::service::{ReadLsn, ServiceError, PAGE_SIZE};
use shmuring::backend::{Backend, Wait};
use shmuring::region::Region;
use shmuring::request::{Completion, Opcode, Request};
use std::collections::VecDeque;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Which relations there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relations {
    pub(super) backends: u32,
}

impl Relations {
    /// Those with pages.
    fn paged(self) -> impl Iterator<Item = u32> {
        std::iter::once(SHARED).chain((0..self.backends).map(own))
    }

    fn scratch(self) -> impl Iterator<Item = u32> {
        (0..self.backends).map(scratch)
    }
}

fn own_range(region: &Region) -> Result<Backend<'_>, Failure> {
    let slots = region.parts().slots.len() as u32;
    Ok(Backend::attach(region, slots - OWN_SLOTS, OWN_SLOTS)?)
}

/// Makes the relations, before anything is killed.
pub(super) fn seed(region: &Region, backends: u32) -> Result<(), Failure> {
    let mut backend = own_range(region)?;
    let mut ask = |r: &Request<'_>| -> Result<(), Failure> {
        let done = backend.call(r, &Wait::for_ms(30_000), &mut [])?;
        match done.errno {
            0 => Ok(()),
            errno => Err(format!("seeding: {}: errno {errno}", r.opcode.name()).into()),
        }
    };
    for number in (Relations { backends }).paged() {
        ask(&Request::new(Opcode::Create, rel(number)))?;
    }
    let mut grow = Request::new(Opcode::ZeroExtend, rel(SHARED));
    grow.arg = SHARED_BLOCKS;
    ask(&grow)?;
    for block in (0..SHARED_BLOCKS).step_by(MAX_VECTOR as usize) {
        let image: Vec<u8> = (block..block + MAX_VECTOR).flat_map(|b| content::page(SHARED, b, 1)).collect();
        ask(&Request::write_page(rel(SHARED), block, MAX_VECTOR as u8, 1, &image))?;
    }
    backend.detach(&Wait::for_ms(30_000))?;
    Ok(())
}

/// Reads what is there now, and versions that nobody read while they were the newest.
pub(super) fn through_the_ring(
    region: &Region,
    logs: &Path,
    relations: Relations,
    unread: Vec<Write>,
) -> Result<(), Failure> {
    let log = Writer::open(&logs.join("sweep"), 0)?;
    let mut session = Session::new(region, own_range(region)?, log, PATIENCE_MS);
    session.log.put(Record { a: std::process::id().into(), ..Record::new(Kind::Start) });
    session.settle()?;
    let sizes = relations.paged().map(|r| Plan::new(Opcode::RelSize, r, 0, 0));
    let exist = relations.scratch().map(|r| Plan::new(Opcode::RelExists, r, 0, 0));
    let mut list = List { todo: sizes.chain(exist).collect(), out: 0 };
    list.todo.extend(unread.iter().map(|w| {
        let mut plan = Plan::new(Opcode::GetPageAt, w.rel, w.block, 1);
        plan.lsn = w.version;
        plan
    }));
    session.run(&mut list)?;
    session.log.put(Record::new(Kind::End));
    session.log.flush()
}

/// Requests one after the other; the size of a relation brings the reads of its pages.
struct List {
    todo: VecDeque<Plan>,
    out: u32,
}

impl Work for List {
    fn next(&mut self) -> Option<Plan> {
        let plan = self.todo.pop_front()?;
        self.out += 1;
        Some(plan)
    }

    fn is_over(&self) -> bool {
        self.todo.is_empty() && self.out == 0
    }

    fn answered(&mut self, plan: &Plan, done: &Completion) {
        self.out -= 1;
        if plan.opcode == Opcode::RelSize && done.is_ok() {
            let size = done.value as u32;
            let pieces = (0..size).step_by(MAX_VECTOR as usize);
            let read = |b| Plan::new(Opcode::GetPage, plan.rel, b, MAX_VECTOR.min(size - b) as u8);
            self.todo.extend(pieces.map(read));
        }
    }

    fn cancelled(&mut self, _: &Plan) {
        self.out -= 1;
    }
}

/// Opens the store, which nobody serves now, and reads what is there and every version that was acknowledged. Then drops
/// all but the newest, so that a long run does not fill the disk.
pub(super) fn straight_from_the_store(
    path: &Path,
    logs: &Path,
    relations: Relations,
    acknowledged: &[Write],
) -> Result<(), Failure> {
    let store = Store::open(path, StoreOptions::default()).map_err(|e| format!("the store: {e}"))?;
    let mut log = Direct { log: Writer::open(&logs.join("store"), 0)?, id: 0, page: vec![0; PAGE_SIZE] };
    log.log.put(Record::new(Kind::Start));
    for number in relations.paged() {
        let size = store.size_of(rel(number), ReadLsn::LATEST);
        let found = size.map(|n| n.map_or(0, u64::from));
        let blocks = found.as_ref().map_or(0, |n| *n as u32);
        log.note(Opcode::RelSize, number, 0, 0, found);
        for block in 0..blocks {
            log.read(&store, number, block, None)?;
        }
    }
    for number in relations.scratch() {
        let size = store.size_of(rel(number), ReadLsn::LATEST);
        log.note(Opcode::RelExists, number, 0, 0, size.map(|n| u64::from(n.is_some())));
    }
    for w in acknowledged {
        log.read(&store, w.rel, w.block, Some(w.version))?;
    }
    log.log.put(Record::new(Kind::End));
    log.log.flush()?;
    store.gc(store.last_lsn()).map_err(|e| format!("the store: {e}"))?;
    Ok(())
}

/// Answers of the store, written down as those of a ring.
struct Direct {
    log: Writer,
    id: u32,
    page: Vec<u8>,
}

impl Direct {
    fn note(&mut self, opcode: Opcode, rel: u32, block: u32, lsn: u64, found: Result<u64, ServiceError>) {
        self.id += 1;
        let (id, count) = (self.id, u8::from(opcode.fills_buffers()));
        let asked =
            Record { opcode: opcode as u8, count, id, slot: id, rel, block, a: lsn, ..Record::new(Kind::Asked) };
        self.log.put(Record { code: PATIENCE_MS, ..asked });
        let (code, a) = found.map_or_else(|e| (e.errno.unsigned_abs(), 0), |value| (0, value));
        self.log.put(Record { id, slot: id, code, a, ..Record::new(Kind::Got) });
        if code == 0 && opcode.fills_buffers() {
            let version = self.page.get(24..32).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or([0; 8])));
            self.log.put(Record { id, block, a: version, b: xxh3_64(&self.page), ..Record::new(Kind::Page) });
        }
        self.log.put(Record { id, code, a, ..Record::new(Kind::Finished) });
    }

    fn read(&mut self, store: &Store, number: u32, block: u32, at: Option<u64>) -> Result<(), Failure> {
        let (opcode, lsns) = at.map_or((Opcode::GetPage, ReadLsn::LATEST), |v| (Opcode::GetPageAt, ReadLsn::at(v)));
        let mut page = std::mem::take(&mut self.page);
        let found = store.read_pages(rel(number), block, 1, lsns, &mut page);
        self.page = page;
        self.note(opcode, number, block, at.unwrap_or(0), found.map(|_| 1));
        if self.id.is_multiple_of(256) {
            self.log.flush()?;
        }
        Ok(())
    }
}
