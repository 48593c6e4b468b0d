//! What both processes share besides the region, and how they are made: pinned, forked, told what to serve next.

use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Requests in flight of the pipelined workloads.
pub const DEPTH: usize = 32;
/// Clients of the workload with several.
pub const CLIENTS: usize = 4;
/// Slots of each of them.
pub const CLIENT_SLOTS: u32 = 8;

/// A word alone on a pair of cache lines.
#[derive(Default)]
#[repr(C, align(128))]
pub struct Line(pub AtomicU64);

/// A request slot of the peer: its state is the futex.
#[derive(Default)]
#[repr(C, align(128))]
pub struct PeerSlot {
    pub state: AtomicU32,
    pub request: AtomicU32,
    pub answer: AtomicU64,
}

/// The memory that client and server share besides the region. All zeroes at first.
#[derive(Default)]
#[repr(C)]
pub struct Shared {
    /// What the server is to do: `number of the order << 8 | Serve`.
    pub order: Line,
    /// The order that the server is at.
    pub at: Line,
    /// The bounced line of the one-line floor.
    pub one: Line,
    pub requests: [Line; DEPTH],
    pub completions: [Line; DEPTH],
    pub slots: [PeerSlot; DEPTH],
    /// Start of the clients of the workload with several: they are ready, they may go.
    pub ready: Line,
    pub go: Line,
    /// Requests done, time taken, by client.
    pub done: [Line; CLIENTS],
    pub took: [Line; CLIENTS],
    /// What the tracer may count (syscalls.rs).
    pub phase: Line,
}

/// What the server does until the next order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Serve {
    Nothing = 0,
    /// Bounces [`Shared::one`].
    OneLine,
    /// Answers `requests[0]` in `completions[0]`.
    TwoLine,
    /// As `OneLine`, over [`DEPTH`] lines in order.
    OneLineMailbox,
    /// As `TwoLine`, over [`DEPTH`] pairs in order.
    TwoLineMailbox,
    /// Takes numbers of lines of `completions` from the lines of `requests`, in order, and answers in place.
    Queue,
    /// The library: reap, answer at once.
    Ring,
    /// The library, sleeping when idle.
    RingOrPark,
    /// Pipe and slot, blocking.
    Pipe,
    /// Pipe and slot, spinning.
    PipeSpin,
    Exit,
}

impl Serve {
    fn of(order: u64) -> Self {
        use Serve::*;
        let all =
            [Nothing, OneLine, TwoLine, OneLineMailbox, TwoLineMailbox, Queue, Ring, RingOrPark, Pipe, PipeSpin, Exit];
        all.into_iter().find(|s| *s as u64 == order & 0xFF).expect("an order names something to serve")
    }
}

/// A [`Shared`] mapped so that forked children share it.
#[derive(Clone, Copy)]
pub struct Board(*const Shared);

impl Board {
    pub fn new() -> Self {
        // SAFETY: a new mapping, nobody else's.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                size_of::<Shared>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "mmap: {}", std::io::Error::last_os_error());
        Self(at.cast())
    }
}

impl Deref for Board {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        // SAFETY: mapped until the process ends, zeroed, and atomics only.
        unsafe { &*self.0 }
    }
}

impl Shared {
    /// Gives the server an order and waits until it is at it. `nudge` wakes a server that blocks.
    pub fn order(&self, serve: Serve, nudge: impl FnOnce()) {
        let order = (self.order.0.load(Ordering::Relaxed) >> 8).wrapping_add(1) << 8 | serve as u64;
        self.order.0.store(order, Ordering::Release);
        nudge();
        if serve != Serve::Exit {
            while self.at.0.load(Ordering::Acquire) != order {
                std::hint::spin_loop();
            }
        }
    }

    /// The server's side: the next order, once it is given.
    pub fn next_order(&self) -> (u64, Serve) {
        let last = self.at.0.load(Ordering::Relaxed);
        loop {
            let order = self.order.0.load(Ordering::Acquire);
            if order != last {
                self.at.0.store(order, Ordering::Release);
                return (order, Serve::of(order));
            }
            // SAFETY: no arguments.
            unsafe { libc::sched_yield() };
        }
    }

    /// Whether the server shall leave what it serves.
    #[inline]
    pub fn is_over(&self, order: u64) -> bool {
        self.order.0.load(Ordering::Relaxed) != order
    }
}

/// Pins this process; without the cpu it stays where it is, and the floors tell.
pub fn pin(cpu: usize) -> bool {
    // SAFETY: a zeroed set is empty, and the calls only read and write it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) == 0
    }
}

/// Runs `f` in a child, which dies with this process. A panic there is exit code 101.
pub fn spawn(f: impl FnOnce()) -> libc::pid_t {
    // SAFETY: this process has one thread.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork: {}", std::io::Error::last_os_error());
    if pid == 0 {
        // SAFETY: plain values.
        unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        let code = if std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_ok() { 0 } else { 101 };
        // SAFETY: ends the process without running what the parent has set up.
        unsafe { libc::_exit(code) };
    }
    pid
}

/// Waits for a child and insists that it ended well.
pub fn join(pid: libc::pid_t) {
    let mut status = 0;
    // SAFETY: `status` is a valid place.
    let got = unsafe { libc::waitpid(pid, &mut status, 0) };
    assert!(got == pid && libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "child ended with {status:#x}");
}

/// Runs `chunk`, which says how many requests it did, until about `ms` have passed; gives ns a request of the median
/// chunk, so that an interrupt or a foreign process in between costs that one chunk.
pub fn timed(ms: u64, mut chunk: impl FnMut() -> u64) -> f64 {
    let mut chunks = Vec::with_capacity(1024);
    let start = Instant::now();
    let mut last = start;
    loop {
        let done = chunk();
        let now = Instant::now();
        chunks.push((now - last).as_nanos() as f64 / done as f64);
        last = now;
        if now - start >= Duration::from_millis(ms) {
            chunks.sort_by(f64::total_cmp);
            return chunks[chunks.len() / 2];
        }
    }
}
