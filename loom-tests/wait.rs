//! Waiting for one of several requests, and for a slot to come back (rows 11, 13 and 26).

mod support;

use loom::thread;
use shmuring::error::Error;
use shmuring::futex::{self, Watch};
use shmuring::request::{Opcode, Request};
use shmuring::slot::{communicator as claim_side, owner, State};
use support::{bounced, check, check_reaching, communicator, page_of, plain, saw, serve, World, BLOCK, DEEP};
use support::{FOR_EVER, REL};

/// Two requests, answered one after the other in either order; the owner waits for any, twice.
fn any_of_two(last_first: bool) {
    let world = World::new(2, 4);
    let mut backend = world.backend(0, 2);
    let mut requests = Vec::new();
    for slot in 0..2 {
        requests.push(backend.fill(slot, &plain(Opcode::RelSize, slot)).unwrap());
    }
    backend.submit_many(&requests).unwrap();
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        let mut claims = Vec::new();
        assert_eq!(c.reap(8, State::Processing, |claim| claims.push(claim)), 2);
        if last_first {
            claims.reverse();
        }
        claims.into_iter().for_each(|claim| assert!(serve(claim)));
    });
    let first = backend.wait_any(&requests, &FOR_EVER).unwrap();
    saw(["the first", "the second"][first]);
    assert_eq!({ backend.finish(requests[first]).unwrap().value }, first as u64);
    let other = requests[1 - first];
    assert_eq!(backend.wait_any(&[other], &FOR_EVER), Ok(0));
    assert_eq!({ backend.finish(other).unwrap().value }, 1 - first as u64);
    server.join().unwrap();
}

#[test]
fn whichever_request_is_answered_first_ends_a_wait_for_any() {
    check_reaching(DEEP, &["the first", "the second"], || any_of_two(false));
    check_reaching(DEEP, &["the second"], || any_of_two(true));
}

/// A wait for any as it must not be: it asks to be woken for the first of them alone.
#[test]
#[should_panic(expected = "deadlock")]
fn a_wait_for_any_that_marks_one_word_sleeps_through_the_other() {
    check(DEEP, || {
        let world = World::new(2, 4);
        let mut backend = world.backend(0, 2);
        let requests = [0, 1].map(|slot| backend.fill(slot, &plain(Opcode::RelSize, slot)).unwrap());
        backend.submit_many(&requests).unwrap();
        let shared = world.clone();
        thread::spawn(move || {
            let slot = &shared.slots[1];
            let word = claim_side::claim(slot, claim_side::look(slot), State::Processing, 1).unwrap().word;
            claim_side::complete(slot, word).unwrap().owed.pay(&shared.parts(), slot);
        });
        let [one, other] = &world.slots[..] else { panic!() };
        while !owner::look(other).is(State::Completed) {
            let words = (owner::set_waiter(one, owner::look(one)).unwrap(), owner::look(other));
            let watches = [Watch::new(&one.word, words.0.low(), true), Watch::new(&other.word, words.1.low(), true)];
            futex::wait_any(&watches, u64::MAX);
        }
    });
}

/// The owner waits for any of one, while its word moves without a change that the kernel would see.
fn any_while_the_word_moves(request: &Request<'_>, server: fn(&World)) {
    let world = World::new(1, 2);
    let (mut backend, r) = world.submitted(request);
    let shared = world.clone();
    let serving = thread::spawn(move || server(&shared));
    backend.wait_any(&[r], &FOR_EVER).unwrap();
    assert_eq!({ backend.finish(r).unwrap().value }, 7);
    serving.join().unwrap();
}

#[test]
fn a_wait_for_any_is_woken_after_copying_and_back() {
    static IMAGE: [u8; BLOCK] = page_of(7);
    check(DEEP, || {
        any_while_the_word_moves(&Request::write_page(REL, 7, 1, 0, &IMAGE), |world| {
            let parts = world.parts();
            communicator(&parts).0.reap(8, State::Processing, |claim| assert!(serve(claim)));
        });
    });
}

#[test]
fn a_wait_for_any_is_woken_after_a_take_over() {
    check(DEEP, || {
        any_while_the_word_moves(&plain(Opcode::RelSize, 7), |world| {
            let parts = world.parts();
            communicator(&parts).0.reap(8, State::Processing, std::mem::forget);
            communicator(&parts).1.reads.into_iter().for_each(|claim| assert!(serve(claim)));
        });
    });
}

/// The owner has one slot, cancels, and waits until it can be used again.
fn wait_for_the_slot(to: State) {
    let world = World::new(1, 2);
    let (mut backend, request) = world.submitted(&bounced(7));
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        c.reap(8, to, |claim| {
            serve(claim);
        });
    });
    match backend.cancel(request, &FOR_EVER) {
        Ok(_) => {
            saw("cancelled");
            assert_eq!(backend.wait_free(&FOR_EVER), Ok(0));
            let again = backend.fill(0, &plain(Opcode::RelSize, 1)).unwrap();
            assert_eq!(again.generation, 1);
        }
        Err(e) => {
            assert_eq!(e, Error::AlreadyCompleted);
            assert_eq!(backend.wait_free(&FOR_EVER), Err(Error::NoFreeSlot));
        }
    }
    server.join().unwrap();
}

#[test]
fn who_waits_for_a_cancelled_slot_is_woken_when_it_comes_back() {
    for to in [State::Processing, State::Copying] {
        check_reaching(DEEP, &["cancelled"], move || wait_for_the_slot(to));
    }
}

/// A write that was claimed before its owner gave it up runs to its end; its owner waits for the slot.
#[test]
fn who_waits_for_a_forgotten_slot_is_woken_when_its_write_is_over() {
    static IMAGE: [u8; BLOCK] = page_of(7);
    check_reaching(DEEP, &["forgotten", "cancelled"], || {
        let world = World::new(1, 2);
        let (mut backend, request) = world.submitted(&Request::write_page(REL, 7, 1, 0, &IMAGE));
        let shared = world.clone();
        let server = thread::spawn(move || {
            let parts = shared.parts();
            communicator(&parts).0.reap(8, State::Processing, |claim| assert!(serve(claim)));
        });
        if backend.cancel(request, &FOR_EVER).is_ok() {
            saw("cancelled");
        } else {
            saw("forgotten");
            backend.forget(request).unwrap();
        }
        assert_eq!(backend.wait_free(&FOR_EVER), Ok(0));
        assert!(owner::look(&world.slots[0]).is(State::Idle));
        server.join().unwrap();
    });
}
