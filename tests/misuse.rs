//! Misuse: each has its named error, and no byte of the region changes for it.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod support;

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;

use shmuring::backend::{Backend, Cancelled, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator, ServerLife};
use shmuring::error::{Error, Result};
use shmuring::region::{Options, Region};
use shmuring::request::{Buffers, Completion, Opcode, RawRequest, RelTag, Request};
use shmuring::slot::{owner, State, Word};
use shmuring::stats::RoleCounter;
use support::{forked, soon, Scratch};

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
const BLOCK: usize = 512;
const SMALL: Options = Options { bounce_per_slot: 1, block_size: BLOCK as u32, ..Options::new(8) };
const POOL: u16 = 1;
const POOL_BLOCKS: u32 = 4;
const NOW: Wait<'_> = Wait { until: 0, interrupt: None };

/// A region with pool 1, whose bytes can be looked at.
struct Victim {
    region: Region,
    file: File,
    _pool: Box<[u8]>,
}

impl Victim {
    fn new() -> Self {
        let mut region = Region::create_memfd(&SMALL).unwrap();
        let mut pool = vec![0u8; POOL_BLOCKS as usize * BLOCK].into_boxed_slice();
        // SAFETY: the bytes live as long as the region, and only tests touch them.
        unsafe { region.register_pool(POOL, pool.as_mut_ptr(), BLOCK, POOL_BLOCKS).unwrap() };
        let file = File::open(format!("/proc/self/fd/{}", region.fd().unwrap().as_raw_fd())).unwrap();
        Self { region, file, _pool: pool }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.file.metadata().unwrap().len() as usize];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// What `f` is refused with; fails if it was not, or if it changed a byte.
    fn refused<T>(&self, f: impl FnOnce() -> Result<T>) -> Error {
        let before = self.bytes();
        let error = f().err().expect("not refused");
        let changed = before.iter().zip(self.bytes()).position(|(a, b)| *a != b);
        assert_eq!(changed, None, "{error:?} changed the region");
        error
    }
}

fn read() -> Request<'static> {
    Request::get_page(REL, 7, 1, 0)
}

fn complete(claim: Claim<'_>) {
    claim.complete(Completion::ok(1)).unwrap();
}

/// Serves what is submitted, once.
fn serve(v: &Victim) {
    let parts = v.region.parts();
    let (mut c, _) = Communicator::take_role(&v.region, &parts).unwrap();
    c.sweep(State::Copying, complete);
    c.reap(64, State::Copying, complete);
}

#[test]
fn slots_outside_the_region_or_the_range_are_no_slots() {
    let v = Victim::new();
    for (first, count) in [(0, 0), (8, 1), (0, 9), (7, 2), (u32::MAX, 1), (1, u32::MAX), (u32::MAX, u32::MAX)] {
        assert_eq!(v.refused(|| Backend::attach(&v.region, first, count).map(drop)), Error::BadSlot, "{first} {count}");
    }
    let mut b = Backend::attach(&v.region, 2, 3).unwrap();
    for slot in [0, 1, 5, 7, 8, u32::MAX] {
        let at = SlotRef { slot, generation: 0 };
        assert_eq!(v.refused(|| b.fill(slot, &read())), Error::BadSlot);
        assert_eq!(v.refused(|| b.submit(at)), Error::BadSlot);
        assert_eq!(v.refused(|| b.poll(at)), Error::BadSlot);
        assert_eq!(v.refused(|| b.wait(at, &NOW)), Error::BadSlot);
        assert_eq!(v.refused(|| b.wait_any(&[at], &NOW)), Error::BadSlot);
        assert_eq!(v.refused(|| b.result(at)), Error::BadSlot);
        assert_eq!(v.refused(|| b.finish(at)), Error::BadSlot);
        assert_eq!(v.refused(|| b.cancel(at, &NOW)), Error::BadSlot);
        assert_eq!(v.refused(|| b.copy_out(at, 0, &mut [0; BLOCK])), Error::BadSlot);
        assert_eq!(v.refused(|| b.page(at, 0).map(drop)), Error::BadSlot);
    }
}

