//! The command line. One subcommand a file; an error is one line on stderr and an exit code ([`failure`]).

mod child;
#[cfg(feature = "standby")]
mod compare;
mod content;
mod create;
mod demo;
mod failure;
#[cfg(feature = "grpc")]
mod page_server;
mod pool;
mod region;
mod replace;
mod request;
mod serve;
mod settings;
mod shards;
mod simulate;
mod sizes;
mod slots;
mod stat;
mod target;
mod told;
mod torture;
mod watch;

use clap::{Parser, Subcommand};
use failure::Failure;
use std::process::ExitCode;

/// What a command comes to.
type Outcome = Result<ExitCode, Failure>;

/// shmuring: a lock-free shared-memory I/O ring for databases that run a process per connection.
#[derive(Debug, Parser)]
#[command(name = "shmuring", version, about, after_help = failure::EXIT_CODES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a region: the communicator alone, until SIGTERM.
    Serve(serve::Args),
    /// Serve one shard's pages by the page service's protocol: a page server, until SIGTERM.
    #[cfg(feature = "grpc")]
    PageServer(Box<page_server::Args>),
    /// Serve as a child process, started again whenever it dies, until stdin ends or SIGTERM.
    Watch(watch::Args),
    /// Read blocks through a running communicator.
    Read(request::ReadArgs),
    /// Write blocks through a running communicator.
    Write(request::WriteArgs),
    /// Ask for the size of a relation fork through a running communicator.
    Relsize(request::RelsizeArgs),
    /// Start a communicator and backends, and verify every page they exchange.
    Demo(demo::Args),
    /// Make a region.
    Region(create::Args),
    /// Show what a region is doing: slots by state, the oldest request, counters.
    Stat(stat::Args),
    /// Kill and stop backends and communicators at random under full load, and prove that nothing was lost.
    Torture(torture::Args),
    /// Compare the pages of a primary with those of its hot standby, while both are in use.
    #[cfg(feature = "standby")]
    Compare(compare::Args),
    /// Simulate reads under four ways of asking page servers for them, and compare.
    Simulate(simulate::Args),
    /// One backend of a demo.
    #[command(hide = true)]
    DemoBackend(demo::BackendArgs),
    /// One backend of a torture.
    #[command(hide = true)]
    TortureBackend(torture::BackendArgs),
}

impl Command {
    /// Whether it outlives whoever reads what it says.
    const fn is_long_lived(&self) -> bool {
        #[cfg(feature = "grpc")]
        if matches!(self, Self::PageServer(_)) {
            return true;
        }
        matches!(self, Self::Serve(_) | Self::Watch(_) | Self::Demo(_) | Self::Torture(_))
    }
}

/// Lets `shmuring stat | head` end quietly, as Unix commands do; Rust ignores SIGPIPE by default.
#[allow(unsafe_code)]
fn die_with_the_pipe() {
    // SAFETY: sets a default disposition, before any thread is started.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Runs a command to its exit code.
#[must_use]
pub fn run(args: Args) -> ExitCode {
    if !args.command.is_long_lived() {
        die_with_the_pipe();
    }
    let result = match args.command {
        Command::Serve(a) => serve::run(&a),
        #[cfg(feature = "grpc")]
        Command::PageServer(a) => page_server::run(&a),
        Command::Watch(a) => watch::run(&a),
        Command::Read(a) => request::read(&a),
        Command::Write(a) => request::write(&a),
        Command::Relsize(a) => request::relsize(&a),
        Command::Demo(a) => demo::run(&a),
        Command::Region(a) => create::run(&a),
        Command::Stat(a) => stat::run(&a),
        #[cfg(feature = "standby")]
        Command::Compare(a) => compare::run_compare(&a),
        Command::Simulate(a) => simulate::run_all(&a),
        Command::DemoBackend(a) => demo::run_backend(&a),
        Command::Torture(a) => torture::run(&a),
        Command::TortureBackend(a) => torture::run_backend(&a),
    };
    result.unwrap_or_else(|e| {
        eprintln!("shmuring: {e}");
        ExitCode::from(failure::exit_code(&e))
    })
}
