//! The communicator side: what any process that serves a region needs. Threads and allocation are allowed here.
//!
//! In the order of its life: `role` (taking the role, and what a dead holder left), `reap` (hints to claims, parking,
//! the audit), `claim` (one request from claim to completion), `life` (the server that is served), `bridge` (the
//! doorbell as an eventfd).

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod bridge;
mod claim;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod life;
mod reap;
mod role;

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub use bridge::Bridge;
pub use claim::{Claim, Copying, Withdrawn};
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub use life::{Leftovers, ServerLife};
pub use reap::Gather;
pub use role::{Communicator, Inheritance};
