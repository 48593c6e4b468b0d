//! Changes of the relation sizes in the region (R2). Whoever dies in one, a reader finds a size that is so, or a miss.

use std::sync::atomic::Ordering::Relaxed;

use shmuring::communicator::{Communicator, ServerLife};
use shmuring::layout::SET;
use shmuring::lsn::rel_size::{Outcome, Size, Writer};
use shmuring::region::Region;
use shmuring::request::RelTag;

use crate::communicators::{role, BASE as COMMUNICATOR};
use crate::driver::Case;
use crate::support::process::REL;
use crate::tracee::Marks;
use crate::world::World;

/// As many forks as the region has room for are known; this one is not.
const UNKNOWN: u32 = SET as u32;
/// The I/O of the change has begun: what was known before is not so any more.
const IO: u32 = 1;
/// The change has ended.
const DONE: u32 = 2;
const EXTENDED: Size = Size { blocks: Some(50), lsn: 200, is_changed: true };
const TRUNCATED: Size = Size { blocks: Some(3), lsn: 200, is_changed: true };
const CREATED: Size = Size { blocks: Some(0), lsn: 200, is_changed: true };
const UNLINKED: Size = Size { blocks: None, lsn: 200, is_changed: true };
const READ: Size = Size { blocks: Some(7), lsn: 300, is_changed: false };

const BASE: Case = Case { at_last: is_emptied, ..COMMUNICATOR };

pub const SIZE: &[Case] = &[
    Case {
        name: "size: extend",
        victim: |r, m| change(r, m, 1, Outcome::Raise(50, 200)),
        beside: |w| is_so(w, 1, Some(EXTENDED)),
        ..BASE
    },
    Case {
        name: "size: truncate",
        victim: |r, m| change(r, m, 1, Outcome::Lower(3, 200)),
        beside: |w| is_so(w, 1, Some(TRUNCATED)),
        ..BASE
    },
    Case {
        name: "size: create, in the place of another fork",
        victim: |r, m| change(r, m, UNKNOWN, Outcome::Set(0, 200)),
        beside: |w| is_so(w, UNKNOWN, Some(CREATED)),
        ..BASE
    },
    Case {
        name: "size: unlink",
        victim: |r, m| change(r, m, 1, Outcome::Remove(200)),
        beside: |w| is_so(w, 1, Some(UNLINKED)),
        ..BASE
    },
    Case {
        name: "size: a change that fails",
        victim: |r, m| change(r, m, 1, Outcome::Unknown),
        beside: |w| is_so(w, 1, None),
        ..BASE
    },
    Case { name: "size: two changes at once", victim: change_twice, beside: |w| is_so(w, 1, Some(EXTENDED)), ..BASE },
    Case { name: "size: read", victim: read, beside: |w| is_so(w, UNKNOWN, Some(READ)), ..BASE },
    Case { name: "size: of a new server life", victim: follow, stage: begin_life, beside: is_none, ..BASE },
    Case { name: "size: take over", prepare: leave_known, victim: take_role, beside: is_known_or_none, ..BASE },
];

fn fork(n: u32) -> RelTag {
    RelTag { rel_number: 100 + n, ..REL }
}

/// What is known of each at first.
fn known(n: u32) -> Option<Size> {
    (n < UNKNOWN).then_some(Size { blocks: Some(10 + n), lsn: 80, is_changed: true })
}

fn set(writer: &mut Writer<'_>, n: u32, outcome: Outcome) {
    let change = writer.begin(fork(n));
    writer.finish(change, outcome);
}

fn set_all(writer: &mut Writer<'_>) {
    (0..UNKNOWN).for_each(|n| set(writer, n, Outcome::Set(10 + n, 80)));
}

