//! The proof: reads the logs of a round and looks for anything that is not as it must be. It knows nothing of the ring
//! but what the logs say.
//!
//! | file | role |
//! |---|---|
//! | `load` | logs into processes, and when each was stopped |
//! | `requests` | each request: answered once, in time, by its own answer; cancelled buffers |
//! | `registers` | each block, size and existence over time: what a read may have seen |
//!
//! What is proved: (a) each answer belongs to its request, (b) every acknowledged write is read back, (c) nothing is
//! answered twice, (d) nothing ends later than its deadline, (e) no byte of a cancelled buffer changes.

mod load;
mod registers;
mod requests;
#[cfg(test)]
mod tests;

use super::super::Failure;
use registers::Registers;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::Path;

/// Most faults of a kind that are described.
const SHOWN: u64 = 8;

/// A page that was written: this version of this block, at this LSN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) rel: u32,
    pub(super) block: u32,
    pub(super) version: u64,
}

/// Something with one value at a time: a block, a size, whether a relation is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    Block(u32, u32),
    Size(u32),
    Exists(u32),
}

/// What a round begins with: what the one before ended with.
#[derive(Clone, Debug, Default)]
pub(super) struct Past(HashMap<Key, u64>);

/// What was wrong, by kind: (a) to (e), or damage to a log itself.
#[derive(Debug, Default)]
pub(super) struct Faults {
    shown: Vec<String>,
    counts: BTreeMap<String, u64>,
}

impl Faults {
    /// Each begins with its kind, as `(a)`.
    fn add(&mut self, what: impl Display) {
        let what = what.to_string();
        let count = self.counts.entry(what.split(' ').next().unwrap_or_default().to_string()).or_default();
        *count += 1;
        if *count <= SHOWN {
            self.shown.push(what);
        }
    }

    fn verdict(&self) -> Result<(), String> {
        if self.counts.is_empty() {
            return Ok(());
        }
        let counts: Vec<_> = self.counts.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        Err(format!("the logs show faults: {}\n  {}", counts.join(", "), self.shown.join("\n  ")))
    }
}

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) processes: u64,
    pub(super) killed_at_work: u64,
    pub(super) requests: u64,
    pub(super) answers: u64,
    pub(super) pages: u64,
    pub(super) leftovers: u64,
    pub(super) cancelled: u64,
    pub(super) expired: u64,
    pub(super) canaries: u64,
    pub(super) writes: u64,
    /// Of those, read back while they were the newest.
    pub(super) read_back: u64,
}

impl Summary {
    pub(super) fn add(&mut self, other: &Self) {
        self.processes += other.processes;
        self.killed_at_work += other.killed_at_work;
        self.requests += other.requests;
        self.answers += other.answers;
        self.pages += other.pages;
        self.leftovers += other.leftovers;
        self.cancelled += other.cancelled;
        self.expired += other.expired;
        self.canaries += other.canaries;
        self.writes += other.writes;
        self.read_back += other.read_back;
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} processes ({} killed at work), {} requests, {} answers, {} pages, {} leftovers, {} cancelled ({} at their deadline), {} canaries, {} \
             acknowledged writes ({} read while the newest, all read from the store)",
            self.processes,
            self.killed_at_work,
            self.requests,
            self.answers,
            self.pages,
            self.leftovers,
            self.cancelled,
            self.expired,
            self.canaries,
            self.writes,
            self.read_back
        )
    }
}

/// The logs of a round, digested.
pub(super) struct Round {
    registers: Registers,
    faults: Faults,
    summary: Summary,
}

impl Round {
    /// Reads the logs in `dir`.
    pub(super) fn load(dir: &Path, past: &Past) -> Result<Self, Failure> {
        let mut round =
            Self { registers: Registers::new(past), faults: Faults::default(), summary: Summary::default() };
        let logs = load::read(dir, &mut round.faults)?;
        for post in &logs.posts {
            requests::digest(post, &logs.stops, &mut round.registers, &mut round.faults, &mut round.summary);
        }
        Ok(round)
    }

    /// Writes that were acknowledged, and that no read has shown.
    pub(super) fn unread(&self) -> Vec<Write> {
        self.registers.writes().filter(|(_, seen)| !seen.in_the_run).map(|(w, _)| w).collect()
    }

    /// Writes that were acknowledged.
    pub(super) fn acknowledged(&self) -> Vec<Write> {
        self.registers.writes().map(|(w, _)| w).collect()
    }

    /// The verdict; what the next round begins with.
    pub(super) fn judge(mut self) -> Result<(Summary, Past), Failure> {
        self.registers.judge(&mut self.faults, &mut self.summary);
        self.faults.verdict()?;
        Ok((self.summary, Past(self.registers.last_stored())))
    }
}
