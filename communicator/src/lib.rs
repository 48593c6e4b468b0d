//! The communicator: the one process that reaps requests, schedules them and asks a page service for pages.
//!
//! | module | role |
//! |---|---|
//! | `cli` | the command `shmuring`: feature `cli`, on by default |
//! | [`server`] | from hints to completions: a reaper thread and a tokio runtime |
//! | [`service`] | where pages come from and writes go |
//! | `simulate` | scheduling by LSN, simulated against page servers: for the command |
#![deny(unsafe_code)]

#[cfg(feature = "cli")]
pub mod cli;
pub mod server;
pub mod service;
#[cfg(feature = "cli")]
pub mod simulate;
