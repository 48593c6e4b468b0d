//! The backend side. Runs in a server process: no threads, no panic, no allocation after attach, no unbounded wait; safe
//! to longjmp over between calls.
//!
//! In the order that a request passes: `attach` (the handle and its slot range), `fill` (a request into a slot),
//! `submit` (slots to the communicator), `wait` (poll, wait, wait any), `wait_free` (for a slot), `finish` (the result),
//! `cancel`, `forget`; `leftovers` settles what an earlier owner of the range left, `bounce` keeps account of bounce
//! buffers, `tables` looks into the tables of the region without a request.
//!
//! A handle is one thread's. It may be carried over a fork, but refuses to work in the child (R17).

mod attach;
mod bounce;
mod cancel;
mod fill;
mod finish;
mod forget;
mod leftovers;
mod submit;
mod tables;
mod wait;
mod wait_free;

pub use crate::memory::{Given, Memory};
pub use attach::Backend;
pub use cancel::Cancelled;
pub use leftovers::{Fate, Leftover};
pub use submit::Rest;
pub use wait::Wait;

use crate::ring::Numbered;
use crate::slot::{State, Word};

/// A request in flight: a slot and the generation that the request is of (I3). Valid until the result was taken or the
/// request cancelled; later uses are told with [`crate::error::Error::Stale`].
/// As one number, little-endian, it is the `shmuring_ref` of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SlotRef {
    /// The slot.
    pub slot: u32,
    /// Its generation, modulo 2^24.
    pub generation: u32,
}

impl SlotRef {
    pub(crate) const fn new(slot: u32, word: Word) -> Self {
        Self { slot, generation: word.generation() }
    }

    /// The word of its slot while it is Filling.
    const fn filling(self) -> Word {
        Word::new(State::Filling, self.generation, 0)
    }
}

impl Numbered for SlotRef {
    #[inline]
    fn number(&self) -> u32 {
        self.slot
    }
}
