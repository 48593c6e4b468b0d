//! What the models share: a region of vectors, its parties, and how a model and its twin are run.
//!
//! A model runs the real protocol code over [`World`]. Its twin runs the same closure with one labelled edge weakened,
//! and must fail: a model that passes whatever the orderings are tests nothing.
#![allow(dead_code)]

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU64;
use shmuring::backend::{Backend, Wait};
use shmuring::buffers::{Pool, Pools};
use shmuring::communicator::{Claim, Communicator, Inheritance};
use shmuring::layout::{Cell, Geometry, Header, OwnerStats, RoleStats, Slot};
use shmuring::liveness::Liveness;
use shmuring::parts::Parts;
use shmuring::request::{Buffers, Completion, Opcode, RelTag, Request};
use shmuring::ring;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Bytes of a block.
pub const BLOCK: usize = 512;
/// A registered pool of the models, beside the bounce pool.
pub const POOL: u16 = 1;
/// The relation that every request is about.
pub const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
/// A wait without an end: a lost wake-up is a deadlock of the model.
pub const FOR_EVER: Wait<'static> = Wait { until: u64::MAX, interrupt: None };

/// Preemptions of a model of two threads whose loops make an unbounded run take minutes.
pub const DEEP: Option<usize> = Some(5);
/// Preemptions of a model of three threads.
pub const WIDE: Option<usize> = Some(3);

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
        let mut geometry = Geometry::new(slots as u32, 1, BLOCK as u32).unwrap();
        geometry.capacity = cells as u32;
        let watch: Vec<_> = (0..2 * slots).map(|_| UnsafeCell::new(())).collect();
        let mut memory = vec![0u8; 2 * slots * BLOCK];
        let header = Header::default();
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
            cells: (0..cells).map(|_| Cell(AtomicU64::new(ring::empty(0)))).collect(),
            pools,
            geometry,
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
}

/// The communicator over these parts: the first, or a successor.
pub fn communicator<'r>(parts: &'r Parts<'r>) -> (Communicator<'r>, Inheritance<'r>) {
    // SAFETY: each model has one communicator at a time; a dead one does nothing more.
    unsafe { Communicator::over(parts, &AllLive, None) }
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
pub fn page_of(block: u32) -> [u8; BLOCK] {
    [block as u8; BLOCK]
}

/// Delivers the page if the request has a buffer for it, and answers with its block number.
pub fn serve(mut claim: Claim<'_>) -> bool {
    let block = claim.job().block;
    if claim.job().opcode.fills_buffers() {
        match claim.copying() {
            Ok(mut copying) => copying.deliver(0, &page_of(block)).unwrap(),
            Err(_) => return false,
        }
    }
    claim.complete(Completion::ok(u64::from(block))).is_ok()
}

/// Runs a model: every interleaving, or those with at most `bound` preemptions.
pub fn check(bound: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = bound.or(builder.preemption_bound);
    builder.max_branches = 20_000;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = runs.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{} interleavings", runs.load(Ordering::Relaxed));
}

std::thread_local! {
    // loom runs all threads of a model on the OS thread of the test, so this is one set a test.
    static SEEN: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// Notes that this interleaving came to a place.
pub fn saw(place: &'static str) {
    SEEN.with(|s| s.borrow_mut().insert(place));
}

/// As [`check`], and demands that the interleavings together came to all these places: a model that never gets there
/// proves nothing about them.
pub fn check_reaching(bound: Option<usize>, places: &[&'static str], model: impl Fn() + Sync + Send + 'static) {
    SEEN.with(|s| s.borrow_mut().clear());
    check(bound, model);
    for place in places {
        assert!(SEEN.with(|s| s.borrow().contains(place)), "no interleaving saw: {place}");
    }
}

/// Runs the twin of a model: the same with the edge `label` weakened.
pub fn twin(label: &'static str, bound: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    shmuring::sync::edges::weaken(label, || check(bound, model));
}
