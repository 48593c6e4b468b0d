//! What the standby has replayed: asked for a few times a second, and every millisecond while anybody waits for more.

use super::links::{check_recovery, Links};
use crate::service::{Result, ServiceError};
use shmuring::request::Lsn;
use std::sync::Arc;
use std::time::Duration;

/// Between two questions: while reads wait for WAL, and else.
const BUSY: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(100);
/// How long the watch waits for a connection before it looks again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for as long as the service is there.
pub(super) async fn run(links: Arc<Links>) {
    loop {
        if let Ok(kept) = links.get(&links.watch, PATIENCE).await {
            match kept.link.replayed().await {
                Ok((lsn, in_recovery)) => match check_recovery(&links.conninfo, in_recovery) {
                    Ok(()) => links.heard(kept.generation, lsn),
                    Err(e) => links.say(e),
                },
                Err(e) => tracing::debug!("the replay LSN is not known: {e}"),
            }
        }
        // Somebody who comes to wait ends the pause.
        if links.replayed.receiver_count() == 0 {
            let _ = tokio::time::timeout(IDLE, links.wanted.notified()).await;
        } else {
            tokio::time::sleep(BUSY).await;
        }
    }
}

/// Waits until the server of `generation` has replayed `n`.
///
/// # Errors
/// `NotYet`: it took longer than `most`, or another server process is there.
pub(super) async fn until(links: &Links, generation: u64, n: Lsn, most: Duration) -> Result<()> {
    if matches!(*links.replayed.borrow(), (now, lsn) if now == generation && lsn >= n) {
        return Ok(());
    }
    let mut replayed = links.replayed.subscribe();
    links.wanted.notify_one();
    let there = replayed.wait_for(|(now, lsn)| *now != generation || *lsn >= n);
    let there = tokio::time::timeout(most, there).await;
    let is_there = matches!(there, Ok(Ok(now)) if now.0 == generation);
    is_there.then_some(()).ok_or_else(|| ServiceError::not_yet(n, 0))
}
