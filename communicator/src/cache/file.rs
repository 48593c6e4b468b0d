//! The page cache's second tier: a local file of frames, for what the first tier evicts.
//!
//! # File
//! A mark, without which no file is emptied: it may be anything, a region or a table, that somebody has named by mistake.
//! Then frames of [`FRAME`] bytes: a head that names the block, the LSN that the page is valid to, and the process; then the
//! page. A checksum covers all of it, so a frame that is torn, old or another's is a miss, never a wrong page. Which block
//! is in which frame is known in memory alone: the file begins empty at every start, so nothing of an older communicator
//! or server life is ever found in it (R13).
//!
//! # Threads
//! One thread writes; readers read by themselves, never in Copying. A page is found only once it is written, and only if
//! its key did not change meanwhile. A full disk, a truncated file, a bad frame: a miss, and a line in the log.

use super::counts::Counts;
use super::{Block, Entry, Sent};
use crate::service::{Page, Rel, PAGE_SIZE};
use shmuring::request::{Lsn, RelTag};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How the file begins.
const MARK: [u8; 64] = *b"shmuring cache file: pages that memory had no room for, no data\n";
/// Bytes of a frame's head.
const HEAD: usize = 64;
/// Bytes of a frame.
pub(super) const FRAME: usize = HEAD + PAGE_SIZE;
/// Evicted pages that wait for the writer; more are dropped.
const QUEUE: usize = 256;
/// Least time between two lines in the log, ns.
const QUIET: u64 = 1_000_000_000;

/// Where a page lies in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    frame: u32,
    pub(super) valid_to: Lsn,
    pub(super) sent: Sent,
}

#[derive(Debug)]
struct Index {
    places: HashMap<Block, Place>,
    /// What is in each frame.
    owners: Vec<Option<Block>>,
    /// The frame that is written next: the oldest goes first.
    hand: usize,
}

#[derive(Debug)]
struct Shared {
    file: File,
    /// This process's name in frames.
    nonce: u64,
    index: Mutex<Index>,
    counts: Arc<Counts>,
    /// The mark is in the file.
    is_marked: AtomicBool,
    logged_at: AtomicU64,
}

/// See the module. A handle: clones share the file.
#[derive(Clone, Debug)]
pub(super) struct CacheFile {
    shared: Arc<Shared>,
    writer: SyncSender<(Block, Entry)>,
}

impl CacheFile {
    /// Empties or makes the file, for `bytes` of frames (at least one), and starts its writer. EBUSY as WouldBlock: another
    /// process uses it; InvalidInput: it is something else.
    pub(super) fn open(path: &Path, bytes: u64, counts: Arc<Counts>) -> io::Result<Self> {
        let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC;
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path)?;
        // Before it is emptied: a living predecessor may use it.
        file.try_lock().map_err(io::Error::from)?;
        if !is_ours(&file)? {
            let why = "it is something else, and would be emptied: remove it if it is not needed";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        file.set_len(0)?;
        let frames = usize::try_from(bytes / FRAME as u64).unwrap_or(usize::MAX).clamp(1, u32::MAX as usize);
        let index = Index { places: HashMap::new(), owners: vec![None; frames], hand: 0 };
        let nonce = RandomState::new().hash_one(std::process::id());
        let (index, logged_at) = (Mutex::new(index), AtomicU64::new(0));
        let shared = Arc::new(Shared { file, nonce, index, counts, is_marked: AtomicBool::new(false), logged_at });
        let (writer, queue) = sync_channel(QUEUE);
        let writing = shared.clone();
        std::thread::Builder::new().name("shmuring-cache".into()).spawn(move || writing.write_all(&queue))?;
        Ok(Self { shared, writer })
    }

    /// Takes an evicted page, unless too many wait. Does not block.
    pub(super) fn offer(&self, block: Block, entry: Entry) {
        let _ = self.writer.try_send((block, entry));
    }

    /// Where a page lies.
    pub(super) fn find(&self, block: Block) -> Option<Place> {
        self.shared.index().places.get(&block).copied()
    }

    /// Forgets a block; the caller holds its key's lock.
    pub(super) fn remove(&self, block: Block) {
        self.shared.forget(block, |_| true);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        let mut index = self.shared.index();
        index.places.clear();
        index.owners.fill(None);
    }

