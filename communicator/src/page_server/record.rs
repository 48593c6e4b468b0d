//! What a page server keeps beside its store's files: which shard it is, the last fence, and the LSN that it begins with
//! after its death. One small file, replaced whole.

use crate::service::{Result, ServiceError};
use crate::wire::mutation::Term;
use shmuring::lsn::shards::Sharding;
use shmuring::request::Lsn;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const NAME: &str = "PAGE_SERVER";
const MAGIC: &[u8; 8] = b"shmrpgs1";
/// Magic, shard, count, stripe, whether there is a term, region, life, epoch, LSN.
const LEN: usize = 8 + 2 + 4 + 1 + 16 + 4 + 4 + 8;

/// Which part of the pages a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Its number, from 0.
    pub number: u8,
    /// Number of shards, at least 1.
    pub count: u8,
    /// Blocks of a stripe.
    pub stripe: u32,
}

impl Shard {
    /// The rule of which shard has a block.
    #[must_use]
    pub fn sharding(&self) -> Sharding {
        Sharding { count: self.count.into(), stripe: self.stripe }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "shard {} of {}, stripes of {} blocks", self.number, self.count, self.stripe)
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) shard: Shard,
    /// The last fence.
    pub(super) term: Option<Term>,
    /// What is ingested after a death.
    pub(super) disk_consistent: Lsn,
}

impl Record {
    fn encode(&self, store: &str) -> Vec<u8> {
        let term = self.term.unwrap_or_default();
        let mut b = MAGIC.to_vec();
        b.extend_from_slice(&[self.shard.number, self.shard.count]);
        b.extend_from_slice(&self.shard.stripe.to_be_bytes());
        b.push(self.term.is_some().into());
        b.extend_from_slice(&term.region.to_be_bytes());
        b.extend_from_slice(&term.life.to_be_bytes());
        b.extend_from_slice(&term.epoch.to_be_bytes());
        b.extend_from_slice(&self.disk_consistent.to_be_bytes());
        let sum = crc32c::crc32c_append(crc32c::crc32c(store.as_bytes()), &b);
        b.extend_from_slice(&sum.to_be_bytes());
        b
    }

    fn decode(bytes: &[u8], store: &str) -> Option<Self> {
        let (b, sum) = bytes.split_last_chunk::<4>()?;
        let whole = crc32c::crc32c_append(crc32c::crc32c(store.as_bytes()), b) == u32::from_be_bytes(*sum);
        if b.len() != LEN || !whole || !b.starts_with(MAGIC) {
            return None;
        }
        let be32 = |at: usize| b.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let shard = Shard { number: *b.get(8)?, count: *b.get(9)?, stripe: be32(10)? };
        let region = b.get(15..31)?.try_into().ok().map(u128::from_be_bytes)?;
        let term = Term { region, life: be32(31)?, epoch: be32(35)? };
        let term = (*b.get(14)? == 1).then_some(term);
        let disk_consistent = b.get(39..47)?.try_into().ok().map(u64::from_be_bytes)?;
        Some(Self { shard, term, disk_consistent })
    }

    /// The record in a store's directory, `None` if there is none yet. Refused: a damaged one, and that of another shard.
    pub(super) fn load(dir: &Path, store: &str, shard: Shard) -> Result<Option<Self>> {
        let bytes = match fs::read(dir.join(NAME)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(ServiceError::io_at(&e, "reading the page server's record")),
        };
        let damaged = || ServiceError::corrupt(format!("the page server's record in {} is damaged", dir.display()));
        let record = Self::decode(&bytes, store).ok_or_else(damaged)?;
        if record.shard != shard {
            let what = format!("{} has the pages of {}, not of {shard}", dir.display(), record.shard);
            return Err(ServiceError::invalid(what));
        }
        Ok(Some(record))
    }

    /// Replaces the record: it survives a loss of power when this returns.
    pub(super) fn save(&self, dir: &Path, store: &str) -> Result<()> {
        let part: PathBuf = dir.join(format!("{NAME}.new"));
        let save = || {
            let mut f = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&part)?;
            f.write_all(&self.encode(store))?;
            f.sync_all()?;
            fs::rename(&part, dir.join(NAME))?;
            File::open(dir)?.sync_all()
        };
        save().map_err(|e| match e.kind() {
            ErrorKind::StorageFull => ServiceError::no_space("no space left for the page server's record"),
            _ => ServiceError::io_at(&e, "writing the page server's record"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: Shard = Shard { number: 1, count: 3, stripe: 128 };

    #[test]
    fn a_record_comes_back_and_damage_and_other_shards_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let load = |shard| Record::load(dir.path(), "store", shard);
        assert_eq!(load(SHARD), Ok(None));
        let term = Term { region: 1 << 100 | 7, life: 3, epoch: 9 };
        for term in [None, Some(term)] {
            let record = Record { shard: SHARD, term, disk_consistent: 1 << 40 };
            record.save(dir.path(), "store").unwrap();
            assert_eq!(load(SHARD), Ok(Some(record)));
        }
        let e = load(Shard { number: 2, ..SHARD }).unwrap_err();
        assert!(e.errno == libc::EINVAL && e.detail.contains("shard 1 of 3"), "{e}");
        assert!(Record::load(dir.path(), "another", SHARD).is_err());
        let good = fs::read(dir.path().join(NAME)).unwrap();
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            assert_eq!(Record::decode(&bad, "store"), None, "byte {i}");
            assert_eq!(Record::decode(&good[..i], "store"), None);
        }
    }
}
