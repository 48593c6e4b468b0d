//! The communicator's side of the C interface: `ffi/include/shmuring/host.h` is its manual.
//!
//! # Files
//! For both: `abi` the layout that the header repeats; `place` the region that is served.
//! A communicator of the embedder's own (feature `communicator`): `role` the handle, and reaping; `claims` what is done
//! with a claim; `sizes` the relation sizes that it keeps.
//! The communicator of shmuring (feature `host`): `config` what is asked for, checked; `options` the same in the
//! communicator's words; `log` lines on their way to the embedder, who sees a `record`; `run` the thread that holds it all; `signals` its mask; `start` the functions.
//!
//! Runs in the process that serves a region, never in a backend: it may allocate and use threads. Every function is
//! called through `guard`.

pub mod abi;
mod claims;
#[cfg(feature = "host")]
mod config;
#[cfg(feature = "host")]
mod log;
#[cfg(feature = "host")]
mod options;
mod place;
#[cfg(feature = "host")]
mod record;
mod role;
#[cfg(feature = "host")]
mod run;
#[cfg(feature = "host")]
mod signals;
mod sizes;
#[cfg(feature = "host")]
mod start;
