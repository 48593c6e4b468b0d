//! Operations of two backends and of communicators, one after the other and in any order, with deaths between the steps
//! of each: after every operation the region is as the model says, and in the end every request is settled.
#![no_main]

#[path = "support/clock.rs"]
mod clock;
#[path = "sequences/model.rs"]
mod model;
#[path = "sequences/owners.rs"]
mod owners;
#[path = "sequences/servers.rs"]
mod servers;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::OnceLock;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use model::{Claimed, Model, Pages};
use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator};
use shmuring::liveness::LockFile;
use shmuring::parts::Parts;
use shmuring::region::{Options, Region};
use shmuring::ring::{is_pending, Consumer};
use shmuring::slot::{State, Word};
use shmuring::stats::RoleCounter;

const BLOCK: usize = 512;
const NOW: Wait<'static> = Wait { until: 0, interrupt: None };
/// Blocks of the registered pool, and its number.
const POOL_BLOCKS: u32 = 4;
const POOL: u16 = 1;
/// Most operations of one run.
const STEPS: usize = 100;
/// Rounds after which everything must be settled: audits find what no hint leads to at the second look.
const ROUNDS: usize = 6;

/// The region, who works on it, and what it must look like.
struct World<'r> {
    region: &'r Region,
    parts: &'r Parts<'r>,
    owners: [Option<Backend<'r>>; 2],
    /// Every reference that was ever given out.
    refs: Vec<SlotRef>,
    server: Option<Communicator<'r>>,
    /// The lock of the role. Beside the communicator, since one that is dropped with claims keeps its lock for ever.
    role: Option<LockFile>,
    claims: Vec<(Claim<'r>, Claimed)>,
    model: Model,
    /// Makes every page another.
    stamp: u8,
}

impl<'r> World<'r> {
    fn stamp(&mut self) -> u8 {
        self.stamp = self.stamp.wrapping_add(1).max(1);
        self.stamp
    }

    fn some_ref(&self, u: &mut Unstructured<'_>) -> Result<Option<SlotRef>> {
        // Mostly one of the last.
        let back = u.int_in_range(0..=7)?.min(self.refs.len());
        Ok(if back == 0 { self.refs.last().copied() } else { self.refs.get(self.refs.len() - back).copied() })
    }

    /// One operation.
    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let owner = usize::from(u.ratio(1, 3)?);
        match u.int_in_range(0..=25)? {
            0..=4 => self.fill(u, owner)?,
            5..=7 => self.submit(u, owner)?,
            8 => self.submit_without_a_hint(u, owner)?,
            9 => self.die_with_tickets(u)?,
            10 | 11 => self.cancel(u, owner)?,
            12 => self.look(u, owner)?,
            13 | 14 => self.finish(u, owner)?,
            15 => self.set_waiter(u)?,
            16 => self.die_or_attach(owner),
            17 => self.leftovers(u, owner)?,
            18 | 19 => self.reap(u)?,
            20 => self.reap_patiently(),
            21 | 22 => self.serve(u)?,
            23 => self.serve(u)?,
            24 => self.die_or_take_over(u)?,
            _ => self.audit(u)?,
        }
        Ok(())
    }

    /// With TRACE in the environment, each slot after each operation: to read a found input.
    fn tell(&self) {
        static TRACE: OnceLock<bool> = OnceLock::new();
        if *TRACE.get_or_init(|| std::env::var_os("TRACE").is_some()) {
            let words = self.parts.slots.iter().map(|s| Word::from_bits(s.word.load(Relaxed)));
            let asked = self.model.slots.iter().map(|s| s.asked.as_ref().map(|a| &a.pages));
            let owners = self.owners.each_ref().map(Option::is_some);
            eprintln!("{:?} owners {owners:?} server {}", words.zip(asked).collect::<Vec<_>>(), self.server.is_some());
        }
    }

    /// The region is as the model says.
    fn check(&self) {
        let m = &self.model;
        for (i, (slot, want)) in self.parts.slots.iter().zip(&m.slots).enumerate() {
            assert_eq!(Word::from_bits(slot.word.load(Relaxed)), want.word(), "slot {i}");
            assert_eq!(is_pending(self.parts, i as u32), m.pending.contains(&(i as u32)), "pending bit of slot {i}");
        }
        let h = self.parts.header;
        assert_eq!(h.tail.0.load(Relaxed) - h.head.0.load(Relaxed), m.tickets.len() as u64);
        assert_eq!(Consumer::is_idle(self.parts), m.tickets.is_empty() && m.pending.is_empty());
        assert_eq!(h.role.claim_seq.load(Relaxed), m.claim_seq);
        for (owner, backend) in self.owners.iter().enumerate() {
            let Some(b) = backend else { continue };
            let idle = m.range(owner).filter(|s| m.slots[*s as usize].state == State::Idle).count();
            assert_eq!(b.usable() as usize, idle);
        }
        for (i, want) in m.pool.iter().enumerate() {
            let mut block = [0; BLOCK];
            // SAFETY: one thread, which is here.
            unsafe { self.parts.pools.get(POOL).unwrap().read(i as u32, &mut block) }.unwrap();
            assert_eq!(block, [*want; BLOCK], "block {i} of the registered pool");
        }
        self.check_bounce();
    }

    /// No bounce block is two requests' (R5), and each is its owner's.
    fn check_bounce(&self) {
        let mut taken = BTreeSet::new();
        for (i, (slot, want)) in self.parts.slots.iter().zip(&self.model.slots).enumerate() {
            let Some(Pages::Bounce(n)) = want.asked.as_ref().map(|a| &a.pages) else { continue };
            if matches!(want.state, State::Idle | State::Filling) {
                continue;
            }
            // SAFETY: one thread, which is here; any bytes are a value.
            let (raw, vector) = unsafe { (slot.request.with(|p| p.read()), slot.vector.with(|p| p.read())) };
            let blocks = if raw.needs_vector() { &vector.buffers[..*n] } else { &[raw.arg][..] };
            let per_slot = self.parts.geometry.bounce_per_slot;
            let range = self.model.range(usize::from(i as u32 >= self.model.split));
            for block in blocks {
                assert!((range.start * per_slot..range.end * per_slot).contains(block), "slot {i}, block {block}");
                assert!(taken.insert(*block), "slot {i}: block {block} is another's too");
            }
        }
    }

    /// Whatever came before: everybody comes back, and every request is settled.
    fn settle(&mut self) {
        for round in 0..ROUNDS {
            for owner in 0..2 {
                if self.owners[owner].is_none() {
                    self.die_or_attach(owner);
                }
            }
            if self.server.is_none() {
                self.take_over(State::Processing);
            }
            while let Some((claim, claimed)) = self.claims.pop() {
                self.complete(claim, &claimed);
                self.check();
            }
            self.reap_patiently();
            self.check();
            for owner in 0..2 {
                self.detach(owner);
                self.check();
            }
            if self.model.slots.iter().all(|s| s.state == State::Idle) && self.model.pending.is_empty() {
                return;
            }
            self.audit_to(State::Processing);
            self.check();
            assert!(round + 1 < ROUNDS, "never settled: {:?}", self.model);
        }
    }
}