#[test]
fn buffers_that_do_not_exist_or_are_named_twice_are_refused() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let mut refused = |r: &Request<'_>| v.refused(|| b.fill(0, r));
    for pool in [2, 15, 16, u16::MAX] {
        assert_eq!(refused(&read().with_buffers(Buffers::Pool(pool, &[0]))), Error::BadPool);
    }
    let two = Request::get_page(REL, 7, 2, 0);
    assert_eq!(refused(&read().with_buffers(Buffers::Pool(POOL, &[POOL_BLOCKS]))), Error::BadBuffer);
    assert_eq!(refused(&two.with_buffers(Buffers::Pool(POOL, &[0, u32::MAX]))), Error::BadBuffer);
    assert_eq!(refused(&two.with_buffers(Buffers::Pool(POOL, &[3, 3]))), Error::BadBuffer);
    assert_eq!(refused(&two.with_buffers(Buffers::Pool(POOL, &[3]))), Error::BadCount);
    // Bounce blocks are the library's to choose, and a request has buffers or it has none.
    assert_eq!(refused(&read().with_buffers(Buffers::Pool(0, &[0]))), Error::BadRequest);
    assert_eq!(refused(&read().with_buffers(Buffers::None)), Error::BadRequest);
    assert_eq!(refused(&read().with_buffers(Buffers::Image(&[0; BLOCK]))), Error::BadRequest);
    assert_eq!(refused(&Request::new(Opcode::RelSize, REL).with_buffers(Buffers::Bounce)), Error::BadRequest);
}

#[test]
fn images_of_another_length_than_their_blocks_are_refused() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    for len in [0, 1, BLOCK - 1, BLOCK + 1, 2 * BLOCK] {
        let image = vec![0; len];
        assert_eq!(v.refused(|| b.fill(0, &Request::write_page(REL, 0, 1, 0, &image))), Error::BadCount, "{len}");
    }
}

#[test]
fn counts_and_block_numbers_out_of_range_are_refused() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let mut refused = |r: &Request<'_>| v.refused(|| b.fill(0, r));
    assert_eq!(refused(&Request::get_page(REL, 0, 0, 0)), Error::BadCount);
    assert_eq!(refused(&Request::get_page(REL, 0, 33, 0)), Error::BadCount);
    assert_eq!(refused(&Request::prefetch(REL, 0, 255, 0)), Error::BadCount);
    assert_eq!(refused(&Request::get_page(REL, u32::MAX, 1, 0)), Error::BadCount);
    assert_eq!(refused(&Request::get_page(REL, u32::MAX - 2, 3, 0)), Error::BadCount);
    let mut extend = Request::new(Opcode::ZeroExtend, REL);
    assert_eq!(refused(&extend), Error::BadCount, "by no block");
    (extend.block, extend.arg) = (u32::MAX, 1);
    assert_eq!(refused(&extend), Error::BadCount);
    let mut size = Request::new(Opcode::RelSize, REL);
    size.count = 1;
    assert_eq!(refused(&size), Error::BadCount);
    let lsns = [1, 2];
    let mut each = read();
    each.block_lsns = &lsns;
    assert_eq!(refused(&each), Error::BadCount, "LSNs for other blocks than there are");
}

#[test]
fn arguments_that_an_opcode_does_not_take_are_refused() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let mut refused = |r: &Request<'_>| v.refused(|| b.fill(0, r));
    let mut fork = read();
    fork.rel.fork = 4;
    assert_eq!(refused(&fork), Error::BadRequest);
    let mut missing = read();
    missing.allow_missing = true;
    assert_eq!(refused(&missing), Error::BadRequest);
    let mut at = read();
    at.opcode = Opcode::GetPageAt;
    assert_eq!(refused(&at), Error::BadRequest, "no LSN to read at");
}

#[test]
fn a_slot_that_is_not_filling_is_not_submitted() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    assert_eq!(v.refused(|| b.submit(SlotRef { slot: 0, generation: 0 })), Error::NotFilling);
    let r = b.fill(0, &read()).unwrap();
    assert_eq!(v.refused(|| b.submit(SlotRef { generation: 1, ..r })), Error::Stale);
    b.submit(r).unwrap();
    assert_eq!(v.refused(|| b.submit(r)), Error::NotFilling, "submitted twice");
    assert_eq!(b.cancel(r, &NOW), Ok(Cancelled::Withdrawn));
    assert_eq!(v.refused(|| b.submit(r)), Error::NotFilling);
}

