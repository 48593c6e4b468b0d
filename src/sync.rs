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
    pub use loom::sync::atomic::Ordering;

    /// A fence; Relaxed is none (a twin without it).
    pub fn fence(order: Ordering) {
        if order != Ordering::Relaxed {
            loom::sync::atomic::fence(order);
        }
    }

    /// One turn of a spin loop; loom needs the other threads to get a turn.
    pub fn spin_loop() {
        loom::thread::yield_now();
    }
}

#[cfg(all(feature = "shuttle", not(feature = "loom")))]
mod imp {
    pub use shuttle::sync::atomic::{fence, Ordering};

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
#[cfg(any(feature = "loom", feature = "shuttle"))]
pub use mortal::{AtomicU32, AtomicU64};

/// Threads of a model that die as if by SIGKILL, at any access to an atomic or a futex that a test chooses.
#[cfg(any(feature = "loom", feature = "shuttle"))]
pub mod mortal {
    use super::Ordering;
    #[cfg(feature = "loom")]
    use loom::{sync::atomic, thread};
    #[cfg(all(feature = "shuttle", not(feature = "loom")))]
    use shuttle::{sync::atomic, thread};
    use std::cell::RefCell;
    use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};

    std::thread_local! {
        // The checkers run all threads of a model on the OS thread of the test. Thread, and accesses left to it.
        static LIVES: RefCell<Vec<(thread::ThreadId, usize)>> = const { RefCell::new(Vec::new()) };
    }

    struct Death;

    /// Forgets what an execution that failed has left.
    pub fn reset() {
        LIVES.with(|l| l.borrow_mut().clear());
    }

