//! How versions lie in the engine: keys, values, and the rule of which version counts.
//!
//! # The rule
//!
//! Every mutation has a position: its *effective LSN* and the store's own sequence number. Sequence numbers follow the
//! order in which mutations were applied and never repeat.
//!
//! - A relation has one line of metadata versions. The effective LSN of a new one is the larger of its own LSN and the
//!   line's newest, so the line is ordered alike by LSN and by sequence number.
//! - A block *lives* since the newest of: the create of its relation, and the last truncate that cut it. A page version
//!   with an older sequence number than that is dead, whatever its LSN (max(LSN) would resurrect it, R4g).
//! - The effective LSN of a page version is its own, but no less than the start of the block's life; of an image without
//!   an LSN it is that of the newest living version (else the start of the life), so that last applied wins.
//! - A read as of R takes the newest metadata with an effective LSN up to R, and of the versions that live under it the
//!   newest by (effective LSN, sequence number) with an effective LSN up to R; none: a zero page. So an image that is
//!   older than the newest stays visible at its own LSN only, and of two with one LSN the last applied wins.
//!
//! Keys are big-endian and positions are complemented, so "newest up to R" is the first key of a forward scan.

use shmuring::request::{Lsn, RelTag};

use crate::service::error::Rel;
use crate::service::{Result, ServiceError, PAGE_SIZE};

/// Bytes of a relation fork in a key.
pub const REL_LEN: usize = 13;
/// Bytes of a page key.
pub const PAGE_KEY_LEN: usize = REL_LEN + 4 + 16;
/// Bytes of a metadata key.
pub const META_KEY_LEN: usize = REL_LEN + 16;

/// Where a mutation lies in history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// Effective LSN.
    pub lsn: Lsn,
    /// Order of application.
    pub seq: u64,
}

/// Reads a big-endian number at `at`; `None` past the end.
fn be<const N: usize>(b: &[u8], at: usize) -> Option<[u8; N]> {
    b.get(at..at + N)?.try_into().ok()
}

fn be32(b: &[u8], at: usize) -> Option<u32> {
    be(b, at).map(u32::from_be_bytes)
}

fn be64(b: &[u8], at: usize) -> Option<u64> {
    be(b, at).map(u64::from_be_bytes)
}

/// The key bytes of a relation fork.
pub fn rel_key(rel: RelTag) -> [u8; REL_LEN] {
    let mut k = [0; REL_LEN];
    k[0..4].copy_from_slice(&rel.spc_oid.to_be_bytes());
    k[4..8].copy_from_slice(&rel.db_oid.to_be_bytes());
    k[8..12].copy_from_slice(&rel.rel_number.to_be_bytes());
    k[12] = rel.fork;
    k
}

/// The relation fork at the start of a key.
pub fn rel_of(key: &[u8]) -> Result<RelTag> {
    let parse = || {
        Some(RelTag { spc_oid: be32(key, 0)?, db_oid: be32(key, 4)?, rel_number: be32(key, 8)?, fork: *key.get(12)? })
    };
    parse().ok_or_else(|| ServiceError::corrupt("a key of the store is too short"))
}

/// Key of a page version. With `lsn` = R and `seq` = MAX: where a scan for "up to R" starts.
pub fn page_key(rel: RelTag, block: u32, pos: Pos) -> [u8; PAGE_KEY_LEN] {
    let mut k = [0; PAGE_KEY_LEN];
    k[..REL_LEN].copy_from_slice(&rel_key(rel));
    k[13..17].copy_from_slice(&block.to_be_bytes());
    k[17..25].copy_from_slice(&(!pos.lsn).to_be_bytes());
    k[25..33].copy_from_slice(&(!pos.seq).to_be_bytes());
    k
}

/// Block and position of a page key.
pub fn parse_page_key(key: &[u8]) -> Result<(u32, Pos)> {
    let parse = || Some((be32(key, 13)?, Pos { lsn: !be64(key, 17)?, seq: !be64(key, 25)? }));
    parse().ok_or_else(|| ServiceError::corrupt("a page key of the store is too short"))
}

/// Key of a metadata version.
pub fn meta_key(rel: RelTag, pos: Pos) -> [u8; META_KEY_LEN] {
    let mut k = [0; META_KEY_LEN];
    k[..REL_LEN].copy_from_slice(&rel_key(rel));
    k[13..21].copy_from_slice(&(!pos.lsn).to_be_bytes());
    k[21..29].copy_from_slice(&(!pos.seq).to_be_bytes());
    k
}

/// Position of a metadata key.
pub fn parse_meta_key(key: &[u8]) -> Result<Pos> {
    let parse = || Some(Pos { lsn: !be64(key, 13)?, seq: !be64(key, 21)? });
    parse().ok_or_else(|| ServiceError::corrupt("a metadata key of the store is too short"))
}

/// Key of an SLRU segment.
pub fn slru_key(kind: u32, segno: u32) -> [u8; 8] {
    let mut k = [0; 8];
    k[..4].copy_from_slice(&kind.to_be_bytes());
    k[4..].copy_from_slice(&segno.to_be_bytes());
    k
}

/// `bytes` behind a checksum of them and of their key, so that a value under a wrong key is found as well.
pub fn seal(key: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut v = Vec::with_capacity(4 + bytes.len());
    v.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(key), bytes).to_be_bytes());
    v.extend_from_slice(bytes);
    v
}

