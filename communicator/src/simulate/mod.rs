//! Scheduling by LSN, simulated: the same reads at the same times under four policies, against page servers that follow
//! the page service's rules. Virtual time, and nothing but the seed decides: a run can be repeated to the nanosecond.
//!
//! | file | role |
//! |---|---|
//! | `workload` | options to a scenario, by a seed |
//! | `scenario` | what happens: reads, changes, what servers suffer |
//! | `world` | the loop of events; connections and clock, as policies see them |
//! | `wal` | the log, and the truth about what was last written when |
//! | `server` | a page server process: how far it has ingested |
//! | `connection` | its end of a connection: reading, batching, waiting |
//! | `policy` | how reads are sent: as `shmuring` does, as Neon's two versions do, and as knowing nothing does |
//! | `ledger` | every block of every read: ended once, and what it depended on (I12) |
//! | `report` | percentiles, table, JSON |
//! | `random` | the numbers |
//!
//! # What is modelled, and what is not
//! The network has 200 µs each way and some jitter; a page server takes 80 µs a batch and 25 µs a page, connections side
//! by side without limit. Caches always miss: a read that comes here has no page. The scheduler is the library's own. What
//! it is told of last-written LSNs is exact ([`wal::Exact`]), so its reads never carry an LSN that is too high; a table
//! of bounded memory would add its own error.

pub mod connection;
pub mod ledger;
pub mod policy;
pub mod random;
pub mod report;
pub mod scenario;
mod server;
pub mod wal;
pub mod workload;
pub mod world;

use ledger::Ledger;
use policy::latest::Latest;
use policy::libpq::Libpq;
use policy::neon_communicator::NeonCommunicator;
use policy::shmuring::Shmuring;
use policy::Policy;
use scenario::{Scenario, Time};

/// The policies by name, in the order in which they are shown.
pub const POLICIES: [&str; 4] = ["latest_lsn", "neon_libpq", "neon_communicator", "shmuring"];

/// A finished run.
#[derive(Debug)]
pub struct Run {
    /// What came of every read.
    pub ledger: Ledger,
    /// Head-of-line time avoided, as the policy counts it.
    pub hol_avoided: Time,
}

/// Runs a scenario under the policy of this name; `None`: there is none.
#[must_use]
pub fn run(scenario: &Scenario, policy: &str) -> Option<Run> {
    let mut policy: Box<dyn Policy> = match policy {
        "latest_lsn" => Box::new(Latest::new(scenario)),
        "neon_libpq" => Box::new(Libpq::new(scenario)),
        "neon_communicator" => Box::new(NeonCommunicator::new(scenario)),
        "shmuring" => Box::new(Shmuring::new(scenario)),
        _ => return None,
    };
    let ledger = world::run(scenario, policy.as_mut());
    Some(Run { ledger, hol_avoided: policy.hol_avoided() })
}
