//! Answers to the communicator: pages of page servers, blocks of standbys.

use bytes::Bytes;
use shmuring::request::{Class, RelTag};

use crate::input::Input;
use crate::page_server::{Server, Shard};
use crate::service::grpc::check::{Asked, Wrong};
use crate::service::standby::answer::{Blocks, Status};
use crate::service::{Read, ReadLsn, What, PAGE_SIZE};
use crate::wire::proto::page_api::{self, GetPageResponse, Page, RequestId};
use crate::wire::read::class_out;
use crate::wire::MAX_KEYS;

/// Lengths that a page may be sent with.
const LENGTHS: [usize; 8] = [PAGE_SIZE, PAGE_SIZE - 1, PAGE_SIZE + 1, 0, 1, PAGE_SIZE / 2, 2 * PAGE_SIZE, PAGE_SIZE];

fn wire_rel(rel: RelTag) -> page_api::RelTag {
    let RelTag { spc_oid, db_oid, rel_number, fork } = rel;
    page_api::RelTag { spc_oid, db_oid, rel_number, fork_number: fork.into() }
}

fn reads(input: &mut Input<'_>) -> Vec<Read> {
    let count = match input.below(4) {
        0 => input.below(80),
        _ => 1 + input.below(4),
    };
    let read = |i| {
        let (rel, block) = (input.rel(), i + u32::from(input.byte() & 1));
        let what = if input.one_in(16) { What::RelSize(rel) } else { What::Page(rel, block) };
        let lsns = ReadLsn {
            request_lsn: input.one_in(4).then(|| 1000 + input.number() % 2),
            not_modified_since: input.number() % 1000,
        };
        Read { what, lsns, attempt: u32::from(input.byte() & 3) }
    };
    (0..count as u32).map(read).collect()
}

/// Every page is asked for once, in a request that means the same to a server.
fn check_requests(reads: &[Read], all: &[Asked], class: Class) {
    let mut asked_for: Vec<usize> = all.iter().flat_map(|a| a.blocks.iter().map(|b| b.0)).collect();
    asked_for.sort_unstable();
    let pages = reads.iter().enumerate().filter(|(_, r)| matches!(r.what, What::Page(..)));
    assert_eq!(asked_for, pages.map(|(i, _)| i).collect::<Vec<_>>());
    let server = Server::new(Shard { number: 0, count: 1, stripe: 8 }, None, None);
    for asked in all {
        assert!((1..=MAX_KEYS).contains(&asked.blocks.len()));
        let mut newest = 0;
        for (i, block) in &asked.blocks {
            assert_eq!(reads[*i].what, What::Page(asked.rel, *block));
            assert_eq!(reads[*i].lsns.request_lsn, asked.lsns.request_lsn);
            newest = reads[*i].lsns.not_modified_since.max(newest);
        }
        assert_eq!(asked.lsns.not_modified_since, newest);
        let request = Input::new(&[]).message(|_| asked.request(class_out(class))).unwrap();
        assert_eq!(crate::wire::read::class_in(request.request_class), class);
        assert_eq!(request.request_id, Some(RequestId { id: asked.id, attempt: asked.attempt }));
        let (rel, lsns, blocks) = server.pages(request).unwrap();
        assert_eq!((rel, lsns.request_lsn), (asked.rel, asked.lsns.request_lsn));
        assert_eq!(lsns.not_modified_since, newest.max(1));
        assert!(blocks.iter().eq(asked.blocks.iter().map(|b| &b.1)));
    }
}

/// The right answer, with some things wrong in it.
fn answer(input: &mut Input<'_>, asked: &Asked) -> GetPageResponse {
    let page = |block: &(usize, u32)| Page { block_number: block.1, image: vec![block.1 as u8; 1].into() };
    let mut a = GetPageResponse {
        request_id: Some(RequestId { id: asked.id, attempt: asked.attempt }),
        status_code: 1,
        reason: String::new(),
        rel: Some(wire_rel(asked.rel)),
        page: asked.blocks.iter().map(page).collect(),
    };
    for _ in 0..input.below(4) {
        let at = input.below(a.page.len().max(1));
        match (input.below(12), a.page.get_mut(at)) {
            (0, _) => a.request_id = None,
            (1, _) => a.request_id = Some(RequestId { id: input.number(), attempt: asked.attempt }),
            (2, _) => a.request_id = Some(RequestId { id: asked.id, attempt: input.number() as u32 }),
            (3, _) => a.status_code = input.number() as i32,
            (4, _) => a.status_code = input.below(8) as i32,
            (5, _) => a.rel = input.one_in(2).then(|| wire_rel(input.rel())),
            (6, _) => a.rel.iter_mut().for_each(|r| r.fork_number = input.number() as u32),
            (7, Some(_)) => drop(a.page.remove(at)),
            (8, Some(page)) => {
                let again = page.clone();
                a.page.push(again);
            }
            (9, Some(_)) => a.page.swap(0, at),
            (10, Some(page)) => page.block_number = page.block_number.wrapping_add(input.number() as u32),
            (_, Some(page)) => page.image = vec![input.byte(); 1].into(),
            _ => {}
        }
    }
    a
}

