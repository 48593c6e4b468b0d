//! Which term may fence, and which may write, by which connection (R4d).

use crate::service::{Result, ServiceError};
use crate::wire::mutation::Term;

/// Whether `term` may write after the fence `last`.
pub(super) fn check_term(term: Term, last: Option<Term>) -> Result<()> {
    match last {
        Some(last) if last == term => Ok(()),
        Some(last) if last.region != term.region => Err(stale(term, last)),
        Some(last) if (term.life, term.epoch) < (last.life, last.epoch) => Err(stale(term, last)),
        _ => Err(ServiceError::invalid(format!("{} has not fenced its predecessors yet", Name(term)))),
    }
}

/// Whether `term` may fence after `last`. A region that is new takes over: its server has the store to itself.
pub(super) fn check_fence(term: Term, last: Option<Term>) -> Result<()> {
    match last {
        Some(last) if last.region == term.region && (term.life, term.epoch) < (last.life, last.epoch) => {
            Err(stale(term, last))
        }
        _ => Ok(()),
    }
}

/// Whether a connection may write after one of this number has fenced.
pub(super) fn check_attachment(attachment: u64, last: u64) -> Result<()> {
    if attachment >= last {
        return Ok(());
    }
    Err(ServiceError::stale(format!("connection {attachment} of the writer has a successor: {last}")))
}

fn stale(term: Term, last: Term) -> ServiceError {
    ServiceError::stale(format!("{} has a successor: {}", Name(term), Name(last)))
}

/// Names a term.
pub(super) struct Name(pub(super) Term);

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "region {:032x} life {} epoch {}", self.0.region, self.0.life, self.0.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn term(region: u128, life: u32, epoch: u32) -> Term {
        Term { region, life, epoch }
    }

    #[test]
    fn terms_of_a_region_only_rise_and_only_the_last_one_writes() {
        let last = Some(term(7, 3, 5));
        for (by, may_fence, writes) in [
            (term(7, 3, 5), true, Ok(())),
            (term(7, 3, 4), false, Err(libc::ESTALE)),
            (term(7, 2, 9), false, Err(libc::ESTALE)),
            (term(7, 3, 6), true, Err(libc::EINVAL)),
            (term(7, 4, 0), true, Err(libc::EINVAL)),
            (term(8, 1, 1), true, Err(libc::ESTALE)),
        ] {
            assert_eq!(check_fence(by, last).is_ok(), may_fence, "{by:?}");
            assert_eq!(check_term(by, last).map_err(|e| e.errno), writes, "{by:?}");
        }
        assert_eq!(check_term(term(7, 3, 5), None).map_err(|e| e.errno), Err(libc::EINVAL));
        assert!(check_fence(term(7, 0, 0), None).is_ok());
    }
}
