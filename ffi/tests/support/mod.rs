//! What the tests of the C interface share: the header, the compilers, the library, and a scratch directory.
#![allow(dead_code)] // Each test binary uses its own part.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Warnings that the header must be free of.
pub const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"];

/// What PostgreSQL compiles extensions with, besides.
pub const POSTGRES: [&str; 16] = [
    "-Wmissing-prototypes",
    "-Wpointer-arith",
    "-Wdeclaration-after-statement",
    "-Werror=vla",
    "-Wendif-labels",
    "-Wmissing-format-attribute",
    "-Wimplicit-fallthrough",
    "-Wcast-function-type",
    "-Wformat-security",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-g",
    "-O2",
    "-fstack-protector-strong",
    "-Wformat",
    "-fno-omit-frame-pointer",
];

/// A language that the header is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    C99,
    C11,
    Cpp17,
}

pub const LANGUAGES: [Language; 3] = [Language::C99, Language::C11, Language::Cpp17];

/// The compilers that there are, each as (C, C++): what CC and CXX name, else gcc and, where it is installed, clang.
pub fn compilers() -> Vec<(String, String)> {
    if let Ok(cc) = std::env::var("CC") {
        return vec![(cc, tool("CXX", "c++"))];
    }
    let all = [("gcc", "g++"), ("clang", "clang++")];
    let there = all.into_iter().filter(|(cc, _)| Command::new(cc).arg("--version").output().is_ok());
    there.map(|(cc, cxx)| (cc.to_owned(), cxx.to_owned())).collect()
}

impl Language {
    /// The language without what its compilers add to it.
    pub fn strict(self) -> &'static str {
        match self {
            Self::C99 => "c99",
            Self::C11 => "c11",
            Self::Cpp17 => "c++17",
        }
    }

    /// A command that compiles a file of this language with every warning an error; `None` without a C++ compiler.
    pub fn compiler(self) -> Option<Command> {
        self.compiler_of(&(tool("CC", "cc"), tool("CXX", "c++")))
    }

    /// The same with one of [`compilers`].
    pub fn compiler_of(self, (cc, cxx): &(String, String)) -> Option<Command> {
        let (program, args) = match self {
            Self::C99 => (cc, ["-x", "c", "-std=gnu99"]),
            Self::C11 => (cc, ["-x", "c", "-std=gnu11"]),
            Self::Cpp17 => (cxx, ["-x", "c++", "-std=gnu++17"]),
        };
        if self == Self::Cpp17 && Command::new(program).arg("--version").output().is_err() {
            println!("there is no {program}: C++ is not tested");
            return None;
        }
        let mut command = Command::new(program);
        command.args(args).args(WARNINGS);
        Some(command)
    }
}

fn tool(variable: &str, otherwise: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| otherwise.to_owned())
}

pub fn manifest() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn include() -> PathBuf {
    manifest().join("include")
}

/// Files of the header that a backend includes, from the first that is read to the last.
pub const HEADERS: [&str; 4] = ["shmuring/types.h", "shmuring/layout.h", "shmuring/inline.h", "shmuring.h"];

/// Their text, one after the other.
pub fn header() -> String {
    HEADERS.map(|name| std::fs::read_to_string(include().join(name)).unwrap()).concat()
}

/// Output of a command that must succeed.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{command:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

/// The static library, which cargo builds beside the tests.
fn static_library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libshmuring_ffi.a")
}

/// Compiles a C program, links it with libshmuring.a and gives the path of the executable.
pub fn build(source: &Path, scratch: &Scratch) -> PathBuf {
    build_with(source, scratch, &[])
}

/// The same, with more arguments for the compiler.
pub fn build_with(source: &Path, scratch: &Scratch, options: &[&str]) -> PathBuf {
    let mut cc = Language::C11.compiler().unwrap();
    cc.args(options);
    link(cc, source, scratch)
}

/// Has `compiler` compile a program and link it with libshmuring.a; gives the path of the executable.
pub fn link(mut compiler: Command, source: &Path, scratch: &Scratch) -> PathBuf {
    let exe = scratch.0.join(source.file_stem().unwrap());
    compiler.arg("-I").arg(include()).arg(source).arg("-o").arg(&exe);
    // What follows is no longer in the language of the source.
    compiler.args(["-x", "none"]).arg(static_library());
    // What `rustc --print native-static-libs` says the standard library needs.
    run(compiler.args(["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"]));
    exe
}

/// A directory that goes away with the test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shmuring-ffi-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
