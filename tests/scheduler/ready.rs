//! READY reads: classes, fairness, joining, bounds.

use super::support::*;
use shmuring::lsn::scheduler::{Event, Options, Outcome, Refused, Request};
use shmuring::lsn::shards::Sharding;
use shmuring::request::{Class, Opcode};

fn classes(b: &mut Bed, batches: usize) -> Vec<Class> {
    (0..batches).map(|_| b.next().map(|x| (b.answer(&x), x.class).1).unwrap()).collect()
}

#[test]
fn demand_goes_before_prefetch_before_background() {
    let mut b = Bed::at(100);
    for (id, class) in [Class::Background, Class::Prefetch, Class::Demand].into_iter().enumerate() {
        b.submit(&with_class(read(id as u64, id as u32, 1), class));
    }
    assert_eq!(classes(&mut b, 3), [Class::Demand, Class::Prefetch, Class::Background]);
}

#[test]
fn classes_share_by_weight_and_nobody_starves() {
    let options = Options { weights: [8, 2, 1], batch: 1, ..Options::default() };
    let mut b = Bed::proved(options, 100);
    for id in 0..600 {
        let class = [Class::Demand, Class::Prefetch, Class::Background][id % 3];
        b.submit(&with_class(read(id as u64, id as u32, 1), class));
    }
    let sent = classes(&mut b, 110);
    let count = |c| sent.iter().filter(|x| **x == c).count();
    assert_eq!([count(Class::Demand), count(Class::Prefetch), count(Class::Background)], [80, 20, 10]);
}

#[test]
fn what_is_older_than_its_bound_goes_first() {
    let mut b = Bed::at(100);
    b.submit(&with_class(read(1, 1, 1), Class::Background));
    b.submit(&with_class(read(2, 2, 1), Class::Prefetch));
    b.now += 500 * MS;
    b.submit(&read(3, 3, 1));
    assert_eq!(classes(&mut b, 1), [Class::Prefetch], "100 ms for a prefetch");
    b.now += 600 * MS;
    assert_eq!(classes(&mut b, 2), [Class::Background, Class::Demand], "a second for background");
}

#[test]
fn a_class_that_asks_for_more_than_can_be_served_starves_no_other() {
    const CLASSES: [Class; 3] = [Class::Demand, Class::Prefetch, Class::Background];
    for flood in CLASSES {
        let mut b = Bed::proved(Options { batch: 4, ..Options::default() }, 100);
        let others: Vec<Class> = CLASSES.into_iter().filter(|c| *c != flood).collect();
        let mut id = 0;
        let mut submit = |b: &mut Bed, class, n| {
            for _ in 0..n {
                id += 1;
                b.submit(&with_class(read(id, id as u32, 1), class));
            }
        };
        submit(&mut b, flood, 4000);
        b.now += 2000 * MS;
        for _ in 0..20 {
            others.iter().for_each(|class| submit(&mut b, *class, 1));
            b.now += 2000 * MS;
            let sent = classes(&mut b, 4);
            assert!(others.iter().all(|c| sent.contains(c)), "{sent:?} in a flood of {flood:?}");
        }
    }
}

