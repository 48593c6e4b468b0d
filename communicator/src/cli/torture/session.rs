//! One process's requests in flight, each step of each written to its log before or after it is made.

use super::super::pool::POOL;
use super::super::Failure;
use super::buffers::{Blocks, POOL_PER_SLOT};
use super::log::{cancel, fate, Kind, Record, Writer, MAY_EXPIRE};
use shmuring::backend::{Backend, Cancelled, Fate, Leftover, SlotRef, Wait};
use shmuring::buffers::BOUNCE;
use shmuring::clock;
use shmuring::error::Error;
use shmuring::region::Region;
use shmuring::request::{Buffers, Completion, Lsn, Opcode, RelTag, Request};
use shmuring::slot::{owner, State};
use std::ops::Range;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// How long the requests of the parent itself may take, in ms.
pub(super) const PATIENCE_MS: u32 = 30_000;
/// How long a cancel may take: a communicator that is stopped while it copies into a registered buffer holds it up (R6).
const CANCEL_MS: u64 = 20_000;

/// The relation fork of that file number in the database of this test.
pub(super) const fn rel(rel_number: u32) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 1, rel_number, fork: 0 }
}

/// A request to be made.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) opcode: Opcode,
    pub(super) rel: u32,
    pub(super) block: u32,
    pub(super) count: u8,
    pub(super) arg: u32,
    pub(super) lsn: Lsn,
    pub(super) image: Vec<u8>,
    /// Where its pages are: BOUNCE or POOL.
    pub(super) pool: u16,
    /// It is given up after so many ms, and the communicator may give it up as well. `None`: if it is not answered
    /// within the patience of the session, the test has failed.
    pub(super) expires_ms: Option<u32>,
    /// Cancelled if it is not complete after so many ns.
    pub(super) cancel_after: Option<u64>,
}

impl Plan {
    pub(super) fn new(opcode: Opcode, rel: u32, block: u32, count: u8) -> Self {
        Self {
            opcode,
            rel,
            block,
            count,
            arg: 0,
            lsn: 0,
            image: Vec::new(),
            pool: BOUNCE,
            expires_ms: None,
            cancel_after: None,
        }
    }

    fn request<'a>(&'a self, indexes: &'a [u32], deadline: u64) -> Request<'a> {
        let mut r = Request::new(self.opcode, rel(self.rel));
        (r.block, r.count, r.arg, r.lsn) = (self.block, self.count, self.arg, self.lsn);
        if self.opcode == Opcode::GetPageAt {
            r.request_lsn = Some(self.lsn);
        }
        r.deadline = self.expires_ms.map(|_| deadline);
        r.buffers = match (self.opcode.fills_buffers(), self.opcode.takes_images()) {
            (false, false) => Buffers::None,
            _ if self.pool == POOL => Buffers::Pool(POOL, indexes),
            (true, _) => Buffers::Bounce,
            (_, true) => Buffers::Image(&self.image),
        };
        r
    }
}

/// What a process does with its requests.
pub(super) trait Work {
    /// The next request; `None`: nothing for now, or for ever.
    fn next(&mut self) -> Option<Plan>;
    /// Whether there will be nothing more.
    fn is_over(&self) -> bool;
    /// A request was answered.
    fn answered(&mut self, plan: &Plan, done: &Completion);
    /// A request was cancelled: it may or may not have run.
    fn cancelled(&mut self, plan: &Plan);
}

struct Flight {
    id: u32,
    at: SlotRef,
    plan: Plan,
    asked: u64,
    deadline: u64,
    /// A cancel found it complete.
    complete: bool,
}

impl Flight {
    /// When something is to be done about it if no answer comes.
    fn due(&self) -> u64 {
        let cancel = self.plan.cancel_after.map_or(u64::MAX, |ns| self.asked + ns);
        cancel.min(self.deadline)
    }
}

/// The buffers of a cancelled request: from when they are ours again nobody may change them. Its slot is not filled
/// meanwhile.
struct Watched {
    id: u32,
    slot: u32,
    pool: u16,
    blocks: Range<u32>,
    planted: Option<u64>,
    hold: u64,
}

/// A backend, its log, and what it has in flight.
pub(super) struct Session<'r> {
    region: &'r Region,
    pub(super) backend: Backend<'r>,
    pub(super) log: Writer,
    blocks: Blocks<'r>,
    flying: Vec<Flight>,
    watched: Vec<Watched>,
    next_id: u32,
    cursor: u32,
    patience_ms: u32,
    /// Since when neither a slot was free nor a request out.
    stuck: Option<u64>,
}

