//! The connections to the server of one shard, all of one attachment.
//!
//! | lane | what goes there |
//! |---|---|
//! | single | READY reads of few blocks that somebody waits for |
//! | bulk | READY reads of many |
//! | ahead | READY prefetches, background |
//! | future | reads that may wait for WAL |
//! | control | writes, word of ingest |
//!
//! Each lane is a TCP connection of its own, so that no read waits behind one that waits for WAL (S3) or behind a long
//! answer. A stream is lent to one batch at a time; a batch that ends early drops it, and what was asked on it is void.

use super::config::Config;
use crate::wire::metadata::{Target, Token};
use crate::wire::proto::page_api::page_service_client::PageServiceClient;
use crate::wire::proto::page_api::{GetPageRequest, GetPageResponse};
use crate::wire::proto::write::write_service_client::WriteServiceClient;
use crate::wire::{MAX_ANSWER, MAX_FRAME};
use hyper_util::rt::TokioIo;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Uri};
use tonic::{Request, Status, Streaming};

/// Bytes that a server may send ahead on a stream, and on a connection.
const WINDOWS: (u32, u32) = (2 << 20, 16 << 20);
/// How often a connection is tried, idle or not, and how long the answer may take.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));
/// Streams that a lane keeps for the next batch: each costs the server some 26 KB.
const IDLE: usize = 32;

/// Which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    Single,
    Bulk,
    Ahead,
    Future,
}

/// A stream of GetPages, lent to one batch at a time.
pub(super) struct PageStream {
    to: UnboundedSender<GetPageRequest>,
    from: Streaming<GetPageResponse>,
}

impl PageStream {
    /// The next answer; `None`: the server has ended the stream.
    pub(super) async fn next(&mut self) -> Result<Option<GetPageResponse>, Status> {
        self.from.message().await
    }
}

/// See the module.
pub(super) struct Link {
    /// Number of the attachment.
    pub(super) generation: u64,
    /// Where the server is.
    pub(super) server: String,
    target: Target,
    token: Option<Token>,
    control: Channel,
    lanes: [(Channel, Mutex<Vec<PageStream>>); 4],
}

impl Link {
    /// Connects. `limit` is for each of its connections.
    pub(super) async fn open(config: &Config, shard: usize, generation: u64, limit: Duration) -> Result<Self, String> {
        let server = config.map.servers.get(shard).ok_or_else(|| format!("there is no shard {shard}"))?.clone();
        let endpoint = endpoint(&server, config, limit)?;
        let control = match tokio::time::timeout(limit, endpoint.connect_with_connector(Once::new())).await {
            Ok(Ok(channel)) => channel,
            Ok(Err(e)) => return Err(super::errors::chain("no connection", Some(&e))),
            Err(_) => return Err(format!("no connection within {} ms", limit.as_millis())),
        };
        let lane = || (endpoint.connect_with_connector_lazy(Once::new()), Mutex::default());
        let (target, token) = (config.map.target(shard), config.token.clone());
        Ok(Self { generation, server, target, token, control, lanes: [lane(), lane(), lane(), lane()] })
    }

    /// A request with the metadata of this shard.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        self.target.write(self.token.as_ref(), request.metadata_mut());
        request
    }

    fn lane(&self, lane: Lane) -> &(Channel, Mutex<Vec<PageStream>>) {
        let [single, bulk, ahead, future] = &self.lanes;
        match lane {
            Lane::Single => single,
            Lane::Bulk => bulk,
            Lane::Ahead => ahead,
            Lane::Future => future,
        }
    }

    /// For single calls.
    pub(super) fn reads(&self, lane: Lane) -> PageServiceClient<Channel> {
        PageServiceClient::new(self.lane(lane).0.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// For writes, and word of ingest.
    pub(super) fn writes(&self) -> WriteServiceClient<Channel> {
        WriteServiceClient::new(self.control.clone()).max_decoding_message_size(MAX_ANSWER)
    }

    /// Sends requests on a stream that nobody uses.
    pub(super) async fn send(&self, lane: Lane, requests: Vec<GetPageRequest>) -> Result<PageStream, Status> {
        let idle = self.lane(lane).1.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(stream) = idle {
            for request in requests {
                // A stream that has ended says so when it is read.
                let _ = stream.to.send(request);
            }
            return Ok(stream);
        }
        let (to, outgoing) = tokio::sync::mpsc::unbounded_channel();
        // Before the call: a server may wait for the first request before it says anything.
        for request in requests {
            let _ = to.send(request);
        }
        let request = self.request(UnboundedReceiverStream::new(outgoing));
        let from = self.reads(lane).get_pages(request).await?.into_inner();
        Ok(PageStream { to, from })
    }

    /// Keeps a stream on which everything was answered.
    pub(super) fn keep(&self, lane: Lane, stream: PageStream) {
        let mut idle = self.lane(lane).1.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(stream);
        }
    }
}

fn endpoint(server: &str, config: &Config, limit: Duration) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(server.to_string()).map_err(|e| e.to_string())?;
    let endpoint = endpoint
        .connect_timeout(limit)
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .max_frame_size(MAX_FRAME)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .keep_alive_while_idle(true);
    if endpoint.uri().scheme_str() != Some("https") {
        return Ok(endpoint);
    }
    let mut tls = ClientTlsConfig::new();
    if let Some(pem) = &config.certificates {
        tls = tls.ca_certificate(Certificate::from_pem(pem));
    }
    endpoint.tls_config(tls).map_err(|e| super::errors::chain("TLS", Some(&e)))
}

/// Connects once. A channel that connected anew by itself could reach another server process without our noticing.
#[derive(Clone)]
struct Once(Arc<AtomicBool>);

impl Once {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(false)))
    }
}

type Connecting = std::pin::Pin<Box<dyn std::future::Future<Output = std::io::Result<TokioIo<TcpStream>>> + Send>>;

impl tower_service::Service<Uri> for Once {
    type Response = TokioIo<TcpStream>;
    type Error = std::io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let used = self.0.swap(true, Ordering::Relaxed);
        Box::pin(async move {
            if used {
                return Err(std::io::Error::other("the connection was lost"));
            }
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or_default())).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(stream))
        })
    }
}
