//! Server lives (R1): no write of a dead server runs after the next one has begun.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod support;

use std::sync::atomic::Ordering::Relaxed;

use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::communicator::{Communicator, ServerLife};
use shmuring::error::{Error, Result};
use shmuring::region::Region;
use shmuring::request::{Completion, Opcode, Request};
use shmuring::slot::State;
use shmuring::stats::RoleCounter;
use support::process::{answer, hang, take_role, Child, Site, BLOCK, HELD, OWN, REL, RELEASE};
use support::soon;

const NOW: Wait<'_> = Wait { until: 0, interrupt: None };
const SOON_MS: u64 = 15_000;
/// The blocks of the mutations that ran.
const RAN: usize = 100;

fn truncate(block: u32) -> Request<'static> {
    let mut r = Request::new(Opcode::Truncate, REL);
    r.block = block;
    r
}

fn submit(b: &mut Backend<'_>, slot: u32, request: &Request<'_>) -> SlotRef {
    let r = b.fill(slot, request).unwrap();
    b.submit(r).unwrap();
    r
}

/// A server that lives until it is killed, and owns slots 0 to 3.
fn server(site: &Site, f: impl FnOnce(&mut Backend<'_>)) -> Child {
    let child = site.child(|region, board| {
        let _life = ServerLife::begin(region, 7).unwrap();
        let mut b = Backend::attach(region, 0, 4).unwrap();
        f(&mut b);
        board.set(OWN, 1);
        hang();
    });
    site.board.wait(OWN, 1);
    child
}

fn begin(region: &Region) -> ServerLife {
    let mut got = Err(Error::LifeHeld);
    assert!(soon(|| {
        got = ServerLife::begin(region, 7);
        got.is_ok()
    }));
    got.unwrap()
}

/// Settles, once no child just forked shares a lock any more.
fn settled(life: &ServerLife, region: &Region, wait_ms: u64) -> Result<u32> {
    let mut got = Err(Error::OwnerAlive);
    soon(|| {
        got = life.settle(region, &Wait::for_ms(wait_ms));
        got != Err(Error::OwnerAlive)
    });
    got
}

/// A communicator that notes each mutation it runs; it holds those for blocks from 1000 on until RELEASE.
fn noting(site: &Site) -> Child {
    let board = site.board;
    site.communicator(State::Processing, move |claim| {
        let (block, is_mutation) = (claim.job().block, claim.job().opcode.is_mutation());
        if block >= 1000 {
            board.add(HELD);
            board.wait(RELEASE, 1);
        }
        if is_mutation {
            board.note(RAN, block);
        }
        answer(claim);
    })
}

#[test]
fn a_new_life_settles_what_a_dead_server_left() {
    let site = Site::new("life", 8);
    let c = noting(&site);
    let image = [5; BLOCK];
    let mut old = server(&site, |b| {
        submit(b, 0, &truncate(1000));
        site.board.wait(HELD, 1);
        // These wait behind the one that the communicator holds.
        submit(b, 1, &Request::write_page(REL, 1, 1, 0, &image));
        submit(b, 2, &Request::get_page(REL, 2, 1, 0));
    });
    assert_eq!(ServerLife::begin(&site.region, 7).err(), Some(Error::LifeHeld));
    // A backend of the old server outlives it.
    let mut stray = site.child(|region, board| {
        let mut b = Backend::attach(region, 6, 2).unwrap();
        submit(&mut b, 6, &truncate(6));
        board.set(OWN + 1, 1);
        hang();
    });
    site.board.wait(OWN + 1, 1);
    old.kill();
    let life = begin(&site.region);
    assert_eq!(life.life(), 2);
    assert_eq!(site.region.parts().header.life.system_identifier.load(Relaxed), 7);
    assert_eq!(life.settle(&site.region, &NOW), Err(Error::OwnerAlive));
    stray.kill();
    assert_eq!(settled(&life, &site.region, 50), Err(Error::TimedOut), "a claimed mutation runs to its end");
    site.board.set(RELEASE, 1);
    // Alone in the region, it settles whatever is still there.
    assert!(settled(&life, &site.region, SOON_MS).is_ok());
    assert_eq!(settled(&life, &site.region, SOON_MS), Ok(0));
    let mut b = site.backend(0, 8);
    assert!(soon(|| b.usable() == 8), "{} slots came back", b.usable());
    let r = submit(&mut b, 0, &truncate(3));
    b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
    assert_eq!(b.finish(r).unwrap(), Completion::ok(3));
    // What nobody had claimed before the new life never ran.
    assert_eq!(site.board.list(RAN), [1000, 3]);
    drop(c);
}

#[test]
fn without_a_communicator_unclaimed_requests_are_withdrawn_at_once() {
    let site = Site::new("life-unclaimed", 8);
    let image = [5; BLOCK];
    let mut old = server(&site, |b| {
        submit(b, 0, &truncate(1));
        submit(b, 1, &Request::write_page(REL, 1, 1, 0, &image));
        submit(b, 2, &Request::get_page(REL, 2, 1, 0));
        b.fill(3, &truncate(4)).unwrap();
    });
    old.kill();
    let life = begin(&site.region);
    assert_eq!(settled(&life, &site.region, 0), Ok(3));
    let _c = noting(&site);
    let b = site.backend(0, 8);
    assert!(soon(|| b.usable() == 8));
    assert_eq!(site.board.list(RAN), [0; 0]);
}

#[test]
fn a_claimed_mutation_of_a_dead_life_needs_a_communicator() {
    let site = Site::new("life-claimed", 8);
    let mut c = noting(&site);
    let mut old = server(&site, |b| {
        submit(b, 0, &truncate(1000));
        site.board.wait(HELD, 1);
    });
    old.kill();
    c.kill();
    let life = begin(&site.region);
    assert_eq!(settled(&life, &site.region, 50), Err(Error::CommunicatorGone));
    site.board.set(RELEASE, 1);
    // It belongs to an old life, but may have run already: it is run again and not dropped.
    let _c = noting(&site);
    assert_eq!(settled(&life, &site.region, SOON_MS), Ok(1));
    assert_eq!(site.board.list(RAN), [1000]);
}

#[test]
fn a_communicator_drops_requests_of_an_old_life() {
    let site = Site::new("old-life", 8);
    let first = begin(&site.region);
    let mut old = site.backend(0, 4);
    drop(first);
    let life = begin(&site.region);
    assert_eq!(life.life(), 2);
    let mut new = site.backend(4, 4);
    let dropped = [submit(&mut old, 0, &truncate(1)), submit(&mut old, 1, &Request::get_page(REL, 1, 1, 0))];
    let runs = submit(&mut new, 4, &truncate(2));
    let parts = site.region.parts();
    let (mut c, _): (Communicator<'_>, _) = take_role(&site.region, &parts);
    assert_eq!(c.reap(8, State::Processing, answer), 1);
    for r in dropped {
        assert_eq!(old.finish(r).unwrap(), Completion::fail(libc::EOWNERDEAD));
    }
    assert_eq!(new.finish(runs).unwrap(), Completion::ok(2));
    assert_eq!(parts.role_stats.get(RoleCounter::OldLife), 2);
}

#[test]
fn a_life_that_ends_is_over_for_children_that_were_forked_meanwhile_too() {
    let site = Site::new("life-children", 8);
    let _server = site.child(|region, board| {
        let life = ServerLife::begin(region, 7).unwrap();
        // As a log collector, which outlives a restart of everything else, and has what was open.
        // SAFETY: system calls on numbers.
        let is_child = unsafe { libc::fork() == 0 && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 };
        if is_child {
            hang();
        }
        drop(life);
        board.set(OWN, 1);
        hang();
    });
    site.board.wait(OWN, 1);
    assert_eq!(begin(&site.region).life(), 2);
}
