//! What depends on positions in the write-ahead log: what may be asked of a page server now, and what would make it wait.
//!
//! | module | role | runs in |
//! |---|---|---|
//! | [`watermark`] | what one server process is known to have ingested | communicator |
//! | [`shards`] | which shard has a block | communicator |
//! | [`in_flight`] | requests that exclude each other, and reads that may share one answer | communicator |
//! | [`scheduler`] | order, batches, lanes, retries, deadlines: what to send next | communicator |
//! | `slab` | bounded storage with lists in it, which the above lie in | communicator |
//! | [`written`] | since when a page was certainly not modified: a table in the region | both |
//! | [`rel_size`] | sizes of relation forks: a cache in the region | both |
//!
//! All but the last two are pure data structures: no I/O, no clock (the caller passes the time), no threads. They
//! allocate, within the bounds that [`scheduler::Options`] states, and never panic. docs/scheduling.md has the rules
//! S1-S14, with code and test of each.

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub mod in_flight;
pub mod rel_size;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub mod scheduler;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub mod shards;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod slab;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub mod watermark;
pub mod written;
