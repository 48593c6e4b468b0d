//! Any bytes over the words of a region, before and between the steps of a communicator: it neither panics nor hangs,
//! a dropped claim completes its request, and what a backend submits afterwards is served (I4, I10, R15).
#![no_main]

#[path = "support/clock.rs"]
mod clock;

use std::sync::atomic::Ordering::Relaxed;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use shmuring::backend::{Backend, Wait};
use shmuring::communicator::{Claim, Communicator, Inheritance};
use shmuring::layout::Control;
use shmuring::parts::Parts;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, Opcode, RawExtra, RawRequest, RelTag, Request, MAX_BLOCKS};
use shmuring::ring::{set_pending, Producer};
use shmuring::slot::{State, Word};

const BLOCK: usize = 512;
/// Most steps of one run.
const STEPS: usize = 64;
/// Polls that a communicator may need to step over one unpublished ticket, with room to spare.
const POLLS: usize = 2000;
/// Audits that may pass before a request is served: one finds damage, two a hint that is gone.
const AUDITS: usize = 4;

/// A claim, and the epoch of whoever made it.
type Held<'r> = (Claim<'r>, u32);

/// A number that means something near `near`, or anything.
fn number(u: &mut Unstructured<'_>, near: u64) -> Result<u64> {
    Ok(match u.int_in_range(0..=4)? {
        0 => 0,
        1 => near.wrapping_add(u64::from(u.arbitrary::<u8>()?)).wrapping_sub(128),
        2 => u64::from(u.arbitrary::<u8>()?),
        3 => 1_u64.checked_shl(u.int_in_range(0..=63)?).unwrap_or(0),
        _ => u.arbitrary()?,
    })
}

fn request(u: &mut Unstructured<'_>) -> Result<RawRequest> {
    let opcode = u.int_in_range(0..=Opcode::ALL.len() as u8)?;
    let many = u.arbitrary::<bool>()?;
    Ok(RawRequest {
        lsn: u.arbitrary()?,
        rel_number: u.arbitrary()?,
        block: u.arbitrary()?,
        arg: u64::min(number(u, 4)?, u64::from(u32::MAX)) as u32,
        opcode,
        flags: u.arbitrary()?,
        fork: u.int_in_range(0..=4)?,
        count: if many { u.arbitrary()? } else { Opcode::from_u8(opcode).map_or(1, |o| o.max_blocks().min(1) as u8) },
        pool: u.int_in_range(0..=2)?,
        ..RawRequest::default()
    })
}

/// Overwrites some of the bytes of a slot, as a peer that breaks the protocol does.
fn scribble_slot(u: &mut Unstructured<'_>, parts: &Parts<'_>, epoch: u32) -> Result<()> {
    // Slot 0 is a good backend's.
    let Some(slot) = parts.slots.get(u.int_in_range(1..=parts.slots.len() - 1)?) else { return Ok(()) };
    let part = u.int_in_range(0..=4)?;
    if part <= 1 {
        let request = request(u)?;
        // SAFETY: inside the region; this thread alone uses it, and holds no reference into the cell.
        slot.request.with_mut(|p| unsafe { p.write(request) });
    }
    if part == 2 {
        let near = |n: u64| n as u32;
        let control = Control {
            life: near(number(u, 0)?),
            owner_first: near(number(u, 0)?),
            owner_count: near(number(u, parts.slots.len() as u64)?),
            owner_pid: u.arbitrary()?,
            extra: RawExtra { deadline: number(u, shmuring::clock::now())?, request_lsn: u.arbitrary()? },
        };
        // SAFETY: as above.
        slot.control.with_mut(|p| unsafe { p.write(control) });
    }
    if part == 3 {
        let (i, buffer) = (u.int_in_range(0..=MAX_BLOCKS - 1)?, number(u, 4)? as u32);
        // SAFETY: as above.
        slot.vector.with_mut(|p| unsafe { (*p).buffers[i] = buffer });
        slot.claim_seq.store(number(u, 0)?, Relaxed);
    }
    let word = match u.int_in_range(0..=3)? {
        0 => slot.word.load(Relaxed),
        1 => u.arbitrary()?,
        _ => {
            let state = *u.choose(&State::ALL)?;
            let claim = if u.arbitrary()? { epoch.wrapping_sub(u.int_in_range(0..=2)?) } else { 0 };
            let waiter = u64::from(u.arbitrary::<bool>()?) << 4;
            Word::new(state, u.int_in_range(0..=3)?, claim).bits() | waiter
        }
    };
    slot.word.store(word, Relaxed);
    Ok(())
}

