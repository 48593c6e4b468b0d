//! The write service: fences, mutations, sync, and word of the server's ingest.
//!
//! # Order (R4d)
//! One group at a time, and no fence beside one: when a fence is acknowledged nothing of an older term runs any more, and
//! nothing of it will, since the fence is on disk first. A call whose client has gone runs to its end all the same. What a
//! writer has sent on a connection that it gave up may come after what it has sent on the next: it is refused like that of
//! an older term. That need not be on disk: no connection outlives the process.

use super::gate::Group;
use super::terms::{check_attachment, check_fence, check_term, Name};
use super::{blocking, Shared};
use crate::service::{MutationRequest, Result, Retry, ServiceError};
use crate::wire::failure::failure_out;
use crate::wire::mutation::Term;
use crate::wire::proto::write::{self, write_service_server::WriteService};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// What a call comes to.
type Answer<T> = std::result::Result<Response<T>, Status>;
/// Word of ingest comes at most so often.
const WORD_EVERY: Duration = Duration::from_millis(5);

/// The write service of a server, for those who were let in.
#[derive(Clone)]
pub(super) struct Writes(pub(super) Arc<Shared>);

impl Writes {
    /// Runs a call's work to its end, whether or not its client stays. What it holds is let go at its end.
    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> Result<T> + Send + 'static) -> Result<T> {
        let shared = self.0.clone();
        blocking(move || work(&shared)).await
    }

    async fn fence(&self, request: write::FenceRequest) -> Result<()> {
        let term = Term::read(request.term)?;
        self.0.gate.check_shape(request.shard)?;
        let attachment = request.attachment;
        let mut record = self.0.record.clone().lock_owned().await;
        self.run(move |shared| {
            check_fence(term, record.term)?;
            if record.term == Some(term) {
                check_attachment(attachment, shared.attachment.load(Ordering::Relaxed))?;
            } else {
                if let Some(last) = record.term.filter(|last| last.region != term.region) {
                    tracing::warn!("another region writes from now on: {} instead of {}", Name(term), Name(last));
                }
                let fenced = super::Record { term: Some(term), ..*record };
                fenced.save(&shared.store.path(), shared.store.id())?;
                *record = fenced;
            }
            shared.attachment.store(attachment, Ordering::Relaxed);
            Ok(())
        })
        .await
    }

    async fn apply(&self, request: write::ApplyRequest) -> Result<Vec<Result<u64>>> {
        let attachment = request.attachment;
        let Group { term, written, mutations } = self.0.gate.check_group(request)?;
        let record = self.0.record.clone().lock_owned().await;
        self.run(move |shared| {
            check_term(term, record.term)?;
            check_attachment(attachment, shared.attachment.load(Ordering::Relaxed))?;
            let results = apply(shared, mutations);
            shared.ingest.receive(shared.store.last_lsn().max(written), shared.store.whole_from());
            drop(record);
            Ok(results)
        })
        .await
    }
}

/// Applies what made sense, in order; each has its result.
fn apply(shared: &Shared, checked: Vec<Result<MutationRequest>>) -> Vec<Result<u64>> {
    let mut errors = Vec::with_capacity(checked.len());
    let mut group = Vec::with_capacity(checked.len());
    for one in checked {
        match one {
            Ok(request) => {
                group.push(request);
                errors.push(None);
            }
            Err(e) => errors.push(Some(e)),
        }
    }
    // The server's own fence stands before the store's, which is for a communicator that has a store inside.
    let results = if group.is_empty() { Vec::new() } else { shared.store.apply_group(0, 0, &group) };
    let mut results = results.into_iter();
    let result = |error: Option<ServiceError>| match error {
        Some(e) => Err(e),
        None => results.next().unwrap_or_else(|| Err(ServiceError::new(libc::EIO, "the store gave no result"))),
    };
    errors.into_iter().map(result).collect()
}

/// A failed write, with the word on whether to try again.
fn failure(e: &ServiceError) -> write::Failure {
    match e.errno {
        // Room may come, and the store opens itself anew; the writer need not give up at once.
        libc::ENOSPC | libc::EAGAIN => failure_out(&e.clone().with_retry(Retry::Later)),
        _ => failure_out(e),
    }
}

fn result_out(result: Result<u64>) -> write::MutationResult {
    match result {
        Ok(value) => write::MutationResult { failure: None, value },
        Err(e) => write::MutationResult { failure: Some(failure(&e)), value: 0 },
    }
}

#[async_trait::async_trait]
impl WriteService for Writes {
    type WatchStream = ReceiverStream<std::result::Result<write::WatchResponse, Status>>;

    async fn fence(&self, request: Request<write::FenceRequest>) -> Answer<write::FenceResponse> {
        let fenced = Self::fence(self, request.into_inner()).await;
        Ok(Response::new(write::FenceResponse { failure: fenced.err().map(|e| failure(&e)) }))
    }

    async fn apply(&self, request: Request<write::ApplyRequest>) -> Answer<write::ApplyResponse> {
        Ok(Response::new(match Self::apply(self, request.into_inner()).await {
            Ok(results) => {
                write::ApplyResponse { failure: None, result: results.into_iter().map(result_out).collect() }
            }
            Err(e) => write::ApplyResponse { failure: Some(failure(&e)), result: Vec::new() },
        }))
    }

    async fn sync(&self, _: Request<write::SyncRequest>) -> Answer<write::SyncResponse> {
        let synced = self.0.checkpoint().await;
        Ok(Response::new(write::SyncResponse { failure: synced.err().map(|e| failure(&e)) }))
    }

    async fn watch(&self, _: Request<write::WatchRequest>) -> Answer<Self::WatchStream> {
        let shared = self.0.clone();
        let (to, words) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            let tell = tell(&shared, &to);
            tokio::select! {
                () = tell => {}
                () = to.closed() => {}
                () = shared.stopping() => drop(to.send(Err(Shared::unavailable())).await),
            }
        });
        Ok(Response::new(ReceiverStream::new(words)))
    }
}

/// Sends word of each change, until nobody listens.
async fn tell(shared: &Shared, to: &tokio::sync::mpsc::Sender<std::result::Result<write::WatchResponse, Status>>) {
    let mut at = shared.ingest.watch();
    loop {
        let last_record_lsn = *at.borrow_and_update();
        let word = write::WatchResponse {
            last_record_lsn,
            disk_consistent_lsn: shared.disk_consistent(),
            incarnation: shared.incarnation,
        };
        if to.send(Ok(word)).await.is_err() {
            return;
        }
        tokio::time::sleep(WORD_EVERY).await;
        if at.changed().await.is_err() {
            return;
        }
    }
}
