//! `shmuring simulate`, as a shell sees it.

use serde_json::Value;
use std::process::{Command, Output};

fn simulate(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_shmuring")).arg("simulate").args(args).output().expect("it runs")
}

fn json(args: &[&str]) -> Value {
    let out = simulate(args);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("one object")
}

const SMALL: [&str; 9] = ["--requests", "3000", "--seconds", "3", "--stall", "700", "--restart", "0", "--json"];

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
    let first = simulate(&SMALL).stdout;
    assert!(!first.is_empty());
    assert_eq!(first, simulate(&SMALL).stdout);
    let other = [&SMALL[..], &["--seed", "2"]].concat();
    assert_ne!(first, simulate(&other).stdout);
}

#[test]
fn the_object_has_the_four_policies_and_their_figures() {
    let all = json(&SMALL);
    for policy in ["latest_lsn", "neon_libpq", "neon_communicator", "shmuring"] {
        let p = &all[policy];
        for figure in ["ready_p99_ms", "future_p99_ms", "stalled_share", "i12_violations"] {
            assert!(p[figure].is_number(), "{policy} {figure}");
        }
        assert_eq!((&p["hung"], &p["twice"], &p["blocks"]), (&0.into(), &0.into(), &all["shmuring"]["blocks"]));
    }
    let number = |policy: &str, figure: &str| all[policy][figure].as_f64().unwrap();
    assert_eq!(number("shmuring", "i12_violations"), 0.0);
    for policy in ["latest_lsn", "neon_libpq", "neon_communicator"] {
        assert!(number(policy, "i12_violations") > 0.0, "{policy}");
        assert!(number("shmuring", "stalled_share") < number(policy, "stalled_share"), "{policy}");
        assert!(number("shmuring", "ready_p99_ms") < number(policy, "ready_p99_ms") / 10.0, "{policy}");
    }
}

#[test]
fn without_json_it_is_a_table() {
    let out = simulate(&SMALL[..8]);
    let text = String::from_utf8(out.stdout).unwrap();
    for line in ["READY p99, ms", "FUTURE p99, ms", "made the server wait", "I12 violations", "demand p50 / p99, ms"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn nonsense_is_refused() {
    for args in [["--shards", "0"], ["--requests", "0"], ["--seconds", "x"], ["--hot", "warm"]] {
        assert_eq!(simulate(&args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(simulate(&["--hot", "150", "--requests", "100"]).status.code(), Some(2), "a percentage");
}
