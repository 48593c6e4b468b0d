//! The ring between threads of one process: the ways through that need no death. Processes and deaths: tests/processes.rs.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

use shmuring::backend::{Backend, Wait};
use shmuring::communicator::{Bridge, Claim, Communicator, Gather};
use shmuring::error::Error;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, Opcode, RelTag, Request};
use shmuring::slot::State;
use std::sync::atomic::{AtomicBool, Ordering};

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

/// Answers reads with pages full of their block number, and anything else with 42.
fn answer(mut claim: Claim<'_>) {
    let (op, block, count) = (claim.job().opcode, claim.job().block, claim.job().count);
    if op == Opcode::GetPage {
        let mut copying = claim.copying().unwrap();
        for i in 0..usize::from(count) {
            copying.deliver(i, &[(block + i as u32) as u8; 8192]).unwrap();
        }
        claim.complete(Completion::ok(u64::from(count))).unwrap();
    } else {
        claim.complete(Completion::ok(42)).unwrap();
    }
}

fn serve(region: &Region, stop: &AtomicBool, to: State) {
    let parts = region.parts();
    let (mut communicator, inheritance) = Communicator::take_role(region, &parts).unwrap();
    assert!(inheritance.mutations.is_empty() && inheritance.reads.is_empty());
    while !stop.load(Ordering::Relaxed) {
        communicator.reap_or_park(32, to, Gather::default(), 50_000_000, answer);
    }
}

fn with_communicator(to: State, work: impl FnOnce(&Region)) {
    let region = Region::create_private(&Options::new(16)).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| serve(&region, &stop, to));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&region)));
        stop.store(true, Ordering::Relaxed);
        if let Err(e) = result {
            std::panic::resume_unwind(e);
        }
    });
}

#[test]
fn a_read_comes_back_with_its_page_served_at_once_or_deferred() {
    for to in [State::Copying, State::Processing] {
        with_communicator(to, |region| {
            let mut b = Backend::attach(region, 0, 8).unwrap();
            let mut page = [0u8; 8192];
            for block in 0..1000 {
                let done = b.call(&Request::get_page(REL, block, 1, 0), &Wait::for_ms(5000), &mut page).unwrap();
                assert!(done.is_ok());
                assert_eq!(page, [block as u8; 8192]);
            }
        });
    }
}

#[test]
fn a_batch_is_submitted_at_once_and_waited_for_in_any_order() {
    with_communicator(State::Processing, |region| {
        let mut b = Backend::attach(region, 8, 8).unwrap();
        for round in 0..200u32 {
            let mut refs = Vec::new();
            for i in 0..8 {
                let slot = b.free_slot().unwrap();
                refs.push(b.fill(slot, &Request::get_page(REL, round + i, 4, 0)).unwrap());
            }
            b.submit_many(&refs).unwrap();
            while !refs.is_empty() {
                let i = b.wait_any(&refs, &Wait::for_ms(5000)).unwrap();
                let r = refs.remove(i);
                let first = b.page(r, 0).unwrap()[0];
                assert_eq!(b.page(r, 3).unwrap()[8191], first.wrapping_add(3));
                assert!(b.finish(r).unwrap().is_ok());
            }
        }
    });
}

#[test]
fn two_backends_share_one_communicator() {
    with_communicator(State::Copying, |region| {
        std::thread::scope(|s| {
            for first in [0, 8] {
                s.spawn(move || {
                    let mut b = Backend::attach(region, first, 8).unwrap();
                    for _ in 0..2000 {
                        let done = b.call(&Request::new(Opcode::RelSize, REL), &Wait::for_ms(5000), &mut []).unwrap();
                        assert_eq!({ done.value }, 42);
                    }
                });
            }
        });
    });
}

/// Waits until the descriptor is readable; false after a second and a half.
fn readable(fd: std::os::fd::BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(&fd), events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry that lives for the call.
    unsafe { libc::poll(&mut poll, 1, 1500) == 1 }
}

#[test]
fn a_communicator_in_an_event_loop_is_woken_through_an_eventfd() {
    use std::os::fd::AsFd;
    let region = Region::create_private(&Options::new(16)).unwrap();
    let (stop, bridge) = (AtomicBool::new(false), Bridge::new().unwrap());
    std::thread::scope(|s| {
        s.spawn(|| bridge.run(&region.parts()));
        s.spawn(|| {
            let parts = region.parts();
            let (mut communicator, _) = Communicator::take_role(&region, &parts).unwrap();
            while !stop.load(Ordering::Relaxed) {
                if communicator.reap(32, State::Copying, answer) == 0 {
                    bridge.arm();
                    assert!(readable(bridge.as_fd()), "the bridge wakes the loop at least once a second");
                    bridge.clear();
                }
            }
        });
        let mut b = Backend::attach(&region, 0, 8).unwrap();
        for i in 0..2000u64 {
            if i % 100 == 0 {
                // Long enough for the loop to sleep.
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            let done = b.call(&Request::new(Opcode::RelSize, REL), &Wait::for_ms(5000), &mut []).unwrap();
            assert_eq!({ done.value }, 42);
        }
        stop.store(true, Ordering::Relaxed);
        shmuring::doorbell::ring_once(&region.parts());
        bridge.stop();
    });
}

#[test]
fn the_slot_finished_last_is_given_out_first_unless_it_was_filled_meanwhile() {
    with_communicator(State::Copying, |region| {
        let mut b = Backend::attach(region, 0, 4).unwrap();
        let nop = Request::new(Opcode::Nop, REL);
        let mut refs = Vec::new();
        for slot in 0..4 {
            refs.push(b.fill(slot, &nop).unwrap());
        }
        assert_eq!(b.free_slot(), Err(Error::NoFreeSlot));
        b.submit_many(&refs).unwrap();
        for i in [0, 3, 1] {
            b.wait(refs[i], &Wait::for_ms(5000)).unwrap();
            b.finish(refs[i]).unwrap();
        }
        b.fill(1, &nop).unwrap();
        assert_eq!((b.free_slot(), b.free_slot()), (Ok(3), Ok(0)));
        // Given out, not filled: a search still finds it.
        assert!([0, 3].contains(&b.free_slot().unwrap()));
    });
}
