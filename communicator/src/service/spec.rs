//! Which page service, in a string: what people write on a command line and embedders in a configuration.

#[cfg(feature = "grpc")]
use super::grpc::GrpcSpec;
#[cfg(feature = "standby")]
use super::standby::ConnInfo;
use std::path::PathBuf;
use std::str::FromStr;

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

impl FromStr for ServiceSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once(':') {
            Some(("store", dir)) if !dir.is_empty() => Ok(Self::Store(dir.into())),
            Some(("datadir", dir)) if !dir.is_empty() => Ok(Self::DataDir(dir.into())),
            #[cfg(feature = "grpc")]
            Some(("grpc", servers)) => servers.parse().map(Self::Grpc).map_err(|e| format!("'{s}': {e}")),
            #[cfg(feature = "standby")]
            Some(("standby", at)) => at.parse().map(Self::Standby).map_err(|e| format!("standby: {e}")),
            _ => {
                // Not all of it: who mistypes the kind may have written a password behind it.
                let kind = s.split([':', '=', ' ', '@']).next().unwrap_or_default();
                Err(format!("'{kind}' is none of {}", KINDS.join(", ")))
            }
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
        for wrong in ["standbi:host=a password=secret", "host=a password=secret", "postgresql://u:secret@a/d"] {
            assert!(!wrong.parse::<ServiceSpec>().unwrap_err().contains("secret"), "{wrong}");
        }
    }
}
