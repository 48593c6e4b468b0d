//! The side of a communicator that is written in C.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::c_int;
use std::ptr::{null, null_mut};

use libc::{EALREADY, EBUSY, ECANCELED, EFAULT, EINVAL, ESTALE};
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use shmuring::request::Opcode;

use crate::abi::{self, ApiRel, Claim, Handle};
use crate::attacker::number;
use crate::{clock, documented, elsewhere, Out, World, BLOCK};

/// Places for claims that a call is given, and one that is not its.
const MOST: usize = 6;
const PROCESSING: u32 = 3;
const COPYING: u32 = 4;

/// A handle of the role, and names of claims.
#[derive(Default)]
pub struct Side {
    handle: Option<Handle>,
    /// Of claims that were handed out, the latest last.
    names: Vec<i64>,
    /// Those that were not answered; and whether there may be others, claimed and not handed out yet.
    live: BTreeSet<i64>,
    has_backlog: bool,
    audits: u32,
    /// The library keeps the relation sizes.
    keeps: bool,
    /// Forks whose size claims change, by their names.
    changing: BTreeMap<i64, ApiRel>,
}

/// The fork whose size a claim changes, if it changes one.
fn changes(claim: &Claim) -> Option<ApiRel> {
    use Opcode::{Create, Extend, Truncate, Unlink, UpdateRelSize, ZeroExtend};
    let all = [Create, Extend, ZeroExtend, Truncate, Unlink, UpdateRelSize];
    let [spc_oid, db_oid, rel_number] = claim.rel;
    let rel = ApiRel { spc_oid, db_oid, rel_number, fork: claim.fork, reserved: [0; 3] };
    all.iter().any(|opcode| *opcode as u8 == claim.opcode).then_some(rel)
}

impl World {
    fn take_role(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let region = self.region;
        let held = self.communicator.handle;
        // SAFETY: a handle that lives, and places of ours.
        let made = Out::of(u, &[EBUSY], |out, err| unsafe { abi::shmuring_communicator_take_role(region, out, err) })?;
        let Some(c) = made else { return Ok(()) };
        assert!(held.is_none(), "two hold the role");
        self.users += 1;
        self.communicator = Side { handle: Some(c), ..Side::default() };
        // SAFETY: a handle that lives.
        let inherited = unsafe { abi::shmuring_communicator_inherited(c) };
        assert!(inherited >= 0 && inherited as u32 <= self.geometry.slots);
        self.communicator.has_backlog = inherited > 0;
        if u.ratio(3, 4)? {
            self.keep_sizes(u, c)?;
        }
        Ok(())
    }

    fn keep_sizes(&mut self, u: &mut Unstructured<'_>, c: Handle) -> Result<()> {
        let flags = if u.ratio(1, 16)? { u.arbitrary()? } else { u32::from(u.arbitrary::<bool>()?) };
        // SAFETY: null or a handle that lives.
        unsafe {
            assert_eq!(abi::shmuring_communicator_keep_sizes(null_mut(), flags), -EFAULT);
            let expected = if flags > 1 {
                -EINVAL
            } else if self.communicator.keeps {
                -EALREADY
            } else {
                0
            };
            assert_eq!(abi::shmuring_communicator_keep_sizes(c, flags), expected);
            self.communicator.keeps |= expected == 0;
        }
        Ok(())
    }

    /// While its size changes a fork is a miss, unless the bytes are somebody else's.
    pub fn check_sizes(&self) {
        let side = &self.communicator;
        let changing = side.changing.iter().filter(|(name, _)| side.keeps && side.live.contains(name));
        for rel in changing.map(|(_, rel)| *rel) {
            assert!(!self.is_undisturbed || self.cached(rel).is_none(), "the size of {rel:?} is told while it changes");
        }
    }

    /// Gives the role up if it is held.
    pub fn release_role(&mut self) {
        if let Some(c) = std::mem::take(&mut self.communicator).handle {
            // SAFETY: a handle that lives, and ends with this.
            let unanswered = unsafe { abi::shmuring_communicator_release_role(c) };
            assert!(unanswered >= 0 && unanswered as u32 <= self.geometry.slots, "{unanswered}");
            self.users -= 1;
        }
    }

