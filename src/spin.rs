//! How long to poll before sleeping: a budget that adapts, for both sides.
//!
//! A wake-up costs some 30 µs where cores idle, so a poll of about that long pays; with more processes than cpus every
//! poll is stolen from the very process that is waited for. The budget doubles when polling succeeded late, halves when
//! it failed, and now and then tries the full length again, so that two sides which both gave up find each other.

use crate::sync;

/// Polls without a pause: a cache line that arrives soon is seen at once.
const EAGER: u32 = if cfg!(any(feature = "loom", feature = "shuttle")) { 1 } else { 256 };
/// Smallest budget.
const MIN: u32 = EAGER;
/// Largest budget: about 50 µs, since a pause takes some 20 to 40 ns.
const MAX: u32 = if cfg!(any(feature = "loom", feature = "shuttle")) { 2 } else { 2048 };
/// Every so many failures the full budget is tried again.
const RETRY: u32 = 32;

/// A budget of polls.
#[derive(Debug)]
pub struct Spin {
    budget: u32,
    max: u32,
    failures: u32,
}

impl Spin {
    /// A budget for a machine of so many cpus: with one there is nobody to poll for.
    #[must_use]
    pub const fn new(cpus: u32) -> Self {
        let max = if cpus < 2 { 0 } else { MAX };
        Self { budget: max, max, failures: 0 }
    }

    /// Polls `ready` until it gives something or the budget is spent.
    #[inline]
    pub fn poll<T>(&mut self, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        let mut spent = 0;
        loop {
            if let Some(t) = ready() {
                if spent > EAGER {
                    // Not `clamp`, which panics where the smallest is above the largest.
                    self.budget = spent.saturating_mul(2).max(self.budget).min(self.max);
                }
                return Some(t);
            }
            if spent >= self.budget {
                self.failed();
                return None;
            }
            spent += 1;
            if spent > EAGER || cfg!(any(feature = "loom", feature = "shuttle")) {
                sync::spin_loop();
            }
        }
    }

    #[cold]
    fn failed(&mut self) {
        self.failures = self.failures.wrapping_add(1);
        self.budget = if self.failures % RETRY == 0 { self.max } else { (self.budget / 2).max(MIN.min(self.max)) };
    }
}

/// Two in a model, so that both sides poll before they sleep, on every machine alike.
#[cfg(any(feature = "loom", feature = "shuttle"))]
#[must_use]
pub fn cpus() -> u32 {
    2
}

/// Cpus of the machine that are online; 1 if the system does not say. Not those of this process alone: one that is bound
/// to a cpu polls for a peer on another.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[allow(unsafe_code)]
#[must_use]
pub fn cpus() -> u32 {
    // SAFETY: a question about a number, with no memory involved.
    let n = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    u32::try_from(n).unwrap_or(1).max(1)
}
