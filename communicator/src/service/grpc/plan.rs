//! What each shard hears of a group of mutations, and what its results come to.

use crate::service::{Mutation, MutationRequest, Result, ServiceError, PAGE_SIZE};
use shmuring::lsn::shards::Sharding;
use shmuring::request::RelTag;

/// Mutations for one shard, each with the index of the one that it is a part of.
pub(super) type Part = Vec<(usize, MutationRequest)>;

/// A group, by shard.
pub(super) struct Plan {
    parts: Vec<Part>,
}

impl Plan {
    pub(super) fn of(group: &[MutationRequest], sharding: Sharding) -> Self {
        let count = usize::from(sharding.count.max(1));
        let mut plan = Self { parts: vec![Vec::new(); count] };
        for (index, request) in group.iter().enumerate() {
            plan.add(index, request, sharding);
        }
        plan
    }

    fn push(&mut self, shard: usize, index: usize, request: MutationRequest) {
        if let Some(part) = self.parts.get_mut(shard) {
            part.push((index, request));
        }
    }

    /// On other shards than the first what is there already, or missing already, is as good: shard 0 decides.
    fn push_to_all(&mut self, index: usize, all: usize, request: &MutationRequest) {
        for shard in 1..all {
            self.push(shard, index, MutationRequest::again(request.mutation.clone()));
        }
        self.push(0, index, request.clone());
    }

    fn add(&mut self, index: usize, request: &MutationRequest, sharding: Sharding) {
        let all = |rel: &RelTag| if sharding.spreads(*rel) { usize::from(sharding.count) } else { 1 };
        match &request.mutation {
            _ if self.parts.len() == 1 => self.push(0, index, request.clone()),
            Mutation::WritePage { rel, block, lsn, pages } => {
                for (shard, from, to) in runs(*rel, *block, pages.len() / PAGE_SIZE, sharding) {
                    let pages = pages.get(from * PAGE_SIZE..to * PAGE_SIZE).unwrap_or_default().to_vec();
                    let mutation = Mutation::WritePage { rel: *rel, block: block + from as u32, lsn: *lsn, pages };
                    self.push(shard, index, MutationRequest { mutation, first_attempt: request.first_attempt });
                }
            }
            Mutation::Extend { rel, block, lsn, .. } => {
                let owner = usize::from(sharding.block(*rel, *block));
                let grow = Mutation::ZeroExtend { rel: *rel, block: *block, count: 1, lsn: *lsn };
                let grow = MutationRequest { mutation: grow, first_attempt: request.first_attempt };
                for shard in 0..all(rel) {
                    self.push(shard, index, if shard == owner { request.clone() } else { grow.clone() });
                }
            }
            Mutation::ZeroExtend { rel, .. }
            | Mutation::Create { rel, .. }
            | Mutation::Truncate { rel, .. }
            | Mutation::Unlink { rel, .. }
            | Mutation::UpdateRelSize { rel, .. } => self.push_to_all(index, all(rel), request),
        }
    }

    /// What a shard hears, without what failed elsewhere.
    pub(super) fn take(&mut self, shard: usize, outcome: &Outcome) -> Part {
        let mut part = self.parts.get_mut(shard).map(core::mem::take).unwrap_or_default();
        part.retain(|(index, _)| outcome.is_good(*index));
        part
    }
}

/// Runs of blocks that lie on one shard: the shard, and from which of the blocks to which.
fn runs(rel: RelTag, block: u32, count: usize, sharding: Sharding) -> Vec<(usize, usize, usize)> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for (i, block) in (0..count).zip(block..=u32::MAX) {
        let shard = usize::from(sharding.block(rel, block));
        match runs.last_mut() {
            Some(run) if run.0 == shard => run.2 = i + 1,
            _ => runs.push((shard, i, i + 1)),
        }
    }
    runs
}

/// What each mutation of a group has come to so far.
pub(super) struct Outcome {
    results: Vec<Option<Result<u64>>>,
}

impl Outcome {
    pub(super) fn new(count: usize) -> Self {
        Self { results: vec![None; count] }
    }

    fn is_good(&self, index: usize) -> bool {
        !matches!(self.results.get(index), Some(Some(Err(_))))
    }

