//! `shmuring serve`: the communicator alone.

use super::failure::Kind;
use super::region::explain;
use super::settings::Governed;
use super::sizes::{Found, Sizes};
use super::told::Told;
use super::{pool, replace, Failure, Outcome};
use crate::cache::{self, Cache};
use crate::compare::Compare;
use crate::server::{Host, HostError, HostOptions, ServerOptions, Stopped};
use crate::service::spec::ServiceSpec;
use shmuring::communicator::Gather;
use shmuring::region::Region;
use std::io::{ErrorKind, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The region: made if it does not exist (mode 0600), best under /dev/shm.
    #[arg(long)]
    region: PathBuf,
    #[command(flatten)]
    sizes: Sizes,
    /// Where pages come from: store:DIR (pages versioned by LSN), datadir:DIR (a PostgreSQL data directory, read-only),
    /// standby:CONNINFO (a PostgreSQL hot standby, read-only; CONNINFO as of libpq) or grpc:SERVERS (page servers).
    ///
    /// SERVERS is http://HOST:PORT[,...]?tenant=HEX&timeline=HEX[&stripe=BLOCKS][&token_file=FILE][&ca_file=FILE] with the
    /// server of shard 0 first (https:// for TLS), or a file that says the same, NAME = VALUE a line with
    /// shard.0 = http://HOST:PORT and so on. The file, the token and the certificates are read again at SIGHUP.
    #[arg(long)]
    service: ServiceSpec,
    /// Register this file of 8 KiB blocks as pool 1, which backends that map it too may name in requests.
    #[arg(long, value_name = "FILE")]
    pool: Option<PathBuf>,
    /// MiB of writes that a store gathers in memory before they become files, and that a take-over reads anew.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memtable: u64,
    /// MiB of pages kept in memory, each with the LSN it is valid to; 0: none [default: 64 for a store and page servers, 0
    /// for others].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    cache_memory: Option<u64>,
    /// What the page cache evicts goes to this file, which is made or emptied at the start.
    #[arg(long, value_name = "FILE", requires = "cache_file_size")]
    cache_file: Option<PathBuf>,
    /// MiB of the cache file.
    #[arg(long, value_name = "MIB", requires = "cache_file", value_parser = clap::value_parser!(u64).range(1..=1 << 24))]
    cache_file_size: Option<u64>,
    /// MiB of prefetched pages that wait for their first reader; 0: a prefetch only brings pages near the page service.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u64).range(0..=1 << 20))]
    prefetch_buffer: u64,
    /// A PostgreSQL data directory to compare answers with, as the setting debug_compare_local says.
    #[arg(long, value_name = "DIR")]
    compare_local: Option<PathBuf>,
    /// Settings that can change while serving, NAME = VALUE a line; read at the start and at SIGHUP.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Kill a communicator that holds the role, and take over.
    #[arg(long)]
    replace: bool,
    /// Threads of the runtime; default: one a cpu.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Collect up to so many requests before handing them on ...
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=64))]
    gather: u16,
    /// ... or for so many microseconds.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    gather_us: u64,
    /// Keep what reads as of the last so many bytes of WAL need; older versions of pages are forgotten.
    #[arg(long, default_value_t = 1 << 30)]
    history: u64,
    /// Seconds between two rounds of forgetting; 0: never.
    #[arg(long, default_value_t = 60)]
    forget_every: u64,
    /// Seconds to wait for unfinished requests at SIGTERM.
    #[arg(long, default_value_t = 30)]
    grace: u64,
}

