//! The desk: the scheduler behind a lock. Claims come in, batches go out, answers come back; each is a short visit.

use super::conflicts::Line;
use super::feedback::{self, Feedback};
use super::finish::{Bytes, End, Failure, Finished};
use super::lookup::{Hits, Looked};
use super::reaper::ServerOptions;
use super::requests::of_size;
use super::sizes::RelSizes;
use super::state::{Came, Outbox, State};
use super::{lane, reads, shards, InFlight, OwnedClaim, Ticket};
use crate::cache::Cache;
use crate::compare::{Compare, Mode};
use crate::service::{Answer, Ingest, PageService, Result, Watermarks, What};
use shmuring::clock;
use shmuring::lsn::in_flight::MutationOrder;
use shmuring::lsn::scheduler::{Batch, BatchId, Member, MemberId, Options, Scheduler, Stats};
use shmuring::parts::Parts;
use shmuring::request::{Lsn, Opcode, MAX_BLOCKS};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// How often the desk looks at the clock while anything is unanswered.
const TICK: Duration = Duration::from_millis(4);

/// See the module.
pub(super) struct Desk {
    pub(super) service: Arc<dyn PageService>,
    pub(super) parts: &'static Parts<'static>,
    pub(super) epoch: u32,
    /// The server life that the page service has acknowledged together with the epoch.
    pub(super) life: AtomicU32,
    pub(super) options: Options,
    pub(super) cache: Arc<Cache>,
    pub(super) compare: Option<Arc<Compare>>,
    pub(super) sizes: RelSizes,
    pub(super) feedback: Feedback,
    runtime: Handle,
    state: Mutex<State>,
    in_flight: InFlight,
    /// The server life that the caches are of.
    cached_in: AtomicU32,
    /// There is something for the clock.
    busy: Notify,
    /// Batches that may be recalled: none where nothing waits for WAL.
    running: Option<Mutex<HashMap<BatchId, AbortHandle>>>,
    /// What was told to `shmuring stat`.
    told: Mutex<(Stats, u64)>,
    closed: AtomicBool,
}

