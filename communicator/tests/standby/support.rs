//! A server that speaks PostgreSQL's protocol and answers as a standby does, unless a test tells it otherwise; and the
//! client of it.

use shmuring::lsn::scheduler::Kind;
use shmuring::request::{Class, Lsn, RelTag};
use shmuring_communicator::service::standby::Standby;
use shmuring_communicator::service::{
    Answer, PageService, Read, ReadBatch, ReadLsn, Result, Value, Watermarks, What, PAGE_SIZE,
};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

pub const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

pub fn page(block: i64) -> Vec<u8> {
    (0..PAGE_SIZE).map(|i| (i as i64 ^ block.wrapping_mul(31)) as u8).collect()
}

/// The questions of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Who,
    Pages,
    Sizes,
    Masked,
    Replayed,
    DbSize,
}

/// What a server does with a question.
pub enum Act {
    /// What a standby answers.
    Answer,
    /// These columns in its place; `None`: null.
    Row(Vec<Option<Vec<u8>>>),
    /// An error of this SQLSTATE.
    Error(&'static str),
    /// Nothing, for ever.
    Nothing,
    /// Half of a message, and the end of the connection.
    HalfAndEnd,
    /// No message of the protocol.
    Noise,
}

type Hook = Box<dyn FnMut(Question, &[i64]) -> Act + Send>;

pub struct State {
    pub hook: Option<Hook>,
    /// When the server was started.
    pub started: &'static str,
    pub system: &'static str,
    pub in_recovery: bool,
    pub block_size: &'static str,
    pub replayed: Lsn,
    /// Refuses connections: an SQLSTATE.
    pub refuses: Option<&'static str>,
    connections: Vec<TcpStream>,
}

#[derive(Clone)]
pub struct Fake {
    state: Arc<Mutex<State>>,
    port: u16,
}

impl Fake {
    pub fn new() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let state = State {
            hook: None,
            started: "2000-01-01",
            system: "77",
            in_recovery: true,
            block_size: "8192",
            replayed: 1000,
            refuses: None,
            connections: Vec::new(),
        };
        let fake = Self { state: Arc::new(Mutex::new(state)), port: socket.local_addr().unwrap().port() };
        let server = fake.clone();
        // Ends with the process of the test.
        std::thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let _ = stream.set_nodelay(true);
                server.state().connections.extend(stream.try_clone());
                let server = server.clone();
                std::thread::spawn(move || {
                    let mut session = Session { server, stream, statements: Vec::new() };
                    let _ = session.run();
                    // Not by its drop: there is a handle for `cut`.
                    let _ = session.stream.shutdown(std::net::Shutdown::Both);
                });
            }
        });
        fake
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn hook(&self, hook: impl FnMut(Question, &[i64]) -> Act + Send + 'static) {
        self.state().hook = Some(Box::new(hook));
    }

    /// All connections break.
    pub fn cut(&self) {
        for stream in self.state().connections.drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=u dbname=d", self.port)
    }
}

/// A connection, at the server.
struct Session {
    server: Fake,
    stream: TcpStream,
    /// Names, and what they ask.
    statements: Vec<(Vec<u8>, Question)>,
}

const OID: u32 = 26;
const INT2: u32 = 21;
const INT4: u32 = 23;
const INT8: u32 = 20;
const BOOL: u32 = 16;
const TEXT: u32 = 25;
const BYTEA: u32 = 17;
const LSN: u32 = 3220;
const OIDS: u32 = 1028;
const INT2S: u32 = 1005;
const INT8S: u32 = 1016;

impl Question {
    fn of(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        match text {
            t if t.contains("pg_control_system") => Self::Who,
            t if t.contains("shmuring_source_pages") => Self::Pages,
            t if t.contains("shmuring_source_sizes") => Self::Sizes,
            t if t.contains("shmuring_source_masked") => Self::Masked,
            t if t.contains("pg_database_size") => Self::DbSize,
            _ => Self::Replayed,
        }
    }

    /// Types of parameters and of columns.
    fn types(self) -> (&'static [u32], &'static [u32]) {
        match self {
            Self::Who => (&[], &[TEXT, TEXT, BOOL, LSN, TEXT, INT4]),
            Self::Pages => (&[OIDS, OIDS, OIDS, INT2S, INT8S, LSN, BOOL], &[BYTEA]),
            Self::Sizes => (&[OIDS, OIDS, OIDS, INT2S, LSN], &[INT8S]),
            Self::Masked => (&[OID, OID, OID, INT2, TEXT, INT8S, LSN, INT4, BOOL, BOOL], &[BYTEA]),
            Self::Replayed => (&[], &[LSN, BOOL]),
            Self::DbSize => (&[OID], &[INT8]),
        }
    }
}

/// Up to the zero byte, and what is behind it.
fn name(bytes: &[u8]) -> (Vec<u8>, &[u8]) {
    let end = bytes.iter().position(|b| *b == 0).unwrap();
    (bytes[..end].to_vec(), &bytes[end + 1..])
}

