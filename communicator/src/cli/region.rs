//! Opening regions for commands, with errors that name the path.

use super::Failure;
use shmuring::error::Error;
use shmuring::region::Region;
use std::path::Path;
use std::sync::atomic::Ordering;

/// Says which region failed, and what to do about it where that is known.
pub(super) fn explain(path: &Path, e: Error) -> Failure {
    let path = path.display();
    match e {
        Error::Os(libc::ENOENT) => format!("{path}: there is no such region; is 'shmuring serve' running?").into(),
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

/// The process that last took the communicator's role: for messages.
pub(super) fn communicator_pid(region: &Region) -> u32 {
    region.parts().header.role.pid.load(Ordering::Relaxed)
}
