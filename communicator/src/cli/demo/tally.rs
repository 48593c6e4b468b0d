//! What a backend counted: travels to the parent as JSON.

use hdrhistogram::Histogram;
use serde_json::{json, Value};
use shmuring::request::Opcode;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Most mishaps that are described; the rest is only counted.
const NOTES: usize = 20;

/// Counts and latencies of one or many backends.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) requests: BTreeMap<&'static str, u64>,
    pub(super) verified: u64,
    pub(super) wrong: u64,
    pub(super) lost: u64,
    pub(super) errors: u64,
    pub(super) cancelled: u64,
    pub(super) leftovers: u64,
    pub(super) notes: Vec<String>,
    pub(super) latency: Histogram<u64>,
    /// Of reads of single pages that nobody writes: while no page server's ingest was held back, and while one was.
    pub(super) ready: [Histogram<u64>; 2],
    /// Of reads of pages that are written, while one was held back.
    pub(super) hidden: Histogram<u64>,
    /// Where a mishap is written down at once, so that a kill -9 does not hide it.
    path: Option<PathBuf>,
}

/// 3 significant digits up to a minute, in ns.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).unwrap_or_else(|_| unreachable!("constants"))
}

/// A histogram for the parent, and back.
fn out(histogram: &Histogram<u64>) -> Vec<[u64; 2]> {
    histogram.iter_recorded().map(|v| [v.value_iterated_to(), v.count_at_value()]).collect()
}

fn add(histogram: &mut Histogram<u64>, v: &Value) {
    for pair in v.as_array().into_iter().flatten() {
        if let (Some(value), Some(count)) = (pair[0].as_u64(), pair[1].as_u64()) {
            histogram.saturating_record_n(value, count);
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            requests: BTreeMap::new(),
            verified: 0,
            wrong: 0,
            lost: 0,
            errors: 0,
            cancelled: 0,
            leftovers: 0,
            notes: Vec::new(),
            latency: histogram(),
            ready: [histogram(), histogram()],
            hidden: histogram(),
            path: None,
        }
    }
}

impl Tally {
    /// A request came back.
    pub(super) fn count(&mut self, opcode: Opcode, latency: Duration) {
        *self.requests.entry(opcode.name()).or_default() += 1;
        self.latency.saturating_record(latency.as_nanos() as u64);
    }

    /// A read of a page that nobody writes, while a page server's ingest was held back or not.
    pub(super) fn ready(&mut self, held: bool, latency: Duration) {
        self.ready[usize::from(held)].saturating_record(latency.as_nanos() as u64);
    }

    /// A read of a page that is written, while one was held back.
    pub(super) fn hidden(&mut self, latency: Duration) {
        self.hidden.saturating_record(latency.as_nanos() as u64);
    }

    /// A tally that goes to `path`.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    /// A page is what it should be, or not.
    pub(super) fn page(&mut self, verdict: Result<(), String>) {
        match verdict {
            Ok(()) => self.verified += 1,
            Err(why) => {
                self.wrong += 1;
                self.note(why);
            }
        }
    }

    /// A request failed that should not have.
    pub(super) fn error(&mut self, what: String) {
        self.errors += 1;
        self.note(what);
    }

    /// Remembers a mishap for the report.
    pub(super) fn note(&mut self, what: String) {
        if self.notes.len() < NOTES {
            self.notes.push(what);
        }
        if let Err(e) = self.write() {
            eprintln!("the tally cannot be written: {e}");
        }
    }

    /// Writes it to its path, if it has one; renamed into place, so that a tally is whole or not there.
    pub(super) fn write(&self) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let staged = path.with_extension("part");
        std::fs::write(&staged, self.to_json().to_string())?;
        std::fs::rename(staged, path)
    }

    /// All requests that came back.
    pub(super) fn total(&self) -> u64 {
        self.requests.values().sum()
    }

    /// For the parent.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "requests": self.requests, "verified": self.verified, "wrong": self.wrong, "lost": self.lost,
            "errors": self.errors, "cancelled": self.cancelled, "leftovers": self.leftovers, "notes": self.notes,
            "latency": out(&self.latency), "ready": [out(&self.ready[0]), out(&self.ready[1])],
            "hidden": out(&self.hidden),
        })
    }

    /// Adds what a backend sent.
    pub(super) fn add_json(&mut self, v: &Value) {
        let n = |key: &str| v[key].as_u64().unwrap_or(0);
        self.verified += n("verified");
        self.wrong += n("wrong");
        self.lost += n("lost");
        self.errors += n("errors");
        self.cancelled += n("cancelled");
        self.leftovers += n("leftovers");
        for op in Opcode::ALL {
            if let Some(count) = v["requests"][op.name()].as_u64() {
                *self.requests.entry(op.name()).or_default() += count;
            }
        }
        for note in v["notes"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.note(note.to_string());
        }
        add(&mut self.latency, &v["latency"]);
        self.ready.iter_mut().enumerate().for_each(|(i, histogram)| add(histogram, &v["ready"][i]));
        add(&mut self.hidden, &v["hidden"]);
    }
}
