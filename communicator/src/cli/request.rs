//! `shmuring read`, `write` and `relsize`: one request from the shell, for people and scripts.

use super::failure::{self, Kind};
use super::region::{attach, communicator};
use super::target::{LsnArg, RelArg};
use super::{Failure, Outcome};
use crate::service::{Rel, PAGE_SIZE};
use shmuring::backend::{Backend, Wait};
use shmuring::error::Error;
use shmuring::lsn::rel_size::Size;
use shmuring::region::Region;
use shmuring::request::{Completion, Lsn, Opcode, Request, MISSING};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The largest block number, as in PostgreSQL: the one above it means "no block".
const MAX_BLOCK_NUMBER: i64 = 0xFFFF_FFFE;

/// What every request needs.
#[derive(Debug, clap::Args)]
pub(super) struct Common {
    /// The region that the communicator serves.
    #[arg(long)]
    region: PathBuf,
    /// The relation fork: SPC/DB/REL or SPC/DB/REL.FORK.
    #[arg(long)]
    rel: RelArg,
    /// LSN, HIGH/LOW or decimal: of a read, since when it was not modified; of a write, the page's.
    #[arg(long, default_value_t)]
    lsn: LsnArg,
    /// Milliseconds to wait for the answer.
    #[arg(long, default_value_t = 10_000)]
    timeout: u64,
}

/// Arguments of `read`.
#[derive(Debug, clap::Args)]
pub(super) struct ReadArgs {
    #[command(flatten)]
    common: Common,
    /// First block.
    #[arg(long, allow_hyphen_values = true, value_parser = clap::value_parser!(u32).range(..=MAX_BLOCK_NUMBER))]
    block: u32,
    /// Number of blocks.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=32))]
    count: u8,
    /// Read as of exactly this LSN, past every cache.
    #[arg(long)]
    at: Option<LsnArg>,
    /// Write the raw pages to this file ('-': stdout) instead of a line for each.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Arguments of `write`.
#[derive(Debug, clap::Args)]
pub(super) struct WriteArgs {
    #[command(flatten)]
    common: Common,
    /// First block.
    #[arg(long, allow_hyphen_values = true, value_parser = clap::value_parser!(u32).range(..=MAX_BLOCK_NUMBER))]
    block: u32,
    /// File with the raw pages ('-': stdin), 1 to 32 of them.
    #[arg(long = "in", default_value = "-")]
    input: PathBuf,
    /// Make the relation first.
    #[arg(long)]
    create: bool,
    /// Grow the relation, a block at a time, instead of writing blocks that exist.
    #[arg(long)]
    extend: bool,
    /// Make it durable before answering.
    #[arg(long)]
    sync: bool,
}

/// Arguments of `relsize`.
#[derive(Debug, clap::Args)]
pub(super) struct RelsizeArgs {
    #[command(flatten)]
    common: Common,
    /// A missing relation is an answer ("missing"), not an error.
    #[arg(long)]
    allow_missing: bool,
    /// Ask the communicator even if the region knows the size.
    #[arg(long)]
    ask: bool,
}

/// A backend of one slot (and more if its bounce buffers must carry `blocks` blocks).
fn backend(region: &Region, blocks: u32) -> Result<Backend<'_>, Failure> {
    let per_slot = region.parts().geometry.bounce_per_slot.max(1);
    let slots = blocks.div_ceil(per_slot).clamp(1, region.parts().slots.len() as u32);
    let mut backend =
        Backend::attach_any(region, slots).map_err(|e| failure::of(e, format!("no free request slots: {e}")))?;
    let settling = |e| failure::of(e, format!("settling what an earlier owner of the slots left: {e}"));
    while let Some(leftover) = backend.next_leftover(&Wait::for_ms(1000)).map_err(settling)? {
        eprintln!("shmuring: settled a leftover of slot {}: {:?}", leftover.slot, leftover.fate);
    }
    Ok(backend)
}

/// Sends one request, and turns what went wrong into a sentence.
fn ask(
    b: &mut Backend<'_>,
    region: &Region,
    c: &Common,
    r: &Request<'_>,
    to: &mut [u8],
) -> Result<Completion, Failure> {
    let what = format!("{} of {}", r.opcode.name(), Rel(c.rel.0));
    // A call that gives up withdraws what nobody had claimed.
    let undone = if r.opcode.is_mutation() { "; it was not done" } else { "" };
    let done = b.call(r, &Wait::for_ms(c.timeout), to).map_err(|e| {
        let (ms, who) = (c.timeout, || communicator(region));
        let why = match e {
            Error::CommunicatorGone => format!("no communicator serves {}{undone}", c.region.display()),
            Error::TimedOut => format!("no answer within {ms} ms from the communicator ({}){undone}", who()),
            Error::InProgress => {
                format!(
                    "no answer within {ms} ms; the communicator ({}) has claimed it, so it may still be done",
                    who()
                )
            }
            e => e.to_string(),
        };
        failure::of(e, format!("{what}: {why}"))
    })?;
    if done.is_ok() {
        return Ok(done);
    }
    let reason = match i32::from(done.errno) {
        libc::ENOENT => "there is no such relation".to_string(),
        libc::ENXIO => format!("block {} is past the end of the relation", u64::from(r.block) + { done.value }),
        libc::EROFS => "the page service is read-only".to_string(),
        libc::ERANGE => "older than the history that is kept".to_string(),
        e => sentence(e),
    };
    let kind = if i32::from(done.errno) == libc::ETIMEDOUT { Kind::TimedOut } else { Kind::Answered };
    Err(kind.because(format!("{what}: {reason} (errno {}, attempts {})", { done.errno }, { done.attempts })))
}

