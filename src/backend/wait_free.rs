//! Waiting for a free slot: cancelled slots come back only when the communicator says so (R10), forgotten ones when their
//! requests are over.

use super::wait::Wait;
use super::Backend;
use crate::clock;
use crate::error::{Error, Result};
use crate::futex::{Outcome, Watch, MAX_WORDS};
use crate::slot::{owner, State};

impl<'r> Backend<'r> {
    /// A slot that can be filled; waits for one of the cancelled or forgotten slots of the range if there is none.
    /// `NoFreeSlot` if there are none of these either: take a result first. Otherwise ends as [`Backend::wait`] does. Blocks, in timed sleeps.
    pub fn wait_free(&mut self, wait: &Wait<'_>) -> Result<u32> {
        loop {
            self.check_process()?;
            match self.free_slot() {
                Err(Error::NoFreeSlot) => {}
                other => return other,
            }
            let now = clock::now();
            self.check_wait(wait, now)?;
            if self.sleep_on_given_up(wait, now)? == Outcome::Interrupted {
                return Err(Error::Interrupted);
            }
        }
    }

    /// One sleep on the words of the cancelled and the forgotten slots; at most 127 are watched, any of which will do.
    fn sleep_on_given_up(&self, wait: &Wait<'_>, now: u64) -> Result<Outcome> {
        let mut watches = [Watch::default(); MAX_WORDS];
        let mut first = None;
        let mut n = 0;
        for (index, slot) in self.slots.iter().enumerate() {
            let word = owner::look(slot);
            let is_forgotten = self.is_forgotten(index, word);
            let place = match word.state() {
                Some(State::Idle) => return Ok(Outcome::Changed),
                Some(State::Completed) if is_forgotten => return Ok(Outcome::Changed),
                Some(State::Abandoned | State::Withdrawn) if n + 1 < MAX_WORDS => watches.get_mut(n),
                Some(State::Submitted | State::Processing | State::Copying) if is_forgotten && n + 1 < MAX_WORDS => {
                    watches.get_mut(n)
                }
                _ => None,
            };
            let Some(place) = place else { continue };
            // #26: the owner may set W on each of these. One that moved meanwhile has none, and may look to the kernel as it
            // did before (as in `sleep_any`): look again.
            let Ok(marked) = owner::set_waiter(slot, word) else { return Ok(Outcome::Changed) };
            *place = Watch::new(&slot.word, marked.low(), self.parts.private);
            first = first.or(Some(slot));
            n += 1;
        }
        if n == 0 {
            return Err(Error::NoFreeSlot);
        }
        if let (Some(interrupt), Some(place)) = (wait.interrupt, watches.get_mut(n)) {
            *place = Watch::new(interrupt, 0, true);
            n += 1;
        }
        Ok(self.sleep_on_any(first, watches.get(..n).unwrap_or(&[]), wait, now))
    }
}
