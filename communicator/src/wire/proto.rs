//! What build.rs makes of `communicator/proto/`.
#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::nursery, rustdoc::all)]

/// The page service.
pub mod page_api {
    tonic::include_proto!("page_api");
}

/// Our service for writes, beside it.
pub mod write {
    tonic::include_proto!("shmuring.write.v1");
}
