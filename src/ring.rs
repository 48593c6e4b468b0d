//! Submission ring: many backends push slot numbers, one communicator takes them in order.
//!
//! # What
//! Free-running 64-bit tickets. A push takes a ticket with one fetch_add on the tail and publishes the slot number in
//! the ticket's cell with one compare-exchange. The consumer polls the cell at the head, never the tail, so that the
//! tail's line stays with the producers. An entry is a hint: the slot's own word decides (I7).
//!
//! # States
//! Of a cell: Empty(lap) → Published(lap, slot) → Empty(lap + 1); stepped over: Empty(lap) → Empty(lap + 1).
//!
//! # Fields
//! `tail`: any backend, fetch_add only. `head`: the communicator only. A cell: whoever holds its ticket, once, and the
//! communicator. The pending bitmap and `any`: backends set, the communicator swaps.
//!
//! # Invariants
//! I5: a death leaves at most the unpublished tickets of one push. I6: push is wait-free, three tickets at most, then the
//! pending bitmap; full is not an error. I7, R7, R8, R14, R15.
//!
//! # Orderings
//! CQ_1 a published slot number carries the Submitted store. CQ_2 a cell is reset before the head passes it. SL_5 a
//! pending bit carries the Submitted store; SL_7 `any` carries the bit.
//!
//! # Recovery
//! Death between ticket and publish leaves one unpublished ticket: the consumer steps over it after a bounded number of
//! polls. Death between reset and head store: a successor finds the cell a lap ahead and just advances.

use crate::layout::{Cell, Slot};
use crate::parts::Parts;
use crate::sync::{in_register, ord, prefetch_read, prefetch_write, Ordering};

/// Tickets that one push tries before it takes the pending bitmap.
const TICKETS: usize = 3;
/// Polls of an empty head cell before the tail is read, and an unpublished ticket stepped over.
const STALL_POLLS: u32 = if cfg!(any(feature = "loom", feature = "shuttle")) { 1 } else { 512 };

const SLOT_BITS: u32 = 24;
const NO_SLOT: u64 = (1 << SLOT_BITS) - 1;
const LAP_MASK: u64 = (1 << (64 - SLOT_BITS)) - 1;

/// The value of a cell that waits for the ticket of `lap`. A new region's cells hold `empty(0)`.
#[must_use]
pub const fn empty(lap: u64) -> u64 {
    (lap & LAP_MASK) << SLOT_BITS | NO_SLOT
}

/// `slot` fits its bits.
const fn published(lap: u64, slot: u32) -> u64 {
    (lap & LAP_MASK) << SLOT_BITS | slot as u64
}

/// The cell of a ticket, and its lap. `None` only for a ring without cells.
#[inline]
fn locate<'r>(parts: &Parts<'r>, ticket: u64) -> Option<(&'r Cell, u64)> {
    locate_in(parts.cells, ticket)
}

#[inline(always)]
fn locate_in(cells: &[Cell], ticket: u64) -> Option<(&Cell, u64)> {
    let n = cells.len() as u64;
    let cell = cells.get((ticket & n.wrapping_sub(1)) as usize)?;
    // Not masked to the bits that a cell has: `empty` and `published` drop the others.
    Some((cell, ticket >> n.trailing_zeros()))
}

/// Names a slot.
pub(crate) trait Numbered {
    /// The slot's number.
    fn number(&self) -> u32;
}

impl Numbered for u32 {
    #[inline]
    fn number(&self) -> u32 {
        *self
    }
}

/// Takes tickets and publishes. Private to one backend handle.
#[derive(Debug, Default)]
pub struct Producer {
    /// The head when last looked at: saves its line from bouncing at every push.
    head_seen: u64,
    /// The last ticket found the ring full, so look before taking another: at most one is wasted for each fill-up (R7).
    careful: bool,
}

/// What the first try of a push of one slot came to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FirstTry {
    /// The slot is in the ring.
    Pushed,
    /// This ticket was taken; whether it has room is to be looked up.
    Ticket(u64),
    /// No ticket, or one that was stepped over.
    Failed,
}

