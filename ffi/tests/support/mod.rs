//! What the tests of the C interface share: the header, the compilers, the library, and a scratch directory.
#![allow(dead_code)] // Each test binary uses its own part.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Warnings that the header must be free of.
pub const WARNINGS: [&str; 5] = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"];

/// A language that the header is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    C99,
    C11,
    Cpp17,
}

impl Language {
    /// A command that compiles a file of this language with every warning an error; `None` without a C++ compiler.
    pub fn compiler(self) -> Option<Command> {
        let (program, args) = match self {
            Self::C99 => (tool("CC", "cc"), ["-x", "c", "-std=c99"]),
            Self::C11 => (tool("CC", "cc"), ["-x", "c", "-std=c11"]),
            Self::Cpp17 => (tool("CXX", "c++"), ["-x", "c++", "-std=c++17"]),
        };
        if self == Self::Cpp17 && Command::new(&program).arg("--version").output().is_err() {
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
pub const HEADERS: [&str; 3] = ["shmuring/types.h", "shmuring/layout.h", "shmuring.h"];

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
    let exe = scratch.0.join(source.file_stem().unwrap());
    std::fs::copy(static_library(), scratch.0.join("libshmuring.a")).unwrap();
    let mut cc = Language::C11.compiler().unwrap();
    cc.arg("-I").arg(include()).arg(source).arg("-o").arg(&exe).arg("-L").arg(&scratch.0);
    // What `rustc --print native-static-libs` says the standard library needs.
    run(cc.args(["-lshmuring", "-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"]));
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
