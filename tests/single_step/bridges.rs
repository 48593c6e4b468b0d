//! The bridge of a communicator that lives in an epoll loop (R18): the thread that sleeps on the doorbell, and the loop.
//! One of them is stepped; the other is a thread beside it.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use shmuring::communicator::Bridge;
use shmuring::region::Region;
use shmuring::slot::State;
use shmuring::stats::OwnerCounter;

use crate::communicators::{ask_one, role, BASE as COMMUNICATOR};
use crate::driver::Case;
use crate::requests::{answer, Kind};
use crate::support::soon;
use crate::tracee::Marks;
use crate::world::World;

const BASE: Case = Case { at_last: go_on_by_bridge, ..COMMUNICATOR };

pub const BRIDGE: &[Case] = &[
    Case { name: "make a bridge", victim: make, ..BASE },
    Case { name: "the bridge's thread, asleep, and a backend rings", victim: thread, asleep: Some(ask_one), ..BASE },
    Case { name: "the bridge's thread, with something to do", victim: thread, stage: ask_one, ..BASE },
    Case { name: "the loop of a bridge, asleep, and a backend rings", victim: turn, asleep: Some(ask_one), ..BASE },
    Case { name: "the loop of a bridge, with something to do", victim: turn, stage: ask_one, ..BASE },
];

/// Waits until the bridge wakes the loop, which it does once a second at least.
fn is_woken(bridge: &Bridge) -> bool {
    let mut fd = libc::pollfd { fd: std::os::fd::AsFd::as_fd(bridge).as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one descriptor, which lives as long as the bridge.
    unsafe { libc::poll(&mut fd, 1, 20_000) == 1 }
}

fn make(region: &Region, m: &Marks) {
    let parts = region.parts();
    let _c = role(region, &parts);
    m.begin();
    let bridge = Bridge::new();
    m.end();
    bridge.unwrap();
}

/// The thread, from an arming to the end; the loop is beside it.
fn thread(region: &Region, m: &Marks) {
    let parts = region.parts();
    let _c = role(region, &parts);
    let bridge = Bridge::new().unwrap();
    bridge.arm();
    std::thread::scope(|s| {
        s.spawn(|| {
            is_woken(&bridge);
            bridge.stop();
        });
        m.begin();
        bridge.run(&parts);
        m.end();
    });
}

/// One turn of the loop, and its end; the thread is beside it.
fn turn(region: &Region, m: &Marks) {
    let parts = region.parts();
    let mut c = role(region, &parts);
    let board = m.board();
    let bridge = Bridge::new().unwrap();
    std::thread::scope(|s| {
        s.spawn(|| bridge.run(&parts));
        m.begin();
        bridge.arm();
        is_woken(&bridge);
        bridge.clear();
        c.reap(32, State::Processing, |claim| answer(board, claim));
        bridge.stop();
        m.end();
    });
}

/// The next communicator has a bridge too: a backend that finds it asleep rings, and the loop wakes.
fn go_on_by_bridge(w: &mut World<'_>) -> Result<(), String> {
    let bridge = Bridge::new().map_err(|e| format!("no bridge: {e}"))?;
    let (parts, before) = (w.parts, w.parts.header.parked.0.load(Relaxed) >> 1);
    std::thread::scope(|s| {
        s.spawn(|| bridge.run(parts));
        bridge.arm();
        let parked = || parts.header.parked.0.load(Relaxed);
        if !soon(|| parked() >> 1 != before) {
            bridge.stop();
            return Err("the bridge's sleep is not told from the one before");
        }
        let rung = w.other().counter(OwnerCounter::DoorbellRings);
        w.ask(4, Kind::Truncate);
        // Still the same park, and so it was when the backend looked.
        let is_asleep = parked() >> 1 == before + 1 && parked() & 1 == 1;
        let is_rung = w.other().counter(OwnerCounter::DoorbellRings) != rung;
        let is_woken = is_woken(&bridge);
        bridge.clear();
        bridge.stop();
        match (is_asleep, is_rung, is_woken) {
            (true, false, _) => Err("the bridge sleeps, and was not rung"),
            (_, _, false) => Err("the loop was not woken"),
            _ => Ok(()),
        }
    })?;
    w.serve_hints();
    w.take_all(1)
}
