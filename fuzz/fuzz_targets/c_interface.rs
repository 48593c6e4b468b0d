//! The C interface, called as a C program would: operations of a backend, of a communicator in C, of a server's life and
//! of the region's handle, right ones and every misuse for which the headers promise an error, while an attacker writes
//! the region's bytes. Each code that comes back is one that the headers name for that call; nobody panics (a caught
//! panic counts), hangs, or touches a byte outside of the region and of what the call was given; an error leaves what the
//! call would have stored as it was; an answered claim is stale.
//!
//! `abi` the functions; `backend` and `communicator` the two sides; `tables` what a region knows.
#![no_main]

#[path = "c_interface/abi.rs"]
mod abi;
#[path = "support/attacker.rs"]
mod attacker;
#[path = "c_interface/backend.rs"]
mod backend;
#[path = "support/clock.rs"]
mod clock;
#[path = "c_interface/communicator.rs"]
mod communicator;
#[path = "c_interface/tables.rs"]
mod tables;

use std::ffi::{c_char, c_int, c_void, CString};
use std::ptr::{null, null_mut};

use abi::{ApiError, ApiInfo, ApiOptions, ApiWait, Handle};
use attacker::ground;
use libc::{EBADMSG, EBUSY, EFAULT, EINTR, EINVAL, EMEDIUMTYPE, ENODATA, ENOENT, ENOLCK, EOWNERDEAD, EPROTO};
use libc::{EPROTONOSUPPORT, ESTALE, ETIMEDOUT, EXDEV};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use shmuring::layout::{Geometry, OwnerStats, RoleStats};

const BLOCK: usize = 512;
/// Most operations of a run.
const STEPS: usize = 32;
/// What nobody stores.
const POISON: usize = 0x5555_5555_5555_5555;

/// A wait that ends for one of these reasons, besides success.
const WAITED: [c_int; 3] = [ETIMEDOUT, EINTR, EOWNERDEAD];

/// The code of a call is success, or one of the errors that the headers name for it.
#[track_caller]
fn documented(code: impl Into<i64>, errors: &[c_int]) -> Option<i64> {
    let code = code.into();
    if code >= 0 {
        return Some(code);
    }
    assert!(errors.iter().any(|e| i64::from(-e) == code), "the code {code} is not of {errors:?}");
    // SAFETY: any code may be given, and the text is copied before the next call.
    let text = unsafe { std::ffi::CStr::from_ptr(abi::shmuring_strerror(code as c_int)) };
    assert!(!text.is_empty());
    None
}

/// A place for what a call stores, and for why it did not.
struct Out {
    handle: Handle,
    error: ApiError,
}

impl Out {
    fn new() -> Self {
        Self { handle: POISON as Handle, error: ApiError { code: 1, text: [0x55; 252] } }
    }

    /// Calls with both places, or without one, and checks both.
    #[track_caller]
    fn of(
        u: &mut Unstructured<'_>,
        errors: &[c_int],
        call: impl FnOnce(*mut Handle, *mut ApiError) -> c_int,
    ) -> Result<Option<Handle>> {
        let mut out = Self::new();
        let (has_out, has_error) = (!u.ratio(1, 16)?, !u.ratio(1, 4)?);
        let to = if has_out { &raw mut out.handle } else { null_mut() };
        let code = call(to, if has_error { &raw mut out.error } else { null_mut() });
        if !has_out {
            assert_eq!(code, -EFAULT, "without a place for the handle");
        } else if documented(code, errors).is_some() {
            assert!(out.handle as usize != POISON && !out.handle.is_null());
            assert!(out.error.code == 1 && out.error.text == [0x55; 252], "an error is told of a success");
            return Ok(Some(out.handle));
        }
        assert_eq!(out.handle as usize, POISON, "something is stored after an error");
        if has_error {
            assert_eq!((out.error.code, out.error.text[251]), (code, 0));
            assert_ne!(out.error.text[0], 0);
        }
        Ok(None)
    }
}

/// A wait of no time or of some microseconds, perhaps with an interrupt word; `None`: one that is refused.
fn a_wait(u: &mut Unstructured<'_>) -> Result<(ApiWait, bool)> {
    static QUIET: c_int = 0;
    static RAISED: c_int = 1;
    // SAFETY: an out parameter of our own.
    let now = unsafe {
        let mut ts = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut ts);
        ts.tv_sec as u64 * 1_000_000_000 + ts.tv_nsec as u64
    };
    let until = if u.ratio(1, 4)? { now + 5000 } else { u64::from(u.arbitrary::<bool>()?) };
    let interrupt = *u.choose(&[null(), null(), &raw const QUIET, &raw const RAISED])?;
    let reserved = u64::from(u.ratio(1, 32)?);
    Ok((ApiWait { until, interrupt, reserved }, reserved == 0))
}

