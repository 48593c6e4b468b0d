//! The answers of the server's functions (extension/standby.c has their layout). They come from the network: what is
//! not as it must be is an error.

use crate::service::{Result, ServiceError, PAGE_SIZE};
use shmuring::request::Lsn;

const HEADER: usize = 16;
const ENTRY: usize = 20;

/// What became of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Status {
    /// It was read.
    Read,
    /// There is no such relation fork.
    NoRelation,
    /// It is past the end of the fork.
    PastEnd,
    /// It is no page, or has a wrong checksum.
    Damaged,
    /// WAL was not replayed in time, and nothing was read.
    NotYet,
}

/// One block of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// What became of it.
    pub(crate) status: Status,
    /// The LSN of the page.
    pub(crate) lsn: Lsn,
    /// Of a masked page; 0: the page is all zero.
    pub(crate) digest: u64,
}

/// An answer about blocks.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    /// Every change up to here is in the pages.
    pub(crate) read_lsn: Lsn,
    /// The server is in recovery.
    pub(crate) in_recovery: bool,
    /// In the order of the question.
    pub(crate) entries: Vec<Entry>,
    /// Of the entries that were read, one after the other, if they were asked for.
    pub(crate) pages: Vec<u8>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_be_bytes)
}

fn entry(bytes: &[u8], at: usize) -> Option<Entry> {
    let status = match u32_at(bytes, at)? {
        0 => Status::Read,
        1 => Status::NoRelation,
        2 => Status::PastEnd,
        3 => Status::Damaged,
        4 => Status::NotYet,
        _ => return None,
    };
    Some(Entry { status, lsn: u64_at(bytes, at + 4)?, digest: u64_at(bytes, at + 12)? })
}

fn blocks(bytes: &[u8], count: usize, with_pages: bool) -> Option<Blocks> {
    if u32_at(bytes, 12)? as usize != count {
        return None;
    }
    let entries = (0..count).map(|i| entry(bytes, HEADER + i * ENTRY)).collect::<Option<Vec<_>>>()?;
    let pages = bytes.get(HEADER + count * ENTRY..)?;
    let read = entries.iter().filter(|e| e.status == Status::Read && with_pages).count();
    let in_recovery = u32_at(bytes, 8)? == 1;
    let whole = pages.len() == read * PAGE_SIZE;
    whole.then(|| Blocks { read_lsn: u64_at(bytes, 0).unwrap_or(0), in_recovery, entries, pages: pages.to_vec() })
}

impl Blocks {
    /// The answer to a question for `count` blocks.
    pub(crate) fn parse(bytes: &[u8], count: usize, with_pages: bool) -> Result<Self> {
        blocks(bytes, count, with_pages).ok_or_else(|| {
            let what = format!("an answer of {} bytes for {count} blocks makes no sense", bytes.len());
            ServiceError::new(libc::EPROTO, what)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(statuses: &[u32], pages: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&77u64.to_be_bytes());
        bytes.extend_from_slice(&1u32.to_be_bytes());
        bytes.extend_from_slice(&(statuses.len() as u32).to_be_bytes());
        for s in statuses {
            bytes.extend_from_slice(&s.to_be_bytes());
            bytes.extend_from_slice(&5u64.to_be_bytes());
            bytes.extend_from_slice(&9u64.to_be_bytes());
        }
        bytes.resize(bytes.len() + pages * PAGE_SIZE, 0xAB);
        bytes
    }

    #[test]
    fn answers_are_taken_apart() {
        let b = Blocks::parse(&answer(&[0, 2, 0, 4], 2), 4, true).unwrap();
        assert_eq!((b.read_lsn, b.in_recovery, b.pages.len()), (77, true, 2 * PAGE_SIZE));
        let statuses: Vec<_> = b.entries.iter().map(|e| e.status).collect();
        assert_eq!(statuses, [Status::Read, Status::PastEnd, Status::Read, Status::NotYet]);
        assert_eq!(b.entries[0], Entry { status: Status::Read, lsn: 5, digest: 9 });
        assert!(Blocks::parse(&answer(&[0], 0), 1, false).unwrap().pages.is_empty());
        assert!(Blocks::parse(&answer(&[], 0), 0, true).unwrap().entries.is_empty());
    }

    #[test]
    fn answers_that_are_cut_off_or_of_another_question_are_errors() {
        let good = answer(&[0, 1], 1);
        for n in 0..good.len() {
            assert!(Blocks::parse(&good[..n], 2, true).is_err(), "{n}");
        }
        let wrong = [(answer(&[0, 1], 1), 3, true), (answer(&[0, 1], 1), 2, false), (answer(&[5], 0), 1, true)];
        for (bytes, count, with_pages) in wrong {
            assert!(Blocks::parse(&bytes, count, with_pages).is_err());
        }
    }
}
