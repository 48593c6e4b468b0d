//! `shmuring compare`: a primary against its hot standby, page by page, while both are in use.

use super::Outcome;
use crate::compare::servers::{run, Options, Progress, Report};
use crate::service::standby::ConnInfo;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Differences were found, and nothing else was wrong.
const DIFFERENT: u8 = 7;
/// Between two progress lines: where one takes the place of the other, and where each stays.
const TICK: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Arguments of `compare`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The primary, as of libpq: "host=... port=... user=... dbname=...", or a URL. That database has the extension.
    #[arg(long, value_name = "CONNINFO")]
    primary: ConnInfo,
    /// Its hot standby, likewise.
    #[arg(long, value_name = "CONNINFO")]
    standby: ConnInfo,
    /// Compare this database, and the shared relations [default: every database that takes connections]. Repeatable.
    #[arg(long, value_name = "NAME")]
    database: Vec<String>,
    /// Read at most so many pages a second from each server.
    #[arg(long, value_name = "PAGES/S", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Connections to each server for a first look at all pages; half as many more look again at what is in doubt.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
    /// Seconds for which a server may be away, or its replay stand still.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// No progress line.
    #[arg(long)]
    quiet: bool,
}

pub(super) fn run_compare(args: &Args) -> Outcome {
    let options = Options {
        primary: args.primary.clone(),
        standby: args.standby.clone(),
        databases: args.database.clone(),
        rate: args.rate,
        links: args.connections.into(),
        patience: Duration::from_secs(args.patience),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let progress = Arc::new(Progress::default());
    let report = runtime.block_on(async {
        let shown = (!args.quiet).then(|| tokio::spawn(show(progress.clone())));
        let report = run(&options, progress.clone()).await;
        if let Some(shown) = shown {
            shown.abort();
            // It may be in the middle of a line.
            let _ = shown.await;
        }
        report
    })?;
    if !args.quiet && std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K");
    }
    if args.json {
        println!("{}", report.to_json());
    } else {
        print!("{report}");
    }
    Ok(verdict(&report))
}

fn verdict(report: &Report) -> ExitCode {
    if report.differing > 0 {
        ExitCode::from(DIFFERENT)
    } else if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The progress line, for as long as it is not aborted.
async fn show(progress: Arc<Progress>) {
    let is_terminal = std::io::stderr().is_terminal();
    let (tick, begin) = (if is_terminal { TICK.0 } else { TICK.1 }, Instant::now());
    loop {
        tokio::time::sleep(tick).await;
        let [blocks, looked, doubts, differences] =
            [&progress.blocks, &progress.looked, &progress.doubts, &progress.differences]
                .map(|n| n.load(Ordering::Relaxed));
        let speed = looked as f64 / begin.elapsed().as_secs_f64();
        let line = format!(
            "{looked} of {blocks} pages, {speed:.0} pages/s, {doubts} to be looked at again, {differences} differences"
        );
        let mut err = std::io::stderr();
        let _ = if is_terminal { write!(err, "\r\x1b[K{line}") } else { writeln!(err, "{line}") };
        let _ = err.flush();
    }
}
