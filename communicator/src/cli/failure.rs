//! Why a command failed: a sentence for people, and an exit code that tells scripts the kind.

use shmuring::error::Error;
use std::fmt;

/// Exit codes, for `--help`; docs/recovery.md has what to do about each.
pub(super) const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed: what the sentence on stderr says; demo, torture: a page was wrong or a request lost; serve: requests were
     left unanswered
  2  wrong usage
  3  no answer in time
  4  no communicator serves the region, or there is no region
  5  refused: a living process has it, or it is there already
  6  the page service answered with an error: no such relation, a block past the end, disk full, ...
  7  compare: pages differ; 1 here: not everything could be compared";

/// Why a command failed: a sentence for people.
pub(super) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A kind that scripts tell from others; its number is the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No answer in time.
    TimedOut = 3,
    /// Nobody serves the region, or there is none.
    NoCommunicator = 4,
    /// A living process has it, or it is there already.
    Refused = 5,
    /// The page service said no.
    Answered = 6,
}

/// A failure of a kind.
#[derive(Debug)]
struct Told {
    kind: Kind,
    text: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Told {}

impl Kind {
    /// A failure of this kind.
    pub(super) fn because(self, text: impl fmt::Display) -> Failure {
        Box::new(Told { kind: self, text: text.to_string() })
    }
}

/// A failure of the kind that an error of the library is.
pub(super) fn of(e: Error, text: impl fmt::Display) -> Failure {
    let kind = match e {
        Error::TimedOut | Error::InProgress => Kind::TimedOut,
        Error::CommunicatorGone => Kind::NoCommunicator,
        Error::NoFreeSlot | Error::OwnerAlive | Error::RoleHeld | Error::LifeHeld => Kind::Refused,
        _ => return text.to_string().into(),
    };
    kind.because(text)
}

/// The exit code of a failure.
pub(super) fn exit_code(failure: &Failure) -> u8 {
    failure.downcast_ref::<Told>().map_or(1, |told| told.kind as u8)
}
