//! The relation sizes of the region, as the server keeps them: marked before a mutation's I/O, set after it and before
//! its completion is published, filled by reads of sizes that no mutation overtook (R2, R13). The rules are in
//! [`shmuring::lsn::rel_size`]; here is the lock between the threads.

use crate::service::{Ingest, Result};
use shmuring::communicator::Communicator;
use shmuring::lsn::rel_size::{effect, Asked as AskedToken, Change, Outcome, Writer};
use shmuring::request::{Job, Lsn, RelTag};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The writer of the sizes, until the role is given up. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct RelSizes {
    writer: Arc<Mutex<Option<Writer<'static>>>>,
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
        let writer = Arc::new(Mutex::new(communicator.rel_size_writer()));
        Self { writer, keeps_read: ingest == Ingest::Immediate }
    }

    /// A panic under the lock leaves a fork that is a miss for good, at worst: so poison is no reason to stop.
    fn lock(&self) -> MutexGuard<'_, Option<Writer<'static>>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Before the role is given up: nothing is written any more. A read that was cancelled may still be at the page
    /// service, and would be a second writer beside the successor (R2).
    pub(super) fn close(&self) {
        *self.lock() = None;
    }

    /// Marks what a group is about to change: mutations, and whether each may have run before.
    pub(super) fn begin<'a>(&self, group: impl Iterator<Item = (&'a Job, bool)>) -> Vec<Option<Pending>> {
        let mut guard = self.lock();
        let Some(writer) = guard.as_mut() else { return Vec::new() };
        let mut mark = |job: &Job, then| Pending { change: writer.begin(job.rel), then };
        group.map(|(job, may_have_run)| effect(job, may_have_run).map(|then| mark(job, then))).collect()
    }

    /// Sets what the group has changed. Call it before the first completion.
    pub(super) fn finish(&self, pending: Vec<Option<Pending>>, results: &[Result<u64>]) {
        let mut guard = self.lock();
        let Some(writer) = guard.as_mut() else { return };
        for (i, pending) in pending.into_iter().enumerate() {
            let Some(Pending { change, then }) = pending else { continue };
            let is_done = results.get(i).is_some_and(Result::is_ok);
            writer.finish(change, if is_done { then } else { Outcome::Unknown });
        }
    }

    /// The size of a fork if it is certain: its blocks, `None` if there is no such fork.
    pub(super) fn known(&self, rel: RelTag) -> Option<Option<u32>> {
        self.lock().as_mut()?.known(rel).map(|size| size.blocks)
    }

    /// A question to the page service is about to be sent.
    pub(super) fn ask(&self, rel: RelTag) -> Asked {
        let token = if self.keeps_read { self.lock().as_mut().map(|writer| writer.ask(rel)) } else { None };
        Asked { sizes: self.clone(), token }
    }
}

impl Asked {
    /// Tells the answer, which holds as of `lsn`.
    pub(super) fn fill(mut self, blocks: Option<u32>, lsn: Lsn) {
        if let (Some(token), Some(writer)) = (self.token.take(), self.sizes.lock().as_mut()) {
            writer.fill(token, blocks, lsn);
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(token) = self.token.take() else { return };
        if let Some(writer) = self.sizes.lock().as_mut() {
            writer.drop_asked(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmuring::backend::Backend;
    use shmuring::lsn::shards::Sharding;
    use shmuring::region::{Options, Region};
    use shmuring::request::{Opcode, Request};
    use shmuring::slot::State;

    const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 9, fork: 0 };

    /// What is known of a fork that was extended while nothing was known of it, and whose size somebody then reads.
    fn known_after_a_read(ingest: Ingest) -> Option<Option<u32>> {
        let options = Options { rel_sizes: 64, bounce_per_slot: 0, ..Options::new(2) };
        let region: &'static Region = Box::leak(Box::new(Region::create_private(&options).unwrap()));
        let (mut communicator, _) = Communicator::take_role(region, Box::leak(Box::new(region.parts()))).unwrap();
        let sizes = RelSizes::of(&mut communicator, ingest);
        let mut backend = Backend::attach(region, 0, 1).unwrap();
        let zero_extend = Request { block: 9, arg: 1, lsn: 200, ..Request::new(Opcode::ZeroExtend, REL) };
        let filled = backend.fill(0, &zero_extend).unwrap();
        backend.submit(filled).unwrap();
        let mut claims = Vec::new();
        communicator.sweep(State::Processing, |claim| claims.push(claim));
        let pending = sizes.begin(claims.iter().map(|claim| (claim.job(), false)));
        sizes.finish(pending, &[Ok(10)]);
        // A reader of old data: it may be told the size from before.
        sizes.ask(REL).fill(Some(9), 100);
        sizes.known(REL)
    }

    #[test]
    fn a_read_that_outlives_the_role_leaves_the_sizes_alone() {
        let options = Options { rel_sizes: 64, bounce_per_slot: 0, ..Options::new(2) };
        let region: &'static Region = Box::leak(Box::new(Region::create_private(&options).unwrap()));
        let parts: &'static _ = Box::leak(Box::new(region.parts()));
        let backend = Backend::attach(region, 0, 1).unwrap();
        for closes in [false, true] {
            let (mut communicator, _) = Communicator::take_role(region, parts).unwrap();
            let sizes = RelSizes::of(&mut communicator, Ingest::Immediate);
            let asked = sizes.ask(REL);
            if closes {
                sizes.close();
            }
            drop(communicator);
            // A successor has the role, and has emptied the sizes.
            let (successor, _) = Communicator::take_role(region, parts).unwrap();
            asked.fill(Some(9), 100);
            assert_eq!(backend.cached_rel_size(REL).is_some(), !closes, "the test sees what would be wrong");
            drop(successor);
        }
    }

    #[test]
    fn what_a_service_that_lags_says_of_a_size_is_for_nobody_else() {
        assert_eq!(known_after_a_read(Ingest::Lags { sharding: Sharding::NONE, floor: 0 }), None);
        assert_eq!(known_after_a_read(Ingest::Immediate), Some(Some(9)), "it never says a size from before");
    }
}
