//! Listens to what the server of a shard says of its ingest, for as long as the service is there.

use super::errors::{is_of_connection, of_status};
use super::link::Link;
use super::shard::Shard;
use crate::service::{Result, ServiceError};
use crate::wire::proto::write::{WatchRequest, WatchResponse};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::{Code, Status, Streaming};

/// An attachment that lasts so long is a good one.
const LONG: Duration = Duration::from_secs(2);

/// Follows one attachment after the other.
pub(super) async fn run(shard: Arc<Shard>) {
    let options = shard.shared.options;
    let mut pause = options.backoff;
    let mut attached = shard.attached.subscribe();
    let mut silent = None;
    loop {
        let Ok(link) = shard.link().await else { continue };
        let since = Instant::now();
        let was_silent = silent == Some(link.generation);
        let end = follow(&shard, &link, was_silent).await;
        match end {
            // All that is known is what answers prove. Its connection may end unnoticed, so it is asked again.
            Err(Ended::Unknown) => {
                if !was_silent {
                    let server = &link.server;
                    tracing::info!(shard = shard.number, server, "the server takes no writes, nor tells its ingest");
                }
                silent = Some(link.generation);
                attached.borrow_and_update();
                if shard.generation() == link.generation {
                    let _ = tokio::time::timeout(options.backoff_max, attached.changed()).await;
                }
                continue;
            }
            Err(Ended::Refused(e)) => {
                tracing::warn!(shard = shard.number, "the server does not tell its ingest: {e}");
            }
            Ok(()) => {}
        }
        // A server that ends each attachment soon is asked less and less often.
        pause = if since.elapsed() < LONG { pause.saturating_mul(2).min(options.backoff_max) } else { options.backoff };
        tokio::time::sleep(pause).await;
    }
}

enum Ended {
    Unknown,
    Refused(ServiceError),
}

/// To the end of the attachment. One `was_silent` that tells after all leads to another server now, by a proxy between.
async fn follow(shard: &Shard, link: &Link, was_silent: bool) -> core::result::Result<(), Ended> {
    let mut stream = match open(shard, link).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(status)) if status.code() == Code::Unimplemented => return Err(Ended::Unknown),
        Ok(Err(status)) => {
            let e = of_status(&shard.about(&link.server, "watching", 0), &status);
            if is_of_connection(&status) {
                shard.lost(link.generation, &e);
            }
            return Err(Ended::Refused(e));
        }
        Err(silent) => {
            shard.lost(link.generation, &silent);
            return Err(Ended::Refused(silent));
        }
    };
    if was_silent {
        shard.lost(link.generation, &"the server takes writes now");
        return Ok(());
    }
    loop {
        match stream.message().await {
            Ok(Some(said)) => shard.heard(link.generation, said.last_record_lsn, said.disk_consistent_lsn),
            Ok(None) => {
                shard.lost(link.generation, &"the server has ended its word of ingest");
                return Ok(());
            }
            Err(status) => {
                shard.lost(link.generation, &of_status(&shard.about(&link.server, "watching", 0), &status));
                return Ok(());
            }
        }
    }
}

async fn open(shard: &Shard, link: &Link) -> Result<core::result::Result<Streaming<WatchResponse>, Status>> {
    let limit = shard.shared.options.answer;
    let mut client = link.writes();
    match tokio::time::timeout(limit, client.watch(link.request(WatchRequest {}))).await {
        Ok(answer) => Ok(answer.map(tonic::Response::into_inner)),
        Err(_) => Err(super::errors::silent(&shard.about(&link.server, "watching", 0), limit)),
    }
}
