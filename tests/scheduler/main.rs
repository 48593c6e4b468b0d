//! The scheduler by its rules: one file a theme. `simulate` in the communicator's tests runs it against page servers.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod conflicts;
mod future;
mod ready;
mod replies;
mod support;
