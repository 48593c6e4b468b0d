//! A communicator on a thread of the test, for C programs that are processes of their own.
#![allow(dead_code)] // Each test binary uses its own part.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use shmuring::communicator::{Claim, Communicator};
use shmuring::region::{Options, Region};
use shmuring::request::Completion;
use shmuring::slot::State;

/// Bytes of a page.
pub const PAGE: usize = 8192;

/// Makes a region of so many slots, 4 bounce buffers each, and gives its path.
pub fn region_in(directory: &Path, slots: u32) -> PathBuf {
    let path = directory.join("region");
    Region::create_named(&path, &Options::new(slots)).unwrap();
    path
}

/// Answers a read with pages whose bytes are the block number, and everything else with its block number.
fn answer(mut claim: Claim<'_>) {
    let (block, count, reads) = (claim.job().block, claim.job().count, claim.job().opcode.fills_buffers());
    if reads {
        let Ok(mut copying) = claim.copying() else { return };
        for i in 0..count {
            let page = [(block + u32::from(i)) as u8; PAGE];
            copying.deliver(usize::from(i), &page).unwrap();
        }
    }
    let _ = claim.complete(Completion::ok(if reads { count.into() } else { block.into() }));
}

/// Serves a region until it is dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Takes the role of the region at `path`; returns once it is taken.
    pub fn of(path: &Path) -> Self {
        let region = Region::attach(path).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let ready = Arc::new(std::sync::Barrier::new(2));
        let (stopped, is_ready) = (Arc::clone(&stop), Arc::clone(&ready));
        let thread = std::thread::spawn(move || {
            let parts = region.parts();
            let (mut communicator, inherited) = Communicator::take_role(&region, &parts).unwrap();
            is_ready.wait();
            inherited.mutations.into_iter().chain(inherited.reads).for_each(answer);
            communicator.sweep(State::Copying, answer);
            while !stopped.load(Ordering::Relaxed) {
                if communicator.reap_or_park(64, State::Copying, Default::default(), 10_000_000, answer) == 0 {
                    communicator.audit(State::Copying, answer);
                }
            }
        });
        ready.wait();
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is the test's.
            thread.join().unwrap();
        }
    }
}
