//! What becomes of claims and hints while everybody lives: dropped claims, full rings, the audit, batches, deadlines.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use shmuring::backend::{Backend, Cancelled, SlotRef, Wait};
use shmuring::clock;
use shmuring::communicator::{Claim, Communicator, Gather, Withdrawn};
use shmuring::error::Error;
use shmuring::parts::Parts;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, Opcode, RelTag, Request};
use shmuring::ring::{Consumer, Producer};
use shmuring::slot::{owner, State, Word};
use shmuring::stats::{OwnerCounter, RoleCounter};

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
const NOW: Wait<'_> = Wait { until: 0, interrupt: None };
const SLOTS: u32 = 8;
/// Longer than two audits.
const BOUND: Duration = Duration::from_secs(4);

fn region() -> Region {
    Region::create_private(&Options { bounce_per_slot: 1, block_size: 512, ..Options::new(SLOTS) }).unwrap()
}

fn nop() -> Request<'static> {
    Request::new(Opcode::Nop, REL)
}

fn submit(b: &mut Backend<'_>, request: &Request<'_>) -> SlotRef {
    let slot = b.free_slot().unwrap();
    let r = b.fill(slot, request).unwrap();
    b.submit(r).unwrap();
    r
}

fn complete(claim: Claim<'_>) {
    claim.complete(Completion::ok(1)).unwrap();
}

fn count(parts: &Parts<'_>, counter: RoleCounter) -> u64 {
    parts.role_stats.get(counter)
}

fn claimed<'r>(c: &mut Communicator<'r>, to: State) -> Claim<'r> {
    let mut claims = Vec::new();
    c.reap(1, to, |claim| claims.push(claim));
    claims.pop().unwrap()
}

#[test]
fn a_dropped_claim_completes_with_ecanceled() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    for to in [State::Processing, State::Copying] {
        let r = submit(&mut b, &nop());
        drop(claimed(&mut c, to));
        assert_eq!(b.finish(r), Ok(Completion::fail(libc::ECANCELED)));
    }
    // So does one whose task panics.
    let r = submit(&mut b, &nop());
    let claim = claimed(&mut c, State::Processing);
    std::thread::scope(|s| {
        let task = s.spawn(move || {
            let _claim = claim;
            std::panic::resume_unwind(Box::new("a task that panics"));
        });
        assert!(task.join().is_err());
    });
    b.wait(r, &Wait::for_ms(100)).unwrap();
    assert_eq!(b.finish(r), Ok(Completion::fail(libc::ECANCELED)));
    assert_eq!(count(&parts, RoleCounter::Dropped), 3);
}

#[test]
fn a_read_that_failed_has_no_pages() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    let read = Request::get_page(REL, 7, 1, 0);
    for fails in [false, true] {
        let r = submit(&mut b, &read);
        let mut claim = claimed(&mut c, State::Copying);
        if fails {
            claim.fail(libc::EIO, 0, 1).unwrap();
            // What an earlier request had is still in the block.
            assert_eq!(b.page(r, 0).err(), Some(Error::BadBuffer));
            assert_eq!(b.copy_out(r, 0, &mut [0; 512]), Err(Error::BadBuffer));
            assert_eq!(b.result(r), Ok(Completion { attempts: 1, ..Completion::fail(libc::EIO) }));
        } else {
            claim.copying().unwrap().deliver(0, &[7; 512]).unwrap();
            complete(claim);
            assert_eq!(b.page(r, 0), Ok(&[7; 512][..]));
        }
        b.finish(r).unwrap();
    }
}

#[test]
fn a_forgotten_request_is_not_taken_for_a_later_one_of_its_generation() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, 1).unwrap();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    let create = Request::new(Opcode::Create, REL);
    let forgotten = submit(&mut b, &create);
    b.forget(forgotten).unwrap();
    complete(claimed(&mut c, State::Processing));
    assert_eq!(b.free_slot(), Ok(0), "it is taken back");
    // 2^24 requests later the generation is the same.
    parts.slots[0].word.store(Word::new(State::Idle, forgotten.generation, 0).bits(), Relaxed);
    let next = submit(&mut b, &create);
    assert_eq!(next, forgotten);
    complete(claimed(&mut c, State::Processing));
    assert_eq!(b.free_slot(), Err(Error::NoFreeSlot), "its answer waits for whoever asked");
    assert_eq!(b.finish(next), Ok(Completion::ok(1)));
}

