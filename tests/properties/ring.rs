//! Where numbers of the ring and of slots wrap: tickets, laps, generations, epochs. The ring against a queue.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::Ordering::Relaxed;

use proptest::prelude::*;

use shmuring::backend::Backend;
use shmuring::communicator::{Claim, Communicator};
use shmuring::error::Error;
use shmuring::liveness::ROLE_BYTE;
use shmuring::parts::Parts;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, Opcode, RelTag, Request};
use shmuring::ring::{empty, Consumer, Producer};
use shmuring::slot::{State, Word, GENERATIONS};

use super::cases;

/// Polls after which an unpublished ticket at the head has been stepped over.
const PATIENCE: usize = 600;

fn region(slots: u32) -> Region {
    Region::create_private(&Options { bounce_per_slot: 0, block_size: 512, ..Options::new(slots) }).unwrap()
}

/// A ring whose next ticket is `ticket`, as after as many pushes and reaps.
fn wind(parts: &Parts<'_>, ticket: u64) {
    let n = parts.cells.len() as u64;
    parts.header.tail.0.store(ticket, Relaxed);
    parts.header.head.0.store(ticket, Relaxed);
    for i in 0..n {
        let t = ticket.wrapping_add(i);
        parts.cells[(t % n) as usize].0.store(empty(t / n), Relaxed);
    }
}

/// Tickets near the end of a lap, of all laps of a cell (2^40), and of all tickets (2^64), and any.
fn ticket() -> impl Strategy<Value = u64> {
    let near = |at: u64| (0u64..40).prop_map(move |off| at.wrapping_add(off).wrapping_sub(20));
    prop_oneof![near(0), near(8 << 40), near(16 << 40), near(1 << 63), near(1 << 32), any::<u64>()]
}

#[derive(Clone, Debug)]
enum Step {
    /// A push of so many slots in one batch, by one of two producers.
    Push(usize, Vec<u32>),
    /// A producer that dies with so many tickets.
    Die(u64),
    /// So many looks by the consumer.
    Reap(usize),
    /// The consumer dies, perhaps between the reset of a cell and its head.
    Succeed(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..2usize, prop::sample::subsequence(vec![0, 1, 2, 3], 1..=4)).prop_map(|(p, s)| Step::Push(p, s)),
        1 => (1..4u64).prop_map(Step::Die),
        5 => (1..12usize).prop_map(Step::Reap),
        2 => Just(Step::Reap(PATIENCE)),
        1 => any::<bool>().prop_map(Step::Succeed),
    ]
}

/// What the ring must hold: `None` is a ticket that nobody will publish.
#[derive(Default)]
struct Model {
    tickets: VecDeque<Option<u32>>,
    pending: BTreeSet<u32>,
}

impl Model {
    /// A push of `slots`: which went into cells, which into the bitmap, and that room was used if there was any.
    fn push(&mut self, parts: &Parts<'_>, slots: &[u32], by_bitmap: u64, before: (u64, u64)) {
        let n = parts.cells.len() as u64;
        let (tail, head) = before;
        let room = n.saturating_sub(tail.wrapping_sub(head));
        let taken = parts.header.tail.0.load(Relaxed).wrapping_sub(tail);
        let in_cells = slots.len() as u64 - by_bitmap;
        assert!(taken >= in_cells && taken <= 3 * slots.len() as u64, "{taken} tickets for {} slots", slots.len());
        assert!(in_cells <= room);
        assert!(room < slots.len() as u64 || in_cells == slots.len() as u64, "there was room, and it was not used");
        // In one thread no publish fails but for want of room, so what is in cells comes first, and in order.
        let (first, rest) = slots.split_at(in_cells as usize);
        self.tickets.extend(first.iter().map(|s| Some(*s)));
        self.tickets.extend((in_cells..taken).map(|_| None));
        self.pending.extend(rest);
    }
}

