//! Reads that would make a server wait: canaries, lanes, probes, promotion.

use super::support::*;
use shmuring::lsn::scheduler::{Event, Kind, Options, Outcome, ReadPoint, Request};
use shmuring::request::{Class, Opcode};

#[test]
fn ready_and_future_never_share_a_batch() {
    let mut b = Bed::at(100);
    for id in 0..10 {
        b.submit(&read(id, id as u32, if id % 2 == 0 { 100 } else { 1000 }));
    }
    let batches = b.all();
    assert_eq!(what(&batches[0]), (Kind::Ready, vec![0, 2, 4, 6, 8]));
    assert_eq!(what(&batches[1]), (Kind::Future, vec![1, 3, 5, 7, 9]));
    assert_eq!(batches.len(), 2);
}

#[test]
fn a_vector_is_split_by_block() {
    let mut b = Bed::at(100);
    let lsns = [50, 1000, 60, 2000];
    b.submit(&Request { count: 4, block_lsns: &lsns, ..read(7, 0, 0) });
    let batches = b.all();
    let n: Vec<Vec<u64>> = batches.iter().map(|x| x.members.iter().map(|m| m.n).collect()).collect();
    assert_eq!(n, [vec![50, 60], vec![1000], vec![2000]]);
    for batch in &batches {
        b.answer(batch);
    }
    let mut parts: Vec<u8> =
        b.told().iter().filter_map(|e| if let Event::Answered { part, .. } = e { Some(*part) } else { None }).collect();
    parts.sort_unstable();
    assert_eq!(parts, [0, 1, 2, 3]);
    assert!(b.s.is_empty());
}

#[test]
fn blocks_found_in_a_cache_are_left_out() {
    let mut b = Bed::at(100);
    b.submit(&Request { count: 4, wanted: 0b1010, ..read(7, 0, 1) });
    assert_eq!(b.next().unwrap().members.len(), 2);
}

#[test]
fn the_lowest_lsn_goes_first_and_the_rest_is_promoted_when_it_is_proved() {
    let mut b = Bed::at(100);
    for n in [900, 500, 700, 700, 800] {
        b.submit(&read(n, n as u32 + b.s.len() as u32, n));
    }
    let canaries = b.all();
    assert_eq!(canaries.iter().map(|c| c.n).collect::<Vec<_>>(), [500, 700], "two lanes, ascending");
    assert_eq!(canaries[1].members.len(), 2, "one LSN a batch");
    b.answer(&canaries[1]);
    assert_eq!(b.mark().proved(), 700);
    assert_eq!(b.all()[0].n, 800);
    b.answer(&canaries[0]);
    b.s.raise(0, 10_000, b.now);
    assert_eq!(b.all().iter().map(|c| (c.kind, c.n)).collect::<Vec<_>>(), [(Kind::Future, 900)]);
}

#[test]
fn a_proof_makes_everything_below_it_ready_at_once() {
    let mut b = Bed::at(100);
    for n in 0..50 {
        b.submit(&read(n, n as u32, 200 + n));
    }
    let canaries = b.all();
    assert!(canaries.iter().all(|c| c.kind == Kind::Future) && canaries.len() == 2);
    b.submit(&read(99, 99, 1000));
    b.s.raise(0, 1000, b.now);
    let probe = b.all().into_iter().find(|c| c.n == 1000).expect("a probe of the highest hinted LSN");
    b.answer(&probe);
    let ready: usize = b.all().iter().filter(|x| x.kind == Kind::Ready).map(|x| x.members.len()).sum();
    let hinted = b.s.stats().sent[1] as usize;
    assert_eq!(ready + hinted, 52, "all but what went ahead of the proof, and the canary of the bed");
    assert_eq!(b.s.stats().promoted as usize, ready);
}

#[test]
fn feedback_hints_and_proves_nothing() {
    let mut b = Bed::at(100);
    b.s.raise(0, 500, b.now);
    b.submit(&read(1, 1, 300));
    b.submit(&read(2, 2, 400));
    let batches = b.all();
    assert!(batches.iter().all(|x| x.kind == Kind::Future && x.members.len() == 1), "{batches:?}");
    assert_eq!(batches[0].n, 400, "the probe first: its answer makes the other READY");
}

#[test]
fn a_lower_lsn_never_waits_for_a_lane_that_a_higher_one_has() {
    let options = Options { late_lanes: 4, ..Options::default() };
    let mut b = Bed::proved(options, 100);
    for n in (1000..1008).rev() {
        b.submit(&read(n, n as u32, n));
        let sent = b.all();
        assert_eq!(sent.iter().map(|c| c.n).collect::<Vec<_>>(), [n], "each is lower than all before");
    }
    assert_eq!(b.recalled().len(), 4, "those of the highest LSNs made room");
    assert_eq!(b.s.depths(0, b.now).in_flight[1], 4);
    assert_eq!(b.s.depths(0, b.now).parked, 4, "and are parked again");
    assert_eq!(b.s.depths(0, b.now).lag, 907);
}

