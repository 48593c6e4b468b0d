//! Requests whose answer nobody will take: their slots come back by themselves.

use super::{Backend, SlotRef};
use crate::error::{Error, Result};
use crate::layout::Slot;
use crate::slot::{owner, State, Word};

impl<'r> Backend<'r> {
    /// Gives up the answer of an unfinished request without cancelling it: for a claimed mutation, which runs to its end
    /// (R4). Its slot is taken back by a later [`Backend::free_slot`] or [`Backend::wait_free`], its result counted and
    /// dropped. The reference stays valid until then. `NotFilling` for what was not submitted, `Stale` for what is over.
    /// Neither blocks nor allocates.
    pub fn forget(&mut self, request: SlotRef) -> Result<()> {
        let (slot, index) = self.own(request.slot)?;
        let word = owner::look(slot);
        if word.generation() != request.generation {
            return Err(Error::Stale);
        }
        match word.state() {
            Some(State::Filling) => Err(Error::NotFilling),
            Some(State::Submitted | State::Processing | State::Copying | State::Completed) => {
                if let Some(forgotten) = self.forgotten.get_mut(index) {
                    *forgotten = Some(word.generation());
                }
                Ok(())
            }
            _ => Err(Error::Stale),
        }
    }

    /// Whether the request of this word was forgotten.
    pub(super) fn is_forgotten(&self, index: usize, word: Word) -> bool {
        self.forgotten.get(index).is_some_and(|f| *f == Some(word.generation()))
    }

    /// Takes the slot back if its request was forgotten and is complete.
    pub(super) fn reclaim(&mut self, slot: &Slot, index: usize) -> bool {
        let word = owner::look(slot);
        let at = SlotRef::new(self.first.wrapping_add(index as u32), word);
        let is_over = word.is(State::Completed) && self.is_forgotten(index, word) && self.finish(at).is_ok();
        if is_over || !self.is_forgotten(index, word) {
            // Generations come again: the mark must not outlive its request, and mean a later one.
            if let Some(forgotten) = self.forgotten.get_mut(index) {
                *forgotten = None;
            }
        }
        is_over
    }
}