#[test]
fn a_batch_with_one_bad_reference_submits_nothing() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 8).unwrap();
    let good: Vec<SlotRef> = (0..6).map(|slot| b.fill(slot, &Request::new(Opcode::RelSize, REL)).unwrap()).collect();
    let idle = SlotRef { slot: 7, generation: 0 };
    for (bad, error) in [
        (idle, Error::NotFilling),
        (SlotRef { slot: 8, generation: 0 }, Error::BadSlot),
        (SlotRef { slot: 2, generation: 5 }, Error::Stale),
        (good[0], Error::NotFilling),
        (good[5], Error::NotFilling),
    ] {
        let mut batch = good.clone();
        batch.push(bad);
        assert_eq!(v.refused(|| b.submit_many(&batch)), error, "{bad:?}");
    }
    // Nothing of that stuck: each goes through once.
    b.submit_many(&good).unwrap();
    serve(&v);
    for r in good {
        assert!(b.finish(r).unwrap().is_ok());
    }
}

#[test]
fn a_busy_slot_is_not_filled() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 1).unwrap();
    let r = b.fill(0, &read()).unwrap();
    assert_eq!(v.refused(|| b.fill(0, &read())), Error::SlotBusy, "filling");
    b.submit(r).unwrap();
    assert_eq!(v.refused(|| b.fill(0, &read())), Error::SlotBusy, "submitted");
    assert_eq!(v.refused(|| b.free_slot()), Error::NoFreeSlot);
    serve(&v);
    assert_eq!(v.refused(|| b.fill(0, &read())), Error::SlotBusy, "completed");
    b.finish(r).unwrap();
    let r = b.fill(0, &read()).unwrap();
    b.submit(r).unwrap();
    b.cancel(r, &NOW).unwrap();
    assert_eq!(v.refused(|| b.fill(0, &read())), Error::SlotBusy, "withdrawn");
    assert_eq!(v.refused(|| b.free_slot()), Error::NoFreeSlot);
}

#[test]
fn a_slot_keeps_its_buffer_from_others_only_while_its_request_uses_it() {
    let v = Victim::new();
    let parts = v.region.parts();
    let (mut c, _) = Communicator::take_role(&v.region, &parts).unwrap();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let mut served = |b: &mut Backend<'_>, r: SlotRef, first: u8| {
        b.submit(r).unwrap();
        let n = c.reap(8, State::Copying, |mut claim| {
            let mut copying = claim.copying().unwrap();
            (0..4).for_each(|i| copying.deliver(usize::from(i), &[first + i; BLOCK]).unwrap());
            claim.complete(Completion::ok(4)).unwrap();
        });
        assert_eq!(n, 1);
        (0..4).for_each(|i| assert_eq!(b.page(r, usize::from(i)), Ok(&[first + i; BLOCK][..])));
        b.finish(r).unwrap();
    };
    // Every slot has held a buffer, and they are Idle.
    for slot in 0..4 {
        let r = b.fill(slot, &read()).unwrap();
        b.cancel(r, &NOW).unwrap();
    }
    let all = Request::get_page(REL, 0, 4, 0);
    let r = b.fill(2, &all).unwrap();
    served(&mut b, r, 10);
    // A request without pages uses none, whatever its slot held.
    let without = b.fill(2, &Request::new(Opcode::RelSize, REL)).unwrap();
    let r = b.fill(3, &all).unwrap();
    assert_eq!(b.fill(0, &read()), Err(Error::NoFreeBuffer));
    served(&mut b, r, 20);
    // One that uses its buffer keeps it, also if it used it before.
    for _ in 0..2 {
        let one = b.fill(1, &read()).unwrap();
        assert_eq!(b.fill(3, &all), Err(Error::NoFreeBuffer));
        b.cancel(one, &NOW).unwrap();
    }
    b.cancel(without, &NOW).unwrap();
    let r = b.fill(1, &all).unwrap();
    served(&mut b, r, 30);
}

#[test]
fn without_a_free_bounce_buffer_a_slot_is_not_filled() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    assert_eq!(v.refused(|| b.fill(0, &Request::get_page(REL, 0, 5, 0))), Error::NoFreeBuffer, "more than there are");
    let r = b.fill(1, &Request::get_page(REL, 0, 3, 0)).unwrap();
    assert_eq!(v.refused(|| b.fill(0, &Request::get_page(REL, 0, 2, 0))), Error::NoFreeBuffer);
    // A refusal holds none of those that were free.
    b.fill(0, &Request::get_page(REL, 0, 1, 0)).unwrap();
    // The buffers of a request that was never submitted come back when it is cancelled.
    b.cancel(r, &NOW).unwrap();
    b.fill(2, &Request::get_page(REL, 0, 3, 0)).unwrap();
}

