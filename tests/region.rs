//! Regions: made, attached, refused, shared.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod support;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Barrier;

use shmuring::error::Error;
use shmuring::liveness::ROLE_BYTE;
use shmuring::region::{Options, Region};
use shmuring::ring;
use shmuring::sync::Ordering::Relaxed;
use support::{child, child_role, forked, run, tell, Scratch};

const SMALL: Options = Options { bounce_per_slot: 1, block_size: 512, ..Options::new(4) };

/// The other process of the tests below.
#[test]
#[ignore = "run by other tests, in a process of its own"]
fn child_process() {
    let Some((role, arg)) = child_role() else { return };
    match role.as_str() {
        "create" => {
            let (region, created) = Region::create_named(&arg, &SMALL).unwrap();
            tell(&format!("{created} {:?}", region.id()));
        }
        "add" => {
            let fd = arg.to_str().unwrap().parse().unwrap();
            // SAFETY: the parent left this descriptor open for us.
            let region = Region::attach_fd(unsafe { BorrowedFd::borrow_raw(fd) }).unwrap();
            tell(&region.parts().header.any.0.fetch_add(1, Relaxed).to_string());
        }
        "fill" => {
            let refused = Region::create_named(&arg.join("big"), &Options::new(64)).err();
            assert_eq!(refused, Some(Error::Os(libc::ENOSPC)));
            assert_eq!(std::fs::read_dir(&arg).unwrap().count(), 0, "a refused region left a name");
            let fits = Options { bounce_per_slot: 0, block_size: 512, ..Options::new(4) };
            assert!(Region::create_named(&arg.join("small"), &fits).unwrap().1);
            tell("refused");
        }
        "other clock" => {
            let mut command = child("attach", &arg);
            // SAFETY: does nothing. It is there to make the child by fork, which is what enters the new namespace.
            unsafe { command.pre_exec(|| Ok(())) };
            run(command).iter().for_each(|word| tell(word));
        }
        "attach" => tell(&format!("{:?}", Region::attach(&arg).err())),
        other => panic!("no role {other}"),
    }
}

fn assert_fresh(region: &Region) {
    let p = region.parts();
    assert_eq!(p.slots.len(), p.geometry.slots as usize);
    assert_eq!(p.owner_stats.len(), p.slots.len());
    assert_eq!(p.cells.len(), p.geometry.capacity as usize);
    assert_eq!(p.pending.len(), p.slots.len().div_ceil(64));
    assert!(p.slots.iter().all(|s| s.word.load(Relaxed) == 0), "a slot is not Idle");
    assert!(p.cells.iter().all(|c| c.0.load(Relaxed) == ring::empty(0)), "a cell is not empty");
    assert!(p.pending.iter().all(|w| w.load(Relaxed) == 0));
    let h = p.header;
    let words =
        [&h.tail.0, &h.head.0, &h.parked.0, &h.any.0, &p.role_stats.counters[31], &p.owner_stats[0].counters[0]];
    assert!(words.iter().all(|w| w.load(Relaxed) == 0));
    assert_eq!(h.role.epoch.load(Relaxed), 0);
    let pool = p.pools.get(0).unwrap();
    assert_eq!(pool.count(), p.geometry.slots * p.geometry.bounce_per_slot);
    assert_eq!(pool.block_size(), p.geometry.block_size as usize);
}

#[test]
fn every_kind_of_region_starts_out_idle_and_empty() {
    let scratch = Scratch::new("fresh");
    for options in [SMALL, Options::new(1), Options::new(65)] {
        assert_fresh(&Region::create_memfd(&options).unwrap());
        let private = Region::create_private(&options).unwrap();
        assert_fresh(&private);
        assert!(private.is_private() && private.parts().private && private.fd().is_none());
        let path = scratch.path(&options.slots.to_string());
        let (named, created) = Region::create_named(&path, &options).unwrap();
        assert_fresh(&named);
        assert!(created && !named.is_private() && !named.is_read_only() && named.path() == Some(path.as_path()));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), Region::size(&options).unwrap());
        assert_ne!(named.id(), private.id());
    }
}

