//! Bytes for a region that somebody else writes: once, and again and again in another thread. They lie between bytes that
//! are compared afterwards and a page that nobody may touch.
#![allow(dead_code)] // Each target uses its own part.

use std::mem::offset_of;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use shmuring::layout::{Geometry, Header};
use shmuring::slot::{State, Word};

/// Bytes for a region, and those before it that must stay as they are.
const MOST: usize = 64 << 10;
const BEFORE: usize = 4096;
const UNTOUCHED: u8 = 0xA5;
/// Most words that the attacker writes.
const WRITES: usize = 24;
/// No run may take that long, however it is disturbed: every wait in it ends after some microseconds.
const BOUND: Duration = Duration::from_secs(20);

/// One write of the attacker, done again and again.
#[derive(Clone, Copy)]
pub struct Write {
    /// Of the region, in words.
    pub at: usize,
    /// The bits that stay, and what is flipped then: in one round, and in the next.
    pub keep: u64,
    pub values: [u64; 2],
}

struct Script {
    base: usize,
    writes: Vec<Write>,
    begun: AtomicBool,
    stop: AtomicBool,
}

/// Does each write once.
pub fn strike(base: usize, writes: &[Write], round: usize) {
    for w in writes {
        // SAFETY: a word inside the region's bytes, which are mapped for good.
        let word = unsafe { &*((base + w.at * 8) as *const AtomicU64) };
        word.store(word.load(Relaxed) & w.keep ^ w.values[round & 1], Relaxed);
    }
}

/// What is made once: memory before a forbidden page, the path of a lock file, an attacker.
pub struct Ground {
    end: usize,
    pub lock_path: PathBuf,
    orders: Sender<Arc<Script>>,
    done: Receiver<()>,
}

fn attack(orders: Receiver<Arc<Script>>, done: Sender<()>) {
    for script in orders {
        let mut round = 0;
        while !script.stop.load(Relaxed) {
            strike(script.base, &script.writes, round);
            round += 1;
            script.begun.store(true, Relaxed);
            // Where both are on one cpu the other need not wait for the end of a time slice.
            if round % 8 == 0 {
                std::thread::yield_now();
            }
        }
        done.send(()).unwrap();
    }
}

