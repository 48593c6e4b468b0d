//! The only file that names std, loom or shuttle atomics and cells.
//!
//! Protocol code takes its atomics, cells and fences from here, so that `cargo test --features loom` runs the very same
//! functions under the model checker. Every ordering that another process relies on is written through `ord!`, which
//! carries the label of its edge: in a normal build it is the ordering itself, under loom a test may weaken that one
//! edge and demand that the model fails. docs/ordering.md lists the labels.
#![allow(unsafe_code)]

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod imp {
    pub use core::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};

    /// A cell that both sides of the protocol reach; the closure style is loom's, which checks every access.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// A cell that holds `value`.
        pub const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        /// Gives a pointer for reading; the caller holds the right to read by the slot word (I1).
        #[inline(always)]
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Gives a pointer for writing; the caller holds the right to write by the slot word (I1).
        #[inline(always)]
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// One turn of a spin loop.
    #[inline(always)]
    pub fn spin_loop() {
        core::hint::spin_loop();
    }
}

#[cfg(feature = "loom")]
mod imp {
    pub use loom::cell::UnsafeCell;
    pub use loom::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};

    /// One turn of a spin loop; loom needs the other threads to get a turn.
    pub fn spin_loop() {
        loom::thread::yield_now();
    }
}

#[cfg(all(feature = "shuttle", not(feature = "loom")))]
mod imp {
    pub use shuttle::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};

    /// The cell of the normal build: shuttle checks schedules, not accesses.
    #[derive(Debug, Default)]
    #[repr(transparent)]
    pub struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        /// A cell that holds `value`.
        pub const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        /// Gives a pointer for reading.
        pub fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Gives a pointer for writing.
        pub fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }

    /// One turn of a spin loop.
    pub fn spin_loop() {
        shuttle::thread::yield_now();
    }
}

pub use imp::*;

/// A number that is only ever told to people: statistics and messages. No edge and no decision hangs off it, so the model
/// checkers need not see it, and it is the same atomic in every build.
pub use core::sync::atomic::AtomicU64 as Tally;

/// The ordering of a labelled edge, or of several that meet in one access. Under loom a test may weaken one label (see
/// [`edges`]).
#[cfg(not(feature = "loom"))]
macro_rules! ord {
    ($($edge:ident)|+, $order:ident) => {
        $crate::sync::Ordering::$order
    };
}

/// The ordering of a labelled edge, or of several that meet in one access. Under loom a test may weaken one label (see
/// [`edges`]).
#[cfg(feature = "loom")]
macro_rules! ord {
    ($($edge:ident)|+, $order:ident) => {
        $crate::sync::edges::pick(&[$(stringify!($edge)),+], $crate::sync::Ordering::$order)
    };
}
pub(crate) use ord;

/// Weakening of single edges, for the twins of the model checks that must fail.
#[cfg(feature = "loom")]
pub mod edges {
    use super::Ordering;
    use std::cell::RefCell;

    std::thread_local! {
        // loom runs all threads of a model on the OS thread of the test, so this is one cell a test.
        static WEAK: RefCell<Option<&'static str>> = const { RefCell::new(None) };
    }

    /// Runs `f` with the edge `label` weakened: accesses become Relaxed, a SeqCst fence becomes AcqRel.
    pub fn weaken<R>(label: &'static str, f: impl FnOnce() -> R) -> R {
        WEAK.with(|w| *w.borrow_mut() = Some(label));
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                WEAK.with(|w| *w.borrow_mut() = None);
            }
        }
        let _restore = Restore;
        f()
    }

    /// The ordering to use for an access with these labels: `order`, unless a test weakened one of them.
    #[must_use]
    pub fn pick(labels: &[&'static str], order: Ordering) -> Ordering {
        if !WEAK.with(|w| w.borrow().is_some_and(|weak| labels.contains(&weak))) {
            return order;
        }
        match order {
            Ordering::SeqCst => Ordering::AcqRel,
            _ => Ordering::Relaxed,
        }
    }
}

/// The fence between a store (or RMW) and a load of the sleep/wake handshake, where the store was a locked RMW.
///
/// On x86 a locked instruction orders it already, so the fence is the compiler's alone (measured: 4-8 % of a pipelined
/// request); everywhere else, and under the model checkers, it is a SeqCst fence.
#[inline(always)]
pub(crate) fn fence_after_rmw(order: Ordering) {
    #[cfg(all(target_arch = "x86_64", not(any(feature = "loom", feature = "shuttle"))))]
    {
        core::sync::atomic::compiler_fence(order);
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(feature = "loom", feature = "shuttle")))))]
    {
        fence(order);
    }
}

/// Asks for the cache line of `at` in a writable state; a hint that costs nothing when it is wrong, at any address.
///
/// Written as the instruction itself: the intrinsic for it becomes a prefetch for *reading* unless the whole program is
/// compiled for processors that have this one, which then fetches the line in the wrong state. Processors without it
/// treat it as a NOP.
#[inline(always)]
pub(crate) fn prefetch_write<T>(at: *const T) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, feature = "loom", feature = "shuttle"))))]
    {
        // SAFETY: a prefetch has no effect that a program can see, whatever the address.
        unsafe {
            core::arch::asm!("prefetchw [{}]", in(reg) at, options(readonly, nostack, preserves_flags));
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, feature = "loom", feature = "shuttle")))))]
    {
        let _ = at;
    }
}

/// Asks for the cache line of `at` for reading; a hint as [`prefetch_write`].
#[inline(always)]
pub(crate) fn prefetch_read<T>(at: &T) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, feature = "loom", feature = "shuttle"))))]
    {
        // SAFETY: as in `prefetch_write`.
        unsafe {
            core::arch::asm!("prefetcht0 [{}]", in(reg) core::ptr::from_ref(at), options(readonly, nostack, preserves_flags));
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, feature = "loom", feature = "shuttle")))))]
    {
        let _ = at;
    }
}
