//! Answers that are not what was asked for, and what servers say in place of one.

use crate::support::{batch, block, bytes, client, one, page, patient, Act, Fake, BLOCKS, IDS, REL, ZERO};
use prost::Message;
use shmuring::lsn::scheduler::Kind;
use shmuring::request::{Class, RelTag};
use shmuring_communicator::service::grpc::GrpcOptions;
use shmuring_communicator::service::{PageService, Read, ReadBatch, ReadLsn, Retry, Value, What, PAGE_SIZE};
use shmuring_communicator::wire::proto::page_api::{GetPageClass, GetPageResponse, GetPageStatusCode, Page, RequestId};
use shmuring_communicator::wire::read::rel_out;
use std::time::Duration;
use tonic::{Code, Status};

#[test]
fn pages_come_in_one_request_a_relation_with_class_attempt_and_target() {
    let server = Fake::new(1);
    let c = one(&server, patient());
    let reads: Vec<Read> = (0..40).map(|b| Read { attempt: 2, ..block(b, 100) }).collect();
    let whole = ReadBatch { class: Class::Prefetch, ..batch(Kind::Ready, 0, reads) };
    for (number, answer) in (0..40).zip(c.ask(&whole)) {
        assert_eq!(bytes(answer.unwrap()), page(number, 1));
    }
    let state = server.state.lock().unwrap();
    let sizes: Vec<_> = state.asked.iter().map(|a| a.2.block_number.len()).collect();
    assert_eq!((sizes, state.streams), (vec![32, 8], 1));
    let (target, token, request) = &state.asked[0];
    assert_eq!((target.tenant.0, target.timeline.0, target.shard.to_string()), (0xaa, 0xbb, "0000".into()));
    assert_eq!((token, request.request_class()), (&None, GetPageClass::Prefetch));
    let lsn = request.read_lsn.unwrap();
    assert_eq!((lsn.request_lsn, lsn.not_modified_since_lsn), (u64::MAX, 100), "r is the latest when it is sent");
    assert_eq!(request.request_id.unwrap().attempt, 2);
}

#[test]
fn no_wrong_answer_is_ever_a_page() {
    let server = Fake::new(1);
    let c = one(&server, patient());
    type Change = fn(&mut GetPageResponse);
    let changes: [(&str, Change); 14] = [
        ("no request id", |a| a.request_id = None),
        ("another request", |a| a.request_id.as_mut().unwrap().id += 1),
        ("status code 0", |a| a.status_code = 0),
        ("status code 77", |a| a.status_code = 77),
        ("no relation", |a| a.rel = None),
        ("another relation", |a| a.rel = Some(rel_out(RelTag { rel_number: 1, ..REL }))),
        ("another fork", |a| a.rel = Some(rel_out(RelTag { fork: 1, ..REL }))),
        ("another block", |a| a.page[0].block_number += 1),
        ("blocks in another order", |a| a.page.reverse()),
        ("too few", |a| a.page.truncate(1)),
        ("too many", |a| a.page.push(a.page[0].clone())),
        ("a short page", |a| a.page[1].image = vec![1; PAGE_SIZE - 1].into()),
        ("a long page", |a| a.page[0].image = vec![1; 2 * PAGE_SIZE].into()),
        ("an empty page", |a| a.page[1].image = vec![].into()),
    ];
    for (what, change) in changes {
        server.hook(move |_, mut good| {
            change(&mut good);
            Act::Answer(good)
        });
        let reads = vec![Read { attempt: 3, ..block(7, 0x2_0000_0015) }, block(9, 20)];
        server.ingest.send_replace((u64::MAX >> 1, 0));
        for answer in c.ask(&batch(Kind::Ready, 0, reads)) {
            let e = answer.expect_err(what);
            assert_eq!((e.errno, e.retry), (libc::EPROTO, Retry::Later), "{what}: {e}");
            for word in [&server.url(), "shard 0 of 1", "1663/5/16384.0", "7,9", "2/15", "attempt 4"] {
                assert!(e.detail.contains(word), "{what}: {e}");
            }
        }
        server.behave();
        assert_eq!(c.get(7).unwrap(), page(7, 1), "after {what}");
    }
}

