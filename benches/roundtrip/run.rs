//! One run: the processes, the rounds, the report.

use super::floors;
use super::peer::{self, Pipe};
use super::report::{Floors, Limits, Report, Sample};
use super::ring::{self, Ask, Client, Server};
use super::shared::{join, pin, spawn, timed, Board, Serve, DEPTH};
use super::syscalls;
use shmuring::communicator::Communicator;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Requests between two looks at the clock.
const CHUNK: u64 = 1024;

struct Options {
    samples: usize,
    ms: u64,
    limits: Limits,
    assert: bool,
    only: Option<String>,
}

fn options() -> Options {
    let limits = Limits { one_core: 80.0, slow_line: 150.0, far_cores: 400.0 };
    let mut o = Options { samples: 31, ms: 20, limits, assert: false, only: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || args.next().and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{arg} needs a number"));
        match arg.as_str() {
            "--samples" => o.samples = number() as usize,
            "--ms" => o.ms = number() as u64,
            "--one-core-ns" => o.limits.one_core = number(),
            "--slow-line-ns" => o.limits.slow_line = number(),
            "--far-cores-ns" => o.limits.far_cores = number(),
            "--assert" => o.assert = true,
            "--only" => o.only = args.next(),
            // cargo's own.
            "--bench" => {}
            other => {
                panic!("unknown option {other}: --samples N, --ms N, --one-core-ns N, --slow-line-ns N, --far-cores-ns N, --only PART, --assert")
            }
        }
    }
    o
}

/// The server: takes the role, and serves what it is told until it shall exit.
pub fn server(board: Board, fd: BorrowedFd<'_>, pipe: Pipe) {
    pin(1);
    let region = ring::region_of(fd);
    let parts = region.parts();
    let (communicator, inheritance) = Communicator::take_role(&region, &parts).expect("the role is free");
    assert!(inheritance.mutations.is_empty() && inheritance.reads.is_empty());
    let mut ring = Server::new(communicator);
    loop {
        let (order, serve) = board.next_order();
        match serve {
            Serve::Nothing => {}
            Serve::Exit => return,
            Serve::Ring | Serve::RingOrPark => ring.serve(&board, order, serve),
            Serve::Pipe | Serve::PipeSpin => peer::serve(&board, order, serve, pipe),
            floor => floors::serve(&board, order, floor),
        }
    }
}

/// What a workload needs.
struct Bench<'r> {
    board: Board,
    fd: BorrowedFd<'r>,
    pipe: Pipe,
    client: Client<'r>,
    ms: u64,
}

/// Measures one sample, ns a request.
type Workload = fn(&mut Bench<'_>) -> f64;

impl Bench<'_> {
    fn floors(&self) -> Floors {
        Floors { one: floors::one_line(&self.board), two: floors::two_line(&self.board) }
    }

    fn one_by_one(&mut self, ask: Ask) -> f64 {
        self.board.order(Serve::Ring, || {});
        timed(self.ms, || self.client.one_by_one(ask, CHUNK))
    }

    fn pipelined(&mut self, ask: Ask, batch: usize) -> f64 {
        self.board.order(Serve::Ring, || {});
        timed(self.ms, || self.client.pipelined(ask, DEPTH, batch, CHUNK * 4))
    }

    fn waiting(&mut self) -> f64 {
        self.board.order(Serve::RingOrPark, || {});
        timed(self.ms, || self.client.one_by_one_waiting(CHUNK))
    }

    fn several(&mut self) -> f64 {
        self.board.order(Serve::Ring, || {});
        ring::several(self.board, self.fd, self.ms)
    }

    fn peer(&mut self, serve: Serve, depth: usize) -> f64 {
        self.board.order(serve, || {});
        let sleeps = serve == Serve::Pipe;
        let ns = timed(self.ms, || peer::requests(&self.board, self.pipe, depth, sleeps, depth as u64 * 64));
        self.board.order(Serve::Nothing, || self.pipe.nudge());
        ns
    }
}

/// Every workload. The first two names carry the bars.
const WORKLOADS: [(&str, Workload); 16] = [
    ("one_in_flight", |b| b.one_by_one(Ask::Nop)),
    ("in_flight_32", |b| b.pipelined(Ask::Nop, 1)),
    ("in_flight_32_batch_8", |b| b.pipelined(Ask::Nop, 8)),
    ("in_flight_32_batch_32", |b| b.pipelined(Ask::Nop, 32)),
    ("clients_4_x_8", |b| b.several()),
    ("one_in_flight_wait_park", |b| b.waiting()),
    ("read_one_in_flight", |b| b.one_by_one(Ask::Read)),
    ("read_copied_one_in_flight", |b| b.one_by_one(Ask::ReadCopied)),
    ("read_copied_32", |b| b.pipelined(Ask::ReadCopied, 1)),
    ("floor_mailbox_one_line_32", |b| floors::mailbox(&b.board, Serve::OneLineMailbox)),
    ("floor_mailbox_two_line_32", |b| floors::mailbox(&b.board, Serve::TwoLineMailbox)),
    ("floor_queue_one_in_flight", |b| floors::queue(&b.board, 1)),
    ("floor_queue_32", |b| floors::queue(&b.board, DEPTH)),
    ("pipe_spin_one_in_flight", |b| b.peer(Serve::PipeSpin, 1)),
    ("pipe_futex_one_in_flight", |b| b.peer(Serve::Pipe, 1)),
    ("pipe_futex_32", |b| b.peer(Serve::Pipe, DEPTH)),
];

fn sample(o: &Options, chosen: &[(&'static str, Workload)]) -> (Vec<Sample>, bool) {
    let region = ring::region();
    let fd = region.fd().expect("a memfd has a descriptor");
    let (board, pipe) = (Board::new(), Pipe::new());
    let pinned = pin(0);
    let server = spawn(|| server(board, fd, pipe));
    let mut bench = Bench { board, fd, pipe, client: Client::new(&region, 0, DEPTH as u32), ms: o.ms };
    let mut samples = Vec::new();
    let mut before = bench.floors();
    // Round 0 warms up.
    for round in 0..=o.samples {
        for (workload, run) in chosen {
            let ns = run(&mut bench);
            let after = bench.floors();
            if round > 0 {
                samples.push(Sample { workload, ns, before, after });
            }
            before = after;
        }
    }
    board.order(Serve::Exit, || {});
    join(server);
    (samples, pinned)
}

/// The whole benchmark.
pub fn main() {
    let o = options();
    let chosen: Vec<_> =
        WORKLOADS.into_iter().filter(|(name, _)| o.only.as_ref().is_none_or(|only| name.contains(only))).collect();
    let syscalls = syscalls::count();
    let (samples, pinned) = sample(&o, &chosen);
    let workloads = chosen.iter().map(|(name, _)| *name).collect();
    let report = Report { samples, workloads, syscalls, limits: o.limits, pinned, ms: o.ms };
    report.print();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&directory).expect("target/bench can be made");
    let text = serde_json::to_string_pretty(&report.json()).expect("plain values");
    std::fs::write(directory.join("roundtrip.json"), text).expect("target/bench can be written");
    println!("written to target/bench/roundtrip.json");
    if o.assert && !report.is_met() {
        std::process::exit(1);
    }
}
