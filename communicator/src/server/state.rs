//! What the desk's lock guards: what happens to a request between its claim and its completion. Nothing here waits, copies
//! pages or logs; what is to be done without the lock goes into an [`Outbox`].

use super::conflicts::{Conflict, Limit, Line};
use super::finish::{End, Failure, Finished};
use super::lookup::Looked;
use super::requests::{Entry, Mutating, Pending, Requests};
use super::watch::Watch;
use super::{InFlight, OwnedClaim, RequestId};
use crate::service::{Answer, Result, Retry, ServiceError};
use shmuring::lsn::scheduler::{
    Batch, BatchId, Event, Member, MemberId, Outcome, Refused, Request, Scheduler, Waiting,
};
use shmuring::request::MAX_BLOCKS;
use std::collections::VecDeque;

/// Most mutations that share a commit.
const GROUP: usize = 64;
/// Requests that a tick looks at for a cancel.
const LOOKS: usize = 4096;

/// What a member of a batch came to.
pub(super) struct Came<'a> {
    pub(super) member: Member,
    pub(super) shard: usize,
    pub(super) result: &'a Result<Answer>,
}

/// What is to be done once the lock is free.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) finished: Vec<Finished>,
    pub(super) reads: Vec<Batch>,
    pub(super) mutations: Vec<Vec<(Member, Mutating)>>,
    pub(super) recalled: Vec<BatchId>,
    pub(super) stalled: Vec<(usize, u64)>,
    pub(super) lines: Vec<Line>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    pub(super) scheduler: Scheduler,
    requests: Requests,
    in_flight: InFlight,
    /// Claims for which the scheduler had no room, in order.
    backlog: VecDeque<Looked>,
    events: Vec<Event>,
    limit: Limit,
    /// Reads to look at, whether they were cancelled.
    watched: Watch,
    batch: usize,
    now: u64,
    /// Reads and mutations that were sent after an earlier attempt.
    pub(super) sent_again: u64,
    pub(super) out: Outbox,
}

/// What the scheduler is told of a result.
fn outcome<T>(result: &Result<T>) -> Outcome {
    match result.as_ref().map_err(|e| e.retry) {
        Ok(_) => Outcome::Answered,
        Err(Retry::Never) => Outcome::Refused,
        Err(Retry::Later) => Outcome::Failed,
        Err(Retry::Reconnect) => Outcome::Lost,
        Err(Retry::NotYet) => Outcome::LsnTimeout,
    }
}

fn no_answer() -> ServiceError {
    ServiceError::new(libc::EIO, "the page service gave no answer")
}

impl State {
    pub(super) fn new(scheduler: Scheduler, in_flight: InFlight, batch: usize) -> Self {
        Self {
            scheduler,
            requests: Requests::default(),
            in_flight,
            backlog: VecDeque::new(),
            events: Vec::new(),
            limit: Limit::default(),
            watched: Watch::default(),
            batch,
            now: 0,
            sent_again: 0,
            out: Outbox::default(),
        }
    }