#[test]
fn what_a_server_says_of_one_request_leaves_the_stream_alone() {
    let server = Fake::new(1);
    let c = one(&server, patient());
    let cases = [
        (GetPageStatusCode::NotFound, libc::ENOENT, Retry::Never),
        (GetPageStatusCode::InvalidRequest, libc::EINVAL, Retry::Never),
        (GetPageStatusCode::InternalError, libc::EIO, Retry::Later),
        (GetPageStatusCode::SlowDown, libc::EBUSY, Retry::Later),
    ];
    for (code, errno, retry) in cases {
        server.hook(move |request, good| {
            let is_other = request.rel.unwrap().rel_number == 8;
            let says = "block 7 is on shard 3";
            let bad = GetPageResponse { status_code: code.into(), reason: says.into(), page: vec![], ..good.clone() };
            Act::Answer(if is_other { good } else { bad })
        });
        let other = Read { what: What::Page(RelTag { rel_number: 8, ..REL }, 1), ..block(1, 1) };
        let mut answers = c.ask(&batch(Kind::Ready, 0, vec![block(7, 1), other]));
        assert_eq!(bytes(answers.pop().unwrap().unwrap()), page(1, 1));
        let e = answers.pop().unwrap().unwrap_err();
        assert_eq!((e.errno, e.retry, e.block), (errno, retry, Some(7)), "{e}");
        assert!(e.detail.contains("block 7 is on shard 3") && e.detail.contains(&server.url()), "{e}");
    }
    assert_eq!(server.state.lock().unwrap().streams, 1);
}

#[test]
fn every_status_of_a_stream_or_a_call_is_a_named_error_or_a_retry() {
    let server = Fake::new(1);
    let c = one(&server, patient());
    for code in (1..17).map(Code::from_i32) {
        for at_once in [true, false] {
            if at_once {
                // An idle stream would be used once more.
                server.hook(|_, _| Act::End);
                assert_eq!(c.get(7).unwrap_err().errno, libc::ECONNABORTED);
                server.behave();
                let status = Status::new(code, "told to say so");
                server.state.lock().unwrap().single =
                    Some(Box::new(move |name| (name != "watch").then(|| status.clone())));
            } else {
                server.hook(move |_, _| Act::Status(Status::new(code, "told to say so")));
            }
            let e = c.get(7).unwrap_err();
            let again = [Code::Aborted, Code::Cancelled, Code::DeadlineExceeded, Code::ResourceExhausted];
            let expected = match code {
                Code::Unavailable => Retry::Reconnect,
                Code::Internal | Code::Unknown => Retry::Later,
                code if again.contains(&code) => Retry::Later,
                _ => Retry::Never,
            };
            assert_eq!(e.retry, expected, "{code:?}: {e}");
            assert_ne!(e.errno, libc::ENOENT, "{code:?}: {e}: the relation may be there");
            assert!(e.detail.contains("told to say so") && e.detail.contains("attempt 1"), "{e}");
            let size = Read { what: What::RelSize(REL), ..block(0, 1) };
            if at_once {
                let e = c.ask(&batch(Kind::Ready, 0, vec![size])).remove(0).unwrap_err();
                assert_eq!(e.retry, expected, "{code:?}: {e}");
                assert!(e.detail.contains("size of relation 1663/5/16384.0"), "{e}");
            }
            server.behave();
            assert_eq!(c.get(7).unwrap(), page(7, 1), "after {code:?}");
        }
    }
}

#[test]
fn a_zero_page_is_what_the_size_of_the_relation_makes_it() {
    let server = Fake::new(1);
    let c = one(&server, patient());
    assert_eq!(c.get(ZERO).unwrap(), vec![0; PAGE_SIZE], "a block that was never written");
    let e = c.get(BLOCKS).unwrap_err();
    assert_eq!((e.errno, e.block, e.retry), (libc::ENXIO, Some(BLOCKS), Retry::Never), "{e}");
    let gone = Read { what: What::Page(RelTag { rel_number: 3, ..REL }, ZERO), ..block(0, 1) };
    let e = c.ask(&batch(Kind::Ready, 0, vec![gone])).remove(0).unwrap_err();
    assert_eq!((e.errno, e.block), (libc::ENOENT, Some(ZERO)), "{e}");
}

#[test]
fn sizes_and_segments_come_by_calls_of_their_own() {
    let server = Fake::new(1);
    let c = one(&server, patient());
    let read = |what| Read { what, ..block(0, 1) };
    let gone = RelTag { rel_number: 3, ..REL };
    let reads = vec![
        read(What::RelSize(REL)),
        read(What::RelSize(gone)),
        read(What::DbSize(5)),
        read(What::Slru(0, 0)),
        read(What::Slru(1, 5)),
        read(What::Near(REL, 3)),
        block(4, 1),
    ];
    let mut answers = c.ask(&batch(Kind::Ready, 0, reads)).into_iter();
    let mut next = || answers.next().unwrap();
    assert!(matches!(next().unwrap().value, Value::RelSize(Some(BLOCKS))));
    assert!(matches!(next().unwrap().value, Value::RelSize(None)));
    assert!(matches!(next().unwrap().value, Value::DbSize(12345)));
    assert!(matches!(next().unwrap().value, Value::Segment(s) if s.len() == 2 * PAGE_SIZE));
    let e = next().unwrap_err();
    assert!(e.errno == libc::EPROTO && e.detail.contains("16389 bytes"), "{e}");
    assert!(matches!(next().unwrap().value, Value::Near));
    assert_eq!(bytes(next().unwrap()), page(4, 1));
    let run = |f| c.runtime.block_on(f);
    assert_eq!(run(c.service.rel_size(REL, ReadLsn::LATEST)), Ok(Some(BLOCKS)));
    let mut out = vec![0; 3 * PAGE_SIZE];
    c.runtime.block_on(c.service.get_pages(REL, 5, 3, ReadLsn::LATEST, &mut out)).unwrap();
    assert_eq!(out, [page(5, 1), page(6, 1), page(7, 1)].concat());
}

