//! `shmuring page-server`: one shard's pages over gRPC.

use super::failure::{Failure, Kind};
use super::serve::log_to_stderr;
use super::settings::{lines, on_or_off, text_of, unknown};
use super::target::LsnArg;
use super::told::Told;
use super::Outcome;
use crate::page_server::{Hold, Options, PageServer, Shard};
use crate::service::ServiceError;
use crate::wire::metadata::Id;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// Arguments of `page-server`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to listen, HOST:PORT; port 0 takes any that is free. The address goes to stdout once it serves.
    #[arg(long, value_name = "ADDR", value_parser = host_and_port)]
    listen: String,
    /// Where the pages lie: a store's directory, which is made if it is missing.
    #[arg(long, value_name = "DIR")]
    store: PathBuf,
    /// Which shard of how many this is, counted from 0.
    #[arg(long, value_name = "K/N", default_value = "0/1")]
    shard: ShardArg,
    /// Blocks of a stripe: the same for all shards and their clients.
    #[arg(long, value_name = "BLOCKS", default_value_t = 32768, value_parser = clap::value_parser!(u32).range(1..))]
    stripe: u32,
    /// The one tenant that it serves, 32 hex digits [default: whatever a client names].
    #[arg(long, value_name = "ID")]
    tenant: Option<Id>,
    /// The one timeline that it serves, 32 hex digits [default: whatever a client names].
    #[arg(long, value_name = "ID")]
    timeline: Option<Id>,
    /// Let in only who shows a token of this file: a line each, TOKEN or TOKEN TENANT. Read again at SIGHUP.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// TLS: the certificate with its chain, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// TLS: the key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Ingest writes so many milliseconds late.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400_000))]
    ingest_lag_ms: u64,
    /// Stay so many bytes of WAL behind what was written.
    #[arg(long, value_name = "BYTES", default_value_t = 0)]
    ingest_lag_bytes: u64,
    /// Ingest nothing, until the settings say otherwise.
    #[arg(long)]
    ingest_stall: bool,
    /// ingest_lag_ms, ingest_lag_bytes and ingest_stall (on, off) as NAME = VALUE lines; what it does not name is as the
    /// options say. Read at the start and at SIGHUP.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// Begin with no more than this ingested, as after a restart that lost what came later; the rest comes again.
    #[arg(long, value_name = "LSN")]
    begin_at: Option<LsnArg>,
    /// Seconds that a read waits for its LSN.
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = seconds)]
    wait_lsn: f64,
    /// Seconds that an LSN lease holds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    lease: f64,
    /// Keep what reads as of the last so many bytes of WAL need; older versions of pages are forgotten.
    #[arg(long, default_value_t = 1 << 30)]
    history: u64,
    /// Seconds between two rounds of forgetting; 0: never.
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    forget_every: f64,
    /// Seconds between two checkpoints of its own; 0: only when a writer syncs, and at the end.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = seconds)]
    checkpoint_every: f64,
    /// MiB of writes that the store gathers in memory before they become files.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memtable: u64,
    /// Threads of the runtime; default: one a cpu.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Seconds to wait for calls under way at SIGTERM.
    #[arg(long, default_value_t = 30)]
    grace: u64,
}

/// HOST:PORT as it was given: which addresses that is, the system says.
fn host_and_port(s: &str) -> Result<String, String> {
    match s.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(s.into()),
        _ => Err("it is not HOST:PORT".into()),
    }
}

fn seconds(s: &str) -> Result<f64, String> {
    let seconds: f64 = s.parse().map_err(|_| format!("'{s}' is no number"))?;
    if (0.0..=1e7).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("it is not between 0 and 10000000".into())
    }
}

/// K/N on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ShardArg {
    number: u8,
    count: u8,
}

impl FromStr for ShardArg {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let parsed = s.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
        match parsed {
            Some((number, count)) if number < count => Ok(Self { number, count }),
            _ => Err(format!("'{s}' is not K/N: shard K, from 0, of N, up to 255")),
        }
    }
}

impl Args {
    /// What holds ingest back: the options, and over them the settings file.
    fn hold(&self) -> Result<Hold, String> {
        let hold = Hold {
            lag: Duration::from_millis(self.ingest_lag_ms),
            lag_bytes: self.ingest_lag_bytes,
            stall: self.ingest_stall,
        };
        let Some(file) = &self.settings else { return Ok(hold) };
        with_settings(hold, &text_of(file)?).map_err(|e| format!("{}: {e}", file.display()))
    }

