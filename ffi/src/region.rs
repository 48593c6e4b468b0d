//! Regions: sizes, the ways to make and attach them, pools, what they tell.

use core::ffi::{c_char, c_int, c_void, CStr};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, Ordering};
use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use shmuring::error::Error;
use shmuring::layout::{OwnerStats, RoleStats, FEATURES};
use shmuring::memory::Room;
use shmuring::region::{Options, Region, DEFAULT_REL_SIZES, DEFAULT_WRITTEN_BUCKETS};

use crate::api::{ApiError, ApiInfo, ApiOptions, NONE};
use crate::fault::{code, told, Fault};
use crate::guard::guard;

/// What a `struct shmuring_region` is.
#[derive(Debug)]
pub struct ApiRegion {
    region: Region,
    /// Backends and servers that borrow `region`.
    users: AtomicU32,
}

impl ApiRegion {
    /// The region behind a pointer from C, and one more user of it, who calls [`ApiRegion::put_back`] in the end.
    ///
    /// # Safety
    /// `region` is null or a handle that was not detached.
    pub(crate) unsafe fn borrow(region: *mut Self) -> Result<&'static Region, Fault> {
        // SAFETY: the caller's promise; a handle with users is not detached, so it lives as long as they do.
        let this: &'static Self = unsafe { region.as_ref() }.ok_or(Fault::Null)?;
        // Relaxed: the embedder orders attaching and detaching; the count only tells mistakes.
        this.users.fetch_add(1, Ordering::Relaxed);
        Ok(&this.region)
    }

    /// The region behind a pointer from C, for the length of a call.
    ///
    /// # Safety
    /// `region` is null or a handle that is not detached as long as the result is used.
    #[inline]
    pub(crate) unsafe fn look<'r>(region: *const Self) -> Result<&'r Region, Fault> {
        // SAFETY: the caller's promise.
        Ok(&unsafe { region.as_ref() }.ok_or(Fault::Null)?.region)
    }

    /// Ends one use.
    ///
    /// # Safety
    /// `region` is what [`ApiRegion::borrow`] was called with, and nothing borrows from it any more for that call.
    pub(crate) unsafe fn put_back(region: *const Self) {
        // SAFETY: the caller's promise.
        if let Some(this) = unsafe { region.as_ref() } {
            this.users.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The options behind a pointer from C.
///
/// # Safety
/// `options` is null or may be read.
unsafe fn options_of(options: *const ApiOptions) -> Result<Options, Fault> {
    let options = NonNull::new(options.cast_mut()).ok_or(Fault::Null)?;
    // SAFETY: not null, and the caller's promise.
    let ApiOptions { slots, bounce_per_slot, block_size, written_buckets, rel_sizes, reserved } =
        unsafe { options.read() };
    if reserved != [0; 3] {
        return Err(Error::BadRequest.into());
    }
    let or_default = |asked, default| match asked {
        0 => default,
        NONE => 0,
        n => n,
    };
    Ok(Options {
        slots,
        bounce_per_slot,
        block_size,
        written_buckets: or_default(written_buckets, DEFAULT_WRITTEN_BUCKETS),
        rel_sizes: or_default(rel_sizes, DEFAULT_REL_SIZES),
    })
}

/// The path behind a pointer from C.
///
/// # Safety
/// `path` is null or a C string that stays as it is as long as the result is used.
unsafe fn path_of<'p>(path: *const c_char) -> Result<&'p Path, Fault> {
    if path.is_null() {
        return Err(Fault::Null);
    }
    // SAFETY: not null, and the caller's promise.
    Ok(Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes())))
}

/// Makes a handle of what `make` gives, and stores it in `*out`.
///
/// # Safety
/// `out` and `err` are null or may be written.
unsafe fn hand_out(
    out: *mut *mut ApiRegion,
    err: *mut ApiError,
    make: impl FnOnce() -> Result<(Region, c_int), Fault>,
) -> c_int {
    let answer = guard(Err(Fault::Bug), || {
        let out = NonNull::new(out).ok_or(Fault::Null)?;
        // First, so that an error leaves no region made.
        let room = Room::new()?;
        let (region, code) = make()?;
        let handle = room.put(ApiRegion { region, users: AtomicU32::new(0) });
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(Box::into_raw(handle)) };
        Ok(code)
    });
    // SAFETY: the caller's promise.
    unsafe { told(answer, err) }
}

/// Bytes of a region of these sizes, into `*bytes`.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_size(options: *const ApiOptions, bytes: *mut u64) -> c_int {
    code(guard(Err(Fault::Bug), || {
        let bytes = NonNull::new(bytes).ok_or(Fault::Null)?;
        // SAFETY: the caller's promise.
        let n = Region::size(&unsafe { options_of(options) }?)?;
        // SAFETY: not null, and the caller's promise.
        unsafe { bytes.write(n) };
        Ok(0)
    }))
}

