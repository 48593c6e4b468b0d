//! What one shard's server process is known to have ingested.
//!
//! # Two numbers
//! `proved`: the largest n that the process answered on the present connection. A process never un-ingests, so a request
//! with n ≤ proved cannot wait for WAL there (R11). `hint`: what feedback says, or what a fresh connection may assume. It
//! may be wrong, so it never makes a request READY; it makes it worth sending now, in a batch of its own LSN.
//!
//! # Lowering
//! A new connection may lead to another process that is further back (S1): nothing is proved any more, and the hint is what
//! the server said is durable. A wait for n that timed out takes the hint below n, and `proved` with it if n was below it:
//! then something between us and the server changed processes without our noticing.

use crate::request::Lsn;

/// What may be expected of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The server process has ingested it: no wait is possible.
    Ready,
    /// It probably has.
    Hinted,
    /// It would make the server wait.
    Future,
}

/// The watermark of one shard.
#[derive(Clone, Copy, Debug)]
pub struct Watermark {
    generation: u64,
    proved: Lsn,
    hint: Lsn,
    /// Whether anything but the start-up floor was ever heard on this connection.
    heard: bool,
    /// When either number last rose, ns.
    raised_at: u64,
}

impl Watermark {
    /// A shard nobody has heard of yet. `floor`: redo LSN of the last checkpoint, which servers surely have (S13).
    #[must_use]
    pub const fn new(floor: Lsn) -> Self {
        Self { generation: 0, proved: 0, hint: floor, heard: false, raised_at: 0 }
    }

    /// A service that never waits for WAL: everything is READY, always.
    #[must_use]
    pub const fn infinite() -> Self {
        Self { generation: 0, proved: Lsn::MAX, hint: Lsn::MAX, heard: true, raised_at: 0 }
    }

    /// Whether this is a service that never waits for WAL.
    #[must_use]
    pub const fn is_infinite(&self) -> bool {
        self.proved == Lsn::MAX
    }

    /// Number of the connection; grows with each.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Largest LSN that the present connection proved.
    #[must_use]
    pub const fn proved(&self) -> Lsn {
        self.proved
    }

    /// Largest LSN that is believed to be there.
    #[must_use]
    pub const fn hint(&self) -> Lsn {
        if self.hint > self.proved {
            self.hint
        } else {
            self.proved
        }
    }

    /// Whether feedback or an answer came on this connection (S13: else parked reads are tried soon).
    #[must_use]
    pub const fn is_heard(&self) -> bool {
        self.heard
    }

    /// When it last rose, ns.
    #[must_use]
    pub const fn raised_at(&self) -> u64 {
        self.raised_at
    }

    /// Where `n` stands (S2).
    #[must_use]
    #[inline]
    pub const fn standing(&self, n: Lsn) -> Standing {
        if n <= self.proved {
            Standing::Ready
        } else if n <= self.hint {
            Standing::Hinted
        } else {
            Standing::Future
        }
    }

    /// Feedback: the server says that it has received and ingested `lsn`. True if that is news.
    pub fn feedback(&mut self, lsn: Lsn, now: u64) -> bool {
        self.heard = true;
        let news = lsn > self.hint();
        if news {
            self.hint = lsn;
            self.raised_at = now;
        }
        news
    }

    /// A request with `n` was answered on connection `generation`. True if more is READY now.
    pub fn prove(&mut self, generation: u64, n: Lsn, now: u64) -> bool {
        if generation != self.generation || n <= self.proved {
            return false;
        }
        self.heard = true;
        self.proved = n;
        self.raised_at = now;
        true
    }

    /// A new connection. `durable`: the server's disk_consistent_lsn as last heard, at most what is hinted from now on.
    /// An older generation is ignored.
    pub fn reconnected(&mut self, generation: u64, durable: Lsn) {
        if generation <= self.generation || self.is_infinite() {
            return;
        }
        *self = Self { generation, proved: 0, hint: durable, heard: false, raised_at: self.raised_at };
    }

    /// A server waited for `n` until it gave up, or a READY request stalled. True if less is READY now.
    pub fn missed(&mut self, n: Lsn) -> bool {
        if self.is_infinite() {
            return false;
        }
        self.hint = self.hint.min(n.saturating_sub(1));
        let lower = n <= self.proved;
        if lower {
            self.proved = 0;
        }
        lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_prove_and_feedback_only_hints() {
        let mut w = Watermark::new(100);
        assert_eq!((w.standing(100), w.standing(101)), (Standing::Hinted, Standing::Future));
        assert!(w.feedback(500, 1) && !w.feedback(400, 2));
        assert_eq!((w.standing(500), w.standing(501)), (Standing::Hinted, Standing::Future));
        assert!(w.prove(0, 450, 3) && !w.prove(0, 300, 4));
        assert_eq!((w.standing(450), w.standing(451)), (Standing::Ready, Standing::Hinted));
        assert_eq!((w.proved(), w.hint(), w.raised_at()), (450, 500, 3));
    }

    #[test]
    fn a_new_connection_has_proved_nothing_and_old_answers_prove_nothing_on_it() {
        let mut w = Watermark::new(0);
        w.feedback(900, 0);
        assert!(w.prove(0, 800, 0));
        w.reconnected(1, 300);
        assert_eq!((w.standing(300), w.standing(301)), (Standing::Hinted, Standing::Future));
        assert!(!w.prove(0, 800, 1), "an answer of the connection before");
        assert!(w.prove(1, 250, 1));
        w.reconnected(1, 10);
        assert_eq!(w.proved(), 250, "told twice");
    }

    #[test]
    fn a_wait_that_timed_out_lowers_what_it_disproves() {
        let mut w = Watermark::new(0);
        w.feedback(900, 0);
        w.prove(0, 500, 0);
        assert!(!w.missed(800), "500 is still proved");
        assert_eq!((w.proved(), w.hint()), (500, 799));
        assert!(w.missed(400), "another process answers now");
        assert_eq!((w.proved(), w.hint()), (0, 399));
        let mut all = Watermark::infinite();
        all.reconnected(7, 0);
        assert!(!all.missed(1) && all.standing(Lsn::MAX) == Standing::Ready);
    }
}