impl Producer {
    /// A producer that looks before its first push.
    #[must_use]
    pub const fn new() -> Self {
        Self { head_seen: 0, careful: true }
    }

    /// Tells the communicator that these slots are Submitted; returns how many went by the pending bitmap. Never fails,
    /// never waits. The caller rings the doorbell afterwards.
    #[inline]
    pub fn push(&mut self, parts: &Parts<'_>, slots: &[u32]) -> u64 {
        self.push_all(parts, slots)
    }

    /// As [`Producer::push`], of whatever names slots.
    #[inline]
    pub(crate) fn push_all<S: Numbered>(&mut self, parts: &Parts<'_>, slots: &[S]) -> u64 {
        if !self.careful {
            let rest = self.push_once(parts, slots);
            if rest.is_empty() {
                return 0;
            }
            return self.push_rest(parts, rest, 1);
        }
        self.push_rest(parts, slots, 0)
    }

    /// The first try of a push of one slot, whose number is that of one. What is rare is left to
    /// [`Producer::push_again`], so that the caller has nothing to keep for it.
    #[inline(always)]
    pub(crate) fn push_one(&mut self, parts: &Parts<'_>, slot: u32) -> FirstTry {
        if self.careful {
            return FirstTry::Failed;
        }
        // Relaxed: as in `push_once`.
        let ticket = parts.header.tail.0.fetch_add(1, Ordering::Relaxed);
        if ticket.wrapping_sub(self.head_seen) >= parts.cells.len() as u64 {
            return FirstTry::Ticket(ticket);
        }
        if publish_in(parts, ticket, slot) {
            FirstTry::Pushed
        } else {
            FirstTry::Failed
        }
    }

    /// The rest of a push of one slot; as [`Producer::push`].
    #[cold]
    pub(crate) fn push_again(&mut self, parts: &Parts<'_>, slot: u32, first: FirstTry) -> u64 {
        let is_pushed = match first {
            FirstTry::Pushed => true,
            FirstTry::Ticket(ticket) => self.publish(parts, ticket, slot),
            FirstTry::Failed => false,
        };
        // A try that only looked is counted as well.
        if is_pushed {
            0
        } else {
            self.push_rest(parts, &[slot], 1)
        }
    }

    /// The rest of a push that has tried `tried` times, or that must look first.
    #[cold]
    fn push_rest<S: Numbered>(&mut self, parts: &Parts<'_>, slots: &[S], tried: usize) -> u64 {
        let mut rest = slots;
        for _ in tried..TICKETS {
            if rest.is_empty() {
                return 0;
            }
            if self.careful && self.is_full(parts) {
                break;
            }
            rest = self.push_once(parts, rest);
        }
        for slot in rest {
            set_pending(parts, slot.number());
        }
        rest.len() as u64
    }

    /// Takes a ticket for each slot in one fetch_add, and publishes. What could not be published is returned: it is the
    /// tail of `slots`, in order, from the first failure on.
    #[inline]
    fn push_once<'s, S: Numbered>(&mut self, parts: &Parts<'_>, slots: &'s [S]) -> &'s [S] {
        // A batch longer than the ring would lap itself.
        let n = slots.len().min(parts.cells.len());
        // Relaxed: a ticket is a number; what it leads to is published through its cell (CQ_1), and the park check sees
        // it through the doorbell's fences (DB_1).
        let first = parts.header.tail.0.fetch_add(n as u64, Ordering::Relaxed);
        let mut done = 0;
        for (i, slot) in slots.iter().take(n).enumerate() {
            if !self.publish(parts, first.wrapping_add(i as u64), slot.number()) {
                break;
            }
            done += 1;
        }
        slots.get(done..).unwrap_or(&[])
    }

    #[inline(always)]
    fn publish(&mut self, parts: &Parts<'_>, ticket: u64, slot: u32) -> bool {
        let capacity = parts.cells.len() as u64;
        if ticket.wrapping_sub(self.head_seen) >= capacity && !self.has_room(parts, ticket) {
            return false;
        }
        // So that a number which is none cannot spoil the lap.
        publish_in(parts, ticket, slot & NO_SLOT as u32)
    }