/// The bytes that were sealed; `None` if they or the key are not those.
pub fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let crc = be32(value, 0)?;
    let bytes = value.get(4..)?;
    (crc32c::crc32c_append(crc32c::crc32c(key), bytes) == crc).then_some(bytes)
}

/// The page in a value, checked.
pub fn unseal_page<'a>(key: &[u8], rel: RelTag, block: u32, value: &'a [u8]) -> Result<&'a [u8]> {
    unseal(key, value).filter(|p| p.len() == PAGE_SIZE).ok_or_else(|| {
        ServiceError::corrupt(format!("block {block} of relation {} does not match its checksum", Rel(rel)))
            .at_block(block)
    })
}

/// A truncate that is still felt: blocks from `blocks` on live since `pos` at the earliest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Blocks that stayed.
    pub blocks: u32,
    /// When.
    pub pos: Pos,
}

/// A version of a relation fork's metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Whether the fork exists.
    pub exists: bool,
    /// Its blocks.
    pub nblocks: u32,
    /// Its create: the incarnation.
    pub born: Pos,
    /// Cuts, ordered by `blocks` and by position alike: a cut to fewer blocks drops the earlier ones to more.
    pub cuts: Vec<Cut>,
}

impl Meta {
    /// When the life of `block` began.
    pub fn life(&self, block: u32) -> Pos {
        let n = self.cuts.partition_point(|c| c.blocks <= block);
        n.checked_sub(1).and_then(|i| self.cuts.get(i)).map_or(self.born, |c| c.pos)
    }

    /// Cuts the fork to `blocks` at `pos`.
    pub fn cut(&mut self, blocks: u32, pos: Pos) {
        while self.cuts.last().is_some_and(|c| c.blocks >= blocks) {
            self.cuts.pop();
        }
        self.cuts.push(Cut { blocks, pos });
        self.nblocks = blocks;
    }

    /// The value for `key`.
    pub fn encode(&self, key: &[u8]) -> Vec<u8> {
        let mut b = Vec::with_capacity(21 + self.cuts.len() * 20);
        b.push(u8::from(self.exists));
        b.extend_from_slice(&self.nblocks.to_be_bytes());
        b.extend_from_slice(&self.born.lsn.to_be_bytes());
        b.extend_from_slice(&self.born.seq.to_be_bytes());
        for c in &self.cuts {
            b.extend_from_slice(&c.blocks.to_be_bytes());
            b.extend_from_slice(&c.pos.lsn.to_be_bytes());
            b.extend_from_slice(&c.pos.seq.to_be_bytes());
        }
        seal(key, &b)
    }

    /// The metadata in a value, checked.
    pub fn decode(key: &[u8], value: &[u8]) -> Result<Self> {
        let parse = || {
            let b = unseal(key, value)?;
            let pos = |at| Some(Pos { lsn: be64(b, at)?, seq: be64(b, at + 8)? });
            let mut m = Self { exists: *b.first()? == 1, nblocks: be32(b, 1)?, born: pos(5)?, cuts: Vec::new() };
            for at in (21..b.len()).step_by(20) {
                m.cuts.push(Cut { blocks: be32(b, at)?, pos: pos(at + 4)? });
            }
            Some(m)
        };
        parse().ok_or_else(|| match rel_of(key) {
            Ok(rel) => ServiceError::corrupt(format!("metadata of relation {} does not match its checksum", Rel(rel))),
            Err(e) => e,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_cut_of_a_block_starts_its_life() {
        let pos = |n| Pos { lsn: n * 10, seq: n };
        let mut m = Meta { exists: true, nblocks: 100, born: pos(1), cuts: Vec::new() };
        m.cut(50, pos(2));
        m.cut(60, pos(3));
        assert_eq!([m.life(49), m.life(50), m.life(59), m.life(60)], [pos(1), pos(2), pos(2), pos(3)]);
        m.cut(55, pos(4));
        assert_eq!([m.life(49), m.life(54), m.life(55), m.life(99)], [pos(1), pos(2), pos(4), pos(4)]);
        m.cut(0, pos(5));
        assert_eq!((m.cuts.len(), m.life(0)), (1, pos(5)));
    }

    #[test]
    fn keys_sort_newest_first_and_parse_back() {
        let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 7, fork: 1 };
        let (old, new) = (Pos { lsn: 5, seq: 9 }, Pos { lsn: 6, seq: 1 });
        assert!(page_key(rel, 3, new) < page_key(rel, 3, old));
        assert!(meta_key(rel, new) < meta_key(rel, old));
        assert_eq!(parse_page_key(&page_key(rel, 3, new)), Ok((3, new)));
        assert_eq!(parse_meta_key(&meta_key(rel, old)), Ok(old));
        assert_eq!(rel_of(&meta_key(rel, old)), Ok(rel));
        assert!(parse_page_key(&[0; 12]).is_err() && parse_meta_key(&[]).is_err() && rel_of(&[1]).is_err());
    }

    #[test]
    fn damaged_values_are_refused() {
        let rel = RelTag::default();
        let key = meta_key(rel, Pos::default());
        let mut meta = Meta { exists: true, nblocks: 9, ..Meta::default() };
        meta.cut(3, Pos { lsn: 1, seq: 2 });
        let good = meta.encode(&key);
        assert_eq!(Meta::decode(&key, &good), Ok(meta));
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            assert_eq!(Meta::decode(&key, &bad).map_err(|e| e.errno), Err(libc::EUCLEAN));
            assert!(Meta::decode(&key, &good[..i]).is_err());
        }
        assert!(unseal(&key[1..], &good).is_none());
    }
}
