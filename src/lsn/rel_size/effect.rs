//! What each mutation does to the size of its fork: the same for every communicator.

use super::Outcome;
use crate::request::{Job, Opcode};

/// What the size of `job.rel` comes to if the mutation succeeds; one that fails leaves [`Outcome::Unknown`]. `None`: it
/// changes no size. `may_have_run`: an earlier attempt may have been applied.
#[must_use]
pub fn effect(job: &Job, may_have_run: bool) -> Option<Outcome> {
    let (block, lsn) = (job.block, job.lsn);
    Some(match job.opcode {
        Opcode::Extend => Outcome::Raise(block.saturating_add(1), lsn),
        Opcode::ZeroExtend => Outcome::Raise(block.saturating_add(job.arg), lsn),
        Opcode::Truncate => Outcome::Lower(block, lsn),
        Opcode::UpdateRelSize => Outcome::Set(block, lsn),
        Opcode::Unlink => Outcome::Remove(lsn),
        // It may have found what an earlier attempt, or somebody else, had made and filled.
        Opcode::Create if may_have_run => Outcome::Unknown,
        Opcode::Create => Outcome::Set(0, lsn),
        Opcode::WritePage | Opcode::Sync => return None,
        Opcode::Nop
        | Opcode::GetPage
        | Opcode::GetPageAt
        | Opcode::Prefetch
        | Opcode::RelSize
        | Opcode::RelExists
        | Opcode::DbSize
        | Opcode::ReadSlru => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::request::{RawExtra, RawRequest};

    fn job(opcode: Opcode) -> Job {
        let mut job = RawRequest::default().decode(&RawExtra::default(), None).unwrap();
        (job.opcode, job.block, job.arg, job.lsn) = (opcode, 9, 5, 70);
        job
    }

    #[test]
    fn every_opcode_that_changes_a_size_says_to_what() {
        for opcode in Opcode::ALL {
            let wanted = match opcode {
                Opcode::Extend => Some(Outcome::Raise(10, 70)),
                Opcode::ZeroExtend => Some(Outcome::Raise(14, 70)),
                Opcode::Truncate => Some(Outcome::Lower(9, 70)),
                Opcode::UpdateRelSize => Some(Outcome::Set(9, 70)),
                Opcode::Unlink => Some(Outcome::Remove(70)),
                _ => None,
            };
            if opcode != Opcode::Create {
                assert_eq!(effect(&job(opcode), false), wanted, "{}", opcode.name());
                assert_eq!(effect(&job(opcode), true), wanted, "{}, again", opcode.name());
            }
        }
    }

    #[test]
    fn a_create_makes_an_empty_fork_only_if_it_cannot_have_found_one() {
        let create = job(Opcode::Create);
        assert_eq!(effect(&create, false), Some(Outcome::Set(0, 70)));
        assert_eq!(effect(&create, true), Some(Outcome::Unknown));
    }
}