impl<'r> Session<'r> {
    pub(super) fn new(region: &'r Region, backend: Backend<'r>, log: Writer, patience_ms: u32) -> Self {
        let blocks = Blocks::new(region);
        let (flying, watched) = (Vec::new(), Vec::new());
        Self { region, backend, log, blocks, flying, watched, next_id: 1, cursor: 0, patience_ms, stuck: None }
    }

    fn slots(&self) -> Range<u32> {
        self.backend.first()..self.backend.first() + self.backend.count()
    }

    fn state(&self, slot: u32) -> Option<State> {
        self.region.parts().slots.get(slot as usize).and_then(|s| owner::look(s).state())
    }

    /// Writes down what an earlier process left, then settles it.
    pub(super) fn settle(&mut self) -> Result<(), Failure> {
        for number in self.slots() {
            let Some(slot) = self.region.parts().slots.get(number as usize) else { continue };
            let word = owner::look(slot);
            let Some(state) = word.state().filter(|s| *s != State::Idle) else { continue };
            let request = super::super::slots::request(slot);
            let found = about(Kind::Found, number, word.generation(), &request);
            self.log.put(Record { code: state as u32, ..found });
            // Given up by a predecessor: the block is ours, though not yet the slot.
            if state == State::Abandoned && request.pool == POOL {
                self.watch_pool(0, number);
            }
        }
        self.log.put(Record::new(Kind::Looked));
        self.log.flush()?;
        loop {
            match self.backend.next_leftover(&Wait::for_ms(self.patience_ms.into())) {
                Err(Error::Interrupted) => {}
                Err(e) => return Err(format!("settling leftovers: {e}").into()),
                Ok(None) => break,
                Ok(Some(leftover)) => self.note_leftover(&leftover)?,
            }
        }
        self.log.put(Record { code: self.patience_ms, ..Record::new(Kind::Settled) });
        self.log.flush()
    }

    fn note_leftover(&mut self, l: &Leftover) -> Result<(), Failure> {
        let (fate, errno, value) = match l.fate {
            Fate::Completed(done) => (fate::COMPLETED, u32::from(done.errno), done.value),
            Fate::Withdrawn => (fate::WITHDRAWN, 0, 0),
            Fate::Abandoned => (fate::ABANDONED, 0, 0),
            Fate::OwnerDead => (fate::OWNER_DEAD, 0, 0),
        };
        let left = about(Kind::Leftover, l.slot, l.generation, &l.request);
        self.log.put(Record { code: fate << 16 | errno, a: value, ..left });
        if l.request.pool == POOL && l.request.opcode().is_some_and(Opcode::fills_buffers) {
            self.watch_pool(0, l.slot);
        }
        self.log.flush()
    }

    /// Plants canaries in the registered blocks of a slot whose request was cancelled.
    fn watch_pool(&mut self, id: u32, slot: u32) {
        let blocks = self.blocks.of_slot(POOL, slot, POOL_PER_SLOT as u8);
        let planted = Some(clock::now());
        self.watched.push(Watched { id, slot, pool: POOL, blocks: blocks.clone(), planted, hold: 2_000_000 });
        self.plant(id, POOL, blocks);
    }

    fn plant(&mut self, id: u32, pool: u16, blocks: Range<u32>) {
        for block in blocks {
            let hash = self.blocks.plant(pool, block, clock::now());
            self.log.put(Record { id, pool: pool as u8, block, a: hash, ..Record::new(Kind::Canary) });
        }
    }

    /// Works until the work is over and everything is answered, cancelled and looked at.
    pub(super) fn run(&mut self, work: &mut impl Work) -> Result<(), Failure> {
        loop {
            self.look_at_watched();
            let launched = self.launch(work)?;
            let gone = self.cancel_what_is_due(work)?;
            if self.flying.is_empty() {
                if work.is_over() && launched == 0 && self.watched.is_empty() {
                    return self.log.flush();
                }
                self.idle(launched + gone)?;
                continue;
            }
            self.stuck = None;
            if !self.land(work)? {
                self.wait()?;
            }
        }
    }

