//! Death at every instruction of a communicator that has the library keep the relation sizes (R2), through the C
//! interface: from before a claim is handed out until its answer is published. Backends then never find a size that is
//! not so, and from the completion on the one that it made.
//!
//! Everything but the operations is `tests/single_step` of the library. Run by ci/single_step.sh.
#![cfg(feature = "communicator")]
#![allow(dead_code)] // Of the parts that are the library's.

#[path = "../../tests/single_step/backends.rs"]
mod backends;
#[path = "../../tests/single_step/clock.rs"]
mod clock;
#[path = "../../tests/single_step/communicators.rs"]
mod communicators;
#[path = "../../tests/single_step/driver.rs"]
mod driver;
#[path = "../../tests/single_step/heap.rs"]
mod heap;
#[path = "../../tests/single_step/recovery.rs"]
mod recovery;
#[path = "../../tests/single_step/requests.rs"]
mod requests;
#[path = "../../tests/single_step/servers.rs"]
mod servers;
#[path = "../../tests/support/mod.rs"]
mod support;
#[path = "../../tests/single_step/trace.rs"]
mod trace;
#[path = "../../tests/single_step/tracee.rs"]
mod tracee;
#[path = "../../tests/single_step/world.rs"]
mod world;

use std::ffi::{c_char, c_int, c_void, CString};
use std::os::unix::ffi::OsStrExt;
use std::ptr::null_mut;
use std::sync::atomic::Ordering::Relaxed;

use shmuring::communicator::Claim;
use shmuring::region::Region;
use shmuring::slot::State;
use shmuring_ffi as _;

use communicators::{ask_all, BASE as COMMUNICATOR};
use driver::{kill_everywhere, Case};
use requests::{applied, Kind, FAILURE};
use support::process::{hang, Board, REL};
use tracee::{stop_here, Marks};
use world::{Fault, World};
use Kind::{Fail, Resize, Truncate};

/// The claim was handed out: its I/O may begin.
const IO: u32 = 1;
/// The answer was published.
const DONE: u32 = 2;
const PROCESSING: u32 = State::Processing as u32;

/// `struct shmuring_claim`.
#[derive(Clone, Copy)]
#[repr(C)]
struct ApiClaim {
    name: i64,
    lsn: u64,
    rel: [u32; 3],
    block: u32,
    rest: [u64; 5],
}
const _: () = assert!(size_of::<ApiClaim>() == 72);

type Handle = *mut c_void;

extern "C" {
    fn shmuring_region_attach(path: *const c_char, out: *mut Handle, err: *mut c_void) -> c_int;
    fn shmuring_communicator_take_role(region: Handle, out: *mut Handle, err: *mut c_void) -> c_int;
    fn shmuring_communicator_keep_sizes(c: Handle, flags: u32) -> c_int;
    fn shmuring_communicator_reap(c: Handle, to: u32, claims: *mut ApiClaim, max: u32) -> c_int;
    fn shmuring_claim_complete(c: Handle, name: i64, value: u64, lsn: u64) -> c_int;
    fn shmuring_claim_fail(c: Handle, name: i64, errno: c_int, value: u64, attempts: u16) -> c_int;
    fn shmuring_claim_forget_size(c: Handle, name: i64) -> c_int;
}

const BASE: Case = Case { prepare: ask_first, at_last: is_unknown, ..COMMUNICATOR };

const SIZES: &[Case] = &[
    Case {
        name: "in C: a change of a size",
        victim: |r, m| change(r, m, complete),
        stage: |w| w.ask(5, Resize),
        beside: |w| is_so(w, Some),
        ..BASE
    },
    Case {
        name: "in C: a change whose end is not certain",
        victim: |r, m| change(r, m, complete_in_doubt),
        stage: |w| w.ask(5, Resize),
        beside: |w| is_so(w, |_| None),
        ..BASE
    },
    Case {
        name: "in C: a change that fails",
        victim: |r, m| change(r, m, fail),
        stage: |w| w.ask(5, Fail),
        beside: |w| is_so(w, |_| None),
        ..BASE
    },
    Case {
        name: "in C: sizes are kept from when changes were inherited",
        prepare: die_in_two_changes,
        victim: inherit,
        beside: is_first_at_last,
        ..BASE
    },
];

/// The first, which makes a size that is known.
fn ask_first(w: &mut World<'_>) {
    w.communicator = None;
    w.ask(4, Resize);
}

fn take_role(region: &Region) -> Handle {
    let path = CString::new(region.path().unwrap().as_os_str().as_bytes()).unwrap();
    let (mut attached, mut role) = (null_mut(), null_mut());
    // SAFETY: a path, and places for handles, which are never freed: the process is killed.
    unsafe {
        assert_eq!(shmuring_region_attach(path.as_ptr(), &mut attached, null_mut()), 0);
        assert_eq!(shmuring_communicator_take_role(attached, &mut role, null_mut()), 0);
    }
    role
}

/// The next claim, once it was handed out.
fn next(c: Handle) -> ApiClaim {
    let mut claim = ApiClaim { name: 0, lsn: 0, rel: [0; 3], block: 0, rest: [0; 5] };
    // SAFETY: a handle that lives, and a place for one claim.
    while unsafe { shmuring_communicator_reap(c, PROCESSING, &mut claim, 1) } == 0 {}
    claim
}