    /// Whether time can bring nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.scheduler.is_empty() && self.backlog.is_empty() && self.watched.is_empty()
    }

    pub(super) fn backlog_len(&self) -> usize {
        self.backlog.len()
    }

    /// Every call at the desk begins with the time.
    pub(super) fn at(&mut self, now: u64) -> &mut Self {
        self.now = self.now.max(now);
        self
    }

    /// Takes a claim in the order of the claims.
    pub(super) fn admit(&mut self, looked: Looked) {
        if self.backlog.is_empty() {
            if let Some(looked) = self.submit(looked) {
                self.backlog.push_back(looked);
            }
        } else {
            self.backlog.push_back(looked);
        }
    }

    /// Gives the claim back if there is no room for it.
    fn submit(&mut self, looked: Looked) -> Option<Looked> {
        let id = RequestId::of(&looked.claim);
        let job = looked.claim.job();
        if job.request_lsn == Some(0) || looked.wanted_parts() == 0 {
            self.end(looked.claim, Failure::unsent(ServiceError::invalid("a read of no block, or as of LSN 0")));
            return None;
        }
        let mut lsns = [0; MAX_BLOCKS];
        let request = Request { wanted: looked.wanted, ..Request::of_job(id.0, job, &mut lsns) };
        let is_mutation = job.opcode.is_mutation();
        match self.scheduler.submit(&request, self.now, &mut self.events) {
            Ok(submitted) => {
                let ticket = self.in_flight.enter();
                let entry = if is_mutation {
                    Entry::Mutation(Mutating { claim: looked.claim, ticket, prepared: None })
                } else {
                    self.watched.add(id.slot(), self.now);
                    Entry::Read(Pending::new(looked, submitted, ticket))
                };
                self.requests.insert(id, entry);
                self.settle(None);
            }
            Err(Refused::Full) => return Some(looked),
            Err(Refused::Expired) => {
                let late = ServiceError::new(libc::ETIMEDOUT, "the request's deadline passed");
                self.end(looked.claim, Failure::unsent(late));
            }
            Err(Refused::NotFlushed { n, flushed }) => {
                let what = format!("it depends on LSN {n:#x}, WAL is flushed up to {flushed:#x}");
                self.end(looked.claim, Failure::unsent(ServiceError::new(libc::EAGAIN, what)));
            }
        }
        None
    }

    fn end(&mut self, claim: OwnedClaim, failure: Failure) {
        let ticket = self.in_flight.enter();
        self.out.finished.push(Finished { claim, end: End::Failed(failure), ticket });
    }

    /// A member of a batch of reads came to this.
    pub(super) fn came(&mut self, came: &Came<'_>) {
        self.scheduler.completed(came.member.id, outcome(came.result), self.now, &mut self.events);
        self.settle(Some(came));
    }

    /// A mutation came to this, and its completion is published unless it is to be tried again (R4b).
    pub(super) fn mutated(&mut self, member: MemberId, again: Option<Mutating>) {
        let outcome = if again.is_some() { Outcome::Failed } else { Outcome::Answered };
        if let Some(mutation) = again {
            self.requests.insert(RequestId::of(&mutation.claim), Entry::Mutation(mutation));
        }
        self.scheduler.completed(member, outcome, self.now, &mut self.events);
        self.settle(None);
    }

    /// What time brings: deadlines, retries, stalls, cancels that nobody has told.
    pub(super) fn tick(&mut self) {
        self.scheduler.tick(self.now, &mut self.events);
        self.settle(None);
        self.drop_cancelled();
        self.limit.pass(self.now, &mut self.out.lines);
    }

    /// Requests that were there at the last tick, and that their owners have given up since.
    fn drop_cancelled(&mut self) {
        for _ in 0..LOOKS.min(self.watched.len()) {
            let Some(slot) = self.watched.next(self.now) else { break };
            let Some((id, read)) = self.requests.read_in(slot) else { continue };
            if !read.is_cancelled() {
                self.watched.add(slot, self.now);
                continue;
            }
            let submitted = read.submitted;
            if let Some(read) = self.requests.take_read(id) {
                self.out.finished.push(read.cancelled());
            }
            self.scheduler.cancel(submitted, self.now, &mut self.events);
            self.settle(None);
        }
    }

    /// Everything that may be sent now.
    pub(super) fn pump(&mut self) {
        while let Some(looked) = self.backlog.pop_front() {
            if let Some(looked) = self.submit(looked) {
                self.backlog.push_front(looked);
                break;
            }
        }
        for shard in 0..self.scheduler.shard_count() {
            while let Some(batch) = self.scheduler.next(shard, self.now, self.batch, &mut self.events) {
                self.sent_again += batch.members.iter().filter(|m| m.attempt > 0).count() as u64;
                self.out.reads.push(batch);
            }
        }
        self.settle(None);
        while let Some(batch) = self.scheduler.next_mutations(self.now, GROUP) {
            self.sent_again += batch.members.iter().filter(|m| m.attempt > 0).count() as u64;
            let mut members = Vec::with_capacity(batch.members.len());
            for member in batch.members {
                match self.requests.take_mutation(RequestId(member.request)) {
                    Some(mutation) => members.push((member, mutation)),
                    // Not so unless the desk panicked: then the lane must go on.
                    None => self.mutated(member.id, None),
                }
            }
            self.out.mutations.push(members);
        }
    }

    /// Follows what the scheduler told, to the last consequence.
    fn settle(&mut self, came: Option<&Came<'_>>) {
        while !self.events.is_empty() {
            let mut events = core::mem::take(&mut self.events);
            for event in events.drain(..) {
                self.follow(event, came);
            }
            if self.events.is_empty() {
                // Keeps its memory.
                self.events = events;
            }
        }
    }

    fn follow(&mut self, event: Event, came: Option<&Came<'_>>) {
        match event {
            Event::Answered { id, part, attempts } => self.answered(RequestId(id), part, attempts, came),
            Event::GaveUp { id, part, attempts } => self.gave_up(RequestId(id), part, attempts, came),
            Event::Expired { id, part, waiting } => {
                let late = ServiceError::new(libc::ETIMEDOUT, "the request's deadline passed");
                self.fail(RequestId(id), late, part, 1, waiting, came);
            }
            Event::Blocked { id, by, key } => {
                let conflict = Conflict { id: RequestId(id), by: RequestId(by), key };
                self.limit.admit(conflict, self.now, &mut self.out.lines);
            }
            Event::Recall(batch) => self.out.recalled.push(batch),
            Event::Stalled { shard, n } => self.out.stalled.push((shard, n)),
            // Counted by the scheduler.
            Event::Unblocked { .. } | Event::Joined { .. } => {}
        }
    }

    fn answered(&mut self, id: RequestId, part: u8, attempts: u32, came: Option<&Came<'_>>) {
        let Some(Ok(answer)) = came.map(|c| c.result) else {
            return self.fail(id, no_answer(), part, attempts, None, came);
        };
        let Some(read) = self.requests.read(id) else { return };
        match read.take(part, answer, attempts) {
            Ok(false) => {}
            Ok(true) => {
                if let Some(read) = self.requests.take_read(id) {
                    self.out.finished.push(read.done());
                }
            }
            Err(error) => self.fail(id, error, part, attempts, None, came),
        }
    }

    fn gave_up(&mut self, id: RequestId, part: u8, attempts: u32, came: Option<&Came<'_>>) {
        // Without a result: a connection that was lost once too often.
        let none = Err(no_answer());
        let Err(error) = came.map_or(&none, |c| c.result) else { return };
        match self.requests.read(id).and_then(|read| read.forgive(error)) {
            Some(false) => {}
            Some(true) => {
                if let Some(read) = self.requests.take_read(id) {
                    self.out.finished.push(read.done());
                }
            }
            None => self.fail(id, error.clone(), part, attempts, None, came),
        }
    }

    /// Ends a read for an error of one of its parts; the others are not wanted any more.
    fn fail(
        &mut self,
        id: RequestId,
        error: ServiceError,
        part: u8,
        attempts: u32,
        waiting: Option<Waiting>,
        came: Option<&Came<'_>>,
    ) {
        let Some(read) = self.requests.take_read(id) else { return };
        let shard = waiting.map(|w| w.shard).or(came.map(|c| c.shard)).unwrap_or(0);
        let submitted = read.submitted;
        self.out.finished.push(read.failed(Failure { error, part, shard, attempts, waiting }));
        self.scheduler.cancel(submitted, self.now, &mut self.events);
    }

    /// Leaves every unanswered request to a successor.
    pub(super) fn abandon(&mut self) {
        self.requests.abandon();
        self.backlog.drain(..).for_each(core::mem::forget);
    }
}

/// What services hear of their servers' ingest.
impl State {
    pub(super) fn ingested(&mut self, shard: usize, lsn: u64) {
        self.scheduler.raise(shard, lsn, self.now);
    }

    pub(super) fn reconnected(&mut self, shard: usize, generation: u64, durable: u64) {
        self.scheduler.reconnected(shard, generation, durable, self.now, &mut self.events);
        self.settle(None);
    }
}
