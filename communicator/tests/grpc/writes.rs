//! Writes: fences, order, what each shard hears; and what servers may do wrong.

use crate::support::{batch, block, bytes, client, one, page, patient, soon, Fake, Written, IDS, REL};
use shmuring::lsn::scheduler::Kind;
use shmuring::lsn::shards::Sharding;
use shmuring::request::RelTag;
use shmuring_communicator::service::grpc::GrpcOptions;
use shmuring_communicator::service::{
    Mutation, MutationRequest, PageService, Result, Retry, Watermarks, What, PAGE_SIZE,
};
use shmuring_communicator::wire::mutation::Term;
use shmuring_communicator::wire::proto::write::{ApplyResponse, Failure, MutationResult};
use std::sync::Arc;
use std::time::Duration;

const SHARDING: Sharding = Sharding { count: 3, stripe: 4 };
const TERM: Term = Term { region: 77, life: 1, epoch: 2 };

struct Bed {
    servers: Vec<Fake>,
    c: crate::support::Client,
}

impl Bed {
    fn new(options: GrpcOptions) -> Self {
        let mut servers: Vec<Fake> = (0..3).map(Fake::new).collect();
        let journal = servers[0].journal.clone();
        for server in &mut servers {
            server.kill();
            server.journal = journal.clone();
            server.start();
        }
        let urls: Vec<_> = servers.iter().map(Fake::url).collect();
        let c = client(&format!("{}?{IDS}&stripe=4", urls.join(",")), options);
        c.service.serves(TERM.region);
        Self { servers, c }
    }

    fn fence(&self) {
        self.c.runtime.block_on(self.c.service.fence(TERM.life, TERM.epoch)).unwrap();
    }

    fn apply(&self, group: Vec<Mutation>) -> Vec<Result<u64>> {
        let group = Arc::new(group.into_iter().map(MutationRequest::first).collect());
        self.c.runtime.block_on(self.c.service.apply(TERM.life, TERM.epoch, group))
    }
}

/// A block of a shard.
fn on(shard: u16) -> u32 {
    (0..).find(|b| SHARDING.block(REL, *b) == shard).unwrap()
}

fn write(block: u32, lsn: u64) -> Mutation {
    Mutation::WritePage { rel: REL, block, lsn, pages: page(block, 9) }
}

#[test]
fn every_shard_is_fenced_before_it_is_written_and_again_on_each_new_connection() {
    let bed = Bed::new(patient());
    bed.fence();
    let create = Mutation::Create { rel: REL, lsn: 2000 };
    assert_eq!(bed.apply(vec![create.clone()]), [Ok(1)]);
    for server in &bed.servers {
        assert_eq!(server.written(), [Written::Fence(TERM), Written::Apply(TERM, 1, 2000)]);
    }
    let journal: Vec<u8> = std::mem::take(&mut *bed.servers[0].journal.lock().unwrap());
    assert_eq!((journal.len(), journal[2]), (3, 0), "shard 0 last: {journal:?}");
    bed.servers[1].kill();
    bed.servers[1].start();
    // The first attempt may meet the broken connection; the one after it meets the new.
    assert!(soon(|| bed.apply(vec![create.clone()]) == [Ok(1)]));
    let written = bed.servers[1].written();
    let fences = written.iter().filter(|w| matches!(w, Written::Fence(_))).count();
    let last_fence = written.iter().rposition(|w| matches!(w, Written::Fence(_))).unwrap();
    assert!(fences == 2 && last_fence < written.len() - 1, "{written:?}");
    assert_eq!(bed.servers[2].written().iter().filter(|w| matches!(w, Written::Fence(_))).count(), 1);
}

#[test]
fn pages_go_to_their_shards_and_all_shards_hear_how_far_the_writer_is() {
    let bed = Bed::new(patient());
    bed.fence();
    assert_eq!(bed.apply(vec![write(on(1), 3000), write(on(2), 2500)]), [Ok(1), Ok(1)]);
    assert!(bed.servers[1].written().contains(&Written::Apply(TERM, 1, 3000)));
    // Shard 0 has no page of the group, and hears of it nevertheless: a read there may depend on LSN 3000 by now.
    assert!(soon(|| bed.servers[0].ingest.borrow().0 >= 3000));
    assert!(!bed.servers[0].written().iter().any(|w| matches!(w, Written::Apply(_, 1.., _))));
    let pages = vec![3; 12 * PAGE_SIZE];
    let long = Mutation::WritePage { rel: REL, block: 0, lsn: 5000, pages };
    assert_eq!(bed.apply(vec![long]), [Ok(SHARDING_PARTS)], "one for each part of the fake's answers");
    bed.c.runtime.block_on(bed.c.service.sync()).unwrap();
}

/// A table in which writers have noted LSNs up to this one.
struct Noted(u64);

