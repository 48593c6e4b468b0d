//! Files that carry regions and locks: made, given their space, named.

use std::ffi::CString;
use std::fs::{File, OpenOptions, Permissions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::liveness::open_file;

/// Regions and lock files are their user's alone.
const MODE: u32 = 0o600;
/// Signals that may cut an allocation short before it counts as failed: each try starts from nothing.
const MAX_INTERRUPTS: u32 = 64;

/// Two random words.
pub(super) fn random() -> Result<[u64; 2]> {
    let mut words = [0_u64; 2];
    let bytes = size_of_val(&words);
    // SAFETY: the buffer is `bytes` long, and any bytes are integers. So few bytes are never cut short by a signal.
    let got = unsafe { libc::getrandom(words.as_mut_ptr().cast(), bytes, 0) };
    if usize::try_from(got) == Ok(bytes) {
        Ok(words)
    } else {
        Err(Error::last_os())
    }
}

/// Inode of this process's time namespace; 0 if there is no telling (no /proc, a kernel without such namespaces).
pub(super) fn time_namespace() -> u32 {
    std::fs::metadata("/proc/self/ns/time").ok().and_then(|m| u32::try_from(m.ino()).ok()).unwrap_or(0)
}

/// A number for one file of this machine, never 0.
pub(super) fn identity(file: &File) -> Result<u64> {
    let m = file.metadata().map_err(|e| Error::from_io(&e))?;
    Ok((m.dev().rotate_left(32) ^ m.ino()).max(1))
}

/// Gives `file` its bytes, all of them allocated: a full disk is an error here and not a SIGBUS at some later touch.
pub(super) fn allocate(file: &File, len: u64) -> Result<()> {
    let len = i64::try_from(len).map_err(|_| Error::BadGeometry)?;
    for _ in 0..MAX_INTERRUPTS {
        // SAFETY: the descriptor is open; the call touches no memory of ours.
        match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
            0 => return Ok(()),
            libc::EINTR => {}
            e => return Err(Error::Os(e)),
        }
    }
    Err(Error::Os(libc::EINTR))
}

/// A memfd of `len` allocated bytes whose size nobody can change any more.
pub(super) fn sealed_memfd(len: u64) -> Result<File> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let make = |flags| {
        // SAFETY: the name is a C string; no other memory is touched.
        let fd = unsafe { libc::memfd_create(c"shmuring".as_ptr(), flags) };
        if fd < 0 {
            return Err(Error::last_os());
        }
        // SAFETY: the kernel has just given us this descriptor, nobody else has it.
        Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
    };
    let file = match make(flags | libc::MFD_NOEXEC_SEAL) {
        // Kernels before 6.3 do not know the flag; later ones may be set to demand it.
        Err(Error::Os(libc::EINVAL)) => make(flags)?,
        other => other?,
    };
    allocate(&file, len)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: the descriptor is open; the call touches no memory.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) } == -1 {
        return Err(Error::last_os());
    }
    Ok(file)
}

/// Opens the lock file at `path`, and makes it first if it is missing.
pub(super) fn lock_file(path: &Path) -> Result<File> {
    match make_new(path) {
        Err(Error::Os(libc::EEXIST)) => open_file(path, true),
        other => other,
    }
}

/// Makes `path`, which must not exist.
fn make_new(path: &Path) -> Result<File> {
    own(OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(path))
}

/// Sets the mode that the umask may have cut.
fn own(opened: std::io::Result<File>) -> Result<File> {
    opened
        .and_then(|file| file.set_permissions(Permissions::from_mode(MODE)).map(|()| file))
        .map_err(|e| Error::from_io(&e))
}

/// Removes a scratch name when it goes out of scope.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed stays behind, harmless; there is nobody to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A file that does not have its final name yet: no name at all, or a random one where the filesystem wants one.
#[derive(Debug)]
pub(super) struct Staged {
    /// The file.
    pub(super) file: File,
    scratch: Option<Scratch>,
}