/// Overwrites a word of the ring, the doorbell or the role.
fn scribble_ring(u: &mut Unstructured<'_>, parts: &Parts<'_>) -> Result<()> {
    let h = parts.header;
    let tail = h.tail.0.load(Relaxed);
    match u.int_in_range(0..=9)? {
        0 => h.tail.0.store(number(u, tail)?, Relaxed),
        1 => h.head.0.store(number(u, tail)?, Relaxed),
        2 => h.any.0.store(number(u, 0)?, Relaxed),
        3 => h.parked.0.store(number(u, h.parked.0.load(Relaxed))?, Relaxed),
        4 => h.sequence.0.store(u.arbitrary()?, Relaxed),
        5 => u.choose(parts.pending)?.store(u.arbitrary()?, Relaxed),
        6 => h.role.epoch.store(u.arbitrary()?, Relaxed),
        7 => h.role.claim_seq.store(number(u, u64::MAX)?, Relaxed),
        8 => h.life.life.store(u.int_in_range(0..=2)?, Relaxed),
        _ => {
            let (lap, slot) = (number(u, tail / parts.cells.len() as u64)?, u.arbitrary::<u32>()?);
            let slot = if u.arbitrary()? { u64::from(slot) & 0xFF_FFFF } else { u64::from(slot) % 8 };
            u.choose(parts.cells)?.0.store(lap << 24 | slot, Relaxed);
        }
    }
    Ok(())
}

/// Drops a claim that nothing has touched since it was made: its request completes (I4).
fn drop_fresh(parts: &Parts<'_>, claim: Claim<'_>) {
    let (number, generation) = (claim.slot(), claim.generation());
    drop(claim);
    let word = Word::from_bits(parts.slots[number as usize].word.load(Relaxed));
    assert!(word.is(State::Completed) && word.generation() == generation, "slot {number} is {word:?}");
}

/// A step of serving a claim whose slot may have changed under it; gives it back if it is not answered. A word that is of
/// another generation or epoch stays as it is (I3).
fn serve<'r>(u: &mut Unstructured<'_>, parts: &Parts<'r>, held: Held<'r>) -> Result<Option<Held<'r>>> {
    let (number, of) = (held.0.slot(), (held.0.generation(), held.1));
    let look = || Word::from_bits(parts.slots[number as usize].word.load(Relaxed));
    let before = look();
    let held = answer(u, held.0)?.map(|claim| (claim, held.1));
    if (before.generation(), before.epoch()) != of {
        assert_eq!(look(), before, "slot {number}, claimed as {of:?}");
    }
    Ok(held)
}

/// See [`serve`].
fn answer<'r>(u: &mut Unstructured<'_>, mut claim: Claim<'r>) -> Result<Option<Claim<'r>>> {
    let how = u.int_in_range(0..=5)?;
    let count = usize::from(claim.job().count);
    match how {
        0 => {
            let _ = claim.complete(Completion::ok(u.arbitrary()?));
        }
        1 => {
            let _ = claim.fail(u.arbitrary()?, u.arbitrary()?, u.arbitrary()?);
        }
        // Killed: the kernel takes the process, and nothing runs.
        2 => std::mem::forget(claim),
        3 => drop(claim),
        _ => {
            let Ok(mut copying) = claim.copying() else { return Ok(Some(claim)) };
            let longer = u.int_in_range(0..=BLOCK + 1)?;
            for i in 0..=count {
                let _ = copying.deliver(i, &[7; BLOCK + 1][..longer]);
                let _ = copying.take_image(i, &mut [0; BLOCK + 1][..longer]);
            }
            if how == 5 {
                let _ = copying.suspend();
            }
            return Ok(Some(claim));
        }
    }
    Ok(None)
}

/// A backend of slots 1 and up settles what it finds, and perhaps submits.
fn own(u: &mut Unstructured<'_>, region: &Region) -> Result<()> {
    let n = region.parts().slots.len() as u32;
    let now = Wait { until: 0, interrupt: None };
    let mut backend = Backend::attach(region, 1, n - 1).unwrap();
    let _ = backend.settle(&now, u.arbitrary()?);
    for _ in 0..u.int_in_range(0..=n)? {
        let rel = RelTag::default();
        let request = match u.int_in_range(0..=2)? {
            0 => Request::get_page(rel, u.arbitrary()?, u.int_in_range(1..=3)?, 1),
            1 => Request::extend(rel, u.arbitrary()?, 1, &[3; BLOCK]),
            _ => Request::new(Opcode::Nop, rel),
        };
        let Ok(slot) = backend.free_slot() else { break };
        let Ok(filled) = backend.fill(slot, &request) else { continue };
        if u.arbitrary()? {
            let _ = backend.submit(filled);
        }
        if u.arbitrary()? {
            let _ = backend.cancel(filled, &now);
        }
    }
    Ok(())
}

