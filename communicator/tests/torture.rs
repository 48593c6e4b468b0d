//! `shmuring torture`: it passes where nothing is wrong, and fails, with what it saw, where something is.

mod support;

use shmuring::region::Region;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::{children_of, kill, pause, shmuring, soon, Said, PAGE};

/// A torture under way.
struct Torture(Child);

impl Torture {
    fn start(args: &[&str]) -> Self {
        let mut command: Command = shmuring();
        Self(command.arg("torture").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    fn path(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("/dev/shm/shmuring-torture-{}{suffix}", self.0.id()))
    }

    #[track_caller]
    fn wait_for_backends(&self) {
        assert!(soon(|| !children_of(self.0.id(), "torture-backend").is_empty()), "the backends do not come");
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// How it ended; it must have left nothing in shared memory.
    #[track_caller]
    fn end(self) -> Said {
        let (region, pool) = (self.path(""), self.path("-pool"));
        let said = Said::of(self.0.wait_with_output().unwrap());
        assert!(!region.exists() && !pool.exists(), "left behind; {said:?}");
        said
    }
}

/// It failed, and said all this; what it left is removed.
#[track_caller]
fn failed(said: &Said, words: &[&str]) {
    let all = format!("{}{}", said.out, said.err);
    assert_eq!(said.code, Some(1), "{all}");
    for word in words {
        assert!(all.contains(word), "no '{word}' in {all}");
    }
    let kept = said.err.rsplit("logs and store are in ").next().map(str::trim).unwrap_or_default();
    assert!(kept.contains("shmuring-torture-") && PathBuf::from(kept).join("round-1").exists(), "{all}");
    std::fs::remove_dir_all(kept).unwrap();
}

#[test]
fn kills_and_stops_of_both_sides_lose_nothing() {
    let args = ["--backends", "4", "--kills", "40", "--communicator-kills", "5", "--round", "25", "--seed", "7"];
    let out = Torture::start(&args).end().good();
    assert!(out.contains("seed 7:") && out.contains("round 2: 40 backends and 5 communicators killed"), "{out}");
    assert!(out.contains("good: ") && !out.contains(" 0 canaries") && !out.contains(" 0 leftovers"), "{out}");
}

#[test]
fn bytes_that_are_scribbled_into_bounce_buffers_are_found() {
    let mut torture = Torture::start(&["--backends", "2", "--kills", "10", "--rate", "5", "--communicator-kills", "0"]);
    torture.wait_for_backends();
    let region = Region::attach(&torture.path("")).unwrap();
    for _ in 0..200 {
        support::scribble(&region);
        if !torture.is_running() {
            break;
        }
        pause(5);
    }
    failed(&torture.end(), &["the logs show faults", "(a)"]);
}

#[test]
fn bytes_that_are_scribbled_into_registered_buffers_are_found() {
    let mut torture = Torture::start(&["--backends", "2", "--kills", "10", "--rate", "5", "--communicator-kills", "0"]);
    torture.wait_for_backends();
    let pool = File::options().write(true).open(torture.path("-pool")).unwrap();
    let blocks = pool.metadata().unwrap().len() / PAGE as u64;
    for round in 0..400 {
        for block in 0..blocks {
            pool.write_all_at(&[round as u8], block * PAGE as u64 + 4000).unwrap();
        }
        if !torture.is_running() {
            break;
        }
        pause(2);
    }
    failed(&torture.end(), &["the logs show faults", "(e)", "changed after its cancel"]);
}

#[test]
fn a_communicator_that_does_nothing_ends_it_with_the_state_of_every_slot() {
    let torture =
        Torture::start(&["--backends", "2", "--kills", "100", "--rate", "1", "--patience", "2", "--seed", "1"]);
    torture.wait_for_backends();
    let stop = || children_of(torture.0.id(), "serve").iter().for_each(|pid| kill(*pid, libc::SIGSTOP));
    // Whatever the schedule does to it.
    let stopping = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while stopping.load(std::sync::atomic::Ordering::Relaxed) {
                stop();
                pause(20);
            }
        });
        let gone = soon(|| children_of(torture.0.id(), "torture-backend").is_empty());
        stopping.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(gone, "it goes on without a communicator");
    });
    failed(&torture.end(), &["slot ", "generation", "communicator ", "slots are idle", "failed with seed 1"]);
}
