//! Who has the role or the store: told by the pid that it has here, and replaced if that is asked for.

mod support;

use shmuring_communicator::holder;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use support::{children_of, page, shmuring, soon, Said, Site};

/// Makes a FIFO.
fn make_fifo(path: &std::path::Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_communicator_that_hangs_before_it_has_the_role_is_named_and_can_be_replaced() {
    let site = Site::new();
    let mut serve = site.serve(&[]);
    site.write(0, &page(0, 1), &["--create", "--extend", "--sync"]).good();
    serve.drain();
    // It hangs in the middle of opening the store: in a read from a FIFO that nobody writes to.
    let (synced, aside) = (site.path("store/SYNCED"), site.path("synced"));
    std::fs::rename(&synced, &aside).unwrap();
    make_fifo(&synced);
    let mut hangs = site.spawn(shmuring(), &site.store(), &[]);
    let mut end = None;
    // ENXIO until somebody reads; and with this end open, whoever reads waits.
    let has_reader = || {
        end = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&synced).ok();
        end.is_some()
    };
    assert!(soon(has_reader), "{}", hangs.log());
    let marker = site.path("store/SHMURING_STORE").metadata().unwrap();
    assert_eq!(holder::of_file(&marker), Some(hangs.pid()));
    std::fs::rename(&aside, &synced).unwrap();
    let pid = format!("pid {}", hangs.pid());
    site.refused(&site.store()).failed_as(5, &["in use by another process", &pid, "--replace"]);
    assert!(hangs.is_running());
    let mut next = site.serve(&["--replace"]);
    assert!(next.log().contains("did not have the role yet"), "{}", next.log());
    assert_eq!(hangs.ended().signal(), Some(libc::SIGKILL));
    site.check(0..1, 1);
    next.drain();
}

#[test]
fn the_communicator_of_another_region_is_not_replaced_for_its_store() {
    let (first, second) = (Site::new(), Site::new());
    let mut serve = first.serve(&[]);
    let pid = format!("pid {}", serve.pid());
    let said = second.run("serve", &["--slots", "64", "--service", &first.store(), "--replace"]);
    said.failed_as(5, &["in use by another process", &pid]);
    assert!(serve.is_running());
    serve.drain();
}

/// The command in a pid namespace of its own, which ends with the program that this starts.
fn in_a_pid_namespace() -> Command {
    let mut command = Command::new("unshare");
    // Who is not root becomes it, in a user namespace.
    // SAFETY: a system call without arguments.
    let user = if unsafe { libc::geteuid() } == 0 { &[][..] } else { &["-r"] };
    command.args(user).args(["-p", "--mount-proc", "--kill-child", env!("CARGO_BIN_EXE_shmuring")]);
    command
}

#[test]
fn a_holder_in_another_pid_namespace_is_told_by_its_pid_here() {
    let site = Site::new();
    let mut outer = site.spawn(in_a_pid_namespace(), &site.store(), &[]);
    outer.wait_until_serving();
    assert!(outer.log().contains("pid=1"), "it does not know its pid here: {}", outer.log());
    let pid = children_of(outer.pid(), "serve")[0];
    site.refused(&site.store()).failed_as(5, &[&format!("pid {pid}"), "--replace"]);
    assert_eq!(site.stat()["communicator"]["pid"], pid);
    let mut next = site.serve(&["--replace"]);
    assert!(next.log().contains(&format!("pid={pid}")), "{}", next.log());
    next.drain();
}

#[test]
fn a_holder_that_cannot_be_seen_is_told_as_that_and_left_alone() {
    let site = Site::new();
    let mut serve = site.serve(&[]);
    let inside = |args: &[&str]| {
        let region = site.region().display().to_string();
        Said::of(in_a_pid_namespace().args([args[0], "--region", &region]).args(&args[1..]).output().unwrap())
    };
    inside(&["serve", "--service", &site.store()]).failed_as(5, &["another communicator", "another pid namespace"]);
    let said = inside(&["serve", "--service", &site.store(), "--replace"]);
    said.failed_as(5, &["cannot replace", "another pid namespace"]);
    let text = inside(&["stat"]).good();
    assert!(text.contains("pid unknown") && text.contains("another pid namespace"), "{text}");
    assert!(serve.is_running());
    serve.drain();
}