#[test]
fn a_lagging_watermark_starves_nobody() {
    let mut b = Bed::at(100);
    for n in [500, 600, 700, 800] {
        b.submit(&read(n, n as u32, n));
    }
    assert_eq!(b.all().len(), 2);
    b.pass(99 * MS);
    assert!(b.next().is_none());
    b.pass(2 * MS);
    let late = b.all();
    assert_eq!(late.iter().map(|c| (c.n, c.members.len())).collect::<Vec<_>>(), [(700, 1), (800, 1)]);
}

#[test]
fn before_anything_was_heard_the_redo_lsn_is_tried_at_once_and_the_rest_soon() {
    let mut b = Bed::new(Options::default(), 1000);
    for n in [900, 1000, 2000, 2001, 2002] {
        b.submit(&read(n, n as u32, n));
    }
    let n: Vec<u64> = b.all().iter().map(|c| c.n).collect();
    assert_eq!(n, [1000, 900, 2000], "the probe, the lowest, and one canary beyond the floor");
    b.pass(11 * MS);
    assert_eq!(b.all().iter().map(|c| c.n).collect::<Vec<_>>(), [2001, 2002]);
}

#[test]
fn slack_trades_the_bound_for_larger_batches() {
    let mut b = Bed::proved(Options { slack: 100, ..Options::default() }, 100);
    for n in [500, 600, 601] {
        b.submit(&read(n, n as u32, n));
    }
    assert_eq!(b.all().iter().map(|c| what(c).1).collect::<Vec<_>>(), [vec![500, 600], vec![601]]);
}

#[test]
fn prefetch_is_parked_behind_demand_of_the_same_lsn_and_upgraded_by_it() {
    let mut b = Bed::at(100);
    for block in 0..40 {
        b.submit(&with_class(read(u64::from(block), block, 500), Class::Prefetch));
    }
    b.submit(&read(100, 39, 500));
    let first = b.next().unwrap();
    assert_eq!(first.members[0].request, 39, "the prefetch that a reader met");
    assert_eq!(b.s.stats().upgraded, 1);
    b.answer(&first);
    assert!(b.answered().contains(&100));
}

#[test]
fn a_replica_reads_as_of_its_replay_lsn_at_the_send() {
    let mut b = Bed::at(100);
    b.s.set_read_point(ReadPoint::Replica(400));
    b.submit(&read(1, 1, 50));
    b.submit(&read(2, 2, 900));
    b.s.set_read_point(ReadPoint::Replica(450));
    let batches = b.all();
    assert_eq!(batches.iter().map(|x| x.members[0].r).collect::<Vec<_>>(), [450, 900], "never below n");
    assert_eq!(b.s.min_read_point(), Some(450));
    b.one(&batches[0].members[0], Outcome::Lost);
    assert_eq!(b.s.min_read_point(), Some(900));
    b.s.set_read_point(ReadPoint::Replica(470));
    b.pass(10 * MS);
    let again = b.next().unwrap();
    assert_eq!((again.members[0].r, again.members[0].n, again.members[0].attempt), (470, 50, 1));
    b.answer(&again);
    b.answer(&batches[1]);
    assert_eq!(b.s.min_read_point(), None);
}

#[test]
fn a_primary_reads_the_latest_and_time_travel_reads_what_it_asks_for() {
    let mut b = Bed::at(100);
    b.submit(&read(1, 1, 50));
    b.submit(&Request { at: Some(70), ..Request::new(2, Opcode::GetPageAt, rel(1), 1, 50) });
    let batch = b.next().unwrap();
    assert_eq!(batch.members.iter().map(|m| m.r).collect::<Vec<_>>(), [u64::MAX, 70], "not joined");
}

#[test]
fn what_is_not_flushed_is_refused() {
    let mut b = Bed::at(100);
    b.s.set_flushed(500);
    let refused = b.s.submit(&read(1, 1, 501), b.now, &mut b.events);
    assert_eq!(refused, Err(shmuring::lsn::scheduler::Refused::NotFlushed { n: 501, flushed: 500 }));
    b.submit(&read(1, 1, 500));
}

#[test]
fn every_image_of_a_write_must_be_flushed_and_every_block_of_a_read_that_is_wanted() {
    let mut b = Bed::at(100);
    b.s.set_flushed(500);
    let lsns = [100, 501, 200];
    let write = Request { count: 3, block_lsns: &lsns, ..op(1, Opcode::WritePage, 0) };
    let refused = shmuring::lsn::scheduler::Refused::NotFlushed { n: 501, flushed: 500 };
    assert_eq!(b.s.submit(&write, b.now, &mut b.events), Err(refused));
    let reading = Request { count: 3, block_lsns: &lsns, ..read(2, 0, 0) };
    assert_eq!(b.s.submit(&reading, b.now, &mut b.events), Err(refused));
    b.submit(&Request { wanted: 0b101, ..reading });
    b.s.set_flushed(501);
    b.submit(&write);
}
