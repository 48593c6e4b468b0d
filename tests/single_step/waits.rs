//! Operations of a backend that wait, and that take results.

use shmuring::backend::{Cancelled, Wait};
use shmuring::error::Error;
use shmuring::region::Region;
use shmuring::slot::State;

use crate::backends::{fill_all, owner_of, serve, submitted, BASE, LONG};
use crate::driver::Case;
use crate::requests::Kind;
use crate::tracee::Marks;
use crate::world::{NOW, VICTIMS};
use Kind::{Read, Truncate};

pub const WAIT: &[Case] = &[
    Case { name: "wait for what is complete", victim: wait, stage: |w| w.serve(), ..BASE },
    Case {
        name: "wait, and the completion comes while it polls",
        victim: wait,
        stage: |w| w.claim(State::Processing),
        hook: Some(|w, n| n >= 60 && serve(w)),
        ..BASE
    },
    Case {
        name: "wait, and the completion comes before it sleeps",
        kinds: &[Truncate],
        victim: wait_mutation,
        stage: |w| w.claim(State::Processing),
        hook: Some(|w, _| w.word(0).waiter() && serve(w)),
        few_rounds: true,
        ..BASE
    },
    Case {
        name: "wait, asleep, and the completion wakes it",
        victim: wait,
        stage: |w| w.claim(State::Processing),
        few_rounds: true,
        asleep: Some(|w| w.serve()),
        ..BASE
    },
    Case {
        name: "wait for any, asleep, and a completion wakes it",
        kinds: &[Read, Truncate],
        victim: wait_any,
        stage: |w| w.claim(State::Processing),
        few_rounds: true,
        asleep: Some(|w| w.serve()),
        ..BASE
    },
    Case {
        name: "wait for a free slot, asleep, and one comes back",
        kinds: &[Read; VICTIMS as usize],
        victim: wait_free,
        few_rounds: true,
        asleep: Some(|w| w.serve()),
        ..BASE
    },
    Case { name: "wait whose time is up", victim: wait_in_vain, stage: |w| w.claim(State::Processing), ..BASE },
    Case { name: "finish a read", victim: finish, stage: |w| w.serve(), ..BASE },
    Case { name: "finish a mutation", kinds: &[Truncate], victim: finish_mutation, stage: |w| w.serve(), ..BASE },
    Case { name: "take back a forgotten slot", kinds: &[Truncate], victim: take_back, stage: |w| w.serve(), ..BASE },
];

fn wait_for(region: &Region, m: &Marks, kind: Kind, wait: &Wait<'_>) {
    let (mut b, r) = submitted(region, m, kind);
    // Polls a few hundred times, and no longer some thousand times, before it sleeps.
    for _ in 0..4 {
        assert!(b.wait(r, &NOW).is_err());
    }
    m.begin();
    let waited = b.wait(r, wait);
    assert!(waited == Ok(()) || waited == Err(Error::TimedOut), "{waited:?}");
    m.end();
}

fn wait(region: &Region, m: &Marks) {
    wait_for(region, m, Read, &LONG);
}

fn wait_mutation(region: &Region, m: &Marks) {
    wait_for(region, m, Truncate, &LONG);
}

fn wait_in_vain(region: &Region, m: &Marks) {
    wait_for(region, m, Read, &NOW);
}

fn wait_any(region: &Region, m: &Marks) {
    let mut b = owner_of(region);
    let refs = fill_all(&mut b, m, &[Read, Truncate]);
    b.submit_many(&refs).unwrap();
    for _ in 0..4 {
        assert!(b.wait_any(&refs, &NOW).is_err());
    }
    m.begin();
    let any = b.wait_any(&refs, &LONG);
    m.end();
    any.unwrap();
}

fn wait_free(region: &Region, m: &Marks) {
    let mut b = owner_of(region);
    let refs = fill_all(&mut b, m, &[Read; VICTIMS as usize]);
    b.submit_many(&refs).unwrap();
    refs.iter().for_each(|r| assert_eq!(b.cancel(*r, &NOW), Ok(Cancelled::Withdrawn)));
    m.begin();
    let free = b.wait_free(&LONG);
    m.end();
    free.unwrap();
}

fn finish_one(region: &Region, m: &Marks, kind: Kind) {
    let (mut b, r) = submitted(region, m, kind);
    m.begin();
    b.result(r).unwrap();
    b.finish(r).unwrap();
    m.end();
}

fn finish(region: &Region, m: &Marks) {
    finish_one(region, m, Read);
}

fn finish_mutation(region: &Region, m: &Marks) {
    finish_one(region, m, Truncate);
}

fn take_back(region: &Region, m: &Marks) {
    let (mut b, r) = submitted(region, m, Truncate);
    b.forget(r).unwrap();
    m.begin();
    let free = b.free_slot();
    m.end();
    free.unwrap();
}
