//! Operations of a backend that hand requests in, give them up, or settle them.

use shmuring::backend::{Backend, Cancelled, SlotRef, Wait};
use shmuring::communicator::Communicator;
use shmuring::error::Error;
use shmuring::region::Region;
use shmuring::ring::Producer;
use shmuring::slot::State;

use crate::driver::{Case, Side};
use crate::requests::{fill, leave_unhinted, with_request, Kind};
use crate::support::process::hang;
use crate::tracee::{stop_here, Marks};
use crate::world::{World, NOW, SLOTS, VICTIMS};
use Kind::{Read, ReadPool, ReadTwo, Truncate, Write};

/// What most of them have.
pub const BASE: Case = Case {
    name: "",
    side: Side::Backend,
    kinds: &[Read],
    prepare: serving,
    victim: |_, _| {},
    stage: |_| {},
    hook: None,
    few_rounds: false,
    asleep: None,
    beside: |_| Ok(()),
    at_last: |_| Ok(()),
};
const MIXED: &[Kind] = &[Read, Truncate, Write, ReadPool(0)];
/// Long enough for the stepping of what comes before its end.
pub const LONG: Wait<'static> = Wait { until: u64::MAX, interrupt: None };

pub const SUBMIT: &[Case] = &[
    Case { name: "fill", victim: |r, m| fill_one(r, m, Read), ..BASE },
    Case { name: "fill a write", kinds: &[Write], victim: |r, m| fill_one(r, m, Write), ..BASE },
    Case { name: "fill a slot once more", victim: fill_again, ..BASE },
    Case { name: "submit a read", victim: |r, m| submit(r, m, &[Read]), ..BASE },
    Case { name: "submit a mutation", kinds: &[Truncate], victim: |r, m| submit(r, m, &[Truncate]), ..BASE },
    Case {
        name: "submit to a communicator that sleeps",
        kinds: &[Truncate],
        victim: |r, m| submit(r, m, &[Truncate]),
        stage: |w| w.park(),
        ..BASE
    },
    Case {
        name: "submit into a ring that has become full",
        kinds: &[Truncate, Read],
        victim: submit_second,
        stage: |w| {
            w.serve_hints();
            fill_ring(w);
        },
        ..BASE
    },
    Case {
        name: "submit into a ring that was full",
        kinds: &[Truncate],
        victim: |r, m| submit(r, m, &[Truncate]),
        stage: fill_ring,
        ..BASE
    },
    Case { name: "submit a batch", kinds: MIXED, victim: |r, m| submit(r, m, MIXED), ..BASE },
    Case {
        name: "submit a batch to a communicator that sleeps",
        kinds: MIXED,
        victim: |r, m| submit(r, m, MIXED),
        stage: |w| w.park(),
        ..BASE
    },
    Case {
        name: "submit a batch into a ring with room for half of it",
        kinds: MIXED,
        victim: |r, m| submit(r, m, MIXED),
        stage: half_fill_ring,
        ..BASE
    },
];

pub const CANCEL: &[Case] = &[
    Case { name: "cancel what is not submitted", victim: cancel_filling, ..BASE },
    Case { name: "cancel of Submitted", victim: |r, m| cancel(r, m, Read), ..BASE },
    Case { name: "cancel of Submitted, a mutation", kinds: &[Truncate], victim: |r, m| cancel(r, m, Truncate), ..BASE },
    Case {
        name: "cancel of Submitted, registered buffer",
        kinds: &[ReadPool(0)],
        victim: |r, m| cancel(r, m, ReadPool(0)),
        ..BASE
    },
    Case {
        name: "cancel of Processing",
        victim: |r, m| cancel(r, m, Read),
        stage: |w| w.claim(State::Processing),
        ..BASE
    },
    Case {
        name: "cancel of Processing, registered buffer",
        kinds: &[ReadPool(0)],
        victim: |r, m| cancel(r, m, ReadPool(0)),
        stage: |w| w.claim(State::Processing),
        ..BASE
    },
    Case {
        name: "cancel of Copying",
        kinds: &[ReadTwo],
        victim: |r, m| cancel(r, m, ReadTwo),
        stage: |w| w.claim(State::Copying),
        ..BASE
    },
    Case {
        name: "cancel of Copying, registered buffer, which ends in Processing",
        kinds: &[ReadPool(0)],
        victim: |r, m| cancel(r, m, ReadPool(0)),
        stage: |w| w.claim(State::Copying),
        hook: Some(|w, _| w.word(0).waiter() && suspend(w)),
        ..BASE
    },
    Case {
        name: "cancel of Copying, registered buffer, which completes",
        kinds: &[ReadPool(0)],
        victim: |r, m| cancel(r, m, ReadPool(0)),
        stage: |w| w.claim(State::Copying),
        hook: Some(|w, _| w.word(0).waiter() && serve(w)),
        ..BASE
    },
    Case {
        name: "cancel of Copying, registered buffer, asleep, which ends in Processing",
        kinds: &[ReadPool(0)],
        victim: |r, m| cancel(r, m, ReadPool(0)),
        stage: |w| w.claim(State::Copying),
        asleep: Some(|w| {
            suspend(w);
        }),
        ..BASE
    },
    Case {
        name: "cancel of Copying, registered buffer, whose time is up",
        kinds: &[ReadPool(0)],
        victim: cancel_in_vain,
        stage: |w| w.claim(State::Copying),
        ..BASE
    },
    Case {
        name: "cancel of Copying, registered buffer, of a dead communicator",
        kinds: &[ReadPool(0)],
        prepare: |w| w.communicator = None,
        victim: |r, m| cancel(r, m, ReadPool(0)),
        stage: die_copying,
        ..BASE
    },
];

