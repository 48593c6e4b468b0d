//! What the embedder sees of the log.

use core::ffi::{c_char, c_void};

/// The levels: SHMURING_LOG_ERROR and so on.
pub(super) const ERROR: u32 = 1;
pub(super) const WARN: u32 = 2;
pub(super) const INFO: u32 = 3;
pub(super) const DEBUG: u32 = 4;
/// SHMURING_LOG_TARGET, SHMURING_LOG_TEXT.
pub(super) const TARGET: usize = 64;
pub(super) const TEXT: usize = 936;

/// A line of the log in C's words.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ApiLogRecord {
    pub(super) level: u32,
    pub(super) reserved: u32,
    pub(super) dropped: u64,
    pub(super) when: u64,
    pub(super) target: [c_char; TARGET],
    pub(super) text: [c_char; TEXT],
}

/// The embedder's function for lines.
pub(super) type Callback = unsafe extern "C" fn(*mut c_void, *const ApiLogRecord);

/// Where lines go, and up to which level.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) level: u32,
    pub(super) callback: Option<Callback>,
    pub(super) user: *mut c_void,
}

// SAFETY: the embedder has promised that its function may be called by any thread, with that pointer.
unsafe impl Send for Wanted {}
// SAFETY: as above.
unsafe impl Sync for Wanted {}
