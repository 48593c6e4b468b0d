//! Pages in the communicator's memory: the page cache, and the prefetch buffer that all backends share.
//!
//! | file | role |
//! |---|---|
//! | `counts` | how often each key was changed: what makes an insert late |
//! | `file` | the second tier: a local file, for what memory evicts |
//! | `sizes` | how much memory it takes |
//!
//! # Which answer is good
//! Each page carries the LSN up to which it is known to be valid (I13): of a read its not_modified_since, of a write the
//! LSN of the image. It may answer a read whose not_modified_since is not above that.
//!
//! # Mutations (R13)
//! Before a mutation is sent its blocks are removed, or for a change of the whole relation all its pages made void. An
//! insert carries the counts from when its read was sent, and is dropped if they moved. So a page that is found is from
//! no time before the last completed mutation of its key.
//!
//! Finding a page in memory takes a sharded lock and a copy of a pointer. Only [`Cache::fetch`] does I/O, into memory of
//! its own: nothing of it happens in Copying (I2).

mod counts;
mod file;
mod sizes;

use crate::service::{Mutation, Page, PAGE_SIZE};
use counts::Counts;
use file::CacheFile;
use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter};
use shmuring::request::{Lsn, RelTag};
use std::path::Path;
use std::sync::Arc;

pub use counts::Sent;
pub use file::Place;
pub use sizes::Sizes;

/// Most blocks of a zero_extend that are removed one by one: it is not to make the rest of a growing relation void.
const ONE_BY_ONE: u32 = 4096;

/// A block of a relation fork.
type Block = (RelTag, u32);

/// Where a page was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// In the page cache.
    Cache,
    /// In the prefetch buffer.
    Prefetched,
}

/// A page that answers a read.
#[derive(Clone, Debug)]
pub struct Found {
    /// The page.
    pub page: Page,
    /// The LSN up to which it is known to be valid.
    pub valid_to: Lsn,
    /// Where it was.
    pub tier: Tier,
}

#[derive(Clone, Debug)]
struct Entry {
    page: Page,
    valid_to: Lsn,
    /// The counts of its key when its read was sent.
    sent: Sent,
}

/// What memory evicts goes to the file.
#[derive(Clone, Debug)]
struct Spill(Option<CacheFile>);

impl Lifecycle<Block, Entry> for Spill {
    type RequestState = ();

    fn begin_request(&self) {}

    fn on_evict(&self, _state: &mut (), block: Block, entry: Entry) {
        if let Some(file) = &self.0 {
            file.offer(block, entry);
        }
    }
}

type Pages = quick_cache::sync::Cache<Block, Entry, UnitWeighter, DefaultHashBuilder, Spill>;

/// See the module.
#[derive(Debug)]
pub struct Cache {
    counts: Arc<Counts>,
    memory: Option<Pages>,
    file: Option<CacheFile>,
    prefetched: Option<Pages>,
}

/// A cache of pages; `None` for less than a page.
fn pages(bytes: u64, spill: Spill) -> Option<Pages> {
    let count = usize::try_from(bytes / PAGE_SIZE as u64).unwrap_or(usize::MAX).min(u32::MAX as usize);
    (count > 0).then(|| Pages::with(count, count as u64, UnitWeighter, DefaultHashBuilder::default(), spill))
}

impl Cache {
    /// An empty cache in memory.
    #[must_use]
    pub fn new(sizes: Sizes) -> Self {
        Self::over(sizes, Arc::new(Counts::new()), None)
    }

    /// An empty cache in memory, and in `bytes` of a file, which is made or emptied. Needs a page cache in memory.
    ///
    /// # Errors
    /// Those of opening the file; WouldBlock: another process uses it.
    pub fn with_file(sizes: Sizes, path: &Path, bytes: u64) -> std::io::Result<Self> {
        let counts = Arc::new(Counts::new());
        let file = CacheFile::open(path, bytes, counts.clone())?;
        Ok(Self::over(sizes, counts, Some(file)))
    }

