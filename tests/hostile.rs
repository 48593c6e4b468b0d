//! Hostile and damaged bytes (I10, R15): nobody panics, hangs or leaves the region, and what is submitted afterwards is
//! served. Each run prints its seed; SHMURING_SEED repeats one.
#![cfg(not(any(feature = "loom", feature = "shuttle")))]

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use shmuring::backend::{Backend, Wait};
use shmuring::communicator::{Claim, Communicator, Gather};
use shmuring::error::Error;
use shmuring::liveness::ROLE_BYTE;
use shmuring::parts::Parts;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, Opcode, RelTag, Request};
use shmuring::ring::{empty, set_pending, Consumer, Producer};
use shmuring::slot::{State, Word};
use shmuring::stats::{OwnerCounter, RoleCounter};

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
const BLOCK: usize = 512;
/// What a word becomes.
type Change = fn(u64) -> u64;
/// Damage to a region.
type Blow = fn(&Parts<'_>);
/// The longest that anything here may take.
const BOUND: Duration = Duration::from_secs(15);

/// xorshift: the tests need many numbers, not good ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Small, near a power of two, all ones, or anything.
    fn value(&mut self) -> u64 {
        match self.below(6) {
            0 => 0,
            1 => self.next() % 64,
            2 => u64::MAX - self.next() % 4,
            3 => (1 << self.below(64)) + self.next() % 3,
            4 => self.next() % 64 * 0x0101_0101_0101_0101,
            _ => self.next(),
        }
    }
}

