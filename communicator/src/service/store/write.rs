//! Groups of mutations: worked out in order over what is committed, then committed as one batch.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use fjall::Snapshot;
use shmuring::request::{Lsn, RelTag};

use super::engine::Engine;
use super::keys::{self, Meta, Pos};
use super::read::{meta_at, version_at};
use super::{lock, pair, stale, state, Store};
use crate::service::{Mutation, MutationRequest, Result, ServiceError, PAGE_SIZE};

/// Bytes of the largest SLRU segment: 32 pages.
const SLRU_MAX: usize = 32 * PAGE_SIZE;
/// No server writes so much WAL: at 10 GB a second it takes 29 years.
const LAST_LSN: Lsn = Lsn::MAX >> 1;

impl Store {
    /// Applies a group in order and commits it together; see [`crate::service::PageService::apply`].
    pub fn apply_group(&self, life: u32, epoch: u32, group: &[MutationRequest]) -> Vec<Result<u64>> {
        let inner = &self.inner;
        let mut w = lock(&inner.writer);
        let all = |e: ServiceError| vec![Err(e); group.len()];
        if (life, epoch) < w.fence {
            return all(stale((life, epoch), w.fence));
        }
        if (life, epoch) > w.fence {
            let what = format!("life {life} epoch {epoch} has not fenced its predecessors yet");
            return all(ServiceError::invalid(what));
        }
        let (seq, last_lsn) = (w.seq, w.last_lsn);
        let whole_before = inner.whole_from.load(Ordering::Acquire);
        let mut results = Vec::new();
        let mut head = (seq, last_lsn, whole_before);
        let committed = inner.commit(&mut w, &mut |e| {
            let mut g = Group::new(e, seq, last_lsn);
            results = group.iter().map(|r| g.one(r)).collect();
            head = (g.seq, g.last_lsn, g.whole_from);
            Ok(g.finish(whole_before))
        });
        match committed {
            Ok(()) => {
                // What failed to commit may have used numbers too; they never go back.
                w.seq = w.seq.max(head.0);
                w.last_lsn = w.last_lsn.max(head.1);
                inner.last_lsn.store(w.last_lsn, Ordering::Release);
                inner.whole_from.fetch_max(head.2, Ordering::AcqRel);
                results
            }
            Err(e) => {
                w.seq = w.seq.max(head.0);
                results.into_iter().map(|r| r.and(Err(e.clone()))).collect()
            }
        }
    }

    /// Stores an SLRU segment, in place of the one before: for imports.
    pub fn put_slru(&self, kind: u32, segno: u32, bytes: &[u8]) -> Result<()> {
        if bytes.len() > SLRU_MAX {
            return Err(ServiceError::invalid(format!("an SLRU segment of {} bytes", bytes.len())));
        }
        let key = keys::slru_key(kind, segno);
        let mut w = lock(&self.inner.writer);
        self.inner.commit(&mut w, &mut |e| {
            let mut b = e.db.batch();
            b.insert(&e.slru, key, keys::seal(&key, bytes));
            Ok((b, bytes.len() as u64))
        })
    }
}

/// A group being worked out.
struct Group<'a> {
    e: &'a Engine,
    snap: Snapshot,
    batch: fjall::OwnedWriteBatch,
    bytes: u64,
    seq: u64,
    last_lsn: Lsn,
    /// Highest effective LSN of a mutation that has a lower one of its own.
    whole_from: Lsn,
    /// Metadata that the group looked at or changed.
    metas: HashMap<RelTag, Option<(Pos, Meta)>>,
    /// Newest version of each block that the group wrote.
    newest: HashMap<(RelTag, u32), Pos>,
    changed: bool,
}

impl<'a> Group<'a> {
    fn new(e: &'a Engine, seq: u64, last_lsn: Lsn) -> Self {
        let (snap, batch) = (e.db.snapshot(), e.db.batch());
        let (metas, newest) = (HashMap::new(), HashMap::new());
        Self { e, snap, batch, bytes: 0, seq, last_lsn, whole_from: 0, metas, newest, changed: false }
    }

    /// The batch, with the new head, and about its bytes.
    fn finish(mut self, whole_before: Lsn) -> (fjall::OwnedWriteBatch, u64) {
        if self.changed {
            self.batch.insert(&self.e.state, state::HEAD, pair(state::HEAD, self.seq, self.last_lsn));
        }
        if self.whole_from > whole_before {
            self.batch.insert(&self.e.state, state::WHOLE, pair(state::WHOLE, self.whole_from, 0));
        }
        (self.batch, self.bytes + 128)
    }

