//! A real PostgreSQL cluster. Needs Debian's package `postgresql` (any version from 13 to 18) and root, since a server does
//! not run as root and is started as user postgres.
#![allow(dead_code)] // Each test binary uses its own part.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A cluster whose server is stopped between the calls.
pub struct Cluster {
    dir: tempfile::TempDir,
    bin: PathBuf,
}

impl Cluster {
    /// An empty one.
    pub fn make(initdb: &[&str]) -> Self {
        let bin = newest_bin();
        let dir = tempfile::Builder::new().prefix("shmuring-pg-").tempdir_in("/tmp").unwrap();
        let made = Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap();
        assert!(made.success(), "no user postgres, or not root");
        let cluster = Self { dir, bin };
        let data = cluster.data().display().to_string();
        let plain = ["-D", &data, "-U", "postgres", "--auth=trust", "--no-sync", "--locale=C"];
        cluster.run("initdb", &[&plain[..], initdb].concat());
        cluster
    }

    /// Fills it by pgbench, and with what pgbench does not make.
    pub fn fill(&self) {
        let spc = self.dir.path().join("spc").display().to_string();
        self.run_plain("mkdir", &[&spc]);
        self.running(|| {
            self.client("pgbench", &["-i", "-q", "-s", "5"]);
            self.client("pgbench", &["-c", "2", "-t", "500"]);
            for sql in [
                &format!("CREATE TABLESPACE elsewhere LOCATION '{spc}'"),
                "CREATE TABLE there TABLESPACE elsewhere AS SELECT generate_series(1, 20000) AS n",
                "CREATE UNLOGGED TABLE fleeting AS SELECT generate_series(1, 5000) AS n",
                "VACUUM",
            ] {
                self.client("psql", &["-q", "-c", sql]);
            }
        });
    }

    /// Does something while its server runs.
    pub fn running(&self, f: impl FnOnce()) {
        self.running_until("fast", f);
    }

    /// The same, with this mode of the stop: "immediate" is a crash.
    pub fn running_until(&self, stop: &str, f: impl FnOnce()) {
        let (data, sock) = (self.data().display().to_string(), self.dir.path().display().to_string());
        let options = format!("-c listen_addresses='' -c unix_socket_directories={sock} -c fsync=off");
        let log = format!("{sock}/log");
        self.run("pg_ctl", &["-D", &data, "-o", &options, "-l", &log, "-w", "start"]);
        f();
        self.run("pg_ctl", &["-D", &data, "-m", stop, "-w", "stop"]);
    }

    /// A client program, on the database postgres.
    pub fn client(&self, command: &str, args: &[&str]) {
        let sock = self.dir.path().display().to_string();
        self.run(command, &[&["-h", &sock, "-U", "postgres"], args, &["postgres"]].concat());
    }

    /// A copy of the data directory as it is now.
    pub fn copy(&self, name: &str) -> PathBuf {
        let to = self.dir.path().join(name);
        self.run_plain("cp", &["-a", &self.data().display().to_string(), &to.display().to_string()]);
        to
    }

    pub fn data(&self) -> PathBuf {
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
    pub fn pages(&self) -> u64 {
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

/// The largest file of any database.
pub fn largest_file(base: &Path) -> PathBuf {
    let files = subdirectories(base).into_iter().flat_map(|d| std::fs::read_dir(d).unwrap().flatten());
    files.max_by_key(|f| f.metadata().unwrap().size()).unwrap().path()
}
