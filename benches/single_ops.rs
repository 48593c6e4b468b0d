//! What the single steps of a request cost one thread, over a private region: no cache line moves and nobody waits.
//!
//! Both sides are handles of the same thread; what must come before a step runs outside the clock. Steps are shorter than
//! a look at the clock, so [`N`] are timed at once and divided.

mod bench {
    use criterion::Criterion;
    use shmuring::backend::{Backend, SlotRef};
    use shmuring::communicator::{Claim, Communicator};
    use shmuring::parts::Parts;
    use shmuring::region::{Options, Region};
    use shmuring::request::{Completion, Opcode, RelTag, Request};
    use shmuring::ring::Producer;
    use shmuring::slot::State;
    use shmuring::stats::{OwnerCounter, RoleCounter};
    use std::hint::black_box;
    use std::time::{Duration, Instant};

    /// Steps that are timed at once.
    const N: usize = 32;
    const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

    /// Both sides, and the requests in flight.
    struct Pair<'r> {
        backend: Backend<'r>,
        communicator: Communicator<'r>,
        parts: &'r Parts<'r>,
        producer: Producer,
        refs: Vec<SlotRef>,
    }

    fn answer(claim: Claim<'_>) {
        let value = u64::from(claim.job().block);
        claim.complete(Completion::ok(value)).expect("nobody cancels");
    }

    fn fill(p: &mut Pair<'_>, request: &Request<'_>) {
        for _ in 0..N {
            let slot = p.backend.free_slot().expect("a free slot");
            p.refs.push(p.backend.fill(slot, black_box(request)).expect("a good request"));
        }
    }

    fn fill_nops(p: &mut Pair<'_>) {
        fill(p, &Request::new(Opcode::Nop, REL));
    }

    fn fill_reads(p: &mut Pair<'_>) {
        fill(p, &Request::get_page(REL, 7, 1, 1));
    }

    fn submit(p: &mut Pair<'_>) {
        for r in &p.refs {
            p.backend.submit(*r).expect("a filled slot");
        }
    }

    fn submit_many(p: &mut Pair<'_>) {
        p.backend.submit_many(&p.refs).expect("filled slots");
    }

    fn reap(p: &mut Pair<'_>) {
        assert_eq!(p.communicator.reap(N, State::Copying, answer), p.refs.len());
    }

    fn finish(p: &mut Pair<'_>) {
        for r in p.refs.drain(..) {
            assert!(p.backend.finish(r).expect("a complete request").is_ok());
        }
    }

    fn poll_hit(p: &mut Pair<'_>) {
        for r in &p.refs {
            assert_eq!(p.backend.poll(*r), Ok(true));
        }
    }

    fn poll_miss(p: &mut Pair<'_>) {
        for r in &p.refs {
            assert_eq!(p.backend.poll(*r), Ok(false));
        }
    }

    /// Hints that lead to slots with nothing to claim.
    fn push(p: &mut Pair<'_>) {
        for number in 0..N as u32 {
            p.producer.push(p.parts, &[black_box(number)]);
        }
    }

    fn read_stats(p: &mut Pair<'_>) {
        for _ in 0..N {
            black_box(p.backend.counter(OwnerCounter::Finished));
            black_box(p.parts.role_stats.get(RoleCounter::Claimed));
        }
    }

    fn nothing(_: &mut Pair<'_>) {}

    type Step = fn(&mut Pair<'_>);

    /// Times `step` after `before`; `after` leaves nothing in flight.
    fn step(c: &mut Criterion, pair: &mut Pair<'_>, name: &str, [before, step, after]: [Step; 3]) {
        c.bench_function(name, |b| {
            b.iter_custom(|iterations| {
                let rounds = iterations.div_ceil(N as u64);
                let mut took = Duration::ZERO;
                for _ in 0..rounds {
                    before(pair);
                    let start = Instant::now();
                    step(pair);
                    took += start.elapsed();
                    after(pair);
                }
                took.mul_f64(iterations as f64 / (rounds * N as u64) as f64)
            });
        });
    }

    fn submitted(p: &mut Pair<'_>) {
        fill_nops(p);
        submit(p);
    }

    fn completed(p: &mut Pair<'_>) {
        submitted(p);
        reap(p);
    }

    fn reap_and_finish(p: &mut Pair<'_>) {
        reap(p);
        finish(p);
    }

    fn all_that_follows(p: &mut Pair<'_>) {
        submit(p);
        reap_and_finish(p);
    }

    fn drain_hints(p: &mut Pair<'_>) {
        assert_eq!(p.communicator.reap(N, State::Copying, answer), 0);
    }

    /// Every step in its turn.
    pub fn run() {
        let mut c = Criterion::default().configure_from_args();
        let region = Region::create_private(&Options::new(2 * N as u32)).expect("a private region");
        let parts = region.parts();
        let (communicator, _) = Communicator::take_role(&region, &parts).expect("the role is free");
        let backend = Backend::attach(&region, 0, N as u32).expect("free slots");
        let mut pair =
            Pair { backend, communicator, parts: &parts, producer: Producer::new(), refs: Vec::with_capacity(N) };
        let p = &mut pair;
        step(&mut c, p, "fill nop (and free_slot)", [nothing, fill_nops, all_that_follows]);
        step(&mut c, p, "fill read (and free_slot)", [nothing, fill_reads, all_that_follows]);
        step(&mut c, p, "submit, communicator awake", [fill_nops, submit, reap_and_finish]);
        step(&mut c, p, "submit_many of 32, each", [fill_nops, submit_many, reap_and_finish]);
        step(&mut c, p, "push", [nothing, push, drain_hints]);
        step(&mut c, p, "reap, claim, complete", [submitted, reap, finish]);
        step(&mut c, p, "poll hit", [completed, poll_hit, finish]);
        step(&mut c, p, "poll miss", [submitted, poll_miss, reap_and_finish]);
        step(&mut c, p, "finish", [completed, finish, nothing]);
        step(&mut c, p, "stats read (two counters)", [nothing, read_stats, nothing]);
        c.bench_function("attach and drop, 32 slots", |b| {
            b.iter(|| Backend::attach(&region, N as u32, N as u32).expect("free slots").count());
        });
        c.final_summary();
    }
}

fn main() {
    bench::run();
}
