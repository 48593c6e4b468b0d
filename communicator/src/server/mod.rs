//! The server: a reaper thread that owns the consumer side of the ring, feeding a tokio runtime.
//!
//! | file | role |
//! |---|---|
//! | `host` | the whole of it: page service, server, forgetting |
//! | `reaper` | the thread: takes the role, admits what a dead one left, reaps, parks, drains |
//! | `execute` | one read from claim to completion |
//! | `lane` | mutations, one after the other in the order of their claims, committed in groups |
//! | `sizes` | keeps the relation sizes of the region: marks and sets around mutations, fills after reads |
//!
//! Reads run side by side, each a task. Mutations keep the order of their claims in one lane (R4): a mutation's result is
//! published before the next group is applied, so none is re-run after something that came to depend on it.

mod execute;
mod host;
mod lane;
mod reaper;
mod sizes;

pub use host::{Host, HostError, HostOptions, Stopped};
pub use reaper::{Served, Server, ServerOptions};

use shmuring::communicator::Claim;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// A claim on a region that lives as long as the process.
type OwnedClaim = Claim<'static>;

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
