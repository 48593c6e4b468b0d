//! The communicator: the one process that reaps requests, schedules them and asks a page service for pages.
//!
//! | module | role |
//! |---|---|
//! | [`cache`] | pages in the communicator's memory: the page cache, the prefetch buffer |
//! | `cli` | the command `shmuring`: feature `cli`, on by default |
//! | [`compare`] | `debug_compare_local`: answers against a local copy |
//! | [`holder`] | which process holds a lock, for messages |
//! | `page_server` | a page server for one shard: serves a store over gRPC |
//! | [`server`] | from hints to completions: a reaper thread and a tokio runtime |
//! | [`service`] | where pages come from and writes go |
//! | `simulate` | scheduling by LSN, simulated against page servers: for the command |
//! | `wire` | the page service's protocol: feature `grpc`, on by default |
#![deny(unsafe_code)]

pub mod cache;
#[cfg(feature = "cli")]
pub mod cli;
pub mod compare;
pub mod holder;
#[cfg(feature = "grpc")]
pub mod page_server;
pub mod server;
pub mod service;
#[cfg(feature = "cli")]
pub mod simulate;
#[cfg(feature = "grpc")]
pub mod wire;
