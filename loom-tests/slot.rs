//! The edges of the slot word: what one party wrote is there when the other may read it (CQ_1, SL_1 to SL_4, SL_6).

mod support;

use loom::thread;
use shmuring::futex;
use shmuring::request::{Completion, Opcode};
use shmuring::slot::{communicator as claim_side, owner, State, Word, GENERATIONS};
use shmuring::stats::RoleCounter;
use support::{bounced, check, check_reaching, communicator, page_of, plain, registered, saw, serve};
use support::{touch_registered, twin, World, FOR_EVER};

/// One push, one reap: no hint may be ignored, and the request's bytes are those that were filled in.
fn push_and_reap() {
    let world = World::new(1, 2);
    let shared = world.clone();
    let backend = thread::spawn(move || {
        let mut backend = shared.backend(0, 1);
        let request = backend.fill(0, &plain(Opcode::RelSize, 7)).unwrap();
        backend.submit(request).unwrap();
    });
    let parts = world.parts();
    let (mut c, _) = communicator(&parts);
    let mut blocks = Vec::new();
    while blocks.is_empty() {
        c.reap(8, State::Copying, |claim| {
            blocks.push(claim.job().block);
            assert!(serve(claim));
        });
        assert_eq!(parts.role_stats.get(RoleCounter::StaleHints), 0, "a hint was ignored");
        thread::yield_now();
    }
    backend.join().unwrap();
    assert_eq!(blocks, [7]);
}

#[test]
fn cq_1_a_published_slot_number_carries_the_request() {
    check(None, push_and_reap);
}

#[test]
#[should_panic(expected = "a hint was ignored")]
fn cq_1_weakened_loses_a_request() {
    twin("CQ_1", None, push_and_reap);
}

/// A claim without a hint of its own (a sweep, or a stale hint of the slot's earlier use) sees the request's bytes.
fn sweep_against_submit() {
    let world = World::new(1, 2);
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        c.sweep(State::Copying, |claim| {
            saw("a claim by sweep");
            assert_eq!(claim.job().block, 7);
            assert!(serve(claim));
        });
    });
    let _owner = world.submitted(&plain(Opcode::RelSize, 7));
    server.join().unwrap();
}

#[test]
fn sl_1_a_claim_sees_the_request() {
    check_reaching(None, &["a claim by sweep"], sweep_against_submit);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn sl_1_weakened_reads_a_half_written_request() {
    twin("SL_1", None, sweep_against_submit);
}

/// The owner polls; when it sees Completed the result and the page are there.
fn complete_and_poll() {
    let world = World::new(1, 2);
    let (mut backend, request) = world.submitted(&bounced(7));
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        assert_eq!(c.reap(8, State::Copying, |claim| assert!(serve(claim))), 1);
    });
    while !backend.poll(request).unwrap() {
        thread::yield_now();
    }
    let mut page = [0; support::BLOCK];
    backend.copy_out(request, 0, &mut page).unwrap();
    assert_eq!(page, page_of(7));
    assert_eq!({ backend.finish(request).unwrap().value }, 7);
    server.join().unwrap();
}

#[test]
fn sl_2_a_completion_carries_result_and_page() {
    check(None, complete_and_poll);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn sl_2_weakened_reads_a_half_written_result() {
    twin("SL_2", None, complete_and_poll);
}

/// The communicator delivers a part and goes back to Processing; the owner cancels and uses its buffer for other things.
fn suspend_and_cancel() {
    let world = World::new(1, 2);
    let (mut backend, request) = world.submitted(&registered(7));
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        c.reap(8, State::Processing, |mut claim| {
            let Ok(mut copying) = claim.copying() else { return };
            copying.deliver(0, &page_of(7)).unwrap();
            if copying.suspend().is_ok() && claim.complete(Completion::ok(7)).is_err() {
                saw("a cancel after a part was delivered");
            }
        });
    });
    if backend.cancel(request, &FOR_EVER).is_ok() {
        saw("a cancel");
        touch_registered(&world.parts());
    }
    server.join().unwrap();
}

