//! Cancelling against communicators that are stopped and killed: never a late byte (I2).
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod support;

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use shmuring::backend::{Backend, Cancelled, SlotRef, Wait};
use shmuring::communicator::{Claim, Withdrawn};
use shmuring::error::Error;
use shmuring::request::{Buffers, Completion, Opcode, Request};
use shmuring::slot::{owner, State};
use support::process::{answer, Child, Site, BLOCK, HELD, OWN, POOL, REL, RELEASE};
use support::soon;

const NOW: Wait<'_> = Wait { until: 0, interrupt: None };
const SOON_MS: u64 = 15_000;
const INDEX: u32 = 5;
/// What a late communicator found: 1 withdrawn, 2 completed.
const FOUND: usize = OWN;

fn bounce() -> Request<'static> {
    Request::get_page(REL, 0xEE, 1, 0)
}

fn pool() -> Request<'static> {
    bounce().with_buffers(Buffers::Pool(POOL, &[INDEX]))
}

/// A communicator that stops itself at its first request, in Processing or in the middle of its Copying, and goes on with
/// it when it is continued.
fn stopping(site: &Site, copying: bool) -> Child {
    let board = site.board;
    site.communicator(State::Processing, move |mut claim: Claim<'_>| {
        if board.add(HELD) > 0 {
            return answer(claim);
        }
        if !copying {
            stop();
        }
        let found = claim.copying().map(|mut copying_now| {
            if copying {
                stop();
            }
            copying_now.deliver(0, &[0xEE; BLOCK]).unwrap();
        });
        let found = found.and_then(|()| claim.complete(Completion::ok(1)));
        board.set(FOUND, if found == Err(Withdrawn) { 1 } else { 2 });
    })
}

fn stop() {
    // SAFETY: a system call on a number.
    assert_eq!(unsafe { libc::raise(libc::SIGSTOP) }, 0);
}

fn submit(b: &mut Backend<'_>, slot: u32, request: &Request<'_>) -> SlotRef {
    let r = b.fill(slot, request).unwrap();
    b.submit(r).unwrap();
    r
}

fn state(site: &Site, r: SlotRef) -> Option<State> {
    owner::look(&site.region.parts().slots[r.slot as usize]).state()
}

/// A request in the middle of which its communicator has stopped itself.
fn caught<'s>(site: &'s Site, copying: bool, request: &Request<'_>) -> (Child, Backend<'s>, SlotRef) {
    site.paint(INDEX, 0x11);
    let mut c = stopping(site, copying);
    let mut b = site.backend(0, 4);
    let r = submit(&mut b, 0, request);
    c.stopped(true);
    assert_eq!(state(site, r), Some(if copying { State::Copying } else { State::Processing }));
    (c, b, r)
}

#[test]
fn a_read_is_cancelled_at_once_and_its_late_communicator_writes_nothing() {
    for (name, copying, request) in
        [("bounce-p", false, bounce()), ("bounce-c", true, bounce()), ("pool-p", false, pool())]
    {
        let site = Site::new(name, 4);
        let (c, mut b, r) = caught(&site, copying, &request);
        // No wait is allowed, and none is needed.
        assert_eq!(b.cancel(r, &NOW), Ok(Cancelled::Abandoned), "{name}");
        site.paint(INDEX, 0x22);
        // A bounce block stays with its slot, so that a late byte lands in nobody else's.
        let all_but_one = Request::get_page(REL, 1, 8, 0);
        if matches!(request.buffers, Buffers::Bounce) {
            assert_eq!(b.fill(1, &all_but_one).err(), Some(Error::NoFreeBuffer), "{name}");
        }
        c.go_on();
        site.board.wait(FOUND, 1);
        assert_eq!(site.board.get(FOUND), 1, "{name}: the late communicator completed it");
        assert_eq!(site.look(INDEX), [0x22; BLOCK], "{name}: a late byte");
        assert_eq!(state(&site, r), Some(State::Idle), "{name}");
        b.fill(1, &all_but_one).unwrap();
    }
}

#[test]
fn a_copying_into_a_registered_pool_is_waited_out_while_the_communicator_lives() {
    let site = Site::new("pool-stopped", 4);
    let (c, mut b, r) = caught(&site, true, &pool());
    for _ in 0..2 {
        let begin = Instant::now();
        assert_eq!(b.cancel(r, &Wait::for_ms(150)), Err(Error::TimedOut));
        assert!(begin.elapsed() >= Duration::from_millis(150));
        assert_eq!(state(&site, r), Some(State::Copying), "the request stands");
    }
    let attention = AtomicU32::new(1);
    let interrupt = Wait { until: u64::MAX, interrupt: Some(&attention) };
    assert_eq!(b.cancel(r, &interrupt), Err(Error::Interrupted));
    // Continued, it ends, and the cancel that waits hears of it.
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            c.go_on();
        });
        assert_eq!(b.cancel(r, &Wait::for_ms(SOON_MS)), Err(Error::AlreadyCompleted));
    });
    assert_eq!(site.look(INDEX), [0xEE; BLOCK]);
    assert_eq!(b.finish(r).unwrap(), Completion::ok(1));
}