#[test]
fn a_forgotten_request_that_is_finished_after_all_takes_no_later_answer_with_it() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, 1).unwrap();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    let create = Request::new(Opcode::Create, REL);
    let forgotten = submit(&mut b, &create);
    b.forget(forgotten).unwrap();
    complete(claimed(&mut c, State::Processing));
    assert_eq!(b.finish(forgotten), Ok(Completion::ok(1)));
    let next = submit(&mut b, &create);
    complete(claimed(&mut c, State::Processing));
    assert_eq!(b.free_slot(), Err(Error::NoFreeSlot), "its answer waits for whoever asked");
    assert_eq!(b.finish(next), Ok(Completion::ok(1)));
}

#[test]
fn a_claim_whose_request_was_cancelled_gives_the_slot_back() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    type End = fn(Claim<'_>);
    let ends: [(State, End); 7] = [
        (State::Processing, |claim| assert_eq!(claim.complete(Completion::ok(1)), Err(Withdrawn))),
        (State::Processing, |claim| assert_eq!(claim.fail(libc::EIO, 0, 1), Err(Withdrawn))),
        (State::Processing, |mut claim| assert_eq!(claim.copying().err(), Some(Withdrawn))),
        (State::Processing, |claim| drop(claim)),
        (State::Copying, |claim| assert_eq!(claim.complete(Completion::ok(1)), Err(Withdrawn))),
        (State::Copying, |claim| assert_eq!(claim.fail(libc::EIO, 0, 1), Err(Withdrawn))),
        (State::Copying, |claim| drop(claim)),
    ];
    for (to, end) in ends {
        let r = submit(&mut b, &Request::get_page(REL, 1, 1, 0));
        let claim = claimed(&mut c, to);
        assert!(!claim.is_cancelled());
        assert_eq!(b.cancel(r, &NOW), Ok(Cancelled::Abandoned));
        assert!(claim.is_cancelled());
        assert_eq!(b.usable(), SLOTS - 1);
        end(claim);
        assert_eq!(b.usable(), SLOTS);
        assert_eq!(b.finish(r), Err(Error::Stale));
    }
    let r = submit(&mut b, &Request::get_page(REL, 1, 1, 0));
    let mut claim = claimed(&mut c, State::Copying);
    let mut copying = claim.copying().unwrap();
    copying.deliver(0, &[1; 512]).unwrap();
    assert_eq!(b.cancel(r, &NOW), Ok(Cancelled::Abandoned));
    assert_eq!(copying.suspend(), Err(Withdrawn));
    assert_eq!(claim.complete(Completion::ok(1)), Err(Withdrawn));
    assert_eq!(b.usable(), SLOTS);
    assert_eq!(count(&parts, RoleCounter::Freed), 8);
    assert_eq!(count(&parts, RoleCounter::BadWords), 0);
}

#[test]
fn a_role_is_not_given_up_while_a_claim_may_touch_buffers() {
    for to in [State::Processing, State::Copying] {
        let region = region();
        let parts = region.parts();
        let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
        let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
        let r = submit(&mut b, &Request::get_page(REL, 1, 1, 0));
        let mut claim = claimed(&mut c, to);
        drop(c);
        assert_eq!(Communicator::take_role(&region, &parts).err(), Some(Error::RoleHeld));
        claim.copying().unwrap().deliver(0, &[1; 512]).unwrap();
        complete(claim);
        assert!(b.finish(r).unwrap().is_ok());
    }
    // Without one it is free at once.
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    submit(&mut b, &nop());
    complete(claimed(&mut c, State::Processing));
    submit(&mut b, &nop());
    drop(c);
    assert!(Communicator::take_role(&region, &parts).is_ok());
}