/// A communicator whose predecessor in this process counts as dead: its real lock would stay with the process.
fn take_role<'r>(region: &'r Region, parts: &'r Parts<'r>) -> (Communicator<'r>, Inheritance<'r>) {
    // SAFETY: the fuzzer forgets the claims of the last one before it takes the next, and has one thread.
    unsafe { Communicator::over(parts, region.liveness(), None) }
}

/// The communicator's steps with hostile bytes between them; whatever ends the input ends the steps.
fn steps<'r>(
    u: &mut Unstructured<'_>,
    region: &'r Region,
    parts: &'r Parts<'r>,
    server: &mut Option<Communicator<'r>>,
    claims: &mut Vec<Held<'r>>,
) -> Result<()> {
    for _ in 0..STEPS {
        let epoch = parts.header.role.epoch.load(Relaxed);
        let step = u.int_in_range(0..=11)?;
        match step {
            0 | 1 => scribble_slot(u, parts, epoch)?,
            2 | 3 => scribble_ring(u, parts)?,
            4 => set_pending(parts, u.int_in_range(0..=parts.slots.len() as u32 + 64)?),
            5 => {
                Producer::new().push(parts, &[u.int_in_range(0..=parts.slots.len() as u32)?]);
            }
            6 => own(u, region)?,
            7 if !claims.is_empty() => {
                let claim = claims.swap_remove(u.int_in_range(0..=claims.len() - 1)?);
                claims.extend(serve(u, parts, claim)?);
            }
            8 => {
                // A death and a take-over. The kernel takes the lock with the process, and no claim is dropped.
                std::mem::take(claims).into_iter().for_each(std::mem::forget);
                drop(server.take());
                let (next, left) = take_role(region, parts);
                assert!(left.mutations.is_sorted_by_key(Claim::claim_seq));
                claims.extend(left.mutations.into_iter().chain(left.reads).map(|claim| (claim, next.epoch())));
                *server = Some(next);
            }
            _ => {
                let Some(server) = server else { continue };
                let to = if u.arbitrary()? { State::Copying } else { State::Processing };
                let keep = u.arbitrary::<bool>()?;
                let by = server.epoch();
                let each = |claim| if keep { claims.push((claim, by)) } else { drop_fresh(parts, claim) };
                match step {
                    9 => {
                        clock::pass_an_audit();
                        server.audit(to, each);
                    }
                    10 => {
                        server.sweep(to, each);
                    }
                    _ => {
                        server.reap(u.int_in_range(0..=8)?, to, each);
                    }
                }
            }
        }
    }
    Ok(())
}

/// What a good backend submits now is served, whatever came before.
fn is_served(region: &Region, parts: &Parts<'_>, server: &mut Communicator<'_>) {
    let mut backend = Backend::attach(region, 0, 1).unwrap();
    let slot = backend.free_slot().unwrap();
    let request = backend.fill(slot, &Request::new(Opcode::Nop, RelTag::default())).unwrap();
    backend.submit(request).unwrap();
    let answer = |claim: Claim<'_>| {
        let _ = claim.complete(Completion::ok(42));
    };
    for _ in 0..AUDITS {
        for _ in 0..POLLS {
            server.reap(usize::MAX, State::Copying, answer);
            if backend.poll(request).unwrap() {
                assert_eq!(backend.finish(request).unwrap(), Completion::ok(42));
                return;
            }
        }
        clock::pass_an_audit();
        server.audit(State::Copying, answer);
    }
    let word = Word::from_bits(parts.slots[0].word.load(Relaxed));
    panic!("a good request is {word:?} after {AUDITS} audits");
}

fuzz_target!(|data: &[u8]| {
    clock::reset();
    let mut u = Unstructured::new(data);
    let slots = *u.choose(&[2, 3, 5, 65]).unwrap_or(&2);
    let bounce_per_slot = u.int_in_range(0..=2).unwrap_or(2);
    let options = Options { bounce_per_slot, block_size: BLOCK as u32, ..Options::new(slots) };
    let region = Region::create_private(&options).unwrap();
    let parts = region.parts();
    let mut claims = Vec::new();
    let (server, _) = take_role(&region, &parts);
    let mut server = Some(server);
    let _ = steps(&mut u, &region, &parts, &mut server, &mut claims);
    drop(claims);
    is_served(&region, &parts, server.as_mut().unwrap());
});
