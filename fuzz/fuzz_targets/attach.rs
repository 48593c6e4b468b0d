//! Any bytes as a region, adopted or in a file: refused by name, or a region all of whose parts lie inside the bytes
//! that are there. Never a crash: the bytes end at a page that nobody may touch.
#![no_main]

use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use shmuring::backend::Backend;
use shmuring::layout::{layout_hash, Config, Geometry, Header, ABI_VERSION, MAGIC, SET};
use shmuring::region::{Options, Region};
use shmuring::request::RelTag;

/// Most bytes of a region here.
const MOST: usize = 128 << 10;
const ALIGN: usize = 128;

/// What is made once: memory before a forbidden page, a lock file, a file for regions.
struct Ground {
    /// End of the usable bytes, where the forbidden page begins.
    end: usize,
    lock_path: PathBuf,
    file: PathBuf,
    /// The configuration of a good region that uses the lock file.
    good: Config,
}

fn ground() -> &'static Ground {
    static GROUND: OnceLock<Ground> = OnceLock::new();
    GROUND.get_or_init(|| {
        let directory = std::env::temp_dir().join(format!("shmuring-fuzz-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (flags, protection) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping disturbs nothing.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), MOST + 4096, protection, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED);
        // SAFETY: the last page of the mapping just made.
        let rc = unsafe { libc::mprotect(base.byte_add(MOST), 4096, libc::PROT_NONE) };
        assert_eq!(rc, 0);
        let lock_path = directory.join("locks");
        let options = Options { bounce_per_slot: 0, block_size: 512, ..Options::new(1) };
        // SAFETY: mapped above for good, used by nobody else, aligned to a page.
        let region = unsafe { Region::init_adopted(base.cast(), MOST, &options, &lock_path) }.unwrap();
        drop(region);
        // SAFETY: the region just made begins there.
        let good = unsafe { &*base.cast::<Header>() }.config.with(|c| unsafe { *c });
        Ground { end: base as usize + MOST, lock_path, file: directory.join("region"), good }
    })
}

/// Makes what the fuzzer could hardly guess right, as the bits of `fix` say.
fn repair(bytes: &mut [u8], fix: u8, good: &Config, in_file: bool) {
    if bytes.len() < size_of::<Header>() {
        return;
    }
    // SAFETY: long enough, aligned by the caller, and any bytes are a Header; nobody else looks at them.
    let header = unsafe { &mut *bytes.as_mut_ptr().cast::<Header>() };
    if fix & 1 != 0 {
        *header.magic.get_mut() = MAGIC;
    }
    // SAFETY: inside the header; the only access.
    let tables = unsafe { &mut *header.tables.config.with_mut(|t| t) };
    header.config.with_mut(|c| {
        // SAFETY: the only access; inside the header.
        let c = unsafe { &mut *c };
        if fix & 2 != 0 {
            (c.abi_version, c.layout_hash, c.features) = (ABI_VERSION, layout_hash(), 0);
        }
        if fix & 4 != 0 {
            c.time_namespace = good.time_namespace;
            c.lock_file = if in_file { 0 } else { good.lock_file };
        }
        if fix & 8 != 0 {
            c.slots = c.slots % 64 + 1;
            c.bounce_per_slot %= 4;
            c.block_size = 512 << (c.block_size % 4);
            tables.written_buckets %= 64;
            tables.size_sets %= 64;
        }
        if fix & 16 != 0 {
            let rel_sizes = tables.size_sets.saturating_mul(SET as u32);
            let g = Geometry::new(c.slots, c.bounce_per_slot, c.block_size);
            if let Ok(g) = g.and_then(|g| g.with_tables(tables.written_buckets, rel_sizes)) {
                (c.capacity, c.offsets, c.total_len) = (g.capacity, g.offsets, g.total_len);
                *tables = g.table_config();
            }
        }
    });
}

/// Reads the first and the last byte of everything that the region hands out, and that it lies within `len` bytes.
fn check(region: &Region, len: usize) {
    let parts = region.parts();
    let base = std::ptr::from_ref(parts.header) as usize;
    let inside = |at: usize, bytes: usize| {
        assert!(at >= base && at + bytes <= base + len);
        if bytes > 0 {
            // SAFETY: inside the region's bytes by the check, or the forbidden page ends the run.
            unsafe {
                (at as *const u8).read_volatile();
                ((at + bytes - 1) as *const u8).read_volatile();
            }
        }
    };
    let g = parts.geometry;
    inside(base, size_of::<Header>());
    inside(std::ptr::from_ref(parts.role_stats) as usize, size_of_val(parts.role_stats));
    inside(parts.pending.as_ptr() as usize, size_of_val(parts.pending));
    inside(parts.owner_stats.as_ptr() as usize, size_of_val(parts.owner_stats));
    inside(parts.slots.as_ptr() as usize, size_of_val(parts.slots));
    inside(parts.cells.as_ptr() as usize, size_of_val(parts.cells));
    inside(parts.written.as_ptr() as usize, size_of_val(parts.written));
    inside(parts.sizes.as_ptr() as usize, size_of_val(parts.sizes));
    assert_eq!([parts.written.len(), parts.sizes.len()], [g.written_buckets as usize, g.size_sets as usize]);
    assert_eq!(parts.slots.len(), g.slots as usize);
    assert!(parts.cells.len().is_power_of_two() && parts.cells.len() >= 2 * parts.slots.len());
    assert!(parts.pending.len() * 64 >= parts.slots.len());
    if let Ok(pool) = parts.pools.get(0) {
        assert_eq!(pool.count(), g.slots * g.bounce_per_slot);
        for index in [0, pool.count() - 1] {
            inside(pool.at(index).unwrap() as usize, pool.block_size());
        }
        assert!(pool.at(pool.count()).is_none());
    }
    let shards = &parts.header.shards;
    let count = shards.count.load(Relaxed);
    let is_some = if count < 1 << 16 { count.max(1) } else { 1 };
    assert!(u64::from(shards.shard_of(RelTag::default(), 7)) < is_some);
    let _ = region.liveness().role_held();
    if !region.is_read_only() {
        let backend = Backend::attach(region, 0, g.slots).unwrap();
        assert!(backend.usable() <= g.slots);
        assert!(Backend::attach(region, g.slots, 1).is_err());
    }
}

fn run(data: &[u8]) -> Result<()> {
    let ground = ground();
    let mut u = Unstructured::new(data);
    let (fix, in_file): (u8, bool) = (u.arbitrary()?, u.arbitrary()?);
    let len = u.int_in_range(0..=MOST)?;
    let cut = u.int_in_range(0..=ALIGN - 1)?.min(len);
    let begin = ground.end - len.next_multiple_of(ALIGN);
    // SAFETY: the bytes before the forbidden page, mapped for good; one iteration at a time uses them.
    let bytes = unsafe { std::slice::from_raw_parts_mut(begin as *mut u8, len) };
    bytes.fill(0);
    let content = u.take_rest();
    let n = content.len().min(len);
    bytes[..n].copy_from_slice(&content[..n]);
    repair(bytes, fix, &ground.good, in_file);
    if in_file {
        std::fs::write(&ground.file, &bytes[..len - cut]).unwrap();
        for attached in [Region::attach(&ground.file), Region::observe(&ground.file)].into_iter().flatten() {
            check(&attached, len - cut);
        }
    } else {
        // A misaligned start is refused before anything is read.
        let at = if fix & 32 != 0 { begin + cut } else { begin };
        let len = len - (at - begin);
        // SAFETY: as above; nobody else writes the bytes while the region lives.
        if let Ok(region) = unsafe { Region::attach_adopted(at as *mut u8, len, &ground.lock_path) } {
            check(&region, len);
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(data);
});
