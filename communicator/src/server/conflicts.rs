//! What is logged of requests that wait for conflicting ones: at most so many lines a second, and how many more there were.

use super::RequestId;
use shmuring::lsn::in_flight::Key;

/// Lines a second.
const LINES: u32 = 10;
const SECOND: u64 = 1_000_000_000;

/// A request that must wait for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict {
    pub(super) id: RequestId,
    pub(super) by: RequestId,
    pub(super) key: Key,
}

/// A line for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    One(Conflict),
    /// So many were left out since the last line.
    More(u64),
}

/// Decides which conflicts are logged.
#[derive(Debug, Default)]
pub(super) struct Limit {
    since: u64,
    lines: u32,
    left_out: u64,
}

impl Limit {
    /// What to log of a conflict at `now`, ns.
    pub(super) fn admit(&mut self, conflict: Conflict, now: u64, to: &mut Vec<Line>) {
        self.pass(now, to);
        if self.lines < LINES {
            self.lines += 1;
            to.push(Line::One(conflict));
        } else {
            self.left_out += 1;
        }
    }

    /// Says how many were left out, once their second is over.
    pub(super) fn pass(&mut self, now: u64, to: &mut Vec<Line>) {
        if now.saturating_sub(self.since) < SECOND {
            return;
        }
        (self.since, self.lines) = (now, 0);
        if self.left_out > 0 {
            to.push(Line::More(core::mem::take(&mut self.left_out)));
        }
    }
}

impl Line {
    pub(super) fn log(self) {
        match self {
            Self::One(Conflict { id, by, key }) => {
                tracing::info!("request {id} waits for request {by}: both touch {key}");
            }
            Self::More(n) => tracing::info!(requests = n, "more requests waited for conflicting ones"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited_and_what_is_left_out_is_counted() {
        let conflict = Conflict { id: RequestId(7 << 32 | 3), by: RequestId(9 << 32 | 1), key: Key::DbSize(5) };
        let mut limit = Limit::default();
        let mut lines = Vec::new();
        for i in 0..100 {
            limit.admit(conflict, 5 * SECOND + i, &mut lines);
        }
        assert_eq!(lines, [Line::One(conflict); LINES as usize]);
        lines.clear();
        limit.pass(5 * SECOND + 99, &mut lines);
        assert_eq!(lines, []);
        limit.admit(conflict, 6 * SECOND, &mut lines);
        assert_eq!(lines, [Line::More(90), Line::One(conflict)]);
        assert_eq!(format!("{} waits for {}", conflict.id, conflict.by), "7.3 waits for 9.1");
    }
}
