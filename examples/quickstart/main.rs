//! The quick start of the README, in `both_sides.rs`.

// A model checker's build has mocked atomics and so no regions; `cargo test --features loom` builds examples too.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod both_sides;

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
fn main() -> shmuring::error::Result<()> {
    both_sides::main()
}

#[cfg(any(feature = "loom", feature = "shuttle"))]
fn main() {}
