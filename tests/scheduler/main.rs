//! The scheduler by its rules: one file a theme. `simulate` in the communicator's tests runs it against page servers.

mod conflicts;
mod future;
mod ready;
mod replies;
mod support;
