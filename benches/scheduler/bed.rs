//! A scheduler with a steady number of requests outstanding, for `scheduler` (time) and `instructions` (counts).

use shmuring::lsn::scheduler::{Batch, Event, Options, Outcome, Request, Scheduler};
use shmuring::request::{Class, Lsn, Opcode, RelTag};
use std::collections::VecDeque;

/// Requests of one step.
pub const STEP: usize = 32;

/// How the requests of a workload look.
#[derive(Clone, Copy)]
pub enum Shape {
    /// Every block is cold: READY.
    Ready,
    /// Every fourth waits for an LSN of its own.
    #[allow(dead_code)] // One of the two has no such workload.
    Mixed,
    /// Every one does.
    Future,
}

/// A scheduler, and what it has sent.
pub struct Bed {
    scheduler: Scheduler,
    out: VecDeque<Batch>,
    events: Vec<Event>,
    now: u64,
    id: u64,
    shape: Shape,
}

impl Bed {
    /// So many requests outstanding.
    pub fn new(outstanding: usize, shape: Shape) -> Self {
        let options = Options { ready_lanes: 8, future_lanes: 8, hinted_lanes: 8, ..Options::default() };
        let mut bed = Self {
            scheduler: Scheduler::new(options, 0),
            out: VecDeque::new(),
            events: Vec::new(),
            now: 1,
            id: 0,
            shape,
        };
        bed.submit_one(1_000_000, Class::Demand);
        bed.send();
        while bed.complete() > 0 {}
        bed.refill(outstanding);
        bed
    }

    fn submit_one(&mut self, lsn: Lsn, class: Class) {
        self.id += 1;
        let number = (self.id % 64) as u32;
        let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: number, fork: 0 };
        // Blocks all over the place, as a real working set has them.
        let block = (self.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
        let deadline = Some(self.now + 60_000_000_000);
        let request = Request { class, deadline, ..Request::new(self.id, Opcode::GetPage, rel, block, lsn) };
        self.scheduler.submit(&request, self.now, &mut self.events).expect("room");
    }

    fn refill(&mut self, n: usize) {
        for _ in 0..n {
            let future = match self.shape {
                Shape::Ready => false,
                Shape::Mixed => self.id & 3 == 0,
                Shape::Future => true,
            };
            let lsn = if future { 1_000_000 + self.id } else { self.id % 1_000_000 };
            let class = if self.id % 8 == 7 { Class::Prefetch } else { Class::Demand };
            self.submit_one(lsn, class);
        }
        self.send();
    }

    fn send(&mut self) {
        while let Some(batch) = self.scheduler.next(0, self.now, 16, &mut self.events) {
            self.out.push_back(batch);
        }
    }

    /// Completes the oldest batch; tells how many were answered.
    fn complete(&mut self) -> usize {
        let Some(batch) = self.out.pop_front() else { return 0 };
        self.now += 10_000;
        self.events.clear();
        for m in &batch.members {
            self.scheduler.completed(m.id, Outcome::Answered, self.now, &mut self.events);
        }
        batch.members.len()
    }

    /// Completes at least [`STEP`] requests, and submits as many; tells how many.
    pub fn step(&mut self) -> usize {
        let mut done = 0;
        while done < STEP {
            let n = self.complete();
            self.refill(n);
            done += n;
        }
        self.scheduler.tick(self.now, &mut self.events);
        done
    }
}
