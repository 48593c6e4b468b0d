//! The library: the server reaps and answers at once; the clients fill, submit, poll and take the result.

use super::shared::{join, pin, spawn, timed, Board, Serve, Shared, CLIENTS, CLIENT_SLOTS, DEPTH};
use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator, Gather};
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, Opcode, RelTag, Request};
use shmuring::slot::State;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
const BLOCK: usize = 8192;
/// First slot of the clients of the workload with several; those before it are the one client's.
const OTHERS: u32 = DEPTH as u32;
/// Set in the LSN of a read whose page the server shall copy.
const COPY: u64 = 1 << 40;

/// The region of a run.
pub fn region() -> Region {
    let slots = OTHERS + CLIENTS as u32 * CLIENT_SLOTS;
    Region::create_memfd(&Options { bounce_per_slot: 1, block_size: BLOCK as u32, ..Options::new(slots) })
        .expect("a memfd region")
}

/// The same in a process that was handed its descriptor.
pub fn region_of(fd: BorrowedFd<'_>) -> Region {
    Region::attach_fd(fd).expect("the region")
}

/// What a request is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ask {
    Nop,
    /// A one-block read into a bounce buffer, answered without a page.
    Read,
    /// The same, and the server copies the page.
    ReadCopied,
}

fn request(ask: Ask, block: u32) -> Request<'static> {
    match ask {
        Ask::Nop => {
            let mut r = Request::new(Opcode::Nop, REL);
            r.block = block;
            r
        }
        Ask::Read => Request::get_page(REL, block, 1, 1),
        Ask::ReadCopied => Request::get_page(REL, block, 1, COPY),
    }
}

/// The value that answers a request about `block`.
fn value(block: u32) -> u64 {
    u64::from(block ^ 0x5bd1_e995)
}

/// The communicator of a run, in the server's process.
pub struct Server<'r> {
    communicator: Communicator<'r>,
    page: Box<[u8; BLOCK]>,
}

impl<'r> Server<'r> {
    pub fn new(communicator: Communicator<'r>) -> Self {
        Self { communicator, page: Box::new([0; BLOCK]) }
    }

    /// Serves until the next order.
    pub fn serve(&mut self, board: &Shared, order: u64, serve: Serve) {
        let Self { communicator, page } = self;
        if serve == Serve::RingOrPark {
            while !board.is_over(order) {
                let each = |claim: Claim<'_>| answer(claim, page);
                communicator.reap_or_park(DEPTH, State::Copying, Gather::default(), 10_000_000, each);
            }
            return;
        }
        loop {
            let n = communicator.reap(DEPTH, State::Copying, |claim| answer(claim, page));
            if n == 0 && board.is_over(order) {
                return;
            }
        }
    }
}

#[inline]
fn answer(mut claim: Claim<'_>, page: &mut [u8; BLOCK]) {
    let (opcode, block, lsn) = (claim.job().opcode, claim.job().block, claim.job().lsn);
    if opcode == Opcode::GetPage && lsn == COPY {
        let stamp = value(block).to_le_bytes();
        page[..8].copy_from_slice(&stamp);
        page[BLOCK - 8..].copy_from_slice(&stamp);
        let mut copying = claim.copying().expect("nobody cancels");
        copying.deliver(0, &page[..]).expect("block 0 has a buffer");
    }
    claim.complete(Completion::ok(value(block))).expect("nobody cancels");
}

/// A client: a backend and the number of its next request.
pub struct Client<'r> {
    backend: Backend<'r>,
    next: u32,
}

impl<'r> Client<'r> {
    pub fn new(region: &'r Region, first: u32, count: u32) -> Self {
        let mut backend = Backend::attach(region, first, count).expect("a free range of slots");
        assert!(backend.next_leftover(&Wait::for_ms(1000)).expect("nothing to settle").is_none());
        Self { backend, next: 0 }
    }

    #[inline]
    fn fill(&mut self, ask: Ask) -> (SlotRef, u32) {
        let block = self.next;
        self.next = (block + 1) & 0xFFFF;
        let slot = self.backend.free_slot().expect("a free slot");
        (self.backend.fill(slot, &request(ask, block)).expect("a good request"), block)
    }

