//! The holder of the role, for a communicator that is written in C: taking the role, reaping, giving the role up.
//!
//! # Order
//! Whatever hands out claims hands out the backlog first: what a dead communicator had claimed is at its head, in the
//! order in which it must be admitted (R4), and behind it what an earlier call claimed and had no room to give.

use core::ffi::c_int;
use core::ptr::NonNull;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, TryLockError};

use shmuring::communicator::{Claim, Communicator, Gather};
use shmuring::doorbell;
use shmuring::error::Error;
use shmuring::fork::ForkGuard;
use shmuring::memory::Room;
use shmuring::parts::Parts;
use shmuring::slot::State;

use super::claims::{ApiClaim, Claims};
use super::place::{bug, failure, report, Failure, Held};
use super::sizes::RelSizes;
use crate::api::ApiError;
use crate::guard::guard;
use crate::region::ApiRegion;

const PANICKED: c_int = -libc::ENOTRECOVERABLE;

/// The holder of the role of a region.
///
/// # Invariants
/// `claims`, `sizes` and `reaper` refer to `parts`, and those to the region that is held: they are dropped in the order
/// of the fields.
pub struct CommunicatorHandle {
    pub(super) claims: Claims,
    pub(super) sizes: RelSizes,
    reaper: Mutex<Reaper>,
    parts: Owned<Parts<'static>>,
    _held: Held,
    /// Claims of a dead communicator that are still in the backlog.
    inherited: AtomicUsize,
    epoch: u32,
    home: ForkGuard,
    /// A panic was caught: what it left half done nobody may rely on.
    broken: AtomicBool,
}

/// What one thread at a time uses.
struct Reaper {
    communicator: Communicator<'static>,
    /// Slots of claims that are to be handed out.
    backlog: VecDeque<u32>,
}

/// A box that others point into, so that moving the owner does not claim it for itself.
struct Owned<T>(NonNull<T>);

impl<T> Owned<T> {
    fn new(value: T) -> Result<Self, Error> {
        Ok(Self(NonNull::from(Box::leak(Room::new()?.put(value)))))
    }

    fn get(&self) -> &T {
        // SAFETY: made by `new`, freed by the drop alone.
        unsafe { self.0.as_ref() }
    }

    /// # Safety
    /// The reference is not used after the drop.
    unsafe fn forever(&self) -> &'static T {
        // SAFETY: as above, and the caller's promise.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: made of a box by `new`; nobody uses it any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

impl CommunicatorHandle {
    fn take(held: Held) -> Result<Self, Failure> {
        // SAFETY: the handle holds it as long as anything refers to it.
        let region = unsafe { held.forever() };
        let explain = |e: Error| match e {
            // Relaxed: for messages alone.
            Error::RoleHeld => {
                failure(e, format_args!("{e} (pid {})", region.parts().header.role.pid.load(Ordering::Relaxed)))
            }
            e => failure(e, format_args!("{e}")),
        };
        let slots = region.parts().slots.len();
        let claims = Claims::new(slots).map_err(explain)?;
        let mut backlog = VecDeque::new();
        backlog.try_reserve_exact(slots).map_err(|_| explain(Error::Os(libc::ENOMEM)))?;
        let parts = Owned::new(region.parts()).map_err(explain)?;
        // SAFETY: the handle drops what uses it first.
        let (communicator, inherited) = Communicator::take_role(region, unsafe { parts.forever() }).map_err(explain)?;
        backlog.extend(inherited.mutations.into_iter().chain(inherited.reads).map(|claim| claims.put(claim)));
        Ok(Self {
            claims,
            sizes: RelSizes::default(),
            inherited: AtomicUsize::new(backlog.len()),
            epoch: communicator.epoch(),
            reaper: Mutex::new(Reaper { communicator, backlog }),
            parts,
            _held: held,
            home: ForkGuard::new(1),
            broken: AtomicBool::new(false),
        })
    }

    /// The reaper, unless another thread has it.
    fn reaper(&self) -> Result<MutexGuard<'_, Reaper>, Error> {
        match self.reaper.try_lock() {
            Ok(reaper) => Ok(reaper),
            Err(TryLockError::Poisoned(e)) => Ok(e.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::Os(libc::EBUSY)),
        }
    }

