//! Errors as text, without an allocation.

use core::ffi::{c_char, c_int, CStr};

use crate::guard::guard;

/// Largest errno whose text the C library has ready; of larger ones it would make a text, and allocate for it.
const LAST_ERRNO: c_int = libc::EHWPOISON;

/// What a negative return value of this library means. Where a system call may have answered the same, or several
/// errors share an errno, the text says all of it.
const fn own_text(errno: c_int) -> Option<&'static CStr> {
    Some(match errno {
        libc::ENODATA => c"the region is shorter than its header says",
        libc::EMEDIUMTYPE => c"not a shmuring region, or not yet finished by its creator",
        libc::EPROTONOSUPPORT => c"the region was made by another ABI version, or needs an unknown feature",
        libc::EPROTO => c"the region was made by a build with another layout",
        libc::EBADMSG => c"sizes or offsets of the region are impossible",
        libc::EXDEV => c"the region was made in another time namespace",
        libc::ENOLCK => c"the lock file is not the one that the region was made with, or no locks are left",
        libc::EFAULT => c"the memory handed over is null, misaligned or too small, or a pointer is null",
        libc::EEXIST => c"a region of that name exists and differs from what was asked for",
        libc::EINVAL => c"slot, pool, buffer, number of blocks, opcode, flag or other argument not valid",
        libc::EBUSY => {
            c"the slot is in use, not filled or not finished, or a living process or handle holds what was asked for"
        }
        libc::ESTALE => c"the reference names an old generation of its slot",
        libc::EAGAIN => c"no request slot is free",
        libc::ENOBUFS => c"no bounce buffer is free",
        libc::E2BIG => c"too many words to wait for at once",
        libc::EBADF => c"the handle was detached, or the descriptor is none",
        libc::EPERM => c"the handle was carried over a fork, or is another thread's, or the system does not permit it",
        libc::ETIMEDOUT => c"the wait timed out",
        libc::EINTR => c"the wait was interrupted",
        libc::EOWNERDEAD => c"the wait timed out, and there is no communicator",
        libc::EINPROGRESS => c"a claimed mutation cannot be cancelled",
        libc::ECANCELED => c"the request was cancelled, and its slot given back",
        libc::EALREADY => c"the request was already complete",
        libc::ENOTRECOVERABLE => c"a bug in shmuring was caught; do not use the handle any more",
        _ => return None,
    })
}

/// A sentence about `code`: below 0 a value that this library returned, above 0 the errno of a result, which is the
/// system's. Never null; valid until the calling thread's next call at least; most texts are static.
#[no_mangle]
pub extern "C" fn shmuring_strerror(code: c_int) -> *const c_char {
    guard(c"a bug in shmuring".as_ptr(), || {
        if code == 0 {
            return c"success".as_ptr();
        }
        if let Some(text) = code.checked_neg().and_then(own_text) {
            return text.as_ptr();
        }
        let errno = code.unsigned_abs();
        if errno > LAST_ERRNO.unsigned_abs() {
            return c"unknown error".as_ptr();
        }
        // SAFETY: any number may be asked for; for one in this range the C library answers with a string of its own.
        let text = unsafe { libc::strerror(errno as c_int) };
        if text.is_null() {
            c"unknown error".as_ptr()
        } else {
            text.cast_const()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(code: c_int) -> String {
        // SAFETY: never null, and copied at once.
        unsafe { CStr::from_ptr(shmuring_strerror(code)) }.to_string_lossy().into_owned()
    }

    #[test]
    fn every_int_has_a_text() {
        for code in (-300..300).chain([c_int::MIN, c_int::MIN + 1, c_int::MAX]) {
            assert!(!text(code).is_empty(), "{code}");
        }
        assert_eq!(text(0), "success");
        assert_eq!(text(c_int::MIN), "unknown error");
    }

    #[test]
    fn an_errno_of_a_result_has_the_text_of_the_system() {
        assert_ne!(text(libc::ENODATA), text(-libc::ENODATA));
        assert_eq!(text(libc::EIO), text(-libc::EIO));
    }
}
