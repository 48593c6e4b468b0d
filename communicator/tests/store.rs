//! The store: what is seen as of when, what survives, and how it says that something is wrong.

use std::path::Path;

use shmuring::request::RelTag;
use shmuring_communicator::service::store::{Store, StoreOptions};
use shmuring_communicator::service::{Mutation, MutationRequest, PageService, ReadLsn, ServiceError, PAGE_SIZE};

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

fn open(path: &Path) -> Store {
    Store::open(path, StoreOptions::default()).unwrap()
}

fn page(byte: u8) -> Vec<u8> {
    vec![byte; PAGE_SIZE]
}

fn one(store: &Store, mutation: Mutation) -> Result<u64, ServiceError> {
    store.apply_group(0, 0, &[MutationRequest::first(mutation)]).remove(0)
}

fn create(store: &Store, lsn: u64) -> Result<u64, ServiceError> {
    one(store, Mutation::Create { rel: REL, lsn })
}

fn extend(store: &Store, block: u32, lsn: u64, byte: u8) -> Result<u64, ServiceError> {
    one(store, Mutation::Extend { rel: REL, block, lsn, page: page(byte) })
}

fn write(store: &Store, block: u32, lsn: u64, byte: u8) -> Result<u64, ServiceError> {
    one(store, Mutation::WritePage { rel: REL, block, lsn, pages: page(byte) })
}

fn truncate(store: &Store, blocks: u32, lsn: u64) -> Result<u64, ServiceError> {
    one(store, Mutation::Truncate { rel: REL, blocks, lsn })
}

fn read(store: &Store, block: u32, lsns: ReadLsn) -> Result<u8, ServiceError> {
    let mut out = page(0xEE);
    store.read_pages(REL, block, 1, lsns, &mut out)?;
    assert!(out.iter().all(|b| *b == out[0]));
    Ok(out[0])
}

fn latest(store: &Store, block: u32) -> Result<u8, i32> {
    read(store, block, ReadLsn::LATEST).map_err(|e| e.errno)
}

fn at(store: &Store, block: u32, lsn: u64) -> Result<u8, i32> {
    read(store, block, ReadLsn::at(lsn)).map_err(|e| e.errno)
}

#[test]
fn a_read_at_an_lsn_sees_what_was_there_then() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    create(&s, 10).unwrap();
    assert_eq!(extend(&s, 0, 20, 1), Ok(1));
    assert_eq!(write(&s, 0, 30, 2), Ok(1));
    assert_eq!(
        [at(&s, 0, 9), at(&s, 0, 19), at(&s, 0, 20), at(&s, 0, 29), at(&s, 0, 30), latest(&s, 0)],
        [Err(libc::ENOENT), Err(libc::ENXIO), Ok(1), Ok(1), Ok(2), Ok(2)]
    );
    // An older image than the newest is seen at its own LSN only.
    write(&s, 0, 25, 3).unwrap();
    assert_eq!([at(&s, 0, 24), at(&s, 0, 25), at(&s, 0, 30), latest(&s, 0)], [Ok(1), Ok(3), Ok(2), Ok(2)]);
    // Of two with one LSN the last applied wins.
    write(&s, 0, 30, 4).unwrap();
    assert_eq!([at(&s, 0, 30), latest(&s, 0)], [Ok(4), Ok(4)]);
    assert_eq!(s.size_of(REL, ReadLsn::at(9)), Ok(None));
    assert_eq!(s.size_of(REL, ReadLsn::LATEST), Ok(Some(1)));
    assert_eq!(s.read_pages(REL, 0, 1, ReadLsn::LATEST, &mut page(0)), Ok(30));
}

#[test]
fn an_image_without_an_lsn_wins_when_it_is_applied_last() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    create(&s, 10).unwrap();
    extend(&s, 0, 30, 1).unwrap();
    write(&s, 0, 0, 2).unwrap();
    assert_eq!((latest(&s, 0), at(&s, 0, 30), at(&s, 0, 29)), (Ok(2), Ok(2), Err(libc::ENXIO)));
    write(&s, 0, 40, 3).unwrap();
    assert_eq!((latest(&s, 0), at(&s, 0, 39)), (Ok(3), Ok(2)));
    // Also when both are of one group.
    let pages = |byte, lsn| MutationRequest::first(Mutation::WritePage { rel: REL, block: 0, lsn, pages: page(byte) });
    s.apply_group(0, 0, &[pages(4, 50), pages(5, 0)]);
    assert_eq!((latest(&s, 0), at(&s, 0, 49)), (Ok(5), Ok(3)));
}

