//! What a note and a get cost, in 1, 2 and 4 processes at once.

use super::contenders::{shared_words, Contender, Page, Random};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Instant;

/// Operations of one process in one measurement, and of one chunk of it: an interrupt costs a chunk.
const OPS: u64 = 200_000;
const CHUNK: u64 = 500;
const ROUNDS: usize = 7;
const MOST: usize = 4;

/// Runs all chunks of `ops` in `n` forked processes at once; ns an operation of the median chunk, the mean of the processes.
fn in_processes(n: usize, ops: impl Fn(usize, u64)) -> f64 {
    let board = shared_words(2 + MOST);
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
                    let timed = |chunk| {
                        let begin = Instant::now();
                        ops(i, chunk);
                        begin.elapsed().as_nanos() as f64
                    };
                    let ns = median((0..OPS / CHUNK).map(timed).collect());
                    board[2 + i].store(ns as u64, Relaxed);
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
    let sum: u64 = board[2..2 + n].iter().map(|t| t.load(Relaxed)).sum();
    sum as f64 / (n as u64 * CHUNK) as f64
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

/// One chunk of notes by process `i` of `n`, of random blocks below `blocks`, from LSN `from` on.
fn note(table: &Contender, (i, n): (usize, usize), chunk: u64, blocks: u64, from: u64) {
    let from = from + chunk * CHUNK * n as u64;
    let mut random = Random(from ^ i as u64);
    for k in 0..CHUNK {
        table.note(Page::of(random.below(blocks) as u32), (from + k * n as u64 + i as u64) * 8);
    }
}

fn get(table: &Contender, i: usize, chunk: u64, blocks: u64, seed: u64) {
    let mut random = Random(seed ^ chunk << 8 ^ i as u64);
    let mut sum = 0u64;
    for _ in 0..CHUNK {
        sum = sum.wrapping_add(table.get(Page::of(random.below(blocks) as u32)));
    }
    std::hint::black_box(sum);
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

pub fn run() {
    println!("ns an operation, and x floor; 8 MiB each; median of {ROUNDS} rounds\n");
    println!("| blocks | processes | | note | x | get | x |\n|---|---|---|---|---|---|---|");
    for (name, blocks) in [("1,000", 1_000), ("8 million", 8_000_000)] {
        for n in [1, 2, 4] {
            let tables = Contender::all(1);
            let mut times = vec![(Vec::new(), Vec::new()); tables.len()];
            let mut from = 1;
            // All take turns, so that all see the same weather; the first round warms up.
            for round in 0..=ROUNDS {
                for ((_, table), times) in tables.iter().zip(&mut times) {
                    let noted = in_processes(n, |i, chunk| note(table, (i, n), chunk, blocks, from));
                    let got = in_processes(n, |i, chunk| get(table, i, chunk, blocks, from));
                    if round > 0 {
                        times.0.push(noted);
                        times.1.push(got);
                    }
                }
                from += OPS * n as u64;
            }
            let medians: Vec<_> = times.into_iter().map(|(a, b)| (median(a), median(b))).collect();
            let floor = medians[tables.len() - 1];
            for ((what, _), (noted, got)) in tables.iter().zip(&medians) {
                let (x, y) = (noted / floor.0, got / floor.1);
                println!("| {name} | {n} | {what} | {noted:.1} | {x:.2} | {got:.1} | {y:.2} |");
            }
        }
    }
}
