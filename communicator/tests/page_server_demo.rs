//! The main job over page servers: shards as processes of their own, one of them held back, some of them killed.
#![cfg(feature = "grpc")]

mod support;

use serde_json::Value;
use support::{children_of, kill, soon, Demo};

fn assert_good(report: &Value) {
    for zero in ["wrong", "lost", "errors", "lost_hints"] {
        assert_eq!(report[zero], 0, "{zero} in {report:#}");
    }
    assert!(report["pages_verified"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn a_demo_with_a_shard_held_back_verifies_every_page_and_tells_latencies_with_and_without() {
    let args = ["--page-servers", "3", "--hold-back", "500", "--backends", "4", "--seconds", "6"];
    let report = Demo::start(&args).finish(0);
    assert_good(&report);
    for reads in ["ready_free_ns", "ready_held_ns", "hidden_held_ns"] {
        assert!(report[reads]["count"].as_u64().unwrap() > 0, "no {reads} in {report:#}");
    }
    assert_eq!(report["held_back_ms"], 500);
}

#[test]
fn page_servers_killed_in_the_middle_are_started_again_and_nothing_is_lost() {
    let demo = Demo::start(&["--page-servers", "3", "--backends", "3", "--seconds", "8"]);
    assert!(soon(|| !demo.communicators().is_empty()), "no communicator comes");
    // From the first moment on: while the relations are made, and while backends are at work.
    let mut killed = Vec::new();
    for round in 0..6 {
        let alive = || {
            let servers = children_of(demo.pid(), "page-server");
            servers.into_iter().filter(|pid| !killed.contains(pid)).collect::<Vec<_>>()
        };
        let is_over = || round > 3 && demo.backends().is_empty();
        assert!(soon(|| alive().len() == 3 || is_over()), "they do not come back");
        if is_over() {
            break;
        }
        let Some(pid) = alive().get(round % 3).copied() else { break };
        kill(pid, libc::SIGKILL);
        killed.push(pid);
        if round == 2 {
            demo.wait_for_backends(3);
        }
        support::pause(300);
    }
    let report = demo.finish(0);
    assert_good(&report);
    assert!(report["page_server_restarts"].as_u64().unwrap() > 0, "{report:#}");
}
