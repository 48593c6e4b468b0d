//! The audit of an idle communicator: it finds what has no hint, and counts no hint as lost that is on its way (R14).

mod support;

use loom::thread;
use shmuring::clock;
use shmuring::communicator::Communicator;
use shmuring::request::Opcode;
use shmuring::slot::{communicator as claim_side, owner, State, Word};
use shmuring::stats::RoleCounter;
use support::FOR_EVER;
use support::{bounced, check_deaths, check_reaching, communicator, dies, plain, runs, saw, serve, twin, World};

/// An audit that is due.
fn audit(c: &mut Communicator<'_>) -> usize {
    clock::set(clock::now() + 2_000_000_000);
    c.audit(State::Copying, |claim| {
        saw("found by an audit");
        assert!(serve(claim));
    })
}

/// The owner submits while the communicator audits twice, reaps, and audits twice again.
fn submit_and_audit(waits: bool) {
    let world = World::new(1, 2);
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        let mut n = audit(&mut c) + audit(&mut c);
        while n == 0 {
            n += c.reap(8, State::Copying, |claim| {
                saw("found by its hint");
                assert!(serve(claim));
            });
            thread::yield_now();
        }
        assert_eq!(n, 1);
        assert_eq!(parts.role_stats.get(RoleCounter::LostHints), 0, "a hint on its way was counted as lost");
    });
    let (mut backend, request) = world.submitted(&plain(Opcode::RelSize, 7));
    if waits {
        backend.wait(request, &FOR_EVER).unwrap();
        assert_eq!({ backend.finish(request).unwrap().value }, 7);
    }
    server.join().unwrap();
    assert_eq!(runs().len(), 1);
}

#[test]
fn the_audit_counts_no_hint_as_lost_that_is_on_its_way() {
    check_reaching(Some(3), &["found by an audit", "found by its hint"], || submit_and_audit(true));
    check_reaching(Some(3), &["found by an audit", "found by its hint"], || submit_and_audit(false));
}

/// The owner asks to be woken as soon as it has pushed; two audits, of which the first saw it Submitted.
fn push_and_ask() {
    let world = World::new(1, 2);
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        audit(&mut c);
        audit(&mut c);
        assert_eq!(parts.role_stats.get(RoleCounter::LostHints), 0, "a hint on its way was counted as lost");
    });
    let _owner = world.submitted(&plain(Opcode::RelSize, 7));
    let slot = &world.slots[0];
    if owner::look(slot).is(State::Submitted) && owner::set_waiter(slot, owner::look(slot)).is_ok() {
        saw("a waiter bit");
    }
    server.join().unwrap();
}

#[test]
fn sl_8_the_audit_sees_the_push_of_an_owner_that_waits() {
    check_reaching(None, &["found by an audit", "a waiter bit"], push_and_ask);
}

#[test]
#[should_panic(expected = "counted as lost")]
fn sl_8_weakened_counts_a_hint_as_lost_that_is_on_its_way() {
    twin("SL_8", None, push_and_ask);
}

#[test]
fn what_an_owner_left_when_it_died_is_found_by_the_audit_at_the_latest() {
    check_deaths(None, &["a death", "found by an audit", "found by its hint", "unhinted"], |step| {
        let world = World::new(1, 2);
        let shared = world.clone();
        let server = thread::spawn(move || {
            let parts = shared.parts();
            let (mut c, _) = communicator(&parts);
            c.reap(8, State::Copying, |claim| {
                saw("found by its hint");
                assert!(serve(claim));
            });
        });
        let lived = dies(step, || {
            let _owner = world.submitted(&bounced(7));
        });
        if lived.is_none() {
            saw("a death");
        }
        server.join().unwrap();
        let parts = world.parts();
        let was_submitted = !matches!(claim_side::look(&parts.slots[0]).state(), Some(State::Idle | State::Filling));
        // Another term, without its sweep: ticket and slot are as the dead owner left them.
        let mut c = reaper_without_a_sweep(&parts);
        let mut n = c.reap(8, State::Copying, |claim| assert!(serve(claim)));
        n += c.reap(8, State::Copying, |claim| assert!(serve(claim)));
        n += audit(&mut c) + audit(&mut c);
        assert!(n <= 1 && runs().len() == usize::from(was_submitted), "{n} {:?}", runs());
        if parts.role_stats.get(RoleCounter::Unhinted) > 0 {
            saw("unhinted");
        }
        assert_eq!(parts.role_stats.get(RoleCounter::LostHints), 0);
        assert_eq!(parts.role_stats.get(RoleCounter::Damage), 0);
    });
}

fn reaper_without_a_sweep<'r>(parts: &'r shmuring::parts::Parts<'r>) -> Communicator<'r> {
    let (c, inheritance) = communicator(parts);
    assert!(inheritance.mutations.is_empty() && inheritance.reads.is_empty());
    c
}

/// An owner that waits has pushed: where its hint is gone, the audit says so.
#[test]
fn a_hint_that_is_really_lost_is_counted() {
    check_reaching(None, &["found by an audit"], || {
        let world = World::new(1, 2);
        let mut backend = world.backend(0, 1);
        let request = backend.fill(0, &plain(Opcode::RelSize, 7)).unwrap();
        owner::submit(&world.slots[0], Word::new(State::Filling, request.generation, 0));
        let shared = world.clone();
        let server = thread::spawn(move || {
            let parts = shared.parts();
            let (mut c, _) = communicator(&parts);
            while !claim_side::look(&parts.slots[0]).waiter() {
                thread::yield_now();
            }
            while audit(&mut c) == 0 {
                thread::yield_now();
            }
            assert_eq!(parts.role_stats.get(RoleCounter::LostHints), 1);
        });
        backend.wait(request, &FOR_EVER).unwrap();
        server.join().unwrap();
    });
}
