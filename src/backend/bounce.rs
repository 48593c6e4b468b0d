//! What a handle knows of its slots by itself, above all which bounce buffers are free. Private memory, derived at attach
//! (R5): a list in shared memory would be left torn by a death.
//!
//! A slot keeps its blocks when its request is over, so that the next one finds them; they are taken back when others
//! need them.
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::memory::{Array, Memory};
use crate::request::MAX_BLOCKS;

/// What [`Seat::ready`] holds when a request must be prepared first.
const NONE: u32 = u32::MAX;
/// Numbers of blocks from here on count as [`NONE`], which a sign tells: the longer way serves such requests, of regions
/// with a TiB of bounce buffers or more.
const READY_END: u32 = 1 << 31;

/// What the hot path must know of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// The block of the next one-block request: the only one that the slot holds, if the slot is introduced.
    ready: u32,
    /// Whether its last request uses the blocks that it holds.
    in_use: bool,
    /// Whether its control line names this handle.
    is_introduced: bool,
    /// Blocks that it holds.
    count: u8,
}

impl Seat {
    /// The block for the next request of a slot that is introduced and Idle, without a change but of `in_use`: the
    /// number in its pool of one that it holds from before, or 0 for a request that needs none. `None`: it must be
    /// prepared first.
    #[inline(always)]
    pub(super) fn reuse(&self, needs_block: bool) -> Option<u32> {
        if needs_block {
            (self.ready < READY_END).then_some(self.ready)
        } else {
            self.is_introduced.then_some(0)
        }
    }

    /// Notes that the slot is filled so.
    #[inline(always)]
    pub(super) fn reused(&mut self, needs_block: bool) {
        self.in_use = needs_block;
    }
}

/// Account of the bounce buffers of a range of slots; but for [`Seat::ready`], block numbers are relative to the
/// range's first block.
#[derive(Debug)]
pub(super) struct Bounce {
    taken: Array<bool>,
    seats: Array<Seat>,
    /// The blocks of each slot, as many as its seat says.
    blocks: Array<[u32; MAX_BLOCKS]>,
    /// Number of the range's first block in its pool.
    base: u32,
    per_slot: usize,
    free: usize,
}

impl Bounce {
    /// All free.
    pub(super) fn new(slots: u32, per_slot: u32, base: u32, memory: &mut Memory) -> Result<Self> {
        let blocks = slots as usize * per_slot as usize;
        let none = Seat { ready: NONE, in_use: false, is_introduced: false, count: 0 };
        Ok(Self {
            taken: Array::filled(blocks, false, memory)?,
            seats: Array::filled(slots as usize, none, memory)?,
            blocks: Array::filled(slots as usize, [0; MAX_BLOCKS], memory)?,
            base,
            per_slot: per_slot as usize,
            free: blocks,
        })
    }

    /// Bytes that it takes of memory that was given.
    #[cfg(not(any(feature = "loom", feature = "shuttle")))]
    pub(super) const fn bytes(slots: u32, per_slot: u32) -> usize {
        use crate::memory::given_bytes;
        let n = slots as usize;
        given_bytes::<bool>(n * per_slot as usize) + given_bytes::<Seat>(n) + given_bytes::<[u32; MAX_BLOCKS]>(n)
    }

    /// Takes `n` blocks for `slot`, its own first; they come back with [`Bounce::release`].
    pub(super) fn take(&mut self, slot: usize, n: usize) -> Result<()> {
        let (Some(seat), Some(blocks)) = (self.seats.get_mut(slot), self.blocks.get_mut(slot)) else {
            return Err(Error::BadSlot);
        };
        if n > self.free || n > MAX_BLOCKS || seat.count != 0 {
            return Err(Error::NoFreeBuffer);
        }
        let start = slot * self.per_slot;
        let mut at = start;
        let mut got = 0;
        for _ in 0..self.taken.len() {
            if got == n {
                break;
            }
            if let (Some(taken), Some(place)) = (self.taken.get_mut(at), blocks.get_mut(got)) {
                if !*taken {
                    *taken = true;
                    *place = at as u32;
                    got += 1;
                }
            }
            at = if at + 1 < self.taken.len() { at + 1 } else { 0 };
        }
        seat.count = got as u8;
        seat.in_use = true;
        self.free -= got;
        self.make_ready(slot);
        Ok(())
    }

    /// Marks a block as `slot`'s because a request that is not Idle names it. Out of range is ignored: the communicator
    /// refuses such a request.
    pub(super) fn mark(&mut self, slot: usize, block: u32) {
        let Some(taken) = self.taken.get_mut(block as usize) else { return };
        let (Some(seat), Some(blocks)) = (self.seats.get_mut(slot), self.blocks.get_mut(slot)) else { return };
        let Some(place) = blocks.get_mut(usize::from(seat.count)) else { return };
        if !*taken {
            *taken = true;
            *place = block;
            seat.count += 1;
            seat.in_use = true;
            self.free -= 1;
        }
        self.make_ready(slot);
    }

