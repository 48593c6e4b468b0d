//! Helpers of the tests that run the command.
#![allow(dead_code)] // Each test binary uses its own part.

use serde_json::Value;
use shmuring::region::Region;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

/// Bytes of a page.
pub const PAGE: usize = 8192;

/// The longest that a test waits for what must come soon.
const SOON: Duration = Duration::from_secs(30);

/// The command `shmuring`.
pub fn shmuring() -> Command {
    Command::new(env!("CARGO_BIN_EXE_shmuring"))
}

/// The same in a mount namespace of its own, where `dir`, which is made, is a file system of 48 MiB. What it writes first
/// fails if it may not mount one: that takes root, or user namespaces.
pub fn shmuring_on_a_small_disk(dir: &Path) -> Command {
    std::fs::create_dir(dir).unwrap();
    let mut command = Command::new("unshare");
    // Who is not root becomes it, in a user namespace.
    // SAFETY: a system call without arguments.
    command.arg(if unsafe { libc::geteuid() } == 0 { "-m" } else { "-rm" });
    command.args(["sh", "-c", "mount -t tmpfs -o size=48m none \"$0\" && exec \"$@\""]);
    command.arg(dir).arg(env!("CARGO_BIN_EXE_shmuring"));
    command
}

/// A directory as a process with mounts of its own sees it.
pub fn as_seen_by(pid: u32, dir: &Path) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root{}", dir.display()))
}

pub fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

/// Asks every few milliseconds until it is so; false if that takes too long.
pub fn soon(mut f: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < SOON {
        if f() {
            return true;
        }
        pause(3);
    }
    false
}

/// Sends a signal to a process of this test.
pub fn kill(pid: u32, signal: i32) {
    // SAFETY: a signal to a descendant of this test.
    unsafe { libc::kill(pid as i32, signal) };
}

/// The living children of a process whose command line has `word`.
pub fn children_of(parent: u32, word: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if status(pid).is_some_and(|(state, ppid)| state != 'Z' && ppid == parent)
            && line.split('\0').any(|w| w == word)
        {
            found.push(pid);
        }
    }
    found
}

/// State letter and parent of a process.
fn status(pid: u32) -> Option<(char, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // pid (name) state ppid ...
    let mut rest = stat.rsplit(')').next()?.split_whitespace();
    Some((rest.next()?.chars().next()?, rest.next()?.parse().ok()?))
}

/// Whether there is such a process, and it is no zombie.
pub fn is_alive(pid: u32) -> bool {
    status(pid).is_some_and(|(state, _)| state != 'Z')
}

/// Stops a process, and waits until it has stopped.
pub fn stop(pid: u32) {
    kill(pid, libc::SIGSTOP);
    assert!(soon(|| status(pid).is_some_and(|(state, _)| state == 'T')), "{pid} does not stop");
}

/// A page that tells its block and version, and does not compress.
pub fn page(block: u32, version: u32) -> Vec<u8> {
    let mut x = u64::from(block) << 32 | u64::from(version) | 1 << 63;
    let mut page = Vec::with_capacity(PAGE);
    while page.len() < PAGE {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        page.extend_from_slice(&(x ^ (x >> 29)).to_le_bytes());
    }
    page
}

