//! The ledger of a backend: what it wrote and what was acknowledged, in a file of its own outside the region.
//!
//! Mapped shared, so that it survives a kill -9 and its successor (and every other backend) can hold the pages against it:
//! a page's version lies between the last acknowledged and the last attempted one.
#![allow(unsafe_code)]

use super::super::Failure;
use memmap2::MmapRaw;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Most blocks of a backend's relation.
pub(super) const MAX_BLOCKS: u32 = 4096;

const WORDS: usize = 8 + 2 * MAX_BLOCKS as usize;

/// A number that was attempted, and the last one that was acknowledged.
pub(super) struct Pair<'l> {
    pub(super) acknowledged: &'l AtomicU64,
    pub(super) attempted: &'l AtomicU64,
}

impl Pair<'_> {
    /// Before the request is submitted.
    pub(super) fn attempt(&self, value: u64) {
        self.attempted.store(value, Ordering::SeqCst);
    }

    /// After it was completed.
    pub(super) fn acknowledge(&self) {
        self.acknowledged.store(self.attempted.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    /// What a read may see: the acknowledged and the attempted value.
    pub(super) fn get(&self) -> (u64, u64) {
        (self.acknowledged.load(Ordering::SeqCst), self.attempted.load(Ordering::SeqCst))
    }

    /// What was found to hold after a death settles both.
    pub(super) fn settle(&self, value: u64) {
        self.attempted.store(value, Ordering::SeqCst);
        self.acknowledged.store(value, Ordering::SeqCst);
    }
}

/// What is done to the ingest of a page server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing yet: no request is counted by phase.
    #[default]
    Untold,
    /// Nothing.
    Free,
    /// It is held back.
    Held,
}

/// The mapped ledger of one backend.
pub(super) struct Ledger {
    map: MmapRaw,
}

impl Ledger {
    /// Opens the ledger of backend `index`, making it if there is none.
    pub(super) fn open(dir: &Path, index: u32) -> Result<Self, Failure> {
        Self::map(dir.join(format!("ledger-{index}")))
    }

    /// Opens the ledger of what all backends share.
    pub(super) fn shared(dir: &Path) -> Result<Self, Failure> {
        Self::map(dir.join("ledger-shared"))
    }

    fn map(path: PathBuf) -> Result<Self, Failure> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(WORDS as u64 * 8)?;
        Ok(Self { map: MmapRaw::map_raw(&file)? })
    }

    fn word(&self, i: usize) -> &AtomicU64 {
        assert!(i < WORDS, "a ledger has {WORDS} words");
        // SAFETY: in bounds by the assertion, aligned since a map is page-aligned, and only accessed as atomics.
        unsafe { &*self.map.as_mut_ptr().cast::<AtomicU64>().add(i) }
    }

    /// Size of the relation in blocks.
    pub(super) fn size(&self) -> Pair<'_> {
        Pair { acknowledged: self.word(0), attempted: self.word(1) }
    }

    /// Raised before and after each change that takes blocks away or zeroes them: while it is odd, or when it moved,
    /// others cannot say what they should see.
    pub(super) fn cuts(&self) -> &AtomicU64 {
        self.word(2)
    }

    /// The last version given out.
    pub(super) fn version(&self) -> &AtomicU64 {
        self.word(3)
    }

    /// Whether the relation was made.
    pub(super) fn created(&self) -> &AtomicU64 {
        self.word(4)
    }

    /// In the shared ledger: the end of the demo's WAL.
    pub(super) fn wal(&self) -> &AtomicU64 {
        self.word(5)
    }

    /// In the shared ledger: whether a page server's ingest is held back.
    pub(super) fn phase(&self) -> Phase {
        match self.word(6).load(Ordering::SeqCst) {
            1 => Phase::Free,
            2 => Phase::Held,
            _ => Phase::Untold,
        }
    }

    /// Tells all backends.
    pub(super) fn set_phase(&self, phase: Phase) {
        self.word(6).store(phase as u64, Ordering::SeqCst);
    }

    /// Version of a block; 0: zeros.
    pub(super) fn block(&self, block: u32) -> Pair<'_> {
        let i = 8 + 2 * (block % MAX_BLOCKS) as usize;
        Pair { acknowledged: self.word(i), attempted: self.word(i + 1) }
    }
}
