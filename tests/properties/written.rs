//! The last-written table against an exact map: never lower than the truth (I11), never higher than what was noted,
//! exact for what was written lately, whatever the bytes were before.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use shmuring::communicator::ServerLife;
use shmuring::lsn::written::CHUNK;
use shmuring::region::{Options, Region};
use shmuring::request::RelTag;
use shmuring::sync::Ordering::Relaxed;

use super::cases;

#[derive(Clone, Copy, Debug)]
enum Step {
    Note { rel: u8, block: u32, lsn: u64 },
    Range { rel: u8, first: u32, count: u32, lsn: u64 },
    Relation { rel: u8, lsn: u64 },
    All { lsn: u64 },
}

const RELS: u8 = 3;
const BLOCKS: u32 = 1000;

fn rel(n: u8) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 5 + u32::from(n / 2), rel_number: 16384, fork: n % 2 }
}

/// Mostly what PostgreSQL has, sometimes anything.
fn lsn() -> impl Strategy<Value = u64> {
    prop_oneof![8 => (1..1000u64).prop_map(|n| 0x0100_0000 + n * 8), 1 => 0..100u64, 1 => any::<u64>()]
}

fn step() -> impl Strategy<Value = Step> {
    let block = || prop_oneof![4 => 0..20u32, 1 => 0..BLOCKS];
    prop_oneof![
        20 => (0..RELS, block(), lsn()).prop_map(|(rel, block, lsn)| Step::Note { rel, block, lsn }),
        3 => (0..RELS, block(), 0..400u32, lsn())
            .prop_map(|(rel, first, count, lsn)| Step::Range { rel, first, count, lsn }),
        2 => (0..RELS, lsn()).prop_map(|(rel, lsn)| Step::Relation { rel, lsn }),
        1 => lsn().prop_map(|lsn| Step::All { lsn }),
    ]
}

/// The truth.
#[derive(Default)]
struct Exact {
    blocks: HashMap<(u8, u32), u64>,
    relations: HashMap<u8, u64>,
    floor: u64,
    newest: u64,
}

impl Exact {
    fn step(&mut self, step: Step) {
        let raise = |to: &mut u64, lsn: u64| *to = lsn.max(*to);
        let lsn = match step {
            Step::Note { rel, block, lsn } => {
                raise(self.blocks.entry((rel, block)).or_default(), lsn);
                lsn
            }
            Step::Range { rel, first, count, lsn } => {
                (first..first + count).for_each(|b| raise(self.blocks.entry((rel, b)).or_default(), lsn));
                lsn
            }
            Step::Relation { rel, lsn } => {
                raise(self.relations.entry(rel).or_default(), lsn);
                lsn
            }
            Step::All { lsn } => {
                raise(&mut self.floor, lsn);
                lsn
            }
        };
        raise(&mut self.newest, lsn.checked_next_multiple_of(8).unwrap_or(lsn));
    }

    fn check(&self, region: &Region) -> Result<(), TestCaseError> {
        let table = region.parts().last_written();
        let fits = |got: u64, truth: u64| {
            prop_assert!(got >= truth.max(self.floor), "{got} is lower than the truth {truth}, floor {}", self.floor);
            prop_assert!(got <= self.newest.max(self.floor), "{got} was never noted");
            Ok(())
        };
        for n in 0..RELS {
            let mut lsns = [0; BLOCKS as usize];
            table.get_range(rel(n), 0, &mut lsns);
            for (block, got) in (0..BLOCKS).zip(lsns) {
                fits(got, self.blocks.get(&(n, block)).copied().unwrap_or(0))?;
            }
            fits(table.get_relation(rel(n)), self.relations.get(&n).copied().unwrap_or(0))?;
            let of_db = self.relations.iter().filter(|(m, _)| *m / 2 == n / 2).map(|(_, lsn)| *lsn).max();
            fits(table.get_database(rel(n).db_oid), of_db.unwrap_or(0))?;
        }
        Ok(())
    }
}

