//! Deaths of the communicator: a successor finishes what it left, and the owner gets exactly one answer (I9; rows 15 to
//! 19). The role lock is modelled as what it is: the successor starts when the dead one has left its memory, and sees all
//! that it did.

mod support;

use loom::thread;
use shmuring::communicator::{Claim, Communicator};
use shmuring::error::Error;
use shmuring::request::{Completion, Opcode, Request};
use shmuring::ring::Consumer;
use shmuring::slot::{communicator as claim_side, owner, State, Word};
use std::sync::Arc;
use support::{bounced, check_deaths, check_reaching, communicator, dies, page_of, plain, registered, runs, saw};
use support::{serve, touch_registered, twin, World, BLOCK, DEEP, DYING, FOR_EVER, REL};

/// Where the first communicator dies.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    /// The hint is taken, nothing claimed.
    AfterHint,
    /// In Processing.
    AfterClaim,
    /// In Copying, a page half delivered for all that anyone knows.
    InCopying,
    /// Back in Processing, sleepers of Copying not woken.
    AfterCopying,
    /// Completed, sleepers not woken.
    BeforeWake,
}

/// The first communicator, up to its death.
fn die(world: &World, at: Death) {
    let parts = world.parts();
    if at == Death::AfterHint {
        let _ = communicator(&parts);
        assert_eq!(Consumer::new(&parts).next(&parts), Some(0));
        return;
    }
    let (mut c, _) = communicator(&parts);
    let slot = &parts.slots[0];
    c.reap(8, State::Processing, |mut claim| {
        let claimed = |state| Word::new(state, 0, 1);
        if matches!(at, Death::InCopying | Death::AfterCopying) {
            let Ok(mut copying) = claim.copying() else { return };
            copying.deliver(0, &page_of(1)).unwrap();
            if at == Death::AfterCopying {
                // The transition without what it owes.
                let _ = claim_side::suspend(slot, claimed(State::Copying));
            }
        }
        if at == Death::BeforeWake {
            slot.result.with_mut(|p| {
                // SAFETY: claimed and not completed (I1).
                unsafe { p.write(Completion::ok(7)) }
            });
            if claim_side::complete(slot, claimed(State::Processing)).is_ok() {
                saw("answered");
            }
        }
        saw("a death");
        std::mem::forget(claim);
    });
}

/// The successor: the inheritance, then what is Submitted. Returns how many it answered.
fn succeed(world: &World) -> usize {
    let parts = world.parts();
    let (mut c, inheritance) = communicator(&parts);
    let mut answered = 0;
    let inherited = inheritance.mutations.into_iter().chain(inheritance.reads);
    inherited.for_each(|claim| answered += usize::from(again(claim)));
    answered += sweep(&mut c);
    answered
}

fn again(claim: Claim<'_>) -> bool {
    assert!(claim.is_again());
    let first_claim = u64::from(claim.job().opcode.is_mutation());
    assert_eq!(claim.claim_seq(), first_claim, "a claim made anew keeps its number");
    saw("inherited");
    serve(claim)
}

fn sweep(c: &mut Communicator<'_>) -> usize {
    let mut answered = 0;
    c.sweep(State::Copying, |claim| {
        saw("swept");
        answered += usize::from(serve(claim));
    });
    answered
}

/// One communicator after the other, in a thread of its own.
fn two_terms(world: &Arc<World>, at: Death) -> thread::JoinHandle<usize> {
    let shared = world.clone();
    thread::spawn(move || {
        die(&shared, at);
        succeed(&shared)
    })
}

/// The owner waits across the death.
fn waits(request: &Request<'static>, at: Death) {
    let world = World::new(1, 2);
    let (mut backend, r) = world.submitted(request);
    let terms = two_terms(&world, at);
    backend.wait(r, &FOR_EVER).unwrap();
    assert_eq!({ backend.finish(r).unwrap().value }, 7);
    assert_eq!(backend.poll(r), Err(Error::Stale));
    assert_eq!(terms.join().unwrap(), usize::from(at != Death::BeforeWake), "one answer");
}

