//! The request bytes as five machine words: how both sides of the hot path move and check them.
//!
//! Field by field they are twelve loads, as many stores and a check each; as words they are five loads, and all that the
//! opcode, flags, fork and count must obey is told by two compares.

use super::{flags, Class, Job, Opcode, RawExtra, RawRequest, RawVector, RelTag, Request};
use crate::error::{Error, Result};
use crate::sync::opaque;

/// The bytes of a [`RawRequest`], little-endian, eight at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Words {
    /// `lsn`; `spc_oid`, `db_oid`; `rel_number`, `block`; `arg`, `opcode`, `flags`, `fork`, `count`.
    pub(crate) quads: [u64; 4],
    /// `pool`, `reserved`.
    pub(crate) last: u32,
}

/// A read of one block, of class demand, with what comes in halves of words left so: to put them together, and to take
/// them apart again, would be a tenth of the way to the communicator.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainRead {
    pub(crate) lsn: u64,
    /// `spc_oid`, `db_oid`.
    pub(crate) relation: u64,
    /// `rel_number`, `block`, `arg`, and the head: what follows it is 0.
    pub(crate) place: [u32; 4],
}

impl PlainRead {
    /// The read, if it is plain (see [`Words::plain`]). `fork` is that of the relation, as wide as a register has it.
    #[inline(always)]
    pub(crate) fn new(rel: RelTag, fork: u32, block: u32, lsn: u64) -> Option<Self> {
        let fork = opaque(fork);
        if fork > 3 || block == u32::MAX {
            return None;
        }
        let head = (Opcode::GetPage as u32 | 1 << COUNT) + (fork << FORK);
        let RelTag { spc_oid, db_oid, rel_number, .. } = rel;
        Some(Self { lsn, relation: pair(spc_oid, db_oid), place: [rel_number, block, 0, head] })
    }

    /// The same into this bounce block.
    #[inline(always)]
    pub(crate) const fn into_block(mut self, number: u32) -> Self {
        self.place[2] = number;
        self
    }
}

impl From<PlainRead> for Words {
    fn from(read: PlainRead) -> Self {
        let PlainRead { lsn, relation, place: [rel_number, block, arg, head] } = read;
        Self { quads: [lsn, relation, pair(rel_number, block), pair(arg, head)], last: 0 }
    }
}

impl From<RawRequest> for Words {
    #[inline]
    fn from(raw: RawRequest) -> Self {
        let head = u32::from_le_bytes([raw.opcode, raw.flags, raw.fork, raw.count]);
        Self {
            quads: [raw.lsn, pair(raw.spc_oid, raw.db_oid), pair(raw.rel_number, raw.block), pair(raw.arg, head)],
            last: u32::from(raw.pool) | u32::from(raw.reserved) << 16,
        }
    }
}

impl From<Words> for RawRequest {
    #[inline]
    fn from(words: Words) -> Self {
        let [lsn, relation, place, _] = words.quads;
        let [opcode, flags, fork, count] = words.head().to_le_bytes();
        Self {
            lsn,
            spc_oid: relation as u32,
            db_oid: (relation >> 32) as u32,
            rel_number: place as u32,
            block: words.block(),
            arg: words.arg(),
            opcode,
            flags,
            fork,
            count,
            pool: words.pool(),
            reserved: (words.last >> 16) as u16,
        }
    }
}

const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// What the head (opcode, flags, fork, count: a byte each) may hold for one opcode.
#[derive(Clone, Copy)]
struct Rules {
    /// Bits that are fixed, and what they must be. None of opcode and count, which have checks of their own.
    fixed: u32,
    are: u32,
    /// The smallest count, and how much more is allowed.
    least: u8,
    span: u8,
    /// `arg` is a number of blocks.
    grows: bool,
    /// Bits that are fixed in a plain request, and what they must be: see [`Words::plain`].
    plain_fixed: u32,
    plain_are: u32,
}

const FLAGS: u32 = 8;
const FORK: u32 = 16;
const COUNT: u32 = 24;

const RULES: [Rules; Opcode::ALL.len()] = {
    let none = rules(Opcode::Nop);
    let mut all = [none; Opcode::ALL.len()];
    let mut i = 0;
    while i < all.len() {
        // In bounds by the loop condition; const code has no iterators.
        #[allow(clippy::indexing_slicing)]
        {
            all[i] = rules(Opcode::ALL[i]);
        }
        i += 1;
    }
    all
};

