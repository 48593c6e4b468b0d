//! The communicator of shmuring inside a process that is written in C.
#![cfg(feature = "host")]

mod support;

use shmuring::region::{Options, Region};
use std::process::Command;
use support::{build_with, manifest, run, Scratch};

#[test]
fn a_host_starts_serves_and_stops_in_a_c_process_and_refuses_misuse() {
    let scratch = Scratch::new("host");
    let path = scratch.0.join("region");
    Region::create_named(&path, &Options::new(16)).unwrap();
    let exe = build_with(&manifest().join("tests/c/host.c"), &scratch, &["-Wl,--gc-sections,-S"]);
    let service = format!("store:{}", scratch.0.join("store").display());
    run(Command::new(exe).arg("check").arg(&path).arg(service));
}