#[test]
fn sizes_that_make_no_region_are_refused_before_anything_is_made() {
    let scratch = Scratch::new("sizes");
    let path = scratch.path("region");
    let bad = [
        Options { slots: 0, ..SMALL },
        Options { slots: 1 << 24, ..SMALL },
        Options { block_size: 513, ..SMALL },
        // More bounce blocks than a u32 can number.
        Options { bounce_per_slot: 1024, block_size: 512, ..Options::new(1 << 23) },
    ];
    for options in bad {
        assert_eq!(Region::size(&options), Err(Error::BadGeometry), "{options:?}");
        assert_eq!(Region::create_memfd(&options).err(), Some(Error::BadGeometry));
        assert_eq!(Region::create_private(&options).err(), Some(Error::BadGeometry));
        assert_eq!(Region::create_named(&path, &options).err(), Some(Error::BadGeometry));
    }
    assert!(scratch.names().is_empty());
}

#[test]
fn a_named_region_is_its_users_alone_whatever_the_umask() {
    let scratch = Scratch::new("mode");
    let path = scratch.path("region");
    let mut command = child("create", &path);
    // SAFETY: umask is a system call that cannot fail.
    unsafe {
        command.pre_exec(|| {
            libc::umask(0o277);
            Ok(())
        })
    };
    run(command);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(scratch.names(), ["region"]);
}

#[test]
fn whoever_comes_second_attaches() {
    let scratch = Scratch::new("second");
    let path = scratch.path("region");
    let (first, created) = Region::create_named(&path, &SMALL).unwrap();
    assert!(created);
    first.parts().header.any.0.store(7, Relaxed);
    let (second, created) = Region::create_named(&path, &SMALL).unwrap();
    assert!(!created && second.id() == first.id());
    assert_eq!(second.parts().header.any.0.load(Relaxed), 7);
    assert_eq!(Region::attach(&path).unwrap().id(), first.id());
}

#[test]
fn a_region_of_other_sizes_is_in_the_way() {
    let scratch = Scratch::new("other-sizes");
    let path = scratch.path("region");
    Region::create_named(&path, &SMALL).unwrap();
    let others =
        [Options { slots: 5, ..SMALL }, Options { bounce_per_slot: 2, ..SMALL }, Options { block_size: 1024, ..SMALL }];
    for options in others {
        assert_eq!(Region::create_named(&path, &options).err(), Some(Error::Exists), "{options:?}");
    }
    std::fs::write(&path, [1; 9000]).unwrap();
    assert_eq!(Region::create_named(&path, &SMALL).err(), Some(Error::WrongMagic));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(scratch.path("nowhere"), &path).unwrap();
    assert_eq!(Region::create_named(&path, &SMALL).err(), Some(Error::Exists));
}

#[test]
fn of_many_threads_that_create_one_makes_the_region_and_all_share_it() {
    let scratch = Scratch::new("race");
    for round in 0..50 {
        let path = scratch.path(&round.to_string());
        let barrier = Barrier::new(4);
        let create = || {
            barrier.wait();
            let (region, created) = Region::create_named(&path, &SMALL).unwrap();
            assert_fresh(&region);
            (region.id(), created)
        };
        let all: Vec<_> = std::thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(create)).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(all.iter().filter(|(_, created)| *created).count(), 1);
        assert!(all.iter().all(|(id, _)| *id == all[0].0));
    }
    assert_eq!(scratch.names().len(), 50);
}

#[test]
fn of_two_processes_that_create_one_makes_the_region() {
    let scratch = Scratch::new("processes");
    for round in 0..5 {
        let path = scratch.path(&round.to_string());
        let start = || child("create", &path).stdin(Stdio::null()).spawn().unwrap();
        let said = [start(), start()].map(|c| String::from_utf8(c.wait_with_output().unwrap().stdout).unwrap());
        let words = said.map(|s| s.split_once("<<").unwrap().1.split_once(">>").unwrap().0.to_owned());
        let [a, b] = words.each_ref().map(|w| w.split_once(' ').unwrap());
        assert_ne!(a.0, b.0, "both or neither made it");
        assert_eq!(a.1, b.1, "two regions");
    }
}

#[test]
fn a_relative_path_names_a_region_too() {
    let scratch = Scratch::new("relative");
    run({
        let mut command = child("create", "region");
        command.current_dir(scratch.path(""));
        command
    });
    assert_eq!(Region::attach(&scratch.path("region")).unwrap().parts().slots.len(), 4);
}

