//! Everybody but the victim: the region, a backend beside it, the communicator, and what they must see afterwards.
//!
//! They are real handles over the real region, all of one process and one thread, so that every run goes the same way;
//! the victim is a process of its own.

use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator};
use shmuring::doorbell;
use shmuring::futex::{self, Outcome};
use shmuring::parts::Parts;
use shmuring::region::Region;
use shmuring::request::{Buffers, Completion, Opcode, Request};
use shmuring::ring::Consumer;
use shmuring::slot::{communicator, owner, State, Word};
use shmuring::stats::RoleCounter;

use crate::support::process::{open, take_role, Board, Site, BLOCK, OWN, POOL, REL};

/// Slots of the region.
pub const SLOTS: u32 = 12;
/// The first of them, in one range, are the victim's where a backend dies.
pub const VICTIMS: u32 = 4;
/// The rest is a living backend's.
const OTHERS: u32 = SLOTS - VICTIMS;
pub const NOW: Wait<'static> = Wait { until: 0, interrupt: None };
/// How often a request for that number was applied, if it is a mutation.
const APPLIED: usize = OWN + 100;
const APPLIED_WORDS: u32 = 512;
/// How long a sleeper sleeps that nobody wakes, in ns.
const FOREVER: u64 = 20_000_000_000;
/// A sleep that may end by itself, in ns: a backend's lasts a second.
const SLICE: u64 = 20_000_000;
/// Most rounds of reaping; an unpublished ticket takes 512.
const ROUNDS: u32 = 5000;

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
}

impl Kind {
    pub fn opcode(self) -> Opcode {
        match self {
            Self::Read | Self::ReadTwo | Self::ReadPool(_) => Opcode::GetPage,
            Self::Truncate => Opcode::Truncate,
            Self::Write | Self::WritePool(_) => Opcode::WritePage,
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
            Self::Truncate | Self::Write | Self::WritePool(_) => u64::from(number),
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
        Kind::Truncate => {
            let mut r = Request::new(Opcode::Truncate, REL);
            r.block = number;
            f(&r)
        }
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
    let _ = claim.complete(Completion::ok(value));
}

fn applied(number: u32) -> usize {
    APPLIED + (number / 2 % APPLIED_WORDS) as usize
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

/// A fault that is planted into the recovery, which the checks must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The next owner does not settle what it finds.
    Unsettled,
    /// The next communicator loses what it inherits.
    Disinherited,
    /// The next communicator does not sweep.
    Unswept,
    /// A registered buffer is written after its cancel.
    LateByte,
    /// A mutation is answered and not run.
    NotRun,
}

/// A request of a living backend.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub at: SlotRef,
    pub kind: Kind,
    pub number: u32,
}

pub struct World<'s> {
    pub site: &'s Site,
    pub region: &'static Region,
    pub parts: &'static Parts<'static>,
    pub board: Board,
    pub fault: Fault,
    pub communicator: Option<Communicator<'static>>,
    /// Requests that the communicator has claimed and not answered.
    pub held: Vec<Claim<'static>>,
    /// The living backend: slots from [`VICTIMS`] on.
    pub other: Backend<'static>,
    /// What it has in flight.
    pub asked: Vec<Asked>,
    /// Number of the victim's first request; each slot's is two more.
    pub base: u32,
    number: u32,
    /// Threads that sleep on words, to be woken.
    pub sleepers: Vec<JoinHandle<Outcome>>,
    /// The communicator's sleep, in a thread of its own.
    pub parked: Option<JoinHandle<()>>,
    /// Blocks of the registered pool whose requests were cancelled: not to be written any more.
    pub cancelled: Vec<u32>,
}

impl<'s> World<'s> {
    /// What a block holds that nobody may write.
    pub const GUARD: [u8; BLOCK] = [0xA5; BLOCK];

