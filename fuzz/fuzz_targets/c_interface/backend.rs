//! The backend's side.

use std::ffi::c_int;
use std::mem::zeroed;
use std::ptr::{null, null_mut};

use libc::{E2BIG, EAGAIN, EALREADY, EBADF, EBUSY, EFAULT, EINPROGRESS, EINVAL, ENOBUFS, EPERM, ESTALE};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use shmuring::request::{Completion, MISSING};

use crate::abi::{self, ApiLeftover, ApiRel, ApiRelSize, ApiRequest, ApiWait, Handle};
use crate::attacker::number;
use crate::{a_wait, documented, elsewhere, Out, World, BLOCK, POISON, WAITED};

/// Blocks that a request can carry.
const MAX_BLOCKS: usize = 32;
const REL: ApiRel = ApiRel { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0, reserved: [0; 3] };
/// What a request leads to, as long as it may ask for.
static IMAGES: [u8; MAX_BLOCKS * BLOCK] = [3; MAX_BLOCKS * BLOCK];

/// A handle of a backend, and references that it gave.
#[derive(Default)]
pub struct Side {
    handle: Option<Handle>,
    first: u32,
    count: u32,
    is_detached: bool,
    refs: Vec<i64>,
}

/// What is refused before anything else of a call is looked at.
#[derive(Clone, Copy, PartialEq)]
enum Refusal {
    None,
    Null,
    Detached,
    OtherThread,
}

/// One call: the handle that it is given, and what must come of that.
struct Caller {
    handle: Handle,
    refusal: Refusal,
}

impl Caller {
    /// Makes the call. Without a refusal it gives success, or an error of these; EFAULT if it `lacks` a pointer.
    #[track_caller]
    fn call<C: Into<i64> + Send>(&self, lacks: bool, errors: &[c_int], call: impl FnOnce(Handle) -> C) -> Option<i64> {
        let code = match self.refusal {
            Refusal::OtherThread => elsewhere(|| call(self.handle)).into(),
            _ => call(self.handle).into(),
        };
        let expected = match self.refusal {
            Refusal::Null => -EFAULT,
            Refusal::Detached => -EBADF,
            Refusal::OtherThread => -EPERM,
            Refusal::None if lacks => {
                assert!(code < 0, "a pointer is NULL, and the call gives {code}");
                return documented(code, &[errors, &[EFAULT]].concat());
            }
            Refusal::None => return documented(code, errors),
        };
        assert_eq!(code, i64::from(expected));
        None
    }
}

impl World {
    fn caller(&self, u: &mut Unstructured<'_>, handle: Handle) -> Result<Caller> {
        let (handle, refusal) = match u.int_in_range(0..=63)? {
            0 => (null_mut(), Refusal::Null),
            _ if self.backend.is_detached => (handle, Refusal::Detached),
            1 => (handle, Refusal::OtherThread),
            _ => (handle, Refusal::None),
        };
        Ok(Caller { handle, refusal })
    }

    fn attach_backend(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let (region, slots) = (self.region, self.geometry.slots);
        let (first, count) = match u.int_in_range(0..=7)? {
            0 => (number(u, slots.into())? as u32, number(u, slots.into())? as u32),
            1..=3 => (u.int_in_range(0..=slots)?, u.int_in_range(0..=slots)?),
            _ => (0, slots),
        };
        let any = u.ratio(1, 8)?;
        let mut usable = 0;
        let handle = Out::of(u, &[EINVAL, EBUSY], |out, err| {
            // SAFETY: a handle that lives, and places of ours.
            usable = unsafe {
                match any {
                    true => abi::shmuring_backend_attach_any(region, count, out, err),
                    false => abi::shmuring_backend_attach(region, first, count, out, err),
                }
            };
            usable
        })?;
        if let Some(handle) = handle {
            assert!(count > 0 && count <= slots && usable as u32 <= count);
            let first = if any { 0 } else { first };
            self.backend = Side { handle: Some(handle), first, count, ..Side::default() };
            // Where it is, only the slots tell.
            self.backend.count = if any { slots } else { count };
            self.users += 1;
        }
        Ok(())
    }

