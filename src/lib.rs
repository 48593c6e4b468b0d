//! A lock-free shared-memory I/O ring: many single-threaded server processes hand page requests to one communicator.
//!
//! README.md has the guarantees and a quick start, docs/design.md the protocol: comments cite its invariants (I1-I14),
//! rules (R1-R18) and rows of the slot word's transition table (#1-#26).
//!
//! # File map
//! In the order in which a request passes:
//!
//! | module | role | runs in |
//! |---|---|---|
//! | [`region`] | makes, attaches and checks the shared bytes; gives out their [`parts`] | both, slow paths |
//! | [`handshake`] | how a new region is handed over: everything, then the magic | both, slow paths |
//! | [`layout`] | every byte of a region, and the compile-time proof of it | both |
//! | [`request`] | what can be asked, what comes back, and how both lie in a slot | both |
//! | [`backend`] | a backend's handle: fill, submit, wait, finish, cancel, leftovers | backend |
//! | [`buffers`] | pools of blocks that requests name by (pool, index) | both |
//! | [`slot`] | the slot word: the one place that writes it | both |
//! | [`ring`] | the submission ring and the pending bitmap: slot numbers to the communicator | both |
//! | [`doorbell`] | wakes a communicator that sleeps | both |
//! | [`communicator`] | the role, hints to claims, claims to completions, the audit, the server's life | communicator |
//! | [`futex`] | sleeping and waking: the only system calls of the I/O path | both |
//! | [`spin`] | how long to poll before sleeping | both |
//! | [`liveness`] | who lives, proved by locks that the kernel drops at death | both, slow paths |
//! | [`lsn`] | what to ask a page service for next; when pages were last written, and how large relations are | both |
//! | [`stats`] | counters and histograms in the region | both |
//! | [`parts`] | references to the parts of a region: what protocol code takes, so that model checks run it | both |
//! | [`clock`] | CLOCK_MONOTONIC in nanoseconds | both |
//! | [`memory`] | private memory of a handle, or an error | backend, at attach; communicator |
//! | [`fork`] | tells a forked child from its parent without a system call | both |
//! | [`error`] | every way in which a call can fail, and its errno | both |
//! | [`sync`] | the only file that names std, loom or shuttle atomics | both |
//!
//! # Where it runs, and what is forbidden there
//! Code that runs in a backend starts no thread, never panics or unwinds, allocates only in attaching, creating and
//! registering, waits only with a time limit, and is safe to longjmp over between calls. Bytes of the region may be
//! hostile: they are copied once, and the copy is checked (I10). Communicator code may allocate and use threads.
//!
//! # Units
//! Times are nanoseconds of CLOCK_MONOTONIC unless a name says otherwise, sizes are bytes, positions in a relation are
//! blocks, an LSN is a byte position in the write-ahead log.
#![deny(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod backend;
pub mod buffers;
pub mod clock;
pub mod communicator;
pub mod doorbell;
pub mod error;
pub mod fork;
pub mod futex;
pub mod handshake;
pub mod layout;
pub mod liveness;
pub mod lsn;
pub mod memory;
pub mod parts;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub mod region;
pub mod request;
pub mod ring;
pub mod slot;
pub mod spin;
pub mod stats;
pub mod sync;
