//! Filling a slot: everything is checked and picked before the first shared byte changes.
#![allow(unsafe_code)]

use super::{Backend, Rest, SlotRef};
use crate::buffers::{Pool, BOUNCE};
use crate::error::{Error, Result};
use crate::layout::{Control, Slot};
use crate::memory::{Array, Memory};
use crate::request::{Buffers, Lsn, Opcode, PlainRead, RawExtra, RawRequest, RelTag, Request, Words, MAX_BLOCKS};
use crate::slot::{owner, State};
use crate::sync::Ordering;

/// Where the pages of one request are.
#[derive(Clone, Copy)]
enum Picked<'q> {
    /// Nowhere.
    None,
    /// In bounce blocks, which the account of the slot lists.
    Bounce,
    /// In a registered pool, an index a block.
    Pool(u16, &'q [u32]),
}

/// A stack of slots that were free when they were pushed; what finds no room is forgotten.
///
/// Invariant: `len` is below the length of `slots`.
#[derive(Debug)]
pub(super) struct Recent {
    /// Below all is [`NO_INDEX`], so that there always is a top.
    slots: Array<u32>,
    len: usize,
}

/// The index of no slot.
const NO_INDEX: u32 = u32::MAX;

impl Recent {
    pub(super) fn new(room: u32, memory: &mut Memory) -> Result<Self> {
        Ok(Self { slots: Array::filled(room as usize + 1, NO_INDEX, memory)?, len: 0 })
    }

    /// Bytes that it takes of memory that was given.
    #[cfg(not(any(feature = "loom", feature = "shuttle")))]
    pub(super) const fn bytes(room: u32) -> usize {
        crate::memory::given_bytes::<u32>(room as usize + 1)
    }