    /// The blocks of a fork as a backend finds them, if it finds any.
    pub fn cached(&self, rel: ApiRel) -> Option<u64> {
        let handle = self.backend.handle.filter(|_| !self.backend.is_detached)?;
        let untold = ApiRelSize { blocks: POISON as u64, lsn: 1, is_changed: 2, reserved: 3 };
        let mut size = untold;
        // SAFETY: a handle that lives, and a place of ours.
        let code = unsafe { abi::shmuring_cached_rel_size(handle, rel, &mut size) };
        match code {
            1 => {
                assert!((size.blocks < 1 << 32 || size.blocks == MISSING) && size.is_changed < 2 && size.reserved == 0)
            }
            code => {
                assert!(code == 0 || rel.fork > 3 && code == -EINVAL, "{code}");
                assert_eq!((size.blocks, size.lsn, size.is_changed, size.reserved), (untold.blocks, 1, 2, 3));
            }
        }
        (code == 1).then_some(size.blocks)
    }

    /// Frees the handle if there is one.
    pub fn free_backend(&mut self) {
        if let Some(handle) = std::mem::take(&mut self.backend).handle {
            // SAFETY: a handle that lives, and ends with this.
            assert_eq!(unsafe { abi::shmuring_backend_free(handle) }, 0);
            self.users -= 1;
        }
    }

    /// A reference that was given, lately or long ago, or that never was.
    fn reference(&self, u: &mut Unstructured<'_>) -> Result<i64> {
        Ok(match u.int_in_range(0..=15)? {
            0 => number(u, self.geometry.slots.into())? as i64,
            1 => (number(u, 1)? << 32) as i64 | u.int_in_range(0..=i64::from(self.geometry.slots))?,
            n => self.backend.refs.get(n % 4).copied().unwrap_or(0),
        })
    }

    fn keep(&mut self, reference: Option<i64>, slot: Option<u32>) {
        let Some(reference) = reference else { return };
        let own = self.backend.first..self.backend.first + self.backend.count;
        assert!(own.contains(&(reference as u32)) && slot.is_none_or(|s| s == reference as u32));
        self.backend.refs.insert(0, reference);
        self.backend.refs.truncate(16);
    }

    /// One operation of the backend.
    pub fn own(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some(handle) = self.backend.handle else { return self.attach_backend(u) };
        let caller = self.caller(u, handle)?;
        match u.int_in_range(0..=11)? {
            0..=3 => self.begin_request(u, &caller),
            4 | 5 => self.wait_for(u, &caller),
            6 | 7 => self.look_at(u, &caller),
            8 => self.give_up(u, &caller),
            9 => self.call_at_once(u, &caller),
            10 => self.slots(u, &caller),
            _ => self.leave(u, &caller),
        }
    }

    fn begin_request(&mut self, u: &mut Unstructured<'_>, caller: &Caller) -> Result<()> {
        let slot = if u.ratio(1, 8)? { number(u, 0)? as u32 } else { u.int_in_range(0..=self.geometry.slots)? };
        let (block, lsn) = (u.int_in_range(0..=9)?, u.int_in_range(0..=9)?);
        let lists = Lists::new(u)?;
        let (request, is_null) = (lists.request(u)?, u.ratio(1, 32)?);
        let at = if is_null { null() } else { &raw const request };
        let rel = ApiRel { reserved: [0, 0, u8::from(u.ratio(1, 16)?)], ..REL };
        // EFAULT: a list that the request needs may be NULL.
        let filling = [EINVAL, EBUSY, ENOBUFS, EFAULT];
        let starting = [EINVAL, EBUSY, ENOBUFS, EAGAIN, ESTALE, EFAULT];
        // SAFETY: as `Caller` says; requests and what they lead to are there.
        let (got, slot) = unsafe {
            match u.int_in_range(0..=5)? {
                0 => (caller.call(is_null, &filling, |b| abi::shmuring_fill(b, slot, at)), Some(slot)),
                1 => (
                    caller.call(false, &filling, |b| abi::shmuring_fill_get_page(b, slot, rel, block, lsn)),
                    Some(slot),
                ),
                2 => (caller.call(is_null, &starting, |b| abi::shmuring_start(b, at)), None),
                3 => (caller.call(false, &starting, |b| abi::shmuring_start_get_page(b, rel, block, lsn)), None),
                4 => {
                    let reference = self.reference(u)?;
                    caller.call(false, &[EINVAL, EBUSY, ESTALE], |b| abi::shmuring_submit(b, reference));
                    // Whatever it was, it is not submitted twice; the attacker may have made it what it was.
                    caller.call(false, &[EINVAL, EBUSY, ESTALE], |b| abi::shmuring_submit(b, reference));
                    return Ok(());
                }
                _ => {
                    let (refs, lacks) = self.references(u)?;
                    let at = if lacks { null() } else { refs.as_ptr() };
                    let n = refs.len();
                    caller.call(lacks, &[EINVAL, EBUSY, ESTALE], |b| abi::shmuring_submit_many(b, at, n));
                    return Ok(());
                }
            }
        };
        self.keep(got, slot);
        Ok(())
    }

