//! Communicators in C, as children of the test.
#![allow(dead_code)] // Each test binary uses its own part.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

/// A program that says a line when it begins to serve, and ends at SIGTERM; killed when it is dropped.
pub struct InC {
    pub child: Child,
    said: BufReader<ChildStdout>,
    /// What it said when it began to serve.
    pub serving: String,
}

impl InC {
    /// Returns once it serves.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut serving = String::new();
        said.read_line(&mut serving).unwrap();
        Self { child, said, serving }
    }

    /// The next line that it says.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that was not waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Asks for the end; gives what it said last.
    pub fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        let mut last = String::new();
        self.said.read_to_string(&mut last).unwrap();
        assert!(self.child.wait().unwrap().success());
        last
    }
}

impl Drop for InC {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
