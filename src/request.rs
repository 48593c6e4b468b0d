//! What a backend can ask for, what it gets, and how both lie in a request slot.
//!
//! [`Request`] is what an embedder fills; [`RawRequest`] is its bytes in the first cache line of the slot, written by
//! the owner while Filling and immutable from Submitted to Idle (R10). The communicator copies them out once and
//! validates the copy (`Words::validate`, [`RawRequest::decode`]; I10): nothing after that looks at the slot's request bytes again.

mod opcode;
mod words;

pub use opcode::Opcode;
pub(crate) use words::{PlainRead, Words};

use crate::error::{Error, Result};

/// A position in the write-ahead log, in bytes, as PostgreSQL's XLogRecPtr. 0 is "none".
pub type Lsn = u64;

/// Blocks that one request can carry.
pub const MAX_BLOCKS: usize = 32;

/// Who waits for a request: decides its turn, never its result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// A query waits for it.
    #[default]
    Demand = 0,
    /// Someone will probably want it soon.
    Prefetch = 1,
    /// Vacuum, backup, checks.
    Background = 2,
}

/// A fork of a relation, as PostgreSQL names its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelTag {
    /// Tablespace OID.
    pub spc_oid: u32,
    /// Database OID; 0 for shared relations.
    pub db_oid: u32,
    /// File number of the relation (relfilenode).
    pub rel_number: u32,
    /// Fork: 0 main, 1 free space map, 2 visibility map, 3 init.
    pub fork: u8,
}

/// Bits of [`RawRequest::flags`].
pub mod flags {
    /// Mask of the two bits that hold the class.
    pub const CLASS: u8 = 0b11;
    /// A relation that is missing is an answer (value `MISSING`), not an error.
    pub const ALLOW_MISSING: u8 = 1 << 2;
    /// The control line carries a deadline.
    pub const DEADLINE: u8 = 1 << 3;
    /// The control line carries a request LSN; without it the read is "latest".
    pub const REQUEST_LSN: u8 = 1 << 4;
    /// Each block has its own not_modified_since in the vector part.
    pub const BLOCK_LSNS: u8 = 1 << 5;
    /// All bits that mean something.
    pub const KNOWN: u8 = CLASS | ALLOW_MISSING | DEADLINE | REQUEST_LSN | BLOCK_LSNS;
}

/// Value of a `rel_size` request with allow_missing when there is no such relation.
pub const MISSING: u64 = u64::MAX;

/// The request bytes of a slot's first line. `packed(4)` so that the result words may follow without a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct RawRequest {
    /// Reads: not_modified_since. Mutations: the LSN of the change (for a write, the page's LSN).
    pub lsn: Lsn,
    /// Tablespace OID.
    pub spc_oid: u32,
    /// Database OID.
    pub db_oid: u32,
    /// File number of the relation.
    pub rel_number: u32,
    /// First block, segment number, or new size.
    pub block: u32,
    /// The buffer index of a one-block request; the number of blocks of a `zero_extend`.
    pub arg: u32,
    /// An [`Opcode`].
    pub opcode: u8,
    /// Bits of [`flags`].
    pub flags: u8,
    /// Fork of the relation.
    pub fork: u8,
    /// Number of blocks or buffers; 0 where the opcode takes none.
    pub count: u8,
    /// The pool that the buffers are in; 0 is the bounce pool of the region.
    pub pool: u16,
    /// Must be 0.
    pub reserved: u16,
}

/// The rarely used request bytes, in the slot's second line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RawExtra {
    /// Deadline, ns of CLOCK_MONOTONIC; valid with [`flags::DEADLINE`].
    pub deadline: u64,
    /// LSN to read at; valid with [`flags::REQUEST_LSN`].
    pub request_lsn: Lsn,
}

/// Buffers and LSNs of a request of more than one block, on the slot's later lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct RawVector {
    /// not_modified_since of each block; valid with [`flags::BLOCK_LSNS`].
    pub lsns: [Lsn; MAX_BLOCKS],
    /// Buffer index of each block, in the request's pool.
    pub buffers: [u32; MAX_BLOCKS],
}

impl Default for RawVector {
    fn default() -> Self {
        Self { lsns: [0; MAX_BLOCKS], buffers: [0; MAX_BLOCKS] }
    }
}

