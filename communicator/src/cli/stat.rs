//! `shmuring stat`: what a region is doing, read-only.

use super::region::{last_pid, observe};
use super::target::LsnArg;
use super::{shards, slots, Outcome};
use crate::holder;
use serde_json::{json, Map, Value};
use shmuring::layout::{Slot, SET};
use shmuring::parts::Parts;
use shmuring::region::Region;
use shmuring::request::{RawRequest, RelTag};
use shmuring::slot::{owner, State};
use shmuring::stats::{bucket_end, histogram, OwnerCounter, RoleCounter};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Arguments of `stat`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The region.
    #[arg(long)]
    region: PathBuf,
    /// Repeat every so many seconds, until interrupted.
    #[arg(long)]
    every: Option<u64>,
    /// Print one JSON object (a line each with --every).
    #[arg(long)]
    json: bool,
    /// Show each slot that is not idle as well.
    #[arg(long, conflicts_with = "json")]
    slots: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let region = observe(&args.region)?;
    loop {
        let shown = match (args.json, args.slots) {
            (true, _) => format!("{}\n", snapshot(&region)),
            (false, true) => everything(&region),
            (false, false) => table(&snapshot(&region)),
        };
        std::io::stdout().write_all(shown.as_bytes())?;
        let Some(seconds) = args.every else { return Ok(ExitCode::SUCCESS) };
        std::thread::sleep(Duration::from_secs(seconds.max(1)));
    }
}

/// The table and each slot that is not idle.
pub(super) fn everything(region: &Region) -> String {
    table(&snapshot(region)) + &slots::show(region)
}

/// The counters and states, as one object: the text form prints the same.
fn snapshot(region: &Region) -> Value {
    let parts = region.parts();
    let header = parts.header;
    let held = region.liveness().role_held();
    // By its lock: what it wrote of its pid means another process in another pid namespace.
    let holder = if held { holder::of_role(region) } else { None };
    let elsewhere = held && holder.is_none();
    let now = shmuring::clock::now();
    let relaxed = Ordering::Relaxed;
    json!({
        "communicator": {
            "alive": held,
            "pid": if elsewhere { Value::Null } else { holder.unwrap_or_else(|| last_pid(region)).into() },
            "stopped": holder.is_some_and(is_stopped),
            "epoch": header.role.epoch.load(relaxed),
            "seconds": now.saturating_sub(header.role.since.load(relaxed)) / 1_000_000_000,
            "parked": header.parked.0.load(relaxed) & 1 == 1,
        },
        "life": header.life.life.load(relaxed),
        "ring": {
            "capacity": parts.cells.len(),
            "tail": header.tail.0.load(relaxed),
            "head": header.head.0.load(relaxed),
            "pending_raised": header.any.0.load(relaxed),
        },
        "tables": {
            "written_buckets": parts.written.len(),
            "written_floor": LsnArg(parts.last_written().floor()).to_string(),
            "rel_sizes": parts.sizes.len() * SET,
        },
        "shards": shards::snapshot(&header.shards, now),
        "slots": by_state(&parts),
        "oldest": oldest(&parts, now),
        "owners": owners(&parts),
        "latency_ns": latency(&parts),
        "role": role(&parts),
    })
}

/// Whether the process is stopped by a signal or a tracer: alive, and doing nothing. False where /proc does not tell.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the command, which stands in parentheses and may hold any character.
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
}

fn by_state(parts: &Parts<'_>) -> Value {
    let mut counts = [0u64; 9];
    for slot in parts.slots {
        let n = owner::look(slot).state().map_or(8, |s| s as usize);
        if let Some(c) = counts.get_mut(n) {
            *c += 1;
        }
    }
    let names = State::ALL.iter().map(|s| s.name()).chain(["invalid"]);
    names.zip(counts).map(|(name, n)| (name.to_string(), json!(n))).collect::<Map<_, _>>().into()
}

/// Since when a request is known to be under way: deferred by the communicator, or slept on by its owner. `None`: it is
/// submitted and nobody waits for it yet, so nobody looked at a clock.
fn since(slot: &Slot) -> Option<u64> {
    let word = owner::look(slot);
    let claimed = word.is(State::Processing).then(|| slot.claimed_at.load(Ordering::Relaxed));
    let waited = word.waiter().then(|| slot.waiting_since.load(Ordering::Relaxed));
    [claimed, waited].into_iter().flatten().filter(|t| *t != 0).min()
}

/// The unfinished request that is known to be the oldest.
fn oldest(parts: &Parts<'_>, now: u64) -> Value {
    // Cancelled ones wait for nothing but their slot.
    let unfinished = |s: State| matches!(s, State::Submitted | State::Processing | State::Copying);
    let candidates = (0u32..).zip(parts.slots).filter_map(|(number, slot)| {
        let word = owner::look(slot);
        let state = word.state().filter(|s| unfinished(*s))?;
        Some((since(slot).unwrap_or(now), number, word, state))
    });
    let Some((since, number, word, state)) = candidates.min_by_key(|(since, ..)| *since) else { return Value::Null };
    let request = parts.slots.get(number as usize).map_or_else(RawRequest::default, slots::request);
    let RelTag { spc_oid, db_oid, rel_number, fork } = request.rel();
    let (first, lsn) = (request.block, request.lsn);
    json!({
        "slot": number,
        "generation": word.generation(),
        "state": state.name(),
        "waited_for": word.waiter(),
        "age_ms": now.saturating_sub(since) / 1_000_000,
        "opcode": request.opcode().map_or("unknown", |o| o.name()),
        "rel": format!("{spc_oid}/{db_oid}/{rel_number}.{fork}"),
        "block": first,
        "lsn": LsnArg(lsn).to_string(),
    })
}

