//! The parties of a system: owners of slots, communicators one after the other, and the time.

use crate::world::{choose, saw, AllLive, World, BLOCK, REL};
use shmuring::backend::{Backend, Cancelled, Fate, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator};
use shmuring::doorbell;
use shmuring::error::Error;
use shmuring::futex;
use shmuring::request::{Completion, Opcode, Request};
use shmuring::ring;
use shmuring::slot::{owner, State};
use shmuring::sync::mortal;
use shuttle::thread::{self, JoinHandle};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

pub const FOR_EVER: Wait<'static> = Wait { until: u64::MAX, interrupt: None };

/// What owners do.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Slots of each.
    pub slots: u32,
    /// Requests of each.
    pub requests: u32,
    /// Whether they cancel, and give up when some time has passed.
    pub cancels: bool,
    /// Whether they write.
    pub mutates: bool,
    /// How many may die.
    pub deaths: u32,
}

/// A page that belongs to this block.
fn page_of(block: u32) -> [u8; BLOCK] {
    let mut page = [0; BLOCK];
    for quad in page.chunks_exact_mut(4) {
        quad.copy_from_slice(&block.to_le_bytes());
    }
    page
}

/// An owner in a thread of its own; where it dies, the next owner of its slots settles what it left, and leaves.
pub fn owner(world: &Arc<World>, number: u32, habits: Habits) -> JoinHandle<()> {
    let world = world.clone();
    thread::spawn(move || {
        let first = number * habits.slots;
        let steps = if number < habits.deaths { choose(120) as usize } else { usize::MAX };
        let lived = mortal::run(steps, || {
            // SAFETY: each owner has slots of its own.
            let mut backend = unsafe { Backend::over(world.parts(), &AllLive, None, first, habits.slots).unwrap() };
            for request in 0..habits.requests {
                one_request(&world, &mut backend, number * 1000 + request * 10, habits);
            }
            settle(&world, &mut backend);
        });
        if lived.is_none() {
            saw("an owner died");
            for slot in &world.parts().slots[first as usize..(first + habits.slots) as usize] {
                assert!(owner::mark_orphan(slot, || false));
            }
            // SAFETY: its last owner is dead.
            let mut heir = unsafe { Backend::over(world.parts(), &AllLive, None, first, habits.slots).unwrap() };
            settle(&world, &mut heir);
        }
    })
}

/// What one that leaves, or comes after a death, does first.
fn settle(world: &World, backend: &mut Backend<'_>) {
    while let Some(leftover) = backend.next_leftover(&FOR_EVER).unwrap() {
        saw("a leftover");
        world.note(leftover.request.block, |fate| match leftover.fate {
            Fate::Completed(done) => {
                assert_eq!(done, Completion::ok(u64::from(leftover.request.block)));
                fate.answers += 1;
            }
            Fate::Withdrawn => fate.withdrawn = true,
            Fate::Abandoned => fate.abandoned = true,
            Fate::OwnerDead => panic!("nothing is written from a registered pool"),
        });
    }
}

