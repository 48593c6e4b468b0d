//! The C header: compiles alone in every language that it is for, and says the same as the library.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write;

use shmuring::error::Error;
use shmuring::request::{flags, Class, Opcode, MAX_BLOCKS, MISSING};
use shmuring::slot::{State, Word};
use shmuring::stats::{OwnerCounter, RoleCounter};
use shmuring::{buffers, layout, region};
use shmuring_ffi::{abi, api};
use support::{build, compilers, header, include, manifest, run, Language, Scratch, HEADERS, LANGUAGES, POSTGRES};

/// Every error but `Os`, with its name.
fn errors() -> Vec<(&'static str, Error)> {
    macro_rules! named {
        ($($variant:ident)*) => {{
            // An error that is not in the list below does not compile.
            let _complete = |e: Error| match e {
                $(Error::$variant => {})*
                Error::Os(_) => {}
            };
            vec![$((stringify!($variant), Error::$variant)),*]
        }};
    }
    named! {
        TooShort WrongMagic WrongAbi WrongLayout UnknownFeature BadGeometry ForeignClock WrongLockFile BadMemory Exists
        BadSlot BadPool BadBuffer BadCount BadOpcode BadRequest SlotBusy NotFilling Stale NotCompleted NoFreeSlot
        NoFreeBuffer TooMany WrongProcess OwnerAlive RoleHeld LifeHeld TimedOut Interrupted CommunicatorGone InProgress
        AlreadyCompleted
    }
}

