//! Random schedules of whole systems, with more parties and steps than an exhaustive check can bear: every access is
//! sequentially consistent here, so this finds schedules and not orderings. docs/ordering.md says how to replay one.

mod parties;
mod world;

use parties::{system, Habits};
use shmuring::backend::Backend;
use shmuring::futex;
use shmuring::request::{Opcode, Request};
use shmuring::slot::{communicator as claim_side, State};
use std::process::Command;
use world::{explore, AllLive, World, REL};

const READERS: Habits = Habits { slots: 1, requests: 3, cancels: false, mutates: false, deaths: 0 };

// Rings have as many cells as slots: with fewer, producers that look at the same time would take so many tickets that it is
// damage (R15). Regions have twice as many (R7).

#[test]
fn two_backends_get_every_answer_from_one_communicator() {
    explore(300, &["a ticket stepped over"], || system(2, 2, READERS, 0, 0));
}

#[test]
fn nothing_is_lost_while_communicators_come_and_go() {
    explore(250, &["a communicator died", "a claim made anew"], || {
        system(4, 2, Habits { slots: 2, requests: 2, mutates: true, ..READERS }, 3, 0)
    });
}

#[test]
fn cancels_and_timeouts_have_one_winner_each() {
    let places = ["a withdrawal", "an abandonment", "a wait that timed out"];
    explore(200, &places, || system(4, 2, Habits { slots: 2, cancels: true, mutates: true, ..READERS }, 0, 4));
}

#[test]
fn the_next_owner_settles_what_a_dead_one_left() {
    let places = ["an owner died", "a leftover", "a communicator died"];
    explore(200, &places, || {
        system(8, 3, Habits { slots: 2, requests: 2, cancels: true, mutates: true, deaths: 2 }, 1, 2)
    });
}

#[test]
fn sixteen_producers_share_one_ring() {
    explore(25, &["a communicator died", "a ticket stepped over"], || system(16, 16, READERS, 1, 2));
}

#[test]
fn sixteen_producers_of_whom_some_die_share_one_ring() {
    let places = ["an owner died", "a leftover", "a communicator died", "a withdrawal", "an abandonment"];
    explore(25, &places, || {
        system(32, 16, Habits { slots: 2, requests: 2, cancels: true, mutates: true, deaths: 4 }, 2, 4)
    });
}

/// A fault to be found: a completion that looks for sleepers before it is published. Run by the test below alone.
#[test]
#[ignore = "fails, as it must"]
fn planted_fault() {
    explore(1000, &[], || {
        let world = World::new(1, 2);
        let other = world.clone();
        let owner = shuttle::thread::spawn(move || {
            // SAFETY: the only owner.
            let mut backend = unsafe { Backend::over(other.parts(), &AllLive, None, 0, 1).unwrap() };
            backend.call(&Request::new(Opcode::RelSize, REL), &parties::FOR_EVER, &mut []).unwrap();
        });
        let parts = world.parts();
        let slot = &parts.slots[0];
        while !claim_side::look(slot).is(State::Submitted) {
            shuttle::thread::yield_now();
        }
        let word = claim_side::claim(slot, claim_side::look(slot), State::Processing, 1).unwrap().word;
        let early = claim_side::look(slot).waiter();
        let _ = claim_side::complete(slot, word).unwrap();
        if early {
            futex::wake_all(&slot.word, true);
        }
        owner.join().unwrap();
    });
}

/// What the run of the planted fault says, with this in its environment.
fn planted(name: &str, value: &str) -> String {
    let mut run = Command::new(std::env::current_exe().unwrap());
    run.args(["--ignored", "--exact", "planted_fault", "--nocapture"]).env_remove("SHMURING_REPLAY");
    let output = run.env(name, value).output().unwrap();
    assert!(!output.status.success(), "the planted fault was not found");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_failing_schedule_is_printed_and_fails_again_when_it_is_replayed() {
    if std::env::var_os("SHMURING_REPLAY").is_some() {
        return; // the schedule of another test
    }
    let found = planted("SHMURING_SCHEDULES", "10000");
    let schedule = found.split("failing schedule:\n\"\n").nth(1).and_then(|rest| rest.split("\n\"").next());
    let schedule = schedule.unwrap_or_else(|| panic!("no schedule in:\n{found}"));
    assert!(found.contains("deadlock! blocked tasks"), "{found}");
    let again = planted("SHMURING_REPLAY", schedule);
    assert!(again.contains("deadlock! blocked tasks"), "{again}");
    assert!(again.contains(schedule), "another schedule:\n{again}");
}