/// Where the pages of a request go to or come from.
#[derive(Clone, Copy, Debug, Default)]
pub enum Buffers<'a> {
    /// No buffer.
    #[default]
    None,
    /// Bounce buffers of the caller's range; the library picks them, and they stay with the slot until it is Idle (R5).
    Bounce,
    /// As `Bounce`, and these images (count x block size bytes) are copied into them: for writes.
    Image(&'a [u8]),
    /// Buffers of a registered pool, one index a block.
    Pool(u16, &'a [u32]),
}

/// A request as an embedder states it. Start from one of the constructors; the fields are public for the rest.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What to do.
    pub opcode: Opcode,
    /// Who waits for it.
    pub class: Class,
    /// The relation fork it is about.
    pub rel: RelTag,
    /// First block, segment number, or new size in blocks.
    pub block: u32,
    /// Number of blocks; 0 where the opcode takes none.
    pub count: u8,
    /// Number of blocks of a `zero_extend`; else 0.
    pub arg: u32,
    /// Reads: not_modified_since. Mutations: the LSN of the change.
    pub lsn: Lsn,
    /// not_modified_since of each block; empty: `lsn` holds for all.
    pub block_lsns: &'a [Lsn],
    /// LSN to read at; `None` reads the latest.
    pub request_lsn: Option<Lsn>,
    /// Whether a missing relation is an answer.
    pub allow_missing: bool,
    /// When the communicator may give up, ns of CLOCK_MONOTONIC; `None`: never.
    pub deadline: Option<u64>,
    /// Where the pages are.
    pub buffers: Buffers<'a>,
}

impl<'a> Request<'a> {
    /// A request of `opcode` about `rel`, with nothing else set.
    #[must_use]
    pub const fn new(opcode: Opcode, rel: RelTag) -> Self {
        Self {
            opcode,
            class: Class::Demand,
            rel,
            block: 0,
            count: 0,
            arg: 0,
            lsn: 0,
            block_lsns: &[],
            request_lsn: None,
            allow_missing: false,
            deadline: None,
            buffers: Buffers::None,
        }
    }

    /// Reads `count` blocks from `block` on into bounce buffers; not modified since `lsn`.
    #[must_use]
    pub const fn get_page(rel: RelTag, block: u32, count: u8, lsn: Lsn) -> Self {
        let mut r = Self::new(Opcode::GetPage, rel);
        r.block = block;
        r.count = count;
        r.lsn = lsn;
        r.buffers = Buffers::Bounce;
        r
    }

    /// Asks for `count` blocks from `block` on to be brought near.
    #[must_use]
    pub const fn prefetch(rel: RelTag, block: u32, count: u8, lsn: Lsn) -> Self {
        let mut r = Self::new(Opcode::Prefetch, rel);
        r.class = Class::Prefetch;
        r.block = block;
        r.count = count;
        r.lsn = lsn;
        r
    }

    /// Writes `image` (whole blocks) from `block` on; `lsn` is the page LSN.
    #[must_use]
    pub const fn write_page(rel: RelTag, block: u32, count: u8, lsn: Lsn, image: &'a [u8]) -> Self {
        let mut r = Self::new(Opcode::WritePage, rel);
        r.block = block;
        r.count = count;
        r.lsn = lsn;
        r.buffers = Buffers::Image(image);
        r
    }

    /// Writes block `block` and grows the relation to hold it.
    #[must_use]
    pub const fn extend(rel: RelTag, block: u32, lsn: Lsn, image: &'a [u8]) -> Self {
        let mut r = Self::write_page(rel, block, 1, lsn, image);
        r.opcode = Opcode::Extend;
        r
    }

    /// The same with another place for the pages.
    #[must_use]
    pub const fn with_buffers(mut self, buffers: Buffers<'a>) -> Self {
        self.buffers = buffers;
        self
    }

    /// Checks all that can be checked without the region, and gives the bytes for the slot's first line. `pool` and `arg`
    /// are left for the caller where they name buffers.
    #[inline]
    pub(crate) fn encode(&self) -> Result<RawRequest> {
        let mut flags = self.class as u8;
        if self.allow_missing {
            flags |= flags::ALLOW_MISSING;
        }
        if self.deadline.is_some() {
            flags |= flags::DEADLINE;
        }
        if self.request_lsn.is_some() {
            flags |= flags::REQUEST_LSN;
        }
        if !self.block_lsns.is_empty() {
            if self.block_lsns.len() != usize::from(self.count) {
                return Err(Error::BadCount);
            }
            flags |= flags::BLOCK_LSNS;
        }
        let raw = RawRequest {
            lsn: self.lsn,
            spc_oid: self.rel.spc_oid,
            db_oid: self.rel.db_oid,
            rel_number: self.rel.rel_number,
            block: self.block,
            arg: self.arg,
            opcode: self.opcode as u8,
            flags,
            fork: self.rel.fork,
            count: self.count,
            pool: 0,
            reserved: 0,
        };
        Words::from(raw).validate()?;
        Ok(raw)
    }

    /// The words of a request that [`Words::plain`] takes and that names no buffer but the library's own: what `fill`
    /// can write at once. Also whether it needs a bounce block, whose number is `arg` then.
    #[inline(always)]
    pub(crate) fn plain(&self) -> Option<(Words, bool)> {
        if self.deadline.is_some() || self.request_lsn.is_some() || self.allow_missing || !self.block_lsns.is_empty() {
            return None;
        }
        let words = Words::of(self);
        let opcode = words.plain()?;
        match self.buffers {
            Buffers::None if !opcode.has_buffers() => Some((words, false)),
            Buffers::Bounce if opcode.fills_buffers() => Some((words, true)),
            _ => None,
        }
    }

