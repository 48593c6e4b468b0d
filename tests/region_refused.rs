//! What attach refuses: every named error, every word of the configuration, and bytes that mean nothing.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

mod support;

use std::fs::File;
use std::mem::{offset_of, size_of};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use shmuring::error::Error;
use shmuring::layout::{layout_hash, Config, Header, TableConfig, Tables, ABI_VERSION, MAGIC};
use shmuring::liveness::ROLE_BYTE;
use shmuring::region::{Options, Region};
use shmuring::sync::Ordering::Relaxed;
use support::Scratch;

const SMALL: Options = Options { bounce_per_slot: 1, block_size: 512, written_buckets: 3, rel_sizes: 5, slots: 4 };

/// Where a word of the configuration lies in the file, and its bytes.
macro_rules! word {
    ($field:ident) => {
        (offset_of!(Header, config) + offset_of!(Config, $field)) as u64
    };
}

/// The same of the configuration of the tables.
macro_rules! table_word {
    ($field:ident) => {
        (offset_of!(Header, tables) + offset_of!(Tables, config) + offset_of!(TableConfig, $field)) as u64
    };
}

/// A named region to damage.
struct Victim {
    _scratch: Scratch,
    path: PathBuf,
    file: File,
}

impl Victim {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let path = scratch.path("region");
        Region::create_named(&path, &SMALL).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        Self { _scratch: scratch, path, file }
    }

    /// Attaches with `bytes` at `offset`, and puts back what was there.
    fn with(&self, offset: u64, bytes: &[u8]) -> Option<Error> {
        let mut old = vec![0; bytes.len()];
        self.file.read_exact_at(&mut old, offset).unwrap();
        assert_ne!(old, bytes, "no damage at {offset}");
        self.file.write_all_at(bytes, offset).unwrap();
        let got = Region::attach(&self.path).err();
        let observed = Region::observe(&self.path).err();
        assert_eq!(got, observed, "observers check less");
        self.file.write_all_at(&old, offset).unwrap();
        assert!(Region::attach(&self.path).is_ok());
        got
    }

    fn u32(&self, offset: u64) -> u32 {
        let mut b = [0; 4];
        self.file.read_exact_at(&mut b, offset).unwrap();
        u32::from_le_bytes(b)
    }

    fn u64(&self, offset: u64) -> u64 {
        let mut b = [0; 8];
        self.file.read_exact_at(&mut b, offset).unwrap();
        u64::from_le_bytes(b)
    }
}

#[test]
fn a_file_shorter_than_a_header_or_than_its_region_is_too_short() {
    let v = Victim::new("short");
    let whole = v.file.metadata().unwrap().len();
    for len in [whole - 1, whole / 2, 4096, size_of::<Header>() as u64, size_of::<Header>() as u64 - 1, 9, 1, 0] {
        v.file.set_len(len).unwrap();
        assert_eq!(Region::attach(&v.path).err(), Some(Error::TooShort), "{len} bytes");
        assert_eq!(Region::observe(&v.path).err(), Some(Error::TooShort), "{len} bytes");
    }
}

#[test]
fn a_file_longer_than_its_region_is_fine() {
    let v = Victim::new("long");
    let whole = v.file.metadata().unwrap().len();
    v.file.set_len(whole + 12345).unwrap();
    assert_eq!(Region::attach(&v.path).unwrap().parts().slots.len(), 4);
}

#[test]
fn what_is_no_file_is_refused() {
    let scratch = Scratch::new("no-file");
    assert_eq!(Region::attach(&scratch.path("none")).err(), Some(Error::Os(libc::ENOENT)));
    assert_eq!(Region::attach(&scratch.path("")).err(), Some(Error::Os(libc::EISDIR)));
    assert!(Region::observe(&scratch.path("")).is_err());
    assert_eq!(Region::attach(&PathBuf::from("/dev/null")).err(), Some(Error::TooShort));
    let fifo = scratch.path("fifo");
    let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: a C string that outlives the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert_eq!(Region::attach(&fifo).err(), Some(Error::TooShort));
    assert_eq!(Region::observe(&fifo).err(), Some(Error::TooShort));
}

#[test]
fn each_check_has_its_name() {
    let v = Victim::new("names");
    assert_eq!(v.with(0, &0_u64.to_le_bytes()), Some(Error::WrongMagic));
    for byte in 0..8 {
        assert_eq!(v.with(byte, &[0xEE]), Some(Error::WrongMagic));
    }
    for abi in [0, ABI_VERSION + 1, u32::MAX] {
        assert_eq!(v.with(word!(abi_version), &abi.to_le_bytes()), Some(Error::WrongAbi));
    }
    assert_eq!(v.with(word!(layout_hash), &(layout_hash() ^ 1).to_le_bytes()), Some(Error::WrongLayout));
    for bit in [0, 1, 31, 32, 63] {
        assert_eq!(v.with(word!(features), &(1_u64 << bit).to_le_bytes()), Some(Error::UnknownFeature));
    }
    assert_eq!(v.with(word!(lock_file), &1_u64.to_le_bytes()), Some(Error::WrongLockFile));
}

