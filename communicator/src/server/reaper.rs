//! The reaper: takes the role, admits what a dead communicator left, then turns hints into claims until it is told to stop.

use super::desk::Desk;
use super::feedback::Feedback;
use super::sizes::RelSizes;
use super::OwnedClaim;
use crate::cache::{Cache, Sizes};
use crate::compare::Compare;
use crate::service::{PageService, Retry, ServiceError};
use shmuring::communicator::{Communicator, Gather};
use shmuring::doorbell;
use shmuring::error::Error;
use shmuring::lsn::scheduler;
use shmuring::parts::Parts;
use shmuring::region::Region;
use shmuring::request::{Completion, Opcode};
use shmuring::slot::State;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// Most requests of one batch.
const BATCH: usize = 64;

/// How a server behaves.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// How long to collect requests before a batch is handed on.
    pub gather: Gather,
    /// How long to wait for unfinished requests when told to stop.
    pub grace: Duration,
    /// Bounds, lanes and budgets of the scheduler. Its `sharding` is the page service's.
    pub scheduler: scheduler::Options,
    /// The page cache and the prefetch buffer. New: nothing may have been read before the role is taken.
    pub cache: Arc<Cache>,
    /// Compares answers with a local copy.
    pub compare: Option<Arc<Compare>>,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            gather: Gather::default(),
            grace: Duration::from_secs(30),
            scheduler: scheduler::Options::default(),
            cache: Arc::new(Cache::new(Sizes::default())),
            compare: None,
        }
    }
}

/// Why a server did not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartError {
    /// The region, or the system.
    Region(Error),
    /// The page service refused the fence.
    Refused(ServiceError),
}

impl From<Error> for StartError {
    fn from(e: Error) -> Self {
        Self::Region(e)
    }
}

/// What a server did by the time it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    /// Requests claimed.
    pub claimed: u64,
    /// Claims that were not answered within the grace period; a successor answers them.
    pub unanswered: usize,
}

/// A running server. It ends with [`Server::stop`]; the process that drops it instead leaves its claims to a successor.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    parts: &'static Parts<'static>,
    reaper: JoinHandle<Served>,
    feedback: Feedback,
    epoch: u32,
    inherited: usize,
}

struct Reaper {
    communicator: Communicator<'static>,
    desk: Arc<Desk>,
    options: ServerOptions,
    stop: Arc<AtomicBool>,
    claimed: u64,
}

impl Server {
    /// Takes the role of `region` and serves it with `service`, on `runtime`. The region lives as long as the process,
    /// since claims may be anywhere. `RoleHeld` while a living communicator serves it. Blocks until the page service has
    /// acknowledged this epoch (R4d), or cannot be reached for now; call it outside of async code.
    pub fn start(
        region: &'static Region,
        service: Arc<dyn PageService>,
        runtime: Handle,
        options: ServerOptions,
    ) -> Result<Self, StartError> {
        let parts: &'static Parts<'static> = Box::leak(Box::new(region.parts()));
        if parts.geometry.block_size as usize != crate::service::PAGE_SIZE {
            return Err(Error::BadGeometry.into());
        }
        let (mut communicator, inheritance) = Communicator::take_role(region, parts)?;
        let sizes = RelSizes::of(&mut communicator, service.ingest());
        let epoch = communicator.epoch();
        let life = parts.header.life.life.load(Ordering::Acquire);
        let [high, low] = region.id();
        service.serves(u128::from(high) << 64 | u128::from(low));
        if let Err(e) = fenced(runtime.block_on(service.fence(life, epoch))) {
            // Not dropped, which would answer them: they are a successor's, when this process has ended (I9).
            core::mem::forget(inheritance);
            return Err(StartError::Refused(e));
        }
        let desk = Desk::open(service, parts, runtime, (life, epoch), sizes, &options);
        let feedback = desk.feedback.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let mut reaper = Reaper { communicator, desk, options, stop: stop.clone(), claimed: 0 };
        let inherited = inheritance.mutations.len() + inheritance.reads.len();
        // Mutations of dead epochs go before everything Submitted, in the order of their claims (R4).
        reaper.hand_on(inheritance.mutations.into_iter().chain(inheritance.reads).collect());
        // It logs where its starter logs, which need not be where the process does.
        let log = tracing::dispatcher::get_default(tracing::Dispatch::clone);
        let reaper = std::thread::Builder::new()
            .name("shmuring-reaper".into())
            .spawn(move || tracing::dispatcher::with_default(&log, || reaper.run()))
            .map_err(|e| Error::Os(e.raw_os_error().unwrap_or(libc::EAGAIN)))?;
        Ok(Self { stop, parts, reaper, feedback, epoch, inherited })
    }

