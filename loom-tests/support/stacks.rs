//! Keeps mappings that are given back, for the next of the same kind.
//!
//! Each interleaving has new stacks and handles, and asking the kernel for their pages took half the time of the models.
//! The mapping functions of the C library are replaced in these programs: an anonymous mapping that ends is kept, and the
//! next one of that length and kind is it, with whatever it held. Neither stacks nor the page of a handle are read before
//! they are written. The C library's own calls do not come this way.

use std::cell::Cell;
use std::ffi::{c_int, c_long, c_void};

/// Mappings that a thread keeps.
const KEPT: usize = 8;

/// A mapping, by its address and what it was asked for with.
#[derive(Clone, Copy, PartialEq)]
struct Mapping {
    at: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
}

const NONE: Mapping = Mapping { at: std::ptr::null_mut(), len: 0, protection: 0, flags: 0 };

thread_local! {
    // Without a destructor: calls come until the very end of a thread. Those in use, and those that can be.
    static USED: Cell<[Mapping; KEPT]> = const { Cell::new([NONE; KEPT]) };
    static FREE: Cell<[Mapping; KEPT]> = const { Cell::new([NONE; KEPT]) };
}

/// Takes the first of these mappings that is so.
fn take(from: &Cell<[Mapping; KEPT]>, is_wanted: impl Fn(&Mapping) -> bool) -> Option<Mapping> {
    let mut all = from.get();
    let found = all.iter_mut().find(|m| is_wanted(m))?;
    let taken = std::mem::replace(found, NONE);
    from.set(all);
    Some(taken)
}

/// Puts a mapping among these; false without room.
fn put(to: &Cell<[Mapping; KEPT]>, mapping: Mapping) -> bool {
    let mut all = to.get();
    let Some(room) = all.iter_mut().find(|m| m.at.is_null()) else { return false };
    *room = mapping;
    to.set(all);
    true
}

/// Memory of nobody's but the caller, at an address of the kernel's choice.
const PRIVATE: c_int = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE;

/// As the C library's.
///
/// # Safety
///
/// As there.
#[no_mangle]
pub unsafe extern "C" fn mmap(
    at: *mut c_void,
    len: usize,
    protection: c_int,
    flags: c_int,
    file: c_int,
    offset: libc::off_t,
) -> *mut c_void {
    let is_private = at.is_null() && flags & PRIVATE == PRIVATE;
    let fits = |m: &Mapping| !m.at.is_null() && (m.len, m.protection, m.flags) == (len, protection, flags);
    if let Some(kept) = is_private.then(|| FREE.with(|free| take(free, fits))).flatten() {
        USED.with(|used| put(used, kept));
        return kept.at;
    }
    let [protection_, flags_, file] = [protection, flags, file].map(c_long::from);
    // SAFETY: as the caller's call.
    let new = unsafe { libc::syscall(libc::SYS_mmap, at, len, protection_, flags_, file, offset) } as *mut c_void;
    if is_private && new != libc::MAP_FAILED {
        USED.with(|used| put(used, Mapping { at: new, len, protection, flags }));
    }
    new
}

/// As the C library's.
///
/// # Safety
///
/// As there.
#[no_mangle]
pub unsafe extern "C" fn munmap(at: *mut c_void, len: usize) -> c_int {
    let known = USED.with(|used| take(used, |m| !at.is_null() && (m.at, m.len) == (at, len)));
    if known.is_some_and(|mapping| FREE.with(|free| put(free, mapping))) {
        return 0;
    }
    // SAFETY: as the caller's call.
    unsafe { libc::syscall(libc::SYS_munmap, at, len) as c_int }
}
