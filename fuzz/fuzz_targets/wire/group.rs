//! A group of mutations there and back: split over shards, taken by their servers, answered by whoever.

use std::collections::BTreeSet;

use shmuring::lsn::shards::Sharding;

use crate::input::Input;
use crate::page_server::{Server, Shard};
use crate::service::grpc::check::{results, segment, NoResults};
use crate::service::grpc::{of_code, of_status, Journey};
use crate::service::{Mutation, MutationRequest, Result, Retry, ServiceError};
use crate::wire::mutation::{mutation_out, Term};
use crate::wire::proto::page_api::{GetPageStatusCode, GetSlruSegmentResponse};
use crate::wire::proto::write::{ApplyRequest, ApplyResponse, MutationResult};
use crate::writes::{failure, meant, mutation};

/// One that a scheduler would send. The first byte of a page says which of the mutation's it is.
fn whole(input: &mut Input<'_>) -> MutationRequest {
    let pages = 1 + input.below(6);
    let bytes = (0..pages).flat_map(|i| vec![i as u8; 8192]).collect();
    let mut request = mutation(input, bytes);
    match &mut request.mutation {
        Mutation::WritePage { block, .. } => *block = (*block).min(u32::MAX - 8),
        Mutation::Extend { block, page, .. } => {
            *block = (*block).min(u32::MAX - 8);
            page.truncate(8192);
        }
        _ => {}
    }
    request
}

/// The results of so many mutations, or others.
fn answer(input: &mut Input<'_>, count: usize) -> ApplyResponse {
    let count = if input.one_in(8) { input.below(6) } else { count };
    ApplyResponse {
        failure: input.one_in(8).then(|| failure(input)),
        result: (0..count)
            .map(|_| MutationResult { failure: input.one_in(6).then(|| failure(input)), value: input.number() })
            .collect(),
    }
}

/// What the model makes of an answer.
fn verdict(answer: ApplyResponse, count: usize) -> std::result::Result<Vec<Result<u64>>, Option<ServiceError>> {
    match answer.failure {
        Some(failure) => Err(Some(meant(failure))),
        None if answer.result.len() != count => Err(None),
        None => Ok(answer.result.into_iter().map(|r| r.failure.map_or(Ok(r.value), |f| Err(meant(f)))).collect()),
    }
}

/// What the model knows of one mutation.
#[derive(Clone, Default)]
struct Known {
    has_failed: bool,
    value: u64,
    /// Pages of it that a server took.
    pages: BTreeSet<usize>,
}

impl Known {
    /// Takes note of the pages of a part; each comes once, and is the one of its block.
    fn took(&mut self, all: &Mutation, part: &Mutation) {
        let (first, block, bytes) = match (all, part) {
            (Mutation::WritePage { block: first, .. }, Mutation::WritePage { block, pages, .. }) => {
                (first, block, pages)
            }
            (Mutation::Extend { block: first, .. }, Mutation::Extend { block, page, .. }) => (first, block, page),
            _ => return,
        };
        for (i, page) in ((block - first) as usize..).zip(bytes.chunks(8192)) {
            assert!(self.pages.insert(i) && page.len() == 8192 && page.iter().all(|b| usize::from(*b) == i));
        }
    }

    fn came(&mut self, all: &Mutation, result: &Result<u64>) {
        match (result, all) {
            (Err(_), _) => self.has_failed = true,
            (Ok(n), Mutation::WritePage { .. }) => self.value = self.value.saturating_add(*n),
            (Ok(n), _) => self.value = *n,
        }
    }
}

fn pages_of(mutation: &Mutation) -> usize {
    match mutation {
        Mutation::WritePage { pages, .. } => pages.len() / 8192,
        Mutation::Extend { .. } => 1,
        _ => 0,
    }
}

pub fn journey(input: &mut Input<'_>) {
    let count = 1 + input.below(3) as u8;
    let group: Vec<_> = (0..=input.below(4)).map(|_| whole(input)).collect();
    let mut journey = Journey::new(&group, Sharding { count: count.into(), stripe: 2 });
    let mut known = vec![Known::default(); group.len()];
    for number in (1..count).chain([0]) {
        let part = journey.take(number.into());
        assert!(part.iter().all(|(i, _)| !known[*i].has_failed));
        if part.is_empty() {
            continue;
        }
        let server = Server::new(Shard { number, count, stripe: 2 }, None, None);
        let request = ApplyRequest {
            term: Some(Term::default().out()),
            written_lsn: 7,
            mutation: part.iter().map(|(_, r)| mutation_out(r)).collect(),
            attachment: 3,
        };
        let request = Input::new(&[]).message(|_| request).unwrap();
        let (_, _, taken) = server.group(request).unwrap();
        assert!(taken.into_iter().eq(part.iter().map(|(_, r)| Ok(r.clone()))));
        for (i, request) in &part {
            known[*i].took(&group[*i].mutation, &request.mutation);
        }
        let Some(answer) = input.message(|input| answer(input, part.len())) else { return };
        let want = verdict(answer.clone(), part.len());
        let got = results(answer, part.len()).map_err(|e| match e {
            NoResults::Refused(e) => Some(e),
            NoResults::Broken(_) => None,
        });
        assert_eq!(got, want);
        let got = got.map_err(|e| e.unwrap_or_else(|| ServiceError::new(libc::EPROTO, "no answer")));
        for (at, (i, _)) in part.iter().enumerate() {
            known[*i].came(&group[*i].mutation, &got.as_ref().map_or_else(|e| Err(e.clone()), |r| r[at].clone()));
        }
        journey.add(&part, got);
    }
    let results = journey.results();
    assert_eq!(results.len(), group.len());
    for ((result, known), request) in results.into_iter().zip(known).zip(group) {
        assert_eq!(result.ok(), (!known.has_failed).then_some(known.value), "{:?}", request.mutation.lsn());
        // No page was left out of what is said to be done.
        assert!(known.has_failed || known.pages.len() == pages_of(&request.mutation));
    }
}

/// What servers say in place of an answer, and segments. No word of a server's is success, nor a missing relation but
/// where it names one.
pub fn words(input: &mut Input<'_>) {
    let code = tonic::Code::from_i32(i32::from(input.byte()));
    let e = of_status(&tonic::Status::new(code, String::from_utf8_lossy(&[input.byte(), b'!'])));
    assert!((1..4096).contains(&e.errno) && e.errno != libc::ENOENT && e.retry != Retry::NotYet, "{e}");
    if let Ok(code) = GetPageStatusCode::try_from(input.below(8) as i32) {
        let gave_up = input.one_in(2);
        let e = of_code(code, "why", gave_up);
        assert!((1..4096).contains(&e.errno) && e.detail.ends_with("why"), "{e}");
        assert_eq!(e.errno == libc::ENOENT, code == GetPageStatusCode::NotFound);
        assert!(e.retry != Retry::NotYet || (gave_up && e.errno == libc::EAGAIN));
    }
    let length = input.below(36) * 8192 + input.choose(&[0, 0, 1, 8191]);
    let byte = input.byte();
    let sent = input.message(|_| GetSlruSegmentResponse { segment: vec![byte; length].into() });
    let Some(GetSlruSegmentResponse { segment: sent }) = sent else { return };
    let is_whole = sent.len() % 8192 == 0 && sent.len() <= 32 * 8192;
    assert_eq!(segment(sent.clone()).ok(), is_whole.then(|| sent.to_vec()));
}
