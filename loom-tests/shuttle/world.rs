//! A region of vectors for shuttle, what its parties log of each request, and how its systems are run.

use shmuring::buffers::{Pool, Pools};
use shmuring::clock;
use shmuring::communicator::Communicator;
use shmuring::layout::{Cell, Geometry, Header, OwnerStats, RoleStats, Slot};
use shmuring::liveness::Liveness;
use shmuring::parts::Parts;
use shmuring::request::RelTag;
use shmuring::ring;
use shmuring::slot::{owner, State};
use shmuring::stats::RoleCounter;
use shmuring::sync::{mortal, AtomicU64};
use shuttle::rand::Rng;
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::{Config, Runner};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::sync::{Arc, Mutex};

/// Bytes of a block.
pub const BLOCK: usize = 512;
/// The relation that every request is about.
pub const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

std::thread_local! {
    // Shuttle runs all threads of a system on the OS thread of the test. Of all schedules together.
    static SEEN: RefCell<BTreeSet<&'static str>> = const { RefCell::new(BTreeSet::new()) };
}

/// Notes that this schedule came to a place.
pub fn saw(place: &'static str) {
    SEEN.with(|s| s.borrow_mut().insert(place));
}

/// A choice of the schedule: a number below `n`.
pub fn choose(n: u32) -> u32 {
    shuttle::rand::thread_rng().gen_range(0..n)
}

/// Nobody is proved dead by a lock: a successor's epoch is the only proof.
pub struct AllLive;

impl Liveness for AllLive {
    fn role_held(&self) -> bool {
        true
    }

    fn owner_held(&self, _first: u32, _count: u32) -> bool {
        true
    }
}

/// What became of one request, which its block number names.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fate {
    pub is_mutation: bool,
    /// Times that a communicator ran it, and those of which did not know of an earlier one.
    pub runs: u32,
    pub first_runs: u32,
    /// Answers that its owner or the next owner took.
    pub answers: u32,
    /// It was told that it never ran.
    pub withdrawn: bool,
    pub abandoned: bool,
}

/// A region of so many slots, each with a bounce block.
pub struct World {
    header: Header,
    role_stats: RoleStats,
    pending: Vec<AtomicU64>,
    owner_stats: Vec<OwnerStats>,
    slots: Vec<Slot>,
    cells: Vec<Cell>,
    pools: Pools,
    geometry: Geometry,
    _memory: Vec<u8>,
    /// Not part of the schedule: what really happened.
    log: Mutex<BTreeMap<u32, Fate>>,
}

impl World {
    /// A region with so many slots and ring cells (a power of two).
    pub fn new(slots: usize, cells: usize) -> Arc<Self> {
        mortal::reset();
        clock::set(1);
        let mut geometry = Geometry::new(slots as u32, 1, BLOCK as u32).unwrap();
        geometry.capacity = cells as u32;
        let mut memory = vec![0; slots * BLOCK];
        // SAFETY: that many blocks, which live as long as the world.
        let pool = unsafe { Pool::new(memory.as_mut_ptr(), BLOCK, slots as u32, BLOCK) };
        Arc::new(Self {
            header: Header::default(),
            role_stats: RoleStats::default(),
            pending: (0..slots.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            owner_stats: (0..slots).map(|_| OwnerStats::default()).collect(),
            slots: (0..slots).map(|_| Slot::default()).collect(),
            cells: (0..cells).map(|_| Cell(AtomicU64::new(ring::empty(0)))).collect(),
            pools: Pools::new(Some(pool.unwrap())),
            geometry,
            _memory: memory,
            log: Mutex::default(),
        })
    }

    pub fn parts(&self) -> Parts<'_> {
        Parts {
            header: &self.header,
            role_stats: &self.role_stats,
            pending: &self.pending,
            owner_stats: &self.owner_stats,
            slots: &self.slots,
            cells: &self.cells,
            pools: &self.pools,
            geometry: &self.geometry,
            private: true,
        }
    }

    /// Notes something about the request for this block.
    pub fn note(&self, block: u32, f: impl FnOnce(&mut Fate)) {
        f(self.log.lock().unwrap().entry(block).or_default());
    }