/// Runs a call in another thread of this process.
fn elsewhere<R: Send>(call: impl FnOnce() -> R) -> R {
    struct Carried<T>(T);
    // SAFETY: the thread that made it waits meanwhile.
    unsafe impl<T> Send for Carried<T> {}
    impl<T: FnOnce() -> R, R> Carried<T> {
        fn run(self) -> R {
            (self.0)()
        }
    }
    let call = Carried(call);
    std::thread::scope(|s| s.spawn(move || call.run()).join().unwrap())
}

/// Who works on the region while it changes.
struct World {
    geometry: Geometry,
    base: usize,
    region: Handle,
    /// Handles that were made from it and are not freed.
    users: u32,
    backend: backend::Side,
    communicator: communicator::Side,
    server: Option<Handle>,
    pool: Vec<u8>,
    /// Nobody has written the region's bytes but those who may.
    is_undisturbed: bool,
}

impl World {
    fn server(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let region = self.region;
        let (wait, is_good) = a_wait(u)?;
        match (self.server, u.int_in_range(0..=2)?) {
            (Some(server), 0) => {
                // SAFETY: a handle that lives, and ends with this.
                assert_eq!(unsafe { abi::shmuring_server_end(server) }, 0);
                self.server = None;
                self.users -= 1;
            }
            (Some(server), 1) => {
                // SAFETY: a handle that lives, and a wait of ours.
                let code = unsafe { abi::shmuring_server_settle(server, &wait) };
                // A word that changes under the call is told as what it has become.
                let errors = [ETIMEDOUT, EINTR, EOWNERDEAD, EBUSY, ESTALE, if is_good { EBUSY } else { EINVAL }];
                documented(code, &errors);
            }
            (held, _) => {
                // SAFETY: a handle that lives, and places of ours.
                let made = Out::of(u, &[EBUSY], |out, err| unsafe { abi::shmuring_server_begin(region, 7, out, err) })?;
                assert!(made.is_none() || held.is_none(), "two lives at once");
                self.users += u32::from(made.is_some());
                self.server = made.or(held);
            }
        }
        Ok(())
    }

    /// What the region's handle tells, and what it refuses while others use it.
    fn look(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let region = if u.ratio(1, 16)? { null_mut() } else { self.region };
        let slot = u.int_in_range(0..=self.geometry.slots + 1)?;
        // SAFETY: null or a handle that lives, and places of ours.
        unsafe {
            let mut info = std::mem::zeroed::<ApiInfo>();
            let mut role = [0; size_of::<RoleStats>() / 8];
            let mut owner = [0; size_of::<OwnerStats>() / 8];
            match u.int_in_range(0..=5)? {
                0 if region.is_null() => assert_eq!(abi::shmuring_region_info(region, &mut info), -EFAULT),
                0 => {
                    assert_eq!(abi::shmuring_region_info(region, &mut info), 0);
                    assert_eq!((info.slots, info.block_size), (self.geometry.slots, BLOCK as u32));
                }
                1 => assert_eq!(
                    abi::shmuring_role_statistics(region, role.as_mut_ptr()),
                    if region.is_null() { -EFAULT } else { 0 }
                ),
                2 if region.is_null() => {}
                2 => assert_eq!(
                    abi::shmuring_owner_statistics(region, slot, owner.as_mut_ptr()),
                    if slot < self.geometry.slots { 0 } else { -EINVAL }
                ),
                3 if self.users > 0 => assert_eq!(abi::shmuring_region_detach(self.region), -EBUSY),
                3 => {}
                4 if region.is_null() => {}
                4 => assert_eq!(abi::shmuring_region_fd(region), -ENOENT),
                _ => self.register(u, region)?,
            }
        }
        Ok(())
    }

