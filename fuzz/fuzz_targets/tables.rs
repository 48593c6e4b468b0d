//! The tables of a region, the last-written LSNs and the relation sizes, noted, changed, asked and taken over while their
//! bytes are written between the operations, and by another thread during them: nobody panics or hangs (I10). A note
//! holds over whatever bytes were there before it (I11); the communicator never takes a size from the region, so what it
//! knows is the truth (R2), and once it has emptied the cache so is what backends read. `TRACE` in the environment shows
//! the operations of one input.
#![no_main]

#[path = "support/attacker.rs"]
mod attacker;
#[path = "tables/sizes.rs"]
mod sizes;
#[path = "tables/written.rs"]
mod written;

use attacker::{ground, number, Write};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use shmuring::communicator::ServerLife;
use shmuring::layout::Geometry;
use shmuring::parts::Parts;
use shmuring::region::{Options, Region};
use shmuring::sync::Ordering::Relaxed;

/// Most operations of a run.
const STEPS: usize = 64;
/// Most words that are written at a time.
const WRITES: usize = 4;

/// What the bytes that are written belong to.
#[derive(Clone, Copy, Default)]
struct Hit {
    written: bool,
    sizes: bool,
}

/// A word of one of the tables, or one that holds for all of them; its place in the region, in words.
fn target(u: &mut Unstructured<'_>, parts: &Parts<'_>, base: usize, hit: &mut Hit) -> Result<usize> {
    let word = |address: usize| (address - base) / 8;
    let (tables, life) = (&parts.header.tables, &parts.header.life.life);
    Ok(match u.int_in_range(0..=9)? {
        0 => {
            hit.written = true;
            word((&raw const tables.floor).addr())
        }
        1 => {
            hit.sizes = true;
            word((&raw const tables.sizes_life).addr())
        }
        2 => {
            hit.sizes = true;
            word(core::ptr::from_ref(life).addr())
        }
        3..=6 if !parts.sizes.is_empty() => {
            hit.sizes = true;
            word(parts.sizes.as_ptr().addr()) + u.int_in_range(0..=size_of_val(parts.sizes) / 8 - 1)?
        }
        _ if !parts.written.is_empty() => {
            hit.written = true;
            word(parts.written.as_ptr().addr()) + u.int_in_range(0..=size_of_val(parts.written) / 8 - 1)?
        }
        _ => {
            hit.written = true;
            word((&raw const tables.floor).addr())
        }
    })
}

fn writes(u: &mut Unstructured<'_>, parts: &Parts<'_>, base: usize) -> Result<(Vec<Write>, Hit)> {
    let mut hit = Hit::default();
    let mut all = Vec::new();
    for _ in 0..u.int_in_range(0..=WRITES)? {
        let at = target(u, parts, base, &mut hit)?;
        let values = [number(u, 0)?, number(u, 0)?];
        // Bits of what is there, too: a whole stamp that is whole no more, a tag that is another's.
        all.push(Write { at, keep: if u.arbitrary()? { u64::MAX } else { 0 }, values });
    }
    Ok((all, hit))
}

/// The operations, while what `always` names is written all the time.
fn cycle(u: &mut Unstructured<'_>, region: &Region, base: usize, always: Hit) -> Result<()> {
    let parts = region.parts();
    let trace = std::env::var_os("TRACE").is_some();
    let mut written = written::Notes::default();
    let mut sizes = sizes::Cache::new(region, &parts);
    written.reset(0);
    written.is_hit(always.written);
    sizes.is_hit(always.sizes);
    for _ in 0..STEPS {
        if u.is_empty() {
            break;
        }
        match u.int_in_range(0..=15)? {
            0 => {
                let (writes, hit) = writes(u, &parts, base)?;
                attacker::strike(base, &writes, 0);
                written.is_hit(hit.written);
                sizes.is_hit(hit.sizes);
            }
            1 => {
                let floor = number(u, 0)?;
                // Refused once there have been as many lives as there are numbers.
                if let Ok(life) = ServerLife::begin(region, 7) {
                    if life.reset_written(region, floor).is_ok() {
                        written.reset(floor);
                    }
                }
                written.is_hit(always.written);
            }
            2..=7 => written.step(u, &parts)?,
            _ => sizes.step(u, region, &parts)?,
        }
        if trace {
            eprintln!("{:?} {:?} life {:?}", parts.written, parts.sizes, parts.header.life.life.load(Relaxed));
        }
        written.check(&parts, always.written);
        sizes.check(&parts, always.sizes);
    }
    Ok(())
}

fn run(data: &[u8]) -> Result<()> {
    let ground = ground();
    let mut u = Unstructured::new(data);
    let (written_buckets, rel_sizes) = (u.int_in_range(0..=3)?, u.int_in_range(0..=13)?);
    let options = Options { bounce_per_slot: 0, block_size: 512, written_buckets, rel_sizes, ..Options::new(1) };
    let g = Geometry::new(1, 0, 512).unwrap().with_tables(written_buckets, rel_sizes).unwrap();
    let len = g.total_len as usize;
    let base = ground.place(len);
    // SAFETY: mapped for good; nobody uses it now. The attacker breaks that promise, which is the point.
    let region = unsafe { Region::init_adopted(base as *mut u8, len, &options, &ground.lock_path) }.unwrap();
    let (always, hit) = if u.ratio(1, 3)? { writes(&mut u, &region.parts(), base)? } else { Default::default() };
    ground.under_attack(base, always, || cycle(&mut u, &region, base, hit))
}

fuzz_target!(|data: &[u8]| {
    let _ = run(data);
});
