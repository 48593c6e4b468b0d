//! The submission ring with late and dead producers, and the pending bitmap (I5, I6, SL_5, SL_7).

mod support;

use loom::sync::atomic::Ordering;
use loom::thread;
use shmuring::communicator::Communicator;
use shmuring::request::Opcode;
use shmuring::ring::{self, Consumer, Producer};
use shmuring::slot::State;
use shmuring::stats::RoleCounter;
use support::{bounced, check_deaths, check_reaching, communicator, dies, plain, runs, saw, serve, twin, World};
use support::{DEEP, FOR_EVER, WIDE};

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
    slow_producer_at(0);
}

fn slow_producer_at(ticket: u64) {
    let world = World::at_ticket(ticket, 1, 4);
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

/// Preemptions of models of two threads with many steps each: with one more they take minutes.
const SHALLOW: Option<usize> = Some(2);

/// Tickets at whose next one something wraps: the low 32 bits, the lap of a cell (40 bits, of a ring of 4 cells), all.
const EDGES: [u64; 3] = [u32::MAX as u64, (1 << 42) - 1, u64::MAX];

#[test]
fn tickets_wrap_without_a_loss() {
    for ticket in EDGES {
        // Stepped over twice, so that the ticket that is published is on the other side.
        check_reaching(DEEP, &["a ticket stepped over", "a pending bit"], move || slow_producer_at(ticket));
    }
}

#[test]
fn a_batch_across_an_edge_arrives_whole() {
    for ticket in EDGES {
        check_reaching(WIDE, &["a ticket stepped over"], move || {
            let world = World::at_ticket(ticket, 2, 4);
            let shared = world.clone();
            let server = thread::spawn(move || serve_all(&shared, 2));
            let mut backend = world.backend(0, 2);
            let batch = [0, 1].map(|slot| backend.fill(slot, &plain(Opcode::RelSize, slot)).unwrap());
            backend.submit_many(&batch).unwrap();
            server.join().unwrap();
            nothing_is_left(&world);
        });
    }
}

/// A batch whose producer dies at any step, and another producer after it.
#[test]
fn a_producer_that_dies_at_any_step_of_a_batch_stops_nobody() {
    check_deaths(SHALLOW, &["a death", "a ticket stepped over"], |step| {
        let world = World::new(3, 4);
        let shared = world.clone();
        let server = thread::spawn(move || {
            let parts = shared.parts();
            let (mut c, _) = communicator(&parts);
            let mut slots = Vec::new();
            while !slots.contains(&2) {
                if reap(&mut c, &mut slots) == 0 {
                    c.park(u64::MAX);
                }
            }
            if parts.role_stats.get(RoleCounter::SteppedOver) > 0 {
                saw("a ticket stepped over");
            }
            assert_eq!(parts.role_stats.get(RoleCounter::Damage), 0);
        });
        let mut dying = world.backend(0, 2);
        let batch = [0, 1].map(|slot| dying.fill(slot, &plain(Opcode::RelSize, slot)).unwrap());
        if dies(step, || dying.submit_many(&batch).unwrap()).is_none() {
            saw("a death");
        }
        submit(&world, 2, 1);
        server.join().unwrap();
        // What it had submitted, a sweep finds; nothing was served twice.
        let parts = world.parts();
        let (mut c, _) = communicator(&parts);
        c.sweep(State::Copying, |claim| assert!(serve(claim)));
        let mut blocks: Vec<_> = runs().iter().map(|(block, _)| *block).collect();
        blocks.sort_unstable();
        blocks.dedup();
        assert_eq!(blocks.len(), runs().len(), "a request was served twice: {:?}", runs());
    });
}

/// Two hints for one request, or a hint of the slot's earlier use: claims are decided by the word (I7).
fn stale_and_double_hints(cancels: bool) {
    let world = World::new(1, 4);
    let shared = world.clone();
    let server = thread::spawn(move || {
        let parts = shared.parts();
        let (mut c, _) = communicator(&parts);
        let reap = |c: &mut Communicator<'_>| {
            c.reap(8, State::Processing, |claim| {
                serve(claim);
            })
        };
        while runs().last().is_none_or(|(block, _)| *block != 8) {
            reap(&mut c);
            thread::yield_now();
        }
        // The other hint of the last request, if it is there yet.
        assert_eq!(reap(&mut c), 0);
        if parts.role_stats.get(RoleCounter::StaleHints) > 0 {
            saw("a stale hint");
        }
    });
    let mut backend = world.backend(0, 1);
    let parts = world.parts();
    if cancels {
        let first = backend.fill(0, &bounced(7)).unwrap();
        backend.submit(first).unwrap();
        // Two hints before the slot comes back.
        ring::set_pending(&parts, 0);
        if backend.cancel(first, &FOR_EVER).is_err() {
            let _ = backend.finish(first).unwrap();
        }
        backend.wait_free(&FOR_EVER).unwrap();
    }
    let last = backend.fill(0, &plain(Opcode::RelSize, 8)).unwrap();
    backend.submit(last).unwrap();
    ring::set_pending(&parts, 0);
    backend.wait(last, &FOR_EVER).unwrap();
    assert_eq!({ backend.finish(last).unwrap().value }, 8);
    server.join().unwrap();
    assert_eq!(runs().iter().filter(|(block, _)| *block == 8).count(), 1, "claimed twice");
    nothing_is_left(&world);
}

