//! `shmuring watch`: a communicator that is started again whenever it dies, for a database server that starts it.
//!
//! It ends with its stdin if that is a pipe or a socket: a pipe whose other end the server's processes hold, so with the
//! last of them. It touches no region, and ends by itself, with 0 or 1: a database may take a child's death by a signal for a crash of its own
//! (R16). Killed, it leaves its communicator behind, which serves on, until the next watcher replaces it.

use super::serve::log_to_stderr;
use super::{Failure, Outcome};
use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::signal::unix::{signal, SignalKind};
use tokio::sync::oneshot;

/// Pause before a successor of a communicator that died young; doubled each time up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Who lived so long did not die young.
const YOUTH: Duration = Duration::from_secs(2);
/// How long a communicator may drain before it is killed: longer than its own --grace.
const PATIENCE: Duration = Duration::from_secs(90);

/// Arguments of `watch`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Arguments of `shmuring serve`. The first communicator replaces one that an earlier watcher left.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    serve: Vec<OsString>,
}

/// Watches until stdin, if it is a pipe or a socket, ends, or SIGTERM or SIGINT come, then lets the communicator drain.
pub(super) fn run(args: &Args) -> Outcome {
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(args))
}

async fn watch(args: &Args) -> Outcome {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut end = end_of_stdin();
    let mut pause = PAUSES.0;
    let mut child = start(args, true)?;
    let mut since = Instant::now();
    loop {
        tokio::select! {
            _ = term.recv() => return stop(child, "SIGTERM").await,
            _ = int.recv() => return stop(child, "SIGINT").await,
            _ = &mut end => return stop(child, "stdin has ended").await,
            status = child.wait() => {
                pause = if since.elapsed() > YOUTH { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
                tracing::warn!("the communicator ended with {}: starting another", status?);
            }
        }
        // At once the first time: requests wait.
        if since.elapsed() <= YOUTH {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = &mut end => return Ok(ExitCode::SUCCESS),
                _ = term.recv() => return Ok(ExitCode::SUCCESS),
            }
        }
        child = start(args, false)?;
        since = Instant::now();
    }
}

/// A thread's, since what stdin is need not be fit for polling. It never comes of a terminal, a file or /dev/null, which
/// nobody holds for as long as he lives.
fn end_of_stdin() -> oneshot::Receiver<()> {
    let (send, receive) = oneshot::channel();
    std::thread::spawn(move || {
        let stdin = std::io::stdin();
        let kind = stdin.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata()).map(|m| m.file_type());
        while !kind.as_ref().is_ok_and(|k| k.is_fifo() || k.is_socket()) {
            std::thread::park();
        }
        // What is written there only asks whether somebody reads.
        let _ = std::io::copy(&mut stdin.lock(), &mut std::io::sink());
        let _ = send.send(());
    });
    receive
}

/// `serve` as a child. The successor of one that died never replaces another: somebody else may have taken over.
fn start(args: &Args, is_first: bool) -> Result<Child, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("serve").args(&args.serve).args(is_first.then_some("--replace")).stdin(Stdio::null());
    Ok(command.spawn()?)
}

/// SIGTERM, and 1 if it did not end clean.
async fn stop(mut child: Child, why: &str) -> Outcome {
    tracing::info!("{why}: stopping the communicator");
    if let Some(pid) = child.id() {
        super::child::terminate(pid);
    }
    let status: ExitStatus = match tokio::time::timeout(PATIENCE, child.wait()).await {
        Ok(status) => status?,
        Err(_) => {
            tracing::warn!("the communicator does not drain: killing it");
            child.kill().await?;
            child.wait().await?
        }
    };
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