    /// Some references, none, or more than a wait takes; and whether to say NULL.
    fn references(&self, u: &mut Unstructured<'_>) -> Result<(Vec<i64>, bool)> {
        let n = *u.choose(&[0, 1, 2, 3, 4, 127, 128])?;
        let refs: Vec<i64> = (0..n).map(|_| self.reference(u)).collect::<Result<_>>()?;
        let lacks = n > 0 && u.ratio(1, 16)?;
        Ok((refs, lacks))
    }

    fn wait_for(&mut self, u: &mut Unstructured<'_>, caller: &Caller) -> Result<()> {
        let (wait, _) = a_wait(u)?;
        let no_wait = u.ratio(1, 32)?;
        let at: *const ApiWait = if no_wait { null() } else { &raw const wait };
        let reference = self.reference(u)?;
        let errors = [&WAITED[..], &[EINVAL, EBUSY, ESTALE]].concat();
        // SAFETY: as `Caller` says; the lists are as long as they say.
        unsafe {
            if u.arbitrary()? {
                caller.call(no_wait, &errors, |b| abi::shmuring_wait(b, reference, at));
            } else {
                let (refs, lacks) = self.references(u)?;
                let (list, n) = (if lacks { null() } else { refs.as_ptr() }, refs.len());
                let errors = [&errors[..], &[E2BIG]].concat();
                let got = caller.call(no_wait || lacks, &errors, |b| abi::shmuring_wait_any(b, list, n, at));
                assert!(got.is_none_or(|i| (i as usize) < n));
            }
        }
        Ok(())
    }

    fn look_at(&mut self, u: &mut Unstructured<'_>, caller: &Caller) -> Result<()> {
        let reference = self.reference(u)?;
        let lacks = u.ratio(1, 16)?;
        let errors = [EINVAL, EBUSY, ESTALE];
        let mut done = Completion { errno: 0x5555, attempts: 0x5555, value: 0, lsn: 0 };
        let out = if lacks { null_mut() } else { &raw mut done };
        let mut page = POISON as *const _;
        let i = if u.ratio(1, 8)? { number(u, 2)? as u32 } else { u.int_in_range(0..=2)? };
        // SAFETY: as `Caller` says; places of ours.
        let is_told = unsafe {
            match u.int_in_range(0..=4)? {
                0 => {
                    caller.call(false, &errors, |b| abi::shmuring_poll(b, reference));
                    return Ok(());
                }
                1 => {
                    let slot = reference as u32;
                    let state = caller.call(false, &[EINVAL], |b| abi::shmuring_state(b, slot));
                    assert!(state.is_none_or(|s| s <= 7));
                    return Ok(());
                }
                2 => {
                    let to = if lacks { null_mut() } else { &raw mut page };
                    let got = caller.call(lacks, &errors, |b| abi::shmuring_page(b, reference, i, to));
                    self.check_page(got.is_some(), page as usize);
                    return Ok(());
                }
                3 => caller.call(lacks, &errors, |b| abi::shmuring_result(b, reference, out)).is_some(),
                _ => {
                    let got = caller.call(false, &errors, |b| abi::shmuring_finish(b, reference, out)).is_some();
                    got && !lacks
                }
            }
        };
        assert!(is_told || (done.errno, done.attempts) == (0x5555, 0x5555), "an error changed the result");
        Ok(())
    }