    /// Nothing is out: cancelled slots must come back, which only the communicator can do, or be let go.
    fn idle(&mut self, did: usize) -> Result<(), Failure> {
        let now = clock::now();
        let since = *self.stuck.get_or_insert(now);
        if did > 0 {
            self.stuck = None;
        } else if now - since > u64::from(self.patience_ms) * 1_000_000 {
            return Err("cancelled slots do not come back".into());
        } else {
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    /// A slot that can be filled: neither a request nor a canary is in it.
    fn free_slot(&mut self) -> Option<u32> {
        let slots = self.slots();
        for _ in slots.clone() {
            let slot = slots.start + self.cursor;
            self.cursor = (self.cursor + 1) % self.backend.count();
            if self.state(slot) == Some(State::Idle) && self.watched.iter().all(|w| w.slot != slot) {
                return Some(slot);
            }
        }
        None
    }

    fn launch(&mut self, work: &mut impl Work) -> Result<usize, Failure> {
        let first = self.flying.len();
        // Of one batch no two may be given one slot.
        while let Some(slot) = self.free_slot() {
            let Some(plan) = work.next() else { break };
            let asked = clock::now();
            let indexes: Vec<u32> = self.blocks.of_slot(POOL, slot, plan.count).collect();
            if plan.pool == POOL && plan.opcode.takes_images() {
                self.blocks.put_image(indexes.first().copied().unwrap_or(0), &plan.image);
            }
            let patience = plan.expires_ms.unwrap_or(self.patience_ms);
            let deadline = asked + u64::from(patience) * 1_000_000;
            let filled = self.backend.fill(slot, &plan.request(&indexes, deadline));
            let at = filled.map_err(|e| format!("fill of {}: {e}", plan.opcode.name()))?;
            let id = self.next_id;
            self.next_id += 1;
            // A request of many zero blocks has their number where others have that of their buffers.
            let count = if plan.opcode == Opcode::ZeroExtend { plan.arg as u8 } else { plan.count };
            self.log.put(Record {
                opcode: plan.opcode as u8,
                pool: plan.pool as u8,
                count,
                time: asked,
                id,
                slot,
                generation: at.generation,
                rel: plan.rel,
                block: plan.block,
                code: patience | if plan.expires_ms.is_some() { MAY_EXPIRE } else { 0 },
                a: plan.lsn,
                b: if plan.image.is_empty() { 0 } else { xxh3_64(&plan.image) },
                ..Record::new(Kind::Asked)
            });
            self.flying.push(Flight { id, at, plan, asked, deadline, complete: false });
        }
        let refs: Vec<SlotRef> = self.flying.iter().skip(first).map(|f| f.at).collect();
        if !refs.is_empty() {
            self.log.flush()?;
            self.backend.submit_many(&refs)?;
            self.log.put(Record { id: self.next_id - 1, ..Record::new(Kind::Submitted) });
            self.log.flush()?;
        }
        Ok(refs.len())
    }

    /// Takes every answer that is there; whether there was one.
    fn land(&mut self, work: &mut impl Work) -> Result<bool, Failure> {
        let mut landed = Vec::new();
        let mut i = 0;
        while i < self.flying.len() {
            if self.backend.poll(self.flying[i].at)? {
                let flight = self.flying.remove(i);
                let done = self.backend.result(flight.at)?;
                self.note_answer(&flight, &done);
                landed.push((flight, done));
            } else {
                i += 1;
            }
        }
        if landed.is_empty() {
            return Ok(false);
        }
        self.log.flush()?;
        for (flight, done) in landed {
            let again = self.backend.finish(flight.at)?;
            let (code, a) = (u32::from(again.errno), again.value);
            self.log.put(Record { id: flight.id, code, a, ..Record::new(Kind::Finished) });
            work.answered(&flight.plan, &done);
        }
        Ok(true)
    }

    fn note_answer(&mut self, flight: &Flight, done: &Completion) {
        let (id, code) = (flight.id, u32::from(done.errno));
        let SlotRef { slot, generation } = flight.at;
        self.log.put(Record { id, slot, generation, code, a: done.value, ..Record::new(Kind::Got) });
        if !done.is_ok() || !flight.plan.opcode.fills_buffers() {
            return;
        }
        let from = self.blocks.of_slot(flight.plan.pool, slot, flight.plan.count);
        for (i, index) in (0..u32::from(flight.plan.count)).zip(from) {
            // In place where the library lends it out; a registered block is the embedder's own to look at.
            let page = match self.backend.page(flight.at, i as usize) {
                Ok(page) if flight.plan.pool == BOUNCE => page,
                _ => self.blocks.look(flight.plan.pool, index),
            };
            let version = page.get(24..32).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or([0; 8])));
            let (block, b) = (flight.plan.block + i, xxh3_64(page));
            self.log.put(Record { id, block, a: version, b, ..Record::new(Kind::Page) });
        }
    }

    /// Sleeps until an answer comes, or something is due.
    fn wait(&mut self) -> Result<(), Failure> {
        let until = self.flying.iter().map(Flight::due).min().unwrap_or(0);
        // What is watched is to be looked at soon.
        let until = if self.watched.is_empty() { until } else { until.min(clock::now() + 1_000_000) };
        let refs: Vec<SlotRef> = self.flying.iter().map(|f| f.at).collect();
        match self.backend.wait_any(&refs, &Wait { until, interrupt: None }) {
            Ok(_) | Err(Error::Interrupted | Error::TimedOut | Error::CommunicatorGone) => Ok(()),
            Err(e) => Err(format!("wait: {e}").into()),
        }
    }