#[test]
fn what_an_earlier_owner_was_filling_cannot_be_submitted() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    // It holds the block of slot 1 too.
    let old = b.fill(0, &Request::get_page(REL, 7, 2, 0)).unwrap();
    drop(b);
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let new = b.fill(1, &read()).unwrap();
    // Both would be read into one block (R5).
    assert_eq!(v.refused(|| b.submit(old)), Error::Stale);
    assert_eq!(v.refused(|| b.submit_many(&[new, old])), Error::Stale);
    assert_eq!(b.usable(), 3);
    b.submit(new).unwrap();
}

#[test]
fn stale_references_are_told() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let old = b.fill(0, &read()).unwrap();
    b.submit(old).unwrap();
    serve(&v);
    b.finish(old).unwrap();
    for new_state in [State::Idle, State::Submitted, State::Completed] {
        if new_state == State::Submitted {
            let r = b.fill(0, &read()).unwrap();
            b.submit(r).unwrap();
        } else if new_state == State::Completed {
            serve(&v);
        }
        assert!(owner::look(&v.region.parts().slots[0]).is(new_state));
        assert_eq!(v.refused(|| b.poll(old)), Error::Stale);
        assert_eq!(v.refused(|| b.wait(old, &Wait::for_ms(100))), Error::Stale);
        assert_eq!(v.refused(|| b.wait_any(&[old], &Wait::for_ms(100))), Error::Stale);
        assert_eq!(v.refused(|| b.result(old)), Error::Stale);
        assert_eq!(v.refused(|| b.finish(old)), Error::Stale);
        assert_eq!(v.refused(|| b.cancel(old, &NOW)), Error::Stale);
        assert_eq!(v.refused(|| b.copy_out(old, 0, &mut [0; BLOCK])), Error::Stale);
        assert_eq!(v.refused(|| b.page(old, 0).map(drop)), Error::Stale);
    }
}

#[test]
fn a_cancelled_reference_is_stale() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let r = b.fill(0, &read()).unwrap();
    b.submit(r).unwrap();
    b.cancel(r, &NOW).unwrap();
    assert_eq!(v.refused(|| b.cancel(r, &NOW)), Error::Stale);
    assert_eq!(v.refused(|| b.poll(r)), Error::Stale);
    assert_eq!(v.refused(|| b.wait(r, &Wait::for_ms(100))), Error::Stale);
    assert_eq!(v.refused(|| b.finish(r)), Error::Stale);
}

#[test]
fn what_is_not_complete_has_no_result() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let r = b.fill(0, &read()).unwrap();
    // Waiting for what was not submitted would wait for ever.
    assert_eq!(v.refused(|| b.wait(r, &Wait { until: u64::MAX, interrupt: None })), Error::NotCompleted);
    assert_eq!(v.refused(|| b.wait_any(&[r], &Wait { until: u64::MAX, interrupt: None })), Error::NotCompleted);
    assert_eq!(v.refused(|| b.finish(r)), Error::NotCompleted);
    b.submit(r).unwrap();
    assert_eq!(v.refused(|| b.result(r)), Error::NotCompleted);
    assert_eq!(v.refused(|| b.finish(r)), Error::NotCompleted);
    assert_eq!(v.refused(|| b.copy_out(r, 0, &mut [0; BLOCK])), Error::NotCompleted);
    assert_eq!(v.refused(|| b.page(r, 0).map(drop)), Error::NotCompleted);
    serve(&v);
    assert_eq!(v.refused(|| b.cancel(r, &NOW)), Error::AlreadyCompleted);
    assert!(b.finish(r).unwrap().is_ok());
}

#[test]
fn only_pages_that_were_read_into_bounce_buffers_can_be_looked_at() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let image = [9; BLOCK];
    let write = b.fill(0, &Request::write_page(REL, 0, 1, 0, &image)).unwrap();
    let pool = b.fill(1, &read().with_buffers(Buffers::Pool(POOL, &[2]))).unwrap();
    let one = b.fill(2, &read()).unwrap();
    b.submit_many(&[write, pool, one]).unwrap();
    serve(&v);
    for i in [0, 1, usize::MAX] {
        assert_eq!(v.refused(|| b.page(write, i).map(drop)), Error::BadBuffer);
        assert_eq!(v.refused(|| b.copy_out(write, i, &mut [0; BLOCK])), Error::BadBuffer);
        assert_eq!(v.refused(|| b.page(pool, i).map(drop)), Error::BadBuffer);
    }
    assert!(b.page(one, 0).is_ok());
    assert_eq!(v.refused(|| b.page(one, 1).map(drop)), Error::BadBuffer);
    assert_eq!(v.refused(|| b.copy_out(one, 0, &mut [0; BLOCK + 1])), Error::BadBuffer);
}