/// Pages as long as pages are: what an input has of each says how long, and what is in it.
fn inflate(answer: &mut GetPageResponse, usual: bool) {
    for page in &mut answer.page {
        let first = page.image.first().copied().unwrap_or(0);
        let length = if usual { PAGE_SIZE } else { LENGTHS[usize::from(first) % LENGTHS.len()] };
        page.image = vec![first; length].into();
    }
}

/// What the communicator may make of an answer.
#[derive(Debug, PartialEq)]
enum Verdict {
    Pages(Vec<Bytes>),
    Said(i32, String),
    Broken,
}

/// What the model says. It knows the fields of the messages, and what was asked.
fn verdict(id: u64, rel: RelTag, blocks: &[u32], a: &GetPageResponse) -> Verdict {
    if !matches!(a.request_id, Some(RequestId { id: named, .. }) if named == id) {
        return Verdict::Broken;
    }
    let RelTag { spc_oid, db_oid, rel_number, fork } = rel;
    let is_rel = a.rel.as_ref().is_some_and(|r| {
        r.spc_oid == spc_oid && r.db_oid == db_oid && r.rel_number == rel_number && r.fork_number == u32::from(fork)
    });
    let are_blocks = a.page.iter().map(|p| p.block_number).eq(blocks.iter().copied());
    match a.status_code {
        2..=5 => Verdict::Said(a.status_code, a.reason.clone()),
        1 if is_rel && are_blocks && a.page.iter().all(|p| p.image.len() == 8192) => {
            Verdict::Pages(a.page.iter().map(|p| p.image.clone()).collect())
        }
        _ => Verdict::Broken,
    }
}

pub fn pages(input: &mut Input<'_>) {
    let (reads, mut id) = (reads(input), input.number() % 1000);
    let class = input.choose(&[Class::Demand, Class::Prefetch, Class::Background]);
    let all = Asked::of(&reads, &mut || {
        id += 1;
        id
    });
    check_requests(&reads, &all, class);
    if all.is_empty() {
        return;
    }
    let asked = &all[input.below(all.len())];
    let blocks: Vec<u32> = asked.blocks.iter().map(|b| b.1).collect();
    let usual = input.one_in(2);
    let Some(mut answer) = input.message(|input| answer(input, asked)) else { return };
    for _ in 0..2 {
        let got = match asked.pages(answer.clone()) {
            Ok(pages) => Verdict::Pages(pages),
            Err(Wrong::Said(code, reason)) => Verdict::Said(code.into(), reason),
            Err(Wrong::Broken(_)) => Verdict::Broken,
        };
        assert_eq!(got, verdict(asked.id, asked.rel, &blocks, &answer));
        inflate(&mut answer, usual);
    }
}

/// The header and the entries are those of the input, pages are appended: so many as it says, and some bytes more or less.
pub fn standby(input: &mut Input<'_>) {
    let (count, with_pages) = (input.below(5), input.one_in(2));
    let (pages, odd) = (input.below(5), input.choose(&[0, 0, 0, 1, PAGE_SIZE - 1]));
    let mut bytes = input.rest().to_vec();
    bytes.truncate(bytes.len().min(16 + 20 * 5));
    bytes.resize(bytes.len() + pages * PAGE_SIZE + odd, 0xAB);
    let word = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_be_bytes(b.try_into().unwrap()));
    let statuses: Vec<Option<u32>> = (0..count).map(|i| word(16 + 20 * i)).collect();
    let read = statuses.iter().filter(|s| **s == Some(0)).count();
    let wanted = 16 + 20 * count + if with_pages { read * 8192 } else { 0 };
    let is_good =
        word(12) == Some(count as u32) && statuses.iter().all(|s| s.is_some_and(|s| s < 5)) && bytes.len() == wanted;
    let Ok(blocks) = Blocks::parse(&bytes, count, with_pages) else { return assert!(!is_good) };
    assert!(is_good && blocks.entries.len() == count && blocks.pages == bytes[16 + 20 * count..]);
    let long = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!((blocks.read_lsn, blocks.in_recovery), (long(0), word(8) == Some(1)));
    for (i, entry) in blocks.entries.iter().enumerate() {
        let status = [Status::Read, Status::NoRelation, Status::PastEnd, Status::Damaged, Status::NotYet];
        assert_eq!(Some(entry.status), statuses[i].map(|s| status[s as usize]));
        assert_eq!((entry.lsn, entry.digest), (long(20 + 20 * i), long(28 + 20 * i)));
    }
}
