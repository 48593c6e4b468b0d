//! The submission ring with late and dead producers, and the pending bitmap (I5, I6, SL_5, SL_7).

mod support;

use loom::sync::atomic::Ordering;
use loom::thread;
use shmuring::communicator::Communicator;
use shmuring::request::Opcode;
use shmuring::slot::State;
use shmuring::stats::RoleCounter;
use support::{check_reaching, communicator, plain, saw, serve, twin, World, DEEP, WIDE};

/// Serves until `n` requests were claimed, parking whenever there is none; each slot is claimed once.
fn serve_all(world: &World, n: usize) {
    let parts = world.parts();
    let (mut c, _) = communicator(&parts);
    let mut slots = Vec::new();
    while slots.len() < n {
        if reap(&mut c, &mut slots) == 0 {
            c.park(u64::MAX);
        }
    }
    slots.sort_unstable();
    assert_eq!(slots, (0..n as u32).collect::<Vec<_>>(), "each slot is claimed once");
    if parts.role_stats.get(RoleCounter::SteppedOver) > 0 {
        saw("a ticket stepped over");
    }
    if parts.role_stats.get(RoleCounter::PendingHints) > 0 {
        saw("a pending bit");
    }
}

fn reap(c: &mut Communicator<'_>, slots: &mut Vec<u32>) -> usize {
    c.reap(8, State::Processing, |claim| {
        slots.push(claim.slot());
        assert!(serve(claim));
    })
}

/// What is left when all is served: another reap finds nothing.
fn nothing_is_left(world: &World) {
    let parts = world.parts();
    let (mut c, inheritance) = communicator(&parts);
    assert!(inheritance.mutations.is_empty() && inheritance.reads.is_empty());
    assert_eq!(reap(&mut c, &mut Vec::new()), 0, "a request was left");
}

/// Submits slots `first` to `first + n - 1`, one by one.
fn submit(world: &World, first: u32, n: u32) {
    let mut backend = world.backend(first, n);
    for slot in first..first + n {
        let request = backend.fill(slot, &plain(Opcode::RelSize, slot)).unwrap();
        backend.submit(request).unwrap();
    }
}

fn slow_producer() {
    let world = World::new(1, 4);
    let shared = world.clone();
    let server = thread::spawn(move || serve_all(&shared, 1));
    submit(&world, 0, 1);
    server.join().unwrap();
    nothing_is_left(&world);
}

#[test]
fn a_slow_producer_is_stepped_over_and_its_request_neither_lost_nor_claimed_twice() {
    check_reaching(DEEP, &["a ticket stepped over"], slow_producer);
}

#[test]
fn two_slow_producers_lose_nothing() {
    check_reaching(WIDE, &["a ticket stepped over"], || {
        let world = World::new(2, 4);
        let shared = world.clone();
        let server = thread::spawn(move || serve_all(&shared, 2));
        let shared = world.clone();
        let other = thread::spawn(move || submit(&shared, 1, 1));
        submit(&world, 0, 1);
        other.join().unwrap();
        server.join().unwrap();
        nothing_is_left(&world);
    });
}

#[test]
fn a_producer_that_died_with_a_ticket_stops_nobody() {
    check_reaching(DEEP, &["a ticket stepped over"], || {
        let world = World::new(1, 4);
        let shared = world.clone();
        let server = thread::spawn(move || serve_all(&shared, 1));
        // The dead one got no further than its ticket.
        world.header.tail.0.fetch_add(1, Ordering::Relaxed);
        submit(&world, 0, 1);
        server.join().unwrap();
        nothing_is_left(&world);
    });
}

/// Preemptions of the model below: with one more it takes minutes.
const FULL: Option<usize> = Some(4);

/// One cell: what is submitted while it is full goes by the bitmap.
fn full_ring() {
    let world = World::new(3, 1);
    submit(&world, 0, 1);
    let shared = world.clone();
    let server = thread::spawn(move || serve_all(&shared, 3));
    submit(&world, 1, 2);
    server.join().unwrap();
    nothing_is_left(&world);
}

#[test]
fn sl_5_sl_7_a_push_into_a_full_ring_goes_by_the_bitmap() {
    check_reaching(FULL, &["a pending bit"], full_ring);
}

#[test]
#[should_panic(expected = "deadlock")]
fn sl_5_weakened_ignores_a_pending_bit() {
    twin("SL_5", FULL, full_ring);
}

#[test]
#[should_panic(expected = "deadlock")]
fn sl_7_weakened_clears_the_alarm_and_misses_the_bit() {
    twin("SL_7", FULL, full_ring);
}

#[test]
fn a_producer_stepped_over_three_times_goes_by_the_bitmap() {
    check_reaching(DEEP, &["a ticket stepped over", "a pending bit"], slow_producer);
}
