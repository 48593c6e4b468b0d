//! The thread that holds a host: it starts the communicator, waits for the order to stop, and stops it.
//!
//! A thread of its own, so that the embedder's can wait with a limit and handle its signals meanwhile. All signals are
//! blocked in it, and so in every thread of the host, which descend from it.

use core::cell::RefCell;
use core::mem::ManuallyDrop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shmuring_communicator::server::{Feedback, Host, Stopped};
use tokio::runtime::Runtime;
use tracing::dispatcher::DefaultGuard;

use super::config::{Config, Place};
use super::log::Log;
use super::place::{bug, Failure, Held};
use crate::guard::guard;

/// How often the thread looks whether the communicator still lives.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long threads may take that are in the middle of a call of the system when all is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What a host came to: how many requests it left unanswered.
pub(super) type Outcome = Result<usize, Failure>;

/// What is to be known of a host that serves.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    pub(super) epoch: u32,
    pub(super) inherited: usize,
    pub(super) feedback: Feedback,
}

/// Where a host is in its life.
#[derive(Clone, Debug)]
enum Phase {
    Starting,
    Running(Serving),
    /// The communicator has ended by itself.
    Dead,
    Ended(Outcome),
}

/// What the thread and the handle share.
pub(super) struct Shared {
    phase: Mutex<(Phase, bool)>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self { phase: Mutex::new((Phase::Starting, false)), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, (Phase, bool)> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, phase: Phase) {
        self.lock().0 = phase;
        self.changed.notify_all();
    }

    /// Waits until it serves.
    pub(super) fn wait_for_start(&self) -> Result<Serving, Failure> {
        let mut guard = self.lock();
        loop {
            match &guard.0 {
                Phase::Starting => {}
                Phase::Running(serving) => return Ok(serving.clone()),
                Phase::Dead => return Err((-libc::ENOTRECOVERABLE, "the communicator died at once".into())),
                Phase::Ended(Err(e)) => return Err(e.clone()),
                Phase::Ended(Ok(_)) => return Err((-libc::ECANCELED, "the host ended before it served".into())),
            }
            guard = self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives the order to stop, and waits for the end for so long.
    pub(super) fn stop(&self, within: Duration) -> Option<Outcome> {
        let begin = Instant::now();
        let mut guard = self.lock();
        guard.1 = true;
        self.changed.notify_all();
        loop {
            if let Phase::Ended(outcome) = &guard.0 {
                return Some(outcome.clone());
            }
            let left = within.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return None;
            }
            guard = self.changed.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether it serves, and was not told to stop.
    pub(super) fn is_running(&self) -> bool {
        matches!(*self.lock(), (Phase::Running(_), false))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.lock().0, Phase::Ended(_))
    }

    /// Waits for the order to stop; `is_alive` is asked from time to time.
    fn wait_for_order(&self, is_alive: impl Fn() -> bool) {
        let mut guard = self.lock();
        while !guard.1 {
            if matches!(guard.0, Phase::Running(_)) && !is_alive() {
                tracing::error!("the communicator has died; stop, and start again to take over");
                guard.0 = Phase::Dead;
            }
            guard = self.changed.wait_timeout(guard, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread's whole life.
pub(super) fn run(config: Config, log: &Arc<Log>, shared: &Shared) {
    let outcome =
        tracing::dispatcher::with_default(&log.dispatch(), || guard(Err(bug()), || serve(&config, log, shared)));
    if let Err((code, why)) = &outcome {
        tracing::debug!(code, "ended: {why}");
    }
    shared.enter(Phase::Ended(outcome));
}

fn serve(config: &Config, log: &Arc<Log>, shared: &Shared) -> Outcome {
    let mut options = config.options();
    options.server.cache = Arc::new(config.cache.open()?);
    let (runtime, threads) = runtime(config.threads, log)?;
    // Left where it is if anything goes wrong from here on: claims on it may then be anywhere.
    let held = ManuallyDrop::new(match &config.place {
        // SAFETY: the embedder keeps it until the host has ended.
        Place::Handle(handle) => unsafe { Held::of_handle(*handle) }?,
        Place::Path(path) => Held::attach(path)?,
    });
    // SAFETY: it is let go only where nothing refers to it.
    let region = unsafe { held.forever() };
    let host = match Host::start(region, runtime.handle().clone(), &options) {
        Ok(host) => host,
        Err(e) => {
            if threads.end(runtime) {
                // Nothing was claimed that is still on its way.
                drop(ManuallyDrop::into_inner(held));
            }
            return Err((-e.errno(), e.to_string().into()));
        }
    };
    let (epoch, inherited) = (host.epoch(), host.inherited());
    tracing::info!(service = %options.service, epoch, inherited, pid = std::process::id(), "serving");
    shared.enter(Phase::Running(Serving { epoch, inherited, feedback: host.feedback().clone() }));
    shared.wait_for_order(|| host.is_running());
    tracing::info!("told to stop: draining");
    let Stopped { served, synced } = host.stop();
    let all_over = if served.unanswered == 0 {
        threads.end(runtime)
    } else {
        // Its tasks would answer what they have as they are dropped; a successor does it (I9).
        core::mem::forget(runtime);
        false
    };
    if served.unanswered == usize::MAX {
        return Err((-libc::ENOTRECOVERABLE, "the communicator had died".into()));
    }
    tracing::info!(claimed = served.claimed, unanswered = served.unanswered, "stopped");
    if all_over {
        // Every claim is answered, and whoever could look at the region has ended.
        drop(ManuallyDrop::into_inner(held));
    }
    match synced {
        Ok(()) => Ok(served.unanswered),
        // -ETIMEDOUT is the answer of a stop that has not ended.
        Err(e) if e.errno == libc::ETIMEDOUT => Err((-libc::EIO, format!("the last sync failed: {e}").into())),
        Err(e) => Err((-e.errno, format!("the last sync failed: {e}").into())),
    }
}

/// Threads of a runtime that have not ended.
#[derive(Clone, Default)]
struct Threads(Arc<AtomicUsize>);

impl Threads {
    /// Ends the runtime; false if a thread does not end, as one in a read from a disk that hangs.
    fn end(&self, runtime: Runtime) -> bool {
        runtime.shutdown_timeout(LAST_WORDS);
        // Acquire, with the Release of each thread's end.
        let left = self.0.load(Ordering::Acquire);
        if left > 0 {
            tracing::warn!(threads = left, "threads do not end: the region stays attached until the process ends");
        }
        left == 0
    }
}

/// A runtime whose threads log into this host's log.
fn runtime(threads: Option<usize>, log: &Arc<Log>) -> Result<(Runtime, Threads), Failure> {
    thread_local! {
        static LOG: RefCell<Option<DefaultGuard>> = const { RefCell::new(None) };
    }
    let dispatch = log.dispatch();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(n) = threads {
        builder.worker_threads(n);
    }
    let alive = Threads::default();
    let (started, ended) = (alive.0.clone(), alive.0.clone());
    builder.enable_all().thread_name("shmuring-worker").on_thread_start(move || {
        started.fetch_add(1, Ordering::Relaxed);
        LOG.set(Some(tracing::dispatcher::set_default(&dispatch)));
    });
    builder.on_thread_stop(move || {
        ended.fetch_sub(1, Ordering::Release);
    });
    let built =
        builder.build().map_err(|e| (-e.raw_os_error().unwrap_or(libc::EAGAIN), format!("no threads: {e}").into()))?;
    Ok((built, alive))
}
