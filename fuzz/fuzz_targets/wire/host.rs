//! What an embedder writes in C to start a communicator: the strings and numbers of a configuration.

#[path = "../../../ffi/src/host/config.rs"]
mod config;
#[path = "../../../ffi/src/host/record.rs"]
mod record;
mod place {
    pub type Failure = (i32, std::borrow::Cow<'static, str>);
}

use std::ffi::{c_char, CString};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{null, null_mut};

use config::{ApiHostConfig, Config, Place};

use crate::input::Input;
use crate::service::spec::ServiceSpec;

/// Bytes of a configuration, and the most that one may have.
const USUAL: usize = size_of::<ApiHostConfig>();
const MOST: usize = 4096;
/// Bytes of a cache file for each of memory, at most.
const FILE_TO_MEMORY: u64 = 64;
/// Where a configuration names a region of its own. Nobody looks there.
const REGION: usize = 64;

/// None, one of these, or any bytes without a zero.
fn text(input: &mut Input<'_>, usual: &[&str]) -> Option<CString> {
    let bytes = match input.below(6) {
        0 => return None,
        1..=4 => input.choose(usual).as_bytes().to_vec(),
        _ => {
            let n = input.below(32);
            (0..n).map(|_| input.byte()).filter(|b| *b != 0).collect()
        }
    };
    CString::new(bytes).ok()
}

fn at(text: &Option<CString>) -> *const c_char {
    text.as_ref().map_or(null(), |t| t.as_ptr())
}

/// Zero for the most part.
fn number(input: &mut Input<'_>, near: &[u64]) -> u64 {
    match input.below(8) {
        0..=4 => 0,
        5 | 6 => input.choose(near),
        _ => input.number(),
    }
}

/// What a configuration asks for.
struct Wanted {
    path: Option<CString>,
    service: Option<CString>,
    cache_file: Option<CString>,
    words: ApiHostConfig,
}

fn wanted(input: &mut Input<'_>) -> Wanted {
    let path = text(input, &["/dev/shm/r", "r"]);
    let service = text(input, &["store:/s", "datadir:/d", "standby:host=a", "grpc:http://a:1", "store:", "s3:/x"]);
    let cache_file = if input.one_in(2) { text(input, &["/c"]) } else { None };
    let mut small = |near: &[u64]| number(input, near) as u32;
    let (log_level, threads) = (small(&[4, 5]), small(&[1, 1024, 1025]));
    let (grace_ms, gather, gather_us) = (small(&[1]), small(&[64, 65]), small(&[1_000_000, 1_000_001]));
    let forget_every_s = small(&[1]);
    let mut bytes = || number(input, &[1, u64::MAX, u64::MAX - 1]);
    let (memtable_bytes, history_bytes, cache_bytes, prefetch_bytes) = (bytes(), bytes(), bytes(), bytes());
    let cache_file_bytes = bytes();
    let region = if input.one_in(2) { null_mut() } else { REGION as *mut _ };
    let words = ApiHostConfig {
        size: 0,
        region,
        region_path: at(&path),
        service: at(&service),
        log: None,
        user: null_mut(),
        log_level,
        threads,
        grace_ms,
        gather,
        gather_us,
        forget_every_s,
        memtable_bytes,
        history_bytes,
        cache_bytes,
        prefetch_bytes,
        cache_file: at(&cache_file),
        cache_file_bytes,
    };
    Wanted { path, service, cache_file, words }
}

/// The service that is named, if it is one.
fn service_of(w: &Wanted) -> Option<ServiceSpec> {
    w.service.as_ref()?.to_str().ok()?.parse().ok()
}

/// Bytes of the page cache.
fn memory_of(w: &Wanted, service: &ServiceSpec) -> u64 {
    match (w.words.cache_bytes, service) {
        (0, ServiceSpec::DataDir(_) | ServiceSpec::Standby(_)) | (u64::MAX, _) => 0,
        (0, _) => 64 << 20,
        (bytes, _) => bytes,
    }
}

/// Whether the caches are for a machine like this: in its memory, files at most so many times as large.
fn fits(w: &Wanted, service: &ServiceSpec) -> bool {
    // SAFETY: questions about numbers.
    let [pages, page] = unsafe { [libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)] };
    let most = pages as u64 * page as u64;
    let prefetched = if w.words.prefetch_bytes == u64::MAX { 0 } else { w.words.prefetch_bytes };
    memory_of(w, service).max(prefetched) <= most && w.words.cache_file_bytes <= most * FILE_TO_MEMORY
}

