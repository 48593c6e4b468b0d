//! One backend process: settles what a predecessor left, then asks, cancels and writes everything down until it is told
//! to end, or killed.

use super::super::region::attach;
use super::super::{pool, Failure, Outcome};
use super::log::{Kind, Record, Writer};
use super::mix::Mix;
use super::session::Session;
use shmuring::backend::Backend;
use shmuring::error::Error;
use shmuring::region::Region;
use signal_hook::consts::SIGTERM;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the lock of a predecessor that was killed may take to come free (R3).
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of one backend.
#[derive(Debug, clap::Args)]
pub(in super::super) struct BackendArgs {
    #[arg(long)]
    region: PathBuf,
    #[arg(long)]
    pool: PathBuf,
    #[arg(long)]
    log: PathBuf,
    #[arg(long)]
    post: u32,
    #[arg(long)]
    posts: u32,
    #[arg(long)]
    incarnation: u32,
    #[arg(long)]
    depth: u32,
    #[arg(long)]
    patience: u32,
    #[arg(long)]
    seed: u64,
}

pub(in super::super) fn run(args: &BackendArgs) -> Outcome {
    let told = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGTERM, told.clone())?;
    let mut region = attach(&args.region)?;
    pool::register(&mut region, &args.pool)?;
    // Only the owner of the range may write to the log of its post.
    let backend = attach_range(args, &region)?;
    let mut log = Writer::open(&args.log, args.incarnation)?;
    log.put(Record { a: std::process::id().into(), ..Record::new(Kind::Start) });
    let mut session = Session::new(&region, backend, log, args.patience * 1000);
    let seed = args.seed ^ u64::from(args.incarnation) << 32 ^ u64::from(args.post) << 56;
    let mut mix = Mix::new(args.post, args.posts, args.depth, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), told);
    let result = session.settle().and_then(|()| session.run(&mut mix));
    if result.is_ok() {
        session.log.put(Record::new(Kind::End));
    }
    session.log.flush()?;
    result.map(|()| ExitCode::SUCCESS).map_err(|e| format!("backend {}: {e}", args.post).into())
}

/// The own range; a predecessor that was killed may take a moment to leave its memory.
fn attach_range<'r>(args: &BackendArgs, region: &'r Region) -> Result<Backend<'r>, Failure> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Backend::attach(region, args.post * args.depth, args.depth) {
            Err(Error::OwnerAlive) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            other => return Ok(other?),
        }
    }
}
