//! The worked cases: what each policy does where it matters. All times in ms. Where a server "is at 500 + t", it ingests a
//! byte a millisecond: a page at 1000 is there after half a second.

use super::support::*;
use shmuring::request::Class;
use shmuring_communicator::simulate::ledger::End;
use shmuring_communicator::simulate::policy::shmuring::Shmuring;
use shmuring_communicator::simulate::scenario::{Arrival, Change, Fault, Plan, Scenario, MS, SECOND};
use shmuring_communicator::simulate::world;

/// One server, which is at 500 + t.
fn slow() -> Scenario {
    let mut s = Scenario::quiet(1, 500);
    s.plans[0].rate = 1;
    s.plans[0].feedback = 0;
    s
}

/// Blocks 0 to 30 are cold (100), 31 is hot (1000), 99 is there in 20 ms (520).
fn one_hot_of_32() -> Vec<Change> {
    let cold = (0..31).map(|block| wrote(0, block, 100));
    cold.chain([wrote(0, 99, 520), wrote(0, 31, 1000)]).collect()
}

#[test]
fn one_hot_page_among_31_cold_ones_holds_up_only_itself() {
    let mut s = slow();
    s.changes = one_hot_of_32();
    // The first one keeps the connection's executor busy, so that the rest is one batch.
    s.arrivals = vec![read(MS, 0, 99, 1), prefetch(2 * MS, 0, 0, 32)];
    s.arrivals[0].class = Class::Prefetch;
    for policy in ["latest_lsn", "neon_libpq", "neon_communicator"] {
        let l = ledger(&s, policy);
        let times = ms(&l, 1);
        assert!(times.iter().all(|t| *t > 490), "{policy}: all 32 wait: {times:?}");
        assert!(violations(&l) >= 31, "{policy}");
    }
    let l = ledger(&s, "shmuring");
    let times = ms(&l, 1);
    assert!(times[..31].iter().all(|t| *t < 5), "answered at once: {times:?}");
    assert!((490..510).contains(&times[31]), "parked: {times:?}");
    assert_eq!(violations(&l), 0);

    // Not one vector: then only the hot page's own stream waits, in the communicator branch.
    s.arrivals = (0..32).map(|block| read(2 * MS, block, block, 1)).collect();
    for policy in ["neon_communicator", "shmuring"] {
        let l = ledger(&s, policy);
        assert!((0..31).all(|r| ms(&l, r)[0] < 5) && ms(&l, 31)[0] > 490, "{policy}");
        assert_eq!(violations(&l), 0, "{policy}");
    }
}

#[test]
fn a_cold_page_of_another_backend_never_waits_for_a_hot_one() {
    let mut s = slow();
    s.changes = vec![wrote(0, 1, 100), wrote(0, 2, 1000)];
    s.arrivals = vec![read(MS, 0, 2, 1), read(2 * MS, 1, 1, 1)];
    for policy in ["neon_libpq", "neon_communicator", "shmuring"] {
        let l = ledger(&s, policy);
        assert!(ms(&l, 1)[0] < 5 && ms(&l, 0)[0] > 490, "{policy}");
    }
    // But for a block that is under a prefetch with a hot one: there the branch waits.
    s.arrivals = vec![prefetch(MS, 0, 1, 2), read(10 * MS, 1, 1, 1)];
    assert!(ms(&ledger(&s, "neon_communicator"), 1)[0] > 450);
    let l = ledger(&s, "shmuring");
    assert!(ms(&l, 1)[0] < 5 && ms(&l, 0)[0] < 5 && ms(&l, 0)[1] > 490);
}

#[test]
fn a_cold_read_behind_a_hot_prefetch_of_its_own_backend_is_free() {
    let mut s = slow();
    s.changes = vec![wrote(0, 1, 100), wrote(0, 2, 1000)];
    s.arrivals = vec![prefetch(MS, 0, 2, 1), read(2 * MS, 0, 1, 1)];
    let l = ledger(&s, "neon_libpq");
    assert!(ms(&l, 1)[0] > 490, "the connection is in order");
    assert_eq!(violations(&l), 1);
    for policy in ["neon_communicator", "shmuring"] {
        let l = ledger(&s, policy);
        assert!(ms(&l, 1)[0] < 5, "{policy}");
        assert_eq!(violations(&l), 0, "{policy}");
    }
}

#[test]
fn the_size_of_an_old_relation_does_not_wait_for_a_hot_write_elsewhere() {
    let mut s = slow();
    s.changes = vec![wrote(0, 1, 1000), wrote(0, 2, 1000)];
    // Block 1 has fallen out of the cache of last-written LSNs, and is the global maximum.
    s.entries = 1;
    s.arrivals = vec![Arrival { rel: rel(7), ..read(2 * MS, 0, 0, 0) }];
    for policy in ["neon_libpq", "neon_communicator"] {
        let l = ledger(&s, policy);
        assert!(ms(&l, 0)[0] > 490 && violations(&l) == 1, "{policy}: asked with the global maximum");
    }
    assert!(ms(&ledger(&s, "shmuring"), 0)[0] < 5);
    s.entries = 1000;
    assert!(ms(&ledger(&s, "neon_libpq"), 0)[0] < 5, "nothing has fallen out yet");
}

