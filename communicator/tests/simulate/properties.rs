//! What holds whatever happens: random reads, mutations and deadlines, while servers stall, die, fall back and lose
//! connections. A failure names the seed.

use super::support::violations;
use shmuring::lsn::in_flight::MutationOrder;
use shmuring::request::{Class, Opcode};
use shmuring_communicator::simulate::ledger::{Block, End, Ledger};
use shmuring_communicator::simulate::policy::shmuring::Shmuring;
use shmuring_communicator::simulate::random::Random;
use shmuring_communicator::simulate::report::Report;
use shmuring_communicator::simulate::scenario::{Arrival, Change, Fault, Scenario, Time, MS, SECOND};
use shmuring_communicator::simulate::workload::Options;
use shmuring_communicator::simulate::{run, world, POLICIES};

const SPAN: Time = 3 * SECOND;

/// A random scenario: dense in hot reads, since those are what may go wrong.
pub fn random(seed: u64) -> Scenario {
    let mut random = Random::new(seed, 9);
    let options = Options {
        seed,
        shards: 1 + random.below(4) as u16,
        requests: 800,
        span: SPAN,
        relations: 1 + random.below(3) as u32,
        writes: 100 + random.below(400),
        hot: 0.2,
        lag: random.below(100) * MS,
        stall: 0,
        restart: 0,
        ..Options::default()
    };
    let mut s = options.scenario();
    for arrival in &mut s.arrivals {
        // A backend that is held up with what it has looked up.
        arrival.delay = if random.chance(0.1) { random.below(300) * MS } else { 0 };
    }
    for plan in &mut s.plans {
        plan.rate = 1 << (8 + random.below(8));
        plan.checkpoint = (100 + random.below(1000)) * MS;
        plan.feedback = random.below(3) * 40 * MS;
        for _ in 0..random.below(3) {
            let from = random.below(SPAN);
            plan.stalls.push((from, from + random.below(SECOND)));
        }
    }
    s
}

/// The same with what breaks connections, with deadlines and with mutations.
fn harsh(seed: u64) -> Scenario {
    let mut s = random(seed);
    let mut random = Random::new(seed, 10);
    for plan in &mut s.plans {
        for _ in 0..random.below(4) {
            let fault = match random.below(2) {
                0 => Fault::Restart(random.below(300) * MS),
                _ => Fault::Disconnect,
            };
            plan.faults.push((random.below(SPAN), fault));
        }
        // One at a time: a process that is dead cannot lose its connections.
        plan.faults.sort_by_key(|f| f.0);
        plan.faults.dedup_by_key(|f| f.0 / (500 * MS));
    }
    for arrival in &mut s.arrivals {
        arrival.deadline = random.chance(0.1).then(|| arrival.at + random.below(500) * MS);
    }
    for change in &mut s.changes {
        change.op = match random.below(20) {
            0 => Opcode::Truncate,
            1 => Opcode::ZeroExtend,
            2 => Opcode::Create,
            3 | 4 => Opcode::Extend,
            _ => Opcode::WritePage,
        };
    }
    s.mutations = true;
    s.mutation_failures = 0.1;
    if random.chance(0.5) {
        s.options.mutation_order = MutationOrder::Keys;
        s.options.mutation_batches = 4;
    }
    s
}

/// Mutations that exclude each other were applied in the order of their submits, and each once.
fn in_order(changes: &[Change], applied: &[usize]) {
    assert_eq!(applied.len(), changes.len(), "each mutation is applied once");
    let whole = |c: &Change| !matches!(c.op, Opcode::WritePage | Opcode::Extend | Opcode::ZeroExtend);
    let size = |c: &Change| c.op != Opcode::WritePage;
    for (i, a) in applied.iter().enumerate() {
        for b in &applied[i + 1..] {
            let (x, y) = (&changes[*a], &changes[*b]);
            let conflict = x.rel == y.rel && (whole(x) || whole(y) || x.block == y.block || (size(x) && size(y)));
            assert!(a < b || !conflict, "{y:?} was submitted before {x:?}");
        }
    }
}

fn seeds(n: u64) -> std::ops::Range<u64> {
    let n = std::env::var("PROPTEST_CASES").ok().and_then(|c| c.parse().ok()).unwrap_or(n);
    0..n
}

#[test]
fn every_read_ends_once_and_depends_on_no_wal_beyond_its_own() {
    for seed in seeds(12) {
        let s = harsh(seed);
        let mut policy = Shmuring::new(&s);
        let l = world::run(&s, &mut policy);
        assert_eq!((l.open(), l.twice), (0, 0), "seed {seed}: hung, twice");
        assert_eq!(violations(&l), 0, "seed {seed}: I12");
        assert_eq!(l.stale, 0, "seed {seed}: an answer from before a mutation");
        assert_eq!(l.backwards, 0, "seed {seed}: S7");
        assert_eq!(l.blocks().iter().filter(|b| b.end.unwrap().1 == End::Failed).count(), 0, "seed {seed}");
        assert!(policy.scheduler().is_empty(), "seed {seed}: nothing is left");
        in_order(&s.changes, &l.applied);
    }
}

