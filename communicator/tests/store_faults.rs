//! The store under kill -9, damage to its files, a full disk, and a second process.
//!
//! What must happen in another process runs in this test binary again, as the ignored test `child`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use shmuring::request::RelTag;
use shmuring_communicator::service::store::{Store, StoreOptions};
use shmuring_communicator::service::{Mutation, MutationRequest, ReadLsn, ServiceError, PAGE_SIZE};

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

/// Small, so that files are made and merged all the time.
fn options() -> StoreOptions {
    StoreOptions { cache_bytes: 1 << 20, memtable_bytes: 1 << 20, worker_threads: 2 }
}

fn open(path: &Path) -> Result<Store, ServiceError> {
    Store::open(path, options())
}

/// The page of block `n`: not compressible, and telling its number.
fn page(n: u32) -> Vec<u8> {
    let mut x = u64::from(n) + 1;
    let mut p = Vec::with_capacity(PAGE_SIZE);
    while p.len() < PAGE_SIZE {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        p.extend_from_slice(&(x ^ (x >> 29)).to_le_bytes());
    }
    p
}

/// Extends by blocks `from..from + 4` in one group.
fn extend(s: &Store, from: u32) -> Result<(), ServiceError> {
    let group: Vec<_> = (from..from + 4)
        .map(|block| Mutation::Extend { rel: REL, block, lsn: u64::from(block) + 10, page: page(block) })
        .map(MutationRequest::again)
        .collect();
    s.apply_group(0, 0, &group).into_iter().collect::<Result<Vec<_>, _>>().map(|_| ())
}

fn create(s: &Store) -> Result<(), ServiceError> {
    let create = MutationRequest::again(Mutation::Create { rel: REL, lsn: 1 });
    s.apply_group(0, 0, &[create]).remove(0).map(|_| ())
}

fn check(s: &Store, blocks: std::ops::Range<u32>) -> Result<(), ServiceError> {
    let mut out = vec![0; PAGE_SIZE];
    for b in blocks {
        s.read_pages(REL, b, 1, ReadLsn::LATEST, &mut out)?;
        assert!(out == page(b), "block {b} is wrong");
    }
    Ok(())
}

fn child_command(role: &str, dir: &Path) -> Command {
    let mut c = Command::new(std::env::current_exe().unwrap());
    c.args(["--exact", "child", "--ignored", "--nocapture"]).env("STORE_ROLE", role).env("STORE_DIR", dir);
    c.stdout(Stdio::piped());
    c
}

#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn child() {
    let (Ok(role), Some(dir)) = (std::env::var("STORE_ROLE"), std::env::var_os("STORE_DIR")) else { return };
    match role.as_str() {
        "writer" => write_for_ever(Path::new(&dir)),
        "full" => fill_the_disk(Path::new(&dir)),
        _ => panic!("unknown role {role}"),
    }
}

/// Tells each group that was acknowledged; ends by kill -9, or by itself after a while.
fn write_for_ever(dir: &Path) {
    let s = open(dir).unwrap();
    create(&s).unwrap();
    let start = s.size_of(REL, ReadLsn::LATEST).unwrap().unwrap();
    for from in (start..).step_by(4).take(100_000) {
        extend(&s, from).unwrap();
        println!("\nacked {}", from + 4);
    }
}

/// Reads what the child acknowledges: `wait` says when it was enough.
fn acked(out: &mut impl BufRead, enough: impl Fn(u32) -> bool) -> u32 {
    let (mut last, mut line) = (0, String::new());
    while !enough(last) && out.read_line(&mut line).unwrap() > 0 {
        last = line.strip_prefix("acked ").and_then(|n| n.trim().parse().ok()).unwrap_or(last);
        line.clear();
    }
    last
}

fn kill(mut c: Child) {
    // Child::kill is SIGKILL.
    c.kill().unwrap();
    c.wait().unwrap();
}

