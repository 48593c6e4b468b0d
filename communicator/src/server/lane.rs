//! One batch of mutations: applied in the order of their claims, committed in groups.
//!
//! A mutation's completion is published before its keys are released (R4b). Where the order of the lane keeps conflicting
//! ones in order, one that may be tried again holds up those behind it: they are applied again after it, which changes
//! nothing of what was applied already (R4e). Where their keys do, those of a batch do not conflict: each goes by itself.

use super::desk::Desk;
use super::finish::{refuse, Failure};
use super::reaper::fenced;
use super::requests::Mutating;
use super::OwnedClaim;
use crate::service::{Mutation, MutationRequest, Result, Retry, ServiceError, PAGE_SIZE};
use shmuring::communicator::Withdrawn;
use shmuring::lsn::in_flight::MutationOrder;
use shmuring::lsn::scheduler::{Member, MemberId};
use shmuring::request::{Completion, Opcode};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

/// A batch under way. However it ends the lane goes on: claims that are dropped complete by themselves (I4).
struct Lane {
    desk: Arc<Desk>,
    members: Vec<MemberId>,
    /// Completions that are published and not told to the desk.
    over: Vec<MemberId>,
    /// To be tried again: in a lane's order, once there is one, all behind it.
    again: Vec<(MemberId, Mutating)>,
    /// Most attempts that one of them had before this one.
    attempt: u32,
    is_told: bool,
}

impl Lane {
    /// Whether what comes now must wait for one that is to be tried again.
    fn is_held_up(&self) -> bool {
        self.desk.options.mutation_order == MutationOrder::Lane && !self.again.is_empty()
    }

    /// Mutations whose completion is published: their keys are free (R4b).
    fn tell(&mut self) {
        let over = core::mem::take(&mut self.over);
        if !over.is_empty() {
            self.desk.mutated(over.into_iter().map(|m| (m, None)).collect());
        }
    }

    fn completed(&mut self, member: &Member, mutation: Mutating, value: u64) {
        let mut completion = Completion::ok(value);
        completion.attempts = (member.attempt + 1).try_into().unwrap_or(u16::MAX);
        let _ = mutation.claim.complete(completion);
        drop(mutation.ticket);
        self.over.push(member.id);
    }

    /// A mutation failed: its owner is told, unless another attempt may help.
    fn failed(&mut self, member: &Member, mutation: Mutating, error: ServiceError) {
        if error.retry != Retry::Never && member.attempt < u32::from(self.desk.options.failures) {
            tracing::debug!(attempt = member.attempt + 1, "a mutation is tried again: {error}");
            self.attempt = self.attempt.max(member.attempt);
            self.again.push((member.id, mutation));
        } else {
            let failure = Failure { attempts: member.attempt + 1, ..Failure::unsent(error) };
            refuse(mutation.claim, &failure);
            drop(mutation.ticket);
            self.over.push(member.id);
        }
    }

    /// The pause before the next attempt.
    fn pause(&self) -> Duration {
        let options = &self.desk.options;
        let doubled = options.backoff.saturating_mul(1 << self.attempt.min(32)).min(options.backoff_max);
        Duration::from_nanos(doubled)
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if !self.is_told && !self.desk.is_closed() {
            // After a panic. What was told before is ignored.
            self.desk.mutated(self.members.iter().map(|m| (*m, None)).collect());
        }
    }
}

/// Applies a batch.
pub(super) async fn run(desk: Arc<Desk>, batch: Vec<(Member, Mutating)>) {
    let members = batch.iter().map(|(m, _)| m.id).collect();
    let mut lane = Lane { desk, members, over: Vec::new(), again: Vec::new(), attempt: 0, is_told: false };
    let mut group = Group::default();
    for (member, mutation) in batch {
        if mutation.claim.job().opcode == Opcode::Sync {
            core::mem::take(&mut group).commit(&mut lane).await;
            sync(&mut lane, member, mutation).await;
        } else if lane.is_held_up() {
            lane.again.push((member.id, mutation));
        } else {
            group.add(&mut lane, member, mutation);
        }
    }
    group.commit(&mut lane).await;
    if !lane.again.is_empty() {
        tokio::time::sleep(lane.pause()).await;
        let again = core::mem::take(&mut lane.again);
        lane.desk.mutated(again.into_iter().map(|(m, mutation)| (m, Some(mutation))).collect());
    }
    lane.is_told = true;
}

