//! Writes: fences, groups, and what survives a death.

use crate::support::*;
use shmuring_communicator::service::{Mutation, MutationRequest};
use shmuring_communicator::wire::mutation::Term;
use shmuring_communicator::wire::proto::write::{ApplyRequest, Retry};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

const fn term(life: u32, epoch: u32) -> Term {
    Term { region: 7, life, epoch }
}

/// The errno that a term's writes come to, 0 for success.
async fn writes_as(server: &PageServer, term: Term) -> u32 {
    let again = [MutationRequest::again(create(10))];
    let answer = server.writes().apply(term, &again, 0).await;
    assert_eq!(answer.failure.is_some(), answer.result.is_empty());
    answer.failure.map_or(0, |f| f.errno)
}

#[tokio::test]
async fn a_fence_refuses_older_terms_also_after_a_death_of_the_server() {
    let site = Site::new();
    let server = site.start(&[]);
    let (stale, unknown) = (libc::ESTALE as u32, libc::EINVAL as u32);
    assert_eq!(writes_as(&server, term(1, 1)).await, unknown, "no fence, no write");
    assert_eq!(server.writes().fence(term(1, 4)).await, 0);
    assert_eq!(writes_as(&server, term(1, 4)).await, 0);
    // The next communicator, and then the next life of its server.
    assert_eq!(server.writes().fence(term(1, 5)).await, 0);
    assert_eq!(writes_as(&server, term(1, 4)).await, stale);
    assert_eq!(server.writes().fence(term(1, 4)).await, stale);
    assert_eq!(server.writes().fence(term(2, 1)).await, 0);
    server.kill_9();
    let server = site.start(&[]);
    for old in [term(1, 4), term(1, 5), term(2, 0)] {
        assert_eq!(writes_as(&server, old).await, stale, "{old:?}");
        assert_eq!(server.writes().fence(old).await, stale, "{old:?}");
    }
    assert_eq!(writes_as(&server, term(2, 1)).await, 0, "no new fence is needed");
    assert_eq!(writes_as(&server, term(2, 2)).await, unknown);
    // A region that was made anew counts from the beginning; the one before is out.
    let anew = Term { region: 8, life: 1, epoch: 1 };
    assert_eq!(server.writes().fence(anew).await, 0);
    assert_eq!(writes_as(&server, term(2, 1)).await, stale);
    assert_eq!(writes_as(&server, anew).await, 0);
}

#[tokio::test]
async fn what_was_sent_on_a_connection_that_was_given_up_comes_too_late() {
    let site = Site::new();
    let server = site.start(&[]);
    let mut writer = server.writer().await;
    writer.all(vec![create(10), extend(0, 20, 1)]).await;
    let stale = libc::ESTALE as u32;
    let truncate = |attachment| ApplyRequest {
        term: Some(TERM.out()),
        mutation: vec![shmuring_communicator::wire::mutation::mutation_out(&MutationRequest::first(truncate(0, 30)))],
        written_lsn: 0,
        attachment,
    };
    // On the next connection: the same, and what relies on it.
    assert_eq!(writer.fence_on(2, TERM).await, 0);
    for attachment in [0, 1] {
        let answer = writer.0.apply(truncate(attachment)).await.unwrap().into_inner();
        assert_eq!(answer.failure.map(|f| f.errno), Some(stale));
        assert_eq!(writer.fence_on(attachment, TERM).await, stale);
    }
    assert_eq!(server.size(LATEST, 20).await.unwrap(), Some(1), "nothing was cut");
    assert!(writer.0.apply(truncate(2)).await.unwrap().into_inner().failure.is_none());
    assert_eq!(server.size(LATEST, 30).await.unwrap(), Some(0));
    // The next term counts anew.
    let next = Term { epoch: TERM.epoch + 1, ..TERM };
    assert_eq!(server.writes().fence(next).await, 0);
    assert_eq!(writes_as(&server, next).await, 0);
}

