//! What is to be looked at: every block once, and doubtful ones until they are judged.

use super::judge::Kind;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Blocks of one question.
const BATCH: u32 = 64;

/// A block that is to be looked at again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Suspect {
    pub(super) block: u32,
    /// It is the one after the last: nobody has it, if all is well.
    pub(super) is_end: bool,
    /// Looks that said nothing.
    pub(super) tries: u32,
    /// What the last looks said alike, and how many they were.
    pub(super) seen: Option<(Kind, u32)>,
}

impl Suspect {
    pub(super) const fn new(block: u32, is_end: bool) -> Self {
        Self { block, is_end, tries: 0, seen: None }
    }
}

/// Doubtful blocks of one fork.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) fork: usize,
    pub(super) blocks: Vec<Suspect>,
    /// Questions that a server could not answer.
    pub(super) errors: u32,
}

#[derive(Debug)]
struct State {
    fork: usize,
    block: u32,
    groups: VecDeque<Group>,
    /// Groups that somebody looks at.
    in_hand: usize,
    /// Tasks that look at all blocks, and may find doubtful ones.
    feeders: usize,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Feed {
    sizes: Vec<u32>,
    state: Mutex<State>,
}

/// What a task that looks at doubtful blocks does next.
#[derive(Debug)]
pub(super) enum Next {
    Look(Group),
    /// There is nothing now, but there may be.
    Wait,
    End,
}

impl Feed {
    pub(super) fn new(sizes: Vec<u32>, feeders: usize) -> Self {
        let state = State { fork: 0, block: 0, groups: VecDeque::new(), in_hand: 0, feeders };
        Self { sizes, state: Mutex::new(state) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next blocks of a fork; at its end with the one after the last.
    pub(super) fn next(&self) -> Option<(usize, Range<u32>)> {
        let mut state = self.state();
        let (fork, from) = (state.fork, state.block);
        let size = *self.sizes.get(fork)?;
        let to = from.saturating_add(BATCH);
        if to >= size {
            (state.fork, state.block) = (fork + 1, 0);
            Some((fork, from..size.saturating_add(1)))
        } else {
            state.block = to;
            Some((fork, from..to))
        }
    }

    /// The blocks that a fork had when the comparison began.
    pub(super) fn size(&self, fork: usize) -> u32 {
        self.sizes.get(fork).copied().unwrap_or(0)
    }

    /// The rest of a fork need not be looked at: it is gone. How many blocks that is.
    pub(super) fn skip_rest(&self, fork: usize) -> u32 {
        let mut state = self.state();
        if state.fork != fork {
            return 0;
        }
        let rest = self.sizes.get(fork).map_or(0, |size| size.saturating_sub(state.block));
        (state.fork, state.block) = (fork + 1, 0);
        rest
    }

    /// A task has looked at its last blocks.
    pub(super) fn fed(&self) {
        self.state().feeders -= 1;
    }

    pub(super) fn doubt(&self, group: Group) {
        if !group.blocks.is_empty() {
            self.state().groups.push_back(group);
        }
    }

    /// To be given back by [`Feed::judged`].
    pub(super) fn next_doubt(&self) -> Next {
        let mut state = self.state();
        if let Some(group) = state.groups.pop_front() {
            state.in_hand += 1;
            return Next::Look(group);
        }
        if state.feeders == 0 && state.in_hand == 0 {
            Next::End
        } else {
            Next::Wait
        }
    }

    /// What is still in doubt comes back.
    pub(super) fn judged(&self, rest: impl IntoIterator<Item = Group>) {
        let mut state = self.state();
        state.in_hand -= 1;
        state.groups.extend(rest.into_iter().filter(|g| !g.blocks.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_is_fed_once_and_the_end_of_each_fork_with_it() {
        let feed = Feed::new(vec![3, 64, 130], 1);
        let mut all = Vec::new();
        while let Some((fork, blocks)) = feed.next() {
            assert!(blocks.len() <= BATCH as usize + 1);
            all.extend(blocks.map(|b| (fork, b)));
        }
        let wanted: Vec<_> = [3, 64, 130].iter().enumerate().flat_map(|(f, n)| (0..=*n).map(move |b| (f, b))).collect();
        assert_eq!(all, wanted);
    }

    #[test]
    fn doubts_end_when_nobody_can_bring_any() {
        let feed = Feed::new(vec![200], 1);
        assert!(matches!(feed.next_doubt(), Next::Wait));
        feed.doubt(Group { fork: 0, blocks: vec![Suspect::new(5, false)], errors: 0 });
        feed.next();
        assert_eq!(feed.skip_rest(0), 200 - BATCH);
        assert!(feed.next().is_none());
        feed.fed();
        let Next::Look(group) = feed.next_doubt() else { panic!("no group") };
        assert!(matches!(feed.next_doubt(), Next::Wait), "it may come back");
        feed.judged([group]);
        assert!(matches!(feed.next_doubt(), Next::Look(_)));
        feed.judged([]);
        assert!(matches!(feed.next_doubt(), Next::End));
    }
}