const FOUND_CLAIMED: &[Kind] = &[Truncate, Read, ReadPool(0), Write];
const FOUND_UNCLAIMED: &[Kind] = &[Truncate, Read, ReadPool(0), Read];

pub const ATTACH: &[Case] = &[
    Case {
        name: "attach to what a communicator had claimed",
        kinds: FOUND_CLAIMED,
        prepare: leave_claimed,
        victim: attach,
        ..BASE
    },
    Case {
        name: "attach to what nobody had claimed",
        kinds: FOUND_UNCLAIMED,
        prepare: leave_unclaimed,
        victim: attach,
        ..BASE
    },
    Case {
        name: "settle what a communicator had claimed",
        kinds: FOUND_CLAIMED,
        prepare: leave_claimed,
        victim: settle,
        few_rounds: true,
        hook: Some(|w, _| w.word(0).waiter() && serve(w)),
        ..BASE
    },
];

pub const DETACH: &[Case] = &[
    Case {
        name: "settle what nobody had claimed",
        kinds: FOUND_UNCLAIMED,
        prepare: leave_unclaimed,
        victim: settle,
        few_rounds: true,
        hook: Some(|w, _| w.word(0).waiter() && serve(w)),
        ..BASE
    },
    Case {
        name: "detach",
        kinds: MIXED,
        victim: detach,
        few_rounds: true,
        stage: |w| w.claim(State::Processing),
        hook: Some(|w, _| w.word(1).waiter() && serve(w)),
        ..BASE
    },
];

fn serving(w: &mut World<'_>) {
    w.succeed().unwrap();
}

pub fn serve(w: &mut World<'_>) -> bool {
    w.serve();
    true
}

fn suspend(w: &mut World<'_>) -> bool {
    for claim in &mut w.held {
        claim.copying().unwrap().suspend().unwrap();
    }
    true
}

/// Hints that lead to nothing, so many that there is room for `room` more.
fn leave_room(w: &mut World<'_>, room: u64) {
    let load = |n: &shmuring::layout::Alone64| n.0.load(std::sync::atomic::Ordering::Relaxed);
    let taken = load(&w.parts.header.tail) - load(&w.parts.header.head);
    let mut producer = Producer::new();
    for _ in taken..w.parts.cells.len() as u64 - room {
        assert_eq!(producer.push(w.parts, &[SLOTS - 1]), 0);
    }
}

fn fill_ring(w: &mut World<'_>) {
    leave_room(w, 0);
}

fn half_fill_ring(w: &mut World<'_>) {
    leave_room(w, 2);
}

pub fn owner_of(region: &Region) -> Backend<'_> {
    Backend::attach(region, 0, VICTIMS).unwrap()
}

pub fn fill_all(b: &mut Backend<'_>, m: &Marks, kinds: &[Kind]) -> Vec<SlotRef> {
    (0..).zip(kinds).map(|(slot, kind)| fill(b, slot, *kind, m.base + 2 * slot)).collect()
}

fn fill_one(region: &Region, m: &Marks, kind: Kind) {
    fill_first(owner_of(region), m, kind);
}

fn fill_again(region: &Region, m: &Marks) {
    let mut b = owner_of(region);
    let r = fill(&mut b, 0, Read, m.base);
    b.cancel(r, &NOW).unwrap();
    fill_first(b, m, Read);
}

fn fill_first(mut b: Backend<'_>, m: &Marks, kind: Kind) {
    with_request(kind, m.base, |request| {
        m.begin();
        let filled = b.fill(0, request);
        m.end();
        filled.unwrap();
    });
}