    pub fn new(site: &'s Site, fault: Fault) -> Self {
        // Never dropped: the process ends first.
        let region: &'static Region = Box::leak(Box::new(open(&site.path, site.pool)));
        let parts: &'static Parts<'static> = Box::leak(Box::new(region.parts()));
        Self {
            site,
            region,
            parts,
            board: site.board,
            fault,
            communicator: None,
            held: Vec::new(),
            other: Backend::attach(region, VICTIMS, OTHERS).unwrap(),
            asked: Vec::new(),
            base: 0,
            number: 0,
            sleepers: Vec::new(),
            parked: None,
            cancelled: Vec::new(),
        }
    }

    pub fn word(&self, slot: u32) -> Word {
        owner::look(&self.parts.slots[slot as usize])
    }

    pub fn words(&self) -> Vec<Word> {
        self.parts.slots.iter().map(owner::look).collect()
    }

    /// A number for the next request; its mutation was not applied yet.
    pub fn number(&mut self) -> u32 {
        self.number += 2;
        self.board.set(applied(self.number), 0);
        self.number
    }

    /// Numbers for the victim's requests.
    pub fn number_victims(&mut self) {
        let numbers: Vec<u32> = (0..VICTIMS).map(|_| self.number()).collect();
        self.base = numbers[0];
    }

    pub fn times_applied(&self, number: u32) -> u32 {
        self.board.get(applied(number))
    }

    /// The living backend asks.
    pub fn ask(&mut self, slot: u32, kind: Kind) {
        let at = self.fill(slot, kind);
        self.other.submit(at).unwrap();
    }

    /// It asks, and stops before the push.
    pub fn ask_unhinted(&mut self, slot: u32, kind: Kind) {
        let at = self.fill(slot, kind);
        leave_unhinted(self.parts, at);
    }

    fn fill(&mut self, slot: u32, kind: Kind) -> SlotRef {
        let number = self.number();
        if let Kind::WritePool(index) = kind {
            self.paint(index, &page(number));
        }
        let at = fill(&mut self.other, slot, kind, number);
        self.asked.push(Asked { at, kind, number });
        at
    }

    /// The living backend gives a request up.
    pub fn cancel(&mut self, slot: u32) {
        let i = self.asked.iter().position(|a| a.at.slot == slot).unwrap();
        let asked = self.asked.swap_remove(i);
        self.other.cancel(asked.at, &NOW).unwrap();
        if let Kind::ReadPool(index) = asked.kind {
            self.guard(index);
        }
    }

    fn paint(&self, index: u32, bytes: &[u8; BLOCK]) {
        let at = self.parts.pools.get(POOL).unwrap().at(index).unwrap().cast::<[u8; BLOCK]>();
        // SAFETY: a whole block of the pool, which is mapped for good; no request uses it now.
        unsafe { at.write_volatile(*bytes) };
    }

    /// Nobody may write that block of the registered pool from here on.
    pub fn guard(&mut self, index: u32) {
        self.paint(index, &Self::GUARD);
        self.cancelled.push(index);
    }

    /// Writes it all the same: a fault.
    pub fn scribble(&self, index: u32) {
        let mut bytes = Self::GUARD;
        bytes[BLOCK / 2] ^= 1;
        self.paint(index, &bytes);
    }

    /// The communicator sleeps, until it is rung for.
    pub fn park(&mut self) {
        let parts = self.parts;
        self.parked = Some(std::thread::spawn(move || {
            doorbell::park(parts, doorbell::LONGEST_SLEEP);
        }));
        while parts.header.parked.0.load(Relaxed) & 1 == 0 {
            std::thread::sleep(Duration::from_micros(50));
        }
        std::thread::sleep(Duration::from_micros(100));
    }

    /// Claims whatever is hinted at, and holds it.
    pub fn claim(&mut self, to: State) {
        // One thread at a time is the communicator.
        if let Some(parked) = self.parked.take() {
            parked.join().unwrap();
        }
        let Self { communicator, held, parts, .. } = self;
        let c = communicator.as_mut().unwrap();
        for _ in 0..ROUNDS {
            let n = c.reap(32, to, |claim| held.push(claim));
            if n == 0 && Consumer::is_idle(parts) {
                return;
            }
        }
    }

