//! Backends and communicators in processes of their own: reads across, waits and what ends them, crowds.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod support;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::error::{Error, Result};
use shmuring::futex::{self, Outcome, Watch};
use shmuring::request::{Opcode, Request};
use shmuring::slot::State;
use shmuring::stats::{OwnerCounter, RoleCounter};
use support::process::{answer, take_role, Site, BLOCK, OWN, REL, STOP};
use support::{soon, SOON};

#[test]
fn reads_and_writes_cross_processes() {
    let site = Site::new("cross", 16);
    for to in [State::Copying, State::Processing] {
        let mut c = site.communicator(to, answer);
        let mut b = site.backend(0, 16);
        for block in 0..300 {
            let mut pages = [0; 3 * BLOCK];
            let done = b.call(&Request::get_page(REL, block, 3, 0), &Wait::for_ms(5000), &mut pages).unwrap();
            assert_eq!({ done.value }, 3);
            assert!(pages.chunks(BLOCK).zip(block..).all(|(page, n)| page == [n as u8; BLOCK]));
            let image = [block as u8; BLOCK];
            let done = b.call(&Request::write_page(REL, block, 1, 0, &image), &Wait::for_ms(5000), &mut []).unwrap();
            assert_eq!({ done.value }, u64::from(block as u8));
        }
        site.board.set(STOP, 1);
        c.ended();
        site.board.set(STOP, 0);
    }
    assert_eq!(site.region.parts().role_stats.get(RoleCounter::LostHints), 0);
}

#[test]
fn a_wait_without_a_communicator_ends_at_its_deadline() {
    let site = Site::new("gone", 4);
    let mut b = site.backend(0, 4);
    let r = submitted(&mut b, 1);
    let begin = Instant::now();
    assert_eq!(b.wait(r, &Wait::for_ms(200)), Err(Error::CommunicatorGone));
    assert_eq!(b.wait_any(&[r], &Wait::for_ms(200)), Err(Error::CommunicatorGone));
    assert!(begin.elapsed() >= Duration::from_millis(400) && begin.elapsed() < Duration::from_secs(5));
    // The request stands, and one who comes during the wait answers it.
    let path = &site;
    std::thread::scope(|s| {
        s.spawn(move || {
            std::thread::sleep(Duration::from_millis(200));
            let mut c = path.communicator(State::Copying, answer);
            path.board.wait(OWN, 1);
            c.kill();
        });
        b.wait(r, &Wait::for_ms(15_000)).unwrap();
        site.board.set(OWN, 1);
    });
    assert!(b.finish(r).unwrap().is_ok());
}

#[test]
fn a_communicator_that_is_stopped_times_a_wait_out() {
    let site = Site::new("stopped", 4);
    let mut c = site.communicator(State::Copying, answer);
    c.stopped(false);
    let mut b = site.backend(0, 4);
    let r = submitted(&mut b, 1);
    assert_eq!(b.wait(r, &Wait::for_ms(150)), Err(Error::TimedOut));
    assert_eq!(b.wait_any(&[r], &Wait::for_ms(150)), Err(Error::TimedOut));
    c.go_on();
    b.wait(r, &Wait::for_ms(15_000)).unwrap();
    assert!(b.finish(r).unwrap().is_ok());
}

fn submitted(b: &mut Backend<'_>, block: u32) -> SlotRef {
    let slot = b.free_slot().unwrap();
    let r = b.fill(slot, &Request::get_page(REL, block, 1, 0)).unwrap();
    b.submit(r).unwrap();
    r
}

/// Set by the handlers below, if told to.
static ATTENTION: AtomicU32 = AtomicU32::new(0);
static SETS_ATTENTION: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: libc::c_int) {
    ATTENTION.store(SETS_ATTENTION.load(SeqCst), SeqCst);
}

fn handle(signal: libc::c_int, flags: libc::c_int) {
    // SAFETY: zeros are a sigaction; the handler stores to an atomic, no more.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
    }
}

