//! The main job over page servers: shards as processes of their own, one of them held back.
#![cfg(feature = "grpc")]

mod support;

use serde_json::Value;
use support::Demo;

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
