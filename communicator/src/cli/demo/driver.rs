//! A backend at work: keeps up to `depth` requests in flight, and hands every answer to its workload to be verified.

use super::super::Failure;
use super::ledger::Phase;
use super::tally::Tally;
use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::error::Error;
use shmuring::request::{Buffers, Completion, Lsn, Opcode, RelTag, Request};
use std::time::{Duration, Instant};

/// A request that a workload wants made.
#[derive(Clone, Debug)]
pub(super) struct Plan<T> {
    pub(super) opcode: Opcode,
    pub(super) rel: RelTag,
    pub(super) block: u32,
    pub(super) count: u8,
    pub(super) arg: u32,
    pub(super) lsn: Lsn,
    /// not_modified_since of each block of a read of several.
    pub(super) block_lsns: Vec<Lsn>,
    /// What was done to a page server's ingest when it was made.
    pub(super) phase: Phase,
    pub(super) image: Vec<u8>,
    /// Cancel it right after submitting.
    pub(super) cancel: bool,
    /// What the workload needs to judge the answer.
    pub(super) expect: T,
}

impl<T> Plan<T> {
    pub(super) fn new(opcode: Opcode, rel: RelTag, block: u32, count: u8, expect: T) -> Self {
        Self {
            opcode,
            rel,
            block,
            count,
            arg: 0,
            lsn: 0,
            block_lsns: Vec::new(),
            phase: Phase::Untold,
            image: Vec::new(),
            cancel: false,
            expect,
        }
    }

    fn request(&self) -> Request<'_> {
        let mut r = Request::new(self.opcode, self.rel);
        r.block = self.block;
        r.count = self.count;
        r.arg = self.arg;
        r.lsn = self.lsn;
        r.block_lsns = &self.block_lsns;
        if self.opcode.fills_buffers() {
            r.buffers = Buffers::Bounce;
        } else if self.opcode.takes_images() {
            r.buffers = Buffers::Image(&self.image);
        }
        r
    }
}

/// What a backend does, and how it knows that an answer is right.
pub(super) trait Workload {
    /// What it must remember of a request.
    type Expect;

    /// The next request; `None`: nothing for now (ask again once something came back), or for ever if nothing is out.
    fn next(&mut self) -> Option<Plan<Self::Expect>>;

    /// Judges an answer. `page(i)` is the i-th page of a read.
    fn judge<'p>(
        &mut self,
        plan: &Plan<Self::Expect>,
        done: &Completion,
        page: &dyn Fn(usize) -> Option<&'p [u8]>,
        tally: &mut Tally,
    );

    /// Whether it matters how long each request takes: then each is noticed as soon as it is there.
    fn is_timed(&self) -> bool {
        false
    }

    /// A request took so long.
    fn timed(&mut self, plan: &Plan<Self::Expect>, latency: Duration, tally: &mut Tally) {
        let _ = (plan, latency, tally);
    }

    /// A request was cancelled: it may or may not have run (reads only).
    fn cancelled(&mut self, plan: &Plan<Self::Expect>);
}

/// One backend process's requests in flight.
pub(super) struct Driver<'r, T> {
    backend: Backend<'r>,
    depth: usize,
    patience: Duration,
    flying: Vec<(SlotRef, Plan<T>, Instant)>,
    held_back: Option<Plan<T>>,
    pub(super) tally: Tally,
}

impl<'r, T> Driver<'r, T> {
    /// A driver over `backend`; a request without an answer after `patience` is lost.
    pub(super) fn new(backend: Backend<'r>, depth: usize, patience: Duration) -> Self {
        Self { backend, depth, patience, flying: Vec::new(), held_back: None, tally: Tally::default() }
    }

    /// Runs the workload until it has nothing more to do, or `until` has come and what is out has come back.
    pub(super) fn run(&mut self, work: &mut impl Workload<Expect = T>, until: Option<Instant>) -> Result<(), Failure> {
        loop {
            let in_time = until.is_none_or(|t| Instant::now() < t);
            let launched = if in_time { self.launch(work)? } else { 0 };
            if self.flying.is_empty() {
                if launched > 0 {
                    // All of them were cancelled at once.
                    continue;
                }
                if in_time && self.held_back.is_some() {
                    // Cancelled slots come back when the communicator says so.
                    self.backend.wait_free(&Wait::for_ns(self.patience.as_nanos() as u64))?;
                    continue;
                }
                return Ok(());
            }
            if !self.land(work)? {
                return Ok(());
            }
        }
    }

