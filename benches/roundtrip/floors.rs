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
        Serve::Queue => serve_queue(board, order),
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

fn serve_queue(board: &Shared, order: u64) {
    let mut i = 0;
    loop {
        let cell = &board.requests[i].0;
        let mut idle = 0;
        let mut v = cell.load(Acquire);
        while v == 0 {
            idle += 1;
            if idle % LOOK == 0 && board.is_over(order) {
                return;
            }
            v = cell.load(Acquire);
        }
        cell.store(0, Release);
        let slot = &board.completions[(v as usize - 1) % DEPTH].0;
        slot.store(answer(slot.load(Relaxed)), Release);
        i = (i + 1) % DEPTH;
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

/// The least that a queue of slot numbers costs, ns a request: the request is written in its slot, the slot's number in
/// the queue, the answer in the slot. No tickets, no states, one producer.
pub fn queue(board: &Shared, depth: usize) -> f64 {
    clear(board);
    board.order(Serve::Queue, || {});
    let mut cell = 0;
    let mut ask = |slot: usize, v: u64| {
        board.completions[slot].0.store(v, Relaxed);
        board.requests[cell].0.store(slot as u64 + 1, Release);
        cell = (cell + 1) % DEPTH;
    };
    let wait = |slot: usize, v: u64| while board.completions[slot].0.load(Acquire) != answer(v) {};
    (0..depth).for_each(|slot| ask(slot, 1));
    let mut lap = 1;
    let ns = median(|| {
        for _ in 0..CHUNK / depth as u64 {
            for slot in 0..depth {
                wait(slot, lap);
                ask(slot, lap + 1);
            }
            lap += 1;
        }
    });
    (0..depth).for_each(|slot| wait(slot, lap));
    ns
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
