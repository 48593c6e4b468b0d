//! Servers that cannot be reached, say nothing, die, come back further behind, move; TLS and tokens.

use crate::support::{batch, block, bytes, client, one, page, patient, soon, Act, Client, Fake, Reports, Told, IDS};
use shmuring::lsn::scheduler::Kind;
use shmuring_communicator::service::grpc::{GrpcOptions, GrpcService};
use shmuring_communicator::service::{Ingest, PageService, Retry};
use shmuring_communicator::wire::proto::page_api::GetPageResponse;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::Status;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn reported(c: &Client) -> Reports {
    let reports = Reports::default();
    c.service.report_to(Arc::new(reports.clone()));
    reports
}

#[test]
fn a_server_that_accepts_and_never_answers_is_a_named_error() {
    // The kernel accepts for it.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let c = client(&format!("{url}?{IDS}"), GrpcOptions { answer: ms(150), outage: ms(300), ..patient() });
    for _ in 0..3 {
        let e = c.get(7).unwrap_err();
        assert!([libc::ETIMEDOUT, libc::ECONNRESET, libc::EHOSTUNREACH].contains(&e.errno), "{e}");
        assert!(e.retry == Retry::Reconnect && e.detail.contains(&url), "{e}");
    }
    let fence = c.runtime.block_on(c.service.fence(1, 1)).unwrap_err();
    assert!(fence.retry == Retry::Reconnect && fence.detail.contains(&url), "{fence}");
}

#[test]
fn a_stream_that_is_never_answered_ends_in_time_and_the_next_read_is_good() {
    let server = Fake::new(1);
    let c = one(&server, GrpcOptions { answer: ms(150), ..patient() });
    server.hook(|request, good| if request.block_number == [7] { Act::Nothing } else { Act::Answer(good) });
    let e = c.get(7).unwrap_err();
    assert_eq!((e.errno, e.retry, e.block), (libc::ETIMEDOUT, Retry::Reconnect, Some(7)), "{e}");
    assert!(e.detail.contains("no answer within 150 ms") && e.detail.contains("block 7"), "{e}");
    let again = GrpcOptions { answer: Duration::from_secs(60), ..patient() };
    assert_eq!(one(&server, again).get(8).unwrap(), page(8, 1));
}

#[test]
fn a_server_that_nobody_can_reach_is_a_named_error_until_it_is_there() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    drop(socket);
    let c = client(&format!("{url}?{IDS}"), GrpcOptions { outage: ms(200), ..patient() });
    let e = c.get(7).unwrap_err();
    assert_eq!((e.errno, e.retry, e.block), (libc::EHOSTUNREACH, Retry::Reconnect, Some(7)), "{e}");
    assert!(e.detail.contains(&url) && e.detail.contains("refused"), "{e}");
}

#[test]
fn a_stream_that_ends_half_way_fails_what_was_not_answered_and_no_more() {
    let server = Fake::new(1);
    let c = one(&server, patient());
    let reads = || {
        let other = shmuring::request::RelTag { rel_number: 8, ..crate::support::REL };
        let what = shmuring_communicator::service::What::Page(other, 2);
        vec![block(1, 1), shmuring_communicator::service::Read { what, ..block(2, 1) }]
    };
    let ends: [fn() -> Act; 2] = [|| Act::End, || Act::Status(Status::unavailable("shutting down"))];
    for (i, end) in ends.into_iter().enumerate() {
        server.hook(move |request, good| if request.rel.unwrap().rel_number == 8 { end() } else { Act::Answer(good) });
        let mut answers = c.ask(&batch(Kind::Ready, i as u64, reads()));
        let e = answers.pop().unwrap().unwrap_err();
        assert!(e.retry != Retry::Never && e.block == Some(2), "{e}");
        assert_eq!(bytes(answers.pop().unwrap().unwrap()), page(1, 1));
        server.behave();
        assert!(c.ask(&batch(Kind::Ready, i as u64, reads())).iter().all(Result::is_ok));
    }
}