fn run(data: &[u8]) -> Result<()> {
    clock::reset();
    let mut u = Unstructured::new(data);
    let slots = *u.choose(&[2, 3, 4, 8])?;
    let split = u.int_in_range(1..=slots - 1)?;
    let bounce_per_slot = u.int_in_range(0..=2)?;
    let options = Options { bounce_per_slot, block_size: BLOCK as u32, ..Options::new(slots) };
    let mut region = Region::create_private(&options).unwrap();
    let mut pool = vec![0u8; POOL_BLOCKS as usize * BLOCK];
    // SAFETY: the pool outlives the region, and is touched through it alone.
    unsafe { region.register_pool(POOL, pool.as_mut_ptr(), BLOCK, POOL_BLOCKS) }.unwrap();
    let parts = region.parts();
    let mut world = World {
        region: &region,
        parts: &parts,
        owners: [None, None],
        refs: Vec::new(),
        server: None,
        role: None,
        claims: Vec::new(),
        model: Model::new(slots, split, parts.cells.len(), POOL_BLOCKS as usize),
        stamp: 0,
    };
    world.die_or_attach(0);
    world.die_or_attach(1);
    world.take_over(State::Processing);
    world.check();
    for _ in 0..STEPS {
        if u.is_empty() {
            break;
        }
        world.step(&mut u)?;
        world.tell();
        world.check();
    }
    world.settle();
    for counter in [RoleCounter::Damage, RoleCounter::BadWords, RoleCounter::Refused, RoleCounter::OldLife] {
        assert_eq!(parts.role_stats.get(counter), 0, "{counter:?}");
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = run(data);
});