    /// Fills and submits until `depth` requests are out, with one doorbell for all of them; how many it submitted.
    fn launch(&mut self, work: &mut impl Workload<Expect = T>) -> Result<usize, Failure> {
        let first = self.flying.len();
        while self.flying.len() < self.depth {
            let Some(plan) = self.held_back.take().or_else(|| work.next()) else { break };
            let filled = match self.backend.free_slot() {
                Ok(slot) => self.backend.fill(slot, &plan.request()),
                Err(e) => Err(e),
            };
            match filled {
                Ok(r) => self.flying.push((r, plan, Instant::now())),
                Err(Error::NoFreeSlot | Error::NoFreeBuffer) => {
                    self.held_back = Some(plan);
                    break;
                }
                Err(e) => return Err(format!("fill of {}: {e}", plan.opcode.name()).into()),
            }
        }
        let refs: Vec<_> = self.flying.iter().skip(first).map(|(r, ..)| *r).collect();
        self.backend.submit_many(&refs)?;
        self.cancel_some(first, work)?;
        Ok(refs.len())
    }

    fn cancel_some(&mut self, first: usize, work: &mut impl Workload<Expect = T>) -> Result<(), Failure> {
        let mut i = first;
        while i < self.flying.len() {
            let (r, plan, _) = &self.flying[i];
            if !plan.cancel {
                i += 1;
                continue;
            }
            match self.backend.cancel(*r, &Wait::for_ms(1000)) {
                Ok(_) => {
                    work.cancelled(plan);
                    self.tally.cancelled += 1;
                    self.flying.remove(i);
                }
                Err(Error::AlreadyCompleted) => i += 1,
                Err(e) => return Err(format!("cancel of {}: {e}", plan.opcode.name()).into()),
            }
        }
        Ok(())
    }

    /// Judges every answer that is there, or waits for the oldest request; `false`: no answer came, what is out is lost.
    fn land(&mut self, work: &mut impl Workload<Expect = T>) -> Result<bool, Failure> {
        let mut landed = false;
        let mut i = 0;
        while i < self.flying.len() {
            if self.backend.poll(self.flying[i].0)? {
                self.judge(i, work)?;
                landed = true;
            } else {
                i += 1;
            }
        }
        if landed {
            return Ok(true);
        }
        let Some(oldest) = self.flying.first().map(|(r, ..)| *r) else { return Ok(true) };
        let patience = Wait::for_ns(self.patience.as_nanos() as u64);
        let waited = if work.is_timed() {
            let all: Vec<_> = self.flying.iter().map(|(r, ..)| *r).collect();
            self.backend.wait_any(&all, &patience).map(|_| ())
        } else {
            // By the time that the oldest is there most of the others are too: one sleep for many.
            self.backend.wait(oldest, &patience)
        };
        match waited {
            Ok(()) | Err(Error::Interrupted) => Ok(true),
            Err(e @ (Error::TimedOut | Error::CommunicatorGone)) => {
                let n = self.flying.len();
                self.tally.lost += n as u64;
                self.tally.note(format!("{n} requests without an answer: {e}"));
                Ok(false)
            }
            Err(e) => Err(format!("wait: {e}").into()),
        }
    }

    /// Takes the answer of the i-th request in flight; the others keep their order.
    fn judge(&mut self, i: usize, work: &mut impl Workload<Expect = T>) -> Result<(), Failure> {
        let (r, plan, since) = self.flying.remove(i);
        self.tally.count(plan.opcode, since.elapsed());
        work.timed(&plan, since.elapsed(), &mut self.tally);
        let done = self.backend.result(r)?;
        let backend = &self.backend;
        work.judge(&plan, &done, &|i| backend.page(r, i).ok(), &mut self.tally);
        self.backend.finish(r)?;
        Ok(())
    }
}
