//! The writer of relation sizes where memory ends: it forgets, and never answers what it cannot know (R2).
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

#[path = "support/scarce.rs"]
mod scarce;

use scarce::{without, Scarce};
use shmuring::communicator::Communicator;
use shmuring::lsn::rel_size::Outcome;
use shmuring::region::{Options, Region};
use shmuring::request::RelTag;

#[global_allocator]
static MEMORY: Scarce = Scarce;

fn numbered(rel_number: u32) -> RelTag {
    RelTag { spc_oid: 1663, db_oid: 5, rel_number, fork: 0 }
}

fn region() -> Region {
    let options = Options { bounce_per_slot: 0, block_size: 512, rel_sizes: 64, ..Options::new(1) };
    Region::create_private(&options).unwrap()
}

#[test]
fn a_writer_that_there_is_no_memory_for_is_not_given_out_and_can_be_asked_for_again() {
    let region = region();
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    assert!(without(|| role.rel_size_writer()).is_none());
    assert!(role.rel_size_writer().is_some());
    assert!(role.rel_size_writer().is_none(), "a second one");
}

#[test]
fn without_memory_for_what_is_under_way_every_size_is_forgotten_and_none_is_kept_again() {
    let region = region();
    let parts = region.parts();
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    let known = |n| parts.rel_sizes().get(numbered(n), 0).is_some();
    for n in 0..8 {
        let change = writer.begin(numbered(n));
        writer.finish(change, Outcome::Set(n, 100));
    }
    assert!((0..8).any(known));
    let before = writer.ask(numbered(3));
    let first = writer.begin(numbered(1));
    // The room that there is fills up; the change that finds none is not told of.
    let changes: Vec<_> = {
        let mut changes = Vec::with_capacity(1000);
        without(|| (100..1100).for_each(|n| changes.push(writer.begin(numbered(n)))));
        changes
    };
    assert!(!(0..8).any(known), "a size while it is not known what is changed");
    writer.finish(first, Outcome::Set(1, 110));
    writer.fill(before, Some(3), 110);
    changes.into_iter().for_each(|change| writer.finish(change, Outcome::Set(1, 120)));
    let late = writer.begin(numbered(2));
    writer.finish(late, Outcome::Set(2, 130));
    let asked = writer.ask(numbered(4));
    writer.fill(asked, Some(4), 130);
    assert!(!(0..1100).any(known), "a size that a change nobody told of may have made wrong");
    assert!(writer.known(numbered(2)).is_none());
    drop(writer);
    drop(role);
    // A successor begins anew.
    let (mut role, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut writer = role.rel_size_writer().unwrap();
    let change = writer.begin(numbered(1));
    writer.finish(change, Outcome::Set(1, 140));
    assert!(known(1));
}