    /// The results of a part. The first error of a mutation stays; the parts of a write add up; of all else the one that
    /// came last, which is shard 0's, counts.
    pub(super) fn add(&mut self, part: &Part, results: Result<Vec<Result<u64>>>) {
        let mut results = match results {
            Ok(results) => results.into_iter(),
            Err(e) => vec![Err(e); part.len()].into_iter(),
        };
        for (index, request) in part {
            let (Some(so_far), Some(result)) = (self.results.get_mut(*index), results.next()) else { return };
            let is_write = matches!(request.mutation, Mutation::WritePage { .. });
            *so_far = Some(match (so_far.take(), result) {
                (Some(Err(e)), _) | (_, Err(e)) => Err(e),
                // Saturating: a server may say any number.
                (Some(Ok(a)), Ok(b)) if is_write => Ok(a.saturating_add(b)),
                (_, Ok(b)) => Ok(b),
            });
        }
    }

    /// One for each mutation.
    pub(super) fn results(self) -> Vec<Result<u64>> {
        let none = || Err(ServiceError::new(libc::EIO, "no shard gave a result"));
        self.results.into_iter().map(|r| r.unwrap_or_else(none)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 9, fork: 0 };
    const SHARDING: Sharding = Sharding { count: 3, stripe: 4 };

    fn parts(mutation: Mutation) -> Vec<Part> {
        Plan::of(&[MutationRequest::first(mutation)], SHARDING).parts
    }

    #[test]
    fn each_page_goes_to_its_shard_once() {
        let pages: Vec<u8> = (0..64u8).flat_map(|b| vec![b; PAGE_SIZE]).collect();
        let parts = parts(Mutation::WritePage { rel: REL, block: 2, lsn: 5, pages });
        let mut seen = Vec::new();
        for (shard, (_, request)) in parts.iter().enumerate().flat_map(|(s, p)| p.iter().map(move |r| (s, r))) {
            let Mutation::WritePage { block, pages, .. } = &request.mutation else { panic!("{request:?}") };
            for (block, page) in (*block..).zip(pages.chunks(PAGE_SIZE)) {
                assert_eq!((usize::from(SHARDING.block(REL, block)), page[0]), (shard, block as u8 - 2));
                seen.push(block);
            }
        }
        seen.sort_unstable();
        assert!(seen.into_iter().eq(2..66) && parts.iter().all(|p| !p.is_empty()));
    }

    #[test]
    fn all_shards_hear_of_sizes_and_shard_0_decides() {
        let page = vec![1; PAGE_SIZE];
        for (shard, part) in parts(Mutation::Extend { rel: REL, block: 9, lsn: 5, page }).iter().enumerate() {
            let owns = usize::from(SHARDING.block(REL, 9)) == shard;
            assert_eq!(matches!(part[0].1.mutation, Mutation::Extend { .. }), owns, "shard {shard}");
        }
        let first: Vec<_> = parts(Mutation::Create { rel: REL, lsn: 5 }).iter().map(|p| p[0].1.first_attempt).collect();
        assert_eq!(first, [true, false, false]);
        let init = parts(Mutation::Create { rel: RelTag { fork: 3, ..REL }, lsn: 5 });
        assert_eq!(init.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 0]);
    }

    #[test]
    fn what_failed_on_one_shard_does_not_reach_shard_0() {
        let group = [Mutation::Create { rel: REL, lsn: 0 }, Mutation::Truncate { rel: REL, blocks: 2, lsn: 0 }]
            .map(MutationRequest::first);
        let mut plan = Plan::of(&group, SHARDING);
        let mut outcome = Outcome::new(2);
        let part = plan.take(1, &outcome);
        outcome.add(&part, Ok(vec![Err(ServiceError::no_space("full")), Ok(1)]));
        let part = plan.take(0, &outcome);
        assert_eq!(part.iter().map(|p| p.0).collect::<Vec<_>>(), [1]);
        outcome.add(&part, Ok(vec![Ok(2)]));
        let results = outcome.results();
        assert_eq!(results[0].as_ref().unwrap_err().errno, libc::ENOSPC);
        assert_eq!(results[1], Ok(2));
    }

    #[test]
    fn no_number_of_a_server_is_too_large() {
        let write = Mutation::WritePage { rel: REL, block: 2, lsn: 5, pages: vec![0; 64 * PAGE_SIZE] };
        let mut plan = Plan::of(&[MutationRequest::first(write)], SHARDING);
        let mut outcome = Outcome::new(1);
        for shard in [1, 0] {
            let part = plan.take(shard, &outcome);
            assert!(!part.is_empty());
            outcome.add(&part, Ok(vec![Ok(u64::MAX); part.len()]));
        }
        assert_eq!(outcome.results(), [Ok(u64::MAX)]);
    }
}
