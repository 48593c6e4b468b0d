//! Relation sizes that backends find in the region without a request (R2).
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

use shmuring::backend::Backend;
use shmuring::communicator::{Communicator, ServerLife};
use shmuring::layout::SET;
use shmuring::lsn::rel_size::{Outcome, Size, Writer};
use shmuring::region::{Options, Region};
use shmuring::request::RelTag;
use shmuring::stats::OwnerCounter;
use shmuring::sync::Ordering::Relaxed;

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

fn region(rel_sizes: u32) -> Region {
    let options = Options { bounce_per_slot: 0, block_size: 512, rel_sizes, ..Options::new(2) };
    Region::create_private(&options).unwrap()
}

fn set(writer: &mut Writer<'_>, rel: RelTag, outcome: Outcome) {
    let change = writer.begin(rel);
    writer.finish(change, outcome);
}

fn blocks(backend: &Backend<'_>, rel: RelTag) -> Option<Option<u32>> {
    backend.cached_rel_size(rel).map(|size| size.blocks)
}

fn numbered(rel_number: u32) -> RelTag {
    RelTag { rel_number, ..REL }
}

#[test]
fn each_change_is_seen_at_once_and_counted() {
    let region = region(64);
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    let backend = Backend::attach(&region, 0, 1).unwrap();
    assert_eq!(blocks(&backend, REL), None);
    for (outcome, now) in [
        (Outcome::Raise(7, 80), None),
        (Outcome::Set(0, 100), Some(Some(0))),
        (Outcome::Raise(1, 110), Some(Some(1))),
        (Outcome::Raise(9, 120), Some(Some(9))),
        (Outcome::Raise(5, 115), Some(Some(9))),
        (Outcome::Lower(3, 130), Some(Some(3))),
        (Outcome::Lower(4, 130), Some(Some(3))),
        (Outcome::Set(4000, 140), Some(Some(4000))),
        (Outcome::Remove(150), Some(None)),
        (Outcome::Raise(2, 155), None),
        (Outcome::Remove(150), Some(None)),
        (Outcome::Set(0, 160), Some(Some(0))),
        (Outcome::Unknown, None),
    ] {
        set(&mut writer, REL, outcome);
        assert_eq!(blocks(&backend, REL), now, "after {outcome:?}");
    }
    // A size that was read is a hit too, but spared nobody a wait.
    let asked = writer.ask(REL);
    writer.fill(asked, Some(12), 170);
    assert_eq!(backend.cached_rel_size(REL), Some(Size { blocks: Some(12), lsn: 170, is_changed: false }));
    let counted = [OwnerCounter::RelSizeHits, OwnerCounter::RelSizeSpared, OwnerCounter::RelSizeMisses];
    assert_eq!(counted.map(|c| backend.counter(c)), [11, 10, 4]);
    assert_eq!(backend.counter(OwnerCounter::Submitted), 0);
}

#[test]
fn a_size_read_before_a_change_is_not_kept_after_it() {
    let region = region(64);
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    let look = || parts.rel_sizes().get(REL, 0).map(|s| s.blocks);
    // Asked before, answered after; asked during, answered after; asked and answered during.
    let before = writer.ask(REL);
    let change = writer.begin(REL);
    let during = writer.ask(REL);
    let answered = writer.ask(REL);
    writer.fill(answered, Some(10), 100);
    assert_eq!(look(), None);
    writer.finish(change, Outcome::Raise(11, 110));
    writer.fill(before, Some(10), 100);
    assert_eq!(look(), None);
    writer.fill(during, Some(10), 100);
    assert_eq!(look(), None);
    let after = writer.ask(REL);
    writer.fill(after, Some(11), 120);
    assert_eq!(look(), Some(Some(11)));
}

#[test]
fn of_several_changes_under_way_the_last_one_to_end_makes_the_size_known() {
    let region = region(64);
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    let look = || parts.rel_sizes().get(REL, 0).map(|s| s.blocks);
    set(&mut writer, REL, Outcome::Set(0, 100));
    let changes = [writer.begin(REL), writer.begin(REL)];
    assert_eq!(look(), None);
    for (change, (to, then)) in changes.into_iter().zip([(2, None), (1, Some(Some(2)))]) {
        writer.finish(change, Outcome::Raise(to, 110));
        assert_eq!(look(), then);
    }
}

