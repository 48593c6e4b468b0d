//! Communicators killed with requests in every state, and what their successor makes of them.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod support;

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use shmuring::backend::{Backend, Cancelled, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator};
use shmuring::error::Error;
use shmuring::futex::{self, Outcome};
use shmuring::request::{Completion, Opcode, Request};
use shmuring::ring::{empty, Producer};
use shmuring::slot::{communicator, owner, State};
use shmuring::stats::RoleCounter;
use support::process::{answer, hang, serve, take_role, Board, Child, Site, BLOCK, HELD, OWN, READY, REL};
use support::soon;

const NOW: Wait<'_> = Wait { until: 0, interrupt: None };
const SOON_MS: u64 = 15_000;
/// Requests for blocks from here on are to be in Copying when the communicator dies.
const COPYING: u32 = 2000;
/// How many requests the communicator is to claim; later ones stay Submitted.
const LIMIT: usize = OWN;
/// What a successor inherited, in order.
const MUTATIONS: usize = 100;
const READS: usize = 200;
/// What it claimed afterwards.
const SWEPT: usize = 300;

fn read(block: u32) -> Request<'static> {
    Request::get_page(REL, block, 1, 0)
}

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

/// A communicator that claims LIMIT requests and holds them until it is killed.
fn holder(site: &Site, limit: u32) -> Child {
    site.board.set(LIMIT, limit);
    let child = site.child(|region, board| {
        let parts = region.parts();
        let (mut c, _) = take_role(region, &parts);
        board.set(READY, c.epoch());
        let mut held: Vec<Claim<'_>> = Vec::new();
        while board.get(HELD) < board.get(LIMIT) {
            c.reap(1, State::Processing, |mut claim| {
                if claim.job().block >= COPYING {
                    claim.copying().unwrap();
                }
                held.push(claim);
                board.add(HELD);
            });
        }
        hang();
    });
    site.board.wait(READY, 1);
    child
}

/// A successor that notes what it gets.
fn successor(site: &Site) -> Child {
    site.child(|region, board| {
        let parts = region.parts();
        let (mut c, inherited) = take_role(region, &parts);
        let note = |list, claims: &[Claim<'_>]| {
            for claim in claims {
                assert!(claim.is_again());
                board.note(list, claim.job().block);
            }
        };
        note(MUTATIONS, &inherited.mutations);
        note(READS, &inherited.reads);
        board.set(READY, c.epoch());
        inherited.mutations.into_iter().chain(inherited.reads).for_each(answer);
        let mut swept = |claim: Claim<'_>| {
            assert!(!claim.is_again());
            board.note(SWEPT, claim.job().block);
            answer(claim);
        };
        c.sweep(State::Processing, &mut swept);
        loop {
            c.reap(32, State::Processing, &mut swept);
            c.audit(State::Processing, &mut swept);
            c.park(10_000_000);
        }
    })
}

#[test]
fn a_successor_finishes_everything_in_the_order_of_the_claims() {
    let site = Site::new("take-over", 16);
    let mut first = holder(&site, 8);
    let mut b = site.backend(0, 16);
    let mut requests = Vec::new();
    // One after the other, so that they are claimed in this order, which is not that of the slots.
    let claimed = [
        (9, truncate(1)),
        (2, read(COPYING)),
        (5, truncate(COPYING + 1)),
        (11, truncate(2)),
        (1, read(3)),
        (0, truncate(4)),
        (3, read(5)),
        (4, read(COPYING + 6)),
    ];
    for (n, (slot, request)) in (1..).zip(&claimed) {
        requests.push((submit(&mut b, *slot, request), request.block, request.opcode));
        site.board.wait(HELD, n);
    }
    // These are cancelled while it holds them.
    for slot in [3, 4] {
        let i = requests.iter().position(|(r, ..)| r.slot == slot).unwrap();
        assert_eq!(b.cancel(requests.remove(i).0, &NOW), Ok(Cancelled::Abandoned));
    }
    // And these it never claims.
    for (slot, request) in [(15, truncate(7)), (14, read(8))] {
        requests.push((submit(&mut b, slot, &request), request.block, request.opcode));
    }
    let withdrawn = submit(&mut b, 13, &read(9));
    assert_eq!(b.cancel(withdrawn, &NOW), Ok(Cancelled::Withdrawn));
    first.kill();
    assert_eq!(b.wait(requests[0].0, &Wait::for_ms(20)), Err(Error::CommunicatorGone));

    let _next = successor(&site);
    for (r, block, opcode) in requests {
        b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
        if opcode == Opcode::GetPage {
            assert_eq!(b.page(r, 0).unwrap(), [block as u8; BLOCK]);
        }
        let value = if opcode == Opcode::GetPage { 1 } else { u64::from(block) };
        assert_eq!(b.finish(r).unwrap(), Completion::ok(value));
    }
    assert!(soon(|| b.usable() == 16), "{} slots came back", b.usable());
    let parts = site.region.parts();
    assert_eq!(site.board.get(READY), 2, "the epoch rises");
    assert_eq!(parts.header.role.epoch.load(Relaxed), 2);
    assert_eq!(site.board.list(MUTATIONS), [1, COPYING + 1, 2, 4], "in the order of their claims");
    assert_eq!(site.board.list(READS), [3, COPYING]);
    let mut swept = site.board.list(SWEPT);
    swept.sort_unstable();
    assert_eq!(swept, [7, 8], "each once");
    let count = |c| parts.role_stats.get(c);
    assert_eq!(count(RoleCounter::TakeOvers), 1);
    assert_eq!(count(RoleCounter::Reclaimed), 6);
    assert_eq!(count(RoleCounter::Freed), 3);
    assert_eq!(count(RoleCounter::LostHints) + count(RoleCounter::Damage) + count(RoleCounter::BadWords), 0);
}