/// The ground of this process.
pub fn ground() -> &'static Ground {
    /// The fuzzer has one thread.
    struct Once(Ground);
    // SAFETY: used by the fuzzer's one thread.
    unsafe impl Sync for Once {}
    // SAFETY: as above.
    unsafe impl Send for Once {}
    static GROUND: OnceLock<Once> = OnceLock::new();
    &GROUND
        .get_or_init(|| {
            let directory = std::env::temp_dir().join(format!("shmuring-fuzz-{}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            let (flags, protection) = (libc::MAP_SHARED | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
            // SAFETY: a new mapping disturbs nothing.
            let base = unsafe { libc::mmap(std::ptr::null_mut(), MOST + 4096, protection, flags, -1, 0) };
            assert_ne!(base, libc::MAP_FAILED);
            // SAFETY: the last page of the mapping just made.
            assert_eq!(unsafe { libc::mprotect(base.byte_add(MOST), 4096, libc::PROT_NONE) }, 0);
            // Sleeps of some microseconds are meant so.
            // SAFETY: a system call on numbers.
            unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
            let ((orders, from_us), (to_us, done)) = (channel(), channel());
            std::thread::spawn(move || attack(from_us, to_us));
            Once(Ground { end: base as usize + MOST, lock_path: directory.join("locks"), orders, done })
        })
        .0
}

impl Ground {
    /// Where a region of so many bytes goes: they end at the forbidden page. Nobody writes there now.
    pub fn place(&self, len: usize) -> usize {
        let base = self.end - len;
        // SAFETY: mapped for good, and the last attacker has stopped.
        unsafe { std::slice::from_raw_parts_mut((base - BEFORE) as *mut u8, BEFORE) }.fill(UNTOUCHED);
        base
    }

    /// Runs `f` while these words of the region at `base` are written again and again, if there are any; then nothing
    /// before the region has changed, and it has not taken too long.
    pub fn under_attack<R>(&self, base: usize, writes: Vec<Write>, f: impl FnOnce() -> R) -> R {
        let begin = Instant::now();
        let result = if writes.is_empty() { f() } else { self.beside_attacker(base, writes, f) };
        assert!(begin.elapsed() < BOUND, "{:?}", begin.elapsed());
        // SAFETY: mapped for good, and nobody writes it now.
        let before = unsafe { std::slice::from_raw_parts((base - BEFORE) as *const u8, BEFORE) };
        assert!(before.iter().all(|b| *b == UNTOUCHED), "bytes before the region were written");
        result
    }

    fn beside_attacker<R>(&self, base: usize, writes: Vec<Write>, f: impl FnOnce() -> R) -> R {
        let script = Script { base, writes, begun: AtomicBool::new(false), stop: AtomicBool::new(false) };
        let script = Arc::new(script);
        self.orders.send(Arc::clone(&script)).unwrap();
        while !script.begun.load(Relaxed) {
            std::thread::yield_now();
        }
        let result = f();
        script.stop.store(true, Relaxed);
        self.done.recv().unwrap();
        result
    }
}

/// A number that means something near `near`, or anything.
pub fn number(u: &mut Unstructured<'_>, near: u64) -> Result<u64> {
    Ok(match u.int_in_range(0..=5)? {
        0 => 0,
        1 => near.wrapping_add(u64::from(u.arbitrary::<u8>()?)).wrapping_sub(128),
        2 => u64::from(u.arbitrary::<u8>()?),
        3 => 1_u64 << u.int_in_range(0..=63)?,
        4 => u64::from(u.arbitrary::<u8>()?) * 0x0101_0101_0101_0101,
        _ => u.arbitrary()?,
    })
}

/// A slot word that some transition might have written.
fn slot_word(u: &mut Unstructured<'_>) -> Result<u64> {
    let word = Word::new(*u.choose(&State::ALL)?, u.int_in_range(0..=2)?, u.int_in_range(0..=3)?);
    Ok(word.bits() | u64::from(u.arbitrary::<bool>()?) << 4)
}

fn write(u: &mut Unstructured<'_>, g: &Geometry) -> Result<Write> {
    let words = |i: usize| g.offsets[i] as usize / 8;
    let slot = u.int_in_range(0..=g.slots as usize - 1)?;
    let at = match u.int_in_range(0..=9)? {
        // The words of the header that are in use, configuration and magic among them; of shards the first 23.
        0 => match u.int_in_range(0..=255)? {
            n @ 0..=149 => n,
            n => n - 150 + offset_of!(Header, shards) / 8,
        },
        1 => 16 * u.int_in_range(1..=7)?,
        2 => words(1),
        3 => words(4) + 8 * u.int_in_range(0..=g.capacity as usize - 1)?,
        4 => words(0) + u.int_in_range(0..=111)?,
        5 => words(2) + u.int_in_range(0..=31)?,
        6 | 7 => words(3) + 64 * slot,
        8 => words(3) + 64 * slot + u.int_in_range(0..=15)?,
        _ => words(3) + 64 * slot + u.int_in_range(16..=63)?,
    };
    let is_slot_word = at >= words(3) && at < words(4) && (at - words(3)) % 64 == 0;
    let mut value = || if is_slot_word && u.ratio(7, 8)? { slot_word(u) } else { number(u, 0) };
    let values = [value()?, value()?];
    Ok(Write { at, keep: if u.ratio(1, 4)? { u64::MAX } else { 0 }, values })
}

/// Some writes to a region of these sizes.
pub fn writes(u: &mut Unstructured<'_>, g: &Geometry) -> Result<Vec<Write>> {
    (0..u.int_in_range(0..=WRITES)?).map(|_| write(u, g)).collect()
}