    fn register(&mut self, u: &mut Unstructured<'_>, region: Handle) -> Result<()> {
        let (pool, count) = (u.int_in_range(0..=16)?, u.int_in_range(0..=3)?);
        let base: *mut c_void = if u.ratio(1, 16)? { null_mut() } else { self.pool.as_mut_ptr().cast() };
        let stride = *u.choose(&[BLOCK, BLOCK, BLOCK - 8, BLOCK + 8])?;
        if base.is_null() || stride > BLOCK && count == 3 {
            // Its memory would have to be there.
            return Ok(());
        }
        let mut error = Out::new().error;
        // SAFETY: null or a handle that lives; the memory outlives it.
        let code = unsafe { abi::shmuring_region_register_pool(region, pool, base, stride, count, &mut error) };
        if region.is_null() {
            assert_eq!(code, -EFAULT);
        } else if self.users > 0 {
            assert_eq!(code, -EBUSY, "backends are attached");
        } else {
            documented(code, &[EINVAL]);
        }
        Ok(())
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=10)? {
            0..=3 => self.own(u),
            4..=7 => self.communicate(u),
            8 => self.server(u),
            9 => self.look(u),
            _ => self.tables(u),
        }?;
        self.check_sizes();
        Ok(())
    }

    /// Ends every handle, whatever the bytes are now.
    fn end(&mut self) {
        self.free_backend();
        self.release_role();
        if let Some(server) = self.server.take() {
            // SAFETY: a handle that lives, and ends with this.
            assert_eq!(unsafe { abi::shmuring_server_end(server) }, 0);
        }
        // SAFETY: as above.
        assert_eq!(unsafe { abi::shmuring_region_detach(self.region) }, 0);
    }
}

/// The whole cycle, from attach on, while the bytes change.
fn cycle(
    u: &mut Unstructured<'_>,
    g: Geometry,
    base: usize,
    lock_path: *const c_char,
    is_undisturbed: bool,
) -> Result<()> {
    let errors = [ENODATA, EMEDIUMTYPE, EPROTONOSUPPORT, EPROTO, EBADMSG, EXDEV, ENOLCK, EFAULT];
    let len = g.total_len as usize;
    let attached = Out::of(u, &errors, |out, err| {
        // SAFETY: mapped for good; the attacker breaks the promise that nobody else writes, which is the point.
        unsafe { abi::shmuring_region_attach_memory(base as *mut c_void, len, lock_path, out, err) }
    })?;
    let Some(region) = attached else { return Ok(()) };
    let mut world = World {
        geometry: g,
        base,
        region,
        users: 0,
        backend: backend::Side::default(),
        communicator: communicator::Side::default(),
        server: None,
        pool: vec![0; 3 * BLOCK],
        is_undisturbed,
    };
    let mut result = world.register(u, region);
    for _ in 0..STEPS {
        if u.is_empty() || result.is_err() {
            break;
        }
        result = world.step(u);
    }
    world.end();
    result
}

fn run(data: &[u8]) -> Result<()> {
    clock::reset();
    let ground = ground();
    let mut u = Unstructured::new(data);
    let (slots, bounce_per_slot) = (u.int_in_range(1..=5)?, u.int_in_range(0..=2)?);
    let (written_buckets, rel_sizes) = (2, 8);
    let block_size = BLOCK as u32;
    let options = ApiOptions { slots, bounce_per_slot, block_size, written_buckets, rel_sizes, reserved: [0; 3] };
    let g = Geometry::new(slots, bounce_per_slot, block_size).unwrap().with_tables(written_buckets, rel_sizes).unwrap();
    let len = g.total_len as usize;
    let base = ground.place(len);
    let lock_path = CString::new(ground.lock_path.to_str().unwrap()).unwrap();
    let mut bytes = 0;
    let (mut region, mut error) = (null_mut(), Out::new().error);
    // SAFETY: mapped for good, and nobody uses it now; places of ours.
    unsafe {
        assert_eq!((abi::shmuring_region_size(&options, &mut bytes), bytes), (0, g.total_len));
        let at = base as *mut c_void;
        assert_eq!(abi::shmuring_region_init(at, len, &options, lock_path.as_ptr(), &mut region, &mut error), 0);
        assert_eq!(abi::shmuring_region_detach(region), 0);
    }
    let first = attacker::writes(&mut u, &g)?;
    attacker::strike(base, &first, 0);
    // In half of the runs nobody disturbs: sequences then get far, and go the same way each time.
    let writes = if u.arbitrary()? { attacker::writes(&mut u, &g)? } else { Vec::new() };
    let is_undisturbed = first.is_empty() && writes.is_empty();
    ground.under_attack(base, writes, || cycle(&mut u, g, base, lock_path.as_ptr(), is_undisturbed))
}

fuzz_target!(|data: &[u8]| {
    let _ = run(data);
});
