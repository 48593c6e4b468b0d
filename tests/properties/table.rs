//! The handles against the transition table: whatever word a slot has, each call does what its row says, or is refused
//! by name and changes nothing.

use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use shmuring::backend::{Backend, Cancelled, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator, Inheritance, Withdrawn};
use shmuring::error::Error;
use shmuring::liveness::{LockFile, ROLE_BYTE};
use shmuring::parts::Parts;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, Opcode, RelTag, Request};
use shmuring::ring::set_pending;
use shmuring::slot::State::{self, *};
use shmuring::slot::Word;

use super::cases;
use super::slot::{fields, Fields};

const NOW: Wait<'_> = Wait { until: 0, interrupt: None };
const BLOCK: usize = 512;

/// A region of one slot that holds a request of this kind, with its word set to `now`.
fn slot_with(is_mutation: bool, now: Fields) -> Region {
    let region =
        Region::create_private(&Options { bounce_per_slot: 1, block_size: BLOCK as u32, ..Options::new(1) }).unwrap();
    let mut b = Backend::attach(&region, 0, 1).unwrap();
    let rel = RelTag::default();
    let image = [3; BLOCK];
    let request = if is_mutation { Request::extend(rel, 1, 1, &image) } else { Request::get_page(rel, 1, 1, 1) };
    b.fill(0, &request).unwrap();
    drop(b);
    set(&region.parts(), now.bits());
    region
}

fn set(parts: &Parts<'_>, bits: u64) {
    parts.slots[0].word.store(bits, Relaxed);
}

fn get(parts: &Parts<'_>) -> Word {
    Word::from_bits(parts.slots[0].word.load(Relaxed))
}

/// A communicator, and the lock of its role beside it: one that is dropped with claims keeps its lock for ever, and here
/// many die.
fn role<'r>(region: &'r Region, parts: &'r Parts<'r>) -> (Communicator<'r>, Inheritance<'r>, LockFile) {
    let lock = region.lock_file().unwrap();
    assert!(lock.try_lock(ROLE_BYTE, 1).unwrap());
    // SAFETY: the caller keeps the lock as long as the communicator and its claims.
    let (c, inherited) = unsafe { Communicator::over(parts, region.liveness(), None) };
    (c, inherited, lock)
}

/// What an owner's call came to, in one type for all of them.
type Answer = Result<&'static str, Error>;

/// What the table lets an owner do with a reference of generation `g` in a slot of word `w`: the answer, and the word.
fn by_owner(call: &str, w: Fields, g: u32, is_mutation: bool, role_held: bool) -> (Answer, Fields) {
    let stale = w.generation != g;
    let to = |state| Fields { state, ..w };
    match (call, w.state) {
        ("fill", Idle) if !w.w && w.epoch == 0 => (Ok("filled"), to(Filling)),
        ("fill", _) => (Err(Error::SlotBusy), w),
        (_, _) if stale => (Err(Error::Stale), w),
        ("submit", Filling) if !w.w && w.epoch == 0 => (Ok("submitted"), to(Submitted)),
        ("submit", _) => (Err(Error::NotFilling), w),
        ("cancel", Filling) => (Ok("withdrawn"), w.freed()),
        ("cancel", Completed) => (Err(Error::AlreadyCompleted), w),
        ("cancel", Submitted) => (Ok("withdrawn"), Fields { epoch: 0, ..to(State::Withdrawn) }),
        ("cancel", Processing | Copying) if is_mutation => (Err(Error::InProgress), w),
        ("cancel", Processing | Copying) => (Ok("abandoned"), to(Abandoned)),
        (_, Idle | Abandoned | State::Withdrawn) => (Err(Error::Stale), w),
        (_, Filling) => (Err(Error::NotCompleted), w),
        ("poll", Completed) | ("result", Completed) => (Ok("complete"), w),
        ("poll", _) => (Ok("unfinished"), w),
        ("finish", Completed) => (Ok("finished"), w.freed()),
        ("result" | "finish", _) => (Err(Error::NotCompleted), w),
        ("wait", Completed) => (Ok("complete"), w),
        ("wait", _) => (Err(if role_held { Error::TimedOut } else { Error::CommunicatorGone }), w),
        _ => unreachable!("{call} {w:?}"),
    }
}

