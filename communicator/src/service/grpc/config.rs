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

    /// Why a shard is reached in another way by `new`; `None`: it is not.
    pub(super) fn changes(&self, new: &Self, shard: usize) -> Option<&'static str> {
        if self.map.servers.get(shard) != new.map.servers.get(shard) {
            return Some("the shard map has changed");
        }
        if self.token != new.token {
            return Some("the token has changed");
        }
        (self.certificates != new.certificates).then_some("the certificates have changed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_is_said_by_its_name() {
        let ids = "tenant=0000000000000000000000000000000a&timeline=0000000000000000000000000000000b";
        let map = |servers: &str| format!("{servers}?{ids}").parse::<GrpcSpec>().unwrap().load().unwrap();
        let token = |t| Some(Token::new(t).unwrap());
        let config = |servers, t| Config { map: map(servers), token: token(t), certificates: None };
        let old = config("http://a:1,http://b:1", "first");
        assert_eq!(old.changes(&old, 1), None);
        let moved = config("http://a:1,http://c:1", "first");
        assert_eq!((old.changes(&moved, 0), old.changes(&moved, 1)), (None, Some("the shard map has changed")));
        assert_eq!(old.changes(&config("http://a:1,http://b:1", "second"), 0), Some("the token has changed"));
        let certificates = Config { certificates: Some("PEM".into()), ..config("http://a:1,http://b:1", "first") };
        assert_eq!(old.changes(&certificates, 0), Some("the certificates have changed"));
    }
}
