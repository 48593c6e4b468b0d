//! R4: what excludes what, in which order, and what a mutation does to reads that wait for WAL.

use super::support::*;
use shmuring::lsn::in_flight::{Key, MutationOrder};
use shmuring::lsn::scheduler::{Event, Kind, Options, Outcome, Request};
use shmuring::lsn::shards::Sharding;
use shmuring::request::{Opcode, RelTag};

const READS: [(Opcode, u32); 4] =
    [(Opcode::GetPage, 3), (Opcode::GetPage, 4), (Opcode::RelSize, 0), (Opcode::DbSize, 0)];
const MUTATIONS: [(Opcode, u32); 8] = [
    (Opcode::WritePage, 3),
    (Opcode::Extend, 3),
    (Opcode::ZeroExtend, 3),
    (Opcode::Create, 0),
    (Opcode::Truncate, 9),
    (Opcode::Unlink, 0),
    (Opcode::UpdateRelSize, 9),
    (Opcode::Sync, 0),
];

fn request(id: u64, (o, block): (Opcode, u32)) -> Request<'static> {
    Request { arg: 1, ..op(id, o, block) }
}

/// Of the matrix, said by hand.
fn excludes(mutation: (Opcode, u32), other: (Opcode, u32)) -> bool {
    let whole = |o| matches!(o, Opcode::Create | Opcode::Truncate | Opcode::Unlink | Opcode::UpdateRelSize);
    let grows = |o| matches!(o, Opcode::Extend | Opcode::ZeroExtend);
    let (a, b) = (mutation.0, other.0);
    if a == Opcode::Sync || b == Opcode::Sync || b == Opcode::DbSize {
        return false;
    }
    let of_block = |o| matches!(o, Opcode::GetPage | Opcode::WritePage) || grows(o);
    whole(a)
        || whole(b)
        || (of_block(a) && of_block(b) && mutation.1 == other.1)
        || (grows(a) && (grows(b) || b == Opcode::RelSize))
}

#[test]
fn the_matrix_of_reads_and_mutations() {
    for order in [MutationOrder::Lane, MutationOrder::Keys] {
        for m in MUTATIONS {
            for r in READS {
                let options = Options { mutation_order: order, ..Options::default() };
                let mut b = Bed::proved(options, 100);
                b.submit(&request(1, m));
                let batch = b.mutations().unwrap();
                b.submit(&request(2, r));
                assert_eq!(b.next().is_none(), excludes(m, r), "{r:?} while {m:?} is in flight");
                b.answer(&batch);
                assert_eq!(b.next().is_some(), excludes(m, r), "{r:?} after {m:?}");

                let mut b = Bed::proved(options, 100);
                b.submit(&request(1, r));
                let batch = b.next().unwrap();
                b.submit(&request(2, m));
                assert_eq!(b.mutations().is_none(), excludes(m, r), "{m:?} while {r:?} is in flight");
                b.answer(&batch);
                assert_eq!(b.mutations().is_some(), excludes(m, r), "{m:?} after {r:?}");
            }
        }
    }
}

#[test]
fn the_matrix_of_mutations_among_each_other() {
    let other = |(o, block): (Opcode, u32)| (o, if o == Opcode::Truncate { block } else { block + 1 });
    for first in MUTATIONS {
        for second in MUTATIONS.into_iter().chain(MUTATIONS.map(other)) {
            let options = Options { mutation_order: MutationOrder::Keys, mutation_batches: 9, ..Options::default() };
            let mut b = Bed::proved(options, 100);
            b.submit(&request(1, first));
            let batch = b.mutations().unwrap();
            b.submit(&request(2, second));
            let waits = b.mutations().is_none();
            assert_eq!(waits, excludes(first, second), "{second:?} while {first:?} is in flight");
            b.answer(&batch);
            assert_eq!(b.mutations().is_some(), waits);
        }
    }
}

#[test]
fn another_relation_is_never_in_the_way() {
    let mut b = Bed::at(100);
    b.submit(&op(1, Opcode::Truncate, 0));
    let _in_flight = b.mutations().unwrap();
    b.submit(&Request::new(2, Opcode::GetPage, rel(2), 0, 1));
    b.submit(&Request::new(3, Opcode::RelSize, rel(2), 0, 1));
    assert_eq!(b.next().unwrap().members.len(), 2);
}

#[test]
fn mutations_keep_the_order_of_their_submits() {
    for order in [MutationOrder::Lane, MutationOrder::Keys] {
        let mut b = Bed::proved(Options { mutation_order: order, ..Options::default() }, 100);
        for id in 0..20 {
            b.submit(&request(id, if id % 3 == 0 { (Opcode::Truncate, 0) } else { (Opcode::Extend, 5) }));
        }
        let mut seen = Vec::new();
        while let Some(batch) = b.mutations() {
            seen.extend(what(&batch).1);
            b.answer(&batch);
        }
        assert_eq!(seen, (0..20).collect::<Vec<_>>(), "{order:?}");
        assert!(b.s.is_empty());
    }
}

