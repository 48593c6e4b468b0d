//! What the models share: a region of vectors, its parties, and how a model and its twin are run.
//!
//! A model runs the real protocol code over [`World`]. Its twin runs the same closure with one labelled edge weakened,
//! and must fail: a model that passes whatever the orderings are tests nothing.
#![allow(dead_code)]

mod stacks;

use loom::cell::UnsafeCell;
use shmuring::backend::{Backend, Fate, SlotRef, Wait};
use shmuring::buffers::{Pool, Pools};
use shmuring::communicator::{Claim, Communicator, Inheritance};
use shmuring::layout::{Cell, Geometry, Header, OwnerStats, RoleStats, Slot};
use shmuring::liveness::Liveness;
use shmuring::parts::Parts;
use shmuring::request::{Buffers, Completion, Opcode, RelTag, Request};
use shmuring::slot::owner;
use shmuring::sync::{edges, mortal, AtomicU64, Ordering};
use shmuring::{clock, ring};
use std::cell::{Cell as StdCell, RefCell};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;

/// Bytes of a block.
pub const BLOCK: usize = 512;
/// A registered pool of the models, beside the bounce pool.
pub const POOL: u16 = 1;
/// The relation that every request is about.
pub const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
/// A wait without an end: a lost wake-up is a deadlock of the model.
pub const FOR_EVER: Wait<'static> = Wait { until: u64::MAX, interrupt: None };
/// No wait at all.
pub const NOW: Wait<'static> = Wait { until: 0, interrupt: None };

/// Preemptions of a model of two threads whose loops make an unbounded run take minutes.
pub const DEEP: Option<usize> = Some(5);
/// Preemptions of a model of three threads.
pub const WIDE: Option<usize> = Some(3);
/// Preemptions of a model of two threads that is run again for each step of a death.
pub const DYING: Option<usize> = Some(3);

/// Nobody is ever proved dead by a lock: a successor's epoch is the only proof in these models.
struct AllLive;

impl Liveness for AllLive {
    fn role_held(&self) -> bool {
        true
    }

    fn owner_held(&self, _first: u32, _count: u32) -> bool {
        true
    }
}

/// The locks of owners, one bit a slot, as the kernel keeps them: dropped when the holder has left its memory.
pub struct Locks(AtomicU64);

impl Locks {
    /// The kernel drops the lock of this slot: its owner is dead.
    pub fn dropped(&self, slot: u32) {
        self.0.swap(self.0.load(Ordering::Relaxed) & !(1 << slot), Ordering::AcqRel);
    }

    /// A next owner takes it.
    fn taken(&self, slot: u32) {
        self.0.fetch_or(1 << slot, Ordering::AcqRel);
    }
}

impl Liveness for Locks {
    fn role_held(&self) -> bool {
        true
    }

    fn owner_held(&self, first: u32, _count: u32) -> bool {
        self.0.load(Ordering::Acquire) >> first & 1 == 1
    }
}

/// A region of vectors. Each slot has one bounce block, and one block of pool [`POOL`].
pub struct World {
    pub header: Header,
    role_stats: RoleStats,
    pending: Vec<AtomicU64>,
    owner_stats: Vec<OwnerStats>,
    pub slots: Vec<Slot>,
    cells: Vec<Cell>,
    pools: Pools,
    geometry: Geometry,
    pub locks: Locks,
    /// Loom's view of the blocks: bounce blocks first, then those of the registered pool.
    watch: Vec<UnsafeCell<()>>,
    _memory: Vec<u8>,
}

// SAFETY: slots and header are Sync by their protocol, the rest are atomics; loom checks every access to the cells, and
// runs all threads of a model on one.
unsafe impl Send for World {}
// SAFETY: as above.
unsafe impl Sync for World {}

impl World {
    /// A region with so many slots and ring cells (a power of two).
    pub fn new(slots: usize, cells: usize) -> Arc<Self> {
        Self::at_ticket(0, slots, cells)
    }

