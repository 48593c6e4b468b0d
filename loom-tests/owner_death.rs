//! Deaths of owners at every step, and the next owner that settles what they left while a communicator serves (rows 20 to
//! 25, with 2, 4, 8 and 10 to 14 under way). The range lock is modelled as what it is: the next owner starts when the dead
//! one has left its memory, and sees all that it did.

mod support;

use loom::thread;
use shmuring::backend::{Backend, Fate, Wait};
use shmuring::error::Error;
use shmuring::request::{Buffers, Completion, Opcode, Request};
use shmuring::slot::{communicator as claim_side, owner, State};
use shmuring::stats::RoleCounter;
use std::sync::Arc;
use support::{bounced, check, check_deaths, check_reaching, communicator, communicator_by, dies, page_of, plain};
use support::{
    registered, runs, saw, saw_fate, serve, touch_registered, World, BLOCK, DYING, FOR_EVER, NOW, POOL, REL,
};

/// Preemptions of a write from a registered pool, where locks are asked too: with 3 a single late step takes more than
/// 200,000 interleavings, half a minute.
const SHALLOW: Option<usize> = Some(2);

static IMAGE: [u8; BLOCK] = page_of(7);

fn truncate() -> Request<'static> {
    plain(Opcode::Truncate, 7)
}

fn write() -> Request<'static> {
    Request::write_page(REL, 7, 1, 0, &IMAGE)
}

/// A write whose image lies in the registered pool.
fn registered_write() -> Request<'static> {
    Request::write_page(REL, 7, 1, 0, &[]).with_buffers(Buffers::Pool(POOL, &[0]))
}

/// A first owner: it submits, and perhaps cancels.
fn own(world: &World, request: &Request<'_>, cancels: bool) {
    let (mut backend, r) = world.submitted(request);
    if cancels {
        let _ = backend.cancel(r, &FOR_EVER);
    }
}

/// A communicator that looks once.
fn reap_once(world: &World, to: State) {
    let parts = world.parts();
    let (mut c, _) = communicator_by(&parts, &world.locks);
    c.reap(8, to, |claim| {
        serve(claim);
    });
}

/// Settles what it can; at most one leftover is there.
fn settle(heir: &mut Backend<'_>, wait: &Wait<'_>, fate: &mut Option<Fate>) -> Result<(), Error> {
    while let Some(leftover) = heir.next_leftover(wait)? {
        assert_eq!((leftover.slot, { leftover.request.block }), (0, 7));
        assert_eq!(fate.replace(leftover.fate), None, "reported twice");
        saw_fate(leftover.fate);
    }
    Ok(())
}

/// Everything is settled when a communicator has looked at all: the slot is free, and what was reported is what happened.
fn judge(world: &World, heir: &mut Backend<'_>, request: &Request<'_>, mut fate: Option<Fate>) {
    let parts = world.parts();
    let (mut c, inheritance) = communicator_by(&parts, &world.locks);
    inheritance.mutations.into_iter().chain(inheritance.reads).for_each(|claim| assert!(serve(claim)));
    for _ in 0..2 {
        c.sweep(State::Copying, |claim| assert!(serve(claim)));
        c.reap(8, State::Copying, |_| panic!("left by a sweep"));
        settle(heir, &NOW, &mut fate).unwrap();
    }
    assert!(owner::look(&parts.slots[0]).is(State::Idle), "{:?}", owner::look(&parts.slots[0]));
    let ran: Vec<_> = runs().iter().map(|(block, _)| *block).collect();
    match fate {
        // A communicator that took the role when the owner was dead.
        Some(Fate::Completed(done)) if !done.is_ok() => {
            assert_eq!((ran, done), (vec![], Completion::fail(libc::EOWNERDEAD)));
        }
        Some(Fate::Completed(done)) => assert_eq!((ran, done), (vec![7], Completion::ok(7))),
        Some(Fate::Withdrawn | Fate::OwnerDead) => assert_eq!(ran, []),
        // Its own cancel may have been in time for all that is known, or it died before it had submitted.
        Some(Fate::Abandoned) | None => assert!(ran.len() <= usize::from(!request.opcode.is_mutation())),
    }
    assert_eq!(parts.role_stats.get(RoleCounter::LostHints), 0);
    assert_eq!(parts.role_stats.get(RoleCounter::BadWords), 0);
    // And it can be used.
    let next = heir.fill(0, &plain(Opcode::RelSize, 1)).unwrap();
    heir.submit(next).unwrap();
    assert_eq!(c.reap(8, State::Copying, |claim| assert!(serve(claim))), 1);
    assert_eq!({ heir.finish(next).unwrap().value }, 1);
}