    /// A page is a whole block of the region, which can be read.
    fn check_page(&self, is_there: bool, page: usize) {
        if !is_there {
            return assert_eq!(page, POISON, "an error changed the address");
        }
        let end = self.base + self.geometry.total_len as usize;
        assert!(page >= self.base && page + BLOCK <= end, "a page outside of the region");
        for at in (page..page + BLOCK).step_by(64) {
            // SAFETY: inside of the region, by the check above.
            unsafe { (at as *const u8).read_volatile() };
        }
    }

    fn give_up(&mut self, u: &mut Unstructured<'_>, caller: &Caller) -> Result<()> {
        let reference = self.reference(u)?;
        let (wait, _) = a_wait(u)?;
        let lacks = u.ratio(1, 32)?;
        let at: *const ApiWait = if lacks { null() } else { &raw const wait };
        let errors = [&WAITED[..], &[EINVAL, ESTALE, EALREADY, EINPROGRESS]].concat();
        // SAFETY: as `Caller` says; the wait is ours.
        unsafe {
            if u.ratio(3, 4)? {
                let got = caller.call(lacks, &errors, |b| abi::shmuring_cancel(b, reference, at));
                assert!(got.is_none_or(|fate| fate == 1 || fate == 2));
            } else {
                caller.call(false, &[EINVAL, EBUSY, ESTALE], |b| abi::shmuring_forget(b, reference));
            }
        }
        Ok(())
    }

    fn call_at_once(&mut self, u: &mut Unstructured<'_>, caller: &Caller) -> Result<()> {
        let lists = Lists::new(u)?;
        let request = lists.request(u)?;
        let (wait, _) = a_wait(u)?;
        let mut pages = vec![0_u8; *u.choose(&[0, BLOCK - 1, BLOCK, 2 * BLOCK + 9])?];
        let len = pages.len();
        let mut done = Completion { errno: 0, attempts: 0, value: 0, lsn: 0 };
        let missing = u.int_in_range(0..=63)?;
        let request: *const ApiRequest = if missing == 0 { null() } else { &raw const request };
        let at: *const ApiWait = if missing == 1 { null() } else { &raw const wait };
        let out = if missing == 2 { null_mut() } else { &raw mut done };
        let to = if missing == 3 { null_mut() } else { pages.as_mut_ptr().cast() };
        let lacks = missing < 3 || missing == 3 && len > 0;
        let errors = [&WAITED[..], &[EINVAL, EBUSY, ENOBUFS, EAGAIN, ESTALE, EALREADY, EINPROGRESS, EFAULT]].concat();
        // SAFETY: as `Caller` says; places of ours.
        caller.call(lacks, &errors, |b| unsafe { abi::shmuring_call(b, request, at, to, len, out) });
        Ok(())
    }

    fn slots(&mut self, u: &mut Unstructured<'_>, caller: &Caller) -> Result<()> {
        let (wait, _) = a_wait(u)?;
        let lacks = u.ratio(1, 32)?;
        let at: *const ApiWait = if lacks { null() } else { &raw const wait };
        let own = i64::from(self.backend.first)..i64::from(self.backend.first + self.backend.count);
        // SAFETY: as `Caller` says; the wait is ours.
        unsafe {
            match u.int_in_range(0..=2)? {
                0 => {
                    let n = caller.call(false, &[], |b| abi::shmuring_backend_usable(b));
                    assert!(n.is_none_or(|n| n <= self.backend.count.into()));
                }
                1 => {
                    let slot = caller.call(false, &[EAGAIN], |b| abi::shmuring_free_slot(b));
                    assert!(slot.is_none_or(|s| own.contains(&s)));
                }
                _ => {
                    let errors = [&WAITED[..], &[EAGAIN, EINVAL]].concat();
                    let slot = caller.call(lacks, &errors, |b| abi::shmuring_wait_free(b, at));
                    assert!(slot.is_none_or(|s| own.contains(&s)));
                }
            }
        }
        Ok(())
    }

