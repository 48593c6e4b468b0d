//! Versions and sizes: what an embedder asks before there is a region.

use core::ffi::{c_char, c_int};
use core::ptr::NonNull;

use shmuring::layout::ABI_VERSION;
use shmuring::region::{Options, Region};

use crate::guard::guard;

/// The version of the library as text, `"1.2.3"`; static.
#[no_mangle]
pub extern "C" fn shmuring_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The ABI version of the library: that of the regions that it makes and attaches.
#[no_mangle]
pub extern "C" fn shmuring_abi_version() -> u32 {
    ABI_VERSION
}

/// Bytes of a region of these sizes, into `*bytes`. 0; -EFAULT for a null pointer; -EBADMSG for sizes that make no
/// sense. On an error `*bytes` is as it was.
///
/// # Safety
/// `bytes` is null or may be written.
#[no_mangle]
pub unsafe extern "C" fn shmuring_region_size(
    slots: u32,
    bounce_per_slot: u32,
    block_size: u32,
    bytes: *mut u64,
) -> c_int {
    guard(-libc::ENOTRECOVERABLE, || {
        let Some(bytes) = NonNull::new(bytes) else { return -libc::EFAULT };
        match Region::size(&Options { bounce_per_slot, block_size, ..Options::new(slots) }) {
            Ok(n) => {
                // SAFETY: not null, and the caller's promise.
                unsafe { bytes.write(n) };
                0
            }
            Err(e) => -e.errno(),
        }
    })
}