/// How a wait ends whose thread is sent `signal` a while after it began, and how long after that.
fn signalled(
    site: &Site,
    signal: libc::c_int,
    delay: Duration,
    wait: impl FnOnce(&mut Backend<'_>, SlotRef, Wait<'_>) -> Result<()> + Send,
) -> (Result<()>, Duration) {
    ATTENTION.store(0, SeqCst);
    let mut b = site.backend(0, 4);
    let r = submitted(&mut b, 1);
    let (parts, before) = (site.region.parts(), b.counter(OwnerCounter::FutexWaits));
    let (id, target) = (AtomicU32::new(0), AtomicU64::new(0));
    let (ended, end) = mpsc::channel();
    let got = std::thread::scope(|s| {
        let (id, target) = (&id, &target);
        s.spawn(move || {
            // SAFETY: asks for the caller's own id.
            target.store(unsafe { libc::pthread_self() }, SeqCst);
            let result = wait(&mut b, r, Wait::for_ms(10_000));
            ended.send((result, Instant::now())).unwrap();
            // Stays until the signal was sent.
            while id.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            b.cancel(r, &Wait::for_ms(100)).unwrap();
        });
        assert!(soon(|| parts.owner_stats[0].get(OwnerCounter::FutexWaits) > before));
        std::thread::sleep(delay);
        let sent = Instant::now();
        // SAFETY: the thread waits for `id`, so it has not ended.
        assert_eq!(unsafe { libc::pthread_kill(target.load(SeqCst), signal) }, 0);
        let got = end.recv_timeout(SOON).map(|(result, at)| (result, at.saturating_duration_since(sent)));
        id.store(1, SeqCst);
        got.unwrap()
    });
    // Gives the slot back.
    drop(take_role(&site.region, &parts));
    got
}

#[test]
fn a_signal_or_the_interrupt_word_ends_a_wait_at_once() {
    handle(libc::SIGUSR1, 0);
    handle(libc::SIGUSR2, libc::SA_RESTART);
    let site = Site::new("signals", 4);
    let at_once = Duration::from_millis(500);
    let asleep = Duration::from_millis(20);
    let check = |what: &str, got: (Result<()>, Duration), bound: Duration| {
        assert_eq!(got.0, Err(Error::Interrupted), "{what}");
        assert!(got.1 < bound, "{what}: {:?}", got.1);
    };
    for signal in [libc::SIGUSR1, libc::SIGUSR2] {
        SETS_ATTENTION.store(0, SeqCst);
        check("a wait", signalled(&site, signal, asleep, |b, r, w| b.wait(r, &w)), Duration::from_secs(1));
        SETS_ATTENTION.store(1, SeqCst);
        let watched = |w: Wait<'_>| Wait { until: w.until, interrupt: Some(&ATTENTION) };
        check("a wait with a word", signalled(&site, signal, asleep, |b, r, w| b.wait(r, &watched(w))), at_once);
        let any = signalled(&site, signal, asleep, |b, r, w| b.wait_any(&[r, r], &watched(w)).map(drop));
        check("a wait for any with a word", any, at_once);
        // Whenever it comes, also just before the sleep.
        for i in 0..20 {
            let delay = Duration::from_micros(i * 7);
            check("whenever", signalled(&site, signal, delay, |b, r, w| b.wait(r, &watched(w))), at_once);
        }
    }
    SETS_ATTENTION.store(0, SeqCst);
    let any = signalled(&site, libc::SIGUSR1, asleep, |b, r, w| b.wait_any(&[r], &w).map(drop));
    check("a wait for any", any, Duration::from_secs(1));
}

#[test]
fn an_interrupt_word_set_before_the_sleep_is_seen_by_the_kernel() {
    if !futex::have_waitv() {
        return;
    }
    let (word, interrupt) = (AtomicU32::new(5), AtomicU32::new(1));
    let begin = Instant::now();
    let until = Wait::for_ms(5000).until;
    let outcome = futex::wait_any(&[Watch::new(&word, 5, false), Watch::new(&interrupt, 0, true)], until);
    assert_eq!(outcome, Outcome::Changed);
    assert!(begin.elapsed() < Duration::from_secs(2));
}

#[test]
fn eight_processes_on_few_cpus_all_make_progress() {
    const BACKENDS: u32 = 8;
    const ROUNDS: u32 = 200;
    let site = Site::new("crowd", BACKENDS * 4);
    let _c = site.communicator(State::Processing, answer);
    let backends: Vec<_> = (0..BACKENDS)
        .map(|n| {
            site.child(move |region, board| {
                let mut b = Backend::attach(region, n * 4, 4).unwrap();
                for round in 0..ROUNDS {
                    let mut page = [0; BLOCK];
                    let wait = Wait::for_ms(10_000);
                    b.call(&Request::get_page(REL, round, 1, 0), &wait, &mut page).unwrap();
                    assert_eq!(page, [round as u8; BLOCK]);
                    b.call(&Request::new(Opcode::RelSize, REL), &wait, &mut []).unwrap();
                    board.set(OWN + n as usize, round + 1);
                }
            })
        })
        .collect();
    for (n, mut backend) in backends.into_iter().enumerate() {
        site.board.wait(OWN + n, ROUNDS);
        backend.ended();
    }
    let stats = site.region.parts().role_stats;
    assert_eq!(stats.get(RoleCounter::LostHints) + stats.get(RoleCounter::Damage), 0);
}
