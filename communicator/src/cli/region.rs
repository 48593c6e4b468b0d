//! Opening regions for commands, with errors that name the path.

use super::failure::Kind;
use super::Failure;
use crate::holder;
use shmuring::error::Error;
use shmuring::region::Region;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Says which region failed, and what to do about it where that is known.
pub(super) fn explain(path: &Path, e: Error) -> Failure {
    let path = path.display();
    match e {
        Error::Os(libc::ENOENT) => {
            Kind::NoCommunicator.because(format!("{path}: there is no such region; is 'shmuring serve' running?"))
        }
        Error::Exists => format!("{path}: {e}; remove it if nobody uses it").into(),
        e => format!("{path}: {e}").into(),
    }
}

/// Attaches for requests.
pub(super) fn attach(path: &Path) -> Result<Region, Failure> {
    Region::attach(path).map_err(|e| explain(path, e))
}

/// Maps read-only, for statistics.
pub(super) fn observe(path: &Path) -> Result<Region, Failure> {
    Region::observe(path).map_err(|e| explain(path, e))
}

/// The communicator, for messages: the process that holds the role, or the one that held it last.
pub(super) fn communicator(region: &Region) -> String {
    if !region.liveness().role_held() {
        return format!("pid {}", last_pid(region));
    }
    holder::of_role(region).map_or_else(|| format!("pid unknown: {}", holder::NOT_HERE), |pid| format!("pid {pid}"))
}

/// The process that last took the communicator's role, by what it wrote of itself: in another pid namespace it has another.
pub(super) fn last_pid(region: &Region) -> u32 {
    region.parts().header.role.pid.load(Ordering::Relaxed)
}
