//! The region that is served, held for as long as claims on it may be anywhere.

use core::ffi::{c_char, c_int};
use core::fmt::{Arguments, Write};
use core::ptr::NonNull;
use std::borrow::Cow;
#[cfg(feature = "host")]
use std::path::Path;

use shmuring::error::Error;
#[cfg(feature = "host")]
use shmuring::memory::Room;
use shmuring::region::Region;

use crate::api::ApiError;
use crate::fault::Fault;
use crate::region::ApiRegion;

/// What went wrong: a negative errno and a sentence.
pub(super) type Failure = (i32, Cow<'static, str>);

/// Bytes of the sentence in an error, without the closing zero.
const SENTENCE: usize = 251;

/// What an error of the library is told as, in more words than its own if there is memory for them.
pub(super) fn failure(e: Error, more: Arguments<'_>) -> Failure {
    let mut words = String::new();
    let why = match e {
        Error::Os(libc::ENOMEM) => "there is no memory for it".into(),
        _ if words.try_reserve_exact(SENTENCE).is_ok() && words.write_fmt(more).is_ok() => words.into(),
        e => e.text().into(),
    };
    (-e.errno(), why)
}

/// Tells what went wrong to the caller's error, if it gave one, and gives the code.
///
/// # Safety
/// `to` is null or may be written.
pub(super) unsafe fn report(to: *mut ApiError, (code, why): &Failure) -> c_int {
    if let Some(to) = NonNull::new(to) {
        let mut error = ApiError { code: *code, text: [0; 252] };
        copy_text(&mut error.text, why);
        // SAFETY: not null, and the caller's promise.
        unsafe { to.write(error) };
    }
    *code
}

/// What a caught panic is told as.
pub(super) fn bug() -> Failure {
    (Fault::Bug.code(), "a bug in shmuring was caught".into())
}

/// Copies as many whole characters as there is room for, with spaces for zeros, before the closing zero.
pub(super) fn copy_text(to: &mut [c_char], text: &str) {
    let mut end = text.len().min(to.len().saturating_sub(1));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for (to, from) in to.iter_mut().zip(text.bytes().take(end)) {
        *to = if from == 0 { b' ' } else { from } as c_char;
    }
}

/// A region that stays where it is until this is dropped.
pub(super) enum Held {
    /// The embedder's, who is told that it is in use.
    Lent(*mut ApiRegion, &'static Region),
    /// Attached here.
    #[cfg(feature = "host")]
    Own(NonNull<Region>),
}

impl Held {
    /// # Safety
    /// `handle` is null or a region's handle, which was not detached.
    pub(super) unsafe fn of_handle(handle: *mut ApiRegion) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        match unsafe { ApiRegion::borrow(handle) } {
            Ok(region) => Ok(Self::Lent(handle, region)),
            Err(_) => Err((Fault::Null.code(), "the region is null".into())),
        }
    }

    #[cfg(feature = "host")]
    pub(super) fn attach(path: &Path) -> Result<Self, Failure> {
        let made = Room::new().and_then(|room| Ok(room.put(Region::attach(path)?)));
        match made {
            Ok(region) => Ok(Self::Own(NonNull::from(Box::leak(region)))),
            Err(e) => Err(failure(e, format_args!("{}: {e}", path.display()))),
        }
    }

    /// # Safety
    /// The reference is not used after the drop.
    pub(super) unsafe fn forever(&self) -> &'static Region {
        match self {
            Self::Lent(_, region) => region,
            // SAFETY: made of a box, freed by the drop alone.
            #[cfg(feature = "host")]
            Self::Own(region) => unsafe { region.as_ref() },
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self {
            // SAFETY: borrowed by `of_handle`; nobody uses it any more, by the promise of `forever`'s caller.
            Self::Lent(handle, _) => unsafe { ApiRegion::put_back(*handle) },
            // SAFETY: made of a box by `attach`; the rest as above.
            #[cfg(feature = "host")]
            Self::Own(region) => drop(unsafe { Box::from_raw(region.as_ptr()) }),
        }
    }
}
