//! Drops what no read at or above a horizon can see.
//!
//! Metadata: everything before the newest version up to the horizon, the *base*; that one as well if it is an unlink and
//! the newest of all. Pages: versions that are dead under the base, and those with an effective LSN up to the horizon
//! behind a newer living one. Then the cuts of the base are forgotten, for nothing they cut is left. What is dropped
//! is invisible, so gc may stop anywhere and run beside reads and writes.

use std::sync::atomic::Ordering;

use fjall::{Readable, Snapshot};
use shmuring::request::{Lsn, RelTag};

use super::engine::{guarded, Engine, Failure};
use super::keys::{self, Meta, Pos};
use super::read::relations;
use super::{lock, pair, state, Store};
use crate::service::Result;

/// Removals in one batch.
const BATCH: usize = 1024;
/// Removed page versions (8 MiB) from which on it is worth while to give their space back.
const RECLAIM_FROM: u64 = 1024;

/// What a gc dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GcStats {
    /// Page versions.
    pub pages: u64,
    /// Metadata versions.
    pub metas: u64,
}

/// All metadata versions of a fork, newest first.
fn metas_of(e: &Engine, snap: &Snapshot, rel: RelTag) -> Result<Vec<(Pos, Meta)>> {
    let mut found = Vec::new();
    let mut range = snap.prefix(&e.metas, keys::rel_key(rel));
    while let Some((k, v)) = guarded("gc", || range.next().map(|g| g.into_inner()).transpose())? {
        found.push((keys::parse_meta_key(&k)?, Meta::decode(&k, &v)?));
    }
    Ok(found)
}

impl Store {
    /// Drops versions that no read at `horizon` or above sees. Reads below it are refused from now on, for ever.
    ///
    /// # Errors
    /// Those of the engine; what was dropped until then stays dropped.
    pub fn gc(&self, horizon: Lsn) -> Result<GcStats> {
        let inner = &self.inner;
        {
            let mut w = lock(&inner.writer);
            if horizon > inner.horizon.load(Ordering::Acquire) {
                inner.commit(&mut w, &mut |e| {
                    let mut b = e.db.batch();
                    b.insert(&e.state, state::HORIZON, pair(state::HORIZON, horizon, 0));
                    Ok((b, 64))
                })?;
                // Release: a read that sees a version gone sees the horizon.
                inner.horizon.store(horizon, Ordering::Release);
            }
        }
        let mut stats = GcStats::default();
        let rels = {
            let e = inner.engine()?;
            let snap = e.db.snapshot();
            relations(&e, &snap)?
        };
        for rel in rels {
            self.gc_relation(rel, horizon, &mut stats)?;
        }
        if stats.pages >= RECLAIM_FROM {
            let e = {
                // Sealing is a write: the writer's to do.
                let _w = lock(&inner.writer);
                let e = inner.engine()?;
                e.rotate().map_err(Failure::into_error)?;
                e
            };
            e.reclaim()?;
        }
        Ok(stats)
    }

    fn gc_relation(&self, rel: RelTag, horizon: Lsn, stats: &mut GcStats) -> Result<()> {
        // One base for all of it: a write may come between that would make another, whose dead were not looked for.
        let (base_pos, base) = {
            let e = self.inner.engine()?;
            let snap = e.db.snapshot();
            match metas_of(&e, &snap, rel)?.into_iter().find(|(p, _)| p.lsn <= horizon) {
                Some(base) => base,
                None => return Ok(()),
            }
        };
        let mut block = Some(0);
        while let Some(from) = block {
            // The engine is let go between batches, so that it can be opened anew meanwhile.
            let e = self.inner.engine()?;
            let snap = e.db.snapshot();
            let (dead, next) = dead_pages(&e, &snap, rel, &base, horizon, from)?;
            drop((snap, e));
            block = next;
            if !dead.is_empty() {
                self.inner.commit(&mut lock(&self.inner.writer), &mut |e| {
                    let mut b = e.db.batch();
                    dead.iter().for_each(|k| b.remove(&e.pages, k.as_slice()));
                    Ok((b, dead.len() as u64 * 64))
                })?;
                stats.pages += dead.len() as u64;
            }
        }
        self.gc_metas(rel, base_pos, stats)
    }

    /// Drops metadata before the base, and the cuts of the base from it and from what follows.
    fn gc_metas(&self, rel: RelTag, base: Pos, stats: &mut GcStats) -> Result<()> {
        let mut dropped = 0;
        self.inner.commit(&mut lock(&self.inner.writer), &mut |e| {
            let all = metas_of(e, &e.db.snapshot(), rel)?;
            let mut b = e.db.batch();
            dropped = 0;
            for (i, (pos, meta)) in all.iter().enumerate() {
                let key = keys::meta_key(rel, *pos);
                let gone = i == 0 && *pos == base && !meta.exists;
                if gone || pos.seq < base.seq {
                    b.remove(&e.metas, key);
                    dropped += 1;
                } else if meta.cuts.iter().any(|c| c.pos.seq <= base.seq) {
                    let mut kept = meta.clone();
                    kept.cuts.retain(|c| c.pos.seq > base.seq);
                    b.insert(&e.metas, key, kept.encode(&key));
                }
            }
            Ok((b, all.len() as u64 * 64))
        })?;
        stats.metas += dropped;
        Ok(())
    }
}

/// Keys of page versions from block `from` on that may go, at most about a batch of them, and the block to go on from.
fn dead_pages(
    e: &Engine,
    snap: &Snapshot,
    rel: RelTag,
    base: &Meta,
    horizon: Lsn,
    from: u32,
) -> Result<(Vec<Vec<u8>>, Option<u32>)> {
    let to = keys::page_key(rel, u32::MAX, Pos::default()).to_vec();
    let from = keys::page_key(rel, from, Pos { lsn: Lsn::MAX, seq: u64::MAX }).to_vec();
    let mut range = snap.range(&e.pages, from..=to);
    let mut dead = Vec::new();
    // The block at hand, and whether its version for the horizon was met.
    let mut at: Option<(u32, bool)> = None;
    while let Some(key) = guarded("gc", || range.next().map(|g| g.key()).transpose())? {
        let (block, pos) = keys::parse_page_key(&key)?;
        if at.is_none_or(|(b, _)| b != block) {
            if dead.len() >= BATCH {
                return Ok((dead, Some(block)));
            }
            at = Some((block, false));
        }
        let covered = at.is_some_and(|(_, met)| met);
        if pos.seq <= base.life(block).seq || covered {
            dead.push(key.to_vec());
        } else if pos.lsn <= horizon {
            at = Some((block, true));
        }
    }
    Ok((dead, None))
}