    fn options(&self, hold: Hold) -> Options {
        let ShardArg { number, count } = self.shard;
        Options {
            listen: self.listen.clone(),
            store: self.store.clone(),
            memtable_bytes: self.memtable << 20,
            shard: Shard { number, count, stripe: self.stripe },
            tenant: self.tenant,
            timeline: self.timeline,
            token_file: self.token_file.clone(),
            tls: self.tls_cert.clone().zip(self.tls_key.clone()),
            hold,
            begin_at: self.begin_at.map(|lsn| lsn.0),
            wait_limit: Duration::from_secs_f64(self.wait_lsn),
            lease: Duration::from_secs_f64(self.lease),
            history: self.history,
            forget_every: Duration::from_secs_f64(self.forget_every),
            checkpoint_every: Duration::from_secs_f64(self.checkpoint_every),
        }
    }
}

/// What a settings file makes of the options.
fn with_settings(mut hold: Hold, text: &str) -> Result<Hold, String> {
    for line in lines(text) {
        let (number, name, value) = line?;
        let wrong = |why: String| format!("line {number}: {name}: {why}");
        let whole = || value.parse::<u64>().map_err(|_| wrong(format!("'{value}' is no number")));
        match name {
            "ingest_lag_ms" => hold.lag = Duration::from_millis(whole()?.min(86_400_000)),
            "ingest_lag_bytes" => hold.lag_bytes = whole()?,
            "ingest_stall" => hold.stall = on_or_off(value).map_err(wrong)?,
            _ => return Err(unknown(number, name)),
        }
    }
    Ok(hold)
}

/// Serves until SIGTERM or SIGINT, then drains and exits 0.
pub(super) fn run(args: &Args) -> Outcome {
    log_to_stderr();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(n) = args.threads {
        builder.worker_threads(usize::from(n));
    }
    let runtime = builder.enable_all().thread_name("shmuring-page-server").build()?;
    let drained = runtime.block_on(serve(args))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(if drained { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn serve(args: &Args) -> Result<bool, Failure> {
    let mut told = Told::listen()?;
    let hold = args.hold()?;
    let server = PageServer::start(&args.options(hold)).await.map_err(did_not_start)?;
    let (address, shard) = (server.address(), args.options(hold).shard);
    let at = LsnArg(server.last_record());
    tracing::info!(%address, %shard, store = %args.store.display(), %at, ?hold, pid = std::process::id(), "serving");
    say(&address.to_string());
    let check = || match server.is_running() {
        true => Ok(()),
        false => Err("the listener has failed".into()),
    };
    let why = told.wait(|| reload(&server, args), check).await?;
    tracing::info!("{why}: draining");
    let drained = server.stop(Duration::from_secs(args.grace)).await?;
    tracing::info!(drained, "stopped");
    Ok(drained)
}

fn did_not_start(e: ServiceError) -> Failure {
    match e.errno {
        libc::EBUSY | libc::EADDRINUSE => Kind::Refused.because(e),
        _ => e.into(),
    }
}

/// One line on stdout; nobody need read it.
fn say(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// At SIGHUP. What cannot be read stays as it is.
fn reload(server: &PageServer, args: &Args) {
    match args.hold() {
        Ok(hold) => {
            server.set_hold(hold);
            tracing::info!(?hold, "settings");
        }
        Err(e) => tracing::error!("SIGHUP: the settings stay as they are: {e}"),
    }
    if let Err(e) = server.read_tokens() {
        tracing::error!("SIGHUP: the tokens stay as they are: {e}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["127.0.0.1:0", "[::1]:6400", "h1.example:65535"] {
            assert_eq!(host_and_port(good).as_deref(), Ok(good));
        }
        for wrong in ["bogus", ":6400", "127.0.0.1", "h:", "h:65536", "h:x", ""] {
            assert!(host_and_port(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_said_is_as_in_the_library() {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line = ["page-server", "--listen", "h:1", "--store", "/pages"];
        let Line { args } = clap::Parser::parse_from(line);
        assert_eq!(args.options(args.hold().unwrap()), Options::new("h:1", "/pages"));
    }

    #[test]
    fn shards_parse_and_nonsense_does_not() {
        assert_eq!("2/3".parse(), Ok(ShardArg { number: 2, count: 3 }));
        for wrong in ["3/3", "0/0", "1", "-1/3", "0/256", "a/b", "0/1/2"] {
            assert!(wrong.parse::<ShardArg>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn settings_go_over_the_options_and_nonsense_says_where_it_is() {
        let options = Hold { lag_bytes: 7, stall: true, ..Hold::default() };
        let set = with_settings(options, "ingest_lag_ms = 500\ningest_stall = off\n");
        assert_eq!(set, Ok(Hold { lag: Duration::from_millis(500), lag_bytes: 7, stall: false }));
        for (text, says) in [
            ("frog", "line 1: 'frog'"),
            ("\nfrog = 1", "line 2: there is no setting 'frog'"),
            ("ingest_lag_ms = much", "'much' is no number"),
            ("ingest_stall = 1", "'1' is not on or off"),
        ] {
            let e = with_settings(options, text).unwrap_err();
            assert!(e.contains(says), "{e}");
        }
    }
}