fn submit(region: &Region, m: &Marks, kinds: &[Kind]) {
    let mut b = owner_of(region);
    let refs = fill_all(&mut b, m, kinds);
    m.begin();
    match refs.as_slice() {
        [one] => b.submit(*one).unwrap(),
        many => b.submit_many(many).unwrap(),
    }
    m.end();
}

/// Of two requests, the first handed in is slot 1's: then the handle knows of a ring with room.
fn submit_second(region: &Region, m: &Marks) {
    let mut b = owner_of(region);
    let refs = fill_all(&mut b, m, &[Truncate, Read]);
    b.submit(refs[1]).unwrap();
    m.begin();
    b.submit(refs[0]).unwrap();
    m.end();
}

pub fn submitted<'r>(region: &'r Region, m: &Marks, kind: Kind) -> (Backend<'r>, SlotRef) {
    let mut b = owner_of(region);
    let r = fill(&mut b, 0, kind, m.base);
    b.submit(r).unwrap();
    (b, r)
}

fn cancel_filling(region: &Region, m: &Marks) {
    let mut b = owner_of(region);
    let r = fill(&mut b, 0, Read, m.base);
    m.begin();
    b.cancel(r, &NOW).unwrap();
    m.end();
}

fn cancel(region: &Region, m: &Marks, kind: Kind) {
    let (mut b, r) = submitted(region, m, kind);
    m.begin();
    let cancelled = b.cancel(r, &LONG);
    assert!(matches!(cancelled, Ok(_) | Err(Error::AlreadyCompleted)), "{cancelled:?}");
    m.end();
}

fn cancel_in_vain(region: &Region, m: &Marks) {
    let (mut b, r) = submitted(region, m, ReadPool(0));
    m.begin();
    assert_eq!(b.cancel(r, &NOW), Err(Error::TimedOut));
    m.end();
}

/// A communicator that claims everything, and dies while it copies.
fn die_copying(w: &mut World<'_>) {
    let mut dead = w.site.child(|region, _| {
        let parts = region.parts();
        let (mut c, _) = Communicator::take_role(region, &parts).unwrap();
        let mut held = Vec::new();
        c.sweep(State::Copying, |claim| held.push(claim));
        stop_here();
        hang();
    });
    dead.stopped(true);
    dead.kill();
}

/// What a backend that died left to this communicator.
fn leave_claimed(w: &mut World<'_>) {
    serving(w);
    let mut b = owner_of(w.region);
    for (slot, kind) in (0..).zip(FOUND_CLAIMED) {
        let r = fill(&mut b, slot, *kind, w.base + 2 * slot);
        b.submit(r).unwrap();
        if slot == 2 {
            w.claim(State::Processing);
        }
    }
    // The last is complete.
    let before = std::mem::take(&mut w.held);
    w.serve_hints();
    w.held = before;
}

/// What a backend that died left to nobody: with and without a hint, withdrawn, and half filled.
fn leave_unclaimed(w: &mut World<'_>) {
    serving(w);
    let mut b = owner_of(w.region);
    for (slot, kind) in (0..).zip(FOUND_UNCLAIMED) {
        let r = fill(&mut b, slot, *kind, w.base + 2 * slot);
        match slot {
            0 | 2 => leave_unhinted(w.parts, r),
            1 => {
                b.submit(r).unwrap();
                assert_eq!(b.cancel(r, &NOW), Ok(Cancelled::Withdrawn));
            }
            _ => {}
        }
    }
}

fn attach(region: &Region, m: &Marks) {
    m.begin();
    let b = owner_of(region);
    m.end();
    drop(b);
}

fn settle_all(b: &mut Backend<'_>) {
    while b.next_leftover(&LONG).unwrap().is_some() {}
}

fn settle(region: &Region, m: &Marks) {
    let mut b = owner_of(region);
    // Nothing is settled: the first is a mutation that somebody holds. Its next wait polls less often.
    for _ in 0..4 {
        assert_eq!(b.next_leftover(&NOW), Err(Error::TimedOut));
    }
    m.begin();
    settle_all(&mut b);
    m.end();
}

fn detach(region: &Region, m: &Marks) {
    let mut b = owner_of(region);
    let refs = fill_all(&mut b, m, MIXED);
    for r in &refs[..3] {
        b.submit(*r).unwrap();
    }
    for _ in 0..4 {
        assert!(b.wait(refs[1], &NOW).is_err());
    }
    m.begin();
    b.detach(&LONG).unwrap();
    m.end();
}