#[test]
fn an_owner_that_waits_gets_one_answer_wherever_the_communicator_dies() {
    let places = ["a death"];
    check_reaching(DEEP, &["swept"], || waits(&bounced(7), Death::AfterHint));
    check_reaching(DEEP, &["a death", "inherited"], || waits(&bounced(7), Death::AfterClaim));
    check_reaching(DEEP, &["a death", "inherited"], || waits(&bounced(7), Death::InCopying));
    check_reaching(DEEP, &["a death", "inherited"], || waits(&bounced(7), Death::AfterCopying));
    check_reaching(DEEP, &places, || waits(&bounced(7), Death::BeforeWake));
}

#[test]
fn a_mutation_keeps_its_place_among_the_claims_across_a_death() {
    check_reaching(None, &["inherited"], || {
        waits(&plain(Opcode::Truncate, 7), Death::AfterClaim);
    });
}

/// A successor as it must not be: it leaves Completed words with a waiter bit alone (row 19).
#[test]
#[should_panic(expected = "deadlock")]
fn a_completion_whose_wake_died_with_the_communicator_needs_the_successor() {
    support::check(None, || {
        let world = World::new(1, 2);
        let (mut backend, r) = world.submitted(&plain(Opcode::RelSize, 7));
        let shared = world.clone();
        thread::spawn(move || die(&shared, Death::BeforeWake));
        backend.wait(r, &FOR_EVER).unwrap();
    });
}

/// The owner cancels across the death, with a registered buffer that it uses for other things at once.
fn cancels(at: Death) {
    let world = World::new(1, 2);
    let (mut backend, r) = world.submitted(&registered(7));
    let terms = two_terms(&world, at);
    let cancelled = backend.cancel(r, &FOR_EVER);
    match cancelled {
        Ok(_) => {
            saw("cancelled");
            touch_registered(&world.parts());
        }
        Err(e) => assert_eq!(e, Error::AlreadyCompleted),
    }
    let answered = terms.join().unwrap() + usize::from(at == Death::BeforeWake && cancelled.is_err());
    assert_eq!(answered, usize::from(cancelled.is_err()), "exactly one of cancel and answer");
    if cancelled.is_err() {
        let _ = backend.finish(r).unwrap();
    }
    assert_eq!(
        owner::look(&world.slots[0]).state(),
        Some(State::Idle),
        "the slot comes back: {at:?} {cancelled:?} {:?}",
        owner::look(&world.slots[0])
    );
    assert_eq!(owner::look(&world.slots[0]).generation(), 1, "and once");
}

#[test]
fn a_cancel_across_a_death_has_one_winner_and_no_late_byte() {
    for at in [Death::AfterHint, Death::AfterClaim, Death::AfterCopying, Death::BeforeWake] {
        check_reaching(None, &["cancelled"], move || cancels(at));
    }
}

/// As above, with a successor that has not answered when the cancel ends: a page service may take its time. The owner may
/// sleep on Copying meanwhile, and the take-over is what ends that.
#[test]
fn a_cancel_across_a_death_needs_no_answer() {
    for at in [Death::AfterClaim, Death::InCopying, Death::AfterCopying] {
        check_reaching(None, &["cancelled"], move || {
            let world = World::new(1, 2);
            let (mut backend, r) = world.submitted(&registered(7));
            let shared = world.clone();
            let terms = thread::spawn(move || {
                die(&shared, at);
                let parts = shared.parts();
                let (_, inheritance) = communicator(&parts);
                inheritance.reads.into_iter().for_each(std::mem::forget);
            });
            assert!(backend.cancel(r, &FOR_EVER).is_ok());
            saw("cancelled");
            touch_registered(&world.parts());
            terms.join().unwrap();
        });
    }
}

