//! What the service was told: servers, token, certificates, patience.

use super::spec::{GrpcSpec, ShardMap};
use crate::wire::metadata::Token;
use std::time::Duration;

/// How long the service waits for what. The defaults are for use; tests take shorter times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcOptions {
    /// For a connection.
    pub connect: Duration,
    /// For a server that cannot be reached, before a request is told so.
    pub outage: Duration,
    /// For an answer that waits for no WAL.
    pub answer: Duration,
    /// For one that may. The server has its own bound, which usually comes first.
    pub lsn_wait: Duration,
    /// Pause after the first connection that failed; doubles up to `backoff_max`.
    pub backoff: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
}

impl Default for GrpcOptions {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            outage: Duration::from_secs(10),
            answer: Duration::from_secs(10),
            lsn_wait: Duration::from_secs(300),
            backoff: Duration::from_millis(5),
            backoff_max: Duration::from_secs(5),
        }
    }
}

/// One reading of everything that may change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) map: ShardMap,
    pub(super) token: Option<Token>,
    pub(super) certificates: Option<String>,
}

impl Config {
    /// Reads files.
    pub(super) fn load(spec: &GrpcSpec) -> Result<Self, String> {
        let map = spec.load()?;
        let (token, certificates) = (map.token()?, map.certificates()?);
        Ok(Self { map, token, certificates })
    }

    /// Whether a running service can go over to `new`: blocks must stay on their shards.
    pub(super) fn can_become(&self, new: &Self) -> Result<(), String> {
        let (a, b) = (&self.map, &new.map);
        if a.sharding() != b.sharding() {
            let (a, b) = (a.sharding(), b.sharding());
            return Err(format!(
                "{} shards of stripes of {} blocks cannot become {} of {} while serving: take over with `serve --replace`",
                a.count, a.stripe, b.count, b.stripe
            ));
        }
        if (a.tenant, a.timeline) != (b.tenant, b.timeline) {
            return Err("another tenant or timeline is another history: serve a new region".into());
        }
        Ok(())
    }

    /// Whether a shard is reached as before.
    pub(super) fn same(&self, new: &Self, shard: usize) -> bool {
        self.map.servers.get(shard) == new.map.servers.get(shard)
            && self.token == new.token
            && self.certificates == new.certificates
    }
}
