//! The main job, with real processes: undisturbed, and with kill -9 of backends and of the communicator in the middle.

mod support;

use serde_json::Value;
use std::time::Duration;
use support::{children_of, kill, pause, Demo};

/// Nothing wrong, nothing lost, and something done.
fn assert_good(report: &Value) {
    for zero in ["wrong", "lost", "errors", "lost_hints"] {
        assert_eq!(report[zero], 0, "{zero} in {report:#}");
    }
    // How many is the machine's affair: with ten others at its processors, one backend had 973 in a second.
    assert!(report["pages_verified"].as_u64().unwrap() > 50, "{report:#}");
}

#[test]
fn every_page_of_a_store_is_verified_and_the_report_has_its_figures() {
    let report = Demo::start(&["--backends", "3", "--depth", "8", "--seconds", "2"]).finish(0);
    assert_good(&report);
    assert!(report["requests_per_second"].as_f64().unwrap() > 0.0);
    assert!(report["syscalls_per_request"].as_f64().unwrap() > 0.0);
    for percentile in ["p50", "p99", "p999"] {
        assert!(report["latency_ns"][percentile].as_u64().unwrap() > 0, "{percentile}");
    }
    for kind in ["get_page", "prefetch", "write_page", "extend", "zero_extend", "rel_size", "rel_exists", "nop"] {
        assert!(report["requests"][kind].as_u64().unwrap() > 0, "no {kind} in {report:#}");
    }
}

#[test]
fn one_backend_with_one_request_in_flight_works_too() {
    assert_good(&Demo::start(&["--backends", "1", "--depth", "1", "--seconds", "1"]).finish(0));
}

#[test]
fn backends_killed_in_the_middle_hurt_nobody_else() {
    let demo = Demo::start(&["--backends", "4", "--seconds", "4"]);
    demo.wait_for_backends(4);
    for _ in 0..10 {
        pause(200);
        if let Some(pid) = children_of(demo.pid(), "demo-backend").first() {
            kill(*pid, libc::SIGKILL);
        }
    }
    let report = demo.finish(0);
    assert_good(&report);
    assert!(report["backends_killed"].as_u64().unwrap() >= 5, "{report:#}");
}

#[test]
fn a_communicator_killed_in_the_middle_is_replaced_and_nothing_is_lost() {
    let demo = Demo::start(&["--backends", "3", "--seconds", "4"]);
    demo.wait_for_backends(3);
    for _ in 0..6 {
        pause(400);
        for pid in children_of(demo.pid(), "serve") {
            kill(pid, libc::SIGKILL);
        }
    }
    let report = demo.finish(0);
    assert_good(&report);
    assert!(report["communicator_restarts"].as_u64().unwrap() >= 3, "{report:#}");
    assert!(report["reclaimed"].as_u64().unwrap() > 0, "no request was taken over: {report:#}");
}

#[test]
fn backends_and_communicators_killed_and_stopped_at_once_lose_nothing() {
    let demo = Demo::start(&["--backends", "4", "--seconds", "5"]);
    demo.wait_for_backends(4);
    for round in 0..10 {
        pause(150);
        let backends = children_of(demo.pid(), "demo-backend");
        let (Some(first), Some(last)) = (backends.first(), backends.last()) else { continue };
        kill(*last, libc::SIGSTOP);
        kill(*first, libc::SIGKILL);
        for pid in children_of(demo.pid(), "serve") {
            kill(pid, if round % 3 == 0 { libc::SIGKILL } else { libc::SIGSTOP });
            pause(100);
            kill(pid, libc::SIGCONT);
        }
        kill(*last, libc::SIGCONT);
    }
    let report = demo.finish(0);
    assert_good(&report);
    assert!(report["backends_killed"].as_u64().unwrap() > 0 && report["communicator_restarts"].as_u64().unwrap() > 0);
}

#[test]
fn pages_that_are_scribbled_over_in_flight_are_found() {
    let demo = Demo::start(&["--backends", "2", "--seconds", "3"]);
    demo.wait_for_backends(2);
    pause(300);
    let region = demo.region();
    let until = std::time::Instant::now() + Duration::from_secs(1);
    while std::time::Instant::now() < until {
        support::scribble(&region);
    }
    let report = demo.finish(1);
    assert!(report["wrong"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn a_demo_that_is_killed_leaves_no_process_behind() {
    let site = support::Site::new();
    let dir = site.path("demo").display().to_string();
    let demo = Demo::start(&["--backends", "2", "--seconds", "600", "--dir", &dir]);
    demo.wait_for_backends(2);
    let children = [demo.backends(), demo.communicators()].concat();
    assert_eq!(children.len(), 3);
    // Neither does a stopped one of them stay.
    support::stop(children[0]);
    let region = demo.region_path();
    kill(demo.pid(), libc::SIGKILL);
    drop(demo.end());
    let gone = support::soon(|| children.iter().all(|pid| !support::is_alive(*pid)));
    std::fs::remove_file(region).unwrap();
    assert!(gone, "{children:?}");
}
