//! Processes of this program that commands start: a communicator that is started again when it dies, and signals.
#![allow(unsafe_code)]

use super::Failure;
use shmuring::region::Region;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a communicator may take to come up, or to drain.
const PATIENCE: Duration = Duration::from_secs(60);

/// This program, with nothing on stdin and stdout and its stderr in the file `log`. It dies with the thread that starts
/// it, however that dies: call this from one that lives as long as the process.
pub(super) fn command(log: &Path) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(append(log)?);
    let parent = std::process::id();
    // SAFETY: between fork and exec it makes two system calls on numbers, and allocates nothing.
    unsafe { command.pre_exec(move || die_with(parent)) };
    Ok(command)
}

/// Has the kernel kill this process when its parent, process `parent`, dies.
fn die_with(parent: u32) -> std::io::Result<()> {
    // SAFETY: system calls on numbers.
    let (set, now) = unsafe { (libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL), libc::getppid()) };
    if set == -1 {
        return Err(std::io::Error::last_os_error());
    }
    // It may have died before the kernel was told.
    if now.unsigned_abs() == parent {
        Ok(())
    } else {
        Err(std::io::Error::from_raw_os_error(libc::ESRCH))
    }
}

fn append(path: &Path) -> Result<File, Failure> {
    Ok(OpenOptions::new().create(true).append(true).open(path)?)
}

/// The last line of a log, for messages.
pub(super) fn last_line(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().last().unwrap_or("it said nothing").to_string()
}

/// Kills a child that has not been waited for.
pub(super) fn kill(pid: u32) {
    // SAFETY: as below.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
}

/// Asks a child that has not been waited for to end.
pub(super) fn terminate(pid: u32) {
    // SAFETY: as below.
    unsafe { libc::kill(pid as i32, libc::SIGTERM) };
}

/// Sends a signal to a child that has not been waited for.
pub(super) fn signal(child: &Child, signal: i32) {
    // SAFETY: a system call on numbers; the child has not been waited for, so the pid is its own.
    unsafe { libc::kill(child.id() as i32, signal) };
}

/// `shmuring serve` as a child process.
pub(super) struct Communicator {
    child: Child,
    region: PathBuf,
    log: PathBuf,
    args: Vec<OsString>,
    restarts: u32,
}

impl Communicator {
    /// Starts one over `region` with these further arguments; its log goes to `log`.
    pub(super) fn start(region: &Path, log: &Path, args: Vec<OsString>) -> Result<Self, Failure> {
        let child = spawn(region, log, &args)?;
        Ok(Self { child, region: region.into(), log: log.into(), args, restarts: 0 })
    }

    /// The process.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(super) fn signal(&self, number: i32) {
        signal(&self.child, number);
    }

    /// Starts one again that was stopped.
    pub(super) fn restart(&mut self) -> Result<(), Failure> {
        self.child = spawn(&self.region, &self.log, &self.args)?;
        Ok(())
    }

    /// How often a successor had to be started.
    pub(super) fn restarts(&self) -> u32 {
        self.restarts
    }

    /// Starts a successor if it has died, and says how it ended then.
    pub(super) fn watch(&mut self) -> Result<Option<ExitStatus>, Failure> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        self.restarts += 1;
        self.child = spawn(&self.region, &self.log, &self.args)?;
        Ok(Some(status))
    }

    /// Waits until it holds the role; shows its log if it ends instead.
    pub(super) fn wait_for_role(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if Region::observe(&self.region).is_ok_and(|r| r.liveness().role_held()) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("the communicator ended with {status}:\n{said}").into());
            }
            if Instant::now() > deadline {
                return Err("the communicator does not come up".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGTERM, and it must drain: how it ended. `beside` is done meanwhile, for what it needs to drain.
    pub(super) fn stop(&mut self, mut beside: impl FnMut() -> Result<(), Failure>) -> Result<ExitStatus, Failure> {
        self.wait_for_role()?;
        signal(&self.child, libc::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait()? {
                Some(status) => return Ok(status),
                None if Instant::now() > deadline => return Err("the communicator does not stop".into()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
            beside()?;
        }
    }
}

impl Drop for Communicator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(region: &Path, log: &Path, args: &[OsString]) -> Result<Child, Failure> {
    Ok(command(log)?.arg("serve").arg("--region").arg(region).args(args).spawn()?)
}
