//! What a request touches, and how. Two requests that conflict on a key are never in flight together (R4).
//!
//! Keys form a tree: blocks and the size of a relation lie under the relation, that under its database. A request takes
//! its own keys, and declares on the keys above that it is within. R4's matrix falls out:
//!
//! | | read of block b | write of b | extend by b | size | truncate, create, unlink |
//! |---|---|---|---|---|---|
//! | read of block b | joins, or apart | excl. | excl. | – | excl. |
//! | write of b | | excl. | excl. | – | excl. |
//! | extend by c ≠ b | – | – | excl. | excl. | excl. |
//! | size | | | excl. | joins | excl. |
//!
//! and whatever takes a database whole excludes everything in it.

use crate::request::{Opcode, RelTag};

/// A thing that requests can touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// A block.
    Block(RelTag, u32),
    /// The size of a relation fork.
    Size(RelTag),
    /// A relation fork as a whole.
    Relation(RelTag),
    /// The size of a database.
    DbSize(u32),
    /// A database as a whole.
    Database(u32),
    /// An SLRU segment.
    Slru(u32, u32),
    /// Nothing: never conflicts, never joins.
    None,
}

impl Key {
    /// The key that this one lies under.
    #[must_use]
    pub const fn parent(self) -> Option<Self> {
        match self {
            Self::Block(rel, _) | Self::Size(rel) => Some(Self::Relation(rel)),
            Self::Relation(rel) => Some(Self::Database(rel.db_oid)),
            Self::DbSize(db) => Some(Self::Database(db)),
            Self::Database(_) | Self::Slru(..) | Self::None => None,
        }
    }

    /// Numbers that tell it from every other key.
    pub(super) const fn words(self) -> [u64; 3] {
        const fn rel(kind: u64, r: RelTag, block: u32) -> [u64; 3] {
            [
                (r.spc_oid as u64) << 32 | r.db_oid as u64,
                (r.rel_number as u64) << 32 | block as u64,
                kind << 8 | r.fork as u64,
            ]
        }
        match self {
            Self::Block(r, b) => rel(1, r, b),
            Self::Size(r) => rel(2, r, 0),
            Self::Relation(r) => rel(3, r, 0),
            Self::DbSize(db) => [db as u64, 0, 4 << 8],
            Self::Database(db) => [db as u64, 0, 5 << 8],
            Self::Slru(kind, segno) => [kind as u64, segno as u64, 6 << 8],
            Self::None => [0, 0, 0],
        }
    }
}

impl core::fmt::Display for Key {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let rel = |f: &mut core::fmt::Formatter<'_>, r: &RelTag| {
            write!(f, "{}/{}/{}.{}", r.spc_oid, r.db_oid, r.rel_number, r.fork)
        };
        match self {
            Self::Block(r, b) => rel(f, r).and_then(|()| write!(f, " block {b}")),
            Self::Size(r) => rel(f, r).and_then(|()| f.write_str(" size")),
            Self::Relation(r) => rel(f, r),
            Self::DbSize(db) => write!(f, "database {db} size"),
            Self::Database(db) => write!(f, "database {db}"),
            Self::Slru(kind, segno) => write!(f, "slru {kind} segment {segno}"),
            Self::None => f.write_str("nothing"),
        }
    }
}

/// How a request touches a key. Each is a bit, so that a set of them is a mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// Reads the key itself.
    Read = 1,
    /// Changes the key itself.
    Write = 2,
    /// Reads something under it.
    ReadsWithin = 4,
    /// Changes something under it.
    WritesWithin = 8,
    /// Changes all of it: nothing under it may be in flight.
    Whole = 16,
}

/// Who keeps mutations that conflict in the order of their claims.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MutationOrder {
    /// One lane, first in first out, groups applied one after the other and answered in order: for stores with one writer.
    /// Mutations of a group may conflict with each other, since the service applies a group in order.
    #[default]
    Lane,
    /// Their keys: mutations that do not conflict are in flight together.
    Keys,
}