#[test]
fn a_wait_for_nothing_or_for_more_than_127_is_refused() {
    let v = Victim::new();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let r = b.fill(0, &read()).unwrap();
    b.submit(r).unwrap();
    assert_eq!(v.refused(|| b.wait_any(&[], &NOW)), Error::BadCount);
    assert_eq!(v.refused(|| b.wait_any(&[r; 128], &NOW)), Error::TooMany);
    assert_eq!(b.wait_any(&[r; 127], &NOW), Err(Error::CommunicatorGone));
}

/// Submits `raw` as a backend gone mad would, and gives what the communicator answered.
fn answered(v: &Victim, number: u32, change: impl FnOnce(&mut RawRequest)) -> (Completion, u64) {
    let parts = v.region.parts();
    let slot = &parts.slots[number as usize];
    let mut b = Backend::attach(&v.region, number, 1).unwrap();
    let at = b.fill(number, &Request::new(Opcode::Nop, REL)).unwrap();
    // SAFETY: the slot is Filling, and this is its owner.
    slot.request.with_mut(|p| unsafe { change(&mut *p) });
    owner::submit(slot, Word::new(State::Filling, at.generation, 0));
    let refused = parts.role_stats.get(RoleCounter::Refused);
    let (mut c, _) = Communicator::take_role(&v.region, &parts).unwrap();
    c.sweep(State::Processing, complete);
    (b.finish(at).unwrap(), parts.role_stats.get(RoleCounter::Refused) - refused)
}

#[test]
fn requests_that_are_none_are_refused_by_the_communicator() {
    let v = Victim::new();
    let einval = (Completion::fail(libc::EINVAL), 1);
    for opcode in 16..=255 {
        assert_eq!(answered(&v, 3, |r| r.opcode = opcode), einval, "opcode {opcode}");
    }
    for flags in [1 << 6, 1 << 7, 3, 0xFF] {
        assert_eq!(answered(&v, 3, |r| r.flags = flags), einval, "flags {flags:#x}");
    }
    assert_eq!(answered(&v, 3, |r| r.reserved = 1), einval);
    for count in [1, 33, 255] {
        assert_eq!(answered(&v, 3, |r| r.count = count), einval, "a nop of {count} blocks");
    }
    let get = Opcode::GetPage as u8;
    assert_eq!(answered(&v, 3, |r| (r.opcode, r.count) = (get, 0)), einval);
    assert_eq!(answered(&v, 3, |r| (r.opcode, r.count) = (get, 33)), einval);
    assert_eq!(answered(&v, 3, |r| (r.opcode, r.count, r.block) = (get, 1, u32::MAX)), einval);
    for pool in [2, 16, u16::MAX] {
        assert_eq!(answered(&v, 3, |r| (r.opcode, r.count, r.pool) = (get, 1, pool)), einval, "pool {pool}");
    }
    assert_eq!(answered(&v, 3, |r| (r.opcode, r.count, r.pool, r.arg) = (get, 1, POOL, POOL_BLOCKS)), einval);
    // Another owner's bounce block, and one that does not exist.
    for block in [2, 4, SMALL.slots, u32::MAX] {
        assert_eq!(answered(&v, 3, |r| (r.opcode, r.count, r.arg) = (get, 1, block)), einval, "block {block}");
    }
    assert_eq!(answered(&v, 3, |r| (r.opcode, r.count, r.arg) = (get, 1, 3)), (Completion::ok(1), 0));
}

#[test]
fn an_owner_line_that_claims_slots_of_others_is_refused() {
    let v = Victim::new();
    let parts = v.region.parts();
    let slot = &parts.slots[3];
    let lines = [(4, 1), (0, 9), (0, 3), (u32::MAX, 2), (3, u32::MAX)];
    // With the block of the slot, and with one that would be the claimed slots'.
    for ((first, count), block) in lines.into_iter().flat_map(|line| [(line, 3), (line, line.0)]) {
        let mut b = Backend::attach(&v.region, 3, 1).unwrap();
        let at = b.fill(3, &read()).unwrap();
        // SAFETY: the slot is Filling, and this is its owner.
        slot.control.with_mut(|p| unsafe { ((*p).owner_first, (*p).owner_count) = (first, count) });
        // SAFETY: as above.
        slot.request.with_mut(|p| unsafe { (*p).arg = block });
        b.submit(at).unwrap();
        serve(&v);
        assert_eq!(b.finish(at).unwrap(), Completion::fail(libc::EINVAL), "{first} {count}, block {block}");
    }
}