#[test]
fn the_order_of_claims_outlives_several_deaths() {
    let site = Site::new("several", 8);
    let mut b = site.backend(0, 8);
    let order = [6, 1, 4, 3, 7];
    let mut first = holder(&site, 3);
    let mut requests = Vec::new();
    for (n, slot) in (1..).zip(&order[..3]) {
        requests.push(submit(&mut b, *slot, &truncate(*slot)));
        site.board.wait(HELD, n);
    }
    first.kill();
    // The second inherits three and claims two more, and answers none.
    let mut second = site.child(|region, board| {
        let parts = region.parts();
        let (mut c, inherited) = take_role(region, &parts);
        let mut held = inherited.mutations;
        while held.len() < 5 {
            c.reap(1, State::Processing, |claim| held.push(claim));
            board.set(HELD, held.len() as u32);
        }
        hang();
    });
    for (n, slot) in (4..).zip(&order[3..]) {
        requests.push(submit(&mut b, *slot, &truncate(*slot)));
        site.board.wait(HELD, n);
    }
    second.kill();
    let _third = successor(&site);
    for r in requests {
        b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
        assert_eq!({ b.finish(r).unwrap().value }, u64::from(r.slot));
    }
    assert_eq!(site.board.list(MUTATIONS), order);
    assert_eq!(site.board.get(READY), 3);
}

#[test]
fn a_successor_wakes_who_sleeps_on_a_completed_word() {
    let site = Site::new("unwoken", 8);
    let mut b = site.backend(0, 8);
    let r = submit(&mut b, 2, &truncate(1));
    // Completes the request once somebody waits for it, and dies before it wakes them.
    let mut first = site.child(|region, _| {
        let parts = region.parts();
        let (mut c, _) = Communicator::take_role(region, &parts).unwrap();
        let mut held = Vec::new();
        while held.is_empty() {
            c.reap(1, State::Processing, |claim| held.push(claim));
        }
        let slot = &parts.slots[2];
        assert!(soon(|| communicator::look(slot).waiter()));
        std::thread::sleep(Duration::from_millis(200));
        let _owed = communicator::complete(slot, communicator::look(slot)).unwrap();
        // SAFETY: a system call on numbers.
        unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    });
    let parts = site.region.parts();
    let slot = &parts.slots[2];
    std::thread::scope(|s| {
        let sleeper = s.spawn(|| {
            assert!(soon(|| communicator::look(slot).is(State::Processing)));
            let marked = owner::set_waiter(slot, owner::look(slot)).unwrap();
            // One long sleep, where a backend's ends every second.
            (futex::wait(&slot.word, marked.low(), 15_000_000_000, false), Instant::now())
        });
        first.wait_for_death();
        assert!(owner::look(slot).is(State::Completed) && owner::look(slot).waiter());
        std::thread::sleep(Duration::from_millis(100));
        assert!(!sleeper.is_finished(), "woken by nobody");
        let begin = Instant::now();
        let _next = site.communicator(State::Processing, answer);
        let (outcome, at) = sleeper.join().unwrap();
        assert_eq!(outcome, Outcome::Woken);
        assert!(at.saturating_duration_since(begin) < Duration::from_secs(5));
    });
    assert!(b.finish(r).is_ok());
}

#[test]
fn a_deadline_that_passes_after_the_claim_does_not_end_a_mutation() {
    let site = Site::new("deadline", 8);
    let mut c = holder(&site, 1);
    let mut b = site.backend(0, 8);
    let r = submit(&mut b, 0, &Request { deadline: Some(u64::MAX), ..truncate(7) });
    site.board.wait(HELD, 1);
    c.kill();
    // As if it had passed meanwhile.
    // SAFETY: the communicator is dead, and nobody else looks.
    site.region.parts().slots[0].control.with_mut(|p| unsafe { (*p).extra.deadline = 1 });
    let _c = site.communicator(State::Processing, answer);
    b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
    // It may have run, so that nothing but its own answer is one (R4).
    assert_eq!(b.finish(r).unwrap(), Completion::ok(7));
}

