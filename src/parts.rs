//! The parts of a region as references: what protocol code takes instead of a mapping.
//!
//! A real region (region.rs) hands these out over its mapping; the model checks hand them out over vectors. So the same
//! protocol functions run in both.

use crate::buffers::Pools;
use crate::layout::{Cell, Geometry, Header, OwnerStats, RoleStats, SizeSet, Slot, WrittenBucket};
use crate::sync::AtomicU64;

/// References to every part of one region. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'r> {
    /// The header.
    pub header: &'r Header,
    /// Counters of the communicator's role.
    pub role_stats: &'r RoleStats,
    /// The pending bitmap: one bit a slot.
    pub pending: &'r [AtomicU64],
    /// Counters of each owner, at the index of its first slot.
    pub owner_stats: &'r [OwnerStats],
    /// The request slots.
    pub slots: &'r [Slot],
    /// The cells of the submission ring: a power of two.
    pub cells: &'r [Cell],
    /// The buckets of the last-written table; there may be none.
    pub written: &'r [WrittenBucket],
    /// The sets of relation sizes; there may be none.
    pub sizes: &'r [SizeSet],
    /// The buffer pools that this process has registered.
    pub pools: &'r Pools,
    /// Sizes.
    pub geometry: &'r Geometry,
    /// Whether all parties are threads of one process, so that futexes are private.
    pub private: bool,
}
