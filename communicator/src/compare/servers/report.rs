//! What a comparison came to.

use super::judge::Kind;
use serde_json::{json, Value};
use shmuring::request::{Lsn, RelTag};
use std::fmt;
use std::time::Duration;

/// Differences that are kept; more are counted.
const KEPT: usize = 1000;

/// A block whose copies differ.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Its database; of a shared relation the first.
    pub database: String,
    /// Schema and name.
    pub relation: String,
    /// File number and fork.
    pub rel: RelTag,
    /// The block.
    pub block: u32,
    /// How they differ.
    pub kind: Kind,
    /// LSN of the primary's page; 0 without one.
    pub primary_lsn: Lsn,
    /// LSN of the standby's.
    pub standby_lsn: Lsn,
    /// The first byte that differs once both are masked, if both are there.
    pub offset: Option<usize>,
}

/// Blocks that were not compared, and why.
#[derive(Clone, Copy, Debug, Default)]
pub struct Skipped {
    /// Nothing was logged of them yet.
    pub new: u64,
    /// They were truncated, or their relation dropped or rewritten, since the comparison began.
    pub gone: u64,
    /// They changed at each of many looks.
    pub busy: u64,
    /// A server could not read them.
    pub unreadable: u64,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Databases whose relations were compared.
    pub databases: Vec<String>,
    /// Relation forks.
    pub forks: u64,
    /// Unlogged relations, which were left out.
    pub unlogged: u64,
    /// Temporary relations, likewise.
    pub temporary: u64,
    /// Blocks that were compared, those that differ included.
    pub compared: u64,
    /// Blocks that were not.
    pub skipped: Skipped,
    /// The first thousand differences.
    pub differences: Vec<Difference>,
    /// All of them.
    pub differing: u64,
    /// Why blocks could not be read.
    pub errors: Vec<String>,
    /// Why the comparison ended early.
    pub failed: Option<String>,
    /// How long it took.
    pub took: Duration,
}

fn fork_name(fork: u8) -> &'static str {
    match fork {
        0 => "main",
        1 => "fsm",
        2 => "vm",
        _ => "init",
    }
}

struct Hex(Lsn);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl Difference {
    fn to_json(&self) -> Value {
        json!({
            "database": self.database, "relation": self.relation, "fork": fork_name(self.rel.fork),
            "file": format!("{}/{}/{}", self.rel.spc_oid, self.rel.db_oid, self.rel.rel_number),
            "block": self.block, "kind": self.kind.name(), "primary_lsn": Hex(self.primary_lsn).to_string(),
            "standby_lsn": Hex(self.standby_lsn).to_string(), "offset": self.offset,
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, relation, rel, block, kind, .. } = self;
        write!(f, "{database} {relation} {} block {block}: {}", fork_name(rel.fork), kind.name())?;
        write!(f, ", primary LSN {}, standby LSN {}", Hex(self.primary_lsn), Hex(self.standby_lsn))?;
        if let Some(at) = self.offset {
            write!(f, ", from offset {at}")?;
        }
        write!(f, " (file {}/{}/{})", rel.spc_oid, rel.db_oid, rel.rel_number)
    }
}

impl Report {
    pub(super) fn add(&mut self, found: Difference) {
        self.compared += 1;
        self.differing += 1;
        if self.differences.len() < KEPT {
            self.differences.push(found);
        }
    }

    pub(super) fn unreadable(&mut self, why: String) {
        self.skipped.unreadable += 1;
        if self.errors.len() < KEPT {
            self.errors.push(why);
        }
    }

    /// Whether every block was compared that should have been.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_none() && self.skipped.unreadable == 0
    }

    fn speed(&self) -> u64 {
        (self.compared as f64 / self.took.as_secs_f64().max(0.001)) as u64
    }

    /// All of it as one object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let Skipped { new, gone, busy, unreadable } = self.skipped;
        json!({
            "databases": self.databases, "forks": self.forks, "pages_compared": self.compared,
            "pages_skipped": { "new": new, "gone": gone, "busy": busy, "unreadable": unreadable },
            "relations_left_out": { "unlogged": self.unlogged, "temporary": self.temporary },
            "differences": self.differing, "complete": self.is_complete(), "failed": self.failed,
            "errors": self.errors, "seconds": self.took.as_secs_f64(), "pages_per_second": self.speed(),
            "found": self.differences.iter().map(Difference::to_json).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for d in &self.differences {
            writeln!(f, "differs: {d}")?;
        }
        let more = self.differing.saturating_sub(self.differences.len() as u64);
        if more > 0 {
            writeln!(f, "... and {more} more")?;
        }
        for e in &self.errors {
            writeln!(f, "unreadable: {e}")?;
        }
        let Skipped { new, gone, busy, unreadable } = self.skipped;
        let (seconds, speed) = (self.took.as_secs_f64(), self.speed());
        writeln!(f, "databases    {}", self.databases.join(", "))?;
        writeln!(f, "compared     {} pages of {} forks in {seconds:.1} s, {speed} pages/s", self.compared, self.forks)?;
        writeln!(f, "skipped      {new} new, {gone} gone, {busy} changing all the time, {unreadable} unreadable")?;
        writeln!(f, "left out     {} unlogged and {} temporary relations", self.unlogged, self.temporary)?;
        writeln!(f, "differences  {}", self.differing)?;
        match &self.failed {
            Some(why) => writeln!(f, "NOT COMPLETE {why}"),
            None => Ok(()),
        }
    }
}