/// A panic at the desk leaves requests unanswered at worst: their claims say so when they are dropped (I4).
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Desk {
    /// The desk of a communicator that has fenced its predecessors in `life`. Its clock is a task of `runtime`.
    pub(super) fn open(
        service: Arc<dyn PageService>,
        parts: &'static Parts<'static>,
        runtime: Handle,
        (life, epoch): (u32, u32),
        sizes: RelSizes,
        server: &ServerOptions,
    ) -> Arc<Self> {
        let mut options = server.scheduler;
        // A slot has one request of at most 32 blocks, so that there is room for all of them.
        options.units = options.units.max(parts.slots.len().saturating_mul(MAX_BLOCKS + 1));
        let cache = server.cache.clone();
        options.prefetch_answers = cache.keeps_prefetched();
        let floor = match service.ingest() {
            Ingest::Immediate => Lsn::MAX,
            Ingest::Lags { sharding, floor } => {
                options.sharding = sharding;
                if sharding.count > 1 {
                    // Servers with a writer each: one that is away holds up no other.
                    options.mutation_order = MutationOrder::Keys;
                }
                floor
            }
        };
        let in_flight = InFlight::default();
        let batch = service.batch_size().max(1);
        let scheduler = Scheduler::new(options, floor);
        let feedback = Feedback::new(scheduler.shard_count());
        let state = State::new(scheduler, in_flight.clone(), batch);
        shards::begin(&parts.header.shards, options.sharding, epoch);
        let desk = Arc::new(Self {
            service,
            parts,
            epoch,
            life: AtomicU32::new(life),
            options,
            cache,
            compare: server.compare.clone(),
            sizes,
            feedback,
            runtime,
            state: Mutex::new(state),
            in_flight,
            cached_in: AtomicU32::new(life),
            busy: Notify::new(),
            running: (floor != Lsn::MAX).then(Mutex::default),
            told: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        desk.tell_shards(&lock(&desk.state));
        desk.service.report_to(Arc::new(Reports(Arc::downgrade(&desk))));
        desk.runtime.spawn(keep_time(Arc::downgrade(&desk)));
        desk.runtime.spawn(feedback::carry(desk.feedback.clone(), Arc::downgrade(&desk)));
        desk
    }

    /// A visit: the lock, the time, the work, what may be sent now, and then without the lock what came of it.
    fn visit(self: &Arc<Self>, work: impl FnOnce(&mut State)) {
        let out = {
            let mut state = lock(&self.state);
            let was_idle = state.is_idle();
            work(state.at(clock::now()));
            state.pump();
            if was_idle && !state.is_idle() {
                self.busy.notify_one();
            }
            core::mem::take(&mut state.out)
        };
        self.carry_out(out);
    }

    /// Answers a request for a size that is known; gives any other back.
    fn answer_size(&self, claim: OwnedClaim) -> Option<OwnedClaim> {
        let job = claim.job();
        if !matches!(job.opcode, Opcode::RelSize | Opcode::RelExists) || job.request_lsn.is_some() {
            return Some(claim);
        }
        let Some(blocks) = self.sizes.known(job.rel) else { return Some(claim) };
        let end = match of_size(job, blocks) {
            Ok(value) => End::Done { value, lsn: 0, attempts: 1, bytes: Bytes::None },
            Err(e) => End::Failed(Failure::unsent(e)),
        };
        Finished { claim, end, ticket: self.in_flight.enter() }.publish();
        None
    }

    /// Claims in the order in which they were made. What the caches have is answered here.
    pub(super) fn submit(self: &Arc<Self>, claims: Vec<OwnedClaim>) {
        let claims: Vec<_> = claims.into_iter().filter_map(|claim| self.answer_size(claim)).collect();
        if !self.cache.is_there() {
            let looked = claims.into_iter().map(Looked::not);
            return self.visit(|state| looked.for_each(|looked| state.admit(looked)));
        }
        self.heed_life();
        let mode = self.compares();
        let mut rest = Vec::with_capacity(claims.len());
        for claim in claims {
            let mut hits = Hits::default();
            let looked = Looked::new(claim, &self.cache, mode, &mut hits);
            hits.tell(self.parts.role_stats);
            if looked.needs_files() {
                self.runtime.spawn(look_closer(self.clone(), looked, self.in_flight.enter()));
            } else if looked.is_found() {
                looked.done(&self.in_flight).publish();
            } else {
                rest.push(looked);
            }
        }
        if !rest.is_empty() {
            self.visit(|state| rest.into_iter().for_each(|looked| state.admit(looked)));
        }
    }

    /// What is compared with the local copy now.
    pub(super) fn compares(&self) -> Mode {
        self.compare.as_ref().map_or(Mode::None, |c| c.mode())
    }

    /// A new server life may be another history: what was read in an older one is forgotten (R1, R13).
    fn heed_life(&self) {
        let life = self.parts.header.life.life.load(Ordering::Acquire);
        if self.cached_in.swap(life, Ordering::AcqRel) != life {
            self.cache.clear();
        }
    }

    /// A member of a batch of reads came to this.
    pub(super) fn came(self: &Arc<Self>, shard: usize, member: Member, result: &Result<Answer>) {
        self.visit(|state| state.came(&Came { member, shard, result }));
    }

    /// A batch of reads is over.
    pub(super) fn served(&self, batch: BatchId) {
        if let Some(running) = &self.running {
            lock(running).remove(&batch);
        }
    }

    /// Mutations whose completions are published, or that are to be tried again.
    pub(super) fn mutated(self: &Arc<Self>, members: Vec<(MemberId, Option<super::requests::Mutating>)>) {
        self.visit(|state| members.into_iter().for_each(|(member, again)| state.mutated(member, again)));
    }

    /// The server of a shard is said to have ingested so much.
    pub(super) fn ingested(self: &Arc<Self>, shard: usize, lsn: Lsn) {
        self.visit(|state| state.ingested(shard, lsn));
        self.tell_shards(&lock(&self.state));
    }

    /// Claims that are not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.in_flight.count() + lock(&self.state).backlog_len()
    }

    /// Leaves what is unanswered to a successor: no claim is answered from here on.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        lock(&self.state).abandon();
    }

    /// Whether what is dropped from now on is a successor's.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    fn carry_out(self: &Arc<Self>, out: Outbox) {
        let Outbox { finished, reads, mutations, recalled, stalled, lines } = out;
        for finished in finished {
            finished.publish();
        }
        for batch in recalled {
            self.recall(batch);
        }
        for batch in reads {
            self.send(batch);
        }
        for batch in mutations {
            self.runtime.spawn(lane::run(self.clone(), batch));
        }
        for (shard, n) in stalled {
            let n = super::finish::PrintLsn(n);
            tracing::warn!(shard, %n, "a READY batch got no answer: another server process is further back");
        }
        lines.into_iter().for_each(Line::log);
    }

    fn send(self: &Arc<Self>, batch: Batch) {
        let Some(running) = &self.running else {
            self.runtime.spawn(reads::run(self.clone(), batch));
            return;
        };
        let id = batch.id;
        // Under the lock, so that a batch that is over at once is not entered afterwards.
        let mut running = lock(running);
        let task = self.runtime.spawn(reads::run(self.clone(), batch));
        running.insert(id, task.abort_handle());
    }

    fn recall(&self, batch: BatchId) {
        if let Some(task) = self.running.as_ref().and_then(|r| lock(r).remove(&batch)) {
            task.abort();
        }
    }

    fn tick(self: &Arc<Self>) -> bool {
        self.visit(State::tick);
        let state = lock(&self.state);
        self.tell_shards(&state);
        let (now, idle) = ((*state.scheduler.stats(), state.sent_again), state.is_idle());
        drop(state);
        self.tell(now);
        idle
    }

    /// Has whoever looks at the region know how far the page service is, and what waits for it.
    fn tell_shards(&self, state: &State) {
        shards::tell(&self.parts.header.shards, &state.scheduler, clock::now());
    }

    /// Adds to the region's counters what happened since the last time.
    fn tell(&self, now: (Stats, u64)) {
        use shmuring::stats::RoleCounter as C;
        let before = core::mem::replace(&mut *lock(&self.told), now);
        let stats = self.parts.role_stats;
        let ((now, again), (before, again_before)) = (now, before);
        let counters = [
            (C::Blocked, now.blocked - before.blocked),
            (C::Joined, now.joined - before.joined),
            (C::SentAgain, again - again_before),
            (C::LsnTimeouts, now.lsn_timeouts - before.lsn_timeouts),
        ];
        for (counter, n) in counters.into_iter().filter(|(_, n)| *n > 0) {
            stats.add(counter, n);
        }
        // The scheduler's buckets begin at 1 µs, the region's at 256 ns.
        for (bucket, (now, before)) in now.blocked_histogram.iter().zip(&before.blocked_histogram).enumerate() {
            stats.add_blocked(bucket + 2, now - before);
        }
    }
}

