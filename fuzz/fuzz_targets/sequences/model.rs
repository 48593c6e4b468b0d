//! What a region must look like after each operation: the slot words by the transition table of docs/design.md, the ring
//! as a queue of tickets, the pending bitmap as a set. Nothing here looks at the library's own code.

use std::collections::{BTreeSet, VecDeque};

use shmuring::request::Completion;
use shmuring::slot::State::{self, *};
use shmuring::slot::{Word, GENERATIONS};

/// Where the pages of a request are.
#[derive(Clone, Debug, PartialEq)]
pub enum Pages {
    None,
    /// In so many bounce blocks.
    Bounce(usize),
    /// In these blocks of the registered pool.
    Pool(Vec<u32>),
}

/// What the table needs to know of a request.
#[derive(Clone, Debug)]
pub struct Asked {
    pub is_mutation: bool,
    pub takes_images: bool,
    pub fills: bool,
    pub pages: Pages,
    /// Its deadline has passed before it was submitted.
    pub expired: bool,
}

#[derive(Clone, Debug)]
pub struct Slot {
    pub state: State,
    pub w: bool,
    pub generation: u32,
    pub epoch: u32,
    pub asked: Option<Asked>,
    pub result: Option<Completion>,
    /// What was delivered, by block; forgotten at a take-over, which delivers anew.
    pub delivered: Vec<Option<u8>>,
    /// What its image is made of.
    pub image: u8,
    /// The generation whose owner is known to be dead.
    pub orphan: Option<u32>,
    /// Place in the order of claims; 0: not claimed.
    pub claim_seq: u64,
    /// Bounce blocks that the owner's handle counts as this slot's.
    pub held: usize,
    /// Filled by the present handle.
    pub own: bool,
}

impl Slot {
    fn new() -> Self {
        Self {
            state: Idle,
            w: false,
            generation: 0,
            epoch: 0,
            asked: None,
            result: None,
            delivered: Vec::new(),
            image: 0,
            orphan: None,
            claim_seq: 0,
            held: 0,
            own: false,
        }
    }

    pub fn word(&self) -> Word {
        let waiter = u64::from(self.w) << 4;
        Word::from_bits(Word::new(self.state, self.generation, self.epoch).bits() | waiter)
    }

    /// Idle in the next generation; W and epoch are cleared.
    pub fn free(&mut self) {
        (self.state, self.w, self.epoch) = (Idle, false, 0);
        self.generation = (self.generation + 1) % GENERATIONS;
        self.held = 0;
    }

    pub fn complete(&mut self, completion: Completion) {
        self.state = Completed;
        self.result = Some(completion);
    }

    pub fn is_unfinished(&self) -> bool {
        matches!(self.state, Submitted | Processing | Copying)
    }

    fn asked(&self) -> &Asked {
        self.asked.as_ref().expect("filled")
    }

    pub fn is_mutation(&self) -> bool {
        self.asked().is_mutation
    }

    /// An image in a registered pool, which means nothing once its owner is dead (R5).
    pub fn has_foreign_image(&self) -> bool {
        self.asked().takes_images && matches!(self.asked().pages, Pages::Pool(_))
    }