    #[inline]
    pub(super) fn push(&mut self, index: u32) {
        if let Some(place) = self.slots.get_mut(self.len + 1) {
            *place = index;
            self.len += 1;
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<u32> {
        let top = self.top();
        if top == NO_INDEX {
            return None;
        }
        // SAFETY: the top is a slot.
        unsafe { self.drop_top() };
        Some(top)
    }

    /// The slot pushed last, or [`NO_INDEX`].
    #[inline(always)]
    fn top(&self) -> u32 {
        // SAFETY: the invariant.
        unsafe { *self.slots.get_unchecked(self.len) }
    }

    /// Forgets the top.
    ///
    /// # Safety
    /// The top is not [`NO_INDEX`].
    #[inline(always)]
    unsafe fn drop_top(&mut self) {
        self.len = self.len.wrapping_sub(1);
    }
}

impl<'r> Backend<'r> {
    /// A slot of the range that can be filled, if any: the one finished last, since its line is in this cpu's cache and no
    /// stride of ours tells the communicator's cpu to fetch the next one away. Looks at each slot twice at most.
    #[inline]
    pub fn free_slot(&mut self) -> Result<u32> {
        while let Some(index) = self.free.pop() {
            // Filled by number meanwhile, if it is not Idle.
            if self.slots.get(index as usize).is_some_and(|s| owner::look(s).is(State::Idle)) {
                return Ok(self.first + index);
            }
        }
        self.search()
    }

    #[cold]
    fn search(&mut self) -> Result<u32> {
        let n = self.slots.len() as u32;
        for _ in 0..n {
            let index = self.cursor;
            self.cursor = if index + 1 < n { index + 1 } else { 0 };
            let slots = self.slots;
            let Some(slot) = slots.get(index as usize) else { continue };
            if owner::look(slot).is(State::Idle) || self.reclaim(slot, index as usize) {
                return Ok(self.first + index);
            }
        }
        Err(Error::NoFreeSlot)
    }

    /// Writes a request into `slot` of the range, which then is Filling. Neither blocks nor allocates. On an error nothing
    /// has changed: `BadSlot`, `SlotBusy`, `NoFreeBuffer`, or what is wrong with the request.
    #[inline(always)]
    pub fn fill(&mut self, slot: u32, request: &Request<'_>) -> Result<SlotRef> {
        match self.try_fill(slot, request) {
            Some(filled) => Ok(filled),
            // By value: a request whose address is not given away need not lie in memory.
            None => self.fill_rare(slot, *request),
        }
    }

    /// The short way of [`Backend::fill`] for plain requests, without a word about errors: `None`, and nothing
    /// changed, if `fill` must decide. For callers that have a place of their own for what is rare.
    #[inline(always)]
    pub fn try_fill(&mut self, slot: u32, request: &Request<'_>) -> Option<SlotRef> {
        let (words, bounces) = request.plain()?;
        self.fill_words(slot, words, bounces)
    }

    /// The same for a read of one block, of class demand, into a bounce buffer. `fork` is that of the relation, as
    /// wide as the caller has it: `rel.fork` is not looked at.
    #[inline(always)]
    pub fn try_fill_read(&mut self, slot: u32, rel: RelTag, fork: u32, block: u32, lsn: Lsn) -> Option<SlotRef> {
        self.fill_read(slot, PlainRead::new(rel, fork, block, lsn)?).map(|(_, filled)| filled)
    }

    /// From a free slot to a submitted read of one block, of class demand, into a bounce buffer; as
    /// [`Backend::try_fill_read`] and [`Backend::try_submit`].
    #[inline(always)]
    pub fn try_start_read<T>(
        &mut self,
        (rel, fork): (RelTag, u32),
        block: u32,
        lsn: Lsn,
        done: impl FnOnce(SlotRef) -> T,
        rest: impl Fn(&mut Self, SlotRef, Rest) -> T,
    ) -> Option<T> {
        let read = PlainRead::new(rel, fork, block, lsn)?;
        // No slot has the number that is there when there is none.
        let index = self.free.top();
        // A slot that was filled by number meanwhile is not Idle.
        let (slot, filled) = self.fill_read(self.first.wrapping_add(index), read)?;
        // SAFETY: it was the index of a slot, or nothing would be filled.
        unsafe { self.free.drop_top() };
        Some(self.hand_over(slot, filled, done, rest))
    }

    /// As [`Backend::try_fill`], of bytes that were not checked, with no buffers but bounce buffers.
    #[inline(always)]
    pub fn try_fill_raw(&mut self, slot: u32, raw: RawRequest) -> Option<SlotRef> {
        let words = Words::from(raw);
        let opcode = words.plain()?;
        // No pool.
        if words.last != 0 {
            return None;
        }
        self.fill_words(slot, words, opcode.fills_buffers())
    }

    /// Fills with a read of one block.
    #[inline(always)]
    fn fill_read(&mut self, slot: u32, read: PlainRead) -> Option<(&'r Slot, SlotRef)> {
        // SAFETY: the slot is Filling, so its bytes are the owner's alone (I1).
        self.fill_plain(slot, true, |slot, block| unsafe { slot.store_read(read.into_block(block)) })
    }

    #[inline(always)]
    fn fill_words(&mut self, slot: u32, words: Words, bounces: bool) -> Option<SlotRef> {
        let (_, filled) = self.fill_plain(slot, bounces, |slot, block| {
            let words = if bounces { words.with_arg(block) } else { words };
            // SAFETY: the slot is Filling, so its bytes are the owner's alone (I1).
            unsafe { slot.store_request(&words) }
        })?;
        Some(filled)
    }

    /// Makes a slot Filling; `store` writes the bytes of a request that names this bounce block, if it `bounces`.
    #[inline(always)]
    fn fill_plain(&mut self, slot: u32, bounces: bool, store: impl FnOnce(&Slot, u32)) -> Option<(&'r Slot, SlotRef)> {
        let (s, index) = self.own_home(slot)?;
        // SAFETY: an index of the range.
        let seat = unsafe { self.bounce.seat(index) };
        let block = seat.reuse(bounces)?;
        let filling = owner::begin_fill(s).ok()?;
        seat.reused(bounces);
        store(s, block);
        Some((s, SlotRef::new(slot, filling)))
    }

    /// Every other request, and the first of each slot.
    #[cold]
    #[inline(never)]
    fn fill_rare(&mut self, slot: u32, request: Request<'_>) -> Result<SlotRef> {
        let (s, index) = self.own(slot)?;
        let request = &request;
        let mut raw = request.encode()?;
        if !owner::look(s).is(State::Idle) {
            return Err(Error::SlotBusy);
        }
        // Idle: what an earlier request of this slot held is free (R5).
        self.bounce.release(index);
        let picked = self.pick(index, request)?;
        match picked {
            Picked::None => {}
            Picked::Bounce => raw.arg = self.bounce_base + self.bounce.blocks(index).first().copied().unwrap_or(0),
            Picked::Pool(id, indexes) => {
                raw.pool = id;
                raw.arg = indexes.first().copied().unwrap_or(0);
            }
        }
        let Ok(filling) = owner::begin_fill(s) else {
            self.bounce.release(index);
            return Err(Error::SlotBusy);
        };
        if let Buffers::Image(image) = request.buffers {
            copy_image(self.parts.pools.get(BOUNCE)?, self.bounce_base, self.bounce.blocks(index), image);
        }
        self.write(s, index, &raw, request, picked);
        Ok(SlotRef::new(slot, filling))
    }

    /// Chooses and checks the buffers; takes bounce blocks for the slot.
    fn pick<'q>(&mut self, index: usize, request: &Request<'q>) -> Result<Picked<'q>> {
        let n = usize::from(request.count);
        match request.buffers {
            Buffers::None if !request.opcode.has_buffers() => Ok(Picked::None),
            Buffers::Image(image) if request.opcode.takes_images() => {
                if image.len() != n * self.parts.geometry.block_size as usize {
                    return Err(Error::BadCount);
                }
                self.take_bounce(index, n)
            }
            Buffers::Bounce if request.opcode.fills_buffers() => self.take_bounce(index, n),
            Buffers::Pool(id, indexes) if request.opcode.has_buffers() && id != BOUNCE => {
                check_pool(self.parts.pools.get(id)?, indexes, n)?;
                Ok(Picked::Pool(id, indexes))
            }
            _ => Err(Error::BadRequest),
        }
    }