    /// Whether the ticket has room, by a fresh look at the head.
    #[cold]
    fn has_room(&mut self, parts: &Parts<'_>, ticket: u64) -> bool {
        self.head_seen = load_head(parts);
        self.careful = ticket.wrapping_sub(self.head_seen) as i64 >= parts.cells.len() as i64;
        !self.careful
    }

    /// Whether there is no room, by a fresh look at both ends.
    #[cold]
    fn is_full(&mut self, parts: &Parts<'_>) -> bool {
        self.head_seen = load_head(parts);
        // Relaxed: a stale tail costs a ticket, no more.
        let tail = parts.header.tail.0.load(Ordering::Relaxed);
        self.careful = tail.wrapping_sub(self.head_seen) as i64 >= parts.cells.len() as i64;
        self.careful
    }
}

/// Publishes a slot in the cell of a ticket that has room.
#[inline(always)]
fn publish_in(parts: &Parts<'_>, ticket: u64, slot: u32) -> bool {
    let Some((cell, lap)) = locate(parts, ticket) else { return false };
    let cell = in_register(cell);
    // ORD(CQ_1): pairs with the Acquire in `Consumer::next`; carries the Submitted store of this slot.
    // Relaxed on failure: the ticket was stepped over, and nothing is read through the cell.
    let done =
        cell.0.compare_exchange(empty(lap), published(lap, slot), ord!(CQ_1, Release), Ordering::Relaxed).is_ok();
    // The next cell, but for the last one, behind which is something else: a hint may be wrong.
    prefetch_write::<{ size_of::<Cell>() }, _>(cell);
    done
}

fn load_head(parts: &Parts<'_>) -> u64 {
    // ORD(CQ_2): pairs with the Release in `Consumer::advance`; a cell behind the head has been reset.
    parts.header.head.0.load(ord!(CQ_2, Acquire))
}

/// Sets the slot's bit in the pending bitmap: a hint without a ticket (R7), for a push that found no room and for whoever
/// cannot know whether a hint was ever given.
#[cold]
pub fn set_pending(parts: &Parts<'_>, slot: u32) {
    let Some(word) = parts.pending.get(slot as usize / 64) else { return };
    // ORD(SL_5): pairs with the swap in `Consumer::take_pending`; carries the state of this slot. An RMW, since several
    // producers write one word (R8).
    word.fetch_or(1 << (slot % 64), ord!(SL_5, Release));
    // ORD(SL_7): pairs with the swap of `any`; carries the bit. fetch_add, so that no raise overwrites another, and the
    // swap sees the bits of all: read-modify-writes go on with each other's release sequence.
    parts.header.any.0.fetch_add(1, ord!(SL_7, Release));
}

/// What a communicator counts while it reaps; added to the region's statistics once a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounts {
    /// Tickets stepped over.
    pub stepped_over: u64,
    /// Hints found in the pending bitmap.
    pub pending: u64,
    /// Times that the counters of the ring were beyond belief, and were set anew.
    pub damage: u64,
}

/// The consumer side of the ring: the communicator's, while it holds the role.
#[derive(Debug)]
pub struct Consumer {
    head: u64,
    /// Empty polls of the head cell since the last progress.
    polls: u32,
    /// Tickets below this one have had their spin budget: an empty cell among them is stepped over at once (R15).
    run_until: u64,
    damaged: bool,
    /// Counted since the caller last took them.
    pub counts: RingCounts,
}

impl Consumer {
    /// The consumer that goes on where the last one stopped. The caller holds the role.
    #[must_use]
    pub fn new(parts: &Parts<'_>) -> Self {
        // Acquire through the role lock as well; CQ_2 keeps one rule for the head.
        let head = load_head(parts);
        Self { head, polls: 0, run_until: head, damaged: false, counts: RingCounts::default() }
    }