    /// Reads a page. `None`: it is not there any more, or cannot be read. Does file I/O.
    pub(super) fn read(&self, block: Block, place: Place) -> Option<Page> {
        let mut frame = vec![0; FRAME];
        let read = self.shared.file.read_exact_at(&mut frame, offset(place.frame));
        let why = match read {
            Ok(()) if is_good(&frame, self.shared.nonce, block, place.valid_to) => {
                frame.drain(..HEAD);
                return Some(Page::one(frame));
            }
            Ok(()) => "its frame is not what was written".to_owned(),
            Err(e) => e.to_string(),
        };
        // Unless it was only written over for another block meanwhile.
        if self.shared.forget(block, |p| *p == place) {
            let (rel, number) = (Rel(block.0), block.1);
            self.shared.log(|| tracing::warn!(%rel, block = number, "a page in the cache file is lost: {why}"));
        }
        None
    }
}

impl Shared {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// At most one line a second.
    fn log(&self, line: impl FnOnce()) {
        let now = shmuring::clock::now();
        let last = self.logged_at.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= QUIET;
        if is_due && self.logged_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            line();
        }
    }

    fn forget(&self, block: Block, which: impl Fn(&Place) -> bool) -> bool {
        let mut index = self.index();
        let Some(place) = index.places.get(&block).copied().filter(|p| which(p)) else { return false };
        index.places.remove(&block);
        if let Some(owner) = index.owners.get_mut(place.frame as usize) {
            *owner = None;
        }
        true
    }

    /// The writer: until the last handle is gone.
    fn write_all(&self, queue: &Receiver<(Block, Entry)>) {
        let mut frame = vec![0; FRAME];
        while let Ok((block, entry)) = queue.recv() {
            self.write(block, &entry, &mut frame);
        }
    }

    fn write(&self, block: Block, entry: &Entry, frame: &mut Vec<u8>) {
        let Some(number) = self.take_frame() else { return };
        encode(frame, self.nonce, block, entry);
        if let Err(e) = self.mark(number).and_then(|()| self.file.write_all_at(frame, offset(number))) {
            self.log(|| tracing::warn!("the cache file could not be written: {e}"));
            return;
        }
        // Under the key's lock: a mutation came before, and then the page is not entered, or it will find it.
        let key = self.counts.lock(block.0, block.1);
        if *key != entry.sent.block || self.counts.relation(block.0) != entry.sent.relation {
            return;
        }
        let place = Place { frame: number, valid_to: entry.valid_to, sent: entry.sent };
        let mut index = self.index();
        if let Some(before) = index.places.insert(block, place) {
            if let Some(owner) = index.owners.get_mut(before.frame as usize) {
                *owner = None;
            }
        }
        if let Some(owner) = index.owners.get_mut(number as usize) {
            *owner = Some(block);
        }
    }

    /// Writes the mark before anything else; and each time round again, should the file have been truncated.
    fn mark(&self, frame: u32) -> io::Result<()> {
        // Relaxed: one thread writes.
        if frame == 0 || !self.is_marked.load(Ordering::Relaxed) {
            self.file.write_all_at(&MARK, 0)?;
            // Lest frames outlive it when the power is lost.
            self.file.sync_data()?;
            self.is_marked.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The next frame; nobody finds what was in it any more.
    fn take_frame(&self) -> Option<u32> {
        let mut index = self.index();
        let number = index.hand;
        index.hand = (number + 1) % index.owners.len().max(1);
        if let Some(block) = index.owners.get_mut(number).and_then(Option::take) {
            index.places.remove(&block);
        }
        u32::try_from(number).ok()
    }
}

fn offset(frame: u32) -> u64 {
    MARK.len() as u64 + u64::from(frame) * FRAME as u64
}

/// Whether the file is empty, or one of a cache.
fn is_ours(file: &File) -> io::Result<bool> {
    let mut begin = [0; MARK.len()];
    match file.metadata()?.len() {
        0 => Ok(true),
        len if len < MARK.len() as u64 => Ok(false),
        _ => file.read_exact_at(&mut begin, 0).map(|()| begin == MARK),
    }
}

/// Head: checksum of all that follows, file of this process, block, LSN.
fn head(nonce: u64, (rel, block): Block, valid_to: Lsn) -> [u8; HEAD] {
    let RelTag { spc_oid, db_oid, rel_number, fork } = rel;
    let mut head = [0; HEAD];
    let words = [0, spc_oid, db_oid, rel_number, u32::from(fork), block].map(u64::from);
    for (to, word) in head.chunks_exact_mut(8).zip(words.into_iter().chain([valid_to, nonce])) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    head
}

fn encode(frame: &mut Vec<u8>, nonce: u64, block: Block, entry: &Entry) {
    frame.clear();
    frame.extend_from_slice(&head(nonce, block, entry.valid_to));
    frame.extend_from_slice(entry.page.bytes());
    let sum = frame.get(8..).map_or(0, crc32c::crc32c);
    if let Some(to) = frame.get_mut(..8) {
        to.copy_from_slice(&u64::from(sum).to_le_bytes());
    }
}

fn is_good(frame: &[u8], nonce: u64, block: Block, valid_to: Lsn) -> bool {
    let (Some(sum), Some(rest)) = (frame.get(..8), frame.get(8..)) else { return false };
    let expected = head(nonce, block, valid_to);
    rest.get(..HEAD - 8) == expected.get(8..) && sum == u64::from(crc32c::crc32c(rest)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 9, fork: 0 };

    struct Bed {
        dir: tempfile::TempDir,
        file: CacheFile,
        counts: Arc<Counts>,
    }

    impl Bed {
        fn new(frames: u64) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let counts = Arc::new(Counts::new());
            let file = CacheFile::open(&dir.path().join("cache"), frames * FRAME as u64, counts.clone()).unwrap();
            Self { dir, file, counts }
        }

        fn path(&self) -> std::path::PathBuf {
            self.dir.path().join("cache")
        }

        fn entry(&self, block: u32) -> Entry {
            let page = Page::one(vec![block as u8; PAGE_SIZE]);
            Entry { page, valid_to: 100 + u64::from(block), sent: self.counts.sent(REL, block) }
        }

        fn put(&self, block: u32) {
            // At once, in place of the thread.
            self.file.shared.write((REL, block), &self.entry(block), &mut Vec::new());
        }

        fn get(&self, block: u32) -> Option<u8> {
            let place = self.file.find((REL, block))?;
            assert_eq!(place.valid_to, 100 + u64::from(block));
            self.file.read((REL, block), place).map(|p| p.bytes()[PAGE_SIZE - 1])
        }
    }

    #[test]
    fn what_is_offered_is_found_and_the_oldest_makes_room() {
        let b = Bed::new(4);
        for block in 0..4 {
            b.file.offer((REL, block), b.entry(block));
        }
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while b.get(3).is_none() && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        assert_eq!((0..4).map(|n| b.get(n)).collect::<Vec<_>>(), [Some(0), Some(1), Some(2), Some(3)]);
        b.put(7);
        assert_eq!((b.get(0), b.get(1), b.get(7)), (None, Some(1), Some(7)));
        assert!(std::fs::metadata(b.path()).unwrap().len() <= offset(4));
        b.file.clear();
        assert_eq!((b.get(1), b.get(7)), (None, None));
    }

    #[test]
    fn a_page_whose_key_changed_before_it_was_written_is_not_found() {
        let b = Bed::new(4);
        let (early, other) = (b.entry(1), b.entry(2));
        *b.counts.lock(REL, 1) += 1;
        b.file.shared.write((REL, 1), &early, &mut Vec::new());
        assert_eq!(b.get(1), None);
        b.counts.change_relation(REL);
        b.file.shared.write((REL, 2), &other, &mut Vec::new());
        assert_eq!(b.get(2), None);
    }

    #[test]
    fn a_frame_with_any_bit_flipped_is_a_miss() {
        let b = Bed::new(1);
        let file = OpenOptions::new().read(true).write(true).open(b.path()).unwrap();
        for at in (0..HEAD).chain([HEAD, HEAD + 4000, FRAME - 1]) {
            b.put(1);
            assert_eq!(b.get(1), Some(1));
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset(0) + at as u64).unwrap();
            file.write_all_at(&[byte[0] ^ 4], offset(0) + at as u64).unwrap();
            assert_eq!(b.get(1), None, "byte {at}");
            assert_eq!(b.file.find((REL, 1)), None, "and it is forgotten");
        }
    }

    #[test]
    fn a_disk_that_takes_no_more_costs_reads_and_no_page() {
        const LIMITED: &str = "SHMURING_TEST_LIMITED";
        if std::env::var_os(LIMITED).is_none() {
            // In a process of its own, whose files may have 64 blocks of 512 or of 1024 bytes.
            let name = "cache::file::tests::a_disk_that_takes_no_more_costs_reads_and_no_page";
            let limited = r#"trap "" XFSZ; ulimit -f 64; exec "$@""#;
            let mut child = std::process::Command::new("sh");
            child.args(["-c", limited, "sh"]).arg(std::env::current_exe().unwrap()).args(["--exact", name]);
            let done = child.env(LIMITED, "1").output().unwrap();
            let told = String::from_utf8_lossy(&done.stdout);
            assert!(done.status.success() && told.contains("1 passed"), "{told}");
            return;
        }
        let b = Bed::new(64);
        (0..64).for_each(|block| b.put(block));
        let there = |b: &Bed| (0..64).map_while(|block| b.get(block).map(u32::from)).collect::<Vec<_>>();
        let before = there(&b);
        assert!((3..8).contains(&before.len()) && before.iter().copied().eq(0..before.len() as u32), "{before:?}");
        assert!((before.len() as u32..64).all(|block| b.get(block).is_none()));
        // The frames that were written are used again, and no block is found where another's frame could not be written.
        (64..128).for_each(|block| b.put(block));
        let after: Vec<u32> = (0..128).filter(|block| b.get(*block).is_some()).collect();
        assert!(after.iter().copied().eq(64..64 + before.len() as u32), "{after:?}");
    }

    #[test]
    fn a_file_that_is_truncated_or_full_of_another_block_is_a_miss() {
        let b = Bed::new(2);
        b.put(1);
        b.put(2);
        let (one, two) = (b.file.find((REL, 1)).unwrap(), b.file.find((REL, 2)).unwrap());
        assert!(b.file.read((REL, 1), Place { valid_to: one.valid_to, ..two }).is_none(), "another block's frame");
        std::fs::File::options().write(true).open(b.path()).unwrap().set_len(100).unwrap();
        assert_eq!((b.get(1), b.get(2)), (None, None));
        b.put(5);
        assert_eq!(b.get(5), Some(5), "and it goes on");
    }

    #[test]
    fn a_full_disk_is_a_miss() {
        let counts = Arc::new(Counts::new());
        let Ok(file) = OpenOptions::new().read(true).write(true).open("/dev/full") else { return };
        let index = Index { places: HashMap::new(), owners: vec![None; 4], hand: 0 };
        let (index, logged_at) = (Mutex::new(index), AtomicU64::new(0));
        let shared = Shared { file, nonce: 1, index, counts, is_marked: AtomicBool::new(false), logged_at };
        let sent = shared.counts.sent(REL, 1);
        let entry = Entry { page: Page::one(vec![1; PAGE_SIZE]), valid_to: 1, sent };
        shared.write((REL, 1), &entry, &mut Vec::new());
        assert!(shared.index().places.is_empty());
        assert!(shared.logged_at.load(Ordering::Relaxed) > 0, "and the log says so");
    }

    #[test]
    fn a_file_that_is_something_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        let counts = Arc::new(Counts::new());
        for bytes in [&b"x"[..], &[0; 64], &[7; FRAME], &MARK[..63]] {
            std::fs::write(&path, bytes).unwrap();
            let refused = CacheFile::open(&path, 1 << 20, counts.clone()).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        // One that a killed process left is known by its mark.
        std::fs::write(&path, [&MARK[..], &[7; 100]].concat()).unwrap();
        CacheFile::open(&path, 1 << 20, counts).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    }

    #[test]
    fn a_file_in_use_is_refused_and_an_old_one_emptied() {
        let b = Bed::new(2);
        b.put(1);
        let again = CacheFile::open(&b.path(), 1 << 20, b.counts.clone());
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let path = b.path();
        let Bed { dir, file, counts } = b;
        drop(file);
        // The writer lets go of the file once it sees that the last handle is gone.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        let next = loop {
            match CacheFile::open(&path, 1 << 20, counts.clone()) {
                Err(_) if std::time::Instant::now() < until => std::thread::yield_now(),
                other => break other.unwrap(),
            }
        };
        assert_eq!(next.find((REL, 1)), None);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
        drop(dir);
    }
}