impl Staged {
    /// A staged file that can be linked to `path`.
    pub(super) fn beside(path: &Path) -> Result<Self> {
        let directory = directory(path)?;
        let unnamed =
            OpenOptions::new().read(true).write(true).mode(MODE).custom_flags(libc::O_TMPFILE).open(directory);
        match own(unnamed) {
            Ok(file) => Ok(Self { file, scratch: None }),
            // Kernels and filesystems without O_TMPFILE; it then reads as "open a directory for writing".
            Err(Error::Os(libc::EOPNOTSUPP | libc::EISDIR)) => Self::with_random_name(directory),
            Err(e) => Err(e),
        }
    }

    /// A staged file under a random name in `directory`. A death before the link leaves it there.
    fn with_random_name(directory: &Path) -> Result<Self> {
        let [a, b] = random()?;
        let name = directory.join(format!(".shmuring.{a:016x}{b:016x}"));
        let file = make_new(&name)?;
        Ok(Self { file, scratch: Some(Scratch(name)) })
    }

    /// Gives the file its final name, at once and whole; EEXIST if the name is taken.
    pub(super) fn link(&self, to: &Path) -> Result<()> {
        let from = match &self.scratch {
            Some(Scratch(name)) => name.clone(),
            None => PathBuf::from(format!("/proc/self/fd/{}", self.file.as_raw_fd())),
        };
        let (from, to) = (c_path(&from)?, c_path(to)?);
        let at = libc::AT_FDCWD;
        // SAFETY: both are C strings that outlive the call.
        if unsafe { libc::linkat(at, from.as_ptr(), at, to.as_ptr(), libc::AT_SYMLINK_FOLLOW) } == -1 {
            return Err(Error::last_os());
        }
        Ok(())
    }
}

/// The directory in which `path` names a file.
fn directory(path: &Path) -> Result<&Path> {
    match (path.file_name(), path.parent()) {
        (Some(_), Some(parent)) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        (Some(_), Some(parent)) => Ok(parent),
        _ => Err(Error::Os(libc::EINVAL)),
    }
}

fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::Os(libc::EINVAL))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn scratch_directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("shmuring-files-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn names(directory: &Path) -> Vec<String> {
        std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_file_staged_without_a_name_shows_only_when_linked() {
        let directory = scratch_directory("unnamed");
        let path = directory.join("region");
        let staged = Staged::beside(&path).unwrap();
        assert!(names(&directory).is_empty());
        staged.link(&path).unwrap();
        assert_eq!(names(&directory), ["region"]);
        assert_eq!(staged.link(&path), Err(Error::Os(libc::EEXIST)));
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_staged_under_a_random_name_is_linked_and_the_random_name_goes() {
        let directory = scratch_directory("random");
        let path = directory.join("region");
        let staged = Staged::with_random_name(&directory).unwrap();
        assert_eq!(names(&directory).len(), 1);
        staged.link(&path).unwrap();
        assert_eq!(names(&directory).len(), 2);
        assert_eq!(staged.file.metadata().unwrap().mode() & 0o777, MODE);
        drop(staged);
        assert_eq!(names(&directory), ["region"]);

        let loser = Staged::with_random_name(&directory).unwrap();
        assert_eq!(loser.link(&path), Err(Error::Os(libc::EEXIST)));
        drop(loser);
        assert_eq!(names(&directory), ["region"]);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_path_without_a_file_name_is_refused() {
        for path in ["/", "..", "a/..", ""] {
            assert_eq!(directory(Path::new(path)), Err(Error::Os(libc::EINVAL)), "{path:?}");
        }
        assert_eq!(directory(Path::new("region")), Ok(Path::new(".")));
    }

    #[test]
    fn a_memfd_cannot_be_resized_once_sealed() {
        let file = sealed_memfd(8192).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8192);
        assert!(file.set_len(4096).is_err() && file.set_len(16384).is_err());
    }
}
