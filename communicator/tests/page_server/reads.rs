//! What reads see, what they wait for, and what is wrong with them.

use crate::support::*;
use shmuring_communicator::service::store::{Store, StoreOptions};
use shmuring_communicator::wire::proto::page_api::*;
use shmuring_communicator::wire::proto::write;
use shmuring_communicator::wire::read::rel_out;
use std::time::Duration;
use tonic::codec::CompressionEncoding;
use tonic::Code;
use GetPageStatusCode::{InternalError, InvalidRequest, NotFound};

/// Blocks 0 to 2 at LSN 100, block 0 again at 200.
async fn fill(server: &PageServer) -> Writes {
    let mut writer = server.writer().await;
    writer.all(vec![create(50), extend(0, 100, 1), extend(1, 100, 1), extend(2, 100, 1), write(0, 200, 2)]).await;
    writer
}

#[tokio::test]
async fn reads_are_as_of_the_lower_of_what_is_asked_for_and_what_is_ingested() {
    let site = Site::new();
    let server = site.start(&[]);
    fill(&server).await;
    assert_eq!(server.version(0, LATEST, 200).await, Ok(Some(2)));
    assert_eq!(server.version(0, LATEST, 1).await, Ok(Some(2)));
    assert_eq!(server.version(0, 199, 100).await, Ok(Some(1)));
    assert_eq!(server.version(0, 199, 0).await, Ok(Some(1)), "not_modified_since is the request LSN");
    // Far ahead of what is ingested, and no wait: nothing has changed since.
    assert_eq!(server.version(1, 1 << 40, 150).await, Ok(Some(1)));
    assert_eq!(server.size(99, 50).await.unwrap(), Some(0));
    assert_eq!(server.size(LATEST, 50).await.unwrap(), Some(3));
    assert_eq!(server.size(49, 49).await.unwrap(), None);
    let answer = server.pages(&[2, 0, 1], LATEST, 1).await;
    assert_eq!(answer.page.iter().map(|p| p.block_number).collect::<Vec<_>>(), [2, 0, 1], "in the order asked for");
    assert_eq!(answer.rel, Some(rel_out(REL)));
}

