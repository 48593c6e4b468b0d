//! Who is let in: shards, tenants, tokens, TLS.

use crate::support::*;
use shmuring::lsn::shards::Sharding;
use shmuring_communicator::wire::mutation::Term;
use shmuring_communicator::wire::proto::page_api::page_service_client::PageServiceClient;
use shmuring_communicator::wire::proto::page_api::{GetPageStatusCode, GetRelSizeRequest};
use shmuring_communicator::wire::proto::write::{ApplyRequest, ApplyResponse, FenceRequest, Retry, Shard};
use shmuring_communicator::wire::read::rel_out;
use std::process::Command;
use tonic::transport::{Certificate, Channel, ClientTlsConfig};
use tonic::Code;

async fn code(server: &PageServer, caller: Caller) -> Code {
    let request = GetRelSizeRequest { read_lsn: lsns(LATEST, 1), rel: Some(rel_out(REL)), allow_missing: true };
    let unary =
        soon(server.reads_as(caller.clone()).get_rel_size(request)).await.map_or_else(|e| e.code(), |_| Code::Ok);
    // A stream says the same.
    let stream = async {
        let mut stream = Pages::open(server.reads_as(caller)).await?;
        stream.ask(REL, &[0], LATEST, 1).await;
        stream.next().await.map(drop)
    };
    let stream = stream.await.map_or_else(|e| e.code(), |()| Code::Ok);
    assert_eq!(stream, unary);
    unary
}

#[tokio::test]
async fn pages_of_another_shard_are_refused_by_the_name_of_the_right_one() {
    let site = Site::new();
    let server = site.start(&["--shard", "1/3", "--stripe", "8"]);
    let sharding = Sharding { count: 3, stripe: 8 };
    let mut writer = server.writer().await;
    writer.all(vec![create(10), zero_extend(0, 200, 20)]).await;
    let (mut served, mut refused) = (0, 0);
    for block in (0..200).step_by(4) {
        let right = sharding.block(REL, block);
        let answer = server.pages(&[block], LATEST, 1).await;
        let written = writer.try_all(vec![write(block, 30, 1)]).await;
        if right == 1 {
            assert_eq!((version(&answer), &written[..]), (Ok(None), &[0][..]));
            served += 1;
        } else {
            assert_eq!(answer.status_code(), GetPageStatusCode::InvalidRequest);
            assert!(answer.reason.contains(&format!("is on shard {right}: this is shard 1 of 3")), "{answer:?}");
            assert_eq!(written, [libc::EINVAL as u32]);
            refused += 1;
        }
    }
    assert!(served > 5 && refused > 5, "{served} {refused}");
    let e = server.size(LATEST, 1).await.unwrap_err();
    assert_eq!(e.code(), Code::InvalidArgument);
    assert!(e.message().contains("are on shard 0"), "{e}");
    // Named or not; but not another.
    let ours = (0..).find(|b| sharding.block(REL, *b) == 1).unwrap();
    for (caller, wanted) in
        [(Caller::shard(1, 3), Code::Ok), (Caller::shard(2, 3), Code::NotFound), (Caller::shard(1, 2), Code::NotFound)]
    {
        let asked = async {
            let mut stream = Pages::open(server.reads_as(caller.clone())).await?;
            stream.ask(REL, &[ours], LATEST, 1).await;
            stream.next().await
        };
        assert_eq!(asked.await.map_or_else(|e| e.code(), |_| Code::Ok), wanted, "{caller:?}");
    }
    server.kill_9();
    let refused = site.try_start(&["--shard", "0/3", "--stripe", "8"]).err().unwrap();
    assert!(refused.contains("shard 1 of 3"), "{refused}");
}

#[tokio::test]
async fn a_writer_that_takes_the_server_for_another_is_refused_and_fences_nobody() {
    let site = Site::new();
    let server = site.start(&["--shard", "1/3", "--stripe", "8"]);
    let mut writer = server.writer().await;
    let right = writer.1;
    let next = Term { epoch: TERM.epoch + 1, ..TERM };
    for wrong in [Shard { stripe: 16, ..right }, Shard { count: 4, ..right }, Shard { number: 2, ..right }] {
        let request = FenceRequest { term: Some(next.out()), shard: Some(wrong), attachment: 0 };
        let failure = soon(writer.0.fence(request)).await.unwrap().into_inner().failure.unwrap();
        assert_eq!((failure.errno, failure.retry()), (libc::EINVAL as u32, Retry::Never), "{failure:?}");
        let Shard { number, count, stripe } = wrong;
        let names = [format!("shard {number} of {count}, stripes of {stripe}"), "this is shard 1 of 3".into()];
        assert!(names.iter().all(|name| failure.message.contains(name)), "{failure:?}");
    }
    let nothing = FenceRequest { term: Some(next.out()), shard: None, attachment: 0 };
    assert!(soon(writer.0.fence(nothing)).await.unwrap().into_inner().failure.is_some());
    writer.all(vec![create(10)]).await;
}

