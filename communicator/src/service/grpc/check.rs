//! GetPages requests of a batch, and what answers are checked for: no page gets through that is not the one asked for, and
//! no result that is not a mutation's.

use crate::service::{self, Read, ReadLsn, Rel, ServiceError, What, PAGE_SIZE};
use crate::wire::failure::failure_in;
use crate::wire::proto::page_api::{GetPageClass, GetPageRequest, GetPageResponse, GetPageStatusCode, RequestId};
use crate::wire::proto::write::{ApplyResponse, MutationResult};
use crate::wire::read::{lsns_out, rel_out};
use crate::wire::MAX_KEYS;
use bytes::Bytes;
use shmuring::request::{Lsn, RelTag};
use std::fmt;

/// What an SLRU segment has at most.
const SEGMENT: usize = 32 * PAGE_SIZE;

/// One request, and which reads of the batch it is for.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name on the stream.
    pub id: u64,
    /// The fork that all blocks are of.
    pub rel: RelTag,
    /// As of when; the largest not_modified_since of its reads, which holds for each of them.
    pub lsns: ReadLsn,
    /// Most attempts that one of the reads had.
    pub attempt: u32,
    /// Index of the read in the batch, and its block.
    pub blocks: Vec<(usize, u32)>,
}

/// Why an answer gives no pages.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The server says why; the stream goes on.
    Said(GetPageStatusCode, String),
    /// It is no answer to the request: nothing more on this stream can be trusted.
    Broken(String),
}

impl Asked {
    /// The requests for the pages of a batch: each of one relation and one request LSN, of at most 32 blocks, in the order
    /// of their first reads. `next_id` names them.
    pub fn of(reads: &[Read], next_id: &mut dyn FnMut() -> u64) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for (index, read) in reads.iter().enumerate() {
            let What::Page(rel, block) = read.what else { continue };
            let fits = |a: &&mut Self| {
                a.rel == rel && a.lsns.request_lsn == read.lsns.request_lsn && a.blocks.len() < MAX_KEYS
            };
            match all.iter_mut().rev().find(fits) {
                Some(asked) => {
                    let n = &mut asked.lsns.not_modified_since;
                    *n = read.lsns.not_modified_since.max(*n);
                    asked.attempt = asked.attempt.max(read.attempt);
                    asked.blocks.push((index, block));
                }
                None => {
                    let (lsns, attempt) = (read.lsns, read.attempt);
                    all.push(Self { id: next_id(), rel, lsns, attempt, blocks: vec![(index, block)] });
                }
            }
        }
        all
    }

    /// For the wire.
    #[must_use]
    pub fn request(&self, class: GetPageClass) -> GetPageRequest {
        GetPageRequest {
            request_id: Some(RequestId { id: self.id, attempt: self.attempt }),
            request_class: class.into(),
            read_lsn: Some(lsns_out(self.lsns)),
            rel: Some(rel_out(self.rel)),
            block_number: self.blocks.iter().map(|b| b.1).collect(),
        }
    }

    /// The pages of an answer, in the order of the blocks.
    pub fn pages(&self, answer: GetPageResponse) -> Result<Vec<Bytes>, Wrong> {
        let broken = |why: String| Err(Wrong::Broken(why));
        let id = answer.request_id.unwrap_or_default().id;
        if id != self.id {
            return broken(format!("an answer to request {id}, not to {}", self.id));
        }
        match GetPageStatusCode::try_from(answer.status_code) {
            Ok(GetPageStatusCode::Ok) => {}
            Ok(GetPageStatusCode::Unknown) | Err(_) => return broken(format!("status code {}", answer.status_code)),
            Ok(code) => return Err(Wrong::Said(code, answer.reason)),
        }
        if answer.rel != Some(rel_out(self.rel)) {
            return broken(format!("pages of relation {:?}", answer.rel));
        }
        if answer.page.len() != self.blocks.len() {
            return broken(format!("{} pages, not {}", answer.page.len(), self.blocks.len()));
        }
        for (page, (_, block)) in answer.page.iter().zip(&self.blocks) {
            if page.block_number != *block {
                return broken(format!("block {} in place of {block}", page.block_number));
            }
            if page.image.len() != PAGE_SIZE {
                return broken(format!("a page of {} bytes for block {block}", page.image.len()));
            }
        }
        Ok(answer.page.into_iter().map(|p| p.image).collect())
    }
}

/// An SLRU segment of an answer: whole pages; else what is wrong with it.
pub fn segment(segment: Bytes) -> Result<Vec<u8>, String> {
    match segment.len() {
        len if len.is_multiple_of(PAGE_SIZE) && len <= SEGMENT => Ok(segment.into()),
        len => Err(format!("a segment of {len} bytes")),
    }
}

/// Why an answer to a group of mutations gives no results.
#[derive(Debug, PartialEq, Eq)]
pub enum NoResults {
    /// The server says why: nothing was applied.
    Refused(ServiceError),
    /// It is no answer to the group.
    Broken(String),
}

