//! Private memory of a handle: from the system, or what the embedder gave. Where there is none left, the caller gets an
//! error, and neither a panic nor an abort.
#![allow(unsafe_code)]

use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::alloc::{alloc, dealloc, Layout};

use crate::error::{Error, Result};

/// Room for one thing that is made later: what could fail for want of memory is behind whoever has it.
#[derive(Debug)]
pub struct Room<T>(NonNull<T>);

impl<T> Room<T> {
    /// Room from the system; ENOMEM where there is none.
    pub fn new() -> Result<Self> {
        let layout = Layout::new::<T>();
        if layout.size() == 0 {
            return Ok(Self(NonNull::dangling()));
        }
        // SAFETY: the layout is not of size 0.
        let at = unsafe { alloc(layout) }.cast();
        NonNull::new(at).map(Self).ok_or(Error::Os(libc::ENOMEM))
    }

    /// Puts the thing there.
    #[must_use]
    pub fn put(self, thing: T) -> Box<T> {
        let at = self.0.as_ptr();
        core::mem::forget(self);
        // SAFETY: room for a T, aligned, and ours alone; the allocator is that of boxes.
        unsafe {
            at.write(thing);
            Box::from_raw(at)
        }
    }
}

impl<T> Drop for Room<T> {
    fn drop(&mut self) {
        let layout = Layout::new::<T>();
        if layout.size() > 0 {
            // SAFETY: allocated by `new` with this layout, and nothing was put there.
            unsafe { dealloc(self.0.as_ptr().cast(), layout) };
        }
    }
}

/// Where arrays come from.
#[derive(Debug)]
pub enum Memory {
    /// The system: freed with the handle.
    System,
    /// The embedder: not freed.
    Given(Given),
}

/// Memory of an embedder, of which arrays take from the front.
#[derive(Debug)]
pub struct Given {
    at: *mut u8,
    left: usize,
}

impl Given {
    /// Alignment of the memory.
    pub const ALIGN: usize = 8;

    /// The `len` bytes from `at` on.
    ///
    /// # Safety
    /// They are aligned to [`Given::ALIGN`], readable and writable, and nobody else's as long as a handle that took from
    /// them lives.
    #[must_use]
    pub const unsafe fn new(at: *mut u8, len: usize) -> Self {
        Self { at, left: len }
    }

    /// Takes `bytes`, rounded up to [`Given::ALIGN`].
    fn take(&mut self, bytes: usize) -> Option<*mut u8> {
        let bytes = bytes.checked_next_multiple_of(Self::ALIGN)?;
        self.left = self.left.checked_sub(bytes)?;
        let taken = self.at;
        self.at = taken.wrapping_add(bytes);
        Some(taken)
    }
}

/// Bytes that `n` times T takes of [`Given`].
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
pub(crate) const fn given_bytes<T>(n: usize) -> usize {
    n.saturating_mul(size_of::<T>()).saturating_add(Given::ALIGN - 1) / Given::ALIGN * Given::ALIGN
}

/// An array whose length is fixed.
#[derive(Debug)]
pub(crate) struct Array<T: Copy> {
    at: NonNull<T>,
    len: usize,
    is_given: bool,
}

// SAFETY: it is the only way to its elements, as a box would be.
unsafe impl<T: Copy + Send> Send for Array<T> {}

impl<T: Copy> Array<T> {
    /// `n` times `value`; ENOMEM where there is no memory. By hand, since `Vec` can panic or abort, though it never would
    /// in what is left after a `try_reserve`.
    pub(crate) fn filled(n: usize, value: T, memory: &mut Memory) -> Result<Self> {
        let none = Error::Os(libc::ENOMEM);
        let layout = Layout::array::<T>(n).map_err(|_| none)?;
        let (base, is_given) = match memory {
            _ if layout.size() == 0 => (NonNull::dangling().as_ptr(), true),
            // SAFETY: the layout is not of size 0.
            Memory::System => (unsafe { alloc(layout) }.cast(), false),
            Memory::Given(given) if align_of::<T>() <= Given::ALIGN => {
                (given.take(layout.size()).map_or(core::ptr::null_mut(), <*mut u8>::cast), true)
            }
            Memory::Given(_) => return Err(Error::BadMemory),
        };
        let at = NonNull::<T>::new(base).ok_or(none)?;
        for i in 0..n {
            // SAFETY: room for `n`, aligned, and ours alone.
            unsafe { at.add(i).write(value) };
        }
        Ok(Self { at, len: n, is_given })
    }
}

impl<T: Copy> Deref for Array<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `filled` wrote so many; they are ours alone.
        unsafe { core::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<T: Copy> DerefMut for Array<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl<T: Copy> Drop for Array<T> {
    fn drop(&mut self) {
        if let (false, Ok(layout)) = (self.is_given, Layout::array::<T>(self.len)) {
            // SAFETY: allocated by `filled` with this layout.
            unsafe { dealloc(self.at.as_ptr().cast(), layout) };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn filled<T: Copy>(n: usize, value: T) -> Result<Array<T>> {
        Array::filled(n, value, &mut Memory::System)
    }

    #[test]
    fn memory_that_there_is_is_filled() {
        assert_eq!(*filled(3, 7_u32).unwrap(), [7, 7, 7]);
        assert!(filled(0, 7_u32).unwrap().is_empty());
    }

    #[test]
    fn memory_that_there_is_not_is_an_error() {
        assert_eq!(filled(usize::MAX, 7_u32).err(), Some(Error::Os(libc::ENOMEM)));
        assert_eq!(filled(isize::MAX as usize / 4, 7_u32).err(), Some(Error::Os(libc::ENOMEM)));
    }

    #[test]
    fn what_was_given_is_taken_from_the_front_and_no_byte_more() {
        let mut bytes = [0_u64; 5];
        // SAFETY: 40 bytes of ours.
        let mut memory = Memory::Given(unsafe { Given::new(bytes.as_mut_ptr().cast(), size_of_val(&bytes)) });
        let first = Array::filled(3, 1_u8, &mut memory).unwrap();
        let second = Array::filled(3, u64::MAX, &mut memory).unwrap();
        assert_eq!(Array::filled(9, 1_u8, &mut memory).err(), Some(Error::Os(libc::ENOMEM)));
        assert_eq!(Array::filled(2, 2_u32, &mut memory).unwrap()[..], [2, 2]);
        assert_eq!(given_bytes::<u8>(3) + given_bytes::<u64>(3) + given_bytes::<u32>(2), 40);
        drop((first, second));
        assert_eq!(bytes, [0x0001_0101, u64::MAX, u64::MAX, u64::MAX, 2 << 32 | 2]);
    }
}
