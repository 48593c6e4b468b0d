//! What the caches have of a read, before it is scheduled; and what the comparison with a local copy says of it.

use super::finish::{Bytes, End, Failure, Finished};
use super::requests::parts;
use super::{InFlight, OwnedClaim};
use crate::cache::{Cache, Found, Place, Tier};
use crate::compare::{Answered, Compare, Mode};
use crate::service::Page;
use shmuring::layout::RoleStats;
use shmuring::request::{Lsn, Opcode};
use shmuring::stats::RoleCounter;

/// A claim, and what of it was found.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) claim: OwnedClaim,
    /// Pages, each with its place in the request.
    pub(super) found: Vec<(u8, Page)>,
    /// The oldest of the LSNs that they are valid to; `Lsn::MAX` without any.
    pub(super) lsn: Lsn,
    /// Blocks that are still wanted, bit i for block i.
    pub(super) wanted: u32,
    /// Pages that lie in the cache file.
    in_file: Vec<(u8, Place)>,
    /// Of the found pages, those of the prefetch buffer.
    prefetched: u32,
    /// Found pages that are to be compared, with the LSN each is valid to.
    compare: Vec<(u8, Lsn, &'static str)>,
}

/// How often pages were found, and not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hits {
    cache: u64,
    prefetched: u64,
    misses: u64,
}

impl Hits {
    pub(super) fn tell(self, stats: &RoleStats) {
        let counters = [
            (RoleCounter::CacheHits, self.cache),
            (RoleCounter::PrefetchHits, self.prefetched),
            (RoleCounter::CacheMisses, self.misses),
        ];
        for (counter, n) in counters.into_iter().filter(|(_, n)| *n > 0) {
            stats.add(counter, n);
        }
    }
}

impl Looked {
    /// A claim of which nothing was looked for.
    pub(super) fn not(claim: OwnedClaim) -> Self {
        Self {
            claim,
            found: Vec::new(),
            lsn: Lsn::MAX,
            wanted: u32::MAX,
            in_file: Vec::new(),
            prefetched: 0,
            compare: Vec::new(),
        }
    }

    /// Looks for the pages of a read of the latest.
    pub(super) fn new(claim: OwnedClaim, cache: &Cache, mode: Mode, hits: &mut Hits) -> Self {
        let mut looked = Self::not(claim);
        let job = looked.claim.job();
        let (rel, first, opcode) = (job.rel, job.block, job.opcode);
        if job.request_lsn.is_some() || mode == Mode::All {
            return looked;
        }
        for i in 0..parts(job).min(32) {
            let Some(block) = first.checked_add(i.into()) else { break };
            let n = looked.claim.job().block_lsn(i.into());
            match opcode {
                Opcode::GetPage => match cache.find(rel, block, n) {
                    Some(found) => looked.add(i, found, mode, hits),
                    None => match cache.place(rel, block, n) {
                        Some(place) => looked.in_file.push((i, place)),
                        None => hits.misses += 1,
                    },
                },
                Opcode::Prefetch if cache.has(rel, block, n) => looked.wanted &= !(1 << i),
                _ => break,
            }
        }
        looked
    }

    fn add(&mut self, i: u8, found: Found, mode: Mode, hits: &mut Hits) {
        let from = match found.tier {
            Tier::Cache => {
                hits.cache += 1;
                (mode == Mode::Lfc).then_some("page cache")
            }
            Tier::Prefetched => {
                hits.prefetched += 1;
                self.prefetched += 1;
                (mode >= Mode::Prefetch).then_some("prefetch buffer")
            }
        };
        if let Some(from) = from {
            self.compare.push((i, found.valid_to, from));
        }
        self.lsn = self.lsn.min(found.valid_to);
        self.wanted &= !(1 << i);
        self.found.push((i, found.page));
    }

    /// The parts that are to be asked for, bit i for part i.
    pub(super) fn wanted_parts(&self) -> u32 {
        let all = u32::MAX.checked_shr(32 - u32::from(parts(self.claim.job()).min(32))).unwrap_or(0);
        self.wanted & all
    }

    /// Whether there is nothing left to ask for.
    pub(super) fn is_found(&self) -> bool {
        self.wanted != u32::MAX && self.wanted_parts() == 0
    }

    /// Whether files must be read before it can go on.
    pub(super) fn needs_files(&self) -> bool {
        !self.compare.is_empty() || !self.in_file.is_empty()
    }

    /// Reads what lies in the cache file. What has gone from it is asked for.
    pub(super) fn fetch(&mut self, cache: &Cache, mode: Mode, hits: &mut Hits) {
        let (rel, first) = (self.claim.job().rel, self.claim.job().block);
        for (i, place) in core::mem::take(&mut self.in_file) {
            match cache.fetch(rel, first.saturating_add(i.into()), place) {
                Some(found) => self.add(i, found, mode, hits),
                None => hits.misses += 1,
            }
        }
    }

    /// Compares what was found with the local copy. Does file I/O. A difference may be an error to the reader.
    pub(super) fn compared(
        mut self,
        compare: &Compare,
        stats: &RoleStats,
        in_flight: &InFlight,
    ) -> core::result::Result<Self, Box<Finished>> {
        let (rel, first) = (self.claim.job().rel, self.claim.job().block);
        for (i, as_of, from) in core::mem::take(&mut self.compare) {
            let Some((_, page)) = self.found.iter().find(|(at, _)| *at == i) else { continue };
            let block = first.saturating_add(i.into());
            if let Err(e) = compare.check(&Answered { rel, block, page: page.bytes(), as_of, from }, stats) {
                let failure = Failure { part: i, ..Failure::unsent(e) };
                let ticket = in_flight.enter();
                return Err(Box::new(Finished { claim: self.claim, end: End::Failed(failure), ticket }));
            }
        }
        Ok(self)
    }

    /// All of it was found: the page service was not asked, and the value tells where the pages lay.
    pub(super) fn done(self, in_flight: &InFlight) -> Finished {
        let value = self.found.len() as u64 | u64::from(self.prefetched) << 32;
        let lsn = if self.lsn == Lsn::MAX { 0 } else { self.lsn };
        let bytes = if self.found.is_empty() { Bytes::None } else { Bytes::Pages(self.found) };
        Finished { claim: self.claim, end: End::Done { value, lsn, attempts: 0, bytes }, ticket: in_flight.enter() }
    }
}
