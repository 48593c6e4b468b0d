//! Real input: every page of every relation of a PostgreSQL cluster, through the ring, byte for byte and by checksum.
//!
//! Needs Debian's package `postgresql` (any version from 13 to 18) and root, since a server does not run as root and is
//! started as user postgres.

mod support;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::Demo;

/// A stopped cluster with checksums, filled by pgbench.
struct Cluster {
    dir: tempfile::TempDir,
    bin: PathBuf,
}

impl Cluster {
    fn make() -> Self {
        let bin = newest_bin();
        let dir = tempfile::Builder::new().prefix("shmuring-pg-").tempdir_in("/tmp").unwrap();
        let made = Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap();
        assert!(made.success(), "no user postgres, or not root");
        let cluster = Self { dir, bin };
        let data = cluster.data();
        let sock = cluster.dir.path().to_path_buf();
        let at = |s: &Path| s.display().to_string();
        cluster.run("initdb", &["-D", &at(&data), "-U", "postgres", "--auth=trust", "--no-sync", "--locale=C", "-k"]);
        let options = format!("-c listen_addresses='' -c unix_socket_directories={} -c fsync=off", at(&sock));
        cluster.run("pg_ctl", &["-D", &at(&data), "-o", &options, "-l", &at(&sock.join("log")), "-w", "start"]);
        let client = ["-h", &at(&sock), "-U", "postgres"];
        cluster.run("pgbench", &[&client[..], &["-i", "-q", "-s", "5", "postgres"]].concat());
        cluster.run("pgbench", &[&client[..], &["-c", "2", "-t", "500", "postgres"]].concat());
        let spc = sock.join("spc");
        let psql = |sql: &str| cluster.run("psql", &[&client[..], &["-q", "-c", sql, "postgres"]].concat());
        cluster.run_plain("mkdir", &[&at(&spc)]);
        psql(&format!("CREATE TABLESPACE elsewhere LOCATION '{}'", at(&spc)));
        psql("CREATE TABLE there TABLESPACE elsewhere AS SELECT generate_series(1, 20000) AS n");
        psql("CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 5000) AS n");
        psql("VACUUM");
        cluster.run("pg_ctl", &["-D", &at(&data), "-m", "fast", "-w", "stop"]);
        cluster
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A command of PostgreSQL, as user postgres.
    fn run(&self, command: &str, args: &[&str]) {
        self.run_plain(&self.bin.join(command).display().to_string(), args);
    }

    fn run_plain(&self, command: &str, args: &[&str]) {
        let out = Command::new("setpriv")
            .args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--no-new-privs", "env", "-i"])
            .args(["HOME=/tmp", "LANG=C.UTF-8", "PATH=/usr/bin:/bin", command])
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "{command} {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Whole pages in every file that PostgreSQL names like a relation, found without the code under test.
    fn pages(&self) -> u64 {
        let data = self.data();
        let mut dirs = vec![data.join("global")];
        dirs.extend(subdirectories(&data.join("base")));
        for spc in subdirectories(&data.join("pg_tblspc")) {
            for version in subdirectories(&spc) {
                dirs.extend(subdirectories(&version));
            }
        }
        let files = dirs.iter().flat_map(|d| std::fs::read_dir(d).unwrap().flatten());
        let relations = files.filter(|f| f.file_name().to_string_lossy().starts_with(|c: char| c.is_ascii_digit()));
        relations.map(|f| f.metadata().unwrap().len() / 8192).sum()
    }
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    entries.filter(|p| std::fs::metadata(p).is_ok_and(|m| m.is_dir())).collect()
}

fn newest_bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("install Debian's package postgresql");
    let bins = versions.flatten().map(|e| e.path().join("bin")).filter(|b| b.join("initdb").exists());
    bins.max_by_key(|b| b.components().rev().nth(1).map(|c| c.as_os_str().len())).expect("install postgresql")
}

#[test]
fn every_page_of_every_relation_of_a_real_cluster_is_read_and_verified() {
    let cluster = Cluster::make();
    let data = cluster.data();
    let path = data.display().to_string();
    let report = Demo::start(&["--pgdata", &path, "--backends", "3", "--seconds", "1"]).finish(0);
    for zero in ["wrong", "lost", "errors"] {
        assert_eq!(report[zero], 0, "{report:#}");
    }
    let pages = cluster.pages();
    assert!(pages > 2000, "pgbench left {pages} pages");
    assert!(report["pages_verified"].as_u64().unwrap() >= pages, "{pages} pages in the files: {report:#}");

    // Teeth: one flipped bit anywhere in a page is found.
    let victim = largest_file(&data.join("base"));
    let file = OpenOptions::new().read(true).write(true).open(&victim).unwrap();
    flip(&file, 3 * 8192 + 5000);
    let report = Demo::start(&["--pgdata", &path, "--backends", "2", "--seconds", "1"]).finish(1);
    let complaint = report["notes"].to_string();
    assert!(report["errors"].as_u64().unwrap() > 0 && complaint.contains("errno 74"), "EBADMSG: {report:#}");
}

fn largest_file(base: &Path) -> PathBuf {
    let files = subdirectories(base).into_iter().flat_map(|d| std::fs::read_dir(d).unwrap().flatten());
    files.max_by_key(|f| f.metadata().unwrap().size()).unwrap().path()
}

fn flip(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, at).unwrap();
}
