//! The page service on the wire: what its client and its server share. Feature `grpc`.
//!
//! | file | role |
//! |---|---|
//! | [`proto`] | the messages and stubs that ci/proto.sh makes of `communicator/proto/` |
//! | [`metadata`] | whose pages a call is about: tenant, timeline, shard, token |
//! | [`read`] | relations, LSNs and classes of reads, there and back |
//! | [`mutation`] | mutations and terms, there and back |
//! | [`failure`] | errors, there and back |
//! | [`codec`] | messages to bytes, and back |
//!
//! Which shard has a block says [`shmuring::lsn::shards::Sharding`]. What comes from the other side is checked here: no
//! input makes it panic.

pub mod codec;
pub mod failure;
pub mod metadata;
pub mod mutation;
pub mod proto;
pub mod read;

/// Most blocks of one GetPages request.
pub const MAX_KEYS: usize = 32;
/// Largest frame that either side takes: a message of pages is one, not 17, each with a system call at both ends.
pub const MAX_FRAME: u32 = 1 << 20;
/// Most bytes of what a server takes: a group of 64 mutations of 32 pages each, and some.
pub const MAX_MESSAGE: usize = 24 << 20;
/// Most bytes of what a client takes: 32 pages, a segment, or the results of 64 mutations. Of parts that say nothing a
/// message makes some twenty times its size in memory.
pub const MAX_ANSWER: usize = 1 << 20;