/// The sharpest form of I12: WAL beyond some point never comes, and all that needs no more is answered all the same.
#[test]
fn if_later_wal_never_comes_whatever_does_not_need_it_is_answered() {
    for seed in seeds(10) {
        let mut s = if seed % 2 == 0 { random(seed) } else { harsh(seed) };
        let mut random = Random::new(seed, 11);
        let cap = s.changes[random.below(s.changes.len() as u64) as usize].lsn;
        s.plans.iter_mut().for_each(|p| p.cap = cap);
        s.until = SPAN + 30 * SECOND;
        let l = world::run(&s, &mut Shmuring::new(&s));
        let answered = |b: &&Block| b.end.is_some_and(|e| e.1 != End::Failed);
        let (free, stuck): (Vec<&Block>, Vec<&Block>) = l.blocks().iter().partition(|b| b.need <= cap);
        assert_eq!(free.iter().filter(|b| !answered(b)).count(), 0, "seed {seed}: of {}", free.len());
        assert!(stuck.iter().all(|b| b.end.is_none_or(|e| e.1 == End::Expired)), "seed {seed}");
        assert_eq!(violations(&l), 0, "seed {seed}");
    }
}

/// R11: a server that is switched under a living connection may hold up READY reads for `stall_after`, and no longer.
#[test]
fn a_server_switched_without_a_sign_holds_up_nobody_for_long() {
    for seed in seeds(6) {
        let mut s = random(seed);
        s.grace = s.options.stall_after;
        for plan in &mut s.plans {
            plan.checkpoint = SECOND;
            plan.faults.push((SPAN / 2, Fault::Switch));
            plan.stalls.push((SPAN / 2, SPAN / 2 + 5 * SECOND));
        }
        let l = world::run(&s, &mut Shmuring::new(&s));
        assert_eq!((l.open(), violations(&l)), (0, 0), "seed {seed}");
    }
}

/// The longest time from when the server had what a read needs to its answer.
fn longest(l: &Ledger, class: Class) -> Time {
    let late = |b: &Block| b.end.map_or(Time::MAX, |(at, _)| at - b.had);
    l.blocks().iter().filter(|b| b.class == class).map(late).max().unwrap_or(0)
}

#[test]
fn no_class_starves_while_servers_stall_and_die() {
    for seed in seeds(6) {
        let mut s = harsh(seed);
        s.arrivals.iter_mut().for_each(|a| a.deadline = None);
        let l = world::run(&s, &mut Shmuring::new(&s));
        for class in [Class::Demand, Class::Prefetch, Class::Background] {
            // A death takes 0.3 s, and up to 4 of them can hit one read.
            assert!(longest(&l, class) < 3 * SECOND, "seed {seed}: {class:?} {}", longest(&l, class) / MS);
        }
    }
}

/// Reads of one class, one after the other, as fast as `every`.
fn stream(class: Class, first_block: u32, count: u8, every: Time, span: Time) -> impl Iterator<Item = Arrival> {
    let rel = super::support::rel(1);
    (1..span / every).map(move |i| {
        let block = first_block + (i as u32 * u32::from(count)) % 100_000;
        Arrival { at: i * every, backend: i as u32 % 64, class, rel, block, count, delay: 0, deadline: None }
    })
}

#[test]
fn no_class_starves_another_that_asks_for_more_than_can_be_served() {
    for flood in [Class::Demand, Class::Prefetch, Class::Background] {
        let mut s = Scenario::quiet(1, 500);
        // A stream alone serves about 25 blocks a millisecond; asked for are 64.
        s.options.ready_lanes = 1;
        s.arrivals = stream(flood, 0, 32, MS / 2, 2 * SECOND).collect();
        let others = [Class::Demand, Class::Prefetch, Class::Background].into_iter().filter(|c| *c != flood);
        for (i, class) in others.clone().enumerate() {
            s.arrivals.extend(stream(class, 200_000 + 200_000 * i as u32, 1, 10 * MS, 2 * SECOND));
        }
        s.arrivals.sort_by_key(|a| a.at);
        let l = world::run(&s, &mut Shmuring::new(&s));
        for class in others {
            let bound = s.options.class_bounds[class as usize] + 50 * MS;
            let longest = longest(&l, class);
            assert!(longest < bound, "{class:?} waits {} ms in a flood of {flood:?}", longest / MS);
        }
        assert_eq!(l.open(), 0);
    }
}

#[test]
fn a_shard_that_stands_still_costs_ready_reads_nothing() {
    let options = Options { requests: 10_000, span: 5 * SECOND, stall: 0, restart: 0, ..Options::default() };
    let stalled = Options { stall: 2 * SECOND, ..options.clone() };
    let p99 = |o: &Options| Report::new("", &run(&o.scenario(), "shmuring").unwrap(), 0).ready.ms(99.0);
    let (without, with) = (p99(&options), p99(&stalled));
    assert!(with <= 1.1 * without, "{with} ms, and {without} ms without the stall");
}

#[test]
fn a_run_repeats_itself_event_by_event() {
    let s = harsh(3);
    for policy in POLICIES {
        let (a, b) = (run(&s, policy).unwrap().ledger, run(&s, policy).unwrap().ledger);
        assert_eq!(a.events, b.events, "{policy}");
        let ends = |l: &Ledger| l.blocks().iter().map(|b| b.end).collect::<Vec<_>>();
        assert_eq!(ends(&a), ends(&b), "{policy}");
    }
}

#[test]
fn the_other_policies_answer_everything_too() {
    for seed in seeds(4) {
        let mut s = harsh(seed);
        s.arrivals.iter_mut().for_each(|a| a.deadline = None);
        for policy in POLICIES {
            let l = run(&s, policy).unwrap().ledger;
            assert_eq!((l.open(), l.twice), (0, 0), "seed {seed}: {policy}");
        }
    }
}
