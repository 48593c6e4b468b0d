//! The last-written table beside what one would pick instead: an LRU map behind a lock with a global maximum, and plain
//! tables of maxima. What a note and a get cost, with 1, 2 and 4 processes; how old the answers for cold pages are.
//!
//! [`contenders`] (ours, tables of maxima, the floor), [`lru`] (the map), [`cost`], [`ages`], [`wal`] (a real stream of
//! writes). benches/README.md says what is measured and how to read it.

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "written/ages.rs"]
mod ages;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "written/contenders.rs"]
mod contenders;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "written/cost.rs"]
mod cost;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "written/lru.rs"]
mod lru;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "written/wal.rs"]
mod wal;

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
fn main() {
    // What cargo adds is no argument of ours.
    let args: Vec<_> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[..] {
        [] => {
            cost::run("");
            ages::run(20_000_000, "");
        }
        ["--cost"] => cost::run(""),
        ["--cost", only] => cost::run(only),
        ["--ages"] => ages::run(20_000_000, ""),
        ["--ages", only] => ages::run(20_000_000, only),
        ["--wal", file] => wal::run(file.as_ref()),
        _ => panic!(
            "usage: [--cost ['1,000' | '8 million' | 'zipf 1.1'] | --ages [uniform | 'zipf 0.8' | 'zipf 1.1'] | \
             --wal FILE]"
        ),
    }
}

#[cfg(any(feature = "loom", feature = "shuttle"))]
fn main() {}