    /// A mutation with this LSN of its own is seen from another one on, which may be higher.
    fn takes_effect(&mut self, own: Lsn, seen_from: Lsn) {
        self.last_lsn = self.last_lsn.max(seen_from);
        if seen_from > own {
            self.whole_from = self.whole_from.max(seen_from);
        }
    }

    /// Works out one mutation; an error leaves the group as it was.
    fn one(&mut self, r: &MutationRequest) -> Result<u64> {
        self.check_lsn(r.mutation.lsn())?;
        match &r.mutation {
            Mutation::WritePage { rel, block, lsn, pages } => self.write(*rel, *block, *lsn, pages),
            Mutation::Extend { rel, block, lsn, page } => self.extend(*rel, *block, *lsn, page),
            Mutation::ZeroExtend { rel, block, count, lsn } => self.grow(*rel, *block, *count, *lsn),
            Mutation::Create { rel, lsn } => self.create(*rel, *lsn, r.first_attempt),
            Mutation::Truncate { rel, blocks, lsn } => {
                let m = self.existing(*rel)?;
                // Nothing to cut; so a re-run finds nothing either.
                if *blocks < m.nblocks {
                    self.resize(*rel, *blocks, *lsn)?;
                }
                Ok(u64::from(m.nblocks.min(*blocks)))
            }
            Mutation::Unlink { rel, lsn } => self.unlink(*rel, *lsn, r.first_attempt),
            Mutation::UpdateRelSize { rel, blocks, lsn } => self.resize(*rel, *blocks, *lsn),
        }
    }

    /// Refuses what cannot be a position in WAL, as `Lsn::MAX` for "latest" is none: reads would see that version for
    /// ever, and every older one would fall behind the horizon.
    fn check_lsn(&self, lsn: Lsn) -> Result<()> {
        if lsn > LAST_LSN {
            return Err(ServiceError::invalid(format!("LSN {:X}/{:X} is past any WAL", lsn >> 32, lsn as u32)));
        }
        Ok(())
    }

    fn meta(&mut self, rel: RelTag) -> Result<Option<(Pos, Meta)>> {
        if let Some(m) = self.metas.get(&rel) {
            return Ok(m.clone());
        }
        let m = meta_at(self.e, &self.snap, rel, Lsn::MAX)?;
        self.metas.insert(rel, m.clone());
        Ok(m)
    }

    fn existing(&mut self, rel: RelTag) -> Result<Meta> {
        let meta = self.meta(rel)?;
        meta.map(|(_, m)| m).filter(|m| m.exists).ok_or_else(|| ServiceError::missing_relation(rel))
    }

    /// Effective LSN of the newest metadata, which was looked at.
    fn newest_meta(&self, rel: RelTag) -> Lsn {
        self.metas.get(&rel).and_then(Option::as_ref).map_or(0, |(p, _)| p.lsn)
    }

    /// The position of a change of metadata: never before the one before.
    fn next_meta_pos(&mut self, rel: RelTag, lsn: Lsn) -> Result<Pos> {
        let newest = self.meta(rel)?.map_or(0, |(p, _)| p.lsn);
        self.seq += 1;
        let pos = Pos { lsn: lsn.max(newest), seq: self.seq };
        self.takes_effect(lsn, pos.lsn);
        Ok(pos)
    }

    fn put_meta(&mut self, rel: RelTag, pos: Pos, meta: Meta) {
        let key = keys::meta_key(rel, pos);
        let value = meta.encode(&key);
        self.bytes += (key.len() + value.len()) as u64;
        self.batch.insert(&self.e.metas, key, value);
        self.metas.insert(rel, Some((pos, meta)));
        self.changed = true;
    }

    /// The effective LSN of a new version of a block, and from which LSN on reads see it.
    fn page_lsn(&self, rel: RelTag, block: u32, meta: &Meta, own: Lsn) -> Result<(Lsn, Lsn)> {
        let life = meta.life(block);
        let effective = if own > 0 {
            own.max(life.lsn)
        } else {
            let here = self.newest.get(&(rel, block)).filter(|p| p.seq > life.seq).copied();
            let stored = version_at(self.e, &self.snap, rel, block, meta, Lsn::MAX)?.map(|v| v.pos);
            here.max(stored).map_or(life.lsn, |p| p.lsn)
        };
        // The image may be older than the change that made room for it.
        let newest = self.newest_meta(rel);
        if newest <= effective {
            return Ok((effective, effective));
        }
        let then = meta_at(self.e, &self.snap, rel, effective)?.map(|(_, m)| m);
        let had_room = then.is_some_and(|m| m.exists && block < m.nblocks && m.life(block) == life);
        Ok((effective, if had_room { effective } else { newest }))
    }

