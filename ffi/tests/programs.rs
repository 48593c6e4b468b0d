//! The C programs of `tests/c`, built by each compiler for each language and linked with the static library: what a
//! backend calls, right and wrong, alone and beside a communicator.

#[path = "support/serve.rs"]
mod serve;
mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use serve::{region_in, Server};
use shmuring::backend::{Backend, SlotRef};
use shmuring::error::Error;
use shmuring::region::{Options, Region};
use shmuring::request::RelTag;
use shmuring::sync::Ordering;
use support::{compilers, link, manifest, run, Scratch, LANGUAGES, POSTGRES};

fn source(name: &str) -> PathBuf {
    manifest().join("tests/c").join(name).with_extension("c")
}

/// Runs `test` with the program as each compiler builds it for each language.
fn with_each_build(name: &str, test: impl Fn(&Path, &Scratch)) {
    for compiler in compilers() {
        for language in LANGUAGES {
            let Some(command) = language.compiler_of(&compiler) else { continue };
            let scratch = Scratch::new(&format!("{name}-{}-{language:?}", compiler.0));
            let program = link(command, &source(name), &scratch);
            test(&program, &scratch);
        }
    }
}

/// The program as the usual compiler builds it, with the flags of an extension of PostgreSQL.
fn built(name: &str, scratch: &Scratch) -> PathBuf {
    support::build_with(&source(name), scratch, &POSTGRES)
}

/// A command that runs a program under memcheck.
fn memcheck(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--error-exitcode=99", "--leak-check=full", "--errors-for-leak-kinds=definite,possible"]);
    command.args(["--trace-children=no", "--child-silent-after-fork=yes"]).arg(program);
    command
}

#[test]
fn every_call_of_a_backend_works_beside_a_communicator_of_another_process() {
    with_each_build("smoke", |program, scratch| {
        let region = region_in(&scratch.0, 16);
        let _server = Server::of(&region);
        run(Command::new(program).arg(&region).args(["4", "8"]));
    });
}

#[test]
fn the_quick_start_of_the_readme_reads_a_page() {
    let scratch = Scratch::new("quickstart");
    let program = built("quickstart", &scratch);
    let region = region_in(&scratch.0, 8);
    let _server = Server::of(&region);
    assert_eq!(run(Command::new(program).arg(&region)), "block 7 begins with 07\n");
}

#[test]
fn a_handle_in_memory_of_the_caller_works_as_any_other_and_takes_nothing_from_the_heap() {
    with_each_build("given", |program, scratch| {
        let region = region_in(&scratch.0, 16);
        let _server = Server::of(&region);
        run(Command::new(program).arg(&region));
    });
}

#[test]
fn two_processes_share_a_communicator() {
    let scratch = Scratch::new("two");
    let program = built("smoke", &scratch);
    let region = region_in(&scratch.0, 32);
    let _server = Server::of(&region);
    let start = |first: &str| Command::new(&program).arg(&region).args([first, "16"]).spawn().unwrap();
    let both = [start("0"), start("16")];
    for mut child in both {
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn what_is_wrong_is_refused_by_name() {
    with_each_build("misuse", |program, scratch| {
        let region = region_in(&scratch.0, 8);
        run(Command::new(program).arg(&region));
    });
}

#[test]
fn what_one_process_notes_as_written_another_is_told_and_rust_says_the_same() {
    with_each_build("tables", |program, scratch| {
        let path = scratch.0.join("region");
        let options = Options { written_buckets: 1024, ..Options::new(8) };
        let (region, _) = Region::create_named(&path, &options).unwrap();
        run(Command::new(program).arg("note").arg(&path));
        let written = region.parts().last_written();
        let said = run(Command::new(program).arg("get").arg(&path));
        for line in said.lines() {
            let numbers: Vec<u64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
            let [fork, block, lsn] = numbers[..] else { panic!("{line}") };
            let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: fork as u8 };
            assert_eq!(written.get(rel, block as u32), lsn, "{line}");
        }
        assert_eq!(said.lines().count(), 58);
        run(Command::new(program).arg("alone").arg(scratch.0.join("alone")));
    });
}

#[test]
fn what_the_owner_of_a_range_left_comes_to_the_next_one() {
    with_each_build("leftovers", |program, scratch| {
        run(Command::new(program).arg(scratch.0.join("lock")));
    });
}

#[test]
fn waits_end_by_time_by_signal_and_by_the_interrupt_word() {
    with_each_build("waits", |program, scratch| {
        let region = region_in(&scratch.0, 8);
        run(Command::new(program).arg(&region));
    });
}

#[test]
fn memcheck_finds_nothing_in_any_program() {
    for name in ["smoke", "misuse", "waits", "leftovers", "tables", "given"] {
        let scratch = Scratch::new(&format!("memcheck-{name}"));
        let program = built(name, &scratch);
        let mut command = memcheck(&program);
        if name == "leftovers" || name == "tables" {
            command.args((name == "tables").then_some("alone"));
            run(command.arg(scratch.0.join("lock")));
            continue;
        }
        let region = region_in(&scratch.0, 8);
        let _server = (name == "smoke" || name == "given").then(|| Server::of(&region));
        command.arg(&region);
        run(if name == "smoke" { command.args(["0", "8"]) } else { &mut command });
    }
}

/// What C gets for a poll, and for a look at the state.
fn rust_says(b: &Backend<'_>, slot: u32, generation: u32) -> (i32, i32) {
    let code = |e: Error| -e.errno();
    let poll = b.poll(SlotRef { slot, generation }).map_or_else(code, i32::from);
    (poll, b.state(slot).map_or_else(code, |s| s as i32))
}

#[test]
fn the_inline_functions_the_exported_ones_and_rust_say_the_same_of_one_region() {
    with_each_build("same", |program, scratch| {
        let path = region_in(&scratch.0, 4);
        let region = Region::attach(&path).unwrap();
        // The program has slot 0, this process slot 1: both look at the same words.
        let b = Backend::attach(&region, 1, 1).unwrap();
        let said = run(Command::new(program).arg(&path));
        let word_of_ours = &region.parts().slots[1].word;
        let mut n = 0;
        for line in said.lines() {
            let numbers: Vec<i64> = line.split(' ').map(|n| n.parse().unwrap()).collect();
            let [word, generation, poll, state] = numbers[..] else { panic!("{line}") };
            word_of_ours.store(word as u64, Ordering::Relaxed);
            let (rust_poll, rust_state) = rust_says(&b, 1, generation as u32);
            assert_eq!(poll, i64::from(rust_poll), "poll of {word:#x} as generation {generation:#x}");
            if word & 0xf <= 7 {
                assert_eq!(state, i64::from(rust_state), "state of {word:#x}");
            }
            n += 1;
        }
        word_of_ours.store(0, Ordering::Relaxed);
        assert_eq!(n, 6 * 16 * 4 * 9);
    });
}
