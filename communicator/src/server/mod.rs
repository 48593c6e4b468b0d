//! The server: a reaper thread that owns the consumer side of the ring, and the scheduler between it and the page service.
//!
//! | file | role |
//! |---|---|
//! | `host` | the whole of it: page service, server, forgetting |
//! | `reaper` | the thread: takes the role, admits what a dead one left, reaps, parks, drains |
//! | `desk` | the scheduler with its lock: claims in, batches out, answers back; time |
//! | `state` | what the lock guards: what happens to a request between claim and completion |
//! | `watch` | which slots to look at for a cancel that nobody told |
//! | `lookup` | what the caches have of a read |
//! | `requests` | the unanswered requests, by slot |
//! | `reads` | one batch of reads, at the page service |
//! | `lane` | one batch of mutations: images, groups that share a commit, completions |
//! | `feedback` | what others hear of ingest, on its way to the desk |
//! | `shards` | tells the region how far each shard is |
//! | `sizes` | keeps the relation sizes of the region: marked and set around mutations, filled by reads |
//! | `finish` | the end of a request: pages delivered, or the error with its cause in the log |
//! | `conflicts` | what is logged of requests that wait for conflicting ones |
//!
//! # Flow
//! Claims go to the desk, which submits them to the scheduler and sends the batches that may go, each a task. A task gives
//! every answer back as soon as it is there. Whoever is at the desk does that work: it takes microseconds, and a thread of
//! its own would cost each request two switches. No page is copied, nothing is logged and nothing awaited at the desk.
//!
//! # Order (R4)
//! Of a mutation the completion is published before its keys are released. Of a read the keys are released first and the
//! answer is published right after: it is from before any mutation that goes then, and requests in flight together have
//! no order (R4f). A read that a successor runs again is only newer.

mod conflicts;
mod desk;
mod feedback;
mod finish;
mod host;
mod lane;
mod lookup;
mod reads;
mod reaper;
mod requests;
mod shards;
mod sizes;
mod state;
mod watch;

pub use feedback::Feedback;
pub use host::{Host, HostError, HostOptions, Stopped};
pub use reaper::{Served, Server, ServerOptions, StartError};

use shmuring::communicator::Claim;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A claim on a region that lives as long as the process.
type OwnedClaim = Claim<'static>;

/// A request's name in the scheduler and in logs: slot and generation, unique among the unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct RequestId(u64);

impl RequestId {
    fn of(claim: &OwnedClaim) -> Self {
        Self(u64::from(claim.slot()) << 32 | u64::from(claim.generation()))
    }

    const fn slot(self) -> usize {
        (self.0 >> 32) as usize
    }

    const fn generation(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot(), self.generation())
    }
}

/// Counts the claims that are not answered yet, for draining.
#[derive(Clone, Debug, Default)]
struct InFlight(Arc<AtomicUsize>);

/// A claim on its way, counted until it is dropped.
#[derive(Debug)]
struct Ticket(Arc<AtomicUsize>);

impl InFlight {
    fn enter(&self) -> Ticket {
        self.0.fetch_add(1, Ordering::AcqRel);
        Ticket(self.0.clone())
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Acquire)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