fn int4(bytes: &[u8]) -> i32 {
    i32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn int2(bytes: &[u8]) -> usize {
    u16::from_be_bytes(bytes[..2].try_into().unwrap()).into()
}

/// The numbers of an array of int8: dimensions, flags, type, then a length and a lower bound.
fn numbers(array: &[u8]) -> Vec<i64> {
    let elements = array.get(20..).unwrap_or_default();
    elements.chunks(12).map(|e| i64::from_be_bytes(e[4..12].try_into().unwrap())).collect()
}

pub fn array(numbers: &[i64]) -> Vec<u8> {
    let head = [1, 0, INT8 as i32, numbers.len() as i32, 1];
    let mut bytes: Vec<u8> = head.iter().flat_map(|n| n.to_be_bytes()).collect();
    for n in numbers {
        bytes.extend_from_slice(&8i32.to_be_bytes());
        bytes.extend_from_slice(&n.to_be_bytes());
    }
    bytes
}

/// The answer of shmuring_source_pages(), as extension/standby.c lays it out.
pub fn pages(read_lsn: Lsn, in_recovery: bool, blocks: &[i64], with_pages: bool) -> Vec<u8> {
    let mut bytes = read_lsn.to_be_bytes().to_vec();
    bytes.extend_from_slice(&u32::from(in_recovery).to_be_bytes());
    bytes.extend_from_slice(&(blocks.len() as u32).to_be_bytes());
    for _ in blocks {
        bytes.extend_from_slice(&0u32.to_be_bytes());
        bytes.extend_from_slice(&[0; 16]);
    }
    if with_pages {
        bytes.extend(blocks.iter().flat_map(|b| page(*b)));
    }
    bytes
}

impl Session {
    fn send(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let mut message = vec![kind];
        message.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        message.extend_from_slice(body);
        self.stream.write_all(&message)
    }

    fn error(&mut self, sqlstate: &str) -> io::Result<()> {
        let body = format!("SERROR\0VERROR\0C{sqlstate}\0Mas it was told\0\0");
        self.send(b'E', body.as_bytes())
    }

    fn ready(&mut self) -> io::Result<()> {
        self.send(b'Z', b"I")
    }

    fn message(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let mut body = vec![0; int4(&head[1..]) as usize - 4];
        self.stream.read_exact(&mut body)?;
        Ok((head[0], body))
    }

    fn run(&mut self) -> io::Result<()> {
        // The greeting has no type.
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        self.stream.read_exact(&mut vec![0; int4(&length) as usize - 4])?;
        let refused = self.server.state().refuses;
        if let Some(sqlstate) = refused {
            return self.error(sqlstate);
        }
        self.send(b'R', &[0; 4])?;
        self.ready()?;
        let mut bound = (Question::Replayed, Vec::new());
        // Behind an error nothing is answered but the end of what was asked together.
        let mut failed = false;
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'S' => {
                    failed = false;
                    self.ready()?;
                }
                b'X' => return Ok(()),
                _ if failed => {}
                b'P' => {
                    let (statement, rest) = name(&body);
                    self.statements.push((statement, Question::of(&name(rest).0)));
                    self.send(b'1', &[])?;
                }
                b'D' => self.describe(&body[1..])?,
                b'B' => {
                    bound = self.bind(&body);
                    self.send(b'2', &[])?;
                }
                b'E' => failed = !self.execute(bound.0, &bound.1)?,
                b'C' => self.send(b'3', &[])?,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    fn question(&self, statement: &[u8]) -> Question {
        self.statements.iter().rev().find(|(name, _)| name == statement).unwrap().1
    }

    fn describe(&mut self, body: &[u8]) -> io::Result<()> {
        let (params, columns) = self.question(&name(body).0).types();
        let mut body = (params.len() as u16).to_be_bytes().to_vec();
        body.extend(params.iter().flat_map(|oid| oid.to_be_bytes()));
        self.send(b't', &body)?;
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for oid in columns {
            body.extend_from_slice(b"c\0\0\0\0\0\0\0");
            body.extend_from_slice(&oid.to_be_bytes());
            // Length of the type, its modifier, text or binary.
            body.extend_from_slice(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0]);
        }
        self.send(b'T', &body)
    }

    /// The question, and the numbers of its array of int8 or else those of its last array.
    fn bind(&mut self, body: &[u8]) -> (Question, Vec<i64>) {
        let (statement, rest) = name(name(body).1);
        let question = self.question(&statement);
        let mut rest = &rest[2 + 2 * int2(rest)..];
        let count = int2(rest);
        rest = &rest[2..];
        let mut found = Vec::new();
        for oid in question.types().0.iter().take(count) {
            let length = usize::try_from(int4(rest)).unwrap_or(0);
            let value = &rest[4..4 + length];
            match *oid {
                INT8S => found = numbers(value),
                // Their number alone.
                OIDS if found.is_empty() => found = vec![0; value.get(20..).unwrap_or_default().len() / 8],
                _ => {}
            }
            rest = &rest[4 + length..];
        }
        (question, found)
    }

    /// Whether it was no error.
    fn execute(&mut self, question: Question, numbers: &[i64]) -> io::Result<bool> {
        let act = self.server.state().hook.as_mut().map_or(Act::Answer, |hook| hook(question, numbers));
        let row = match act {
            Act::Answer => self.good(question, numbers),
            Act::Row(row) => row,
            Act::Error(sqlstate) => return self.error(sqlstate).map(|()| false),
            Act::Nothing => loop {
                self.message()?;
            },
            Act::HalfAndEnd => {
                self.stream.write_all(&[b'D', 0, 0, 0x20, 0, 0, 1])?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            Act::Noise => {
                self.stream.write_all(&[0xFF; 64])?;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        };
        let mut body = (row.len() as u16).to_be_bytes().to_vec();
        for column in row {
            match column {
                Some(bytes) => {
                    body.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
                    body.extend_from_slice(&bytes);
                }
                None => body.extend_from_slice(&(-1i32).to_be_bytes()),
            }
        }
        self.send(b'D', &body)?;
        self.send(b'C', b"SELECT 1\0").map(|()| true)
    }

    fn good(&self, question: Question, numbers: &[i64]) -> Vec<Option<Vec<u8>>> {
        let state = self.server.state();
        let recovery = vec![u8::from(state.in_recovery)];
        let replayed = state.replayed.to_be_bytes().to_vec();
        let text = |s: &str| Some(s.as_bytes().to_vec());
        match question {
            Question::Who => {
                let version = 15i32.to_be_bytes().to_vec();
                let at = (text(state.system), text(state.started));
                vec![at.0, at.1, Some(recovery), Some(replayed), text(state.block_size), Some(version)]
            }
            Question::Pages | Question::Masked => {
                vec![Some(pages(state.replayed, state.in_recovery, numbers, true))]
            }
            Question::Sizes => vec![Some(array(&vec![100; numbers.len()]))],
            Question::Replayed => vec![Some(replayed), Some(recovery)],
            Question::DbSize => vec![Some(12345i64.to_be_bytes().to_vec())],
        }
    }
}

/// The service, as the communicator uses it.
pub struct Client {
    pub service: Standby,
    pub runtime: Runtime,
}

pub fn open(conninfo: &str) -> Result<Client> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let service = Standby::open(&conninfo.parse().unwrap(), runtime.handle())?;
    Ok(Client { service, runtime })
}

pub fn read(what: What, n: Lsn) -> Read {
    let lsns = ReadLsn { request_lsn: None, not_modified_since: n };
    Read { what, lsns, attempt: 0 }
}

pub fn block(block: u32) -> Read {
    read(What::Page(REL, block), 1)
}

impl Client {
    /// The answers of a batch, in the order of its reads.
    pub fn ask(&self, generation: u64, reads: Vec<Read>) -> Vec<Result<Answer>> {
        let count = reads.len();
        let batch = ReadBatch { kind: Kind::Ready, class: Class::Demand, shard: 0, generation, reads };
        let mut answers: Vec<_> = (0..count).map(|_| None).collect();
        self.runtime.block_on(self.service.read_batch(&batch, &mut |i, answer| answers[i] = Some(answer)));
        answers.into_iter().map(|a| a.expect("every read is answered")).collect()
    }

    pub fn get(&self, n: u32) -> Result<Vec<u8>> {
        self.ask(0, vec![block(n)]).remove(0).map(bytes)
    }

    /// What was asked wrong was one question's fault: the service goes on.
    pub fn goes_on(&self) {
        soon(|| self.get(8).is_ok_and(|p| p == page(8)));
    }
}

pub fn bytes(answer: Answer) -> Vec<u8> {
    match answer.value {
        Value::Page(page) => page.bytes().to_vec(),
        other => panic!("{other:?} is no page"),
    }
}

/// Waits for what must come.
pub fn soon(mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < end, "in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Ingested(Lsn),
    Reconnected(u64, Lsn),
}

/// What the service reports of the server's replay.
#[derive(Clone, Default)]
pub struct Reports(Arc<Mutex<Vec<Told>>>);

impl Reports {
    pub fn of(client: &Client) -> Self {
        let reports = Self::default();
        client.service.report_to(Arc::new(reports.clone()));
        reports
    }

    pub fn wait_for(&self, told: &Told) {
        soon(|| self.0.lock().unwrap().contains(told));
    }
}

impl Watermarks for Reports {
    fn ingested(&self, _shard: usize, lsn: Lsn) {
        self.0.lock().unwrap().push(Told::Ingested(lsn));
    }

    fn reconnected(&self, _shard: usize, generation: u64, durable: Lsn) {
        self.0.lock().unwrap().push(Told::Reconnected(generation, durable));
    }
}
