//! How much memory the caches take.

use crate::service::spec::ServiceSpec;

/// Sizes, in bytes; 0: there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// The page cache.
    pub memory: u64,
    /// The prefetch buffer.
    pub prefetched: u64,
}

impl Sizes {
    /// What a service's pages get unless somebody says otherwise. What changes by itself is not kept.
    #[must_use]
    pub const fn usual(service: &ServiceSpec) -> Self {
        let memory = if service.changes_by_itself() { 0 } else { 64 << 20 };
        Self { memory, prefetched: 16 << 20 }
    }
}
