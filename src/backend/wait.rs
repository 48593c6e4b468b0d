//! Polling and waiting. Every sleep is timed, and a signal or the embedder's interrupt word ends it.

use super::{Backend, SlotRef};
use crate::clock;
use crate::error::{Error, Result};
use crate::futex::{self, Outcome, Watch, MAX_WORDS};
use crate::layout::Slot;
use crate::slot::{owner, State, Word};
use crate::stats::OwnerCounter;
use crate::sync::{AtomicU32, Ordering};

/// Longest single sleep, in ns.
const SLICE: u64 = 1_000_000_000;
/// Longest single sleep where a change of the interrupt word cannot be watched (R16), in ns.
const BLIND_SLICE: u64 = 10_000_000;

/// How long a wait may last, and what else ends it.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'w> {
    /// When to give up, ns of CLOCK_MONOTONIC; `u64::MAX`: never (a critical section: wait in pieces and log each).
    pub until: u64,
    /// A word that is 0 until the embedder wants the wait to end (PostgreSQL's InterruptPending). With it, and in
    /// [`Backend::wait_any`], the kernel restarts the sleep behind a handler installed with SA_RESTART: such a signal ends
    /// the wait only if its handler sets the word. Any other signal ends it by itself.
    pub interrupt: Option<&'w AtomicU32>,
}

impl Wait<'_> {
    /// Waits for at most so many ns from now.
    #[must_use]
    pub fn for_ns(ns: u64) -> Self {
        Self { until: clock::now().saturating_add(ns), interrupt: None }
    }

    /// Waits for at most so many ms from now.
    #[must_use]
    pub fn for_ms(ms: u64) -> Self {
        Self::for_ns(ms.saturating_mul(1_000_000))
    }

    fn interrupted(&self) -> bool {
        // Acquire: what the embedder wrote before it asked for attention.
        self.interrupt.is_some_and(|w| w.load(Ordering::Acquire) != 0)
    }
}

/// A word that only the communicator (or a cancel) can move on.
#[inline]
pub(super) fn is_unfinished(word: Word) -> bool {
    word.is(State::Submitted) || word.is(State::Processing) || word.is(State::Copying)
}

impl<'r> Backend<'r> {
    /// Whether the request is complete. Never blocks. `Stale` after its result was taken or it was cancelled.
    #[inline]
    pub fn poll(&self, request: SlotRef) -> Result<bool> {
        let (slot, _) = self.own(request.slot)?;
        judge(owner::look(slot), request)
    }

    /// Waits until the request is complete. Blocks, in timed sleeps; returns `TimedOut`, `CommunicatorGone` (the time is
    /// up and nobody holds the role), `Interrupted` (a signal or the interrupt word) or `Stale`. The request stays as it
    /// is after an error: wait again, or cancel.
    #[inline]
    pub fn wait(&mut self, request: SlotRef, wait: &Wait<'_>) -> Result<()> {
        if self.try_wait(request) {
            return Ok(());
        }
        self.wait_rest(request, wait)
    }

    /// Looks for as long as that is cheaper than sleep, and says whether the request is complete: the short way of
    /// [`Backend::wait`]. If not, [`Backend::wait_rest`] decides.
    #[inline(always)]
    pub fn try_wait(&mut self, request: SlotRef) -> bool {
        let Ok((slot, _)) = self.own(request.slot) else { return false };
        let look = || match judge(owner::look(slot), request) {
            Ok(false) => None,
            Ok(true) => Some(true),
            Err(_) => Some(false),
        };
        look().or_else(|| self.spin.poll(look)) == Some(true)
    }

    /// What [`Backend::wait`] does when looking was in vain: it sleeps, or says what is wrong.
    #[cold]
    pub fn wait_rest(&mut self, request: SlotRef, wait: &Wait<'_>) -> Result<()> {
        let (slot, _) = self.own(request.slot)?;
        self.check_process()?;
        let mut now = clock::now();
        loop {
            let word = owner::look(slot);
            if judge(word, request)? {
                return Ok(());
            }
            note_wait(slot, word, now);
            self.check_wait(wait, now)?;
            if let Ok(marked) = owner::set_waiter(slot, word) {
                if self.sleep_on(slot, marked, wait, now) == Outcome::Interrupted {
                    // The completion may have come with the signal.
                    return if judge(owner::look(slot), request)? { Ok(()) } else { Err(Error::Interrupted) };
                }
            }
            // Also when the word moved first: one that moves for ever must not outlast the deadline (I10).
            now = clock::now();
        }
    }

    /// Refuses to sleep when the time is up or the embedder wants attention.
    pub(super) fn check_wait(&self, wait: &Wait<'_>, now: u64) -> Result<()> {
        if wait.interrupted() {
            return Err(Error::Interrupted);
        }
        if now >= wait.until {
            return Err(if self.liveness.role_held() { Error::TimedOut } else { Error::CommunicatorGone });
        }
        Ok(())
    }

