//! Leftovers: what an earlier owner of the range left unfinished, settled one by one so that the embedder can log each.
//!
//! By an iterator and not a callback: an embedder that longjmps must not do so over a frame of this library (R16).

use super::cancel::own_request;
use super::{Backend, Cancelled, SlotRef, Wait};
use crate::buffers::BOUNCE;
use crate::doorbell;
use crate::error::{Error, Result};
use crate::layout::Slot;
use crate::request::{Completion, Opcode, RawRequest};
use crate::ring;
use crate::slot::{owner, State};
use crate::stats::OwnerCounter;

/// What became of a leftover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was complete, or a mutation that ran to its end now; the result is reported.
    Completed(Completion),
    /// A read that was never claimed: it did not run.
    Withdrawn,
    /// A read that was claimed: its answer will be dropped.
    Abandoned,
    /// A mutation that was never claimed and is not run, because its image is not safe any more or its server life is
    /// over (R1, R5): EOWNERDEAD.
    OwnerDead,
}

/// One settled leftover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its slot.
    pub slot: u32,
    /// Its generation.
    pub generation: u32,
    /// What it asked for: opcode and key.
    pub request: RawRequest,
    /// What became of it.
    pub fate: Fate,
}

impl<'r> Backend<'r> {
    /// Settles the next leftover of the range; `None` when there are no more. Reads are given up at once; mutations that
    /// must not be lost are waited for, as `wait` allows: after `TimedOut`, `Interrupted` or `CommunicatorGone` call again.
    pub fn next_leftover(&mut self, wait: &Wait<'_>) -> Result<Option<Leftover>> {
        self.settle_next(wait, false)
    }

    /// Settles every leftover of the range, as [`Backend::next_leftover`] does, and tells how many there were; with
    /// `old_life` for a new server life, which also withdraws mutations that no communicator has claimed.
    pub fn settle(&mut self, wait: &Wait<'_>, old_life: bool) -> Result<u32> {
        let mut n = 0;
        while self.settle_next(wait, old_life)?.is_some() {
            n += 1;
        }
        Ok(n)
    }

    /// Settles what this handle itself has in flight, so that it can be dropped and leave nothing behind: before a clean
    /// exit (R1: before the locks go). Reads are given up, mutations are waited for.
    pub fn detach(&mut self, wait: &Wait<'_>) -> Result<u32> {
        self.unsettled = self.first;
        self.settle(wait, false)
    }

    /// As [`Backend::next_leftover`]; with `old_life` mutations that no communicator has claimed are withdrawn too.
    pub(crate) fn settle_next(&mut self, wait: &Wait<'_>, old_life: bool) -> Result<Option<Leftover>> {
        self.check_process()?;
        let slots = self.slots;
        while let Some(slot) = slots.get((self.unsettled - self.first) as usize) {
            let settled = self.settle_slot(slot, self.unsettled, wait, old_life)?;
            self.unsettled += 1;
            if let Some(leftover) = settled {
                self.stats.add(OwnerCounter::Leftovers, 1);
                return Ok(Some(leftover));
            }
        }
        Ok(None)
    }

    /// Rows 20 to 25.
    fn settle_slot(&mut self, slot: &Slot, number: u32, wait: &Wait<'_>, old_life: bool) -> Result<Option<Leftover>> {
        let word = owner::look(slot);
        let at = SlotRef::new(number, word);
        let request = own_request(slot);
        let fate = match word.state() {
            Some(State::Filling) => {
                owner::discard_filling(slot, word).owed.pay(&self.parts, slot);
                return Ok(None);
            }
            Some(State::Withdrawn) => {
                self.hint(number);
                return Ok(None);
            }
            Some(State::Submitted | State::Processing | State::Copying) => {
                let fate = self.settle_unfinished(slot, at, &request, wait, old_life)?;
                self.hint(number);
                fate
            }
            Some(State::Completed) => Fate::Completed(self.finish(at)?),
            // Idle; Abandoned, which the communicator gives back (#25); bytes that are no state.
            _ => return Ok(None),
        };
        Ok(Some(Leftover { slot: number, generation: at.generation, request, fate }))
    }

    /// A hint that does not depend on the one that a dead owner may not have given (#21, #22).
    fn hint(&mut self, slot: u32) {
        ring::set_pending(&self.parts, slot);
        doorbell::ring_once(&self.parts);
    }

    fn settle_unfinished(
        &mut self,
        slot: &Slot,
        at: SlotRef,
        request: &RawRequest,
        wait: &Wait<'_>,
        old_life: bool,
    ) -> Result<Fate> {
        let is_mutation = request.opcode().is_some_and(Opcode::is_mutation);
        let has_image = request.opcode().is_some_and(Opcode::takes_images);
        // What this handle filled itself still has its image where it was.
        let index = at.slot.wrapping_sub(self.first) as usize;
        let is_own = self.bounce.is_introduced(index);
        let unsafe_image = has_image && request.pool != BOUNCE && !is_own;
        if is_mutation && !(owner::look(slot).is(State::Submitted) && (old_life || unsafe_image)) {
            self.hint(at.slot);
            self.wait(at, wait)?;
            return Ok(Fate::Completed(self.finish(at)?));
        }
        match self.give_up(slot, at, wait) {
            Ok(_) if is_mutation => Ok(Fate::OwnerDead),
            Ok(Cancelled::Withdrawn) => Ok(Fate::Withdrawn),
            Ok(Cancelled::Abandoned) => Ok(Fate::Abandoned),
            Err(Error::AlreadyCompleted) => Ok(Fate::Completed(self.finish(at)?)),
            // A communicator claimed the mutation between our looks: it runs to its end.
            Err(Error::InProgress) => {
                self.wait(at, wait)?;
                Ok(Fate::Completed(self.finish(at)?))
            }
            Err(e) => Err(e),
        }
    }
}
