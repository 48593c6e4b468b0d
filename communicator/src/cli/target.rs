//! What commands name: relation forks and page services.

use super::Failure;
use crate::service::datadir::{DataDir, DataDirOptions};
use crate::service::store::{Store, StoreOptions};
use crate::service::PageService;
use shmuring::request::RelTag;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// A relation fork on the command line: `SPC/DB/REL` or `SPC/DB/REL.FORK`, numbers as PostgreSQL's file names have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RelArg(pub(super) RelTag);

impl FromStr for RelArg {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("'{s}' is not SPC/DB/REL or SPC/DB/REL.FORK (FORK: main, fsm, vm, init or 0 to 3)");
        let (path, fork) = s.split_once('.').unwrap_or((s, "main"));
        let fork = match fork {
            "main" | "0" => 0,
            "fsm" | "1" => 1,
            "vm" | "2" => 2,
            "init" | "3" => 3,
            _ => return Err(wrong()),
        };
        let mut numbers = path.split('/').map(str::parse::<u32>);
        let (Some(Ok(spc_oid)), Some(Ok(db_oid)), Some(Ok(rel_number)), None) =
            (numbers.next(), numbers.next(), numbers.next(), numbers.next())
        else {
            return Err(wrong());
        };
        Ok(Self(RelTag { spc_oid, db_oid, rel_number, fork }))
    }
}

/// A page service on the command line: `store:DIR` or `datadir:DIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ServiceArg {
    Store(PathBuf),
    DataDir(PathBuf),
}

impl FromStr for ServiceArg {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once(':') {
            Some(("store", dir)) if !dir.is_empty() => Ok(Self::Store(dir.into())),
            Some(("datadir", dir)) if !dir.is_empty() => Ok(Self::DataDir(dir.into())),
            _ => Err(format!("'{s}' is not store:DIR or datadir:DIR")),
        }
    }
}

impl std::fmt::Display for ServiceArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Store(dir) => write!(f, "store:{}", dir.display()),
            Self::DataDir(dir) => write!(f, "datadir:{}", dir.display()),
        }
    }
}

impl ServiceArg {
    /// Opens the service.
    pub(super) fn open(&self) -> Result<Arc<dyn PageService>, Failure> {
        Ok(match self {
            Self::Store(dir) => {
                Arc::new(Store::open(dir, StoreOptions::default()).map_err(|e| format!("{self}: {e}"))?)
            }
            Self::DataDir(dir) => {
                Arc::new(DataDir::open(dir, &DataDirOptions::default()).map_err(|e| format!("{self}: {e}"))?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relations_parse_with_and_without_a_fork_and_nonsense_does_not() {
        let rel = |fork| RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork };
        assert_eq!("1663/5/16384".parse(), Ok(RelArg(rel(0))));
        assert_eq!("1663/5/16384.vm".parse(), Ok(RelArg(rel(2))));
        for wrong in ["", "1/2", "1/2/3/4", "1/2/x", "1/2/3.frog", "-1/2/3"] {
            assert!(wrong.parse::<RelArg>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn services_parse_and_nonsense_does_not() {
        assert_eq!("store:/a:b".parse(), Ok(ServiceArg::Store("/a:b".into())));
        for wrong in ["store", "store:", "s3:/x", "/x"] {
            assert!(wrong.parse::<ServiceArg>().is_err(), "{wrong}");
        }
    }
}
