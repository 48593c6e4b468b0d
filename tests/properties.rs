//! Properties that hold for all sizes, tickets, generations and words, tried with random ones. A failure prints the
//! smallest input that it has been reduced to.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

#[path = "properties/layout.rs"]
mod layout;
#[path = "properties/rel_size.rs"]
mod rel_size;
#[path = "properties/ring.rs"]
mod ring;
#[path = "properties/slot.rs"]
mod slot;
#[path = "properties/table.rs"]
mod table;
#[path = "properties/written.rs"]
mod written;

use proptest::test_runner::Config;

/// So many inputs a property; found ones become tests, so none are kept in files. PROPTEST_CASES overrides it.
fn cases(n: u32) -> Config {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(n);
    Config { cases, failure_persistence: None, ..Config::default() }
}