#[test]
fn a_full_ring_loses_nothing() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    // Stale hints, as deaths leave them, in every cell.
    let mut ghost = Producer::new();
    for _ in 0..parts.cells.len() {
        assert_eq!(ghost.push(&parts, &[0]), 0);
    }
    assert_eq!(ghost.push(&parts, &[7]), 1, "a full ring takes no more");
    let requests: Vec<_> = (0..SLOTS).map(|_| submit(&mut b, &nop())).collect();
    assert_eq!(b.counter(OwnerCounter::PendingPushes), u64::from(SLOTS));
    assert!(!Consumer::is_idle(&parts));
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    // By the bits alone, without a sweep.
    let n: usize = (0..4).map(|_| c.reap(64, State::Processing, complete)).sum();
    assert_eq!(n as u32, SLOTS);
    for r in requests {
        assert!(b.finish(r).unwrap().is_ok());
    }
    // The ring is used again, and by the next submit but one at the latest.
    for _ in 0..40 {
        let r = submit(&mut b, &nop());
        while !b.poll(r).unwrap() {
            c.reap(64, State::Processing, complete);
        }
        b.finish(r).unwrap();
    }
    assert!(b.counter(OwnerCounter::PendingPushes) <= u64::from(SLOTS) + 1);
    assert_eq!(count(&parts, RoleCounter::LostHints) + count(&parts, RoleCounter::Damage), 0);
}

#[test]
fn slots_exhausted_by_cancels_come_back_with_a_communicator() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    for round in 0..5 {
        for _ in 0..SLOTS {
            let r = submit(&mut b, &Request::get_page(REL, 1, 1, 0));
            assert_eq!(b.cancel(r, &NOW), Ok(Cancelled::Withdrawn));
        }
        assert_eq!(b.free_slot(), Err(Error::NoFreeSlot));
        assert_eq!(b.usable(), 0);
        // Each slot had one entry of the ring, so it never filled up (R7).
        assert_eq!(b.counter(OwnerCounter::PendingPushes), 0);
        let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
        assert_eq!(c.reap(64, State::Processing, complete), 0);
        assert_eq!(b.usable(), SLOTS, "round {round}");
        let r = submit(&mut b, &Request::get_page(REL, 1, 1, 0));
        assert_eq!(c.reap(64, State::Processing, complete), 1);
        assert!(b.finish(r).unwrap().is_ok());
    }
    assert_eq!(count(&parts, RoleCounter::LostHints), 0);
}

/// Lets the communicator audit until `done`.
fn audited(c: &mut Communicator<'_>, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < BOUND, "not found by the audit");
        c.reap_or_park(8, State::Processing, Gather::default(), 50_000_000, complete);
        c.audit(State::Processing, complete);
    }
}

#[test]
fn the_audit_finds_what_was_never_hinted() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    // Owners that stopped between the word and the push.
    let r = b.fill(3, &nop()).unwrap();
    owner::submit(&parts.slots[3], Word::new(State::Filling, r.generation, 0));
    // A cancelled one whose hint went down with a reaper that panicked.
    let w = b.fill(4, &nop()).unwrap();
    owner::submit(&parts.slots[4], Word::new(State::Filling, w.generation, 0));
    assert_eq!(b.cancel(w, &NOW), Ok(Cancelled::Withdrawn));
    audited(&mut c, || b.poll(r).unwrap() && b.usable() == SLOTS - 1);
    assert!(b.finish(r).unwrap().is_ok());
    assert_eq!((count(&parts, RoleCounter::Unhinted), count(&parts, RoleCounter::LostHints)), (1, 0));
    assert_eq!(count(&parts, RoleCounter::Freed), 1);
    // One that somebody waits for has been pushed: that hint is lost.
    let r = b.fill(3, &nop()).unwrap();
    owner::submit(&parts.slots[3], Word::new(State::Filling, r.generation, 0));
    assert_eq!(b.wait(r, &Wait::for_ms(10)), Err(Error::TimedOut));
    audited(&mut c, || b.poll(r).unwrap());
    assert_eq!((count(&parts, RoleCounter::Unhinted), count(&parts, RoleCounter::LostHints)), (1, 1));
}