/// Whether a configuration makes sense, as the header has it.
fn makes_sense(w: &Wanted) -> bool {
    let Some(service) = service_of(w) else { return false };
    let has_file = match (&w.cache_file, w.words.cache_file_bytes) {
        (None, 0) => true,
        (Some(_), bytes) => bytes > 0 && memory_of(w, &service) > 0,
        (None, _) => false,
    };
    let has_room = fits(w, &service);
    let w = &w.words;
    let is_bounded = w.log_level <= 4 && w.threads <= 1024 && w.gather <= 64 && w.gather_us <= 1_000_000;
    has_file && has_room && is_bounded && w.region.is_null() != w.region_path.is_null()
}

/// What was read is what was said, and no C memory but the region's.
fn check(w: &Wanted, read: &Config) {
    match (&read.place, &w.path) {
        (Place::Handle(handle), None) => assert_eq!(*handle as usize, REGION),
        (Place::Path(path), Some(said)) => assert_eq!(path.as_os_str().as_bytes(), said.as_bytes()),
        _ => panic!("another region than was said"),
    }
    let service = service_of(w).unwrap();
    assert_eq!(read.service, service);
    assert_eq!(read.cache.sizes.memory, memory_of(w, &service));
    let file = w.cache_file.as_ref().map(|f| (f.as_bytes(), w.words.cache_file_bytes));
    assert_eq!(read.cache.file.as_ref().map(|(f, bytes)| (f.as_os_str().as_bytes(), *bytes)), file);
    assert!((1..=4).contains(&read.log.level) && read.log.callback.is_none() && read.log.user.is_null());
    assert_eq!(read.threads, (w.words.threads > 0).then_some(w.words.threads as usize));
    assert_eq!(read.memtable_bytes.unwrap_or(0), w.words.memtable_bytes);
    assert_eq!(read.history_bytes.unwrap_or(0), w.words.history_bytes);
    assert!(!read.grace.is_zero() && !read.forget_every.is_zero() && read.gather.ns > 0 && read.gather.requests <= 64);
}

pub fn configuration(input: &mut Input<'_>) {
    let mut w = wanted(input);
    let size = match input.below(8) {
        0 => input.choose(&[0, 8, USUAL - 1, MOST + 8, usize::MAX]),
        1 => input.choose(&[USUAL + 8, MOST]),
        _ => USUAL,
    };
    w.words.size = size as u64;
    let has_size = (USUAL..=MOST).contains(&size);
    // Of one that does not say its size only that may be read. In words, so that it lies as C has it.
    let mut bytes = vec![0_u64; if has_size { size.div_ceil(8) } else { 1 }];
    if has_size {
        // SAFETY: as many bytes, and aligned.
        unsafe { bytes.as_mut_ptr().cast::<ApiHostConfig>().write(w.words) };
    }
    bytes[0] = size as u64;
    let asks_more = size > USUAL && has_size && input.one_in(2);
    if asks_more {
        let last = bytes.len() - 1;
        let more = USUAL / 8 + input.number() as usize % (last + 1 - USUAL / 8);
        bytes[more] = 1 << input.below(64);
    }
    // SAFETY: a configuration of the size that it says, and texts that live.
    let read = unsafe { config::read(bytes.as_ptr().cast()) };
    // What was copied is not C's any more.
    bytes.fill(u64::MAX);
    let is_good = has_size && !asks_more && makes_sense(&w);
    match read {
        Ok(read) => {
            assert!(is_good, "it does not make sense");
            check(&w, &read);
        }
        Err((code, why)) => assert!(!is_good && code == -libc::EINVAL && !why.is_empty(), "{code}: {why}"),
    }
}
