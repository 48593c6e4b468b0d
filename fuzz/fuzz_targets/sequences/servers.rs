//! What communicators do, and their deaths.

use std::sync::atomic::Ordering::Relaxed;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use shmuring::communicator::{Claim, Communicator};
use shmuring::liveness::ROLE_BYTE;
use shmuring::request::Completion;
use shmuring::ring::empty;
use shmuring::slot::State;

use super::model::{Claimed, Pages};
use super::{clock, World, BLOCK};

/// Reaps after which every unpublished ticket has been stepped over.
const PATIENCE: usize = 700;

fn either(u: &mut Unstructured<'_>) -> Result<State> {
    Ok(if u.arbitrary()? { State::Copying } else { State::Processing })
}

impl<'r> World<'r> {
    /// Takes claims that the model has made already.
    fn keep(&mut self, claims: Vec<Claim<'r>>) {
        for claim in claims {
            let slot = claim.slot() as usize;
            let s = &self.model.slots[slot];
            assert_eq!(
                (claim.generation(), claim.claim_seq()),
                (s.generation, if s.is_mutation() { s.claim_seq } else { 0 })
            );
            let claimed = Claimed { slot, generation: s.generation, epoch: s.epoch, state: s.state };
            self.claims.push((claim, claimed));
        }
    }

    pub fn reap(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let max = u.int_in_range(1..=4)?;
        let to = either(u)?;
        self.reap_to(max, to);
        Ok(())
    }

    /// One reap: the bits of the bitmap, then tickets in their order, up to the first that is not published.
    fn reap_to(&mut self, max: usize, to: State) {
        let Some(server) = &mut self.server else { return };
        let head = self.parts.header.head.0.load(Relaxed);
        let mut claims = Vec::new();
        let n = server.reap(max, to, |claim| claims.push(claim));
        assert_eq!(n, claims.len());
        let passed = self.parts.header.head.0.load(Relaxed) - head;
        let hinted = std::mem::take(&mut self.model.pending);
        // The bits come in an order of their own, and mutations are numbered in it.
        let mut by_bits: Vec<u32> = claims.iter().map(Claim::slot).filter(|s| hinted.contains(s)).collect();
        by_bits.extend(hinted.iter().filter(|s| !claims.iter().any(|c| c.slot() == **s)));
        let mut want: Vec<u32> = by_bits.into_iter().filter(|s| self.model.hint(*s, to)).collect();
        for _ in 0..passed {
            if let Some(slot) = self.model.tickets.pop_front().expect("a ticket") {
                want.extend(self.model.hint(slot, to).then_some(slot));
            }
        }
        assert_eq!(claims.iter().map(Claim::slot).collect::<Vec<_>>(), want);
        // It stops for a reason: enough, a ring's length of hints, or nothing more that is published.
        let published = matches!(self.model.tickets.front(), Some(Some(_)));
        assert!(!published || n >= max || passed as usize + hinted.len() >= self.model.capacity);
        self.keep(claims);
    }

    /// Until every ticket was published or stepped over.
    pub fn reap_patiently(&mut self) {
        if self.server.is_none() {
            return;
        }
        for _ in 0..PATIENCE {
            self.reap_to(usize::MAX, State::Processing);
            if self.model.tickets.is_empty() {
                return;
            }
        }
        panic!("tickets that nobody publishes are waited for: {:?}", self.model.tickets);
    }

    /// One step of serving some claim.
    pub fn serve(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.claims.is_empty() {
            return Ok(());
        }
        let i = u.int_in_range(0..=self.claims.len() - 1)?;
        let how = u.int_in_range(0..=5)?;
        let (mut claim, mut claimed) = self.claims.swap_remove(i);
        let s = &self.model.slots[claimed.slot];
        let abandoned = (s.state, s.generation, s.epoch) == (State::Abandoned, claimed.generation, claimed.epoch);
        assert_eq!(claim.is_cancelled(), abandoned);
        match how {
            0 => self.complete(claim, &claimed),
            1 => {
                let completion = Completion { value: 3, attempts: 2, ..Completion::fail(libc::EIO) };
                assert_eq!(claim.fail(libc::EIO, 3, 2).is_ok(), self.model.end(&claimed, completion));
            }
            2 => {
                drop(claim);
                self.model.end(&claimed, Completion::fail(libc::ECANCELED));
            }
            _ => {
                if self.copy(&mut claim, &mut claimed, how == 5) {
                    self.claims.push((claim, claimed));
                }
            }
        }
        Ok(())
    }

    pub fn complete(&mut self, claim: Claim<'r>, claimed: &Claimed) {
        let completion = Completion::ok(u64::from(self.stamp()));
        assert_eq!(claim.complete(completion).is_ok(), self.model.end(claimed, completion));
    }

