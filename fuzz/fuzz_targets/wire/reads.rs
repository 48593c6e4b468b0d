//! Reads that clients ask our page server for, and whom they say they are.

use shmuring::lsn::shards::Sharding;
use shmuring::request::RelTag;
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::Code;

use crate::input::Input;
use crate::page_server::{Server, Shard};
use crate::wire::metadata::{bearer, Id};
use crate::wire::proto::page_api::{self, GetPageRequest, RequestId};

/// The shard of a server.
pub fn shard(input: &mut Input<'_>) -> Shard {
    let count = input.choose(&[1, 1, 2, 3]);
    Shard { number: input.below(usize::from(count)) as u8, count, stripe: 2 }
}

/// Whether all these blocks are that shard's.
pub fn has(shard: Shard, rel: RelTag, mut blocks: impl Iterator<Item = u32>) -> bool {
    let sharding = Sharding { count: shard.count.into(), stripe: shard.stripe };
    blocks.all(|b| sharding.block(rel, b) == u16::from(shard.number))
}

/// The relation fork that a message names, if it names one.
pub fn named(spc_oid: u32, db_oid: u32, rel_number: u32, fork_number: u32) -> Option<RelTag> {
    let fork = [0, 1, 2, 3].into_iter().find(|f| u32::from(*f) == fork_number)?;
    Some(RelTag { spc_oid, db_oid, rel_number, fork })
}

fn request(input: &mut Input<'_>) -> GetPageRequest {
    let rel = input.rel();
    let fork_number = if input.one_in(8) { input.number() as u32 } else { rel.fork.into() };
    let (first, count) = (input.number() as u32, if input.one_in(4) { input.below(40) } else { 1 });
    GetPageRequest {
        request_id: (!input.one_in(8)).then(|| RequestId { id: input.number(), attempt: 1 }),
        request_class: input.byte().into(),
        read_lsn: (!input.one_in(8)).then(|| page_api::ReadLsn {
            request_lsn: if input.one_in(2) { u64::MAX } else { input.number() },
            not_modified_since_lsn: input.number(),
        }),
        rel: (!input.one_in(8)).then(|| page_api::RelTag {
            spc_oid: rel.spc_oid,
            db_oid: rel.db_oid,
            rel_number: rel.rel_number,
            fork_number,
        }),
        block_number: (0..count as u32).map(|i| first.wrapping_add(i)).collect(),
    }
}

pub fn pages(input: &mut Input<'_>) {
    let shard = shard(input);
    let server = Server::new(shard, None, None);
    let Some(request) = input.message(request) else { return };
    let rel = request.rel.as_ref().and_then(|r| named(r.spc_oid, r.db_oid, r.rel_number, r.fork_number));
    let lsns = request.read_lsn.map(|l| (l.request_lsn, l.not_modified_since_lsn)).filter(|(r, n)| *r > 0 && n <= r);
    let blocks = request.block_number.clone();
    let fits = |rel| (1..=32).contains(&blocks.len()) && has(shard, rel, blocks.iter().copied());
    let want = rel.zip(lsns).filter(|(rel, _)| request.request_id.is_some() && fits(*rel));
    match (server.pages(request), want) {
        (Ok((got_rel, got, got_blocks)), Some((rel, (r, n)))) => {
            assert_eq!((got_rel, got_blocks), (rel, blocks));
            assert_eq!(got.request_lsn, (r != u64::MAX).then_some(r));
            assert_eq!(got.not_modified_since, if n == 0 { r } else { n });
        }
        (Err(e), None) => assert!([libc::EINVAL, libc::E2BIG].contains(&e.errno), "{e}"),
        (got, want) => panic!("{got:?}, and it should be {want:?}"),
    }
}

/// A text, near what belongs there; and whether it is missing.
fn text<'a>(input: &mut Input<'a>, usual: &str) -> Option<Vec<u8>> {
    let mut text = usual.as_bytes().to_vec();
    match input.below(8) {
        0 => return None,
        1 => text.truncate(input.below(text.len() + 1)),
        2 => text.push(input.byte()),
        3 => {
            let at = input.below(text.len());
            text[at] = input.byte();
        }
        4 => text = (0..input.below(40)).map(|_| input.byte()).collect(),
        _ => {}
    }
    Some(text)
}

/// The number that `digits` hex digits spell, and nothing else.
fn hex(text: Option<&[u8]>, digits: usize) -> Option<u128> {
    let text = text.filter(|t| t.len() == digits)?;
    text.iter().try_fold(0, |n, c| Some(n << 4 | u128::from(char::from(*c).to_digit(16)?)))
}

pub fn metadata(input: &mut Input<'_>) {
    let shard = shard(input);
    let server = Server::new(shard, Some(Id(5)), Some(Id(7)));
    let own = format!("{:02x}{:02x}", shard.number, shard.count);
    let fields = [
        ("neon-tenant-id", text(input, &Id(5).to_string())),
        ("neon-timeline-id", text(input, &Id(7).to_string())),
        ("neon-shard-id", if input.one_in(2) { text(input, "0000") } else { text(input, &own) }),
        ("authorization", text(input, "Bearer secret")),
    ];
    let mut metadata = MetadataMap::new();
    let mut sent = [const { None }; 4];
    for (i, (name, value)) in fields.iter().enumerate() {
        // What is no value at all is not let through by HTTP.
        if let Some(value) = value.as_ref().and_then(|v| AsciiMetadataValue::try_from(v.as_slice()).ok()) {
            sent[i] = Some(value.as_bytes().to_vec());
            metadata.insert(*name, value);
        }
    }
    let [tenant, timeline, named, authorization] = sent.each_ref().map(Option::as_deref);
    let named = hex(named, 4).map(|n| ((n >> 8) as u8, n as u8)).filter(|(number, count)| number < &(*count).max(1));
    let is_ours =
        |(number, count): (u8, u8)| (number, count) == (0, 0) || (number, count.max(1)) == (shard.number, shard.count);
    let want = match (hex(tenant, 32), hex(timeline, 32), named) {
        (Some(tenant), Some(timeline), Some(named)) => match (tenant, timeline, is_ours(named)) {
            (5, 7, true) => Code::Ok,
            _ => Code::NotFound,
        },
        _ => Code::InvalidArgument,
    };
    assert_eq!(server.admit(&metadata).map_or_else(|e| e.code(), |()| Code::Ok), want);
    let token = authorization.map(|a| a.strip_prefix(b"Bearer "));
    match (bearer(&metadata), token) {
        (Ok(got), want) => assert_eq!(got.map(str::as_bytes), want.map(|t| t.expect("it is no bearer's"))),
        (Err(_), Some(want)) => assert!(want.is_none_or(|t| t.iter().any(|b| !b.is_ascii_graphic()))),
        (Err(e), None) => panic!("{e}"),
    }
}