/// Fills, submits, and waits for it, or gives it up. With more slots than one, two requests go in one batch.
fn one_request(world: &World, backend: &mut Backend<'_>, block: u32, habits: Habits) {
    let n = if habits.slots > 1 { 1 + choose(2) } else { 1 };
    let mut batch = Vec::new();
    for block in block..block + n {
        let slot = backend.wait_free(&FOR_EVER).unwrap();
        let image = page_of(block);
        let request = match if habits.mutates { choose(4) } else { 0 } {
            0 | 1 => Request::get_page(REL, block, 1, 0),
            2 => Request::write_page(REL, block, 1, 0, &image),
            _ => {
                let mut truncate = Request::new(Opcode::Truncate, REL);
                truncate.block = block;
                truncate
            }
        };
        world.note(block, |fate| fate.is_mutation = request.opcode.is_mutation());
        batch.push((backend.fill(slot, &request).unwrap(), block, request.opcode));
    }
    let refs: Vec<_> = batch.iter().map(|(r, ..)| *r).collect();
    backend.submit_many(&refs).unwrap();
    if habits.cancels && choose(3) == 0 {
        give_up(world, backend, batch.swap_remove(0));
    }
    while !batch.is_empty() {
        let refs: Vec<_> = batch.iter().map(|(r, ..)| *r).collect();
        let wait = if habits.cancels && choose(2) == 0 { Wait::for_ms(300) } else { FOR_EVER };
        match backend.wait_any(&refs, &wait) {
            Ok(i) => take(world, backend, batch.swap_remove(i)),
            Err(Error::TimedOut) => {
                saw("a wait that timed out");
                give_up(world, backend, batch.swap_remove(0));
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// Cancels a request; what cannot be cancelled is waited for.
fn give_up(world: &World, backend: &mut Backend<'_>, request: (SlotRef, u32, Opcode)) {
    match backend.cancel(request.0, &FOR_EVER) {
        Ok(Cancelled::Withdrawn) => {
            saw("a withdrawal");
            world.note(request.1, |fate| fate.withdrawn = true);
        }
        Ok(Cancelled::Abandoned) => {
            saw("an abandonment");
            world.note(request.1, |fate| fate.abandoned = true);
        }
        Err(Error::AlreadyCompleted) => take(world, backend, request),
        Err(Error::InProgress) => {
            backend.wait(request.0, &FOR_EVER).unwrap();
            take(world, backend, request);
        }
        Err(e) => panic!("{e:?}"),
    }
}

/// Takes the answer, which must be that of this request.
fn take(world: &World, backend: &mut Backend<'_>, (r, block, opcode): (SlotRef, u32, Opcode)) {
    if opcode.fills_buffers() {
        assert_eq!(backend.page(r, 0).unwrap(), page_of(block), "the page of another request");
    }
    assert_eq!(backend.finish(r), Ok(Completion::ok(u64::from(block))));
    assert_eq!(backend.poll(r), Err(Error::Stale));
    world.note(block, |fate| fate.answers += 1);
}

/// What the last of the owners tells the communicators, and they it.
#[derive(Default)]
pub struct End {
    stop: AtomicBool,
    ended: AtomicBool,
}

/// Communicators, one after the other: each but the last dies at some step. They serve until told to stop.
pub fn communicators(world: &Arc<World>, deaths: u32, end: &Arc<End>) -> JoinHandle<()> {
    let (world, end) = (world.clone(), end.clone());
    thread::spawn(move || {
        let mut left = deaths;
        loop {
            // Soon after it has come, or later.
            let some = choose(if choose(2) == 0 { 60 } else { 600 }) as usize;
            let steps = if left > 0 { some } else { usize::MAX };
            if mortal::run(steps, || communicate(&world, &end.stop)).is_some() {
                break;
            }
            saw("a communicator died");
            left -= 1;
        }
        end.ended.store(true, Ordering::Relaxed);
    })
}

fn communicate(world: &World, stop: &AtomicBool) {
    let parts = world.parts();
    // SAFETY: one after the other.
    let (mut c, inheritance) = unsafe { Communicator::over(&parts, &AllLive, None) };
    let mut last = 0;
    for claim in inheritance.mutations {
        assert!(claim.claim_seq() > last, "mutations come in the order of their claims");
        last = claim.claim_seq();
        serve(world, claim);
    }
    inheritance.reads.into_iter().for_each(|claim| serve(world, claim));
    c.sweep(State::Copying, |claim| serve(world, claim));
    while !stop.load(Ordering::Relaxed) {
        let to = if choose(2) == 0 { State::Processing } else { State::Copying };
        // Some are kept for a while.
        let mut kept = Vec::new();
        let n = c.reap_or_park(8, to, Default::default(), u64::MAX, |claim| {
            if to == State::Processing && choose(2) == 0 {
                kept.push(claim);
            } else {
                serve(world, claim);
            }
        });
        while !kept.is_empty() {
            serve(world, kept.swap_remove(choose(kept.len() as u32) as usize));
        }
        if n == 0 {
            c.audit(State::Copying, |claim| serve(world, claim));
        }
    }
    // What came before the order to stop.
    while c.reap(8, State::Copying, |claim| serve(world, claim)) > 0 {}
}

fn serve(world: &World, mut claim: Claim<'_>) {
    let (block, opcode) = (claim.job().block, claim.job().opcode);
    if opcode.takes_images() {
        let mut image = [0; BLOCK];
        let mut copying = claim.copying().unwrap();
        copying.take_image(0, &mut image).unwrap();
        copying.suspend().unwrap();
        assert_eq!(image, page_of(block), "the image of another request");
    }
    let again = claim.is_again();
    if again {
        saw("a claim made anew");
    }
    world.note(block, |fate| {
        fate.runs += 1;
        fate.first_runs += u32::from(!again || fate.runs == 1);
    });
    if opcode.fills_buffers() {
        let Ok(mut copying) = claim.copying() else { return };
        copying.deliver(0, &page_of(block)).unwrap();
    }
    let _ = claim.complete(Completion::ok(u64::from(block)));
}

/// Time passes now and then: sleeps end, waits are given up, audits are due.
pub fn time(ticks: u32) -> JoinHandle<()> {
    thread::spawn(move || {
        for _ in 0..ticks {
            for _ in 0..choose(30) {
                thread::yield_now();
            }
            futex::pass_time([50_000_000, 500_000_000, 2_000_000_000][choose(3) as usize]);
        }
    })
}

/// A whole system, from its first request to the last.
pub fn system(cells: usize, owners: u32, habits: Habits, communicator_deaths: u32, ticks: u32) {
    let world = World::new((owners * habits.slots) as usize, cells);
    let end = Arc::new(End::default());
    let server = communicators(&world, communicator_deaths, &end);
    let mut others: Vec<_> = (0..owners).map(|number| owner(&world, number, habits)).collect();
    if ticks > 0 {
        others.push(time(ticks));
    }
    others.into_iter().for_each(|other| other.join().unwrap());
    end.stop.store(true, Ordering::Relaxed);
    // It looks at the order when it wakes, and may have looked just before.
    let parts = world.parts();
    while !end.ended.load(Ordering::Relaxed) {
        ring::set_pending(&parts, 0);
        doorbell::ring_once(&parts);
        thread::yield_now();
    }
    server.join().unwrap();
    world.judge();
}
