//! Of our page server, what judges requests before they touch the store.

#[path = "../../../communicator/src/page_server/gate.rs"]
mod gate;
#[path = "../../../communicator/src/page_server/record.rs"]
mod record;
#[path = "../../../communicator/src/page_server/terms.rs"]
mod terms;

pub use record::Shard;

use crate::service::{MutationRequest, ReadLsn, Result};
use crate::wire::metadata::Id;
use crate::wire::mutation::Term;
use crate::wire::proto::{page_api, write};
use shmuring::request::{Lsn, RelTag};
use tonic::metadata::MetadataMap;

/// A server of one shard, without a token file.
pub struct Server(gate::Gate);

impl Server {
    pub fn new(shard: Shard, tenant: Option<Id>, timeline: Option<Id>) -> Self {
        Self(gate::Gate::new(shard, tenant, timeline, None).unwrap())
    }

    pub fn admit(&self, metadata: &MetadataMap) -> std::result::Result<(), tonic::Status> {
        self.0.admit(metadata)
    }

    pub fn pages(&self, request: page_api::GetPageRequest) -> Result<(RelTag, ReadLsn, Vec<u32>)> {
        self.0.check_pages(request).map(|p| (p.rel, p.lsns, p.blocks))
    }

    pub fn group(&self, request: write::ApplyRequest) -> Result<(Term, Lsn, Vec<Result<MutationRequest>>)> {
        self.0.check_group(request).map(|g| (g.term, g.written, g.mutations))
    }
}

pub fn may_fence(term: Term, last: Option<Term>) -> Result<()> {
    terms::check_fence(term, last)
}

pub fn may_write(term: Term, last: Option<Term>) -> Result<()> {
    terms::check_term(term, last)
}
