//! What runs came to: percentiles, shares, violations; as a table and as JSON.

use super::ledger::{Block, End};
use super::scenario::{Time, MS};
use super::Run;
use serde_json::{json, Map, Value};
use shmuring::request::Class;

/// The classes with their names.
const CLASSES: [(Class, &str); 3] =
    [(Class::Demand, "demand"), (Class::Prefetch, "prefetch"), (Class::Background, "background")];

/// Times of some blocks.
#[derive(Clone, Debug)]
pub struct Times(Vec<Time>);

impl Times {
    /// Of those blocks; what has no time is left out.
    fn of(times: impl Iterator<Item = Option<Time>>) -> Self {
        let mut sorted: Vec<Time> = times.flatten().collect();
        sorted.sort_unstable();
        Self(sorted)
    }

    /// A percentile, ms; 0 if there is none.
    #[must_use]
    pub fn ms(&self, percentile: f64) -> f64 {
        let rank = (percentile / 100.0 * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).map_or(0.0, |time| *time as f64 / MS as f64)
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The policy.
    pub policy: String,
    /// Blocks and sizes that were read.
    pub blocks: u64,
    /// Answers to reads of what the server had when they came.
    pub ready: Times,
    /// Answers to the others.
    pub future: Times,
    /// Of the others: from when the server had it to the answer.
    pub future_late: Times,
    /// By class.
    pub classes: [Times; 3],
    /// Share of the blocks for which a server had to wait for WAL.
    pub stalled_share: f64,
    /// Answers that waited for WAL beyond their need (I12).
    pub i12_violations: u64,
    /// For how long, after the server had what they need, ns in all.
    pub hol_suffered: Time,
    /// Head-of-line time that the scheduler avoided by its own account, ns; the others have no account.
    pub hol_avoided: Time,
    /// Blocks that ended with an error.
    pub failed: u64,
    /// Blocks whose deadline passed.
    pub expired: u64,
    /// Blocks that did not end.
    pub hung: u64,
    /// Blocks that ended twice.
    pub twice: u64,
    /// Requests on the wire.
    pub sent: u64,
}

impl Report {
    /// Of a run. `slack`: bytes of WAL by which a wait may be too long.
    #[must_use]
    pub fn new(policy: &str, run: &Run, slack: u64) -> Self {
        let blocks = run.ledger.blocks();
        let answered = |b: &&Block| matches!(b.end, Some((_, End::Answered)));
        let ended = |end| blocks.iter().filter(|b| b.end.is_some_and(|e| e.1 == end)).count() as u64;
        let of = |ready| blocks.iter().filter(answered).filter(move |b| b.ready == ready);
        let late = |b: &Block| b.end.map(|(at, _)| at - b.had);
        let violations = || blocks.iter().filter(|b| b.violates_i12(slack));
        Self {
            policy: policy.to_string(),
            blocks: blocks.len() as u64,
            ready: Times::of(of(true).map(Block::latency)),
            future: Times::of(of(false).map(Block::latency)),
            future_late: Times::of(of(false).map(late)),
            classes: CLASSES.map(|(class, _)| {
                Times::of(blocks.iter().filter(answered).filter(|b| b.class == class).map(Block::latency))
            }),
            stalled_share: blocks.iter().filter(|b| b.stalled).count() as f64 / blocks.len().max(1) as f64,
            i12_violations: violations().count() as u64,
            hol_suffered: violations().filter_map(late).sum(),
            hol_avoided: run.hol_avoided,
            failed: ended(End::Failed),
            expired: ended(End::Expired),
            hung: run.ledger.open() as u64,
            twice: run.ledger.twice,
            sent: run.ledger.sent,
        }
    }

    /// As an object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let times = |t: &Times| json!({ "p50_ms": t.ms(50.0), "p99_ms": t.ms(99.0), "max_ms": t.ms(100.0) });
        let classes = CLASSES.iter().zip(&self.classes).map(|((_, name), t)| ((*name).to_string(), times(t)));
        json!({
            "blocks": self.blocks,
            "ready_p50_ms": self.ready.ms(50.0), "ready_p99_ms": self.ready.ms(99.0),
            "ready_max_ms": self.ready.ms(100.0),
            "future_p50_ms": self.future.ms(50.0), "future_p99_ms": self.future.ms(99.0),
            "future_max_ms": self.future.ms(100.0),
            "future_late_p50_ms": self.future_late.ms(50.0), "future_late_p99_ms": self.future_late.ms(99.0),
            "classes": classes.collect::<Map<_, _>>(),
            "stalled_share": self.stalled_share,
            "i12_violations": self.i12_violations,
            "hol_suffered_s": self.hol_suffered as f64 / 1e9,
            "hol_avoided_s": self.hol_avoided as f64 / 1e9,
            "failed": self.failed, "expired": self.expired, "hung": self.hung, "twice": self.twice,
            "sent": self.sent,
        })
    }
}

/// A line of the table: its name, and what it shows of a report.
type Line = (&'static str, fn(&Report) -> String);

/// The reports side by side.
#[must_use]
pub fn table(reports: &[Report]) -> String {
    let lines: [Line; 17] = [
        ("", |r| r.policy.clone()),
        ("READY p50, ms", |r| format!("{:.2}", r.ready.ms(50.0))),
        ("READY p99, ms", |r| format!("{:.2}", r.ready.ms(99.0))),
        ("READY max, ms", |r| format!("{:.2}", r.ready.ms(100.0))),
        ("FUTURE p50, ms", |r| format!("{:.2}", r.future.ms(50.0))),
        ("FUTURE p99, ms", |r| format!("{:.2}", r.future.ms(99.0))),
        ("FUTURE p99 after the LSN, ms", |r| format!("{:.2}", r.future_late.ms(99.0))),
        ("demand p50 / p99, ms", |r| pair(&r.classes[0])),
        ("prefetch p50 / p99, ms", |r| pair(&r.classes[1])),
        ("background p50 / p99, ms", |r| pair(&r.classes[2])),
        ("made the server wait", |r| format!("{:.2} %", 100.0 * r.stalled_share)),
        ("I12 violations", |r| r.i12_violations.to_string()),
        ("held up beyond need, s", |r| format!("{:.1}", r.hol_suffered as f64 / 1e9)),
        ("head-of-line avoided, s", |r| match r.hol_avoided {
            0 => "-".to_string(),
            ns => format!("{:.1}", ns as f64 / 1e9),
        }),
        ("failed / hung", |r| format!("{} / {}", r.failed + r.expired, r.hung)),
        ("blocks", |r| r.blocks.to_string()),
        ("requests sent", |r| r.sent.to_string()),
    ];
    let mut out = String::new();
    for (name, show) in lines {
        let cells: Vec<String> = reports.iter().map(|r| format!("{:>18}", show(r))).collect();
        out.push_str(&format!("{name:<29}{}\n", cells.concat()));
    }
    out
}

fn pair(times: &Times) -> String {
    format!("{:.2} / {:.2}", times.ms(50.0), times.ms(99.0))
}
