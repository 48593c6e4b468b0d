//! What the tables of a region tell without a request: since when pages were not modified, how large relations are. No
//! guard: ci/nopanic.sh proves that nothing here can panic.

use core::ffi::c_int;
use core::ptr::NonNull;

use shmuring::error::Error;
use shmuring::lsn::rel_size::Size;
use shmuring::lsn::written::Written;
use shmuring::request::{Lsn, RelTag, MISSING};

use crate::api::{ApiRel, ApiRelSize};
use crate::backend::{open, ApiBackend};
use crate::fault::{code, Answer, Fault};
use crate::fill::rel_of;
use crate::region::ApiRegion;

/// The last fork that relations have.
const LAST_FORK: u32 = 3;

/// What a relation fork is named by, checked.
pub(crate) fn tag_of(rel: ApiRel) -> Result<RelTag, Fault> {
    match rel_of(rel) {
        (tag, fork) if fork <= LAST_FORK => Ok(tag),
        _ => Err(Error::BadRequest.into()),
    }
}

/// A size in C's words.
pub(crate) fn size_in_c(size: Size) -> ApiRelSize {
    let blocks = size.blocks.map_or(MISSING, u64::from);
    ApiRelSize { blocks, lsn: size.lsn, is_changed: size.is_changed.into(), reserved: 0 }
}

/// `count` blocks from `first` on are blocks that a fork can have.
fn check_blocks(first: u32, count: u32) -> Result<(), Fault> {
    // A fork has at most 2^32 - 1 blocks, so that its size is a number of them.
    first.checked_add(count).map(|_| ()).ok_or_else(|| Error::BadCount.into())
}

/// The last-written table of a region, to note in.
///
/// # Safety
/// `region` is null or a handle that was not detached.
unsafe fn noting<'r>(region: *const ApiRegion) -> Result<Written<'r>, Fault> {
    // SAFETY: the caller's promise.
    let region = unsafe { ApiRegion::look(region) }?;
    if region.is_read_only() {
        return Err(Error::Os(libc::EROFS).into());
    }
    Ok(region.parts().last_written())
}

/// Asks the last-written table of a region, and stores the answer in `*lsn`.
///
/// # Safety
/// `region` is null or a handle that was not detached; `lsn` is null or may be written.
#[inline(always)]
unsafe fn ask(region: *const ApiRegion, lsn: *mut Lsn, ask: impl FnOnce(Written<'_>) -> Result<Lsn, Fault>) -> Answer {
    let to = NonNull::new(lsn).ok_or(Fault::Null)?;
    // SAFETY: the caller's promise.
    let answer = ask(unsafe { ApiRegion::look(region) }?.parts().last_written())?;
    // SAFETY: not null, and the caller's promise.
    unsafe { to.write(answer) };
    Ok(0)
}

/// Notes the write of a block.
///
/// # Safety
/// `region` is null or a handle that was not detached.
#[no_mangle]
pub unsafe extern "C" fn shmuring_written_note(region: *const ApiRegion, rel: ApiRel, block: u32, lsn: u64) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { shmuring_written_note_range(region, rel, block, 1, lsn) }
}

/// Notes writes of blocks that follow each other.
///
/// # Safety
/// `region` is null or a handle that was not detached.
#[no_mangle]
pub unsafe extern "C" fn shmuring_written_note_range(
    region: *const ApiRegion,
    rel: ApiRel,
    first: u32,
    count: u32,
    lsn: u64,
) -> c_int {
    // SAFETY: the caller's promise.
    let noted = unsafe { noting(region) }.and_then(|written| {
        let tag = tag_of(rel)?;
        check_blocks(first, count)?;
        written.note_range(tag, first, count, lsn);
        Ok(0)
    });
    code(noted)
}

/// Notes a change of a fork's size or existence.
///
/// # Safety
/// `region` is null or a handle that was not detached.
#[no_mangle]
pub unsafe extern "C" fn shmuring_written_note_relation(region: *const ApiRegion, rel: ApiRel, lsn: u64) -> c_int {
    // SAFETY: the caller's promise.
    let noted = unsafe { noting(region) }.and_then(|written| {
        written.note_relation(tag_of(rel)?, lsn);
        Ok(0)
    });
    code(noted)
}

/// Notes that anything may have changed: raises the floor.
///
/// # Safety
/// `region` is null or a handle that was not detached.
#[no_mangle]
pub unsafe extern "C" fn shmuring_written_note_all(region: *const ApiRegion, lsn: u64) -> c_int {
    // SAFETY: the caller's promise.
    let noted = unsafe { noting(region) }.map(|written| {
        written.note_all(lsn);
        0
    });
    code(noted)
}

/// Since when a block was not modified, into `*lsn`.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_written_get(
    region: *const ApiRegion,
    rel: ApiRel,
    block: u32,
    lsn: *mut u64,
) -> c_int {
    // SAFETY: the caller's promise.
    code(unsafe {
        ask(region, lsn, |written| {
            check_blocks(block, 1)?;
            Ok(written.get(tag_of(rel)?, block))
        })
    })
}

