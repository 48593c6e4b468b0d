//! Locks as proof of life, with real processes.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use shmuring::buffers::BOUNCE;
use shmuring::error::Error;
use shmuring::liveness::{Liveness, LockFile, LIFE_BYTE, OWNER_BYTE, ROLE_BYTE};
use shmuring::region::{Options, Region};
use support::{child_role, forked, soon, tell, Held, Scratch, SOON};

/// The slots that the child owns.
const FIRST: u32 = 8;
const COUNT: u32 = 4;

/// The other process of the tests below.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child_process() {
    let Some((role, path)) = child_role() else { return };
    let region = Region::attach(&path).unwrap();
    let lock = region.lock_file().unwrap();
    assert!(lock.try_lock(ROLE_BYTE, 1).unwrap());
    assert!(lock.try_lock(OWNER_BYTE + u64::from(FIRST), u64::from(COUNT)).unwrap());
    std::thread::scope(|threads| {
        if role != "hold" {
            for thread in 0..WRITERS {
                let at = Count::of(&region, thread);
                threads.spawn(move || at.write_without_end());
            }
        }
        tell("ready");
        if role == "write and let go" {
            // A moment later, so that the writers are at work.
            std::thread::sleep(Duration::from_millis(2));
            lock.unlock(ROLE_BYTE, 1).unwrap();
            lock.unlock(OWNER_BYTE + u64::from(FIRST), u64::from(COUNT)).unwrap();
        }
        std::thread::sleep(SOON * 2);
    });
}

/// Threads of a holder that write.
const WRITERS: u32 = 3;

/// A number in a bounce buffer of the region.
#[derive(Clone, Copy)]
struct Count(usize);

impl Count {
    fn of(region: &Region, thread: u32) -> Self {
        Self(region.parts().pools.get(BOUNCE).unwrap().at(thread).unwrap() as usize)
    }

    fn get(self) -> u64 {
        // SAFETY: in the mapping of a region that outlives the test; volatile, since another process writes it.
        unsafe { (self.0 as *const u64).read_volatile() }
    }

    fn write_without_end(self) {
        loop {
            // SAFETY: as above; one thread writes each.
            unsafe { (self.0 as *mut u64).write_volatile(self.get().wrapping_add(1)) };
        }
    }
}

fn held_region(name: &str) -> (Scratch, Region, Held) {
    let scratch = Scratch::new(name);
    let path = scratch.path("region");
    let (region, created) = Region::create_named(&path, &Options::new(16)).unwrap();
    assert!(created && !region.liveness().role_held());
    let held = Held::start("hold", &path);
    (scratch, region, held)
}

#[test]
fn a_living_holder_is_seen_and_excludes_others() {
    let (_scratch, region, _held) = held_region("living");
    let (lock, lives) = (region.lock_file().unwrap(), region.liveness());
    assert!(lives.role_held());
    assert!(!lock.try_lock(ROLE_BYTE, 1).unwrap());
    assert!(lock.try_lock(LIFE_BYTE, 1).unwrap());
}

#[test]
fn owners_are_told_apart_slot_by_slot() {
    let (_scratch, region, _held) = held_region("owners");
    let lives = region.liveness();
    for slot in 0..16 {
        assert_eq!(lives.owner_held(slot, 1), (FIRST..FIRST + COUNT).contains(&slot), "slot {slot}");
    }
    assert!(!lives.owner_held(0, FIRST) && !lives.owner_held(FIRST + COUNT, 4));
    assert!(lives.owner_held(0, FIRST + 1) && lives.owner_held(FIRST + COUNT - 1, 1));
    let lock = region.lock_file().unwrap();
    assert!(!lock.try_lock(OWNER_BYTE, 16).unwrap());
    // The refused lock took no part of the range either.
    assert!(!lives.owner_held(0, FIRST));
}

#[test]
fn a_killed_holder_loses_its_locks_and_a_zombie_holds_none() {
    let (_scratch, region, held) = held_region("killed");
    let lock = region.lock_file().unwrap();
    held.signal(libc::SIGKILL);
    assert!(lock.lock_within(ROLE_BYTE, 1, SOON).unwrap());
    held.wait_for_zombie();
    assert!(soon(|| !region.liveness().owner_held(FIRST, COUNT)));
    // It still has its pid: that is why pids prove nothing.
    held.signal(0);
}

