//! Opens the page service that a string names.

use super::datadir::{Condition, DataDir, DataDirOptions};
#[cfg(feature = "grpc")]
use super::grpc::{GrpcOptions, GrpcService};
use super::spec::ServiceSpec;
#[cfg(feature = "standby")]
use super::standby::Standby;
use super::store::{Store, StoreOptions};
use super::{PageService, Result};
use std::sync::Arc;
use tokio::runtime::Handle;

impl ServiceSpec {
    /// Whether there is what the service would read; a store that is not there would be made.
    #[must_use]
    pub fn exists(&self) -> bool {
        match self {
            Self::Store(dir) => super::store::is_store(dir),
            Self::DataDir(dir) => dir.exists(),
            // They say so themselves; nothing is made.
            #[cfg(feature = "grpc")]
            Self::Grpc(_) => true,
            // It may be away for a while; nothing is made there.
            #[cfg(feature = "standby")]
            Self::Standby(_) => true,
        }
    }

    /// Opens the service; a store gathers so many bytes of writes in memory. Blocks on the filesystem, or on the network
    /// through `runtime`, which must outlive the service; call it outside of async code.
    pub fn open(&self, memtable_bytes: u64, runtime: &Handle) -> Result<Arc<dyn PageService>> {
        let _ = runtime;
        Ok(match self {
            Self::Store(dir) => Arc::new(Store::open(dir, StoreOptions { memtable_bytes, ..StoreOptions::default() })?),
            Self::DataDir(dir) => {
                if let Some(warning) = Condition::of(dir)?.warning(dir) {
                    tracing::warn!("{warning}");
                }
                Arc::new(DataDir::open(dir, &DataDirOptions::default())?)
            }
            #[cfg(feature = "grpc")]
            Self::Grpc(servers) => Arc::new(GrpcService::open(servers, GrpcOptions::default())?),
            #[cfg(feature = "standby")]
            Self::Standby(at) => Arc::new(Standby::open(at, runtime)?),
        })
    }
}