#[test]
fn a_region_of_another_time_namespace_is_refused_and_an_unknown_one_is_not() {
    let v = Victim::new("clock");
    let here = v.u32(word!(time_namespace));
    assert_ne!(here, 0, "this test needs a kernel with time namespaces and /proc");
    assert_eq!(v.with(word!(time_namespace), &(here ^ 1).to_le_bytes()), Some(Error::ForeignClock));
    assert_eq!(v.with(word!(time_namespace), &0_u32.to_le_bytes()), None);
}

#[test]
fn every_size_and_offset_that_does_not_fit_the_others_is_refused() {
    let v = Victim::new("sizes");
    let tables = [table_word!(written_buckets), table_word!(size_sets)];
    for at in [word!(slots), word!(capacity), word!(bounce_per_slot), word!(block_size)].into_iter().chain(tables) {
        let good = v.u32(at);
        let bits = (0..32).map(|b| good ^ 1 << b);
        for bad in bits.chain([0, u32::MAX, good.wrapping_neg(), good * 2]).filter(|b| *b != good) {
            assert_eq!(v.with(at, &bad.to_le_bytes()), Some(Error::BadGeometry), "u32 at {at}: {bad:#x}");
        }
    }
    let offsets = (0..6).map(|i| word!(offsets) + i * 8);
    let tables = [table_word!(offsets), table_word!(offsets) + 8];
    for at in offsets.chain([word!(total_len)]).chain(tables) {
        let good = v.u64(at);
        let bits = (0..64).map(|b| good ^ 1 << b);
        for bad in bits.chain([0, u64::MAX, good.wrapping_neg(), good * 2]) {
            assert_eq!(v.with(at, &bad.to_le_bytes()), Some(Error::BadGeometry), "u64 at {at}: {bad:#x}");
        }
    }
}

#[test]
fn sizes_that_agree_but_are_larger_than_the_file_are_too_short() {
    let v = Victim::new("larger");
    let (other, path) = (v.path.with_file_name("other"), v.path.clone());
    Region::create_named(&other, &Options { slots: 5, ..SMALL }).unwrap();
    let mut header = vec![0; size_of::<Header>()];
    File::open(&other).unwrap().read_exact_at(&mut header, 0).unwrap();
    v.file.write_all_at(&header, 0).unwrap();
    assert_eq!(Region::attach(&path).err(), Some(Error::TooShort));
}

/// Sebastiano Vigna's splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[test]
fn random_headers_are_errors_and_never_a_crash() {
    let v = Victim::new("random");
    let whole = v.file.metadata().unwrap().len();
    let mut random = Random(1);
    let mut seen = std::collections::HashSet::new();
    for round in 0..6000 {
        let mut bytes: Vec<u8> = (0..512).flat_map(|_| random.next().to_le_bytes()).collect();
        let mut put = |at: u64, word: &[u8]| bytes[at as usize..][..word.len()].copy_from_slice(word);
        // Each further step gets past one more check.
        if round % 6 > 0 {
            put(0, &MAGIC.to_le_bytes());
        }
        if round % 6 > 1 {
            put(word!(abi_version), &ABI_VERSION.to_le_bytes());
        }
        if round % 6 > 2 {
            put(word!(layout_hash), &layout_hash().to_le_bytes());
        }
        if round % 6 > 3 {
            put(word!(features), &0_u64.to_le_bytes());
        }
        if round % 6 > 4 {
            // Sizes that pass for themselves, with offsets that do not.
            put(word!(slots), &((random.next() as u32 >> 8) | 1).to_le_bytes());
            put(word!(bounce_per_slot), &(random.next() as u32 % 1025).to_le_bytes());
            put(word!(block_size), &(512_u32 << (random.next() % 8)).to_le_bytes());
        }
        v.file.write_all_at(&bytes, 0).unwrap();
        v.file.set_len(if round % 2 == 0 { whole } else { random.next() % 4096 }).unwrap();
        let refused = Region::attach(&v.path).err();
        seen.insert(refused.unwrap_or_else(|| panic!("round {round} was attached")));
        v.file.set_len(whole).unwrap();
    }
    let all = [
        Error::TooShort,
        Error::WrongMagic,
        Error::WrongAbi,
        Error::WrongLayout,
        Error::UnknownFeature,
        Error::BadGeometry,
    ];
    assert_eq!(seen, all.into(), "a step of the test reached nothing");
}

const PAGE: usize = 4096;

