//! A page server that follows the protocol, unless a test tells it otherwise; and the client of it.

use shmuring::lsn::scheduler::Kind;
use shmuring::request::{Class, Lsn, RelTag};
use shmuring_communicator::service::grpc::{GrpcOptions, GrpcService};
use shmuring_communicator::service::{
    Answer, PageService, Read, ReadBatch, ReadLsn, Result, ServiceError, Watermarks, What, PAGE_SIZE,
};
use shmuring_communicator::wire::failure::failure_out;
use shmuring_communicator::wire::metadata::{bearer, Target};
use shmuring_communicator::wire::mutation::Term;
use shmuring_communicator::wire::proto::page_api::page_service_server::{PageService as Pages, PageServiceServer};
use shmuring_communicator::wire::proto::page_api::*;
use shmuring_communicator::wire::proto::write::write_service_server::{WriteService, WriteServiceServer};
use shmuring_communicator::wire::proto::write::{self, WatchResponse};
use std::collections::VecDeque;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

pub const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
/// Blocks that the relation of the tests has; those from `ZERO` on were never written.
pub const BLOCKS: u32 = 100;
pub const ZERO: u32 = 90;
pub const IDS: &str = "tenant=000000000000000000000000000000aa&timeline=000000000000000000000000000000bb";

/// A page that tells its block and the server that gave it.
pub fn page(block: u32, server: u8) -> Vec<u8> {
    (0..PAGE_SIZE).map(|i| (i as u32 ^ block.wrapping_mul(31)) as u8 ^ server | 1).collect()
}

/// What a server does in place of an answer.
pub enum Act {
    Answer(GetPageResponse),
    /// Nothing, for ever.
    Nothing,
    /// It ends the stream.
    End,
    Status(Status),
}

