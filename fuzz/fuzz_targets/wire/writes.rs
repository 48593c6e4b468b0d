//! Mutations and terms that clients send to our page server, and the failures that it answers.

use crate::input::Input;
use crate::page_server::{may_fence, may_write, Server, Shard};
use crate::reads::{has, named, shard};
use crate::service::{Mutation, MutationRequest, Retry, ServiceError};
use crate::wire::failure::{code_of, failure_in, failure_out, status_of};
use crate::wire::mutation::{mutation_out, Term};
use crate::wire::proto::write::{self, mutation::Change, ApplyRequest, Failure};

/// A mutation, and bytes for the pages of it.
pub fn mutation(input: &mut Input<'_>, bytes: Vec<u8>) -> MutationRequest {
    let (rel, block, lsn) = (input.rel(), input.number() as u32, input.number());
    let mutation = match input.below(7) {
        0 => Mutation::WritePage { rel, block, lsn, pages: bytes },
        1 => Mutation::Extend { rel, block, lsn, page: bytes },
        2 => Mutation::ZeroExtend { rel, block, count: input.number() as u32, lsn },
        3 => Mutation::Create { rel, lsn },
        4 => Mutation::Truncate { rel, blocks: block, lsn },
        5 => Mutation::Unlink { rel, lsn },
        _ => Mutation::UpdateRelSize { rel, blocks: block, lsn },
    };
    MutationRequest { mutation, first_attempt: input.one_in(2) }
}

/// So many pages, and some bytes more or less; now and then something that every mutation has is missing.
fn odd(input: &mut Input<'_>) -> write::Mutation {
    let odd = input.choose(&[0, 0, 0, 0, 1, 8191]);
    let bytes = vec![input.byte(); input.below(4) * 8192 + odd];
    let mut message = mutation_out(&mutation(input, bytes));
    match input.below(12) {
        0 => message.rel = None,
        1 => message.change = None,
        2 => message.rel.iter_mut().for_each(|r| r.fork_number = input.number() as u32),
        _ => {}
    }
    message
}

/// Whether a shard should take it.
fn is_good(shard: Shard, message: &write::Mutation) -> bool {
    let rel = message.rel.as_ref().and_then(|r| named(r.spc_oid, r.db_oid, r.rel_number, r.fork_number));
    let (pages, most) = match &message.change {
        Some(Change::WritePage(w)) => (Some((w.block_number, w.pages.len())), usize::MAX),
        Some(Change::Extend(e)) => (Some((e.block_number, e.page.len())), 8192),
        _ => (None, 0),
    };
    let fits = |rel, (first, len): (u32, usize)| {
        let count = len / 8192;
        // A block that has no number is none; but that it is the last, an extension may leave to the store.
        let end = u64::from(u32::MAX) + u64::from(most == 8192);
        let is_whole = count > 0 && len % 8192 == 0 && len <= most && u64::from(first) + count as u64 <= end;
        is_whole && has(shard, rel, (first..=u32::MAX).take(count))
    };
    message.change.is_some() && rel.is_some_and(|rel| pages.is_none_or(|p| fits(rel, p)))
}

pub fn groups(input: &mut Input<'_>) {
    let shard = shard(input);
    let server = Server::new(shard, None, None);
    let message = input.message(|input| ApplyRequest {
        term: (!input.one_in(8)).then(|| term(input).out()),
        written_lsn: input.number(),
        mutation: (0..input.below(4)).map(|_| odd(input)).collect(),
        attachment: input.number(),
    });
    let Some(message) = message else { return };
    let is_named = message.term.as_ref().is_some_and(|t| t.region.len() == 16);
    let Ok((term, written, taken)) = server.group(message.clone()) else {
        return assert!(!is_named || message.written_lsn >> 63 == 1);
    };
    assert!(is_named && message.written_lsn >> 63 == 0);
    assert_eq!((Some(term.out()), written), (message.term, message.written_lsn));
    assert_eq!(taken.len(), message.mutation.len());
    for (taken, message) in taken.iter().zip(message.mutation) {
        match taken {
            // All of it was understood: it would be sent the same.
            Ok(request) => assert!(is_good(shard, &message) && mutation_out(request) == message, "{request:?}"),
            Err(e) => assert!(!is_good(shard, &message) && e.errno == libc::EINVAL, "{e}"),
        }
    }
}

/// One of a few terms.
fn term(input: &mut Input<'_>) -> Term {
    let n = input.byte();
    Term { region: 1 << 127 | u128::from(n & 1), life: u32::from(n >> 1 & 3), epoch: u32::from(n >> 3 & 3) }
}

/// Fences and writes of several communicators: only the last term that was let in writes, none comes back.
pub fn fences(input: &mut Input<'_>) {
    let mut last: Option<Term> = None;
    for _ in 0..16 {
        let (new, order) = (term(input), |t: Term| u64::from(t.life) << 32 | u64::from(t.epoch));
        let older = last.is_some_and(|last| last.region == new.region && order(new) < order(last));
        if input.one_in(2) {
            let errno = may_fence(new, last).err().map(|e| e.errno);
            assert_eq!(errno, older.then_some(libc::ESTALE));
            if errno.is_none() {
                last = Some(new);
            }
        } else {
            let errno = may_write(new, last).err().map(|e| e.errno);
            let foreign = last.is_some_and(|last| last.region != new.region);
            let refused = if older || foreign { libc::ESTALE } else { libc::EINVAL };
            assert_eq!(errno, (last != Some(new)).then_some(refused));
        }
    }
}

pub fn terms_and_failures(input: &mut Input<'_>) {
    let term = input.message(|input| {
        let region = (0..input.choose(&[16, 16, 15, 17, 0])).map(|_| input.byte()).collect::<Vec<u8>>().into();
        write::Term { region, life: input.number() as u32, epoch: input.number() as u32 }
    });
    let read = Term::read(term.clone());
    assert_eq!(read.is_ok(), term.as_ref().is_some_and(|t| t.region.len() == 16));
    if let Ok(read) = read {
        assert_eq!(Some(read.out()), term);
    }
    let Some(failure) = input.message(failure) else { return };
    let e = failure_in(failure.clone());
    assert_eq!(e, meant(failure));
    assert_eq!(failure_in(failure_out(&e)), e);
    // A client that is told so does not take a failure for an answer.
    assert!(!matches!(code_of(&e) as i32, 0 | 1) && status_of(&e).code() != tonic::Code::Ok);
}

pub fn failure(input: &mut Input<'_>) -> Failure {
    Failure {
        errno: input.number() as u32,
        message: "why".into(),
        block_number: input.one_in(2).then(|| input.number() as u32),
        retry: input.below(4) as i32,
    }
}

/// What a failure says.
pub fn meant(failure: Failure) -> ServiceError {
    let errno = if (1..4096).contains(&failure.errno) { failure.errno as i32 } else { libc::EIO };
    let retry = if failure.retry == 1 { Retry::Later } else { Retry::Never };
    ServiceError { errno, detail: failure.message, block: failure.block_number, retry }
}