    /// Runs `f` as the reaper.
    pub(super) fn with_reaper<T>(
        &self,
        f: impl FnOnce(&mut Communicator<'static>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        f(&mut self.reaper()?.communicator)
    }

    /// Takes a claim in: to the backlog goes its slot.
    fn put(&self, claim: Claim<'static>) -> u32 {
        self.sizes.begin(&claim);
        self.claims.put(claim)
    }

    /// Gives out what waits in the backlog.
    fn hand_out(&self, backlog: &mut VecDeque<u32>, to: &mut Batch) {
        while to.has_room() {
            let Some(slot) = backlog.pop_front() else { break };
            // Relaxed: a number for messages.
            let left = self.inherited.load(Ordering::Relaxed);
            self.inherited.store(left.saturating_sub(1), Ordering::Relaxed);
            // A claim that C has answered before it was told of it is gone.
            if let Some(claim) = self.claims.describe(slot) {
                to.push(claim);
            }
        }
    }
}

/// Where claims go: an array of C's.
struct Batch {
    at: *mut ApiClaim,
    max: usize,
    n: usize,
}

impl Batch {
    fn has_room(&self) -> bool {
        self.n < self.max
    }

    fn push(&mut self, claim: ApiClaim) {
        if self.has_room() {
            // SAFETY: `max` claims may be written there, by the promise of whoever called from C.
            unsafe { self.at.add(self.n).write(claim) };
            self.n += 1;
        }
    }
}

/// Runs `f` on the handle; gives what it gives, or the negative errno.
pub(super) fn enter(
    c: *const CommunicatorHandle,
    f: impl FnOnce(&CommunicatorHandle) -> Result<c_int, Error>,
) -> c_int {
    // SAFETY: null, or a handle that lives, by the promise of whoever called from C.
    let Some(c) = (unsafe { c.as_ref() }) else { return -Error::BadMemory.errno() };
    if !c.home.is_home() {
        return -Error::WrongProcess.errno();
    }
    // Relaxed: whoever has seen the answer that set it does not come back; for others it is as good a little later.
    if c.broken.load(Ordering::Relaxed) {
        return PANICKED;
    }
    let answer = guard(PANICKED, || f(c).unwrap_or_else(|e| -e.errno()));
    if answer == PANICKED {
        c.broken.store(true, Ordering::Relaxed);
    }
    answer
}

/// Hands out claims: the backlog, to which `claim` adds if it is empty, or `always`. None if `claim` fails.
fn reap(
    c: *const CommunicatorHandle,
    claims: *mut ApiClaim,
    max: u32,
    always: bool,
    claim: impl FnOnce(&mut Communicator<'static>, usize, &mut dyn FnMut(Claim<'static>)) -> Result<usize, Error>,
) -> c_int {
    enter(c, |c| {
        if claims.is_null() {
            return Err(Error::BadMemory);
        }
        let mut reaper = c.reaper()?;
        let Reaper { communicator, backlog } = &mut *reaper;
        let mut batch = Batch { at: claims, max: max.min(c_int::MAX.unsigned_abs()) as usize, n: 0 };
        if always || backlog.is_empty() && batch.has_room() {
            claim(communicator, batch.max, &mut |claim| backlog.push_back(c.put(claim)))?;
        }
        c.hand_out(backlog, &mut batch);
        Ok(batch.n as c_int)
    })
}

/// The state that claims are to enter, from its number.
fn target(to: u32) -> Result<State, Error> {
    [State::Processing, State::Copying].into_iter().find(|s| *s as u32 == to).ok_or(Error::BadRequest)
}

/// Takes the role.
///
/// # Safety
/// `region` is null or a region's handle that outlives this one; `out` and `error` are null or may be written.
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_take_role(
    region: *mut ApiRegion,
    out: *mut *mut CommunicatorHandle,
    error: *mut ApiError,
) -> c_int {
    let take = || {
        if out.is_null() {
            return Err((-Error::BadMemory.errno(), "there is no place for the handle".into()));
        }
        // Before the role: with that the claims of a dead communicator come, which would be answered as it is given up.
        let room = Room::new().map_err(|e| failure(e, format_args!("{e}")))?;
        // SAFETY: the caller's promise.
        let handle = CommunicatorHandle::take(unsafe { Held::of_handle(region) }?)?;
        // SAFETY: not null, and the caller's promise.
        unsafe { out.write(Box::into_raw(room.put(handle))) };
        Ok(0)
    };
    // SAFETY: the caller's promise.
    guard(Err(bug()), take).unwrap_or_else(|failure| unsafe { report(error, &failure) })
}

