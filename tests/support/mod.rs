//! What the tests of regions and locks share: scratch directories, and children that are this test binary run again.
#![allow(dead_code)] // Each test binary uses its own part.

pub mod process;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The longest that a test waits for what must come soon.
pub const SOON: Duration = Duration::from_secs(20);

/// A directory that goes away with the test.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shmuring-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// This test binary once more, to run its ignored test `child_process` as `role` with the argument `arg`.
pub fn child(role: &str, arg: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child_process", "--ignored", "--nocapture", "--test-threads=1"])
        .env("SHMURING_CHILD", role)
        .env("SHMURING_CHILD_ARG", arg)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// The role and argument given to [`child`].
pub fn child_role() -> Option<(String, PathBuf)> {
    Some((std::env::var("SHMURING_CHILD").ok()?, std::env::var_os("SHMURING_CHILD_ARG")?.into()))
}

/// What a child tells its parent: a line with a mark, since the test harness prints too.
pub fn tell(word: &str) {
    println!("<<{word}>>");
}

/// The next word that a child tells.
pub fn hear(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        assert_ne!(from.read_line(&mut line).unwrap(), 0, "the child ended without a word");
        if let Some(word) = line.split_once("<<").and_then(|(_, rest)| rest.split_once(">>")) {
            return word.0.to_owned();
        }
    }
}

/// Runs a child to its end; gives its words. Fails if the child failed.
pub fn run(mut command: Command) -> Vec<String> {
    let out = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}\n{text}\n{}", out.status, String::from_utf8_lossy(&out.stderr));
    text.split("<<").skip(1).filter_map(|s| s.split_once(">>")).map(|(word, _)| word.to_owned()).collect()
}

/// A child that has said "ready" and lives until it is killed or dropped.
pub struct Held(pub Child);

impl Held {
    pub fn start(role: &str, arg: &Path) -> Self {
        let mut child = child(role, arg).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        assert_eq!(hear(&mut out), "ready");
        Self(child)
    }

    pub fn pid(&self) -> libc::pid_t {
        libc::pid_t::try_from(self.0.id()).unwrap()
    }

    pub fn signal(&self, signal: libc::c_int) {
        // SAFETY: a system call without memory; the child is not reaped, so its pid is still its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// Waits until the child is dead and leaves it unreaped.
    pub fn wait_for_zombie(&self) {
        // SAFETY: all zeros is a siginfo_t.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOWAIT;
        // SAFETY: info is writable and outlives the call.
        assert_eq!(unsafe { libc::waitid(libc::P_PID, self.0.id(), &mut info, flags) }, 0);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs `f` in a forked child, which ends with the number that it gives; returns the wait status. `f` makes system
/// calls and touches memory, no more: other threads of the parent may hold the allocator's locks.
pub fn forked(f: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child calls nothing but `f` and _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        let code = f();
        // SAFETY: ends the child at once, without the parent's exit handlers.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: status is writable and outlives the call.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    status
}

/// Asks every millisecond until it is so; false if that takes too long.
pub fn soon(mut f: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < SOON {
        if f() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}
