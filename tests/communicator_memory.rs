//! A communicator where memory ends: it takes no role that it has no room for, and loses nothing that it could serve.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

#[path = "support/scarce.rs"]
mod scarce;

use scarce::{with, without, Scarce};
use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::communicator::Communicator;
use shmuring::error::Error;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, RelTag, Request};
use shmuring::ring;
use shmuring::slot::{owner, State};
use shmuring::sync::Ordering;
use std::path::Path;
use std::time::Duration;

#[global_allocator]
static MEMORY: Scarce = Scarce;

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
const NO_MEMORY: Option<Error> = Some(Error::Os(libc::ENOMEM));

fn send(b: &mut Backend<'_>, request: &Request<'_>) -> SlotRef {
    let slot = b.free_slot().unwrap();
    let filled = b.fill(slot, request).unwrap();
    b.submit(filled).unwrap();
    filled
}

/// A child takes the role, claims everything and dies.
fn claimed_by_the_dead(path: &Path) {
    // SAFETY: the child uses what it makes itself, and ends without running what the parent has set up.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let region = Region::attach(path).unwrap();
        let parts = region.parts();
        let (mut c, inherited) = Communicator::take_role(&region, &parts).unwrap();
        assert!(inherited.mutations.is_empty());
        c.sweep(State::Processing, core::mem::forget);
        // SAFETY: as above.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: a child of ours, and a place for its status.
    assert!(unsafe { libc::waitpid(pid, &mut status, 0) } == pid && status == 0);
}

#[test]
fn a_role_that_there_is_no_room_for_is_not_taken_and_nothing_is_lost() {
    let path = std::env::temp_dir().join(format!("shmuring-scarce-role-{}", std::process::id()));
    let (region, _) = Region::create_named(&path, &Options { block_size: 512, ..Options::new(8) }).unwrap();
    let mut b = Backend::attach(&region, 0, 8).unwrap();
    let image = [7; 512];
    let sent = [send(&mut b, &Request::extend(REL, 0, 1, &image)), send(&mut b, &Request::get_page(REL, 3, 1, 0))];
    let vectored = send(&mut b, &Request::get_page(REL, 4, 3, 0));
    claimed_by_the_dead(&path);
    std::fs::remove_file(&path).unwrap();

    let parts = region.parts();
    let epoch = || parts.header.role.epoch.load(Ordering::Relaxed);
    for times in 0..2 {
        assert_eq!(with(times, || Communicator::take_role(&region, &parts)).err(), NO_MEMORY);
        assert_eq!(epoch(), 1);
        assert!(sent.iter().all(|r| b.poll(*r) == Ok(false)));
    }
    // Room for the claims, and for no list of buffers: that request fails, and its backend is told.
    let (c, inherited) = with(2, || Communicator::take_role(&region, &parts)).unwrap();
    assert_eq!((c.epoch(), inherited.mutations.len(), inherited.reads.len()), (2, 1, 1));
    assert_eq!(i32::from(b.finish(vectored).unwrap().errno), libc::ENOMEM);
    for claim in inherited.mutations.into_iter().chain(inherited.reads) {
        claim.complete(Completion::ok(1)).unwrap();
    }
    for r in sent {
        assert!(b.finish(r).unwrap().is_ok());
    }
}

#[test]
fn hints_that_there_is_no_memory_for_are_left_to_the_audit_and_that_looks_at_what_it_can() {
    let region = Region::create_private(&Options { block_size: 512, ..Options::new(8) }).unwrap();
    let parts = region.parts();
    let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
    let mut b = Backend::attach(&region, 0, 8).unwrap();
    let sent: Vec<_> = (0..4).map(|block| send(&mut b, &Request::get_page(REL, block, 1, 0))).collect();
    let mut claims = Vec::with_capacity(8);
    // Those of the ring need no memory; one of the bitmap is lost.
    without(|| c.reap(8, State::Processing, |claim| claims.push(claim)));
    assert_eq!(claims.len(), 4);
    let slot = b.free_slot().unwrap();
    let hinted = b.fill(slot, &Request::get_page(REL, 9, 1, 0)).unwrap();
    let word = &parts.slots[slot as usize];
    owner::submit(word, owner::look(word));
    ring::set_pending(&parts, slot);
    assert_eq!(without(|| c.reap(8, State::Processing, |claim| claims.push(claim))), 0);
    let mut audit = |times| {
        std::thread::sleep(Duration::from_millis(1100));
        with(times, || c.audit(State::Processing, |claim| claims.push(claim)))
    };
    // A look that remembers nothing, one that does, and one that finds it again.
    assert_eq!((audit(0), audit(usize::MAX), audit(0)), (0, 0, 1));
    assert_eq!(claims.len(), 5);
    for claim in claims {
        claim.complete(Completion::ok(0)).unwrap();
    }
    for r in sent.into_iter().chain([hinted]) {
        b.wait(r, &Wait::for_ms(20_000)).unwrap();
        assert!(b.finish(r).unwrap().is_ok());
    }
}
