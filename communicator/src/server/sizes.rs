//! The relation sizes of the region, as the server keeps them: marked before a mutation's I/O, set after it and before
//! its completion is published, filled by reads of sizes that no mutation overtook (R2, R13). The rules are in
//! [`shmuring::lsn::rel_size`]; here is the lock between the threads, and what each mutation does to a size.

use crate::service::{Ingest, Mutation, MutationRequest, Result};
use shmuring::communicator::Communicator;
use shmuring::lsn::rel_size::{Asked as AskedToken, Change, Outcome, Writer};
use shmuring::request::{Lsn, RelTag};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The writer of the sizes. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct RelSizes {
    writer: Option<Arc<Mutex<Writer<'static>>>>,
    /// Whether sizes that were read are kept.
    keeps_read: bool,
}

/// A mutation under way, and what it comes to if it succeeds.
///
/// It has no drop on purpose. One that is lost with a panic may still be under way at the page service, and a size that is
/// read meanwhile may be from before it: its fork stays a miss until the next communicator, whose epoch fences it (R4d).
#[derive(Debug)]
pub(super) struct Pending {
    change: Change,
    then: Outcome,
}

/// A question to the page service, under way until it is filled or dropped.
pub(super) struct Asked {
    sizes: RelSizes,
    token: Option<AskedToken>,
}

impl RelSizes {
    /// The sizes of this communicator's region. Of a service that lags behind WAL only what changes came to is kept: what
    /// it answers to a read of old data may be from before a change whose size is no longer here, too small for all
    /// others (R2).
    pub(super) fn of(communicator: &mut Communicator<'static>, ingest: Ingest) -> Self {
        let writer = communicator.rel_size_writer().map(|w| Arc::new(Mutex::new(w)));
        Self { writer, keeps_read: ingest == Ingest::Immediate }
    }

    /// A panic under the lock leaves a fork that is a miss for good, at worst: so poison is no reason to stop.
    fn lock(&self) -> Option<MutexGuard<'_, Writer<'static>>> {
        self.writer.as_ref().map(|w| w.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Marks what a group is about to change.
    pub(super) fn begin(&self, group: &[MutationRequest]) -> Vec<Option<Pending>> {
        let Some(mut writer) = self.lock() else { return Vec::new() };
        let mut mark = |request| effect(request).map(|(rel, then)| Pending { change: writer.begin(rel), then });
        group.iter().map(&mut mark).collect()
    }

    /// Sets what the group has changed. Call it before the first completion.
    pub(super) fn finish(&self, pending: Vec<Option<Pending>>, results: &[Result<u64>]) {
        let Some(mut writer) = self.lock() else { return };
        for (i, pending) in pending.into_iter().enumerate() {
            let Some(Pending { change, then }) = pending else { continue };
            let is_done = results.get(i).is_some_and(Result::is_ok);
            writer.finish(change, if is_done { then } else { Outcome::Unknown });
        }
    }

    /// The size of a fork if it is certain: its blocks, `None` if there is no such fork.
    pub(super) fn known(&self, rel: RelTag) -> Option<Option<u32>> {
        self.lock()?.known(rel).map(|size| size.blocks)
    }

    /// A question to the page service is about to be sent.
    pub(super) fn ask(&self, rel: RelTag) -> Asked {
        let token = if self.keeps_read { self.lock().map(|mut writer| writer.ask(rel)) } else { None };
        Asked { sizes: self.clone(), token }
    }
}

impl Asked {
    /// Tells the answer, which holds as of `lsn`.
    pub(super) fn fill(mut self, blocks: Option<u32>, lsn: Lsn) {
        if let (Some(token), Some(mut writer)) = (self.token.take(), self.sizes.lock()) {
            writer.fill(token, blocks, lsn);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else { return };
        if let Some(mut writer) = self.sizes.lock() {
            writer.drop_asked(token);
        }
    }
}

/// The fork whose size a mutation changes, and what it comes to.
fn effect(request: &MutationRequest) -> Option<(RelTag, Outcome)> {
    let effect = match request.mutation {
        Mutation::WritePage { .. } => return None,
        Mutation::Extend { rel, block, lsn, .. } => (rel, Outcome::Raise(block.saturating_add(1), lsn)),
        Mutation::ZeroExtend { rel, block, count, lsn } => (rel, Outcome::Raise(block.saturating_add(count), lsn)),
        Mutation::Truncate { rel, blocks, lsn } => (rel, Outcome::Lower(blocks, lsn)),
        Mutation::UpdateRelSize { rel, blocks, lsn } => (rel, Outcome::Set(blocks, lsn)),
        Mutation::Unlink { rel, lsn } => (rel, Outcome::Remove(lsn)),
        Mutation::Create { rel, lsn } if request.first_attempt => (rel, Outcome::Set(0, lsn)),
        // A create that ran before may have been followed by others.
        Mutation::Create { rel, .. } => (rel, Outcome::Unknown),
    };
    Some(effect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmuring::lsn::shards::Sharding;
    use shmuring::region::{Options, Region};

    const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 9, fork: 0 };

    /// What is known of a fork that was extended while nothing was known of it, and whose size somebody then reads.
    fn known_after_a_read(ingest: Ingest) -> Option<Option<u32>> {
        let options = Options { rel_sizes: 64, bounce_per_slot: 0, ..Options::new(2) };
        let region: &'static Region = Box::leak(Box::new(Region::create_private(&options).unwrap()));
        let (mut communicator, _) = Communicator::take_role(region, Box::leak(Box::new(region.parts()))).unwrap();
        let sizes = RelSizes::of(&mut communicator, ingest);
        let extend = Mutation::ZeroExtend { rel: REL, block: 9, count: 1, lsn: 200 };
        let pending = sizes.begin(&[MutationRequest::first(extend)]);
        sizes.finish(pending, &[Ok(10)]);
        // A reader of old data: it may be told the size from before.
        sizes.ask(REL).fill(Some(9), 100);
        sizes.known(REL)
    }

    #[test]
    fn what_a_service_that_lags_says_of_a_size_is_for_nobody_else() {
        assert_eq!(known_after_a_read(Ingest::Lags { sharding: Sharding::NONE, floor: 0 }), None);
        assert_eq!(known_after_a_read(Ingest::Immediate), Some(Some(9)), "it never says a size from before");
    }
}
