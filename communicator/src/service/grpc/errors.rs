//! What a server's word means, in errors that name the server, the shard, what was asked and the attempt.

use crate::service::{Retry, ServiceError};
use crate::wire::proto::page_api::GetPageStatusCode;
use std::fmt;
use tonic::{Code, Status};

/// What a call was about, for its errors.
#[derive(Clone, Debug)]
pub(super) struct About {
    pub(super) server: String,
    pub(super) shard: usize,
    pub(super) shards: usize,
    /// What was asked, with its LSNs.
    pub(super) what: String,
    /// Attempts with this one.
    pub(super) attempt: u32,
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { server, shard, shards, what, attempt } = self;
        write!(f, "{server} (shard {shard} of {shards}): {what}, attempt {attempt}")
    }
}

/// Whether a status is about the connection, and no word of the server's on the call.
pub(super) fn is_of_connection(status: &Status) -> bool {
    use std::error::Error;
    status.code() == Code::Unavailable || status.source().is_some()
}

/// The server's answer breaks the protocol: EPROTO. Never a page.
pub(super) fn broken(about: &About, why: impl fmt::Display) -> ServiceError {
    ServiceError::new(libc::EPROTO, format!("{about}: {why}")).with_retry(Retry::Later)
}

/// No answer came in time: ETIMEDOUT.
pub(super) fn silent(about: &About, after: std::time::Duration) -> ServiceError {
    let what = format!("{about}: no answer within {} ms", after.as_millis());
    ServiceError::new(libc::ETIMEDOUT, what).with_retry(Retry::Reconnect)
}

/// A status that ended a call or a stream.
pub(super) fn of_status(about: &About, status: &Status) -> ServiceError {
    let (errno, retry) = match status.code() {
        _ if is_of_connection(status) => (libc::ECONNRESET, Retry::Reconnect),
        Code::Ok => (libc::EPROTO, Retry::Later),
        Code::Aborted | Code::Cancelled => (libc::ECONNABORTED, Retry::Later),
        Code::DeadlineExceeded => (libc::ETIMEDOUT, Retry::Later),
        Code::ResourceExhausted => (libc::EBUSY, Retry::Later),
        Code::Internal | Code::Unknown => (libc::EIO, Retry::Later),
        // Of a tenant or a timeline. ENOENT would say that a relation is missing.
        Code::NotFound => (libc::ENODEV, Retry::Never),
        Code::Unauthenticated | Code::PermissionDenied => (libc::EACCES, Retry::Never),
        Code::InvalidArgument | Code::FailedPrecondition | Code::AlreadyExists => (libc::EINVAL, Retry::Never),
        Code::OutOfRange => (libc::ERANGE, Retry::Never),
        Code::Unimplemented => (libc::EOPNOTSUPP, Retry::Never),
        Code::DataLoss => (libc::EUCLEAN, Retry::Never),
        Code::Unavailable => (libc::ECONNRESET, Retry::Reconnect),
    };
    let code = status.code();
    ServiceError::new(errno, format!("{about}: {code:?}: {}", cause(status))).with_retry(retry)
}

/// What the server says of a request of a stream. An internal error may be a wait for WAL that it gave up: the protocol has
/// no code for that.
pub(super) fn of_code(about: &About, code: GetPageStatusCode, reason: &str, gave_up: bool) -> ServiceError {
    let (errno, retry) = match code {
        GetPageStatusCode::NotFound => (libc::ENOENT, Retry::Never),
        GetPageStatusCode::InvalidRequest => (libc::EINVAL, Retry::Never),
        GetPageStatusCode::SlowDown => (libc::EBUSY, Retry::Later),
        _ if gave_up => (libc::EAGAIN, Retry::NotYet),
        _ => (libc::EIO, Retry::Later),
    };
    ServiceError::new(errno, format!("{about}: {}: {reason}", code.as_str_name())).with_retry(retry)
}

/// The message, with what lies below it: tonic's own is "transport error".
fn cause(status: &Status) -> String {
    chain(status.message(), std::error::Error::source(status))
}

/// An error with what lies below it.
pub(super) fn chain(top: &str, mut below: Option<&(dyn std::error::Error + 'static)>) -> String {
    let mut text = top.to_string();
    while let Some(e) = below {
        let next = e.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        below = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_a_named_error_or_a_retry() {
        let about = About {
            server: "http://a:1".into(),
            shard: 2,
            shards: 3,
            what: "relation 1/2/3.0 block 7".into(),
            attempt: 4,
        };
        for code in 0..17 {
            let e = of_status(&about, &Status::new(Code::from_i32(code), "why"));
            assert_ne!(e.errno, libc::ENOENT, "{e}: a relation may be there");
            for word in ["http://a:1", "shard 2 of 3", "1/2/3.0 block 7", "attempt 4", "why"] {
                assert!(e.detail.contains(word), "{e}");
            }
            // Those that Neon's own client tries again.
            let again = [Code::Aborted, Code::Cancelled, Code::DeadlineExceeded, Code::ResourceExhausted];
            if again.contains(&Code::from_i32(code)) {
                assert_eq!(e.retry, Retry::Later, "{e}");
            }
        }
        assert_eq!(of_status(&about, &Status::unavailable("bye")).retry, Retry::Reconnect);
        assert_eq!(of_status(&about, &Status::unauthenticated("no")).errno, libc::EACCES);
    }
}
