//! The checker must find each kind of fault, and nothing in a log without one. Each test writes the logs of a small run
//! as backends would, with one fault planted.

use super::super::log::{cancel, fate, Kind, Record, Writer};
use super::super::mix::own;
use super::super::session::PATIENCE_MS;
use super::{Past, Round, Summary};
use crate::cli::content;
use shmuring::request::Opcode;
use shmuring::slot::State;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

const MS: u64 = 1_000_000;
/// When the run begins, and the first version that is written.
const BEGIN: u64 = 1 << 40;

/// The log of one post, with a clock of its own.
struct Book {
    log: Writer,
    path: std::path::PathBuf,
    now: u64,
    id: u32,
    generation: u32,
}

impl Book {
    /// A process that has begun and has not looked around yet.
    fn begin(dir: &Path, name: &str, incarnation: u32, now: u64) -> Self {
        let path = dir.join(name);
        let log = Writer::open(&path, incarnation).unwrap();
        let mut book = Self { log, path, now, id: 0, generation: incarnation * 1000 };
        book.put(Record::new(Kind::Start));
        book
    }

    fn open(dir: &Path, name: &str, incarnation: u32, now: u64) -> Self {
        let mut book = Self::begin(dir, name, incarnation, now);
        book.put(Record::new(Kind::Looked));
        book.put(Record::new(Kind::Settled));
        book
    }

    /// A millisecond later.
    fn put(&mut self, r: Record) {
        self.now += MS;
        self.log.put(Record { time: self.now, ..r });
    }

    /// A request of relation 1000, in slot 3, each in a generation of its own.
    fn ask(&mut self, opcode: Opcode, block: u32, version: u64) -> Record {
        self.id += 1;
        self.generation += 1;
        let page = content::page(own(0), block, version.max(1));
        let b = if opcode.takes_images() { xxh3_64(&page) } else { 0 };
        let asked = Record {
            opcode: opcode as u8,
            count: u8::from(opcode.has_buffers()),
            id: self.id,
            slot: 3,
            generation: self.generation,
            rel: own(0),
            block,
            code: PATIENCE_MS,
            a: version,
            b,
            ..Record::new(Kind::Asked)
        };
        self.put(asked);
        self.put(Record { id: self.id, ..Record::new(Kind::Submitted) });
        asked
    }

    fn got(&mut self, asked: &Record, value: u64) {
        let Record { id, slot, generation, .. } = *asked;
        self.put(Record { id, slot, generation, a: value, ..Record::new(Kind::Got) });
    }

    fn page(&mut self, asked: &Record, version: u64) {
        let bytes = content::page(asked.rel, asked.block, version);
        self.put(Record {
            id: asked.id,
            block: asked.block,
            a: version,
            b: xxh3_64(&bytes),
            ..Record::new(Kind::Page)
        });
    }

    fn finished(&mut self, asked: &Record, value: u64) {
        self.put(Record { id: asked.id, a: value, ..Record::new(Kind::Finished) });
    }

    fn extend(&mut self, block: u32, version: u64) {
        let asked = self.ask(Opcode::Extend, block, version);
        self.got(&asked, u64::from(block) + 1);
        self.finished(&asked, u64::from(block) + 1);
    }

    fn write(&mut self, block: u32, version: u64) {
        let asked = self.ask(Opcode::WritePage, block, version);
        self.got(&asked, 1);
        self.finished(&asked, 1);
    }

    fn read(&mut self, block: u32, version: u64) {
        let asked = self.ask(Opcode::GetPage, block, 0);
        self.got(&asked, 1);
        self.page(&asked, version);
        self.finished(&asked, 1);
    }

    fn size(&mut self, blocks: u64) {
        let asked = self.ask(Opcode::RelSize, 0, 0);
        self.got(&asked, blocks);
        self.finished(&asked, blocks);
    }

