//! The header of the communicator's side: compiles alone in every language that it is for, and says the same as the
//! library.
#![cfg(feature = "host")]

mod support;

use shmuring_ffi::abi::Layout;
use shmuring_ffi::host::abi;
use std::fmt::Write;
use support::{include, run, Language, Scratch};

fn text() -> String {
    std::fs::read_to_string(include().join("shmuring/host.h")).unwrap()
}

#[test]
fn the_header_compiles_alone_in_every_language_without_a_warning() {
    for language in [Language::C99, Language::C11, Language::Cpp17] {
        let Some(mut compiler) = language.compiler() else { continue };
        run(compiler.args(["-fsyntax-only", "-include"]).arg(include().join("shmuring/host.h")).arg("/dev/null"));
    }
}

#[test]
fn every_offset_that_the_header_asserts_is_the_library_s_and_none_is_missing() {
    let mut lines = Vec::new();
    for (name, size, fields) in [abi::CLAIMS, abi::HOST].concat() as Vec<Layout> {
        lines.push(format!("SHMURING_SIZE_({name}, {size});"));
        lines.extend(fields.iter().map(|(field, at)| format!("SHMURING_AT_({name}, {field}, {at});")));
    }
    let header = text();
    let said: Vec<_> =
        header.lines().filter(|l| l.starts_with("SHMURING_SIZE_(") || l.starts_with("SHMURING_AT_(")).collect();
    assert_eq!(said, lines);
}

#[test]
fn every_number_of_the_header_is_the_library_s_and_none_is_missing() {
    let scratch = Scratch::new("host-numbers");
    let header = text();
    let names = header.lines().filter_map(|l| l.strip_prefix("#define ")?.split_once(' ')).map(|(name, _)| name);
    let mut program = String::from("#include <stdio.h>\n#include \"shmuring/host.h\"\nint main(void)\n{\n");
    for name in names.clone() {
        writeln!(program, "\tprintf(\"%d\\n\", {name});").unwrap();
    }
    program.push_str("\treturn 0;\n}\n");
    let (source, exe) = (scratch.0.join("numbers.c"), scratch.0.join("numbers"));
    std::fs::write(&source, program).unwrap();
    run(Language::C11.compiler().unwrap().arg("-I").arg(include()).arg(&source).arg("-o").arg(&exe));
    let said = run(&mut std::process::Command::new(&exe));
    let mut said: Vec<_> = names.zip(said.lines().map(|n| n.parse::<i64>().unwrap())).collect();
    let mut own = abi::NUMBERS.to_vec();
    said.sort();
    own.sort();
    assert_eq!(said, own);
}
