//! The page server's end of a connection: what is read when, what is batched, what waits (R0-R5, B1-B4).
//!
//! | | pagestream (libpq) | stream (gRPC) |
//! |---|---|---|
//! | read | when it comes; its effective LSN is fixed then (B1) | one by one, each when the one before is answered (B4) |
//! | batch | pages that came while another batch ran, at most 32; taken by the executor as soon as it is idle (B2) | a request is one: up to 32 pages of one relation |
//! | wait | once, for the largest LSN of the batch (B3) | once, for the one LSN |
//! | answers | in order | in order |
//!
//! Nothing is reused of what is ahead: whoever is behind a batch that waits, waits.

use super::scenario::{Time, US};
use shmuring::lsn::in_flight::Key;
use shmuring::request::Lsn;
use std::collections::VecDeque;

/// Keys that are read as one batch at most (B1).
pub const MAX_BATCH: usize = 32;

/// Which protocol a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// libpq.
    Pagestream,
    /// gRPC.
    Stream,
}

/// A request on the wire.
#[derive(Clone, Debug)]
pub struct WireRequest {
    /// The policy's name for it.
    pub tag: u64,
    /// What is read.
    pub keys: Vec<Key>,
    /// not_modified_since.
    pub n: Lsn,
    /// Request LSN; `Lsn::MAX`: the latest.
    pub r: Lsn,
    /// The largest LSN that it has waited for before it was sent (I12).
    pub dep: Lsn,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The pages.
    Ok,
    /// The LSN did not come in time (R5).
    LsnTimeout,
    /// R0.
    Rejected,
}

/// An answer on the wire.
#[derive(Clone, Copy, Debug)]
pub struct WireReply {
    /// Of the request.
    pub tag: u64,
    /// What it came to.
    pub reply: Reply,
    /// The largest LSN that it waited for, in all (I12).
    pub dep: Lsn,
    /// It needed WAL that the server did not have.
    pub stalled: bool,
}

/// A request that the server has read.
#[derive(Clone, Debug)]
pub(super) struct Parsed {
    request: WireRequest,
    effective: Lsn,
    pub(super) stalled: bool,
    rejected: bool,
}

impl Parsed {
    fn is_page(&self) -> bool {
        !self.rejected && self.request.keys.iter().all(|k| matches!(k, Key::Block(..)))
    }

    /// B2: whether it may be read together with others.
    fn fits(&self, batch: &[Self]) -> bool {
        let same = |other: &Self| other.request.keys == self.request.keys && other.effective != self.effective;
        let pages = |p: &Self| p.request.keys.len();
        batch.is_empty()
            || (self.is_page()
                && batch.iter().all(Self::is_page)
                && batch.iter().map(pages).sum::<usize>() + pages(self) <= MAX_BATCH
                && !batch.iter().any(same))
    }
}

/// What the executor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Executor {
    Idle,
    Waits(Lsn, Time),
    Runs,
}

/// What the server must see to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing.
    Rest,
    /// Tell the connection when L has come to this, or the time to wait is over.
    Wait(Lsn),
    /// The batch is ready after this time.
    Run(Time),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) shard: usize,
    protocol: Protocol,
    /// Not broken, as the server knows.
    pub(super) open: bool,
    unread: VecDeque<WireRequest>,
    /// Read, and in no batch that it fits.
    held: Option<Parsed>,
    /// The batch that the executor takes next.
    next: Vec<Parsed>,
    batch: Vec<Parsed>,
    executor: Executor,
    /// Counts batches, so that late events are told.
    pub(super) ticket: u64,
    /// When the last message arrives at the server, and at the client: in order each way.
    pub(super) last_in: Time,
    pub(super) last_out: Time,
}

impl Connection {
    pub(super) fn new(shard: usize, protocol: Protocol) -> Self {
        Self {
            shard,
            protocol,
            open: true,
            unread: VecDeque::new(),
            held: None,
            next: Vec::new(),
            batch: Vec::new(),
            executor: Executor::Idle,
            ticket: 0,
            last_in: 0,
            last_out: 0,
        }
    }