/// An owner dies at `step`, the next one settles, a communicator looks once meanwhile and another one later.
fn owner_dies(request: &Request<'static>, cancels: bool, to: State, step: usize) {
    let world = World::new(1, 2);
    let shared = world.clone();
    let server = thread::spawn(move || reap_once(&shared, to));
    if dies(step, || own(&world, request, cancels)).is_none() {
        saw("a death");
    }
    world.locks.dropped(0);
    let mut heir = world.heir(0, 1);
    let mut fate = None;
    let is_read = !request.opcode.is_mutation();
    // A mutation may need a communicator to come.
    let settled = settle(&mut heir, if is_read { &FOR_EVER } else { &NOW }, &mut fate);
    assert!(settled == Ok(()) || !is_read && settled == Err(Error::TimedOut), "{settled:?}");
    if is_read && settled.is_ok() {
        // Nobody else's any more, if a registered pool was named: a late byte would be told.
        touch_registered(&world.parts());
    }
    server.join().unwrap();
    judge(&world, &mut heir, request, fate);
}

#[test]
fn rows_20_21_23_a_read_of_an_owner_that_dies_at_any_step_is_given_up() {
    for to in [State::Processing, State::Copying] {
        check_deaths(DYING, &["a death", "withdrawn", "abandoned", "completed"], move |step| {
            owner_dies(&bounced(7), false, to, step);
        });
    }
}

#[test]
fn rows_20_21_23_a_read_into_a_registered_pool_is_given_up_when_its_copying_is_over() {
    check_deaths(DYING, &["a death", "withdrawn", "abandoned", "completed"], |step| {
        owner_dies(&registered(7), false, State::Processing, step);
    });
    check_deaths(DYING, &["a death", "withdrawn", "completed"], |step| {
        owner_dies(&registered(7), false, State::Copying, step);
    });
}

#[test]
fn rows_22_24_a_mutation_of_an_owner_that_dies_at_any_step_runs_once() {
    for to in [State::Processing, State::Copying] {
        check_deaths(DYING, &["a death", "completed"], move |step| owner_dies(&truncate(), false, to, step));
        check_deaths(DYING, &["a death", "completed"], move |step| owner_dies(&write(), false, to, step));
    }
}

#[test]
fn rows_22_24_a_write_from_a_registered_pool_runs_once_or_is_reported() {
    check_deaths(SHALLOW, &["a death", "completed", "owner dead"], |step| {
        let world_image = |world: &World| {
            let pools = world.parts().pools;
            // SAFETY: nobody uses the block yet.
            unsafe { pools.get(POOL).unwrap().write(0, 0, &IMAGE).unwrap() };
        };
        let world = World::new(1, 2);
        world_image(&world);
        let shared = world.clone();
        let server = thread::spawn(move || reap_once(&shared, State::Processing));
        if dies(step, || own(&world, &registered_write(), false)).is_none() {
            saw("a death");
        }
        world.locks.dropped(0);
        let mut heir = world.heir(0, 1);
        let mut fate = None;
        let settled = settle(&mut heir, &NOW, &mut fate);
        if fate == Some(Fate::OwnerDead) {
            // It did not run, so the buffer is whoever's now.
            touch_registered(&world.parts());
        }
        assert!(matches!(settled, Ok(()) | Err(Error::TimedOut)), "{settled:?}");
        server.join().unwrap();
        judge(&world, &mut heir, &registered_write(), fate);
    });
}