/// What each of a group's `count` mutations has come to.
pub fn results(answer: ApplyResponse, count: usize) -> Result<Vec<service::Result<u64>>, NoResults> {
    let ApplyResponse { failure, result } = answer;
    if let Some(failure) = failure {
        return Err(NoResults::Refused(failure_in(failure)));
    }
    if result.len() != count {
        return Err(NoResults::Broken(format!("{} results of {count} mutations", result.len())));
    }
    let one = |MutationResult { failure, value }| failure.map_or(Ok(value), |f| Err(failure_in(f)));
    Ok(result.into_iter().map(one).collect())
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relation {} block", Rel(self.rel))?;
        if self.blocks.len() > 1 {
            f.write_str("s")?;
        }
        for (i, (_, block)) in self.blocks.iter().enumerate() {
            write!(f, "{}{block}", if i == 0 { " " } else { "," })?;
        }
        f.write_str(" (")?;
        write_lsns(self.lsns, f)?;
        f.write_str(")")
    }
}

/// Both LSNs of a read.
pub(super) fn write_lsns(lsns: ReadLsn, f: &mut impl fmt::Write) -> fmt::Result {
    let print = |lsn: Lsn| format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF);
    match lsns.request_lsn {
        Some(r) => write!(f, "as of {}", print(r))?,
        None => f.write_str("latest")?,
    }
    write!(f, ", not modified since {}", print(lsns.not_modified_since))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::proto::page_api::Page;

    const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 9, fork: 0 };

    fn read(rel_number: u32, block: u32, n: Lsn) -> Read {
        let lsns = ReadLsn { request_lsn: None, not_modified_since: n };
        Read { what: What::Page(RelTag { rel_number, ..REL }, block), lsns, attempt: block }
    }

    fn ask(reads: &[Read]) -> Vec<Asked> {
        let mut id = 0;
        Asked::of(reads, &mut || {
            id += 1;
            id
        })
    }

    #[test]
    fn requests_are_of_one_relation_one_request_lsn_and_32_blocks() {
        let mut reads: Vec<_> = (0..40).map(|b| read(9, b, 100 - u64::from(b))).collect();
        reads.push(read(8, 1, 7));
        reads.push(Read { lsns: ReadLsn::at(50), ..read(9, 41, 0) });
        reads.push(Read { what: What::RelSize(REL), ..read(9, 0, 0) });
        let asked = ask(&reads);
        let sizes: Vec<_> = asked.iter().map(|a| (a.id, a.rel.rel_number, a.blocks.len())).collect();
        assert_eq!(sizes, [(1, 9, 32), (2, 9, 8), (3, 8, 1), (4, 9, 1)]);
        assert_eq!((asked[0].lsns.not_modified_since, asked[0].attempt), (100, 31));
        assert_eq!(asked[3].lsns, ReadLsn::at(50));
        assert_eq!(asked[2].to_string(), "relation 1663/5/8.0 block 1 (latest, not modified since 0/7)");
    }

    #[test]
    fn only_the_pages_that_were_asked_for_get_through() {
        let asked = &ask(&[read(9, 4, 1), read(9, 6, 1)])[0];
        let page = |block, len| Page { block_number: block, image: vec![block as u8; len].into() };
        let good = GetPageResponse {
            request_id: Some(RequestId { id: 1, attempt: 0 }),
            status_code: 1,
            reason: String::new(),
            rel: Some(rel_out(REL)),
            page: vec![page(4, PAGE_SIZE), page(6, PAGE_SIZE)],
        };
        assert_eq!(asked.pages(good.clone()).unwrap()[1][0], 6);
        let broken = |change: &dyn Fn(&mut GetPageResponse)| {
            let mut answer = good.clone();
            change(&mut answer);
            matches!(asked.pages(answer), Err(Wrong::Broken(_)))
        };
        assert!(broken(&|a| a.request_id = None));
        assert!(broken(&|a| a.request_id = Some(RequestId { id: 2, attempt: 0 })));
        assert!(broken(&|a| a.status_code = 0) && broken(&|a| a.status_code = 77));
        assert!(broken(&|a| a.rel = None));
        assert!(broken(&|a| a.rel = Some(rel_out(RelTag { fork: 1, ..REL }))));
        assert!(broken(&|a| a.page.truncate(1)) && broken(&|a| a.page.push(page(7, PAGE_SIZE))));
        assert!(broken(&|a| a.page.swap(0, 1)));
        assert!(broken(&|a| a.page[1] = page(6, PAGE_SIZE - 1)) && broken(&|a| a.page[0] = page(4, 0)));
        let slow = GetPageResponse { status_code: 5, reason: "busy".into(), ..good };
        assert_eq!(asked.pages(slow), Err(Wrong::Said(GetPageStatusCode::SlowDown, "busy".into())));
    }
}
