//! Ends a test that hangs: prints the state of every slot, kills the children, and exits with 3.

use super::super::{child, stat};
use shmuring::region::Region;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The exit code of a test that hung.
const HUNG: i32 = 3;
/// How often the heart is listened to.
const TICK: Duration = Duration::from_millis(200);

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

    /// Watches from a thread of its own: without a beat for `limit`, `on_hang` is called, once. Counts the time that this
    /// process runs, so that one which was stopped does not seem to hang.
    pub(super) fn watch(&self, limit: Duration, on_hang: impl FnOnce() + Send + 'static) {
        let heart = self.clone();
        std::thread::spawn(move || {
            let (mut last, mut quiet) = (heart.0.load(Ordering::Relaxed), Duration::ZERO);
            while quiet <= limit {
                std::thread::sleep(TICK);
                let beats = heart.0.load(Ordering::Relaxed);
                quiet = if beats == last { quiet + TICK } else { Duration::ZERO };
                last = beats;
            }
            on_hang();
        });
    }
}

/// Says what everything was doing, and ends the test.
pub(super) fn give_up(region: &Region, living: &Living) {
    eprintln!("shmuring: torture hangs: nothing moved\n{}", stat::everything(region));
    // The list is held while a child is waited for, so that each pid is a child's.
    lock(living).iter().for_each(|pid| child::kill(*pid));
    std::process::exit(HUNG);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heart_that_beats_is_left_alone_and_one_that_stops_is_noticed() {
        let (heart, (told, hung)) = (Heart::default(), std::sync::mpsc::channel());
        heart.watch(TICK * 10, move || told.send(()).unwrap());
        for _ in 0..40 {
            heart.beat();
            std::thread::sleep(TICK / 2);
            assert!(hung.try_recv().is_err());
        }
        hung.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