    /// The slot is Idle again, or uses none of its blocks: they are free.
    pub(super) fn release(&mut self, slot: usize) {
        let (Some(seat), Some(blocks)) = (self.seats.get_mut(slot), self.blocks.get(slot)) else { return };
        if seat.count == 0 {
            return;
        }
        for &b in blocks.iter().take(usize::from(seat.count)) {
            if let Some(taken) = self.taken.get_mut(b as usize) {
                *taken = false;
            }
        }
        self.free += usize::from(seat.count);
        seat.count = 0;
        self.make_ready(slot);
    }

    /// Notes that the control line of `slot` names this handle.
    pub(super) fn introduce(&mut self, slot: usize) {
        if let Some(seat) = self.seats.get_mut(slot) {
            seat.is_introduced = true;
        }
        self.make_ready(slot);
    }

    /// After each change of a slot's blocks, or of its introduction.
    fn make_ready(&mut self, slot: usize) {
        let (Some(seat), Some([block, ..])) = (self.seats.get_mut(slot), self.blocks.get(slot)) else { return };
        let is_ready = seat.is_introduced && seat.count == 1;
        seat.ready = if is_ready { self.base.wrapping_add(*block) } else { NONE };
    }

    /// What is known of `slot`.
    ///
    /// # Safety
    /// `slot` is below the number of slots.
    #[inline(always)]
    pub(super) unsafe fn seat(&mut self, slot: usize) -> &mut Seat {
        // SAFETY: there is a seat for each slot.
        unsafe { self.seats.get_unchecked_mut(slot) }
    }

    /// Whether the control line of `slot` names this handle.
    pub(super) fn is_introduced(&self, slot: usize) -> bool {
        self.seats.get(slot).is_some_and(|s| s.is_introduced)
    }

    /// Whether a request of `slot`, if it has one, uses the blocks that it holds.
    pub(super) fn is_in_use(&self, slot: usize) -> bool {
        self.seats.get(slot).is_some_and(|s| s.in_use)
    }

    /// Blocks that `slot` holds.
    #[inline]
    pub(super) fn blocks(&self, slot: usize) -> &[u32] {
        let count = self.seats.get(slot).map_or(0, |s| usize::from(s.count));
        self.blocks.get(slot).and_then(|b| b.get(..count)).unwrap_or(&[])
    }

    /// Whether so many are free.
    #[inline]
    pub(super) fn has(&self, n: usize) -> bool {
        self.free >= n
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_takes_its_own_blocks_first_and_then_those_of_others() {
        let mut b = Bounce::new(4, 2, 0, &mut Memory::System).unwrap();
        b.take(1, 5).unwrap();
        assert_eq!(b.blocks(1), [2, 3, 4, 5, 6]);
        b.take(3, 1).unwrap();
        assert_eq!(b.blocks(3), [7]);
        assert_eq!(b.take(0, 3), Err(Error::NoFreeBuffer));
        b.release(1);
        b.take(0, 7).unwrap();
        assert_eq!(b.blocks(0).len(), 7);
        assert!(!b.has(1));
    }

    #[test]
    fn a_block_marked_twice_or_out_of_range_counts_once_or_not() {
        let mut b = Bounce::new(2, 2, 0, &mut Memory::System).unwrap();
        b.mark(0, 3);
        b.mark(1, 3);
        b.mark(1, 99);
        assert!(b.has(3) && !b.has(4));
        b.release(1);
        assert!(!b.has(4));
        b.release(0);
        assert!(b.has(4));
    }

    #[test]
    fn one_block_is_ready_once_its_slot_is_introduced_and_as_long_as_it_is_the_only_one() {
        let mut b = Bounce::new(2, 2, 100, &mut Memory::System).unwrap();
        let ready = |b: &mut Bounce, slot| {
            // SAFETY: there are two.
            unsafe { b.seat(slot) }.reuse(true)
        };
        b.take(1, 1).unwrap();
        assert_eq!(ready(&mut b, 1), None);
        b.introduce(1);
        assert_eq!((ready(&mut b, 1), ready(&mut b, 0)), (Some(102), None));
        b.mark(1, 3);
        assert_eq!(ready(&mut b, 1), None);
        b.release(1);
        assert_eq!(ready(&mut b, 1), None);
        b.introduce(0);
        b.take(0, 1).unwrap();
        assert_eq!(ready(&mut b, 0), Some(100));
    }
}