#[test]
fn a_name_taken_away_leaves_the_attached_attached() {
    let scratch = Scratch::new("unlink");
    let path = scratch.path("region");
    let (old, _) = Region::create_named(&path, &SMALL).unwrap();
    Region::unlink(&path).unwrap();
    assert_eq!(Region::unlink(&path), Err(Error::Os(libc::ENOENT)));
    assert_eq!(Region::attach(&path).err(), Some(Error::Os(libc::ENOENT)));
    let (new, created) = Region::create_named(&path, &SMALL).unwrap();
    assert!(created && new.id() != old.id());
    // Locks are those of the region that the handle is of, not of the name.
    let lock = old.lock_file().unwrap();
    assert!(lock.try_lock(ROLE_BYTE, 1).unwrap());
    assert!(old.liveness().role_held() && !new.liveness().role_held());
    assert_eq!(Region::attach_fd(old.fd().unwrap()).unwrap().id(), old.id());
}

#[test]
fn a_region_outlives_its_last_handle() {
    let scratch = Scratch::new("detach");
    let path = scratch.path("region");
    let (region, _) = Region::create_named(&path, &SMALL).unwrap();
    region.parts().slots[2].word.store(2, Relaxed);
    drop(region);
    assert_eq!(Region::attach(&path).unwrap().parts().slots[2].word.load(Relaxed), 2);
}

fn os(ok: bool) -> io::Result<()> {
    if ok {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Runs `command` in new namespaces of these kinds, after `prepare` in them. Who is not root becomes root of a user
/// namespace for it.
fn unshared(
    command: &mut Command,
    kinds: libc::c_int,
    prepare: impl Fn() -> io::Result<()> + Clone + Send + Sync + 'static,
) {
    // SAFETY: system calls without memory.
    let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
    let maps = [("setgroups", "deny".into()), ("uid_map", format!("0 {uid} 1")), ("gid_map", format!("0 {gid} 1"))];
    let maps = maps.map(|(name, text)| (CString::new(format!("/proc/self/{name}")).unwrap(), text));
    let enter = move || {
        // SAFETY: system calls, on memory that lives as long as the closure.
        unsafe {
            os(libc::unshare(kinds | if uid == 0 { 0 } else { libc::CLONE_NEWUSER }) == 0)?;
            for (file, text) in maps.iter().filter(|_| uid != 0) {
                let fd = libc::open(file.as_ptr(), libc::O_WRONLY);
                let wrote = libc::write(fd, text.as_ptr().cast(), text.len());
                os(usize::try_from(wrote) == Ok(text.len()))?;
            }
        }
        prepare()
    };
    // Tried alone first, so that a machine that forbids it says so and does not look like a failed region.
    let mut probe = Command::new("true");
    // SAFETY: `enter` makes system calls and allocates nothing.
    unsafe { probe.pre_exec(enter.clone()) };
    let allowed = probe.status();
    assert!(allowed.is_ok(), "this test needs root or user namespaces: {allowed:?}");
    // SAFETY: as above.
    unsafe { command.pre_exec(enter) };
}

#[test]
fn a_full_filesystem_is_an_error_and_no_signal() {
    let scratch = Scratch::new("full");
    let here = CString::new(scratch.path("").to_str().unwrap()).unwrap();
    let mount = move || {
        let null = std::ptr::null();
        // SAFETY: system calls on C strings that live as long as the closure.
        unsafe {
            os(libc::mount(null, c"/".as_ptr(), null, libc::MS_REC | libc::MS_PRIVATE, null.cast()) == 0)?;
            let size = c"size=64k".as_ptr();
            os(libc::mount(c"tmpfs".as_ptr(), here.as_ptr(), c"tmpfs".as_ptr(), 0, size.cast()) == 0)
        }
    };
    let mut command = child("fill", scratch.path(""));
    unshared(&mut command, libc::CLONE_NEWNS, mount);
    assert_eq!(run(command), ["refused"]);
}

#[test]
fn a_process_of_another_time_namespace_is_refused() {
    let scratch = Scratch::new("time");
    let path = scratch.path("region");
    let (region, _) = Region::create_named(&path, &SMALL).unwrap();
    let mut command = child("other clock", &path);
    unshared(&mut command, libc::CLONE_NEWTIME, || Ok(()));
    assert_eq!(run(command), ["Some(ForeignClock)"]);
    assert_eq!(run(child("attach", region.path().unwrap())), ["None"]);
}

#[test]
fn a_memfd_is_shared_with_another_program() {
    let region = Region::create_memfd(&SMALL).unwrap();
    region.parts().header.any.0.store(41, Relaxed);
    let fd = region.fd().unwrap().as_raw_fd();
    let mut command = child("add", fd.to_string());
    // SAFETY: a system call without memory; the descriptor is open in the child until its exec, and after it by this.
    unsafe {
        command.pre_exec(
            move || if libc::fcntl(fd, libc::F_SETFD, 0) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) },
        )
    };
    assert_eq!(run(command), ["41"]);
    assert_eq!(region.parts().header.any.0.load(Relaxed), 42);
}