#[test]
fn a_stopped_holder_keeps_its_locks() {
    let (_scratch, region, held) = held_region("stopped");
    let lock = region.lock_file().unwrap();
    held.signal(libc::SIGSTOP);
    let mut status = 0;
    // SAFETY: status is writable and outlives the call.
    assert_eq!(unsafe { libc::waitpid(held.pid(), &mut status, libc::WUNTRACED) }, held.pid());
    assert!(libc::WIFSTOPPED(status));
    assert!(!lock.lock_within(ROLE_BYTE, 1, Duration::from_millis(200)).unwrap());
    assert!(region.liveness().role_held() && region.liveness().owner_held(FIRST, COUNT));
    held.signal(libc::SIGKILL);
    assert!(lock.lock_within(ROLE_BYTE, 1, SOON).unwrap());
}

/// Whether a byte is written in that time once the lock is free: of a holder that is killed, or that lets go of it and
/// lives.
fn writes_after_its_lock(role: &str, path: &Path, region: &Region, ask_owner: bool, watched: Duration) -> bool {
    let lives = region.liveness();
    let is_held = || if ask_owner { lives.owner_held(FIRST, COUNT) } else { lives.role_held() };
    let counts = || (0..WRITERS).map(|thread| Count::of(region, thread).get()).collect::<Vec<_>>();
    let begin = counts();
    let held = Held::start(role, path);
    // All of its threads are at work.
    assert!(soon(|| counts().iter().zip(&begin).all(|(now, then)| now != then)));
    if role == "write" {
        assert!(is_held());
        held.signal(libc::SIGKILL);
    }
    let since = Instant::now();
    while is_held() {
        assert!(since.elapsed() < SOON, "the lock is not let go of");
    }
    let free = counts();
    let since = Instant::now();
    while since.elapsed() < watched {
        if counts() != free {
            return true;
        }
    }
    counts() != free
}

#[test]
fn no_byte_is_written_once_the_lock_of_a_killed_holder_with_threads_is_free() {
    // A sanitizer looks for other things, and makes every child slow to start.
    const ROUNDS: u32 = if cfg!(shmuring_tsan) { 10 } else { 200 };
    let scratch = Scratch::new("writers");
    let path = scratch.path("region");
    let (region, _) = Region::create_named(&path, &Options::new(16)).unwrap();
    for round in 0..ROUNDS {
        let watched = Duration::from_millis(1);
        assert!(!writes_after_its_lock("write", &path, &region, round % 2 == 0, watched), "round {round}");
    }
}

#[test]
fn a_holder_that_writes_without_its_lock_is_found() {
    let scratch = Scratch::new("let-go");
    let path = scratch.path("region");
    let (region, _) = Region::create_named(&path, &Options::new(16)).unwrap();
    for ask_owner in [false, true] {
        assert!(writes_after_its_lock("write and let go", &path, &region, ask_owner, SOON));
    }
}

#[test]
fn two_descriptions_of_one_process_exclude_each_other() {
    let region = Region::create_memfd(&Options::new(4)).unwrap();
    let (a, b) = (region.lock_file().unwrap(), region.lock_file().unwrap());
    assert!(a.try_lock(ROLE_BYTE, 1).unwrap());
    assert!(a.try_lock(ROLE_BYTE, 1).unwrap(), "what is held is granted again");
    assert!(!b.try_lock(ROLE_BYTE, 1).unwrap());
    assert!(b.is_locked_by_other(ROLE_BYTE, 1).unwrap());
    assert!(!a.is_locked_by_other(ROLE_BYTE, 1).unwrap(), "its own locks are not another's");
    a.unlock(ROLE_BYTE, 1).unwrap();
    assert!(b.try_lock(ROLE_BYTE, 1).unwrap());
    assert!(region.liveness().role_held());
    drop(b);
    // Not at once: a child that another test is just starting shares all descriptions until its exec.
    assert!(soon(|| !region.liveness().role_held()));
}

