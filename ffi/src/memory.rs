//! Memory of handles: an error where there is none left, in place of an abort.

use std::alloc::{alloc, Layout};

use shmuring::error::Error;

use crate::fault::Fault;

/// A box of its own for `value`; it ends with `Box::from_raw`.
pub(crate) fn boxed<T>(value: T) -> Result<*mut T, Fault> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(core::ptr::NonNull::dangling().as_ptr());
    }
    // SAFETY: the layout is not of size 0.
    let at: *mut T = unsafe { alloc(layout) }.cast();
    if at.is_null() {
        return Err(Error::Os(libc::ENOMEM).into());
    }
    // SAFETY: room for a T, aligned, and ours alone.
    unsafe { at.write(value) };
    Ok(at)
}
