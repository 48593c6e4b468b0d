//! Reads: what was there as of an LSN. The rule is in `keys`.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use fjall::{Readable, Snapshot, UserKey, UserValue};
use shmuring::request::{Lsn, RelTag};

use super::engine::{guarded, Engine};
use super::keys::{self, Meta, Pos};
use super::Store;
use crate::service::{check_read, ReadLsn, Result, ServiceError, PAGE_SIZE};

/// The newest metadata of `rel` with an effective LSN up to `lsn`, and its position.
pub fn meta_at(e: &Engine, snap: &Snapshot, rel: RelTag, lsn: Lsn) -> Result<Option<(Pos, Meta)>> {
    guarded("reading metadata", || {
        let from = keys::meta_key(rel, Pos { lsn, seq: u64::MAX });
        let to = keys::meta_key(rel, Pos::default());
        snap.range(&e.metas, from..=to).next().map(|g| g.into_inner()).transpose()
    })?
    .map(|(k, v)| Ok((keys::parse_meta_key(&k)?, Meta::decode(&k, &v)?)))
    .transpose()
}

/// A version of a block.
pub struct Version {
    pub pos: Pos,
    key: UserKey,
    value: UserValue,
}

impl Version {
    /// Its page, checked.
    fn page(&self, rel: RelTag, block: u32) -> Result<&[u8]> {
        keys::unseal_page(&self.key, rel, block, &self.value)
    }

    /// The same, in the memory in which the engine has it.
    fn into_page(self, rel: RelTag, block: u32) -> Result<Bytes> {
        let begin = self.value.len() - self.page(rel, block)?.len();
        Ok(Bytes::from_owner(self.value).slice(begin..))
    }
}

/// The version of a block that a read up to `lsn` under `meta` sees.
pub fn version_at(
    e: &Engine,
    snap: &Snapshot,
    rel: RelTag,
    block: u32,
    meta: &Meta,
    lsn: Lsn,
) -> Result<Option<Version>> {
    let life = meta.life(block);
    let about = |mut err: ServiceError| {
        err.block.get_or_insert(block);
        err
    };
    // Nothing alive is older than the start of the life.
    let from = keys::page_key(rel, block, Pos { lsn, seq: u64::MAX });
    let to = keys::page_key(rel, block, Pos { lsn: life.lsn.min(lsn), seq: 0 });
    let mut versions = snap.range(&e.pages, from..=to);
    loop {
        let Some(guard) = guarded("reading a page", || Ok(versions.next())).map_err(about)? else { return Ok(None) };
        let found = guarded("reading a page", || {
            guard.into_inner_if(|k| keys::parse_page_key(k).is_ok_and(|(_, p)| p.seq > life.seq))
        });
        let (key, value) = found.map_err(about)?;
        let (_, pos) = keys::parse_page_key(&key)?;
        if let Some(value) = value {
            return Ok(Some(Version { pos, key, value }));
        }
    }
}

impl Store {
    /// The LSN to read at, and the one to answer. Taken before the snapshot, so that the answer never claims too much.
    fn as_of(&self, lsns: ReadLsn) -> Result<(Lsn, Lsn)> {
        let horizon = self.inner.horizon.load(Ordering::Acquire);
        match lsns.request_lsn {
            None => Ok((Lsn::MAX, self.last_lsn())),
            Some(lsn) if lsn >= horizon => Ok((lsn, lsn)),
            Some(lsn) => {
                let what = format!("LSN {lsn:#x} is below the horizon {horizon:#x}: its versions may be gone");
                Err(ServiceError::new(libc::ERANGE, what))
            }
        }
    }

    /// Fills `out` with `count` blocks from `block` on; answers the LSN as of which they are.
    pub fn read_pages(&self, rel: RelTag, block: u32, count: u32, lsns: ReadLsn, out: &mut [u8]) -> Result<Lsn> {
        check_read(rel, block, count, out)?;
        let (at, answer) = self.as_of(lsns)?;
        let e = self.inner.reader()?;
        let snap = e.db.snapshot();
        let meta = match meta_at(&e, &snap, rel, at)? {
            Some((_, m)) if m.exists => m,
            _ => return Err(ServiceError::missing_relation(rel)),
        };
        if block + count > meta.nblocks {
            return Err(ServiceError::past_end(rel, block.max(meta.nblocks), meta.nblocks));
        }
        for (page, b) in out.chunks_exact_mut(PAGE_SIZE).zip(block..) {
            match version_at(&e, &snap, rel, b, &meta, at)? {
                Some(version) => page.copy_from_slice(version.page(rel, b)?),
                None => page.fill(0),
            }
        }
        Ok(answer)
    }

