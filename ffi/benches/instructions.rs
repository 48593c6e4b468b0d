//! Serves `benches/c/steps.c` while an instruction counter runs it: `ci/instructions.sh`.
//!
//! `instructions PROFILE`: callgrind writes what it counted to that file, and the program how often each step ran to
//! standard output. The communicator never sleeps, so that no step makes a system call.

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::Command;

use shmuring::communicator::Communicator;
use shmuring::region::{Options, Region};
use shmuring::request::Completion;
use shmuring::slot::State;
use support::{manifest, Scratch};

fn main() {
    // Cargo adds --bench.
    let Some(profile) = std::env::args().skip(1).find(|a| !a.starts_with("--")) else {
        println!("for ci/instructions.sh: wants the name of a profile to write");
        return;
    };
    let scratch = Scratch::new("instructions");
    let program = support::build_with(&manifest().join("benches/c/steps.c"), &scratch, &["-O2"]);
    let path = scratch.0.join("region");
    let (region, _) = Region::create_named(&path, &Options::new(32)).expect("a new region");
    let parts = region.parts();
    let (mut communicator, _) = Communicator::take_role(&region, &parts).expect("the role is free");
    let mut counter = Command::new("valgrind");
    counter.arg("--tool=callgrind").arg(format!("--callgrind-out-file={profile}")).arg(program).arg(&path);
    let mut counted = counter.spawn().expect("valgrind starts");
    let status = loop {
        communicator.reap(64, State::Copying, |claim| {
            let _ = claim.complete(Completion::ok(1));
        });
        if let Some(status) = counted.try_wait().expect("a child of ours") {
            break status;
        }
    };
    assert!(status.success(), "{status}");
}