const fn rules(opcode: Opcode) -> Rules {
    let max = opcode.max_blocks() as u8;
    let takes_missing = matches!(opcode, Opcode::RelSize | Opcode::RelExists);
    let takes = if takes_missing { flags::KNOWN } else { flags::KNOWN & !flags::ALLOW_MISSING };
    let needs = if matches!(opcode, Opcode::GetPageAt) { flags::REQUEST_LSN } else { 0 };
    // A nop may name any fork, the others forks 0 to 3.
    let fork = if matches!(opcode, Opcode::Nop) { 0 } else { !3u8 };
    let least = if max > 0 { 1 } else { 0 };
    // Of the flags, class 1 alone.
    let plain_fixed = (!1u8 as u32) << FLAGS | (fork as u32) << FORK | 0xFF << COUNT;
    // A bit that is not fixed is 0 behind the mask, so nothing equals these.
    let is_never = opcode.is_mutation() || needs != 0;
    Rules {
        fixed: ((!takes | needs) as u32) << FLAGS | (fork as u32) << FORK,
        are: (needs as u32) << FLAGS,
        least,
        span: if max > 0 { max - 1 } else { 0 },
        grows: matches!(opcode, Opcode::ZeroExtend),
        plain_fixed,
        plain_are: if is_never { !plain_fixed } else { (least as u32) << COUNT },
    }
}

impl Words {
    /// The words of a request without flags but its class.
    #[inline(always)]
    pub(crate) fn of(request: &Request<'_>) -> Self {
        let RelTag { spc_oid, db_oid, rel_number, fork } = request.rel;
        let head = u32::from_le_bytes([request.opcode as u8, request.class as u8, fork, request.count]);
        let quads = [request.lsn, pair(spc_oid, db_oid), pair(rel_number, request.block), pair(request.arg, head)];
        Self { quads, last: 0 }
    }

    #[inline]
    const fn head(&self) -> u32 {
        (self.quads[3] >> 32) as u32
    }

    #[inline]
    pub(crate) const fn count(&self) -> u8 {
        (self.head() >> COUNT) as u8
    }

    #[inline]
    pub(crate) const fn has_flags(&self, any: u8) -> bool {
        self.head() & (any as u32) << FLAGS != 0
    }

    /// The opcode, if it is one.
    #[inline]
    pub(crate) fn opcode(&self) -> Option<Opcode> {
        Opcode::from_u8(self.head() as u8)
    }

    #[inline]
    pub(crate) const fn block(&self) -> u32 {
        (self.quads[2] >> 32) as u32
    }

    #[inline]
    pub(crate) const fn arg(&self) -> u32 {
        self.quads[3] as u32
    }

    /// The same with another `arg`.
    #[inline]
    pub(crate) const fn with_arg(mut self, arg: u32) -> Self {
        self.quads[3] = pair(arg, self.head());
        self
    }

    #[inline]
    pub(crate) const fn pool(&self) -> u16 {
        self.last as u16
    }

    /// Whether the vector part must be read or written as well.
    #[inline]
    pub(crate) const fn needs_vector(&self) -> bool {
        self.count() > 1 || self.has_flags(flags::BLOCK_LSNS)
    }

    /// The opcode of a well-formed request that lies in its 36 bytes alone, which the greater part of all do: no
    /// mutation, at most one block, no deadline, LSN to read at or LSNs of blocks, of class demand or prefetch. `None` says
    /// nothing: [`Words::validate`] decides.
    #[inline(always)]
    pub(crate) fn plain(&self) -> Option<Opcode> {
        let head = self.head();
        let opcode = self.opcode()?;
        let rules = RULES.get(opcode as usize)?;
        let is_plain = head & rules.plain_fixed == rules.plain_are && self.last >> 16 == 0;
        (is_plain && self.block() != u32::MAX).then_some(opcode)
    }

    /// The opcode, if the bytes are a well-formed request by themselves; both sides ask.
    #[inline]
    pub(crate) fn validate(&self) -> Result<Opcode> {
        let head = self.head();
        let opcode = self.opcode().ok_or(Error::BadOpcode)?;
        let rules = RULES.get(opcode as usize).ok_or(Error::BadOpcode)?;
        let (block, count) = (self.block(), self.count());
        if count.wrapping_sub(rules.least) > rules.span || block.checked_add(u32::from(count)).is_none() {
            return Err(Error::BadCount);
        }
        let class = head >> FLAGS & u32::from(flags::CLASS);
        if head & rules.fixed != rules.are || class == 3 || self.last >> 16 != 0 {
            return Err(Error::BadRequest);
        }
        if rules.grows && (self.arg() == 0 || block.checked_add(self.arg()).is_none()) {
            return Err(Error::BadCount);
        }
        Ok(opcode)
    }

    /// The job of a request that [`Words::plain`] found well-formed, and what all jobs have in common.
    #[inline(always)]
    pub(crate) fn plain_job(&self, opcode: Opcode) -> Job {
        let [lsn, relation, place, _] = self.quads;
        let [_, flags, fork, count] = self.head().to_le_bytes();
        Job {
            opcode,
            class: if flags & flags::CLASS == 0 { Class::Demand } else { Class::Prefetch },
            rel: RelTag { spc_oid: relation as u32, db_oid: (relation >> 32) as u32, rel_number: place as u32, fork },
            block: self.block(),
            count,
            arg: self.arg(),
            lsn,
            request_lsn: None,
            allow_missing: false,
            deadline: None,
            pool: self.pool(),
            buffer: self.arg(),
            vector: None,
            has_block_lsns: false,
        }
    }

