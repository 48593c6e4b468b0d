//! `shmuring demo`: the main job, with real processes. Every page that comes back is verified byte for byte.
//!
//! | file | role |
//! |---|---|
//! | `fleet` | starts, watches and restarts the communicator and the backends |
//! | `page_servers` | the page servers, if there are to be some |
//! | `driver` | a backend's requests in flight |
//! | `pages`, `ledger` | the workload on a store, what was acknowledged |
//! | `scan` | the workload on a data directory |
//! | `tally`, `report` | counts, and how they are shown |

mod driver;
mod fleet;
mod ledger;
mod page_servers;
mod pages;
mod report;
mod scan;
mod tally;

use super::region::attach;
use super::{Failure, Outcome};
use crate::service::datadir::Condition;
use driver::Driver;
use pages::Pages;
use scan::Scan;
use shmuring::backend::{Backend, Leftover, Wait};
use shmuring::error::Error;
use shmuring::request::{Completion, Request};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tally::Tally;

/// Bounce buffers a slot.
const BOUNCE: u32 = 4;
/// A request without an answer for so long is lost.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Read the pages of this PostgreSQL data directory (its server stopped) instead of writing and reading a store.
    #[arg(long)]
    pgdata: Option<PathBuf>,
    /// Backend processes.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1000))]
    backends: u32,
    /// Requests that each keeps in flight.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    depth: u32,
    /// How long; with --pgdata at least until every page was read.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    seconds: u64,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Keep the pages in so many page servers, a shard each, instead of a store in the communicator.
    #[arg(long, value_name = "N", conflicts_with = "pgdata", value_parser = clap::value_parser!(u8).range(1..=64))]
    page_servers: Option<u8>,
    /// Hold ingest of the last page server back by so many milliseconds, every other second, and compare.
    #[arg(long, value_name = "MS", requires = "page_servers", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    hold_back: Option<u32>,
    /// Leave the region, the store and the logs in this directory instead of a temporary one.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// Arguments of one backend.
#[derive(Debug, clap::Args)]
pub(super) struct BackendArgs {
    #[arg(long)]
    region: PathBuf,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    pgdata: Option<PathBuf>,
    #[arg(long)]
    index: u32,
    #[arg(long)]
    backends: u32,
    #[arg(long)]
    depth: u32,
    #[arg(long)]
    milliseconds: u64,
    /// Where the tally goes.
    #[arg(long)]
    tally: PathBuf,
}

/// One backend process: attaches, settles what a predecessor left, works, and writes its tally.
pub(super) fn run_backend(args: &BackendArgs) -> Outcome {
    let region = attach(&args.region)?;
    let mut tally = Tally::at(&args.tally);
    let mut backend = attach_range(args, &region)?;
    while let Some(leftover) = next_leftover(&mut backend)? {
        tally.leftovers += 1;
        let (opcode, block) = (leftover.request.opcode(), leftover.request.block);
        eprintln!("backend {}: settled a leftover: {opcode:?} block {block}: {:?}", args.index, leftover.fate);
    }
    let max_vector = (args.depth * BOUNCE / 2).clamp(1, 32);
    let until = Instant::now() + Duration::from_millis(args.milliseconds);
    let tally = match &args.pgdata {
        Some(root) => {
            let mut first = Scan::open(root, args.index, args.backends, max_vector, false)?;
            let mut driver = Driver::new(backend, args.depth as usize, PATIENCE);
            driver.tally = tally;
            driver.run(&mut first, None)?;
            let mut rest = Scan::open(root, args.index, args.backends, max_vector, true)?;
            driver.run(&mut rest, Some(until))?;
            driver.tally
        }
        None => {
            let mut pages = Pages::open(&args.dir, args.index, args.backends, max_vector, &mut backend, &mut tally)?;
            let mut driver = Driver::new(backend, args.depth as usize, PATIENCE);
            driver.tally = tally;
            driver.run(&mut pages, Some(until))?;
            driver.tally
        }
    };
    tally.write()?;
    Ok(ExitCode::SUCCESS)
}

/// The next leftover; a signal (SIGCONT after a stop, say) is no reason to give up.
fn next_leftover(backend: &mut Backend<'_>) -> Result<Option<Leftover>, Failure> {
    loop {
        match backend.next_leftover(&patience()) {
            Err(Error::Interrupted) => {}
            other => return Ok(other.map_err(|e| format!("settling leftovers: {e}"))?),
        }
    }
}

/// One request from fill to finish; asked again if a signal ended the wait. All slots may be those of cancelled leftovers,
/// which come back when the communicator says so.
fn call(backend: &mut Backend<'_>, request: &Request<'_>, to: &mut [u8]) -> Result<Completion, Failure> {
    loop {
        match backend.call(request, &patience(), to) {
            Err(Error::Interrupted) => {}
            Err(Error::NoFreeSlot) => match backend.wait_free(&patience()) {
                Ok(_) | Err(Error::Interrupted) => {}
                Err(e) => return Err(format!("{}: waiting for a slot: {e}", request.opcode.name()).into()),
            },
            other => return Ok(other.map_err(|e| format!("{}: {e}", request.opcode.name()))?),
        }
    }
}

fn patience() -> Wait<'static> {
    Wait::for_ns(PATIENCE.as_nanos() as u64)
}

/// The own range; a predecessor that was killed may take a moment to leave its memory (R3).
fn attach_range<'r>(args: &BackendArgs, region: &'r shmuring::region::Region) -> Result<Backend<'r>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Backend::attach(region, args.index * args.depth, args.depth) {
            Err(Error::OwnerAlive) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            other => return Ok(other?),
        }
    }
}

/// The demo: exit code 1 if any page was wrong, any request lost, or anything failed that should not have.
pub(super) fn run(args: &Args) -> Outcome {
    // Its communicator says so too, in a log that nobody reads.
    let condition = args.pgdata.as_ref().map(|root| Condition::of(root).map(|c| c.warning(root))).transpose()?;
    if let Some(warning) = condition.flatten() {
        eprintln!("WARNING: {warning}");
    }
    let mut fleet = fleet::Fleet::start(args)?;
    let report = fleet.run(args)?;
    if args.json {
        println!("{}", report.to_json());
    } else {
        report.print();
    }
    Ok(if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
