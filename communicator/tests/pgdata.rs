//! Real input: every page of every relation of a PostgreSQL cluster, through the ring, byte for byte and by checksum.
//!
//! Needs Debian's package `postgresql` (any version from 13 to 18) and root, since a server does not run as root and is
//! started as user postgres.

mod cluster;
mod support;

use cluster::{largest_file, Cluster};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use support::{Demo, Site};

#[test]
fn every_page_of_every_relation_of_a_real_cluster_is_read_and_verified() {
    let cluster = Cluster::make(&["-k"]);
    cluster.fill();
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

#[test]
fn a_cluster_whose_server_runs_or_crashed_is_served_with_a_warning() {
    let cluster = Cluster::make(&[]);
    let data = cluster.data();
    let warned = |words: &[&str]| {
        let site = Site::new();
        let mut serve = site.serve_with(&format!("datadir:{}", data.display()), &[]);
        let log = serve.log();
        serve.drain();
        let warned = log.lines().find(|line| line.contains("WARN")).unwrap_or_default();
        assert_eq!(words.is_empty(), warned.is_empty(), "{log}");
        assert!(words.iter().all(|word| warned.contains(word)), "no {words:?} in {log}");
        log
    };
    let path = data.display().to_string();
    cluster.running(|| {
        let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap().lines().next().unwrap().to_owned();
        warned(&[&path, "RUNS", &format!("pid {pid}"), "older"]);
        let said = Demo::spawn(&["--pgdata", &path, "--backends", "1", "--seconds", "1"]).end();
        assert!(said.err.contains("WARNING") && said.err.contains(&format!("RUNS on this directory (pid {pid})")));
    });
    warned(&[]);
    cluster.running_until("immediate", || {});
    warned(&[&path, "NOT SHUT DOWN", "in production", "older"]);
    // What a crash leaves: a pid that is somebody else's by now, or nobody's.
    for pid in [std::process::id(), i32::MAX.unsigned_abs()] {
        std::fs::write(data.join("postmaster.pid"), format!("{pid}\n{path}\n")).unwrap();
        warned(&["NOT SHUT DOWN"]);
    }
    std::fs::remove_file(data.join("postmaster.pid")).unwrap();
    cluster.running(|| {});
    warned(&[]);
}

fn flip(file: &File, at: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    byte[0] ^= 1;
    file.write_all_at(&byte, at).unwrap();
}
