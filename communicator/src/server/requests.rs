//! The unanswered requests, by slot: a slot has one at a time.

use super::finish::{Bytes, End, Failure, Finished};
use super::lookup::Looked;
use super::{OwnedClaim, RequestId, Ticket};
use crate::service::{Answer, MutationRequest, Page, ServiceError, Value, PAGE_SIZE};
use shmuring::lsn::scheduler;
use shmuring::request::{Job, Lsn, Opcode, MISSING};

/// A read whose parts (blocks) come one by one.
#[derive(Debug)]
pub(super) struct Pending {
    claim: OwnedClaim,
    /// For cancelling.
    pub(super) submitted: scheduler::Ticket,
    ticket: Ticket,
    left: u8,
    attempts: u32,
    /// The oldest of the LSNs as of which the parts are.
    lsn: Lsn,
    value: u64,
    bytes: Bytes,
}

/// A mutation that is not at the page service.
#[derive(Debug)]
pub(super) struct Mutating {
    pub(super) claim: OwnedClaim,
    pub(super) ticket: Ticket,
    /// It was sent and failed: with the image that was taken then.
    pub(super) prepared: Option<MutationRequest>,
}

/// What is known of a request that is not answered.
#[derive(Debug)]
pub(super) enum Entry {
    Read(Pending),
    Mutation(Mutating),
}

/// How many parts a read has.
pub(super) fn parts(job: &Job) -> u8 {
    match job.opcode {
        Opcode::GetPage | Opcode::GetPageAt | Opcode::Prefetch => job.count,
        _ => 1,
    }
}

/// What the size of a fork comes to for a request about it.
pub(super) fn of_size(job: &Job, blocks: Option<u32>) -> Result<u64, ServiceError> {
    match (job.opcode, blocks) {
        (Opcode::RelExists, blocks) => Ok(u64::from(blocks.is_some())),
        (_, Some(blocks)) => Ok(u64::from(blocks)),
        (_, None) if job.allow_missing => Ok(MISSING),
        (_, None) => Err(ServiceError::missing_relation(job.rel)),
    }
}

impl Pending {
    /// A read of which some pages may have been found already.
    pub(super) fn new(looked: Looked, submitted: scheduler::Ticket, ticket: Ticket) -> Self {
        let left = looked.wanted_parts().count_ones() as u8;
        let Looked { claim, found, lsn, .. } = looked;
        let value = found.len() as u64;
        let bytes = if found.is_empty() { Bytes::None } else { Bytes::Pages(found) };
        Self { claim, submitted, ticket, left, attempts: 1, lsn, value, bytes }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.claim.is_cancelled()
    }

    /// Takes the answer of a part; true if it was the last one.
    pub(super) fn take(&mut self, part: u8, answer: &Answer, attempts: u32) -> Result<bool, ServiceError> {
        let job = self.claim.job();
        match (&answer.value, job.opcode) {
            (Value::Page(page), Opcode::GetPage | Opcode::GetPageAt) => {
                let page = (part, page.clone());
                match &mut self.bytes {
                    Bytes::Pages(pages) => pages.push(page),
                    bytes => *bytes = Bytes::Pages(first_of(usize::from(self.left), page)),
                }
                self.lsn = self.lsn.min(answer.lsn);
                self.value += 1;
            }
            (Value::Page(_) | Value::Near, Opcode::Prefetch) => {}
            (Value::RelSize(blocks), Opcode::RelSize | Opcode::RelExists) => self.value = of_size(job, *blocks)?,
            (Value::DbSize(bytes), Opcode::DbSize) => self.value = *bytes,
            (Value::Segment(segment), Opcode::ReadSlru) => {
                if segment.len() > usize::from(job.count) * PAGE_SIZE {
                    let what = format!("a segment of {} bytes into {} buffers", segment.len(), job.count);
                    return Err(ServiceError::new(libc::EMSGSIZE, what));
                }
                self.value = segment.len() as u64;
                self.bytes = Bytes::Segment(segment.clone());
            }
            _ => return Err(ServiceError::new(libc::EIO, "the page service answered something else")),
        }
        self.attempts = self.attempts.max(attempts);
        self.left = self.left.saturating_sub(1);
        Ok(self.left == 0)
    }

    /// A part could not be had; true if that is no failure of the request and the part was the last one.
    pub(super) fn forgive(&mut self, error: &ServiceError) -> Option<bool> {
        // A prefetch is a hint: blocks that are not there are no error.
        let forgiven = self.claim.job().opcode == Opcode::Prefetch && matches!(error.errno, libc::ENOENT | libc::ENXIO);
        forgiven.then(|| {
            self.left = self.left.saturating_sub(1);
            self.left == 0
        })
    }

    /// All parts are there.
    pub(super) fn done(self) -> Finished {
        let lsn = if self.lsn == Lsn::MAX { 0 } else { self.lsn };
        let end = End::Done { value: self.value, lsn, attempts: self.attempts, bytes: self.bytes };
        Finished { claim: self.claim, end, ticket: self.ticket }
    }

    pub(super) fn failed(self, failure: Failure) -> Finished {
        Finished { claim: self.claim, end: End::Failed(failure), ticket: self.ticket }
    }

    pub(super) fn cancelled(self) -> Finished {
        Finished { claim: self.claim, end: End::Cancelled, ticket: self.ticket }
    }
}

/// The pages of a request, with room for all of them.
fn first_of(count: usize, page: (u8, Page)) -> Vec<(u8, Page)> {
    let mut pages = Vec::with_capacity(count);
    pages.push(page);
    pages
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Requests {
    slots: Vec<Option<Box<Entry>>>,
}

impl Requests {
    pub(super) fn insert(&mut self, id: RequestId, entry: Entry) {
        if self.slots.len() <= id.slot() {
            self.slots.resize_with(id.slot() + 1, || None);
        }
        if let Some(slot) = self.slots.get_mut(id.slot()) {
            *slot = Some(Box::new(entry));
        }
    }

    /// The read of this name, if it is not answered.
    pub(super) fn read(&mut self, id: RequestId) -> Option<&mut Pending> {
        match self.slots.get_mut(id.slot())?.as_deref_mut()? {
            Entry::Read(read) if read.claim.generation() == id.generation() => Some(read),
            _ => None,
        }
    }

    /// The unanswered read of a slot.
    pub(super) fn read_in(&mut self, slot: usize) -> Option<(RequestId, &mut Pending)> {
        match self.slots.get_mut(slot)?.as_deref_mut()? {
            Entry::Read(read) => Some((RequestId::of(&read.claim), read)),
            Entry::Mutation(_) => None,
        }
    }

    /// Takes out the read of this name.
    pub(super) fn take_read(&mut self, id: RequestId) -> Option<Pending> {
        self.read(id)?;
        match self.slots.get_mut(id.slot())?.take().map(|entry| *entry) {
            Some(Entry::Read(read)) => Some(read),
            _ => None,
        }
    }

    /// Takes out the mutation of this name.
    pub(super) fn take_mutation(&mut self, id: RequestId) -> Option<Mutating> {
        let slot = self.slots.get_mut(id.slot())?;
        let is_it = |m: &Mutating| m.claim.generation() == id.generation();
        match slot.as_deref() {
            Some(Entry::Mutation(m)) if is_it(m) => {}
            _ => return None,
        }
        match slot.take().map(|entry| *entry) {
            Some(Entry::Mutation(mutation)) => Some(mutation),
            _ => None,
        }
    }

    /// Forgets all of them without an answer: a successor gives it.
    pub(super) fn abandon(&mut self) {
        self.slots.drain(..).flatten().for_each(core::mem::forget);
    }
}
