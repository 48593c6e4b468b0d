//! What can be asked when a page was last written. All of them lie in shared memory.

use super::lru::Lru;
use shmuring::lsn::written::Written;
use shmuring::parts::Parts;
use shmuring::region::{Options, Region};
use shmuring::request::RelTag;
use std::sync::atomic::{AtomicU64, Ordering};

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    pub rel: RelTag,
    pub block: u32,
}

impl Page {
    pub const fn of(block: u32) -> Self {
        Self { rel: RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 }, block }
    }

    /// Two words that name it.
    pub fn key(self) -> (u64, u64) {
        let r = self.rel;
        let place = u64::from(r.spc_oid) << 32 | u64::from(r.db_oid);
        (place, (u64::from(r.rel_number) << 32 | u64::from(self.block)) ^ u64::from(r.fork) << 62)
    }
}

pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The cheapest hash that spreads blocks at all: for the floor.
fn cheap(a: u64, b: u64) -> u64 {
    (a.rotate_left(32) ^ b).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The cell of a hash, without a division.
fn spread(hash: u64, cells: &[AtomicU64]) -> usize {
    (((hash >> 32) * cells.len() as u64) >> 32) as usize
}

/// Sebastiano Vigna's splitmix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(n)) >> 64) as u64
    }

    /// From 0 up to and without 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// `n` zeroed words that forked processes share. Never given back.
pub fn shared_words(n: usize) -> &'static [AtomicU64] {
    // SAFETY: a new mapping, nobody else's.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            n * 8,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
    // SAFETY: mapped until the process ends, zeroed, aligned to a page.
    unsafe { std::slice::from_raw_parts(at.cast(), n) }
}

/// One of them, of 8 MiB divided by `shrink`.
#[derive(Clone, Copy)]
pub enum Contender {
    Ours(Written<'static>),
    /// Tables of maxima: so many hashes, a note raises a cell of each, an answer is their minimum.
    Maxima(&'static [AtomicU64], u32),
    Lru(Lru),
    /// One fetch_max or load a hash (two for a get: a block and its chunk), and no answer.
    Floor(&'static [AtomicU64]),
}

impl Contender {
    pub fn all(shrink: usize) -> [(&'static str, Self); 5] {
        let options = Options { bounce_per_slot: 0, written_buckets: (1 << 17) / shrink as u32, ..Options::new(1) };
        let region: &'static Region = Box::leak(Box::new(Region::create_memfd(&options).expect("a region")));
        let parts: &'static Parts<'static> = Box::leak(Box::new(region.parts()));
        [
            ("ours", Self::Ours(parts.last_written())),
            ("LRU + global maximum", Self::Lru(Lru::new((1 << 17) / shrink))),
            ("maxima, 2 hashes", Self::Maxima(shared_words((1 << 20) / shrink), 2)),
            ("maxima, 4 hashes", Self::Maxima(shared_words((1 << 20) / shrink), 4)),
            ("floor", Self::Floor(shared_words((1 << 20) / shrink))),
        ]
    }

    #[inline]
    pub fn note(&self, page: Page, lsn: u64) {
        match self {
            Self::Ours(table) => table.note(page.rel, page.block, lsn),
            Self::Maxima(cells, hashes) => {
                let (a, b) = page.key();
                let mut h = mix(a.rotate_left(32) ^ b);
                for _ in 0..*hashes {
                    cells[spread(h, cells)].fetch_max(lsn, Ordering::Relaxed);
                    h = h.rotate_left(21).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                }
            }
            Self::Lru(map) => map.note(page.key(), lsn),
            Self::Floor(cells) => {
                let (a, b) = page.key();
                cells[spread(cheap(a, b), cells)].fetch_max(lsn, Ordering::Relaxed);
            }
        }
    }

    #[inline]
    pub fn get(&self, page: Page) -> u64 {
        match self {
            Self::Ours(table) => table.get(page.rel, page.block),
            Self::Maxima(cells, hashes) => {
                let (a, b) = page.key();
                let mut h = mix(a.rotate_left(32) ^ b);
                let mut least = u64::MAX;
                for _ in 0..*hashes {
                    least = least.min(cells[spread(h, cells)].load(Ordering::Relaxed));
                    h = h.rotate_left(21).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                }
                least
            }
            Self::Lru(map) => map.get(page.key()),
            Self::Floor(cells) => {
                let (a, b) = page.key();
                let load = |b| cells[spread(cheap(a, b), cells)].load(Ordering::Relaxed);
                load(b).max(load(b >> 7))
            }
        }
    }
}