async fn sync(lane: &mut Lane, member: Member, mutation: Mutating) {
    if lane.is_held_up() {
        lane.again.push((member.id, mutation));
        return;
    }
    match lane.desk.service.clone().sync().await {
        Ok(()) => lane.completed(&member, mutation, 0),
        Err(e) => lane.failed(&member, mutation, e),
    }
    lane.tell();
}

/// Mutations that are applied together.
#[derive(Default)]
struct Group {
    members: Vec<(Member, Mutating)>,
    requests: Vec<MutationRequest>,
}

impl Group {
    /// Takes the image, if there is one, and queues the mutation.
    fn add(&mut self, lane: &mut Lane, member: Member, mut mutation: Mutating) {
        if let Some(prepared) = mutation.prepared.take() {
            self.push(member, mutation, MutationRequest { first_attempt: false, ..prepared });
            return;
        }
        match prepare(&mut mutation.claim) {
            Ok(Ok(prepared)) => {
                let first_attempt = !mutation.claim.is_again();
                self.push(member, mutation, MutationRequest { mutation: prepared, first_attempt });
            }
            Ok(Err(e)) => lane.failed(&member, mutation, e),
            // Mutations are never abandoned; hostile bytes may say so. The slot has been given back.
            Err(Withdrawn) => lane.over.push(member.id),
        }
    }

    fn push(&mut self, member: Member, mutation: Mutating, request: MutationRequest) {
        self.members.push((member, mutation));
        self.requests.push(request);
    }

    async fn commit(self, lane: &mut Lane) {
        if self.requests.is_empty() {
            return;
        }
        let requests = Arc::new(self.requests);
        // Before it is sent (R13), and once more before a completion is published: a read that was sent in between may
        // have met the page from before.
        let cache = lane.desk.cache.is_there().then(|| lane.desk.clone());
        let invalidate =
            |r: &MutationRequest| cache.as_ref().map_or_else(Vec::new, |c| c.cache.invalidate(&r.mutation));
        requests.iter().for_each(|r| drop(invalidate(r)));
        // Before the I/O, and ended before any completion of the group is published (R2).
        let jobs = self.members.iter().map(|(_, mutation)| mutation.claim.job());
        let pending = lane.desk.sizes.begin(jobs.zip(requests.iter().map(|r| !r.first_attempt)));
        let results = match fence(&lane.desk).await {
            Ok(life) => lane.desk.service.clone().apply(life, lane.desk.epoch, requests.clone()).await,
            Err(e) => vec![Err(e); requests.len()],
        };
        lane.desk.sizes.finish(pending, &results);
        let mut sent = requests.iter().map(invalidate).collect::<Vec<_>>().into_iter();
        let mut results = results.into_iter();
        let mut images = requests.iter();
        for (member, mut mutation) in self.members {
            let (result, request, sent) = (results.next(), images.next(), sent.next());
            match result {
                // What comes behind one that is tried again is applied again after it.
                _ if lane.is_held_up() => {
                    mutation.prepared = request.cloned();
                    lane.again.push((member.id, mutation));
                }
                Some(Ok(value)) => {
                    if let (Some(desk), Some(request), Some(sent)) = (&cache, request, sent) {
                        desk.cache.written(&request.mutation, &sent);
                    }
                    lane.completed(&member, mutation, value);
                }
                Some(Err(e)) => {
                    mutation.prepared = if e.retry == Retry::Never { None } else { request.cloned() };
                    lane.failed(&member, mutation, e);
                }
                None => {
                    let e = ServiceError::new(libc::EIO, "the page service gave no result");
                    lane.failed(&member, mutation, e);
                }
            }
        }
        lane.tell();
    }
}

/// Tells the page service of this term, and of a server life that began since; gives the life.
async fn fence(desk: &Desk) -> Result<u32> {
    // Relaxed: no data hangs off it. Other batches may fence beside this one: the same twice changes nothing.
    let acknowledged = desk.life.load(Ordering::Relaxed);
    let life = desk.parts.header.life.life.load(Ordering::Acquire).max(acknowledged);
    if life > acknowledged {
        fenced(desk.service.fence(life, desk.epoch).await)?;
        desk.life.fetch_max(life, Ordering::Relaxed);
    }
    Ok(life)
}

/// The mutation that a claim asks for, with its image.
fn prepare(claim: &mut OwnedClaim) -> core::result::Result<Result<Mutation>, Withdrawn> {
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
