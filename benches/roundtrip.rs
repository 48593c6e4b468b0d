//! Round trips between two processes over one shared region, beside the physical floor and what one would pick instead.
//!
//! In the order of a run: [`shared`] (the memory, the processes, the clock), [`floors`] (what two caches can do at best),
//! [`ring`] (the library), [`peer`] (pipe and futex), [`syscalls`] (the tracer), [`report`] (ratios, table, JSON).
//! benches/README.md says what is measured and how to read it.

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "roundtrip/floors.rs"]
mod floors;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "roundtrip/peer.rs"]
mod peer;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "roundtrip/report.rs"]
mod report;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "roundtrip/ring.rs"]
mod ring;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "roundtrip/run.rs"]
mod run;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "roundtrip/shared.rs"]
mod shared;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "roundtrip/syscalls.rs"]
mod syscalls;

fn main() {
    // The model checks have no regions.
    #[cfg(not(any(feature = "loom", feature = "shuttle")))]
    run::main();
}
