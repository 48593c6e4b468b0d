//! The store's directory: a marker with the format version and the store's id, the last synced sequence number, and the
//! engine's files in `engine/`.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::keys::{seal, unseal};
use crate::service::{Result, ServiceError};

/// Version of all that the store writes. Another one is refused.
const FORMAT: u32 = 1;
const MARKER: &str = "SHMURING_STORE";
const SYNCED: &str = "SYNCED";
/// Less free space than this, and a failed background write is laid to a full disk.
const FULL_BELOW: u64 = 64 << 20;
/// Mode of the directory: others could read every page, and a lock of theirs on the marker would stop a take-over.
const OURS: u32 = 0o700;

pub struct StoreDir {
    path: PathBuf,
    id: String,
    /// The marker, locked for as long as the store is open.
    lock: File,
}

impl StoreDir {
    /// Checks the marker, or makes one in a missing or empty directory.
    pub fn open(path: &Path) -> Result<Self> {
        let at = |e: std::io::Error| ServiceError::io_at(&e, format_args!("the store in {}", path.display()));
        DirBuilder::new().recursive(true).mode(OURS).create(path).map_err(at)?;
        let marker = path.join(MARKER);
        let text = match fs::read_to_string(&marker) {
            Ok(t) => {
                check_mode(path)?;
                t
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                // A marker that was begun and not finished is nobody's.
                let part = format!("{MARKER}.new");
                for entry in fs::read_dir(path).map_err(at)? {
                    if entry.map_err(at)?.file_name() != part.as_str() {
                        let what = format!("{} is not empty and holds no store", path.display());
                        return Err(ServiceError::new(libc::ENOTEMPTY, what));
                    }
                }
                // Whatever the umask, or whoever made the directory empty.
                fs::set_permissions(path, Permissions::from_mode(OURS)).map_err(at)?;
                let text = make_marker(path, &part).map_err(at)?;
                tracing::info!(path = %path.display(), "made a new store");
                text
            }
            Err(e) if e.kind() == ErrorKind::InvalidData => String::new(),
            Err(e) => return Err(at(e)),
        };
        let id = parse_marker(&text, path)?;
        let lock = File::open(&marker).map_err(at)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("the store in {} is in use by another process: {}", path.display(), holder(&lock));
                return Err(ServiceError::new(libc::EBUSY, what));
            }
            Err(TryLockError::Error(e)) => return Err(at(e)),
        }
        Ok(Self { path: path.to_path_buf(), id, lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn engine_path(&self) -> PathBuf {
        self.path.join("engine")
    }

    /// Makes the engine's files where there are none: `make` makes them aside, a rename puts them in place, so that a
    /// death in between leaves nothing that looks like a store.
    pub fn create_engine(&self, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let at = |e: std::io::Error| ServiceError::io_at(&e, format_args!("the store in {}", self.path.display()));
        if fs::exists(self.engine_path()).map_err(at)? {
            return Ok(());
        }
        if self.synced()? > 0 {
            return Err(ServiceError::corrupt(format!("the store in {} lost its files", self.path.display())));
        }
        let aside = self.path.join("engine.new");
        match fs::remove_dir_all(&aside) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(at(e)),
            _ => {}
        }
        make(&aside)?;
        fs::rename(&aside, self.engine_path()).map_err(at)?;
        File::open(&self.path).and_then(|d| d.sync_all()).map_err(at)
    }

    /// Whether this directory still is the one that was opened, with the engine's files in it.
    pub fn check(&self) -> Result<()> {
        let same = |(a, b): (fs::Metadata, fs::Metadata)| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let marker = fs::metadata(self.path.join(MARKER)).ok().zip(self.lock.metadata().ok());
        if marker.is_some_and(same) && self.engine_path().is_dir() {
            return Ok(());
        }
        Err(ServiceError::corrupt(format!("the store in {} lost its files while it was open", self.path.display())))
    }

    /// The sequence number up to which mutations were synced.
    pub fn synced(&self) -> Result<u64> {
        let mut bytes = Vec::new();
        match File::open(self.path.join(SYNCED)).and_then(|mut f| f.read_to_end(&mut bytes)) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(0),
            Err(e) => return Err(ServiceError::io_at(&e, "reading what was synced")),
        }
        let seq = unseal(self.id.as_bytes(), &bytes).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
        seq.ok_or_else(|| ServiceError::corrupt("the store's record of what was synced is damaged"))
    }

    /// Records that mutations up to `seq` are synced. They are; should the record itself be lost, it only checks less.
    pub fn note_synced(&self, seq: u64) -> Result<()> {
        let note = || {
            let f = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(libc::O_NOFOLLOW)
                .open(self.path.join(SYNCED))?;
            // 12 bytes within one sector: never half-written.
            f.write_all_at(&seal(self.id.as_bytes(), &seq.to_be_bytes()), 0)
        };
        match note() {
            // The mutations are safe, and that is what was asked.
            Err(e) if e.kind() == ErrorKind::StorageFull => Ok(()),
            r => r.map_err(|e| ServiceError::io_at(&e, "recording what was synced")),
        }
    }

    /// Whether the file system has next to no room.
    #[allow(unsafe_code)]
    pub fn is_full(&self) -> bool {
        use std::os::unix::ffi::OsStrExt;
        let Ok(c) = std::ffi::CString::new(self.path.as_os_str().as_bytes()) else { return false };
        // SAFETY: statvfs is plain data, for which all zeroes are a value.
        let mut s: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers are valid for the call, `c` ends with a NUL.
        let ok = unsafe { libc::statvfs(c.as_ptr(), &mut s) } == 0;
        ok && s.f_bavail.saturating_mul(s.f_frsize) < FULL_BELOW
    }
}