/// Pages of consecutive blocks.
pub fn pages(blocks: std::ops::Range<u32>, version: u32) -> Vec<u8> {
    blocks.flat_map(|b| page(b, version)).collect()
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Said {
    pub fn of(o: Output) -> Self {
        let text = |b: Vec<u8>| String::from_utf8_lossy(&b).into_owned();
        Self { code: o.status.code(), out: text(o.stdout), err: text(o.stderr) }
    }

    /// It succeeded; gives stdout.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// It failed with exit code 1, and one line on stderr that has every word.
    #[track_caller]
    pub fn failed(&self, words: &[&str]) {
        self.failed_as(1, words);
    }

    /// The same with this exit code.
    #[track_caller]
    pub fn failed_as(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let last = self.err.lines().last().unwrap_or("");
        assert!(last.starts_with("shmuring: "), "{self:?}");
        for word in words {
            assert!(last.contains(word), "no '{word}' in {self:?}");
        }
    }
}

/// Runs `shmuring` to its end; one that hangs is killed, which no caller expects.
pub fn run(args: &[&str]) -> Said {
    Said::of(limited().args(args).stdin(Stdio::null()).output().unwrap())
}

fn limited() -> Command {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60", env!("CARGO_BIN_EXE_shmuring")]);
    command
}

/// A directory in memory with a region and a store.
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("shmuring-test-").tempdir_in("/dev/shm").unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn region(&self) -> PathBuf {
        self.path("region")
    }

    /// The service argument of the store.
    pub fn store(&self) -> String {
        format!("store:{}", self.path("store").display())
    }

    /// A command on the region of the site.
    pub fn run(&self, command: &str, args: &[&str]) -> Said {
        let region = self.region().display().to_string();
        run(&[&[command, "--region", &region], args].concat())
    }

    /// Writes pages through the communicator.
    pub fn write(&self, block: u32, bytes: &[u8], args: &[&str]) -> Said {
        let name = format!("in-{:?}", std::thread::current().id());
        let file = self.path(&name);
        std::fs::write(&file, bytes).unwrap();
        let (file, block) = (file.display().to_string(), block.to_string());
        self.run("write", &[&["--rel", REL, "--block", &block, "--in", &file], args].concat())
    }

    /// Reads pages through the communicator: the raw bytes.
    #[track_caller]
    pub fn read(&self, block: u32, count: u32, args: &[&str]) -> Vec<u8> {
        let file = self.path(&format!("out-{:?}", std::thread::current().id()));
        let (out, block, count) = (file.display().to_string(), block.to_string(), count.to_string());
        let args = [&["--rel", REL, "--block", &block, "--count", &count, "--out", &out], args].concat();
        self.run("read", &args).good();
        std::fs::read(&file).unwrap()
    }

    /// Every block must hold this version.
    #[track_caller]
    pub fn check(&self, blocks: std::ops::Range<u32>, version: u32) {
        for first in blocks.clone().step_by(32) {
            let count = (blocks.end - first).min(32);
            let found = self.read(first, count, &[]);
            for (b, found) in (first..).zip(found.chunks(PAGE)) {
                assert!(found == page(b, version), "block {b} is not what was written");
            }
        }
    }

    pub fn stat(&self) -> Value {
        let text = self.run("stat", &["--json"]).good();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    /// A communicator on the store of the site, which serves when this returns.
    pub fn serve(&self, args: &[&str]) -> Serve {
        self.serve_with(&self.store(), args)
    }

    /// A communicator on this service.
    #[track_caller]
    pub fn serve_with(&self, service: &str, args: &[&str]) -> Serve {
        let mut serve = self.spawn(shmuring(), service, args);
        serve.wait_until_serving();
        serve
    }

    /// The command followed by `serve` on the region of the site.
    pub fn spawn(&self, mut command: Command, service: &str, args: &[&str]) -> Serve {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let log = self.path(&format!("serve-{n}.log"));
        command
            .arg("serve")
            .arg("--region")
            .arg(self.region())
            .args(["--slots", "64", "--service", service])
            .args(args);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Serve { child: command.spawn().unwrap(), log }
    }

    /// `serve` that must not come to serve.
    pub fn refused(&self, service: &str) -> Said {
        self.run("serve", &["--slots", "64", "--service", service])
    }
}

/// The relation of the tests.
pub const REL: &str = "1663/5/16384";

/// A communicator; killed when dropped.
pub struct Serve {
    child: Child,
    log: PathBuf,
}

impl Serve {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[track_caller]
    pub fn wait_until_serving(&mut self) {
        let serving = soon(|| self.log().contains("serving") || self.child.try_wait().unwrap().is_some());
        assert!(serving && self.log().contains("serving"), "{}", self.log());
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn signal(&self, signal: i32) {
        kill(self.pid(), signal);
    }

    pub fn stop(&self) {
        stop(self.pid());
    }

    /// How it ends, soon.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        assert!(soon(|| self.child.try_wait().unwrap().is_some()), "it does not end: {}", self.log());
        self.child.wait().unwrap()
    }

    /// SIGTERM: it must drain and exit 0.
    #[track_caller]
    pub fn drain(&mut self) {
        self.signal(libc::SIGTERM);
        assert_eq!(self.ended().code(), Some(0), "{}", self.log());
    }

    pub fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A demo under way.
pub struct Demo {
    child: Child,
}

impl Demo {
    /// Starts `shmuring demo --json` with these arguments.
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(&[&["--json"], args].concat())
    }

    /// Starts `shmuring demo` with these arguments.
    pub fn spawn(args: &[&str]) -> Self {
        let mut command = shmuring();
        command.arg("demo").args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self { child: command.spawn().unwrap() }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the region of this demo is.
    pub fn region_path(&self) -> PathBuf {
        PathBuf::from(format!("/dev/shm/shmuring-demo-{}", self.pid()))
    }

    /// The region of this demo.
    pub fn region(&self) -> Region {
        Region::attach(&self.region_path()).unwrap()
    }

    /// Waits until so many backends work.
    #[track_caller]
    pub fn wait_for_backends(&self, n: usize) {
        assert!(soon(|| self.backends().len() >= n), "the backends do not come");
    }

    pub fn backends(&self) -> Vec<u32> {
        children_of(self.pid(), "demo-backend")
    }

    /// The communicator, once there is one.
    pub fn communicators(&self) -> Vec<u32> {
        children_of(self.pid(), "serve")
    }

    /// Waits for the end, whatever it is.
    pub fn end(self) -> Said {
        Said::of(self.child.wait_with_output().unwrap())
    }

    /// Waits for the end, which must have this exit code, and gives the report.
    #[track_caller]
    pub fn finish(self, code: i32) -> Value {
        let region = self.region_path();
        let said = self.end();
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(!region.exists(), "{} was left behind", region.display());
        serde_json::from_str(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}"))
    }
}

/// Flips a byte in every bounce buffer of a region, without regard to whose it is.
pub fn scribble(region: &Region) {
    let parts = region.parts();
    let pool = parts.pools.get(0).unwrap();
    for i in 0..pool.count() {
        // SAFETY: in bounds; that nobody may write here now is the point.
        unsafe { pool.at(i).unwrap().add(4000).write_volatile(0xA5) };
    }
}

/// Flips a bit of a file.
pub fn flip(path: &Path, at: u64) {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, at).unwrap();
}
