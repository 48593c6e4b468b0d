//! Of the communicator's module `service`, what takes answers and makes requests.

#[path = "../../../communicator/src/service/error.rs"]
mod error;
#[path = "grpc.rs"]
pub mod grpc;
#[path = "../../../communicator/src/service/request.rs"]
mod request;
#[path = "../../../communicator/src/service/spec.rs"]
pub mod spec;
#[path = "standby.rs"]
pub mod standby;

pub(crate) use error::Rel;
pub use error::{Result, Retry, ServiceError};
pub use request::{Mutation, MutationRequest, Read, ReadLsn, What, PAGE_SIZE};