    /// A region whose ring has seen so many tickets come and go.
    pub fn at_ticket(ticket: u64, slots: usize, cells: usize) -> Arc<Self> {
        mortal::reset();
        clock::set(1);
        RUNS.with(|r| r.borrow_mut().clear());
        let mut geometry = Geometry::new(slots as u32, 1, BLOCK as u32).unwrap();
        geometry.capacity = cells as u32;
        let watch: Vec<_> = (0..2 * slots).map(|_| UnsafeCell::new(())).collect();
        let mut memory = vec![0u8; 2 * slots * BLOCK];
        let header = Header::default();
        header.tail.0.store(ticket, Ordering::Relaxed);
        header.head.0.store(ticket, Ordering::Relaxed);
        let pool = |first: usize, base: *mut u8| {
            // SAFETY: `slots` blocks from `base` on, and the vectors live as long as the world.
            unsafe { Pool::new(base, BLOCK, slots as u32, BLOCK).unwrap().watched_by(&watch[first..first + slots]) }
        };
        let (bounce, registered) = memory.split_at_mut(slots * BLOCK);
        let mut pools = Pools::new(Some(pool(0, bounce.as_mut_ptr()).unwrap()));
        pools.register(POOL, pool(slots, registered.as_mut_ptr()).unwrap(), &header.pools.0).unwrap();
        Arc::new(Self {
            header,
            role_stats: RoleStats::default(),
            pending: (0..slots.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            owner_stats: (0..slots).map(|_| OwnerStats::default()).collect(),
            slots: (0..slots).map(|_| Slot::default()).collect(),
            cells: (0..cells as u64)
                .map(|i| {
                    // The lap of the next ticket of this cell.
                    let next = ticket.wrapping_add(i.wrapping_sub(ticket) % cells as u64);
                    Cell(AtomicU64::new(ring::empty(next >> cells.trailing_zeros())))
                })
                .collect(),
            pools,
            geometry,
            locks: Locks(AtomicU64::new(u64::MAX)),
            watch,
            _memory: memory,
        })
    }

    /// Its parts, as protocol code takes them.
    pub fn parts(&self) -> Parts<'_> {
        Parts {
            header: &self.header,
            role_stats: &self.role_stats,
            pending: &self.pending,
            owner_stats: &self.owner_stats,
            slots: &self.slots,
            cells: &self.cells,
            written: &[],
            sizes: &[],
            pools: &self.pools,
            geometry: &self.geometry,
            private: true,
        }
    }

    /// The owner of `count` slots from `first` on.
    pub fn backend(&self, first: u32, count: u32) -> Backend<'_> {
        // SAFETY: each model gives every slot one owner at a time.
        unsafe { Backend::over(self.parts(), &AllLive, None, first, count).unwrap() }
    }

    /// The owner of slot 0, which has submitted this in it.
    pub fn submitted(&self, request: &Request<'_>) -> (Backend<'_>, SlotRef) {
        let mut backend = self.backend(0, 1);
        let at = backend.fill(0, request).unwrap();
        backend.submit(at).unwrap();
        (backend, at)
    }

    /// The next owner of `count` slots from `first` on, whose last one is dead ([`Locks::dropped`]): as `Backend::attach`
    /// makes it.
    pub fn heir(&self, first: u32, count: u32) -> Backend<'_> {
        for slot in first..first + count {
            assert!(owner::mark_orphan(&self.slots[slot as usize], || self.locks.owner_held(slot, 1)));
            self.locks.taken(slot);
        }
        self.backend(first, count)
    }
}

/// The communicator over these parts: the first, or a successor.
pub fn communicator<'r>(parts: &'r Parts<'r>) -> (Communicator<'r>, Inheritance<'r>) {
    communicator_by(parts, &AllLive)
}

/// As [`communicator`], where owners are proved dead by their locks.
pub fn communicator_by<'r>(parts: &'r Parts<'r>, locks: &dyn Liveness) -> (Communicator<'r>, Inheritance<'r>) {
    // SAFETY: each model has one communicator at a time; a dead one does nothing more.
    unsafe { Communicator::over(parts, locks, None) }
}

/// A request without buffers, about `block`.
pub fn plain(opcode: Opcode, block: u32) -> Request<'static> {
    let mut request = Request::new(opcode, REL);
    request.block = block;
    request
}

/// A read of block `block` into bounce buffers.
pub fn bounced(block: u32) -> Request<'static> {
    Request::get_page(REL, block, 1, 0)
}

/// A read of block `block` into block 0 of the registered pool.
pub fn registered(block: u32) -> Request<'static> {
    bounced(block).with_buffers(Buffers::Pool(POOL, &[0]))
}

/// Touches block 0 of the registered pool, as its owner does once a request for it is over.
pub fn touch_registered(parts: &Parts<'_>) {
    // SAFETY: that it may be touched is what the model checks.
    unsafe { parts.pools.get(POOL).unwrap().write(0, 0, &[7; BLOCK]).unwrap() };
}

/// The page that the models deliver for a block.
pub const fn page_of(block: u32) -> [u8; BLOCK] {
    [block as u8; BLOCK]
}

