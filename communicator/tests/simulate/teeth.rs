//! The check of I12 bites: each rule of the scheduler that keeps it is turned off, and violations are found.

use super::properties::random;
use super::support::*;
use shmuring::lsn::scheduler::Rules;
use shmuring_communicator::simulate::policy::shmuring::Shmuring;
use shmuring_communicator::simulate::scenario::{Fault, Scenario, MS, SECOND};
use shmuring_communicator::simulate::world;

/// Violations with all rules, and with some turned off.
fn with_and_without(mut s: Scenario, rules: Rules) -> (usize, usize) {
    let good = violations(&world::run(&s, &mut Shmuring::new(&s)));
    s.options.rules = rules;
    (good, violations(&world::run(&s, &mut Shmuring::new(&s))))
}

fn bites(s: Scenario, rules: Rules) {
    let (with, without) = with_and_without(s, rules);
    assert_eq!(with, 0, "the rule keeps I12");
    assert!(without > 0, "{rules:?}");
}

#[test]
fn ready_and_future_in_one_batch_are_found() {
    bites(random(1), Rules { classify: false, ..Rules::ALL });
}

#[test]
fn two_lsns_in_a_future_batch_are_found() {
    bites(random(1), Rules { one_lsn: false, ..Rules::ALL });
}

#[test]
fn joining_a_read_that_waits_for_more_is_found() {
    let mut s = Scenario::quiet(1, 500);
    s.plans[0].rate = 1;
    s.plans[0].feedback = 0;
    // A reader is held up with the LSN that it has looked up; then the block is written, and prefetched.
    s.changes = vec![wrote(0, 1, 100), wrote(2 * MS, 1, 1000)];
    s.arrivals = vec![read(MS, 0, 1, 1), prefetch(3 * MS, 1, 1, 1)];
    s.arrivals[0].delay = 10 * MS;
    bites(s, Rules { join: false, ..Rules::ALL });
}

#[test]
fn a_watermark_kept_over_a_reconnect_is_found() {
    let mut s = Scenario::quiet(1, 500);
    s.changes = (0..200).map(|i| wrote(0, i, 501 + u64::from(i))).collect();
    s.plans[0].rate = 1;
    s.plans[0].checkpoint = 3600 * SECOND;
    s.plans[0].faults = vec![(SECOND, Fault::Restart(100 * MS))];
    s.arrivals = (0..200).map(|i| read(SECOND / 2 + u64::from(i) * MS, i, i, 1)).collect();
    s.arrivals.extend((0..200).map(|i| read(SECOND + 102 * MS, i, i, 1)));
    bites(s, Rules { lower: false, ..Rules::ALL });
}

#[test]
fn a_lane_held_by_a_higher_lsn_is_found() {
    let mut s = Scenario::quiet(1, 500);
    s.plans[0].rate = 1;
    s.plans[0].feedback = 0;
    s.options.patience = 3600 * SECOND;
    s.options.patience_unheard = 3600 * SECOND;
    s.changes = (0..10).map(|i| wrote(0, i, 1000 - 10 * u64::from(i))).collect();
    s.changes.sort_by_key(|c| c.lsn);
    s.arrivals = (0..10).map(|i| read(MS + u64::from(i) * MS, i, i, 1)).collect();
    bites(s, Rules { lanes: false, ..Rules::ALL });
}

#[test]
fn feedback_taken_for_a_proof_is_found() {
    let mut s = Scenario::quiet(1, 500);
    s.changes = (0..200).map(|i| wrote(0, i, 501 + u64::from(i))).collect();
    s.plans[0].rate = 1;
    s.plans[0].feedback = 10 * MS;
    s.plans[0].checkpoint = 3600 * SECOND;
    // Fed back, then forgotten by a server that nobody saw change.
    s.plans[0].faults = vec![(300 * MS, Fault::Switch)];
    s.arrivals = (0..200).map(|i| read(310 * MS, i, i, 1)).collect();
    s.grace = 0;
    bites(s, Rules { hints: false, ..Rules::ALL });
}