fn ask(b: &mut Backend<'_>, call: &str, r: SlotRef) -> Answer {
    match call {
        "fill" => b.fill(0, &Request::new(Opcode::Nop, RelTag::default())).map(|_| "filled"),
        "submit" => b.submit_many(&[r]).map(|()| "submitted"),
        "cancel" => b.cancel(r, &NOW).map(|c| match c {
            Cancelled::Withdrawn => "withdrawn",
            Cancelled::Abandoned => "abandoned",
        }),
        "poll" => b.poll(r).map(|done| if done { "complete" } else { "unfinished" }),
        "result" => b.result(r).map(|_| "complete"),
        "finish" => b.finish(r).map(|_| "finished"),
        "wait" => b.wait(r, &NOW).map(|()| "complete"),
        _ => unreachable!("{call}"),
    }
}

const CALLS: [&str; 7] = ["fill", "submit", "cancel", "poll", "result", "finish", "wait"];

/// What a hint makes of a word, and whether it is claimed.
fn by_hint(w: Fields, to: State, epoch: u32) -> (Fields, bool) {
    match w.state {
        Submitted => (Fields { state: to, epoch, ..w }, true),
        State::Withdrawn => (w.freed(), false),
        _ => (w, false),
    }
}

/// What a successor makes of a word: rows 11, 16, 17 and 19.
fn by_successor(w: Fields, epoch: u32) -> (Fields, bool) {
    match w.state {
        Processing | Copying => (Fields { state: Processing, epoch, ..w }, true),
        Abandoned | State::Withdrawn => (w.freed(), false),
        _ => (w, false),
    }
}