#[test]
fn a_stopped_communicator_keeps_the_role() {
    let site = Site::new("role-held", 8);
    let mut c = site.communicator(State::Processing, answer);
    c.stopped(false);
    let parts = site.region.parts();
    assert_eq!(Communicator::take_role(&site.region, &parts).err(), Some(Error::RoleHeld));
    assert_eq!(parts.header.role.epoch.load(Relaxed), 1, "the refused one raised the epoch");
    c.go_on();
    let mut b = site.backend(0, 8);
    let r = submit(&mut b, 0, &truncate(1));
    b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
    c.stopped(false);
    c.kill();
    assert_eq!(take_role(&site.region, &parts).0.epoch(), 2);
}

#[test]
fn hints_that_a_dead_communicator_took_with_it_are_not_needed() {
    let site = Site::new("lost-hints", 8);
    let mut b = site.backend(0, 8);
    let requests: Vec<_> = (0..8).map(|slot| submit(&mut b, slot, &truncate(slot))).collect();
    b.cancel(requests[7], &NOW).unwrap();
    let parts = site.region.parts();
    // As if it had died after it took all entries, with the last cell reset and the head not stored.
    let (n, head) = (parts.cells.len() as u64, parts.header.head.0.load(Relaxed));
    for ticket in head..head + 8 {
        parts.cells[(ticket % n) as usize].0.store(empty(ticket / n + 1), Relaxed);
    }
    parts.header.head.0.store(head + 7, Relaxed);
    let _c = site.communicator(State::Processing, answer);
    for r in &requests[..7] {
        b.wait(*r, &Wait::for_ms(SOON_MS)).unwrap();
        assert_eq!({ b.finish(*r).unwrap().value }, u64::from(r.slot));
    }
    assert!(soon(|| b.usable() == 8));
    for stat in [RoleCounter::LostHints, RoleCounter::Unhinted, RoleCounter::Damage] {
        assert_eq!(parts.role_stats.get(stat), 0, "{stat:?}");
    }
}

/// Kills whoever serves, again and again; each request is answered once and rightly.
#[test]
fn nothing_is_lost_over_any_number_of_deaths() {
    const DEATHS: u32 = 60;
    let site = Site::new("deaths", 8);
    let board: Board = site.board;
    std::thread::scope(|s| {
        let site = &site;
        let worker = s.spawn(move || {
            let mut b = site.backend(0, 8);
            for round in 0.. {
                if board.get(READY) >= DEATHS {
                    break;
                }
                let requests: Vec<_> = (0..8)
                    .map(|slot| submit(&mut b, slot, &if slot % 2 == 0 { read(round + slot) } else { truncate(round) }))
                    .collect();
                for r in requests {
                    b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
                    if r.slot % 2 == 0 {
                        assert_eq!(b.page(r, 0).unwrap(), [(round + r.slot) as u8; BLOCK], "round {round}");
                    }
                    let value = if r.slot % 2 == 0 { 1 } else { u64::from(round) };
                    assert_eq!(b.finish(r).unwrap(), Completion::ok(value));
                }
            }
        });
        let mut nap = 1;
        while !worker.is_finished() {
            let mut c = site.child(|region, board| serve(region, board, State::Processing, answer));
            nap = nap * 7 % 11;
            std::thread::sleep(Duration::from_millis(nap));
            c.kill();
        }
    });
    let parts = site.region.parts();
    assert_eq!(parts.role_stats.get(RoleCounter::LostHints) + parts.role_stats.get(RoleCounter::Damage), 0);
}

#[test]
fn tickets_of_dead_producers_are_stepped_over() {
    let site = Site::new("stepped", 8);
    let _c = site.communicator(State::Processing, answer);
    let parts = site.region.parts();
    let mut b = site.backend(0, 8);
    for round in 0..20 {
        // Dead between ticket and publish.
        parts.header.tail.0.fetch_add(1, Relaxed);
        let r = submit(&mut b, 0, &truncate(round));
        b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
        b.finish(r).unwrap();
    }
    Producer::new().push(&parts, &[5]);
    let r = submit(&mut b, 0, &truncate(1));
    b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
    // Besides them tickets of these pushes, if one of them lost its cpu before it published: three for each at most (I6).
    let stepped_over = || parts.role_stats.get(RoleCounter::SteppedOver);
    assert!(soon(|| stepped_over() >= 20), "{} were stepped over", stepped_over());
    assert!(stepped_over() <= 20 + 3 * 22, "{} were stepped over", stepped_over());
    assert_eq!(parts.role_stats.get(RoleCounter::Damage), 0);
}