#[test]
fn a_server_that_came_back_further_behind_lowers_the_watermark() {
    let server = Fake::new(1);
    server.ingest.send_replace((1000, 500));
    let c = one(&server, patient());
    assert!(matches!(c.service.ingest(), Ingest::Lags { floor: 0, .. }));
    let reports = reported(&c);
    assert_eq!(c.get(7).unwrap(), page(7, 1));
    reports.wait_for(&Told::Ingested(0, 1000));
    server.kill();
    // What it has durable, as it last said, is what it surely has again.
    reports.wait_for(&Told::Reconnected(0, 1, 500));
    let old = c.ask(&batch(Kind::Ready, 0, vec![block(7, 1)])).remove(0);
    server.ingest.send_replace((600, 600));
    server.start();
    reports.wait_for(&Told::Ingested(0, 600));
    // The scheduler sends it anew, on the attachment that it was told of.
    assert!(old.is_err_and(|e| e.retry == Retry::Reconnect));
    assert_eq!(c.get_on(1, 7).unwrap(), page(7, 1));
}

#[test]
fn reads_wait_for_a_server_that_is_coming_back() {
    let server = Fake::new(1);
    let c = one(&server, patient());
    assert_eq!(c.get(7).unwrap(), page(7, 1));
    server.kill();
    let starter = server.clone();
    let later = std::thread::spawn(move || {
        std::thread::sleep(ms(100));
        starter.start();
    });
    // The first may have met the end of the old process; no generation is compared, since nobody hears reports.
    let got = soon(|| c.get(8).is_ok_and(|p| p == page(8, 1)));
    later.join().unwrap();
    assert!(got);
}

#[test]
fn a_changed_map_takes_reads_to_the_new_server_and_lowers_the_watermark() {
    let (old, new) = (Fake::new(1), Fake::new(2));
    let dir = tempfile::tempdir().unwrap();
    let (file, token) = (dir.path().join("map"), dir.path().join("token"));
    std::fs::write(&token, "first\n").unwrap();
    let write = |servers: &[&Fake], ids: &str| {
        let mut text: String = servers.iter().enumerate().map(|(i, s)| format!("shard.{i} = {}\n", s.url())).collect();
        text += &format!("{}\ntoken_file = {}\n", ids.replace('&', "\n"), token.display());
        std::fs::write(&file, text).unwrap();
    };
    write(&[&old], IDS);
    let c = client(&file.display().to_string(), patient());
    let reports = reported(&c);
    assert_eq!(c.get(7).unwrap(), page(7, 1));
    reports.wait_for(&Told::Ingested(0, 1000));
    write(&[&new], IDS);
    std::fs::write(&token, "second\n").unwrap();
    c.service.reload().unwrap();
    reports.wait_for(&Told::Reconnected(0, 1, 500));
    assert_eq!(c.get_on(1, 7).unwrap(), page(7, 2));
    let tokens = |s: &Fake| s.state.lock().unwrap().asked.iter().map(|a| a.1.clone().unwrap()).collect::<Vec<_>>();
    assert_eq!((tokens(&old), tokens(&new)), (vec!["first".into()], vec!["second".into()]));
    // What would put blocks on other shards, or is another history, is refused, and nothing changes.
    write(&[&new, &old], IDS);
    let e = c.service.reload().unwrap_err();
    assert!(e.detail.contains("1 shards") && e.detail.contains("--replace"), "{e}");
    write(&[&old], &IDS.replace("aa", "ab"));
    assert!(c.service.reload().unwrap_err().detail.contains("another tenant"));
    std::fs::write(&file, "shard.0 = http://a:1\nshard.2 = http://c:1\n").unwrap();
    let e = c.service.reload().unwrap_err();
    assert!(e.detail.contains("shard 1 of 3 has no server"), "{e}");
    assert_eq!(c.get_on(1, 8).unwrap(), page(8, 2));
}

