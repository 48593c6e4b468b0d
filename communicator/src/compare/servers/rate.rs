//! No more than so many pages a second.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A throttle that several tasks share.
pub(super) struct Rate {
    /// Pages a second; `None`: as fast as it goes.
    most: Option<u64>,
    /// When the next may go.
    next: Mutex<Option<Instant>>,
}

impl Rate {
    pub(super) fn new(most: Option<u64>) -> Self {
        Self { most: most.filter(|n| *n > 0), next: Mutex::default() }
    }

    /// Waits until so many more pages may be read.
    pub(super) async fn take(&self, pages: u64) {
        let Some(most) = self.most else { return };
        let now = Instant::now();
        let begin = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = next.unwrap_or(now).max(now);
            *next = Some(begin + Duration::from_secs_f64(pages as f64 / most as f64));
            begin
        };
        tokio::time::sleep_until(begin).await;
    }
}