    /// The next slot number, if one is published. At most a ring's length of steps (I10).
    #[inline(always)]
    pub fn next(&mut self, parts: &Parts<'_>) -> Option<u32> {
        let (cells, head) = (parts.cells, self.head);
        let (cell, lap) = locate_in(cells, head)?;
        // ORD(CQ_1): pairs with the Release in `Producer::publish`; the slot's Submitted store is visible.
        let value = cell.0.load(ord!(CQ_1, Acquire));
        // The lap cancels out of a cell published in it, and NO_SLOT is left of an empty one.
        let slot = value ^ published(lap, 0);
        if slot < NO_SLOT {
            self.advance(parts, cell, Some(lap));
            look_ahead(cells, parts.slots, head.wrapping_add(1));
            return Some(slot as u32);
        }
        self.search(parts)
    }

    /// The head's cell is empty, or not what it should be: `next` in full.
    #[inline(never)]
    fn search(&mut self, parts: &Parts<'_>) -> Option<u32> {
        for _ in 0..parts.cells.len() {
            let (cell, lap) = locate(parts, self.head)?;
            // ORD(CQ_1): as in `next`.
            let value = cell.0.load(ord!(CQ_1, Acquire));
            if value == empty(lap) {
                if !self.step_over(parts, cell, lap) {
                    return None;
                }
                continue;
            }
            let slot = value ^ published(lap, 0);
            if slot < NO_SLOT {
                self.advance(parts, cell, Some(lap));
                return Some(slot as u32);
            }
            if value != empty(lap.wrapping_add(1)) || self.taken(parts) <= 0 {
                self.damaged = true;
                return None;
            }
            // A ticket taken and its cell a lap ahead: the last consumer died between reset and head store (R14).
            self.advance(parts, cell, None);
        }
        None
    }

    /// Tickets taken and not reaped; beyond belief if it is negative or more than twice the cells (R15).
    #[inline]
    fn taken(&self, parts: &Parts<'_>) -> i64 {
        // Relaxed: a stale tail shows a ticket later, which the park check (after its fence) never misses.
        parts.header.tail.0.load(Ordering::Relaxed).wrapping_sub(self.head) as i64
    }

    fn is_beyond_belief(parts: &Parts<'_>, taken: i64) -> bool {
        taken < 0 || taken > 2 * parts.cells.len() as i64
    }

    /// Steps over the unpublished ticket at the head once its budget is spent; `false`: nothing to do now.
    #[inline]
    fn step_over(&mut self, parts: &Parts<'_>, cell: &Cell, lap: u64) -> bool {
        self.polls += 1;
        if self.polls < STALL_POLLS && self.head.wrapping_sub(self.run_until) as i64 >= 0 {
            return false;
        }
        self.polls = 0;
        let taken = self.taken(parts);
        if Self::is_beyond_belief(parts, taken) {
            self.damaged = true;
            return false;
        }
        if taken == 0 {
            return false;
        }
        // Relaxed: the cell passes from the late producer to nobody; if it was published meanwhile, look again.
        if cell.0.compare_exchange(empty(lap), empty(lap.wrapping_add(1)), Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.counts.stepped_over += 1;
            self.run_until = self.head.wrapping_add(taken as u64);
            self.advance(parts, cell, None);
        }
        true
    }

    /// Resets the cell, then moves the head past it (R14: in this order).
    #[inline]
    fn advance(&mut self, parts: &Parts<'_>, cell: &Cell, reset: Option<u64>) {
        if let Some(lap) = reset {
            // Relaxed: the head's store after it publishes it.
            cell.0.store(empty(lap.wrapping_add(1)), Ordering::Relaxed);
        }
        self.polls = 0;
        self.head = self.head.wrapping_add(1);
        // ORD(CQ_2): pairs with the Acquire in `load_head`; a producer that sees the new head finds the cell empty.
        parts.header.head.0.store(self.head, ord!(CQ_2, Release));
    }

    /// Calls `each` with every slot whose pending bit is set.
    #[inline]
    pub fn take_pending(&mut self, parts: &Parts<'_>, each: impl FnMut(u32)) {
        if has_pending(parts) {
            self.sweep_pending(parts, each);
        }
    }