#[test]
fn a_group_of_a_lane_may_conflict_in_itself_and_there_is_one_group() {
    let mut b = Bed::at(100);
    for id in 0..5 {
        b.submit(&request(id, (Opcode::WritePage, 3)));
    }
    let group = b.mutations().unwrap();
    assert_eq!(group.members.len(), 5);
    b.submit(&request(9, (Opcode::WritePage, 30)));
    assert!(b.mutations().is_none(), "applied one after the other");
    b.answer(&group);
    assert_eq!(what(&b.mutations().unwrap()), (Kind::Mutations, vec![9]));
}

/// Three shards, stripes of 4 blocks, and mutations that their keys keep in order.
fn spread() -> (Bed, Sharding) {
    let sharding = Sharding { count: 3, stripe: 4 };
    (Bed::new(Options { sharding, mutation_order: MutationOrder::Keys, ..Options::default() }, 0), sharding)
}

#[test]
fn a_shard_that_applies_nothing_holds_up_the_writes_of_no_other() {
    let (mut b, sharding) = spread();
    let on = |shard| (0..64).filter(move |block| sharding.block(rel(1), *block) == shard);
    for (id, block) in (1..).zip(on(2).take(3)) {
        b.submit(&request(id, (Opcode::WritePage, block)));
    }
    let away = b.mutations().unwrap();
    assert_eq!(what(&away).1, [1, 2, 3]);
    // Behind them on their shard, and for several: growth, and a write of two stripes.
    b.submit(&request(4, (Opcode::WritePage, on(2).nth(3).unwrap())));
    b.submit(&request(5, (Opcode::Extend, 1000)));
    let several =
        (0..).find(|block| sharding.block(rel(2), 4 * block) != sharding.block(rel(2), 4 * block + 4)).unwrap();
    let two = Request { count: 2, ..Request::new(6, Opcode::WritePage, rel(2), 4 * several + 3, 1) };
    b.submit(&two);
    b.submit(&op(7, Opcode::Sync, 0));
    assert_eq!(what(&b.mutations().unwrap()).1, [5, 6, 7]);
    for id in 10..20 {
        for shard in [0, 1] {
            b.submit(&request(id, (Opcode::WritePage, on(shard).next().unwrap())));
            let batch = b.mutations().unwrap();
            assert_eq!(what(&batch).1, [id]);
            b.answer(&batch);
        }
    }
    // An init fork is on shard 0 whole, its creation too.
    b.submit(&Request::new(30, Opcode::Create, RelTag { fork: 3, ..rel(1) }, 0, 1));
    assert_eq!(what(&b.mutations().unwrap()).1, [30]);
    assert!(b.mutations().is_none());
    b.one(&away.members[1], Outcome::Failed);
    b.one(&away.members[0], Outcome::Answered);
    b.one(&away.members[2], Outcome::Answered);
    assert_eq!(what(&b.mutations().unwrap()).1, [2, 4], "what failed goes again on its shard");
}

#[test]
fn what_conflicts_keeps_its_order_over_all_shards() {
    let (mut b, sharding) = spread();
    let block = (0..).find(|block| sharding.block(rel(1), *block) == 2).unwrap();
    b.submit(&request(1, (Opcode::WritePage, block)));
    let first = b.mutations().unwrap();
    b.submit(&op(2, Opcode::Truncate, block));
    b.submit(&request(3, (Opcode::WritePage, block)));
    b.submit(&request(4, (Opcode::Extend, block + 100)));
    assert!(b.mutations().is_none());
    b.one(&first.members[0], Outcome::Failed);
    let again = b.mutations().unwrap();
    assert_eq!(what(&again).1, [1]);
    b.answer(&again);
    let truncate = b.mutations().unwrap();
    assert_eq!(what(&truncate).1, [2]);
    assert!(b.mutations().is_none());
    b.answer(&truncate);
    let mut both = [b.mutations().unwrap(), b.mutations().unwrap()].map(|batch| what(&batch).1[0]);
    both.sort_unstable();
    assert_eq!(both, [3, 4]);
}

