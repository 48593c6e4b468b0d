//! The tables of a region: what was written since when, how large relations are.

use libc::{E2BIG, EFAULT, EINVAL};
use libfuzzer_sys::arbitrary::{Result, Unstructured};

use crate::abi::{self, ApiRel, Handle};
use crate::{documented, World, POISON};

/// Most blocks of one call.
const MAX: u32 = 40;

impl World {
    /// One call about the last-written table. A note can never make a later answer lower than itself, whatever the bytes
    /// are: one that is damaged answers with the floor, or higher.
    pub fn tables(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let region: Handle = if u.ratio(1, 16)? { std::ptr::null_mut() } else { self.region };
        let fork = u.int_in_range(0..=4)?;
        let reserved = [0, 0, u8::from(u.ratio(1, 16)?)];
        let rel =
            ApiRel { spc_oid: 1663, db_oid: 5, rel_number: 16384 + u32::from(u.arbitrary::<bool>()?), fork, reserved };
        let first = if u.ratio(1, 8)? { u32::MAX - u.int_in_range(0..=MAX)? } else { u.int_in_range(0..=300)? };
        let count = u.int_in_range(0..=MAX)?;
        let lsn = u64::from(u.arbitrary::<u32>()?);
        let is_wrong = fork > 3 || reserved != [0; 3];
        let is_beyond = |count: u32| first.checked_add(count).is_none();
        let mut out = [POISON as u64; MAX as usize];
        let to = if u.ratio(1, 16)? { std::ptr::null_mut() } else { out.as_mut_ptr() };
        let which = u.int_in_range(0..=10)?;
        // SAFETY: null or a handle that lives; null or a place for as many answers as are asked for.
        let (code, bad, wants) = unsafe {
            match which {
                0 => (abi::shmuring_written_note(region, rel, first, lsn), is_wrong || is_beyond(1), 0),
                1 => {
                    (abi::shmuring_written_note_range(region, rel, first, count, lsn), is_wrong || is_beyond(count), 0)
                }
                2 => (abi::shmuring_written_note_relation(region, rel, lsn), is_wrong, 0),
                3 => (abi::shmuring_written_note_all(region, lsn), false, 0),
                4 => (abi::shmuring_written_get(region, rel, first, to), is_wrong || is_beyond(1), 1),
                5 => (
                    abi::shmuring_written_get_range(region, rel, first, count, to),
                    is_wrong || is_beyond(count),
                    count,
                ),
                6 => (abi::shmuring_written_get_relation(region, rel, to), is_wrong, 1),
                7 => (abi::shmuring_written_get_database(region, 5, to), false, 1),
                8 => (abi::shmuring_written_floor(region, to), false, 1),
                9 => (abi::shmuring_server_reset_written(self.server.unwrap_or(std::ptr::null_mut()), lsn), false, 0),
                _ => (abi::shmuring_shard_of(region, rel, first), is_wrong, 0),
            }
        };
        let lacks = if which == 9 { self.server.is_none() } else { region.is_null() || wants > 0 && to.is_null() };
        if documented(code, &[EINVAL, E2BIG, EFAULT]).is_some() {
            // There are at most 65535 shards, whatever the region says.
            assert!(code == 0 || which == 10 && code < 1 << 16);
            assert!(!bad && !lacks, "call {which} takes what it promised to refuse");
        } else {
            assert!(bad || lacks, "call {which} refuses what is right");
            assert_eq!(out, [POISON as u64; MAX as usize], "something is stored after an error");
        }
        assert!(out[wants as usize..].iter().all(|n| *n == POISON as u64), "more is stored than was asked for");
        Ok(())
    }
}