    /// Checks the answer and gives the slot back.
    #[inline]
    fn take(&mut self, (r, block): (SlotRef, u32), ask: Ask) {
        if ask == Ask::ReadCopied {
            let page = self.backend.page(r, 0).expect("a page");
            let stamp = value(block).to_le_bytes();
            assert!(page[..8] == stamp && page[BLOCK - 8..] == stamp, "wrong page for block {block}");
        }
        let done = self.backend.finish(r).expect("a complete request");
        assert!(done.is_ok() && { done.value } == value(block), "wrong answer for block {block}");
    }

    #[inline]
    fn spin(&self, r: SlotRef) {
        while !self.backend.poll(r).expect("a request in flight") {}
    }

    /// `n` requests, one after the other.
    pub fn one_by_one(&mut self, ask: Ask, n: u64) -> u64 {
        for _ in 0..n {
            let asked = self.fill(ask);
            self.backend.submit(asked.0).expect("a filled slot");
            self.spin(asked.0);
            self.take(asked, ask);
        }
        n
    }

    /// The same with `wait`, which may sleep.
    pub fn one_by_one_waiting(&mut self, n: u64) -> u64 {
        let wait = Wait { until: u64::MAX, interrupt: None };
        for _ in 0..n {
            let asked = self.fill(Ask::Nop);
            self.backend.submit(asked.0).expect("a filled slot");
            self.backend.wait(asked.0, &wait).expect("an answer");
            self.take(asked, Ask::Nop);
        }
        n
    }

    /// About `n` requests with `depth` in flight, taken in order and submitted again in batches of `batch`, a divisor of
    /// `depth`.
    pub fn pipelined(&mut self, ask: Ask, depth: usize, batch: usize, n: u64) -> u64 {
        let mut asked = [(SlotRef { slot: 0, generation: 0 }, 0); DEPTH];
        let mut refs = [SlotRef { slot: 0, generation: 0 }; DEPTH];
        let rounds = (n / depth as u64).max(1);
        for round in 0..=rounds {
            for group in asked[..depth].chunks_exact_mut(batch) {
                for a in group.iter_mut().filter(|_| round > 0) {
                    self.spin(a.0);
                    self.take(*a, ask);
                }
                if round == rounds {
                    continue;
                }
                for (a, r) in group.iter_mut().zip(&mut refs) {
                    *a = self.fill(ask);
                    *r = a.0;
                }
                if batch == 1 {
                    self.backend.submit(refs[0]).expect("a filled slot");
                } else {
                    self.backend.submit_many(&refs[..batch]).expect("filled slots");
                }
            }
        }
        rounds * depth as u64
    }
}

/// Several clients on cpu 0, each with its slots and `depth` in flight; ns a request over all of them.
pub fn several(board: Board, fd: BorrowedFd<'_>, ms: u64) -> f64 {
    board.ready.0.store(0, Relaxed);
    board.go.0.store(0, Relaxed);
    let children: Vec<_> = (0..CLIENTS)
        .map(|i| {
            spawn(move || {
                pin(0);
                let region = region_of(fd);
                let mut client = Client::new(&region, OTHERS + i as u32 * CLIENT_SLOTS, CLIENT_SLOTS);
                board.ready.0.fetch_add(1, Release);
                while board.go.0.load(Acquire) == 0 {
                    // SAFETY: no arguments.
                    unsafe { libc::sched_yield() };
                }
                let start = std::time::Instant::now();
                let mut done = 0;
                timed(ms, || {
                    let n = client.pipelined(Ask::Nop, CLIENT_SLOTS as usize, 1, 256);
                    done += n;
                    n
                });
                board.done[i].0.store(done, Relaxed);
                board.took[i].0.store(start.elapsed().as_nanos() as u64, Relaxed);
            })
        })
        .collect();
    while board.ready.0.load(Acquire) < CLIENTS as u64 {
        // SAFETY: no arguments.
        unsafe { libc::sched_yield() };
    }
    board.go.0.store(1, Release);
    children.into_iter().for_each(join);
    let done: u64 = board.done.iter().map(|l| l.0.load(Relaxed)).sum();
    let took = board.took.iter().map(|l| l.0.load(Relaxed)).max().unwrap_or(0);
    took as f64 / done as f64
}