    /// One timed sleep on a word that has W set.
    pub(super) fn sleep_on(&self, slot: &Slot, marked: Word, wait: &Wait<'_>, now: u64) -> Outcome {
        self.stats.add(OwnerCounter::FutexWaits, 1);
        let private = self.parts.private;
        match wait.interrupt {
            Some(interrupt) if self.have_waitv => {
                let watches = [Watch::new(&slot.word, marked.low(), private), Watch::new(interrupt, 0, true)];
                futex::wait_any(&watches, now.saturating_add(SLICE).min(wait.until))
            }
            other => {
                let slice = if other.is_some() { BLIND_SLICE } else { SLICE };
                futex::wait(&slot.word, marked.low(), wait.until.saturating_sub(now).min(slice), private)
            }
        }
    }

    /// Waits until at least one of the requests is complete, and gives the index of one that is. At most 127 requests
    /// (`TooMany`); else as [`Backend::wait`]. `BadCount` for none.
    pub fn wait_any(&mut self, requests: &[SlotRef], wait: &Wait<'_>) -> Result<usize> {
        if requests.is_empty() {
            return Err(Error::BadCount);
        }
        if requests.len() >= MAX_WORDS {
            return Err(Error::TooMany);
        }
        if let Some(index) = self.first_complete(requests)? {
            return Ok(index);
        }
        let slots = self.slots;
        let first = self.first;
        let polled = self.spin.poll(|| {
            requests.iter().position(|r| {
                let slot = slots.get(r.slot.wrapping_sub(first) as usize);
                slot.is_some_and(|s| !is_unfinished(owner::look(s)))
            })
        });
        if polled.is_some() {
            if let Some(index) = self.first_complete(requests)? {
                return Ok(index);
            }
        }
        self.sleep_any(requests, wait)
    }

    fn first_complete(&self, requests: &[SlotRef]) -> Result<Option<usize>> {
        for (i, r) in requests.iter().enumerate() {
            if self.poll(*r)? {
                return Ok(Some(i));
            }
        }
        Ok(None)
    }

    #[cold]
    fn sleep_any(&mut self, requests: &[SlotRef], wait: &Wait<'_>) -> Result<usize> {
        self.check_process()?;
        loop {
            let mut watches = [Watch::default(); MAX_WORDS];
            let mut n = 0;
            let mut has_moved = false;
            let now = clock::now();
            for (i, r) in requests.iter().enumerate() {
                let (slot, _) = self.own(r.slot)?;
                let word = owner::look(slot);
                if judge(word, *r)? {
                    return Ok(i);
                }
                note_wait(slot, word, now);
                let Ok(marked) = owner::set_waiter(slot, word) else {
                    has_moved = true;
                    continue;
                };
                if let Some(place) = watches.get_mut(n) {
                    *place = Watch::new(&slot.word, marked.low(), self.parts.private);
                    n += 1;
                }
            }
            self.check_wait(wait, now)?;
            if has_moved {
                // Look again, and do not sleep on a word without W: the half that the kernel compares may be the same
                // again (Copying and back) or still (a take-over changes the epoch alone), and nobody would wake us.
                continue;
            }
            if let (Some(interrupt), Some(place)) = (wait.interrupt, watches.get_mut(n)) {
                *place = Watch::new(interrupt, 0, true);
                n += 1;
            }
            let first = requests.first().and_then(|r| self.own(r.slot).ok()).map(|(slot, _)| slot);
            let outcome = self.sleep_on_any(first, watches.get(..n).unwrap_or(&[]), wait, now);
            if outcome == Outcome::Interrupted {
                return self.first_complete(requests)?.ok_or(Error::Interrupted);
            }
        }
    }

    /// One timed sleep on several words, the first of which is `first`'s.
    pub(super) fn sleep_on_any(&self, first: Option<&Slot>, on: &[Watch<'_>], wait: &Wait<'_>, now: u64) -> Outcome {
        self.stats.add(OwnerCounter::FutexWaits, 1);
        if self.have_waitv {
            return futex::wait_any(on, now.saturating_add(SLICE).min(wait.until));
        }
        // Without FUTEX_WAITV: a short sleep on the first word, then a look at all.
        let Some(slot) = first else { return Outcome::Changed };
        let slice = wait.until.saturating_sub(now).min(BLIND_SLICE / 10);
        futex::wait(&slot.word, owner::look(slot).low(), slice, self.parts.private)
    }
}

/// Notes since when somebody waits, for `shmuring stat`: since the first sleep for this request.
fn note_wait(slot: &Slot, word: Word, now: u64) {
    if !word.waiter() {
        // Relaxed: statistics.
        slot.waiting_since.store(now, Ordering::Relaxed);
    }
}

/// Whether the word says that this request is complete.
#[inline(always)]
pub(super) fn judge(word: Word, request: SlotRef) -> Result<bool> {
    if word.is_of(State::Completed, request.generation) {
        return Ok(true);
    }
    if word.generation() == request.generation && is_unfinished(word) {
        return Ok(false);
    }
    Err(misnamed(word, request))
}

/// Why the word of this request is neither complete nor on its way.
#[cold]
fn misnamed(word: Word, request: SlotRef) -> Error {
    if word.is_of(State::Filling, request.generation) {
        Error::NotCompleted
    } else {
        Error::Stale
    }
}