/// Makes a region in memory of the caller.
///
/// # Safety
/// Each pointer is null or may be used as the header says; nobody else uses the memory during the call.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_init(
    base: *mut c_void,
    len: usize,
    options: *const ApiOptions,
    lock_path: *const c_char,
    out: *mut *mut ApiRegion,
    err: *mut ApiError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        hand_out(out, err, || {
            let (options, lock_path) = (options_of(options)?, path_of(lock_path)?);
            Ok((Region::init_adopted(base.cast(), len, &options, lock_path)?, 0))
        })
    }
}

/// Attaches a region in memory of the caller.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_attach_memory(
    base: *mut c_void,
    len: usize,
    lock_path: *const c_char,
    out: *mut *mut ApiRegion,
    err: *mut ApiError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { hand_out(out, err, || Ok((Region::attach_adopted(base.cast(), len, path_of(lock_path)?)?, 0))) }
}

/// Attaches the region of that name, and makes it if there is none: 1 if it was made.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_create(
    path: *const c_char,
    options: *const ApiOptions,
    out: *mut *mut ApiRegion,
    err: *mut ApiError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        hand_out(out, err, || {
            let (region, is_made) = Region::create_named(path_of(path)?, &options_of(options)?)?;
            Ok((region, is_made.into()))
        })
    }
}

/// Makes a region in a memfd.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_create_memfd(
    options: *const ApiOptions,
    out: *mut *mut ApiRegion,
    err: *mut ApiError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { hand_out(out, err, || Ok((Region::create_memfd(&options_of(options)?)?, 0))) }
}

/// Attaches the region of that name.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_attach(
    path: *const c_char,
    out: *mut *mut ApiRegion,
    err: *mut ApiError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { hand_out(out, err, || Ok((Region::attach(path_of(path)?)?, 0))) }
}

/// Attaches the region behind a descriptor.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_attach_fd(fd: c_int, out: *mut *mut ApiRegion, err: *mut ApiError) -> c_int {
    // SAFETY: the caller's promise; a descriptor that is none is refused by the kernel.
    unsafe {
        hand_out(out, err, || {
            if fd < 0 {
                return Err(Error::Os(libc::EBADF).into());
            }
            Ok((Region::attach_fd(BorrowedFd::borrow_raw(fd))?, 0))
        })
    }
}

/// Maps the region of that name for reading.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_observe(
    path: *const c_char,
    out: *mut *mut ApiRegion,
    err: *mut ApiError,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { hand_out(out, err, || Ok((Region::observe(path_of(path)?)?, 0))) }
}

/// The descriptor of a region; -ENOENT if it has none.
///
/// # Safety
/// `region` is null or a handle that was not detached.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_fd(region: *const ApiRegion) -> c_int {
    // SAFETY: the caller's promise.
    match unsafe { region.as_ref() } {
        Some(this) => this.region.fd().map_or(-libc::ENOENT, |fd| fd.as_raw_fd()),
        None => Fault::Null.code(),
    }
}

/// What there is to know of a region.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_info(region: *const ApiRegion, info: *mut ApiInfo) -> c_int {
    // SAFETY: the caller's promise.
    let (Some(this), Some(info)) = (unsafe { region.as_ref() }, NonNull::new(info)) else { return Fault::Null.code() };
    let parts = this.region.parts();
    let all = ApiInfo {
        slots: parts.geometry.slots,
        bounce_per_slot: parts.geometry.bounce_per_slot,
        block_size: parts.geometry.block_size,
        // Relaxed, here and below: numbers for people.
        life: parts.header.life.life.load(Ordering::Relaxed),
        bytes: parts.geometry.total_len,
        id: this.region.id(),
        features: FEATURES,
        epoch: parts.header.role.epoch.load(Ordering::Relaxed),
        communicator: this.region.liveness().role_held().into(),
        is_read_only: this.region.is_read_only().into(),
        reserved: [0; 5],
    };
    // SAFETY: not null, and the caller's promise.
    unsafe { info.write(all) };
    0
}

/// Registers a buffer pool of this process.
///
/// # Safety
/// Each pointer is null or may be used as the header says; no other thread uses the handle during the call.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_register_pool(
    region: *mut ApiRegion,
    pool: u16,
    base: *mut c_void,
    stride: usize,
    count: u32,
    err: *mut ApiError,
) -> c_int {
    let register = || {
        // SAFETY: the caller's promise: nothing else uses the handle now.
        let this = unsafe { region.as_mut() }.ok_or(Fault::Null)?;
        if *this.users.get_mut() != 0 {
            return Err(Fault::InUse);
        }
        this.region.check_process()?;
        // SAFETY: nothing borrows the region, and the memory is as the header demands.
        unsafe { this.region.register_pool(pool, base.cast(), stride, count)? };
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { told(register(), err) }
}

/// Ends the handle.
///
/// # Safety
/// `region` is null or a handle that was not detached, and is not used any more if this succeeds.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_detach(region: *mut ApiRegion) -> c_int {
    code(guard(Err(Fault::Bug), || {
        // SAFETY: the caller's promise.
        let Some(this) = (unsafe { region.as_ref() }) else { return Ok(0) };
        if this.users.load(Ordering::Relaxed) != 0 {
            return Err(Fault::InUse);
        }
        // SAFETY: made by `hand_out`, and nobody borrows from it.
        drop(unsafe { Box::from_raw(region) });
        Ok(0)
    }))
}