    /// Rows 5 and 6: into Copying, every page, and perhaps back. Whether the claim goes on.
    fn copy(&mut self, claim: &mut Claim<'r>, claimed: &mut Claimed, suspend: bool) -> bool {
        let stamp = self.stamp();
        let holds = self.model.holds(claimed);
        let Ok(mut copying) = claim.copying() else {
            assert!(claimed.state == State::Processing && !holds);
            self.model.give_back(claimed);
            return false;
        };
        assert!(claimed.state == State::Copying || holds);
        claimed.state = State::Copying;
        if holds {
            self.model.slots[claimed.slot].state = State::Copying;
        }
        let s = &mut self.model.slots[claimed.slot];
        let asked = s.asked.as_ref().expect("claimed");
        let n = match &asked.pages {
            Pages::None => 0,
            Pages::Bounce(n) => *n,
            Pages::Pool(blocks) => blocks.len(),
        };
        let mut image = [0; BLOCK];
        for i in 0..n {
            assert_eq!(copying.deliver(i, &[stamp; BLOCK]).is_ok(), asked.fills);
            assert_eq!(copying.take_image(i, &mut image).is_ok(), asked.takes_images);
            if asked.fills {
                s.delivered[i] = Some(stamp);
            }
            match &asked.pages {
                Pages::Pool(blocks) if asked.fills => self.model.pool[blocks[i] as usize] = stamp,
                Pages::Bounce(_) if asked.takes_images => assert_eq!(image, [s.image; BLOCK]),
                _ => {}
            }
        }
        assert!(copying.deliver(n, &[stamp; BLOCK]).is_err());
        if !suspend {
            return true;
        }
        assert_eq!(copying.suspend().is_ok(), holds);
        if holds {
            self.model.slots[claimed.slot].state = State::Processing;
            claimed.state = State::Processing;
        } else {
            self.model.give_back(claimed);
        }
        holds
    }

    /// A communicator dies, or the next one takes over.
    pub fn die_or_take_over(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if self.server.is_none() {
            let to = either(u)?;
            self.take_over(to);
            return Ok(());
        }
        if u.arbitrary()? && matches!(self.model.tickets.front(), Some(Some(_))) {
            // It has reset a cell, and not yet stored its head (R14): the hint is gone.
            let (n, head) = (self.parts.cells.len() as u64, self.parts.header.head.0.load(Relaxed));
            self.parts.cells[(head % n) as usize].0.store(empty(head / n + 1), Relaxed);
            self.model.tickets[0] = None;
        }
        // The kernel takes memory and lock, and nothing runs.
        std::mem::take(&mut self.claims).into_iter().for_each(|(claim, _)| std::mem::forget(claim));
        self.server = None;
        self.role = None;
        self.model.role_held = false;
        Ok(())
    }

    pub fn take_over(&mut self, to: State) {
        let role = self.region.lock_file().unwrap();
        assert!(role.try_lock(ROLE_BYTE, 1).unwrap());
        // SAFETY: the role lock is held, and is given up with the communicator, when all claims have been forgotten.
        let (mut server, inherited) = unsafe { Communicator::over(self.parts, self.region.liveness(), None) };
        let want = self.model.take_over();
        assert_eq!(server.epoch(), self.model.epoch);
        let claims: Vec<_> = inherited.mutations.into_iter().chain(inherited.reads).collect();
        assert_eq!(claims.iter().map(|c| c.slot() as usize).collect::<Vec<_>>(), want);
        assert!(claims.iter().all(Claim::is_again));
        self.role = Some(role);
        self.keep(claims);
        self.check();
        // Then everything that is submitted, without any hint.
        let mut claims = Vec::new();
        server.sweep(to, |claim| claims.push(claim));
        let all = 0..self.model.slots.len() as u32;
        let want: Vec<u32> = all.filter(|s| self.model.hint(*s, to)).collect();
        assert_eq!(claims.iter().map(Claim::slot).collect::<Vec<_>>(), want);
        self.server = Some(server);
        self.keep(claims);
    }

    pub fn audit(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let to = either(u)?;
        self.audit_to(to);
        Ok(())
    }

    /// Two audits: what lies without a hint is found by the second that sees it, and nothing else is touched.
    pub fn audit_to(&mut self, to: State) {
        for _ in 0..2 {
            let Some(server) = &mut self.server else { return };
            clock::pass_an_audit();
            let mut claims = Vec::new();
            server.audit(to, |claim| claims.push(claim));
            let want = self.model.audit(to);
            assert_eq!(claims.iter().map(Claim::slot).collect::<Vec<_>>(), want);
            self.keep(claims);
            self.check();
        }
    }
}
