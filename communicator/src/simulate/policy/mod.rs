//! How reads are sent: four ways, for the same reads at the same times.
//!
//! | policy | n of a read | connections |
//! |---|---|---|
//! | [`latest`] | the end of the WAL | as many streams as `shmuring` has for READY reads, first in first out |
//! | [`libpq`] | Neon's last-written cache, per block | one pagestream for each backend and shard |
//! | [`neon_communicator`] | the same cache, the largest over a vector; sizes: the global maximum | a stream for each request |
//! | [`shmuring`] | each block's own | as the scheduler says |

pub mod latest;
pub mod libpq;
mod lru;
pub mod neon_communicator;
pub mod shmuring;

use super::connection::WireReply;
use super::scenario::Time;
use super::world::{Conn, World};
use ::shmuring::request::Lsn;

/// A way to send reads.
pub trait Policy {
    /// A change (index into the scenario's) was written, and its block left the buffers.
    fn change(&mut self, world: &mut World<'_>, change: usize);
    /// A backend is about to submit a request: the LSNs are looked up now.
    fn look_up(&mut self, _world: &World<'_>, _request: usize) {}
    /// A request (index into the scenario's arrivals) is submitted; its blocks are in the ledger.
    fn arrive(&mut self, world: &mut World<'_>, request: usize);
    /// An answer has come.
    fn reply(&mut self, world: &mut World<'_>, conn: Conn, reply: WireReply);
    /// All connections to a shard broke.
    fn lost(&mut self, world: &mut World<'_>, shard: usize);
    /// A shard can be reached again; `durable`: what its process surely has.
    fn up(&mut self, world: &mut World<'_>, shard: usize, durable: Lsn);
    /// A server said what it has: its last record, and what is durable.
    fn heard(&mut self, _world: &mut World<'_>, _shard: usize, _lsn: Lsn, _durable: Lsn) {}
    /// A timer has run out.
    fn timer(&mut self, _world: &mut World<'_>, _token: u64) {}
    /// Whether anything that is no read is under way.
    fn is_busy(&self) -> bool {
        false
    }
    /// Head-of-line time avoided, as the policy counts it itself.
    fn hol_avoided(&self) -> Time {
        0
    }
}
