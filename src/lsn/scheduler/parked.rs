//! FUTURE reads by their LSN: who waits for what, in order.
//!
//! LSNs come nearly in order and go lowest first. So they lie in pieces of at most [`PIECE`] each, kept in order, with the
//! lowest bound of each piece beside: adding at the end and taking at the front look at one piece, and anything else at
//! the bounds, which are few and lie together. Nothing is allocated for a single LSN.

use super::super::slab::List;
use crate::request::Lsn;
use std::collections::VecDeque;

/// Most LSNs of a piece.
const PIECE: usize = 64;
/// Emptied pieces whose memory is kept.
const SPARE: usize = 4;

/// The reads of one LSN, by class.
pub(super) type Lists = [List<0>; 3];

/// See the module. No LSN is there without a read, but between two calls of its user.
#[derive(Debug, Default)]
pub(super) struct Parked {
    /// Not above any LSN of the piece, and above all of the piece before.
    bounds: VecDeque<Lsn>,
    /// None is empty.
    pieces: VecDeque<VecDeque<(Lsn, Lists)>>,
    spare: Vec<VecDeque<(Lsn, Lists)>>,
}

/// Where an LSN is, or would be.
#[derive(Clone, Copy)]
struct At {
    piece: usize,
    place: usize,
}

impl Parked {
    /// The lowest LSN.
    pub(super) fn first(&self) -> Option<Lsn> {
        self.pieces.front()?.front().map(|e| e.0)
    }

    /// The highest LSN.
    pub(super) fn last(&self) -> Option<Lsn> {
        self.pieces.back()?.back().map(|e| e.0)
    }

    /// The place of the first LSN that is not below `n`, in the piece where `n` would be; maybe one behind its end.
    fn find(&self, n: Lsn) -> At {
        if self.first().is_none_or(|first| n <= first) {
            return At { piece: 0, place: 0 };
        }
        let piece = self.bounds.partition_point(|b| *b <= n).saturating_sub(1);
        let place = self.pieces.get(piece).map_or(0, |p| p.partition_point(|e| e.0 < n));
        At { piece, place }
    }

    fn at(&self, at: At) -> Option<&(Lsn, Lists)> {
        match self.pieces.get(at.piece)?.get(at.place) {
            Some(entry) => Some(entry),
            None => self.pieces.get(at.piece + 1)?.front(),
        }
    }

    /// The lowest of the LSNs from `n` on.
    pub(super) fn from(&self, n: Lsn) -> Option<(Lsn, &Lists)> {
        self.at(self.find(n)).map(|e| (e.0, &e.1))
    }

    /// The highest of the LSNs up to `n`.
    pub(super) fn up_to(&self, n: Lsn) -> Option<Lsn> {
        let last = self.last()?;
        if last <= n {
            return Some(last);
        }
        let piece = self.bounds.partition_point(|b| *b <= n).checked_sub(1)?;
        let entries = self.pieces.get(piece)?;
        match entries.partition_point(|e| e.0 <= n).checked_sub(1) {
            Some(place) => entries.get(place).map(|e| e.0),
            // Its bound is not above n, but what was lowest has gone.
            None => self.pieces.get(piece.checked_sub(1)?)?.back().map(|e| e.0),
        }
    }

    /// The reads of `n`; none, if it was not there.
    pub(super) fn entry(&mut self, n: Lsn) -> Option<&mut Lists> {
        let At { mut piece, mut place } = match self.last() {
            Some(last) if last > n => self.find(n),
            Some(last) => {
                let piece = self.pieces.len() - 1;
                let len = self.pieces.get(piece).map_or(0, VecDeque::len);
                At { piece, place: if last == n { len - 1 } else { len } }
            }
            None => At { piece: 0, place: 0 },
        };
        if self.pieces.get(piece).and_then(|p| p.get(place)).is_none_or(|e| e.0 != n) {
            (piece, place) = self.room(n, piece, place);
            let entries = self.pieces.get_mut(piece)?;
            if place >= entries.len() {
                entries.push_back((n, Lists::default()));
            } else {
                entries.insert(place, (n, Lists::default()));
            }
            let bound = self.bounds.get_mut(piece)?;
            *bound = n.min(*bound);
        }
        self.pieces.get_mut(piece)?.get_mut(place).map(|e| &mut e.1)
    }

