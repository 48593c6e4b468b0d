//! The floors: what two caches can do at best, with no queue, no checks and no recovery.
//!
//! One line: the client makes the word odd, the server makes it even, one in flight. Two lines: the client writes a number
//! in the request line, the server answers in the completion line, one in flight. Mailboxes: the same over 32 lines (or
//! pairs) in order, all in flight.

use super::shared::{Line, Serve, Shared, DEPTH};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Instant;

/// Round trips of one chunk of a probe, and chunks: a millisecond or two in all.
const CHUNK: u64 = 512;
const CHUNKS: usize = 15;
/// Empty polls between two looks at the order.
const LOOK: u32 = 256;

fn answer(request: u64) -> u64 {
    request ^ 0x5bd1
}

/// Serves a floor until the next order.
pub fn serve(board: &Shared, order: u64, serve: Serve) {
    match serve {
        Serve::OneLine => serve_lines(board, order, std::slice::from_ref(&board.one)),
        Serve::OneLineMailbox => serve_lines(board, order, &board.requests),
        Serve::TwoLine => serve_pairs(board, order, 1),
        _ => serve_pairs(board, order, DEPTH),
    }
}

fn serve_lines(board: &Shared, order: u64, lines: &[Line]) {
    let mut i = 0;
    loop {
        let line = &lines[i];
        let mut idle = 0;
        let mut v = line.0.load(Acquire);
        while v & 1 == 0 {
            idle += 1;
            if idle % LOOK == 0 && board.is_over(order) {
                return;
            }
            v = line.0.load(Acquire);
        }
        line.0.store(v + 1, Release);
        i = if i + 1 < lines.len() { i + 1 } else { 0 };
    }
}

fn serve_pairs(board: &Shared, order: u64, n: usize) {
    // `clear` zeroed the lines before the order was given.
    let mut seen = [0; DEPTH];
    let mut i = 0;
    loop {
        let mut idle = 0;
        let mut v = board.requests[i].0.load(Acquire);
        while v == seen[i] {
            idle += 1;
            if idle % LOOK == 0 && board.is_over(order) {
                return;
            }
            v = board.requests[i].0.load(Acquire);
        }
        seen[i] = v;
        board.completions[i].0.store(answer(v), Release);
        i = if i + 1 < n { i + 1 } else { 0 };
    }
}

/// Zeroes the lines, so that every floor starts from the same; no server is at them.
fn clear(board: &Shared) {
    board.order(Serve::Nothing, || {});
    for line in board.requests.iter().chain(&board.completions).chain([&board.one]) {
        line.0.store(0, Relaxed);
    }
}

/// One probe of the one-line floor, ns a round trip.
pub fn one_line(board: &Shared) -> f64 {
    clear(board);
    board.order(Serve::OneLine, || {});
    let line = &board.one.0;
    let trip = |v: u64| {
        line.store(v + 1, Release);
        while line.load(Acquire) == v + 1 {}
        assert_eq!(line.load(Relaxed), v + 2);
    };
    probe(|i| trip(i * 2))
}

/// One probe of the two-line floor, ns a round trip.
pub fn two_line(board: &Shared) -> f64 {
    clear(board);
    board.order(Serve::TwoLine, || {});
    let (request, completion) = (&board.requests[0].0, &board.completions[0].0);
    probe(|i| {
        request.store(i + 1, Release);
        while completion.load(Acquire) != answer(i + 1) {}
    })
}

/// One probe of a pipelined floor, ns a request.
pub fn mailbox(board: &Shared, serve: Serve) -> f64 {
    clear(board);
    board.order(serve, || {});
    let one = serve == Serve::OneLineMailbox;
    let ask = |i: usize, lap: u64| {
        board.requests[i].0.store(if one { lap * 2 + 1 } else { lap + 1 }, Release);
    };
    let wait = |i: usize, lap: u64| {
        if one {
            while board.requests[i].0.load(Acquire) != lap * 2 + 2 {}
        } else {
            while board.completions[i].0.load(Acquire) != answer(lap + 1) {}
        }
    };
    (0..DEPTH).for_each(|i| ask(i, 0));
    let mut lap = 0;
    let ns = median(|| {
        for _ in 0..CHUNK / DEPTH as u64 {
            for i in 0..DEPTH {
                wait(i, lap);
                ask(i, lap + 1);
            }
            lap += 1;
        }
    });
    (0..DEPTH).for_each(|i| wait(i, lap));
    ns
}

/// The median of [`CHUNKS`], after one to warm up.
fn probe(mut trip: impl FnMut(u64)) -> f64 {
    let mut next = 0;
    let mut chunk = || {
        (next..next + CHUNK).for_each(&mut trip);
        next += CHUNK;
    };
    chunk();
    median(chunk)
}

fn median(mut chunk: impl FnMut()) -> f64 {
    let mut took = [0.0; CHUNKS];
    for t in &mut took {
        let start = Instant::now();
        chunk();
        *t = start.elapsed().as_nanos() as f64 / CHUNK as f64;
    }
    took.sort_by(f64::total_cmp);
    took[CHUNKS / 2]
}
