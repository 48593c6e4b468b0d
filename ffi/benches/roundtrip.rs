//! Round trips between two processes from C beside the same from Rust: `cargo bench -p shmuring-ffi --bench roundtrip`.
//!
//! This process serves, on one cpu; a client of each kind takes turns on another, one read at a time. Prints the median
//! of each and the median of the ratios of neighbouring runs, which should be at most 1.05 for a read that C starts in
//! one call, as the README does. By a call each for slot, request and submission C pays for two more calls that are not
//! inlined. Wants two cpus to itself.

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use shmuring::backend::{Backend, Wait};
use shmuring::communicator::Communicator;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, RelTag, Request};
use shmuring::slot::State;
use support::{manifest, Scratch};

const ROUNDS: u32 = 200_000;
const RUNS: usize = 9;
/// First argument of the process that this program starts as the client in Rust.
const CLIENT: &str = "client";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if let [role, path] = &arguments[..] {
        assert_eq!(role, CLIENT);
        return client(Path::new(path));
    }
    let scratch = Scratch::new("roundtrip");
    let program = support::build_with(&manifest().join("benches/c/client.c"), &scratch, &["-O2"]);
    let path = scratch.0.join("region");
    let (region, _) = Region::create_named(&path, &Options::new(8)).expect("a new region");
    let parts = region.parts();
    let (mut communicator, _) = Communicator::take_role(&region, &parts).expect("the role is free");
    bind(1);
    let mut from_c = Command::new(&program);
    from_c.arg(&path).arg(ROUNDS.to_string());
    let mut by_steps = Command::new(&program);
    by_steps.arg(&path).arg(ROUNDS.to_string()).arg("steps");
    let mut from_rust = Command::new(std::env::current_exe().expect("this program"));
    from_rust.arg(CLIENT).arg(&path);

    let mut times = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        for (command, times) in [&mut from_c, &mut from_rust, &mut by_steps].into_iter().zip(&mut times) {
            times.push(served(command, &mut communicator));
        }
    }
    let ratio = |c: &[f64], rust: &[f64]| median(&mut c.iter().zip(rust).map(|(c, rust)| c / rust).collect::<Vec<_>>());
    let ratios = [ratio(&times[0], &times[1]), ratio(&times[2], &times[1])];
    let [c, rust, steps] = times.map(|mut t| median(&mut t));
    println!("from C {c:.0} ns, from Rust {rust:.0} ns, ratio {:.3} (median of {RUNS})", ratios[0]);
    println!("from C, a call for each step: {steps:.0} ns, ratio {:.3}", ratios[1]);
}

/// Serves a client to its end; what it says of a round trip, in ns.
fn served(command: &mut Command, communicator: &mut Communicator<'_>) -> f64 {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("the client starts");
    let mut looks = 0_u32;
    loop {
        communicator.reap(64, State::Copying, |claim| {
            let _ = claim.complete(Completion::ok(1));
        });
        looks = looks.wrapping_add(1);
        if looks % 65_536 == 0 && child.try_wait().expect("a child of ours").is_some() {
            break;
        }
    }
    let out = child.wait_with_output().expect("a child of ours");
    assert!(out.status.success(), "{}", out.status);
    String::from_utf8_lossy(&out.stdout).trim().parse().expect("a number")
}

/// What `client.c` does.
fn client(path: &Path) {
    bind(0);
    let region = Region::attach(path).expect("the region");
    let mut b = Backend::attach(&region, 0, 8).expect("free slots");
    round_trips(&mut b, ROUNDS / 10);
    let begin = Instant::now();
    round_trips(&mut b, ROUNDS);
    println!("{}", begin.elapsed().as_nanos() as f64 / f64::from(ROUNDS));
}

fn round_trips(b: &mut Backend<'_>, rounds: u32) {
    let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
    let wait = Wait { until: u64::MAX, interrupt: None };
    for i in 0..rounds {
        let slot = b.free_slot().expect("a free slot");
        let r = b.fill(slot, &Request::get_page(rel, i, 1, 1)).expect("a good request");
        b.submit(r).expect("a filled slot");
        b.wait(r, &wait).expect("a communicator");
        assert_eq!({ b.finish(r).expect("a complete request").value }, 1);
    }
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// Binds this process to a cpu, as far as there is one.
fn bind(cpu: usize) {
    // SAFETY: a set of plain bits, and calls that read it.
    unsafe {
        let mut set: libc::cpu_set_t = core::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}