#[test]
fn failed_mutations_go_again_first_and_in_order() {
    for order in [MutationOrder::Lane, MutationOrder::Keys] {
        let mut b = Bed::proved(Options { mutation_order: order, ..Options::default() }, 100);
        for id in 0..4 {
            b.submit(&request(id, (Opcode::WritePage, id as u32)));
        }
        let group = b.mutations().unwrap();
        b.submit(&request(4, (Opcode::WritePage, 9)));
        b.one(&group.members[0], Outcome::Answered);
        for m in [3, 1, 2] {
            b.one(&group.members[m], Outcome::Failed);
        }
        b.submit(&read(50, 1, 1));
        assert!(b.next().is_none(), "its keys are still taken");
        let again = b.mutations().unwrap();
        assert_eq!(what(&again).1, [1, 2, 3, 4]);
        assert_eq!(again.members[0].attempt, 1);
    }
}

#[test]
fn waiting_for_a_conflicting_request_is_told_with_both_ids_and_the_time() {
    let mut b = Bed::at(100);
    b.submit(&read(11, 3, 50));
    let reading = b.next().unwrap();
    b.submit(&request(22, (Opcode::WritePage, 3)));
    assert_eq!(b.told(), [Event::Blocked { id: 22, by: 11, key: Key::Block(rel(1), 3) }]);
    b.submit(&read(33, 3, 60));
    assert!(b.next().is_none());
    assert_eq!(b.told(), [Event::Blocked { id: 33, by: 22, key: Key::Block(rel(1), 3) }]);
    b.now += 5 * MS;
    b.answer(&reading);
    assert!(b.told().contains(&Event::Unblocked { id: 22, blocked: 5 * MS }));
    let writing = b.mutations().unwrap();
    b.now += 2 * MS;
    b.answer(&writing);
    assert!(b.told().contains(&Event::Unblocked { id: 33, blocked: 7 * MS }));
    let stats = b.s.stats();
    assert_eq!((stats.blocked, stats.blocked_ns), (2, 12 * MS));
    assert_eq!(stats.blocked_histogram.iter().sum::<u64>(), 2);
}

#[test]
fn a_reader_that_waits_is_not_overtaken_for_ever() {
    let mut b = Bed::at(100);
    b.submit(&request(1, (Opcode::WritePage, 3)));
    let first = b.mutations().unwrap();
    b.submit(&read(2, 3, 50));
    assert!(b.next().is_none());
    b.submit(&request(3, (Opcode::WritePage, 3)));
    b.answer(&first);
    assert!(b.mutations().is_none(), "the reader was there before");
    let reading = b.next().unwrap();
    b.answer(&reading);
    assert_eq!(what(&b.mutations().unwrap()).1, [3]);
}

#[test]
fn a_mutation_does_not_wait_for_reads_that_wait_for_wal() {
    for m in [(Opcode::WritePage, 3), (Opcode::Extend, 3), (Opcode::Truncate, 0), (Opcode::Unlink, 0)] {
        let mut b = Bed::at(100);
        b.submit(&read(1, 3, 1000));
        let stuck = b.next().unwrap();
        b.submit(&read(2, 3, 2000));
        b.submit(&request(3, m));
        let writing = b.mutations().expect("not held up by WAL");
        assert_eq!(b.s.stats().superseded, 1);
        b.told();
        assert!(!b.one(&stuck.members[0], Outcome::Answered), "no cache may have it (R13)");
        assert_eq!(b.answered(), [0; 0], "an answer from before the mutation is dropped");
        assert!(b.next().is_none(), "and not asked for while it is in flight");
        b.answer(&writing);
        let again = b.all();
        assert_eq!(again.iter().map(|x| x.n).collect::<Vec<_>>(), [1000, 2000]);
        again.iter().for_each(|x| b.answer(x));
        assert_eq!(b.answered(), [3, 1, 2]);
        assert!(b.s.is_empty());
    }
}

#[test]
fn a_parked_reader_holds_no_keys_when_its_shard_falls_back() {
    let mut b = Bed::at(1000);
    b.submit(&request(1, (Opcode::WritePage, 3)));
    let writing = b.mutations().unwrap();
    b.submit(&read(2, 3, 1000));
    assert!(b.next().is_none());
    b.submit(&request(4, (Opcode::WritePage, 3)));
    b.s.reconnected(0, 1, 10, b.now, &mut b.events);
    b.answer(&writing);
    assert_eq!(what(&b.mutations().expect("the reader gives way")).1, [4]);
}

#[test]
fn keys_are_forgotten() {
    let mut b = Bed::at(100);
    for i in 0..20_000_u32 {
        let r = Request::new(u64::from(i), Opcode::GetPage, rel(i), i, 1);
        b.submit(&r);
        b.submit(&Request::new(u64::from(i) << 32, Opcode::WritePage, rel(i + 1), i, 1));
        let reads = b.next().unwrap();
        b.answer(&reads);
        let writes = b.mutations().unwrap();
        b.answer(&writes);
    }
    assert!(b.s.is_empty() && b.s.keys() < 2000, "{} keys", b.s.keys());
}
