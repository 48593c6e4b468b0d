//! The state of every slot, one line each: what `stat --slots` shows, and what a watchdog prints.
#![allow(unsafe_code)]

use shmuring::layout::{Control, Slot};
use shmuring::parts::Parts;
use shmuring::region::Region;
use shmuring::request::{RawRequest, RelTag};
use shmuring::slot::{owner, State};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;

/// A line for each slot that is not Idle, and how many are.
pub(super) fn show(region: &Region) -> String {
    let parts = region.parts();
    let now = shmuring::clock::now();
    let mut out = String::new();
    let mut idle = 0;
    for (number, slot) in (0u32..).zip(parts.slots) {
        let word = owner::look(slot);
        if word.is(State::Idle) {
            idle += 1;
            continue;
        }
        let (r, c) = (request(slot), control(slot));
        let RelTag { spc_oid, db_oid, rel_number, fork } = r.rel();
        let owner = if region.liveness().owner_held(number, 1) { "alive" } else { "gone" };
        let _ = write!(
            out,
            "slot {number:<6} generation {:<8} {:<10} epoch {:<5} {} {spc_oid}/{db_oid}/{rel_number}.{fork} block {}+{} \
             pool {}, owner {} ({owner})",
            word.generation(),
            word.state().map_or("invalid", State::name),
            word.epoch(),
            r.opcode().map_or("unknown", |o| o.name()),
            { r.block },
            { r.count },
            { r.pool },
            c.owner_pid,
        );
        if word.waiter() {
            // Relaxed: for display.
            let since = slot.waiting_since.load(Ordering::Relaxed);
            let _ = write!(out, ", slept on since {} ms", now.saturating_sub(since) / 1_000_000);
        }
        let _ = writeln!(out, "{}", hinted(&parts, number));
    }
    let _ = writeln!(out, "{idle} of {} slots are idle", parts.slots.len());
    out
}

/// Whether the pending bitmap names the slot.
fn hinted(parts: &Parts<'_>, number: u32) -> &'static str {
    let word = parts.pending.get(number as usize / 64).map_or(0, |w| w.load(Ordering::Relaxed));
    if word >> (number % 64) & 1 == 1 {
        ", in the bitmap"
    } else {
        ""
    }
}

/// The request bytes, for display: they may change while we read.
pub(super) fn request(slot: &Slot) -> RawRequest {
    // SAFETY: mapped; every bit pattern is a value, and a torn one shows a wrong line, no more.
    slot.request.with(|p| unsafe { p.read_volatile() })
}

fn control(slot: &Slot) -> Control {
    // SAFETY: as above.
    slot.control.with(|p| unsafe { p.read_volatile() })
}
