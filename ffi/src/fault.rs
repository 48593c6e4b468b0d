//! Why a call from C was refused: an error of the library, or one that only C can make; as a code and as a sentence.

use core::ffi::{c_char, c_int, CStr};
use core::ptr::NonNull;

use shmuring::error::Error;

use crate::api::{errno, ApiError};
use crate::strerror::shmuring_strerror;

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The library refused it.
    Library(Error),
    /// A null pointer where something is needed.
    Null,
    /// The handle is another thread's.
    WrongThread,
    /// The handle was detached.
    Detached,
    /// The region handle is in use.
    InUse,
    /// A panic was caught, now or earlier.
    Bug,
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        Self::Library(e)
    }
}

impl Fault {
    /// What C gets: an errno, negated.
    #[cold]
    pub(crate) fn code(self) -> c_int {
        -match self {
            Self::Library(e) => e.errno(),
            Self::Null => libc::EFAULT,
            Self::WrongThread => errno::WRONG_THREAD,
            Self::Detached => errno::DETACHED,
            Self::InUse => errno::IN_USE,
            Self::Bug => errno::BUG,
        }
    }

    fn text(self) -> &'static [u8] {
        match self {
            Self::Library(e) => e.text().as_bytes(),
            Self::Null => b"a pointer is null",
            Self::WrongThread => b"the handle is another thread's",
            Self::Detached => b"the handle was detached",
            Self::InUse => b"backends or servers that came by this handle are not freed",
            Self::Bug => b"a bug in shmuring was caught; the handle does nothing any more",
        }
    }

    /// Writes the fault to the caller's error, if it gave one, and gives the code.
    ///
    /// # Safety
    /// `to` is null or may be written.
    pub(crate) unsafe fn tell(self, to: *mut ApiError) -> c_int {
        let code = self.code();
        let Some(to) = NonNull::new(to) else { return code };
        let text = match self {
            Self::Library(Error::Os(_)) => {
                // SAFETY: never null, ended by a 0 byte, and copied before the next call.
                unsafe { CStr::from_ptr(shmuring_strerror(-code)) }.to_bytes()
            }
            other => other.text(),
        };
        let mut error = ApiError { code, text: [0; 252] };
        // The last byte stays 0.
        let [room @ .., _] = &mut error.text;
        for (to, from) in room.iter_mut().zip(text) {
            *to = *from as c_char;
        }
        // SAFETY: not null, and the caller's promise.
        unsafe { to.write(error) };
        code
    }
}

/// What a call gives: a number that C gets, or why not.
pub(crate) type Answer = core::result::Result<c_int, Fault>;

/// The answer as C gets it.
#[inline]
pub(crate) fn code(answer: Answer) -> c_int {
    answer.unwrap_or_else(Fault::code)
}

/// The answer as C gets it, with a sentence in the caller's error if there is one.
///
/// # Safety
/// `err` is null or may be written.
pub(crate) unsafe fn told(answer: Answer, err: *mut ApiError) -> c_int {
    // SAFETY: the caller's promise.
    answer.unwrap_or_else(|fault| unsafe { fault.tell(err) })
}

/// A number that C gets as an int.
pub(crate) fn number(n: u32) -> c_int {
    c_int::try_from(n).unwrap_or(c_int::MAX)
}
