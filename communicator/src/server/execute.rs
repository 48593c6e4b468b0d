//! One read, from claim to completion.

use super::sizes::{Found, Sizes};
use super::{OwnedClaim, Ticket};
use crate::service::{PageService, ReadLsn, Result, ServiceError, PAGE_SIZE};
use shmuring::communicator::Claim;
use shmuring::request::{Completion, Job, Lsn, Opcode, RelTag, MISSING};
use std::sync::Arc;
use std::time::Duration;

/// What a read came to: a completion, and pages for its buffers.
struct Answer {
    value: u64,
    lsn: Lsn,
    pages: Vec<u8>,
}

impl Answer {
    const fn value(value: u64) -> Self {
        Self { value, lsn: 0, pages: Vec::new() }
    }
}

/// Serves the reads of a batch side by side: none waits for another (the last one runs in this task).
pub(super) async fn reads(service: Arc<dyn PageService>, sizes: Sizes, mut batch: Vec<(OwnedClaim, Ticket)>) {
    let last = batch.pop();
    for (claim, ticket) in batch {
        tokio::spawn(read(service.clone(), sizes.clone(), claim, ticket));
    }
    if let Some((claim, ticket)) = last {
        read(service, sizes, claim, ticket).await;
    }
}

/// Serves a read and completes it; a cancelled one is dropped as soon as that is seen.
async fn read(service: Arc<dyn PageService>, sizes: Sizes, claim: OwnedClaim, ticket: Ticket) {
    if claim.is_cancelled() {
        let _ = claim.complete(Completion::ok(0));
        return;
    }
    let result = match claim.job().deadline {
        None => answer(&*service, &sizes, claim.job()).await,
        Some(deadline) => {
            let left = deadline.saturating_sub(shmuring::clock::now());
            match tokio::time::timeout(Duration::from_nanos(left), answer(&*service, &sizes, claim.job())).await {
                Ok(result) => result,
                Err(_) => Err(ServiceError::new(libc::ETIMEDOUT, "the request's deadline passed")),
            }
        }
    };
    match result {
        Ok(answer) => deliver(claim, &answer),
        Err(e) => refuse(claim, &e),
    }
    drop(ticket);
}

/// Completes with an error, which the log explains.
pub(super) fn refuse(claim: OwnedClaim, e: &ServiceError) {
    log_failure(&claim, e);
    let block = e.block.map_or(0, |b| u64::from(b.saturating_sub(claim.job().block)));
    let _ = claim.fail(e.errno, block, 1);
}

fn log_failure(claim: &Claim<'_>, e: &ServiceError) {
    let job = claim.job();
    let expected = matches!(e.errno, libc::ENOENT | libc::ENXIO | libc::EROFS | libc::EEXIST | libc::EOPNOTSUPP);
    let (slot, generation) = (claim.slot(), claim.generation());
    let RelTag { spc_oid, db_oid, rel_number, fork } = job.rel;
    let rel = format_args!("{spc_oid}/{db_oid}/{rel_number}.{fork}");
    let (opcode, block, count) = (job.opcode.name(), job.block, job.count);
    if expected {
        tracing::debug!(slot, generation, opcode, %rel, block, count, errno = e.errno, "request refused: {e}");
    } else {
        tracing::warn!(slot, generation, opcode, %rel, block, count, errno = e.errno, "request failed: {e}");
    }
}

/// Copies the pages and completes: nothing else happens in Copying (I2).
fn deliver(mut claim: OwnedClaim, answer: &Answer) {
    if !answer.pages.is_empty() {
        let Ok(mut copying) = claim.copying() else { return };
        for (i, page) in answer.pages.chunks(PAGE_SIZE).enumerate() {
            if let Err(e) = copying.deliver(i, page) {
                let _ = claim.fail(e.errno(), i as u64, 1);
                return;
            }
        }
    }
    let mut completion = Completion::ok(answer.value);
    completion.lsn = answer.lsn;
    let _ = claim.complete(completion);
}

async fn answer(service: &dyn PageService, sizes: &Sizes, job: &Job) -> Result<Answer> {
    let lsns = ReadLsn { request_lsn: job.request_lsn, not_modified_since: newest(job) };
    let count = u32::from(job.count);
    match job.opcode {
        Opcode::GetPage | Opcode::GetPageAt => {
            let mut pages = vec![0; count as usize * PAGE_SIZE];
            let lsn = service.get_pages(job.rel, job.block, count, lsns, &mut pages).await?;
            Ok(Answer { value: u64::from(count), lsn, pages })
        }
        Opcode::Prefetch => service.prefetch(job.rel, job.block, count).await.map(|()| Answer::value(0)),
        Opcode::RelSize => match rel_size(service, sizes, job.rel, lsns).await? {
            Some(blocks) => Ok(Answer::value(u64::from(blocks))),
            None if job.allow_missing => Ok(Answer::value(MISSING)),
            None => Err(ServiceError::missing_relation(job.rel)),
        },
        Opcode::RelExists => {
            let exists = rel_size(service, sizes, job.rel, lsns).await?.is_some();
            Ok(Answer::value(u64::from(exists)))
        }
        Opcode::DbSize => service.db_size(job.rel.db_oid, lsns).await.map(Answer::value),
        Opcode::ReadSlru => {
            let pages = service.read_slru(job.rel.rel_number, job.block, lsns).await?;
            if pages.len() > count as usize * PAGE_SIZE {
                let detail = format!("a segment of {} bytes into {count} buffers", pages.len());
                return Err(ServiceError::new(libc::EMSGSIZE, detail));
            }
            Ok(Answer { value: pages.len() as u64, lsn: 0, pages })
        }
        Opcode::Nop => Ok(Answer::value(0)),
        mutation => Err(ServiceError::unsupported(mutation.name())),
    }
}

/// Blocks of a fork, from the sizes that are known or else from the page service, which makes them known.
async fn rel_size(service: &dyn PageService, sizes: &Sizes, rel: RelTag, lsns: ReadLsn) -> Result<Option<u32>> {
    if lsns.request_lsn.is_some() {
        return service.rel_size(rel, lsns).await;
    }
    match sizes.find(rel) {
        Found::Known(blocks) => Ok(blocks),
        Found::Asked(asked) => {
            let blocks = service.rel_size(rel, lsns).await?;
            asked.fill(blocks, lsns.not_modified_since);
            Ok(blocks)
        }
    }
}

/// The newest not_modified_since of the blocks.
fn newest(job: &Job) -> Lsn {
    (0..usize::from(job.count)).map(|i| job.block_lsn(i)).max().unwrap_or(job.lsn)
}
