//! What is rare in a submit from C: to ring for a communicator that sleeps, and to go by the bitmap where the ring has no
//! room. Each function that submits has a way of its own to it, and whoever loses a ring or a hint there costs a sleep
//! or an audit, which a test that only waits for answers does not notice.

use core::ptr::null_mut;
use std::ffi::CString;

use shmuring::communicator::{Claim, Communicator};
use shmuring::region::{Options, Region};
use shmuring::request::Completion;
use shmuring::ring::{is_pending, Producer};
use shmuring::slot::State;
use shmuring::sync::Ordering::Relaxed;
use shmuring_ffi::api::{ApiRel, ApiRequest};
use shmuring_ffi::backend::{shmuring_backend_attach, shmuring_backend_free, ApiBackend};
use shmuring_ffi::fill::{
    shmuring_fill, shmuring_fill_get_page, shmuring_finish, shmuring_free_slot, shmuring_start,
    shmuring_start_get_page, shmuring_submit, shmuring_submit_many,
};
use shmuring_ffi::inline::{shmuring_prep_get_page, shmuring_ref_slot, shmuring_rel_of};
use shmuring_ffi::region::{shmuring_region_attach, shmuring_region_detach, ApiRegion};

const SLOTS: u32 = 8;

/// A function that submits, or what leads to it: gives the reference.
type Way = fn(*mut ApiBackend) -> i64;

const WAYS: [(&str, Way); 5] = [
    // SAFETY: here and below, the handle lives, and nobody else uses it.
    ("start_get_page", |b| unsafe { shmuring_start_get_page(b, rel(), 7, 0) }),
    // SAFETY: as above; a request that lives for the call.
    ("start", |b| unsafe { shmuring_start(b, &read()) }),
    // SAFETY: as above.
    ("submit of a read", |b| submitted(b, unsafe { shmuring_fill_get_page(b, free_slot(b), rel(), 7, 0) })),
    ("submit", |b| submitted(b, filled(b))),
    ("submit_many", |b| {
        let reference = filled(b);
        // SAFETY: as above; one reference.
        assert_eq!(unsafe { shmuring_submit_many(b, &reference, 1) }, 0);
        reference
    }),
];

fn rel() -> ApiRel {
    shmuring_rel_of(1663, 5, 16384, 0)
}

fn read() -> ApiRequest {
    let mut request = std::mem::MaybeUninit::uninit();
    // SAFETY: a place for a request, which the call writes whole.
    unsafe {
        shmuring_prep_get_page(request.as_mut_ptr(), rel(), 7, 1, 0);
        request.assume_init()
    }
}

fn free_slot(b: *mut ApiBackend) -> u32 {
    // SAFETY: as above.
    u32::try_from(unsafe { shmuring_free_slot(b) }).unwrap()
}

fn filled(b: *mut ApiBackend) -> i64 {
    // SAFETY: as above; a request that lives for the call.
    unsafe { shmuring_fill(b, free_slot(b), &read()) }
}

fn submitted(b: *mut ApiBackend, reference: i64) -> i64 {
    // SAFETY: as above.
    assert_eq!(unsafe { shmuring_submit(b, reference) }, 0);
    reference
}

/// A region, a backend in C that owns all but one slot, and the communicator.
struct Bed {
    c: Communicator<'static>,
    region: *mut ApiRegion,
    b: *mut ApiBackend,
}

impl Bed {
    fn new(way: &str) -> Self {
        let name = format!("shmuring-ffi-rest-{}-{}", std::process::id(), way.replace(' ', "-"));
        let path = std::env::temp_dir().join(name);
        let (ours, _) = Region::create_named(&path, &Options::new(SLOTS)).unwrap();
        let parts = Box::leak(Box::new(Box::leak(Box::new(ours)).parts()));
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let (mut region, mut b) = (null_mut(), null_mut());
        // SAFETY: a path, and places for handles.
        unsafe {
            assert_eq!(shmuring_region_attach(name.as_ptr(), &mut region, null_mut()), 0);
            assert!(shmuring_backend_attach(region, 0, SLOTS - 1, &mut b, null_mut()) >= 0);
        }
        std::fs::remove_file(&path).unwrap();
        // SAFETY: nobody else has the role of a region that has no name.
        let (c, _) = unsafe { Communicator::over(parts, &Nobody, None) };
        Self { c, region, b }
    }