    /// Number of this term of the role.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Requests that a dead communicator had claimed and this one finishes.
    #[must_use]
    pub fn inherited(&self) -> usize {
        self.inherited
    }

    /// Where to tell what is heard of the page servers' ingest elsewhere than on the service's own connections.
    #[must_use]
    pub fn feedback(&self) -> &Feedback {
        &self.feedback
    }

    /// Whether the reaper still runs; a page service that panics its way into it would end it.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.reaper.is_finished()
    }

    /// Drains: reaps what is on the ring, waits for what is claimed (within the grace period), gives the role up. Blocks.
    pub fn stop(self) -> Served {
        self.stop.store(true, Ordering::Release);
        // Wakes the reaper if it is parked; it looks at the flag after each sleep.
        doorbell::ring_once(self.parts);
        self.reaper.join().unwrap_or(Served { claimed: 0, unanswered: usize::MAX })
    }
}

/// What a fence came to, as far as it matters: whom a service cannot reach for now it tells before it writes there, so
/// that all else goes on meanwhile. A refusal lasts.
pub(super) fn fenced(result: crate::service::Result<()>) -> crate::service::Result<()> {
    match result {
        Err(e) if e.retry != Retry::Never => {
            tracing::warn!("not all of the page service has heard of this communicator yet: {e}");
            Ok(())
        }
        result => result,
    }
}

impl Reaper {
    fn run(mut self) -> Served {
        self.sweep();
        while !self.stop.load(Ordering::Acquire) {
            let n = self.reap(1_000_000_000);
            if n == 0 {
                self.audit();
            }
        }
        // What was pushed before the stop is still served; what comes later is left to a successor.
        for _ in 0..=self.communicator.parts().slots.len() / BATCH {
            self.reap(0);
        }
        let begin = Instant::now();
        while self.desk.unanswered() > 0 && begin.elapsed() < self.options.grace {
            std::thread::sleep(Duration::from_millis(1));
        }
        let unanswered = self.desk.unanswered();
        if unanswered > 0 {
            self.desk.close();
        }
        self.desk.sizes.close();
        Served { claimed: self.claimed, unanswered }
    }

    /// Reaps one batch and hands it on; parks for at most `ns` if there is none (0: does not park).
    fn reap(&mut self, ns: u64) -> usize {
        let mut batch = Vec::with_capacity(BATCH);
        let take = |claim| batch.push(claim);
        let n = if ns == 0 {
            self.communicator.reap(BATCH, State::Processing, take)
        } else {
            self.communicator.reap_or_park(BATCH, State::Processing, self.options.gather, ns, take)
        };
        self.hand_on(batch);
        n
    }

    fn sweep(&mut self) {
        let mut batch = Vec::new();
        self.communicator.sweep(State::Processing, |claim| batch.push(claim));
        self.hand_on(batch);
    }

    fn audit(&mut self) {
        let mut batch = Vec::new();
        self.communicator.audit(State::Processing, |claim| batch.push(claim));
        if !batch.is_empty() {
            tracing::warn!(requests = batch.len(), "the audit found requests without a hint");
        }
        self.hand_on(batch);
    }

    /// The batch goes to the desk in one piece: one visit for all.
    fn hand_on(&mut self, mut batch: Vec<OwnedClaim>) {
        self.claimed += batch.len() as u64;
        let mut i = 0;
        while let Some(claim) = batch.get(i) {
            if claim.job().opcode == Opcode::Nop {
                let _ = batch.remove(i).complete(Completion::ok(0));
            } else {
                i += 1;
            }
        }
        if !batch.is_empty() {
            self.desk.submit(batch);
        }
    }
}