/// Gives the role up.
///
/// # Safety
/// `c` is null or a handle, which nobody uses any more.
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_release_role(c: *mut CommunicatorHandle) -> c_int {
    let unanswered = enter(c, |c| {
        let _reaper = c.reaper()?;
        c.sizes.close();
        Ok(c_int::try_from(c.claims.drop_all()).unwrap_or(c_int::MAX))
    });
    if unanswered >= 0 {
        // SAFETY: made by `shmuring_communicator_take_role`, and the caller's promise.
        let dropped = guard(PANICKED, || {
            // SAFETY: as above.
            drop(unsafe { Box::from_raw(c) });
            0
        });
        return if dropped == 0 { unanswered } else { dropped };
    }
    unanswered
}

/// Number of this term of the role.
///
/// # Safety
/// `c` is null or a handle that is not being freed: so too for the functions below.
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_epoch(c: *const CommunicatorHandle) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { c.as_ref() }.map_or(0, |c| c.epoch)
}

/// Claims of a dead communicator that are still to be handed out.
///
/// # Safety
/// As of [`shmuring_communicator_epoch`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_inherited(c: *const CommunicatorHandle) -> c_int {
    // Relaxed: a number for messages.
    enter(c, |c| Ok(c_int::try_from(c.inherited.load(Ordering::Relaxed)).unwrap_or(c_int::MAX)))
}

/// Claims everything Submitted.
///
/// # Safety
/// As of [`shmuring_communicator_epoch`]; `max` claims may be written to `claims`: so too for the functions below.
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_sweep(
    c: *const CommunicatorHandle,
    claims: *mut ApiClaim,
    max: u32,
) -> c_int {
    reap(c, claims, max, true, |communicator, _, each| Ok(communicator.sweep(State::Processing, each)))
}

/// Claims what is on the ring.
///
/// # Safety
/// As of [`shmuring_communicator_sweep`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_reap(
    c: *const CommunicatorHandle,
    to: u32,
    claims: *mut ApiClaim,
    max: u32,
) -> c_int {
    let to = target(to);
    reap(c, claims, max, to.is_err(), |communicator, max, each| Ok(communicator.reap(max, to?, each)))
}

/// Claims what is on the ring, or sleeps.
///
/// # Safety
/// As of [`shmuring_communicator_sweep`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_reap_or_park(
    c: *const CommunicatorHandle,
    to: u32,
    claims: *mut ApiClaim,
    max: u32,
    ns: u64,
) -> c_int {
    let to = target(to);
    reap(c, claims, max, to.is_err(), |communicator, max, each| {
        Ok(communicator.reap_or_park(max, to?, Gather::default(), ns, each))
    })
}

/// Looks at every slot, once a second.
///
/// # Safety
/// As of [`shmuring_communicator_sweep`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_audit(
    c: *const CommunicatorHandle,
    claims: *mut ApiClaim,
    max: u32,
) -> c_int {
    reap(c, claims, max, false, |communicator, _, each| Ok(communicator.audit(State::Processing, each)))
}

