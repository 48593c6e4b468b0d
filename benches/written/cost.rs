//! What a note and a get cost, in 1, 2 and 4 processes at once, of blocks all over a table and of a few that all want.

use super::ages::Writes;
use super::contenders::{shared_words, Contender, Page, Random};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Instant;

/// Operations of one process in one measurement, and of one chunk of it: an interrupt costs a chunk.
const OPS: u64 = 200_000;
const CHUNK: u64 = 500;
const ROUNDS: usize = 7;
const MOST: usize = 4;

/// Fewer chunks side by side than this say nothing.
const LEAST: usize = 20;

/// What a measurement came to, over the processes that were timed.
#[derive(Clone, Copy)]
struct Timed {
    /// ns an operation, of the median chunk; of chunks that ran beside another process's where there are several.
    ns: f64,
    /// Share of the chunks that did.
    beside: f64,
}

/// Runs all chunks of `ops` in `n` forked processes at once, and times those that are `timed`. `None`: too few of their
/// chunks ran beside others.
fn in_processes(n: usize, timed: impl Fn(usize) -> bool, ops: impl Fn(usize, u64)) -> Option<Timed> {
    // Ready, go; then of each process: chunks done, ns, chunks beside another.
    let board = shared_words(2 + 3 * MOST);
    let (done, results) = board[2..].split_at(MOST);
    let others = |i: usize| (0..n).filter(|k| *k != i).map(|k| done[k].load(Relaxed)).sum::<u64>();
    let children: Vec<_> = (0..n)
        .map(|i| {
            // SAFETY: this process has one thread.
            match unsafe { libc::fork() } {
                0 => {
                    pin(i);
                    board[0].fetch_add(1, Release);
                    while board[1].load(Acquire) == 0 {
                        std::hint::spin_loop();
                        std::thread::yield_now();
                    }
                    let chunk = |chunk| {
                        let (before, begin) = (others(i), Instant::now());
                        ops(i, chunk);
                        let ns = begin.elapsed().as_nanos() as f64;
                        done[i].store(chunk + 1, Relaxed);
                        (n == 1 || others(i) != before).then_some(ns)
                    };
                    let beside: Vec<_> = (0..OPS / CHUNK).filter_map(chunk).collect();
                    results[2 * i + 1].store(beside.len() as u64, Relaxed);
                    if beside.len() >= LEAST {
                        results[2 * i].store(median(beside) as u64, Relaxed);
                    }
                    // SAFETY: ends the child without the parent's destructors.
                    unsafe { libc::_exit(0) }
                }
                -1 => panic!("fork: {}", std::io::Error::last_os_error()),
                pid => pid,
            }
        })
        .collect();
    while board[0].load(Acquire) < n as u64 {
        std::thread::yield_now();
    }
    board[1].store(1, Release);
    for pid in children {
        let mut status = 0;
        // SAFETY: our child.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert_eq!(status, 0, "a child failed");
    }
    let of = |i: usize| (results[2 * i].load(Relaxed) as f64, results[2 * i + 1].load(Relaxed) as f64);
    let told: Vec<_> = (0..n).filter(|i| timed(*i)).map(of).filter(|(ns, _)| *ns > 0.0).collect();
    let mean = |sum: f64, of: u64| sum / (told.len() as u64 * of) as f64;
    let (ns, beside) = told.iter().fold((0.0, 0.0), |(a, b), (ns, beside)| (a + ns, b + beside));
    (!told.is_empty()).then(|| Timed { ns: mean(ns, CHUNK), beside: mean(beside, OPS / CHUNK) })
}

fn pin(i: usize) {
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    // SAFETY: a set of cpus on the stack.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(i % cpus, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

/// Which blocks are worked on.
enum Blocks {
    /// Any below this.
    Below(u64),
    /// A list, sampled before: from a random place on.
    Listed(Vec<u32>),
}

impl Blocks {
    /// Zipf's law: processes meet on the same few lines.
    fn hot() -> Self {
        let (law, mut random) = (Writes::zipf(1.1), Random(11));
        Self::Listed((0..1 << 14).map(|_| law.next(&mut random)).collect())
    }

    /// The blocks of a chunk.
    fn chunk(&self, seed: u64) -> impl Iterator<Item = u32> + '_ {
        let mut random = Random(seed);
        let mut at = random.next() as usize;
        let next = move || match self {
            Self::Below(n) => random.below(*n) as u32,
            Self::Listed(list) => {
                at = (at + 1) % list.len();
                list[at]
            }
        };
        std::iter::repeat_with(next).take(CHUNK as usize)
    }
}

