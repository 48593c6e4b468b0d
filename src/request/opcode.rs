//! What can be asked for: sixteen operations, and the properties of each.

use super::MAX_BLOCKS;

/// What a request asks for. The numbers are ABI and append-only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Nothing; completes with 0. For probes and benchmarks.
    Nop = 0,
    /// Read 1 to 32 consecutive blocks.
    GetPage = 1,
    /// Bring 1 to 32 consecutive blocks near; carries no buffer.
    Prefetch = 2,
    /// Size of a relation fork, in blocks.
    RelSize = 3,
    /// Whether a relation fork exists: value 1 or 0.
    RelExists = 4,
    /// Size of a database, in bytes.
    DbSize = 5,
    /// Read an SLRU segment (`rel.rel_number` = kind: 0 clog, 1 multixact members, 2 multixact offsets; `block` = segment
    /// number) into up to 32 buffers; the value is its length in bytes.
    ReadSlru = 6,
    /// Write 1 to 32 consecutive blocks that exist.
    WritePage = 7,
    /// Write block `block`, and grow the relation to hold it. Names the block absolutely, so that it may be run again (R4).
    Extend = 8,
    /// Grow the relation by `arg` zero blocks from block `block` on.
    ZeroExtend = 9,
    /// Make a relation fork of 0 blocks.
    Create = 10,
    /// Cut a relation fork down to `block` blocks.
    Truncate = 11,
    /// Remove a relation fork.
    Unlink = 12,
    /// The relation now has `block` blocks, written by other means (the end of an index build).
    UpdateRelSize = 13,
    /// Read 1 to 32 blocks as of exactly `request_lsn`, past every cache.
    GetPageAt = 14,
    /// Make every mutation that completed before this one was submitted durable.
    Sync = 15,
}

impl Opcode {
    /// Every opcode, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Nop,
        Self::GetPage,
        Self::Prefetch,
        Self::RelSize,
        Self::RelExists,
        Self::DbSize,
        Self::ReadSlru,
        Self::WritePage,
        Self::Extend,
        Self::ZeroExtend,
        Self::Create,
        Self::Truncate,
        Self::Unlink,
        Self::UpdateRelSize,
        Self::GetPageAt,
        Self::Sync,
    ];

    /// The opcode of this number.
    #[must_use]
    #[inline]
    pub const fn from_u8(n: u8) -> Option<Self> {
        // A match, which costs a compare; a look into `ALL` would be a load more.
        match n {
            0 => Some(Self::Nop),
            1 => Some(Self::GetPage),
            2 => Some(Self::Prefetch),
            3 => Some(Self::RelSize),
            4 => Some(Self::RelExists),
            5 => Some(Self::DbSize),
            6 => Some(Self::ReadSlru),
            7 => Some(Self::WritePage),
            8 => Some(Self::Extend),
            9 => Some(Self::ZeroExtend),
            10 => Some(Self::Create),
            11 => Some(Self::Truncate),
            12 => Some(Self::Unlink),
            13 => Some(Self::UpdateRelSize),
            14 => Some(Self::GetPageAt),
            15 => Some(Self::Sync),
            _ => None,
        }
    }

    /// The name used in logs, metrics, C (`SHMURING_OP_` in capitals) and docs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nop => "nop",
            Self::GetPage => "get_page",
            Self::Prefetch => "prefetch",
            Self::RelSize => "rel_size",
            Self::RelExists => "rel_exists",
            Self::DbSize => "db_size",
            Self::ReadSlru => "read_slru",
            Self::WritePage => "write_page",
            Self::Extend => "extend",
            Self::ZeroExtend => "zero_extend",
            Self::Create => "create",
            Self::Truncate => "truncate",
            Self::Unlink => "unlink",
            Self::UpdateRelSize => "update_rel_size",
            Self::GetPageAt => "get_page_at",
            Self::Sync => "sync",
        }
    }

    /// Whether it changes what later requests see: never abandoned once claimed, re-run in claim order (R4).
    #[must_use]
    #[inline]
    pub const fn is_mutation(self) -> bool {
        matches!(
            self,
            Self::WritePage
                | Self::Extend
                | Self::ZeroExtend
                | Self::Create
                | Self::Truncate
                | Self::Unlink
                | Self::UpdateRelSize
                | Self::Sync
        )
    }

    /// Whether the communicator writes pages into its buffers.
    #[must_use]
    #[inline]
    pub const fn fills_buffers(self) -> bool {
        matches!(self, Self::GetPage | Self::GetPageAt | Self::ReadSlru)
    }

    /// Whether the communicator takes page images from its buffers.
    #[must_use]
    #[inline]
    pub const fn takes_images(self) -> bool {
        matches!(self, Self::WritePage | Self::Extend)
    }

    /// Whether it names buffers at all.
    #[must_use]
    #[inline]
    pub const fn has_buffers(self) -> bool {
        self.fills_buffers() || self.takes_images()
    }

    /// The largest number of blocks (for `read_slru`: buffers) that it takes; 0 if it takes none.
    #[must_use]
    #[inline]
    pub const fn max_blocks(self) -> usize {
        match self {
            Self::GetPage | Self::GetPageAt | Self::Prefetch | Self::ReadSlru | Self::WritePage => MAX_BLOCKS,
            Self::Extend => 1,
            _ => 0,
        }
    }
}