#[test]
fn a_truncated_block_stays_away_when_the_relation_grows_again() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    create(&s, 10).unwrap();
    for b in 0..4 {
        extend(&s, b, 100, 1 + b as u8).unwrap();
    }
    // Its LSN is below the pages': only the order of application says that it came later.
    assert_eq!(truncate(&s, 2, 50), Ok(2));
    assert_eq!((latest(&s, 1), latest(&s, 2)), (Ok(2), Err(libc::ENXIO)));
    let grow = Mutation::ZeroExtend { rel: REL, block: 2, count: 2, lsn: 0 };
    assert_eq!(one(&s, grow), Ok(4));
    assert_eq!((latest(&s, 1), latest(&s, 2), latest(&s, 3)), (Ok(2), Ok(0), Ok(0)));
    write(&s, 3, 60, 9).unwrap();
    assert_eq!((latest(&s, 2), latest(&s, 3)), (Ok(0), Ok(9)));
    s.gc(200).unwrap();
    assert_eq!((latest(&s, 1), latest(&s, 2), latest(&s, 3)), (Ok(2), Ok(0), Ok(9)));
    drop(s);
    let s = open(dir.path());
    assert_eq!((latest(&s, 1), latest(&s, 2), latest(&s, 3)), (Ok(2), Ok(0), Ok(9)));
}

#[test]
fn a_relation_made_again_has_nothing_of_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    create(&s, 10).unwrap();
    extend(&s, 0, 20, 1).unwrap();
    assert_eq!(create(&s, 25).map_err(|e| e.errno), Err(libc::EEXIST));
    one(&s, Mutation::Unlink { rel: REL, lsn: 30 }).unwrap();
    assert_eq!(latest(&s, 0), Err(libc::ENOENT));
    assert_eq!(truncate(&s, 0, 35).map_err(|e| e.errno), Err(libc::ENOENT));
    create(&s, 40).unwrap();
    assert_eq!(latest(&s, 0), Err(libc::ENXIO));
    one(&s, Mutation::UpdateRelSize { rel: REL, blocks: 3, lsn: 50 }).unwrap();
    assert_eq!((latest(&s, 0), at(&s, 0, 29), at(&s, 0, 39)), (Ok(0), Ok(1), Err(libc::ENOENT)));
    assert_eq!(s.gc(60).unwrap().pages, 1);
}

#[test]
fn mutations_may_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    let run = |first: bool| {
        let page = || page(7);
        let group = [
            Mutation::Create { rel: REL, lsn: 10 },
            Mutation::Extend { rel: REL, block: 0, lsn: 20, page: page() },
            Mutation::ZeroExtend { rel: REL, block: 1, count: 3, lsn: 20 },
            Mutation::WritePage { rel: REL, block: 1, lsn: 25, pages: [page(), page()].concat() },
            Mutation::Truncate { rel: REL, blocks: 3, lsn: 30 },
            Mutation::UpdateRelSize { rel: REL, blocks: 3, lsn: 30 },
        ];
        let group = group.map(|mutation| MutationRequest { mutation, first_attempt: first });
        s.apply_group(0, 0, &group).into_iter().collect::<Result<Vec<_>, _>>()
    };
    assert_eq!(run(true), Ok(vec![0, 1, 4, 2, 3, 3]));
    assert_eq!(run(false), Ok(vec![0, 3, 4, 2, 3, 3]));
    assert_eq!([0, 1, 2, 3].map(|b| latest(&s, b)), [Ok(7), Ok(7), Ok(7), Err(libc::ENXIO)]);
    assert_eq!(run(true).map_err(|e| e.errno), Err(libc::EEXIST));
    let unlink = MutationRequest::again(Mutation::Unlink { rel: RelTag { fork: 3, ..REL }, lsn: 1 });
    assert_eq!(s.apply_group(0, 0, &[unlink]), [Ok(0)]);
}

