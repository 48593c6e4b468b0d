//! The doorbell: a communicator that parks is woken by whatever was pushed before or after (DB_1, DB_2, I8).

mod support;

use loom::sync::atomic::Ordering;
use loom::thread;
use shmuring::doorbell::{self, Bell, Parked};
use shmuring::ring::{Consumer, Producer};
use std::sync::Arc;
use support::{check_deaths, check_reaching, dies, saw, twin, without, World, DEEP, DYING, WIDE};

/// Takes `n` slot numbers, parking whenever there is none.
fn consume(world: &World, n: usize) {
    let parts = world.parts();
    let mut consumer = Consumer::new(&parts);
    let mut got = Vec::new();
    loop {
        while let Some(slot) = consumer.next(&parts) {
            got.push(slot);
        }
        consumer.take_pending(&parts, |slot| got.push(slot));
        if got.len() >= n {
            break;
        }
        match doorbell::park(&parts, u64::MAX) {
            Parked::Rung => saw("a sleep"),
            Parked::Busy => saw("a park without a sleep"),
            Parked::TimedOut => unreachable!("a model has no time"),
        }
    }
    got.sort_unstable();
    assert_eq!(got, (0..n as u32).collect::<Vec<_>>(), "each slot number once");
}

fn push_and_ring(world: &World, slot: u32) {
    let parts = world.parts();
    Producer::new().push(&parts, &[slot]);
    if Bell::default().ring(&parts) {
        saw("a ring");
    }
}

fn one_producer() {
    let world = World::new(1, 2);
    let shared = world.clone();
    let consumer = thread::spawn(move || consume(&shared, 1));
    push_and_ring(&world, 0);
    consumer.join().unwrap();
}

fn two_producers() {
    let world = World::new(2, 4);
    let shared = world.clone();
    let consumer = thread::spawn(move || consume(&shared, 2));
    let shared = world.clone();
    let other = thread::spawn(move || push_and_ring(&shared, 1));
    push_and_ring(&world, 0);
    other.join().unwrap();
    consumer.join().unwrap();
}

const PLACES: [&str; 3] = ["a sleep", "a park without a sleep", "a ring"];

#[test]
fn db_1_db_2_a_push_wakes_a_communicator_that_parks() {
    check_reaching(DEEP, &PLACES, one_producer);
}

#[test]
fn db_1_db_2_two_producers_lose_no_wake_up() {
    check_reaching(WIDE, &PLACES, two_producers);
}

#[test]
#[should_panic(expected = "deadlock")]
fn db_1_weakened_sleeps_through_a_push() {
    twin("DB_1", DEEP, one_producer);
}

#[test]
#[should_panic(expected = "deadlock")]
fn db_2_weakened_does_not_see_the_sleeper() {
    twin("DB_2", DEEP, one_producer);
}

#[test]
#[should_panic(expected = "deadlock")]
fn db_1_weakened_to_none_sleeps_through_a_push() {
    without("DB_1", DEEP, one_producer);
}

#[test]
#[should_panic(expected = "deadlock")]
fn db_2_weakened_to_none_does_not_see_the_sleeper() {
    without("DB_2", DEEP, one_producer);
}

#[test]
#[should_panic(expected = "deadlock")]
fn db_1_weakened_sleeps_through_two_pushes() {
    twin("DB_1", WIDE, two_producers);
}

#[test]
#[should_panic(expected = "deadlock")]
fn db_2_weakened_lets_two_producers_miss_the_sleeper() {
    twin("DB_2", WIDE, two_producers);
}

/// A producer dies at any step of push and ring; the one after it is heard.
#[test]
fn a_producer_that_dies_at_any_step_leaves_the_next_one_its_wake_up() {
    check_deaths(DYING, &["a death", "a sleep", "a ring"], |step| {
        let world = World::new(2, 4);
        let shared = world.clone();
        let consumer = thread::spawn(move || {
            let parts = shared.parts();
            let mut consumer = Consumer::new(&parts);
            let mut got = Vec::new();
            while !got.contains(&1) {
                while let Some(slot) = consumer.next(&parts) {
                    got.push(slot);
                }
                consumer.take_pending(&parts, |slot| got.push(slot));
                if !got.contains(&1) && doorbell::park(&parts, u64::MAX) == Parked::Rung {
                    saw("a sleep");
                }
            }
            assert!(got.iter().filter(|slot| **slot == 0).count() <= 1, "{got:?}");
        });
        if dies(step, || push_and_ring(&world, 0)).is_none() {
            saw("a death");
        }
        push_and_ring(&world, 1);
        consumer.join().unwrap();
    });
}

/// A producer dies between raising the sequence and waking; `clears` the flag first, as I8 forbids. The next one pushes.
fn dies_before_the_wake(clears: bool) {
    let world = World::new(2, 4);
    let shared = world.clone();
    let consumer = thread::spawn(move || consume(&shared, 2));
    let next = |world: Arc<World>| push_and_ring(&world, 1);
    let parts = world.parts();
    Producer::new().push(&parts, &[0]);
    loom::sync::atomic::fence(Ordering::SeqCst);
    let parked = parts.header.parked.0.load(Ordering::Relaxed);
    if parked & 1 == 1 {
        saw("a death before the wake");
        parts.header.sequence.0.fetch_add(1, Ordering::Relaxed);
        if clears {
            let _ = parts.header.parked.0.compare_exchange(parked, parked & !1, Ordering::Relaxed, Ordering::Relaxed);
        }
    }
    next(world.clone());
    consumer.join().unwrap();
}

#[test]
fn a_producer_that_dies_before_its_wake_leaves_the_flag_to_the_next() {
    let places = ["a sleep", "a ring", "a death before the wake"];
    check_reaching(DEEP, &places, || dies_before_the_wake(false));
}

#[test]
#[should_panic(expected = "deadlock")]
fn a_producer_that_clears_the_flag_and_dies_loses_the_wake_up() {
    support::check(DEEP, || dies_before_the_wake(true));
}
