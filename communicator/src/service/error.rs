//! The one error of page services: an errno for the backend, a sentence for the log.

use std::fmt;

use shmuring::request::RelTag;

/// Result of a page service.
pub type Result<T> = std::result::Result<T, ServiceError>;

/// Whether trying again may help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retry {
    /// No: the answer would be the same.
    #[default]
    Never,
    /// Yes, after a pause.
    Later,
    /// Yes: the connection broke before the answer came.
    Reconnect,
    /// The server waited for WAL until it gave up. This is no failure (S10): the read goes back to those that wait.
    NotYet,
}

/// Why a page service did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceError {
    /// A positive Linux errno.
    pub errno: i32,
    /// What went wrong, for people.
    pub detail: String,
    /// The block it is about.
    pub block: Option<u32>,
    /// Whether trying again may help.
    pub retry: Retry,
}

/// Writes a relation fork as `spc/db/rel.fork`.
pub(crate) struct Rel(pub RelTag);

impl fmt::Display for Rel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}.{}", self.0.spc_oid, self.0.db_oid, self.0.rel_number, self.0.fork)
    }
}

impl ServiceError {
    /// An error of this errno.
    #[must_use]
    pub fn new(errno: i32, detail: impl Into<String>) -> Self {
        Self { errno, detail: detail.into(), block: None, retry: Retry::Never }
    }

    /// The same, about a block.
    #[must_use]
    pub fn at_block(mut self, block: u32) -> Self {
        self.block = Some(block);
        self
    }

    /// The same, about `block` unless it is about one already.
    #[must_use]
    pub fn about(mut self, block: u32) -> Self {
        self.block.get_or_insert(block);
        self
    }

    /// The same, with the word on whether trying again may help.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The server did not ingest `lsn` in time: EAGAIN, and no failure (S10).
    #[must_use]
    pub fn not_yet(lsn: shmuring::request::Lsn, shard: usize) -> Self {
        let what = format!("LSN {:X}/{:X} has not come to shard {shard} yet", lsn >> 32, lsn & 0xFFFF_FFFF);
        Self::new(libc::EAGAIN, what).with_retry(Retry::NotYet)
    }

    /// The relation fork does not exist: ENOENT.
    #[must_use]
    pub fn missing_relation(rel: RelTag) -> Self {
        Self::new(libc::ENOENT, format!("relation {} does not exist", Rel(rel)))
    }

    /// The block is past the end: ENXIO.
    #[must_use]
    pub fn past_end(rel: RelTag, block: u32, nblocks: u32) -> Self {
        Self::new(libc::ENXIO, format!("block {block} of relation {} is past its {nblocks} blocks", Rel(rel)))
            .at_block(block)
    }

    /// The service takes no mutations: EROFS.
    #[must_use]
    pub fn read_only() -> Self {
        Self::new(libc::EROFS, "this page service is read-only")
    }

    /// No room left: ENOSPC.
    #[must_use]
    pub fn no_space(detail: impl Into<String>) -> Self {
        Self::new(libc::ENOSPC, detail)
    }

    /// What is stored is damaged: EUCLEAN.
    #[must_use]
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::new(libc::EUCLEAN, what)
    }

    /// The service does not know this operation: EOPNOTSUPP.
    #[must_use]
    pub fn unsupported(op: &str) -> Self {
        Self::new(libc::EOPNOTSUPP, format!("{op} is not supported by this page service"))
    }

    /// The relation fork exists already: EEXIST.
    #[must_use]
    pub fn exists(rel: RelTag) -> Self {
        Self::new(libc::EEXIST, format!("relation {} exists already", Rel(rel)))
    }

    /// The request makes no sense: EINVAL.
    #[must_use]
    pub fn invalid(what: impl Into<String>) -> Self {
        Self::new(libc::EINVAL, what)
    }

    /// A mutation of a communicator that has a successor: ESTALE.
    #[must_use]
    pub fn stale(what: impl Into<String>) -> Self {
        Self::new(libc::ESTALE, what)
    }

    /// An error of the operating system; keeps its errno.
    #[must_use]
    #[allow(clippy::needless_pass_by_value)] // so that it fits `map_err`
    pub fn io(e: std::io::Error) -> Self {
        Self::new(e.raw_os_error().unwrap_or(libc::EIO), e.to_string())
    }

    /// The same with what was being done.
    #[must_use]
    pub fn io_at(e: &std::io::Error, what: impl fmt::Display) -> Self {
        Self::new(e.raw_os_error().unwrap_or(libc::EIO), format!("{what}: {e}"))
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (errno {}", self.detail, self.errno)?;
        if let Some(b) = self.block {
            write!(f, ", block {b}")?;
        }
        f.write_str(")")
    }
}

impl std::error::Error for ServiceError {}

impl From<std::io::Error> for ServiceError {
    fn from(e: std::io::Error) -> Self {
        Self::io(e)
    }
}
