//! Death at every instruction: a process is stepped through an operation and killed with SIGKILL before each of its
//! instructions, over one region that is recovered each time and used on.
//!
//! After every kill the living backend and the communicator (or the next one) go on with right answers; the next owner of
//! the slots settles them, reports each leftover once and uses every slot; no slot is stuck, no hint lost, no mutation
//! lost or run twice, and no cancelled registered buffer written.
//!
//! `tracee` the victim, stepped by ptrace; `trace` the shortest way to an instruction; `driver` the kills; `world` the
//! living; `requests` what is asked for; `recovery` what they must see; `backends`, `waits` and `notes` the operations of a backend; `communicators`,
//! `repairs`, `bridges` and `sizes` those of a communicator; `servers` those of a server; `clock` their time, `heap`
//! their memory.
//!
//! Run by ci/single_step.sh, optimised: a debug build has some ten times the instructions.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod backends;
mod bridges;
mod clock;
mod communicators;
mod driver;
mod heap;
mod notes;
mod recovery;
mod repairs;
mod requests;
mod servers;
mod sizes;
#[path = "../support/mod.rs"]
mod support;
mod trace;
mod tracee;
mod waits;
mod world;

use driver::{kill_everywhere, Case};
use world::Fault;

#[track_caller]
fn survive(name: &str, cases: &'static [Case]) {
    kill_everywhere(name, cases, Fault::None).unwrap();
}

#[test]
fn a_backend_may_die_at_every_instruction_of_submit() {
    survive("submit", backends::SUBMIT);
}

#[test]
fn a_backend_may_die_at_every_instruction_of_wait_and_finish() {
    survive("wait", waits::WAIT);
}

#[test]
fn a_backend_may_die_at_every_instruction_of_cancel() {
    survive("cancel", backends::CANCEL);
}

#[test]
fn a_backend_may_die_at_every_instruction_of_attach_and_settle() {
    survive("attach", backends::ATTACH);
}

#[test]
fn a_backend_may_die_at_every_instruction_of_detach() {
    survive("detach", backends::DETACH);
}

#[test]
fn a_communicator_may_die_at_every_instruction_of_reap_and_park() {
    survive("reap", communicators::REAP);
}

#[test]
fn a_communicator_may_die_at_every_instruction_of_deliver_and_complete() {
    survive("complete", communicators::COMPLETE);
}

#[test]
fn a_communicator_may_die_at_every_instruction_of_a_take_over() {
    survive("take-over", communicators::TAKE_OVER);
}

#[test]
fn a_communicator_may_die_at_every_instruction_of_its_bridge() {
    survive("bridge", bridges::BRIDGE);
}

#[test]
fn a_communicator_may_die_at_every_instruction_of_a_repair_of_the_ring() {
    survive("repair", repairs::REPAIR);
}

#[test]
fn a_communicator_may_die_at_every_instruction_of_a_change_of_a_relation_size() {
    survive("size", sizes::SIZE);
}

#[test]
fn a_backend_may_die_at_every_instruction_of_a_note_in_the_last_written_table() {
    survive("note", notes::NOTE);
}

#[test]
fn a_server_may_die_at_every_instruction_of_the_beginning_and_end_of_its_life() {
    survive("life", servers::LIFE);
}

/// The checks find what is planted.
#[track_caller]
fn must_fail(name: &str, cases: &'static [Case], fault: Fault, words: &str) {
    let why = kill_everywhere(name, cases, fault).expect_err("the planted fault was not found");
    assert!(why.contains(words), "{why}");
}

#[test]
fn a_successor_that_settles_nothing_is_found() {
    must_fail("unsettled", backends::SUBMIT, Fault::Unsettled, "has the leftovers []");
}

#[test]
fn a_byte_written_after_a_cancel_is_found() {
    must_fail("late-byte", backends::CANCEL, Fault::LateByte, "was written after its cancel");
}

#[test]
fn a_mutation_that_is_answered_and_not_run_is_found() {
    must_fail("not-run", backends::SUBMIT, Fault::NotRun, "was applied 0 times");
}

#[test]
fn a_communicator_that_loses_what_it_inherits_is_found() {
    must_fail("disinherited", communicators::TAKE_OVER, Fault::Disinherited, "is not answered");
}

#[test]
fn a_communicator_that_does_not_sweep_is_found() {
    must_fail("unswept", communicators::REAP, Fault::Unswept, "is not answered");
}

#[test]
fn a_communicator_that_does_not_repair_the_ring_is_found() {
    must_fail("unrepaired", repairs::REPAIR, Fault::Unrepaired, "does not come to rest");
}

#[test]
fn a_server_that_does_not_begin_a_life_of_its_own_is_found() {
    must_fail("same-life", servers::LIFE, Fault::SameLife, "Some(Submitted) when its server died, became");
}
