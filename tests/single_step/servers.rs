//! Operations of a server that begins a life, and what its death leaves to the next one.

use std::sync::atomic::Ordering::Relaxed;

use shmuring::backend::{Backend, Fate, Leftover};
use shmuring::communicator::{Claim, ServerLife};
use shmuring::lsn::rel_size::Outcome;
use shmuring::region::Region;
use shmuring::request::{Completion, Lsn};
use shmuring::slot::State;
use shmuring::stats::RoleCounter;

use crate::backends::{owner_of, BASE as BACKEND, LONG};
use crate::driver::{Case, Side};
use crate::recovery::{check_region, check_words, go_on, settle, use_all, Left};
use crate::requests::{answer, fill, leave_unhinted, Asked, Kind};
use crate::support::process::REL;
use crate::tracee::Marks;
use crate::world::{Fault, World, NOW, SLOTS, VICTIMS};
use Kind::{Read, ReadPool, ReadTwo, Truncate, Write, WritePool};

const SYSTEM: u64 = 7;
/// Blocks noted as written, more than the table has entries, and since when.
const NOTED: u32 = 9;

const BASE: Case = Case { side: Side::Server, kinds: &[], prepare: fall, ..BACKEND };

pub const LIFE: &[Case] = &[
    Case { name: "begin a life", victim: begin, ..BASE },
    Case { name: "begin a life, with no communicator", prepare: fall_unserved, victim: begin, ..BASE },
    Case {
        name: "settle what the last life left",
        victim: settle_all,
        few_rounds: true,
        hook: Some(|w, _| w.word(4).waiter() && serve(w)),
        ..BASE
    },
    Case {
        name: "settle what the last life left, with no communicator",
        prepare: fall_unserved,
        victim: settle_all,
        ..BASE
    },
    Case { name: "reset the last-written table", victim: reset, ..BASE },
    Case { name: "end a life", victim: end, ..BASE },
];

fn serve(w: &mut World<'_>) -> bool {
    w.serve();
    true
}

/// LSN of the notes of a life; each life's floor is lower.
fn lsn(w: &World<'_>) -> Lsn {
    floor(w.base) + 8 * Lsn::from(NOTED)
}

fn floor(base: u32) -> Lsn {
    8 * Lsn::from(base)
}

fn life_of(w: &World<'_>) -> u32 {
    w.parts.header.life.life.load(Relaxed)
}

/// A server is there, and writes.
fn stand(w: &mut World<'_>) {
    w.begin_other().unwrap();
    w.old.clear();
    w.excused = vec![(RoleCounter::OldLife, SLOTS.into())];
    let written = w.parts.last_written();
    (0..NOTED).for_each(|block| written.note(REL, block, lsn(w) + 8 * Lsn::from(block)));
}

/// It dies, and all its backends with it.
fn die(w: &mut World<'_>) {
    for asked in w.end_other() {
        w.old.push((asked, w.word(asked.at.slot)));
    }
    (w.last_life, w.life) = (life_of(w), None);
}

/// What nobody had claimed: with and without a hint, of one backend and another.
fn ask_unclaimed(w: &mut World<'_>) {
    let mut b = owner_of(w.region);
    for (slot, kind) in (0..).zip([Write, Read, Truncate, ReadPool(1)]) {
        let number = w.number();
        let at = fill(&mut b, slot, kind, number);
        if slot < 2 {
            b.submit(at).unwrap();
        } else {
            leave_unhinted(w.parts, at);
        }
        w.old.push((Asked { at, kind, number }, w.word(slot)));
    }
    w.ask(8, Truncate);
    w.ask_unhinted(10, WritePool(2));
    w.fill(11, Write);
}

/// A server died with requests in every state, and its communicator lives.
fn fall(w: &mut World<'_>) {
    w.succeed().unwrap();
    stand(w);
    let sizes = w.sizes.as_mut().unwrap();
    let change = sizes.begin(REL);
    sizes.finish(change, Outcome::Set(5, 80));
    for (slot, kind) in (4..).zip([Truncate, Read, ReadPool(0), Write]) {
        w.ask(slot, kind);
    }
    w.ask(9, ReadTwo);
    w.claim(State::Processing);
    w.cancel(5);
    let is_of = |slot| move |c: &Claim<'_>| c.slot() == slot;
    let i = w.held.iter().position(is_of(7)).unwrap();
    answer(w.board, w.held.swap_remove(i));
    let i = w.held.iter().position(is_of(9)).unwrap();
    w.held[i].copying().unwrap();
    ask_unclaimed(w);
    die(w);
}

/// It died, and there was no communicator.
fn fall_unserved(w: &mut World<'_>) {
    w.communicator = None;
    stand(w);
    ask_unclaimed(w);
    die(w);
}

fn begin(region: &Region, m: &Marks) {
    m.begin();
    let life = ServerLife::begin(region, SYSTEM);
    m.end();
    life.unwrap();
}

fn begun(region: &Region) -> ServerLife {
    ServerLife::begin(region, SYSTEM).unwrap()
}

fn settle_all(region: &Region, m: &Marks) {
    let life = begun(region);
    m.begin();
    let settled = life.settle(region, &LONG);
    m.end();
    settled.unwrap();
}

