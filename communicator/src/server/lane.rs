//! The lane of the mutations: applied in the order of their claims, committed in groups.
//!
//! One lane keeps every conflict of R4's matrix apart at once. It costs little, since an embedded store has one writer
//! anyway, and a group shares one commit.

use super::execute::refuse;
use super::sizes::{Pending, Sizes};
use super::{OwnedClaim, Ticket};
use crate::service::{Mutation, MutationRequest, PageService, Result, ServiceError, PAGE_SIZE};
use shmuring::communicator::Withdrawn;
use shmuring::parts::Parts;
use shmuring::request::{Completion, Opcode};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedReceiver;

/// Most mutations that share a commit.
const GROUP: usize = 64;

/// The term under which mutations are applied: what an older communicator still sends is fenced off by it (R4d).
pub(super) struct Term {
    pub(super) service: Arc<dyn PageService>,
    pub(super) sizes: Sizes,
    pub(super) parts: &'static Parts<'static>,
    pub(super) epoch: u32,
    /// The server life that the page service has acknowledged together with the epoch.
    pub(super) life: u32,
}

impl Term {
    /// Tells the page service of this term, and of a server life that began since.
    pub(super) async fn fence(&mut self) -> Result<()> {
        let life = self.parts.header.life.life.load(Ordering::Acquire);
        if life != self.life {
            self.service.fence(life, self.epoch).await?;
            self.life = life;
        }
        Ok(())
    }
}

/// Applies what arrives until the sender is gone.
pub(super) async fn run(mut term: Term, mut arrivals: UnboundedReceiver<(OwnedClaim, Ticket)>) {
    let mut batch = Vec::with_capacity(GROUP);
    while arrivals.recv_many(&mut batch, GROUP).await > 0 {
        let mut group = Group::default();
        for (claim, ticket) in batch.drain(..) {
            if claim.job().opcode == Opcode::Sync {
                core::mem::take(&mut group).commit(&mut term).await;
                sync(&*term.service, claim).await;
                drop(ticket);
            } else {
                group.add(claim, ticket);
            }
        }
        group.commit(&mut term).await;
    }
}

async fn sync(service: &dyn PageService, claim: OwnedClaim) {
    match service.sync().await {
        Ok(()) => {
            let _ = claim.complete(Completion::ok(0));
        }
        Err(e) => refuse(claim, &e),
    }
}

/// Mutations that are applied together.
#[derive(Default)]
struct Group {
    claims: Vec<(OwnedClaim, Ticket)>,
    requests: Vec<MutationRequest>,
}

impl Group {
    /// Takes the image, if there is one, and queues the mutation.
    fn add(&mut self, mut claim: OwnedClaim, ticket: Ticket) {
        match mutation(&mut claim) {
            Ok(Ok(mutation)) => {
                self.requests.push(MutationRequest { mutation, first_attempt: !claim.is_again() });
                self.claims.push((claim, ticket));
            }
            Ok(Err(e)) => refuse(claim, &e),
            // Mutations are never abandoned; hostile bytes may say so. The slot has been given back.
            Err(Withdrawn) => {}
        }
    }

    async fn commit(self, term: &mut Term) {
        if self.requests.is_empty() {
            return;
        }
        let n = self.requests.len();
        // Before the I/O, and ended before any completion of the group is published (R2).
        let pending: Vec<Option<Pending>> = term.sizes.begin(&self.requests);
        let results = match term.fence().await {
            Ok(()) => term.service.apply(term.life, term.epoch, self.requests).await,
            Err(e) => vec![Err(e); n],
        };
        term.sizes.finish(pending, &results);
        let mut results = results.into_iter();
        for (claim, ticket) in self.claims {
            match results.next() {
                Some(Ok(value)) => {
                    let _ = claim.complete(Completion::ok(value));
                }
                Some(Err(e)) => refuse(claim, &e),
                None => refuse(claim, &ServiceError::new(libc::EIO, "the page service gave no result")),
            }
            drop(ticket);
        }
    }
}

/// The mutation that a claim asks for, with its image.
fn mutation(claim: &mut OwnedClaim) -> core::result::Result<Result<Mutation>, Withdrawn> {
    let job = claim.job();
    let (opcode, rel, block, lsn, arg) = (job.opcode, job.rel, job.block, job.lsn, job.arg);
    Ok(Ok(match opcode {
        Opcode::WritePage | Opcode::Extend => {
            let pages = match image(claim)? {
                Ok(pages) => pages,
                Err(e) => return Ok(Err(e)),
            };
            if opcode == Opcode::Extend {
                Mutation::Extend { rel, block, lsn, page: pages }
            } else {
                Mutation::WritePage { rel, block, lsn, pages }
            }
        }
        Opcode::ZeroExtend => Mutation::ZeroExtend { rel, block, count: arg, lsn },
        Opcode::Create => Mutation::Create { rel, lsn },
        Opcode::Truncate => Mutation::Truncate { rel, blocks: block, lsn },
        Opcode::Unlink => Mutation::Unlink { rel, lsn },
        Opcode::UpdateRelSize => Mutation::UpdateRelSize { rel, blocks: block, lsn },
        other => return Ok(Err(ServiceError::unsupported(other.name()))),
    }))
}

/// Submitted → Copying → Processing, with the image taken between: no I/O happens in Copying (R6).
fn image(claim: &mut OwnedClaim) -> core::result::Result<Result<Vec<u8>>, Withdrawn> {
    let mut pages = vec![0; usize::from(claim.job().count) * PAGE_SIZE];
    let mut copying = claim.copying()?;
    for (i, page) in pages.chunks_mut(PAGE_SIZE).enumerate() {
        if let Err(e) = copying.take_image(i, page) {
            return Ok(Err(ServiceError::new(e.errno(), e.text())));
        }
    }
    copying.suspend()?;
    Ok(Ok(pages))
}
