//! Metadata of every call: tenant, timeline, shard, token.

use std::fmt;
use std::str::FromStr;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::Status;

const TENANT: &str = "neon-tenant-id";
const TIMELINE: &str = "neon-timeline-id";
const SHARD: &str = "neon-shard-id";
const AUTHORIZATION: &str = "authorization";

/// A tenant or a timeline: 32 hex digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Id(pub u128);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for Id {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        if s.len() != 32 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("'{s}' is not 32 hex digits"));
        }
        u128::from_str_radix(s, 16).map(Self).map_err(|e| e.to_string())
    }
}

/// A shard's number, and of how many; unsharded: 0 of 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShardId {
    /// Its number, from 0.
    pub number: u8,
    /// Number of shards; 0: the tenant is not cut.
    pub count: u8,
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:02x}", self.number, self.count)
    }
}

impl FromStr for ShardId {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("'{s}' is not a shard: two hex digits for its number, two for the count");
        if s.len() != 4 || !s.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let both = u16::from_str_radix(s, 16).map_err(|_| wrong())?;
        let shard = Self { number: (both >> 8) as u8, count: both as u8 };
        if shard.number >= shard.count.max(1) {
            return Err(wrong());
        }
        Ok(shard)
    }
}

/// Whose pages a call is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// The tenant.
    pub tenant: Id,
    /// The timeline.
    pub timeline: Id,
    /// The shard.
    pub shard: ShardId,
}

/// A bearer token; neither logged nor shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(AsciiMetadataValue);

impl Token {
    /// A token of visible ASCII.
    pub fn new(token: &str) -> Result<Self, String> {
        let bearer = format!("Bearer {token}");
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("a token is visible ASCII without blanks".into());
        }
        let mut value = AsciiMetadataValue::try_from(bearer).map_err(|e| e.to_string())?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Target {
    /// Writes the target, and the token if there is one, into the metadata of a request.
    pub fn write(&self, token: Option<&Token>, metadata: &mut MetadataMap) {
        let fields =
            [(TENANT, self.tenant.to_string()), (TIMELINE, self.timeline.to_string()), (SHARD, self.shard.to_string())];
        for (name, value) in fields {
            // Hex digits always are a value.
            if let Ok(value) = AsciiMetadataValue::try_from(value) {
                metadata.insert(name, value);
            }
        }
        if let Some(token) = token {
            metadata.insert(AUTHORIZATION, token.0.clone());
        }
    }

    /// Reads the target of a request: INVALID_ARGUMENT if one of the fields is missing or makes no sense.
    pub fn read(metadata: &MetadataMap) -> Result<Self, Status> {
        Ok(Self {
            tenant: field(metadata, TENANT)?,
            timeline: field(metadata, TIMELINE)?,
            shard: field(metadata, SHARD)?,
        })
    }
}

/// The bearer token of a request: `None` if there is none; INVALID_ARGUMENT if it is no bearer token.
pub fn bearer(metadata: &MetadataMap) -> Result<Option<&str>, Status> {
    let Some(value) = metadata.get(AUTHORIZATION) else { return Ok(None) };
    let token = value.to_str().ok().and_then(|v| v.strip_prefix("Bearer "));
    token.map(Some).ok_or_else(|| Status::invalid_argument("authorization is not 'Bearer TOKEN'"))
}

fn field<T: FromStr<Err = String>>(metadata: &MetadataMap, name: &str) -> Result<T, Status> {
    let value = metadata.get(name).ok_or_else(|| Status::invalid_argument(format!("{name} is missing")))?;
    let text = value.to_str().map_err(|_| Status::invalid_argument(format!("{name} is not text")))?;
    text.parse().map_err(|e| Status::invalid_argument(format!("{name}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_comes_back_from_metadata_as_it_went() {
        let target = Target { tenant: Id(1), timeline: Id(u128::MAX), shard: ShardId { number: 11, count: 16 } };
        let mut metadata = MetadataMap::new();
        assert!(Target::read(&metadata).is_err());
        target.write(Some(&Token::new("secret").unwrap()), &mut metadata);
        assert_eq!(metadata.get(TENANT).unwrap(), "00000000000000000000000000000001");
        assert_eq!(metadata.get(SHARD).unwrap(), "0b10");
        assert_eq!(Target::read(&metadata).unwrap(), target);
        assert_eq!(bearer(&metadata).unwrap(), Some("secret"));
        assert!(!format!("{metadata:?}").contains("secret"), "{metadata:?}");
        for wrong in ["0101", "10", "0b1g", "00001", "-001"] {
            assert!(wrong.parse::<ShardId>().is_err(), "{wrong}");
        }
        assert_eq!("0000".parse(), Ok(ShardId::default()));
        assert!("+0000000000000000000000000000001".parse::<Id>().is_err());
        assert!(Token::new("a b").is_err() && Token::new("").is_err() && Token::new("a\n").is_err());
    }
}