    fn take_bounce<'q>(&mut self, index: usize, n: usize) -> Result<Picked<'q>> {
        if self.parts.pools.get(BOUNCE).is_err() {
            return Err(Error::BadPool);
        }
        if !self.bounce.has(n) {
            self.reclaim_bounce();
        }
        self.bounce.take(index, n)?;
        Ok(Picked::Bounce)
    }

    /// Frees the blocks of slots that use none: their request is over, or carries no pages.
    #[cold]
    fn reclaim_bounce(&mut self) {
        for (index, slot) in self.slots.iter().enumerate() {
            if !self.bounce.is_in_use(index) || owner::look(slot).is(State::Idle) {
                self.bounce.release(index);
            }
        }
    }

    /// Writes the request bytes of a slot that is Filling.
    fn write(&mut self, slot: &Slot, index: usize, raw: &RawRequest, request: &Request<'_>, picked: Picked<'_>) {
        // SAFETY: the slot is Filling, so its bytes are the owner's alone (I1).
        unsafe { slot.store_request(&Words::from(*raw)) };
        if raw.needs_extra() || !self.bounce.is_introduced(index) {
            self.write_control(slot, index, request.extra());
        }
        if request.opcode.is_mutation() {
            // Relaxed: published by the Submitted store (SL_1); 0 says "not claimed since it was filled" (R4).
            slot.claim_seq.store(0, Ordering::Relaxed);
            // Relaxed: as above; a mark that is 2^24 generations old must not come true.
            slot.orphan.store(0, Ordering::Relaxed);
        }
        if raw.needs_vector() {
            self.write_vector(slot, index, request, picked);
        }
    }

