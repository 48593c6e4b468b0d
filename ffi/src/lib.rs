//! The C interface of shmuring: `ffi/include/shmuring.h` is its manual, this crate what is behind it.
//!
//! # Files
//! `guard` the one place where a panic is caught; `api` the structures that calls take and give; `abi` the layout that
//! the headers repeat, checked by the compiler; `strerror` texts; `info` versions and sizes.
//!
//! Runs in backends and in whatever else links the C library: no function here unwinds into C, and none allocates
//! unless the header says so.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod abi;
pub mod api;
mod guard;
mod info;
mod strerror;

pub use info::{shmuring_abi_version, shmuring_region_size, shmuring_version};
pub use strerror::shmuring_strerror;