type Hook = Box<dyn FnMut(&GetPageRequest, GetPageResponse) -> Act + Send>;
type SingleHook = Box<dyn FnMut(&'static str) -> Option<Status> + Send>;
type ApplyHook = Box<dyn FnMut(&write::ApplyRequest) -> Option<write::ApplyResponse> + Send>;

/// What a server does, and what came to it.
#[derive(Default)]
pub struct State {
    pub hook: Option<Hook>,
    pub single: Option<SingleHook>,
    pub apply: Option<ApplyHook>,
    /// Every page request, with the target and the token that came with its stream.
    pub asked: Vec<(Target, Option<String>, GetPageRequest)>,
    pub streams: usize,
    /// Fences and applies in order.
    pub written: Vec<Written>,
    pub writes_unknown: bool,
    /// How often word of ingest was asked for in vain.
    pub unknown: usize,
    pub fence_refused: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    Fence(Term),
    Apply(Term, usize, Lsn),
}

/// What its connections live in.
#[derive(Default)]
struct Process(Mutex<Option<Runtime>>);

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

/// The parts of a server that outlive its process.
#[derive(Clone)]
pub struct Fake {
    pub name: u8,
    pub state: Arc<Mutex<State>>,
    /// Last record LSN and disk_consistent_lsn.
    pub ingest: watch::Sender<(Lsn, Lsn)>,
    socket: Arc<TcpListener>,
    tls: Option<ServerTlsConfig>,
    process: Arc<Process>,
    /// Of all servers of a test: the order of what was written.
    pub journal: Arc<Mutex<Vec<u8>>>,
}

impl Fake {
    pub fn new(name: u8) -> Self {
        Self::with_tls(name, None)
    }

    pub fn with_tls(name: u8, tls: Option<ServerTlsConfig>) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let fake = Self {
            name,
            state: Arc::default(),
            ingest: watch::Sender::new((1000, 500)),
            socket: Arc::new(socket),
            tls,
            process: Arc::default(),
            journal: Arc::default(),
        };
        fake.start();
        fake
    }

    /// A process of its own, as far as its connections are concerned. The address stays.
    pub fn start(&self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (server, socket) = (self.clone(), self.socket.try_clone().unwrap());
        // Else the process would hold itself.
        let server = Self { process: Arc::default(), ..server };
        runtime.spawn(async move {
            let socket = tokio::net::TcpListener::from_std(socket).unwrap();
            let incoming = TcpIncoming::from(socket).with_nodelay(Some(true));
            let mut builder = Server::builder();
            if let Some(tls) = &server.tls {
                builder = builder.tls_config(tls.clone()).unwrap();
            }
            let builder = builder.add_service(PageServiceServer::new(server.clone()));
            let builder = builder.add_service(WriteServiceServer::new(server).max_decoding_message_size(1 << 25));
            builder.serve_with_incoming(incoming).await.unwrap();
        });
        *self.process.0.lock().unwrap() = Some(runtime);
    }

    /// All its connections break.
    pub fn kill(&self) {
        if let Some(runtime) = self.process.0.lock().unwrap().take() {
            runtime.shutdown_timeout(Duration::from_secs(10));
        }
    }

    pub fn address(&self) -> String {
        self.socket.local_addr().unwrap().to_string()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    pub fn hook(&self, hook: impl FnMut(&GetPageRequest, GetPageResponse) -> Act + Send + 'static) {
        self.state.lock().unwrap().hook = Some(Box::new(hook));
    }

    pub fn behave(&self) {
        let mut state = self.state.lock().unwrap();
        (state.hook, state.single, state.apply) = (None, None, None);
    }

    pub fn asked(&self) -> usize {
        self.state.lock().unwrap().asked.len()
    }

    pub fn written(&self) -> Vec<Written> {
        self.state.lock().unwrap().written.clone()
    }

    async fn wait_for(&self, lsn: Option<&shmuring_communicator::wire::proto::page_api::ReadLsn>) {
        let n = lsn.map_or(0, |l| l.not_modified_since_lsn);
        let _ = self.ingest.subscribe().wait_for(|at| at.0 >= n).await;
    }

    fn good(&self, request: &GetPageRequest) -> GetPageResponse {
        let image = |block: u32| if block < ZERO { page(block, self.name) } else { vec![0; PAGE_SIZE] };
        let page = |block: &u32| Page { block_number: *block, image: image(*block).into() };
        GetPageResponse {
            request_id: request.request_id,
            status_code: GetPageStatusCode::Ok.into(),
            reason: String::new(),
            rel: request.rel,
            page: request.block_number.iter().map(page).collect(),
        }
    }

    fn single(&self, name: &'static str) -> core::result::Result<(), Status> {
        let mut state = self.state.lock().unwrap();
        state.single.as_mut().and_then(|f| f(name)).map_or(Ok(()), Err)
    }
}

type Out<T> = core::result::Result<Response<T>, Status>;
type OutStream<T> = ReceiverStream<core::result::Result<T, Status>>;

#[async_trait::async_trait]
impl Pages for Fake {
    type GetPagesStream = OutStream<GetPageResponse>;
    type GetBaseBackupStream = OutStream<GetBaseBackupResponseChunk>;

    async fn get_pages(&self, request: Request<Streaming<GetPageRequest>>) -> Out<Self::GetPagesStream> {
        self.single("get_pages")?;
        let target = Target::read(request.metadata())?;
        let token = bearer(request.metadata())?.map(str::to_owned);
        let mut requests = request.into_inner();
        let (to, answers) = tokio::sync::mpsc::channel(4);
        let server = self.clone();
        server.state.lock().unwrap().streams += 1;
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                server.state.lock().unwrap().asked.push((target, token.clone(), request.clone()));
                server.wait_for(request.read_lsn.as_ref()).await;
                let good = server.good(&request);
                let act = match &mut server.state.lock().unwrap().hook {
                    Some(hook) => hook(&request, good),
                    None => Act::Answer(good),
                };
                let sent = match act {
                    Act::Answer(answer) => to.send(Ok(answer)).await,
                    Act::Status(status) => return drop(to.send(Err(status)).await),
                    Act::End => return,
                    Act::Nothing => return std::future::pending().await,
                };
                if sent.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn get_rel_size(&self, request: Request<GetRelSizeRequest>) -> Out<GetRelSizeResponse> {
        self.single("get_rel_size")?;
        let request = request.into_inner();
        self.wait_for(request.read_lsn.as_ref()).await;
        let missing = request.rel.unwrap_or_default().rel_number != REL.rel_number;
        Ok(Response::new(GetRelSizeResponse { num_blocks: if missing { 0 } else { BLOCKS }, missing }))
    }

    async fn get_db_size(&self, _: Request<GetDbSizeRequest>) -> Out<GetDbSizeResponse> {
        self.single("get_db_size")?;
        Ok(Response::new(GetDbSizeResponse { num_bytes: 12345 }))
    }

    async fn get_slru_segment(&self, request: Request<GetSlruSegmentRequest>) -> Out<GetSlruSegmentResponse> {
        self.single("get_slru_segment")?;
        // The number of the segment is how many bytes it has too many.
        let bytes = 2 * PAGE_SIZE + request.into_inner().segno as usize;
        Ok(Response::new(GetSlruSegmentResponse { segment: vec![7; bytes].into() }))
    }

    async fn get_base_backup(&self, _: Request<GetBaseBackupRequest>) -> Out<Self::GetBaseBackupStream> {
        Err(Status::unimplemented("not here"))
    }

    async fn lease_lsn(&self, _: Request<LeaseLsnRequest>) -> Out<LeaseLsnResponse> {
        Err(Status::unimplemented("not here"))
    }
}

#[async_trait::async_trait]
impl WriteService for Fake {
    type WatchStream = OutStream<WatchResponse>;

    async fn fence(&self, request: Request<write::FenceRequest>) -> Out<write::FenceResponse> {
        let term = Term::read(request.into_inner().term).unwrap();
        let mut state = self.state.lock().unwrap();
        if state.writes_unknown {
            return Err(Status::unimplemented("what is that"));
        }
        if state.fence_refused {
            let failure = failure_out(&ServiceError::stale("told to refuse"));
            return Ok(Response::new(write::FenceResponse { failure: Some(failure) }));
        }
        state.written.push(Written::Fence(term));
        Ok(Response::new(write::FenceResponse { failure: None }))
    }

    async fn apply(&self, request: Request<write::ApplyRequest>) -> Out<write::ApplyResponse> {
        let request = request.into_inner();
        let term = Term::read(request.term.clone()).unwrap();
        let mut state = self.state.lock().unwrap();
        state.written.push(Written::Apply(term, request.mutation.len(), request.written_lsn));
        if !request.mutation.is_empty() {
            self.journal.lock().unwrap().push(self.name);
        }
        if let Some(answer) = state.apply.as_mut().and_then(|f| f(&request)) {
            return Ok(Response::new(answer));
        }
        self.ingest.send_if_modified(|at| {
            let rises = request.written_lsn > at.0;
            at.0 = at.0.max(request.written_lsn);
            rises
        });
        let result = vec![write::MutationResult { failure: None, value: 1 }; request.mutation.len()];
        Ok(Response::new(write::ApplyResponse { failure: None, result }))
    }

    async fn sync(&self, _: Request<write::SyncRequest>) -> Out<write::SyncResponse> {
        Ok(Response::new(write::SyncResponse { failure: None }))
    }

    async fn watch(&self, _: Request<write::WatchRequest>) -> Out<Self::WatchStream> {
        {
            let mut state = self.state.lock().unwrap();
            if state.writes_unknown {
                state.unknown += 1;
                return Err(Status::unimplemented("what is that"));
            }
        }
        self.single("watch")?;
        let (to, words) = tokio::sync::mpsc::channel(4);
        let mut ingest = self.ingest.subscribe();
        tokio::spawn(async move {
            loop {
                let (last_record_lsn, disk_consistent_lsn) = *ingest.borrow_and_update();
                let word = WatchResponse { last_record_lsn, disk_consistent_lsn, incarnation: 1 };
                if to.send(Ok(word)).await.is_err() || ingest.changed().await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(words)))
    }
}

/// What a scheduler would be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Ingested(usize, Lsn),
    Reconnected(usize, u64, Lsn),
}

#[derive(Clone, Default)]
pub struct Reports(pub Arc<Mutex<VecDeque<Told>>>);

impl Watermarks for Reports {
    fn ingested(&self, shard: usize, lsn: Lsn) {
        self.0.lock().unwrap().push_back(Told::Ingested(shard, lsn));
    }

    fn reconnected(&self, shard: usize, generation: u64, durable: Lsn) {
        self.0.lock().unwrap().push_back(Told::Reconnected(shard, generation, durable));
    }
}

impl Reports {
    /// Waits until it was told so, and forgets what came before.
    #[track_caller]
    pub fn wait_for(&self, wanted: &Told) {
        let told = soon(|| {
            let mut all = self.0.lock().unwrap();
            let at = all.iter().position(|t| t == wanted);
            at.inspect(|at| drop(all.drain(..=*at))).is_some()
        });
        assert!(told, "not {wanted:?} but {:?}", self.0.lock().unwrap());
    }
}

/// Asks every few milliseconds until it is so; false if that takes too long.
pub fn soon(mut f: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(30) {
        if f() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
    false
}

/// The service with a runtime of its own.
pub struct Client {
    pub service: Arc<GrpcService>,
    pub runtime: Runtime,
}

/// Times that suit tests: long enough for a loaded machine, where a test waits for them to pass short ones are given.
pub fn patient() -> GrpcOptions {
    let long = Duration::from_secs(60);
    GrpcOptions { connect: long, outage: long, answer: long, lsn_wait: long, ..GrpcOptions::default() }
}

pub fn client(spec: &str, options: GrpcOptions) -> Client {
    let service = Arc::new(GrpcService::open(&spec.parse().unwrap(), options).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    Client { service, runtime }
}

/// A client of one server.
pub fn one(server: &Fake, options: GrpcOptions) -> Client {
    client(&format!("{}?{IDS}", server.url()), options)
}

pub fn block(block: u32, n: Lsn) -> Read {
    let lsns = ReadLsn { request_lsn: None, not_modified_since: n };
    Read { what: What::Page(REL, block), lsns, attempt: 0 }
}

pub fn batch(kind: Kind, generation: u64, reads: Vec<Read>) -> ReadBatch {
    ReadBatch { kind, class: Class::Demand, shard: 0, generation, reads }
}

impl Client {
    /// What each read of a batch came to.
    pub fn ask(&self, batch: &ReadBatch) -> Vec<Result<Answer>> {
        let mut all = vec![Err(ServiceError::new(libc::EIO, "no answer")); batch.reads.len()];
        let mut answers = |i: usize, answer| all[i] = answer;
        let whole = self.service.read_batch(batch, &mut answers);
        self.runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), whole).await }).expect("a hang");
        all
    }

    /// A block by itself, READY.
    pub fn get(&self, number: u32) -> Result<Vec<u8>> {
        self.get_on(0, number)
    }

    pub fn get_on(&self, generation: u64, number: u32) -> Result<Vec<u8>> {
        self.ask(&batch(Kind::Ready, generation, vec![block(number, 1)])).remove(0).map(bytes)
    }
}

pub fn bytes(answer: Answer) -> Vec<u8> {
    match answer.value {
        shmuring_communicator::service::Value::Page(page) => page.bytes().to_vec(),
        other => panic!("{other:?}"),
    }
}
