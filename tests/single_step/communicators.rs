//! Operations of a communicator.

use std::sync::atomic::Ordering::Relaxed;

use shmuring::communicator::{Claim, Communicator};
use shmuring::doorbell::Parked;
use shmuring::region::Region;
use shmuring::request::Completion;
use shmuring::ring;
use shmuring::slot::State;

use crate::clock;
use crate::driver::{Case, Side};
use crate::requests::{answer, page, Kind};
use crate::support::process::{hang, Board, BLOCK};
use crate::tracee::{stop_here, Marks};
use crate::world::World;
use Kind::{Read, ReadPool, ReadTwo, Truncate, Write, WritePool};

pub const BASE: Case = Case {
    name: "",
    side: Side::Communicator,
    kinds: &[],
    prepare: |w| w.communicator = None,
    victim: |_, _| {},
    stage: |_| {},
    hook: None,
    few_rounds: false,
    asleep: None,
    beside: |_| Ok(()),
    at_last: |_| Ok(()),
};
/// Polls of an unpublished ticket before it is stepped over.
const STALL_POLLS: u32 = 512;

pub const REAP: &[Case] = &[
    Case { name: "reap and claim, to be answered later", victim: reap_later, stage: ask_five, ..BASE },
    Case {
        name: "reap and claim, step over a dead producer",
        prepare: die_pushing,
        victim: step_over,
        stage: ask_one,
        ..BASE
    },
    Case { name: "reap and claim, hints of the bitmap", victim: reap_later, stage: ask_by_bitmap, ..BASE },
    Case { name: "reap, deliver and complete at once", victim: reap_at_once, stage: ask_five, ..BASE },
    Case { name: "audit finds what was never hinted at", prepare: ask_without_hint, victim: audit, ..BASE },
    Case { name: "park, with nothing to do", victim: park, ..BASE },
    Case { name: "park, with something to do", victim: park_busy, stage: ask_one, ..BASE },
];

pub const COMPLETE: &[Case] = &[
    Case { name: "deliver in parts, and complete", prepare: ask_for_pages, victim: deliver_in_parts, ..BASE },
    Case {
        name: "complete under sleepers",
        prepare: ask_two,
        victim: complete,
        stage: |w| {
            w.sleep_on(4);
            w.sleep_on(5);
        },
        ..BASE
    },
    Case {
        name: "suspend under a sleeper, then complete",
        prepare: ask_for_pages,
        victim: deliver_in_parts,
        stage: |w| w.sleep_on(4),
        ..BASE
    },
    Case {
        name: "complete what was cancelled",
        prepare: ask_for_pages,
        victim: complete,
        stage: cancel_under_sleepers,
        ..BASE
    },
];

pub const TAKE_OVER: &[Case] = &[
    Case {
        name: "take over: role and inheritance",
        prepare: die_with_everything,
        victim: take_role,
        stage: sleep_on_claimed,
        ..BASE
    },
    Case {
        name: "take over: answer, sweep and reap",
        prepare: die_with_everything,
        victim: go_on,
        stage: sleep_on_claimed,
        ..BASE
    },
];

pub fn ask_all(w: &mut World<'_>, kinds: &[Kind]) {
    for (slot, kind) in (4..).zip(kinds) {
        w.ask(slot, *kind);
    }
}

pub fn ask_one(w: &mut World<'_>) {
    ask_all(w, &[Truncate]);
}

fn ask_five(w: &mut World<'_>) {
    ask_all(w, &[Read, Truncate, ReadPool(0), Write, WritePool(1)]);
    w.ask(9, Read);
    w.cancel(9);
}

fn ask_by_bitmap(w: &mut World<'_>) {
    ask_all(w, &[Read, Truncate, ReadPool(0), Write, WritePool(1)]);
    for slot in [5, 6, 11] {
        ring::set_pending(w.parts, slot);
    }
}

/// An owner that stops between the word and the push; then another.
fn ask_without_hint(w: &mut World<'_>) {
    w.communicator = None;
    w.ask_unhinted(4, Truncate);
    w.ask_unhinted(5, Read);
}

fn ask_two(w: &mut World<'_>) {
    w.communicator = None;
    ask_all(w, &[ReadTwo, Truncate]);
}

fn ask_for_pages(w: &mut World<'_>) {
    w.communicator = None;
    ask_all(w, &[ReadTwo, ReadPool(0)]);
}

/// A backend died between ticket and publish.
fn die_pushing(w: &mut World<'_>) {
    w.communicator = None;
    w.parts.header.tail.0.fetch_add(1, Relaxed);
}

fn cancel_under_sleepers(w: &mut World<'_>) {
    w.cancel(4);
    w.cancel(5);
    w.sleep_on(4);
}

pub fn role<'r>(region: &'r Region, parts: &'r shmuring::parts::Parts<'r>) -> Communicator<'r> {
    Communicator::take_role(region, parts).unwrap().0
}

