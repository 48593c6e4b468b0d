//! `shmuring watch`: a communicator that is started again when it dies, until somebody has had enough.

mod support;

use std::process::{Child, Stdio};
use support::{children_of, kill, page, shmuring, soon, Site};

struct Watch<'s> {
    site: &'s Site,
    child: Child,
}

impl<'s> Watch<'s> {
    fn start(site: &'s Site, stdin: Stdio) -> Self {
        let (region, service) = (site.region().display().to_string(), site.store());
        let args = ["watch", "--region", &region, "--service", &service];
        let child = shmuring().args(args).stdin(stdin).stderr(Stdio::null()).spawn().unwrap();
        Self { site, child }
    }

    /// The communicator that it has started and that serves, another than this one.
    fn serving(&self, besides: u32) -> u32 {
        let mut pid = 0;
        // One that finds the lock of the last still held ends, and another is started.
        assert!(soon(|| {
            pid = children_of(self.child.id(), "serve").first().copied().unwrap_or(0);
            if pid == 0 || pid == besides || !self.site.region().exists() {
                return false;
            }
            let communicator = &self.site.stat()["communicator"];
            communicator["alive"] == true && communicator["pid"] == pid
        }));
        pid
    }

    /// It has ended with 0, and the communicator with it.
    fn has_ended(mut self, communicator: u32) {
        assert!(soon(|| self.child.try_wait().unwrap().is_some()), "it goes on");
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(!support::is_alive(communicator));
    }
}

#[test]
fn a_communicator_is_started_again_whatever_stdin_is_and_sigterm_ends_both() {
    let site = Site::new();
    let watch = Watch::start(&site, Stdio::null());
    let first = watch.serving(0);
    site.write(0, &page(0, 1), &["--create", "--extend"]).good();
    kill(first, libc::SIGKILL);
    let second = watch.serving(first);
    assert_eq!(site.read(0, 1, &[]), page(0, 1));
    kill(watch.child.id(), libc::SIGTERM);
    watch.has_ended(second);
}

#[test]
fn it_ends_with_the_pipe_that_is_its_stdin() {
    let site = Site::new();
    let mut watch = Watch::start(&site, Stdio::piped());
    let communicator = watch.serving(0);
    drop(watch.child.stdin.take());
    watch.has_ended(communicator);
}