/// One chunk of notes by process `i` of `n`, from LSN `from` on.
fn note(table: &Contender, (i, n): (usize, usize), chunk: u64, blocks: &Blocks, from: u64) {
    let from = from + chunk * CHUNK * n as u64;
    for (k, block) in (0..).zip(blocks.chunk(from ^ i as u64)) {
        table.note(Page::of(block), (from + k * n as u64 + i as u64) * 8);
    }
}

fn get(table: &Contender, i: usize, chunk: u64, blocks: &Blocks, seed: u64) {
    let pages = blocks.chunk(seed ^ chunk << 8 ^ i as u64).map(Page::of);
    std::hint::black_box(pages.fold(0u64, |sum, page| sum.wrapping_add(table.get(page))));
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// What is measured: notes, gets, gets beside processes that note.
const KINDS: usize = 3;
type Times = [Vec<Timed>; KINDS];

/// One measurement of each kind in `n` processes, with LSNs from `from` on.
fn measure(table: &Contender, blocks: &Blocks, n: usize, from: u64) -> [Option<Timed>; KINDS] {
    let noted = in_processes(n, |_| true, |i, chunk| note(table, (i, n), chunk, blocks, from));
    let got = in_processes(n, |_| true, |i, chunk| get(table, i, chunk, blocks, from));
    // Every other process notes what the others look up.
    let is_reader = |i: usize| i % 2 == 0;
    let later = from + OPS * n as u64;
    let beside_notes = in_processes(n, is_reader, |i, chunk| match is_reader(i) {
        true => get(table, i, chunk, blocks, later),
        false => note(table, (i, n), chunk, blocks, later),
    });
    [noted, got, beside_notes]
}

/// All contenders on these blocks in `n` processes: a row for each, and one for the floor of a process that is alone.
fn compare(name: &str, blocks: &Blocks, n: usize) {
    let tables = Contender::all(1);
    let mut rows: Vec<_> = tables.iter().map(|(what, table)| (*what, table, n)).collect();
    if let Some((_, floor)) = tables.last() {
        rows.push(("floor, alone", floor, 1));
    }
    let mut times: Vec<Times> = vec![Default::default(); rows.len()];
    let mut from = 1;
    // All take turns, so that all see the same weather; the first round warms up.
    for round in 0..=ROUNDS {
        for ((_, table, n), times) in rows.iter().zip(&mut times) {
            let found = measure(table, blocks, *n, from);
            if round > 0 {
                times.iter_mut().zip(found).for_each(|(to, t)| to.extend(t));
            }
        }
        from += 2 * OPS * n as u64;
    }
    let of = |times: &Times, what: fn(&Timed) -> f64| times.each_ref().map(|t| median(t.iter().map(what).collect()));
    let Some(alone) = times.last().map(|t| of(t, |t| t.ns)) else { return };
    for ((what, _, n), times) in rows.iter().zip(&times) {
        print!("| {name} | {n} | {what} |");
        for ((ns, beside), alone) in of(times, |t| t.ns).iter().zip(of(times, |t| t.beside)).zip(alone) {
            match (ns.is_nan(), *n) {
                (true, _) => print!(" - | - | too few |"),
                (false, 1) => print!(" {ns:.1} | {:.2} | - |", ns / alone),
                (false, _) => print!(" {ns:.1} | {:.2} | {:.0} % |", ns / alone, beside * 100.0),
            }
        }
        println!();
    }
}

/// All sets of blocks, or the one named so.
pub fn run(only: &str) {
    println!(
        "ns an operation, x the floor of a process that is alone, share of chunks beside another process; 8 MiB each; \
         median of {ROUNDS} rounds\n"
    );
    println!("| blocks | processes | | note | x | beside | get | x | beside | get, others note | x | beside |");
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let few = Blocks::Below(1_000);
    let sets = [("1,000", few), ("8 million", Blocks::Below(8_000_000)), ("zipf 1.1", Blocks::hot())];
    for (name, blocks) in sets.iter().filter(|(name, _)| only.is_empty() || *name == only) {
        for n in [1, 2, 4] {
            compare(name, blocks, n);
        }
    }
}
