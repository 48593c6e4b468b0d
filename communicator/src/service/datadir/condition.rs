//! Whether the files of a data directory are all that its server has: they lack what is in the memory of one that runs,
//! and what only the WAL of one that crashed has.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::ControlFile;
use crate::service::Result;

/// What `global/pg_control` says of the server, in the order of PostgreSQL's DBState.
const STATES: [&str; 7] = [
    "starting up",
    "shut down",
    "shut down in recovery",
    "shutting down",
    "in crash recovery",
    "in archive recovery",
    "in production",
];
/// Of these, the clean ends.
const CLEAN: [u32; 2] = [1, 2];

/// The condition of a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Its server was shut down: the files are complete.
    Stopped,
    /// This process serves it.
    Running(u32),
    /// Its server was not shut down, and is not seen to run: the state that it was in.
    Unfinished(u32),
}

impl Condition {
    /// Of the data directory in `path`.
    ///
    /// # Errors
    /// As of [`ControlFile::read`].
    pub fn of(path: &Path) -> Result<Self> {
        let state = ControlFile::read(path)?.state;
        Ok(match server(path) {
            Some(pid) => Self::Running(pid),
            None if CLEAN.contains(&state) => Self::Stopped,
            None => Self::Unfinished(state),
        })
    }

    /// What whoever reads the files must know; `None` where there is nothing.
    #[must_use]
    pub fn warning(self, path: &Path) -> Option<String> {
        (self != Self::Stopped).then(|| format!("{}: {self}", path.display()))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("its server was shut down"),
            Self::Running(pid) => write!(
                f,
                "PostgreSQL RUNS on this directory (pid {pid}): pages on disk may be older than the server's, and torn; \
                 stop it first"
            ),
            Self::Unfinished(state) => write!(
                f,
                "PostgreSQL was NOT SHUT DOWN here (its state is '{}'): it crashed, or runs where this process does not \
                 see it; pages on disk may be older than what the server had acknowledged: start and stop it first",
                STATES.get(*state as usize).copied().unwrap_or("unknown")
            ),
        }
    }
}

/// The process that `postmaster.pid` names, if it lives and works in the directory.
fn server(path: &Path) -> Option<u32> {
    let text = fs::read_to_string(path.join("postmaster.pid")).ok()?;
    // A server without a postmaster writes its pid with a sign.
    let pid = text.lines().next()?.trim().parse::<i64>().ok()?.unsigned_abs();
    let pid = u32::try_from(pid).ok().filter(|pid| *pid > 0)?;
    let here = fs::metadata(path).ok()?;
    match fs::metadata(format!("/proc/{pid}/cwd")) {
        Ok(there) => (there.dev(), there.ino()) == (here.dev(), here.ino()),
        // Another user's: then it lives, which is as much as can be known.
        Err(e) => e.kind() == std::io::ErrorKind::PermissionDenied,
    }
    .then_some(pid)
}
