//! What a communicator repairs in the submission ring: cells that a dead one had reset (R14), and damage (R15).

use std::sync::atomic::Ordering::Relaxed;

use shmuring::region::Region;
use shmuring::ring::{empty, Consumer, Producer};
use shmuring::slot::State;
use shmuring::stats::RoleCounter;

use crate::clock;
use crate::communicators::{ask_all, role, serve, BASE as COMMUNICATOR};
use crate::driver::Case;
use crate::requests::{answer, Kind};
use crate::tracee::Marks;
use crate::world::{World, SLOTS};
use Kind::{Read, ReadPool, Truncate, Write};

const BASE: Case = Case { victim: repair, at_last: go_round, ..COMMUNICATOR };

pub const REPAIR: &[Case] = &[
    Case { name: "pass cells that a dead communicator had reset", victim: pass, stage: die_resetting, ..BASE },
    Case { name: "repair a ring whose tail is beyond belief", stage: lose_tail, ..BASE },
    Case { name: "repair a ring whose head is another's", stage: lose_head, at_last: go_round_twice, ..BASE },
    Case { name: "repair a ring with a cell of another lap", stage: lose_cell, ..BASE },
];

fn head(w: &World<'_>) -> u64 {
    w.parts.header.head.0.load(Relaxed)
}

fn tail(w: &World<'_>) -> u64 {
    w.parts.header.tail.0.load(Relaxed)
}

/// The cell of a ticket, so many laps ahead.
fn set_lap(w: &World<'_>, ticket: u64, ahead: u64) {
    let n = w.parts.cells.len() as u64;
    w.parts.cells[(ticket % n) as usize].0.store(empty(ticket / n + ahead), Relaxed);
}

/// A communicator died between reset and head, at the first of three; another, before it, at the second.
fn die_resetting(w: &mut World<'_>) {
    ask_all(w, &[Truncate, Read, Write]);
    let head = head(w);
    (0..2).for_each(|i| set_lap(w, head + i, 1));
}

/// Requests before the damage and after it, and one that was never hinted at.
fn ask_around(w: &mut World<'_>, damage: impl FnOnce(&World<'_>)) {
    w.excused = vec![(RoleCounter::Damage, 2)];
    w.is_damaged = true;
    ask_all(w, &[Truncate, Read]);
    w.ask_unhinted(6, Write);
    damage(w);
    w.ask(7, ReadPool(0));
    w.ask(8, Truncate);
}

fn lose_tail(w: &mut World<'_>) {
    ask_around(w, |w| w.parts.header.tail.0.store(tail(w) + (1 << 40), Relaxed));
}

fn lose_head(w: &mut World<'_>) {
    ask_around(w, |w| w.parts.header.head.0.store(head(w) + 3, Relaxed));
}

fn lose_cell(w: &mut World<'_>) {
    ask_around(w, |w| set_lap(w, tail(w), 2));
}

/// Follows the hints, and then looks without.
fn pass(region: &Region, m: &Marks) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let board = m.board();
    m.begin();
    serve(&mut c, board);
    m.end();
}

fn repair(region: &Region, m: &Marks) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let board = m.board();
    clock::move_on(2);
    m.begin();
    c.reap(32, State::Processing, |claim| answer(board, claim));
    c.audit(State::Processing, |claim| answer(board, claim));
    m.end();
}

/// The ring carries more than a lap of hints, each in a cell of its own.
fn go_round(w: &mut World<'_>) -> Result<(), String> {
    let never = [RoleCounter::Damage, RoleCounter::SteppedOver, RoleCounter::PendingHints];
    for counter in never {
        w.count(counter);
    }
    let mut producer = Producer::new();
    for _ in 0..=w.parts.cells.len() {
        if producer.push(w.parts, &[SLOTS - 1]) != 0 {
            return Err("the ring has no room".into());
        }
        w.serve_hints();
        if !Consumer::is_idle(w.parts) {
            return Err("the ring does not come to rest a lap after the repair".into());
        }
    }
    match never.into_iter().find(|counter| w.count(*counter) != 0) {
        Some(counter) => Err(format!("{counter:?} a lap after the repair")),
        None => Ok(()),
    }
}

/// A head that another stored looks right to a successor: the cells left behind it are found when the next lap has come to
/// them, by the audit, and until then their hints go by the bitmap.
fn go_round_twice(w: &mut World<'_>) -> Result<(), String> {
    let mut producer = Producer::new();
    for _ in 0..=w.parts.cells.len() {
        producer.push(w.parts, &[SLOTS - 1]);
        w.serve_hints();
    }
    w.is_damaged = true;
    w.repair();
    go_round(w)
}
