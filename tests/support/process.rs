//! Processes over one named region: forked children that can be stopped and killed, and a board that all can read.
//!
//! A child closes every descriptor first thing, so that it holds no lock of its parent's (nor of another test's), and
//! attaches anew by name. It ends with its parent's thread.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::Once;
use std::time::Duration;

use shmuring::backend::Backend;
use shmuring::communicator::{Claim, Communicator, Gather};
use shmuring::error::Error;
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, RelTag};
use shmuring::slot::State;

use super::{soon, Scratch};

pub const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
pub const BLOCK: usize = 512;
pub const POOL: u16 = 1;
pub const POOL_BLOCKS: u32 = 16;

/// Words that a test and its children share; each starts at 0.
#[derive(Clone, Copy)]
pub struct Board(&'static [AtomicU32; 1024]);

/// Epoch of the communicator that has taken the role last.
pub const READY: usize = 0;
/// Communicators end.
pub const STOP: usize = 1;
/// Communicators answer what they held.
pub const RELEASE: usize = 2;
/// Requests that a communicator holds.
pub const HELD: usize = 3;
/// First of the words that a test gives its own meaning.
pub const OWN: usize = 8;

impl Board {
    pub fn new() -> Self {
        // SAFETY: zeros are atomics; shared memory of that size, never unmapped.
        Self(unsafe { &*shared(4096).cast() })
    }

    pub fn get(self, word: usize) -> u32 {
        self.0[word].load(SeqCst)
    }

    pub fn set(self, word: usize, value: u32) {
        self.0[word].store(value, SeqCst);
    }

    pub fn add(self, word: usize) -> u32 {
        self.0[word].fetch_add(1, SeqCst)
    }

    /// Waits until the word holds at least that.
    pub fn wait(self, word: usize, value: u32) {
        assert!(soon(|| self.get(word) >= value), "word {word} is {} and not {value}", self.get(word));
    }

    /// Notes one more number in the list that starts at `word`, whose length comes first.
    pub fn note(self, word: usize, value: u32) {
        let n = self.add(word) as usize;
        self.set(word + 1 + n, value);
    }

    pub fn list(self, word: usize) -> Vec<u32> {
        (0..self.get(word) as usize).map(|i| self.get(word + 1 + i)).collect()
    }
}

/// Zeroed memory that forked children share, at the same address.
pub fn shared(len: usize) -> *mut u8 {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping disturbs nothing that exists.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at.cast()
}

/// A named region, a board, and memory to register as pool 1.
pub struct Site {
    _scratch: Scratch,
    pub path: PathBuf,
    pub region: Region,
    pub board: Board,
    pub pool: usize,
}

impl Site {
    pub fn new(name: &str, slots: u32) -> Self {
        Self::with(name, &Options::new(slots))
    }

    /// One of these sizes, but for its bounce buffers, which are 2 of a block to each slot.
    pub fn with(name: &str, options: &Options) -> Self {
        speak_in_children();
        let scratch = Scratch::new(name);
        let path = scratch.path("region");
        let options = Options { bounce_per_slot: 2, block_size: BLOCK as u32, ..*options };
        Region::create_named(&path, &options).unwrap();
        let pool = shared(POOL_BLOCKS as usize * BLOCK) as usize;
        let region = open(&path, pool);
        Self { _scratch: scratch, path, region, board: Board::new(), pool }
    }

    /// A process that attaches by name and does `f`.
    pub fn child(&self, f: impl FnOnce(&Region, Board)) -> Child {
        Child::fork(|| f(&open(&self.path, self.pool), self.board))
    }

    /// A process that serves, once it has the role, until STOP.
    pub fn communicator(&self, to: State, answer: impl FnMut(Claim<'_>)) -> Child {
        let before = self.board.get(READY);
        let child = self.child(|region, board| serve(region, board, to, answer));
        assert!(soon(|| self.board.get(READY) != before), "no communicator came");
        child
    }

    /// Attaches; again and again for a moment, since a child just forked may still share a lock that was given up.
    pub fn backend(&self, first: u32, count: u32) -> Backend<'_> {
        let mut got = Err(Error::OwnerAlive);
        soon(|| {
            got = Backend::attach(&self.region, first, count);
            !matches!(got, Err(Error::OwnerAlive))
        });
        got.unwrap()
    }

    fn block(&self, index: u32) -> *mut [u8; BLOCK] {
        assert!(index < POOL_BLOCKS);
        (self.pool + index as usize * BLOCK) as *mut [u8; BLOCK]
    }

    /// The bytes of a block of the pool.
    pub fn look(&self, index: u32) -> [u8; BLOCK] {
        // SAFETY: inside the pool; volatile, since another process may write.
        unsafe { self.block(index).read_volatile() }
    }

    /// Fills a block of the pool.
    pub fn paint(&self, index: u32, byte: u8) {
        // SAFETY: as above.
        unsafe { self.block(index).write_volatile([byte; BLOCK]) };
    }
}

/// Attaches to the region at `path`, with the pool registered.
pub fn open(path: &Path, pool: usize) -> Region {
    let mut region = Region::attach(path).unwrap();
    // SAFETY: mapped for good, of that size.
    unsafe { region.register_pool(POOL, pool as *mut u8, BLOCK, POOL_BLOCKS).unwrap() };
    region
}

/// Takes the role, which may be about to become free.
pub fn take_role<'r>(
    region: &'r Region,
    parts: &'r shmuring::parts::Parts<'r>,
) -> (Communicator<'r>, shmuring::communicator::Inheritance<'r>) {
    let mut got = Err(Error::RoleHeld);
    soon(|| {
        got = Communicator::take_role(region, parts);
        !matches!(got, Err(Error::RoleHeld))
    });
    got.unwrap()
}

