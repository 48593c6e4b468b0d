//! What a checked configuration asks for, in the communicator's words.

use std::io::ErrorKind;

use shmuring_communicator::cache::Cache;
use shmuring_communicator::server::{HostOptions, ServerOptions};

use super::config::{Config, Wish};
use super::place::Failure;

impl Config {
    /// Without the cache, which is opened in a thread of the library, since it starts one of its own.
    pub(super) fn options(&self) -> HostOptions {
        let defaults = HostOptions::new(self.service.clone());
        HostOptions {
            memtable_bytes: self.memtable_bytes.unwrap_or(defaults.memtable_bytes),
            server: ServerOptions { gather: self.gather, grace: self.grace, ..ServerOptions::default() },
            history: self.history_bytes.unwrap_or(defaults.history),
            forget_every: self.forget_every,
            ..defaults
        }
    }
}

impl Wish {
    pub(super) fn open(&self) -> Result<Cache, Failure> {
        let Some((path, bytes)) = &self.file else { return Ok(Cache::new(self.sizes)) };
        Cache::with_file(self.sizes, path, *bytes).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => (-libc::EBUSY, format!("{}: another process uses it", path.display()).into()),
            _ => (-e.raw_os_error().unwrap_or(libc::EIO), format!("{}: {e}", path.display()).into()),
        })
    }
}