/// Ends a sleep of the reaper.
///
/// # Safety
/// As of [`shmuring_communicator_epoch`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_communicator_wake(c: *const CommunicatorHandle) -> c_int {
    enter(c, |c| {
        doorbell::ring_once(c.parts.get());
        Ok(0)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::super::sizes::{shmuring_communicator_keep_sizes, Did, OF_READS};
    use super::*;
    use crate::region::shmuring_region_attach;
    use shmuring::backend::Backend;
    use shmuring::region::{Options, Region};
    use shmuring::request::{Completion, Opcode, RelTag, Request};

    const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

    /// The role of a region of its own, and the region once more.
    fn taken(name: &str) -> (*mut CommunicatorHandle, Region) {
        let path = std::env::temp_dir().join(format!("shmuring-ffi-{name}-{}", std::process::id()));
        let (region, _) = Region::create_named(&path, &Options { rel_sizes: 64, ..Options::new(8) }).unwrap();
        let text = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let mut held = core::ptr::null_mut();
        // SAFETY: a path and a place for the handle, which nobody else uses.
        let handle = unsafe {
            assert_eq!(shmuring_region_attach(text.as_ptr(), &mut held, core::ptr::null_mut()), 0);
            CommunicatorHandle::take(Held::of_handle(held).unwrap()).unwrap()
        };
        std::fs::remove_file(&path).unwrap();
        (Box::into_raw(Box::new(handle)), region)
    }

    /// Submits a request and reaps it: its claim, as C has it.
    fn claimed(handle: *const CommunicatorHandle, b: &mut Backend<'_>, request: &Request<'_>) -> ApiClaim {
        let slot = b.free_slot().unwrap();
        let filled = b.fill(slot, request).unwrap();
        b.submit(filled).unwrap();
        let mut claim = ApiClaim::default();
        // SAFETY: a handle that lives, and a place for one claim.
        assert_eq!(unsafe { shmuring_communicator_reap(handle, State::Processing as u32, &raw mut claim, 1) }, 1);
        claim
    }

    #[test]
    fn a_panic_becomes_an_errno_and_the_handle_does_nothing_any_more() {
        let (handle, _region) = taken("panic");
        let mut claim = ApiClaim::default();
        // SAFETY: a handle that lives, and a place for one claim, here and below.
        let mut reap = || unsafe { shmuring_communicator_reap(handle, State::Copying as u32, &raw mut claim, 1) };
        assert_eq!(reap(), 0);
        assert_eq!(enter(handle, |c| c.reaper().map(|_held| panic!("planted"))), -libc::ENOTRECOVERABLE);
        assert_eq!(reap(), -libc::ENOTRECOVERABLE);
        // SAFETY: as above. It is refused too: who knows what is half done. The role ends with the process.
        assert_eq!(unsafe { shmuring_communicator_release_role(handle) }, -libc::ENOTRECOVERABLE);
    }

    #[test]
    fn a_change_that_is_being_answered_as_sizes_begin_to_be_kept_leaves_none_that_was_read_before_it() {
        let (handle, region) = taken("overtaken");
        // SAFETY: a handle that lives, here and below.
        let c = unsafe { &*handle };
        let mut b = Backend::attach(&region, 0, 8).unwrap();
        let extend = Request { arg: 1, block: 10, ..Request::new(Opcode::ZeroExtend, REL) };
        // Two threads that answer are stopped: one with its claim in hand, one before it has published.
        let first = claimed(handle, &mut b, &extend);
        let in_hand = c.claims.find(first.name).unwrap().take().unwrap();
        let second = claimed(handle, &mut b, &extend);
        let published = c.claims.find(second.name).unwrap().take().unwrap();
        let address = handle.expose_provenance();
        let (answered, keep) = c.sizes.end(published, Did::Complete(0, 0), |claim| {
            let keep = std::thread::spawn(move || {
                let handle = core::ptr::with_exposed_provenance::<CommunicatorHandle>(address);
                // SAFETY: as above.
                unsafe { shmuring_communicator_keep_sizes(handle, OF_READS) }
            });
            // It cannot prove that the thread waits; but if it does not, it has ended by now nearly always.
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!keep.is_finished(), "sizes are kept while an answer is on its way");
            (claim.complete(Completion::ok(0)), keep)
        });
        assert!(answered.is_ok());
        assert_eq!(keep.join().unwrap(), 0);
        let read = claimed(handle, &mut b, &Request::new(Opcode::RelSize, REL));
        // SAFETY: as above.
        assert_eq!(unsafe { super::super::claims::shmuring_claim_complete(handle, read.name, 10, 0) }, 0);
        assert_eq!(b.cached_rel_size(REL).map(|size| size.blocks), Some(Some(10)));
        assert!(c.sizes.end(in_hand, Did::Complete(0, 0), |claim| claim.complete(Completion::ok(0))).is_ok());
        assert_eq!(b.cached_rel_size(REL).map(|size| size.blocks), None, "block 10 would be written over");
        // SAFETY: as above.
        assert_eq!(unsafe { shmuring_communicator_release_role(handle) }, 0);
    }
}
