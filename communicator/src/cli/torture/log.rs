//! The log of one post, outside the region: what its processes asked, got, cancelled and found, and when.
//!
//! Records of a fixed length with a checksum, handed to the kernel by one write(2) a batch, so that what was written
//! survives a kill -9 of the writer. A write that a kill cut short leaves at most one torn record, at the end of what
//! that process wrote; the next process of the post starts at the next whole record.

use super::super::Failure;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a record.
pub(super) const RECORD: usize = 64;
const MAGIC: u16 = 0x6b6c;

/// What a record tells. Fields that are not named are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// A process begins. `a`: pid.
    Start = 1,
    /// At attach a slot was not idle. `slot`, `generation`, `code`: state, and its request.
    Found,
    /// All slots were looked at.
    Looked,
    /// A leftover was settled. `slot`, `generation`, its request; `code`: fate and errno, `a`: value.
    Leftover,
    /// No leftover is left. `code`: ms that each might take.
    Settled,
    /// About to be submitted. `id`, `slot`, `generation`, `opcode`, `rel`, `block`, `count`, `pool`; `a`: LSN,
    /// `b`: hash of the page to be written, `code`: deadline in ms after `time`, and [`MAY_EXPIRE`].
    Asked,
    /// Everything up to `id` was submitted.
    Submitted,
    /// An answer, before the slot is given back. `id`, `slot`, `generation`; `code`: errno, `a`: value.
    Got,
    /// A page of that answer. `id`, `block`; `a`: version that it says, `b`: hash of all its bytes.
    Page,
    /// The slot was given back. `id`; `code`: errno, `a`: value, as the library said once more.
    Finished,
    /// About to be cancelled. `id`.
    CancelAsked,
    /// The cancel returned. `id`; `code`: a [`Cancel`]; `a`: hash of the buffers at that moment.
    CancelReturned,
    /// The slot of a cancelled request came back. `id`; `a`: hash of the buffers at that moment.
    SlotBack,
    /// Block `block` of pool `pool`, not in use since request `id` was cancelled, was filled. `a`: hash.
    Canary,
    /// The same block later. `a`: hash.
    CanaryRead,
    /// No answer by the deadline. `id`; `code`: errno of the wait.
    GaveUp,
    /// A clean end: nothing is in flight.
    End,
    /// The parent sent a signal. `slot`: post, `incarnation`: which process of it, `code`: signal.
    Signal,
}

impl Kind {
    fn from_u8(n: u8) -> Option<Self> {
        const ALL: [Kind; 18] = [
            Kind::Start,
            Kind::Found,
            Kind::Looked,
            Kind::Leftover,
            Kind::Settled,
            Kind::Asked,
            Kind::Submitted,
            Kind::Got,
            Kind::Page,
            Kind::Finished,
            Kind::CancelAsked,
            Kind::CancelReturned,
            Kind::SlotBack,
            Kind::Canary,
            Kind::CanaryRead,
            Kind::GaveUp,
            Kind::End,
            Kind::Signal,
        ];
        ALL.iter().copied().find(|k| *k as u8 == n)
    }
}

/// In `code` of [`Kind::Asked`]: it may be given up at its deadline.
pub(super) const MAY_EXPIRE: u32 = 1 << 31;

/// What a cancel came to, in `code` of [`Kind::CancelReturned`].
pub(super) mod cancel {
    pub(in super::super) const WITHDRAWN: u32 = 0;
    pub(in super::super) const ABANDONED: u32 = 1;
    pub(in super::super) const COMPLETED: u32 = 2;
    /// Plus an errno.
    pub(in super::super) const FAILED: u32 = 1000;
}

/// Fates in the high half of `code` of [`Kind::Leftover`].
pub(super) mod fate {
    pub(in super::super) const COMPLETED: u32 = 0;
    pub(in super::super) const WITHDRAWN: u32 = 1;
    pub(in super::super) const ABANDONED: u32 = 2;
    pub(in super::super) const OWNER_DEAD: u32 = 3;
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    pub(super) opcode: u8,
    pub(super) pool: u8,
    pub(super) count: u8,
    /// ns of CLOCK_MONOTONIC.
    pub(super) time: u64,
    pub(super) id: u32,
    pub(super) slot: u32,
    pub(super) generation: u32,
    pub(super) rel: u32,
    pub(super) block: u32,
    pub(super) code: u32,
    pub(super) a: u64,
    pub(super) b: u64,
    /// Which process of the post.
    pub(super) incarnation: u32,
    /// Counts the records of a process, modulo 2^16.
    pub(super) seq: u16,
}

