//! The peer: a hash map in shared memory, in the order of use, behind a read-write lock, with a global maximum of what
//! fell out. A lookup that hits takes the lock shared and moves nothing; one that misses takes it again, exclusively,
//! and keeps the maximum as the page's LSN, so that the next lookup answers the same. That is how Neon's compute does
//! it.

use super::contenders::{mix, shared_words};
use std::cell::UnsafeCell;

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Entry {
    key: (u64, u64),
    lsn: u64,
    /// Next of the same bucket.
    next: u32,
    /// Neighbours in the order of use.
    older: u32,
    newer: u32,
}

struct Head {
    lock: UnsafeCell<libc::pthread_rwlock_t>,
    state: UnsafeCell<State>,
}

struct State {
    maximum: u64,
    used: u32,
    newest: u32,
    oldest: u32,
}

/// The map. Its memory is shared with forked processes, and never given back.
#[derive(Clone, Copy)]
pub struct Lru {
    head: *const Head,
    buckets: *mut u32,
    entries: *mut Entry,
    capacity: u32,
}

impl Lru {
    pub fn new(capacity: usize) -> Self {
        let head: *mut Head = shared_words(size_of::<Head>().div_ceil(8)).as_ptr().cast_mut().cast();
        let buckets: *mut u32 = shared_words(capacity.div_ceil(2)).as_ptr().cast_mut().cast();
        let entries = shared_words(capacity * size_of::<Entry>().div_ceil(8)).as_ptr().cast_mut().cast();
        // SAFETY: mapped above, large enough, used by nobody else yet.
        unsafe {
            let mut attributes: libc::pthread_rwlockattr_t = std::mem::zeroed();
            libc::pthread_rwlockattr_init(&mut attributes);
            libc::pthread_rwlockattr_setpshared(&mut attributes, libc::PTHREAD_PROCESS_SHARED);
            assert_eq!(libc::pthread_rwlock_init((*head).lock.get(), &attributes), 0);
            *(*head).state.get() = State { maximum: 0, used: 0, newest: NONE, oldest: NONE };
            (0..capacity).for_each(|i| *buckets.add(i) = NONE);
        }
        Self { head, buckets, entries, capacity: capacity as u32 }
    }

    pub fn note(&self, key: (u64, u64), lsn: u64) {
        self.exclusively(|| match self.find(key) {
            NONE => self.insert(key, lsn),
            i => {
                let e = self.entry(i);
                e.lsn = e.lsn.max(lsn);
                self.unlink(i);
                self.link(i);
            }
        });
    }

    pub fn get(&self, key: (u64, u64)) -> u64 {
        // SAFETY: initialised by `new`, in memory that stays.
        unsafe { libc::pthread_rwlock_rdlock((*self.head).lock.get()) };
        let found = self.find(key);
        let lsn = if found == NONE { self.state().maximum } else { self.entry(found).lsn };
        // SAFETY: locked above.
        unsafe { libc::pthread_rwlock_unlock((*self.head).lock.get()) };
        if found == NONE {
            self.exclusively(|| {
                if self.find(key) == NONE {
                    self.insert(key, lsn);
                }
            });
        }
        lsn
    }

    fn exclusively(&self, f: impl FnOnce()) {
        // SAFETY: initialised by `new`, in memory that stays.
        unsafe { libc::pthread_rwlock_wrlock((*self.head).lock.get()) };
        f();
        // SAFETY: locked above.
        unsafe { libc::pthread_rwlock_unlock((*self.head).lock.get()) };
    }

    // What follows is called under the lock, and written to under the exclusive one.

    #[allow(clippy::mut_from_ref)]
    fn state(&self) -> &mut State {
        // SAFETY: under the lock; no other reference is held over a call of this.
        unsafe { &mut *(*self.head).state.get() }
    }

    #[allow(clippy::mut_from_ref)]
    fn entry(&self, i: u32) -> &mut Entry {
        assert!(i < self.capacity);
        // SAFETY: below the capacity, under the lock; no other reference to this entry is held over a call of this.
        unsafe { &mut *self.entries.add(i as usize) }
    }

    #[allow(clippy::mut_from_ref)]
    fn bucket(&self, key: (u64, u64)) -> &mut u32 {
        let at = mix(key.0.rotate_left(32) ^ key.1) % u64::from(self.capacity);
        // SAFETY: below the capacity, under the lock; no other reference to this bucket is held over a call of this.
        unsafe { &mut *self.buckets.add(at as usize) }
    }

    fn find(&self, key: (u64, u64)) -> u32 {
        let mut i = *self.bucket(key);
        while i != NONE && self.entry(i).key != key {
            i = self.entry(i).next;
        }
        i
    }

    fn insert(&self, key: (u64, u64), lsn: u64) {
        let used = self.state().used;
        let i = if used < self.capacity { used } else { self.evict() };
        self.state().used = self.capacity.min(used + 1);
        let next = std::mem::replace(self.bucket(key), i);
        *self.entry(i) = Entry { key, lsn, next, older: NONE, newer: NONE };
        self.link(i);
    }

    fn evict(&self) -> u32 {
        let i = self.state().oldest;
        let old = *self.entry(i);
        self.state().maximum = old.lsn.max(self.state().maximum);
        let mut at = *self.bucket(old.key);
        if at == i {
            *self.bucket(old.key) = old.next;
        } else {
            while self.entry(at).next != i {
                at = self.entry(at).next;
            }
            self.entry(at).next = old.next;
        }
        self.unlink(i);
        i
    }

    fn link(&self, i: u32) {
        let newest = std::mem::replace(&mut self.state().newest, i);
        (self.entry(i).older, self.entry(i).newer) = (newest, NONE);
        match newest {
            NONE => self.state().oldest = i,
            n => self.entry(n).newer = i,
        }
    }

    fn unlink(&self, i: u32) {
        let Entry { older, newer, .. } = *self.entry(i);
        match older {
            NONE => self.state().oldest = newer,
            o => self.entry(o).newer = newer,
        }
        match newer {
            NONE => self.state().newest = older,
            n => self.entry(n).older = older,
        }
    }
}