    fn leave(&mut self, u: &mut Unstructured<'_>, caller: &Caller) -> Result<()> {
        let (wait, _) = a_wait(u)?;
        let lacks = u.ratio(1, 32)?;
        let at: *const ApiWait = if lacks { null() } else { &raw const wait };
        // A word that changes under the call is told as what it has become.
        let errors = [&WAITED[..], &[EINVAL, EBUSY, ESTALE]].concat();
        // SAFETY: as `Caller` says; places of ours.
        unsafe {
            match u.int_in_range(0..=3)? {
                0 => {
                    let mut left: ApiLeftover = zeroed();
                    let out = if lacks { null_mut() } else { &raw mut left };
                    let got = caller.call(lacks, &errors, |b| abi::shmuring_next_leftover(b, &wait, out));
                    let own = self.backend.first..self.backend.first + self.backend.count;
                    assert!(got != Some(1) || own.contains(&left.slot) && (1..=4).contains(&left.fate));
                }
                1 | 2 => {
                    let settled = caller.call(lacks, &errors, |b| abi::shmuring_backend_detach(b, at));
                    self.backend.is_detached |= settled.is_some();
                }
                _ => self.free_backend(),
            }
        }
        Ok(())
    }
}

/// What requests lead to.
struct Lists {
    lsns: [u64; MAX_BLOCKS],
    buffers: [u32; MAX_BLOCKS],
}

impl Lists {
    fn new(u: &mut Unstructured<'_>) -> Result<Self> {
        let mut lists = Self { lsns: [7; MAX_BLOCKS], buffers: [0; MAX_BLOCKS] };
        let twice = u.ratio(1, 8)?;
        (0..).zip(&mut lists.buffers).for_each(|(i, b)| *b = if twice { 0 } else { i });
        lists.buffers[0] = if u.ratio(1, 16)? { number(u, 3)? as u32 } else { 2 };
        Ok(lists)
    }

    /// A request that makes sense, or that is refused: any field may be anything.
    fn request(&self, u: &mut Unstructured<'_>) -> Result<ApiRequest> {
        // SAFETY: numbers and pointers.
        let mut r: ApiRequest = unsafe { zeroed() };
        (r.spc_oid, r.db_oid, r.rel_number) = (REL.spc_oid, REL.db_oid, REL.rel_number);
        r.opcode = if u.ratio(1, 16)? { u.arbitrary()? } else { u.int_in_range(0..=16)? };
        r.block = u.int_in_range(0..=9)?;
        r.lsn = u.int_in_range(0..=9)?;
        r.count = match r.opcode {
            1 | 2 | 6 | 7 | 8 | 14 => u.int_in_range(1..=3)?,
            _ => 0,
        };
        if matches!(r.opcode, 7 | 8) {
            r.image = IMAGES.as_ptr().cast();
        }
        if r.opcode == 14 {
            (r.flags, r.request_lsn) = (0x10, 9);
        }
        match u.int_in_range(0..=15)? {
            0 => (r.pool, r.buffers, r.image) = (u.int_in_range(1..=2)?, self.buffers.as_ptr(), null()),
            1 => (r.flags, r.block_lsns) = (r.flags | 0x20, self.lsns.as_ptr()),
            2 => r.flags = u.arbitrary()?,
            3 => r.count = u.arbitrary()?,
            4 => r.pool = u.arbitrary()?,
            5 => r.buffers = self.buffers.as_ptr(),
            6 => r.image = if u.arbitrary()? { null() } else { IMAGES.as_ptr().cast() },
            7 => (r.reserved, r.reserved2) = (u.arbitrary()?, u.arbitrary()?),
            8 => r.reserved3 = [u.arbitrary()?, 0],
            9 => (r.flags, r.deadline) = (r.flags | 0x08, number(u, 0)?),
            10 => (r.fork, r.arg) = (u.arbitrary()?, number(u, 1)? as u32),
            11 => r.block = number(u, u32::MAX.into())? as u32,
            12 => r.lsn = number(u, 9)?,
            13 => r.flags |= 0x04,
            _ => {}
        }
        Ok(r)
    }
}