fn owners(parts: &Parts<'_>) -> Value {
    let sum = |i: usize| {
        let counters = parts.owner_stats.iter().filter_map(|o| o.counters.get(i));
        add_up(counters.map(|c| c.load(Ordering::Relaxed)))
    };
    let names = OwnerCounter::NAMES.iter().enumerate();
    names.map(|(i, name)| (name.to_string(), json!(sum(i)))).collect::<Map<_, _>>().into()
}

fn role(parts: &Parts<'_>) -> Value {
    let pairs = RoleCounter::NAMES.iter().zip(&parts.role_stats.counters);
    pairs.map(|(name, c)| (name.to_string(), json!(c.load(Ordering::Relaxed)))).collect::<Map<_, _>>().into()
}

/// Percentiles of the owners' sampled latency, of the communicator's service time, and of the time that requests waited
/// for conflicting ones: upper ends of log2 buckets; null where the last one has none.
fn latency(parts: &Parts<'_>) -> Value {
    let mut submit = [0; shmuring::layout::BUCKETS];
    for owner in parts.owner_stats {
        for (sum, n) in submit.iter_mut().zip(histogram(&owner.latency)) {
            *sum = n.saturating_add(*sum);
        }
    }
    let classes = ["service_demand", "service_prefetch", "service_background"];
    let mut all = Map::new();
    all.insert("submit_to_result_sampled".into(), percentiles(&submit));
    for (name, h) in classes.iter().zip(&parts.role_stats.service) {
        all.insert((*name).into(), percentiles(&histogram(h)));
    }
    all.insert("conflict_wait".into(), percentiles(&histogram(&parts.role_stats.blocked)));
    all.into()
}

/// The sum of counters; in a damaged region they may be anything.
fn add_up(counters: impl Iterator<Item = u64>) -> u64 {
    counters.fold(0, u64::saturating_add)
}

fn percentiles(counts: &[u64]) -> Value {
    let total = add_up(counts.iter().copied());
    let at = |per_mille: u128| {
        let mut left = (u128::from(total) * per_mille).div_ceil(1000);
        for (bucket, n) in counts.iter().enumerate() {
            if left <= u128::from(*n) {
                return (bucket + 1 < counts.len()).then(|| bucket_end(bucket));
            }
            left -= u128::from(*n);
        }
        Some(0)
    };
    if total == 0 {
        return json!({ "count": 0 });
    }
    json!({ "count": total, "p50": at(500), "p99": at(990), "p999": at(999) })
}

/// The snapshot for people: a line for each part, zeros left out.
fn table(now: &Value) -> String {
    let mut out = String::new();
    let c = &now["communicator"];
    let (pid, epoch, seconds) = (&c["pid"], &c["epoch"], &c["seconds"]);
    if c["alive"] == true {
        let doing = match (&c["stopped"], &c["parked"]) {
            (Value::Bool(true), _) => "STOPPED by a signal ('kill -CONT' lets it go on, 'serve --replace' takes over)",
            (_, Value::Bool(true)) => "parked",
            _ => "busy",
        };
        let who = if pid.is_null() { format!("pid unknown ({})", holder::NOT_HERE) } else { format!("pid {pid}") };
        let _ =
            writeln!(out, "communicator  {who}, epoch {epoch}, {doing}, for {seconds} s; server life {}", now["life"]);
    } else if epoch == 0 {
        let _ = writeln!(out, "communicator  none yet");
    } else if pid == 0 {
        let _ =
            writeln!(out, "communicator  none: the last one (epoch {epoch}) was stopped; 'shmuring serve' starts one");
    } else {
        let _ = writeln!(
            out,
            "communicator  GONE: pid {pid} held the role with epoch {epoch}; start 'shmuring serve' to take over"
        );
    }
    for part in ["slots", "ring", "tables", "owners", "role"] {
        let _ = writeln!(out, "{part:<13} {}", line(&now[part]));
    }
    out.push_str(&shards::lines(&now["shards"]));
    if let Some(kinds) = now["latency_ns"].as_object() {
        for (kind, p) in kinds.iter().filter(|(_, p)| p["count"] != 0) {
            let _ = writeln!(out, "latency       {kind}: {}", line(p));
        }
    }
    match &now["oldest"] {
        Value::Null => out.push_str("oldest        none\n"),
        o => {
            let asked = if o["waited_for"] == true { ", a backend sleeps on it" } else { "" };
            let _ = writeln!(
                out,
                "oldest        slot {} generation {}: {} of {} block {}, {} for at least {} ms{asked}",
                o["slot"],
                o["generation"],
                text(&o["opcode"]),
                text(&o["rel"]),
                o["block"],
                text(&o["state"]),
                o["age_ms"]
            );
        }
    }
    out
}

fn text(v: &Value) -> &str {
    v.as_str().unwrap_or("?")
}

/// A number; the open end of a histogram as what lies below it.
fn bound(n: &Value) -> String {
    let last = shmuring::layout::BUCKETS - 1;
    if n.is_null() {
        format!("over {}", bucket_end(last - 1))
    } else {
        n.to_string()
    }
}

fn line(v: &Value) -> String {
    let Some(pairs) = v.as_object() else { return v.to_string() };
    let shown = pairs.iter().filter(|(_, n)| **n != 0);
    let shown: Vec<_> = shown.map(|(name, n)| format!("{name} {}", bound(n))).collect();
    if shown.is_empty() {
        "nothing yet".into()
    } else {
        shown.join(", ")
    }
}
