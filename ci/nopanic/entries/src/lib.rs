//! Every public function of `shmuring::backend` as a C function of plain arguments: what ci/nopanic.sh walks from.
//!
//! The name after `entry_` is that of the function, with the type before it where it is not `Backend`. What a call
//! gives back is written through a pointer, so that the optimiser keeps it all. The C interface needs no entries here:
//! its functions are exported as they are.
#![allow(clippy::missing_safety_doc, improper_ctypes_definitions, missing_docs)]

extern crate shmuring_ffi;

use shmuring::backend::{Backend, Cancelled, Leftover, Memory, Rest, SlotRef, Wait};
use shmuring::error::Result;
use shmuring::layout::Slot;
use shmuring::liveness::{Liveness, LockFile};
use shmuring::lsn::rel_size::Size;
use shmuring::lsn::written::Written;
use shmuring::parts::Parts;
use shmuring::region::Region;
use shmuring::request::{Completion, Lsn, RawRequest, RelTag, Request};
use shmuring::slot::State;
use shmuring::stats::OwnerCounter;

type Handle = Backend<'static>;

/// Defines an entry: writes what the body gives to `out`.
macro_rules! entries {
    ($($name:ident($($arg:ident: $t:ty),*) -> $r:ty = $body:expr;)*) => {$(
        #[no_mangle]
        pub unsafe extern "C" fn $name(out: *mut $r, $($arg: $t),*) {
            // SAFETY: nobody calls it.
            unsafe { out.write($body) }
        }
    )*};
}