    /// One operation of the communicator.
    pub fn communicate(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let Some(c) = self.communicator.handle else { return self.take_role(u) };
        match u.int_in_range(0..=15)? {
            0 if u.arbitrary()? => self.keep_sizes(u, c),
            0 => self.take_role(u),
            1 => {
                self.release_role();
                Ok(())
            }
            2 => {
                // SAFETY: null or a handle that lives.
                unsafe {
                    assert_eq!(abi::shmuring_communicator_wake(null_mut()), -EFAULT);
                    assert_eq!(abi::shmuring_communicator_release_role(null_mut()), -EFAULT);
                    assert_eq!(abi::shmuring_communicator_wake(c), 0);
                    assert_ne!(abi::shmuring_communicator_epoch(c), 0);
                }
                Ok(())
            }
            3..=8 => self.reap(u, c),
            9 => {
                let name = self.name(u)?;
                self.answer(u, c, name)
            }
            _ => {
                let name = self.name(u)?;
                self.serve(u, c, name)
            }
        }
    }

    fn reap(&mut self, u: &mut Unstructured<'_>, c: Handle) -> Result<()> {
        let to = if u.ratio(1, 16)? { u.int_in_range(0..=9)? } else { *u.choose(&[PROCESSING, COPYING])? };
        let max = u.int_in_range(0..=MOST)?;
        let (c, no_place) = (if u.ratio(1, 32)? { null_mut() } else { c }, u.ratio(1, 32)?);
        // SAFETY: numbers.
        let mut claims = vec![unsafe { std::mem::zeroed::<Claim>() }; max];
        let at = if no_place { null_mut() } else { claims.as_mut_ptr() };
        let n = max as u32;
        // SAFETY: null or a handle that lives; that many places.
        let (code, takes_state) = unsafe {
            match u.int_in_range(0..=7)? {
                0 => (abi::shmuring_communicator_sweep(c, at, n), false),
                1 => {
                    // Further on each time, and back: the kernel's sleeps end by its own clock.
                    self.communicator.audits += 1;
                    (0..self.communicator.audits).for_each(|_| clock::pass_an_audit());
                    let code = abi::shmuring_communicator_audit(c, at, n);
                    clock::reset();
                    (code, false)
                }
                2 => (abi::shmuring_communicator_reap_or_park(c, to, at, n, 5000), true),
                3 => (elsewhere(|| abi::shmuring_communicator_reap(c, to, at, n)), true),
                _ => (abi::shmuring_communicator_reap(c, to, at, n), true),
            }
        };
        let is_bad_state = takes_state && ![PROCESSING, COPYING].contains(&to);
        if c.is_null() || no_place {
            // Which of two mistakes is told is not said.
            assert!(code == -EFAULT || is_bad_state && code == -EINVAL, "{code}");
            return Ok(());
        }
        if is_bad_state {
            assert_eq!(code, -EINVAL, "to state {to}");
            return Ok(());
        }
        assert!(code >= 0 && code as usize <= max, "{code} of {max}");
        for claim in &claims[..code as usize] {
            assert!((claim.name as u32) < self.geometry.slots && claim.reserved == 0 && claim.claim_flags <= 1);
            assert!(claim.opcode <= 15 && claim.count <= 32 && claim.flags & !0x3f == 0 && claim.flags & 3 != 3);
            self.communicator.names.push(claim.name);
            self.communicator.live.insert(claim.name);
            self.communicator.changing.extend(changes(claim).map(|rel| (claim.name, rel)));
        }
        self.communicator.has_backlog = code as usize == max;
        for claim in &claims[..code as usize] {
            // The request before it in its slot, or after it, is none that was claimed.
            let other = claim.name ^ 1 << 32;
            if !self.communicator.has_backlog && !self.communicator.live.contains(&other) {
                // SAFETY: a handle that lives.
                assert_eq!(unsafe { abi::shmuring_claim_is_cancelled(c, other) }, -ESTALE);
            }
        }
        let old = self.communicator.names.len().saturating_sub(8);
        self.communicator.names.drain(..old);
        Ok(())
    }

    /// The name of a claim that was handed out, or of none.
    fn name(&self, u: &mut Unstructured<'_>) -> Result<i64> {
        Ok(match u.int_in_range(0..=15)? {
            0 => number(u, self.geometry.slots.into())? as i64,
            1 => (number(u, 1)? << 32) as i64 | u.int_in_range(0..=i64::from(self.geometry.slots))?,
            // Of the request before one that is claimed, or after it.
            2 | 3 => self.communicator.live.iter().next_back().map_or(0, |name| name ^ 1 << 32),
            n => self.communicator.names.iter().rev().nth(n % 4).copied().unwrap_or(0),
        })
    }