proptest! {
    #![proptest_config(cases(1500))]

    #[test]
    fn an_owner_does_what_its_rows_say(
        now in fields(),
        call in prop::sample::select(CALLS.to_vec()),
        is_mutation in any::<bool>(),
        stale in any::<bool>(),
        role_held in any::<bool>(),
        invalid in any::<bool>(),
    ) {
        let region = slot_with(is_mutation, now);
        let parts = region.parts();
        let role = region.lock_file().unwrap();
        prop_assert!(!role_held || role.try_lock(ROLE_BYTE, 1).unwrap());
        let mut b = Backend::attach(&region, 0, 1).unwrap();
        set(&parts, now.bits());
        let generation = if stale { now.generation ^ 1 } else { now.generation };
        let r = SlotRef { slot: 0, generation };
        let (answer, then) = by_owner(call, now, generation, is_mutation, role_held);
        prop_assert_eq!(ask(&mut b, call, r), answer, "{} of {:?}", call, now);
        prop_assert_eq!(get(&parts), then.word(), "{} of {:?}", call, now);
        // Of another's slot, and of bits that are no state.
        let other = SlotRef { slot: 1, generation };
        if call != "fill" {
            prop_assert_eq!(ask(&mut b, call, other), Err(Error::BadSlot));
        }
        if invalid {
            set(&parts, now.bits() | 8);
            prop_assert!(ask(&mut b, call, r).is_err(), "{} of no state", call);
            prop_assert_eq!(get(&parts).bits(), now.bits() | 8, "{} changed what is no state", call);
        }
    }

    #[test]
    fn a_hint_claims_what_is_submitted_and_frees_what_is_withdrawn(
        now in fields(),
        to in prop::sample::select(vec![Processing, Copying]),
        is_mutation in any::<bool>(),
    ) {
        let region = slot_with(is_mutation, Fields { state: Filling, ..now });
        let parts = region.parts();
        let (mut c, _, _lock) = role(&region, &parts);
        set(&parts, now.bits());
        set_pending(&parts, 0);
        let (then, claimed) = by_hint(now, to, c.epoch());
        let mut claims = Vec::new();
        prop_assert_eq!(c.reap(8, to, |claim| claims.push(claim)), usize::from(claimed));
        prop_assert_eq!(get(&parts), then.word());
        // The hint is used up, and a second one claims nothing (I7).
        set_pending(&parts, 0);
        prop_assert_eq!(c.reap(8, to, |claim| claims.push(claim)), 0);
        let freed = by_hint(then, to, c.epoch()).0;
        prop_assert_eq!(get(&parts), freed.word());
        for claim in claims {
            prop_assert_eq!((claim.claim_seq() != 0, claim.is_again()), (is_mutation, false));
            prop_assert!(claim.complete(Completion::ok(1)).is_ok());
            prop_assert_eq!(get(&parts), Fields { state: Completed, ..then }.word());
        }
    }

    #[test]
    fn a_successor_settles_each_word_by_its_row(now in fields(), is_mutation in any::<bool>()) {
        let region = slot_with(is_mutation, now);
        let parts = region.parts();
        let (c, inherited, _lock) = role(&region, &parts);
        let (then, claimed) = by_successor(now, c.epoch());
        prop_assert_eq!(get(&parts), then.word(), "{:?}", now);
        let (mutations, reads) = (inherited.mutations.len(), inherited.reads.len());
        prop_assert_eq!((mutations, reads), if !claimed { (0, 0) } else if is_mutation { (1, 0) } else { (0, 1) });
        for claim in inherited.mutations.into_iter().chain(inherited.reads) {
            prop_assert!(claim.is_again());
            drop(claim);
            prop_assert_eq!(get(&parts), Fields { state: Completed, ..then }.word());
        }
    }

    #[test]
    fn a_claim_whose_word_has_changed_touches_it_only_to_give_it_back(
        now in fields(),
        own in any::<bool>(),
        to in prop::sample::select(vec![Processing, Copying]),
        end in 0..5usize,
        g in 0..2u32,
    ) {
        let region = slot_with(false, Fields { state: Submitted, w: false, generation: g, epoch: 0 });
        let parts = region.parts();
        let (mut c, _, _lock) = role(&region, &parts);
        let mut claims = Vec::new();
        prop_assert_eq!(c.sweep(to, |claim| claims.push(claim)), 1);
        let mut claim: Claim<'_> = claims.pop().unwrap();
        let claimed = Fields { state: to, w: false, generation: g, epoch: c.epoch() };
        prop_assert_eq!(get(&parts), claimed.word());
        let now = if own { Fields { generation: g, epoch: c.epoch(), ..now } } else { now };
        set(&parts, now.bits());
        // W may come at any time; every other change means that the claim is over.
        let holds = (Fields { w: false, ..now }) == claimed;
        let given_back = (Fields { w: false, ..now }) == Fields { state: Abandoned, ..claimed };
        let gone = if given_back { now.freed() } else { now };
        let completed = Fields { state: Completed, ..now };
        match end {
            0 => {
                let expected = if holds { Ok(()) } else { Err(Withdrawn) };
                prop_assert_eq!(claim.complete(Completion::ok(1)), expected);
            }
            1 => prop_assert_eq!(claim.fail(5, 0, 1).is_ok(), holds),
            2 => drop(claim),
            _ => {
                // In Copying the guard costs no look at the word: what it delivers then goes to a block of the slot's
                // own, which stays with the slot until the claim gives it back (R5, R6).
                let entered = claim.copying().map(|mut copying| copying.deliver(0, &[1; BLOCK]).unwrap()).is_ok();
                prop_assert_eq!(entered, holds || to == Copying);
                if end == 3 && entered {
                    prop_assert_eq!(claim.copying().unwrap().suspend().is_ok(), holds);
                    if holds {
                        prop_assert_eq!(get(&parts), Fields { state: Processing, ..now }.word());
                    }
                }
                drop(claim);
            }
        }
        prop_assert_eq!(get(&parts), if holds { completed.word() } else { gone.word() }, "{:?} {}", now, end);
    }
}
