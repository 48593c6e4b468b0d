//! Which servers, in a string or a file.
//!
//! ```text
//! http://h1:6400,http://h2:6400?tenant=HEX&timeline=HEX&stripe=BLOCKS&token_file=FILE&ca_file=FILE
//! ```
//! The servers are those of shards 0, 1, ... Or a path: a file of the same settings, `NAME = VALUE` a line, with
//! `shard.0 = http://h1:6400` and so on; it is read again when the service is told to ([`PageService::reload`]).
//!
//! [`PageService::reload`]: super::super::PageService::reload

use crate::wire::metadata::{Id, ShardId, Target, Token};
use shmuring::lsn::shards::Sharding;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tonic::codegen::http::Uri;

/// Most shards: their numbers have two hex digits.
const MOST: usize = 255;

/// Where the servers are said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcSpec {
    /// In the string itself.
    Inline(Box<ShardMap>),
    /// In this file.
    File(PathBuf),
}

/// The servers of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardMap {
    /// The server of each shard.
    pub servers: Vec<String>,
    /// Blocks of a stripe.
    pub stripe: u32,
    /// The tenant.
    pub tenant: Id,
    /// The timeline.
    pub timeline: Id,
    /// A file with the bearer token.
    pub token_file: Option<PathBuf>,
    /// A file with the certificates that servers' ones are checked with, PEM; for `https`.
    pub ca_file: Option<PathBuf>,
}

/// Settings as they are read.
#[derive(Default)]
struct Raw<'a> {
    servers: BTreeMap<usize, &'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl FromStr for GrpcSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if !s.contains("://") {
            return if s.is_empty() { Err("no server is named".into()) } else { Ok(Self::File(s.into())) };
        }
        let (servers, settings) = s.split_once('?').unwrap_or((s, ""));
        let servers = servers.split(',').map(str::trim).enumerate().filter(|(_, s)| !s.is_empty());
        let mut raw = Raw { servers: servers.collect(), ..Raw::default() };
        if s.split('?').next().is_some_and(|s| s.ends_with(',')) {
            return Err("the list of servers ends with a comma: is one missing?".into());
        }
        for setting in settings.split('&').filter(|s| !s.is_empty()) {
            let (name, value) = setting.split_once('=').ok_or_else(|| format!("'{setting}' is not NAME=VALUE"))?;
            raw.set(name, value)?;
        }
        raw.map().map(|map| Self::Inline(Box::new(map)))
    }
}

impl fmt::Display for GrpcSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(map) => map.fmt(f),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl fmt::Display for ShardMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { servers, stripe, tenant, timeline, token_file, ca_file } = self;
        write!(f, "{}?tenant={tenant}&timeline={timeline}&stripe={stripe}", servers.join(","))?;
        for (name, file) in [("token_file", token_file), ("ca_file", ca_file)] {
            if let Some(file) = file {
                write!(f, "&{name}={}", file.display())?;
            }
        }
        Ok(())
    }
}

impl GrpcSpec {
    /// The servers as they are said to be now. Reads the file, if it is one.
    pub fn load(&self) -> Result<ShardMap, String> {
        match self {
            Self::Inline(map) => Ok((**map).clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
                ShardMap::parse(&text).map_err(|e| format!("{}: {e}", path.display()))
            }
        }
    }
}

impl ShardMap {
    /// The text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut raw = Raw::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.split('#').next().unwrap_or("").trim();
            if line.is_empty() {
                continue;
            }
            let wrong = |e: String| format!("line {number}: {e}");
            let (name, value) = line.split_once('=').ok_or_else(|| wrong(format!("'{line}' is not NAME = VALUE")))?;
            let (name, value) = (name.trim(), value.trim());
            match name.strip_prefix("shard.") {
                Some(shard) => {
                    let shard = shard.parse().map_err(|_| wrong(format!("'{shard}' is not the number of a shard")))?;
                    if raw.servers.insert(shard, value).is_some() {
                        return Err(wrong(format!("shard {shard} has a server already")));
                    }
                }
                None => raw.set(name, value).map_err(wrong)?,
            }
        }
        raw.map()
    }

    /// How blocks are spread.
    #[must_use]
    pub fn sharding(&self) -> Sharding {
        Sharding { count: self.servers.len() as u16, stripe: self.stripe }
    }

    /// The metadata of calls to a shard.
    #[must_use]
    pub fn target(&self, shard: usize) -> Target {
        let shard = match self.servers.len() {
            0 | 1 => ShardId::default(),
            count => ShardId { number: shard as u8, count: count as u8 },
        };
        Target { tenant: self.tenant, timeline: self.timeline, shard }
    }

    /// The token as its file has it now.
    pub fn token(&self) -> Result<Option<Token>, String> {
        let Some(file) = &self.token_file else { return Ok(None) };
        let token = read(file, "token_file")?;
        Token::new(token.trim()).map(Some).map_err(|e| format!("token_file {}: {e}", file.display()))
    }

    /// The certificates as their file has them now.
    pub fn certificates(&self) -> Result<Option<String>, String> {
        self.ca_file.as_ref().map(|file| read(file, "ca_file")).transpose()
    }
}

fn read(file: &Path, name: &str) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|e| format!("{name} {}: {e}", file.display()))
}