    #[cold]
    fn sweep_pending(&mut self, parts: &Parts<'_>, mut each: impl FnMut(u32)) {
        // ORD(SL_7): pairs with the fetch_add in `set_pending`; the bits raised for it are visible.
        parts.header.any.0.swap(0, ord!(SL_7, Acquire));
        for (i, word) in parts.pending.iter().enumerate() {
            // Relaxed: no data hangs off the look, the swap carries the edge.
            if word.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // ORD(SL_5): pairs with the fetch_or in `set_pending`; the slot's state is visible.
            let mut bits = word.swap(0, ord!(SL_5, Acquire));
            while bits != 0 {
                self.counts.pending += 1;
                each(i as u32 * 64 + bits.trailing_zeros());
                bits &= bits - 1;
            }
        }
    }

    /// Whether no ticket is outstanding and no pending bit raised. The doorbell asks after its fence (R7).
    pub fn is_idle(parts: &Parts<'_>) -> bool {
        // Relaxed, all three: ordered by the fence of the caller, and only equality matters. The head is our own.
        let tail = parts.header.tail.0.load(Ordering::Relaxed);
        let head = parts.header.head.0.load(Ordering::Relaxed);
        tail == head && parts.header.any.0.load(Ordering::Relaxed) == 0
    }

    /// Whether the ring's counters were found beyond belief since the last [`Consumer::repair`], or are so now. Also a
    /// head that somebody else has stored: producers would find the ring full for ever, and no park would be allowed.
    #[must_use]
    pub fn is_damaged(&self, parts: &Parts<'_>) -> bool {
        // Relaxed: only this consumer stores it.
        let head = parts.header.head.0.load(Ordering::Relaxed);
        self.damaged || head != self.head || Self::is_beyond_belief(parts, self.taken(parts))
    }

    /// Sets head to tail and every cell to the lap that its next ticket has (R15). The caller sweeps all slots after,
    /// since every hint is gone, and calls this at most once a second.
    pub fn repair(&mut self, parts: &Parts<'_>) {
        self.damaged = false;
        self.counts.damage += 1;
        let tail = parts.header.tail.0.load(Ordering::Relaxed);
        for i in 0..parts.cells.len() as u64 {
            if let Some((cell, lap)) = locate(parts, tail.wrapping_add(i)) {
                // An RMW, so that the sweep after it sees the state of a slot whose hint this overwrites.
                cell.0.swap(empty(lap), Ordering::AcqRel);
            }
        }
        self.head = tail;
        self.run_until = tail;
        self.polls = 0;
        parts.header.head.0.store(tail, ord!(CQ_2, Release));
    }
}

/// Asks for the lines of the requests to come, so that they travel while this one is served: every step of a claim waits
/// for the one before, and without this no two lines are under way at once. The slot that the cell of ticket `next` names,
/// if it is published, is asked for in a writable state, since the claim writes it; the cell after that for reading, so
/// that the next look at it does not wait. Cells that are not published stay with their producers.
#[inline(always)]
fn look_ahead(cells: &[Cell], slots: &[Slot], next: u64) {
    if cfg!(any(feature = "loom", feature = "shuttle")) {
        return;
    }
    let (Some((cell, lap)), Some((after, _))) = (locate_in(cells, next), locate_in(cells, next.wrapping_add(1))) else {
        return;
    };
    // Relaxed: only for the caches. The look that counts is the one in `Consumer::next` (CQ_1).
    if let Some(slot) = slots.get((cell.0.load(Ordering::Relaxed) ^ published(lap, 0)) as usize) {
        prefetch_write::<0, _>(slot);
    }
    prefetch_read(after);
}

/// Whether the pending bitmap is worth a look.
#[inline]
#[must_use]
pub fn has_pending(parts: &Parts<'_>) -> bool {
    // Relaxed: 0 only postpones the look; the park check loads it again after its fence.
    parts.header.any.0.load(Ordering::Relaxed) != 0
}

/// Whether a word of the pending bitmap names this slot; for statistics.
#[must_use]
pub fn is_pending(parts: &Parts<'_>, slot: u32) -> bool {
    let word = parts.pending.get(slot as usize / 64).map_or(0, |w| w.load(Ordering::Relaxed));
    word >> (slot % 64) & 1 == 1
}

/// The slot of that number.
#[inline]
#[must_use]
pub fn slot_at<'r>(parts: &Parts<'r>, slot: u32) -> Option<&'r Slot> {
    parts.slots.get(slot as usize)
}