impl Watermarks for Noted {
    fn ingested(&self, _: usize, _: u64) {}
    fn reconnected(&self, _: usize, _: u64, _: u64) {}
    fn is_noted(&self, what: &What, lsn: u64) -> bool {
        matches!(what, What::Page(REL, _)) && lsn <= self.0
    }
}

#[test]
fn readers_show_servers_what_writers_have_noted_and_nothing_beyond() {
    let bed = Bed::new(GrpcOptions { lsn_wait: Duration::from_millis(200), ..patient() });
    bed.fence();
    let read = |n| bed.c.ask(&batch(Kind::Future, 0, vec![block(on(0), n)])).remove(0);
    let heard =
        |lsn| bed.servers.iter().any(|s| s.written().iter().any(|w| matches!(w, Written::Apply(.., l) if *l >= lsn)));
    // From nowhere: the read waits in vain, and no server goes anywhere for it.
    assert_eq!(read(1 << 40).unwrap_err().retry, Retry::NotYet);
    // By a note: of a write that was withdrawn, say.
    bed.c.service.report_to(Arc::new(Noted(4000)));
    assert!(soon(|| read(4000).is_ok_and(|a| bytes(a) == page(on(0), 0))));
    assert_eq!(read(4001).unwrap_err().retry, Retry::NotYet);
    // What another shard has is written, whoever wrote it.
    bed.servers[2].ingest.send_replace((5000, 0));
    assert!(soon(|| read(5000).is_ok()));
    assert_eq!(read(5001).unwrap_err().retry, Retry::NotYet);
    assert_eq!(bed.apply(vec![write(on(1), 6000)]), [Ok(1)]);
    assert!(soon(|| read(6000).is_ok()));
    assert!(!heard(6001));
    assert_eq!(bed.servers[0].ingest.borrow().0, 6000);
}

#[test]
fn a_server_that_came_back_further_behind_hears_anew_how_far_writers_are() {
    let bed = Bed::new(GrpcOptions { lsn_wait: Duration::from_millis(200), ..patient() });
    bed.fence();
    assert_eq!(bed.apply(vec![write(on(1), 6000)]), [Ok(1)]);
    let behind = &bed.servers[0];
    assert!(soon(|| behind.ingest.borrow().0 == 6000));
    behind.kill();
    behind.ingest.send_replace((1000, 500));
    behind.start();
    // Nobody writes any more, and a read of what was written elsewhere is not to wait for the next who does.
    assert!(soon(|| bed.c.ask(&batch(Kind::Future, 0, vec![block(on(0), 6000)])).remove(0).is_ok()));
    // It is no write: whoever fenced the server meanwhile is left alone.
    let written = behind.written();
    assert_eq!(written.iter().filter(|w| matches!(w, Written::Fence(_))).count(), 1, "{written:?}");
}

#[test]
fn a_fence_of_a_server_that_is_away_comes_before_its_first_mutation() {
    let bed = Bed::new(GrpcOptions { connect: Duration::from_secs(2), answer: Duration::from_secs(2), ..patient() });
    bed.servers[1].kill();
    let e = bed.c.runtime.block_on(bed.c.service.fence(TERM.life, TERM.epoch)).unwrap_err();
    assert!(e.retry == Retry::Reconnect && e.detail.contains("shard 1 of 3"), "{e}");
    for there in [0, 2] {
        assert_eq!(bed.servers[there].written(), [Written::Fence(TERM)]);
        assert_eq!(bed.apply(vec![write(on(there as u16), 2000)]), [Ok(1)]);
    }
    bed.servers[1].start();
    // By itself, and then what was written meanwhile.
    assert!(soon(|| bed.servers[1].ingest.borrow().0 == 2000));
    assert!(soon(|| bed.apply(vec![write(on(1), 3000)]) == [Ok(1)]));
    assert_eq!(bed.servers[1].written().first(), Some(&Written::Fence(TERM)));
}

#[test]
fn a_refusal_counts_for_more_than_a_server_that_is_away() {
    let bed = Bed::new(GrpcOptions { connect: Duration::from_secs(2), answer: Duration::from_secs(2), ..patient() });
    bed.servers[0].kill();
    bed.servers[2].state.lock().unwrap().fence_refused = true;
    let e = bed.c.runtime.block_on(bed.c.service.fence(TERM.life, TERM.epoch)).unwrap_err();
    assert!(e.retry == Retry::Never && e.errno == libc::ESTALE && e.detail.contains("shard 2 of 3"), "{e}");
}

/// Into how many runs the first twelve blocks fall.
const SHARDING_PARTS: u64 = {
    let mut parts = 1;
    let mut block = 1;
    while block < 12 {
        if SHARDING.block(REL, block) != SHARDING.block(REL, block - 1) {
            parts += 1;
        }
        block += 1;
    }
    parts
};