    /// Runs `f`, whose thread dies before its access number `steps` from here on, counted from 0; `None` if it did. Nothing
    /// of it runs any more then, but the destructors of private memory: see [`is_dying`].
    pub fn run<R>(steps: usize, f: impl FnOnce() -> R) -> Option<R> {
        let id = thread::current().id();
        LIVES.with(|l| l.borrow_mut().push((id, steps)));
        let result = catch_unwind(AssertUnwindSafe(f));
        LIVES.with(|l| l.borrow_mut().retain(|(of, _)| *of != id));
        match result {
            Ok(r) => Some(r),
            Err(death) if death.is::<Death>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Whether this thread dies, or its model has failed: destructors then leave shared memory alone.
    #[must_use]
    pub fn is_dying() -> bool {
        std::thread::panicking()
    }

    /// One access is about to happen, unless it does not.
    pub(crate) fn step() {
        let is_over = LIVES.with(|l| {
            let mut lives = l.borrow_mut();
            if lives.is_empty() {
                return false;
            }
            let id = thread::current().id();
            let Some((_, left)) = lives.iter_mut().find(|(of, _)| *of == id) else { return false };
            let is_over = *left == 0;
            *left = left.saturating_sub(1);
            is_over
        });
        if is_over && !is_dying() {
            resume_unwind(Box::new(Death));
        }
    }

    macro_rules! atomic {
        ($name:ident, $int:ty) => {
            /// The checker's atomic, each access a step at which a mortal thread may die.
            #[derive(Debug, Default)]
            pub struct $name(atomic::$name);

            #[allow(missing_docs)]
            impl $name {
                #[track_caller]
                pub fn new(value: $int) -> Self {
                    Self(atomic::$name::new(value))
                }

                /// The value, in a look that is no step of its own.
                #[track_caller]
                pub(crate) fn peek(&self) -> $int {
                    self.0.load(Ordering::Relaxed)
                }

                #[track_caller]
                pub fn load(&self, order: Ordering) -> $int {
                    step();
                    self.0.load(order)
                }

                #[track_caller]
                pub fn store(&self, value: $int, order: Ordering) {
                    step();
                    self.0.store(value, order);
                }

                #[track_caller]
                pub fn swap(&self, value: $int, order: Ordering) -> $int {
                    step();
                    self.0.swap(value, order)
                }

                #[track_caller]
                pub fn compare_exchange(
                    &self,
                    old: $int,
                    new: $int,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$int, $int> {
                    step();
                    self.0.compare_exchange(old, new, success, failure)
                }

                #[track_caller]
                pub fn fetch_add(&self, n: $int, order: Ordering) -> $int {
                    step();
                    self.0.fetch_add(n, order)
                }

                #[track_caller]
                pub fn fetch_or(&self, bits: $int, order: Ordering) -> $int {
                    step();
                    self.0.fetch_or(bits, order)
                }

                #[track_caller]
                pub fn fetch_max(&self, other: $int, order: Ordering) -> $int {
                    step();
                    self.0.fetch_max(other, order)
                }
            }
        };
    }
    atomic!(AtomicU32, u32);
    atomic!(AtomicU64, u64);
}

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
    use std::cell::Cell;

    std::thread_local! {
        // loom runs all threads of a model on the OS thread of the test, so this is one cell a test. The label, and what
        // its fences become.
        static WEAK: Cell<Option<(&'static str, Ordering)>> = const { Cell::new(None) };
    }

    /// Runs `f` with the edge `label` weakened: accesses become Relaxed, a SeqCst fence becomes AcqRel.
    pub fn weaken<R>(label: &'static str, f: impl FnOnce() -> R) -> R {
        with((label, Ordering::AcqRel), f)
    }

    /// Runs `f` without the fence `label`.
    pub fn remove<R>(label: &'static str, f: impl FnOnce() -> R) -> R {
        with((label, Ordering::Relaxed), f)
    }

    fn with<R>(weak: (&'static str, Ordering), f: impl FnOnce() -> R) -> R {
        WEAK.set(Some(weak));
        struct Restore;
        impl Drop for Restore {
            fn drop(&mut self) {
                WEAK.set(None);
            }
        }
        let _restore = Restore;
        f()
    }

    /// The ordering to use for an access with these labels: `order`, unless a test weakened one of them.
    #[must_use]
    pub fn pick(labels: &[&'static str], order: Ordering) -> Ordering {
        match WEAK.get() {
            Some((weak, fence)) if labels.contains(&weak) => match order {
                Ordering::SeqCst => fence,
                _ => Ordering::Relaxed,
            },
            _ => order,
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

/// The same reference, in a register of its own: where a compiler would work out an address twice rather.
#[inline(always)]
#[allow(clippy::pointers_in_nomem_asm_block)] // Nothing is read or written there.
pub(crate) fn in_register<T>(at: &T) -> &T {
    #[cfg(all(target_arch = "x86_64", not(any(miri, feature = "loom", feature = "shuttle"))))]
    {
        let mut at = core::ptr::from_ref(at);
        // SAFETY: no instruction at all; what comes out is what went in, so it is a reference still.
        unsafe {
            core::arch::asm!("/* {0} */", inout(reg) at, options(pure, nomem, nostack, preserves_flags));
            &*at
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, feature = "loom", feature = "shuttle")))))]
    at
}

/// The same number, of which the compiler knows nothing: where it would rather work out parts of it twice.
#[inline(always)]
pub(crate) fn opaque(n: u32) -> u32 {
    #[cfg(all(target_arch = "x86_64", not(any(miri, feature = "loom", feature = "shuttle"))))]
    {
        let mut n = n;
        // SAFETY: no instruction at all.
        unsafe { core::arch::asm!("/* {0:e} */", inout(reg) n, options(pure, nomem, nostack, preserves_flags)) };
        n
    }
    #[cfg(not(all(target_arch = "x86_64", not(any(miri, feature = "loom", feature = "shuttle")))))]
    n
}

/// Asks for the cache line `BEHIND` bytes behind `at` in a writable state; a hint that costs nothing when it is wrong, at
/// any address.
///
/// Written as the instruction itself: the intrinsic for it becomes a prefetch for *reading* unless the whole program is
/// compiled for processors that have this one, which then fetches the line in the wrong state. Processors without it
/// treat it as a NOP.
#[inline(always)]
pub(crate) fn prefetch_write<const BEHIND: usize, T>(at: &T) {
    #[cfg(all(target_arch = "x86_64", not(any(miri, feature = "loom", feature = "shuttle"))))]
    {
        // SAFETY: a prefetch has no effect that a program can see, whatever the address.
        unsafe {
            core::arch::asm!(
                "prefetchw [{} + {}]", in(reg) core::ptr::from_ref(at), const BEHIND,
                options(readonly, nostack, preserves_flags)
            );
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