#[tokio::test]
async fn groups_are_applied_in_order_and_each_mutation_has_its_result() {
    let site = Site::new();
    let server = site.start(&[]);
    let mut writer = server.writer().await;
    let enxio = libc::ENXIO as u32;
    let results =
        writer.try_all(vec![create(10), write(0, 20, 1), extend(0, 20, 1), write(0, 30, 2), create(40)]).await;
    assert_eq!(results, [0, enxio, 0, 0, libc::EEXIST as u32]);
    assert_eq!(server.version(0, LATEST, 30).await, Ok(Some(2)));
    // Again, as a successor does: nothing changes.
    let group: Vec<_> = [create(10), extend(0, 20, 1), write(0, 30, 2)].map(MutationRequest::again).into();
    let answer = writer.apply(TERM, &group, 0).await;
    assert!(answer.result.iter().all(|r| r.failure.is_none()), "{answer:?}");
    assert_eq!((server.version(0, LATEST, 30).await, server.size(LATEST, 30).await.unwrap()), (Ok(Some(2)), Some(1)));
    let unlink =
        |again: bool| MutationRequest { mutation: Mutation::Unlink { rel: REL, lsn: 50 }, first_attempt: !again };
    for (again, errno) in [(false, None), (true, None), (false, Some(libc::ENOENT as u32))] {
        let answer = writer.apply(TERM, &[unlink(again)], 0).await;
        assert_eq!(answer.result[0].failure.as_ref().map(|f| f.errno), errno);
    }
    // What is no mutation fails alone.
    let good = shmuring_communicator::wire::mutation::mutation_out(&MutationRequest::first(create(60)));
    let bad = shmuring_communicator::wire::proto::write::Mutation { change: None, ..good.clone() };
    let request = ApplyRequest { term: Some(TERM.out()), mutation: vec![bad, good], written_lsn: 0, attachment: 0 };
    let answer = writer.0.apply(request).await.unwrap().into_inner();
    let errnos: Vec<_> = answer.result.iter().map(|r| r.failure.as_ref().map(|f| (f.errno, f.retry()))).collect();
    assert_eq!(errnos, [Some((libc::EINVAL as u32, Retry::Never)), None]);
    let past_any_wal = writer.apply(TERM, &[], u64::MAX).await;
    assert_eq!(past_any_wal.failure.map(|f| f.errno), Some(libc::EINVAL as u32));
    assert_eq!(writer.try_all(vec![create(u64::MAX)]).await, [libc::EINVAL as u32]);
    assert_eq!(server.ingested().await.last_record_lsn, 60);
}

/// Writes blocks and counts what was acknowledged, until the server is gone.
async fn write_until_it_dies(mut writer: Writes, from: u32, acknowledged: Arc<AtomicU32>) {
    for block in from.. {
        let lsn = u64::from(block) + 100;
        let group = [MutationRequest::first(extend(block, lsn, block + 1))];
        let request = ApplyRequest {
            term: Some(TERM.out()),
            mutation: group.iter().map(shmuring_communicator::wire::mutation::mutation_out).collect(),
            written_lsn: 0,
            attachment: 0,
        };
        let Ok(answer) = soon(writer.0.apply(request)).await else { return };
        let answer = answer.into_inner();
        assert!(answer.failure.is_none() && answer.result[0].failure.is_none(), "{answer:?}");
        acknowledged.store(block + 1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9_in_the_middle_of_writes() {
    let site = Site::new();
    let acknowledged = Arc::new(AtomicU32::new(0));
    for round in 0..5 {
        let server = site.start(&["--memtable", "1"]);
        let mut writer = server.writer().await;
        if round == 0 {
            writer.all(vec![create(10)]).await;
        }
        let had = acknowledged.load(Ordering::SeqCst);
        let at = server.ingested().await.last_record_lsn;
        assert!(had == 0 || at >= u64::from(had) + 99, "{at}");
        for block in (0..had).filter(|b| b % 37 == 0 || b + 40 > had) {
            assert_eq!(server.version(block, LATEST, u64::from(block) + 100).await, Ok(Some(block + 1)));
        }
        let writing = tokio::spawn(write_until_it_dies(writer, had, acknowledged.clone()));
        soon(async {
            while acknowledged.load(Ordering::SeqCst) < had + 50 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        server.kill_9();
        soon(writing).await.unwrap();
    }
    assert!(acknowledged.load(Ordering::SeqCst) >= 250);
}

#[tokio::test]
async fn word_of_ingest_comes_and_a_sync_makes_it_durable() {
    let site = Site::new();
    let server = site.start(&["--checkpoint-every", "0"]);
    let mut writer = server.writer().await;
    let mut words = writer.watch().await;
    let first = soon(words.message()).await.unwrap().unwrap();
    assert_eq!((first.last_record_lsn, first.disk_consistent_lsn), (1, 0));
    writer.all(vec![create(10), extend(0, 20, 1)]).await;
    writer.written(500).await;
    soon(async { while words.message().await.unwrap().unwrap().last_record_lsn < 500 {} }).await;
    writer.sync().await;
    assert_eq!(server.ingested().await.disk_consistent_lsn, 500);
    writer.written(900).await;
    assert_eq!(server.ingested().await.last_record_lsn, 900);
    server.kill_9();
    let server = site.start(&[]);
    let word = server.ingested().await;
    assert_eq!((word.last_record_lsn, word.disk_consistent_lsn), (500, 500), "what was synced");
    assert_ne!(word.incarnation, first.incarnation);
}

#[tokio::test]
async fn a_store_has_one_server_and_a_damaged_record_is_refused() {
    let site = Site::new();
    let server = site.start(&[]);
    let refused = site.try_start(&[]).err().unwrap();
    assert!(refused.contains("in use by another process"), "{refused}");
    server.kill_9();
    let record = site.path("store").join("PAGE_SERVER");
    let mut bytes = std::fs::read(&record).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&record, bytes).unwrap();
    let refused = site.try_start(&[]).err().unwrap();
    assert!(refused.contains("record") && refused.contains("damaged"), "{refused}");
}
