//! Faults that a sanitizer must report: `ci/sanitize.sh` runs each by its name and fails if it hears nothing. They are
//! undefined behaviour, so nobody else runs them.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

use std::sync::atomic::Ordering::{Relaxed, Release};

use shmuring::backend::Backend;
use shmuring::communicator::Communicator;
use shmuring::layout::Slot;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, Opcode, RelTag, Request};
use shmuring::slot::{State, Word};

const SMALL: Options = Options { bounce_per_slot: 0, block_size: 512, ..Options::new(1) };

/// A backend fills slot 0, `hand_over` makes it Submitted by whatever means, and a communicator that runs all the while
/// claims it; returns what was claimed. The two threads have no other edge between them.
fn pass(hand_over: fn(&Slot, Word)) {
    let region = Region::create_private(&SMALL).unwrap();
    let parts = region.parts();
    let mut b = Backend::attach(&region, 0, 1).unwrap();
    std::thread::scope(|s| {
        s.spawn(|| {
            let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
            let begin = std::time::Instant::now();
            let mut n = 0;
            while n == 0 {
                assert!(begin.elapsed().as_secs() < 60, "the request never came");
                n = c.sweep(State::Copying, |claim| claim.complete(Completion::ok(1)).unwrap());
            }
        });
        let r = b.fill(0, &Request::new(Opcode::Nop, RelTag::default())).unwrap();
        hand_over(&parts.slots[0], Word::new(State::Submitted, r.generation, 0));
    });
}

/// The twin of the next: what the library does. Runs under the sanitizers with all other tests, and is silent.
#[test]
fn a_submitted_request_is_handed_over() {
    pass(|slot, submitted| slot.word.store(submitted.bits(), Release));
}

#[test]
#[ignore = "undefined behaviour, for ci/sanitize.sh"]
fn planted_race_of_a_submit_without_release() {
    pass(|slot, submitted| slot.word.store(submitted.bits(), Relaxed));
}

#[test]
#[ignore = "undefined behaviour, for ci/sanitize.sh"]
fn planted_race_of_a_request_changed_after_its_submit() {
    pass(|slot, submitted| {
        slot.word.store(submitted.bits(), Release);
        // SAFETY: none: the request bytes are the claim's by now (R10), which is the fault that is planted.
        slot.request.with_mut(|p| unsafe { (*p).lsn = 7 });
    });
}

#[test]
#[ignore = "undefined behaviour, for ci/sanitize.sh"]
fn planted_read_past_the_end() {
    let bytes: Box<[u8]> = std::hint::black_box(vec![1; 512]).into_boxed_slice();
    let end = std::hint::black_box(512);
    // SAFETY: none: it reads the byte behind the last, which is the fault that is planted.
    let byte = unsafe { bytes.as_ptr().add(end).read_volatile() };
    std::hint::black_box(byte);
}
