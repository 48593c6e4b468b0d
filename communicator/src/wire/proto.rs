//! What `ci/proto.sh` makes of `communicator/proto/`.
#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::nursery, rustdoc::all)]

/// The page service.
pub mod page_api {
    include!("../../proto/page_api.rs");
}

/// Our service for writes, beside it.
pub mod write {
    include!("../../proto/shmuring.write.v1.rs");
}