    /// Writes the second line of a slot that is Filling: at its first filling, and when the request needs it.
    #[cold]
    fn write_control(&mut self, slot: &Slot, index: usize, extra: RawExtra) {
        let control = Control {
            life: self.life,
            owner_first: self.first,
            owner_count: self.slots.len() as u32,
            owner_pid: self.home.pid(),
            extra,
        };
        // SAFETY: the slot is Filling, so its bytes are the owner's alone (I1).
        slot.control.with_mut(|p| unsafe { p.write(control) });
        self.bounce.introduce(index);
    }

    /// Writes the vector part of a slot that is Filling.
    #[cold]
    fn write_vector(&mut self, slot: &Slot, index: usize, request: &Request<'_>, picked: Picked<'_>) {
        let (base, indexes) = match picked {
            Picked::None => (0, &[][..]),
            Picked::Bounce => (self.bounce_base, self.bounce.blocks(index)),
            Picked::Pool(_, indexes) => (0, indexes),
        };
        slot.vector.with_mut(|p| {
            // SAFETY: the slot is Filling, so its bytes are the owner's alone (I1); every bit pattern is a value, so a
            // reference is sound.
            let to = unsafe { &mut *p };
            for (place, index) in to.buffers.iter_mut().zip(indexes) {
                *place = base + *index;
            }
            for (place, lsn) in to.lsns.iter_mut().zip(request.block_lsns) {
                *place = *lsn;
            }
        });
    }

    /// Marks the bounce blocks that requests of this range, not Idle, still name (R5). At attach. What the last owner was
    /// filling is discarded here (#20) and not with the leftovers: its blocks are given out again, so a reference to it
    /// must be stale.
    pub(super) fn derive_bounce(&mut self) {
        let base = self.bounce_base;
        for (index, slot) in self.slots.iter().enumerate() {
            let word = owner::look(slot);
            match word.state() {
                Some(State::Idle) => continue,
                Some(State::Filling) => {
                    owner::discard_filling(slot, word).owed.pay(&self.parts, slot);
                    continue;
                }
                _ => {}
            }
            // SAFETY: request bytes are immutable from Submitted to Idle (R10), and only this owner makes a slot
            // Filling again.
            let (raw, vector) = unsafe { (slot.request.with(|p| p.read()), slot.vector.with(|p| p.read())) };
            if raw.pool != BOUNCE || !raw.opcode().is_some_and(Opcode::has_buffers) {
                continue;
            }
            let many = raw.needs_vector();
            for i in 0..usize::from(raw.count).min(MAX_BLOCKS) {
                let block = if many { vector.buffers.get(i).copied().unwrap_or(u32::MAX) } else { raw.arg };
                self.bounce.mark(index, block.wrapping_sub(base));
            }
        }
    }
}

/// Copies the images into the bounce blocks just taken.
fn copy_image(pool: &Pool, base: u32, blocks: &[u32], image: &[u8]) {
    for (block, page) in blocks.iter().zip(image.chunks_exact(pool.block_size().max(1))) {
        // SAFETY: the block was taken for a slot that is Filling, so it is the owner's alone (R5). It is in range, so
        // the copy cannot be refused.
        let _ = unsafe { pool.write(base + *block, 0, page) };
    }
}

/// Each index in range and named once.
fn check_pool(pool: &Pool, indexes: &[u32], n: usize) -> Result<()> {
    if indexes.len() != n {
        return Err(Error::BadCount);
    }
    for (i, index) in indexes.iter().enumerate() {
        if *index >= pool.count() || indexes.iter().skip(i + 1).any(|other| other == index) {
            return Err(Error::BadBuffer);
        }
    }
    Ok(())
}