impl Record {
    pub(super) const fn new(kind: Kind) -> Self {
        Self {
            kind,
            opcode: 0,
            pool: 0,
            count: 0,
            time: 0,
            id: 0,
            slot: 0,
            generation: 0,
            rel: 0,
            block: 0,
            code: 0,
            a: 0,
            b: 0,
            incarnation: 0,
            seq: 0,
        }
    }

    pub(super) fn encode(&self) -> [u8; RECORD] {
        let mut out = [0; RECORD];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC.to_le_bytes());
        put(&[self.kind as u8, self.opcode]);
        put(&[0; 4]);
        put(&self.time.to_le_bytes());
        for n in [self.id, self.slot, self.generation, self.rel, self.block, self.code] {
            put(&n.to_le_bytes());
        }
        put(&self.a.to_le_bytes());
        put(&self.b.to_le_bytes());
        put(&self.incarnation.to_le_bytes());
        put(&[self.pool, self.count]);
        put(&self.seq.to_le_bytes());
        let crc = crc32c::crc32c(&out);
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None`: torn or foreign bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes: [u8; RECORD] = bytes.try_into().ok()?;
        let u16_at = |b: &[u8; RECORD], at: usize| u16::from_le_bytes([b[at], b[at + 1]]);
        let u32_at = |b: &[u8; RECORD], at: usize| u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        let u64_at = |b: &[u8; RECORD], at: usize| u64::from(u32_at(b, at)) | u64::from(u32_at(b, at + 4)) << 32;
        let crc = u32_at(&bytes, 4);
        bytes[4..8].fill(0);
        if u16_at(&bytes, 0) != MAGIC || crc32c::crc32c(&bytes) != crc {
            return None;
        }
        Some(Self {
            kind: Kind::from_u8(bytes[2])?,
            opcode: bytes[3],
            time: u64_at(&bytes, 8),
            id: u32_at(&bytes, 16),
            slot: u32_at(&bytes, 20),
            generation: u32_at(&bytes, 24),
            rel: u32_at(&bytes, 28),
            block: u32_at(&bytes, 32),
            code: u32_at(&bytes, 36),
            a: u64_at(&bytes, 40),
            b: u64_at(&bytes, 48),
            incarnation: u32_at(&bytes, 56),
            pool: bytes[60],
            count: bytes[61],
            seq: u16_at(&bytes, 62),
        })
    }
}

/// Writes the records of one process.
pub(super) struct Writer {
    file: File,
    at: u64,
    buffer: Vec<u8>,
    incarnation: u32,
    seq: u16,
}

impl Writer {
    /// Goes on behind what earlier processes of the post wrote.
    pub(super) fn open(path: &Path, incarnation: u32) -> Result<Self, Failure> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        let at = file.metadata()?.len().next_multiple_of(RECORD as u64);
        Ok(Self { file, at, buffer: Vec::new(), incarnation, seq: 0 })
    }

    /// Adds a record; its time is now unless it has one. It is written by [`Writer::flush`].
    pub(super) fn put(&mut self, record: Record) {
        let time = if record.time == 0 { shmuring::clock::now() } else { record.time };
        let whole = Record { time, incarnation: self.incarnation, seq: self.seq, ..record };
        self.seq = self.seq.wrapping_add(1);
        self.buffer.extend_from_slice(&whole.encode());
    }

    /// As [`Writer::put`], of the process `incarnation` of a post: for the parent.
    pub(super) fn put_signal(&mut self, post: u32, incarnation: u32, signal: i32) -> Result<(), Failure> {
        let own = std::mem::replace(&mut self.incarnation, incarnation);
        self.put(Record { slot: post, code: signal as u32, ..Record::new(Kind::Signal) });
        self.incarnation = own;
        self.flush()
    }

    /// Hands everything to the kernel: it survives this process from here on.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        if !self.buffer.is_empty() {
            self.file.write_all_at(&self.buffer, self.at)?;
            self.at += self.buffer.len() as u64;
            self.buffer.clear();
        }
        Ok(())
    }
}

/// Reads a log: its records, and where each torn one was (the number of records before it).
pub(super) fn read(path: &Path) -> Result<(Vec<Record>, Vec<usize>), Failure> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let mut records = Vec::with_capacity(bytes.len() / RECORD);
    let mut torn = Vec::new();
    for chunk in bytes.chunks(RECORD) {
        match Record::decode(chunk) {
            Some(r) => records.push(r),
            None => torn.push(records.len()),
        }
    }
    Ok((records, torn))
}

/// The last whole record of a log.
pub(super) fn last(path: &Path) -> Option<Record> {
    let file = File::open(path).ok()?;
    let whole = file.metadata().ok()?.len() / RECORD as u64;
    let mut bytes = [0; RECORD];
    file.read_exact_at(&mut bytes, whole.checked_sub(1)? * RECORD as u64).ok()?;
    Record::decode(&bytes)
}