#[tokio::test]
async fn tenants_and_tokens_are_checked_on_every_call() {
    let site = Site::new();
    let tokens = site.path("tokens");
    let (five, six) = (format!("{:032x}", 5), format!("{:032x}", 6));
    private_file(&tokens, format!("all\nfives {five}\nsixes {six}\n").as_bytes());
    let server = site.start(&["--tenant", &five, "--token-file", tokens.to_str().unwrap()]);
    for (tenant, token, wanted) in [
        (5, Some("all"), Code::Ok),
        (5, Some("fives"), Code::Ok),
        (5, Some("sixes"), Code::PermissionDenied),
        (6, Some("sixes"), Code::NotFound),
        (5, Some("nonsense"), Code::InvalidArgument),
        (5, None, Code::Unauthenticated),
    ] {
        assert_eq!(code(&server, Caller::tenant(tenant, token)).await, wanted, "{tenant} {token:?}");
    }
    let fence = server.writes().0.fence(FenceRequest::default()).await;
    assert_eq!(fence.unwrap_err().code(), Code::Unauthenticated);
    private_file(&tokens, b"new\n");
    server.set("").await;
    soon(async { while code(&server, Caller::tenant(5, Some("new"))).await != Code::Ok {} }).await;
    assert_eq!(code(&server, Caller::tenant(5, Some("all"))).await, Code::InvalidArgument);
    assert!(!server.log().contains("fives"), "tokens do not go to the log");
}

#[tokio::test]
async fn a_caller_is_refused_before_any_message_of_its_is_read() {
    let site = Site::new();
    let tokens = site.path("tokens");
    private_file(&tokens, b"all\n");
    let server = site.start(&["--token-file", tokens.to_str().unwrap()]);
    let mut grpc = tonic::client::Grpc::new(server.channel());
    for path in ["/shmuring.write.v1.WriteService/Apply", "/page_api.PageService/GetPages"] {
        grpc.ready().await.unwrap();
        // It never comes: who reads it before asking for the token waits for it, and keeps what has come.
        let (never, messages) = tokio::sync::mpsc::channel::<ApplyRequest>(1);
        let mut request = tonic::Request::new(tokio_stream::wrappers::ReceiverStream::new(messages));
        Caller::default().target.write(None, request.metadata_mut());
        let codec = tonic_prost::ProstCodec::<ApplyRequest, ApplyResponse>::default();
        let answer = soon(grpc.client_streaming(request, path.parse().unwrap(), codec)).await;
        assert_eq!(answer.unwrap_err().code(), Code::Unauthenticated, "{path}");
        drop(never);
    }
}

#[tokio::test]
async fn tls_is_spoken_where_there_is_a_certificate_and_plain_text_is_not() {
    let site = Site::new();
    let (cert, key) = (site.path("cert.pem"), site.path("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let files = ["--tls-cert", cert.to_str().unwrap(), "--tls-key", key.to_str().unwrap()];
    let server = site.start(&files);
    let ca = Certificate::from_pem(std::fs::read(&cert).unwrap());
    let tls = ClientTlsConfig::new().ca_certificate(ca).domain_name("localhost");
    let endpoint = Channel::from_shared(format!("https://{}", server.address())).unwrap().tls_config(tls).unwrap();
    let request = GetRelSizeRequest { read_lsn: lsns(LATEST, 1), rel: Some(rel_out(REL)), allow_missing: true };
    let mut reads = PageServiceClient::with_interceptor(endpoint.connect_lazy(), Caller::default());
    assert!(soon(reads.get_rel_size(request)).await.unwrap().into_inner().missing);
    assert!(server.size(LATEST, 1).await.is_err(), "plain text");
    drop(server);
    private_file(&key, b"no key\n");
    assert!(site.try_start(&files).err().unwrap().contains("TLS"));
}
