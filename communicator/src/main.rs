//! The command `shmuring`: the communicator, and what people need around it.
#![deny(unsafe_code)]

use clap::Parser;
use shmuring_communicator::cli::{run, Args};

fn main() -> std::process::ExitCode {
    run(Args::parse())
}