    /// A request has arrived.
    pub(super) fn arrive(&mut self, request: WireRequest) {
        self.unread.push_back(request);
    }

    /// R0-R2. `at`: the server's last LSN; `cutoff`: of garbage collection.
    fn parse(request: WireRequest, at: Lsn, cutoff: Lsn) -> Parsed {
        let (n, r) = (request.n, request.r);
        let rejected = r < n || r == 0 || r < cutoff;
        let stalled = !rejected && n > at;
        let effective = if stalled { n } else { at.min(r) };
        Parsed { request, effective, stalled, rejected }
    }

    /// Reads, batches and begins what can be. Call it after whatever may have changed something.
    pub(super) fn pump(&mut self, at: Lsn, cutoff: Lsn, now: Time) -> Step {
        let mut step = Step::Rest;
        loop {
            if self.executor == Executor::Idle && !self.next.is_empty() {
                self.batch = std::mem::take(&mut self.next);
                step = self.begin(at, now);
            }
            let reads_ahead = self.protocol == Protocol::Pagestream || self.executor == Executor::Idle;
            if self.held.is_none() && reads_ahead {
                self.held = self.unread.pop_front().map(|r| Self::parse(r, at, cutoff));
            }
            match self.held.take() {
                Some(parsed) if parsed.fits(&self.next) => self.next.push(parsed),
                held => {
                    self.held = held;
                    return step;
                }
            }
        }
    }

    /// B3: one wait for all of the batch.
    fn begin(&mut self, at: Lsn, now: Time) -> Step {
        self.ticket += 1;
        let target = self.batch.iter().filter(|p| !p.rejected).map(|p| p.effective).max().unwrap_or(0);
        if target > at {
            self.executor = Executor::Waits(target, now);
            return Step::Wait(target);
        }
        self.run()
    }

    fn run(&mut self) -> Step {
        self.executor = Executor::Runs;
        let pages: usize = self.batch.iter().map(|p| p.request.keys.len()).sum();
        Step::Run(80 * US + 25 * US * pages as u64)
    }

    /// L has come to what the batch waits for, after at least `grace` of waiting. All that was held up depends on it.
    pub(super) fn reached(&mut self, now: Time, grace: Time) -> Step {
        let Executor::Waits(target, since) = self.executor else { return Step::Rest };
        if now.saturating_sub(since) >= grace {
            let read = self.batch.iter_mut().chain(&mut self.next).chain(&mut self.held);
            let requests = read.map(|p| &mut p.request).chain(&mut self.unread);
            requests.for_each(|r| r.dep = r.dep.max(target));
        }
        self.run()
    }

    /// What the batch waits for, if it does.
    pub(super) fn waits_for(&self) -> Option<Lsn> {
        match self.executor {
            Executor::Waits(target, _) => Some(target),
            Executor::Idle | Executor::Runs => None,
        }
    }

