//! The communicator's side of the C interface: `ffi/include/shmuring/host.h` is its manual.
//!
//! # Files
//! `abi` the layout that the header repeats.
//! A communicator of the embedder's own (feature `communicator`): `role` the handle, taking and giving up the role,
//! reaping; `claims` the table of claims, and what is done with one; `sizes` the relation sizes that it keeps; `place` the
//! region that is served. The communicator of shmuring (feature `host`): `config` what the embedder asks for, checked; `log` lines on their way to it; `run` the thread
//! that holds it all; `signals` its mask; `start` the functions.
//!
//! Runs in the process that serves a region, never in a backend: it may allocate and use threads. No input makes it
//! panic out of the library: everything is called through `guard`.

pub mod abi;
mod claims;
#[cfg(feature = "host")]
mod config;
#[cfg(feature = "host")]
mod log;
mod place;
mod role;
#[cfg(feature = "host")]
mod run;
#[cfg(feature = "host")]
mod signals;
mod sizes;
#[cfg(feature = "host")]
mod start;