impl Mode {
    /// The modes that exclude this one on the same key.
    #[must_use]
    #[inline]
    pub const fn conflicts(self, order: MutationOrder) -> u8 {
        let keys = matches!(order, MutationOrder::Keys);
        match self {
            Self::Read => Self::Write as u8 | Self::Whole as u8,
            Self::Write => Self::Read as u8 | if keys { Self::Write as u8 } else { 0 },
            Self::ReadsWithin => Self::Whole as u8,
            Self::WritesWithin => {
                if keys {
                    Self::Whole as u8
                } else {
                    0
                }
            }
            Self::Whole => {
                let mutations = Self::Write as u8 | Self::WritesWithin as u8 | Self::Whole as u8;
                Self::Read as u8 | Self::ReadsWithin as u8 | if keys { mutations } else { 0 }
            }
        }
    }

    /// What the request does to the keys above.
    #[must_use]
    pub const fn above(self) -> Self {
        match self {
            Self::Read | Self::ReadsWithin => Self::ReadsWithin,
            Self::Write | Self::WritesWithin | Self::Whole => Self::WritesWithin,
        }
    }
}

/// Most blocks that a mutation names one by one; one that grows a relation by more takes it whole.
const NAMED: u32 = 32;

/// What a request touches: at most [`NAMED`] blocks and a size, without the keys above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads one key; a vectored read is one such access a block.
    Read(Key),
    /// Changes blocks that exist.
    Write(RelTag, u32, u32),
    /// Changes blocks at the end, and the size.
    Extend(RelTag, u32, u32),
    /// Changes a key as a whole.
    Whole(Key),
    /// What touches nothing (sync).
    Nothing,
}

impl Access {
    /// What a mutation touches; `None` for reads. (A nop counts as a mutation that touches nothing.)
    #[must_use]
    pub const fn of_mutation(op: Opcode, rel: RelTag, block: u32, count: u8, arg: u32) -> Option<Self> {
        Some(match op {
            Opcode::WritePage => Self::Write(rel, block, count as u32),
            Opcode::Extend => Self::Extend(rel, block, 1),
            Opcode::ZeroExtend if arg <= NAMED => Self::Extend(rel, block, arg),
            Opcode::ZeroExtend | Opcode::Create | Opcode::Truncate | Opcode::Unlink | Opcode::UpdateRelSize => {
                Self::Whole(Key::Relation(rel))
            }
            Opcode::Sync | Opcode::Nop => Self::Nothing,
            _ => return None,
        })
    }

    /// The key that a read of block `i` of a request touches; `None` for mutations.
    #[must_use]
    pub const fn of_read(op: Opcode, rel: RelTag, block: u32) -> Option<Key> {
        Some(match op {
            Opcode::GetPage | Opcode::GetPageAt | Opcode::Prefetch => Key::Block(rel, block),
            Opcode::RelSize | Opcode::RelExists => Key::Size(rel),
            Opcode::DbSize => Key::DbSize(rel.db_oid),
            Opcode::ReadSlru => Key::Slru(rel.rel_number, block),
            _ => return None,
        })
    }

    /// Calls `each` for every key and mode, those above aside.
    pub fn each(self, mut each: impl FnMut(Key, Mode)) {
        let mut blocks = |rel, first: u32, count: u32| {
            for i in 0..count.min(NAMED) {
                each(Key::Block(rel, first.saturating_add(i)), Mode::Write);
            }
        };
        match self {
            Self::Read(key) => each(key, Mode::Read),
            Self::Write(rel, first, count) => blocks(rel, first, count),
            Self::Extend(rel, first, count) => {
                blocks(rel, first, count);
                each(Key::Size(rel), Mode::Write);
            }
            Self::Whole(key) => each(key, Mode::Whole),
            Self::Nothing => {}
        }
    }
}
