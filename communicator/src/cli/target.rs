//! What commands name: relation forks and LSNs.

use shmuring::request::{Lsn, RelTag};
use std::str::FromStr;

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

/// An LSN on the command line: `HIGH/LOW` in hexadecimal as PostgreSQL writes it, or one decimal number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LsnArg(pub(super) Lsn);

impl FromStr for LsnArg {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("'{s}' is not an LSN: HIGH/LOW in hexadecimal, or a decimal number");
        let half = |digits: &str| {
            // from_str_radix takes a sign.
            let is_hex = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten().map(u64::from)
        };
        match s.split_once('/') {
            Some((high, low)) => {
                let (high, low) = half(high).zip(half(low)).ok_or_else(wrong)?;
                Ok(Self(high << 32 | low))
            }
            None => s.parse().map(Self).map_err(|_| wrong()),
        }
    }
}

impl std::fmt::Display for LsnArg {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
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
    fn lsns_parse_as_postgresql_writes_them_and_nonsense_does_not() {
        for (text, lsn) in [("0/0", 0), ("16/B374D848", 0x16_B374_D848), ("FFFFFFFF/ffffffff", u64::MAX), ("500", 500)]
        {
            assert_eq!(text.parse(), Ok(LsnArg(lsn)));
        }
        assert_eq!(LsnArg(0x16_B374_D848).to_string(), "16/B374D848");
        for wrong in ["", "/", "1/", "/1", "1/2/3", "x", "100000000/0", "+1/+1", "-1", "16B3"] {
            assert!(wrong.parse::<LsnArg>().is_err(), "{wrong}");
        }
    }
}
