//! Claims by name: a table with a place for each slot, and what C may do with a claim.
//!
//! C holds copies of names, and may use one twice or too late. So the claims themselves stay here: a name is a slot and
//! its generation (I3), and an answer takes the claim out, so that a second one finds nothing (I4). The lock of a place
//! keeps two threads from answering at once; it also means that nobody touches a buffer once the claim is out.

use core::ffi::{c_int, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use shmuring::communicator::{Claim, Copying, Withdrawn};
use shmuring::error::Error;
use shmuring::request::{flags, Completion};

use super::role::{enter, CommunicatorHandle};
use super::sizes::Did;

/// The request was cancelled and its slot given back: SHMURING_ERR_WITHDRAWN.
pub(super) const WITHDRAWN: c_int = -libc::ECANCELED;
/// SHMURING_CLAIM_AGAIN.
pub(super) const AGAIN: u16 = 1;
/// The first errno that a completion cannot carry.
const ERRNO_END: c_int = 4096;

type Place = Mutex<Option<Claim<'static>>>;

/// A claimed request in C's words.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct ApiClaim {
    pub(super) name: i64,
    pub(super) lsn: u64,
    pub(super) spc_oid: u32,
    pub(super) db_oid: u32,
    pub(super) rel_number: u32,
    pub(super) block: u32,
    pub(super) arg: u32,
    pub(super) opcode: u8,
    pub(super) flags: u8,
    pub(super) fork: u8,
    pub(super) count: u8,
    pub(super) pool: u16,
    pub(super) claim_flags: u16,
    pub(super) reserved: u32,
    pub(super) deadline: u64,
    pub(super) request_lsn: u64,
    pub(super) claim_seq: u64,
}

impl From<&Claim<'static>> for ApiClaim {
    fn from(claim: &Claim<'static>) -> Self {
        let job = claim.job();
        let mut bits = job.class as u8;
        let mut set = |flag, is_set: bool| bits |= if is_set { flag } else { 0 };
        set(flags::ALLOW_MISSING, job.allow_missing);
        set(flags::DEADLINE, job.deadline.is_some());
        set(flags::REQUEST_LSN, job.request_lsn.is_some());
        set(flags::BLOCK_LSNS, job.has_block_lsns());
        Self {
            name: i64::from(claim.generation()) << 32 | i64::from(claim.slot()),
            lsn: job.lsn,
            spc_oid: job.rel.spc_oid,
            db_oid: job.rel.db_oid,
            rel_number: job.rel.rel_number,
            block: job.block,
            arg: job.arg,
            opcode: job.opcode as u8,
            flags: bits,
            fork: job.rel.fork,
            count: job.count,
            pool: job.pool,
            claim_flags: if claim.is_again() { AGAIN } else { 0 },
            reserved: 0,
            deadline: job.deadline.unwrap_or(0),
            request_lsn: job.request_lsn.unwrap_or(0),
            claim_seq: claim.claim_seq(),
        }
    }
}

/// The claims that are not answered, by slot.
pub(super) struct Claims {
    places: Vec<Place>,
}

impl Claims {
    /// A place for each of so many slots.
    pub(super) fn new(slots: usize) -> Result<Self, Error> {
        let mut places = Vec::new();
        places.try_reserve_exact(slots).map_err(|_| Error::Os(libc::ENOMEM))?;
        places.resize_with(slots, Place::default);
        Ok(Self { places })
    }

    /// Puts a claim in its place. One that is there already, which only hostile bytes bring about, is dropped (I4).
    pub(super) fn put(&self, claim: Claim<'static>) -> u32 {
        let slot = claim.slot();
        if let Some(place) = self.places.get(slot as usize) {
            *lock(place) = Some(claim);
        }
        slot
    }