/// `WrongMagic` as `WRONG_MAGIC`.
fn screaming(camel: &str) -> String {
    let mut out = String::new();
    for (i, c) in camel.chars().enumerate() {
        if i > 0 && c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

/// What the library says each macro is.
fn expected() -> BTreeMap<String, u64> {
    let version: Vec<u64> = env!("CARGO_PKG_VERSION").split('.').map(|n| n.parse().unwrap()).collect();
    let word = |state, generation, epoch| Word::new(state, generation, epoch).bits();
    let mut all: BTreeMap<String, u64> = [
        ("VERSION_MAJOR", version[0]),
        ("VERSION_MINOR", version[1]),
        ("VERSION_PATCH", version[2]),
        ("VERSION_NUMBER", version[0] * 1_000_000 + version[1] * 1000 + version[2]),
        ("ABI_VERSION", layout::ABI_VERSION.into()),
        ("FLAG_CLASS", flags::CLASS.into()),
        ("FLAG_ALLOW_MISSING", flags::ALLOW_MISSING.into()),
        ("FLAG_DEADLINE", flags::DEADLINE.into()),
        ("FLAG_REQUEST_LSN", flags::REQUEST_LSN.into()),
        ("FLAG_BLOCK_LSNS", flags::BLOCK_LSNS.into()),
        ("FLAG_KNOWN", flags::KNOWN.into()),
        ("MISSING", MISSING),
        ("MAX_BLOCKS", MAX_BLOCKS as u64),
        ("MAGIC", layout::MAGIC),
        ("FEATURES", layout::FEATURES),
        ("MAX_SLOTS", layout::MAX_SLOTS.into()),
        ("MAX_POOLS", layout::MAX_POOLS as u64),
        ("MAX_SHARDS", layout::MAX_SHARDS as u64),
        ("POOL_BOUNCE", buffers::BOUNCE.into()),
        ("DEFAULT_BLOCK_SIZE", layout::DEFAULT_BLOCK_SIZE.into()),
        ("BUCKETS", layout::BUCKETS as u64),
        ("DEFAULT_WRITTEN_BUCKETS", region::DEFAULT_WRITTEN_BUCKETS.into()),
        ("DEFAULT_REL_SIZES", region::DEFAULT_REL_SIZES.into()),
        ("NONE", api::NONE.into()),
        ("CLASS_DEMAND", Class::Demand as u64),
        ("CLASS_PREFETCH", Class::Prefetch as u64),
        ("CLASS_BACKGROUND", Class::Background as u64),
        ("WORD_STATE", (0..64).map(|n| 1 << n).filter(|b| !Word::from_bits(*b).is(State::Idle)).sum()),
        ("WORD_WAITER", (0..64).map(|n| 1 << n).filter(|b| Word::from_bits(*b).waiter()).sum()),
        ("WORD_GENERATION_SHIFT", word(State::Idle, 1, 0).trailing_zeros().into()),
        ("WORD_EPOCH_SHIFT", word(State::Idle, 0, 1).trailing_zeros().into()),
    ]
    .map(|(name, value)| (format!("SHMURING_{name}"), value))
    .into();
    all.extend(Opcode::ALL.map(|o| (format!("SHMURING_OP_{}", o.name().to_uppercase()), o as u64)));
    all.extend(State::ALL.map(|s| (format!("SHMURING_STATE_{}", s.name().to_uppercase()), s as u64)));
    let counters = |kind: &str, names: &[&str]| -> Vec<(String, u64)> {
        names.iter().zip(0..).map(|(n, i)| (format!("SHMURING_{kind}_{}", n.to_uppercase()), i)).collect()
    };
    all.extend(counters("OWNER", &OwnerCounter::NAMES));
    all.extend(counters("ROLE", &RoleCounter::NAMES));
    let own = [
        ("MAX_WAIT_ANY", api::MAX_WAIT_ANY as u64),
        ("CANCEL_WITHDRAWN", api::cancel::WITHDRAWN as u64),
        ("CANCEL_ABANDONED", api::cancel::ABANDONED as u64),
        ("FATE_WITHDRAWN", api::fate::WITHDRAWN.into()),
        ("FATE_ABANDONED", api::fate::ABANDONED.into()),
        ("FATE_COMPLETED", api::fate::COMPLETED.into()),
        ("FATE_OWNER_DEAD", api::fate::OWNER_DEAD.into()),
        ("ERR_WRONG_THREAD", neg(api::errno::WRONG_THREAD)),
        ("ERR_DETACHED", neg(api::errno::DETACHED)),
        ("ERR_IN_USE", neg(api::errno::IN_USE)),
        ("ERR_BUG", neg(api::errno::BUG)),
    ];
    all.extend(own.map(|(name, value)| (format!("SHMURING_{name}"), value)));
    all.extend(errors().into_iter().map(|(name, e)| (format!("SHMURING_ERR_{}", screaming(name)), neg(e.errno()))));
    all
}

fn neg(errno: i32) -> u64 {
    i64::from(-errno) as u64
}

/// Names of the macros that stand for a number: not function-like, not internal (`_` at the end), not the guard.
fn macros() -> Vec<String> {
    let header = header();
    let names = header.lines().filter_map(|l| l.strip_prefix("#define ")?.split_whitespace().next());
    let is_number = |n: &&str| !n.contains('(') && !n.ends_with('_') && !n.ends_with("_H");
    names.filter(is_number).map(str::to_owned).collect()
}

#[test]
fn each_file_of_the_header_compiles_alone_in_every_language_without_a_warning() {
    for compiler in compilers() {
        for language in LANGUAGES {
            for name in HEADERS {
                let Some(mut command) = language.compiler_of(&compiler) else { continue };
                if language != Language::Cpp17 {
                    command.args(POSTGRES);
                }
                command.arg(format!("-std={}", language.strict()));
                run(command.args(["-fsyntax-only", "-include"]).arg(include().join(name)).arg("/dev/null"));
            }
        }
    }
}

#[test]
fn a_structure_that_drifts_does_not_compile_in_any_language() {
    let scratch = Scratch::new("drift");
    let field = "\tuint32_t owner_first;\n";
    let read = |name| std::fs::read_to_string(include().join(name)).unwrap();
    let drifted = read("shmuring/layout.h").replacen(field, "\tuint64_t owner_first;\n", 1);
    assert_ne!(drifted, read("shmuring/layout.h"));
    let path = scratch.0.join("drifted.h");
    std::fs::write(&path, drifted).unwrap();
    std::fs::write(scratch.0.join("types.h"), read("shmuring/types.h")).unwrap();
    for language in LANGUAGES {
        let Some(mut compiler) = language.compiler() else { continue };
        let out = compiler.args(["-fsyntax-only", "-include"]).arg(&path).arg("/dev/null").output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr);
        let why = if language == Language::C99 { "shmuring_assert_" } else { "offset of shmuring_control.owner_count" };
        assert!(!out.status.success() && said.contains(why), "{language:?}: {said}");
    }
}

#[test]
fn every_number_of_the_header_is_the_library_s_and_none_is_missing() {
    let scratch = Scratch::new("numbers");
    let mut program = String::from("#include <stdio.h>\n#include \"shmuring.h\"\nint main(void)\n{\n");
    for name in macros() {
        writeln!(program, "\tprintf(\"{name} %llu\\n\", (unsigned long long)({name}));").unwrap();
    }
    program.push_str("\treturn 0;\n}\n");
    let source = scratch.0.join("numbers.c");
    std::fs::write(&source, program).unwrap();
    let mut cc = Language::C11.compiler().unwrap();
    // A cast of a negative constant is what is wanted here.
    let exe = scratch.0.join("numbers");
    run(cc.arg("-Wno-sign-conversion").arg("-I").arg(include()).arg(&source).arg("-o").arg(&exe));
    let said = run(&mut std::process::Command::new(&exe));
    let said: BTreeMap<String, u64> = said
        .lines()
        .map(|l| l.split_once(' ').map(|(name, n)| (name.to_owned(), n.parse().unwrap())).unwrap())
        .collect();
    assert_eq!(said, expected());
}

#[test]
fn every_offset_that_the_header_asserts_is_the_library_s_and_none_is_missing() {
    type Said = (String, usize, Vec<(String, usize)>);
    let mut said: Vec<Said> = Vec::new();
    for line in header().lines() {
        let parts = |prefix| {
            let args = line.strip_prefix(prefix)?.strip_suffix(");")?;
            Some(args.split(", ").map(str::to_owned).collect::<Vec<_>>())
        };
        if let Some(size) = parts("SHMURING_SIZE_(") {
            said.push((size[0].clone(), size[1].parse().unwrap(), Vec::new()));
        } else if let Some(at) = parts("SHMURING_AT_(") {
            let of = said.last_mut().unwrap();
            assert_eq!(of.0, at[0], "the offset of another structure's field");
            of.2.push((at[1].clone(), at[2].parse().unwrap()));
        }
    }
    let own = |(name, size, fields): &abi::Layout| {
        (name.to_string(), *size, fields.iter().map(|(f, at)| (f.to_string(), *at)).collect::<Vec<_>>())
    };
    let mut all: Vec<Said> = abi::LAYOUT.iter().chain(abi::CALLS).map(own).collect();
    all.sort();
    said.sort();
    assert_eq!(said, all);
}

#[test]
fn every_error_has_a_text_of_the_library_and_its_own_words_where_the_errno_is_its_alone() {
    let all = errors();
    for (name, e) in &all {
        let text = shmuring_ffi::shmuring_strerror(-e.errno());
        // SAFETY: never null; the texts of the library are static.
        let text = unsafe { std::ffi::CStr::from_ptr(text) }.to_str().unwrap();
        assert_ne!(text, std::io::Error::from_raw_os_error(e.errno()).to_string(), "{name}");
        let is_alone = all.iter().filter(|(_, other)| other.errno() == e.errno()).count() == 1;
        if is_alone && *e != Error::BadGeometry {
            assert!(text.starts_with(e.text()), "{name}: {text}");
        }
    }
}

#[test]
fn a_c_program_linked_with_the_static_library_agrees_with_it() {
    let scratch = Scratch::new("info");
    let exe = build(&manifest().join("tests/c/info.c"), &scratch);
    let (usual, none) = (0, api::NONE);
    for (slots, bounce_per_slot, block_size, written, sizes) in [
        (1, 0, 512, none, none),
        (8000, 4, 8192, usual, usual),
        (layout::MAX_SLOTS, 1, 65536, usual, none),
        (64, 4, 8192, 77, 1000),
    ] {
        let mut command = std::process::Command::new(&exe);
        command.args([slots, bounce_per_slot, block_size, written, sizes].map(|n: u32| n.to_string()));
        let asked = |n, default| match n {
            0 => default,
            api::NONE => 0,
            n => n,
        };
        let options = region::Options {
            slots,
            bounce_per_slot,
            block_size,
            written_buckets: asked(written, region::DEFAULT_WRITTEN_BUCKETS),
            rel_sizes: asked(sizes, region::DEFAULT_REL_SIZES),
        };
        let bytes = region::Region::size(&options).unwrap();
        assert_eq!(run(&mut command), format!("{bytes}\n"));
    }
}
