//! READY and FUTURE: what waits for WAL holds nothing else up, and waiting is no failure.

use crate::support::{batch, block, bytes, one, page, patient, soon, Act, Client, Fake, Reports, Told, REL};
use shmuring::lsn::scheduler::Kind;
use shmuring_communicator::service::grpc::GrpcOptions;
use shmuring_communicator::service::{PageService, Read, Retry, What};
use shmuring_communicator::wire::proto::page_api::{GetPageResponse, GetPageStatusCode};
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;

/// Sends a FUTURE read, and gives what it comes to once it is there.
fn park(c: &Client, read: Read) -> std::sync::mpsc::Receiver<shmuring_communicator::service::Result<Vec<u8>>> {
    let (to, answer) = std::sync::mpsc::channel();
    let service = c.service.clone();
    c.runtime.spawn(async move {
        service.read_batch(&batch(Kind::Future, 0, vec![read]), &mut |_, a| drop(to.send(a.map(bytes)))).await;
    });
    answer
}

#[test]
fn reads_that_wait_for_wal_share_no_stream_with_those_that_do_not() {
    let server = Fake::new(1);
    server.ingest.send_replace((100, 0));
    let c = one(&server, patient());
    let parked: Vec<_> = (0..4).map(|i| park(&c, block(i, 5000 + u64::from(i)))).collect();
    assert!(soon(|| server.asked() == 4));
    for i in 0..200 {
        // Single ones, and bulk.
        let many: Vec<_> = (0..1 + i % 8).map(|b| block(10 + b, 50)).collect();
        let count = many.len();
        let answers = c.ask(&batch(Kind::Ready, 0, many));
        assert!(answers.len() == count && answers.iter().all(Result::is_ok));
    }
    assert!(parked.iter().all(|p| p.try_recv().is_err()), "answered before its WAL came");
    server.ingest.send_replace((5002, 0));
    for (i, parked) in (0..3).zip(&parked) {
        assert_eq!(parked.recv_timeout(Duration::from_secs(30)).unwrap().unwrap(), page(i, 1));
    }
    assert!(parked[3].try_recv().is_err());
    // One stream each for the four, one for the single ones, one for bulk.
    assert_eq!(server.state.lock().unwrap().streams, 6);
}

#[test]
fn an_internal_error_of_a_server_that_is_behind_is_a_wait_and_no_failure() {
    let server = Fake::new(1);
    server.ingest.send_replace((100, 0));
    let c = one(&server, patient());
    let reports = Reports::default();
    c.service.report_to(Arc::new(reports.clone()));
    c.get(1).unwrap();
    reports.wait_for(&Told::Ingested(0, 100));
    server.ingest.send_replace((3000, 0));
    server.hook(|_, good| {
        let code = GetPageStatusCode::InternalError.into();
        Act::Answer(GetPageResponse { status_code: code, reason: "no".into(), page: vec![], ..good })
    });
    reports.wait_for(&Told::Ingested(0, 3000));
    let ask = |kind, n| c.ask(&batch(kind, 0, vec![block(7, n)])).remove(0).unwrap_err();
    // It has that, so it did not wait: something else is wrong.
    assert_eq!(ask(Kind::Future, 2000).retry, Retry::Later);
    // The server says that it is behind, whatever we believed.
    server.ingest.send_replace((200, 0));
    reports.wait_for(&Told::Ingested(0, 200));
    let server_does_not_wait = server.clone();
    server.hook(move |_, good| {
        server_does_not_wait.ingest.send_replace((200, 0));
        let code = GetPageStatusCode::InternalError.into();
        Act::Answer(GetPageResponse { status_code: code, reason: "no".into(), page: vec![], ..good })
    });
    let waiting = park(&c, block(7, 2000));
    assert!(soon(|| {
        // For a moment, so that the fake's own wait ends; then it is behind again, and says so.
        server.ingest.send_replace((2000, 0));
        waiting.try_recv().is_ok_and(|a| a.is_err_and(|e| e.retry != Retry::Never))
    }));
}

#[test]
fn a_call_for_a_size_that_waits_too_long_goes_back_to_those_that_wait() {
    let server = Fake::new(1);
    server.ingest.send_replace((100, 0));
    let c = one(&server, GrpcOptions { lsn_wait: Duration::from_millis(100), ..patient() });
    for what in [What::RelSize(REL), What::Page(REL, 7)] {
        let read = Read { what, ..block(7, 0x9_0000_0001) };
        let e = c.ask(&batch(Kind::Future, 0, vec![read])).remove(0).unwrap_err();
        assert_eq!((e.errno, e.retry), (libc::EAGAIN, Retry::NotYet), "{e}");
        assert!(e.detail.contains("9/1") && e.detail.contains("shard 0"), "{e}");
    }
    assert_eq!(c.get(7).unwrap(), page(7, 1), "the attachment is as good as before");
    let behind = |name: &'static str| (name == "get_rel_size").then(|| Status::internal("timed out"));
    server.state.lock().unwrap().single = Some(Box::new(behind));
    let size = |n| Read { what: What::RelSize(REL), ..block(0, n) };
    assert!(soon(|| {
        let e = c.ask(&batch(Kind::Future, 0, vec![size(5000)])).remove(0).unwrap_err();
        e.retry == Retry::NotYet
    }));
    let e = c.ask(&batch(Kind::Future, 0, vec![size(50)])).remove(0).unwrap_err();
    assert_eq!(e.retry, Retry::Later, "{e}");
}
