//! The arithmetic of docs/layout.md: parts neither overlap nor leave the region, and an attacher finds what was made.

use std::alloc::{alloc_zeroed, dealloc, Layout};
use std::mem::{align_of, size_of};
use std::ops::Range;

use proptest::prelude::*;

use shmuring::error::Error;
use shmuring::layout::{layout_hash, Cell, Config, Geometry, Header, OwnerStats, RoleStats, Slot, TableConfig};
use shmuring::layout::{SizeSet, WrittenBucket, SET};
use shmuring::layout::{ABI_VERSION, MAX_SLOTS};
use shmuring::region::{Options, Region};

use super::cases;

/// Few, many, near a power of two, or anything.
fn slots() -> impl Strategy<Value = u32> {
    let near = (0u32..24, 0u32..3).prop_map(|(bit, off)| ((1 << bit) + off).saturating_sub(1).clamp(1, MAX_SLOTS));
    prop_oneof![1..200u32, 1..=MAX_SLOTS, near, MAX_SLOTS - 3..=MAX_SLOTS]
}

fn block_size() -> impl Strategy<Value = u32> {
    (9u32..=16).prop_map(|bit| 1 << bit)
}

/// Where each part lies, by the sizes of its types.
fn parts(g: &Geometry) -> [(Range<u64>, usize); 9] {
    let n = u64::from(g.slots);
    let at = |i: usize, bytes: u64, align: usize| (g.offsets[i]..g.offsets[i] + bytes, align);
    let [written, sizes] = g.table_offsets;
    let table = |from: u64, n: u32, size: usize, align: usize| (from..from + u64::from(n) * size as u64, align);
    [
        (0..size_of::<Header>() as u64, align_of::<Header>()),
        at(0, size_of::<RoleStats>() as u64, align_of::<RoleStats>()),
        at(1, u64::from(g.pending_words) * 8, 8),
        at(2, n * size_of::<OwnerStats>() as u64, align_of::<OwnerStats>()),
        at(3, n * size_of::<Slot>() as u64, align_of::<Slot>()),
        at(4, u64::from(g.capacity) * size_of::<Cell>() as u64, align_of::<Cell>()),
        at(5, n * u64::from(g.bounce_per_slot) * u64::from(g.block_size), 4096),
        table(written, g.written_buckets, size_of::<WrittenBucket>(), align_of::<WrittenBucket>()),
        table(sizes, g.size_sets, size_of::<SizeSet>(), align_of::<SizeSet>()),
    ]
}

/// The configuration that a creator of such a region writes.
fn config(g: &Geometry) -> Config {
    Config {
        abi_version: ABI_VERSION,
        slots: g.slots,
        layout_hash: layout_hash(),
        total_len: g.total_len,
        capacity: g.capacity,
        bounce_per_slot: g.bounce_per_slot,
        block_size: g.block_size,
        offsets: g.offsets,
        ..Config::default()
    }
}

/// Zeroed bytes aligned as a region must be.
struct Bytes(*mut u8, Layout);

impl Bytes {
    fn new(len: usize) -> Self {
        let layout = Layout::from_size_align(len, 4096).unwrap();
        // SAFETY: not of size 0.
        Self(unsafe { alloc_zeroed(layout) }, layout)
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        // SAFETY: allocated so by `new`.
        unsafe { dealloc(self.0, self.1) };
    }
}

