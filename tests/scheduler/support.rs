//! A scheduler with a clock of its own, and short names.

use shmuring::lsn::scheduler::{Batch, BatchId, Event, Kind, Member, Options, Outcome, Request, Scheduler, Ticket};
use shmuring::lsn::watermark::Watermark;
use shmuring::request::{Class, Lsn, Opcode, RelTag};

pub const MS: u64 = 1_000_000;

pub fn rel(n: u32) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 5, rel_number: n, fork: 0 }
}

/// A read of one block at demand.
pub fn read(id: u64, block: u32, n: Lsn) -> Request<'static> {
    Request::new(id, Opcode::GetPage, rel(1), block, n)
}

pub fn op(id: u64, op: Opcode, block: u32) -> Request<'static> {
    Request::new(id, op, rel(1), block, 1)
}

pub struct Bed {
    pub s: Scheduler,
    pub now: u64,
    pub events: Vec<Event>,
}

impl Bed {
    pub fn new(options: Options, floor: Lsn) -> Self {
        Self { s: Scheduler::new(options, floor), now: 1000 * MS, events: Vec::new() }
    }

    /// One shard that has proved `proved`.
    pub fn at(proved: Lsn) -> Self {
        Self::proved(Options::default(), proved)
    }

    pub fn proved(options: Options, proved: Lsn) -> Self {
        let mut bed = Self::new(options, 0);
        if proved > 0 {
            bed.submit(&Request::new(u64::MAX, Opcode::GetPage, rel(999), 0, proved));
            let batch = bed.next().expect("a canary");
            bed.answer(&batch);
            assert_eq!(bed.mark().proved(), proved);
            bed.events.clear();
        }
        bed
    }

    pub fn mark(&self) -> &Watermark {
        self.s.watermark(0).unwrap()
    }

    pub fn submit(&mut self, r: &Request<'_>) -> Ticket {
        self.s.submit(r, self.now, &mut self.events).expect("room")
    }

    pub fn next(&mut self) -> Option<Batch> {
        self.s.next(0, self.now, 32, &mut self.events)
    }

    pub fn mutations(&mut self) -> Option<Batch> {
        self.s.next_mutations(self.now, 32)
    }

    /// Every batch that may go now.
    pub fn all(&mut self) -> Vec<Batch> {
        std::iter::from_fn(|| self.next()).collect()
    }

    pub fn outcome(&mut self, batch: &Batch, outcome: Outcome) {
        for m in &batch.members {
            self.s.completed(m.id, outcome, self.now, &mut self.events);
        }
    }

    pub fn answer(&mut self, batch: &Batch) {
        self.outcome(batch, Outcome::Answered);
    }

    pub fn one(&mut self, member: &Member, outcome: Outcome) -> bool {
        self.s.completed(member.id, outcome, self.now, &mut self.events)
    }

    pub fn pass(&mut self, ns: u64) {
        self.now += ns;
        self.s.tick(self.now, &mut self.events);
    }

    /// Events since the last call.
    pub fn told(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Requests answered since the last call, in order.
    pub fn answered(&mut self) -> Vec<u64> {
        let of = |e: &Event| if let Event::Answered { id, .. } = e { Some(*id) } else { None };
        self.told().iter().filter_map(of).collect()
    }

    pub fn recalled(&self) -> Vec<BatchId> {
        let of = |e: &Event| if let Event::Recall(id) = e { Some(*id) } else { None };
        self.events.iter().filter_map(of).collect()
    }
}

/// (kind, requests) of a batch.
pub fn what(batch: &Batch) -> (Kind, Vec<u64>) {
    (batch.kind, batch.members.iter().map(|m| m.request).collect())
}

pub fn with_class(mut r: Request<'static>, class: Class) -> Request<'static> {
    r.class = class;
    r
}
