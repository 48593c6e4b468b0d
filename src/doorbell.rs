//! Doorbell: wakes a communicator that sleeps, and costs a load while it is awake.
//!
//! # What
//! The communicator sleeps on the *sequence*, a futex; `parked` tells producers that it does (or is about to), and which
//! park it is. Both sides run store → fence → load (R-numbers below), and nothing else in the library is SeqCst:
//!
//! ```text
//! communicator                                producer
//! seq = sequence                              (ticket, cell) or (pending bit, any)     publish
//! parked = park, flag set          store      fence(SeqCst)                  DB_2
//! fence(SeqCst)           DB_1                p = parked                               load
//! tail == head and any == 0 ?       load      flag set in p, and p not yet rung?
//! futex_wait(sequence, seq)                   sequence += 1; futex_wake(all)
//! parked = next park, flag clear
//! ```
//!
//! At least one of the two loads sees the other side's store: either the communicator does not sleep, or the producer
//! sees the flag. Without either fence both may miss (three trusted rings shipped that); the model checks keep a twin
//! without each fence that must fail.
//!
//! # Invariants
//! I8: only the sleeper clears the flag. A producer that dies between raising the sequence and waking leaves a flag that
//! the next producer still sees; one that "wakes, then clears" would lose it. A producer rings each park at most once:
//! the park's number tells (R18: 64 bits, and it goes on across take-overs).

use crate::futex::{self, Outcome};
use crate::parts::Parts;
use crate::ring::Consumer;
use crate::sync::{fence, fence_after_rmw, ord, Ordering};

/// Longest sleep of a communicator, in ns: it audits at least this often (R14, R18).
pub const LONGEST_SLEEP: u64 = 1_000_000_000;

const FLAG: u64 = 1;

/// The producer's side. Private to one backend handle.
#[derive(Debug, Default)]
pub struct Bell {
    /// The park that this producer rang last.
    rung: u64,
}

impl Bell {
    /// Rings if the communicator sleeps and this producer has not rung for this sleep already; returns whether it made a
    /// system call. Call it after every push, once for a batch.
    #[inline]
    pub fn ring(&mut self, parts: &Parts<'_>) -> bool {
        let parked = look(parts);
        parked & FLAG != 0 && self.wake(parts, parked)
    }

    /// Whether there may be somebody to ring for: asked after a push, in place of [`Bell::ring`], which is due if so.
    #[inline]
    pub(crate) fn is_due(parts: &Parts<'_>) -> bool {
        look(parts) & FLAG != 0
    }

    #[cold]
    fn wake(&mut self, parts: &Parts<'_>, parked: u64) -> bool {
        if parked == self.rung {
            return false;
        }
        self.rung = parked;
        // Relaxed: the number only tells the kernel that a ring came. What was published before it is seen through the
        // fences: a sleeper that reads the new number has its fence after ours, so its look at the ring sees it all.
        parts.header.sequence.0.fetch_add(1, Ordering::Relaxed);
        futex::wake_all(&parts.header.sequence.0, parts.private);
        true
    }
}

/// The park, or that there is none, as seen after a push.
#[inline]
fn look(parts: &Parts<'_>) -> u64 {
    // ORD(DB_2): pairs with DB_1 in `park`. The publish before it is a locked instruction (see `fence_after_rmw`).
    fence_after_rmw(ord!(DB_2, SeqCst));
    // Relaxed: ordered by the fence; the value is only compared.
    parts.header.parked.0.load(Ordering::Relaxed)
}

/// Rings without a handle: for a process that only wants the communicator to look.
pub fn ring_once(parts: &Parts<'_>) {
    Bell::default().ring(parts);
}

/// How a park ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// There was something to do, so it did not sleep.
    Busy,
    /// It slept, and was rung.
    Rung,
    /// It slept for the whole time.
    TimedOut,
}

/// Sleeps until a producer rings, for at most `ns` (never more than [`LONGEST_SLEEP`]); the communicator alone calls it,
/// from one thread at a time. May return early for nothing.
pub fn park(parts: &Parts<'_>, ns: u64) -> Parked {
    let header = parts.header;
    // Relaxed: read before the fence. A ring for this park that this load already sees came from a producer whose fence
    // is before ours, so the look at the ring below finds what it rang for.
    let sequence = header.sequence.0.load(Ordering::Relaxed);
    // Relaxed: only the holder of the role writes it.
    let last = header.parked.0.load(Ordering::Relaxed);
    let this = (last | FLAG).wrapping_add(2);
    header.parked.0.store(this, Ordering::Relaxed);
    // ORD(DB_1): pairs with DB_2 in `look`.
    fence(ord!(DB_1, SeqCst));
    let ended = if !Consumer::is_idle(parts) {
        Parked::Busy
    } else {
        match futex::wait(&header.sequence.0, sequence, ns.min(LONGEST_SLEEP), parts.private) {
            Outcome::TimedOut => Parked::TimedOut,
            _ => Parked::Rung,
        }
    };
    // Relaxed: a producer that still sees the flag rings for nothing.
    header.parked.0.store(this & !FLAG, Ordering::Relaxed);
    ended
}
