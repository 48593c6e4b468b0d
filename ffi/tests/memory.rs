//! The C interface where memory ends: what promises -ENOMEM gives it, and leaves everything as it was.
#![cfg(feature = "communicator")]

#[path = "../../tests/support/scarce.rs"]
mod scarce;

use core::ffi::{c_char, c_int, c_void};
use core::ptr::null_mut;
use std::ffi::CString;

use scarce::{with, Scarce};
use shmuring::region::{Options, Region};
use shmuring_ffi::api::{ApiError, ApiInfo};
use shmuring_ffi::backend::{shmuring_backend_attach, shmuring_backend_free, ApiBackend};
use shmuring_ffi::region::{shmuring_region_attach, shmuring_region_detach, shmuring_region_info, ApiRegion};
use shmuring_ffi::server::{shmuring_server_begin, shmuring_server_end, ApiServer};

#[global_allocator]
static MEMORY: Scarce = Scarce;

extern "C" {
    fn shmuring_communicator_take_role(region: *mut c_void, out: *mut *mut c_void, err: *mut ApiError) -> c_int;
    fn shmuring_communicator_keep_sizes(c: *mut c_void, flags: u32) -> c_int;
    fn shmuring_communicator_release_role(c: *mut c_void) -> c_int;
    #[cfg(feature = "host")]
    fn shmuring_host_start(config: *const u64, out: *mut *mut c_void, err: *mut ApiError) -> c_int;
}

/// A region's handle, and what the region tells of itself.
struct Bed {
    region: *mut ApiRegion,
}

impl Bed {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shmuring-ffi-scarce-{name}-{}", std::process::id()));
        Region::create_named(&path, &Options { rel_sizes: 64, ..Options::new(8) }).unwrap();
        let name = CString::new(path.to_str().unwrap()).unwrap();
        let mut region = null_mut();
        // SAFETY: a path, and a place for the handle.
        assert_eq!(unsafe { shmuring_region_attach(name.as_ptr(), &mut region, null_mut()) }, 0);
        std::fs::remove_file(&path).unwrap();
        Self { region }
    }

    /// The number of the server's life, and that of the communicator's term.
    fn numbers(&self) -> (u32, u32) {
        let mut info = std::mem::MaybeUninit::<ApiInfo>::uninit();
        // SAFETY: a handle that lives, and a place for what it tells.
        let info = unsafe {
            assert_eq!(shmuring_region_info(self.region, info.as_mut_ptr()), 0);
            info.assume_init()
        };
        (info.life, info.epoch)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // SAFETY: a handle that nobody uses any more. It is refused if a call that failed has left a user behind.
        let detached = unsafe { shmuring_region_detach(self.region) };
        assert!(detached == 0 || std::thread::panicking());
    }
}

fn words(error: &ApiError) -> String {
    error.text.iter().take_while(|c| **c != 0).map(|c| char::from(*c as u8)).collect()
}

/// Makes a call that gets memory once, twice and so on, until it succeeds: how often it has failed. `check` looks after
/// each failure.
fn fails_until_there_is_enough(call: impl Fn(*mut ApiError) -> c_int, check: impl Fn()) -> usize {
    for times in 0..100 {
        let mut error = ApiError { code: 0, text: [0 as c_char; 252] };
        let code = with(times, || call(&mut error));
        if code >= 0 {
            return times;
        }
        assert_eq!((code, error.code), (-libc::ENOMEM, -libc::ENOMEM), "{}", words(&error));
        assert!(words(&error).contains("memory"), "{}", words(&error));
        check();
    }
    panic!("a hundred times are not enough");
}

#[test]
fn a_backend_that_there_is_no_memory_for_holds_no_slots() {
    let bed = Bed::new("backend");
    let attach = |err| {
        let mut b: *mut ApiBackend = null_mut();
        // SAFETY: a handle that lives, and a place for another, which nobody else uses.
        let code = unsafe { shmuring_backend_attach(bed.region, 0, 8, &mut b, err) };
        if code >= 0 {
            // SAFETY: as above.
            assert_eq!(unsafe { shmuring_backend_free(b) }, 0);
        }
        code
    };
    // Each failure is followed by a call that gets more: it would find the slots held.
    assert!(fails_until_there_is_enough(attach, || assert_eq!(attach(null_mut()), 8)) >= 3);
}

#[test]
fn a_life_of_a_server_that_there_is_no_memory_for_has_not_begun() {
    let bed = Bed::new("server");
    let begin = |err| {
        let mut server: *mut ApiServer = null_mut();
        // SAFETY: as above.
        let code = unsafe { shmuring_server_begin(bed.region, 7, &mut server, err) };
        if code >= 0 {
            // SAFETY: as above.
            assert_eq!(unsafe { shmuring_server_end(server) }, 0);
        }
        code
    };
    assert!(fails_until_there_is_enough(begin, || assert_eq!(bed.numbers().0, 0)) >= 1);
    assert_eq!(bed.numbers().0, 1);
}

#[test]
fn a_role_and_sizes_that_there_is_no_memory_for_can_be_asked_for_again() {
    let bed = Bed::new("role");
    let c = std::cell::Cell::new(null_mut());
    let take = |err| {
        let mut out = null_mut();
        // SAFETY: as above.
        let code = unsafe { shmuring_communicator_take_role(bed.region.cast(), &mut out, err) };
        c.set(out);
        code
    };
    assert!(fails_until_there_is_enough(take, || assert!(bed.numbers().1 == 0 && c.get().is_null())) >= 4);
    assert_eq!(bed.numbers().1, 1);
    let mut failed = 0;
    // SAFETY: as above.
    while with(failed, || unsafe { shmuring_communicator_keep_sizes(c.get(), 0) }) == -libc::ENOMEM {
        failed += 1;
        assert!(failed < 100);
    }
    assert!(failed >= 2);
    // SAFETY: as above.
    unsafe {
        assert_eq!(shmuring_communicator_keep_sizes(c.get(), 0), -libc::EALREADY);
        assert_eq!(shmuring_communicator_release_role(c.get()), 0);
    }
}

#[cfg(feature = "host")]
#[test]
fn a_host_whose_handle_there_is_no_memory_for_does_not_start() {
    let mut out = null_mut();
    let mut error = ApiError { code: 0, text: [0 as c_char; 252] };
    // SAFETY: it does not come to look at the configuration.
    let code = with(0, || unsafe { shmuring_host_start(core::ptr::null(), &mut out, &mut error) });
    assert_eq!((code, error.code, out), (-libc::ENOMEM, -libc::ENOMEM, null_mut()), "{}", words(&error));
}