    /// Makes room for `n` at a place; gives the place where it is then.
    fn room(&mut self, n: Lsn, piece: usize, place: usize) -> (usize, usize) {
        let Some(full) = self.pieces.get_mut(piece) else {
            self.pieces.push_back(self.spare.pop().unwrap_or_default());
            self.bounds.push_back(n);
            return (piece, 0);
        };
        if full.len() < PIECE {
            return (piece, place);
        }
        // At its end: the next one. What comes in order leaves full pieces behind.
        let half = if place >= PIECE { PIECE } else { PIECE / 2 };
        let mut next = self.spare.pop().unwrap_or_default();
        next.extend(full.drain(half..));
        self.bounds.insert(piece + 1, next.front().map_or(n, |e| e.0));
        self.pieces.insert(piece + 1, next);
        if place > half || half == PIECE {
            (piece + 1, place - half)
        } else {
            (piece, place)
        }
    }

    /// The reads of `n`, if there are any.
    pub(super) fn get_mut(&mut self, n: Lsn) -> Option<&mut Lists> {
        let at = self.find(n);
        self.pieces.get_mut(at.piece)?.get_mut(at.place).filter(|e| e.0 == n).map(|e| &mut e.1)
    }

    /// Takes an LSN out.
    pub(super) fn remove(&mut self, n: Lsn) -> Option<Lists> {
        let at = self.find(n);
        let piece = self.pieces.get_mut(at.piece)?;
        if piece.get(at.place)?.0 != n {
            return None;
        }
        let (_, lists) = if at.place == 0 { piece.pop_front()? } else { piece.remove(at.place)? };
        if piece.is_empty() {
            self.bounds.remove(at.piece);
            if let Some(empty) = self.pieces.remove(at.piece).filter(|_| self.spare.len() < SPARE) {
                self.spare.push(empty);
            }
        }
        Some(lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn check(parked: &Parked, model: &BTreeSet<Lsn>, n: Lsn) {
        assert_eq!(parked.first(), model.first().copied());
        assert_eq!(parked.last(), model.last().copied());
        assert_eq!(parked.from(n).map(|e| e.0), model.range(n..).next().copied(), "from {n}");
        assert_eq!(parked.up_to(n), model.range(..=n).next_back().copied(), "up to {n}");
        assert_eq!(parked.bounds.len(), parked.pieces.len());
        if n % 64 == 0 {
            assert!(parked.pieces.iter().all(|p| !p.is_empty() && p.len() <= PIECE));
        }
    }

    /// Steps of one kind: LSNs below `range` come, or go; with `in_order`, they come at the end and go at the front.
    fn run(range: u64, in_order: bool, keep: usize) {
        let (mut parked, mut model) = (Parked::default(), BTreeSet::new());
        let mut seed = range;
        for step in 0..10_000u64 {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let any = (seed >> 20) % range;
            if model.len() < keep || seed >> 63 == 0 {
                let n = if in_order { step } else { any };
                assert!(parked.entry(n).is_some());
                model.insert(n);
            } else {
                let n = if in_order { model.first().copied().unwrap_or(0) } else { any };
                assert_eq!(parked.get_mut(n).is_some(), model.contains(&n));
                assert_eq!(parked.remove(n).is_some(), model.remove(&n));
            }
            check(&parked, &model, if in_order { step.saturating_sub(any) } else { any });
        }
        while let Some(n) = parked.first() {
            assert!(parked.remove(n).is_some() && model.remove(&n));
            check(&parked, &model, n);
        }
        assert!(model.is_empty());
    }

    #[test]
    fn the_lsns_are_those_of_an_ordered_set_in_whatever_order_they_come_and_go() {
        run(100, false, 0);
        run(5_000, false, 500);
        run(u64::MAX >> 21, false, 3_000);
        run(1_000, true, 0);
        run(1_000, true, 700);
    }
}
