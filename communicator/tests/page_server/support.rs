//! A page server's process, and clients of it.

use shmuring::request::RelTag;
use shmuring_communicator::service::{Mutation, MutationRequest, PAGE_SIZE};
use shmuring_communicator::wire::metadata::{Id, ShardId, Target, Token};
use shmuring_communicator::wire::mutation::{mutation_out, Term};
use shmuring_communicator::wire::proto::page_api::page_service_client::PageServiceClient;
use shmuring_communicator::wire::proto::page_api::{
    GetPageRequest, GetPageResponse, GetPageStatusCode, GetRelSizeRequest, ReadLsn, RequestId,
};
use shmuring_communicator::wire::proto::write::write_service_client::WriteServiceClient;
use shmuring_communicator::wire::proto::write::{
    self, ApplyRequest, ApplyResponse, FenceRequest, SyncRequest, WatchRequest, WatchResponse,
};
use shmuring_communicator::wire::read::rel_out;
use std::fs::File;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

/// The relation of the tests.
pub const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
/// "Latest" on the wire.
pub const LATEST: u64 = u64::MAX;
/// The term of tests that are not about terms.
pub const TERM: Term = Term { region: 0xFEED, life: 1, epoch: 1 };
/// The longest that a test waits for what must come.
const SOON: Duration = Duration::from_secs(60);

/// What must come.
#[track_caller]
pub fn soon<T>(f: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move { tokio::time::timeout(SOON, f).await.unwrap_or_else(|_| panic!("{place}: it does not come")) }
}

/// A page that tells its block and version.
pub fn page(block: u32, version: u32) -> Vec<u8> {
    let word = (u64::from(block) << 32 | u64::from(version)).to_le_bytes();
    word.repeat(PAGE_SIZE / 8)
}

/// The directory of a server, which may come and go.
pub struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("shmuring-pages-").tempdir_in("/dev/shm").unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes the settings file that each server of the site reads.
    pub fn settings(&self, text: &str) {
        std::fs::write(self.path("settings"), text).unwrap();
    }

    /// A server that serves when this returns.
    #[track_caller]
    pub fn start(&self, args: &[&str]) -> PageServer {
        match self.try_start(args) {
            Ok(server) => server,
            Err(said) => panic!("it does not serve: {said}"),
        }
    }

    /// The same, or what it says if it ends instead.
    pub fn try_start(&self, args: &[&str]) -> Result<PageServer, String> {
        if !self.path("settings").exists() {
            self.settings("");
        }
        let log = self.path("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_shmuring"));
        command.args(["page-server", "--listen", "127.0.0.1:0", "--store"]).arg(self.path("store"));
        command.arg("--settings").arg(self.path("settings")).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let out = child.stdout.take().unwrap();
        BufReader::new(out).read_line(&mut line).unwrap();
        let address = line.trim().to_owned();
        let shard = shard_of(args);
        let server = PageServer { child, log, address, settings: self.path("settings"), shard };
        if server.address.is_empty() {
            return Err(server.log());
        }
        Ok(server)
    }
}

/// A page server; killed when dropped.
pub struct PageServer {
    child: Child,
    log: PathBuf,
    address: String,
    settings: PathBuf,
    shard: write::Shard,
}

