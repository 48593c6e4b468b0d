//! Ends a test that hangs: prints the state of every slot, kills the children, and exits with 3.

use super::super::stat;
use shmuring::region::Region;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The exit code of a test that hung.
const HUNG: i32 = 3;

/// Children that have not been waited for.
pub(super) type Living = Arc<Mutex<Vec<u32>>>;

/// The list, whatever happened to who held it.
pub(super) fn lock(living: &Living) -> MutexGuard<'_, Vec<u32>> {
    living.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What must move on.
#[derive(Clone, Debug, Default)]
pub(super) struct Heart(Arc<AtomicU64>);

impl Heart {
    pub(super) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Watches from a thread of its own: nothing may take longer than `limit` without a beat.
    pub(super) fn watch(&self, limit: Duration, region: &'static Region, living: Living) {
        let heart = self.clone();
        std::thread::spawn(move || {
            let mut last = (heart.0.load(Ordering::Relaxed), Instant::now());
            loop {
                std::thread::sleep(Duration::from_millis(200));
                let beats = heart.0.load(Ordering::Relaxed);
                if beats != last.0 {
                    last = (beats, Instant::now());
                } else if last.1.elapsed() > limit {
                    eprintln!("shmuring: torture hangs: nothing moved for {limit:?}\n{}", stat::everything(region));
                    // The list is held while a child is waited for, so that each pid is a child's.
                    lock(&living).iter().for_each(|pid| super::super::child::kill(*pid));
                    std::process::exit(HUNG);
                }
            }
        });
    }
}