#[test]
fn living_holders_exclude_others_by_name() {
    let v = Victim::new();
    let b = Backend::attach(&v.region, 2, 3).unwrap();
    for (first, count) in [(2, 3), (2, 1), (4, 1), (0, 3), (4, 4), (0, 8)] {
        assert_eq!(v.refused(|| Backend::attach(&v.region, first, count).map(drop)), Error::OwnerAlive);
    }
    assert_eq!(v.refused(|| Backend::attach_any(&v.region, 6).map(drop)), Error::OwnerAlive);
    let other = Backend::attach_any(&v.region, 2).unwrap();
    assert_eq!(other.first(), 6);
    drop(b);
    assert!(soon(|| Backend::attach(&v.region, 2, 3).is_ok()));

    let parts = v.region.parts();
    let role = Communicator::take_role(&v.region, &parts).unwrap();
    assert_eq!(v.refused(|| Communicator::take_role(&v.region, &parts).map(drop)), Error::RoleHeld);
    drop(role);
    assert!(soon(|| Communicator::take_role(&v.region, &parts).is_ok()));

    let life = ServerLife::begin(&v.region, 1).unwrap();
    assert_eq!(v.refused(|| ServerLife::begin(&v.region, 1).map(drop)), Error::LifeHeld);
    assert_eq!(v.refused(|| life.settle(&v.region, &NOW)), Error::OwnerAlive, "another owner lives");
    drop(other);
    assert!(soon(|| life.settle(&v.region, &NOW) == Ok(0)));
}

#[test]
fn a_handle_carried_over_a_fork_does_not_work_in_the_child() {
    let v = Victim::new();
    let parts = v.region.parts();
    let mut b = Backend::attach(&v.region, 0, 4).unwrap();
    let submitted = b.fill(0, &read()).unwrap();
    b.submit(submitted).unwrap();
    let filled = b.fill(1, &read()).unwrap();
    let before = v.bytes();
    let status = forked(|| {
        let wrong = Error::WrongProcess;
        let answers = [
            Backend::attach(&v.region, 4, 1).err() == Some(wrong),
            Communicator::take_role(&v.region, &parts).err() == Some(wrong),
            ServerLife::begin(&v.region, 1).err() == Some(wrong),
            b.fill(2, &read()).err() == Some(wrong),
            b.submit(filled).err() == Some(wrong),
            b.wait(submitted, &Wait::for_ms(1000)).err() == Some(wrong),
            b.wait_any(&[submitted], &Wait::for_ms(1000)).err() == Some(wrong),
            b.cancel(submitted, &NOW).err() == Some(wrong),
            b.poll(submitted).err() == Some(wrong),
            b.finish(submitted).err() == Some(wrong),
            b.next_leftover(&NOW).err() == Some(wrong),
            b.detach(&NOW).err() == Some(wrong),
        ];
        answers.iter().position(|ok| !ok).map_or(0, |i| i as i32 + 1)
    });
    assert_eq!(status >> 8, 0, "the call of that number worked in the child");
    assert_eq!(status, 0);
    assert!(before == v.bytes(), "the child changed the region");
    // The parent's goes on.
    b.submit(filled).unwrap();
    serve(&v);
    assert!(b.finish(submitted).unwrap().is_ok() && b.finish(filled).unwrap().is_ok());
}

#[test]
fn a_region_mapped_for_reading_has_no_owner_communicator_or_server() {
    let scratch = Scratch::new("read-only");
    let path = scratch.path("region");
    Region::create_named(&path, &SMALL).unwrap();
    let region = Region::observe(&path).unwrap();
    let parts = region.parts();
    assert_eq!(Backend::attach(&region, 0, 1).err(), Some(Error::Os(libc::EROFS)));
    assert_eq!(Backend::attach_any(&region, 1).err(), Some(Error::Os(libc::EROFS)));
    assert_eq!(Communicator::take_role(&region, &parts).err(), Some(Error::Os(libc::EROFS)));
    assert_eq!(ServerLife::begin(&region, 1).err(), Some(Error::Os(libc::EROFS)));
    assert_eq!(parts.header.role.epoch.load(Relaxed), 0);
}