impl<'a> Raw<'a> {
    fn set(&mut self, name: &'a str, value: &'a str) -> Result<(), String> {
        if !["tenant", "timeline", "stripe", "token_file", "ca_file"].contains(&name) {
            return Err(format!("there is no setting '{name}'"));
        }
        if value.is_empty() {
            return Err(format!("{name} has no value"));
        }
        match self.named.insert(name, value) {
            Some(_) => Err(format!("{name} is set twice")),
            None => Ok(()),
        }
    }

    fn map(self) -> Result<ShardMap, String> {
        let count = self.servers.last_key_value().map_or(0, |(n, _)| n.saturating_add(1));
        if count == 0 || count > MOST {
            return Err(format!("there are from 1 to {MOST} shards, not {count}"));
        }
        let server = |shard| match self.servers.get(&shard) {
            Some(server) => address(server).map(|()| (*server).to_string()),
            None => Err(format!("shard {shard} of {count} has no server")),
        };
        let servers = (0..count).map(server).collect::<Result<_, _>>()?;
        let id = |name| -> Result<Id, String> {
            let value = self.named.get(name).ok_or_else(|| format!("{name} is missing"))?;
            value.parse().map_err(|e| format!("{name}: {e}"))
        };
        let stripe = match self.named.get("stripe") {
            Some(n) => n.parse().ok().filter(|n| *n > 0).ok_or_else(|| format!("stripe: '{n}' is not a count"))?,
            None => Sharding::NONE.stripe,
        };
        let file = |name| self.named.get(name).map(|f| PathBuf::from(*f));
        let (tenant, timeline) = (id("tenant")?, id("timeline")?);
        Ok(ShardMap { servers, stripe, tenant, timeline, token_file: file("token_file"), ca_file: file("ca_file") })
    }
}

/// Checks that a server is `http://HOST:PORT` or `https://HOST:PORT`.
fn address(server: &str) -> Result<(), String> {
    let wrong = || format!("'{server}' is not http://HOST:PORT or https://HOST:PORT");
    let uri: Uri = server.parse().map_err(|_| wrong())?;
    let is_whole = matches!(uri.scheme_str(), Some("http" | "https"))
        && uri.port_u16().is_some()
        && uri.path_and_query().is_none_or(|p| p.as_str() == "/");
    if is_whole {
        Ok(())
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: &str = "tenant=0000000000000000000000000000000a&timeline=0000000000000000000000000000000b";

    #[test]
    fn a_spec_says_the_same_as_a_string_and_as_a_file() {
        let text = format!("http://a:1,https://b:2?{IDS}&stripe=8&token_file=/t&ca_file=/c");
        let inline: GrpcSpec = text.parse().unwrap();
        let map = inline.load().unwrap();
        assert_eq!(inline.to_string().parse(), Ok(inline));
        let lines = format!(
            "# servers\nshard.1 = https://b:2\nshard.0=http://a:1\n{}\nstripe = 8\ntoken_file = /t\nca_file = /c\n",
            IDS.replace('&', "\n")
        );
        assert_eq!(ShardMap::parse(&lines), Ok(map.clone()));
        assert_eq!(map.sharding(), Sharding { count: 2, stripe: 8 });
        assert_eq!(map.target(1).shard.to_string(), "0102");
        let one: GrpcSpec = format!("http://a:1?{IDS}").parse().unwrap();
        assert_eq!(one.load().unwrap().target(0).shard.to_string(), "0000");
        assert_eq!("/etc/shards".parse(), Ok(GrpcSpec::File("/etc/shards".into())));
    }

    #[test]
    fn maps_that_make_no_sense_say_why() {
        for (spec, says) in [
            ("http://a:1,,http://c:3?", "shard 1 of 3 has no server"),
            ("http://a:1,?", "ends with a comma"),
            ("http://a?", "'http://a' is not http://HOST:PORT"),
            ("ftp://a:1?", "'ftp://a:1' is not"),
            ("http://a:1/x?", "'http://a:1/x' is not"),
            ("http://a:1?frog=1", "no setting 'frog'"),
            ("http://a:1?tenant", "'tenant' is not NAME=VALUE"),
            ("http://a:1?tenant=1", "tenant: '1' is not 32 hex digits"),
            ("http://a:1", "tenant is missing"),
            ("http://a:1?stripe=0&", "stripe: '0' is not a count"),
        ] {
            let spec = if spec.ends_with('?') || spec.ends_with('&') { format!("{spec}{IDS}") } else { spec.into() };
            let e = spec.parse::<GrpcSpec>().unwrap_err();
            assert!(e.contains(says), "{spec}: {e}");
        }
        let hole = format!("shard.0 = http://a:1\nshard.2 = http://c:1\n{}", IDS.replace('&', "\n"));
        assert!(ShardMap::parse(&hole).unwrap_err().contains("shard 1 of 3 has no server"));
        assert!(ShardMap::parse("shard.0 = http://a:1\nshard.0 = http://b:1").unwrap_err().contains("line 2"));
        assert!(ShardMap::parse("shard.300 = http://a:1").unwrap_err().contains("255"));
        let missing = GrpcSpec::File("/nowhere/shards".into()).load().unwrap_err();
        assert!(missing.contains("/nowhere/shards"), "{missing}");
    }
}