#[test]
fn acknowledged_groups_survive_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 1..=6u32 {
        let mut c = child_command("writer", dir.path()).spawn().unwrap();
        let mut out = BufReader::new(c.stdout.take().unwrap());
        let target = last + 160 * round;
        acked(&mut out, |n| n >= target);
        if round == 1 {
            let e = open(dir.path()).map(|_| ()).unwrap_err();
            assert_eq!(e.errno, libc::EBUSY, "{e}");
        }
        kill(c);
        let rest = acked(&mut out, |_| false);
        last = last.max(rest).max(target);
        let s = open(dir.path()).unwrap();
        let n = s.size_of(REL, ReadLsn::LATEST).unwrap().unwrap();
        assert!(n >= last && n.is_multiple_of(4), "{n} blocks of {last}: a group is whole or not there");
        check(&s, 0..n).unwrap();
        last = n;
    }
}

/// A file of a store: its path in it, its bytes up to the last that is not 0 (journals are made longer than what is
/// written to them), and its length.
struct StoredFile {
    name: PathBuf,
    used: Vec<u8>,
    len: u64,
}

fn load(root: &Path, dir: &Path, found: &mut Vec<StoredFile>) {
    for e in fs::read_dir(dir).unwrap() {
        let path = e.unwrap().path();
        if path.is_dir() {
            load(root, &path, found);
            continue;
        }
        let mut used = fs::read(&path).unwrap();
        let len = used.len() as u64;
        used.truncate(used.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1));
        found.push(StoredFile { name: path.strip_prefix(root).unwrap().to_owned(), used, len });
    }
}

fn save(f: &StoredFile, root: &Path, used: &[u8], len: u64) {
    let path = root.join(&f.name);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap()).unwrap();
    fs::write(&path, used).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
}

/// Opens a damaged copy and reads all of it: each answer is right, or a named error.
fn survey(dir: &Path, what: &str) -> Option<i32> {
    let named = |e: ServiceError| {
        let known = [libc::EUCLEAN, libc::EPROTONOSUPPORT, libc::ENOTEMPTY];
        assert!(known.contains(&e.errno), "{what}: {e}");
        e.errno
    };
    let s = match open(dir) {
        Ok(s) => s,
        Err(e) => return Some(named(e)),
    };
    let mut worst = None;
    match s.size_of(REL, ReadLsn::LATEST) {
        Ok(n) => assert_eq!(n, Some(400), "{what}"),
        Err(e) => worst = Some(named(e)),
    }
    for b in 0..400 {
        if let Err(e) = check(&s, b..b + 1) {
            worst = Some(named(e));
        }
    }
    worst
}

#[test]
fn damaged_files_are_named_errors_and_never_wrong_pages() {
    let dir = tempfile::tempdir().unwrap();
    let good = dir.path().join("good");
    {
        let s = open(&good).unwrap();
        create(&s).unwrap();
        (0..400).step_by(4).for_each(|b| extend(&s, b).unwrap());
        s.sync().unwrap();
    }
    assert_eq!(survey(&good, "undamaged"), None);
    let mut all = Vec::new();
    load(&good, &good, &mut all);
    let (mut tried, mut refused) = (0, 0);
    for file in all.iter().filter(|f| !f.used.is_empty()) {
        let n = file.used.len();
        let mut damages: Vec<(String, Vec<u8>, Option<u64>)> = vec![("removed".into(), Vec::new(), None)];
        for at in [0, n / 7, n / 3, n / 2, n - n / 4 - 1, n.saturating_sub(9), n - 1] {
            let mut b = file.used.clone();
            b[at] ^= 0x41;
            damages.push((format!("byte {at} of {n} flipped"), b, Some(file.len)));
        }
        for len in [0, n / 3, n - 1] {
            damages.push((format!("cut to {len} of {n}"), file.used[..len].to_vec(), Some(len as u64)));
        }
        for (how, used, len) in damages {
            let bad = dir.path().join("bad");
            let _ = fs::remove_dir_all(&bad);
            all.iter().for_each(|f| save(f, &bad, &f.used, f.len));
            match len {
                Some(len) => save(file, &bad, &used, len),
                None => fs::remove_file(bad.join(&file.name)).unwrap(),
            }
            tried += 1;
            refused += u32::from(survey(&bad, &format!("{} {how}", file.name.display())).is_some());
        }
    }
    println!("{refused} of {tried} damages to {} files were refused", all.len());
    assert!(refused * 2 > tried);
}

