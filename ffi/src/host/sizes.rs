//! The relation sizes of the region, kept for a communicator that is written in C (R2).
//!
//! An answer that is too small would overwrite a live block, so nothing of it is left to C. A change begins before C is
//! told of its claim, and ends as the claim is taken out to be answered, before the completion is published; what it
//! comes to is read from the library's own copy of the request. What is under way lies here by slot and generation, and
//! goes out once, with its claim.
//!
//! Sizes may begin to be kept while other threads answer. A change whose claim is out of its place by then, so that it was
//! not found, ends all the same before its answer is published; and one that ended while nothing was kept is published
//! before anything is.
//!
//! # Locks
//! This one is taken before that of a claim's place or with none, never after it.

use core::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shmuring::communicator::{Claim, Communicator};
use shmuring::error::Error;
use shmuring::lsn::rel_size::{effect, Asked, Change, Outcome, Writer};
use shmuring::request::{Job, Lsn, Opcode, MISSING};

use super::claims::Claims;
use super::role::{enter, CommunicatorHandle};

/// SHMURING_SIZES_OF_READS: sizes that were read are kept too.
pub(super) const OF_READS: u32 = 1;

/// What the claim of a slot has under way.
enum UnderWay {
    /// A change, and what it comes to if it succeeds.
    Change(Change, Outcome),
    /// A question for a size.
    Read(Asked),
}

/// What C has done with a claim.
#[derive(Clone, Copy)]
pub(super) enum Did {
    /// Answered it.
    Complete(u64, Lsn),
    /// Answered that it failed.
    Fail,
    /// Answered nothing, or could not any more: a change may still be under way somewhere, so that its fork stays a
    /// miss until the next communicator.
    Lose,
}

/// A writer at work.
struct Keeper {
    writer: Writer<'static>,
    /// By slot, each with the generation of its claim.
    under_way: Vec<Option<(u32, UnderWay)>>,
    of_reads: bool,
}

impl Keeper {
    fn begin(&mut self, claim: &Claim<'static>) {
        let job = claim.job();
        let under_way = match effect(job, claim.is_again()) {
            Some(then) => UnderWay::Change(self.writer.begin(job.rel), then),
            None if self.of_reads && asks_for_a_size(job) => UnderWay::Read(self.writer.ask(job.rel)),
            None => return,
        };
        let Some(place) = self.under_way.get_mut(claim.slot() as usize) else { return };
        // One that is there still, which only hostile bytes bring about, is lost.
        if let Some((_, UnderWay::Read(asked))) = place.replace((claim.generation(), under_way)) {
            self.writer.drop_asked(asked);
        }
    }

    /// What a claim has under way, if it has anything.
    fn find(&mut self, slot: u32, generation: u32) -> Option<&mut Option<(u32, UnderWay)>> {
        let place = self.under_way.get_mut(slot as usize)?;
        place.as_ref().is_some_and(|(of, _)| *of == generation).then_some(place)
    }

    fn end(&mut self, claim: &Claim<'static>, did: Did) {
        let Some((_, under_way)) = self.find(claim.slot(), claim.generation()).and_then(Option::take) else {
            // Its claim was out when this began: a size that was read since may be the one before the change.
            return if effect(claim.job(), claim.is_again()).is_some() {
                let change = self.writer.begin(claim.job().rel);
                if !matches!(did, Did::Lose) {
                    self.writer.finish(change, Outcome::Unknown);
                }
            };
        };
        match (under_way, did) {
            (UnderWay::Change(change, then), Did::Complete(..)) => self.writer.finish(change, then),
            (UnderWay::Change(change, _), Did::Fail) => self.writer.finish(change, Outcome::Unknown),
            (UnderWay::Change(..), Did::Lose) => {}
            (UnderWay::Read(asked), Did::Complete(value, lsn)) => match said(claim.job(), value) {
                Some(blocks) => self.writer.fill(asked, blocks, lsn),
                None => self.writer.drop_asked(asked),
            },
            (UnderWay::Read(asked), Did::Fail | Did::Lose) => self.writer.drop_asked(asked),
        }
    }
}