    /// The owner gives it up: rows 10, 12, 14, 15, 20.
    pub fn give_up(&mut self, role_held: bool) -> GivenUp {
        match self.state {
            Filling => {
                self.free();
                GivenUp::Withdrawn
            }
            Completed => GivenUp::AlreadyCompleted,
            Submitted => {
                self.state = Withdrawn;
                GivenUp::Withdrawn
            }
            Processing | Copying if self.is_mutation() => GivenUp::InProgress,
            // A copying into a registered pool is waited out while its communicator lives, and no time is given.
            Copying if matches!(self.asked().pages, Pages::Pool(_)) && role_held => GivenUp::TimedOut,
            Processing | Copying => {
                self.state = Abandoned;
                GivenUp::Abandoned
            }
            Idle | Abandoned | Withdrawn => GivenUp::Stale,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GivenUp {
    Withdrawn,
    Abandoned,
    AlreadyCompleted,
    InProgress,
    TimedOut,
    Stale,
}

/// What one settled leftover came to.
#[derive(Debug, PartialEq)]
pub enum Settled {
    Completed(u32, Completion),
    Withdrawn(u32),
    Abandoned(u32),
    OwnerDead(u32),
}

/// One claim: of a slot, a generation and an epoch.
#[derive(Clone, Copy, Debug)]
pub struct Claimed {
    pub slot: usize,
    pub generation: u32,
    pub epoch: u32,
    /// As its own last transition left it.
    pub state: State,
}

#[derive(Debug)]
pub struct Model {
    pub slots: Vec<Slot>,
    /// Tickets from the head to the tail; `None` is one that nobody will publish.
    pub tickets: VecDeque<Option<u32>>,
    pub pending: BTreeSet<u32>,
    pub capacity: usize,
    /// Epoch of the communicator, or of the last one.
    pub epoch: u32,
    pub claim_seq: u64,
    /// What the communicator saw without a claim at its last audit: slot, generation, state.
    pub suspects: Vec<(u32, u32, State)>,
    pub role_held: bool,
    /// First slot of the second owner.
    pub split: u32,
    pub attached: [bool; 2],
    /// The slot that the next leftover is looked for from, by owner.
    pub unsettled: [u32; 2],
    /// What lies in the registered pool, a byte a block.
    pub pool: Vec<u8>,
}

impl Model {
    pub fn new(slots: u32, split: u32, capacity: usize, pool: usize) -> Self {
        Self {
            slots: (0..slots).map(|_| Slot::new()).collect(),
            tickets: VecDeque::new(),
            pending: BTreeSet::new(),
            capacity,
            epoch: 0,
            claim_seq: 0,
            suspects: Vec::new(),
            role_held: false,
            split,
            attached: [false; 2],
            unsettled: [0; 2],
            pool: vec![0; pool],
        }
    }

    pub fn range(&self, owner: usize) -> std::ops::Range<u32> {
        if owner == 0 {
            0..self.split
        } else {
            self.split..self.slots.len() as u32
        }
    }

    fn owner_of(&self, slot: usize) -> usize {
        usize::from(slot as u32 >= self.split)
    }

    /// Bounce blocks of the range that no slot holds.
    pub fn free_blocks(&self, owner: usize, per_slot: usize) -> usize {
        let range = self.range(owner);
        let held: usize = range.clone().map(|s| self.slots[s as usize].held).sum();
        range.len() * per_slot - held
    }

    /// A push of `slots`, by_bitmap of which went by the bitmap and for which `taken` tickets were taken.
    pub fn push(&mut self, slots: &[u32], by_bitmap: usize, taken: usize) {
        let room = self.capacity.saturating_sub(self.tickets.len());
        let in_cells = slots.len() - by_bitmap;
        assert!(in_cells <= room && taken >= in_cells && taken <= 3 * slots.len(), "{taken} tickets, {in_cells} used");
        assert!(room < slots.len() || by_bitmap == 0, "there was room, and it was not used");
        let (first, rest) = slots.split_at(in_cells);
        self.tickets.extend(first.iter().map(|s| Some(*s)));
        self.tickets.extend((in_cells..taken).map(|_| None));
        self.pending.extend(rest);
    }

    /// What a hint makes of its slot (rows 3, 4, 11); whether it is claimed.
    pub fn hint(&mut self, slot: u32, to: State) -> bool {
        let epoch = self.epoch;
        let s = &mut self.slots[slot as usize];
        match s.state {
            Withdrawn => s.free(),
            Submitted => {
                s.epoch = epoch;
                if s.asked().expired {
                    s.complete(Completion::fail(libc::ETIMEDOUT));
                    return false;
                }
                s.state = to;
                if s.is_mutation() {
                    self.claim_seq += 1;
                    s.claim_seq = self.claim_seq;
                }
                return true;
            }
            _ => {}
        }
        false
    }

    /// One audit: of what still lies as the last one saw it, those that are claimed; nothing while there are hints.
    pub fn audit(&mut self, to: State) -> Vec<u32> {
        let quiet = self.tickets.is_empty() && self.pending.is_empty();
        let mut claimed = Vec::new();
        for (number, generation, state) in std::mem::take(&mut self.suspects) {
            let s = &self.slots[number as usize];
            if quiet && (s.generation, s.state) == (generation, state) && self.hint(number, to) {
                claimed.push(number);
            }
        }
        let suspect = |(number, s): (u32, &Slot)| {
            matches!(s.state, Submitted | Withdrawn).then_some((number, s.generation, s.state))
        };
        self.suspects = (0..).zip(&self.slots).filter_map(suspect).collect();
        claimed
    }

    /// Whether the slot is still as the claim left it.
    pub fn holds(&self, c: &Claimed) -> bool {
        let s = &self.slots[c.slot];
        (s.state, s.generation, s.epoch) == (c.state, c.generation, c.epoch)
    }

    /// Row 13, if the claim was cancelled.
    pub fn give_back(&mut self, c: &Claimed) {
        let s = &mut self.slots[c.slot];
        if (s.state, s.generation, s.epoch) == (Abandoned, c.generation, c.epoch) {
            s.free();
        }
    }

    /// Ends a claim with `completion`; whether it was not cancelled.
    pub fn end(&mut self, c: &Claimed, completion: Completion) -> bool {
        let holds = self.holds(c);
        if holds {
            self.slots[c.slot].complete(completion);
        } else {
            self.give_back(c);
        }
        holds
    }

    /// The handle of this owner is gone, whether it was dropped or killed.
    pub fn die(&mut self, owner: usize) {
        self.attached[owner] = false;
    }

    /// A new handle: what it derives, and the marks that it leaves.
    pub fn attach(&mut self, owner: usize) {
        self.attached[owner] = true;
        self.unsettled[owner] = self.range(owner).start;
        for number in self.range(owner) {
            let s = &mut self.slots[number as usize];
            s.own = false;
            if s.state == Filling {
                s.free();
            }
            if s.is_unfinished() {
                s.orphan = Some(s.generation);
            }
            s.held = match (&s.asked, s.state) {
                (_, Idle) | (None, _) => 0,
                (Some(asked), _) => match asked.pages {
                    Pages::Bounce(n) => n,
                    _ => 0,
                },
            };
        }
    }

    /// Settles the next leftover: rows 20 to 25. `Err`: it must be waited for, and no time is given.
    pub fn next_leftover(&mut self, owner: usize) -> Result<Option<Settled>, ()> {
        while self.range(owner).contains(&self.unsettled[owner]) {
            let number = self.unsettled[owner];
            let settled = self.settle(number)?;
            self.unsettled[owner] += 1;
            if settled.is_some() {
                return Ok(settled);
            }
        }
        Ok(None)
    }

    fn settle(&mut self, number: u32) -> Result<Option<Settled>, ()> {
        let role_held = self.role_held;
        let s = &mut self.slots[number as usize];
        let settled = match s.state {
            Idle | Abandoned => return Ok(None),
            Filling => {
                s.free();
                return Ok(None);
            }
            Withdrawn => {
                self.pending.insert(number);
                return Ok(None);
            }
            Completed => {
                let result = s.result.take().expect("completed");
                s.free();
                return Ok(Some(Settled::Completed(number, result)));
            }
            Submitted if s.is_mutation() && s.has_foreign_image() && !s.own => {
                s.state = Withdrawn;
                Settled::OwnerDead(number)
            }
            _ if s.is_mutation() => {
                self.pending.insert(number);
                return Err(());
            }
            _ => match s.give_up(role_held) {
                GivenUp::Withdrawn => Settled::Withdrawn(number),
                GivenUp::Abandoned => Settled::Abandoned(number),
                GivenUp::TimedOut => return Err(()),
                other => panic!("{other:?}"),
            },
        };
        self.pending.insert(number);
        Ok(Some(settled))
    }

    /// A successor takes the role: rows 11, 16, 17. Gives the slots of the claims that it inherits: mutations in the
    /// order of their claims, then reads.
    pub fn take_over(&mut self) -> Vec<usize> {
        self.role_held = true;
        self.epoch += 1;
        self.suspects.clear();
        let (mut mutations, mut reads) = (Vec::new(), Vec::new());
        for number in 0..self.slots.len() {
            let lives = self.attached[self.owner_of(number)];
            let epoch = self.epoch;
            let s = &mut self.slots[number];
            let owned = lives && s.orphan != Some(s.generation);
            let was = s.state;
            match was {
                Abandoned | Withdrawn => s.free(),
                Submitted | Processing | Copying if s.has_foreign_image() && !owned => {
                    s.epoch = epoch;
                    s.complete(Completion::fail(libc::EOWNERDEAD));
                    if was != Submitted && s.claim_seq == 0 {
                        panic!("a claimed mutation without a number");
                    }
                }
                Processing | Copying => {
                    (s.state, s.epoch) = (Processing, epoch);
                    s.delivered.fill(None);
                    if s.is_mutation() { &mut mutations } else { &mut reads }.push(number);
                }
                _ => {}
            }
        }
        mutations.sort_by_key(|n| self.slots[*n].claim_seq);
        mutations.into_iter().chain(reads).collect()
    }
}
