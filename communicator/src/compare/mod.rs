//! `debug_compare_local`: pages of the page service, of the page cache and of the prefetch buffer against a local copy.
//!
//! | file | role |
//! |---|---|
//! | `mask` | what of a page may differ |
//! | `servers` | `shmuring compare`: a primary and its standby, which is another matter |
//!
//! A debugging aid that can be switched while the communicator serves. The local copy is a PostgreSQL data directory; a
//! page of it is read on the way of each answer that is compared, so answers take longer. A local page that is newer than
//! the answer, or that is not there, is no difference; nor is anything in a free space map, which is not logged.

mod mask;
#[cfg(all(feature = "cli", feature = "standby"))]
pub mod servers;

use crate::service::datadir::{DataDir, DataDirOptions};
use crate::service::{Rel, Result, ServiceError, PAGE_SIZE};
use shmuring::request::{Lsn, RelTag};
use shmuring::stats::RoleCounter;
use std::fmt::Write as _;
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// What is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Mode {
    /// Nothing.
    #[default]
    None = 0,
    /// Pages found in the prefetch buffer, which are then returned without asking the page service.
    Prefetch = 1,
    /// Pages found in either cache, likewise.
    Lfc = 2,
    /// Every page, and the page service is always asked.
    All = 3,
}

impl Mode {
    const NAMES: [(&'static str, Self); 4] =
        [("none", Self::None), ("prefetch", Self::Prefetch), ("lfc", Self::Lfc), ("all", Self::All)];
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        let found = Self::NAMES.iter().find(|(name, _)| *name == s).map(|(_, mode)| *mode);
        found.ok_or_else(|| format!("'{s}' is not none, prefetch, lfc or all"))
    }
}

/// An answer to be compared.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// Relation fork.
    pub rel: RelTag,
    /// Block.
    pub block: u32,
    /// Its page.
    pub page: &'a [u8],
    /// The answer has every change up to this LSN.
    pub as_of: Lsn,
    /// Where it comes from, for the log.
    pub from: &'static str,
}

/// See the module.
pub struct Compare {
    local: DataDir,
    mode: AtomicU8,
    is_error: AtomicBool,
}

impl std::fmt::Debug for Compare {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compare").field("mode", &self.mode()).finish_non_exhaustive()
    }
}

impl Compare {
    /// Compares with the data directory in `path`; nothing until [`Compare::switch`] says so.
    ///
    /// # Errors
    /// Those of [`DataDir::open`].
    pub fn open(path: &Path) -> Result<Self> {
        // Checksums are not looked at: a page that is torn or wrong is to be shown.
        let options = DataDirOptions { verify_checksums: false, ..DataDirOptions::default() };
        let local = DataDir::open(path, &options)?;
        Ok(Self { local, mode: AtomicU8::new(0), is_error: AtomicBool::new(false) })
    }

    /// Compares this from now on; `is_error`: a difference is an error to the reader too.
    pub fn switch(&self, mode: Mode, is_error: bool) {
        // Relaxed: each answer looks for itself.
        self.is_error.store(is_error, Ordering::Relaxed);
        self.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// What is compared now.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match self.mode.load(Ordering::Relaxed) {
            1 => Mode::Prefetch,
            2 => Mode::Lfc,
            3 => Mode::All,
            _ => Mode::None,
        }
    }

    /// Compares an answer with the local page. Logs a difference and counts it in `stats`. Does file I/O.
    ///
    /// # Errors
    /// EUCLEAN: a difference, where differences are errors.
    pub fn check(&self, answer: &Answered<'_>, stats: &shmuring::layout::RoleStats) -> Result<()> {
        let Answered { rel, block, page, as_of, .. } = *answer;
        if !mask::is_logged(rel.fork) {
            return Ok(());
        }
        let mut local = vec![0; PAGE_SIZE];
        match self.local.read_pages(rel, block, 1, &mut local) {
            Ok(()) => {}
            // The copy is from before the block, or from after the relation.
            Err(e) if matches!(e.errno, libc::ENOENT | libc::ENXIO) => return Ok(()),
            Err(e) => {
                tracing::warn!(rel = %Rel(rel), block, "the local copy could not be read: {e}");
                return Ok(());
            }
        }
        let (ours, theirs) = (page_lsn(page), page_lsn(&local));
        if theirs > as_of.max(ours) {
            return Ok(());
        }
        stats.add(RoleCounter::Compared, 1);
        let Some(at) = mask::first_difference(page, &local, rel.fork) else { return Ok(()) };
        stats.add(RoleCounter::Differed, 1);
        // In the message, since the bytes take lines of their own.
        tracing::error!(
            "a page differs from the local copy: {} block {block} from the {} at offset {at}; as of {}, page LSN {}, \
             local LSN {}\nanswer:\n{}local:\n{}",
            Rel(rel),
            answer.from,
            Hex(as_of),
            Hex(ours),
            Hex(theirs),
            dump(page, at),
            dump(&local, at)
        );
        if self.is_error.load(Ordering::Relaxed) {
            let what = format!("block {block} of {} differs from the local copy at offset {at}", Rel(rel));
            return Err(ServiceError::corrupt(what).at_block(block));
        }
        Ok(())
    }
}

/// The LSN in a page's header: two halves, high first.
fn page_lsn(page: &[u8]) -> Lsn {
    let half = |at: usize| match page.get(at..at + 4) {
        Some(&[a, b, c, d]) => Lsn::from(u32::from_le_bytes([a, b, c, d])),
        _ => 0,
    };
    half(0) << 32 | half(4)
}

/// An LSN as PostgreSQL writes it.
struct Hex(Lsn);

impl std::fmt::Display for Hex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// Five lines of 16 bytes around an offset.
fn dump(page: &[u8], at: usize) -> String {
    let mut out = String::new();
    let from = (at & !15).saturating_sub(32);
    for (i, line) in page.chunks(16).enumerate().skip(from / 16).take(5) {
        let _ = write!(out, "{:04x} ", i * 16);
        for byte in line {
            let _ = write!(out, " {byte:02x}");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_names_and_nonsense_has_none() {
        for (name, mode) in Mode::NAMES {
            assert_eq!(name.parse(), Ok(mode));
        }
        assert!("ALL".parse::<Mode>().is_err() && "".parse::<Mode>().is_err());
    }

    #[test]
    fn a_dump_shows_the_lines_around_an_offset() {
        let page: Vec<u8> = (0..PAGE_SIZE).map(|i| i as u8).collect();
        let middle = dump(&page, 0x105);
        let first: Vec<&str> = middle.lines().map(|l| &l[..4]).collect();
        assert_eq!(first, ["00e0", "00f0", "0100", "0110", "0120"]);
        assert!(middle.contains("0100  00 01 02 03"));
        assert!(dump(&page, 0).starts_with("0000 ") && dump(&page, PAGE_SIZE - 1).lines().count() == 3);
    }

    #[test]
    fn the_lsn_of_a_page_is_two_halves() {
        assert_eq!(page_lsn(&[1, 0, 0, 0, 2, 0, 0, 0]), 1 << 32 | 2);
        assert_eq!(page_lsn(&[1, 0]), 0);
    }
}
