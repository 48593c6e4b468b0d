//! What a handle knows of its slots by itself, above all which bounce buffers are free. Private memory, derived at attach
//! (R5): a list in shared memory would be left torn by a death.
//!
//! A slot keeps its blocks when its request is over, so that the next one finds them; they are taken back when others
//! need them.

use crate::error::{Error, Result};
use crate::memory::filled;
use crate::request::MAX_BLOCKS;

/// What the handle knows of one slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seat {
    /// Bounce buffers that it holds.
    count: u8,
    /// Whether its last request uses them.
    in_use: bool,
    /// Whether its control line names this handle.
    pub(super) is_introduced: bool,
    blocks: [u32; MAX_BLOCKS],
}

impl Seat {
    /// The block for the next request of a slot that is introduced and Idle, without a change but of `in_use`: one that it
    /// holds from before, or 0 for a request that needs none. `None`: it must be prepared first.
    #[inline(always)]
    pub(super) fn reuse(&self, needs_block: bool) -> Option<u32> {
        let is_ready = self.is_introduced && (!needs_block || self.count == 1);
        let [block, ..] = self.blocks;
        is_ready.then_some(if needs_block { block } else { 0 })
    }

    /// Notes that the slot is filled so.
    #[inline(always)]
    pub(super) fn reused(&mut self, needs_block: bool) {
        self.in_use = needs_block;
    }
}

/// Account of the bounce buffers of a range of slots; block numbers are relative to the range's first block.
#[derive(Debug)]
pub(super) struct Bounce {
    taken: Box<[bool]>,
    seats: Box<[Seat]>,
    per_slot: usize,
    free: usize,
}

impl Bounce {
    /// All free.
    pub(super) fn new(slots: u32, per_slot: u32) -> Result<Self> {
        let blocks = slots as usize * per_slot as usize;
        let none = Seat { count: 0, in_use: false, is_introduced: false, blocks: [0; MAX_BLOCKS] };
        Ok(Self {
            taken: filled(blocks, false)?,
            seats: filled(slots as usize, none)?,
            per_slot: per_slot as usize,
            free: blocks,
        })
    }

    /// Takes `n` blocks for `slot`, its own first; they come back with [`Bounce::release`].
    pub(super) fn take(&mut self, slot: usize, n: usize) -> Result<()> {
        let Some(held) = self.seats.get_mut(slot) else { return Err(Error::BadSlot) };
        if n > self.free || n > MAX_BLOCKS || held.count != 0 {
            return Err(Error::NoFreeBuffer);
        }
        let start = slot * self.per_slot;
        let mut at = start;
        let mut got = 0;
        for _ in 0..self.taken.len() {
            if got == n {
                break;
            }
            if let (Some(taken), Some(place)) = (self.taken.get_mut(at), held.blocks.get_mut(got)) {
                if !*taken {
                    *taken = true;
                    *place = at as u32;
                    got += 1;
                }
            }
            at = if at + 1 < self.taken.len() { at + 1 } else { 0 };
        }
        held.count = got as u8;
        held.in_use = true;
        self.free -= got;
        Ok(())
    }

    /// Marks a block as `slot`'s because a request that is not Idle names it. Out of range is ignored: the communicator
    /// refuses such a request.
    pub(super) fn mark(&mut self, slot: usize, block: u32) {
        let (Some(taken), Some(held)) = (self.taken.get_mut(block as usize), self.seats.get_mut(slot)) else { return };
        let Some(place) = held.blocks.get_mut(usize::from(held.count)) else { return };
        if !*taken {
            *taken = true;
            *place = block;
            held.count += 1;
            held.in_use = true;
            self.free -= 1;
        }
    }

    /// The slot is Idle again, or uses none of its blocks: they are free.
    pub(super) fn release(&mut self, slot: usize) {
        let Some(held) = self.seats.get_mut(slot) else { return };
        if held.count == 0 {
            return;
        }
        for &b in held.blocks.iter().take(usize::from(held.count)) {
            if let Some(taken) = self.taken.get_mut(b as usize) {
                *taken = false;
            }
        }
        self.free += usize::from(held.count);
        held.count = 0;
    }

    /// What is known of `slot`.
    #[inline]
    pub(super) fn seat(&mut self, slot: usize) -> Option<&mut Seat> {
        self.seats.get_mut(slot)
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
        self.seats.get(slot).and_then(|h| h.blocks.get(..usize::from(h.count))).unwrap_or(&[])
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
        let mut b = Bounce::new(4, 2).unwrap();
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
        let mut b = Bounce::new(2, 2).unwrap();
        b.mark(0, 3);
        b.mark(1, 3);
        b.mark(1, 99);
        assert!(b.has(3) && !b.has(4));
        b.release(1);
        assert!(!b.has(4));
        b.release(0);
        assert!(b.has(4));
    }
}
