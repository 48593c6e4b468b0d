//! Backends killed in every state of a request, and what the next owner of their slots finds.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod support;

use shmuring::backend::{Backend, Cancelled, Fate, Leftover, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator};
use shmuring::error::Error;
use shmuring::region::Region;
use shmuring::request::{Buffers, Completion, Opcode, Request};
use shmuring::slot::{owner, State, Word};
use shmuring::stats::{OwnerCounter, RoleCounter};
use support::process::{answer, hang, Board, Child, Site, BLOCK, HELD, OWN, POOL, READY, REL, RELEASE};
use support::soon;

const NOW: Wait<'_> = Wait { until: 0, interrupt: None };
/// Blocks that say how far [`holder`] goes with a request before RELEASE.
const PROCESSING: u32 = 1000;
const COPYING: u32 = 2000;
const SOON_MS: u64 = 15_000;

fn read(block: u32) -> Request<'static> {
    Request::get_page(REL, block, 1, 0)
}

fn truncate(block: u32) -> Request<'static> {
    let mut r = Request::new(Opcode::Truncate, REL);
    r.block = block;
    r
}

/// A communicator that holds requests for blocks from PROCESSING on in that state, from COPYING on in that one; the others
/// are answered.
fn holder(region: &Region, board: Board) {
    let parts = region.parts();
    let (mut c, _) = Communicator::take_role(region, &parts).unwrap();
    board.set(READY, c.epoch());
    let mut held: Vec<Claim<'_>> = Vec::new();
    loop {
        c.reap(32, State::Processing, |mut claim| match claim.job().block {
            0..PROCESSING => answer(claim),
            block => {
                if block >= COPYING {
                    claim.copying().unwrap();
                }
                held.push(claim);
                board.add(HELD);
            }
        });
        if board.get(RELEASE) != 0 {
            held.drain(..).for_each(answer);
        }
        c.park(5_000_000);
    }
}

fn hold(site: &Site) -> Child {
    let child = site.child(holder);
    site.board.wait(READY, 1);
    child
}

