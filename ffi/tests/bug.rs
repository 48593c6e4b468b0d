//! What becomes of a panic in the library, which panics on demand where it has debug assertions.
#![cfg(debug_assertions)]

#[path = "support/serve.rs"]
mod serve;
mod support;

use std::process::Command;

use support::{build, manifest, run, Scratch};

#[test]
fn a_panic_becomes_an_error_and_marks_the_handle_and_nothing_else() {
    let scratch = Scratch::new("bug");
    let program = build(&manifest().join("tests/c/bug.c"), &scratch);
    let region = serve::region_in(&scratch.0, 4);
    run(Command::new(program).arg(&region));
}
