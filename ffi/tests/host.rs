//! The communicator of shmuring inside a process that is written in C.
#![cfg(feature = "host")]

#[path = "support/child.rs"]
mod child;
mod support;

use child::InC;
use shmuring::region::{Options, Region};
use std::path::PathBuf;
use std::process::Command;
use support::{build_with, manifest, run, Scratch};

fn program(name: &str, scratch: &Scratch) -> PathBuf {
    build_with(&manifest().join(format!("tests/c/{name}.c")), scratch, &["-Wl,--gc-sections,-S"])
}

#[test]
fn a_host_starts_serves_and_stops_in_a_c_process_and_refuses_misuse() {
    let scratch = Scratch::new("host");
    let path = scratch.0.join("region");
    Region::create_named(&path, &Options::new(16)).unwrap();
    let exe = program("host", &scratch);
    let service = format!("store:{}", scratch.0.join("store").display());
    run(Command::new(exe).arg("check").arg(&path).arg(service).arg(scratch.0.join("cache")));
}

#[test]
fn backends_in_c_read_the_sizes_that_a_host_in_c_keeps_without_a_request() {
    let scratch = Scratch::new("sizes");
    let path = scratch.0.join("region");
    let options = Options { rel_sizes: 64, ..Options::new(16) };
    Region::create_named(&path, &options).unwrap();
    let (host, sizes) = (program("host", &scratch), program("sizes", &scratch));
    let service = format!("store:{}", scratch.0.join("store").display());
    let serve = || InC::start(Command::new(&host).arg("serve").arg(&path).arg(&service));
    let first = serve();
    run(Command::new(&sizes).arg("change").arg(&path));
    run(Command::new(&sizes).arg("look").arg(&path).arg("7"));
    assert_eq!(first.stop(), "stopped 0\n");
    // What a communicator has left its successor forgets, until it is asked for or changed (R2).
    let _second = serve();
    let region = Region::attach(&path).unwrap();
    let rel = shmuring::request::RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16385, fork: 0 };
    assert_eq!(shmuring::backend::Backend::attach(&region, 0, 1).unwrap().cached_rel_size(rel), None);
}
