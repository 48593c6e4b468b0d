//! Mutations on the wire, and who sends them.

use super::proto::write::{self, mutation::Change};
use crate::service::{Mutation, MutationRequest, Result, ServiceError, PAGE_SIZE};
use shmuring::request::RelTag;

/// Who writes: a region, the life of its server, the term of its communicator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// The region's own name, chosen at random when it was made.
    pub region: u128,
    /// The server's life.
    pub life: u32,
    /// The communicator's term.
    pub epoch: u32,
}

impl Term {
    /// For the wire.
    #[must_use]
    pub fn out(self) -> write::Term {
        let region = self.region.to_be_bytes().to_vec().into();
        write::Term { region, life: self.life, epoch: self.epoch }
    }

    /// From the wire; EINVAL if it is missing or its region is not 16 bytes.
    pub fn read(term: Option<write::Term>) -> Result<Self> {
        let term = term.ok_or_else(|| ServiceError::invalid("no term is named"))?;
        let region = <[u8; 16]>::try_from(term.region.as_ref());
        let region = region.map_err(|_| ServiceError::invalid("a region's name is 16 bytes"))?;
        Ok(Self { region: u128::from_be_bytes(region), life: term.life, epoch: term.epoch })
    }
}

const fn rel_out(rel: RelTag) -> write::RelTag {
    let RelTag { spc_oid, db_oid, rel_number, fork } = rel;
    write::RelTag { spc_oid, db_oid, rel_number, fork_number: fork as u32 }
}

fn rel_in(rel: Option<write::RelTag>) -> Result<RelTag> {
    super::read::rel_in(rel.map(|r| super::proto::page_api::RelTag {
        spc_oid: r.spc_oid,
        db_oid: r.db_oid,
        rel_number: r.rel_number,
        fork_number: r.fork_number,
    }))
}

/// A mutation for the wire.
#[must_use]
pub fn mutation_out(request: &MutationRequest) -> write::Mutation {
    let (rel, change) = match &request.mutation {
        Mutation::WritePage { rel, block, pages, .. } => {
            (rel, Change::WritePage(write::WritePage { block_number: *block, pages: pages.clone().into() }))
        }
        Mutation::Extend { rel, block, page, .. } => {
            (rel, Change::Extend(write::Extend { block_number: *block, page: page.clone().into() }))
        }
        Mutation::ZeroExtend { rel, block, count, .. } => {
            (rel, Change::ZeroExtend(write::ZeroExtend { block_number: *block, count: *count }))
        }
        Mutation::Create { rel, .. } => (rel, Change::Create(write::Create {})),
        Mutation::Truncate { rel, blocks, .. } => (rel, Change::Truncate(write::Truncate { num_blocks: *blocks })),
        Mutation::Unlink { rel, .. } => (rel, Change::Unlink(write::Unlink {})),
        Mutation::UpdateRelSize { rel, blocks, .. } => {
            (rel, Change::UpdateRelSize(write::UpdateRelSize { num_blocks: *blocks }))
        }
    };
    write::Mutation {
        rel: Some(rel_out(*rel)),
        lsn: request.mutation.lsn(),
        first_attempt: request.first_attempt,
        change: Some(change),
    }
}

/// A mutation from the wire; EINVAL if anything is missing or its pages are not whole.
pub fn mutation_in(mutation: write::Mutation) -> Result<MutationRequest> {
    let write::Mutation { rel, lsn, first_attempt, change } = mutation;
    let rel = rel_in(rel)?;
    let mutation = match change.ok_or_else(|| ServiceError::invalid("a mutation that changes nothing"))? {
        Change::WritePage(w) => {
            let pages = whole(w.pages, usize::MAX)?;
            Mutation::WritePage { rel, block: w.block_number, lsn, pages }
        }
        Change::Extend(e) => Mutation::Extend { rel, block: e.block_number, lsn, page: whole(e.page, 1)? },
        Change::ZeroExtend(z) => Mutation::ZeroExtend { rel, block: z.block_number, count: z.count, lsn },
        Change::Create(_) => Mutation::Create { rel, lsn },
        Change::Truncate(t) => Mutation::Truncate { rel, blocks: t.num_blocks, lsn },
        Change::Unlink(_) => Mutation::Unlink { rel, lsn },
        Change::UpdateRelSize(u) => Mutation::UpdateRelSize { rel, blocks: u.num_blocks, lsn },
    };
    Ok(MutationRequest { mutation, first_attempt })
}

/// From one page to `most`.
fn whole(pages: bytes::Bytes, most: usize) -> Result<Vec<u8>> {
    let count = pages.len() / PAGE_SIZE;
    if !pages.len().is_multiple_of(PAGE_SIZE) || count == 0 || count > most {
        return Err(ServiceError::invalid(format!("{} bytes are not whole pages", pages.len())));
    }
    Ok(pages.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 9, fork: 2 };

    #[test]
    fn mutations_come_back_from_the_wire_as_they_went() {
        let (rel, lsn) = (REL, 77);
        let all = [
            Mutation::WritePage { rel, block: 3, lsn, pages: vec![1; 2 * PAGE_SIZE] },
            Mutation::Extend { rel, block: 3, lsn, page: vec![2; PAGE_SIZE] },
            Mutation::ZeroExtend { rel, block: 3, count: 4, lsn },
            Mutation::Create { rel, lsn },
            Mutation::Truncate { rel, blocks: 3, lsn },
            Mutation::Unlink { rel, lsn },
            Mutation::UpdateRelSize { rel, blocks: 3, lsn },
        ];
        for request in all.into_iter().flat_map(|m| [MutationRequest::first(m.clone()), MutationRequest::again(m)]) {
            assert_eq!(mutation_in(mutation_out(&request)), Ok(request));
        }
        let term = Term { region: 1 << 127 | 5, life: 3, epoch: u32::MAX };
        assert_eq!(Term::read(Some(term.out())), Ok(term));
    }

    #[test]
    fn mutations_that_are_not_whole_are_refused() {
        let good = mutation_out(&MutationRequest::first(Mutation::Create { rel: REL, lsn: 0 }));
        assert!(mutation_in(write::Mutation { rel: None, ..good.clone() }).is_err());
        assert!(mutation_in(write::Mutation { change: None, ..good.clone() }).is_err());
        for pages in [0, 1, PAGE_SIZE - 1, PAGE_SIZE + 1] {
            let change = Change::WritePage(write::WritePage { block_number: 0, pages: vec![0; pages].into() });
            assert!(mutation_in(write::Mutation { change: Some(change), ..good.clone() }).is_err(), "{pages}");
        }
        let two = Change::Extend(write::Extend { block_number: 0, page: vec![0; 2 * PAGE_SIZE].into() });
        assert!(mutation_in(write::Mutation { change: Some(two), ..good }).is_err());
        assert!(Term::read(None).is_err());
        assert!(Term::read(Some(write::Term { region: Bytes::from_static(b"short"), life: 1, epoch: 1 })).is_err());
    }
}