fn run(ticket: u64, steps: &[Step]) {
    let region = region(4);
    let parts = region.parts();
    let n = parts.cells.len();
    wind(&parts, ticket);
    let mut producers = [Producer::new(), Producer::new()];
    let mut consumer = Consumer::new(&parts);
    let mut model = Model::default();
    for step in steps {
        let before = (parts.header.tail.0.load(Relaxed), parts.header.head.0.load(Relaxed));
        match step {
            // A slot has one hint at a time but for deaths (R7), so tickets never come to twice the cells.
            Step::Push(_, slots) if model.tickets.len() + slots.len() > 2 * n => {}
            Step::Push(who, slots) => {
                let by_bitmap = producers[*who].push(&parts, slots);
                model.push(&parts, slots, by_bitmap, before);
            }
            Step::Die(tickets) => {
                // A dead producer saw room: no more tickets than that are ever taken blindly at once.
                if before.0.wrapping_sub(before.1) + tickets <= n as u64 {
                    parts.header.tail.0.fetch_add(*tickets, Relaxed);
                    model.tickets.extend((0..*tickets).map(|_| None));
                }
            }
            Step::Reap(looks) => {
                for _ in 0..*looks {
                    let head = parts.header.head.0.load(Relaxed);
                    let got = consumer.next(&parts);
                    let passed = parts.header.head.0.load(Relaxed).wrapping_sub(head);
                    let passed: Vec<_> = (0..passed).map(|_| model.tickets.pop_front().expect("a ticket")).collect();
                    let published: Vec<_> = passed.iter().flatten().copied().collect();
                    assert_eq!(got.into_iter().collect::<Vec<_>>(), published, "in order, each once");
                    assert!(got.is_none() || passed.last() == Some(&got));
                    // It stops only at the end, at an unpublished ticket, or after a ring's length of those.
                    assert!(got.is_some() || passed.len() == n || !matches!(model.tickets.front(), Some(Some(_))));
                }
                if *looks >= PATIENCE {
                    assert!(model.tickets.is_empty(), "it waits for ever for what is never published");
                }
                consumer.take_pending(&parts, |slot| assert!(model.pending.remove(&slot), "slot {slot}"));
                assert!(model.pending.is_empty());
            }
            Step::Succeed(in_between) => {
                if let (true, Some(Some(_))) = (*in_between, model.tickets.front()) {
                    let head = parts.header.head.0.load(Relaxed);
                    parts.cells[(head % n as u64) as usize].0.store(empty((head / n as u64).wrapping_add(1)), Relaxed);
                    // The successor passes the cell, and finds the slot by its sweep.
                    model.tickets[0] = None;
                }
                consumer = Consumer::new(&parts);
            }
        }
        let (tail, head) = (parts.header.tail.0.load(Relaxed), parts.header.head.0.load(Relaxed));
        assert_eq!(tail.wrapping_sub(head), model.tickets.len() as u64);
        assert!(!consumer.is_damaged(&parts), "{tail} {head}");
        assert_eq!(Consumer::is_idle(&parts), model.tickets.is_empty() && model.pending.is_empty());
    }
}

/// From fill to finish in slot 0.
fn cycle<'r>(b: &mut Backend<'_>, c: &mut Communicator<'r>, request: &Request<'_>) -> shmuring::backend::SlotRef {
    let r = b.fill(0, request).unwrap();
    b.submit(r).unwrap();
    let complete = |claim: Claim<'_>| claim.complete(Completion::ok(5)).unwrap();
    assert_eq!(c.reap(8, State::Processing, complete), 1);
    assert_eq!(b.finish(r), Ok(Completion::ok(5)));
    r
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn the_ring_is_a_queue_wherever_its_numbers_wrap(
        at in ticket(),
        steps in prop::collection::vec(step(), 1..40),
    ) {
        run(at, &steps);
    }

    #[test]
    fn generations_wrap_and_old_references_are_told(off in 0..6u32, at in any::<u32>(), near in any::<bool>()) {
        let generation = if near { (GENERATIONS - 3 + off) % GENERATIONS } else { at % GENERATIONS };
        let region = region(1);
        let parts = region.parts();
        parts.slots[0].word.store(Word::new(State::Idle, generation, 0).bits(), Relaxed);
        let mut b = Backend::attach(&region, 0, 1).unwrap();
        let (mut c, _) = Communicator::take_role(&region, &parts).unwrap();
        let mut last = None;
        for i in 0..6 {
            let r = cycle(&mut b, &mut c, &Request::new(Opcode::Nop, RelTag::default()));
            prop_assert_eq!(r.generation, (generation + i) % GENERATIONS);
            let word = Word::from_bits(parts.slots[0].word.load(Relaxed));
            prop_assert_eq!(word, Word::new(State::Idle, generation.wrapping_add(i + 1), 0));
            for old in [Some(r), last].into_iter().flatten() {
                prop_assert_eq!(b.poll(old), Err(Error::Stale));
                prop_assert_eq!(b.submit(old), Err(Error::Stale));
                prop_assert_eq!(b.finish(old).err(), Some(Error::Stale));
            }
            last = Some(r);
        }
    }

    #[test]
    fn epochs_wrap_and_a_successor_takes_over(epoch in prop_oneof![u32::MAX - 2..=u32::MAX, 0..3u32, any::<u32>()]) {
        let region = region(2);
        let parts = region.parts();
        parts.header.role.epoch.store(epoch, Relaxed);
        let mut b = Backend::attach(&region, 0, 2).unwrap();
        let role = region.lock_file().unwrap();
        prop_assert!(role.try_lock(ROLE_BYTE, 1).unwrap());
        // SAFETY: the lock of the role is held until the communicator is dropped.
        let (mut c, _) = unsafe { Communicator::over(&parts, region.liveness(), None) };
        prop_assert_ne!(c.epoch(), 0, "that of a word without a claim");
        prop_assert_ne!(c.epoch(), epoch);
        let r = b.fill(1, &Request::new(Opcode::Create, RelTag::default())).unwrap();
        b.submit(r).unwrap();
        let mut claims = Vec::new();
        prop_assert_eq!(c.reap(8, State::Copying, |claim| claims.push(claim)), 1);
        // Dies: the kernel takes the lock with the process, and runs nothing.
        let first = c.epoch();
        std::mem::forget(claims.pop());
        drop((c, role));
        let (c, inherited) = Communicator::take_role(&region, &parts).unwrap();
        prop_assert!(c.epoch() != first && c.epoch() != 0);
        prop_assert_eq!(inherited.mutations.len(), 1);
        for claim in inherited.mutations {
            claim.complete(Completion::ok(9)).unwrap();
        }
        prop_assert_eq!(b.finish(r), Ok(Completion::ok(9)));
    }
}
