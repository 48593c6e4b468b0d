//! What the embedder asks for, checked and copied: of C's memory only what it lends for longer is used after that.
//!
//! It names only those parts of the communicator that take words apart: the fuzzer compiles this file without the rest.

use core::ffi::{c_char, c_void, CStr};
use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use shmuring::communicator::Gather;
use shmuring::error::Error;
use shmuring_communicator::cache::Sizes;
use shmuring_communicator::service::spec::ServiceSpec;

use super::place::Failure;
use super::record::{self, Callback, Wanted};
use crate::region::ApiRegion;

/// How to serve, in C's words.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ApiHostConfig {
    pub(super) size: u64,
    pub(super) region: *mut ApiRegion,
    pub(super) region_path: *const c_char,
    pub(super) service: *const c_char,
    pub(super) log: Option<Callback>,
    pub(super) user: *mut c_void,
    pub(super) log_level: u32,
    pub(super) threads: u32,
    pub(super) grace_ms: u32,
    pub(super) gather: u32,
    pub(super) gather_us: u32,
    pub(super) forget_every_s: u32,
    pub(super) memtable_bytes: u64,
    pub(super) history_bytes: u64,
    pub(super) cache_bytes: u64,
    pub(super) prefetch_bytes: u64,
    pub(super) cache_file: *const c_char,
    pub(super) cache_file_bytes: u64,
}

/// Bytes of the configuration of the first version of this interface: no caller has less.
const FIRST: usize = 120;
/// Bytes of a cache file for each byte of the machine's memory: beyond that its index alone would fill it.
const FILE_TO_MEMORY: u64 = 64;
/// More than any version will have.
const MOST: usize = 4096;
const _: () = assert!(size_of::<ApiHostConfig>() == FIRST);

/// The region to serve.
pub(super) enum Place {
    /// The embedder's handle.
    Handle(*mut ApiRegion),
    /// Where to attach.
    Path(PathBuf),
}

/// What is to be cached.
pub(super) struct Wish {
    pub(super) sizes: Sizes,
    pub(super) file: Option<(PathBuf, u64)>,
}

/// A configuration that makes sense. What is `None` is left to the communicator.
pub(super) struct Config {
    pub(super) place: Place,
    pub(super) service: ServiceSpec,
    pub(super) memtable_bytes: Option<u64>,
    pub(super) history_bytes: Option<u64>,
    pub(super) gather: Gather,
    pub(super) grace: Duration,
    pub(super) forget_every: Duration,
    pub(super) cache: Wish,
    pub(super) threads: Option<usize>,
    pub(super) log: Wanted,
}

// SAFETY: the handle of the region is used by one thread at a time; see `run`.
unsafe impl Send for Config {}

fn refuse<T>(why: impl Into<Cow<'static, str>>) -> Result<T, Failure> {
    Err((-Error::BadRequest.errno(), why.into()))
}

/// Reads a configuration of this version or of another: what a longer one has more must be zero.
///
/// # Safety
/// `config` is null, or a configuration of the size that it says.
pub(super) unsafe fn read(config: *const ApiHostConfig) -> Result<Config, Failure> {
    if config.is_null() {
        return Err((-Error::BadMemory.errno(), "the configuration is null".into()));
    }
    // SAFETY: it begins with its size, by the caller's promise.
    let size = unsafe { (&raw const (*config).size).read() };
    if size < FIRST as u64 || size > MOST as u64 {
        return refuse(format!("a configuration has {FIRST} bytes or more, not {size}: set its size"));
    }
    // SAFETY: so many bytes may be read, by the caller's promise.
    let bytes = unsafe { core::slice::from_raw_parts(config.cast::<u8>(), size as usize) };
    if bytes.iter().skip(size_of::<ApiHostConfig>()).any(|b| *b != 0) {
        return refuse("the configuration asks for what this version of the library does not know");
    }
    // SAFETY: as large as it has to be.
    let config = unsafe { config.read() };
    // SAFETY: null or texts, by the caller's promise.
    let (path, service) = unsafe { (text(config.region_path), text(config.service)) };
    let place = match (config.region.is_null(), path) {
        (false, None) => Place::Handle(config.region),
        (true, Some(path)) => Place::Path(OsStr::from_bytes(path.to_bytes()).into()),
        _ => return refuse("a host serves the region of a handle, or the one at a path: set one of both"),
    };
    let Some(service) = service else { return refuse("no service is named") };
    let Ok(service) = service.to_str() else { return refuse("the service's name is not UTF-8") };
    let service = service.parse().or_else(|why: String| refuse(why))?;
    // SAFETY: null or a text, by the caller's promise.
    let cache = wish(&config, &service, unsafe { text(config.cache_file) })?;
    if config.log_level > record::DEBUG {
        return refuse(format!("there is no log level {}", config.log_level));
    }
    let threads = usize::try_from(config.threads).ok().filter(|n| *n > 0);
    if threads.is_some_and(|n| n > 1024) {
        return refuse(format!("{} threads are too many", config.threads));
    }
    if config.gather > 64 || config.gather_us > 1_000_000 {
        return refuse("a batch gathers at most 64 requests, for at most a second");
    }
    let level = if config.log_level == 0 { record::INFO } else { config.log_level };
    let log = Wanted { level, callback: config.log, user: config.user };
    let or = |value: u32, otherwise: u64| if value == 0 { otherwise } else { value.into() };
    let said = |value: u64| (value != 0).then_some(value);
    Ok(Config {
        place,
        service,
        memtable_bytes: said(config.memtable_bytes),
        history_bytes: said(config.history_bytes),
        gather: Gather { requests: config.gather as usize, ns: or(config.gather_us, 50) * 1000 },
        grace: Duration::from_millis(or(config.grace_ms, 30_000)),
        forget_every: Duration::from_secs(or(config.forget_every_s, 60)),
        cache,
        threads,
        log,
    })
}

/// Bytes of memory that this machine has.
fn memory_of_machine() -> u64 {
    // SAFETY: questions about numbers, here and below.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    // SAFETY: as above.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let (Ok(pages), Ok(page)) = (u64::try_from(pages), u64::try_from(page)) else { return u64::MAX };
    pages.saturating_mul(page)
}

/// Zero is the default, the largest number none.
fn wish(config: &ApiHostConfig, service: &ServiceSpec, file: Option<&CStr>) -> Result<Wish, Failure> {
    let or = |value, usual| match value {
        0 => usual,
        u64::MAX => 0,
        bytes => bytes,
    };
    let usual = Sizes::usual(service);
    let (memory, prefetched) = (or(config.cache_bytes, usual.memory), or(config.prefetch_bytes, usual.prefetched));
    let most = memory_of_machine();
    if memory > most || prefetched > most || config.cache_file_bytes > most.saturating_mul(FILE_TO_MEMORY) {
        // They would grow until the process ends; the index of a file is made at once.
        return refuse(format!("caches of that size are not for a machine with {most} bytes of memory"));
    }
    let file = match (file, config.cache_file_bytes) {
        (None, 0) => None,
        (Some(_), 1..) if memory == 0 => return refuse("a cache file takes what a page cache evicts: set its size"),
        (Some(path), bytes @ 1..) => Some((OsStr::from_bytes(path.to_bytes()).into(), bytes)),
        _ => return refuse("a cache file needs a path and a size"),
    };
    Ok(Wish { sizes: Sizes { memory, prefetched }, file })
}

/// # Safety
/// `text` is null or ends with a zero, and lives for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a CStr> {
    // SAFETY: not null; the rest is the caller's promise.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })
}
