//! Random schedules over the whole way of a request, with more parties and steps than an exhaustive check can bear.

use shmuring::backend::{Backend, Wait};
use shmuring::buffers::Pools;
use shmuring::communicator::Communicator;
use shmuring::layout::{Cell, Geometry, Header, OwnerStats, RoleStats, Slot};
use shmuring::liveness::Liveness;
use shmuring::parts::Parts;
use shmuring::request::{Completion, Opcode, RelTag, Request};
use shmuring::ring;
use shmuring::slot::State;
use shmuring::sync::AtomicU64;
use shuttle::thread;
use std::sync::Arc;

const FOR_EVER: Wait<'static> = Wait { until: u64::MAX, interrupt: None };
const SLOTS: usize = 2;
const ROUNDS: u32 = 3;

struct AllLive;

impl Liveness for AllLive {
    fn role_held(&self) -> bool {
        true
    }

    fn owner_held(&self, _first: u32, _count: u32) -> bool {
        true
    }
}

struct World {
    header: Header,
    role_stats: RoleStats,
    pending: [AtomicU64; 1],
    owner_stats: [OwnerStats; SLOTS],
    slots: [Slot; SLOTS],
    cells: [Cell; 2 * SLOTS],
    pools: Pools,
    geometry: Geometry,
}

impl World {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            header: Header::default(),
            role_stats: RoleStats::default(),
            pending: [AtomicU64::new(0)],
            owner_stats: Default::default(),
            slots: Default::default(),
            cells: std::array::from_fn(|_| Cell(AtomicU64::new(ring::empty(0)))),
            pools: Pools::new(None),
            geometry: Geometry::new(SLOTS as u32, 0, 512).unwrap(),
        })
    }

    fn parts(&self) -> Parts<'_> {
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
}

#[test]
fn two_backends_get_every_answer_from_one_communicator() {
    shuttle::check_random(
        || {
            let world = World::new();
            let backends: Vec<_> = (0..SLOTS as u32).map(|slot| (slot, world.clone())).collect();
            let backends: Vec<_> = backends
                .into_iter()
                .map(|(slot, world)| {
                    thread::spawn(move || {
                        // SAFETY: each thread has a slot of its own.
                        let mut backend = unsafe { Backend::over(world.parts(), &AllLive, None, slot, 1).unwrap() };
                        for round in 0..ROUNDS {
                            let mut request = Request::new(Opcode::RelSize, RelTag::default());
                            request.block = 10 * round + slot;
                            let done = backend.call(&request, &FOR_EVER, &mut []).unwrap();
                            assert_eq!({ done.value }, u64::from(request.block));
                        }
                    })
                })
                .collect();
            let parts = world.parts();
            // SAFETY: the only one.
            let (mut c, _) = unsafe { Communicator::over(&parts, &AllLive, None) };
            let mut served = 0;
            while served < SLOTS * ROUNDS as usize {
                served += c.reap_or_park(8, State::Processing, Default::default(), u64::MAX, |claim| {
                    let block = claim.job().block;
                    claim.complete(Completion::ok(u64::from(block))).unwrap();
                });
            }
            backends.into_iter().for_each(|b| b.join().unwrap());
        },
        1000,
    );
}