#[test]
fn when_l_stands_still_for_70_s_ready_reads_go_on_and_future_ones_wait_as_long_as_they_may() {
    let mut s = Scenario::quiet(1, 500);
    s.plans[0].stalls = vec![(SECOND / 2, 70 * SECOND + SECOND / 2)];
    s.changes = vec![wrote(0, 1, 100), wrote(SECOND, 2, 1000), wrote(SECOND, 3, 1000)];
    s.arrivals = vec![read(SECOND + MS, 0, 2, 1), read(SECOND + MS, 1, 3, 1)];
    s.arrivals[1].deadline = Some(31 * SECOND);
    s.arrivals.extend((2..60).map(|i| read(u64::from(i) * SECOND, i, 1, 1)));

    let libpq = ledger(&s, "neon_libpq");
    assert!(ms(&libpq, 0)[0] > 69_000 && end(&libpq, 0) == Some(End::Answered), "goes on afterwards");
    let branch = ledger(&s, "neon_communicator");
    assert_eq!((end(&branch, 0), ms(&branch, 0)[0]), (Some(End::Failed), 60_000), "EIO");

    let mut ours = Shmuring::new(&s);
    let l = world::run(&s, &mut ours);
    assert!((2..60).all(|r| ms(&l, r)[0] < 5), "READY is unaffected");
    assert!(ms(&l, 0)[0] > 69_000 && end(&l, 0) == Some(End::Answered));
    assert_eq!(end(&l, 1), Some(End::Expired));
    assert!((29_990..30_010).contains(&ms(&l, 1)[0]));
    let stats = ours.scheduler().stats();
    assert_eq!((stats.expired, stats.expired_waiting), (1, 1), "reported as a wait for WAL");
    assert_eq!((stats.failures, violations(&l)), (0, 0));
}

#[test]
fn a_server_that_falls_back_is_tried_by_canaries_not_by_a_storm() {
    let mut s = Scenario::quiet(1, 500);
    s.changes = (0..200).map(|i| wrote(0, i, 501 + u64::from(i))).collect();
    s.plans[0] = Plan { rate: 1, checkpoint: 3600 * SECOND, feedback: 20 * MS, ..Plan::new(500) };
    s.plans[0].faults = vec![(SECOND, Fault::Restart(100 * MS))];
    // All that is read has been ingested, and is again between 0 and 200 ms after the restart.
    s.arrivals = (0..200).map(|i| read(SECOND / 2 + u64::from(i) * MS, i, i, 1)).collect();
    s.arrivals.extend((0..200).map(|i| read(SECOND + 102 * MS, i, i, 1)));
    let peak = |policy| {
        let l = ledger(&s, policy);
        assert!(l.blocks()[..200].iter().all(|b| b.latency().unwrap() < 5 * MS && b.ready), "{policy}: before");
        (l.waiting_peak, violations(&l))
    };
    assert!(peak("neon_libpq").0 > 150 && peak("neon_communicator").0 > 150, "all of them ask");
    let lanes = s.options.late_lanes + 1;
    let (ours, violations) = peak("shmuring");
    assert!(ours <= lanes && violations == 0, "{ours} waited at a time");
    // With all patience: the canaries and the probe.
    s.options.patience = 3600 * SECOND;
    s.options.patience_unheard = 3600 * SECOND;
    let l = ledger(&s, "shmuring");
    assert!(l.waiting_peak <= s.options.future_lanes + 1, "{}", l.waiting_peak);
    assert_eq!((l.open(), self::violations(&l)), (0, 0));
}

/// A read that waits, a WAL that goes on, and garbage collection that passes what the read was sent as of.
fn garbage_collected() -> Scenario {
    let mut s = Scenario::quiet(1, 500);
    s.plans[0].stalls = vec![(0, 15 * SECOND)];
    s.changes = vec![wrote(0, 1, 900), wrote(5 * SECOND, 2, 5000)];
    s.cutoffs = vec![(10 * SECOND, 2000)];
    s.arrivals = vec![read(SECOND, 0, 1, 1)];
    s
}

#[test]
fn on_a_primary_garbage_collection_never_passes_a_read_that_waits() {
    let s = garbage_collected();
    assert_eq!(end(&ledger(&s, "neon_libpq"), 0), Some(End::Answered));
    assert_eq!(end(&ledger(&s, "neon_communicator"), 0), Some(End::Failed), "r is what it was, in the second attempt");
    assert_eq!(end(&ledger(&s, "shmuring"), 0), Some(End::Answered));
}

#[test]
fn on_a_replica_the_request_lsn_is_asked_anew_at_each_send() {
    let mut s = garbage_collected();
    s.replica = true;
    s.plans[0].faults = vec![(11 * SECOND, Fault::Disconnect)];
    assert_eq!(end(&ledger(&s, "neon_libpq"), 0), Some(End::Failed), "fixed when it came");
    assert_eq!(end(&ledger(&s, "neon_communicator"), 0), Some(End::Failed), "frozen over retries");
    assert_eq!(end(&ledger(&s, "shmuring"), 0), Some(End::Answered));
}

#[test]
fn what_is_ahead_of_the_flushed_wal_is_flushed_before_it_is_asked_for() {
    let mut s = Scenario::quiet(1, 500);
    s.flush_delay = 200 * MS;
    s.changes = vec![wrote(10 * MS, 1, 900)];
    s.arrivals = vec![read(20 * MS, 0, 1, 1)];
    assert!(ms(&ledger(&s, "neon_libpq"), 0)[0] < 5);
    assert!(ms(&ledger(&s, "neon_communicator"), 0)[0] > 150, "waits for the WAL writer to come by");
    assert!(ms(&ledger(&s, "shmuring"), 0)[0] < 5);
}