#[test]
fn a_full_cache_makes_room_but_never_in_the_middle_of_a_change() {
    let region = region(SET as u32);
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    let known = || (0..100).filter(|n| parts.rel_sizes().get(numbered(*n), 0).is_some()).collect::<Vec<_>>();
    (0..100).for_each(|n| set(&mut writer, numbered(n), Outcome::Set(n, 100)));
    let kept = known();
    assert_eq!(kept.len(), SET, "one set, full: {kept:?}");
    assert!(kept.contains(&99), "the last one");
    let changes: Vec<_> = kept.iter().map(|n| writer.begin(numbered(*n))).collect();
    set(&mut writer, numbered(50), Outcome::Set(7, 100));
    assert_eq!(known(), [0; 0], "nothing gives way in the middle of its change");
    changes.into_iter().for_each(|c| writer.finish(c, Outcome::Raise(1000, 110)));
    assert_eq!(known(), kept);
    assert!(kept.iter().all(|n| parts.rel_sizes().get(numbered(*n), 0).unwrap().blocks == Some(1000)));
}

#[test]
fn what_an_entry_cannot_hold_is_not_kept() {
    let region = region(64);
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    for outcome in [Outcome::Set(u32::MAX, 100), Outcome::Set(7, 1 << 56), Outcome::Remove(u64::MAX)] {
        set(&mut writer, REL, Outcome::Set(1, 100));
        set(&mut writer, REL, outcome);
        assert_eq!(parts.rel_sizes().get(REL, 0), None, "{outcome:?}");
    }
    set(&mut writer, REL, Outcome::Set(u32::MAX - 1, (1 << 56) - 1));
    let largest = Size { blocks: Some(u32::MAX - 1), lsn: (1 << 56) - 1, is_changed: true };
    assert_eq!(parts.rel_sizes().get(REL, 0), Some(largest));
}

#[test]
fn forks_and_databases_do_not_share_a_size() {
    let region = region(1024);
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    let others = [
        RelTag { fork: 1, ..REL },
        RelTag { fork: 255, ..REL },
        RelTag { db_oid: 6, ..REL },
        RelTag { spc_oid: 1664, ..REL },
        RelTag { rel_number: 0, ..REL },
        RelTag::default(),
    ];
    assert!(others.iter().all(|rel| parts.rel_sizes().get(*rel, 0).is_none()), "zeroed bytes are nobody's size");
    for (n, rel) in (0..).zip(others) {
        set(&mut writer, rel, Outcome::Set(n, 100));
    }
    assert_eq!(parts.rel_sizes().get(REL, 0), None);
    for (n, rel) in (0..).zip(others) {
        assert_eq!(parts.rel_sizes().get(rel, 0).unwrap().blocks, Some(n));
    }
}

#[test]
fn a_new_server_life_finds_nothing_of_the_old_one() {
    let region = region(64);
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    set(&mut writer, REL, Outcome::Set(9, 100));
    let old = Backend::attach(&region, 0, 1).unwrap();
    assert_eq!(blocks(&old, REL), Some(Some(9)));
    drop(old);
    let _life = ServerLife::begin(&region, 1).unwrap();
    let new = Backend::attach(&region, 0, 1).unwrap();
    assert_eq!(blocks(&new, REL), None, "not even before the communicator has noticed");
    // A read that was sent for the old life does not count for the new one.
    let other = numbered(7);
    set(&mut writer, other, Outcome::Set(1, 200));
    assert_eq!((blocks(&new, REL), blocks(&new, other)), (None, Some(Some(1))));
}

/// Whatever the bytes are: no panic, no loop, and an answer or none (I10).
#[test]
fn any_bytes_are_an_answer_or_a_miss() {
    let region = region(8);
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..2000 {
        for word in parts.sizes.iter().flat_map(|s| &s.entries).flat_map(|e| [&e.stamp, &e.place, &e.size, &e.lsn]) {
            random = random.rotate_left(17).wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(round);
            word.store(random, Relaxed);
        }
        for n in 0..8 {
            let _ = parts.rel_sizes().get(numbered(n), 0);
        }
        // The writer repairs what it writes.
        set(&mut writer, REL, Outcome::Set(round as u32, 100));
        assert_eq!(parts.rel_sizes().get(REL, 0).unwrap().blocks, Some(round as u32));
    }
}