/// What a server that knows no gRPC, or no protobuf, sends.
#[test]
fn malformed_messages_are_errors_and_no_pages() {
    let frame = |message: &[u8]| [&[0][..], &(message.len() as u32).to_be_bytes(), message].concat();
    let cases: [(&str, u16, &str, Vec<u8>); 6] = [
        ("an answer of another type", 200, "application/grpc", frame(&[0x08, 1])),
        ("nonsense", 200, "application/grpc", frame(&[0xff; 40])),
        ("a length without bytes", 200, "application/grpc", vec![0, 0, 0, 1, 0, 1]),
        ("a length of 4 GB", 200, "application/grpc", vec![0, 255, 255, 255, 255]),
        ("a compression nobody asked for", 200, "application/grpc", vec![1, 0, 0, 0, 1, 1]),
        ("a page of the web", 404, "text/html", b"<html>".to_vec()),
    ];
    for (what, status, kind, body) in cases {
        let server = raw_server(status, kind, body);
        let short = Duration::from_secs(20);
        let c = client(&format!("http://{server}?{IDS}"), GrpcOptions { outage: short, ..patient() });
        let e = c.get(7).expect_err(what);
        assert!(e.detail.contains("block 7") && e.detail.contains(&server), "{what}: {e}");
        assert_ne!(e.errno, libc::ENOENT, "{what}: {e}");
    }
}

#[test]
fn an_answer_that_is_longer_than_any_is_refused_by_its_length() {
    // Of 2 MiB, in which a million pages of nothing would have room.
    let server = raw_server(200, "application/grpc", vec![0, 0, 32, 0, 0]);
    let c = client(&format!("http://{server}?{IDS}"), patient());
    let e = c.get(7).expect_err("no page");
    assert!(e.detail.contains("length too large") && e.detail.contains(&server), "{e}");
}

#[test]
fn a_connection_that_breaks_in_the_middle_of_a_page_is_an_error_and_no_page() {
    let good = GetPageResponse {
        request_id: Some(RequestId { id: 1, attempt: 0 }),
        status_code: GetPageStatusCode::Ok.into(),
        reason: String::new(),
        rel: Some(rel_out(REL)),
        page: vec![Page { block_number: 7, image: page(7, 1).into() }],
    };
    let message = good.encode_to_vec();
    let whole = [&[0][..], &(message.len() as u32).to_be_bytes(), &message].concat();
    for sent in [0, 3, 5, 100, whole.len() - 1] {
        let server = serve_raw(200, "application/grpc", whole[..sent].to_vec(), Ends::Broken);
        let c = client(&format!("http://{server}?{IDS}"), patient());
        let e = c.get(7).expect_err("half a page");
        assert!(e.retry == Retry::Reconnect && e.detail.contains(&server), "{sent} bytes: {e}");
    }
}

/// How a server's answers end.
#[derive(Clone, Copy, PartialEq)]
enum Ends {
    Well,
    /// With their connection.
    Broken,
}

fn raw_server(status: u16, kind: &'static str, body: Vec<u8>) -> String {
    serve_raw(status, kind, body, Ends::Well)
}

/// An HTTP/2 server that answers every request so. It ends with the process.
fn serve_raw(status: u16, kind: &'static str, body: Vec<u8>, ends: Ends) -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    socket.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let socket = tokio::net::TcpListener::from_std(socket).unwrap();
            loop {
                let (tcp, _) = socket.accept().await.unwrap();
                let body = body.clone();
                tokio::spawn(async move {
                    let Ok(mut h2) = h2::server::handshake(tcp).await else { return };
                    while let Some(Ok((_, mut respond))) = h2.accept().await {
                        let head = http::Response::builder().status(status).header("content-type", kind);
                        let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), false) else { continue };
                        let _ = stream.send_data(body.clone().into(), ends == Ends::Well);
                        if ends == Ends::Broken {
                            // What is sent goes out meanwhile, or it does not.
                            let _ = tokio::time::timeout(Duration::from_millis(50), h2.accept()).await;
                            return;
                        }
                    }
                });
            }
        });
    });
    address
}
