//! Errors on the wire.
//!
//! | where | how |
//! |---|---|
//! | GetPages, one request | a status code and a reason: [`code_of`] |
//! | a read call, a stream | a gRPC status: [`status_of`] |
//! | a write | a [`Failure`]: errno, message, block, whether to try again |

use super::proto::page_api::GetPageStatusCode;
use super::proto::write::{self, Failure};
use crate::service::{Retry, ServiceError};
use tonic::{Code, Status};

/// The status code of a GetPages answer for an error.
#[must_use]
pub const fn code_of(e: &ServiceError) -> GetPageStatusCode {
    match (e.retry, e.errno) {
        (Retry::Later, libc::EBUSY) => GetPageStatusCode::SlowDown,
        (_, libc::ENOENT) => GetPageStatusCode::NotFound,
        (_, libc::EINVAL | libc::EOPNOTSUPP | libc::ERANGE) => GetPageStatusCode::InvalidRequest,
        _ => GetPageStatusCode::InternalError,
    }
}

/// The gRPC status of a call for an error. A wait for WAL that was given up is INTERNAL, as the page service has it.
#[must_use]
pub fn status_of(e: &ServiceError) -> Status {
    let code = match code_of(e) {
        GetPageStatusCode::NotFound => Code::NotFound,
        GetPageStatusCode::InvalidRequest => Code::InvalidArgument,
        GetPageStatusCode::SlowDown => Code::ResourceExhausted,
        _ => Code::Internal,
    };
    Status::new(code, e.to_string())
}

/// An error for the answer of a write.
#[must_use]
pub fn failure_out(e: &ServiceError) -> Failure {
    let retry = if e.retry == Retry::Never { write::Retry::Never } else { write::Retry::Later };
    Failure {
        errno: u32::try_from(e.errno).unwrap_or(libc::EIO as u32),
        message: e.detail.clone(),
        block_number: e.block,
        retry: retry.into(),
    }
}

/// The error of a write's answer. An errno that is none is EIO.
#[must_use]
pub fn failure_in(failure: Failure) -> ServiceError {
    let errno = i32::try_from(failure.errno).ok().filter(|n| (1..4096).contains(n)).unwrap_or(libc::EIO);
    let retry = if failure.retry() == write::Retry::Later { Retry::Later } else { Retry::Never };
    ServiceError { errno, detail: failure.message, block: failure.block_number, retry }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shmuring::request::RelTag;

    #[test]
    fn errors_of_writes_come_back_as_they_went() {
        let never = ServiceError::past_end(RelTag::default(), 9, 4);
        let later = ServiceError::new(libc::EBUSY, "too many").with_retry(Retry::Later);
        for e in [never, later] {
            assert_eq!(failure_in(failure_out(&e)), e);
        }
        let odd = Failure { errno: u32::MAX, message: "?".into(), block_number: None, retry: 7 };
        assert_eq!(failure_in(odd), ServiceError::new(libc::EIO, "?"));
        assert_eq!(failure_in(Failure::default()).errno, libc::EIO);
    }

    #[test]
    fn errors_of_reads_have_the_codes_of_the_page_service() {
        let code = |e: ServiceError| (code_of(&e), status_of(&e).code());
        let missing = ServiceError::missing_relation(RelTag::default());
        assert_eq!(code(missing), (GetPageStatusCode::NotFound, Code::NotFound));
        assert_eq!(code(ServiceError::invalid("?")), (GetPageStatusCode::InvalidRequest, Code::InvalidArgument));
        assert_eq!(code(ServiceError::not_yet(7, 1)), (GetPageStatusCode::InternalError, Code::Internal));
        assert_eq!(code(ServiceError::corrupt("?")), (GetPageStatusCode::InternalError, Code::Internal));
        let busy = ServiceError::new(libc::EBUSY, "?").with_retry(Retry::Later);
        assert_eq!(code(busy), (GetPageStatusCode::SlowDown, Code::ResourceExhausted));
    }
}