    /// What is asked for in this slot.
    pub(super) fn describe(&self, slot: u32) -> Option<ApiClaim> {
        lock(self.places.get(slot as usize)?).as_ref().map(ApiClaim::from)
    }

    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Looks at every claim that is there.
    pub(super) fn each(&self, mut look: impl FnMut(&Claim<'static>)) {
        for place in &self.places {
            if let Some(claim) = &*lock(place) {
                look(claim);
            }
        }
    }

    /// Drops every claim, and says how many there were.
    pub(super) fn drop_all(&self) -> usize {
        self.places.iter().filter(|place| lock(place).take().is_some()).count()
    }

    /// The place of a claim that is there.
    pub(super) fn find(&self, name: i64) -> Result<MutexGuard<'_, Option<Claim<'static>>>, Error> {
        let bits = name as u64;
        let (slot, generation) = (bits as u32, (bits >> 32) as u32);
        let place = lock(self.places.get(slot as usize).ok_or(Error::BadSlot)?);
        match &*place {
            Some(claim) if claim.generation() == generation => Ok(place),
            _ => Err(Error::Stale),
        }
    }
}

/// What a panic left in a place is a claim all the same.
fn lock(place: &Place) -> MutexGuard<'_, Option<Claim<'static>>> {
    place.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a call does to a claim: looks, and leaves it where it is.
fn look(c: *const CommunicatorHandle, name: i64, f: impl FnOnce(&Claim<'static>) -> c_int) -> c_int {
    enter(c, |c| Ok(c.claims.find(name)?.as_ref().map_or(0, f)))
}

/// In Copying; a claim that turns out to be withdrawn is gone.
fn copy(
    c: *const CommunicatorHandle,
    name: i64,
    f: impl FnOnce(Copying<'_, 'static>) -> Result<Result<(), Withdrawn>, Error>,
) -> c_int {
    enter(c, |c| {
        let mut place = c.claims.find(name)?;
        let Some(claim) = place.as_mut() else { return Ok(0) };
        let did = match claim.copying() {
            Ok(copying) => f(copying)?,
            Err(Withdrawn) => Err(Withdrawn),
        };
        Ok(match did {
            Ok(()) => 0,
            Err(Withdrawn) => {
                let gone = place.take();
                drop(place);
                gone.iter().for_each(|claim| c.sizes.lose(claim));
                WITHDRAWN
            }
        })
    })
}

/// Copies to or from a page of C's, which is one that can be.
fn copy_page(
    c: *const CommunicatorHandle,
    name: i64,
    page: *const c_void,
    bytes: usize,
    f: impl FnOnce(&mut Copying<'_, 'static>) -> Result<(), Error>,
) -> c_int {
    if page.is_null() {
        return -Error::BadMemory.errno();
    }
    if bytes > isize::MAX as usize {
        return -Error::BadBuffer.errno();
    }
    copy(c, name, |mut copying| f(&mut copying).map(Ok))
}

/// Takes the claim out and answers, once what it did to a size is told (R2).
fn answer(
    c: *const CommunicatorHandle,
    name: i64,
    did: Did,
    f: impl FnOnce(Claim<'static>) -> Result<(), Withdrawn>,
) -> c_int {
    enter(c, |c| {
        let Some(claim) = c.claims.find(name)?.take() else { return Ok(0) };
        Ok(if c.sizes.end(claim, did, f).is_ok() { 0 } else { WITHDRAWN })
    })
}

/// Whether the owner has given it up.
///
/// # Safety
/// `c` is null or a handle that is not being freed.
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_is_cancelled(c: *const CommunicatorHandle, name: i64) -> c_int {
    look(c, name, |claim| c_int::from(claim.is_cancelled()))
}

/// not_modified_since of block `i`.
///
/// # Safety
/// As of [`shmuring_claim_is_cancelled`]; `lsn` is null or may be written.
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_block_lsn(
    c: *const CommunicatorHandle,
    name: i64,
    i: u32,
    lsn: *mut u64,
) -> c_int {
    look(c, name, |claim| {
        if lsn.is_null() {
            return -Error::BadMemory.errno();
        }
        if i >= u32::from(claim.job().count) {
            return -Error::BadCount.errno();
        }
        // SAFETY: not null, and the caller's promise.
        unsafe { lsn.write(claim.job().block_lsn(i as usize)) };
        0
    })
}

/// Enters Copying (I2).
///
/// # Safety
/// As of [`shmuring_claim_is_cancelled`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_begin_copy(c: *const CommunicatorHandle, name: i64) -> c_int {
    copy(c, name, |_| Ok(Ok(())))
}

/// Copies a page into the buffer of block `i`.
///
/// # Safety
/// As of [`shmuring_claim_is_cancelled`]; `bytes` may be read from `page` on, which does not lie in a pool.
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_deliver(
    c: *const CommunicatorHandle,
    name: i64,
    i: u32,
    page: *const c_void,
    bytes: usize,
) -> c_int {
    copy_page(c, name, page, bytes, |copying| {
        // SAFETY: not null, no larger than an object can be; the rest is the caller's promise.
        copying.deliver(i as usize, unsafe { core::slice::from_raw_parts(page.cast(), bytes) })
    })
}

/// Copies the image of block `i` out of its buffer.
///
/// # Safety
/// As of [`shmuring_claim_is_cancelled`]; `bytes` may be written from `page` on, which does not lie in a pool.
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_take_image(
    c: *const CommunicatorHandle,
    name: i64,
    i: u32,
    page: *mut c_void,
    bytes: usize,
) -> c_int {
    copy_page(c, name, page, bytes, |copying| {
        // SAFETY: as in `shmuring_claim_deliver`.
        copying.take_image(i as usize, unsafe { core::slice::from_raw_parts_mut(page.cast(), bytes) })
    })
}

/// Leaves Copying.
///
/// # Safety
/// As of [`shmuring_claim_is_cancelled`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_suspend(c: *const CommunicatorHandle, name: i64) -> c_int {
    copy(c, name, |copying| Ok(copying.suspend()))
}

/// Answers.
///
/// # Safety
/// As of [`shmuring_claim_is_cancelled`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_complete(
    c: *const CommunicatorHandle,
    name: i64,
    value: u64,
    lsn: u64,
) -> c_int {
    answer(c, name, Did::Complete(value, lsn), |claim| claim.complete(Completion { lsn, ..Completion::ok(value) }))
}

/// Answers that it failed.
///
/// # Safety
/// As of [`shmuring_claim_is_cancelled`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_fail(
    c: *const CommunicatorHandle,
    name: i64,
    error: c_int,
    value: u64,
    attempts: u16,
) -> c_int {
    if !(1..ERRNO_END).contains(&error) {
        return -Error::BadRequest.errno();
    }
    answer(c, name, Did::Fail, |claim| claim.fail(error, value, attempts))
}

/// Answers that nobody will (I4).
///
/// # Safety
/// As of [`shmuring_claim_is_cancelled`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_drop(c: *const CommunicatorHandle, name: i64) -> c_int {
    answer(c, name, Did::Lose, |claim| {
        drop(claim);
        Ok(())
    })
}

/// Says that the change of a claim leaves its fork's size unknown.
///
/// # Safety
/// As of [`shmuring_claim_is_cancelled`].
#[no_mangle]
pub unsafe extern "C" fn shmuring_claim_forget_size(c: *const CommunicatorHandle, name: i64) -> c_int {
    enter(c, |c| {
        let named = c.claims.find(name)?.as_ref().map(|claim| (claim.slot(), claim.generation()));
        if let Some((slot, generation)) = named {
            c.sizes.doubt(slot, generation);
        }
        Ok(0)
    })
}