    /// A cancelled read, its canary, and what was found of it later.
    fn cancel(&mut self, canary: u64, found: u64) -> Record {
        let asked = self.ask(Opcode::GetPage, 0, 0);
        let id = asked.id;
        self.put(Record { id, ..Record::new(Kind::CancelAsked) });
        self.put(Record { id, code: cancel::WITHDRAWN, a: 5, ..Record::new(Kind::CancelReturned) });
        self.put(Record { id, a: 5, ..Record::new(Kind::SlotBack) });
        self.put(Record { id, block: 24, a: canary, ..Record::new(Kind::Canary) });
        self.put(Record { id, block: 24, a: found, ..Record::new(Kind::CanaryRead) });
        asked
    }

    /// A clean end; gives the time.
    fn end(mut self) -> u64 {
        self.put(Record::new(Kind::End));
        self.log.flush().unwrap();
        self.now
    }

    /// What was written so far stays; the process does not.
    fn die(mut self) -> u64 {
        self.log.flush().unwrap();
        self.now
    }
}

const V1: u64 = BEGIN + 1;
const V2: u64 = BEGIN + 2;
const V3: u64 = BEGIN + 3;

/// What the store has in the end: block 0 at V3, and V1 and V2 before it.
fn store(dir: &Path, now: u64, versions: &[u64]) {
    let mut book = Book::open(dir, "store", 0, now);
    book.size(1);
    book.read(0, *versions.last().unwrap());
    for version in versions {
        let asked = book.ask(Opcode::GetPageAt, 0, *version);
        book.got(&asked, 1);
        book.page(&asked, *version);
        book.finished(&asked, 1);
    }
    book.end();
}

fn verdict(dir: &Path) -> Result<Summary, String> {
    let round = Round::load(dir, &Past::default()).unwrap();
    round.judge().map(|(summary, _)| summary).map_err(|e| e.to_string())
}

/// A run: `play` has the log of a backend after two writes of block 0 that were read back, and plants its fault; it
/// gives the time at the end. Then V3 is written, and the store has all three.
fn run(play: impl FnOnce(Book, &Path) -> Book) -> Result<Summary, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut book = Book::open(dir.path(), "backend-0", 0, BEGIN);
    book.extend(0, V1);
    book.read(0, V1);
    book.write(0, V2);
    book.read(0, V2);
    let mut book = play(book, dir.path());
    book.write(0, V3);
    book.read(0, V3);
    let now = book.end();
    store(dir.path(), now, &[V1, V2, V3]);
    verdict(dir.path())
}

#[track_caller]
fn finds(result: Result<Summary, String>, words: &[&str]) {
    let said = result.expect_err("the fault was not found");
    assert!(words.iter().all(|w| said.contains(w)), "{said}");
}

/// The process is killed; its successor finds this in the slot of the request, and what `play` says follows.
fn killed(book: Book, dir: &Path, asked: &Record, state: Option<State>, play: impl FnOnce(&mut Book)) -> Book {
    let now = book.die();
    let mut next = Book::begin(dir, "backend-0", 1, now);
    if let Some(state) = state {
        let found = Record { code: state as u32, ..Record::new(Kind::Found) };
        next.put(Record { slot: asked.slot, generation: asked.generation, ..found });
    }
    next.put(Record::new(Kind::Looked));
    play(&mut next);
    next.put(Record::new(Kind::Settled));
    next
}

fn left(asked: &Record, fate: u32, errno: u32, value: u64) -> Record {
    let code = fate << 16 | errno;
    Record { kind: Kind::Leftover, code, a: value, b: asked.a, ..*asked }
}

#[test]
fn a_log_without_a_fault_has_none() {
    let summary = run(|mut book, _| {
        book.cancel(9, 9);
        book
    });
    let summary = summary.unwrap();
    assert_eq!((summary.writes, summary.read_back, summary.canaries, summary.cancelled), (3, 3, 1, 1));
}