#[tokio::test]
async fn what_is_not_there_is_zero_or_not_found() {
    let site = Site::new();
    let server = site.start(&[]);
    fill(&server).await;
    assert_eq!(server.version(3, LATEST, 1).await, Ok(None), "past the end");
    assert_eq!(server.version(u32::MAX, LATEST, 1).await, Ok(None));
    let missing = shmuring::request::RelTag { rel_number: 9, ..REL };
    let mut stream = server.stream().await;
    stream.ask(missing, &[0], LATEST, 1).await;
    assert_eq!(version(&stream.answer().await), Err(NotFound));
    let size =
        |allow_missing| GetRelSizeRequest { read_lsn: lsns(LATEST, 1), rel: Some(rel_out(missing)), allow_missing };
    let found = server.reads().get_rel_size(size(true)).await.unwrap().into_inner();
    assert!(found.missing && found.num_blocks == 0);
    assert_eq!(server.reads().get_rel_size(size(false)).await.unwrap_err().code(), Code::NotFound);
    let db = |db_oid| GetDbSizeRequest { read_lsn: lsns(LATEST, 1), db_oid };
    assert_eq!(server.reads().get_db_size(db(5)).await.unwrap().into_inner().num_bytes, 3 * 8192);
    assert_eq!(server.reads().get_db_size(db(6)).await.unwrap().into_inner().num_bytes, 0);
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_and_the_stream_lives_on() {
    let site = Site::new();
    let server = site.start(&[]);
    fill(&server).await;
    let mut stream = server.stream().await;
    let good = GetPageRequest {
        request_id: Some(RequestId { id: 77, attempt: 3 }),
        request_class: -5,
        read_lsn: lsns(LATEST, 1),
        rel: Some(rel_out(REL)),
        block_number: vec![1],
    };
    let too_many = GetPageRequest { block_number: (0..33).collect(), ..good.clone() };
    let no_fork = RelTag { fork_number: 4, ..rel_out(REL) };
    for (bad, code) in [
        (GetPageRequest { read_lsn: lsns(0, 0), ..good.clone() }, InvalidRequest),
        (GetPageRequest { read_lsn: lsns(10, 11), ..good.clone() }, InvalidRequest),
        (GetPageRequest { read_lsn: None, ..good.clone() }, InvalidRequest),
        (GetPageRequest { rel: None, ..good.clone() }, InvalidRequest),
        (GetPageRequest { rel: Some(no_fork), ..good.clone() }, InvalidRequest),
        (GetPageRequest { block_number: vec![], ..good.clone() }, InvalidRequest),
        (GetPageRequest { request_id: None, ..good.clone() }, InvalidRequest),
        (too_many, InternalError),
    ] {
        let id = bad.request_id;
        stream.send(bad.clone()).await;
        let answer = stream.answer().await;
        assert_eq!((version(&answer), answer.request_id), (Err(code), id), "{bad:?}");
        stream.send(good.clone()).await;
        let answer = stream.answer().await;
        assert_eq!((version(&answer), answer.request_id), (Ok(Some(1)), good.request_id));
    }
    let all = GetPageRequest { block_number: (0..32).collect(), ..good };
    stream.send(all).await;
    assert_eq!(stream.answer().await.page.len(), 32);
    let no_lsn = GetRelSizeRequest { read_lsn: None, rel: Some(rel_out(REL)), allow_missing: false };
    assert_eq!(server.reads().get_rel_size(no_lsn).await.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn bytes_that_are_no_message_end_the_call_and_nothing_else() {
    let site = Site::new();
    let server = site.start(&[]);
    fill(&server).await;
    let mut grpc = tonic::client::Grpc::new(server.channel());
    grpc.ready().await.unwrap();
    // Field 1 has a number where this message has bytes.
    let term = write::Term { region: vec![1; 16].into(), life: 1, epoch: 1 };
    let mut request = tonic::Request::new(write::FenceRequest { term: Some(term), shard: None, attachment: 0 });
    Caller::default().target.write(None, request.metadata_mut());
    let codec = tonic_prost::ProstCodec::<write::FenceRequest, GetRelSizeResponse>::default();
    let path = "/page_api.PageService/GetRelSize".parse().unwrap();
    let answer = soon(grpc.unary(request, path, codec)).await;
    assert_eq!(answer.unwrap_err().code(), Code::Internal);
    assert_eq!(server.version(0, LATEST, 1).await, Ok(Some(2)));
}

#[tokio::test]
async fn a_read_waits_for_its_lsn_and_holds_up_only_what_is_behind_it_on_its_stream() {
    let site = Site::new();
    let server = site.start(&[]);
    let mut writer = fill(&server).await;
    let (mut future, mut other) = (server.stream().await, server.stream().await);
    let first = future.ask(REL, &[1], LATEST, 300).await;
    let second = future.ask(REL, &[0], LATEST, 200).await;
    // READY ones go on beside it.
    for _ in 0..20 {
        other.ask(REL, &[0], LATEST, 200).await;
        assert_eq!(version(&other.answer().await), Ok(Some(2)));
    }
    assert!(!future.has_answer(Duration::from_millis(50)).await, "neither the read of LSN 300 nor that behind it");
    writer.all(vec![write(1, 300, 3)]).await;
    let answer = future.answer().await;
    assert_eq!((version(&answer), answer.request_id.unwrap().id), (Ok(Some(3)), first));
    let answer = future.answer().await;
    assert_eq!((version(&answer), answer.request_id.unwrap().id), (Ok(Some(2)), second));
    // What nobody wrote here counts as ingested once the writer says so.
    future.ask(REL, &[2], LATEST, 1000).await;
    writer.written(1000).await;
    assert_eq!(version(&future.answer().await), Ok(Some(1)));
}

#[tokio::test]
async fn an_lsn_that_does_not_come_in_time_is_an_error_and_the_stream_lives_on() {
    let site = Site::new();
    let server = site.start(&["--wait-lsn", "0.2"]);
    fill(&server).await;
    let mut stream = server.stream().await;
    stream.ask(REL, &[0], LATEST, 201).await;
    stream.ask(REL, &[0], LATEST, 0).await;
    stream.ask(REL, &[0], 150, 100).await;
    let late = stream.answer().await;
    assert_eq!(version(&late), Err(InternalError));
    assert!(late.reason.contains("0/C9"), "{late:?}");
    assert_eq!(version(&stream.answer().await), Err(InternalError), "without one it waits for the largest LSN");
    assert_eq!(version(&stream.answer().await), Ok(Some(1)));
    assert_eq!(server.size(LATEST, 201).await.unwrap_err().code(), Code::Internal);
}

#[tokio::test]
async fn slru_segments_are_served_and_base_backups_are_refused_by_name() {
    let site = Site::new();
    let segment: Vec<u8> = (0..3 * 8192_u32).map(|i| i as u8).collect();
    let store = Store::open(&site.path("store"), StoreOptions::default()).unwrap();
    store.put_slru(1, 7, &segment).unwrap();
    drop(store);
    let server = site.start(&[]);
    let ask = |kind, segno| GetSlruSegmentRequest { read_lsn: lsns(LATEST, 1), kind, segno };
    let mut reads = server.reads();
    assert!(reads.get_slru_segment(ask(1, 7)).await.unwrap().into_inner().segment == segment);
    assert_eq!(reads.get_slru_segment(ask(1, 8)).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(reads.get_slru_segment(ask(3, 7)).await.unwrap_err().code(), Code::InvalidArgument);
    let backup = reads.get_base_backup(GetBaseBackupRequest::default()).await.unwrap_err();
    assert_eq!(backup.code(), Code::Unimplemented);
    assert!(backup.message().contains("base backups"), "{backup}");
}

#[tokio::test]
async fn below_the_horizon_nothing_is_read_or_leased_and_above_it_both() {
    let site = Site::new();
    let server = site.start(&["--history", "50", "--forget-every", "0.02", "--lease", "0"]);
    let mut writer = fill(&server).await;
    writer.written(1000).await;
    soon(async { while server.version(0, 949, 200).await != Err(InvalidRequest) {} }).await;
    assert_eq!(server.version(0, 950, 200).await, Ok(Some(2)));
    assert_eq!(server.version(0, LATEST, 200).await, Ok(Some(2)));
    assert_eq!(server.size(949, 200).await.unwrap_err().code(), Code::InvalidArgument);
    let lease = |lsn| LeaseLsnRequest { lsn };
    assert_eq!(server.reads().lease_lsn(lease(949)).await.unwrap_err().code(), Code::FailedPrecondition);
    assert!(server.reads().lease_lsn(lease(950)).await.unwrap().into_inner().expires.is_some());
}

#[tokio::test]
async fn compressed_requests_are_accepted() {
    let site = Site::new();
    let server = site.start(&[]);
    fill(&server).await;
    let reads = server.reads().send_compressed(CompressionEncoding::Gzip).accept_compressed(CompressionEncoding::Gzip);
    let mut stream = Pages::open(reads).await.unwrap();
    stream.ask(REL, &[0], LATEST, 1).await;
    assert_eq!(version(&stream.answer().await), Ok(Some(2)));
}

#[tokio::test]
async fn at_sigterm_streams_end_as_unavailable_and_all_is_there_afterwards() {
    let site = Site::new();
    let server = site.start(&[]);
    let mut writer = fill(&server).await;
    let (mut waits, mut idle) = (server.stream().await, server.stream().await);
    waits.ask(REL, &[0], LATEST, 5000).await;
    idle.ask(REL, &[0], LATEST, 1).await;
    assert_eq!(version(&idle.answer().await), Ok(Some(2)));
    let mut words = writer.watch().await;
    soon(words.message()).await.unwrap();
    let mut size = server.reads();
    let request = GetRelSizeRequest { read_lsn: lsns(LATEST, 5000), rel: Some(rel_out(REL)), allow_missing: true };
    let unary = tokio::spawn(async move { size.get_rel_size(request).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.drain().await, Some(0));
    for mut stream in [waits, idle] {
        assert_eq!(stream.next().await.unwrap_err().code(), Code::Unavailable);
    }
    let unary = soon(unary).await.unwrap().unwrap_err();
    assert_eq!(unary.code(), Code::Unavailable, "{unary}");
    let ended = soon(async {
        loop {
            match words.message().await {
                Ok(Some(_)) => {}
                other => return other,
            }
        }
    });
    assert_eq!(ended.await.unwrap_err().code(), Code::Unavailable);
    let server = site.start(&[]);
    assert_eq!(server.version(0, LATEST, 200).await, Ok(Some(2)));
}