fn apply(board: Board, claim: &ApiClaim) {
    board.add(applied(claim.block));
}

fn complete(c: Handle, claim: &ApiClaim) {
    // SAFETY: a handle that lives.
    assert_eq!(unsafe { shmuring_claim_complete(c, claim.name, claim.block.into(), 0) }, 0);
}

fn complete_in_doubt(c: Handle, claim: &ApiClaim) {
    // SAFETY: as above.
    assert_eq!(unsafe { shmuring_claim_forget_size(c, claim.name) }, 0);
    complete(c, claim);
}

fn fail(c: Handle, claim: &ApiClaim) {
    // SAFETY: as above.
    assert_eq!(unsafe { shmuring_claim_fail(c, claim.name, FAILURE, 0, 1) }, 0);
}

/// A size is known; then comes another change.
fn change(region: &Region, m: &Marks, end: fn(Handle, &ApiClaim)) {
    let c = take_role(region);
    // SAFETY: a handle that lives.
    assert_eq!(unsafe { shmuring_communicator_keep_sizes(c, 0) }, 0);
    let first = next(c);
    apply(m.board(), &first);
    complete(c, &first);
    m.begin();
    let claim = next(c);
    m.reach(IO);
    apply(m.board(), &claim);
    end(c, &claim);
    m.reach(DONE);
    m.end();
}

/// A communicator died with two changes of one fork.
fn die_in_two_changes(w: &mut World<'_>) {
    w.communicator = None;
    ask_all(w, &[Resize, Truncate]);
    let mut dead = w.site.child(|region, _| {
        let parts = region.parts();
        let mut c = communicators::role(region, &parts);
        let mut held: Vec<Claim<'_>> = Vec::new();
        c.sweep(State::Processing, |claim| held.push(claim));
        stop_here();
        hang();
    });
    dead.stopped(true);
    dead.kill();
}

fn inherit(region: &Region, m: &Marks) {
    let c = take_role(region);
    m.begin();
    // SAFETY: a handle that lives.
    assert_eq!(unsafe { shmuring_communicator_keep_sizes(c, 0) }, 0);
    let both = [next(c), next(c)];
    for claim in &both {
        apply(m.board(), claim);
        complete(c, claim);
    }
    m.reach(DONE);
    m.end();
}

/// What backends find.
fn found(w: &World<'_>) -> Option<Option<u32>> {
    w.parts.rel_sizes().get(REL, w.parts.header.life.life.load(Relaxed)).map(|size| size.blocks)
}

fn expect(w: &World<'_>, allowed: &[Option<u32>]) -> Result<(), String> {
    let found = found(w);
    let is_one = allowed.iter().any(|blocks| found == blocks.map(Some));
    is_one.then_some(()).ok_or_else(|| format!("the size is {found:?}, and not of {allowed:?}"))
}

/// What the request in a slot says how large the fork is.
fn size_of_slot(w: &World<'_>, slot: u32) -> Result<u32, String> {
    let asked = w.asked.iter().find(|a| a.at.slot == slot);
    asked.map(|a| a.number).ok_or_else(|| format!("nothing was asked for in slot {slot}"))
}

/// The last size or a miss until the claim is handed out, then a miss; as soon as there is a completion, and a moment
/// before it, what the second change `becomes`.
fn is_so(w: &mut World<'_>, becomes: fn(u32) -> Option<u32>) -> Result<(), String> {
    let (first, second) = (size_of_slot(w, 4)?, becomes(size_of_slot(w, 5)?));
    match w.phase() {
        0 => expect(w, &[Some(first), None]),
        IO if !w.word(5).is(State::Completed) => expect(w, &[None, second]),
        _ => expect(w, &[second]),
    }
}

/// A miss until the last of both changes ends.
fn is_first_at_last(w: &mut World<'_>) -> Result<(), String> {
    let first = size_of_slot(w, 4)?;
    let is_over = |slot| w.word(slot).is(State::Completed);
    match (is_over(4), is_over(5)) {
        (true, true) => expect(w, &[Some(first)]),
        (false, false) => expect(w, &[None]),
        _ => expect(w, &[None, Some(first)]),
    }
}

/// The next communicator knows of none.
fn is_unknown(w: &mut World<'_>) -> Result<(), String> {
    expect(w, &[None])
}

#[test]
fn a_communicator_in_c_may_die_at_every_instruction_of_a_change_of_a_relation_size() {
    kill_everywhere("size-in-c", SIZES, Fault::None).unwrap();
}

/// A communicator that does not have sizes kept from the beginning.
const TOO_LATE: &[Case] = &[Case {
    name: "",
    victim: |r, m| {
        let c = take_role(r);
        m.begin();
        let claim = next(c);
        m.reach(IO);
        apply(m.board(), &claim);
        complete(c, &claim);
        m.reach(DONE);
        m.end();
    },
    prepare: |w| w.communicator = None,
    stage: |w| w.ask(4, Resize),
    beside: |w| match w.phase() {
        DONE => expect(w, &[Some(size_of_slot(w, 4)?)]),
        _ => Ok(()),
    },
    ..BASE
}];

#[test]
fn a_communicator_that_keeps_no_sizes_is_found() {
    let why = kill_everywhere("kept-not", TOO_LATE, Fault::None).expect_err("it was not found");
    assert!(why.contains("the size is None, and not of"), "{why}");
}
