//! Which shard has a block: the page service's rule. Main data of relations is spread in stripes; all else is on shard 0.

use crate::request::RelTag;

/// How a tenant is cut into shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sharding {
    /// Number of shards; 0 and 1: not cut.
    pub count: u16,
    /// Blocks of a stripe; 0 counts as 1.
    pub stripe: u32,
}

impl Sharding {
    /// One shard.
    pub const NONE: Self = Self { count: 1, stripe: 32_768 };

    /// Whether the blocks of a fork are spread, so that each shard must hear of its size. Those of an init fork (fork 3)
    /// are not.
    #[must_use]
    #[inline]
    pub const fn spreads(&self, rel: RelTag) -> bool {
        self.count >= 2 && rel.fork != 3
    }

    /// The shard of a block; of a fork that is not spread, 0.
    #[must_use]
    #[inline]
    pub const fn block(&self, rel: RelTag, block: u32) -> u16 {
        if !self.spreads(rel) {
            return 0;
        }
        let stripe = if self.stripe == 0 { 1 } else { self.stripe };
        let hash = combine(finalize(rel.rel_number), finalize(block / stripe));
        (hash % self.count as u32) as u16
    }
}

/// The last step of MurmurHash3, 32 bits.
const fn finalize(mut h: u32) -> u32 {
    h ^= h >> 16;
    h = h.wrapping_mul(0x85eb_ca6b);
    h ^= h >> 13;
    h = h.wrapping_mul(0xc2b2_ae35);
    h ^ (h >> 16)
}

const fn combine(a: u32, b: u32) -> u32 {
    a ^ b.wrapping_add(0x9e37_79b9).wrapping_add(a << 6).wrapping_add(a >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_values_hold() {
        assert_eq!(finalize(0), 0);
        assert_eq!(combine(0xb1ff_3b40, 0), 0xfb79_23c9);
        let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 0x400c, fork: 0 };
        assert_eq!(Sharding { count: 10, stripe: 32_768 }.block(rel, 0x7d06), 8);
        assert_eq!(Sharding { count: 10, stripe: 32_768 }.block(RelTag { fork: 3, ..rel }, 0x7d06), 0);
        assert_eq!(Sharding { count: 1, stripe: 0 }.block(rel, 9), 0);
    }
}