/// Removes the name of a region.
///
/// # Safety
/// `path` is null or a C string.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_unlink(path: *const c_char) -> c_int {
    code(guard(Err(Fault::Bug), || {
        // SAFETY: the caller's promise.
        Region::unlink(unsafe { path_of(path) }?)?;
        Ok(0)
    }))
}

/// Counters of the owner of the range that begins at `first`.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_owner_statistics(
    region: *const ApiRegion,
    first: u32,
    out: *mut OwnerStats,
) -> c_int {
    // SAFETY: the caller's promise.
    let (Some(this), Some(out)) = (unsafe { region.as_ref() }, NonNull::new(out)) else { return Fault::Null.code() };
    let Some(stats) = this.region.parts().owner_stats.get(first as usize) else { return -Error::BadSlot.errno() };
    let counts = stats.counters.iter().chain(&stats.latency).map(|c| c.load(Ordering::Relaxed));
    // SAFETY: not null, and the caller's promise.
    unsafe { copy_counts(counts, out) };
    0
}

/// Counters of the communicators.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_role_statistics(region: *const ApiRegion, out: *mut RoleStats) -> c_int {
    // SAFETY: the caller's promise.
    let (Some(this), Some(out)) = (unsafe { region.as_ref() }, NonNull::new(out)) else { return Fault::Null.code() };
    let stats = this.region.parts().role_stats;
    let all = stats.counters.iter().chain(stats.service.iter().flatten()).chain(&stats.blocked);
    let counts = all.map(|c| c.load(Ordering::Relaxed));
    // SAFETY: not null, and the caller's promise.
    unsafe { copy_counts(counts, out) };
    0
}

/// Writes numbers to a structure of C that is made of nothing else; what is behind them becomes 0.
///
/// # Safety
/// `out` may be written.
unsafe fn copy_counts<T>(counts: impl Iterator<Item = u64>, out: NonNull<T>) {
    let places = size_of::<T>() / size_of::<u64>();
    for (i, n) in counts.chain(core::iter::repeat(0)).take(places).enumerate() {
        // SAFETY: i < places, so inside of T; the alignment of T is at least that of a u64.
        unsafe { out.cast::<u64>().add(i).write(n) };
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;
    use core::mem::MaybeUninit;
    use shmuring::layout::OwnerStats;
    use shmuring::sync::Tally;

    /// Numbers the words of a structure that is made of counters.
    fn number<T>(stats: &T) -> Vec<u64> {
        let at = core::ptr::from_ref(stats).cast::<Tally>();
        // SAFETY: inside of T, which is made of such atomics alone but for padding, which lies in the region too.
        let word = |i: usize| unsafe { &*at.add(i) };
        (0..size_of::<T>() / 8).map(|i| word(i).fetch_add(i as u64 + 1, Ordering::Relaxed) + i as u64 + 1).collect()
    }

    fn words<T>(of: &MaybeUninit<T>) -> Vec<u64> {
        // SAFETY: zeroed or written, and inside of T.
        (0..size_of::<T>() / 8).map(|i| unsafe { of.as_ptr().cast::<u64>().add(i).read() }).collect()
    }

    #[test]
    fn every_counter_reaches_c() {
        let options = ApiOptions {
            slots: 4,
            bounce_per_slot: 1,
            block_size: 512,
            written_buckets: NONE,
            rel_sizes: NONE,
            reserved: [0; 3],
        };
        let mut region = core::ptr::null_mut();
        // SAFETY: all that is named may be read or written.
        unsafe {
            assert_eq!(shmuring_region_create_memfd(&options, &mut region, core::ptr::null_mut()), 0);
            let parts = (*region).region.parts();
            let (role, owner) = (number(parts.role_stats), number(&parts.owner_stats[1]));
            let (mut to_role, mut to_owner) = (MaybeUninit::<RoleStats>::zeroed(), MaybeUninit::<OwnerStats>::zeroed());
            assert_eq!(shmuring_role_statistics(region, to_role.as_mut_ptr()), 0);
            assert_eq!(shmuring_owner_statistics(region, 1, to_owner.as_mut_ptr()), 0);
            assert_eq!(words(&to_role), role);
            // The last 8 are padding.
            assert_eq!(
                (words(&to_owner)[..40].to_vec(), words(&to_owner)[40..].to_vec()),
                (owner[..40].to_vec(), vec![0; 8])
            );
            assert_eq!(shmuring_region_detach(region), 0);
        }
    }
}
