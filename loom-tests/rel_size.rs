//! Relation sizes: a backend that looks against a communicator that changes them, dies in the middle, has a successor,
//! or learns of a new server life. A torn entry is a miss, and no answer is smaller than a completed change made it
//! (R2).

mod support;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use shmuring::layout::SizeSet;
use shmuring::lsn::rel_size::{Outcome, Size, Writer};
use shmuring::parts::Parts;
use shmuring::request::RelTag;
use std::sync::Arc;
use support::{check_reaching, communicator, saw, twin, World, REL, WIDE};

/// Forks that come into the same entry, since there is one, each told apart by another word of it: the visibility map of
/// the same relation, and a relation of the same number in another database.
const OTHERS: [RelTag; 2] = [RelTag { fork: 2, ..REL }, RelTag { db_oid: REL.db_oid + 1, ..REL }];

struct Kept {
    world: Arc<World>,
    sets: Vec<SizeSet>,
    /// Says that a change was completed, as the slot word does.
    completed: AtomicU64,
}

impl Kept {
    fn new() -> Arc<Self> {
        Arc::new(Self { world: World::new(1, 2), sets: vec![SizeSet::default()], completed: AtomicU64::new(0) })
    }

    fn parts(&self) -> Parts<'_> {
        Parts { sizes: &self.sets, ..self.world.parts() }
    }

    /// What a backend of life `life` finds, as blocks and LSN.
    fn look(&self, rel: RelTag, life: u32) -> Option<(u32, u64)> {
        let Size { blocks, lsn, .. } = self.parts().rel_sizes().get(rel, life)?;
        Some((blocks.unwrap(), lsn))
    }
}

/// A term of the communicator's role, as far as relation sizes go: the first, or a successor's.
fn serve(kept: &Kept, f: impl FnOnce(Writer<'_>)) {
    let parts = kept.parts();
    let (mut c, _) = communicator(&parts);
    f(c.rel_size_writer().unwrap());
    assert!(c.rel_size_writer().is_none(), "a second writer");
}

fn set(writer: &mut Writer<'_>, rel: RelTag, outcome: Outcome) {
    let change = writer.begin(rel);
    writer.finish(change, outcome);
}

/// A backend looks at a fork that grows from 10 to 11 blocks.
fn looks_while_it_grows(kept: &Kept) {
    let completed = kept.completed.load(Ordering::Acquire) == 1;
    match kept.look(REL, 0) {
        None => saw("miss"),
        Some((10, 100)) => {
            saw("before");
            assert!(!completed, "too small");
        }
        Some((11, 200)) => saw("after"),
        Some(torn) => panic!("a torn entry: {torn:?}"),
    }
}

/// A fork grows from 10 to 11 blocks while a backend looks.
fn grows() {
    let kept = Kept::new();
    let shared = kept.clone();
    let serving = thread::spawn(move || {
        serve(&shared, |mut writer| {
            set(&mut writer, REL, Outcome::Set(10, 100));
            set(&mut writer, REL, Outcome::Raise(11, 200));
            shared.completed.store(1, Ordering::Release);
        });
    });
    looks_while_it_grows(&kept);
    serving.join().unwrap();
    assert_eq!(kept.look(REL, 0), Some((11, 200)));
}

#[test]
fn rs_1_rs_2_an_entry_is_whole_or_a_miss() {
    check_reaching(WIDE, &["miss", "before", "after"], grows);
}

#[test]
#[should_panic(expected = "a torn entry")]
fn rs_1_weakened_believes_a_stamp_before_its_words_are_there() {
    twin("RS_1", WIDE, grows);
}

#[test]
#[should_panic(expected = "a torn entry")]
fn rs_2_weakened_takes_new_words_under_the_old_stamp() {
    twin("RS_2", WIDE, grows);
}

/// Another fork takes the entry.
fn changes_hands(other: RelTag) {
    let kept = Kept::new();
    let shared = kept.clone();
    let serving = thread::spawn(move || {
        serve(&shared, |mut writer| {
            set(&mut writer, REL, Outcome::Set(10, 100));
            set(&mut writer, other, Outcome::Set(3, 200));
        });
    });
    if let Some(found) = kept.look(REL, 0) {
        saw("first");
        assert_eq!(found, (10, 100));
    }
    if let Some(found) = kept.look(other, 0) {
        saw("other");
        assert_eq!(found, (3, 200));
    }
    serving.join().unwrap();
    assert_eq!((kept.look(REL, 0), kept.look(other, 0)), (None, Some((3, 200))));
}

#[test]
fn an_entry_that_changes_hands_is_nobody_else_s_size() {
    for other in OTHERS {
        check_reaching(WIDE, &["first", "other"], move || changes_hands(other));
    }
}

/// The communicator dies with a change under way, whose I/O is done; its successor answers it anew.
#[test]
fn a_death_in_the_middle_of_a_change_leaves_no_size_that_is_too_small() {
    check_reaching(WIDE, &["miss", "before", "after"], || {
        let kept = Kept::new();
        let shared = kept.clone();
        let serving = thread::spawn(move || {
            serve(&shared, |mut writer| {
                set(&mut writer, REL, Outcome::Set(10, 100));
                // It dies here, at the latest.
                let _ = writer.begin(REL);
            });
            serve(&shared, |mut writer| {
                let change = writer.begin(REL);
                writer.finish(change, Outcome::Raise(11, 200));
                shared.completed.store(1, Ordering::Release);
                // What it did not know it learns from the page service.
                let asked = writer.ask(REL);
                writer.fill(asked, Some(11), 200);
            });
        });
        looks_while_it_grows(&kept);
        serving.join().unwrap();
        assert_eq!(kept.look(REL, 0), Some((11, 200)));
    });
}

/// A new server life begins; a backend of it looks while the communicator learns of it.
fn new_life() {
    let kept = Kept::new();
    let shared = kept.clone();
    let serving = thread::spawn(move || {
        serve(&shared, |mut writer| {
            set(&mut writer, REL, Outcome::Set(10, 100));
            shared.parts().header.life.life.store(1, Ordering::Relaxed);
            let asked = writer.ask(OTHERS[0]);
            writer.fill(asked, Some(3), 200);
        });
    });
    assert_eq!(kept.look(REL, 1), None, "a size of an older life");
    if kept.look(OTHERS[0], 1).is_some() {
        saw("the new life");
    }
    serving.join().unwrap();
    assert_eq!((kept.look(REL, 1), kept.look(OTHERS[0], 1)), (None, Some((3, 200))));
}

#[test]
fn rs_3_a_backend_of_a_new_life_finds_no_older_size() {
    check_reaching(WIDE, &["the new life"], new_life);
}

#[test]
#[should_panic(expected = "a size of an older life")]
fn rs_3_weakened_finds_a_size_of_an_older_life() {
    twin("RS_3", WIDE, new_life);
}
