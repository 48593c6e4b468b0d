//! The C interface of shmuring: `ffi/include/shmuring.h` is its manual, this crate what is behind it.
//!
//! # Files
//! In the order in which a caller meets them: `info` versions; `region`; `server` its life; `backend` the handle;
//! `fill` from a free slot to the result, `rest` what is rare in that; `wait`; `tables` what the region tells without a
//! request; `inline` what the header compiles into its callers; `host` the communicator's side. Below them: `api` the
//! structures of calls; `abi` the layout that the headers repeat; `fault` why a call was refused; `strerror`; `guard`
//! where panics are caught; `thread`.
//!
//! Runs in backends and in whatever else links the C library: no function here unwinds into C, and none allocates
//! unless the header says so.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod abi;
pub mod api;
pub mod backend;
mod fault;
pub mod fill;
mod guard;
#[cfg(feature = "communicator")]
pub mod host;
pub mod info;
pub mod inline;
pub mod region;
mod rest;
pub mod server;
mod strerror;
pub mod tables;
mod thread;
pub mod wait;

pub use strerror::shmuring_strerror;