#[test]
fn a_doubled_answer_is_found() {
    let twice = run(|mut book, _| {
        let asked = book.ask(Opcode::Nop, 0, 0);
        book.got(&asked, 0);
        book.got(&asked, 0);
        book.finished(&asked, 0);
        book
    });
    finds(twice, &["(c)", "Got twice"]);
    let after_its_cancel = run(|mut book, _| {
        let asked = book.cancel(9, 9);
        book.got(&asked, 1);
        book
    });
    finds(after_its_cancel, &["(c)"]);
    let again_as_a_leftover = run(|mut book, dir| {
        let asked = book.ask(Opcode::Nop, 0, 0);
        book.got(&asked, 0);
        book.finished(&asked, 0);
        killed(book, dir, &asked, Some(State::Completed), |next| next.put(left(&asked, fate::COMPLETED, 0, 0)))
    });
    finds(again_as_a_leftover, &["(c)", "leftover"]);
    let changed = run(|mut book, _| {
        let asked = book.ask(Opcode::RelSize, 0, 0);
        book.got(&asked, 1);
        book.finished(&asked, 2);
        book
    });
    finds(changed, &["(c)", "changed"]);
}

#[test]
fn a_swapped_answer_is_found() {
    let of_another_block = run(|mut book, _| {
        let asked = book.ask(Opcode::GetPage, 0, 0);
        book.got(&asked, 1);
        let other = content::page(own(0), 7, V2);
        let page = Record { id: asked.id, block: 0, a: V2, b: xxh3_64(&other), ..Record::new(Kind::Page) };
        book.put(page);
        book.finished(&asked, 1);
        book
    });
    finds(of_another_block, &["(a)", "block 0"]);
    let of_another_generation = run(|mut book, _| {
        let asked = book.ask(Opcode::Nop, 0, 0);
        book.got(&Record { generation: asked.generation - 1, ..asked }, 0);
        book.finished(&asked, 0);
        book
    });
    finds(of_another_generation, &["(a)", "generation"]);
    let a_size = run(|mut book, _| {
        book.size(17);
        book
    });
    finds(a_size, &["Size", "17"]);
    let a_leftover = run(|mut book, dir| {
        let asked = book.ask(Opcode::WritePage, 0, V2 + 10);
        killed(book, dir, &asked, Some(State::Completed), |next| {
            next.put(Record { block: 5, ..left(&asked, fate::COMPLETED, 0, 1) });
        })
    });
    finds(a_leftover, &["(a)", "another request"]);
}

#[test]
fn a_lost_write_that_was_acknowledged_is_found() {
    let by_a_later_read = run(|mut book, _| {
        book.read(0, V1);
        book
    });
    finds(by_a_later_read, &["(b)", "acknowledged"]);
    let dir = tempfile::tempdir().unwrap();
    let mut book = Book::open(dir.path(), "backend-0", 0, BEGIN);
    book.extend(0, V1);
    book.read(0, V1);
    book.write(0, V2);
    book.read(0, V2);
    let now = book.end();
    store(dir.path(), now, &[V1]);
    finds(verdict(dir.path()), &["(b)", "not in the store"]);
}

#[test]
fn a_write_that_a_successor_saw_complete_counts_as_acknowledged() {
    let lost = run(|mut book, dir| {
        let asked = book.ask(Opcode::WritePage, 0, V2 + 10);
        killed(book, dir, &asked, Some(State::Processing), |next| {
            next.put(left(&asked, fate::COMPLETED, 0, 1));
            next.read(0, V2);
        })
    });
    finds(lost, &["(b)", "acknowledged"]);
}

#[test]
fn a_write_that_was_not_run_must_not_be_seen() {
    let seen = run(|mut book, dir| {
        let asked = Record { pool: 1, ..book.ask(Opcode::WritePage, 0, V2 + 10) };
        killed(book, dir, &asked, Some(State::Submitted), |next| {
            next.put(left(&asked, fate::OWNER_DEAD, 0, 0));
            next.read(0, V2 + 10);
        })
    });
    finds(seen, &["(b)"]);
}

#[test]
fn a_read_that_goes_back_is_found() {
    // The write is still in flight; but a read has shown it.
    let back = run(|mut book, _| {
        let pending = book.ask(Opcode::WritePage, 0, V2 + 10);
        book.read(0, V2 + 10);
        book.read(0, V2);
        book.got(&pending, 1);
        book.finished(&pending, 1);
        book
    });
    finds(back, &["(b)"]);
}

