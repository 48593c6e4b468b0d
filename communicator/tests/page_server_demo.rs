//! The main job over page servers: shards as processes of their own, one of them held back, some of them killed.
#![cfg(feature = "grpc")]

mod support;

use serde_json::Value;
use support::{children_of, kill, pause, Demo};

fn assert_good(report: &Value) {
    for zero in ["wrong", "lost", "errors", "lost_hints"] {
        assert_eq!(report[zero], 0, "{zero} in {report:#}");
    }
    assert!(report["pages_verified"].as_u64().unwrap() > 300, "{report:#}");
}

#[test]
fn reads_of_what_nobody_writes_go_on_while_ingest_of_a_shard_is_held_back() {
    let args = ["--page-servers", "3", "--hold-back", "700", "--backends", "4", "--seconds", "8"];
    let report = Demo::start(&args).finish(0);
    assert_good(&report);
    let ns = |reads: &str, what: &str| report[reads][what].as_u64().unwrap();
    assert!(ns("ready_free_ns", "count") > 100 && ns("ready_held_ns", "count") > 100, "{report:#}");
    // Whoever reads what was just written waits until it is ingested; whoever does not never does.
    assert!(ns("hidden_held_ns", "max") > 500_000_000, "nothing was held back: {report:#}");
    assert!(ns("ready_held_ns", "p99") < 500_000_000, "{report:#}");
}

#[test]
fn page_servers_killed_in_the_middle_are_started_again_and_nothing_is_lost() {
    let demo = Demo::start(&["--page-servers", "3", "--backends", "3", "--seconds", "6"]);
    demo.wait_for_backends(3);
    for round in 0..4 {
        pause(700);
        let servers = children_of(demo.pid(), "page-server");
        if let Some(pid) = servers.get(round % servers.len().max(1)) {
            kill(*pid, libc::SIGKILL);
        }
    }
    let report = demo.finish(0);
    assert_good(&report);
    assert!(report["page_server_restarts"].as_u64().unwrap() >= 3, "{report:#}");
}