fn note(region: &Region, step: Step) {
    let table = region.parts().last_written();
    match step {
        Step::Note { rel: n, block, lsn } => table.note(rel(n), block, lsn),
        Step::Range { rel: n, first, count, lsn } => table.note_range(rel(n), first, count, lsn),
        Step::Relation { rel: n, lsn } => table.note_relation(rel(n), lsn),
        Step::All { lsn } => table.note_all(lsn),
    }
}

fn region(written_buckets: u32) -> Region {
    let options = Options { bounce_per_slot: 0, block_size: 512, written_buckets, ..Options::new(1) };
    Region::create_private(&options).unwrap()
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn answers_are_never_lower_than_the_truth_nor_higher_than_all_notes(buckets in 0..6u32, steps in vec(step(), 1..80)) {
        let region = region(buckets);
        let mut exact = Exact::default();
        for step in steps {
            exact.step(step);
            note(&region, step);
        }
        exact.check(&region)?;
        // A new life starts anew, even below what was noted (R12).
        let life = ServerLife::begin(&region, 1).unwrap();
        life.reset_written(&region, 77).unwrap();
        Exact { floor: 77, ..Exact::default() }.check(&region)?;
    }

    /// Whatever the bytes were: no panic, and a note is never lost (I10, I11).
    #[test]
    fn a_note_holds_over_any_bytes(words in vec(any::<u64>(), 16), steps in vec(step(), 1..20)) {
        let region = region(2);
        let parts = region.parts();
        for (bucket, words) in parts.written.iter().zip(words.chunks(8)) {
            bucket.evicted.store(words[0], Relaxed);
            bucket.entries.iter().zip(&words[1..]).for_each(|(e, w)| e.store(*w, Relaxed));
        }
        let mut exact = Exact { newest: u64::MAX, ..Exact::default() };
        for step in steps {
            exact.step(step);
            note(&region, step);
        }
        exact.check(&region)?;
    }

    #[test]
    fn blocks_written_lately_are_answered_exactly(first in any::<u32>(), rel_number in any::<u32>()) {
        let region = region(256);
        let table = region.parts().last_written();
        let rel = RelTag { rel_number, ..rel(0) };
        let written: Vec<_> = (0..256u64).map(|n| (first.wrapping_add(n as u32 * 1000), 4096 + n * 8)).collect();
        written.iter().for_each(|(block, lsn)| table.note(rel, *block, *lsn));
        // One in a bucket on average, each in a chunk of its own: eight in one bucket, or two of one tag, are rare.
        let exact = written.iter().filter(|(block, lsn)| table.get(rel, *block) == *lsn).count();
        prop_assert!(exact >= 250, "{exact} of 256");
    }
}

#[test]
fn a_range_counts_for_its_chunks_and_a_long_one_for_everything() {
    let region = region(4096);
    let table = region.parts().last_written();
    table.note_range(rel(0), 10, 8, 800);
    assert_eq!([9, 10, 17, 18].map(|b| table.get(rel(0), b)), [0, 800, 800, 0], "block by block");
    table.note_range(rel(0), 2 * CHUNK + 5, 9, 1600);
    assert_eq!([2 * CHUNK - 1, 2 * CHUNK, 3 * CHUNK - 1, 3 * CHUNK].map(|b| table.get(rel(0), b)), [0, 1600, 1600, 0]);
    table.note_range(rel(0), u32::MAX - 3, 9, 2400);
    assert_eq!((table.get(rel(0), u32::MAX), table.floor()), (2400, 0), "it ends with the last block");
    table.note_range(rel(0), 0, 0, 3200);
    assert_eq!(table.get(rel(0), 0), 0, "of no blocks");
    table.note_range(rel(0), 0, 64 * CHUNK + 1, 4000);
    assert_eq!((table.get(rel(1), 7), table.get_database(1), table.floor()), (4000, 4000, 4000));
}