#[test]
fn a_request_that_nobody_answers_is_found() {
    let lost = run(|mut book, dir| {
        let asked = book.ask(Opcode::GetPage, 0, 0);
        killed(book, dir, &asked, None, |_| {})
    });
    finds(lost, &["(b)", "did not find it"]);
    let unreported = run(|mut book, dir| {
        let asked = book.ask(Opcode::GetPage, 0, 0);
        killed(book, dir, &asked, Some(State::Submitted), |_| {})
    });
    finds(unreported, &["(b)", "did not report it"]);
    let forgotten = run(|mut book, _| {
        book.ask(Opcode::Nop, 0, 0);
        book
    });
    finds(forgotten, &["(b)", "never answered"]);
}

#[test]
fn a_late_answer_is_found_unless_its_process_was_stopped() {
    let late = |stop: Option<(u64, u64)>| {
        run(move |mut book, dir| {
            let asked = book.ask(Opcode::Nop, 0, 0);
            let from = book.now;
            book.now += 40_000 * MS;
            book.got(&asked, 0);
            book.finished(&asked, 0);
            if let Some((a, b)) = stop {
                let mut signals = Writer::open(&dir.join("signals"), 0).unwrap();
                for (time, signal) in [(from + a * MS, libc::SIGSTOP), (from + b * MS, libc::SIGCONT)] {
                    signals.put(Record { time, slot: 0, code: signal as u32, ..Record::new(Kind::Signal) });
                }
                signals.flush().unwrap();
            }
            book
        })
    };
    finds(late(None), &["(d)", "ms too late"]);
    finds(late(Some((0, 1000))), &["(d)"]);
    late(Some((100, 20_000))).unwrap();
}

#[test]
fn giving_up_what_must_be_answered_is_found() {
    let gave_up = run(|mut book, _| {
        let asked = book.ask(Opcode::Nop, 0, 0);
        book.now += u64::from(PATIENCE_MS) * MS;
        book.put(Record { id: asked.id, ..Record::new(Kind::GaveUp) });
        book.put(Record { id: asked.id, ..Record::new(Kind::CancelAsked) });
        book.put(Record { id: asked.id, ..Record::new(Kind::CancelReturned) });
        book
    });
    finds(gave_up, &["(d)", "by its deadline"]);
}

#[test]
fn a_changed_byte_of_a_cancelled_buffer_is_found() {
    finds(
        run(|mut b, _| {
            b.cancel(9, 8);
            b
        }),
        &["(e)", "changed after its cancel"],
    );
    let before_the_slot_came_back = run(|mut book, _| {
        let asked = book.ask(Opcode::GetPage, 0, 0);
        let id = asked.id;
        book.put(Record { id, ..Record::new(Kind::CancelAsked) });
        book.put(Record { id, code: cancel::WITHDRAWN, a: 5, ..Record::new(Kind::CancelReturned) });
        book.put(Record { id, a: 6, ..Record::new(Kind::SlotBack) });
        book
    });
    finds(before_the_slot_came_back, &["(e)", "withdrawn"]);
}

#[test]
fn a_version_that_nobody_wrote_is_found() {
    let wrong = run(|mut book, _| {
        book.read(0, V2 + 10);
        book
    });
    finds(wrong, &["(b)", "us before it was asked"]);
}

#[test]
fn a_torn_end_is_forgiven_and_damage_in_the_middle_is_not() {
    use std::os::unix::fs::FileExt;
    let torn = run(|book, dir| {
        let path = book.path.clone();
        let now = book.die();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let end = file.metadata().unwrap().len();
        file.write_all_at(&[1; 40], end).unwrap();
        Book::open(dir, "backend-0", 1, now)
    });
    torn.unwrap();
    let damaged = run(|mut book, _| {
        book.log.flush().unwrap();
        let file = std::fs::File::options().write(true).open(&book.path).unwrap();
        file.write_all_at(&[0xFF], 5 * 64 + 20).unwrap();
        book
    });
    finds(damaged, &["damaged"]);
}
