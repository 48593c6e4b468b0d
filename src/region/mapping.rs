//! Bytes of a region in this process: mapped from a file, or adopted from the embedder.

use std::fs::File;
use std::mem::{align_of, size_of};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use crate::error::{Error, Result};
use crate::layout::Header;

/// A range of mapped bytes. A mapping made here is undone on Drop, adopted memory is not.
#[derive(Debug)]
pub(super) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    adopted: bool,
}

impl Mapping {
    /// Maps the first `len` bytes of `file`, shared.
    pub(super) fn of_file(file: &File, len: u64, writable: bool) -> Result<Self> {
        let len = usize::try_from(len).map_err(|_| Error::BadMemory)?;
        if len < size_of::<Header>() {
            return Err(Error::TooShort);
        }
        let protection = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // MADV_DONTFORK is not used: an embedder may fork processes that go on using its own views of these bytes.
        // SAFETY: a new mapping at an address of the kernel's choice disturbs nothing that exists.
        let base = unsafe { libc::mmap(core::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os());
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or(Error::BadMemory)?;
        Ok(Self { base, len, adopted: false })
    }

    /// Takes the embedder's bytes.
    ///
    /// # Safety
    /// `len` bytes from `base` on are mapped readable and writable, at this address, for as long as the Mapping lives.
    pub(super) unsafe fn adopt(base: *mut u8, len: usize) -> Result<Self> {
        let fits = len <= isize::MAX as usize && (base as usize).checked_add(len).is_some();
        let base = NonNull::new(base).filter(|b| b.cast::<Header>().is_aligned()).ok_or(Error::BadMemory)?;
        if !fits {
            return Err(Error::BadMemory);
        }
        if len < size_of::<Header>() {
            return Err(Error::TooShort);
        }
        Ok(Self { base, len, adopted: true })
    }

    /// Bytes mapped.
    pub(super) fn len(&self) -> u64 {
        self.len as u64
    }

    /// Address of `count` things of type T at byte `offset`; `BadGeometry` unless they lie inside, aligned.
    pub(super) fn at<T>(&self, offset: u64, count: u64) -> Result<NonNull<[T]>> {
        let end = count.checked_mul(size_of::<T>() as u64).and_then(|bytes| bytes.checked_add(offset));
        if end.is_none_or(|end| end > self.len()) {
            return Err(Error::BadGeometry);
        }
        // Both are at most `len`, a usize.
        let (offset, count) = (offset as usize, count as usize);
        // SAFETY: offset <= len by the check above, so the sum stays inside the mapping.
        let first = unsafe { self.base.add(offset) };
        if first.as_ptr() as usize % align_of::<T>() != 0 {
            return Err(Error::BadGeometry);
        }
        Ok(NonNull::slice_from_raw_parts(first.cast::<T>(), count))
    }

    /// The header.
    pub(super) fn header(&self) -> &Header {
        // SAFETY: both constructors made sure of the length and of the alignment (mmap gives pages); every field is
        // an atomic or a cell, and any bytes are a value of it.
        unsafe { self.base.cast::<Header>().as_ref() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if !self.adopted {
            // SAFETY: of_file mapped exactly this range, and views of it are borrowed from the Region that owns self.
            // It cannot fail for such a range, and there would be nobody to tell.
            unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
        }
    }
}
