//! Cancelling against the communicator: exactly one of them wins, nothing is written afterwards, and the slot comes back
//! once (I2, I4; rows 5 to 8, 10 to 14).

mod support;

use loom::thread;
use shmuring::backend::Cancelled;
use shmuring::communicator::Claim;
use shmuring::error::Error;
use shmuring::request::{Completion, Opcode, Request};
use shmuring::slot::{owner, State, Word};
use shmuring::stats::RoleCounter;
use support::{bounced, check_reaching, communicator, page_of, plain, registered, saw, serve, touch_registered};
use support::{World, BLOCK, FOR_EVER};

/// What the owner does once its cancel has succeeded.
type After = fn(&World);

/// The owner cancels while the communicator reaps, claims into state `to`, and serves.
fn race(request: &Request<'static>, to: State, server: fn(Claim<'_>) -> bool, after: After) {
    let world = World::new(1, 2);
    let (mut backend, at) = world.submitted(request);
    let shared = world.clone();
    let serving = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        let mut answered = false;
        c.reap(8, to, |claim| answered = server(claim));
        answered
    });
    let cancelled = backend.cancel(at, &FOR_EVER);
    match cancelled {
        Ok(Cancelled::Withdrawn) => saw("withdrawn"),
        Ok(Cancelled::Abandoned) => saw("abandoned"),
        Err(Error::AlreadyCompleted) => saw("completed"),
        Err(Error::InProgress) => saw("in progress"),
        Err(e) => panic!("{e:?}"),
    }
    if cancelled.is_ok() {
        after(&world);
        assert_eq!(backend.poll(at), Err(Error::Stale));
    }
    let answered = serving.join().unwrap();
    assert_eq!(answered, cancelled.is_err(), "exactly one of cancel and answer");
    if answered {
        assert_eq!({ backend.finish(at).unwrap().value }, 7);
    }
    let freed = world.parts().role_stats.get(RoleCounter::Freed);
    assert_eq!(freed, u64::from(cancelled.is_ok()), "the slot comes back once");
    assert_eq!(owner::look(&world.slots[0]), Word::new(State::Idle, 1, 0));
}

fn nothing(_: &World) {}

fn touch(world: &World) {
    touch_registered(&world.parts());
}

/// Serves in two parts: the page, back to Processing, the page again, the answer.
fn serve_in_parts(mut claim: Claim<'_>) -> bool {
    let Ok(mut copying) = claim.copying() else { return false };
    copying.deliver(0, &page_of(7)).unwrap();
    copying.suspend().is_ok() && serve(claim)
}

#[test]
fn cancel_against_claim_has_one_winner() {
    check_reaching(None, &["withdrawn", "abandoned", "completed"], || {
        race(&plain(Opcode::RelSize, 7), State::Processing, serve, nothing);
    });
}

#[test]
fn no_byte_reaches_a_registered_buffer_after_a_cancel() {
    check_reaching(None, &["withdrawn", "abandoned", "completed"], || {
        race(&registered(7), State::Processing, serve, touch);
    });
}

#[test]
fn no_byte_reaches_a_registered_buffer_after_a_cancel_of_a_request_served_at_once() {
    check_reaching(None, &["withdrawn", "completed"], || {
        race(&registered(7), State::Copying, serve, touch);
    });
}

#[test]
fn no_byte_reaches_a_registered_buffer_after_a_cancel_between_two_parts() {
    check_reaching(None, &["withdrawn", "abandoned", "completed"], || {
        race(&registered(7), State::Processing, serve_in_parts, touch);
    });
}

#[test]
fn a_cancel_with_bounce_buffers_never_waits_for_copying() {
    check_reaching(None, &["withdrawn", "abandoned", "completed"], || {
        race(&bounced(7), State::Copying, serve, nothing);
    });
}

/// A communicator as it must not be: it goes on writing to the buffer after it has left Copying.
#[test]
#[should_panic(expected = "Causality violation")]
fn a_delivery_outside_copying_writes_after_a_cancel() {
    support::check(None, || {
        let world = World::new(1, 2);
        let (mut backend, at) = world.submitted(&registered(7));
        let shared = world.clone();
        let serving = thread::spawn(move || {
            let parts = shared.parts();
            let (mut c, _) = communicator(&parts);
            c.reap(8, State::Processing, |claim| {
                touch(&shared);
                let _ = claim.complete(Completion::ok(7));
            });
        });
        if backend.cancel(at, &FOR_EVER).is_ok() {
            touch(&world);
        }
        serving.join().unwrap();
    });
}

#[test]
fn a_mutation_once_claimed_runs_to_its_end() {
    static IMAGE: [u8; BLOCK] = [3; BLOCK];
    fn store(mut claim: Claim<'_>) -> bool {
        let mut image = [0; BLOCK];
        let mut copying = claim.copying().unwrap();
        copying.take_image(0, &mut image).unwrap();
        copying.suspend().unwrap();
        assert_eq!(image, IMAGE);
        claim.complete(Completion::ok(7)).is_ok()
    }
    check_reaching(None, &["withdrawn", "in progress", "completed"], || {
        race(&Request::write_page(support::REL, 7, 1, 0, &IMAGE), State::Processing, store, nothing);
    });
}