#[test]
fn sl_3_a_cancel_comes_after_the_last_byte_delivered() {
    check_reaching(None, &["a cancel", "a cancel after a part was delivered"], suspend_and_cancel);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn sl_3_weakened_lets_a_byte_arrive_after_the_cancel() {
    twin("SL_3", None, suspend_and_cancel);
}

/// An owner takes its result and leaves; another, who learns of it in a way that orders nothing, fills the slot.
fn next_owner() {
    let world = World::new(1, 2);
    let (mut backend, request) = world.submitted(&plain(Opcode::RelSize, 7));
    let parts = world.parts();
    assert_eq!(communicator(&parts).0.reap(8, State::Copying, |claim| assert!(serve(claim))), 1);
    let shared = world.clone();
    let next = thread::spawn(move || {
        let slot = &shared.slots[0];
        if owner::begin_fill(slot).is_ok() {
            saw("the next owner");
            slot.result.with_mut(|_| ());
        }
    });
    assert!(backend.finish(request).unwrap().is_ok());
    next.join().unwrap();
}

#[test]
fn sl_4_the_next_filling_comes_after_the_last_reading() {
    check_reaching(None, &["the next owner"], next_owner);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn sl_4_weakened_overwrites_a_result_that_is_still_read() {
    twin("SL_4", None, next_owner);
}

/// A cancelled request's slot and bounce block come back while the communicator may still have been at them.
fn free_and_fill() {
    let world = World::new(1, 2);
    let (mut backend, request) = world.submitted(&bounced(7));
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        c.reap(8, State::Copying, |claim| {
            if !serve(claim) {
                saw("an answer dropped");
            }
        });
    });
    if backend.cancel(request, &FOR_EVER).is_ok() {
        saw("a cancel");
        let image = [9; support::BLOCK];
        let write = shmuring::request::Request::write_page(support::REL, 1, 1, 0, &image);
        while backend.fill(0, &write).is_err() {
            thread::yield_now();
        }
    }
    server.join().unwrap();
}

#[test]
fn sl_6_a_slot_comes_back_when_the_communicator_is_done_with_it() {
    check_reaching(None, &["a cancel", "an answer dropped"], free_and_fill);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn sl_6_weakened_gives_back_a_slot_that_is_still_used() {
    twin("SL_6", None, free_and_fill);
}

/// The owner sets the waiter bit and sleeps while the communicator completes.
fn complete_and_wait() {
    let world = World::new(1, 2);
    let (mut backend, request) = world.submitted(&plain(Opcode::RelSize, 7));
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        assert_eq!(c.reap(8, State::Processing, |claim| assert!(serve(claim))), 1);
    });
    backend.wait(request, &FOR_EVER).unwrap();
    assert_eq!({ backend.finish(request).unwrap().value }, 7);
    server.join().unwrap();
}

#[test]
fn a_sleeping_owner_is_always_woken() {
    check(None, complete_and_wait);
}

/// As above, with a completion that decides on the wake-up by an earlier look at the waiter bit.
#[test]
#[should_panic(expected = "deadlock")]
fn a_completion_that_looks_for_sleepers_too_early_leaves_one() {
    check(None, || {
        let world = World::new(1, 2);
        let (mut backend, request) = world.submitted(&plain(Opcode::RelSize, 7));
        let shared = world.clone();
        thread::spawn(move || {
            let slot = &shared.slots[0];
            let word = claim_side::claim(slot, claim_side::look(slot), State::Processing, 1).unwrap().word;
            let early = claim_side::look(slot).waiter();
            let _ = claim_side::complete(slot, word).unwrap();
            if early {
                futex::wake_all(&slot.word, true);
            }
        });
        backend.wait(request, &FOR_EVER).unwrap();
    });
}

/// A claim of generation g is completed while its owner cancels it, gets the slot back from a successor and has a request
/// of the next generation served. Exactly one of the two happens to generation g.
fn late_completion(first: u32, late: fn(&shmuring::layout::Slot, Word) -> bool) {
    let world = World::new(1, 2);
    let slot = &world.slots[0];
    let old = Word::new(State::Processing, first, 1);
    slot.word.store(old.bits(), loom::sync::atomic::Ordering::Relaxed);
    let shared = world.clone();
    let stopped = thread::spawn(move || late(&shared.slots[0], old));
    let cancelled = owner::abandon(slot, old).is_ok();
    if cancelled {
        let _ = claim_side::free(slot, claim_side::look(slot)).unwrap();
        let filling = owner::begin_fill(slot).unwrap();
        owner::submit(slot, filling);
        let claimed = claim_side::claim(slot, claim_side::look(slot), State::Processing, 2).unwrap();
        assert_eq!(claimed.word.generation(), (first + 1) % GENERATIONS);
        let Ok(done) = claim_side::complete(slot, claimed.word) else { panic!("generation g has not exactly one end") };
        let _ = owner::finish(slot, done.word);
    }
    assert_ne!(stopped.join().unwrap(), cancelled, "generation g has not exactly one end");
    let end = if cancelled { Word::new(State::Idle, first + 2, 0) } else { Word::new(State::Completed, first, 1) };
    assert_eq!(owner::look(slot), end);
}

#[test]
fn a_late_completion_of_an_old_generation_is_refused() {
    for first in [3, GENERATIONS - 1] {
        check(None, move || late_completion(first, |slot, old| claim_side::complete(slot, old).is_ok()));
    }
}

#[test]
#[should_panic(expected = "not exactly one end")]
fn a_completion_that_looks_at_the_state_alone_ends_the_wrong_generation() {
    check(None, || {
        late_completion(3, |slot, _| {
            let now = claim_side::look(slot);
            now.is(State::Processing) && claim_side::complete(slot, now).is_ok()
        });
    });
}
