//! The end of a request: pages delivered and the result published, or the error with its cause in the log.

use super::{OwnedClaim, RequestId, Ticket};
use crate::service::{Page, Rel, ServiceError, PAGE_SIZE};
use shmuring::lsn::scheduler::Waiting;
use shmuring::request::{Completion, Lsn};
use std::sync::Arc;

/// What a request came to.
#[derive(Debug)]
pub(super) enum End {
    /// It did what it asked for.
    Done { value: u64, lsn: Lsn, attempts: u32, bytes: Bytes },
    /// It failed.
    Failed(Failure),
    /// Its owner has given it up: the slot goes back.
    Cancelled,
}

/// What goes into the buffers of a request.
#[derive(Debug)]
pub(super) enum Bytes {
    None,
    /// Pages of blocks, each with its place in the request.
    Pages(Vec<(u8, Page)>),
    /// An SLRU segment, one buffer after the other.
    Segment(Arc<Vec<u8>>),
}

/// Why a request failed, with all that is known of the cause.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ServiceError,
    /// Which block of the request, unless the error says so itself.
    pub(super) part: u8,
    pub(super) shard: usize,
    pub(super) attempts: u32,
    /// It was waiting for WAL.
    pub(super) waiting: Option<Waiting>,
}

impl Failure {
    /// An error of a request that was never sent.
    pub(super) fn unsent(error: ServiceError) -> Self {
        Self { error, part: 0, shard: 0, attempts: 1, waiting: None }
    }
}

/// A claim that is to be completed: away from the desk, since it copies pages and may log.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) claim: OwnedClaim,
    pub(super) end: End,
    pub(super) ticket: Ticket,
}

impl Finished {
    /// Completes the claim.
    pub(super) fn publish(self) {
        let Self { claim, end, ticket } = self;
        match end {
            End::Done { value, lsn, attempts, bytes } => {
                let mut completion = Completion::ok(value);
                completion.lsn = lsn;
                completion.attempts = short(attempts);
                deliver(claim, completion, &bytes);
            }
            End::Failed(failure) => refuse(claim, &failure),
            End::Cancelled => {
                let _ = claim.complete(Completion::ok(0));
            }
        }
        drop(ticket);
    }
}

fn short(attempts: u32) -> u16 {
    attempts.try_into().unwrap_or(u16::MAX)
}

/// Copies the pages and completes: nothing else happens in Copying (I2).
fn deliver(mut claim: OwnedClaim, completion: Completion, bytes: &Bytes) {
    let copied = match bytes {
        Bytes::None => Ok(()),
        Bytes::Pages(pages) => {
            let Ok(mut copying) = claim.copying() else { return };
            pages.iter().try_for_each(|(i, page)| copying.deliver(usize::from(*i), page.bytes()).map_err(|e| (*i, e)))
        }
        Bytes::Segment(segment) => {
            let Ok(mut copying) = claim.copying() else { return };
            let mut chunks = (0u8..).zip(segment.chunks(PAGE_SIZE));
            chunks.try_for_each(|(i, chunk)| copying.deliver(usize::from(i), chunk).map_err(|e| (i, e)))
        }
    };
    let _ = match copied {
        Ok(()) => claim.complete(completion),
        Err((i, e)) => claim.fail(e.errno(), u64::from(i), completion.attempts),
    };
}

/// Completes with an error, which the log explains.
pub(super) fn refuse(claim: OwnedClaim, failure: &Failure) {
    log(&claim, failure);
    let block = failure.error.block.map_or(failure.part.into(), |b| b.saturating_sub(claim.job().block));
    let _ = claim.fail(failure.error.errno, u64::from(block), short(failure.attempts));
}

fn log(claim: &OwnedClaim, failure: &Failure) {
    let Failure { error, part, shard, attempts, waiting } = failure;
    let job = claim.job();
    let expected = matches!(error.errno, libc::ENOENT | libc::ENXIO | libc::EROFS | libc::EEXIST | libc::EOPNOTSUPP);
    let request = RequestId::of(claim);
    let (rel, opcode) = (Rel(job.rel), job.opcode.name());
    let (block, count) = (job.block, job.count);
    let lsn = PrintLsn(job.block_lsn(usize::from(*part)));
    if let Some(Waiting { n, shard, proved, hint }) = waiting {
        let (n, proved, hint) = (PrintLsn(*n), PrintLsn(*proved), PrintLsn(*hint));
        tracing::warn!(
            %request, opcode, %rel, block, count, shard, attempts, errno = error.errno,
            "request failed waiting for LSN {n}: the shard is proved to have {proved}, believed to have {hint}: {error}"
        );
    } else if expected {
        tracing::debug!(%request, opcode, %rel, block, count, errno = error.errno, "request refused: {error}");
    } else {
        tracing::warn!(
            %request, opcode, %rel, block, count, %lsn, shard, attempts, errno = error.errno,
            "request failed: {error}"
        );
    }
}

/// Writes an LSN as PostgreSQL does.
pub(super) struct PrintLsn(pub(super) Lsn);

impl std::fmt::Display for PrintLsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}
