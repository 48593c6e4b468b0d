//! Runs each step of a request a known number of times on one thread, for an instruction counter: `ci/instructions.sh`.
//!
//! Each function of [`steps`] is one step, as a caller compiles it, and is never inlined: callgrind counts what it and all
//! that it calls execute. Both sides are handles of one thread over a private region. Prints how often each step ran.

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
#[path = "scheduler/bed.rs"]
mod bed;

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
mod steps {
    use crate::bed::Bed;
    use shmuring::backend::{Backend, SlotRef};
    use shmuring::communicator::{Claim, Communicator};
    use shmuring::lsn::written::Written;
    use shmuring::request::{Completion, Opcode, RelTag, Request};
    use shmuring::slot::State;

    /// Requests that are in flight at once.
    pub const BATCH: usize = 32;

    #[inline(never)]
    pub fn free_slot(b: &mut Backend<'_>) -> u32 {
        b.free_slot().expect("a free slot")
    }

    #[inline(never)]
    pub fn fill_nop(b: &mut Backend<'_>, slot: u32, rel: &RelTag, block: u32) -> SlotRef {
        let mut request = Request::new(Opcode::Nop, *rel);
        request.block = block;
        b.fill(slot, &request).expect("a good request")
    }

    #[inline(never)]
    pub fn fill_read(b: &mut Backend<'_>, slot: u32, rel: &RelTag, block: u32, lsn: u64) -> SlotRef {
        b.fill(slot, &Request::get_page(*rel, block, 1, lsn)).expect("a good request")
    }

    /// A read of which the compiler knows nothing.
    #[inline(never)]
    pub fn fill_any(b: &mut Backend<'_>, slot: u32, request: &Request<'_>) -> SlotRef {
        b.fill(slot, request).expect("a good request")
    }

    #[inline(never)]
    pub fn submit(b: &mut Backend<'_>, r: SlotRef) {
        b.submit(r).expect("a filled slot");
    }

    #[inline(never)]
    pub fn submit_many(b: &mut Backend<'_>, refs: &[SlotRef]) {
        b.submit_many(refs).expect("filled slots");
    }

    #[inline(never)]
    pub fn poll_miss(b: &Backend<'_>, r: SlotRef) -> bool {
        b.poll(r).expect("a request in flight")
    }

    #[inline(never)]
    pub fn poll_hit(b: &Backend<'_>, r: SlotRef) -> bool {
        b.poll(r).expect("a request in flight")
    }

    #[inline(never)]
    pub fn finish(b: &mut Backend<'_>, r: SlotRef) -> u64 {
        b.finish(r).expect("a complete request").value
    }

    #[inline(never)]
    pub fn written_note(table: &Written<'_>, rel: &RelTag, block: u32, lsn: u64) {
        table.note(*rel, block, lsn);
    }

    /// A key that has its entry. (Gives something back: functions of equal code become one, and are counted as one.)
    #[inline(never)]
    pub fn written_again(table: &Written<'_>, rel: &RelTag, block: u32, lsn: u64) -> u64 {
        table.note(*rel, block, lsn);
        lsn
    }

    #[inline(never)]
    pub fn written_get(table: &Written<'_>, rel: &RelTag, block: u32) -> u64 {
        table.get(*rel, block)
    }

    #[inline(never)]
    pub fn rel_size_hit(b: &Backend<'_>, rel: &RelTag) -> Option<u32> {
        b.cached_rel_size(*rel).and_then(|size| size.blocks)
    }

    #[inline(never)]
    pub fn rel_size_miss(b: &Backend<'_>, rel: &RelTag) -> bool {
        b.cached_rel_size(*rel).is_none()
    }

    /// Requests from submit to completion, with 10 READY ones outstanding. (These four give their number back for the
    /// same reason as above.)
    #[inline(never)]
    pub fn scheduler_ready_few(bed: &mut Bed) -> (usize, u8) {
        (bed.step(), 0)
    }

    /// With 10,000.
    #[inline(never)]
    pub fn scheduler_ready_many(bed: &mut Bed) -> (usize, u8) {
        (bed.step(), 1)
    }

    /// With 10 outstanding, each waiting for an LSN of its own.
    #[inline(never)]
    pub fn scheduler_future_few(bed: &mut Bed) -> (usize, u8) {
        (bed.step(), 2)
    }

    /// With 10,000.
    #[inline(never)]
    pub fn scheduler_future_many(bed: &mut Bed) -> (usize, u8) {
        (bed.step(), 3)
    }

    /// Reap, claim and complete requests without buffers.
    #[inline(never)]
    pub fn serve_nops(c: &mut Communicator<'_>) -> usize {
        c.reap(BATCH, State::Copying, |claim| {
            let value = u64::from(claim.job().block);
            claim.complete(Completion::ok(value)).expect("nobody cancels");
        })
    }

    /// Reap, claim and complete reads, without a page.
    #[inline(never)]
    pub fn serve_reads(c: &mut Communicator<'_>) -> usize {
        c.reap(BATCH, State::Copying, |claim| {
            let value = u64::from(claim.job().block);
            claim.complete(Completion::ok(value)).expect("nobody cancels");
        })
    }

    /// Reap, claim, deliver and complete reads. Eight bytes are delivered, so that no memcpy is counted.
    #[inline(never)]
    pub fn serve_delivered(c: &mut Communicator<'_>) -> usize {
        c.reap(BATCH, State::Copying, deliver)
    }

