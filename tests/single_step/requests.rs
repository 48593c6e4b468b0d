//! What is asked for, and its answers, from which a wrong one is told.

use shmuring::backend::{Backend, SlotRef};
use shmuring::communicator::Claim;
use shmuring::parts::Parts;
use shmuring::request::{Buffers, Completion, Opcode, Request};
use shmuring::slot::{owner, State, Word};

use crate::support::process::{Board, Site, BLOCK, OWN, POOL, REL};

/// How often a request for that number was applied, if it is a mutation.
const APPLIED: usize = OWN + 100;
const APPLIED_WORDS: u32 = 512;
/// What [`Kind::Fail`] ends with.
pub const FAILURE: i32 = libc::ENOSPC;

/// What a request asks for. Each has a number, its block, from which its answer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A read of one block into a bounce buffer.
    Read,
    /// Of two.
    ReadTwo,
    /// A read into that block of the registered pool.
    ReadPool(u32),
    /// A mutation without pages.
    Truncate,
    /// A write from a bounce buffer.
    Write,
    /// A write from that block of the registered pool.
    WritePool(u32),
    /// A mutation that tells how large the fork is.
    #[allow(dead_code)] // Asked for where sizes are kept: ffi/tests/single_step.rs.
    Resize,
    /// One that fails when it has done something.
    #[allow(dead_code)]
    Fail,
}

impl Kind {
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Read | Self::ReadTwo | Self::ReadPool(_) => Opcode::GetPage,
            Self::Truncate => Opcode::Truncate,
            Self::Write | Self::WritePool(_) => Opcode::WritePage,
            Self::Resize => Opcode::UpdateRelSize,
            Self::Fail => Opcode::ZeroExtend,
        }
    }

    pub fn is_mutation(self) -> bool {
        self.opcode().is_mutation()
    }

    /// The answer to the request of that number.
    pub fn answer(self, number: u32) -> Completion {
        Completion::ok(match self {
            Self::Read | Self::ReadPool(_) => 1,
            Self::ReadTwo => 2,
            Self::Truncate | Self::Write | Self::WritePool(_) | Self::Resize => u64::from(number),
            Self::Fail => return Completion { errno: FAILURE as u16, attempts: 1, ..Completion::ok(0) },
        })
    }
}

/// The page of a block: no two look alike, and a torn one is none. In few instructions: victims make them too.
pub fn page(block: u32) -> [u8; BLOCK] {
    let mut page = [block as u8; BLOCK];
    page[..4].copy_from_slice(&block.to_le_bytes());
    page[BLOCK - 4..].copy_from_slice(&block.to_le_bytes());
    page
}

/// Gives `f` the request of that number.
pub fn with_request<T>(kind: Kind, number: u32, f: impl FnOnce(&Request<'_>) -> T) -> T {
    match kind {
        Kind::Read => f(&Request::get_page(REL, number, 1, 0)),
        Kind::ReadTwo => f(&Request::get_page(REL, number, 2, 0)),
        Kind::ReadPool(index) => f(&Request::get_page(REL, number, 1, 0).with_buffers(Buffers::Pool(POOL, &[index]))),
        Kind::Truncate | Kind::Resize => f(&Request { block: number, ..Request::new(kind.opcode(), REL) }),
        Kind::Fail => f(&Request { block: number, arg: 1, ..Request::new(Opcode::ZeroExtend, REL) }),
        Kind::Write => f(&Request::write_page(REL, number, 1, 0, &page(number))),
        Kind::WritePool(index) => {
            f(&Request::write_page(REL, number, 1, 0, &[]).with_buffers(Buffers::Pool(POOL, &[index])))
        }
    }
}

/// Writes the request of that number into a slot.
pub fn fill(b: &mut Backend<'_>, slot: u32, kind: Kind, number: u32) -> SlotRef {
    with_request(kind, number, |r| b.fill(slot, r)).unwrap()
}

/// Makes a filled slot Submitted, and goes no further.
pub fn leave_unhinted(parts: &Parts<'_>, at: SlotRef) {
    owner::submit(&parts.slots[at.slot as usize], Word::new(State::Filling, at.generation, 0));
}

/// Serves one request: the pages that its number says; what a mutation did is noted before its answer.
pub fn answer(board: Board, mut claim: Claim<'_>) {
    let (op, block, count) = (claim.job().opcode, claim.job().block, u32::from(claim.job().count));
    let mut value = u64::from(block);
    if op.has_buffers() {
        let Ok(mut copying) = claim.copying() else { return };
        for i in 0..count {
            if op.fills_buffers() {
                copying.deliver(i as usize, &page(block + i)).unwrap();
                value = u64::from(count);
            } else {
                let mut image = [0; BLOCK];
                copying.take_image(i as usize, &mut image).unwrap();
                value = if image == page(block) { value } else { u64::MAX };
            }
        }
    }
    if op.is_mutation() {
        board.add(applied(block));
    }
    if op == Kind::Fail.opcode() {
        let _ = claim.fail(FAILURE, 0, 1);
        return;
    }
    let _ = claim.complete(Completion::ok(value));
}

/// The word that tells how often the mutation of that number was applied.
pub fn applied(number: u32) -> usize {
    APPLIED + (number / 2 % APPLIED_WORDS) as usize
}

/// A request of a living backend.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub at: SlotRef,
    pub kind: Kind,
    pub number: u32,
}

/// The request has its answer, and the right one; it is finished.
pub fn take(site: &Site, b: &mut Backend<'_>, asked: &Asked) -> Result<(), String> {
    let Asked { at, kind, number } = *asked;
    let whose = format!("{kind:?} {number} in slot {}", at.slot);
    match b.poll(at) {
        Ok(true) => {}
        other => return Err(format!("{whose} is not answered: {other:?}")),
    }
    let pages = match kind {
        Kind::Read => vec![b.page(at, 0).unwrap().to_vec()],
        Kind::ReadTwo => vec![b.page(at, 0).unwrap().to_vec(), b.page(at, 1).unwrap().to_vec()],
        Kind::ReadPool(index) => vec![site.look(index).to_vec()],
        _ => vec![],
    };
    for (i, got) in (0..).zip(pages) {
        if got != page(number + i) {
            return Err(format!("{whose} has another page {i}"));
        }
    }
    match b.finish(at) {
        Ok(done) if done == kind.answer(number) => Ok(()),
        other => Err(format!("{whose} ended with {other:?}")),
    }
}
