//! `shmuring region create`: a region before anybody serves it, for embedders and start scripts.

use super::failure::Kind;
use super::sizes::Sizes;
use super::Outcome;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Arguments of `region`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a region (mode 0600), best under /dev/shm; 'serve' does so too if it finds none.
    Create(Create),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// Where.
    #[arg(long)]
    region: PathBuf,
    #[command(flatten)]
    sizes: Sizes,
    /// One that is there is no error, if it has the sizes that are asked for.
    #[arg(long)]
    if_not_exists: bool,
}

pub(super) fn run(args: &Args) -> Outcome {
    let Command::Create(args) = &args.command;
    let path = args.region.display();
    let there = || {
        Kind::Refused
            .because(format!("{path}: it is there already; --if-not-exists is content with one of the same sizes"))
    };
    // Asked first, so that one of other sizes, or what is no region, is told as being there too.
    if !args.if_not_exists && args.region.symlink_metadata().is_ok() {
        return Err(there());
    }
    let found = args.sizes.attach_or_create(&args.region)?;
    if !found.is_new && !args.if_not_exists {
        return Err(there());
    }
    let slots = found.region.parts().slots.len();
    let what = if found.is_new { "made" } else { "there already" };
    writeln!(std::io::stdout(), "{path}: {what}, {slots} slots, {} bytes", found.bytes)?;
    Ok(ExitCode::SUCCESS)
}