    #[inline]
    fn deliver(mut claim: Claim<'_>) {
        let page = u64::from(claim.job().block).to_le_bytes();
        let mut copying = claim.copying().expect("nobody cancels");
        copying.deliver(0, &page).expect("block 0 has a buffer");
        claim.complete(Completion::ok(1)).expect("nobody cancels");
    }
}

#[cfg(not(any(feature = "loom", feature = "shuttle")))]
fn main() {
    use shmuring::backend::{Backend, SlotRef};
    use shmuring::communicator::Communicator;
    use shmuring::region::{Options, Region};
    use shmuring::request::{RelTag, Request};
    use std::hint::black_box;
    use steps::BATCH;

    const ROUNDS: usize = 256;
    const KINDS: usize = 4;
    let options = Options { written_buckets: 64, rel_sizes: 64, ..Options::new(BATCH as u32) };
    let region = Region::create_private(&options).expect("a private region");
    let parts = region.parts();
    let (mut communicator, _) = Communicator::take_role(&region, &parts).expect("the role is free");
    let mut backend = Backend::attach(&region, 0, BATCH as u32).expect("free slots");
    let (b, c) = (&mut backend, &mut communicator);
    let rel = black_box(RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 });
    let any = black_box(Request::get_page(rel, 7, 1, 1));
    let mut refs: Vec<SlotRef> = Vec::with_capacity(BATCH);
    for round in 0..ROUNDS * KINDS {
        let kind = round % KINDS;
        for block in 0..BATCH as u32 {
            let slot = steps::free_slot(b);
            refs.push(match kind {
                0 => steps::fill_nop(b, slot, &rel, block),
                1 | 2 => steps::fill_read(b, slot, &rel, block, 1),
                _ => steps::fill_any(b, slot, &any),
            });
        }
        if kind == 0 {
            steps::submit_many(b, &refs);
        } else {
            refs.iter().for_each(|r| steps::submit(b, *r));
        }
        refs.iter().for_each(|r| assert!(!steps::poll_miss(b, *r)));
        let n = match kind {
            0 => steps::serve_nops(c),
            1 => steps::serve_reads(c),
            _ => steps::serve_delivered(c),
        };
        assert_eq!(n, BATCH);
        refs.iter().for_each(|r| assert!(steps::poll_hit(b, *r)));
        for r in refs.drain(..) {
            assert!(black_box(steps::finish(b, r)) <= BATCH as u64);
        }
    }
    let n = ROUNDS * BATCH;
    look_into_the_tables(b, c, &rel, n as u32);
    for (step, times) in [
        ("free_slot", KINDS),
        ("fill_nop", 1),
        ("fill_read", 2),
        ("fill_any", 1),
        ("submit", 3),
        ("submit_many", 1),
        ("poll_miss", KINDS),
        ("poll_hit", KINDS),
        ("finish", KINDS),
        ("serve_nops", 1),
        ("serve_reads", 1),
        ("serve_delivered", 2),
        ("written_note", 1),
        ("written_again", 1),
        ("written_get", 1),
        ("rel_size_hit", 1),
        ("rel_size_miss", 1),
    ] {
        println!("{step} {}", times * n);
    }
    schedule();
}

/// A request's way through the scheduler, with few and with many outstanding.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
fn schedule() {
    use bed::{Bed, Shape};
    const REQUESTS: usize = 8192;
    type Step = fn(&mut Bed) -> (usize, u8);
    let steps: [(&str, Shape, usize, Step); 4] = [
        ("scheduler_ready_few", Shape::Ready, 10, steps::scheduler_ready_few),
        ("scheduler_ready_many", Shape::Ready, 10_000, steps::scheduler_ready_many),
        ("scheduler_future_few", Shape::Future, 10, steps::scheduler_future_few),
        ("scheduler_future_many", Shape::Future, 10_000, steps::scheduler_future_many),
    ];
    for (name, shape, outstanding, step) in steps {
        let mut bed = Bed::new(outstanding, shape);
        // Each has been there twice, so nothing grows any more.
        let mut warm = 0;
        while warm < 2 * outstanding {
            warm += bed.step();
        }
        let mut done = 0;
        while done < REQUESTS {
            done += step(&mut bed).0;
        }
        println!("{name} {done}");
    }
}

/// So many notes of as many blocks, of which nearly all take the place of another, and as many gets; the same of relation
/// sizes.
#[cfg(not(any(feature = "loom", feature = "shuttle")))]
fn look_into_the_tables(
    b: &shmuring::backend::Backend<'_>,
    c: &mut shmuring::communicator::Communicator<'_>,
    rel: &shmuring::request::RelTag,
    n: u32,
) {
    use shmuring::lsn::rel_size::Outcome;
    use shmuring::request::RelTag;
    use std::hint::black_box;

    let table = b.last_written();
    for block in 0..n {
        let lsn = black_box(8 * u64::from(block) + 8);
        steps::written_note(&table, rel, block, lsn);
        black_box(steps::written_again(&table, rel, block, lsn + 4));
        assert!(black_box(steps::written_get(&table, rel, block)) >= lsn);
    }
    let mut writer = c.rel_size_writer().expect("the first writer");
    let change = writer.begin(*rel);
    writer.finish(change, Outcome::Set(9, 1));
    let other = RelTag { fork: 1, ..*rel };
    for _ in 0..n {
        assert_eq!(black_box(steps::rel_size_hit(b, rel)), Some(9));
        assert!(steps::rel_size_miss(b, &other));
    }
}

#[cfg(any(feature = "loom", feature = "shuttle"))]
fn main() {}