#[test]
fn row_25_what_the_dead_owner_had_cancelled_comes_back_from_the_communicator() {
    let mut seen = vec!["a death", "withdrawn", "abandoned", "completed"];
    for request in [bounced as fn(u32) -> Request<'static>, registered] {
        check_deaths(DYING, &seen, move |step| owner_dies(&request(7), true, State::Processing, step));
        // Copying into a registered pool is waited out: nothing is abandoned.
        seen.retain(|place| *place != "abandoned");
        check_deaths(DYING, &["a death", "withdrawn", "completed"], move |step| {
            owner_dies(&request(7), true, State::Copying, step);
        });
        seen = vec!["a death", "withdrawn", "completed"];
    }
}

/// An owner that died between Submitted and the push; the communicator sleeps until it is told.
fn unhinted(request: &Request<'static>) {
    let world = World::new(1, 2);
    {
        let mut backend = world.backend(0, 1);
        let filling = backend.fill(0, request).unwrap();
        owner::submit(&world.slots[0], shmuring::slot::Word::new(State::Filling, filling.generation, 0));
    }
    world.locks.dropped(0);
    let shared = world.clone();
    let server = thread::spawn(move || serve_one_parking(&shared));
    let mut heir = world.heir(0, 1);
    let mut fate = None;
    settle(&mut heir, &FOR_EVER, &mut fate).unwrap();
    server.join().unwrap();
    judge(&world, &mut heir, request, fate);
}

/// Parks until there is a hint, serves what it leads to, until a slot has come back or a request was answered.
fn serve_one_parking(world: &Arc<World>) {
    let parts = world.parts();
    let (mut c, _) = communicator(&parts);
    let slot = &parts.slots[0];
    while claim_side::look_closely(slot).is(State::Submitted) || claim_side::look_closely(slot).is(State::Withdrawn) {
        if c.reap(8, State::Processing, |claim| assert!(serve(claim))) == 0
            && parts.role_stats.get(RoleCounter::Freed) == 0
        {
            saw("a park");
            c.park(u64::MAX);
        }
    }
}

#[test]
fn rows_21_22_the_next_owner_gives_the_hint_that_the_dead_one_did_not() {
    check_reaching(support::DEEP, &["completed", "a park"], || unhinted(&truncate()));
    check_reaching(support::DEEP, &["withdrawn", "a park"], || unhinted(&bounced(7)));
}

/// A next owner as it must not be: it waits for the mutation without a hint of its own.
#[test]
#[should_panic(expected = "deadlock")]
fn a_next_owner_that_gives_no_hint_waits_for_ever() {
    check(support::DEEP, || {
        let world = World::new(1, 2);
        let mut backend = world.backend(0, 1);
        let filling = backend.fill(0, &truncate()).unwrap();
        owner::submit(&world.slots[0], shmuring::slot::Word::new(State::Filling, filling.generation, 0));
        let shared = world.clone();
        thread::spawn(move || serve_one_parking(&shared));
        backend.wait(filling, &FOR_EVER).unwrap();
    });
}

/// A next owner as it must not be: it gives out bounce blocks of the dead one's unfinished requests (R5).
#[test]
#[should_panic(expected = "Causality violation")]
fn a_bounce_block_given_out_again_is_written_by_two() {
    check(None, || {
        let world = World::new(1, 2);
        own(&world, &bounced(7), false);
        let shared = world.clone();
        thread::spawn(move || reap_once(&shared, State::Processing));
        let bounce = world.parts().pools;
        // SAFETY: none: that is the point.
        unsafe { bounce.get(shmuring::buffers::BOUNCE).unwrap().write(0, 0, &IMAGE).unwrap() };
    });
}