#[test]
fn rl_1_a_later_epoch_proves_that_copying_is_over() {
    check_reaching(None, &["cancelled", "a death"], || cancels(Death::InCopying));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn rl_1_weakened_believes_a_death_before_its_last_byte_is_there() {
    twin("RL_1", None, || cancels(Death::InCopying));
}

/// A first communicator that looks once and dies at `step`, if not before its end; then its successor.
fn terms_with_a_death(world: &World, to: State, step: usize) {
    let first = dies(step, || {
        let parts = world.parts();
        let (mut c, _) = communicator(&parts);
        c.reap(8, to, |claim| {
            serve(claim);
        });
    });
    if first.is_none() {
        saw("a death");
    }
    let parts = world.parts();
    let (mut c, inheritance) = communicator(&parts);
    for claim in inheritance.mutations.into_iter().chain(inheritance.reads) {
        saw("inherited");
        serve(claim);
    }
    sweep(&mut c);
}

/// The owner waits, or cancels, whatever the step at which the first communicator dies.
fn one_request(request: &Request<'static>, to: State, cancels: bool, step: usize) {
    let world = World::new(1, 2);
    let (mut backend, r) = world.submitted(request);
    let shared = world.clone();
    let terms = thread::spawn(move || terms_with_a_death(&shared, to, step));
    let is_cancelled = cancels && backend.cancel(r, &FOR_EVER).is_ok();
    if is_cancelled {
        saw("cancelled");
        touch_registered(&world.parts());
    } else {
        backend.wait(r, &FOR_EVER).unwrap();
        let mut page = [0; BLOCK];
        if backend.copy_out(r, 0, &mut page).is_ok() {
            assert_eq!(page, page_of(7));
        }
        assert_eq!({ backend.finish(r).unwrap().value }, 7);
    }
    terms.join().unwrap();
    let ran = runs();
    assert!(ran.len() <= 2 && (is_cancelled || !ran.is_empty()), "{ran:?}");
    assert!(ran.iter().skip(1).all(|(_, again)| *again), "a second run that does not know of the first: {ran:?}");
    assert_eq!(owner::look(&world.slots[0]), Word::new(State::Idle, 1, 0));
    assert_eq!(world.parts().role_stats.get(shmuring::stats::RoleCounter::BadWords), 0);
}

#[test]
fn an_owner_that_waits_gets_one_answer_whatever_the_step_its_communicator_dies_at() {
    static IMAGE: [u8; BLOCK] = page_of(7);
    let write = Request::write_page(REL, 7, 1, 0, &IMAGE);
    for to in [State::Processing, State::Copying] {
        for request in [bounced(7), registered(7), plain(Opcode::Truncate, 7), write] {
            check_deaths(DYING, &["a death", "inherited"], move |step| one_request(&request, to, false, step));
        }
    }
}

#[test]
fn a_cancel_has_one_winner_whatever_the_step_the_communicator_dies_at() {
    for to in [State::Processing, State::Copying] {
        for request in [bounced(7), registered(7)] {
            let places = ["a death", "inherited", "cancelled"];
            check_deaths(DYING, &places, move |step| one_request(&request, to, true, step));
        }
        // A mutation is cancelled before its claim, or waited for.
        let request = plain(Opcode::Truncate, 7);
        check_deaths(DYING, &["a death", "cancelled"], move |step| one_request(&request, to, true, step));
    }
}

/// The owner has one slot, cancels, and waits until it can be used again.
#[test]
fn who_waits_for_a_cancelled_slot_is_woken_whatever_the_step_the_communicator_dies_at() {
    check_deaths(DYING, &["a death", "cancelled"], |step| {
        let world = World::new(1, 2);
        let (mut backend, r) = world.submitted(&bounced(7));
        let shared = world.clone();
        let terms = thread::spawn(move || terms_with_a_death(&shared, State::Processing, step));
        if backend.cancel(r, &FOR_EVER).is_ok() {
            saw("cancelled");
            assert_eq!(backend.wait_free(&FOR_EVER), Ok(0));
        }
        terms.join().unwrap();
    });
}

/// Preemptions where the owner submits meanwhile: with 3 each of some 50 steps takes 15,000 interleavings and more.
const SHALLOW: Option<usize> = Some(2);

/// The owner fills, submits and waits while communicators come and go.
#[test]
fn a_submit_across_a_death_is_not_lost() {
    check_deaths(SHALLOW, &["a death", "inherited", "swept", "hinted"], |step| {
        let world = World::new(1, 2);
        let shared = world.clone();
        let terms = thread::spawn(move || {
            terms_with_a_death(&shared, State::Processing, step);
            // And on, until it has come.
            let parts = shared.parts();
            let (mut c, _) = communicator(&parts);
            sweep(&mut c);
            while runs().is_empty() {
                c.reap(8, State::Copying, |claim| {
                    saw("hinted");
                    assert!(serve(claim));
                });
                if runs().is_empty() {
                    c.park(u64::MAX);
                }
            }
        });
        let (mut backend, r) = world.submitted(&bounced(7));
        backend.wait(r, &FOR_EVER).unwrap();
        assert_eq!({ backend.finish(r).unwrap().value }, 7);
        terms.join().unwrap();
    });
}

/// The mutations that a communicator served, in that order: claim number and block.
type Order = Vec<(u64, u32)>;

fn note(order: &mut Order, claim: Claim<'_>) {
    order.push((claim.claim_seq(), claim.job().block));
    assert!(serve(claim));
}

/// Two communicators, the first of which dies at `step` when it has claimed what there was.
fn mutations_across_a_death(world: &World, step: usize) {
    let (mut first, mut second) = (Order::new(), Order::new());
    let parts = world.parts();
    let lived = dies(step, || {
        let (mut c, _) = communicator(&parts);
        let mut claims = Vec::new();
        c.reap(8, State::Processing, |claim| claims.push(claim));
        claims.into_iter().for_each(|claim| note(&mut first, claim));
    });
    if lived.is_none() {
        saw("a death");
    }
    let (mut c, inheritance) = communicator(&parts);
    let inherited = inheritance.mutations.len();
    saw(["none inherited", "one inherited", "both inherited"][inherited]);
    inheritance.mutations.into_iter().for_each(|claim| note(&mut second, claim));
    c.sweep(State::Processing, |claim| note(&mut second, claim));
    assert_eq!(c.reap(8, State::Processing, |_| panic!("left by a sweep")), 0);
    for order in [&first, &second] {
        assert!(order.is_sorted_by(|a, b| a.0 < b.0), "not in the order of the claims: {first:?}, then {second:?}");
    }
    // What runs again is what was inherited, comes first, and keeps its number.
    for (n, (seq, block)) in second.iter().enumerate() {
        if let Some(before) = first.iter().find(|(_, of)| of == block) {
            assert!(n < inherited && before.0 == *seq, "{first:?}, then {second:?}");
        }
    }
}

/// Conflicting mutations: whatever the step of the death, they run in the order of their claims, those that were claimed
/// before those that were not (R4).
#[test]
fn conflicting_mutations_keep_the_order_of_their_claims_across_a_death() {
    let places = ["a death", "none inherited", "one inherited", "both inherited"];
    check_deaths(DYING, &places, |step| {
        let world = World::new(2, 4);
        let mut backend = world.backend(0, 2);
        // Slot 1 first: the order of slots is not that of claims.
        let requests = [(1, 8), (0, 9)].map(|(slot, block)| {
            let r = backend.fill(slot, &plain(Opcode::Truncate, block)).unwrap();
            backend.submit(r).unwrap();
            r
        });
        let shared = world.clone();
        let terms = thread::spawn(move || mutations_across_a_death(&shared, step));
        for r in requests {
            backend.wait(r, &FOR_EVER).unwrap();
            let _ = backend.finish(r).unwrap();
        }
        terms.join().unwrap();
    });
}