    /// Answers what is held.
    pub fn answer_held(&mut self) {
        for claim in std::mem::take(&mut self.held) {
            self.answer(claim);
        }
    }

    fn answer(&self, claim: Claim<'_>) {
        if self.fault == Fault::NotRun && claim.job().opcode.is_mutation() {
            let number = u64::from(claim.job().block);
            let _ = claim.complete(Completion::ok(number));
        } else {
            answer(self.board, claim);
        }
    }

    /// Reaps and answers until there are no hints; what was held before stays so.
    pub fn serve_hints(&mut self) {
        let before = std::mem::take(&mut self.held);
        self.claim(State::Processing);
        self.answer_held();
        self.held = before;
    }

    /// Answers everything.
    pub fn serve(&mut self) {
        self.answer_held();
        self.serve_hints();
    }

    /// A communicator, if there is none: takes over, and serves what it inherits and what it finds.
    pub fn succeed(&mut self) -> Result<(), String> {
        if self.communicator.is_some() {
            return Ok(());
        }
        let (mut c, inherited) = take_role(self.region, self.parts);
        let places: Vec<u64> = inherited.mutations.iter().map(Claim::claim_seq).collect();
        if !places.is_sorted() || places.contains(&0) {
            return Err(format!("the inherited mutations come in the order {places:?}"));
        }
        if self.fault == Fault::Disinherited {
            std::mem::forget(inherited);
        } else {
            for claim in inherited.mutations.into_iter().chain(inherited.reads) {
                if !claim.is_again() {
                    return Err(format!("slot {} was inherited, and does not say so", claim.slot()));
                }
                self.answer(claim);
            }
        }
        if self.fault != Fault::Unswept {
            let mut swept = Vec::new();
            c.sweep(State::Processing, |claim| swept.push(claim));
            swept.into_iter().for_each(|claim| self.answer(claim));
        }
        self.communicator = Some(c);
        self.serve_hints();
        Ok(())
    }

    /// Everything that the living backend has in flight is answered; mutations ran, and at most so often.
    pub fn take_all(&mut self, most: u32) -> Result<(), String> {
        for asked in std::mem::take(&mut self.asked) {
            take(self.site, &mut self.other, &asked)?;
            let times = self.times_applied(asked.number);
            if asked.kind.is_mutation() && !(1..=most).contains(&times) {
                return Err(format!("{:?} {} was applied {times} times", asked.kind, asked.number));
            }
        }
        Ok(())
    }

    /// A thread that sleeps on the word of a slot until its request is over. Where that is an answer, a sleep that nobody
    /// ends lasts; where it is the end of a cancel it ends by itself, as a backend's does: to give the slot back clears the
    /// waiter bit, so that a communicator that dies between this and the wake leaves nothing to be seen.
    pub fn sleep_on(&mut self, slot: u32) {
        let slot = &self.parts.slots[slot as usize];
        self.sleepers.push(std::thread::spawn(move || loop {
            let word = owner::look(slot);
            let ns = match word.state() {
                Some(State::Submitted | State::Processing | State::Copying) => FOREVER,
                Some(State::Abandoned | State::Withdrawn) => SLICE,
                _ => return Outcome::Changed,
            };
            let Ok(marked) = owner::set_waiter(slot, word) else { continue };
            if futex::wait(&slot.word, marked.low(), ns, false) == Outcome::TimedOut && ns == FOREVER {
                return Outcome::TimedOut;
            }
        }));
        // One that is over already has no sleeper.
        while !communicator::look(slot).waiter() && self.sleepers.last().is_some_and(|s| !s.is_finished()) {
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    pub fn count(&self, counter: RoleCounter) -> u64 {
        self.parts.role_stats.get(counter)
    }
}