fn reset(region: &Region, m: &Marks) {
    let life = begun(region);
    m.begin();
    life.reset_written(region, floor(m.base)).unwrap();
    m.end();
}

fn end(region: &Region, m: &Marks) {
    let life = begun(region);
    m.begin();
    drop(life);
    m.end();
}

/// A server died, and then another at its beginning: the next one settles what both left, and works.
pub fn recover(w: &mut World<'_>, left: &Left) -> Result<(), String> {
    let is_raised = life_of(w) != w.last_life;
    for (asked, _) in w.old.clone() {
        let word = left.words[asked.at.slot as usize];
        if let (ReadPool(index), true) = (asked.kind, word.is(State::Abandoned) || word.is(State::Withdrawn)) {
            w.guard(index);
        }
    }
    if left.living_first {
        w.succeed()?;
        w.serve();
    }
    let life = ServerLife::begin(w.region, SYSTEM).map_err(|e| format!("the next server is refused: {e}"))?;
    if life.life() != w.last_life + 1 + u32::from(is_raised) {
        return Err(format!("life {} comes after life {}", life.life(), w.last_life));
    }
    if w.fault == Fault::SameLife {
        w.parts.header.life.life.store(w.last_life, Relaxed);
    }
    let settled = {
        let mut leftovers = life.leftovers(w.region).map_err(|e| format!("the old slots are not free: {e}"))?;
        let old = w.old.clone();
        let kind = |slot| old.iter().find(|(asked, _)| asked.at.slot == slot).map(|(asked, _)| asked.kind);
        settle(w, || leftovers.next(&NOW), kind)?
    };
    let ran_before = left.living_first && !is_raised;
    w.old.iter().try_for_each(|(asked, fell)| check_old(w, asked, fell.state(), ran_before, left, &settled))?;
    life.reset_written(w.region, floor(w.base)).map_err(|e| format!("the table is not reset: {e}"))?;
    w.life = Some(life);
    w.succeed()?;
    w.serve();
    check_words(w, left, 0..SLOTS)?;
    w.begin_other()?;
    check_tables(w)?;
    go_on(w)?;
    let mut next = Backend::attach(w.region, 0, VICTIMS).map_err(|e| format!("the next backend is refused: {e}"))?;
    use_all(w, &mut next)?;
    check_region(w)
}

/// What became of one request of the last life: reported once, and run only if it was claimed in time.
fn check_old(
    w: &World<'_>,
    asked: &Asked,
    fell: Option<State>,
    ran_before: bool,
    left: &Left,
    settled: &[Leftover],
) -> Result<(), String> {
    let Asked { at, kind, number } = *asked;
    let whose = format!("{kind:?} {number} in slot {}, {fell:?} when its server died,", at.slot);
    let was_claimed = matches!(fell, Some(State::Processing | State::Copying | State::Completed));
    let of_slot: Vec<&Leftover> = settled.iter().filter(|l| l.slot == at.slot).collect();
    if of_slot.len() != usize::from(left.is_unfinished(at.slot)) {
        return Err(format!("{whose} has the leftovers {of_slot:?}"));
    }
    for l in of_slot {
        let fits = match l.fate {
            Fate::Completed(done) if done == kind.answer(number) => was_claimed || ran_before,
            Fate::Completed(done) => done == Completion::fail(libc::EOWNERDEAD) && !was_claimed,
            Fate::Withdrawn | Fate::Abandoned => !kind.is_mutation(),
            Fate::OwnerDead => kind.is_mutation() && !was_claimed,
        };
        if !fits || l.generation != at.generation || { l.request.block } != number {
            return Err(format!("{whose} became {l:?}"));
        }
    }
    let times = w.times_applied(number);
    let expected = match fell {
        _ if !kind.is_mutation() => 0..=0,
        _ if was_claimed => 1..=1,
        Some(State::Submitted) => 0..=u32::from(ran_before),
        _ => 0..=0,
    };
    if !expected.contains(&times) {
        return Err(format!("{whose} was applied {times} times"));
    }
    Ok(())
}

/// The tables are the new life's.
fn check_tables(w: &mut World<'_>) -> Result<(), String> {
    let written = w.parts.last_written();
    let floor = floor(w.base);
    for block in 0..NOTED {
        if written.get(REL, block) != floor {
            return Err(format!("block {block} is as of {} in a life from {floor} on", written.get(REL, block)));
        }
    }
    written.note(REL, 1, floor + 8);
    if written.get(REL, 1) != floor + 8 {
        return Err(format!("noted as of {}, and as of {}", floor + 8, written.get(REL, 1)));
    }
    let old = w.other().cached_rel_size(REL);
    if old.is_some() {
        return Err(format!("a life before knew {old:?}"));
    }
    let sizes = w.sizes.as_mut().ok_or("the communicator has no writer of sizes")?;
    let change = sizes.begin(REL);
    sizes.finish(change, Outcome::Set(w.base, floor));
    match w.other().cached_rel_size(REL) {
        Some(size) if size.blocks == Some(w.base) => Ok(()),
        other => Err(format!("the size of {} blocks is {other:?}", w.base)),
    }
}