    /// The bytes for the slot's second line.
    pub(crate) fn extra(&self) -> RawExtra {
        RawExtra { deadline: self.deadline.unwrap_or(0), request_lsn: self.request_lsn.unwrap_or(0) }
    }
}

/// A request as the communicator sees it: copied out of the slot once and validated. Private memory.
#[derive(Clone, Debug)]
pub struct Job {
    /// What to do.
    pub opcode: Opcode,
    /// Who waits for it.
    pub class: Class,
    /// The relation fork it is about.
    pub rel: RelTag,
    /// First block, segment number, or new size in blocks.
    pub block: u32,
    /// Number of blocks or buffers.
    pub count: u8,
    /// Number of blocks of a `zero_extend`.
    pub arg: u32,
    /// Reads: not_modified_since of every block without its own. Mutations: the LSN of the change.
    pub lsn: Lsn,
    /// LSN to read at; `None` reads the latest.
    pub request_lsn: Option<Lsn>,
    /// Whether a missing relation is an answer.
    pub allow_missing: bool,
    /// When to give up, ns of CLOCK_MONOTONIC.
    pub deadline: Option<u64>,
    /// The pool of the buffers.
    pub pool: u16,
    /// The buffer of a one-block request.
    buffer: u32,
    /// Buffers and LSNs of a vectored one.
    pub(crate) vector: Option<Box<RawVector>>,
    has_block_lsns: bool,
}

impl Job {
    /// The buffer index of block `i`.
    #[must_use]
    #[inline]
    pub fn buffer(&self, i: usize) -> Option<u32> {
        if self.opcode.has_buffers() {
            self.named(i)
        } else {
            None
        }
    }

    /// The same for an opcode that has buffers.
    #[inline]
    pub(crate) fn named(&self, i: usize) -> Option<u32> {
        if i >= usize::from(self.count) {
            return None;
        }
        match &self.vector {
            None => Some(self.buffer),
            Some(v) => v.buffers.get(i).copied(),
        }
    }

    /// Whether each block has a not_modified_since of its own.
    #[must_use]
    pub fn has_block_lsns(&self) -> bool {
        self.has_block_lsns
    }

    /// not_modified_since of block `i`.
    #[must_use]
    pub fn block_lsn(&self, i: usize) -> Lsn {
        match &self.vector {
            Some(v) if self.has_block_lsns => v.lsns.get(i).copied().unwrap_or(self.lsn),
            _ => self.lsn,
        }
    }
}

impl RawRequest {
    /// The opcode, if it is one.
    #[must_use]
    #[inline]
    pub fn opcode(&self) -> Option<Opcode> {
        Opcode::from_u8(self.opcode)
    }

    /// The relation it is about.
    #[must_use]
    #[inline]
    pub fn rel(&self) -> RelTag {
        RelTag { spc_oid: self.spc_oid, db_oid: self.db_oid, rel_number: self.rel_number, fork: self.fork }
    }

    /// Whether the second line or the vector part must be read as well.
    #[must_use]
    #[inline]
    pub const fn needs_extra(&self) -> bool {
        self.flags & (flags::DEADLINE | flags::REQUEST_LSN) != 0
    }

    /// Whether the vector part must be read as well.
    #[must_use]
    #[inline]
    pub const fn needs_vector(&self) -> bool {
        self.count > 1 || self.flags & flags::BLOCK_LSNS != 0
    }

    /// Makes a [`Job`] of bytes copied out of a slot; refuses everything that is not a well-formed request (I10).
    /// Whether the buffers exist is the pool table's to say.
    pub fn decode(&self, extra: &RawExtra, vector: Option<Box<RawVector>>) -> Result<Job> {
        let words = Words::from(*self);
        let opcode = words.validate()?;
        Ok(words.job(opcode, extra, vector))
    }
}

/// The result bytes of a slot's first line: their own, so that a re-run finds the request whole (R10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, packed(4))]
pub struct Completion {
    /// 0, or a positive errno that says what went wrong.
    pub errno: u16,
    /// How often the page service was asked; 1 when the first answer stood, 0 when caches had every page.
    pub attempts: u16,
    /// Blocks, bytes or a truth value, by opcode; on an error of a vectored request the index of the block it is about.
    /// Of pages that caches had, without an attempt: in the upper half how many lay in the prefetch buffer.
    pub value: u64,
    /// The LSN as of which the answer holds; 0 where none matters.
    pub lsn: Lsn,
}

impl Completion {
    /// Success with a value.
    #[must_use]
    pub const fn ok(value: u64) -> Self {
        Self { errno: 0, attempts: 1, value, lsn: 0 }
    }

    /// Failure with a positive errno.
    #[must_use]
    pub const fn fail(errno: i32) -> Self {
        Self {
            errno: if errno > 0 && errno < 4096 { errno as u16 } else { libc::EIO as u16 },
            attempts: 1,
            value: 0,
            lsn: 0,
        }
    }

    /// Whether the request did what it asked for.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        self.errno == 0
    }
}