/// The same for `count` blocks that follow each other, into an array of so many.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_written_get_range(
    region: *const ApiRegion,
    rel: ApiRel,
    first: u32,
    count: u32,
    lsns: *mut u64,
) -> c_int {
    // SAFETY: the caller's promise.
    let got = unsafe { ApiRegion::look(region) }.and_then(|region| {
        let tag = tag_of(rel)?;
        check_blocks(first, count)?;
        if count == 0 {
            return Ok(0);
        }
        let to = NonNull::new(lsns).ok_or(Fault::Null)?;
        // SAFETY: not null, and the caller's promise; every bit pattern is a number.
        let to = unsafe { core::slice::from_raw_parts_mut(to.as_ptr(), count as usize) };
        region.parts().last_written().get_range(tag, first, to);
        Ok(0)
    });
    code(got)
}

/// Since when neither size nor existence of a fork changed, into `*lsn`.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_written_get_relation(region: *const ApiRegion, rel: ApiRel, lsn: *mut u64) -> c_int {
    // SAFETY: the caller's promise.
    code(unsafe { ask(region, lsn, |written| Ok(written.get_relation(tag_of(rel)?))) })
}

/// Since when no fork of a database changed its size or existence, into `*lsn`.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_written_get_database(region: *const ApiRegion, db_oid: u32, lsn: *mut u64) -> c_int {
    // SAFETY: the caller's promise.
    code(unsafe { ask(region, lsn, |written| Ok(written.get_database(db_oid))) })
}

/// What no answer is below, into `*lsn`.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_written_floor(region: *const ApiRegion, lsn: *mut u64) -> c_int {
    // SAFETY: the caller's promise.
    code(unsafe { ask(region, lsn, |written| Ok(written.floor())) })
}

/// Which shard has a block, as the communicator has told.
///
/// # Safety
/// The pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_shard_of(region: *const ApiRegion, rel: ApiRel, block: u32) -> c_int {
    // SAFETY: the caller's promise.
    let found = unsafe { ApiRegion::look(region) };
    code(found.and_then(|region| Ok(region.parts().header.shards.shard_of(tag_of(rel)?, block).into())))
}

/// The size of a relation fork, if the region knows it: 1 and the size in `*out`, or 0.
///
/// # Safety
/// Each pointer is null or may be used as the header says.
#[no_mangle]
pub unsafe extern "C" fn shmuring_cached_rel_size(b: *mut ApiBackend, rel: ApiRel, out: *mut ApiRelSize) -> c_int {
    // SAFETY: the caller's promise.
    let found = unsafe { open(b) }.and_then(|backend| {
        let (tag, to) = (tag_of(rel)?, NonNull::new(out).ok_or(Fault::Null)?);
        backend.check_process()?;
        let Some(size) = backend.cached_rel_size(tag) else { return Ok(0) };
        // SAFETY: not null, and the caller's promise.
        unsafe { to.write(size_in_c(size)) };
        Ok(1)
    });
    code(found)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::api::{ApiOptions, NONE};
    use crate::region::{shmuring_region_create_memfd, shmuring_region_detach};
    use core::sync::atomic::Ordering;
    use shmuring::lsn::shards::Sharding;

    #[test]
    fn the_shard_of_a_block_is_the_schedulers_and_damage_of_the_region_is_some_shard() {
        let options = ApiOptions {
            slots: 4,
            bounce_per_slot: 1,
            block_size: 512,
            written_buckets: NONE,
            rel_sizes: NONE,
            reserved: [0; 3],
        };
        let tag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 0x400c, fork: 0 };
        let rel = ApiRel { spc_oid: 1663, db_oid: 5, rel_number: 0x400c, fork: 0, reserved: [0; 3] };
        let mut region = core::ptr::null_mut();
        // SAFETY: all that is named may be read or written.
        unsafe {
            assert_eq!(shmuring_region_create_memfd(&options, &mut region, core::ptr::null_mut()), 0);
            assert_eq!(shmuring_shard_of(region, rel, 7), 0);
            let shards = &ApiRegion::look(region).map(|r| r.parts().header).expect("it was made").shards;
            shards.count.store(3, Ordering::Relaxed);
            shards.stripe.store(2, Ordering::Relaxed);
            let all: Vec<_> = (0..50).map(|block| shmuring_shard_of(region, rel, block)).collect();
            let sharding = Sharding { count: 3, stripe: 2 };
            assert_eq!(all, (0..50).map(|block| sharding.block(tag, block).into()).collect::<Vec<c_int>>());
            assert!([0, 1, 2].iter().all(|shard| all.contains(shard)));
            for damage in [0, 1 << 16, u64::MAX] {
                shards.count.store(damage, Ordering::Relaxed);
                shards.stripe.store(damage, Ordering::Relaxed);
                assert_eq!(shmuring_shard_of(region, rel, u32::MAX), 0);
            }
            assert!(shmuring_shard_of(region, ApiRel { fork: 4, ..rel }, 7) < 0);
            assert!(shmuring_shard_of(core::ptr::null(), rel, 7) < 0);
            assert_eq!(shmuring_region_detach(region), 0);
        }
    }
}
