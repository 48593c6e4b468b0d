//! A child that is traced: stepped instruction by instruction, run to an address, and killed where it stands.

use std::time::{Duration, Instant};

use shmuring::region::Region;

use crate::heap;
use crate::support::process::{Board, Child, Site, OWN};

/// Set by the victim where its operation begins.
const GO: usize = OWN;
/// Set by the victim when its operation is over.
const DONE: usize = OWN + 1;
/// How far the victim has come, in its own words.
pub const PHASE: usize = OWN + 6;
/// Why the victim could not be traced: an errno.
const REFUSED: usize = OWN + 2;

/// Whether an instruction can be run to without a stop at each one before it.
pub const CAN_RUN: bool = cfg!(target_arch = "x86_64");

/// Longer than a victim sleeps where it is run to; a slice of a wait is a second.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
const SLEEPS: Duration = Duration::from_secs(3);

/// Where the stepping of a victim begins and ends.
pub struct Marks {
    board: Board,
    /// The number of its first request.
    pub base: u32,
}

impl Marks {
    /// Stops, so that the stage can be set; what follows is stepped.
    pub fn begin(&self) {
        stop_here();
        self.board.set(GO, 1);
    }

    /// The operation has come so far.
    pub fn reach(&self, phase: u32) {
        self.board.set(PHASE, phase);
    }

    /// The operation is over: waits to be killed.
    pub fn end(&self) {
        self.board.set(DONE, 1);
        loop {
            stop_here();
        }
    }

    /// The words that the test and its processes share.
    pub fn board(&self) -> Board {
        self.board
    }
}

/// Stops this process, with few instructions of the C library in between. The signal is this thread's: it is traced, and
/// others are not.
pub fn stop_here() {
    // SAFETY: system calls on numbers.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), libc::SIGSTOP) };
}

/// The signals that tell of children stay pending from here on, so that they can be waited for with a time limit.
pub fn hear_of_children() {
    // SAFETY: a set of signals of this frame's own.
    let rc = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &of_children(), std::ptr::null_mut()) };
    assert_eq!(rc, 0);
}

fn of_children() -> libc::sigset_t {
    // SAFETY: a set of signals is plain bytes, and made empty here.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        set
    }
}

/// A child that the calling thread traces.
pub struct Tracee {
    child: Child,
    board: Board,
}

impl Tracee {
    /// A process that attaches by name, does `victim` and stops at its first mark.
    pub fn start(site: &Site, base: u32, victim: fn(&Region, &Marks)) -> Result<Self, String> {
        let board = site.board;
        board.set(GO, 0);
        board.set(DONE, 0);
        board.set(REFUSED, 0);
        let mut child = site.child(|region, board| {
            // SAFETY: a request without memory.
            if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } == -1 {
                let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(-1);
                board.set(REFUSED, errno.unsigned_abs());
                return;
            }
            heap::begin();
            victim(region, &Marks { board, base });
        });
        let status = child.wait(0);
        if board.get(REFUSED) != 0 {
            let errno = board.get(REFUSED);
            return Err(format!("no ptrace here (errno {errno}): without it this test can show nothing, so it fails"));
        }
        if !libc::WIFSTOPPED(status) || libc::WSTOPSIG(status) != libc::SIGSTOP {
            return Err(format!("the victim ended before its operation began: wait status {status:#x}"));
        }
        Ok(Self { child, board })
    }

    /// Whether the operation has begun.
    pub fn has_begun(&self) -> bool {
        self.board.get(GO) != 0
    }

    /// Whether the operation is over.
    pub fn is_over(&self) -> bool {
        self.board.get(DONE) != 0
    }

    /// Executes one instruction; a system call is one.
    pub fn step(&mut self) -> Result<(), String> {
        self.resume(libc::PTRACE_SINGLESTEP)?;
        self.stopped()
    }

    /// As [`Tracee::step`], but false if the instruction is a system call that sleeps for longer. Call
    /// [`Tracee::stopped`] or [`Tracee::kill`] next.
    pub fn step_within(&mut self, time: Duration) -> Result<bool, String> {
        self.resume(libc::PTRACE_SINGLESTEP)?;
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.poll(libc::WNOHANG) {
                return trapped(status).map(|()| true);
            }
            if begin.elapsed() > time && self.is_asleep() {
                return Ok(false);
            }
            std::thread::yield_now();
        }
    }

    /// Whether it waits for something in the kernel, and not for a cpu.
    fn is_asleep(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.pid())).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
    }

    /// As [`Tracee::stopped`], but false if it sleeps after so long a time; then it is stopped there.
    fn stopped_within(&mut self, time: Duration) -> Result<bool, String> {
        let begin = Instant::now();
        let moment = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
        loop {
            if let Some(status) = self.child.poll(libc::WNOHANG) {
                return trapped(status).map(|()| true);
            }
            if begin.elapsed() > time && self.is_asleep() {
                self.child.signal(libc::SIGSTOP);
                return self.stopped().map(|()| false);
            }
            // SAFETY: a set and a time of this frame's own; which signal came, if any, is not asked.
            unsafe { libc::sigtimedwait(&of_children(), std::ptr::null_mut(), &moment) };
        }
    }

    /// Waits for the end of what was resumed.
    pub fn stopped(&mut self) -> Result<(), String> {
        trapped(self.child.wait(0))
    }

    /// SIGKILL, where it stands.
    pub fn kill(mut self) -> Result<(), String> {
        self.child.signal(libc::SIGKILL);
        let status = self.child.wait(0);
        let is_killed = libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL;
        is_killed.then_some(()).ok_or_else(|| format!("the victim did not die of the kill: wait status {status:#x}"))
    }

    fn resume(&mut self, request: libc::c_uint) -> Result<(), String> {
        // SAFETY: a request without memory, to a tracee of this thread that is stopped.
        let rc = unsafe { libc::ptrace(request, self.child.pid(), 0, 0) };
        (rc != -1).then_some(()).ok_or_else(|| format!("ptrace {request}: {}", std::io::Error::last_os_error()))
    }
}