/// Serves until SIGTERM or SIGINT, then drains and exits 0.
pub(super) fn run(args: &Args) -> Outcome {
    log_to_stderr();
    sigbus::install();
    let (region, is_new) = open(args)?;
    if args.replace {
        if let Some(pid) = replace::kill_holder(&args.region, region)? {
            tracing::warn!(pid, "killed the communicator that held the role");
        }
        if let Some(pid) = replace::kill_holder_of_store(&args.region, region, &args.service)? {
            tracing::warn!(pid, "killed the communicator that held the store and did not have the role yet");
        }
    }
    let runtime = runtime(args)?;
    // Before anything is held or said: whoever reads "serving" may send the signal at once.
    let mut told = runtime.block_on(async { Told::listen() })?;
    let governed = governed(args)?;
    let options = options(args, &governed)?;
    let started = Host::start(region, runtime.handle().clone(), &options).inspect_err(|e| {
        // A region that nobody ever served would only have sizes that the next attempt may not ask for.
        if is_new && matches!(e, HostError::Service(..) | HostError::Refused(..)) {
            let _ = std::fs::remove_file(&args.region);
        }
    });
    let host = started.map_err(|e| did_not_start(args, e))?;
    let slots = region.parts().slots.len();
    tracing::info!(
        region = %args.region.display(), slots, service = %args.service, epoch = host.epoch(),
        inherited = host.inherited(), pid = std::process::id(), "serving"
    );
    let reload = || {
        governed.reload();
        host.reload();
    };
    let check = || match host.is_running() {
        true => Ok(()),
        false => Err("the reaper has ended; start again to take over".into()),
    };
    let why = runtime.block_on(told.wait(reload, check))?;
    tracing::info!("{why}: draining");
    let Stopped { served, synced } = host.stop();
    if served.unanswered == 0 {
        runtime.shutdown_timeout(Duration::from_secs(1));
    } else {
        // Its tasks would answer what they have as they are dropped; a successor does it (I9).
        core::mem::forget(runtime);
    }
    if let Err(e) = synced {
        return Err(format!("{}: the last sync failed: {e}", args.service).into());
    }
    tracing::info!(claimed = served.claimed, unanswered = served.unanswered, "stopped");
    Ok(if served.unanswered == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn options(args: &Args, governed: &Governed) -> Result<HostOptions, Failure> {
    Ok(HostOptions {
        service: args.service.clone(),
        memtable_bytes: args.memtable << 20,
        server: ServerOptions {
            gather: Gather { requests: usize::from(args.gather), ns: args.gather_us.saturating_mul(1000) },
            grace: Duration::from_secs(args.grace),
            cache: Arc::new(cache(args)?),
            compare: governed.compare.clone(),
            ..ServerOptions::default()
        },
        history: args.history,
        forget_every: Duration::from_secs(args.forget_every),
    })
}

fn cache(args: &Args) -> Result<Cache, Failure> {
    let usual = cache::Sizes::usual(&args.service);
    let memory = args.cache_memory.map_or(usual.memory, |mib| mib << 20);
    let sizes = cache::Sizes { memory, prefetched: args.prefetch_buffer << 20 };
    let (Some(path), Some(mib)) = (&args.cache_file, args.cache_file_size) else { return Ok(Cache::new(sizes)) };
    if sizes.memory == 0 {
        return Err("--cache-file takes what --cache-memory evicts, and that is 0".into());
    }
    Cache::with_file(sizes, path, mib << 20).map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => {
            Kind::Refused.because(format!("--cache-file {}: another process uses it", path.display()))
        }
        _ => format!("--cache-file {}: {e}", path.display()).into(),
    })
}

/// The local copy to compare with, switched as the settings file says.
fn governed(args: &Args) -> Result<Governed, Failure> {
    let open = |dir: &PathBuf| Compare::open(dir).map_err(|e| format!("--compare-local {}: {e}", dir.display()));
    let compare = args.compare_local.as_ref().map(open).transpose()?.map(Arc::new);
    let governed = Governed { file: args.settings.clone(), compare };
    governed.apply()?;
    Ok(governed)
}

fn did_not_start(args: &Args, e: HostError) -> Failure {
    let path = args.region.display();
    match e {
        HostError::RoleHeld { pid: 0 } => Kind::Refused.because(format!("{path}: {e}")),
        HostError::RoleHeld { .. } => {
            Kind::Refused.because(format!("{path}: {e}; stop it, or use --replace to kill it"))
        }
        HostError::Service(ServiceSpec::Store(_), ref cause) if cause.errno == libc::EBUSY => {
            Kind::Refused.because(format!("{e}; if it hangs before it serves {path}, --replace kills it"))
        }
        HostError::Refused(..) => Kind::Answered.because(e),
        HostError::NoSuchStore(_) => format!("{e}: give the store that {path} had, or remove the region").into(),
        HostError::Server(e) => explain(&args.region, e),
        e => e.into(),
    }
}

/// The region and its pool, for the rest of the process's life.
fn open(args: &Args) -> Result<(&'static Region, bool), Failure> {
    let Found { mut region, is_new, bytes } = args.sizes.attach_or_create(&args.region)?;
    if is_new {
        tracing::info!(region = %args.region.display(), bytes, "made the region");
    }
    if let Some(path) = &args.pool {
        pool::register(&mut region, path)?;
    }
    Ok((Box::leak(Box::new(region)), is_new))
}

fn runtime(args: &Args) -> Result<Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(n) = args.threads {
        builder.worker_threads(usize::from(n));
    }
    Ok(builder.enable_all().thread_name("shmuring-worker").build()?)
}

/// Logs to stderr; SHMURING_LOG takes filters as tracing's EnvFilter has them.
pub(super) fn log_to_stderr() {
    use tracing_subscriber::filter::{EnvFilter, LevelFilter};
    let wanted = std::env::var("SHMURING_LOG").unwrap_or_else(|_| "info,fjall=warn,lsm_tree=warn".into());
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).parse_lossy(wanted);
    let is_terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(is_terminal);
    let _ = log.try_init();
}

/// A truncated region file is a SIGBUS at the next access: say so, and go (R17).
#[allow(unsafe_code)]
mod sigbus {
    const MESSAGE: &[u8] =
        b"shmuring: SIGBUS: a mapped file was truncated or its filesystem is full; the communicator cannot go on\n";

    extern "C" fn handler(_: libc::c_int) {
        // SAFETY: write and _exit are async-signal-safe; the message is static.
        unsafe {
            libc::write(2, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::_exit(1);
        }
    }

    pub(super) fn install() {
        // SAFETY: the handler calls async-signal-safe functions only; a zeroed sigaction is a valid one.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = handler as extern "C" fn(libc::c_int) as usize;
            libc::sigaction(libc::SIGBUS, &action, core::ptr::null_mut());
        }
    }
}
