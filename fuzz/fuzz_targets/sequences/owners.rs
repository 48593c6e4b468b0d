//! What backends do, and their deaths.

use std::sync::atomic::Ordering::Relaxed;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use shmuring::backend::{Backend, Cancelled, Fate, Leftover, SlotRef};
use shmuring::error::Error;
use shmuring::request::{Buffers, Opcode, RelTag, Request};
use shmuring::slot::{owner, State, Word};
use shmuring::stats::OwnerCounter;

use super::model::{Asked, GivenUp, Pages, Settled};
use super::{World, BLOCK, NOW, POOL, POOL_BLOCKS};

impl World<'_> {
    /// The model's slot of a reference, if the owner may name it and the generation is right.
    fn find(&self, owner: usize, r: SlotRef) -> std::result::Result<usize, Error> {
        if !self.model.range(owner).contains(&r.slot) {
            return Err(Error::BadSlot);
        }
        if self.model.slots[r.slot as usize].generation != r.generation {
            return Err(Error::Stale);
        }
        Ok(r.slot as usize)
    }

    pub fn fill(&mut self, u: &mut Unstructured<'_>, owner: usize) -> Result<()> {
        let Some(b) = &mut self.owners[owner] else { return Ok(()) };
        // Sometimes another's, or none at all; mostly one that is free.
        let number = if u.ratio(1, 4)? {
            u.int_in_range(0..=self.model.slots.len() as u32)?
        } else {
            let idle = self.model.range(owner).any(|s| self.model.slots[s as usize].state == State::Idle);
            match b.free_slot() {
                Ok(slot) => {
                    assert_eq!(self.model.slots[slot as usize].state, State::Idle);
                    slot
                }
                Err(e) => {
                    assert_eq!((e, idle), (Error::NoFreeSlot, false));
                    return Ok(());
                }
            }
        };
        let stamp = self.stamp();
        let n = u.int_in_range(1..=3u8)?;
        let images = vec![stamp; usize::from(n) * BLOCK];
        let from = u.int_in_range(0..=POOL_BLOCKS - 1)?;
        let indexes: Vec<u32> = (0..u32::from(n)).map(|i| (from + i) % POOL_BLOCKS).collect();
        let rel = RelTag::default();
        let kind = u.int_in_range(0..=9)?;
        let mut request = match kind {
            0 | 1 => Request::get_page(rel, 9, n, 1),
            2 => Request::get_page(rel, 9, n, 1).with_buffers(Buffers::Pool(POOL, &indexes)),
            3 => Request::write_page(rel, 9, n, 1, &images),
            4 => Request::write_page(rel, 9, n, 1, &[]).with_buffers(Buffers::Pool(POOL, &indexes)),
            5 => Request::extend(rel, 9, 1, &images[..BLOCK]),
            6 => Request::prefetch(rel, 9, n, 1),
            7 => Request::new(Opcode::Create, rel),
            _ => Request::new(Opcode::Nop, rel),
        };
        if kind == 9 {
            request.deadline = Some(1);
        }
        let op = request.opcode;
        let pages = match request.buffers {
            Buffers::None => Pages::None,
            Buffers::Pool(..) => Pages::Pool(indexes.clone()),
            _ => Pages::Bounce(usize::from(request.count)),
        };
        let per_slot = self.parts.geometry.bounce_per_slot as usize;
        let held = if let Pages::Bounce(n) = pages { n } else { 0 };
        let free = self.model.free_blocks(owner, per_slot);
        let want = if !self.model.range(owner).contains(&number) {
            Err(Error::BadSlot)
        } else if self.model.slots[number as usize].state != State::Idle {
            Err(Error::SlotBusy)
        } else if held > 0 && per_slot == 0 {
            Err(Error::BadPool)
        } else if held > free {
            Err(Error::NoFreeBuffer)
        } else {
            Ok(SlotRef { slot: number, generation: self.model.slots[number as usize].generation })
        };
        let Some(b) = &mut self.owners[owner] else { return Ok(()) };
        assert_eq!(b.fill(number, &request), want);
        let Ok(r) = want else { return Ok(()) };
        self.refs.push(r);
        let s = &mut self.model.slots[number as usize];
        (s.state, s.result, s.held, s.own) = (State::Filling, None, held, true);
        s.delivered = vec![None; usize::from(request.count)];
        s.image = stamp;
        if op.is_mutation() {
            (s.orphan, s.claim_seq) = (None, 0);
        }
        if let (4, Pages::Pool(blocks)) = (kind, &pages) {
            // The owner puts the image where the request says, as it may while Filling, if no read is to arrive there.
            for block in blocks {
                self.model.pool[*block as usize] = stamp;
                // SAFETY: one thread, which is here.
                unsafe { self.parts.pools.get(POOL).unwrap().write(*block, 0, &[stamp; BLOCK]) }.unwrap();
            }
        }
        let s = &mut self.model.slots[number as usize];
        s.asked = Some(Asked {
            is_mutation: op.is_mutation(),
            takes_images: op.takes_images(),
            fills: op.fills_buffers(),
            pages,
            expired: kind == 9,
        });
        Ok(())
    }

    pub fn submit(&mut self, u: &mut Unstructured<'_>, owner: usize) -> Result<()> {
        let mut batch = Vec::new();
        if u.ratio(1, 3)? {
            // Everything that is filled.
            let filled = |s: &u32| self.model.slots[*s as usize].state == State::Filling;
            let reference = |s: u32| SlotRef { slot: s, generation: self.model.slots[s as usize].generation };
            batch.extend(self.model.range(owner).filter(filled).map(reference));
        } else {
            for _ in 0..u.int_in_range(1..=2)? {
                batch.extend(self.some_ref(u)?);
            }
        }
        // A ring holds that much while all keep to the protocol, and no fuzzer's number of deaths (R15).
        if batch.is_empty() || self.model.tickets.len() + batch.len() > 2 * self.model.capacity {
            return Ok(());
        }
        let one_by_one = batch.len() == 1 && u.arbitrary()?;
        let mut want = Ok(());
        for (i, r) in batch.iter().enumerate() {
            let verdict = match self.find(owner, *r) {
                Err(e) => Err(e),
                Ok(s) if self.model.slots[s].state != State::Filling => Err(Error::NotFilling),
                Ok(_) if batch[..i].contains(r) => Err(Error::NotFilling),
                Ok(_) => Ok(()),
            };
            want = want.and(verdict);
        }
        let Some(b) = &mut self.owners[owner] else { return Ok(()) };
        let tail = self.parts.header.tail.0.load(Relaxed);
        let bits = b.counter(OwnerCounter::PendingPushes);
        assert_eq!(if one_by_one { b.submit(batch[0]) } else { b.submit_many(&batch) }, want);
        if want.is_ok() {
            let taken = self.parts.header.tail.0.load(Relaxed) - tail;
            let bits = b.counter(OwnerCounter::PendingPushes) - bits;
            let slots: Vec<u32> = batch.iter().map(|r| r.slot).collect();
            for s in &slots {
                self.model.slots[*s as usize].state = State::Submitted;
            }
            self.model.push(&slots, bits as usize, taken as usize);
        }
        Ok(())
    }

    /// An owner dies between Submitted and the push.
    pub fn submit_without_a_hint(&mut self, u: &mut Unstructured<'_>, owner: usize) -> Result<()> {
        let Some(r) = self.some_ref(u)? else { return Ok(()) };
        let Ok(s) = self.find(owner, r) else { return Ok(()) };
        if self.owners[owner].is_none() || self.model.slots[s].state != State::Filling {
            return Ok(());
        }
        owner::submit(&self.parts.slots[s], self.model.slots[s].word());
        self.model.slots[s].state = State::Submitted;
        self.die(owner);
        Ok(())
    }

    /// A producer that is not here any more took tickets.
    pub fn die_with_tickets(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let n = u.int_in_range(1..=4)?;
        if self.model.tickets.len() + n <= self.model.capacity {
            self.parts.header.tail.0.fetch_add(n as u64, Relaxed);
            self.model.tickets.extend((0..n).map(|_| None));
        }
        Ok(())
    }

    pub fn cancel(&mut self, u: &mut Unstructured<'_>, owner: usize) -> Result<()> {
        let Some(r) = self.some_ref(u)? else { return Ok(()) };
        let found = self.find(owner, r);
        let Some(b) = &mut self.owners[owner] else { return Ok(()) };
        let got = b.cancel(r, &NOW);
        let role_held = self.model.role_held;
        let want = found.and_then(|s| match self.model.slots[s].give_up(role_held) {
            GivenUp::Withdrawn => Ok(Cancelled::Withdrawn),
            GivenUp::Abandoned => Ok(Cancelled::Abandoned),
            GivenUp::AlreadyCompleted => Err(Error::AlreadyCompleted),
            GivenUp::InProgress => Err(Error::InProgress),
            GivenUp::TimedOut => Err(Error::TimedOut),
            GivenUp::Stale => Err(Error::Stale),
        });
        assert_eq!(got, want);
        Ok(())
    }

    /// Whether the request of a reference is complete, as `poll` says.
    fn is_complete(&self, owner: usize, r: SlotRef) -> std::result::Result<bool, Error> {
        match self.model.slots[self.find(owner, r)?].state {
            State::Completed => Ok(true),
            State::Submitted | State::Processing | State::Copying => Ok(false),
            State::Filling => Err(Error::NotCompleted),
            State::Idle | State::Abandoned | State::Withdrawn => Err(Error::Stale),
        }
    }

    pub fn look(&mut self, u: &mut Unstructured<'_>, owner: usize) -> Result<()> {
        let Some(r) = self.some_ref(u)? else { return Ok(()) };
        let complete = self.is_complete(owner, r);
        let role_held = self.model.role_held;
        let Some(b) = &mut self.owners[owner] else { return Ok(()) };
        assert_eq!(b.poll(r), complete);
        let gone = if role_held { Error::TimedOut } else { Error::CommunicatorGone };
        let done = complete.and_then(|c| if c { Ok(()) } else { Err(gone) });
        assert_eq!(b.wait(r, &NOW), done);
        assert_eq!(b.wait_any(&[r], &NOW), done.map(|()| 0));
        if complete == Ok(false) {
            // It marks the words before it looks at the time.
            self.model.slots[r.slot as usize].w = true;
        }
        Ok(())
    }

    pub fn finish(&mut self, u: &mut Unstructured<'_>, owner: usize) -> Result<()> {
        let Some(r) = self.some_ref(u)? else { return Ok(()) };
        let complete = self.is_complete(owner, r);
        let Some(b) = &mut self.owners[owner] else { return Ok(()) };
        let s = &mut self.model.slots[r.slot as usize];
        let want = match complete {
            Ok(true) => Ok(s.result.expect("completed")),
            Ok(false) => Err(Error::NotCompleted),
            Err(e) => Err(e),
        };
        assert_eq!(b.result(r), want);
        let asked = s.asked.as_ref().expect("there is a reference");
        if let (Ok(done), Pages::Bounce(n), true) = (want, &asked.pages, asked.fills) {
            // A read that failed has none.
            let has = if done.is_ok() { *n } else { 0 };
            for i in 0..has {
                let page = b.page(r, i).unwrap();
                if let Some(stamp) = s.delivered[i] {
                    assert_eq!(page, [stamp; BLOCK], "page {i}");
                }
            }
            assert_eq!(b.page(r, has).err(), Some(Error::BadBuffer));
        }
        assert_eq!(b.finish(r), want);
        if want.is_ok() {
            s.free();
        }
        Ok(())
    }

    /// A sleeper marks a word, and is not woken or is gone.
    pub fn set_waiter(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let i = u.int_in_range(0..=self.model.slots.len() - 1)?;
        let s = &mut self.model.slots[i];
        if !s.is_unfinished() && !matches!(s.state, State::Abandoned | State::Withdrawn) {
            return Ok(());
        }
        let seen = Word::from_bits(self.parts.slots[i].word.load(Relaxed));
        assert!(owner::set_waiter(&self.parts.slots[i], seen).is_ok());
        s.w = true;
        Ok(())
    }

    fn die(&mut self, owner: usize) {
        // A dropped handle leaves what a death leaves.
        drop(self.owners[owner].take());
        self.model.die(owner);
    }

    pub fn die_or_attach(&mut self, owner: usize) {
        let range = self.model.range(owner);
        let attached = Backend::attach(self.region, range.start, range.len() as u32);
        if self.owners[owner].is_some() {
            assert_eq!(attached.err(), Some(Error::OwnerAlive));
            self.die(owner);
        } else {
            self.owners[owner] = Some(attached.unwrap());
            self.model.attach(owner);
        }
    }

    fn check_leftover(want: &Settled, got: &Leftover) {
        let (slot, fate) = match *want {
            Settled::Completed(slot, completion) => (slot, Fate::Completed(completion)),
            Settled::Withdrawn(slot) => (slot, Fate::Withdrawn),
            Settled::Abandoned(slot) => (slot, Fate::Abandoned),
            Settled::OwnerDead(slot) => (slot, Fate::OwnerDead),
        };
        assert_eq!((got.slot, got.fate), (slot, fate));
    }

    pub fn leftovers(&mut self, u: &mut Unstructured<'_>, owner: usize) -> Result<()> {
        if u.arbitrary()? {
            self.detach(owner);
            return Ok(());
        }
        let Some(b) = &mut self.owners[owner] else { return Ok(()) };
        let gone = if self.model.role_held { Error::TimedOut } else { Error::CommunicatorGone };
        loop {
            let got = b.next_leftover(&NOW);
            match (self.model.next_leftover(owner), got) {
                (Ok(Some(want)), Ok(Some(got))) => Self::check_leftover(&want, &got),
                (Ok(None), Ok(None)) => break,
                (Err(()), Err(e)) => {
                    assert_eq!(e, gone);
                    break;
                }
                (want, got) => panic!("a leftover is {want:?}, and reported as {got:?}"),
            }
        }
        Ok(())
    }

    /// Settles all that the owner has, as far as it goes without waiting.
    pub fn detach(&mut self, owner: usize) {
        let Some(b) = &mut self.owners[owner] else { return };
        let gone = if self.model.role_held { Error::TimedOut } else { Error::CommunicatorGone };
        let got = b.detach(&NOW);
        self.model.unsettled[owner] = self.model.range(owner).start;
        let mut n = 0;
        let want = loop {
            match self.model.next_leftover(owner) {
                Ok(Some(_)) => n += 1,
                Ok(None) => break Ok(n),
                Err(()) => break Err(gone),
            }
        };
        assert_eq!(got, want);
    }
}