/// A region that outlives threads that hang.
fn leak(slots: u32) -> (&'static Region, &'static Parts<'static>) {
    let options = Options { bounce_per_slot: 2, block_size: BLOCK as u32, ..Options::new(slots) };
    let region: &'static Region = Box::leak(Box::new(Region::create_private(&options).unwrap()));
    (region, Box::leak(Box::new(region.parts())))
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = std::env::var("SHMURING_SEED").ok().and_then(|s| s.parse().ok()) {
        return vec![seed];
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    vec![1, 2, 3, now.as_nanos() as u64 | 1]
}

fn answer(mut claim: Claim<'_>) {
    let count = usize::from(claim.job().count);
    let (fills, takes) = (claim.job().opcode.fills_buffers(), claim.job().opcode.takes_images());
    let Ok(mut copying) = claim.copying() else { return };
    for i in 0..count {
        if fills {
            copying.deliver(i, &[7; BLOCK]).unwrap();
        }
        if takes {
            copying.take_image(i, &mut [0; BLOCK]).unwrap();
        }
    }
    if copying.suspend().is_ok() {
        let _ = claim.complete(Completion::ok(1));
    }
}

/// Overwrites something of the region, but for the words and owners of slots below `spared`.
fn scribble(parts: &Parts<'_>, random: &mut Random, spared: usize) {
    let h = parts.header;
    let value = random.value();
    let any_of = |words: &[AtomicU64], i: usize| words[i].store(value, Relaxed);
    match random.below(16) {
        0 => h.tail.0.store(value, Relaxed),
        1 => h.head.0.store(value, Relaxed),
        2 => h.parked.0.store(value, Relaxed),
        3 => h.any.0.store(value, Relaxed),
        4 => any_of(parts.pending, random.below(parts.pending.len())),
        5 => h.sequence.0.store(value as u32, Relaxed),
        6 => h.role.claim_seq.store(value, Relaxed),
        7 => any_of(&parts.role_stats.counters, random.below(32)),
        8 => any_of(&parts.owner_stats[random.below(parts.slots.len())].counters, random.below(8)),
        9 | 10 => parts.cells[random.below(parts.cells.len())].0.store(value, Relaxed),
        11 => {
            let lap = h.tail.0.load(Relaxed) / parts.cells.len() as u64;
            let near = lap.wrapping_add(random.next() % 5).wrapping_sub(2);
            parts.cells[random.below(parts.cells.len())].0.store(empty(near), Relaxed);
        }
        n => {
            let slot = &parts.slots[spared + random.below(parts.slots.len() - spared)];
            if n == 12 {
                // A state that means something, of this or another generation and epoch.
                let now = Word::from_bits(slot.word.load(Relaxed));
                let state = State::ALL[random.below(8)];
                let generation = now.generation().wrapping_add((random.next() % 2) as u32);
                slot.word.store(Word::new(state, generation, (random.next() % 3) as u32).bits(), Relaxed);
                return;
            }
            let word = random.below(64);
            // SAFETY: inside the slot, aligned; any bytes are a slot.
            unsafe { std::ptr::from_ref(slot).cast::<AtomicU64>().add(word).as_ref().unwrap().store(value, Relaxed) };
        }
    }
}

/// Requests of every kind on slots of which anything may be overwritten; whatever comes out of it is right.
fn suffer(b: &mut Backend<'_>, random: &mut Random) {
    let Ok(slot) = b.free_slot() else { return };
    let image = [3; 2 * BLOCK];
    let request = match random.below(5) {
        0 => Request::get_page(REL, 1, 1, 0),
        1 => Request::get_page(REL, 1, 2, 0),
        2 => Request::write_page(REL, 1, 2, 0, &image),
        3 => Request::new(Opcode::Truncate, REL),
        _ => Request::prefetch(REL, 1, 32, 0),
    };
    let Ok(r) = b.fill(slot, &request) else { return };
    let _ = b.submit_many(&[r]);
    let waited = match random.below(3) {
        0 => b.wait(r, &Wait::for_ms(5)),
        1 => b.wait_any(&[r], &Wait::for_ms(5)).map(drop),
        _ => Err(Error::TimedOut),
    };
    if waited.is_err() {
        let _ = b.cancel(r, &Wait::for_ms(5));
    }
    let _ = b.copy_out(r, 1, &mut [0; BLOCK]);
    let _ = b.finish(r);
}

fn spawn(name: &'static str, done: &mpsc::Sender<&'static str>, f: impl FnOnce() + Send + 'static) {
    let done = done.clone();
    std::thread::spawn(move || {
        f();
        done.send(name).unwrap();
    });
}

const SPARED: u32 = 4;

/// Everyone at work while the region is scribbled over; then peace, in which the spared slots must be served.
fn storm(seed: u64) {
    println!("seed {seed}");
    let (region, parts) = leak(64);
    let quiet: &'static AtomicBool = Box::leak(Box::default());
    let over: &'static AtomicBool = Box::leak(Box::default());
    let (done, ended) = mpsc::channel();
    spawn("communicator", &done, move || {
        let mut random = Random(seed ^ 0x5555);
        let lock = region.lock_file().unwrap();
        assert!(lock.try_lock(ROLE_BYTE, 1).unwrap());
        while !over.load(Relaxed) {
            // Again and again, since a take-over reads every slot as well.
            // SAFETY: no other communicator serves this region.
            let (mut c, inherited) = unsafe { Communicator::over(parts, region.liveness(), None) };
            inherited.mutations.into_iter().chain(inherited.reads).for_each(answer);
            c.sweep(State::Processing, answer);
            let until = Instant::now() + Duration::from_millis(200);
            while !over.load(Relaxed) && (quiet.load(Relaxed) || Instant::now() < until) {
                let to = if random.below(2) == 0 { State::Copying } else { State::Processing };
                let gather = Gather { requests: random.below(9), ns: 10_000 };
                c.reap_or_park(1 + random.below(4), to, gather, 1_000_000, answer);
                c.audit(to, answer);
                if random.below(50) == 0 {
                    c.sweep(to, answer);
                }
            }
        }
    });
    spawn("backend", &done, move || {
        let mut random = Random(seed ^ 0x7777);
        while !quiet.load(Relaxed) {
            // Attach anew now and then: it reads what the range holds.
            let mut b = Backend::attach(region, SPARED, 60).unwrap();
            let _ = b.settle(&Wait::for_ms(5), random.below(2) == 0);
            for _ in 0..100 {
                suffer(&mut b, &mut random);
            }
        }
    });
    spawn("scribbler", &done, move || {
        let mut random = Random(seed);
        let until = Instant::now() + Duration::from_millis(1200);
        while Instant::now() < until {
            for _ in 0..8 {
                scribble(parts, &mut random, SPARED as usize);
            }
            std::thread::yield_now();
        }
        quiet.store(true, Relaxed);
    });
    let expect = |n: usize| {
        let names: Vec<_> = (0..n).map_while(|_| ended.recv_timeout(BOUND).ok()).collect();
        assert_eq!(names.len(), n, "of all threads only {names:?} ended; seed {seed}");
    };
    expect(2);
    let mut b = Backend::attach(region, 0, SPARED).unwrap();
    for i in 0..300 {
        let mut page = [0; BLOCK];
        let completion = b.call(&Request::get_page(REL, i, 1, 0), &Wait::for_ms(8000), &mut page);
        assert!(completion.is_ok_and(|c| c.is_ok()), "request {i} after the storm: {completion:?}; seed {seed}");
        assert_eq!(page, [7; BLOCK], "seed {seed}");
    }
    over.store(true, Relaxed);
    expect(1);
}

#[test]
fn random_bytes_panic_and_hang_nobody_and_calm_brings_service_back() {
    seeds().into_iter().for_each(storm);
}

/// One backend and one communicator in one thread.
struct Pair {
    parts: &'static Parts<'static>,
    b: Backend<'static>,
    c: Communicator<'static>,
}

impl Pair {
    /// After some traffic, so that laps and tickets are not 0.
    fn new() -> Self {
        let (region, parts) = leak(4);
        let b = Backend::attach(region, 0, 4).unwrap();
        let (c, _) = Communicator::take_role(region, parts).unwrap();
        let mut pair = Self { parts, b, c };
        for _ in 0..20 {
            pair.served("before the damage");
        }
        assert_eq!(pair.damage(), 0);
        pair
    }

    fn pump(&mut self) {
        self.c.reap(16, State::Copying, answer);
        self.c.audit(State::Copying, answer);
    }

    fn damage(&self) -> u64 {
        self.parts.role_stats.get(RoleCounter::Damage)
    }

    /// One request, from submit to result.
    fn served(&mut self, when: &str) {
        let slot = self.b.free_slot().unwrap();
        let r = self.b.fill(slot, &Request::new(Opcode::Nop, REL)).unwrap();
        self.b.submit(r).unwrap();
        let begin = Instant::now();
        while !self.b.poll(r).unwrap() {
            assert!(begin.elapsed() < BOUND, "not served {when}");
            self.pump();
        }
        assert!(self.b.finish(r).unwrap().is_ok());
    }

    /// The ring carries requests again and the communicator could sleep.
    fn healed(&mut self, what: &str) {
        // Those that are submitted before the audit are served, too.
        for _ in 0..20 {
            self.served(what);
        }
        let begin = Instant::now();
        while !Consumer::is_idle(self.parts) {
            assert!(begin.elapsed() < BOUND, "{what}: the communicator never sleeps again");
            self.pump();
        }
        let pending = self.b.counter(OwnerCounter::PendingPushes);
        for _ in 0..40 {
            self.served(what);
        }
        // Looking at a full ring may have cost one push.
        assert!(self.b.counter(OwnerCounter::PendingPushes) <= pending + 1, "{what}: the ring is not used any more");
        assert_eq!(self.parts.role_stats.get(RoleCounter::LostHints), 0, "{what}");
    }

    /// Damage that must be noticed without a request.
    fn noticed(&mut self, what: &str) {
        let (begin, before) = (Instant::now(), self.damage());
        while self.damage() == before {
            assert!(begin.elapsed() < BOUND, "{what}: not counted as damage");
            self.pump();
        }
        self.healed(what);
        assert!(self.damage() <= before + 2, "{what}: damaged again and again");
    }
}

/// Runs `f` on a pair of its own for each of `cases`, all at once: each takes an audit's second.
fn each<T: Copy + Send + 'static>(
    cases: &[(&'static str, T)],
    f: impl Fn(Pair, &'static str, T) + Copy + Send + 'static,
) {
    let threads: Vec<_> =
        cases.iter().map(|&(what, case)| std::thread::spawn(move || f(Pair::new(), what, case))).collect();
    for t in threads {
        assert!(t.join().is_ok(), "see above");
    }
}

#[test]
fn a_tail_beyond_belief_is_damage_and_is_repaired() {
    let cases: [(&str, Change); 5] = [
        ("tail + 2^40", |t| t + (1 << 40)),
        ("tail + 2^63", |t| t ^ (1 << 63)),
        ("tail behind the head", |t| t - 5),
        ("tail 0", |_| 0),
        ("tail all ones", |_| u64::MAX),
    ];
    each(&cases, |mut p, what, damage| {
        let tail = &p.parts.header.tail.0;
        tail.store(damage(tail.load(Relaxed)), Relaxed);
        p.noticed(what);
    });
}

#[test]
fn a_head_that_is_not_the_communicators_is_damage_and_is_repaired() {
    let cases: [(&str, Change); 4] = [
        ("head beyond the tail", |h| h + 1000),
        ("head behind", |h| h - 9),
        ("head 0", |_| 0),
        ("head all ones", |_| u64::MAX),
    ];
    each(&cases, |mut p, what, damage| {
        let head = &p.parts.header.head.0;
        head.store(damage(head.load(Relaxed)), Relaxed);
        p.noticed(what);
    });
}

#[test]
fn cells_of_another_lap_are_damage_and_are_repaired() {
    let cases: [(&str, Change); 6] = [
        ("the last lap", |lap| empty(lap.wrapping_sub(1))),
        ("two laps ahead", |lap| empty(lap + 2)),
        ("far ahead", |lap| empty(lap + (1 << 30))),
        ("far behind", |lap| empty(lap.wrapping_sub(1 << 30))),
        ("zeros, which name a slot", |_| 0),
        ("all ones", |_| u64::MAX),
    ];
    each(&cases, |mut p, what, damage| {
        let (tail, n) = (p.parts.header.tail.0.load(Relaxed), p.parts.cells.len() as u64);
        for i in 0..n {
            let ticket = tail + i;
            p.parts.cells[(ticket % n) as usize].0.store(damage(ticket / n), Relaxed);
        }
        p.noticed(what);
    });
}

#[test]
fn requests_submitted_into_damage_are_served() {
    let cases: [(&str, Blow); 6] = [
        ("tail", |p| p.header.tail.0.store(1 << 40, Relaxed)),
        ("low tail", |p| p.header.tail.0.store(3, Relaxed)),
        ("head", |p| p.header.head.0.store(1 << 40, Relaxed)),
        ("cells ahead", |p| p.cells.iter().for_each(|c| c.0.store(empty(1 << 20), Relaxed))),
        ("cells of slots that do not exist", |p| p.cells.iter().for_each(|c| c.0.store(9, Relaxed))),
        ("cell behind", |p| p.cells[5].0.store(empty(0), Relaxed)),
    ];
    each(&cases, |mut p, what, damage| {
        damage(p.parts);
        p.healed(what);
    });
}

#[test]
fn a_cell_one_lap_ahead_is_a_predecessors_and_no_damage() {
    let mut p = Pair::new();
    let (tail, n) = (p.parts.header.tail.0.load(Relaxed), p.parts.cells.len() as u64);
    // A consumer that dies between reset and head store leaves a ticket taken and its cell a lap ahead.
    Producer::new().push(p.parts, &[0]);
    p.parts.cells[(tail % n) as usize].0.store(empty(tail / n + 1), Relaxed);
    p.healed("after a lost head store");
    assert_eq!(p.damage(), 0);
}

#[test]
fn pending_bits_and_parks_of_nobody_cost_a_look() {
    let mut p = Pair::new();
    let mut random = Random(99);
    for _ in 0..500 {
        p.parts.pending[0].store(random.value(), Relaxed);
        p.parts.header.any.0.store(random.value(), Relaxed);
        p.parts.header.parked.0.store(random.value(), Relaxed);
        p.parts.header.sequence.0.store(random.value() as u32, Relaxed);
        p.c.park(100_000);
        p.served("with pending bits of all slots");
    }
    assert_eq!(p.damage(), 0);
}

#[test]
fn a_batch_that_outgrows_its_limit_while_it_is_collected_ends() {
    let mut p = Pair::new();
    for (max, requests) in [(2, 100), (2, 2), (1, 1), (3, 3), (100, 2)] {
        let refs: Vec<_> = (0..4).map(|slot| p.b.fill(slot, &Request::new(Opcode::Nop, REL)).unwrap()).collect();
        for r in &refs {
            shmuring::slot::owner::submit(&p.parts.slots[r.slot as usize], Word::new(State::Filling, r.generation, 0));
        }
        set_pending(p.parts, 0);
        let begin = Instant::now();
        let n = p.c.reap_or_park(max, State::Copying, Gather { requests, ns: 20_000_000 }, 1_000_000, |claim| {
            if claim.slot() == 0 {
                // Hints that come by the bitmap are taken all at once, whatever the limit.
                (1..4).for_each(|slot| set_pending(p.parts, slot));
            }
            answer(claim);
        });
        assert!(begin.elapsed() < Duration::from_secs(2));
        assert_eq!(n, if requests.min(max) > 1 { 4 } else { 1 }, "{max} {requests}");
        p.c.reap(4, State::Copying, answer);
        for r in refs {
            assert!(p.b.finish(r).unwrap().is_ok());
        }
    }
}