#[test]
fn a_memfd_can_be_neither_cut_nor_grown() {
    let region = Region::create_memfd(&SMALL).unwrap();
    let file = File::from(region.fd().unwrap().try_clone_to_owned().unwrap());
    assert!(file.set_len(0).is_err() && file.set_len(1 << 30).is_err());
    file.write_at(&[0], 0).unwrap();
    assert_eq!(Region::attach_fd(region.fd().unwrap()).err(), Some(Error::WrongMagic));
}

#[test]
fn two_mappings_at_different_addresses_see_each_other() {
    let a = Region::create_memfd(&Options::new(100)).unwrap();
    let b = Region::attach_fd(a.fd().unwrap()).unwrap();
    let (p, q) = (a.parts(), b.parts());
    assert!(!std::ptr::eq(p.header, q.header));
    p.slots[99].word.store(5, Relaxed);
    p.cells[0].0.store(6, Relaxed);
    q.pending[1].fetch_or(8, Relaxed);
    q.owner_stats[99].latency[23].store(9, Relaxed);
    assert_eq!(q.slots[99].word.load(Relaxed), 5);
    assert_eq!(q.cells[0].0.load(Relaxed), 6);
    assert_eq!(p.pending[1].load(Relaxed), 8);
    assert_eq!(p.owner_stats[99].latency[23].load(Relaxed), 9);
    // SAFETY: nobody else uses the blocks of this region.
    unsafe { p.pools.get(0).unwrap().write(399, 8190, &[1, 2]).unwrap() };
    let mut block = [0; 8192];
    // SAFETY: as above.
    unsafe { q.pools.get(0).unwrap().read(399, &mut block).unwrap() };
    assert_eq!(block[8190..], [1, 2]);
}

#[test]
fn an_observer_reads_and_cannot_write() {
    let scratch = Scratch::new("observe");
    let path = scratch.path("region");
    let (region, _) = Region::create_named(&path, &SMALL).unwrap();
    let mut observer = Region::observe(&path).unwrap();
    region.parts().role_stats.counters[3].store(33, Relaxed);
    assert!(observer.is_read_only());
    assert_eq!(observer.parts().role_stats.counters[3].load(Relaxed), 33);
    assert_eq!(observer.parts().pools.get(0).err(), Some(Error::BadPool));
    assert_eq!(observer.lock_file().err(), Some(Error::Os(libc::EROFS)));
    let mut block = vec![0; 512];
    // SAFETY: refused before the range is used.
    let refused = unsafe { observer.register_pool(1, block.as_mut_ptr(), 512, 1) };
    assert_eq!(refused, Err(Error::Os(libc::EROFS)));

    // It still sees who lives.
    assert!(!observer.liveness().role_held());
    let lock = region.lock_file().unwrap();
    assert!(lock.try_lock(ROLE_BYTE, 1).unwrap() && observer.liveness().role_held());

    let status = forked(|| {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: `none` is a whole rlimit.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &none) };
        observer.parts().header.any.0.store(1, Relaxed);
        0
    });
    assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGSEGV, "status {status:#x}");
    assert_eq!(region.parts().header.any.0.load(Relaxed), 0);
}

#[test]
fn pools_must_agree_between_processes() {
    let mut a = Region::create_memfd(&SMALL).unwrap();
    let mut b = Region::attach_fd(a.fd().unwrap()).unwrap();
    let mut blocks = vec![0_u8; 4096];
    let base = blocks.as_mut_ptr();
    // SAFETY: `blocks` outlives both handles, and nobody submits a request.
    unsafe {
        assert_eq!(a.register_pool(0, base, 512, 8), Err(Error::BadPool));
        assert_eq!(a.register_pool(1, base, 256, 8), Err(Error::BadPool), "blocks would overlap");
        a.register_pool(1, base, 512, 8).unwrap();
        assert_eq!(b.register_pool(1, base, 512, 7), Err(Error::BadPool));
        b.register_pool(1, base, 512, 8).unwrap();
    }
    assert_eq!(b.parts().pools.get(1).unwrap().count(), 8);
}