/// A communicator: takes over, admits what it inherits, then serves.
pub fn serve(region: &Region, board: Board, to: State, mut answer: impl FnMut(Claim<'_>)) {
    let parts = region.parts();
    let (mut c, inherited) = take_role(region, &parts);
    board.set(READY, c.epoch());
    inherited.mutations.into_iter().chain(inherited.reads).for_each(&mut answer);
    c.sweep(to, &mut answer);
    while board.get(STOP) == 0 {
        c.reap_or_park(32, to, Gather::default(), 20_000_000, &mut answer);
        c.audit(to, &mut answer);
    }
}

/// Answers reads with pages full of the low byte of their block number and the number of blocks; writes with the first
/// byte of their image; anything else with the block number.
pub fn answer(mut claim: Claim<'_>) {
    let (op, block, count) = (claim.job().opcode, claim.job().block, usize::from(claim.job().count));
    let mut value = u64::from(block);
    if op.has_buffers() {
        let Ok(mut copying) = claim.copying() else { return };
        for i in 0..count {
            if op.fills_buffers() {
                copying.deliver(i, &[(block + i as u32) as u8; BLOCK]).unwrap();
                value = count as u64;
            } else {
                let mut image = [0; BLOCK];
                copying.take_image(i, &mut image).unwrap();
                value = u64::from(image[0]);
            }
        }
    }
    let _ = claim.complete(Completion::ok(value));
}

static IN_CHILD: AtomicBool = AtomicBool::new(false);

/// Lets a child that panics say so, past the output that the test harness captures. Set before the first fork: the lock
/// of the hook may be another thread's at a later one.
fn speak_in_children() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if IN_CHILD.load(SeqCst) {
                let _ = writeln!(std::io::stderr(), "in a child: {info}");
            } else {
                usual(info);
            }
        }));
    });
}

/// A forked child.
pub struct Child {
    pid: libc::pid_t,
    reaped: bool,
}

impl Child {
    pub fn fork(f: impl FnOnce()) -> Self {
        // SAFETY: glibc keeps its allocator usable in the child, and the child touches no other lock of its parent's.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0);
        if pid == 0 {
            // SAFETY: system calls on numbers; nothing in the child uses a descriptor of the parent's, or drops one.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                libc::close_range(3, libc::c_uint::MAX, 0);
            }
            IN_CHILD.store(true, SeqCst);
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            // SAFETY: ends the child at once, without the parent's exit handlers.
            unsafe { libc::_exit(if ended.is_ok() { 0 } else { 101 }) };
        }
        Self { pid, reaped: false }
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: a system call without memory; the child is not reaped, so its pid is still its own.
        assert_eq!(unsafe { libc::kill(self.pid, signal) }, 0);
    }

    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }

    /// Waits until it ends or, as `flags` say, stops; its wait status.
    pub fn wait(&mut self, flags: libc::c_int) -> libc::c_int {
        self.poll(flags).unwrap()
    }

    /// As [`Child::wait`]; with WNOHANG `None` if there is nothing to tell.
    pub fn poll(&mut self, flags: libc::c_int) -> Option<libc::c_int> {
        let mut status = 0;
        // SAFETY: status is writable and outlives the call.
        let got = unsafe { libc::waitpid(self.pid, &mut status, flags) };
        assert!(got == self.pid || got == 0);
        (got != 0).then(|| {
            self.reaped = !libc::WIFSTOPPED(status);
            status
        })
    }

    /// Stops it, or waits until it has stopped itself.
    pub fn stopped(&mut self, itself: bool) {
        if !itself {
            self.signal(libc::SIGSTOP);
        }
        assert!(libc::WIFSTOPPED(self.wait(libc::WUNTRACED)));
    }

    pub fn go_on(&self) {
        self.signal(libc::SIGCONT);
    }

    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        self.wait(0);
    }

    /// Waits until it is dead, however that came.
    pub fn wait_for_death(&mut self) {
        self.wait(0);
    }

    /// Waits until it has ended well.
    pub fn ended(&mut self) {
        let status = self.wait(0);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "the child ended with {status:#x}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
        }
    }
}

/// Sleeps for good: for a child that is to be killed.
pub fn hang() -> ! {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}
