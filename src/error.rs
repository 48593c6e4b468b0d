//! Every way in which a call of this library can fail, and its errno.
//!
//! Misuse and bad memory are told before anything shared changes. What a request itself came to (no such relation, disk
//! full, ...) is not an [`Error`]: it is the errno in its [`crate::request::Completion`].

use core::fmt;

/// Result of the calls of this library.
pub type Result<T> = core::result::Result<T, Error>;

/// Why a call was refused or a wait ended. Closed: the C header lists the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Error {
    /// The region is shorter than its header says, or than a header is.
    TooShort,
    /// The bytes are not a region of shmuring, or its creator has not finished it.
    WrongMagic,
    /// The region was made by another ABI version of this library.
    WrongAbi,
    /// The region was made by a build whose structures have another layout.
    WrongLayout,
    /// The region needs a feature that this build does not know.
    UnknownFeature,
    /// Sizes or offsets in the header overflow, overlap or contradict each other.
    BadGeometry,
    /// The region was made in another time namespace, so that its deadlines mean nothing here.
    ForeignClock,
    /// The lock file is not the one that the region was made with, so that it would prove nothing about who lives.
    WrongLockFile,
    /// The memory handed over is null, misaligned or too small for the region asked for.
    BadMemory,
    /// A region of that name exists already, and is not what was asked for.
    Exists,

    /// A slot number that is outside the region, or outside the range that the caller owns.
    BadSlot,
    /// A pool that is not registered, or that disagrees with what another process registered.
    BadPool,
    /// A buffer index that is outside its pool, not the slot's to use, or named twice.
    BadBuffer,
    /// Zero blocks, or more than a request can carry, or block numbers that overflow.
    BadCount,
    /// An opcode that does not exist.
    BadOpcode,
    /// Unknown flags, a reserved field that is not zero, or an argument that its opcode does not take.
    BadRequest,
    /// The slot is in use, or not yet given back after a cancel.
    SlotBusy,
    /// The slot is not Filling, so there is nothing to submit.
    NotFilling,
    /// The reference names an old generation of its slot.
    Stale,
    /// The request is not finished yet, so it has no result to take.
    NotCompleted,
    /// Every slot of the range is in use, or waits for the communicator to give it back after a cancel.
    NoFreeSlot,
    /// Every bounce buffer of the range is in use.
    NoFreeBuffer,
    /// More words than one wait can watch (128).
    TooMany,
    /// The handle belongs to another process: it was carried over a fork.
    WrongProcess,

    /// Another living process owns (part of) that slot range.
    OwnerAlive,
    /// A living communicator holds the role.
    RoleHeld,
    /// A living server holds the region.
    LifeHeld,

    /// The deadline of the wait passed.
    TimedOut,
    /// A signal arrived, or the embedder's interrupt word changed.
    Interrupted,
    /// The deadline of the wait passed and no communicator holds the role.
    CommunicatorGone,
    /// A mutation that the communicator has claimed cannot be cancelled; wait for it.
    InProgress,
    /// The request was complete before it could be cancelled; take its result.
    AlreadyCompleted,

    /// A system call failed with this errno.
    Os(i32),
}

impl Error {
    /// The error of the last failed system call.
    pub(crate) fn last_os() -> Self {
        Self::from_io(&std::io::Error::last_os_error())
    }

    /// The error of a failed call of std.
    pub(crate) fn from_io(e: &std::io::Error) -> Self {
        // std makes errors without an errno only of arguments: a path with a NUL in it, for one.
        Self::Os(e.raw_os_error().unwrap_or(libc::EINVAL))
    }

    /// The positive errno that stands for this error in C.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::TooShort => libc::ENODATA,
            Self::WrongMagic => libc::EMEDIUMTYPE,
            Self::WrongAbi | Self::UnknownFeature => libc::EPROTONOSUPPORT,
            Self::WrongLayout => libc::EPROTO,
            Self::BadGeometry => libc::EBADMSG,
            Self::ForeignClock => libc::EXDEV,
            Self::WrongLockFile => libc::ENOLCK,
            Self::BadMemory => libc::EFAULT,
            Self::Exists => libc::EEXIST,
            Self::BadSlot | Self::BadPool | Self::BadBuffer | Self::BadCount | Self::BadOpcode | Self::BadRequest => {
                libc::EINVAL
            }
            Self::SlotBusy
            | Self::NotFilling
            | Self::NotCompleted
            | Self::OwnerAlive
            | Self::RoleHeld
            | Self::LifeHeld => libc::EBUSY,
            Self::Stale => libc::ESTALE,
            Self::NoFreeSlot => libc::EAGAIN,
            Self::NoFreeBuffer => libc::ENOBUFS,
            Self::TooMany => libc::E2BIG,
            Self::WrongProcess => libc::EPERM,
            Self::TimedOut => libc::ETIMEDOUT,
            Self::Interrupted => libc::EINTR,
            Self::CommunicatorGone => libc::EOWNERDEAD,
            Self::InProgress => libc::EINPROGRESS,
            Self::AlreadyCompleted => libc::EALREADY,
            Self::Os(e) => e,
        }
    }

    /// A sentence for logs, without the errno.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::TooShort => "the region is shorter than its header says",
            Self::WrongMagic => "not a shmuring region, or not yet finished by its creator",
            Self::WrongAbi => "the region was made by another ABI version",
            Self::WrongLayout => "the region was made by a build with another layout",
            Self::UnknownFeature => "the region needs a feature that this build does not know",
            Self::BadGeometry => "sizes or offsets in the region's header are impossible",
            Self::ForeignClock => "the region was made in another time namespace",
            Self::WrongLockFile => "the lock file is not the one that the region was made with",
            Self::BadMemory => "the memory handed over is null, misaligned or too small",
            Self::Exists => "a region of that name exists and differs from what was asked for",
            Self::BadSlot => "slot number out of range",
            Self::BadPool => "buffer pool not registered, or registered otherwise elsewhere",
            Self::BadBuffer => "buffer index out of range, not owned, or named twice",
            Self::BadCount => "number of blocks out of range",
            Self::BadOpcode => "unknown opcode",
            Self::BadRequest => "unknown flag, reserved field not zero, or argument not taken by this opcode",
            Self::SlotBusy => "the slot is in use",
            Self::NotFilling => "the slot is not being filled",
            Self::Stale => "the reference names an old generation of its slot",
            Self::NotCompleted => "the request is not finished",
            Self::NoFreeSlot => "no request slot is free",
            Self::NoFreeBuffer => "no bounce buffer is free",
            Self::TooMany => "too many words to wait for at once",
            Self::WrongProcess => "the handle was carried over a fork",
            Self::OwnerAlive => "another living process owns these slots",
            Self::RoleHeld => "a living communicator holds the role",
            Self::LifeHeld => "a living server holds the region",
            Self::TimedOut => "the wait timed out",
            Self::Interrupted => "the wait was interrupted",
            Self::CommunicatorGone => "the wait timed out, and there is no communicator",
            Self::InProgress => "a claimed mutation cannot be cancelled",
            Self::AlreadyCompleted => "the request was already complete",
            Self::Os(_) => "a system call failed",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(e) => write!(f, "{}: {}", self.text(), std::io::Error::from_raw_os_error(*e)),
            _ => f.write_str(self.text()),
        }
    }
}

impl std::error::Error for Error {}