    /// Cancels what is due to be; a request that must be answered and was not in time ends the test.
    fn cancel_what_is_due(&mut self, work: &mut impl Work) -> Result<usize, Failure> {
        let mut gone = 0;
        let mut i = 0;
        while i < self.flying.len() {
            let now = clock::now();
            let flight = &self.flying[i];
            if flight.complete || flight.due() > now || self.backend.poll(flight.at)? {
                i += 1;
                continue;
            }
            if flight.deadline <= now {
                let id = flight.id;
                self.log.put(Record { id, code: libc::ETIMEDOUT as u32, ..Record::new(Kind::GaveUp) });
                if flight.plan.expires_ms.is_none() {
                    self.log.flush()?;
                    let (op, slot) = (flight.plan.opcode.name(), flight.at.slot);
                    return Err(format!("request {id}, {op} in slot {slot}, was not answered by its deadline").into());
                }
            }
            if self.cancel(i)? {
                let flight = self.flying.remove(i);
                work.cancelled(&flight.plan);
                gone += 1;
            } else {
                self.flying[i].complete = true;
                i += 1;
            }
        }
        Ok(gone)
    }

    /// Cancels the i-th request in flight; false: it is complete.
    fn cancel(&mut self, i: usize) -> Result<bool, Failure> {
        let (id, at, pool, count) = {
            let f = &self.flying[i];
            (f.id, f.at, f.plan.pool, f.plan.count)
        };
        let has_buffers = self.flying[i].plan.opcode.fills_buffers();
        let blocks = self.blocks.of_slot(pool, at.slot, if has_buffers { count } else { 0 });
        self.log.put(Record { id, ..Record::new(Kind::CancelAsked) });
        self.log.flush()?;
        let wait = Wait::for_ms(CANCEL_MS);
        let result = loop {
            match self.backend.cancel(at, &wait) {
                Err(Error::Interrupted) => {}
                other => break other,
            }
        };
        let returned = clock::now();
        let code = match result {
            Ok(Cancelled::Withdrawn) => cancel::WITHDRAWN,
            Ok(Cancelled::Abandoned) => cancel::ABANDONED,
            Err(Error::AlreadyCompleted) => cancel::COMPLETED,
            Err(e) => cancel::FAILED + e.errno().unsigned_abs(),
        };
        let a = self.blocks.hash(pool, blocks.clone());
        self.log.put(Record { time: returned, id, code, a, ..Record::new(Kind::CancelReturned) });
        if result.is_ok() && has_buffers {
            if pool == POOL {
                self.watch_pool(id, at.slot);
            } else {
                let hold = 500_000 + u64::from(id % 8) * 500_000;
                self.watched.push(Watched { id, slot: at.slot, pool, blocks, planted: None, hold });
            }
        }
        self.log.flush()?;
        match result {
            Ok(_) => Ok(true),
            Err(Error::AlreadyCompleted) => Ok(false),
            Err(e) => Err(format!("cancel of request {id} in slot {}: {e}", at.slot).into()),
        }
    }

    /// Plants canaries in what came back, and looks at those that were planted a while ago.
    fn look_at_watched(&mut self) {
        let mut i = 0;
        while i < self.watched.len() {
            let w = &self.watched[i];
            let (id, pool, blocks, planted, hold) = (w.id, w.pool, w.blocks.clone(), w.planted, w.hold);
            if self.state(w.slot) != Some(State::Idle) {
                i += 1;
                continue;
            }
            match planted {
                None => {
                    let a = self.blocks.hash(pool, blocks.clone());
                    self.log.put(Record { id, a, ..Record::new(Kind::SlotBack) });
                    self.plant(id, pool, blocks);
                    self.watched[i].planted = Some(clock::now());
                    i += 1;
                }
                Some(since) if clock::now() - since < hold => i += 1,
                Some(_) => {
                    for block in blocks {
                        let a = self.blocks.hash(pool, block..block + 1);
                        self.log.put(Record { id, pool: pool as u8, block, a, ..Record::new(Kind::CanaryRead) });
                    }
                    self.watched.swap_remove(i);
                }
            }
        }
    }
}

fn about(kind: Kind, slot: u32, generation: u32, r: &shmuring::request::RawRequest) -> Record {
    let (opcode, pool, count) = (r.opcode, r.pool as u8, r.count);
    let (rel, block, a) = (r.rel_number, r.block, r.lsn);
    Record { opcode, pool, count, slot, generation, rel, block, b: a, ..Record::new(kind) }
}
