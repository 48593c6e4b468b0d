//! Taking the result: copy the pages out, then give the slot back.
#![allow(unsafe_code)]

use super::cancel::own_request;
use super::wait::{judge, Wait};
use super::{Backend, SlotRef};
use crate::buffers::BOUNCE;
use crate::clock;
use crate::error::{Error, Result};
use crate::layout::Slot;
use crate::request::{Completion, Opcode, Request};
use crate::slot::{owner, Moved, State, Word};
use crate::stats::OwnerCounter;

impl<'r> Backend<'r> {
    /// The result of a complete request, which stays as it is. `NotCompleted` or `Stale` otherwise.
    pub fn result(&self, request: SlotRef) -> Result<Completion> {
        let (slot, _) = self.own(request.slot)?;
        completed(slot, request)?;
        // SAFETY: Completed, so the result is the owner's to read (I1), and SL_2 made it visible.
        Ok(slot.result.with(|p| unsafe { p.read() }))
    }

    /// Copies bounce block `i` of a complete read to `to` (at most a block's length); `BadBuffer` if it has no such
    /// block, or failed: what is in its blocks then are the pages of somebody else.
    pub fn copy_out(&self, request: SlotRef, i: usize, to: &mut [u8]) -> Result<()> {
        let block = self.bounce_block(request, i)?;
        // SAFETY: Completed, so the blocks of the slot are the owner's to read (R5).
        unsafe { self.parts.pools.get(BOUNCE)?.read(block, to) }
    }

    /// Bounce block `i` of a complete read, in place; errors as of [`Backend::copy_out`]. It stays valid until the
    /// request is finished, which needs `&mut self`.
    pub fn page(&self, request: SlotRef, i: usize) -> Result<&[u8]> {
        let block = self.bounce_block(request, i)?;
        let pool = self.parts.pools.get(BOUNCE)?;
        let at = pool.at(block).ok_or(Error::BadBuffer)?;
        // SAFETY: Completed, so no one writes the blocks of the slot until it is Idle (I2, R5), and making it so takes
        // `&mut self`; `at` is valid for a block.
        Ok(unsafe { core::slice::from_raw_parts(at, pool.block_size()) })
    }

    fn bounce_block(&self, request: SlotRef, i: usize) -> Result<u32> {
        let (slot, index) = self.own(request.slot)?;
        completed(slot, request)?;
        // SAFETY: Completed, so the result is the owner's to read (I1), and SL_2 made it visible.
        let is_ok = slot.result.with(|p| unsafe { p.read() }).is_ok();
        if !is_ok || !own_request(slot).opcode().is_some_and(Opcode::fills_buffers) {
            return Err(Error::BadBuffer);
        }
        let block = self.bounce.blocks(index).get(i).ok_or(Error::BadBuffer)?;
        Ok(self.bounce_base + *block)
    }

    /// Takes the result of a complete request and gives the slot back. Never blocks.
    #[inline]
    pub fn finish(&mut self, request: SlotRef) -> Result<Completion> {
        let (slot, index) = self.own(request.slot)?;
        let word = completed(slot, request)?;
        // SAFETY: Completed, so the result is the owner's to read (I1), and SL_2 made it visible.
        let completion = slot.result.with(|p| unsafe { p.read() });
        let moved = owner::finish(slot, word);
        self.free.push(index as u32);
        self.stats.add(OwnerCounter::Finished, 1);
        let is_sampled = self.sample.is_some_and(|(sampled, _)| sampled == request);
        if is_sampled || moved.owed.is_due() || !completion.is_ok() {
            self.finish_rest(slot, moved, completion.is_ok(), is_sampled);
        }
        Ok(completion)
    }

    /// [`Backend::finish`] of a request without anything rare about it: `None`, and nothing changed, if `finish` must
    /// decide. For callers that have a place of their own for what is rare.
    #[inline(always)]
    pub fn try_finish(&mut self, request: SlotRef) -> Option<Completion> {
        let (slot, index) = self.own_home(request.slot)?;
        let word = owner::look(slot);
        if word.waiter() || !word.is_of(State::Completed, request.generation) {
            return None;
        }
        // SAFETY: as in `finish`.
        let completion = slot.result.with(|p| unsafe { p.read() });
        if !completion.is_ok() || self.sample.is_some_and(|(sampled, _)| sampled.slot == request.slot) {
            return None;
        }
        // Nobody sleeps on it.
        let Moved { owed: _, word: _ } = owner::finish(slot, word);
        self.free.push(index as u32);
        self.stats.add(OwnerCounter::Finished, 1);
        Some(completion)
    }

    /// What few requests need: a wake-up of others that sleep on the slot, a count of a failure, the end of a sample.
    #[cold]
    #[inline(never)]
    fn finish_rest(&mut self, slot: &Slot, moved: Moved, is_ok: bool, is_sampled: bool) {
        moved.owed.pay(&self.parts, slot);
        if !is_ok {
            self.stats.add(OwnerCounter::Failed, 1);
        }
        if is_sampled {
            if let Some((_, since)) = self.sample.take() {
                self.stats.record(clock::now().saturating_sub(since));
            }
        }
    }

    /// One request from fill to finish; the pages of a read are copied to `to` (whole blocks). If the wait fails, a read is
    /// cancelled, and so is a mutation that nobody has claimed: it never ran. A claimed one runs to its end and is
    /// forgotten: `InProgress` in place of what ended the wait.
    pub fn call(&mut self, request: &Request<'_>, wait: &Wait<'_>, to: &mut [u8]) -> Result<Completion> {
        let slot = self.free_slot()?;
        let r = self.fill(slot, request)?;
        self.submit(r)?;
        if let Err(e) = self.wait(r, wait) {
            match self.cancel(r, &Wait { until: wait.until, interrupt: None }) {
                Err(Error::AlreadyCompleted) => {}
                Ok(_) => return Err(e),
                Err(why) => {
                    let _ = self.forget(r);
                    return Err(if why == Error::InProgress { why } else { e });
                }
            }
        }
        if self.result(r)?.is_ok() {
            let block = (self.parts.geometry.block_size as usize).max(1);
            for (i, page) in to.chunks_mut(block).enumerate() {
                if i < usize::from(request.count) && request.opcode.fills_buffers() {
                    self.copy_out(r, i, page)?;
                }
            }
        }
        self.finish(r)
    }
}

/// The word of a request that is complete.
#[inline]
fn completed(slot: &Slot, request: SlotRef) -> Result<Word> {
    let word = owner::look(slot);
    if judge(word, request)? {
        Ok(word)
    } else {
        Err(Error::NotCompleted)
    }
}