fn reap_later(region: &Region, m: &Marks) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let mut held: Vec<Claim<'_>> = Vec::with_capacity(8);
    m.begin();
    while held.len() < 5 {
        c.reap(32, State::Processing, |claim| held.push(claim));
    }
    m.end();
}

fn step_over(region: &Region, m: &Marks) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let mut held: Vec<Claim<'_>> = Vec::with_capacity(8);
    for _ in 1..STALL_POLLS {
        assert_eq!(c.reap(32, State::Processing, drop), 0);
    }
    m.begin();
    while held.is_empty() {
        c.reap(32, State::Processing, |claim| held.push(claim));
    }
    m.end();
}

fn reap_at_once(region: &Region, m: &Marks) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let board: Board = m.board();
    m.begin();
    let mut n = 0;
    while n < 5 {
        n += c.reap(32, State::Copying, |claim| answer(board, claim));
    }
    m.end();
}

fn audit(region: &Region, m: &Marks) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let board = m.board();
    clock::move_on(2);
    assert_eq!(c.audit(State::Processing, drop), 0, "the first look only suspects");
    clock::move_on(2);
    m.begin();
    let n = c.audit(State::Processing, |claim| answer(board, claim));
    m.end();
    assert_eq!(n, 2);
}

fn park(region: &Region, m: &Marks) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    m.begin();
    assert_eq!(c.park(5_000_000), Parked::TimedOut);
    m.end();
}

fn park_busy(region: &Region, m: &Marks) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let board = m.board();
    m.begin();
    assert_eq!(c.park(1_000_000), Parked::Busy);
    c.reap(32, State::Processing, |claim| answer(board, claim));
    m.end();
}

/// A communicator with everything claimed that there is.
fn with_claims(region: &Region, m: &Marks, f: impl FnOnce(Vec<Claim<'_>>)) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let mut held = Vec::with_capacity(8);
    c.sweep(State::Processing, |claim| held.push(claim));
    m.begin();
    f(held);
    m.end();
}

fn deliver_in_parts(region: &Region, m: &Marks) {
    with_claims(region, m, |held| {
        for mut claim in held {
            let (block, count) = (claim.job().block, claim.job().count);
            for i in 0..u32::from(count) {
                let mut copying = claim.copying().unwrap();
                copying.deliver(i as usize, &page(block + i)).unwrap();
                copying.suspend().unwrap();
            }
            claim.complete(Completion::ok(u64::from(count))).unwrap();
        }
    });
}

fn complete(region: &Region, m: &Marks) {
    let board = m.board();
    with_claims(region, m, |held| held.into_iter().for_each(|claim| answer(board, claim)));
}

/// A communicator died with claims in every state; what was cancelled, and what it never saw, is there too.
fn die_with_everything(w: &mut World<'_>) {
    w.communicator = None;
    ask_all(w, &[Truncate, Read, ReadPool(0), Write, Read, Truncate]);
    let mut dead = w.site.child(|region, _| {
        let parts = region.parts();
        let mut c = role(region, &parts);
        let mut held: Vec<Claim<'_>> = Vec::new();
        c.sweep(State::Processing, |claim| held.push(claim));
        for claim in held.iter_mut().filter(|c| [6, 7].contains(&c.slot())) {
            let is_read = !claim.job().opcode.is_mutation();
            let mut copying = claim.copying().unwrap();
            if is_read {
                // It dies with half of the page written.
                copying.deliver(0, &[0xEE; BLOCK / 2]).unwrap();
            }
        }
        stop_here();
        hang();
    });
    dead.stopped(true);
    w.cancel(8);
    w.ask(10, Truncate);
    w.ask(11, Read);
    w.cancel(11);
    dead.kill();
}

fn sleep_on_claimed(w: &mut World<'_>) {
    // In Processing, in Copying, and cancelled.
    for slot in [5, 6, 8] {
        w.sleep_on(slot);
    }
}

pub fn serve(c: &mut Communicator<'_>, board: Board) {
    let mut swept: Vec<Claim<'_>> = Vec::with_capacity(8);
    c.sweep(State::Processing, |claim| swept.push(claim));
    swept.into_iter().for_each(|claim| answer(board, claim));
    c.reap(32, State::Processing, |claim| answer(board, claim));
}

fn take_role(region: &Region, m: &Marks) {
    let parts = region.parts();
    m.begin();
    let (c, inherited) = Communicator::take_role(region, &parts).unwrap();
    m.end();
    drop((c, inherited));
}

fn go_on(region: &Region, m: &Marks) {
    let parts = region.parts();
    let board = m.board();
    let (mut c, inherited) = Communicator::take_role(region, &parts).unwrap();
    m.begin();
    inherited.mutations.into_iter().chain(inherited.reads).for_each(|claim| answer(board, claim));
    serve(&mut c, board);
    m.end();
}