    /// Stores a version at an effective LSN.
    fn put_page(&mut self, rel: RelTag, block: u32, meta: &Meta, lsn: Lsn, page: &[u8]) {
        self.seq += 1;
        let pos = Pos { lsn, seq: self.seq };
        self.last_lsn = self.last_lsn.max(lsn);
        let key = keys::page_key(rel, block, pos);
        self.batch.insert(&self.e.pages, key, keys::seal(&key, page));
        self.bytes += (key.len() + 4 + page.len()) as u64;
        let life = meta.life(block);
        let newest = self.newest.entry((rel, block)).or_default();
        if newest.seq <= life.seq || pos > *newest {
            *newest = pos;
        }
        self.changed = true;
    }

    fn write(&mut self, rel: RelTag, block: u32, lsn: Lsn, pages: &[u8]) -> Result<u64> {
        let count = pages.len() / PAGE_SIZE;
        if count == 0 || !pages.len().is_multiple_of(PAGE_SIZE) {
            return Err(ServiceError::invalid(format!("a write of {} bytes", pages.len())));
        }
        let meta = self.existing(rel)?;
        let end = u32::try_from(count).ok().and_then(|n| block.checked_add(n));
        if end.is_none_or(|end| end > meta.nblocks) {
            return Err(ServiceError::past_end(rel, block.max(meta.nblocks), meta.nblocks));
        }
        // All that may fail comes first.
        let blocks = block..block + count as u32;
        let lsns: Vec<_> = blocks.clone().map(|b| self.page_lsn(rel, b, &meta, lsn)).collect::<Result<_>>()?;
        for ((b, page), (effective, seen_from)) in blocks.zip(pages.chunks_exact(PAGE_SIZE)).zip(lsns) {
            self.put_page(rel, b, &meta, effective, page);
            self.takes_effect(lsn, seen_from);
        }
        Ok(count as u64)
    }

    fn extend(&mut self, rel: RelTag, block: u32, lsn: Lsn, page: &[u8]) -> Result<u64> {
        if page.len() != PAGE_SIZE {
            return Err(ServiceError::invalid(format!("an extend by {} bytes", page.len())));
        }
        let meta = self.existing(rel)?;
        let (effective, mut seen_from) = self.page_lsn(rel, block, &meta, lsn)?;
        let n = self.grow(rel, block, 1, lsn)?;
        if block >= meta.nblocks {
            seen_from = effective.max(self.newest_meta(rel));
        }
        self.put_page(rel, block, &meta, effective, page);
        self.takes_effect(lsn, seen_from);
        Ok(n)
    }

    /// Grows the fork to `block + count` blocks, unless it has them.
    fn grow(&mut self, rel: RelTag, block: u32, count: u32, lsn: Lsn) -> Result<u64> {
        let mut meta = self.existing(rel)?;
        let Some(end) = block.checked_add(count) else {
            return Err(ServiceError::new(libc::EFBIG, format!("{block}+{count} blocks")).at_block(block));
        };
        if end > meta.nblocks {
            let pos = self.next_meta_pos(rel, lsn)?;
            meta.nblocks = end;
            self.put_meta(rel, pos, meta);
            return Ok(end.into());
        }
        Ok(meta.nblocks.into())
    }

    /// Sets the number of blocks; fewer than before is a cut.
    fn resize(&mut self, rel: RelTag, blocks: u32, lsn: Lsn) -> Result<u64> {
        let mut meta = self.existing(rel)?;
        if blocks != meta.nblocks {
            let pos = self.next_meta_pos(rel, lsn)?;
            if blocks < meta.nblocks {
                meta.cut(blocks, pos);
            }
            meta.nblocks = blocks;
            self.put_meta(rel, pos, meta);
        }
        Ok(blocks.into())
    }

    fn create(&mut self, rel: RelTag, lsn: Lsn, first: bool) -> Result<u64> {
        if self.meta(rel)?.is_some_and(|(_, m)| m.exists) {
            return if first { Err(ServiceError::exists(rel)) } else { Ok(0) };
        }
        let pos = self.next_meta_pos(rel, lsn)?;
        self.put_meta(rel, pos, Meta { exists: true, nblocks: 0, born: pos, cuts: Vec::new() });
        Ok(0)
    }

    fn unlink(&mut self, rel: RelTag, lsn: Lsn, first: bool) -> Result<u64> {
        if !self.meta(rel)?.is_some_and(|(_, m)| m.exists) {
            return if first { Err(ServiceError::missing_relation(rel)) } else { Ok(0) };
        }
        let pos = self.next_meta_pos(rel, lsn)?;
        // Whatever was written is dead from here on: a later create is born after it.
        self.put_meta(rel, pos, Meta { exists: false, nblocks: 0, born: pos, cuts: Vec::new() });
        Ok(0)
    }
}
