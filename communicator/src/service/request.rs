//! What is asked of a page service: reads and as of when, mutations.

use shmuring::lsn::in_flight::Key;
use shmuring::request::{Lsn, RelTag};

/// Bytes of a page.
pub const PAGE_SIZE: usize = 8192;

/// As of when a read is to be answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReadLsn {
    /// Exactly as of this LSN; `None`: the latest.
    pub request_lsn: Option<Lsn>,
    /// The caller knows that what it asks for was not modified after this LSN.
    pub not_modified_since: Lsn,
}

impl ReadLsn {
    /// The latest.
    pub const LATEST: Self = Self { request_lsn: None, not_modified_since: 0 };

    /// Exactly as of `lsn`.
    #[must_use]
    pub const fn at(lsn: Lsn) -> Self {
        Self { request_lsn: Some(lsn), not_modified_since: lsn }
    }
}

/// A change of what later reads see. `lsn` 0 says that the change has no LSN of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Writes whole blocks that exist, from `block` on.
    WritePage {
        /// Relation fork.
        rel: RelTag,
        /// First block.
        block: u32,
        /// LSN of the pages.
        lsn: Lsn,
        /// One or more pages.
        pages: Vec<u8>,
    },
    /// Writes block `block` and grows the fork to hold it.
    Extend {
        /// Relation fork.
        rel: RelTag,
        /// The block.
        block: u32,
        /// LSN of the page.
        lsn: Lsn,
        /// One page.
        page: Vec<u8>,
    },
    /// Grows the fork to `block + count` blocks; the new ones are zero.
    ZeroExtend {
        /// Relation fork.
        rel: RelTag,
        /// First new block.
        block: u32,
        /// Number of blocks.
        count: u32,
        /// LSN of the change.
        lsn: Lsn,
    },
    /// Makes a fork of no blocks.
    Create {
        /// Relation fork.
        rel: RelTag,
        /// LSN of the change.
        lsn: Lsn,
    },
    /// Cuts the fork down to `blocks`; longer than it is: nothing to do.
    Truncate {
        /// Relation fork.
        rel: RelTag,
        /// Blocks that stay.
        blocks: u32,
        /// LSN of the change.
        lsn: Lsn,
    },
    /// Removes the fork.
    Unlink {
        /// Relation fork.
        rel: RelTag,
        /// LSN of the change.
        lsn: Lsn,
    },
    /// The fork now has exactly `blocks` blocks.
    UpdateRelSize {
        /// Relation fork.
        rel: RelTag,
        /// Its blocks.
        blocks: u32,
        /// LSN of the change.
        lsn: Lsn,
    },
}

impl Mutation {
    /// Its LSN; 0: it has none of its own.
    #[must_use]
    pub const fn lsn(&self) -> Lsn {
        match self {
            Self::WritePage { lsn, .. }
            | Self::Extend { lsn, .. }
            | Self::ZeroExtend { lsn, .. }
            | Self::Create { lsn, .. }
            | Self::Truncate { lsn, .. }
            | Self::Unlink { lsn, .. }
            | Self::UpdateRelSize { lsn, .. } => *lsn,
        }
    }
}

/// A mutation, and whether it may have been applied before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutationRequest {
    /// What to change.
    pub mutation: Mutation,
    /// False on a re-run: then create of what exists and unlink of what is missing are success (R4e).
    pub first_attempt: bool,
}

impl MutationRequest {
    /// The first attempt at `mutation`.
    #[must_use]
    pub const fn first(mutation: Mutation) -> Self {
        Self { mutation, first_attempt: true }
    }

    /// A re-run of `mutation`, which may have been applied.
    #[must_use]
    pub const fn again(mutation: Mutation) -> Self {
        Self { mutation, first_attempt: false }
    }
}

/// What one read of a batch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A block.
    Page(RelTag, u32),
    /// That a block be brought near; its bytes are not wanted.
    Near(RelTag, u32),
    /// Blocks of a fork.
    RelSize(RelTag),
    /// Bytes of a database.
    DbSize(u32),
    /// An SLRU segment: kind, number.
    Slru(u32, u32),
    /// Nothing that can be read.
    Nothing,
}

impl What {
    /// What a key stands for.
    #[must_use]
    pub const fn of(key: Key, fetch: bool) -> Self {
        match key {
            Key::Block(rel, block) if fetch => Self::Page(rel, block),
            Key::Block(rel, block) => Self::Near(rel, block),
            Key::Size(rel) => Self::RelSize(rel),
            Key::DbSize(db) => Self::DbSize(db),
            Key::Slru(kind, segno) => Self::Slru(kind, segno),
            Key::Relation(_) | Key::Database(_) | Key::None => Self::Nothing,
        }
    }
}

/// One read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// What to read.
    pub what: What,
    /// As of when.
    pub lsns: ReadLsn,
    /// Attempts before this one.
    pub attempt: u32,
}
