//! Scenarios written by hand, and what is asked of a run.

use shmuring::request::{Class, Lsn, Opcode, RelTag};
use shmuring_communicator::simulate::ledger::{Block, End, Ledger};
use shmuring_communicator::simulate::run;
use shmuring_communicator::simulate::scenario::{Arrival, Change, Scenario, Time, MS};

pub fn rel(n: u32) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 5, rel_number: n, fork: 0 }
}

/// A block of relation 1 was written.
pub fn wrote(at: Time, block: u32, lsn: Lsn) -> Change {
    Change { at, op: Opcode::WritePage, rel: rel(1), block, lsn }
}

/// A backend reads blocks of relation 1; `count` 0: its size.
pub fn read(at: Time, backend: u32, block: u32, count: u8) -> Arrival {
    Arrival { at, backend, class: Class::Demand, rel: rel(1), block, count, delay: 0, deadline: None }
}

pub fn prefetch(at: Time, backend: u32, block: u32, count: u8) -> Arrival {
    Arrival { class: Class::Prefetch, ..read(at, backend, block, count) }
}

pub fn ledger(scenario: &Scenario, policy: &str) -> Ledger {
    let ledger = run(scenario, policy).expect("a policy").ledger;
    assert_eq!(ledger.twice, 0, "{policy}");
    ledger
}

/// Latencies of a request's blocks, ms.
pub fn ms(ledger: &Ledger, request: usize) -> Vec<u64> {
    let latency = |b: usize| ledger.block(b).and_then(Block::latency).expect("it ended") / MS;
    ledger.blocks_of(request).map(latency).collect()
}

/// How a request's first block ended.
pub fn end(ledger: &Ledger, request: usize) -> Option<End> {
    ledger.block(ledger.blocks_of(request).start).and_then(|b| b.end).map(|e| e.1)
}

pub fn violations(ledger: &Ledger) -> usize {
    ledger.blocks().iter().filter(|b| b.violates_i12(0)).count()
}
