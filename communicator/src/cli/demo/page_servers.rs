//! The page servers of a demo: one process a shard, started again when it dies; ingest of the last one is held back and
//! let go in turns.

use super::super::child::{self, signal};
use super::super::Failure;
use super::ledger::{Ledger, Phase};
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Blocks of a stripe: few, so that every relation lies on every shard.
const STRIPE: u32 = 16;
/// How long ingest is held back at least, and how long it is not; more where it is held back by more than half of it.
const TURN: Duration = Duration::from_millis(1000);
/// How often in a row one that is started again may end before it serves.
const VAIN: u32 = 20;
/// How long a server may take to drain.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct PageServers {
    servers: Vec<Server>,
    /// Where backends see whether ingest is held back.
    ledger: Ledger,
    /// Milliseconds by which it is.
    hold_back: Option<u32>,
    turned: Instant,
    restarts: u32,
}

struct Server {
    child: Child,
    address: String,
    log: PathBuf,
    args: Vec<String>,
    /// How often in a row it ended before it served.
    vain: u32,
}

impl Server {
    /// Starts a server; it serves when this returns.
    fn start(log: PathBuf, args: Vec<String>, address: &str) -> Result<Self, Failure> {
        let (child, address) = spawn(&log, &args, address)?;
        match address {
            Some(address) => Ok(Self { child, address, log, args, vain: 0 }),
            None => Err(format!("a page server does not come up: {}", child::last_line(&log)).into()),
        }
    }

    /// Starts it again where it was. It may be killed before it serves, or find its port taken for a moment by somebody's
    /// outgoing connection: then it is started once more the next time.
    fn again(&mut self) -> Result<(), Failure> {
        let (child, address) = spawn(&self.log, &self.args, &self.address)?;
        self.child = child;
        self.vain = if address.is_some() { 0 } else { self.vain + 1 };
        match self.vain {
            VAIN.. => Err(format!("a page server does not come up: {}", child::last_line(&self.log)).into()),
            _ => Ok(()),
        }
    }
}

/// The process, and the address that it says it serves; `None`: it has ended.
fn spawn(log: &Path, args: &[String], address: &str) -> Result<(Child, Option<String>), Failure> {
    let mut command = child::command(log)?;
    command.arg("page-server").args(["--listen", address]).args(args);
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    let address = Some(line.trim()).filter(|l| !l.is_empty()).map(str::to_string);
    if address.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok((child, address))
}

impl PageServers {
    /// Starts `count` servers over stores in `dir`.
    pub(super) fn start(dir: &Path, count: u8, hold_back: Option<u32>) -> Result<Self, Failure> {
        let ledger = Ledger::shared(dir)?;
        ledger.set_phase(Phase::Untold);
        let servers = Vec::new();
        let mut this = Self { servers, ledger, hold_back, turned: Instant::now(), restarts: 0 };
        for number in 0..count {
            let settings = this.settings(dir, number);
            std::fs::write(&settings, "")?;
            let store = dir.join(format!("pages-{number}"));
            let args = [
                ("--store", store.display().to_string()),
                ("--shard", format!("{number}/{count}")),
                ("--stripe", STRIPE.to_string()),
                ("--settings", settings.display().to_string()),
            ];
            let args = args.into_iter().flat_map(|(name, value)| [name.to_string(), value]).collect();
            let log = dir.join(format!("page-server-{number}.log"));
            this.servers.push(Server::start(log, args, "127.0.0.1:0")?);
        }
        Ok(this)
    }

    fn settings(&self, dir: &Path, number: u8) -> PathBuf {
        dir.join(format!("page-server-{number}.settings"))
    }

    /// The service that they are, for `serve`.
    pub(super) fn service(&self) -> String {
        let servers: Vec<_> = self.servers.iter().map(|s| format!("http://{}", s.address)).collect();
        format!("grpc:{}?tenant={:032x}&timeline={:032x}&stripe={STRIPE}", servers.join(","), 1, 1)
    }

    /// How often one had to be started again.
    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Starts again what has died.
    pub(super) fn watch(&mut self) -> Result<(), Failure> {
        for server in &mut self.servers {
            if let Some(status) = server.child.try_wait()? {
                eprintln!("the page server at {} ended with {status}: started another", server.address);
                server.again()?;
                self.restarts += 1;
            }
        }
        Ok(())
    }

    /// Holds ingest back or lets it go when it is time.
    pub(super) fn take_turns(&mut self, dir: &Path) -> Result<(), Failure> {
        if let Some(ms) = self.hold_back {
            let turn = TURN.max(Duration::from_millis(u64::from(ms) * 2));
            if self.turned.elapsed() >= turn {
                self.turn(dir, ms)?;
            }
        }
        Ok(())
    }

    /// Holds the last server back, or lets it go.
    fn turn(&mut self, dir: &Path, ms: u32) -> Result<(), Failure> {
        let Some((last, others)) = self.servers.split_last() else { return Ok(()) };
        let (phase, lag) = match self.ledger.phase() {
            Phase::Held => (Phase::Free, 0),
            Phase::Free | Phase::Untold => (Phase::Held, ms),
        };
        // Renamed into place, so that a server that reads it meanwhile reads it whole.
        let (path, part) = (self.settings(dir, others.len() as u8), dir.join("page-server.settings.part"));
        std::fs::write(&part, format!("ingest_lag_ms = {lag}\n"))?;
        std::fs::rename(part, path)?;
        signal(&last.child, libc::SIGHUP);
        self.ledger.set_phase(phase);
        self.turned = Instant::now();
        Ok(())
    }

    /// Ends them in order; what went wrong with that.
    pub(super) fn stop(&mut self) -> Result<Vec<String>, Failure> {
        let mut wrong = Vec::new();
        for server in &mut self.servers {
            signal(&server.child, libc::SIGTERM);
        }
        for server in &mut self.servers {
            let deadline = Instant::now() + PATIENCE;
            let status = loop {
                match server.child.try_wait()? {
                    Some(status) => break status,
                    None if Instant::now() > deadline => return Err("a page server does not stop".into()),
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            if status.signal() == Some(libc::SIGKILL) {
                // Killed at the very end: every page was verified, and its store has what it acknowledged.
                eprintln!("the page server at {} ended with {status}", server.address);
            } else if !status.success() {
                wrong.push(format!("the page server at {} did not drain: {status}", server.address));
            }
        }
        Ok(wrong)
    }
}

impl Drop for PageServers {
    fn drop(&mut self) {
        for server in &mut self.servers {
            let _ = server.child.kill();
            let _ = server.child.wait();
        }
    }
}
