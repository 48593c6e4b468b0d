//! `shmuring simulate`: one workload under four policies.

use super::Outcome;
use crate::simulate::report::{table, Report};
use crate::simulate::scenario::{MS, SECOND};
use crate::simulate::workload::Options;
use crate::simulate::{run, POLICIES};
use serde_json::{json, Map, Value};
use std::process::ExitCode;

/// Arguments of `simulate`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Everything random follows from it: the same seed, the same output.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Page servers.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    shards: u16,
    /// Read requests, of 1 to 32 blocks or a relation's size.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    requests: u64,
    /// Seconds of virtual time over which they come.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Backends that read.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    backends: u32,
    /// Pages written a second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    writes: u64,
    /// Percentage of the blocks read that were just written.
    #[arg(long, default_value_t = 2.0, value_parser = percentage)]
    hot: f64,
    /// How far the page servers' ingest is behind, ms.
    #[arg(long, default_value_t = 20)]
    lag: u64,
    /// For how long the last shard's ingest stands still, from a third of the time on, ms; 0: it does not.
    #[arg(long, default_value_t = 2000)]
    stall: u64,
    /// For how long the page server of shard 0 is away, at two thirds of the time, ms; it comes back with what was durable.
    /// 0: it stays.
    #[arg(long, default_value_t = 500)]
    restart: u64,
    /// Bytes of WAL by which LSNs in one FUTURE batch of shmuring may differ.
    #[arg(long, default_value_t = 0)]
    slack: u64,
    /// Entries of the last-written cache of Neon's policies. 65,536 blocks share them.
    #[arg(long, default_value_t = 2048)]
    entries: usize,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

fn percentage(text: &str) -> Result<f64, String> {
    let number = text.parse().map_err(|_| "not a number".to_string())?;
    (0.0..=100.0).contains(&number).then_some(number).ok_or_else(|| "a percentage is from 0 to 100".to_string())
}

impl Args {
    fn options(&self) -> Options {
        let mut options = Options {
            seed: self.seed,
            shards: self.shards,
            requests: self.requests,
            span: self.seconds.saturating_mul(SECOND),
            backends: self.backends,
            writes: self.writes,
            hot: self.hot / 100.0,
            lag: self.lag.saturating_mul(MS),
            stall: self.stall.saturating_mul(MS),
            restart: self.restart.saturating_mul(MS),
            entries: self.entries,
            ..Options::default()
        };
        options.scheduler.slack = self.slack;
        options
    }
}

pub(super) fn run_all(args: &Args) -> Outcome {
    let scenario = args.options().scenario();
    let mut reports = Vec::new();
    for policy in POLICIES {
        let run = run(&scenario, policy).ok_or("no such policy")?;
        reports.push(Report::new(policy, &run, args.slack));
    }
    if args.json {
        let mut all: Map<String, Value> = reports.iter().map(|r| (r.policy.clone(), r.to_json())).collect();
        let (shards, requests) = (args.shards, args.requests);
        all.insert("workload".to_string(), json!({ "seed": args.seed, "shards": shards, "requests": requests }));
        println!("{}", Value::from(all));
    } else {
        let (requests, seconds, shards) = (args.requests, args.seconds, args.shards);
        println!("{requests} requests in {seconds} s over {shards} shards, seed {}\n", args.seed);
        print!("{}", table(&reports));
    }
    Ok(ExitCode::SUCCESS)
}