    /// The job of a request that [`Words::validate`] found well-formed.
    pub(crate) fn job(&self, opcode: Opcode, extra: &RawExtra, vector: Option<Box<RawVector>>) -> Job {
        let mut job = self.plain_job(opcode);
        if self.has_flags(Class::Background as u8) {
            job.class = Class::Background;
        }
        job.request_lsn = self.has_flags(flags::REQUEST_LSN).then_some(extra.request_lsn);
        job.allow_missing = self.has_flags(flags::ALLOW_MISSING);
        job.deadline = self.has_flags(flags::DEADLINE).then_some(extra.deadline);
        job.has_block_lsns = self.has_flags(flags::BLOCK_LSNS);
        job.vector = vector;
        job
    }
}

#[cfg(all(test, not(any(feature = "loom", feature = "shuttle"))))]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::MAX_BLOCKS;
    use super::*;

    /// The rules in words, one after the other: what the masks are checked against.
    fn spelt_out(raw: &RawRequest) -> Result<Opcode> {
        let opcode = Opcode::from_u8(raw.opcode).ok_or(Error::BadOpcode)?;
        let most = opcode.max_blocks();
        let count = usize::from(raw.count);
        if count > most || count == 0 && most > 0 || u64::from(raw.block) + count as u64 > u64::from(u32::MAX) {
            return Err(Error::BadCount);
        }
        let missing = raw.flags & flags::ALLOW_MISSING != 0;
        if raw.flags & !flags::KNOWN != 0
            || missing && !matches!(opcode, Opcode::RelSize | Opcode::RelExists)
            || opcode == Opcode::GetPageAt && raw.flags & flags::REQUEST_LSN == 0
            || raw.flags & flags::CLASS == 3
            || raw.fork > 3 && opcode != Opcode::Nop
            || raw.reserved != 0
        {
            return Err(Error::BadRequest);
        }
        let grown = u64::from(raw.block) + u64::from(raw.arg);
        if opcode == Opcode::ZeroExtend && (raw.arg == 0 || grown > u64::from(u32::MAX)) {
            return Err(Error::BadCount);
        }
        Ok(opcode)
    }

    #[test]
    fn the_masks_say_what_the_rules_say_for_every_opcode_flag_fork_and_count() {
        let counts = [0, 1, 2, 31, 32, 33, 63, 64, 128, 255];
        let blocks = [0, 7, u32::MAX - 32, u32::MAX - 31, u32::MAX - 1, u32::MAX];
        for opcode in 0..=17 {
            for flags in 0..=255 {
                for (fork, count) in [0, 1, 3, 4, 7, 128, 255].into_iter().flat_map(|f| counts.map(|c| (f, c))) {
                    for block in blocks {
                        for (arg, reserved) in [(0, 0), (1, 0), (u32::MAX - 7, 0), (1, 1), (1, 0x8000)] {
                            let raw =
                                RawRequest { opcode, flags, fork, count, block, arg, reserved, ..Default::default() };
                            let words = Words::from(raw);
                            assert_eq!(words.validate(), spelt_out(&raw), "{raw:?}");
                            let rare = !(Class::Prefetch as u8);
                            let is_plain = spelt_out(&raw).is_ok_and(|op| !op.is_mutation())
                                && count < 2
                                && flags & rare == 0
                                && block < u32::MAX;
                            assert_eq!(words.plain(), is_plain.then(|| spelt_out(&raw).unwrap()), "{raw:?}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_plain_read_is_what_the_request_says_where_that_is_plain() {
        for fork in 0..=255 {
            for block in [0, 7, u32::MAX - 1, u32::MAX] {
                let rel = RelTag { spc_oid: 1, db_oid: 2, rel_number: 3, fork };
                let words = Words::of(&Request::get_page(rel, block, 1, 99));
                assert_eq!(
                    PlainRead::new(rel, fork.into(), block, 99).map(Words::from),
                    words.plain().map(|_| words),
                    "{fork} {block}"
                );
            }
        }
    }

    #[test]
    fn words_hold_the_bytes_of_the_request_in_their_order() {
        let raw = RawRequest {
            lsn: 0x0807_0605_0403_0201,
            spc_oid: 0x0C0B_0A09,
            db_oid: 0x100F_0E0D,
            rel_number: 0x1413_1211,
            block: 0x1817_1615,
            arg: 0x1C1B_1A19,
            opcode: 0x1D,
            flags: 0x1E,
            fork: 0x1F,
            count: 0x20,
            pool: 0x2221,
            reserved: 0x2423,
        };
        let words = Words::from(raw);
        assert_eq!(RawRequest::from(words), raw);
        let bytes: Vec<u8> = words.quads.iter().flat_map(|q| q.to_le_bytes()).chain(words.last.to_le_bytes()).collect();
        assert_eq!(bytes, (1..=36).collect::<Vec<u8>>());
        assert_eq!(
            (words.block(), words.arg(), words.count(), words.pool()),
            ({ raw.block }, { raw.arg }, 0x20, 0x2221)
        );
        assert_eq!(MAX_BLOCKS, 32);
    }
}
