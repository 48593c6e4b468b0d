//! Which thread calls: a number that a register holds, so that the hot functions can afford to ask.

/// A number of the calling thread, never 0, that no other living thread of the process has. It stays the same in a
/// forked child.
#[inline(always)]
pub(crate) fn current() -> usize {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let pointer: usize;
        // SAFETY: the ABI keeps the address of the thread control block in its first word, which `fs` leads to.
        unsafe {
            core::arch::asm!("mov {}, fs:0", out(reg) pointer, options(pure, readonly, nostack, preserves_flags));
        }
        pointer
    }
    #[cfg(all(target_arch = "aarch64", not(miri)))]
    {
        let pointer: usize;
        // SAFETY: the register that the ABI keeps the thread pointer in; reading it has no effect.
        unsafe {
            core::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(pure, nomem, nostack, preserves_flags));
        }
        pointer
    }
    #[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
    {
        // SAFETY: a question about a number.
        unsafe { libc::pthread_self() as usize }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_different_numbers_and_keep_them() {
        let here = current();
        let there = std::thread::spawn(|| (current(), current())).join().unwrap();
        assert!(here != 0 && here == current());
        assert!(there.0 == there.1 && there.0 != here);
    }
}