#[test]
fn reads_of_one_block_join_and_all_are_answered() {
    let mut b = Bed::at(100);
    for id in 0..5 {
        b.submit(&read(id, 7, 50));
    }
    b.submit(&read(5, 7, 20));
    let batch = b.next().unwrap();
    assert_eq!(batch.members.len(), 1);
    b.submit(&read(6, 7, 50));
    b.submit(&read(7, 7, 60));
    let apart = b.next().expect("60 is newer than what was asked for");
    assert_eq!(what(&apart).1, [7]);
    b.told();
    b.answer(&batch);
    assert_eq!(b.answered(), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!((b.s.stats().joined, b.s.stats().apart), (6, 1));
}

#[test]
fn a_reader_never_joins_a_read_that_waits_for_more_wal() {
    let mut b = Bed::at(100);
    b.submit(&with_class(read(1, 7, 1000), Class::Prefetch));
    let stuck = b.next().unwrap();
    b.submit(&read(2, 7, 90));
    b.submit(&read(3, 7, 1000));
    b.submit(&read(4, 7, 800));
    let sent = b.all();
    assert_eq!(sent.iter().map(|x| x.n).collect::<Vec<_>>(), [90, 800], "3 joins, the others are sent apart");
    b.told();
    b.answer(&sent[0]);
    assert_eq!(b.answered(), [2]);
    b.answer(&stuck);
    assert_eq!(b.answered(), [1, 3]);
}

#[test]
fn who_joined_with_less_leaves_a_read_that_becomes_future() {
    let mut b = Bed::at(1000);
    b.submit(&read(1, 7, 1000));
    b.submit(&read(2, 7, 100));
    b.submit(&read(3, 7, 1000));
    b.s.reconnected(0, 1, 200, b.now, &mut b.events);
    let sent = b.all();
    assert_eq!(sent.iter().map(|x| x.n).collect::<Vec<_>>(), [100, 1000]);
    b.told();
    b.answer(&sent[0]);
    assert_eq!(b.answered(), [2], "without the WAL that the others need");
    assert_eq!(b.s.stats().left, 1);
}

#[test]
fn an_answer_without_a_page_serves_no_reader() {
    let mut b = Bed::proved(Options { prefetch_answers: false, ..Options::default() }, 100);
    b.submit(&Request { class: Class::Prefetch, ..Request::new(1, Opcode::Prefetch, rel(1), 7, 50) });
    let near = b.next().unwrap();
    assert!(!near.members[0].fetch);
    b.submit(&read(2, 7, 50));
    assert!(b.next().unwrap().members[0].fetch, "sent apart");
    b.submit(&Request { class: Class::Prefetch, ..Request::new(3, Opcode::Prefetch, rel(1), 8, 50) });
    b.submit(&read(4, 8, 50));
    let both = b.next().unwrap();
    assert!(both.members.len() == 1 && both.members[0].fetch, "what is not sent yet is fetched for both");
}

#[test]
fn blocks_go_to_their_shards() {
    let sharding = Sharding { count: 4, stripe: 8 };
    let mut b = Bed::new(Options { sharding, ..Options::default() }, u64::MAX);
    for block in 0..256 {
        b.submit(&read(u64::from(block), block, 1));
    }
    let mut seen = 0;
    for shard in 0..4 {
        while let Some(batch) = b.s.next(shard, b.now, 32, &mut b.events) {
            assert_eq!(batch.shard, shard);
            for m in &batch.members {
                assert_eq!(usize::from(sharding.block(rel(1), m.request as u32)), shard);
                seen += 1;
            }
            b.answer(&batch);
        }
    }
    assert_eq!(seen, 256);
}

#[test]
fn what_does_not_fit_is_refused_whole() {
    let mut b = Bed::proved(Options { units: 10, ..Options::default() }, 100);
    b.submit(&Request { count: 8, ..read(1, 0, 1) });
    assert_eq!(b.s.submit(&Request { count: 3, ..read(2, 50, 1) }, b.now, &mut b.events), Err(Refused::Full));
    assert_eq!(b.s.len(), 8);
    let batch = b.next().unwrap();
    b.answer(&batch);
    b.submit(&Request { count: 3, ..read(2, 50, 1) });
}

#[test]
fn lanes_bound_the_batches_in_flight() {
    let mut b = Bed::proved(Options { ready_lanes: 3, batch: 1, ..Options::default() }, 100);
    for id in 0..10 {
        b.submit(&read(id, id as u32, 1));
    }
    let out = b.all();
    assert_eq!(out.len(), 3);
    b.answer(&out[1]);
    assert_eq!(b.all().len(), 1);
}

#[test]
fn a_service_that_never_waits_has_ready_reads_only() {
    let mut b = Bed::new(Options::default(), u64::MAX);
    b.submit(&read(1, 1, u64::MAX));
    b.submit(&read(2, 2, 5));
    assert_eq!(b.next().unwrap().members.len(), 2);
    b.pass(3600 * 1000 * MS);
    assert_eq!(b.s.stats().stalls, 0);
}

#[test]
fn sizes_and_segments_join_too() {
    let mut b = Bed::at(100);
    b.submit(&op(1, Opcode::RelSize, 0));
    b.submit(&op(2, Opcode::RelExists, 0));
    b.submit(&op(3, Opcode::ReadSlru, 4));
    b.submit(&op(4, Opcode::DbSize, 0));
    b.submit(&op(5, Opcode::DbSize, 0));
    let batch = b.next().unwrap();
    assert_eq!(what(&batch).1, [1, 3, 4]);
    b.outcome(&batch, Outcome::Answered);
    let told = b.told();
    assert_eq!(told.iter().filter(|e| matches!(e, Event::Answered { .. })).count(), 5);
}