    fn over(sizes: Sizes, counts: Arc<Counts>, file: Option<CacheFile>) -> Self {
        let (memory, prefetched) = (pages(sizes.memory, Spill(file.clone())), pages(sizes.prefetched, Spill(None)));
        Self { counts, memory, file, prefetched }
    }

    /// Whether it can hold anything.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.memory.is_some() || self.prefetched.is_some()
    }

    /// Whether prefetched pages are kept.
    #[must_use]
    pub fn keeps_prefetched(&self) -> bool {
        self.prefetched.is_some()
    }

    /// Whether pages that were read are kept.
    #[must_use]
    pub fn keeps_read(&self) -> bool {
        self.memory.is_some()
    }

    /// The page of a block for a read with this not_modified_since. A prefetched one moves to the page cache, or leaves.
    #[must_use]
    pub fn find(&self, rel: RelTag, block: u32, not_modified_since: Lsn) -> Option<Found> {
        let relation = self.counts.relation(rel);
        let good = |e: &Entry| e.sent.relation == relation && not_modified_since <= e.valid_to;
        if let Some(e) = self.memory.as_ref().and_then(|p| p.get(&(rel, block))).filter(good) {
            return Some(Found { page: e.page, valid_to: e.valid_to, tier: Tier::Cache });
        }
        let prefetched = self.prefetched.as_ref()?;
        prefetched.peek(&(rel, block)).filter(good)?;
        // Under the key's lock, so that no mutation comes between taking it out and putting it in.
        let _key = self.counts.lock(rel, block);
        let (_, e) = prefetched.remove_if(&(rel, block), |e| good(e))?;
        if let Some(memory) = &self.memory {
            memory.insert((rel, block), e.clone());
        }
        Some(Found { page: e.page, valid_to: e.valid_to, tier: Tier::Prefetched })
    }

    /// Whether [`Cache::find`] would find the page; changes nothing.
    #[must_use]
    pub fn has(&self, rel: RelTag, block: u32, not_modified_since: Lsn) -> bool {
        let relation = self.counts.relation(rel);
        let good = |e: Entry| e.sent.relation == relation && not_modified_since <= e.valid_to;
        let mut pages = [&self.memory, &self.prefetched].into_iter().flatten();
        pages.any(|p| p.peek(&(rel, block)).is_some_and(good)) || self.place(rel, block, not_modified_since).is_some()
    }

    /// Where the page of a block lies in the file, for a read with this not_modified_since.
    #[must_use]
    pub fn place(&self, rel: RelTag, block: u32, not_modified_since: Lsn) -> Option<Place> {
        let place = self.file.as_ref()?.find((rel, block))?;
        (place.sent.relation == self.counts.relation(rel) && not_modified_since <= place.valid_to).then_some(place)
    }

    /// Reads a page from the file, into memory too. `None`: it has gone meanwhile. Does file I/O.
    #[must_use]
    pub fn fetch(&self, rel: RelTag, block: u32, place: Place) -> Option<Found> {
        let page = self.file.as_ref()?.read((rel, block), place)?;
        self.insert((rel, block), &page, place.valid_to, place.sent, Tier::Cache);
        Some(Found { page, valid_to: place.valid_to, tier: Tier::Cache })
    }

    /// The counts of a block, to be taken before it is asked for.
    #[must_use]
    pub fn sent(&self, rel: RelTag, block: u32) -> Sent {
        self.counts.sent(rel, block)
    }

    /// Keeps a page that was read, unless its key was changed since `sent` or a newer answer is here. False: dropped.
    pub fn insert(&self, (rel, block): (RelTag, u32), page: &Page, valid_to: Lsn, sent: Sent, tier: Tier) -> bool {
        let pages = match tier {
            Tier::Cache => &self.memory,
            Tier::Prefetched => &self.prefetched,
        };
        let Some(pages) = pages else { return false };
        let entry = Entry { page: page.alone(), valid_to, sent };
        let key = self.counts.lock(rel, block);
        if *key != sent.block || self.counts.relation(rel) != sent.relation {
            return false;
        }
        let newer = |e: Entry| e.sent.relation == sent.relation && e.valid_to > valid_to;
        if pages.peek(&(rel, block)).is_some_and(newer) {
            return false;
        }
        pages.insert((rel, block), entry);
        true
    }

    /// Before a mutation is sent, and again when it is done and not yet told: nothing that was read before it answers after
    /// it. Gives the counts for [`Cache::written`].
    pub fn invalidate(&self, mutation: &Mutation) -> Vec<Sent> {
        let (rel, first, count) = match mutation {
            Mutation::WritePage { rel, block, pages, .. } => (*rel, *block, (pages.len() / PAGE_SIZE) as u32),
            Mutation::Extend { rel, block, .. } => (*rel, *block, 1),
            Mutation::ZeroExtend { rel, block, count, .. } if *count <= ONE_BY_ONE => (*rel, *block, *count),
            Mutation::ZeroExtend { rel, .. }
            | Mutation::Create { rel, .. }
            | Mutation::Truncate { rel, .. }
            | Mutation::Unlink { rel, .. }
            | Mutation::UpdateRelSize { rel, .. } => {
                self.counts.change_relation(*rel);
                return Vec::new();
            }
        };
        let change = |block| {
            let mut key = self.counts.lock(rel, block);
            *key = key.wrapping_add(1);
            for pages in [&self.memory, &self.prefetched].into_iter().flatten() {
                pages.remove(&(rel, block));
            }
            if let Some(file) = &self.file {
                file.remove((rel, block));
            }
            Sent { block: *key, relation: self.counts.relation(rel) }
        };
        (0..count).filter_map(|i| first.checked_add(i)).map(change).collect()
    }

    /// After a mutation succeeded: what it wrote can be read from here. `sent`: what the second [`Cache::invalidate`] gave. (The LSN
    /// of a block's pages does not go back within a server life: an image is the newest there is.)
    pub fn written(&self, mutation: &Mutation, sent: &[Sent]) {
        if self.memory.is_none() {
            return;
        }
        let (rel, first, lsn, pages) = match mutation {
            Mutation::WritePage { rel, block, lsn, pages } => (*rel, *block, *lsn, pages),
            Mutation::Extend { rel, block, lsn, page } => (*rel, *block, *lsn, page),
            _ => return,
        };
        for ((i, page), sent) in (0u32..).zip(pages.chunks_exact(PAGE_SIZE)).zip(sent) {
            let Some(block) = first.checked_add(i) else { return };
            self.insert((rel, block), &Page::one(page.to_vec()), lsn, *sent, Tier::Cache);
        }
    }

    /// Forgets everything: what comes of reads that are under way too.
    pub fn clear(&self) {
        self.counts.change_all();
        for pages in [&self.memory, &self.prefetched].into_iter().flatten() {
            pages.clear();
        }
        if let Some(file) = &self.file {
            file.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 9, fork: 0 };

    fn page(byte: u8) -> Page {
        Page::one(vec![byte; PAGE_SIZE])
    }

    fn cache() -> Cache {
        Cache::new(Sizes { memory: 1 << 20, prefetched: 1 << 20 })
    }

    fn first(found: Option<Found>) -> Option<(u8, Lsn, Tier)> {
        found.map(|f| (f.page.bytes()[0], f.valid_to, f.tier))
    }

    fn write(block: u32, lsn: Lsn, byte: u8) -> Mutation {
        Mutation::WritePage { rel: REL, block, lsn, pages: vec![byte; PAGE_SIZE] }
    }

    #[test]
    fn a_page_answers_up_to_the_lsn_it_is_valid_to_and_no_further() {
        let c = cache();
        assert!(c.insert((REL, 1), &page(7), 100, c.sent(REL, 1), Tier::Cache));
        for (n, hit) in [(0, true), (100, true), (101, false)] {
            assert_eq!(c.find(REL, 1, n).is_some(), hit, "{n}");
        }
        assert!(c.find(REL, 2, 0).is_none() && c.find(RelTag { fork: 1, ..REL }, 1, 0).is_none());
    }

    #[test]
    fn an_older_answer_does_not_take_the_place_of_a_newer_one() {
        let c = cache();
        let sent = c.sent(REL, 1);
        assert!(c.insert((REL, 1), &page(2), 200, sent, Tier::Cache));
        assert!(!c.insert((REL, 1), &page(1), 100, sent, Tier::Cache));
        assert_eq!(first(c.find(REL, 1, 150)), Some((2, 200, Tier::Cache)));
    }

    #[test]
    fn what_was_read_before_a_mutation_is_not_found_after_it() {
        let relation = |m: fn(RelTag) -> Mutation| m(REL);
        let whole = [
            relation(|rel| Mutation::Truncate { rel, blocks: 1, lsn: 5 }),
            relation(|rel| Mutation::Unlink { rel, lsn: 5 }),
            relation(|rel| Mutation::Create { rel, lsn: 5 }),
            relation(|rel| Mutation::UpdateRelSize { rel, blocks: 9, lsn: 5 }),
            relation(|rel| Mutation::ZeroExtend { rel, block: 0, count: 4, lsn: 5 }),
        ];
        let blocks = [write(1, 5, 9), Mutation::Extend { rel: REL, block: 1, lsn: 5, page: vec![9; PAGE_SIZE] }];
        for mutation in whole.into_iter().chain(blocks) {
            for tier in [Tier::Cache, Tier::Prefetched] {
                let c = cache();
                let early = c.sent(REL, 1);
                c.insert((REL, 1), &page(7), 100, early, tier);
                c.invalidate(&mutation);
                assert!(c.find(REL, 1, 0).is_none(), "{mutation:?}");
                assert!(!c.insert((REL, 1), &page(7), 100, early, tier), "{mutation:?}: its read was sent before");
                assert!(c.find(REL, 1, 0).is_none());
                assert!(c.insert((REL, 1), &page(8), 100, c.sent(REL, 1), tier), "sent after");
            }
        }
    }

    #[test]
    fn what_was_written_is_found_unless_another_write_came_between() {
        let c = cache();
        let (one, two) = (write(3, 50, 1), write(3, 60, 2));
        let (sent_one, sent_two) = (c.invalidate(&one), c.invalidate(&two));
        c.written(&one, &sent_one);
        assert!(c.find(REL, 3, 0).is_none());
        c.written(&two, &sent_two);
        assert_eq!(first(c.find(REL, 3, 60)), Some((2, 60, Tier::Cache)));
    }

    #[test]
    fn a_prefetched_page_answers_once_and_is_in_the_cache_then() {
        let c = cache();
        c.insert((REL, 1), &page(7), 100, c.sent(REL, 1), Tier::Prefetched);
        assert_eq!(first(c.find(REL, 1, 100)), Some((7, 100, Tier::Prefetched)));
        assert_eq!(first(c.find(REL, 1, 100)), Some((7, 100, Tier::Cache)));
        let alone = Cache::new(Sizes { memory: 0, prefetched: 1 << 20 });
        alone.insert((REL, 1), &page(7), 100, alone.sent(REL, 1), Tier::Prefetched);
        assert!(alone.find(REL, 1, 101).is_none(), "too old, and it stays");
        assert!(alone.find(REL, 1, 100).is_some() && alone.find(REL, 1, 100).is_none());
    }

    #[test]
    fn what_memory_evicts_is_found_in_the_file_and_no_mutation_is_missed_there() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes { memory: 32 * PAGE_SIZE as u64, prefetched: 0 };
        let c = Cache::with_file(sizes, &dir.path().join("cache"), 16 << 20).unwrap();
        for block in 0..500 {
            // Slowly enough for the writer.
            c.insert((REL, block), &page(block as u8), 100, c.sent(REL, block), Tier::Cache);
            if block % 64 == 63 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        }
        let in_file = |c: &Cache| (0..500).filter_map(|n| Some((n, c.place(REL, n, 100)?))).collect::<Vec<_>>();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while in_file(&c).len() < 300 && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        let places = in_file(&c);
        assert!(places.len() >= 300, "{} pages were written", places.len());
        assert!(c.place(REL, places[0].0, 101).is_none(), "too old");
        for (n, place) in places.iter().take(20) {
            let found = c.fetch(REL, *n, *place).unwrap();
            assert!(found.page.bytes().iter().all(|b| *b == *n as u8) && found.valid_to == 100);
        }
        let (written, place) = places[100];
        c.invalidate(&write(written, 200, 1));
        assert!(c.place(REL, written, 0).is_none() && !c.has(REL, written, 0));
        // A reader that had looked before finds the old page; it does not come back into memory.
        let _ = c.fetch(REL, written, place);
        assert!(c.find(REL, written, 0).is_none());
        c.invalidate(&Mutation::Truncate { rel: REL, blocks: 1, lsn: 5 });
        assert!((0..500).all(|n| !c.has(REL, n, 0)));
    }

    #[test]
    fn the_sizes_are_kept() {
        let c = Cache::new(Sizes { memory: 64 * PAGE_SIZE as u64, prefetched: 16 * PAGE_SIZE as u64 });
        for tier in [Tier::Cache, Tier::Prefetched] {
            for block in 0..10_000 {
                c.insert((REL, block), &page(1), 1, c.sent(REL, block), tier);
            }
        }
        assert!(c.memory.as_ref().unwrap().len() <= 64 && c.prefetched.as_ref().unwrap().len() <= 16);
        assert!(!Cache::new(Sizes::default()).is_there());
        c.clear();
        assert!((0..10_000).all(|block| c.find(REL, block, 0).is_none()));
    }

    #[test]
    fn readers_and_writers_at_once_never_find_a_page_from_before_the_last_write() {
        use std::sync::atomic::{AtomicU64, Ordering};
        let c = cache();
        // What a page service has, and the last version whose write was acknowledged.
        let (stored, acknowledged) = (AtomicU64::new(0), AtomicU64::new(0));
        let image = |v: u64| {
            let mut bytes = vec![0; PAGE_SIZE];
            bytes[..8].copy_from_slice(&v.to_le_bytes());
            bytes
        };
        let version = |p: &Page| u64::from_le_bytes(p.bytes()[..8].try_into().unwrap());
        let rounds = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
        std::thread::scope(|scope| {
            for reader in 0..2 {
                let (c, stored, acknowledged) = (&c, &stored, &acknowledged);
                scope.spawn(move || loop {
                    let least = acknowledged.load(Ordering::SeqCst);
                    let seen = match c.find(REL, 1, 0) {
                        Some(found) => version(&found.page),
                        None => {
                            let sent = c.sent(REL, 1);
                            let v = stored.load(Ordering::SeqCst);
                            let tier = if reader == 0 { Tier::Cache } else { Tier::Prefetched };
                            c.insert((REL, 1), &Page::one(image(v)), 0, sent, tier);
                            v
                        }
                    };
                    assert!(seen >= least, "{seen} was found after {least} was acknowledged");
                    if least == rounds {
                        return;
                    }
                });
            }
            for v in 1..=rounds {
                let m = Mutation::WritePage { rel: REL, block: 1, lsn: 0, pages: image(v) };
                let _ = c.invalidate(&m);
                stored.store(v, Ordering::SeqCst);
                let sent = c.invalidate(&m);
                if v % 3 == 0 {
                    c.written(&m, &sent);
                }
                acknowledged.store(v, Ordering::SeqCst);
            }
        });
    }
}
