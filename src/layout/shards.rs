//! How far each shard of the page service is: told by the communicator, for whoever looks at the region.
//!
//! Every word stands for itself, as a counter does: nothing is decided by it, and a reader that meets a communicator that
//! just takes over sees words of both.

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
use crate::lsn::shards::Sharding;
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
use crate::sync::Ordering;
use crate::sync::Tally;

/// Shards that a region has room for. Of more than that the first ones are told of.
pub const MAX_SHARDS: usize = 64;

/// What a shard of the page service is known to have ingested.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ShardMark {
    /// The watermark: largest LSN that the present connection has proved. Largest number: nothing ever waits for WAL.
    pub proved: Tally,
    /// Largest LSN that it is believed to have.
    pub told: Tally,
    /// When either last rose, ns of CLOCK_MONOTONIC; 0: not yet.
    pub raised_at: Tally,
    /// `waiting << 32 | batches`: reads that wait for WAL, here or at the server; batches of reads that were sent.
    pub waiting: Tally,
}

/// The shards of the page service. The communicator alone writes.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Shards {
    /// Term of the role in which all of it was written.
    pub epoch: Tally,
    /// Shards that there are, which may be more than [`MAX_SHARDS`]; 0: nobody has told yet.
    pub count: Tally,
    /// Blocks of a stripe.
    pub stripe: Tally,
    /// When it was last written, ns of CLOCK_MONOTONIC.
    pub written_at: Tally,
    /// The first ones.
    pub marks: [ShardMark; MAX_SHARDS],
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
impl Shards {
    /// Which shard has a block, as far as was told; 0 where nothing was. Of use to whoever explains a wait.
    #[must_use]
    pub fn shard_of(&self, rel: crate::request::RelTag, block: u32) -> u16 {
        // Relaxed: each word stands for itself. Beyond 16 bits it is damage, and any answer is as good.
        let count = self.count.load(Ordering::Relaxed).try_into().unwrap_or(1);
        let stripe = self.stripe.load(Ordering::Relaxed).try_into().unwrap_or(1);
        Sharding { count, stripe }.block(rel, block)
    }
}

impl Default for Shards {
    fn default() -> Self {
        let zero = || Tally::new(0);
        let (epoch, count, stripe, written_at) = (zero(), zero(), zero(), zero());
        Self { epoch, count, stripe, written_at, marks: core::array::from_fn(|_| ShardMark::default()) }
    }
}