    /// The batch is done: its answers, in order. B3: a wait that timed out fails all of it.
    pub(super) fn done(&mut self, timed_out: bool) -> Vec<WireReply> {
        self.executor = Executor::Idle;
        let answer = |p: Parsed| WireReply {
            tag: p.request.tag,
            reply: match (p.rejected, timed_out) {
                (true, _) => Reply::Rejected,
                (false, true) => Reply::LsnTimeout,
                (false, false) => Reply::Ok,
            },
            dep: p.request.dep,
            stalled: p.stalled,
        };
        self.batch.drain(..).map(answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmuring::request::RelTag;

    fn page(tag: u64, block: u32, n: Lsn) -> WireRequest {
        let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 1, fork: 0 };
        WireRequest { tag, keys: vec![Key::Block(rel, block)], n, r: Lsn::MAX, dep: 0 }
    }

    fn answers(c: &mut Connection) -> Vec<(u64, Reply, Lsn)> {
        c.done(false).into_iter().map(|a| (a.tag, a.reply, a.dep)).collect()
    }

    #[test]
    fn a_batch_is_what_came_while_another_ran_and_waits_once_for_its_largest_lsn() {
        let mut c = Connection::new(0, Protocol::Pagestream);
        c.arrive(page(0, 0, 10));
        assert!(matches!(c.pump(100, 0, 0), Step::Run(_)), "taken at once: the executor was idle");
        for tag in 1..=40 {
            c.arrive(page(tag, tag as u32, if tag == 7 { 900 } else { 10 }));
            assert_eq!(c.pump(100, 0, 0), Step::Rest);
        }
        assert_eq!(answers(&mut c), [(0, Reply::Ok, 0)]);
        assert_eq!(c.pump(100, 0, 0), Step::Wait(900));
        assert!(matches!(c.reached(5, 0), Step::Run(_)));
        let batch = answers(&mut c);
        assert_eq!(batch.len(), MAX_BATCH);
        assert!(batch.iter().all(|a| a.2 == 900), "all 32 waited for it");
        assert!(matches!(c.pump(900, 0, 5), Step::Run(_)));
        assert!(answers(&mut c).iter().all(|a| a.2 == 900), "and what was behind them");
    }

    #[test]
    fn sizes_and_one_page_at_two_lsns_break_a_batch() {
        let mut c = Connection::new(0, Protocol::Pagestream);
        c.arrive(page(0, 0, 10));
        c.pump(100, 0, 0);
        c.arrive(page(1, 5, 10));
        c.pump(100, 0, 0);
        c.arrive(page(2, 5, 10));
        c.pump(120, 0, 0);
        let Some(Key::Block(rel, _)) = page(0, 0, 0).keys.first().copied() else { return };
        c.arrive(WireRequest { keys: vec![Key::Size(rel)], ..page(3, 0, 10) });
        c.arrive(page(4, 6, 10));
        c.pump(120, 0, 0);
        let mut batches = Vec::new();
        for _ in 0..5 {
            batches.push(answers(&mut c).iter().map(|a| a.0).collect::<Vec<_>>());
            c.pump(120, 0, 0);
        }
        assert_eq!(batches, [vec![0], vec![1], vec![2], vec![3], vec![4]]);
    }

    #[test]
    fn a_stream_is_served_one_by_one_and_reads_a_request_when_its_turn_comes() {
        let mut c = Connection::new(0, Protocol::Stream);
        c.arrive(page(1, 1, 50));
        c.arrive(page(2, 2, 90));
        assert_eq!(c.pump(40, 0, 0), Step::Wait(50));
        c.reached(1, 0);
        assert_eq!(answers(&mut c), [(1, Reply::Ok, 50)]);
        assert!(matches!(c.pump(95, 0, 2), Step::Run(_)), "by now the server has 90");
        assert_eq!(answers(&mut c), [(2, Reply::Ok, 50)], "but it stood behind the one that waited");
    }

    #[test]
    fn request_lsns_out_of_bounds_are_rejected_and_never_make_anybody_wait() {
        let mut c = Connection::new(0, Protocol::Stream);
        for (tag, n, r) in [(1, 50, 40), (2, 0, 0), (3, 10, 19), (4, 10, 20), (5, 10, 1000)] {
            c.arrive(WireRequest { r, ..page(tag, 1, n) });
        }
        let mut replies = Vec::new();
        for _ in 0..5 {
            assert!(matches!(c.pump(30, 20, 0), Step::Run(_)), "R2: r alone never stalls");
            replies.extend(answers(&mut c).iter().map(|a| a.1));
        }
        assert_eq!(replies, [Reply::Rejected, Reply::Rejected, Reply::Rejected, Reply::Ok, Reply::Ok]);
    }

    #[test]
    fn a_wait_that_times_out_fails_the_whole_batch() {
        let mut c = Connection::new(0, Protocol::Pagestream);
        c.arrive(page(0, 0, 10));
        c.pump(100, 0, 0);
        c.arrive(page(1, 1, 10));
        c.arrive(page(2, 2, 900));
        c.pump(100, 0, 0);
        c.done(false);
        assert_eq!(c.pump(100, 0, 0), Step::Wait(900));
        assert!(c.done(true).iter().all(|a| a.reply == Reply::LsnTimeout));
    }
}
