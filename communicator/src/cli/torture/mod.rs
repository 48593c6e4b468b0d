//! `shmuring torture`: kills and stops backends and communicators at random under full load, and proves from logs that
//! they keep outside the region that nothing went wrong.
//!
//! | file | role |
//! |---|---|
//! | `plan` | the order of kills and stops, from a seed |
//! | `fleet` | the processes: starts, kills, stops and replaces them |
//! | `backend` | one backend process |
//! | `mix` | what a backend asks for |
//! | `session` | its requests in flight, each step of each written down |
//! | `buffers` | its blocks of both pools: hashes, canaries |
//! | `log` | the records, which outlive their writer |
//! | `sweep` | reads everything at the end of a round: through the ring, then straight from the store |
//! | `checker` | the proof, from logs alone |
//! | `watchdog` | ends a test that hangs |
//!
//! A run goes in rounds: so many kills, then everybody ends, everything is swept and checked, and the logs are removed.

mod backend;
mod buffers;
mod checker;
mod fleet;
mod log;
mod mix;
mod plan;
mod session;
mod sweep;
mod watchdog;

pub(super) use backend::{run as run_backend, BackendArgs};

use super::{Failure, Outcome};
use fleet::Fleet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

/// Arguments of `torture`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Backend processes at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=100))]
    backends: u32,
    /// Requests that each keeps in flight.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=32))]
    depth: u32,
    /// Kills of backends.
    #[arg(long, default_value_t = 100)]
    kills: u32,
    /// Kills of communicators.
    #[arg(long, default_value_t = 10)]
    communicator_kills: u32,
    /// The order of kills follows from it; default: from the clock.
    #[arg(long)]
    seed: Option<u64>,
    /// Kills a second.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
    /// Kills of a round, after which all logs are checked and removed.
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    round: u32,
    /// Seconds after which a request without an answer is lost.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3600))]
    patience: u32,
    /// Leave the store and the logs in this directory, which must be empty or missing, instead of a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Runs the rounds: exit code 1 if anything was wrong, 3 if it hung.
pub(super) fn run(args: &Args) -> Outcome {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = args.seed.unwrap_or(now.as_nanos() as u64 % 1_000_000);
    println!(
        "seed {seed}: {} kills of backends, {} of communicators; {} backends x {} in flight",
        args.kills, args.communicator_kills, args.backends, args.depth
    );
    let begin = Instant::now();
    let mut fleet = Fleet::start(args, seed)?;
    match rounds(&mut fleet, args) {
        Ok(()) => {
            println!(
                "good: nothing lost, doubled, swapped, late or scribbled on; seed {seed}, {:.1?}",
                begin.elapsed()
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(e) => {
            println!("{}", fleet.picture());
            let kept = fleet.keep();
            Err(format!("{e}\nfailed with seed {seed}; logs and store are in {}", kept.display()).into())
        }
    }
}

fn rounds(fleet: &mut Fleet, args: &Args) -> Result<(), Failure> {
    let mut before = checker::Past::default();
    let mut total = checker::Summary::default();
    let mut number = 0;
    while fleet.schedule().left() != (0, 0) {
        number += 1;
        let begin = Instant::now();
        fleet.round(number, args.round)?;
        let ran = begin.elapsed();
        let (summary, past) = fleet.prove(number, &before)?;
        before = past;
        total.add(&summary);
        let (kills, communicators) = fleet.killed();
        println!(
            "round {number}: {kills} backends and {communicators} communicators killed so far, {ran:.1?} and {:.1?} to \
             check; {summary}",
            begin.elapsed() - ran
        );
    }
    println!("in all: {total}");
    Ok(())
}
