//! Private memory of a handle: where the system has none left, a backend gets an error, and neither a panic nor an abort.
#![allow(unsafe_code)]

use std::alloc::{alloc, Layout};

use crate::error::{Error, Result};

/// `n` times `value`; ENOMEM where there is no memory. By hand, since `Vec` can panic or abort, though it never would in
/// what is left after a `try_reserve`.
pub(crate) fn filled<T: Copy>(n: usize, value: T) -> Result<Box<[T]>> {
    let none = Error::Os(libc::ENOMEM);
    let layout = Layout::array::<T>(n).map_err(|_| none)?;
    if layout.size() == 0 {
        return Ok(Box::default());
    }
    // SAFETY: the layout is not of size 0.
    let base: *mut T = unsafe { alloc(layout) }.cast();
    if base.is_null() {
        return Err(none);
    }
    for i in 0..n {
        // SAFETY: room for `n`, aligned, and ours alone.
        unsafe { base.add(i).write(value) };
    }
    // SAFETY: all `n` are written, in memory of the global allocator with the layout that a box of them has.
    Ok(unsafe { Box::from_raw(core::ptr::slice_from_raw_parts_mut(base, n)) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_there_is_is_filled() {
        assert_eq!(*filled(3, 7_u32).unwrap(), [7, 7, 7]);
        assert!(filled(0, 7_u32).unwrap().is_empty());
    }

    #[test]
    fn memory_that_there_is_not_is_an_error() {
        assert_eq!(filled(usize::MAX, 7_u32), Err(Error::Os(libc::ENOMEM)));
        assert_eq!(filled(isize::MAX as usize / 4, 7_u32), Err(Error::Os(libc::ENOMEM)));
    }
}
