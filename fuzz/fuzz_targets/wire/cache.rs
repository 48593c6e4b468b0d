//! Of the communicator's caches, how large they are.

#[path = "../../../communicator/src/cache/sizes.rs"]
mod sizes;

pub use sizes::Sizes;