fn span<T>(part: &[T]) -> Range<usize> {
    let from = part.as_ptr() as usize;
    from..from + size_of_val(part)
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn parts_are_aligned_in_order_and_fill_the_region(
        n in slots(),
        bounce in 0..=1024u32,
        block in block_size(),
        written in 0..=1u32 << 26,
        rel_sizes in 0..=1u32 << 24,
    ) {
        let g = Geometry::new(n, bounce, block).unwrap().with_tables(written, rel_sizes).unwrap();
        let parts = parts(&g);
        for pair in parts.windows(2) {
            prop_assert!(pair[0].0.end <= pair[1].0.start, "{g:?}");
        }
        for (range, align) in &parts {
            prop_assert_eq!(range.start % *align as u64, 0, "{:?}", g);
        }
        prop_assert_eq!(parts[8].0.end, g.total_len);
        prop_assert!(u64::from(g.pending_words) * 64 >= u64::from(n));
        prop_assert!(u64::from(g.pending_words) * 64 < u64::from(n) + 64);
        // R7: an entry for each slot, and as many again for deaths; a ticket is located by a mask.
        prop_assert!(g.capacity.is_power_of_two() && g.capacity >= 2 * n && g.capacity >= 8);
        // docs/layout.md: a slot costs at most that much beside its bounce buffers.
        let most = 4096 + 1024 + 128 + 8 + 512 + 4096 + u64::from(n) * (512 + 384 + 256 + 1);
        prop_assert!(g.offsets[5] <= most, "{} bytes for {} slots", g.offsets[5], n);
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused(n in any::<u32>(), bounce in any::<u32>(), block in any::<u32>()) {
        let sane = (1..=MAX_SLOTS).contains(&n) && bounce <= 1024
            && block.is_power_of_two() && (512..=65536).contains(&block);
        prop_assert_eq!(Geometry::new(n, bounce, block).is_ok(), sane);
        prop_assert_eq!(Geometry::new(n, bounce, 8192).is_ok(), (1..=MAX_SLOTS).contains(&n) && bounce <= 1024);
    }

    #[test]
    fn a_header_is_believed_only_if_every_number_agrees(
        n in slots(),
        bounce in 0..=1024u32,
        block in block_size(),
        which in 0..10usize,
        other in any::<u64>(),
        written in 0..1000u32,
        rel_sizes in 0..1000u32,
    ) {
        let g = Geometry::new(n, bounce, block).unwrap().with_tables(written, rel_sizes).unwrap();
        let (mut c, mut t) = (config(&g), g.table_config());
        prop_assert_eq!(Geometry::check(&c, &t), Ok(g));
        let changed = match which {
            0 => std::mem::replace(&mut c.capacity, other as u32) != other as u32,
            1 => std::mem::replace(&mut c.total_len, other) != other,
            2 | 3 => std::mem::replace(&mut t.offsets[which - 2], other) != other,
            i => std::mem::replace(&mut c.offsets[i - 4], other) != other,
        };
        prop_assert_eq!(Geometry::check(&c, &t), if changed { Err(Error::BadGeometry) } else { Ok(g) });
        // Numbers that say nothing else are another region's, whose parts are computed anew: never those of this one.
        let mut c = config(&g);
        c.slots = other as u32;
        prop_assert_eq!(Geometry::check(&c, &g.table_config()).is_ok(), c.slots == n);
        let (sizes, c) = ([other as u32, (other >> 32) as u32], config(&g));
        for [written_buckets, size_sets] in [sizes, [written, sizes[1]], [sizes[0], g.size_sets]] {
            let t = TableConfig { written_buckets, size_sets, offsets: g.table_offsets };
            prop_assert_eq!(Geometry::check(&c, &t).is_ok(), t == g.table_config());
        }
    }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn an_attacher_finds_the_parts_where_the_creator_made_them(
        n in 1..300u32,
        bounce in 0..4u32,
        bit in 9..12u32,
        written_buckets in 0..50u32,
        rel_sizes in 0..50u32,
    ) {
        let options = Options { bounce_per_slot: bounce, block_size: 1 << bit, slots: n, written_buckets, rel_sizes };
        let g = Geometry::new(n, bounce, 1 << bit).unwrap().with_tables(written_buckets, rel_sizes).unwrap();
        prop_assert_eq!(Region::size(&options), Ok(g.total_len));
        let len = g.total_len as usize;
        let bytes = Bytes::new(len);
        let locks = std::env::temp_dir().join(format!("shmuring-properties-{}", std::process::id()));
        // SAFETY: zeroed above, used by these handles alone, which are dropped first.
        let made = unsafe { Region::init_adopted(bytes.0, len, &options, &locks) }.unwrap();
        // SAFETY: as above.
        let short = unsafe { Region::attach_adopted(bytes.0, len - 1, &locks) };
        prop_assert_eq!(short.err(), Some(Error::TooShort));
        // SAFETY: as above.
        let found = unsafe { Region::attach_adopted(bytes.0, len, &locks) }.unwrap();
        prop_assert_eq!(made.id(), found.id());
        let (a, b) = (made.parts(), found.parts());
        prop_assert_eq!(b.geometry, &g);
        let base = bytes.0 as usize;
        let mut spans = vec![
            span(std::slice::from_ref(b.header)),
            span(std::slice::from_ref(b.role_stats)),
            span(b.pending),
            span(b.owner_stats),
            span(b.slots),
            span(b.cells),
            span(b.written),
            span(b.sizes),
        ];
        let lens = [b.pending.len(), b.owner_stats.len(), b.slots.len(), b.cells.len()];
        prop_assert_eq!(lens.map(|l| l as u32), [g.pending_words, n, n, g.capacity]);
        prop_assert_eq!(b.written.len(), written_buckets as usize);
        prop_assert_eq!(b.sizes.len(), (rel_sizes as usize).div_ceil(SET));
        if let Ok(pool) = b.pools.get(0) {
            prop_assert_eq!(pool.count(), n * bounce);
            let (first, last) = (pool.at(0).unwrap() as usize, pool.at(pool.count() - 1).unwrap() as usize);
            prop_assert!(pool.at(pool.count()).is_none());
            spans.push(first..last + pool.block_size());
        } else {
            prop_assert_eq!(bounce, 0);
        }
        for (i, s) in spans.iter().enumerate() {
            prop_assert!(s.start >= base && s.end <= base + len, "part {}", i);
            prop_assert!(spans.iter().skip(i + 1).all(|t| s.end <= t.start || t.end <= s.start), "part {}", i);
        }
        // They are the same words.
        a.slots[n as usize - 1].orphan.store(77, std::sync::atomic::Ordering::Relaxed);
        prop_assert_eq!(b.slots[n as usize - 1].orphan.load(std::sync::atomic::Ordering::Relaxed), 77);
        drop((made, found));
        std::fs::remove_file(&locks).unwrap();
    }
}