/// Who has it, for people.
fn holder(marker: &File) -> String {
    match marker.metadata().ok().as_ref().and_then(crate::holder::of_file) {
        Some(pid) => format!("pid {pid}"),
        None => crate::holder::NOT_HERE.to_owned(),
    }
}

/// The file whose lock tells that a store is open.
#[cfg(feature = "cli")]
pub(crate) fn lock_path(path: &Path) -> PathBuf {
    path.join(MARKER)
}

/// Refuses a directory that is open to others, as PostgreSQL does.
fn check_mode(path: &Path) -> Result<()> {
    let at = |e: std::io::Error| ServiceError::io_at(&e, format_args!("the store in {}", path.display()));
    let mode = fs::metadata(path).map_err(at)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let what = format!("{} is open to other users (mode {mode:03o}): chmod 700 it", path.display());
        return Err(ServiceError::new(libc::EPERM, what));
    }
    Ok(())
}

/// Whether the directory holds a store.
pub fn is_store(path: &Path) -> bool {
    path.join(MARKER).exists()
}

/// Writes a new marker; it appears whole or not at all.
fn make_marker(path: &Path, part: &str) -> std::io::Result<String> {
    let mut id = [0u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut id)?;
    let text = format!("shmuring store\nformat {FORMAT}\nid {:032x}\n", u128::from_be_bytes(id));
    let tmp = path.join(part);
    let mut f = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(&tmp)?;
    f.write_all(text.as_bytes())?;
    f.sync_all()?;
    // Two processes may make one store: link() lets only the first marker stand.
    let linked = fs::hard_link(&tmp, path.join(MARKER));
    let _ = fs::remove_file(&tmp);
    match linked {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    File::open(path)?.sync_all()?;
    fs::read_to_string(path.join(MARKER))
}

fn parse_marker(text: &str, path: &Path) -> Result<String> {
    let mut lines = text.lines();
    let damaged = || ServiceError::corrupt(format!("the marker of the store in {} is damaged", path.display()));
    if lines.next() != Some("shmuring store") {
        return Err(damaged());
    }
    let format: u32 = lines.next().and_then(|l| l.strip_prefix("format ")?.parse().ok()).ok_or_else(damaged)?;
    if format != FORMAT {
        let what = format!("the store in {} has format {format}; this is for format {FORMAT}", path.display());
        return Err(ServiceError::new(libc::EPROTONOSUPPORT, what));
    }
    let id = lines.next().and_then(|l| l.strip_prefix("id ")).ok_or_else(damaged)?;
    if id.len() != 32 || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(damaged());
    }
    Ok(id.to_owned())
}