/// Memory as an embedder hands it over: aligned, and full of what was there before.
fn embedder_memory(bytes: u64) -> Vec<[u64; 16]> {
    vec![[0xAAAA_AAAA_AAAA_AAAA; 16]; (bytes as usize + 2 * PAGE).div_ceil(128)]
}

/// The first page in `memory`: whole pages, so that an munmap of them would not fail but be felt.
fn aligned(memory: &mut [[u64; 16]]) -> *mut u8 {
    let base = memory.as_mut_ptr().cast::<u8>();
    // SAFETY: embedder_memory made the row two pages longer than asked for.
    unsafe { base.add(base.align_offset(PAGE)) }
}

#[test]
fn adopted_memory_is_wiped_and_shared() {
    let scratch = Scratch::new("adopted");
    let lock = scratch.path("lock");
    let len = Region::size(&SMALL).unwrap() as usize;
    let mut memory = embedder_memory(len as u64);
    let base = aligned(&mut memory);
    // SAFETY: `memory` outlives the regions and is used through them alone.
    let (a, b) = unsafe {
        assert_eq!(Region::attach_adopted(base, len, &lock).err(), Some(Error::Os(libc::ENOENT)));
        let a = Region::init_adopted(base, len, &SMALL, &lock).unwrap();
        (a, Region::attach_adopted(base, len, &lock).unwrap())
    };
    assert_eq!(
        std::fs::metadata(&lock).map(|m| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777).ok(),
        Some(0o600)
    );
    assert!(a.parts().slots.iter().all(|s| s.word.load(Relaxed) == 0));
    assert_eq!(a.parts().owner_stats[3].latency[23].load(Relaxed), 0);
    a.parts().header.any.0.store(3, Relaxed);
    assert_eq!(b.parts().header.any.0.load(Relaxed), 3);
    assert!(a.fd().is_none() && a.path().is_none() && a.id() == b.id());
    let held = a.lock_file().unwrap();
    assert!(held.try_lock(ROLE_BYTE, 1).unwrap());
    assert!(b.liveness().role_held() && !b.lock_file().unwrap().try_lock(ROLE_BYTE, 1).unwrap());
    drop((a, b));
    // The embedder's memory is still there, with the region in it.
    // SAFETY: as above.
    let again = unsafe { Region::attach_adopted(base, len, &lock).unwrap() };
    assert_eq!(again.parts().header.any.0.load(Relaxed), 3);
}

#[test]
fn a_lock_file_that_was_made_anew_proves_nothing_and_is_refused() {
    let scratch = Scratch::new("lock-anew");
    let (lock, other) = (scratch.path("lock"), scratch.path("other"));
    let len = Region::size(&SMALL).unwrap() as usize;
    let mut memory = embedder_memory(len as u64);
    let base = aligned(&mut memory);
    File::create(&other).unwrap();
    // SAFETY: `memory` outlives the regions and is used through them alone.
    unsafe {
        let region = Region::init_adopted(base, len, &SMALL, &lock).unwrap();
        assert_eq!(Region::attach_adopted(base, len, &other).err(), Some(Error::WrongLockFile));
        // A file of the same name, while the region holds the old one.
        std::fs::rename(&other, &lock).unwrap();
        assert_eq!(Region::attach_adopted(base, len, &lock).err(), Some(Error::WrongLockFile));
        drop(region);
    }
}

#[test]
fn memory_that_cannot_hold_a_region_is_refused_untouched() {
    let scratch = Scratch::new("bad-memory");
    let lock = scratch.path("lock");
    let len = Region::size(&SMALL).unwrap() as usize;
    let mut memory = embedder_memory(len as u64 + 256);
    let base = aligned(&mut memory);
    // SAFETY: `memory` outlives the regions and is used through them alone; what is refused is not touched.
    unsafe {
        let init = |base, len| Region::init_adopted(base, len, &SMALL, &lock).err();
        assert_eq!(init(std::ptr::null_mut(), len), Some(Error::BadMemory));
        assert_eq!(init(base.add(64), len), Some(Error::BadMemory));
        assert_eq!(init(base, len - 1), Some(Error::BadMemory));
        assert_eq!(init(base, usize::MAX), Some(Error::BadMemory));
        assert_eq!(*base, 0xAA);
        assert!(scratch.names().is_empty(), "a lock file for nothing");

        Region::init_adopted(base, len, &SMALL, &lock).unwrap();
        let attach = |base, len| Region::attach_adopted(base, len, &lock).err();
        assert_eq!(attach(std::ptr::null_mut(), len), Some(Error::BadMemory));
        assert_eq!(attach(base.add(64), len), Some(Error::BadMemory));
        assert_eq!(attach(base, 100), Some(Error::TooShort));
        assert_eq!(attach(base, len - 1), Some(Error::TooShort));
        assert_eq!(attach(base.add(128), len), Some(Error::WrongMagic));
    }
}
