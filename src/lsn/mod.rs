//! What depends on positions in the write-ahead log: what may be asked of a page server now, and what would make it wait.
//!
//! | module | role | runs in |
//! |---|---|---|
//! | [`watermark`] | what one server process is known to have ingested | communicator |
//! | [`shards`] | which shard has a block | communicator |
//! | [`in_flight`] | requests that exclude each other, and reads that may share one answer | communicator |
//! | [`scheduler`] | order, batches, lanes, retries, deadlines: what to send next | communicator |
//! | `slab` | bounded storage with lists in it, which the above lie in | communicator |
//!
//! Pure data structures: no I/O, no clock (the caller passes the time), no threads. They allocate, within the bounds that
//! [`scheduler::Options`] states, and never panic. docs/scheduling.md has the rules S1-S14, with code and test of each.

pub mod in_flight;
pub mod scheduler;
pub mod shards;
mod slab;
pub mod watermark;
