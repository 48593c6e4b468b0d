//! Of the client of page servers, what has no network in it.

#[path = "../../../communicator/src/service/grpc/check.rs"]
pub mod check;
#[path = "../../../communicator/src/service/grpc/errors.rs"]
mod errors;
#[path = "../../../communicator/src/service/grpc/plan.rs"]
mod plan;
#[path = "../../../communicator/src/service/grpc/spec.rs"]
pub mod spec;

pub use spec::GrpcSpec;

use super::{MutationRequest, Result, ServiceError};
use crate::wire::proto::page_api::GetPageStatusCode;
use shmuring::lsn::shards::Sharding;
use tonic::Status;

/// A group of mutations on its way to the shards and back.
pub struct Journey(plan::Plan, plan::Outcome);

impl Journey {
    pub fn new(group: &[MutationRequest], sharding: Sharding) -> Self {
        Self(plan::Plan::of(group, sharding), plan::Outcome::new(group.len()))
    }

    pub fn take(&mut self, shard: usize) -> Vec<(usize, MutationRequest)> {
        self.0.take(shard, &self.1)
    }

    pub fn add(&mut self, part: &Vec<(usize, MutationRequest)>, results: Result<Vec<Result<u64>>>) {
        self.1.add(part, results);
    }

    pub fn results(self) -> Vec<Result<u64>> {
        self.1.results()
    }
}

fn about() -> errors::About {
    errors::About { server: "http://a:1".into(), shard: 1, shards: 2, what: "block 7".into(), attempt: 1 }
}

pub fn of_status(status: &Status) -> ServiceError {
    errors::of_status(&about(), status)
}

pub fn of_code(code: GetPageStatusCode, reason: &str, gave_up: bool) -> ServiceError {
    errors::of_code(&about(), code, reason, gave_up)
}