    /// A claim that was answered, or never made, is stale: nothing is done for its name.
    fn check_name(&self, name: i64, is_done: bool) {
        let is_live = self.communicator.live.contains(&name) || self.communicator.has_backlog;
        assert!(is_live || !is_done, "{name:#x} is none of {:x?}", self.communicator.live);
    }

    /// What comes before an answer.
    fn serve(&mut self, u: &mut Unstructured<'_>, c: Handle, name: i64) -> Result<()> {
        let outside = name as u32 >= self.geometry.slots;
        let i = if u.ratio(1, 8)? { number(u, 1)? as u32 } else { u.int_in_range(0..=2)? };
        let bytes = *u.choose(&[BLOCK, BLOCK, 0, 1, BLOCK - 1, BLOCK + 1, 2 * BLOCK])?;
        let mut page = vec![7_u8; bytes];
        let (lacks, mut lsn) = (u.ratio(1, 32)?, 0);
        let from = if lacks { null() } else { page.as_ptr().cast() };
        let to = if lacks { null_mut() } else { page.as_mut_ptr().cast() };
        let lsn_at = if lacks { null_mut() } else { &raw mut lsn };
        let what = u.int_in_range(0..=8)?;
        let call = || {
            // SAFETY: a handle that lives; as many bytes as are named.
            unsafe {
                match what {
                    0 => abi::shmuring_claim_is_cancelled(c, name),
                    1 => abi::shmuring_claim_block_lsn(c, name, i, lsn_at),
                    2 => abi::shmuring_claim_begin_copy(c, name),
                    3 => abi::shmuring_claim_suspend(c, name),
                    4 | 5 => abi::shmuring_claim_deliver(c, name, i, from, bytes),
                    8 => abi::shmuring_claim_forget_size(c, name),
                    _ => abi::shmuring_claim_take_image(c, name, i, to, bytes),
                }
            }
        };
        let code = if u.ratio(1, 32)? { elsewhere(call) } else { call() };
        let mut errors: Vec<c_int> = vec![if outside { EINVAL } else { ESTALE }];
        let copies = (4..8).contains(&what);
        if (2..8).contains(&what) {
            errors.push(ECANCELED);
        }
        if what == 1 || copies {
            errors.extend(if lacks { [EFAULT, EFAULT] } else { [EINVAL, EINVAL] });
        }
        if copies && lacks {
            assert_eq!(code, -EFAULT);
        }
        assert!(code <= 0 || what == 0 && code == 1, "{code}");
        let is_done = documented(code, &errors).is_some();
        self.check_name(name, is_done || code == -ECANCELED);
        assert!(!is_done || !copies || bytes <= BLOCK, "more than a block was copied");
        if code == -ECANCELED {
            self.is_gone(c, name);
        }
        Ok(())
    }

    fn answer(&mut self, u: &mut Unstructured<'_>, c: Handle, name: i64) -> Result<()> {
        let outside = name as u32 >= self.geometry.slots;
        let error = *u.choose(&[5, 1, 4095, 0, 4096, -5])?;
        // SAFETY: a handle that lives.
        let (code, is_refused) = unsafe {
            match u.int_in_range(0..=3)? {
                0 => (abi::shmuring_claim_fail(c, name, error, 1, 1), !(1..4096).contains(&error)),
                1 => (abi::shmuring_claim_drop(c, name), false),
                _ => (abi::shmuring_claim_complete(c, name, 1, u.arbitrary()?), false),
            }
        };
        if is_refused {
            assert_eq!(code, -EINVAL);
            return Ok(());
        }
        assert!(code <= 0, "{code}");
        let is_done = documented(code, &[ECANCELED, if outside { EINVAL } else { ESTALE }]).is_some();
        self.check_name(name, is_done || code == -ECANCELED);
        if !outside {
            self.is_gone(c, name);
        }
        Ok(())
    }

    /// A claim that was answered, or withdrawn, is stale to every call.
    fn is_gone(&mut self, c: Handle, name: i64) {
        self.communicator.live.remove(&name);
        // SAFETY: a handle that lives; a page as long as it says.
        unsafe {
            assert_eq!(abi::shmuring_claim_is_cancelled(c, name), -ESTALE);
            assert_eq!(abi::shmuring_claim_complete(c, name, 0, 0), -ESTALE);
            assert_eq!(abi::shmuring_claim_deliver(c, name, 0, [0_u8].as_ptr().cast(), 1), -ESTALE);
        }
    }
}