/// Whether it asks for the latest size of a fork: one as of an LSN is of no use to others.
fn asks_for_a_size(job: &Job) -> bool {
    matches!(job.opcode, Opcode::RelSize | Opcode::RelExists) && job.request_lsn.is_none()
}

/// The blocks that an answer tells (`None`: there is no such fork), if it tells any.
fn said(job: &Job, value: u64) -> Option<Option<u32>> {
    match (job.opcode, value) {
        (Opcode::RelSize, MISSING) => job.allow_missing.then_some(None),
        (Opcode::RelSize, blocks) => u32::try_from(blocks).ok().map(Some),
        (Opcode::RelExists, 0) => Some(None),
        _ => None,
    }
}

/// The sizes of a communicator, which keeps them once it was told to.
#[derive(Default)]
pub(super) struct RelSizes(Mutex<Option<Keeper>>);

impl RelSizes {
    /// A panic under the lock leaves a fork that is a miss for good, at worst.
    fn lock(&self) -> MutexGuard<'_, Option<Keeper>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps sizes from now on. Mutations of `claims` may be under way; what reads of `claims` say is not kept, since
    /// they may have been sent before.
    fn open(&self, by: &mut Communicator<'static>, claims: &Claims, of_reads: bool) -> Result<(), Error> {
        let mut guard = self.lock();
        if guard.is_some() {
            return Err(Error::Os(libc::EALREADY));
        }
        let mut under_way = Vec::new();
        under_way.try_reserve_exact(claims.len()).map_err(|_| Error::Os(libc::ENOMEM))?;
        under_way.resize_with(claims.len(), || None);
        let writer = by.rel_size_writer().ok_or(Error::Os(libc::ENOMEM))?;
        let mut keeper = Keeper { writer, under_way, of_reads: false };
        claims.each(|claim| keeper.begin(claim));
        keeper.of_reads = of_reads;
        *guard = Some(keeper);
        Ok(())
    }

    /// The lock, for requests that have to do with the size of a fork: reads of pages never do.
    fn lock_for(&self, job: &Job) -> Option<MutexGuard<'_, Option<Keeper>>> {
        (job.opcode.is_mutation() || asks_for_a_size(job)).then(|| self.lock())
    }

    /// A claim that C is about to be told of.
    pub(super) fn begin(&self, claim: &Claim<'static>) {
        if let Some(keeper) = self.lock_for(claim.job()).as_mut().and_then(|guard| guard.as_mut()) {
            keeper.begin(claim);
        }
    }

    /// Ends a claim that was taken out, and answers it.
    pub(super) fn end<T>(&self, claim: Claim<'static>, did: Did, answer: impl FnOnce(Claim<'static>) -> T) -> T {
        let mut guard = self.lock_for(claim.job());
        if let Some(keeper) = guard.as_mut().and_then(|guard| guard.as_mut()) {
            keeper.end(&claim, did);
            drop(guard);
            return answer(claim);
        }
        // Under the lock: what is kept later was read after this is published.
        answer(claim)
    }

    /// A claim that was taken out and needs no answer.
    pub(super) fn lose(&self, claim: &Claim<'static>) {
        if let Some(keeper) = self.lock_for(claim.job()).as_mut().and_then(|guard| guard.as_mut()) {
            keeper.end(claim, Did::Lose);
        }
    }

    /// What the change of this claim comes to is not certain.
    pub(super) fn doubt(&self, slot: u32, generation: u32) {
        let mut guard = self.lock();
        let place = guard.as_mut().and_then(|keeper| keeper.find(slot, generation));
        if let Some(Some((_, UnderWay::Change(_, then)))) = place {
            *then = Outcome::Unknown;
        }
    }

    /// Before the role is given up: nothing is written any more (R2).
    pub(super) fn close(&self) {
        *self.lock() = None;
    }
}

/// Keeps the relation sizes of the region from now on.
///
/// # Safety
/// `c` is null or a handle that is not being freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_keep_sizes(c: *const CommunicatorHandle, flags: u32) -> c_int {
    enter(c, |c| {
        if flags & !OF_READS != 0 {
            return Err(Error::BadRequest);
        }
        c.with_reaper(|communicator| c.sizes.open(communicator, &c.claims, flags & OF_READS != 0))?;
        Ok(0)
    })
}
