//! Which reads are to be looked at for a cancel that nobody told: the slots in which one was submitted, each at most once,
//! however many requests go through it.

use std::collections::VecDeque;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Slots, and since when they wait for a look, in the order of these times.
    queue: VecDeque<(u64, usize)>,
    /// Slots that are in the queue.
    is_in: Vec<bool>,
}

impl Watch {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Looks at a slot after `now`, or sooner if it waits for a look already.
    pub(super) fn add(&mut self, slot: usize, now: u64) {
        if self.is_in.len() <= slot {
            self.is_in.resize(slot + 1, false);
        }
        if let Some(is_in) = self.is_in.get_mut(slot).filter(|is_in| !**is_in) {
            *is_in = true;
            self.queue.push_back((now, slot));
        }
    }

    /// The next slot of those that were added before `now`.
    pub(super) fn next(&mut self, now: u64) -> Option<usize> {
        let (_, slot) = self.queue.front().copied().filter(|(since, _)| *since < now)?;
        self.queue.pop_front();
        if let Some(is_in) = self.is_in.get_mut(slot) {
            *is_in = false;
        }
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_there_once_however_many_requests_go_through_it() {
        let mut w = Watch::default();
        for request in 0..100_000 {
            w.add(request % 64, request as u64);
        }
        assert_eq!(w.len(), 64);
        assert_eq!((0..64).map(|_| w.next(64)).collect::<Vec<_>>(), (0..64).map(Some).collect::<Vec<_>>());
        assert!(w.next(u64::MAX).is_none() && w.is_empty());
    }

    #[test]
    fn a_slot_is_looked_at_once_after_it_was_added_and_again_after_it_was_added_again() {
        let mut w = Watch::default();
        w.add(3, 10);
        assert_eq!((w.next(10), w.next(11), w.next(12)), (None, Some(3), None));
        w.add(3, 12);
        w.add(1, 12);
        assert_eq!((w.next(13), w.next(13), w.next(13)), (Some(3), Some(1), None));
    }
}