    /// When all owners are gone and a last communicator has looked at everything: nothing is left, nothing was lost, and
    /// nothing was answered twice.
    pub fn judge(&self) {
        let parts = self.parts();
        // SAFETY: all others have ended.
        let (mut c, inheritance) = unsafe { Communicator::over(&parts, &AllLive, None) };
        assert!(inheritance.mutations.is_empty() && inheritance.reads.is_empty(), "a claim was left");
        assert_eq!(c.sweep(State::Copying, |_| panic!("a request was left")), 0);
        while ring::has_pending(&parts) || parts.header.tail.0.load(O) != parts.header.head.0.load(O) {
            c.reap(64, State::Copying, |_| panic!("a request was left"));
        }
        for (number, slot) in parts.slots.iter().enumerate() {
            let word = owner::look(slot);
            assert!(word.is(State::Idle), "slot {number} is {word:?}");
        }
        if parts.role_stats.get(RoleCounter::SteppedOver) > 0 {
            saw("a ticket stepped over");
        }
        if parts.role_stats.get(RoleCounter::Unhinted) > 0 {
            saw("a request found by the audit");
        }
        for counter in [RoleCounter::LostHints, RoleCounter::Damage, RoleCounter::BadWords, RoleCounter::Refused] {
            assert_eq!(parts.role_stats.get(counter), 0, "{counter:?}");
        }
        for (block, fate) in &*self.log.lock().unwrap() {
            assert!(fate.answers <= 1, "block {block}: {fate:?}");
            // A run that does not know of an earlier one is the first.
            assert!(fate.first_runs <= 1 && (fate.runs == 0 || fate.first_runs == 1), "block {block}: {fate:?}");
            assert!(!fate.withdrawn || fate.runs == 0, "block {block}: {fate:?}");
            assert!(!(fate.abandoned && fate.is_mutation), "block {block}: {fate:?}");
            assert!(fate.answers == 0 || fate.runs > 0, "block {block}: {fate:?}");
        }
    }
}

const O: shmuring::sync::Ordering = shmuring::sync::Ordering::Relaxed;

/// Schedules in all where `SHMURING_SCHEDULES` does not say; ci/loom.sh does.
const SCHEDULES: usize = 10_000;
/// Priority changes of a PCT schedule, plus one.
const DEPTH: usize = 4;

/// Fewer schedules need not come to every place.
const ENOUGH: usize = 100;

/// Runs a system under `share` per mille of all schedules, half of them random, half by PCT, and demands that they came to
/// these places. Shuttle prints the schedule of a failure; with it in `SHMURING_REPLAY` that one schedule is run.
pub fn explore(share: usize, places: &[&'static str], system: impl Fn() + Send + Sync + 'static) {
    if let Ok(schedule) = std::env::var("SHMURING_REPLAY") {
        run(ReplayScheduler::new_from_encoded(schedule.trim()), system);
        return;
    }
    let all = std::env::var("SHMURING_SCHEDULES").map_or(SCHEDULES, |n| n.parse().expect("a number of schedules"));
    let each = (all * share / 2000).max(1);
    let system = Arc::new(system);
    let again = system.clone();
    let n = run(RandomScheduler::new(each), move || again()) + run(PctScheduler::new(DEPTH, each), move || system());
    for place in places {
        let seen = SEEN.with(|s| s.borrow().contains(place));
        assert!(seen || n < ENOUGH, "no schedule saw: {place}");
    }
    let line = format!("{} {n}\n", std::thread::current().name().unwrap_or("?"));
    print!("{line}");
    if let Ok(path) = std::env::var("SHMURING_MODELS") {
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut f| f.write_all(line.as_bytes())).expect("SHMURING_MODELS names a file");
    }
}

fn run(scheduler: impl Scheduler + 'static, system: impl Fn() + Send + Sync + 'static) -> usize {
    let mut config = Config::new();
    // The watches of a wait for any lie on the stack.
    config.stack_size = 0x20000;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(system)
}
