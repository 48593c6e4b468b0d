//! Counts the system calls of both processes while both are busy: the parent traces them, a word delimits what counts.

use super::peer::Pipe;
use super::ring::{self, Ask, Client};
use super::run;
use super::shared::{pin, spawn, Board, Serve, DEPTH};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Acquire, Release};

/// Requests of each phase.
pub const REQUESTS: u64 = 100_000;
/// Requests before a phase begins.
const WARM: u64 = 2_000;

/// The phases, in order.
pub const PHASES: [&str; 3] = ["one_in_flight", "in_flight_32", "wait_and_park"];
/// The phases whose sum the bar is about: both sides poll.
pub const BUSY: usize = 2;

/// What one phase came to.
#[derive(Default, Debug, Clone)]
pub struct Count {
    pub client: u64,
    pub server: u64,
    /// By number of the system call.
    pub calls: BTreeMap<u64, u64>,
}

impl Count {
    pub fn per_request(&self) -> f64 {
        (self.client + self.server) as f64 / REQUESTS as f64
    }
}

/// Counts every phase; the error says why it cannot.
pub fn count() -> Result<[Count; PHASES.len()], String> {
    let region = ring::region();
    let fd = region.fd().expect("a memfd has a descriptor");
    let (board, pipe) = (Board::new(), Pipe::new());
    let server = spawn(|| traced(|| run::server(board, fd, pipe)));
    let client = spawn(|| traced(|| phases(board, ring::region_of(fd))));
    for pid in [server, client] {
        if let Err(e) = adopt(pid) {
            for pid in [server, client] {
                // SAFETY: children of ours, not yet reaped.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                // SAFETY: the status is not asked for.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            }
            return Err(e);
        }
    }
    Ok(trace(board, server, client))
}

/// Runs `f` as a tracee, from its first instruction on.
fn traced(f: impl FnOnce()) {
    let none: *mut libc::c_void = std::ptr::null_mut();
    // SAFETY: no memory is handed over; the stop is the parent's to continue.
    unsafe {
        if libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) != 0 {
            libc::_exit(77);
        }
        libc::raise(libc::SIGSTOP);
    }
    f();
}

/// The client: each phase after a warm-up of the same.
fn phases(board: Board, region: shmuring::region::Region) {
    pin(0);
    board.order(Serve::Ring, || {});
    let mut client = Client::new(&region, 0, DEPTH as u32);
    let phase = |n: u64, work: &mut dyn FnMut(u64) -> u64| {
        work(WARM);
        board.phase.0.store(n, Release);
        let done = work(REQUESTS);
        board.phase.0.store(0, Release);
        assert_eq!(done, REQUESTS);
    };
    phase(1, &mut |n| client.one_by_one(Ask::Nop, n));
    phase(2, &mut |n| client.pipelined(Ask::Nop, DEPTH, 1, n / DEPTH as u64 * DEPTH as u64));
    board.order(Serve::RingOrPark, || {});
    phase(3, &mut |n| client.one_by_one_waiting(n));
    board.order(Serve::Exit, || {});
}

/// Takes a child over at its first stop.
fn adopt(pid: libc::pid_t) -> Result<(), String> {
    let mut status = 0;
    // SAFETY: `status` is a valid place.
    unsafe { libc::waitpid(pid, &mut status, libc::WUNTRACED) };
    if !libc::WIFSTOPPED(status) {
        return Err(format!("ptrace is not permitted (the child ended with {status:#x})"));
    }
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
    // SAFETY: a stopped tracee of ours; the options are a plain value.
    if unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) } != 0 {
        return Err(format!("PTRACE_SETOPTIONS: {}", std::io::Error::last_os_error()));
    }
    Ok(())
}

fn go_on(pid: libc::pid_t, signal: i32) {
    // SAFETY: a stopped tracee of ours. If it died meanwhile the call fails, and waitpid tells.
    unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, signal) };
}

/// Number of the system call that a stopped tracee enters; `None` when it leaves one.
fn entered(pid: libc::pid_t) -> Option<u64> {
    // SAFETY: a zeroed struct of integers is a value.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    // SAFETY: a stopped tracee of ours; `info` is writable for the size given.
    let n = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, pid, size_of_val(&info), &mut info) };
    assert!(n > 0, "PTRACE_GET_SYSCALL_INFO: {}", std::io::Error::last_os_error());
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: `op` says that the kernel wrote this member of the union.
    Some(unsafe { info.u.entry.nr })
}

fn trace(board: Board, server: libc::pid_t, client: libc::pid_t) -> [Count; PHASES.len()] {
    let mut counts: [Count; PHASES.len()] = Default::default();
    let mut alive = 2;
    go_on(server, 0);
    go_on(client, 0);
    while alive > 0 {
        let mut status = 0;
        // SAFETY: `status` is a valid place.
        let pid = unsafe { libc::waitpid(-1, &mut status, libc::__WALL) };
        assert!(pid > 0, "waitpid: {}", std::io::Error::last_os_error());
        if !libc::WIFSTOPPED(status) {
            assert_eq!(status, 0, "a traced process failed");
            alive -= 1;
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        if signal != libc::SIGTRAP | 0x80 {
            go_on(pid, signal);
            continue;
        }
        let phase = board.phase.0.load(Acquire) as usize;
        if let (Some(count), Some(call)) = (phase.checked_sub(1).and_then(|i| counts.get_mut(i)), entered(pid)) {
            *(if pid == client { &mut count.client } else { &mut count.server }) += 1;
            *count.calls.entry(call).or_default() += 1;
        }
        go_on(pid, 0);
    }
    counts
}