#[test]
fn bad_requests_are_refused_and_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    let errno = |r: Result<u64, ServiceError>| r.map_err(|e| (e.errno, e.block));
    assert_eq!(errno(write(&s, 0, 1, 1)), Err((libc::ENOENT, None)));
    create(&s, 1).unwrap();
    extend(&s, 0, 2, 1).unwrap();
    let two = Mutation::WritePage { rel: REL, block: 0, lsn: 9, pages: [page(8), page(9)].concat() };
    assert_eq!(errno(one(&s, two)), Err((libc::ENXIO, Some(1))));
    assert_eq!(errno(write(&s, u32::MAX, 1, 1)), Err((libc::ENXIO, Some(u32::MAX))));
    assert_eq!(errno(extend(&s, u32::MAX, 1, 1)), Err((libc::EFBIG, Some(u32::MAX))));
    for pages in [vec![], vec![1; 100], vec![1; PAGE_SIZE + 1]] {
        assert_eq!(
            errno(one(&s, Mutation::WritePage { rel: REL, block: 0, lsn: 1, pages: pages.clone() })),
            Err((libc::EINVAL, None))
        );
        assert_eq!(
            errno(one(&s, Mutation::Extend { rel: REL, block: 0, lsn: 1, page: pages })),
            Err((libc::EINVAL, None))
        );
    }
    assert_eq!((latest(&s, 0), s.size_of(REL, ReadLsn::LATEST)), (Ok(1), Ok(Some(1))));
    let bad = |block, count, len: usize| {
        s.read_pages(REL, block, count, ReadLsn::LATEST, &mut vec![0; len]).map_err(|e| (e.errno, e.block))
    };
    assert_eq!(bad(0, 0, 0), Err((libc::EINVAL, None)));
    assert_eq!(bad(0, 1, 100), Err((libc::EINVAL, None)));
    assert_eq!(bad(u32::MAX, 1, PAGE_SIZE), Err((libc::EINVAL, None)));
    assert_eq!(bad(0, 2, 2 * PAGE_SIZE), Err((libc::ENXIO, Some(1))));
    assert_eq!(bad(7, 1, PAGE_SIZE), Err((libc::ENXIO, Some(7))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_refuses_older_communicators_until_the_lock_proves_them_dead() {
    let dir = tempfile::tempdir().unwrap();
    let make = |n| vec![MutationRequest::again(Mutation::Create { rel: RelTag { rel_number: n, ..REL }, lsn: 1 })];
    let errno = |r: Vec<Result<u64, ServiceError>>| r.into_iter().map(|r| r.map_err(|e| e.errno)).collect::<Vec<_>>();
    let s: Box<dyn PageService> = Box::new(open(dir.path()));
    assert_eq!(errno(s.apply(1, 1, make(1).into()).await), [Err(libc::EINVAL)]);
    s.fence(1, 5).await.unwrap();
    s.fence(1, 5).await.unwrap();
    assert_eq!(errno(s.apply(1, 5, make(1).into()).await), [Ok(0)]);
    assert_eq!(errno(s.apply(1, 4, make(1).into()).await), [Err(libc::ESTALE)]);
    s.fence(2, 1).await.unwrap();
    assert_eq!(s.fence(1, 9).await.unwrap_err().errno, libc::ESTALE);
    drop(s);
    let s: Box<dyn PageService> = Box::new(open(dir.path()));
    // A new region counts from the beginning again.
    s.fence(0, 1).await.unwrap();
    assert_eq!(errno(s.apply(0, 1, make(2).into()).await), [Ok(0)]);
    assert_eq!(errno(s.apply(0, 0, make(3).into()).await), [Err(libc::ESTALE)]);
    s.sync().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_of_databases_and_slru_segments_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.put_slru(0, 17, &[5; 3 * PAGE_SIZE]).unwrap();
    assert_eq!(store.put_slru(0, 17, &[0; 33 * PAGE_SIZE]).unwrap_err().errno, libc::EINVAL);
    let s: &dyn PageService = &store;
    assert_eq!(s.read_slru(0, 17, ReadLsn::LATEST).await.unwrap(), vec![5; 3 * PAGE_SIZE]);
    assert_eq!(s.read_slru(1, 17, ReadLsn::LATEST).await.unwrap_err().errno, libc::ENOENT);
    for (n, (db_oid, fork)) in (1u32..).zip([(5, 0), (5, 1), (6, 0)]) {
        let rel = RelTag { db_oid, fork, spc_oid: 1663 + n, ..REL };
        let grow = Mutation::ZeroExtend { rel, block: 0, count: n, lsn: 9 };
        let group = [Mutation::Create { rel, lsn: 5 }, grow].map(MutationRequest::first);
        s.apply(0, 0, group.to_vec().into()).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    }
    assert_eq!(s.db_size(5, ReadLsn::LATEST).await.unwrap(), 3 * PAGE_SIZE as u64);
    assert_eq!(s.db_size(5, ReadLsn::at(5)).await.unwrap(), 0);
    assert_eq!(s.db_size(7, ReadLsn::LATEST).await.unwrap(), 0);
    s.prefetch(RelTag { spc_oid: 1664, ..REL }, 0, 9).await.unwrap();
    assert_eq!(store.list_relations(ReadLsn::LATEST).unwrap().len(), 3);
}

/// Whether every block is read as of each LSN from `whole_from` on as it is read at the latest.
fn is_whole(s: &Store, blocks: u32) -> bool {
    (0..blocks).all(|b| (s.whole_from()..s.whole_from() + 20).all(|lsn| at(s, b, lsn) == latest(s, b)))
}

#[test]
fn mutations_in_the_order_of_their_lsns_are_seen_from_their_own_on() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    create(&s, 10).unwrap();
    extend(&s, 0, 20, 1).unwrap();
    extend(&s, 1, 30, 2).unwrap();
    write(&s, 0, 25, 3).unwrap();
    truncate(&s, 1, 40).unwrap();
    extend(&s, 1, 50, 4).unwrap();
    write(&s, 1, 55, 5).unwrap();
    assert_eq!(s.whole_from(), 0, "each is seen from its own LSN on");
    assert_eq!((at(&s, 0, 25), at(&s, 1, 39), at(&s, 1, 50), at(&s, 1, 55)), (Ok(3), Ok(2), Ok(4), Ok(5)));
}

#[test]
fn what_is_seen_only_from_a_later_lsn_on_is_told_and_remembered() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    create(&s, 100).unwrap();
    // An image from before the create.
    extend(&s, 0, 50, 1).unwrap();
    assert_eq!((at(&s, 0, 50), s.whole_from()), (Err(libc::ENOENT), 100));
    // A change of size with a lower LSN than the one before it.
    extend(&s, 3, 200, 2).unwrap();
    extend(&s, 4, 150, 3).unwrap();
    assert_eq!((at(&s, 4, 150), s.whole_from()), (Err(libc::ENXIO), 200));
    // An image from before the change that made room for it.
    one(&s, Mutation::ZeroExtend { rel: REL, block: 5, count: 3, lsn: 300 }).unwrap();
    write(&s, 6, 250, 4).unwrap();
    assert_eq!((at(&s, 6, 250), s.whole_from()), (Err(libc::ENXIO), 300));
    // Without an LSN: with the version before it.
    write(&s, 6, 400, 5).unwrap();
    assert_eq!(s.whole_from(), 300);
    write(&s, 6, 0, 6).unwrap();
    assert_eq!((at(&s, 6, 399), at(&s, 6, 400), s.whole_from()), (Ok(4), Ok(6), 400));
    assert!(is_whole(&s, 8));
    drop(s);
    let s = open(dir.path());
    assert_eq!(s.whole_from(), 400);
    assert!(is_whole(&s, 8));
}

#[test]
fn blocks_are_read_in_any_order_and_past_the_end_they_are_zero() {
    let dir = tempfile::tempdir().unwrap();
    let s = open(dir.path());
    let missing = s.read_blocks(REL, &[0], ReadLsn::LATEST).map_err(|e| e.errno);
    assert_eq!(missing, Err(libc::ENOENT));
    create(&s, 10).unwrap();
    for b in 0..3 {
        extend(&s, b, 20 + u64::from(b), b as u8 + 1).unwrap();
    }
    let firsts = |lsns| -> Vec<u8> {
        let pages = s.read_blocks(REL, &[2, 0, 7, 1], lsns).unwrap();
        pages.iter().map(|p| if p.len() == PAGE_SIZE { p[0] } else { 0xFF }).collect()
    };
    assert_eq!(firsts(ReadLsn::LATEST), [3, 1, 0, 2]);
    assert_eq!(firsts(ReadLsn::at(21)), [0, 1, 0, 2]);
}
