//! Which page service, in a string: what people write on a command line and embedders in a configuration.

use super::datadir::{Condition, DataDir, DataDirOptions};
#[cfg(feature = "grpc")]
use super::grpc::{GrpcOptions, GrpcService, GrpcSpec};
#[cfg(feature = "standby")]
use super::standby::{ConnInfo, Standby};
use super::store::{Store, StoreOptions};
use super::{PageService, Result};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use tokio::runtime::Handle;

/// A page service by name: `store:DIR`, `datadir:DIR`, `standby:CONNINFO` or `grpc:SERVERS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceSpec {
    /// Embedded pages in a directory, which is made if it is missing.
    Store(PathBuf),
    /// Read-only pages of a PostgreSQL data directory.
    DataDir(PathBuf),
    /// Page servers across the network.
    #[cfg(feature = "grpc")]
    Grpc(GrpcSpec),
    /// Pages of a PostgreSQL hot standby.
    #[cfg(feature = "standby")]
    Standby(ConnInfo),
}

/// What there is in this build, for the error that says so.
const KINDS: &[&str] = &[
    "store:DIR",
    "datadir:DIR",
    #[cfg(feature = "standby")]
    "standby:CONNINFO",
    #[cfg(feature = "grpc")]
    "grpc:SERVERS",
];

/// What this build was made without, for another error.
const LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "standby"))]
    "standby",
    #[cfg(not(feature = "grpc"))]
    "grpc",
];

impl FromStr for ServiceSpec {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        match s.split_once(':') {
            Some(("store", dir)) if !dir.is_empty() => Ok(Self::Store(dir.into())),
            Some(("datadir", dir)) if !dir.is_empty() => Ok(Self::DataDir(dir.into())),
            #[cfg(feature = "grpc")]
            Some(("grpc", servers)) => servers.parse().map(Self::Grpc).map_err(|e| format!("'{s}': {e}")),
            #[cfg(feature = "standby")]
            Some(("standby", at)) => at.parse().map(Self::Standby).map_err(|e| format!("standby: {e}")),
            Some((kind, _)) if LEFT_OUT.contains(&kind) => {
                Err(format!("'{s}': this build was made without the page service {kind}; it has {}", KINDS.join(", ")))
            }
            _ => Err(format!("'{s}' is none of {}", KINDS.join(", "))),
        }
    }
}

impl std::fmt::Display for ServiceSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(dir) => write!(f, "store:{}", dir.display()),
            Self::DataDir(dir) => write!(f, "datadir:{}", dir.display()),
            #[cfg(feature = "grpc")]
            Self::Grpc(servers) => write!(f, "grpc:{servers}"),
            #[cfg(feature = "standby")]
            Self::Standby(at) => write!(f, "standby:{at}"),
        }
    }
}

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

    /// Whether its pages change by other means than requests, so that keeping them is for those who ask for it.
    #[must_use]
    pub const fn changes_by_itself(&self) -> bool {
        match self {
            Self::DataDir(_) => true,
            #[cfg(feature = "standby")]
            Self::Standby(_) => true,
            _ => false,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_parse_and_nonsense_does_not() {
        assert_eq!("store:/a:b".parse(), Ok(ServiceSpec::Store("/a:b".into())));
        assert_eq!("datadir:d".parse(), Ok(ServiceSpec::DataDir("d".into())));
        for wrong in ["store", "store:", "s3:/x", "/x", "standby", "standby:", "standby:port=1"] {
            assert!(wrong.parse::<ServiceSpec>().is_err(), "{wrong}");
        }
        for kind in LEFT_OUT {
            let why = format!("{kind}:somewhere").parse::<ServiceSpec>().unwrap_err();
            assert!(why.contains(&format!("without the page service {kind}")), "{why}");
        }
    }
}