/// Does what the request asks for: takes the image, delivers the page, and answers with its block number. `false`: it was
/// cancelled.
pub fn serve(mut claim: Claim<'_>) -> bool {
    let (block, opcode) = (claim.job().block, claim.job().opcode);
    if opcode.takes_images() {
        let Ok(mut copying) = claim.copying() else { return false };
        let mut image = [0; BLOCK];
        copying.take_image(0, &mut image).unwrap();
        assert_eq!(image, page_of(block), "the image of another request");
        copying.suspend().unwrap();
    }
    RUNS.with(|r| r.borrow_mut().push((block, claim.is_again())));
    if opcode.fills_buffers() {
        match claim.copying() {
            Ok(mut copying) => copying.deliver(0, &page_of(block)).unwrap(),
            Err(_) => return false,
        }
    }
    claim.complete(Completion::ok(u64::from(block))).is_ok()
}

std::thread_local! {
    // loom runs all threads of a model on the OS thread of the test, so these are one a test. Of this interleaving: the
    // blocks of the requests that were served, and whether they were claimed anew.
    static RUNS: RefCell<Vec<(u32, bool)>> = const { RefCell::new(Vec::new()) };
    // Of all interleavings together.
    static SEEN: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
    static DIED: StdCell<bool> = const { StdCell::new(false) };
    static COUNT: StdCell<usize> = const { StdCell::new(0) };
}

/// What was served in this interleaving, in order: block, and whether it was claimed anew.
pub fn runs() -> Vec<(u32, bool)> {
    RUNS.with(|r| r.borrow().clone())
}

/// Notes that this interleaving came to a place.
pub fn saw(place: &'static str) {
    SEEN.with(|s| s.borrow_mut().insert(place));
}

/// Notes what became of a leftover.
pub fn saw_fate(fate: Fate) {
    saw(match fate {
        Fate::Completed(_) => "completed",
        Fate::Withdrawn => "withdrawn",
        Fate::Abandoned => "abandoned",
        Fate::OwnerDead => "owner dead",
    });
}

/// Runs `f` in this thread, which dies at that step; `None` if it did.
pub fn dies<R>(step: usize, f: impl FnOnce() -> R) -> Option<R> {
    let result = mortal::run(step, f);
    DIED.set(DIED.get() || result.is_none());
    result
}

/// Tells ci/loom.sh how many interleavings a model has explored, also if it failed.
struct Report;

impl Drop for Report {
    fn drop(&mut self) {
        let thread = std::thread::current();
        let line = format!("{} {}\n", thread.name().unwrap_or("?"), COUNT.get());
        print!("{line}");
        if let Ok(path) = std::env::var("SHMURING_MODELS") {
            let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
            file.and_then(|mut f| f.write_all(line.as_bytes())).expect("SHMURING_MODELS names a file");
        }
    }
}

/// Runs a model: every interleaving, or those with at most `bound` preemptions.
pub fn check(bound: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound.or(builder.preemption_bound);
    builder.max_branches = 20_000;
    COUNT.set(0);
    let _report = Report;
    builder.check(move || {
        COUNT.set(COUNT.get() + 1);
        model();
    });
}

/// As [`check`], and demands that the interleavings together came to all these places: a model that never gets there
/// proves nothing about them.
pub fn check_reaching(bound: Option<usize>, places: &[&'static str], model: impl Fn() + Sync + Send + 'static) {
    SEEN.with(|s| s.borrow_mut().clear());
    check(bound, model);
    demand(places);
}

/// As [`check_reaching`], with a death ([`dies`]) at each step: first before any access to shared memory, last after all.
pub fn check_deaths(
    bound: Option<usize>,
    places: &[&'static str],
    model: impl Fn(usize) + Copy + Sync + Send + 'static,
) {
    SEEN.with(|s| s.borrow_mut().clear());
    for step in 0.. {
        DIED.set(false);
        check(bound, move || model(step));
        if !DIED.get() {
            assert!(step > 1, "nobody died");
            println!("{step} steps");
            break;
        }
    }
    demand(places);
}

fn demand(places: &[&'static str]) {
    for place in places {
        assert!(SEEN.with(|s| s.borrow().contains(place)), "no interleaving saw: {place}");
    }
}

/// Runs the twin of a model: the same with the edge `label` weakened.
pub fn twin(label: &'static str, bound: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    edges::weaken(label, || check(bound, model));
}

/// Runs the twin of a model without the fence `label`.
pub fn without(label: &'static str, bound: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    edges::remove(label, || check(bound, model));
}