entries! {
    entry_attach(region: &'static Region, first: u32, count: u32) -> Result<Handle> = Handle::attach(region, first, count);
    entry_attach_any(region: &'static Region, count: u32) -> Result<Handle> = Handle::attach_any(region, count);
    entry_attach_in(region: &'static Region, first: u32, count: u32, memory: Memory) -> Result<Handle>
        = Handle::attach_in(region, first, count, memory);
    entry_memory(region: &'static Region, count: u32) -> usize = Handle::memory(region, count);
    entry_over(parts: Parts<'static>, l: *const LockFile, lock: Option<LockFile>, first: u32, count: u32)
        -> Result<Handle> = Handle::over(parts, &*l as &'static dyn Liveness, lock, first, count);
    entry_first(b: &Handle) -> u32 = b.first();
    entry_count(b: &Handle) -> u32 = b.count();
    entry_usable(b: &Handle) -> u32 = b.usable();
    entry_counter(b: &Handle, c: OwnerCounter) -> u64 = b.counter(c);
    entry_lock(b: &'static Handle) -> Option<&'static LockFile> = b.lock();
    entry_free_slot(b: &mut Handle) -> Result<u32> = b.free_slot();
    entry_wait_free(b: &mut Handle, w: &Wait<'_>) -> Result<u32> = b.wait_free(w);
    entry_fill(b: &mut Handle, slot: u32, r: &Request<'_>) -> Result<SlotRef> = b.fill(slot, r);
    entry_try_fill(b: &mut Handle, slot: u32, r: &Request<'_>) -> Option<SlotRef> = b.try_fill(slot, r);
    entry_try_fill_raw(b: &mut Handle, slot: u32, r: &RawRequest) -> Option<SlotRef> = b.try_fill_raw(slot, *r);
    entry_try_fill_read(b: &mut Handle, slot: u32, rel: RelTag, fork: u32, block: u32, lsn: u64) -> Option<SlotRef>
        = b.try_fill_read(slot, rel, fork, block, lsn);
    entry_try_start_read(b: &mut Handle, rel: RelTag, fork: u32, block: u32, lsn: u64) -> Option<u32>
        = b.try_start_read((rel, fork), block, lsn, |r| r.slot, |b, r, rest| { b.submit_rest(r, rest); r.slot });
    entry_try_submit(b: &mut Handle, r: SlotRef) -> Option<u32>
        = b.try_submit(r, |r| r.slot, |b, r, rest| { b.submit_rest(r, rest); r.slot });
    entry_submit_rest(b: &mut Handle, r: SlotRef, rest: Rest) -> () = b.submit_rest(r, rest);
    entry_try_finish(b: &mut Handle, r: SlotRef) -> Option<Completion> = b.try_finish(r);
    entry_state(b: &Handle, slot: u32) -> Result<State> = b.state(slot);
    entry_slots(b: &'static Handle) -> &'static [Slot] = b.slots();
    entry_limit(b: &Handle) -> *const u64 = b.limit();
    entry_block_size(b: &Handle) -> u32 = b.block_size();
    entry_submit(b: &mut Handle, r: SlotRef) -> Result<()> = b.submit(r);
    entry_submit_many(b: &mut Handle, r: *const SlotRef, n: usize) -> Result<()>
        = b.submit_many(core::slice::from_raw_parts(r, n));
    entry_poll(b: &Handle, r: SlotRef) -> Result<bool> = b.poll(r);
    entry_wait(b: &mut Handle, r: SlotRef, w: &Wait<'_>) -> Result<()> = b.wait(r, w);
    entry_try_wait(b: &mut Handle, r: SlotRef) -> bool = b.try_wait(r);
    entry_wait_rest(b: &mut Handle, r: SlotRef, w: &Wait<'_>) -> Result<()> = b.wait_rest(r, w);
    entry_wait_any(b: &mut Handle, r: *const SlotRef, n: usize, w: &Wait<'_>) -> Result<usize>
        = b.wait_any(core::slice::from_raw_parts(r, n), w);
    entry_result(b: &Handle, r: SlotRef) -> Result<Completion> = b.result(r);
    entry_page(b: &'static Handle, r: SlotRef, i: usize) -> Result<&'static [u8]> = b.page(r, i);
    entry_copy_out(b: &Handle, r: SlotRef, i: usize, to: *mut u8, n: usize) -> Result<()>
        = b.copy_out(r, i, core::slice::from_raw_parts_mut(to, n));
    entry_finish(b: &mut Handle, r: SlotRef) -> Result<Completion> = b.finish(r);
    entry_call(b: &mut Handle, r: &Request<'_>, w: &Wait<'_>, to: *mut u8, n: usize) -> Result<Completion>
        = b.call(r, w, core::slice::from_raw_parts_mut(to, n));
    entry_cancel(b: &mut Handle, r: SlotRef, w: &Wait<'_>) -> Result<Cancelled> = b.cancel(r, w);
    entry_forget(b: &mut Handle, r: SlotRef) -> Result<()> = b.forget(r);
    entry_next_leftover(b: &mut Handle, w: &Wait<'_>) -> Result<Option<Leftover>> = b.next_leftover(w);
    entry_settle(b: &mut Handle, w: &Wait<'_>, old_life: bool) -> Result<u32> = b.settle(w, old_life);
    entry_detach(b: &mut Handle, w: &Wait<'_>) -> Result<u32> = b.detach(w);
    entry_drop(b: *mut Handle) -> () = core::ptr::drop_in_place(b);
    entry_check_process(b: &Handle) -> Result<()> = b.check_process();
    entry_cached_rel_size(b: &Handle, rel: RelTag) -> Option<Size> = b.cached_rel_size(rel);
    entry_last_written(b: &Handle) -> Written<'static> = b.last_written();
    entry_written_note(w: &Written<'_>, rel: RelTag, block: u32, lsn: Lsn) -> () = w.note(rel, block, lsn);
    entry_written_note_range(w: &Written<'_>, rel: RelTag, first: u32, count: u32, lsn: Lsn) -> ()
        = w.note_range(rel, first, count, lsn);
    entry_written_note_relation(w: &Written<'_>, rel: RelTag, lsn: Lsn) -> () = w.note_relation(rel, lsn);
    entry_written_note_all(w: &Written<'_>, lsn: Lsn) -> () = w.note_all(lsn);
    entry_written_get(w: &Written<'_>, rel: RelTag, block: u32) -> Lsn = w.get(rel, block);
    entry_written_get_range(w: &Written<'_>, rel: RelTag, first: u32, to: *mut Lsn, n: usize) -> ()
        = w.get_range(rel, first, core::slice::from_raw_parts_mut(to, n));
    entry_written_get_relation(w: &Written<'_>, rel: RelTag) -> Lsn = w.get_relation(rel);
    entry_written_get_database(w: &Written<'_>, db_oid: u32) -> Lsn = w.get_database(db_oid);
    entry_for_ns(ns: u64) -> Wait<'static> = Wait::for_ns(ns);
    entry_for_ms(ms: u64) -> Wait<'static> = Wait::for_ms(ms);
    // Rung without a handle.
    entry_ring_once(parts: &Parts<'static>) -> () = shmuring::doorbell::ring_once(parts);
}

/// What the check must find: ways to panic and to allocate, behind a table of functions and in the open.
#[cfg(feature = "planted")]
mod planted {

    entries! {
        planted_panic(n: u32) -> u32 = { if n == 7 { panic!("planted") } n };
        planted_index(of: *const u8, n: usize, i: usize) -> u8 = core::slice::from_raw_parts(of, n)[i];
        planted_copy(to: *mut u8, n: usize, from: *const u8, m: usize) -> ()
            = core::slice::from_raw_parts_mut(to, n).copy_from_slice(core::slice::from_raw_parts(from, m));
        planted_division(a: u32, b: u32) -> u32 = a / b;
        planted_allocation(n: u32) -> Box<u32> = Box::new(n);
        planted_dyn(what: *const u8, kind: usize) -> u32 = [&Bad as &dyn Does, &Good][kind & 1].it(&*what);
        planted_pointer(slot: &'static shmuring::layout::Slot) -> u32 = TABLE[slot.orphan.load(shmuring::sync::Ordering::Relaxed) as usize & 1](3);
        planted_thread(n: u32) -> bool = std::thread::Builder::new().spawn(move || n).is_ok();
        planted_format(n: u32, f: &mut core::fmt::Formatter<'_>) -> bool = write!(f, "{n}").is_ok();
    }

    trait Does {
        fn it(&self, n: &u8) -> u32;
    }
    struct Bad;
    struct Good;
    impl Does for Bad {
        #[inline(never)]
        fn it(&self, n: &u8) -> u32 {
            u32::from(*n).checked_sub(200).unwrap()
        }
    }
    impl Does for Good {
        #[inline(never)]
        fn it(&self, n: &u8) -> u32 {
            u32::from(*n) + 1
        }
    }

    static TABLE: [fn(u32) -> u32; 2] = [bad, good];
    #[inline(never)]
    fn bad(n: u32) -> u32 {
        std::hint::black_box(n).checked_sub(4).expect("planted")
    }
    #[inline(never)]
    fn good(n: u32) -> u32 {
        std::hint::black_box(n) * 3
    }
}