#[test]
fn a_copying_into_a_registered_pool_is_cancelled_when_its_communicator_is_dead() {
    let site = Site::new("pool-killed", 4);
    let (mut c, mut b, r) = caught(&site, true, &pool());
    std::thread::scope(|s| {
        let killer = s.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            c.kill();
        });
        assert_eq!(b.cancel(r, &Wait::for_ms(SOON_MS)), Ok(Cancelled::Abandoned));
        killer.join().unwrap();
    });
    site.paint(INDEX, 0x22);
    // A successor does not deliver it either.
    let _next = site.communicator(State::Processing, answer);
    assert!(soon(|| state(&site, r) == Some(State::Idle)));
    assert_eq!(site.look(INDEX), [0x22; BLOCK]);
    let r = submit(&mut b, 1, &pool());
    b.wait(r, &Wait::for_ms(SOON_MS)).unwrap();
    assert_eq!(site.look(INDEX), [0xEE; BLOCK]);
}

#[test]
fn a_cancel_that_meets_a_successor_proves_the_death_by_its_epoch() {
    let site = Site::new("pool-epoch", 4);
    let (mut c, mut b, r) = caught(&site, true, &pool());
    c.kill();
    // The role is held by another now, who has raised the epoch and got no further.
    let parts = site.region.parts();
    let lock = site.region.lock_file().unwrap();
    assert!(soon(|| lock.try_lock(shmuring::liveness::ROLE_BYTE, 1).unwrap()));
    assert_eq!(b.cancel(r, &Wait::for_ms(50)), Err(Error::TimedOut), "held, and of the claim's own epoch");
    parts.header.role.epoch.fetch_add(1, Relaxed);
    assert_eq!(b.cancel(r, &NOW), Ok(Cancelled::Abandoned));
}

#[test]
fn a_signal_ends_a_cancel_that_waits() {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: zeros are a sigaction; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    let site = Site::new("pool-signal", 4);
    let (_c, mut b, r) = caught(&site, true, &pool());
    // SAFETY: asks for the caller's own id.
    let this = unsafe { libc::pthread_self() };
    std::thread::scope(|s| {
        s.spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            for _ in 0..20 {
                // Again, should it come between two sleeps. SAFETY: the thread waits for the end of the scope.
                assert_eq!(unsafe { libc::pthread_kill(this, libc::SIGUSR1) }, 0);
                std::thread::sleep(Duration::from_millis(7));
            }
        });
        assert_eq!(b.cancel(r, &Wait::for_ms(SOON_MS)), Err(Error::Interrupted));
    });
}

#[test]
fn a_mutation_is_cancelled_only_while_nobody_has_claimed_it() {
    let site = Site::new("mutation", 4);
    let mut b = site.backend(0, 4);
    let unclaimed = submit(&mut b, 0, &Request::new(Opcode::Create, REL));
    assert_eq!(b.cancel(unclaimed, &NOW), Ok(Cancelled::Withdrawn));
    let board = site.board;
    let c = site.communicator(State::Processing, move |claim| {
        board.add(HELD);
        board.wait(RELEASE, 1);
        answer(claim);
    });
    let claimed = submit(&mut b, 1, &Request::new(Opcode::Create, REL));
    site.board.wait(HELD, 1);
    assert_eq!(b.cancel(claimed, &Wait::for_ms(SOON_MS)), Err(Error::InProgress));
    // Not even when the communicator is dead: it may have run.
    drop(c);
    assert_eq!(b.cancel(claimed, &Wait::for_ms(SOON_MS)), Err(Error::InProgress));
    site.board.set(RELEASE, 1);
    let _next = site.communicator(State::Processing, answer);
    b.wait(claimed, &Wait::for_ms(SOON_MS)).unwrap();
    assert!(b.finish(claimed).unwrap().is_ok());
}

#[test]
fn a_mutation_that_is_forgotten_gives_its_slot_back_when_it_is_over() {
    let site = Site::new("forgotten", 4);
    let mut b = site.backend(0, 1);
    let board = site.board;
    let _c = site.communicator(State::Processing, move |claim| {
        if board.add(HELD) == 0 {
            board.wait(RELEASE, 1);
        }
        answer(claim);
    });
    let soon = Wait::for_ms(200);
    assert_eq!(b.call(&Request::new(Opcode::Create, REL), &soon, &mut []).err(), Some(Error::InProgress));
    assert_eq!(b.free_slot(), Err(Error::NoFreeSlot));
    assert_eq!(b.wait_free(&Wait::for_ms(50)), Err(Error::TimedOut));
    site.board.set(RELEASE, 1);
    assert_eq!(b.wait_free(&Wait::for_ms(SOON_MS)), Ok(0));
    // The next request of the slot is not taken for the forgotten one.
    let next = submit(&mut b, 0, &Request::new(Opcode::Create, REL));
    b.wait(next, &Wait::for_ms(SOON_MS)).unwrap();
    assert_eq!(b.free_slot(), Err(Error::NoFreeSlot));
    assert_eq!(b.wait_free(&Wait::for_ms(SOON_MS)), Err(Error::NoFreeSlot));
    assert!(b.finish(next).unwrap().is_ok());
    assert_eq!(b.forget(next), Err(Error::Stale));
    let filling = b.fill(0, &Request::new(Opcode::Create, REL)).unwrap();
    assert_eq!(b.forget(filling), Err(Error::NotFilling));
}