fn writing(region: &Region, f: impl FnOnce(&mut Writer<'_>)) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let mut writer = c.rel_size_writer().unwrap();
    set_all(&mut writer);
    f(&mut writer);
}

fn change(region: &Region, m: &Marks, n: u32, outcome: Outcome) {
    writing(region, |writer| {
        m.begin();
        let change = writer.begin(fork(n));
        m.reach(IO);
        writer.finish(change, outcome);
        m.reach(DONE);
        m.end();
    });
}

fn change_twice(region: &Region, m: &Marks) {
    writing(region, |writer| {
        m.begin();
        let changes = [writer.begin(fork(1)), writer.begin(fork(1))];
        m.reach(IO);
        for (change, outcome) in changes.into_iter().zip([Outcome::Raise(90, 192), Outcome::Lower(50, 200)]) {
            writer.finish(change, outcome);
        }
        m.reach(DONE);
        m.end();
    });
}

/// The size that the page service said.
fn read(region: &Region, m: &Marks) {
    writing(region, |writer| {
        m.begin();
        let asked = writer.ask(fork(UNKNOWN));
        m.reach(IO);
        writer.fill(asked, READ.blocks, READ.lsn);
        m.reach(DONE);
        m.end();
    });
}

/// The first look at the sizes in a new life.
fn follow(region: &Region, m: &Marks) {
    writing(region, |writer| {
        m.begin();
        let known = writer.known(fork(0));
        m.end();
        assert_eq!(known, None);
    });
}

fn begin_life(w: &mut World<'_>) {
    w.life = None;
    w.end_other();
    w.life = Some(ServerLife::begin(w.region, 7).unwrap());
    w.begin_other().unwrap();
}

/// A communicator that knew sizes is gone.
fn leave_known(w: &mut World<'_>) {
    w.communicator = None;
    w.succeed().unwrap();
    set_all(w.sizes.as_mut().unwrap());
    (w.sizes, w.communicator) = (None, None);
}

fn take_role(region: &Region, m: &Marks) {
    let parts = region.parts();
    m.begin();
    let (mut c, _) = Communicator::take_role(region, &parts).unwrap();
    m.reach(IO);
    let writer = c.rel_size_writer();
    m.end();
    drop(writer);
}

fn look(w: &World<'_>, n: u32) -> Option<Size> {
    w.parts.rel_sizes().get(fork(n), w.parts.header.life.life.load(Relaxed))
}

fn expect(n: u32, found: Option<Size>, allowed: &[Option<Size>]) -> Result<(), String> {
    allowed.contains(&found).then_some(()).ok_or_else(|| format!("fork {n} is {found:?}, not of {allowed:?}"))
}

/// The fork that was changed is a miss from before the I/O until the size is what the change made it; the others are
/// what they were, but for one in whose place it may be.
fn is_so(w: &mut World<'_>, changed: u32, becomes: Option<Size>) -> Result<(), String> {
    let own = look(w, changed);
    match w.phase() {
        DONE => expect(changed, own, &[becomes]),
        IO => expect(changed, own, &[None, becomes]),
        _ => expect(changed, own, &[None, known(changed)]),
    }?;
    let mut missing = 0;
    for n in (0..UNKNOWN).filter(|n| *n != changed) {
        let found = look(w, n);
        expect(n, found, &[None, known(n)])?;
        missing += u32::from(found.is_none());
    }
    let most = u32::from(changed == UNKNOWN);
    (missing <= most).then_some(()).ok_or_else(|| format!("{missing} other forks are not known any more"))
}

fn is_none(w: &mut World<'_>) -> Result<(), String> {
    (0..=UNKNOWN).try_for_each(|n| expect(n, look(w, n), &[None]))
}

fn is_known_or_none(w: &mut World<'_>) -> Result<(), String> {
    if w.phase() == IO {
        return is_none(w);
    }
    (0..UNKNOWN).try_for_each(|n| expect(n, look(w, n), &[None, known(n)]))
}

/// The next communicator knows nothing, and then what it writes.
fn is_emptied(w: &mut World<'_>) -> Result<(), String> {
    is_none(w)?;
    let writer = w.sizes.as_mut().ok_or("the communicator has no writer of sizes")?;
    set_all(writer);
    (0..UNKNOWN).try_for_each(|n| expect(n, look(w, n), &[known(n)]))
}
