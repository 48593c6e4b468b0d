//! The last-written table: two that note, one that asks, and deaths in the middle of a note. An answer is never lower
//! than a note that the asker knows to have ended (I11). One bucket of one entry, so that every second key evicts
//! another.

mod support;

use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;
use shmuring::layout::WrittenBucket;
use shmuring::lsn::written::Written;
use shmuring::parts::Parts;
use std::sync::Arc;
use support::{check_reaching, saw, twin, World, REL, WIDE};

/// A world with a table, and a word that carries the embedder's edges.
struct Noted {
    world: Arc<World>,
    buckets: Vec<WrittenBucket>,
    ended: AtomicU64,
}

impl Noted {
    fn new() -> Arc<Self> {
        let buckets = vec![WrittenBucket::default()];
        Arc::new(Self { world: World::new(1, 2), buckets, ended: AtomicU64::new(0) })
    }

    fn table(&self) -> Written<'_> {
        Parts { written: &self.buckets, ..self.world.parts() }.last_written()
    }
}

/// The asker knows of one note from the start, while another key evicts it. (The one that notes loads and then stores,
/// so it is the main thread: see docs/ordering.md.)
fn evicted_under_the_asker() {
    let noted = Noted::new();
    noted.table().note(REL, 1, 800);
    let shared = noted.clone();
    let asker = thread::spawn(move || {
        let got = shared.table().get(REL, 1);
        assert!(got >= 800, "{got} is lower than the truth");
        let is_evicted = shared.buckets[0].evicted.load(Ordering::Relaxed) != 0;
        saw(if is_evicted { "evicted" } else { "before" });
    });
    noted.table().note(REL, 2, 1600);
    asker.join().unwrap();
    let table = noted.table();
    assert_eq!((table.get(REL, 1), table.get(REL, 2)), (800, 1600), "exact once it is quiet");
}

#[test]
fn lw_1_what_has_left_its_entry_is_found_in_the_maximum() {
    check_reaching(None, &["before", "evicted"], evicted_under_the_asker);
}

#[test]
#[should_panic(expected = "lower than the truth")]
fn lw_1_weakened_misses_what_has_just_been_evicted() {
    twin("LW_1", None, evicted_under_the_asker);
}

/// Two that note, the same key or another, with LSNs in either order; the asker learns when each has ended.
fn two_note(second: u32, lsns: [u64; 2]) {
    let noted = Noted::new();
    noted.table().note(REL, 7, 400);
    let note = move |noted: &Noted, i: usize| {
        noted.table().note(REL, [1, second][i], lsns[i]);
        noted.ended.fetch_or(1 << i, Ordering::Release);
    };
    let shared = noted.clone();
    let other = thread::spawn(move || note(&shared, 1));
    let shared = noted.clone();
    let asker = thread::spawn(move || {
        let ended = shared.ended.load(Ordering::Acquire);
        for (i, block) in [1, second].into_iter().enumerate() {
            if ended & 1 << i != 0 {
                saw("ended");
                let got = shared.table().get(REL, block);
                assert!(got >= lsns[i], "{got} is lower than {}", lsns[i]);
            }
        }
    });
    note(&noted, 0);
    other.join().unwrap();
    asker.join().unwrap();
    let table = noted.table();
    for (block, lsn) in [(1, lsns[0]), (second, lsns[1]), (7, 400)] {
        let got = table.get(REL, block);
        assert!((lsn..=1600).contains(&got), "{got} for {lsn}");
    }
}

#[test]
fn two_that_note_different_keys_do_not_spoil_each_other() {
    check_reaching(WIDE, &["ended"], || two_note(2, [800, 1600]));
    check_reaching(WIDE, &["ended"], || two_note(2, [1600, 800]));
}

#[test]
fn two_that_note_the_same_key_leave_the_larger_lsn() {
    check_reaching(WIDE, &["ended"], || two_note(1, [800, 1600]));
}

/// The only step of a note that another process can see before its last one raises the maximum. A process that dies
/// after it leaves that.
#[test]
fn a_death_in_the_middle_of_a_note_makes_no_answer_lower() {
    check_reaching(WIDE, &["ended"], || {
        let noted = Noted::new();
        noted.table().note(REL, 1, 800);
        let shared = noted.clone();
        let dying = thread::spawn(move || {
            shared.buckets[0].evicted.fetch_max(800, Ordering::Relaxed);
        });
        let shared = noted.clone();
        let asker = thread::spawn(move || {
            if shared.ended.load(Ordering::Acquire) == 1 {
                saw("ended");
                assert!(shared.table().get(REL, 2) >= 1600);
            }
            assert!(shared.table().get(REL, 1) >= 800);
        });
        noted.table().note(REL, 2, 1600);
        noted.ended.store(1, Ordering::Release);
        dying.join().unwrap();
        asker.join().unwrap();
        let table = noted.table();
        assert_eq!((table.get(REL, 1), table.get(REL, 2)), (800, 1600));
    });
}