/// The shard that a server was started as.
fn shard_of(args: &[&str]) -> write::Shard {
    let option = |name| args.iter().skip_while(|a| **a != name).nth(1);
    let (number, count) = option("--shard").map_or(("0", "1"), |k| k.split_once('/').unwrap());
    let stripe = option("--stripe").map_or(32_768, |s| s.parse().unwrap());
    write::Shard { number: number.parse().unwrap(), count: count.parse().unwrap(), stripe }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl PageServer {
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child of this test that has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }

    /// SIGTERM: it must drain, soon, with this exit code.
    pub async fn drain(mut self) -> Option<i32> {
        self.signal(libc::SIGTERM);
        let child = &mut self.child;
        let code = soon(async {
            loop {
                if let Some(status) = child.try_wait().unwrap() {
                    return status.code();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        code.await
    }

    /// Changes the settings, and waits until they hold.
    pub async fn set(&self, text: &str) {
        let before = self.log().matches("settings").count();
        std::fs::write(&self.settings, text).unwrap();
        self.signal(libc::SIGHUP);
        soon(async {
            while self.log().matches("settings").count() == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }

    pub fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect_lazy()
    }

    pub fn reads(&self) -> Reads {
        self.reads_as(Caller::default())
    }

    pub fn reads_as(&self, caller: Caller) -> Reads {
        PageServiceClient::with_interceptor(self.channel(), caller)
    }

    pub fn writes(&self) -> Writes {
        let client = WriteServiceClient::with_interceptor(self.channel(), Caller::default());
        Writes(client.max_encoding_message_size(32 << 20), self.shard)
    }

    /// A writer that has fenced.
    pub async fn writer(&self) -> Writes {
        let mut writes = self.writes();
        assert_eq!(writes.fence(TERM).await, 0);
        writes
    }

    /// A stream of GetPages.
    pub async fn stream(&self) -> Pages {
        Pages::open(self.reads()).await.unwrap()
    }

    /// Asks for pages on a stream of its own.
    pub async fn pages(&self, blocks: &[u32], r: u64, n: u64) -> GetPageResponse {
        let mut stream = self.stream().await;
        stream.ask(REL, blocks, r, n).await;
        stream.answer().await
    }

    /// The version of a block, `None` for one of zeros.
    pub async fn version(&self, block: u32, r: u64, n: u64) -> Result<Option<u32>, GetPageStatusCode> {
        version(&self.pages(&[block], r, n).await)
    }

    /// Blocks of the relation; `None`: it is missing.
    pub async fn size(&self, r: u64, n: u64) -> Result<Option<u32>, Status> {
        let request = GetRelSizeRequest { read_lsn: lsns(r, n), rel: Some(rel_out(REL)), allow_missing: true };
        let answer = soon(self.reads().get_rel_size(request)).await?.into_inner();
        Ok((!answer.missing).then_some(answer.num_blocks))
    }

    /// How far it has ingested.
    pub async fn ingested(&self) -> WatchResponse {
        let mut words = self.writes().watch().await;
        soon(words.message()).await.unwrap().unwrap()
    }
}

pub fn lsns(r: u64, n: u64) -> Option<ReadLsn> {
    Some(ReadLsn { request_lsn: r, not_modified_since_lsn: n })
}

/// The version in the one page of an answer; `None`: it is of zeros. Or the status code.
pub fn version(answer: &GetPageResponse) -> Result<Option<u32>, GetPageStatusCode> {
    if answer.status_code() != GetPageStatusCode::Ok {
        assert!(answer.page.is_empty() && !answer.reason.is_empty(), "{answer:?}");
        return Err(answer.status_code());
    }
    let [found] = &answer.page[..] else { panic!("{} pages", answer.page.len()) };
    assert_eq!(found.image.len(), PAGE_SIZE);
    let found_version = u32::from_le_bytes(found.image[..4].try_into().unwrap());
    if found.image.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    assert!(found.image == page(found.block_number, found_version), "block {}", found.block_number);
    Ok(Some(found_version))
}

/// Who calls: goes into the metadata of each call.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    pub target: Target,
    pub token: Option<Token>,
}

impl Caller {
    pub fn shard(number: u8, count: u8) -> Self {
        let mut caller = Self::default();
        caller.target.shard = ShardId { number, count };
        caller
    }

    pub fn tenant(tenant: u128, token: Option<&str>) -> Self {
        let mut caller = Self { token: token.map(|t| Token::new(t).unwrap()), ..Self::default() };
        caller.target.tenant = Id(tenant);
        caller
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.target.write(self.token.as_ref(), request.metadata_mut());
        Ok(request)
    }
}

pub type Reads = PageServiceClient<InterceptedService<Channel, Caller>>;

/// A stream of GetPages: requests and responses.
pub struct Pages {
    requests: mpsc::Sender<GetPageRequest>,
    responses: Streaming<GetPageResponse>,
    last: u64,
}

impl Pages {
    pub async fn open(mut reads: Reads) -> Result<Self, Status> {
        let (requests, stream) = mpsc::channel(64);
        let responses = soon(reads.get_pages(ReceiverStream::new(stream))).await?.into_inner();
        Ok(Self { requests, responses, last: 0 })
    }

    pub async fn send(&mut self, request: GetPageRequest) {
        soon(self.requests.send(request)).await.unwrap();
    }

    /// Sends a request; its id is one more than that of the last.
    pub async fn ask(&mut self, rel: RelTag, blocks: &[u32], r: u64, n: u64) -> u64 {
        self.last += 1;
        self.send(GetPageRequest {
            request_id: Some(RequestId { id: self.last, attempt: 0 }),
            request_class: 1,
            read_lsn: lsns(r, n),
            rel: Some(rel_out(rel)),
            block_number: blocks.to_vec(),
        })
        .await;
        self.last
    }

    /// The next response, or how the stream ended.
    pub async fn next(&mut self) -> Result<GetPageResponse, Status> {
        let next = soon(self.responses.message()).await?;
        Ok(next.expect("the stream ended"))
    }

    pub async fn answer(&mut self) -> GetPageResponse {
        self.next().await.unwrap()
    }

    /// Whether a response is there by now.
    pub async fn has_answer(&mut self, within: Duration) -> bool {
        tokio::time::timeout(within, self.responses.message()).await.is_ok()
    }
}

/// A writer, and what it takes the server for.
pub struct Writes(pub WriteServiceClient<InterceptedService<Channel, Caller>>, pub write::Shard);

impl Writes {
    /// The errno, 0 if it is acknowledged.
    pub async fn fence(&mut self, term: Term) -> u32 {
        self.fence_on(0, term).await
    }

    /// The same on a connection of this number.
    pub async fn fence_on(&mut self, attachment: u64, term: Term) -> u32 {
        let request = FenceRequest { term: Some(term.out()), shard: Some(self.1), attachment };
        let answer = soon(self.0.fence(request)).await.unwrap().into_inner();
        answer.failure.map_or(0, |f| f.errno)
    }

    pub async fn apply(&mut self, term: Term, group: &[MutationRequest], written_lsn: u64) -> ApplyResponse {
        let mutation = group.iter().map(mutation_out).collect();
        let request = ApplyRequest { term: Some(term.out()), mutation, written_lsn, attachment: 0 };
        soon(self.0.apply(request)).await.unwrap().into_inner()
    }

    /// Applies mutations; the errno of each, 0 for success.
    pub async fn try_all(&mut self, group: Vec<Mutation>) -> Vec<u32> {
        let group: Vec<_> = group.into_iter().map(MutationRequest::first).collect();
        let answer = self.apply(TERM, &group, 0).await;
        assert_eq!(answer.failure, None);
        answer.result.into_iter().map(|r| r.failure.map_or(0, |f| f.errno)).collect()
    }

    /// Applies mutations, all of which succeed.
    pub async fn all(&mut self, group: Vec<Mutation>) {
        let errnos = self.try_all(group).await;
        assert!(errnos.iter().all(|e| *e == 0), "{errnos:?}");
    }

    pub async fn written(&mut self, lsn: u64) {
        assert_eq!(self.apply(TERM, &[], lsn).await.failure, None);
    }

    pub async fn sync(&mut self) {
        assert_eq!(soon(self.0.sync(SyncRequest {})).await.unwrap().into_inner().failure, None);
    }

    pub async fn watch(&mut self) -> Streaming<WatchResponse> {
        soon(self.0.watch(WatchRequest {})).await.unwrap().into_inner()
    }
}

pub fn create(lsn: u64) -> Mutation {
    Mutation::Create { rel: REL, lsn }
}

pub fn extend(block: u32, lsn: u64, version: u32) -> Mutation {
    Mutation::Extend { rel: REL, block, lsn, page: page(block, version) }
}

pub fn write(block: u32, lsn: u64, version: u32) -> Mutation {
    Mutation::WritePage { rel: REL, block, lsn, pages: page(block, version) }
}

pub fn zero_extend(block: u32, count: u32, lsn: u64) -> Mutation {
    Mutation::ZeroExtend { rel: REL, block, count, lsn }
}

pub fn truncate(blocks: u32, lsn: u64) -> Mutation {
    Mutation::Truncate { rel: REL, blocks, lsn }
}

/// A file that nobody else may read.
pub fn private_file(path: &Path, text: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