/// The end of a step or of a run to an address; the stop in [`Marks::end`] is one too, of a victim whose operation is over.
fn trapped(status: libc::c_int) -> Result<(), String> {
    let stopped = libc::WIFSTOPPED(status) && [libc::SIGTRAP, libc::SIGSTOP].contains(&libc::WSTOPSIG(status));
    stopped.then_some(()).ok_or_else(|| format!("the victim neither stepped nor stopped: wait status {status:#x}"))
}

#[cfg(target_arch = "x86_64")]
mod registers {
    use super::{Tracee, SLEEPS};
    use std::mem::offset_of;

    impl Tracee {
        /// Address of the next instruction.
        pub fn at(&self) -> Result<u64, String> {
            let place = offset_of!(libc::user, regs.rip);
            // SAFETY: reads a register of a stopped tracee of this thread.
            let rip = unsafe { libc::ptrace(libc::PTRACE_PEEKUSER, self.child.pid(), place, 0) };
            // All ones is an address that no program has.
            (rip != -1).then_some(rip as u64).ok_or_else(|| format!("peek: {}", std::io::Error::last_os_error()))
        }

        /// Runs until the instruction at `address` is about to be executed for the `hits`-th time; it must not stand at
        /// that address. False: it came to the end of the operation, or fell asleep for longer than anything on the way
        /// to an instruction does.
        pub fn run_to(&mut self, address: u64, hits: usize) -> Result<bool, String> {
            let place = offset_of!(libc::user, u_debugreg);
            self.poke(place, address)?;
            // Bit 0 switches the first breakpoint on; of type 0, which is execution.
            self.poke(place + 7 * 8, 1)?;
            let mut is_there = true;
            for _ in 0..hits {
                self.resume(libc::PTRACE_CONT)?;
                is_there = self.stopped_within(SLEEPS)? && !self.is_over();
                if !is_there {
                    break;
                }
            }
            self.poke(place + 7 * 8, 0)?;
            Ok(is_there)
        }

        fn poke(&mut self, place: usize, value: u64) -> Result<(), String> {
            // SAFETY: writes a debug register of a stopped tracee of this thread.
            let rc = unsafe { libc::ptrace(libc::PTRACE_POKEUSER, self.child.pid(), place, value) };
            (rc != -1).then_some(()).ok_or_else(|| format!("poke: {}", std::io::Error::last_os_error()))
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod registers {
    use super::Tracee;

    impl Tracee {
        /// Not told here: every victim is stepped from its mark on, which takes longer and shows the same.
        pub fn at(&self) -> Result<u64, String> {
            Ok(0)
        }

        /// Not called here, see [`super::CAN_RUN`].
        pub fn run_to(&mut self, _: u64, _: usize) -> Result<bool, String> {
            Err("no breakpoints here".into())
        }
    }
}
