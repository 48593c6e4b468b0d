//! Communicators that are written in C: one that serves real backends and dies, and every function of one with its
//! misuse, under valgrind too.
#![cfg(feature = "communicator")]

#[path = "support/child.rs"]
mod child;
mod support;

use child::InC;
use shmuring::backend::{Backend, Wait};
use shmuring::communicator::Communicator;
use shmuring::error::Error;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, Opcode, RelTag, Request};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{build_with, manifest, run, Scratch};

const PAGE: usize = 8192;
const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

fn program(name: &str, scratch: &Scratch) -> PathBuf {
    build_with(&manifest().join(format!("tests/c/{name}.c")), scratch, &["-Wl,--gc-sections,-S"])
}

/// The communicator in C over this region and file.
fn start(program: &Path, region: &Path, file: &Path, more: &[&str]) -> InC {
    InC::start(Command::new(program).arg(region).arg(file).args(more))
}

fn region(scratch: &Scratch) -> (PathBuf, Region) {
    let path = scratch.0.join("region");
    let (region, _) = Region::create_named(&path, &Options::new(64)).unwrap();
    (path, region)
}

fn image(block: u32, version: u8) -> Vec<u8> {
    (0..PAGE as u32).map(|i| (i ^ block).wrapping_mul(31) as u8 ^ version).collect()
}

fn call(b: &mut Backend<'_>, request: &Request<'_>, to: &mut [u8]) -> Completion {
    b.call(request, &Wait::for_ms(20_000), to).unwrap()
}

#[test]
fn a_communicator_in_c_serves_backends_in_rust_and_stops_when_it_is_told() {
    const BACKENDS: u32 = 3;
    const BLOCKS: u32 = 90;
    let scratch = Scratch::new("serves");
    let (path, region) = region(&scratch);
    let exe = program("communicator", &scratch);
    let c = start(&exe, &path, &scratch.0.join("pages"), &[]);
    assert_eq!(c.serving, "serving epoch 1 inherited 0\n");
    std::thread::scope(|scope| {
        for who in 0..BACKENDS {
            let region = &region;
            scope.spawn(move || {
                let mut b = Backend::attach(region, who * 8, 8).unwrap();
                for block in (0..BLOCKS).filter(|block| block % BACKENDS == who) {
                    let page = image(block, 0);
                    assert!(call(&mut b, &Request::extend(REL, block, 1, &page), &mut []).is_ok());
                    let page = image(block, 1);
                    assert!(call(&mut b, &Request::write_page(REL, block, 1, 2, &page), &mut []).is_ok());
                }
            });
        }
    });
    let mut b = Backend::attach(&region, 0, 32).unwrap();
    for first in (0..BLOCKS).step_by(9) {
        let mut pages = vec![0; 9 * PAGE];
        let done = call(&mut b, &Request::get_page(REL, first, 9, 77), &mut pages);
        assert!(done.is_ok() && done.value == 9 && done.lsn == 77);
        for (block, page) in (first..).zip(pages.chunks(PAGE)) {
            assert!(page == image(block, 1), "block {block}");
        }
    }
    assert_eq!(i32::from(call(&mut b, &Request::get_page(REL, BLOCKS, 1, 0), &mut [0; PAGE]).errno), libc::ENXIO);
    assert_eq!({ call(&mut b, &Request::new(Opcode::RelSize, REL), &mut []).value }, u64::from(BLOCKS));
    let second = Command::new(&exe).arg(&path).arg(scratch.0.join("pages")).output().unwrap();
    let why = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && why.contains(&format!("(pid {})", c.child.id())), "{why}");
    assert_eq!(c.stop(), format!("stopped answered {}\n", 2 * BLOCKS + BLOCKS / 9 + 2));
}

#[test]
fn a_killed_communicator_in_c_is_followed_by_one_that_answers_what_it_had_claimed() {
    let scratch = Scratch::new("kill");
    let (path, region) = region(&scratch);
    let (exe, pages) = (program("communicator", &scratch), scratch.0.join("pages"));
    let mut b = Backend::attach(&region, 0, 16).unwrap();
    let first = start(&exe, &path, &pages, &["hold"]);
    let images: Vec<_> = (0..4).map(|block| image(block, 7)).collect();
    let mut sent = Vec::new();
    let mut send = |b: &mut Backend<'_>, request: &Request<'_>| {
        let slot = b.free_slot().unwrap();
        let r = b.fill(slot, request).unwrap();
        b.submit(r).unwrap();
        sent.push(r);
    };
    for (block, image) in (0..).zip(&images) {
        send(&mut b, &Request::extend(REL, block, 1, image));
    }
    send(&mut b, &Request::get_page(REL, 3, 1, 1));
    let is_claimed = |b: &Backend<'_>| {
        let states: Vec<_> = region.parts().slots.iter().map(shmuring::slot::owner::look).collect();
        let _ = b;
        states.iter().filter(|w| w.is(shmuring::slot::State::Processing)).count() == 5
    };
    while !is_claimed(&b) {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    first.signal(libc::SIGKILL);
    drop(first);
    let second = start(&exe, &path, &pages, &[]);
    assert_eq!(second.serving, "serving epoch 2 inherited 5\n");
    for r in &sent {
        b.wait(*r, &Wait::for_ms(20_000)).unwrap();
    }
    assert!(b.page(sent[4], 0).unwrap() == images[3], "the read came after the writes");
    for r in sent {
        assert!(b.finish(r).unwrap().is_ok());
    }
    assert_eq!(second.stop(), "stopped answered 5\n");
}

#[test]
fn a_communicator_in_rust_takes_over_from_one_in_c_only_when_that_is_gone() {
    let scratch = Scratch::new("hand-over");
    let (path, region) = region(&scratch);
    let c = start(&program("communicator", &scratch), &path, &scratch.0.join("pages"), &[]);
    let parts = region.parts();
    assert_eq!(Communicator::take_role(&region, &parts).err(), Some(Error::RoleHeld));
    c.stop();
    let (communicator, inherited) = Communicator::take_role(&region, &parts).unwrap();
    assert_eq!((communicator.epoch(), inherited.mutations.len() + inherited.reads.len()), (2, 0));
}

#[test]
fn every_function_of_a_communicator_does_what_the_header_says_and_refuses_misuse() {
    let scratch = Scratch::new("claims");
    run(&mut Command::new(program("claims", &scratch)));
}

#[test]
fn whatever_is_written_into_the_region_shows_neither_side_a_bug_and_every_call_returns() {
    let scratch = Scratch::new("hostile");
    let program = program("hostile", &scratch);
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u32;
    for seed in now..now + 3 {
        println!("seed {seed}");
        let said = run(Command::new(&program).args(["700", &seed.to_string()]));
        assert!(said.starts_with("calls "), "{said}");
    }
}

#[test]
fn two_processes_in_c_share_a_pool_and_a_cancelled_buffer_of_it_is_left_alone() {
    let scratch = Scratch::new("pool");
    let (path, _region) = region(&scratch);
    run(Command::new(program("pool", &scratch)).arg(path));
}

#[test]
fn no_byte_of_a_pool_changes_after_its_cancel_in_a_storm_of_cancels_and_kills() {
    let scratch = Scratch::new("storm");
    let (path, _region) = region(&scratch);
    let said = run(Command::new(program("storm", &scratch)).arg(path));
    assert!(said.starts_with("rounds "), "{said}");
}

#[test]
fn valgrind_finds_nothing_in_a_communicator_in_c() {
    let scratch = Scratch::new("valgrind");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite,possible", "--error-exitcode=9"]);
    run(valgrind.arg(program("claims", &scratch)));
}