    /// Reads blocks, in the order given, as of one LSN; past the end lie pages of zeros. None is copied.
    pub fn read_blocks(&self, rel: RelTag, blocks: &[u32], lsns: ReadLsn) -> Result<Vec<Bytes>> {
        let (at, _) = self.as_of(lsns)?;
        let e = self.inner.reader()?;
        let snap = e.db.snapshot();
        let meta = match meta_at(&e, &snap, rel, at)? {
            Some((_, m)) if m.exists => m,
            _ => return Err(ServiceError::missing_relation(rel)),
        };
        let read = |b: &u32| {
            let version = if *b < meta.nblocks { version_at(&e, &snap, rel, *b, &meta, at)? } else { None };
            version.map_or(Ok(Bytes::from_static(&[0; PAGE_SIZE])), |v| v.into_page(rel, *b))
        };
        blocks.iter().map(read).collect()
    }

    /// Reads blocks into the engine's cache.
    pub(super) fn warm(&self, rel: RelTag, block: u32, count: u32) -> Result<()> {
        let mut page = [0; PAGE_SIZE];
        for b in block..block.saturating_add(count.min(1024)) {
            match self.read_pages(rel, b, 1, ReadLsn::LATEST, &mut page) {
                Err(e) if e.errno == libc::ENOENT || e.errno == libc::ENXIO => break,
                r => r?,
            };
        }
        Ok(())
    }

    /// Blocks of a fork; `None` if it does not exist.
    pub fn size_of(&self, rel: RelTag, lsns: ReadLsn) -> Result<Option<u32>> {
        let (at, _) = self.as_of(lsns)?;
        let e = self.inner.reader()?;
        Ok(meta_at(&e, &e.db.snapshot(), rel, at)?.and_then(|(_, m)| m.exists.then_some(m.nblocks)))
    }

    /// Every fork that exists, with its blocks.
    pub fn list_relations(&self, lsns: ReadLsn) -> Result<Vec<(RelTag, u32)>> {
        let (at, _) = self.as_of(lsns)?;
        let e = self.inner.reader()?;
        let snap = e.db.snapshot();
        let mut found = Vec::new();
        for rel in relations(&e, &snap)? {
            if let Some((_, m)) = meta_at(&e, &snap, rel, at)?.filter(|(_, m)| m.exists) {
                found.push((rel, m.nblocks));
            }
        }
        Ok(found)
    }

    /// Bytes of a database: all blocks of all its forks.
    pub fn size_of_db(&self, db_oid: u32, lsns: ReadLsn) -> Result<u64> {
        let of_db = |(rel, n): (RelTag, u32)| if rel.db_oid == db_oid { u64::from(n) * PAGE_SIZE as u64 } else { 0 };
        Ok(self.list_relations(lsns)?.into_iter().map(of_db).sum())
    }

    /// An SLRU segment.
    pub fn slru(&self, kind: u32, segno: u32) -> Result<Vec<u8>> {
        let e = self.inner.reader()?;
        let key = keys::slru_key(kind, segno);
        let Some(v) = guarded("reading an SLRU segment", || e.slru.get(key))? else {
            return Err(ServiceError::new(libc::ENOENT, format!("SLRU segment {kind}/{segno:04X} does not exist")));
        };
        keys::unseal(&key, &v).map(<[u8]>::to_vec).ok_or_else(|| {
            ServiceError::corrupt(format!("SLRU segment {kind}/{segno:04X} does not match its checksum"))
        })
    }
}

/// Every fork that has metadata, in order: skips from each to the next.
pub fn relations(e: &Engine, snap: &Snapshot) -> Result<Vec<RelTag>> {
    let mut found = Vec::new();
    let mut from = vec![0; keys::META_KEY_LEN];
    loop {
        let next =
            guarded("listing relations", || snap.range(&e.metas, from.clone()..).next().map(|g| g.key()).transpose())?;
        let Some(key) = next else { return Ok(found) };
        let rel = keys::rel_of(&key)?;
        found.push(rel);
        // The last key of the fork has position 0; one byte more is past it.
        from = keys::meta_key(rel, Pos::default()).to_vec();
        from.push(0);
    }
}
