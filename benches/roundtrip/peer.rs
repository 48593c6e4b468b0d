//! What one would write without this library: a slot in shared memory, its number through a pipe, the answer by futex.

use super::shared::{Serve, Shared, DEPTH};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const IDLE: u32 = 0;
const ASKED: u32 = 1;
const DONE: u32 = 2;
/// A number of no slot: "look at the order".
const NUDGE: u32 = u32::MAX;

fn answer(request: u32) -> u64 {
    u64::from(request ^ 0x5bd1_e995)
}

/// A pipe that carries slot numbers.
#[derive(Clone, Copy)]
pub struct Pipe {
    read: i32,
    write: i32,
}

impl Pipe {
    pub fn new() -> Self {
        let mut fds = [0; 2];
        // SAFETY: `fds` has room for both.
        assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        Self { read: fds[0], write: fds[1] }
    }

    fn send(self, slot: u32) {
        // SAFETY: four readable bytes.
        let n = unsafe { libc::write(self.write, (&raw const slot).cast(), 4) };
        assert_eq!(n, 4, "write: {}", std::io::Error::last_os_error());
    }

    /// As many numbers as are there.
    fn receive(self, to: &mut [u32; DEPTH]) -> usize {
        // SAFETY: `to` is writable for so many bytes.
        let n = unsafe { libc::read(self.read, to.as_mut_ptr().cast(), size_of_val(to)) };
        if n < 0 {
            assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(libc::EAGAIN));
            return 0;
        }
        n as usize / 4
    }

    fn set_blocking(self, blocking: bool) {
        // SAFETY: plain values.
        unsafe { libc::fcntl(self.read, libc::F_SETFL, if blocking { 0 } else { libc::O_NONBLOCK }) };
    }

    /// Makes a blocked server look at its order.
    pub fn nudge(self) {
        self.send(NUDGE);
    }
}

fn futex(word: &AtomicU32, op: i32, value: u32) {
    let none: *const libc::timespec = std::ptr::null();
    // SAFETY: the word is mapped; no timeout.
    unsafe { libc::syscall(libc::SYS_futex, word, op, value, none) };
}

/// Serves until the next order.
pub fn serve(board: &Shared, order: u64, serve: Serve, pipe: Pipe) {
    let spins = serve == Serve::PipeSpin;
    pipe.set_blocking(!spins);
    let mut numbers = [0; DEPTH];
    loop {
        let n = pipe.receive(&mut numbers);
        for slot in numbers[..n].iter().filter_map(|number| board.slots.get(*number as usize)) {
            assert_eq!(slot.state.load(Acquire), ASKED);
            slot.answer.store(answer(slot.request.load(Relaxed)), Relaxed);
            slot.state.store(DONE, Release);
            if !spins {
                futex(&slot.state, libc::FUTEX_WAKE, 1);
            }
        }
        if board.is_over(order) {
            return;
        }
    }
}

fn ask(board: &Shared, pipe: Pipe, slot: usize, request: u32) {
    let s = &board.slots[slot];
    s.request.store(request, Relaxed);
    s.state.store(ASKED, Release);
    pipe.send(slot as u32);
}

fn take(board: &Shared, slot: usize, request: u32, sleeps: bool) {
    let s = &board.slots[slot];
    while s.state.load(Acquire) != DONE {
        if sleeps {
            futex(&s.state, libc::FUTEX_WAIT, ASKED);
        }
    }
    assert_eq!(s.answer.load(Relaxed), answer(request));
    s.state.store(IDLE, Relaxed);
}

/// About `n` requests with `depth` in flight, taken in order.
pub fn requests(board: &Shared, pipe: Pipe, depth: usize, sleeps: bool, n: u64) -> u64 {
    let rounds = (n / depth as u64).max(1) as u32;
    (0..depth).for_each(|i| ask(board, pipe, i, 0));
    for round in 0..rounds {
        for i in 0..depth {
            take(board, i, round, sleeps);
            if round + 1 < rounds {
                ask(board, pipe, i, round + 1);
            }
        }
    }
    u64::from(rounds) * depth as u64
}