/// Reads what lies in the cache file, compares what was found with the local copy if that is asked for, and goes on with
/// the request. Reads files inline, as the embedded services do.
async fn look_closer(desk: Arc<Desk>, mut looked: Looked, counted: Ticket) {
    let mut hits = Hits::default();
    looked.fetch(&desk.cache, desk.compares(), &mut hits);
    hits.tell(desk.parts.role_stats);
    let compared = match &desk.compare {
        Some(compare) => looked.compared(compare, desk.parts.role_stats, &desk.in_flight),
        None => Ok(looked),
    };
    match compared {
        Ok(looked) if looked.is_found() => looked.done(&desk.in_flight).publish(),
        Ok(looked) => desk.visit(|state| state.admit(looked)),
        Err(failed) => failed.publish(),
    }
    drop(counted);
}

/// Ticks for as long as the desk is there and has anything that time can change.
async fn keep_time(desk: std::sync::Weak<Desk>) {
    let mut idle = true;
    loop {
        let Some(here) = desk.upgrade() else { return };
        if idle {
            here.busy.notified().await;
        }
        drop(here);
        tokio::time::sleep(TICK).await;
        let Some(here) = desk.upgrade() else { return };
        idle = here.tick();
    }
}

/// Where services report what they hear of ingest.
struct Reports(std::sync::Weak<Desk>);

impl Watermarks for Reports {
    fn ingested(&self, shard: usize, lsn: Lsn) {
        if let Some(desk) = self.0.upgrade() {
            desk.ingested(shard, lsn);
        }
    }

    fn reconnected(&self, shard: usize, generation: u64, durable: Lsn) {
        if let Some(desk) = self.0.upgrade() {
            desk.visit(|state| state.reconnected(shard, generation, durable));
            desk.tell_shards(&lock(&desk.state));
        }
    }

    fn is_noted(&self, what: &What, lsn: Lsn) -> bool {
        let Some(desk) = self.0.upgrade() else { return false };
        let written = desk.parts.last_written();
        lsn <= match *what {
            What::Page(rel, block) => written.get(rel, block),
            What::RelSize(rel) => written.get_relation(rel),
            What::DbSize(db_oid) => written.get_database(db_oid),
            // They have no key of their own.
            What::Slru(..) | What::Near(..) | What::Nothing => written.floor(),
        }
    }
}