#[test]
fn a_batch_is_gathered_until_it_is_large_enough_or_time_is_up() {
    let region = region();
    let parts = region.parts();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    let long = Gather { requests: 5, ns: 10_000_000_000 };
    // All that is wanted comes, though late.
    let submitter = std::thread::scope(|s| {
        let submitter = s.spawn(|| {
            for _ in 0..5 {
                std::thread::sleep(Duration::from_millis(20));
                submit(&mut b, &nop());
            }
        });
        let begin = Instant::now();
        let mut n = 0;
        while n == 0 {
            n = c.reap_or_park(32, State::Processing, long, 1_000_000_000, complete);
        }
        assert_eq!(n, 5);
        assert!(begin.elapsed() < Duration::from_secs(5), "it waited for more");
        submitter.join()
    });
    submitter.unwrap();
    // It does not come, and the time is up.
    submit(&mut b, &nop());
    let begin = Instant::now();
    let short = Gather { requests: 5, ns: 100_000_000 };
    assert_eq!(c.reap_or_park(32, State::Processing, short, 1_000_000_000, complete), 1);
    assert!(begin.elapsed() >= Duration::from_millis(100) && begin.elapsed() < Duration::from_secs(5));
    // More is wanted than the batch may hold: full is enough.
    submit(&mut b, &nop());
    let begin = Instant::now();
    assert_eq!(c.reap_or_park(1, State::Processing, long, 1_000_000_000, complete), 1);
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_request_whose_deadline_has_passed_expires() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut late = nop();
    late.deadline = Some(clock::now() + 1_000_000);
    let mut in_time = nop();
    in_time.deadline = Some(clock::now() + 3_600_000_000_000);
    let (late, in_time, never) = (submit(&mut b, &late), submit(&mut b, &in_time), submit(&mut b, &nop()));
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(c.reap(8, State::Processing, complete), 2);
    assert_eq!(b.finish(late), Ok(Completion::fail(libc::ETIMEDOUT)));
    assert!(b.finish(in_time).unwrap().is_ok() && b.finish(never).unwrap().is_ok());
    assert_eq!(count(&parts, RoleCounter::Expired), 1);
    assert_eq!(b.counter(OwnerCounter::Failed), 1);
}

#[test]
fn a_burst_rings_the_doorbell_once_for_each_sleep() {
    let region = region();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, SLOTS).unwrap();
    // Odd: the communicator sleeps, for the second and the third time.
    for (parked, rings) in [(4, 0), (5, 1), (7, 2), (8, 2)] {
        parts.header.parked.0.store(parked, Relaxed);
        for _ in 0..2 {
            submit(&mut b, &nop());
        }
        assert_eq!(b.counter(OwnerCounter::DoorbellRings), rings, "park {parked}");
        assert_eq!(parts.header.parked.0.load(Relaxed), parked, "only the sleeper clears it (I8)");
    }
}

#[test]
fn wait_free_sleeps_until_the_communicator_gives_a_cancelled_slot_back() {
    let region = Region::create_private(&Options::new(2)).unwrap();
    let mut b = Backend::attach(&region, 0, 2).unwrap();
    let fill = |b: &mut Backend<'_>| {
        let slot = b.free_slot().unwrap();
        let r = b.fill(slot, &Request::get_page(REL, 1, 1, 0)).unwrap();
        b.submit(r).unwrap();
        r
    };
    let (one, two) = (fill(&mut b), fill(&mut b));
    assert_eq!(b.wait_free(&Wait::for_ms(10_000)), Err(Error::NoFreeSlot), "both are in use, neither is cancelled");
    b.cancel(one, &Wait::for_ms(1000)).unwrap();
    assert_eq!(b.wait_free(&Wait::for_ms(30)), Err(Error::CommunicatorGone));
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(std::time::Duration::from_millis(50));
            let parts = region.parts();
            let (communicator, inherited) = Communicator::take_role(&region, &parts).unwrap();
            drop((communicator, inherited));
        });
        let begin = std::time::Instant::now();
        assert_eq!(b.wait_free(&Wait::for_ms(10_000)), Ok(one.slot));
        assert!(begin.elapsed().as_secs() < 5, "woken, not timed out");
    });
    b.cancel(two, &Wait::for_ms(1000)).unwrap();
}