#[test]
fn double_and_stale_hints_claim_nothing_twice() {
    check_reaching(WIDE, &["a stale hint"], || stale_and_double_hints(false));
    check_reaching(SHALLOW, &["a stale hint"], || stale_and_double_hints(true));
}

/// The consumer takes what fills the ring; a producer that sees the head finds the cell behind it empty. `take` is how the
/// cell is taken.
fn take_and_push(take: fn(&World)) {
    let world = World::new(2, 1);
    assert_eq!(Producer::new().push(&world.parts(), &[0]), 0);
    let shared = world.clone();
    let producer = thread::spawn(move || {
        let parts = shared.parts();
        if Producer::new().push(&parts, &[1]) == 0 {
            saw("a push by the ring");
        } else {
            saw("a push by the bitmap");
            assert_eq!(parts.header.tail.0.load(Ordering::Relaxed), 1, "a ticket was wasted on a cell behind the head");
        }
    });
    take(&world);
    producer.join().unwrap();
}

#[test]
fn cq_2_a_cell_behind_the_head_is_empty() {
    check_reaching(None, &["a push by the ring", "a push by the bitmap"], || {
        take_and_push(|world| {
            let parts = world.parts();
            assert_eq!(Consumer::new(&parts).next(&parts), Some(0));
        });
    });
}

/// Loom's compare-exchanges see the newest value whatever the orderings, so this twin is by hand: the stores of reset and
/// head in the other order, which is what a processor may make of them without CQ_2.
#[test]
#[should_panic(expected = "a ticket was wasted")]
fn cq_2_weakened_lets_the_head_pass_a_full_cell() {
    support::check(None, || {
        take_and_push(|world| {
            let parts = world.parts();
            parts.header.head.0.store(1, Ordering::Relaxed);
            parts.cells[0].0.store(ring::empty(1), Ordering::Relaxed);
        });
    });
}

/// Preemptions of the model below: with one more it takes minutes.
const FULL: Option<usize> = Some(4);

/// One cell: what is submitted while it is full goes by the bitmap.
fn full_ring() {
    full_ring_at(0);
}

fn full_ring_at(ticket: u64) {
    let world = World::at_ticket(ticket, 3, 1);
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
fn a_full_ring_across_an_edge_goes_by_the_bitmap() {
    // A ring of one cell: its lap wraps at 2^40.
    for ticket in [(1 << 40) - 1, u64::MAX] {
        check_reaching(SHALLOW, &["a pending bit"], move || full_ring_at(ticket));
    }
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