#[test]
fn what_a_shard_refuses_is_told_and_reaches_no_size() {
    let bed = Bed::new(patient());
    bed.fence();
    let failure =
        |errno: i32| Failure { errno: errno as u32, message: "told to refuse".into(), block_number: Some(4), retry: 0 };
    let one = move |r: &shmuring_communicator::wire::proto::write::ApplyRequest| {
        let result = MutationResult { failure: Some(failure(libc::ENOSPC)), value: 0 };
        Some(ApplyResponse { failure: None, result: vec![result; r.mutation.len()] })
    };
    bed.servers[2].state.lock().unwrap().apply = Some(Box::new(one));
    let extend = Mutation::Extend { rel: REL, block: on(2), lsn: 2000, page: page(1, 1) };
    let e = bed.apply(vec![extend]).remove(0).unwrap_err();
    assert_eq!((e.errno, e.retry, e.block), (libc::ENOSPC, Retry::Never, Some(4)), "{e}");
    assert!(e.detail.contains("told to refuse") && e.detail.contains(&bed.servers[2].url()), "{e}");
    assert!(!bed.servers[0].written().iter().any(|w| matches!(w, Written::Apply(_, 1.., _))), "shard 0 has grown");
    // A whole group that is refused, and results that are not as many as mutations.
    let stale = move |_: &_| Some(ApplyResponse { failure: Some(failure(libc::ESTALE)), result: vec![] });
    bed.servers[2].state.lock().unwrap().apply = Some(Box::new(stale));
    let e = bed.apply(vec![write(on(2), 1)]).remove(0).unwrap_err();
    assert_eq!((e.errno, e.retry), (libc::ESTALE, Retry::Never), "{e}");
    let none = |_: &_| Some(ApplyResponse { failure: None, result: vec![] });
    bed.servers[2].state.lock().unwrap().apply = Some(Box::new(none));
    let e = bed.apply(vec![write(on(2), 1)]).remove(0).unwrap_err();
    assert_eq!((e.errno, e.retry), (libc::EPROTO, Retry::Later), "{e}");
    assert!(e.detail.contains("0 results of 1 mutations"), "{e}");
}

#[test]
fn a_server_without_the_write_service_is_only_read_from() {
    let server = Fake::new(1);
    server.state.lock().unwrap().writes_unknown = true;
    let c = one(&server, patient());
    c.runtime.block_on(c.service.fence(1, 1)).unwrap();
    assert_eq!(c.get(7).unwrap(), page(7, 1));
    let group = Arc::new(vec![MutationRequest::first(Mutation::Create { rel: RelTag::default(), lsn: 1 })]);
    let e = c.runtime.block_on(c.service.apply(1, 1, group)).remove(0).unwrap_err();
    assert_eq!((e.errno, e.retry), (libc::EROFS, Retry::Never), "{e}");
    c.runtime.block_on(c.service.sync()).unwrap();
}

#[test]
fn a_server_in_place_of_one_without_the_write_service_is_fenced_by_itself_and_written() {
    let server = Fake::new(1);
    server.state.lock().unwrap().writes_unknown = true;
    // How often it is asked anew.
    let c = one(&server, GrpcOptions { backoff_max: Duration::from_millis(50), ..patient() });
    let apply = || {
        let group = Arc::new(vec![MutationRequest::first(Mutation::Create { rel: REL, lsn: 1 })]);
        c.runtime.block_on(c.service.apply(TERM.life, TERM.epoch, group)).remove(0)
    };
    c.service.serves(TERM.region);
    c.runtime.block_on(c.service.fence(TERM.life, TERM.epoch)).unwrap();
    assert_eq!(apply().unwrap_err().errno, libc::EROFS);
    // Whoever comes next is no better.
    server.kill();
    server.start();
    let asked = server.state.lock().unwrap().unknown;
    assert!(soon(|| server.state.lock().unwrap().unknown > asked + 1));
    assert_eq!(apply().unwrap_err().errno, libc::EROFS);
    assert_eq!(server.written(), []);
    server.kill();
    server.state.lock().unwrap().writes_unknown = false;
    server.start();
    // By itself: nobody writes.
    assert!(soon(|| server.written().first() == Some(&Written::Fence(TERM))), "{:?}", server.written());
    assert!(soon(|| apply() == Ok(1)));
}

#[test]
fn a_write_to_a_server_that_dies_may_be_tried_again() {
    let bed = Bed::new(GrpcOptions { answer: Duration::from_secs(1), ..patient() });
    assert!(soon(|| bed.c.runtime.block_on(bed.c.service.fence(TERM.life, TERM.epoch)).is_ok()));
    // The kernel still accepts connections for it.
    bed.servers[1].kill();
    let e = bed.apply(vec![write(on(1), 1)]).remove(0).unwrap_err();
    assert_eq!(e.retry, Retry::Reconnect, "{e}");
    assert!(e.detail.contains(&bed.servers[1].url()), "{e}");
    bed.servers[1].start();
    assert!(soon(|| bed.apply(vec![write(on(1), 1)]) == [Ok(1)]));
}