/// A backend of slots 0 to 7 that does `f` and is killed then.
fn killed(site: &Site, f: impl FnOnce(&mut Backend<'_>)) {
    let mut child = site.child(|region, board| {
        let mut b = Backend::attach(region, 0, 8).unwrap();
        f(&mut b);
        board.set(OWN, 1);
        hang();
    });
    site.board.wait(OWN, 1);
    site.board.set(OWN, 0);
    child.kill();
}

fn submit(b: &mut Backend<'_>, slot: u32, request: &Request<'_>) -> SlotRef {
    let r = b.fill(slot, request).unwrap();
    b.submit(r).unwrap();
    r
}

/// As a backend that dies between the word and the push.
fn submit_unhinted(region: &Region, b: &mut Backend<'_>, slot: u32, request: &Request<'_>) {
    let r = b.fill(slot, request).unwrap();
    owner::submit(&region.parts().slots[slot as usize], Word::new(State::Filling, r.generation, 0));
}

fn expect(b: &mut Backend<'_>, slot: u32, request: &Request<'_>, fate: Fate) {
    let Leftover { slot: s, request: raw, fate: f, .. } = b.next_leftover(&Wait::for_ms(SOON_MS)).unwrap().unwrap();
    assert_eq!((s, f), (slot, fate));
    assert_eq!(({ raw.opcode }, { raw.block }), (request.opcode as u8, request.block), "slot {slot}");
    assert_eq!(raw.rel(), REL);
}

fn done(value: u64) -> Fate {
    Fate::Completed(Completion::ok(value))
}

#[test]
fn leftovers_that_nobody_claimed_are_withdrawn_or_run() {
    let site = Site::new("unclaimed", 8);
    let image = [77; BLOCK];
    let write = Request::write_page(REL, 9, 1, 0, &image);
    killed(&site, |b| {
        b.fill(0, &read(1)).unwrap();
        submit_unhinted(&site.region, b, 1, &read(2));
        submit(b, 2, &read(3));
        submit_unhinted(&site.region, b, 3, &truncate(4));
        submit(b, 4, &write);
        let r = submit(b, 5, &read(5));
        assert_eq!(b.cancel(r, &NOW), Ok(Cancelled::Withdrawn));
    });
    let mut b = site.backend(0, 8);
    // What was only being filled is nobody's.
    expect(&mut b, 1, &read(2), Fate::Withdrawn);
    expect(&mut b, 2, &read(3), Fate::Withdrawn);
    // Mutations must not be lost, so they need a communicator.
    assert_eq!(b.next_leftover(&Wait::for_ms(50)), Err(Error::CommunicatorGone));
    assert_eq!(b.usable(), 3, "slots 0, 6 and 7");
    let _c = hold(&site);
    expect(&mut b, 3, &truncate(4), done(4));
    expect(&mut b, 4, &write, done(77));
    assert_eq!(b.next_leftover(&NOW), Ok(None));
    assert!(soon(|| b.usable() == 8), "{} slots came back", b.usable());
    assert_eq!(b.counter(OwnerCounter::Leftovers), 4);
    assert_eq!(site.region.parts().role_stats.get(RoleCounter::LostHints), 0);
}

#[test]
fn leftovers_that_a_communicator_holds_are_abandoned_or_waited_for() {
    let site = Site::new("claimed", 8);
    let _c = hold(&site);
    let image = [78; BLOCK];
    let write = Request::write_page(REL, COPYING, 1, 0, &image);
    killed(&site, |b| {
        submit(b, 0, &Request::get_page(REL, PROCESSING, 2, 0));
        submit(b, 1, &read(COPYING));
        submit(b, 2, &truncate(PROCESSING));
        submit(b, 3, &write);
        let r = submit(b, 4, &read(7));
        b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
        let r = submit(b, 5, &read(PROCESSING + 5));
        site.board.wait(HELD, 5);
        assert_eq!(b.cancel(r, &NOW), Ok(Cancelled::Abandoned));
    });
    let mut b = site.backend(0, 8);
    // Of 16 bounce buffers the leftovers keep 6: the communicator may still write there (R5).
    assert_eq!(b.fill(6, &Request::get_page(REL, 1, 11, 0)), Err(Error::NoFreeBuffer));
    let filling = b.fill(6, &Request::get_page(REL, 1, 10, 0)).unwrap();
    b.cancel(filling, &NOW).unwrap();
    // Reads are given up without a wait; the buffers of the second are bounce buffers.
    let none = |l: Option<Leftover>| l.map(|l| (l.slot, l.fate));
    assert_eq!(b.next_leftover(&NOW).map(none), Ok(Some((0, Fate::Abandoned))));
    assert_eq!(b.next_leftover(&NOW).map(none), Ok(Some((1, Fate::Abandoned))));
    assert_eq!(b.next_leftover(&Wait::for_ms(50)), Err(Error::TimedOut), "a claimed mutation runs to its end");
    assert_eq!(b.usable(), 2, "slots 6 and 7");
    site.board.set(RELEASE, 1);
    expect(&mut b, 2, &truncate(PROCESSING), done(u64::from(PROCESSING)));
    expect(&mut b, 3, &write, done(78));
    expect(&mut b, 4, &read(7), done(1));
    assert_eq!(b.next_leftover(&NOW), Ok(None));
    assert!(soon(|| b.usable() == 8), "{} slots came back", b.usable());
    assert_eq!(site.region.parts().role_stats.get(RoleCounter::Freed), 3);
}

#[test]
fn a_stopped_owner_is_not_settled_under_its_feet() {
    let site = Site::new("stopped-owner", 8);
    let mut child = site.child(|region, board| {
        let mut b = Backend::attach(region, 0, 8).unwrap();
        submit(&mut b, 3, &truncate(4));
        board.set(OWN, 1);
        hang();
    });
    site.board.wait(OWN, 1);
    child.stopped(false);
    for (first, count) in [(0, 8), (3, 1), (7, 1)] {
        assert_eq!(Backend::attach(&site.region, first, count).err(), Some(Error::OwnerAlive));
    }
    assert!(owner::look(&site.region.parts().slots[3]).is(State::Submitted));
    child.kill();
    let mut b = site.backend(0, 8);
    let _c = hold(&site);
    expect(&mut b, 3, &truncate(4), done(4));
}

#[test]
fn a_leftover_write_from_a_registered_pool_is_not_run() {
    let site = Site::new("pool-write", 8);
    site.paint(3, 55);
    let image = [66; BLOCK];
    let pool = Request::write_page(REL, 1, 1, 0, &[]).with_buffers(Buffers::Pool(POOL, &[3]));
    let bounce = Request::write_page(REL, 2, 1, 0, &image);
    killed(&site, |b| {
        submit(b, 0, &pool);
        submit(b, 1, &bounce);
    });
    let mut b = site.backend(0, 8);
    expect(&mut b, 0, &pool, Fate::OwnerDead);
    let _c = hold(&site);
    expect(&mut b, 1, &bounce, done(66));
    assert!(soon(|| b.usable() == 8));
}

#[test]
fn a_submitted_write_of_a_dead_owner_is_not_swept_from_a_registered_pool() {
    let site = Site::new("pool-swept", 8);
    site.paint(3, 55);
    let image = [66; BLOCK];
    let pool = Request::write_page(REL, 1, 1, 0, &[]).with_buffers(Buffers::Pool(POOL, &[3]));
    let bounce = Request::write_page(REL, 2, 1, 0, &image);
    killed(&site, |b| {
        submit(b, 0, &pool);
        submit(b, 1, &bounce);
        submit_unhinted(&site.region, b, 2, &pool);
    });
    site.paint(3, 99);
    // No next owner yet: the communicator itself sees that nobody owns them.
    let board = site.board;
    let _c = site.communicator(State::Processing, move |claim| {
        board.add(OWN + 1);
        answer(claim);
    });
    board.wait(OWN + 1, 1);
    let mut b = site.backend(0, 8);
    let dead = Fate::Completed(Completion::fail(libc::EOWNERDEAD));
    expect(&mut b, 0, &pool, dead);
    expect(&mut b, 1, &bounce, done(66));
    expect(&mut b, 2, &pool, dead);
    assert_eq!(board.get(OWN + 1), 1);
}

#[test]
fn a_write_of_a_dead_owner_is_not_taken_anew_from_a_registered_pool() {
    for next_owner_first in [false, true] {
        let site = Site::new(if next_owner_first { "re-taken-1" } else { "re-taken-0" }, 8);
        let mut c = hold(&site);
        site.paint(3, 55);
        let image = [66; BLOCK];
        let pool = Request::write_page(REL, PROCESSING, 1, 0, &[]).with_buffers(Buffers::Pool(POOL, &[3]));
        let bounce = Request::write_page(REL, PROCESSING + 1, 1, 0, &image);
        killed(&site, |b| {
            submit(b, 0, &pool);
            submit(b, 1, &bounce);
            site.board.wait(HELD, 2);
        });
        c.kill();
        // The buffer is somebody else's by now. A living next owner of the slots proves nothing about it.
        site.paint(3, 99);
        let mut b = next_owner_first.then(|| site.backend(0, 8));
        let _c = site.communicator(State::Processing, answer);
        let b = b.get_or_insert_with(|| site.backend(0, 8));
        expect(b, 0, &pool, Fate::Completed(Completion::fail(libc::EOWNERDEAD)));
        expect(b, 1, &bounce, done(66));
    }
}

#[test]
fn a_write_of_a_living_owner_is_taken_anew_from_a_registered_pool() {
    let site = Site::new("living", 8);
    let mut c = hold(&site);
    let mut b = site.backend(0, 8);
    site.paint(3, 55);
    let pool = Request::write_page(REL, COPYING, 1, 0, &[]).with_buffers(Buffers::Pool(POOL, &[3]));
    let r = submit(&mut b, 0, &pool);
    site.board.wait(HELD, 1);
    c.kill();
    let _c = site.communicator(State::Processing, answer);
    b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
    assert_eq!(b.finish(r).unwrap(), Completion::ok(55));
}

#[test]
fn a_detach_runs_the_writes_that_were_submitted_and_gives_reads_up() {
    let site = Site::new("detach", 8);
    let mut b = site.backend(0, 8);
    site.paint(3, 55);
    let pool = Request::write_page(REL, 1, 1, 0, &[]).with_buffers(Buffers::Pool(POOL, &[3]));
    submit(&mut b, 0, &pool);
    submit(&mut b, 1, &read(1));
    b.fill(2, &read(2)).unwrap();
    assert_eq!(b.detach(&Wait::for_ms(50)), Err(Error::CommunicatorGone));
    let board = site.board;
    let _c = site.communicator(State::Processing, move |claim| {
        if claim.job().opcode == Opcode::WritePage {
            board.add(OWN);
        }
        answer(claim);
    });
    assert_eq!(b.detach(&Wait::for_ms(SOON_MS)), Ok(2));
    assert_eq!(board.get(OWN), 1);
    assert!(soon(|| b.usable() == 8));
}