/// What the system says of an errno, without its number.
fn sentence(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error").next().unwrap_or_default().to_string()
}

/// Refuses blocks that no relation can have.
fn past_the_last_block(first: u32, count: u8) -> Result<(), Failure> {
    if i64::from(first) + i64::from(count) > MAX_BLOCK_NUMBER + 1 {
        return Err(format!("{count} blocks from {first} on: the largest block number is {MAX_BLOCK_NUMBER}").into());
    }
    Ok(())
}

pub(super) fn read(args: &ReadArgs) -> Outcome {
    past_the_last_block(args.block, args.count)?;
    let region = attach(&args.common.region)?;
    let mut b = backend(&region, u32::from(args.count))?;
    let mut request = Request::get_page(args.common.rel.0, args.block, args.count, args.common.lsn.0);
    if args.at.is_some() {
        request.opcode = Opcode::GetPageAt;
        request.request_lsn = args.at.map(|lsn| lsn.0);
    }
    let mut pages = vec![0; usize::from(args.count) * PAGE_SIZE];
    let done = ask(&mut b, &region, &args.common, &request, &mut pages)?;
    match &args.out {
        Some(path) if path.as_os_str() == "-" => std::io::stdout().write_all(&pages)?,
        Some(path) => std::fs::write(path, &pages).map_err(|e| format!("{}: {e}", path.display()))?,
        None => print_pages(args.block, &pages, done.lsn)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// A line a page: block, page LSN and checksum as PostgreSQL's header has them, and a checksum of all bytes.
fn print_pages(first: u32, pages: &[u8], lsn: Lsn) -> std::io::Result<()> {
    let mut out = std::io::stdout();
    for (page, block) in pages.chunks_exact(PAGE_SIZE).zip(first..) {
        let word = |at: usize| page.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let (high, low, sum) = (word(0), word(4), word(8) & 0xFFFF);
        let crc = crc32c::crc32c(page);
        writeln!(
            out,
            "block {block}: page LSN {high:X}/{low:X}, pd_checksum {sum:04x}, crc32c {crc:08x}, as of {}",
            LsnArg(lsn)
        )?;
    }
    Ok(())
}

pub(super) fn write(args: &WriteArgs) -> Outcome {
    let pages = input(&args.input)?;
    if pages.is_empty() || pages.len() % PAGE_SIZE != 0 || pages.len() / PAGE_SIZE > 32 {
        return Err(format!("{} bytes are not 1 to 32 pages of {PAGE_SIZE} bytes", pages.len()).into());
    }
    let count = (pages.len() / PAGE_SIZE) as u8;
    past_the_last_block(args.block, count)?;
    let (c, rel) = (&args.common, args.common.rel.0);
    let region = attach(&c.region)?;
    let mut b = backend(&region, u32::from(count))?;
    if args.create {
        let mut create = Request::new(Opcode::Create, rel);
        create.lsn = c.lsn.0;
        ask(&mut b, &region, c, &create, &mut [])?;
    }
    if args.extend {
        for (page, block) in pages.chunks_exact(PAGE_SIZE).zip(args.block..) {
            ask(&mut b, &region, c, &Request::extend(rel, block, c.lsn.0, page), &mut [])?;
        }
    } else {
        ask(&mut b, &region, c, &Request::write_page(rel, args.block, count, c.lsn.0, &pages), &mut [])?;
    }
    if args.sync {
        ask(&mut b, &region, c, &Request::new(Opcode::Sync, rel), &mut [])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// More than a request can carry: reading on would not make it right.
const ENOUGH: u64 = 32 * PAGE_SIZE as u64 + 1;

fn input(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        std::io::stdin().take(ENOUGH).read_to_end(&mut bytes)?;
    } else {
        let file = std::fs::File::open(path).and_then(|f| f.take(ENOUGH).read_to_end(&mut bytes));
        file.map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(bytes)
}

pub(super) fn relsize(args: &RelsizeArgs) -> Outcome {
    let c = &args.common;
    let region = attach(&c.region)?;
    let mut b = backend(&region, 0)?;
    let mut request = Request::new(Opcode::RelSize, c.rel.0);
    request.lsn = c.lsn.0;
    request.allow_missing = args.allow_missing;
    let cached = if args.ask { None } else { b.cached_rel_size(c.rel.0) };
    let value = match cached {
        // A fork that is missing where it must not be is told as ever.
        Some(Size { blocks, .. }) if blocks.is_some() || args.allow_missing => blocks.map_or(MISSING, u64::from),
        _ => ask(&mut b, &region, c, &request, &mut [])?.value,
    };
    match value {
        MISSING => writeln!(std::io::stdout(), "missing")?,
        blocks => writeln!(std::io::stdout(), "{blocks}")?,
    }
    Ok(ExitCode::SUCCESS)
}