#[test]
fn handles_of_private_memory_exclude_each_other() {
    let region = Region::create_private(&Options::new(4)).unwrap();
    let a = region.lock_file().unwrap();
    assert!(a.try_lock(OWNER_BYTE, 2).unwrap());
    let other = std::thread::scope(|s| {
        s.spawn(|| {
            let b = region.lock_file().unwrap();
            (b.try_lock(OWNER_BYTE + 1, 1).unwrap(), b.try_lock(OWNER_BYTE + 2, 1).unwrap())
        })
        .join()
        .unwrap()
    });
    assert_eq!(other, (false, true));
}

#[test]
fn the_wait_for_a_lock_ends() {
    let region = Region::create_memfd(&Options::new(4)).unwrap();
    let (a, b) = (region.lock_file().unwrap(), region.lock_file().unwrap());
    assert!(a.try_lock(LIFE_BYTE, 1).unwrap());
    let begin = Instant::now();
    assert!(!b.lock_within(LIFE_BYTE, 1, Duration::from_millis(30)).unwrap());
    assert!(begin.elapsed() >= Duration::from_millis(30));
    assert!(!b.lock_within(LIFE_BYTE, 1, Duration::ZERO).unwrap());
    std::thread::scope(|s| {
        s.spawn(|| {
            std::thread::sleep(Duration::from_millis(20));
            a.unlock(LIFE_BYTE, 1).unwrap();
        });
        assert!(b.lock_within(LIFE_BYTE, 1, Duration::MAX).unwrap());
    });
}

#[test]
fn a_range_that_is_none_is_refused_and_counts_as_held() {
    let region = Region::create_memfd(&Options::new(4)).unwrap();
    let lock = region.lock_file().unwrap();
    let invalid = Err(Error::Os(libc::EINVAL));
    assert_eq!(lock.try_lock(ROLE_BYTE, 0), invalid);
    assert_eq!(lock.try_lock(u64::MAX, 1), invalid);
    assert_eq!(lock.try_lock(1, u64::MAX), invalid);
    assert_eq!(lock.try_lock(i64::MAX as u64, 2), invalid);
    assert!(region.liveness().owner_held(0, 0));
    assert!(!region.liveness().owner_held(u32::MAX, u32::MAX));
}

#[test]
fn a_handle_carried_over_a_fork_is_refused_and_says_held() {
    let region = Region::create_memfd(&Options::new(4)).unwrap();
    let lock = region.lock_file().unwrap();
    assert!(lock.try_lock(ROLE_BYTE, 1).unwrap());
    region.check_process().unwrap();
    let status = forked(|| {
        let refused = region.check_process() == Err(Error::WrongProcess)
            && region.lock_file().err() == Some(Error::WrongProcess)
            && lock.unlock(ROLE_BYTE, 1) == Err(Error::WrongProcess)
            && lock.try_lock(LIFE_BYTE, 1) == Err(Error::WrongProcess)
            // The shared description would not see its own lock, and nobody owns slot 0: asked, the kernel would say
            // free.
            && lock.role_held()
            && region.liveness().owner_held(0, 1);
        i32::from(!refused)
    });
    assert_eq!(status, 0);
    assert!(region.liveness().role_held(), "the child gave up its parent's lock");
}

#[test]
fn a_lock_file_that_is_missing_is_an_error() {
    let scratch = Scratch::new("missing");
    assert_eq!(LockFile::open(&scratch.path("none")).err(), Some(Error::Os(libc::ENOENT)));
}

#[test]
fn descriptions_are_closed_on_exec() {
    let scratch = Scratch::new("exec");
    let path = scratch.path("region");
    let (region, _) = Region::create_named(&path, &Options::new(4)).unwrap();
    let lock = region.lock_file().unwrap();
    assert!(lock.try_lock(LIFE_BYTE, 1).unwrap());
    // A child that outlives the holder's handle, after its exec.
    let _held = Held::start("hold", &path);
    drop(lock);
    assert!(region.lock_file().unwrap().lock_within(LIFE_BYTE, 1, SOON).unwrap());
}