#[test]
fn refused_tokens_are_lasting_errors_that_say_so() {
    let server = Fake::new(1);
    let refuse = |name: &'static str| (name != "watch").then(|| Status::unauthenticated("who are you"));
    server.state.lock().unwrap().single = Some(Box::new(refuse));
    let e = one(&server, patient()).get(7).unwrap_err();
    assert_eq!((e.errno, e.retry), (libc::EACCES, Retry::Never), "{e}");
    assert!(e.detail.contains("who are you"), "{e}");
    let spec = format!("{}?{IDS}&token_file=/nowhere/token", server.url());
    let Err(e) = GrpcService::open(&spec.parse().unwrap(), patient()) else { panic!("no token, and no error") };
    assert!(e.detail.contains("/nowhere/token"), "{e}");
}

/// A certificate for 127.0.0.1 that signs itself, and its key.
fn certificate(dir: &std::path::Path, name: &str) -> (String, String) {
    let (cert, key) = (dir.join(format!("{name}.crt")), dir.join(format!("{name}.key")));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=shmuring test", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&cert)
        .arg("-keyout")
        .arg(&key)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    (std::fs::read_to_string(cert).unwrap(), std::fs::read_to_string(key).unwrap())
}

#[test]
fn tls_connects_to_servers_whose_certificate_is_known_and_to_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path(), "server");
    certificate(dir.path(), "other");
    let tls = ServerTlsConfig::new().identity(Identity::from_pem(cert, key));
    let (server, plain) = (Fake::with_tls(3, Some(tls)), Fake::new(4));
    let ca = |name: &str| format!("&ca_file={}", dir.path().join(name).display());
    let spec = |scheme: &str, server: &Fake, more: &str| format!("{scheme}://{}?{IDS}{more}", server.address());
    assert_eq!(client(&spec("https", &server, &ca("server.crt")), patient()).get(7).unwrap(), page(7, 3));
    let short = GrpcOptions { outage: ms(500), answer: ms(500), ..patient() };
    let other = client(&spec("https", &server, &ca("other.crt")), short).get(7).unwrap_err();
    assert!(other.errno == libc::EHOSTUNREACH && other.detail.contains("certificate"), "{other}");
    let unknown = client(&spec("https", &server, ""), short).get(7).unwrap_err();
    assert!(unknown.errno == libc::EHOSTUNREACH && unknown.detail.contains(&server.address()), "{unknown}");
    for (scheme, server) in [("http", &server), ("https", &plain)] {
        let more = if scheme == "https" { ca("server.crt") } else { String::new() };
        let e = client(&spec(scheme, server, &more), short).get(7).unwrap_err();
        assert!(e.retry == Retry::Reconnect && e.detail.contains(&server.address()), "{scheme}: {e}");
    }
    std::fs::write(dir.path().join("none.crt"), "no certificate").unwrap();
    let e = client(&spec("https", &server, &ca("none.crt")), short).get(7).unwrap_err();
    assert!(e.detail.contains(&server.address()), "{e}");
}

#[test]
fn a_batch_that_is_dropped_half_way_leaves_nothing_to_the_next() {
    let server = Fake::new(1);
    let c = one(&server, patient());
    let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
    server.hook(move |request, good| {
        let _ = asked.send(request.block_number[0]);
        if request.block_number == [7] {
            Act::Nothing
        } else {
            Act::Answer(GetPageResponse { ..good })
        }
    });
    for _ in 0..5 {
        c.runtime.block_on(async {
            let held = batch(Kind::Ready, 0, vec![block(7, 1)]);
            let mut ignore = |_: usize, _: shmuring_communicator::service::Result<_>| {};
            tokio::select! {
                () = c.service.read_batch(&held, &mut ignore) => panic!("it was answered"),
                _ = async { while heard.recv().await != Some(7) {} } => {}
            }
        });
        assert_eq!(c.get(8).unwrap(), page(8, 1));
    }
}