#[test]
fn foreign_directories_and_other_formats_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let errno = |p: &Path| open(p).map(|_| ()).map_err(|e| e.errno);
    fs::write(dir.path().join("letter.txt"), "hello").unwrap();
    assert_eq!(errno(dir.path()), Err(libc::ENOTEMPTY));
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    assert_ne!(open(&a).unwrap().id(), open(&b).unwrap().id());
    let marker = fs::read_to_string(a.join("SHMURING_STORE")).unwrap();
    fs::write(a.join("SHMURING_STORE"), marker.replace("format 1", "format 2")).unwrap();
    assert_eq!(errno(&a), Err(libc::EPROTONOSUPPORT));
    // The marker of one store over the files of another.
    fs::copy(b.join("SHMURING_STORE"), a.join("SHMURING_STORE")).unwrap();
    assert_eq!(errno(&a), Err(libc::EUCLEAN));
    for bad in ["", "shmuring store\n", "shmuring store\nformat 1\nid 12\n"] {
        fs::write(b.join("SHMURING_STORE"), bad).unwrap();
        assert_eq!(errno(&b), Err(libc::EUCLEAN));
    }
    assert_eq!(errno(&dir.path().join("letter.txt")), Err(libc::EEXIST));
}

/// Runs in a mount namespace of its own, with a file system of 48 MiB at `dir`.
fn fill_the_disk(dir: &Path) {
    let ballast = dir.join("ballast");
    fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    let s = open(&dir.join("store")).unwrap();
    create(&s).unwrap();
    let (mut next, mut full) = (0, 0);
    // A second failure and a third: it stays usable while it is full.
    while full < 3 && next < 40_000 {
        match extend(&s, next) {
            Ok(()) => next += 4,
            Err(e) => {
                assert_eq!(e.errno, libc::ENOSPC, "{e}");
                full += 1;
                std::thread::sleep(Duration::from_millis(1200));
            }
        }
    }
    assert_eq!(full, 3);
    check(&s, 0..next).unwrap();
    fs::remove_file(ballast).unwrap();
    let (freed, until) = (Instant::now(), next + 400);
    while next < until {
        match extend(&s, next) {
            Ok(()) => next += 4,
            Err(e) => {
                assert!(freed.elapsed() < Duration::from_secs(20), "{e}");
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
    check(&s, 0..next).unwrap();
    drop(s);
    check(&open(&dir.join("store")).unwrap(), 0..next).unwrap();
    println!("\nfull disk survived");
}

#[test]
fn a_full_disk_is_named_and_left_behind_when_space_is_freed() {
    let dir = tempfile::tempdir().unwrap();
    let exe = std::env::current_exe().unwrap();
    let script = "mount -t tmpfs -o size=48m none \"$STORE_DIR\" || { echo cannot mount; exit 0; }; \
                  exec \"$0\" --exact child --ignored --nocapture";
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(exe)
        .env("STORE_ROLE", "full")
        .env("STORE_DIR", dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    if text.contains("cannot mount") || text.contains("unshare failed") {
        println!("skipped: needs the right to mount a tmpfs: {text}");
        return;
    }
    assert!(out.status.success() && text.contains("full disk survived"), "{text}");
}

#[test]
fn a_store_whose_directory_is_taken_away_makes_no_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    for how in ["removed", "moved"] {
        let path = dir.path().join(how);
        let s = open(&path).unwrap();
        create(&s).unwrap();
        (0..8).step_by(4).for_each(|b| extend(&s, b).unwrap());
        match how {
            "removed" => fs::remove_dir_all(&path).unwrap(),
            _ => fs::rename(&path, dir.path().join("elsewhere")).unwrap(),
        }
        // Until its engine cannot make a file any more, and must be opened anew.
        let until = Instant::now() + Duration::from_secs(60);
        let mut next = 8;
        let failed = loop {
            match extend(&s, next) {
                Ok(()) => next += 4,
                Err(e) if e.detail.contains("lost its files") => break e,
                Err(_) => {}
            }
            assert!(Instant::now() < until, "{how}: {next} blocks were written, and nobody minded");
            std::thread::sleep(Duration::from_millis(1));
        };
        assert_ne!(failed.errno, libc::ENOENT, "{how}: as if there were no such relation: {failed}");
        assert!(!path.join("engine").exists(), "{how}: a store was made anew");
        let read = check(&s, 0..1);
        assert!(
            read.as_ref().err().is_none_or(|e| e.errno == libc::EUCLEAN || e.errno == libc::EAGAIN),
            "{how}: {read:?}"
        );
    }
}
