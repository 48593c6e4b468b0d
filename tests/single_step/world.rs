//! Everybody but the victim: the region, a backend beside it, the communicator, and what they must see afterwards.
//!
//! They are real handles over the real region, all of one process and one thread, so that every run goes the same way;
//! the victim is a process of its own.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator, ServerLife};
use shmuring::doorbell;
use shmuring::futex::{self, Outcome};
use shmuring::lsn::rel_size::Writer;
use shmuring::parts::Parts;
use shmuring::region::Region;
use shmuring::request::{Completion, Lsn};
use shmuring::ring::Consumer;
use shmuring::slot::{communicator, owner, State, Word};
use shmuring::stats::RoleCounter;

use crate::clock;
use crate::requests::{self, applied, leave_unhinted, page, take, Asked, Kind};
use crate::support::process::{open, take_role, Board, Site, BLOCK, POOL};
use crate::tracee::PHASE;

/// Slots of the region.
pub const SLOTS: u32 = 12;
/// The first of them, in one range, are the victim's where a backend dies.
pub const VICTIMS: u32 = 4;
/// The rest is a living backend's.
const OTHERS: u32 = SLOTS - VICTIMS;
pub const NOW: Wait<'static> = Wait { until: 0, interrupt: None };
/// How long a sleeper sleeps that nobody wakes, in ns.
const FOREVER: u64 = 20_000_000_000;
/// A sleep that may end by itself, in ns: a backend's lasts a second.
const SLICE: u64 = 20_000_000;
/// Most rounds of reaping; an unpublished ticket takes 512.
const ROUNDS: u32 = 5000;

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
    /// The next communicator does not repair the ring.
    Unrepaired,
    /// The next server does not begin a life of its own.
    SameLife,
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
    /// The living backend: slots from [`VICTIMS`] on. `None`: it died with its server.
    other: Option<Backend<'static>>,
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
    /// What the last server had asked for, and how far that had come when it fell.
    pub old: Vec<(Asked, Word)>,
    /// The present server's life; `None`: it died, or there was none yet.
    pub life: Option<ServerLife>,
    /// Its number, when the last server fell.
    pub last_life: u32,
    /// The writer of relation sizes of the communicator.
    pub sizes: Option<Writer<'static>>,
    /// What blocks were noted as written in the last-written table.
    pub noted: BTreeMap<u32, Lsn>,
    /// The ring is damaged, until an audit has repaired it.
    pub is_damaged: bool,
    /// What may be counted until the region comes to rest, and how often.
    pub excused: Vec<(RoleCounter, u64)>,
    /// What was counted by then.
    counted: BTreeMap<usize, u64>,
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
            other: Some(Backend::attach(region, VICTIMS, OTHERS).unwrap()),
            asked: Vec::new(),
            base: 0,
            number: 0,
            sleepers: Vec::new(),
            parked: None,
            cancelled: Vec::new(),
            old: Vec::new(),
            life: None,
            last_life: 0,
            sizes: None,
            noted: BTreeMap::new(),
            is_damaged: false,
            excused: Vec::new(),
            counted: BTreeMap::new(),
        }
    }

    pub fn other(&mut self) -> &mut Backend<'static> {
        self.other.as_mut().expect("it lives")
    }

    /// The living backend dies, with all that it has in flight.
    pub fn end_other(&mut self) -> Vec<Asked> {
        self.other = None;
        std::mem::take(&mut self.asked)
    }

    /// Another one comes, if there is none: the next server's.
    pub fn begin_other(&mut self) -> Result<(), String> {
        if self.other.is_none() {
            let other = Backend::attach(self.region, VICTIMS, OTHERS);
            self.other = Some(other.map_err(|e| format!("the next server's backend is refused: {e}"))?);
        }
        Ok(())
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
        self.board.set(PHASE, 0);
        let numbers: Vec<u32> = (0..VICTIMS).map(|_| self.number()).collect();
        self.base = numbers[0];
    }

    /// How far the victim said that it had come.
    pub fn phase(&self) -> u32 {
        self.board.get(PHASE)
    }

    pub fn times_applied(&self, number: u32) -> u32 {
        self.board.get(applied(number))
    }

    /// The living backend asks.
    pub fn ask(&mut self, slot: u32, kind: Kind) {
        let at = self.fill(slot, kind);
        self.other().submit(at).unwrap();
    }

    /// It asks, and stops before the push.
    pub fn ask_unhinted(&mut self, slot: u32, kind: Kind) {
        let at = self.fill(slot, kind);
        leave_unhinted(self.parts, at);
    }

    /// It writes a request, and stops before the submit.
    pub fn fill(&mut self, slot: u32, kind: Kind) -> SlotRef {
        let number = self.number();
        if let Kind::WritePool(index) = kind {
            self.paint(index, &page(number));
        }
        let at = requests::fill(self.other(), slot, kind, number);
        self.asked.push(Asked { at, kind, number });
        at
    }

    /// The living backend gives a request up.
    pub fn cancel(&mut self, slot: u32) {
        let i = self.asked.iter().position(|a| a.at.slot == slot).unwrap();
        let asked = self.asked.swap_remove(i);
        self.other().cancel(asked.at, &NOW).unwrap();
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
            requests::answer(self.board, claim);
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
        self.sizes = c.rel_size_writer();
        self.communicator = Some(c);
        self.repair();
        self.serve_hints();
        Ok(())
    }

    /// The audit that is due finds a damaged ring.
    pub fn repair(&mut self) {
        if !std::mem::take(&mut self.is_damaged) || self.fault == Fault::Unrepaired {
            return;
        }
        // It is found on the way to the next hint.
        self.serve_hints();
        clock::move_on(2);
        let Self { communicator, held, .. } = self;
        communicator.as_mut().unwrap().audit(State::Processing, |claim| held.push(claim));
        self.answer_held();
    }

    /// Everything that the living backend has in flight is answered; mutations ran, and at most so often.
    pub fn take_all(&mut self, most: u32) -> Result<(), String> {
        for asked in std::mem::take(&mut self.asked) {
            take(self.site, self.other(), &asked)?;
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

    /// How often the counter was raised since this was asked last.
    pub fn count(&mut self, counter: RoleCounter) -> u64 {
        let now = self.parts.role_stats.get(counter);
        now - self.counted.insert(counter as usize, now).unwrap_or(0)
    }
}