    /// Tickets taken so far.
    fn tail(&self) -> u64 {
        self.c.parts().header.tail.0.load(Relaxed)
    }

    /// Rings so far.
    fn rings(&self) -> u32 {
        self.c.parts().header.sequence.0.load(Relaxed)
    }

    /// The communicator says that it sleeps, in the park of that number.
    fn park(&self, number: u64) {
        self.c.parts().header.parked.0.store(number << 1 | 1, Relaxed);
    }

    /// Hints that lead to nothing, until there is no room.
    fn fill_ring(&self) {
        let parts = self.c.parts();
        let taken = self.tail() - parts.header.head.0.load(Relaxed);
        let mut producer = Producer::new();
        for _ in taken..parts.cells.len() as u64 {
            assert_eq!(producer.push(parts, &[SLOTS - 1]), 0);
        }
    }

    fn is_pending(&self, reference: i64) -> bool {
        is_pending(self.c.parts(), shmuring_ref_slot(reference))
    }

    /// Reaps once, and tells which slots were claimed; their requests are answered.
    fn reap(&mut self) -> Vec<u32> {
        let mut claimed = Vec::new();
        self.c.reap(64, State::Copying, |claim: Claim<'_>| {
            claimed.push(claim.slot());
            claim.complete(Completion::ok(0)).unwrap();
        });
        claimed
    }

    /// The request of `way` is claimed by the next reap, and its slot comes back.
    fn comes_and_goes(&mut self, name: &str, way: Way) {
        let reference = way(self.b);
        self.ends(name, &[reference]);
    }

    fn ends(&mut self, name: &str, references: &[i64]) {
        let mut slots: Vec<u32> = references.iter().map(|r| shmuring_ref_slot(*r)).collect();
        let mut claimed = self.reap();
        slots.sort_unstable();
        claimed.sort_unstable();
        assert_eq!(claimed, slots, "{name}");
        for reference in references {
            // SAFETY: as above; where the result goes may be null.
            assert_eq!(unsafe { shmuring_finish(self.b, *reference, null_mut()) }, 0, "{name}");
        }
    }
}

/// Nobody asks.
struct Nobody;

impl shmuring::liveness::Liveness for Nobody {
    fn role_held(&self) -> bool {
        true
    }

    fn owner_held(&self, _first: u32, _count: u32) -> bool {
        true
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // SAFETY: handles that live, and that nobody uses any more.
        unsafe {
            shmuring_backend_free(self.b);
            shmuring_region_detach(self.region);
        }
    }
}

#[test]
fn every_submit_in_c_rings_once_for_each_sleep() {
    for (name, way) in WAYS {
        let mut bed = Bed::new(&format!("ring {name}"));
        // With a handle that is new, and with one that has submitted.
        for park in 1..4 {
            bed.park(park);
            let rings = bed.rings();
            let first = way(bed.b);
            assert_eq!(bed.rings(), rings + 1, "{name}, sleep {park}");
            let both = [first, way(bed.b)];
            assert_eq!(bed.rings(), rings + 1, "{name}, sleep {park}, once more");
            bed.ends(name, &both);
        }
    }
}

#[test]
fn every_submit_in_c_goes_by_the_bitmap_where_the_ring_has_no_room() {
    for (name, way) in WAYS {
        let mut bed = Bed::new(&format!("full {name}"));
        bed.comes_and_goes(name, way);
        bed.fill_ring();
        let tail = bed.tail();
        let both = [way(bed.b), way(bed.b)];
        assert!(both.iter().all(|r| bed.is_pending(*r)), "{name}");
        // The first takes a ticket to find that out, the second looks (R7).
        assert_eq!(bed.tail(), tail + 1, "{name}");
        bed.ends(name, &both);
    }
}

#[test]
fn every_submit_in_c_uses_the_ticket_for_which_there_is_room_again() {
    for (name, way) in WAYS {
        let mut bed = Bed::new(&format!("room {name}"));
        bed.comes_and_goes(name, way);
        // Since the handle looked, all cells were used, and reaped.
        bed.fill_ring();
        assert!(bed.reap().is_empty());
        let tail = bed.tail();
        bed.comes_and_goes(name, way);
        assert_eq!(bed.tail(), tail + 1, "{name}");
    }
}
