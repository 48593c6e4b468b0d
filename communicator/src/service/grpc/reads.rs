//! One batch of reads: pages by a stream, all else by single calls.

use super::check::{self, write_lsns, Asked, Wrong};
use super::errors::{broken, is_of_connection, of_code, of_status, silent};
use super::link::{Lane, Link, PageStream};
use super::shard::Shard;
use super::GrpcService;
use crate::service::{
    Answer, Answers, Page, Read, ReadBatch, ReadLsn, Rel, Result, Retry, ServiceError, Value, What, PAGE_SIZE,
};
use crate::wire::proto::page_api::{GetDbSizeRequest, GetPageStatusCode, GetRelSizeRequest, GetSlruSegmentRequest};
use crate::wire::read::{class_out, lsns_out, rel_out};
use shmuring::lsn::scheduler::Kind;
use shmuring::request::{Class, Lsn, RelTag};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

/// From so many blocks on a batch is bulk.
const BULK: usize = 5;
/// A wait for WAL is logged after so long, and again after each.
const REMARK: Duration = Duration::from_secs(10);
/// A server that gives up waiting for WAL, and says nothing of its ingest, has waited at least so long.
const LSN_WAIT: Duration = Duration::from_secs(1);

/// Names requests; unique in each stream.
static IDS: AtomicU64 = AtomicU64::new(1);

/// The answer to a question that goes by itself.
type Single = (usize, Result<Answer>);

/// A batch on its way.
struct Sent<'a> {
    shard: &'a Arc<Shard>,
    link: Arc<Link>,
    kind: Kind,
    lane: Lane,
    begin: Instant,
    /// Of zero pages: whether they are past the end (checked at shard 0).
    singles: JoinSet<Single>,
    first: &'a Arc<Shard>,
}

/// Serves a batch. Dropped half-way, it drops its stream and its calls.
pub(super) async fn batch(service: &GrpcService, batch: &ReadBatch, answers: &mut Answers<'_>) {
    let fail = |answers: &mut Answers<'_>, e: &ServiceError| {
        for (i, read) in batch.reads.iter().enumerate() {
            answers(i, Err(about_block(e.clone(), read)));
        }
    };
    let (Some(shard), Some(first)) = (service.shards.get(batch.shard), service.shards.first()) else {
        return fail(answers, &ServiceError::invalid(format!("there is no shard {}", batch.shard)));
    };
    let link = match shard.link().await {
        Ok(link) => link,
        Err(e) => return fail(answers, &e),
    };
    if link.generation != batch.generation && shard.shared.reports().is_some() {
        let what = format!("attachment {} of shard {} is over", batch.generation, shard.number);
        return fail(answers, &ServiceError::new(libc::ECONNRESET, what).with_retry(Retry::Reconnect));
    }
    if batch.kind == Kind::Future {
        tell_what_was_written(service, shard, batch);
    }
    let lane = lane(batch);
    let begin = Instant::now();
    let mut sent = Sent { shard, link, kind: batch.kind, lane, begin, singles: JoinSet::new(), first };
    for (i, read) in batch.reads.iter().enumerate() {
        match read.what {
            What::Page(..) => {}
            // The page would have to come over the network for nothing.
            What::Near(..) => answers(i, Ok(Answer { value: Value::Near, lsn: 0 })),
            What::Nothing => answers(i, Err(ServiceError::unsupported("reading nothing"))),
            What::RelSize(_) | What::DbSize(_) | What::Slru(..) => sent.ask(i, *read),
        }
    }
    let asked = Asked::of(&batch.reads, &mut || IDS.fetch_add(1, Ordering::Relaxed));
    if !asked.is_empty() {
        sent.pages(&asked, batch.class, answers).await;
    }
    while let Some(single) = sent.singles.join_next().await {
        // One that panicked gives no answer, which fails it.
        if let Ok((i, result)) = single {
            answers(i, result);
        }
    }
}

/// A read that waits shows how far writers are, to a shard that no write has shown it: one that was withdrawn, say, or that
/// a predecessor has sent to another shard. Without that it would wait in vain. But only what a writer has written, noted
/// or is known to have brought to some shard counts as written: a reader's word alone moves no server.
fn tell_what_was_written(service: &GrpcService, shard: &Shard, batch: &ReadBatch) {
    let known = service.shards.iter().filter_map(|s| s.ingested()).max().unwrap_or(0);
    let known = known.max(service.writes.written());
    let reports = shard.shared.reports();
    let is_noted = |read: &Read| {
        let n = read.lsns.not_modified_since;
        n <= known || reports.as_ref().is_some_and(|r| r.is_noted(&read.what, n))
    };
    let written = batch.reads.iter().filter(|r| is_noted(r)).map(|r| r.lsns.not_modified_since).max();
    service.writes.told_to(shard.number, written.unwrap_or(0));
}

fn about_block(e: ServiceError, read: &Read) -> ServiceError {
    match read.what {
        What::Page(_, block) => e.about(block),
        _ => e,
    }
}

fn lane(batch: &ReadBatch) -> Lane {
    match (batch.kind, batch.class) {
        (Kind::Future | Kind::Mutations, _) => Lane::Future,
        (Kind::Ready, Class::Prefetch | Class::Background) => Lane::Ahead,
        (Kind::Ready, Class::Demand) if batch.reads.len() >= BULK => Lane::Bulk,
        (Kind::Ready, Class::Demand) => Lane::Single,
    }
}

impl Sent<'_> {
    fn error(&self, asked: &Asked) -> super::errors::About {
        self.shard.about(&self.link.server, asked, asked.attempt)
    }

    /// How long an answer may take.
    fn limit(&self) -> Duration {
        let options = &self.shard.shared.options;
        if self.kind == Kind::Ready {
            options.answer
        } else {
            options.lsn_wait
        }
    }

    /// Sends all requests, and takes their answers in order.
    async fn pages(&mut self, asked: &[Asked], class: Class, answers: &mut Answers<'_>) {
        let Some(first) = asked.first() else { return };
        let requests = asked.iter().map(|a| a.request(class_out(class))).collect();
        let mut stream = match tokio::time::timeout(self.limit(), self.link.send(self.lane, requests)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(status)) => {
                return self.ended(asked, &of_status(&self.error(first), &status), Some(&status), answers)
            }
            Err(_) => return self.waited(asked, answers),
        };
        for (i, one) in asked.iter().enumerate() {
            let rest = asked.get(i..).unwrap_or_default();
            let answer = match self.next(&mut stream, one).await {
                None => return self.waited(rest, answers),
                Some(Ok(Some(answer))) => answer,
                Some(Ok(None)) => {
                    let e = broken(&self.error(one), "the server has ended the stream");
                    return self.ended(rest, &ServiceError { errno: libc::ECONNABORTED, ..e }, None, answers);
                }
                Some(Err(status)) => {
                    return self.ended(rest, &of_status(&self.error(one), &status), Some(&status), answers)
                }
            };
            match one.pages(answer) {
                Ok(pages) => self.came(one, pages, answers),
                Err(Wrong::Said(code, reason)) => {
                    let e = self.said(one, code, &reason);
                    one.blocks.iter().for_each(|(i, block)| answers(*i, Err(e.clone().about(*block))));
                }
                Err(Wrong::Broken(why)) => return self.ended(rest, &broken(&self.error(one), why), None, answers),
            }
        }
        self.link.keep(self.lane, stream);
    }

    /// The next answer; `None`: none in time.
    async fn next(
        &self,
        stream: &mut PageStream,
        asked: &Asked,
    ) -> Option<core::result::Result<Option<crate::wire::proto::page_api::GetPageResponse>, Status>> {
        let limit = self.limit();
        let mut waited = Duration::ZERO;
        while waited < limit {
            let slice = REMARK.min(limit - waited);
            match tokio::time::timeout(slice, stream.next()).await {
                Ok(answer) => return Some(answer),
                Err(_) => waited += slice,
            }
            if self.kind == Kind::Future {
                let (shard, at) = (self.shard.number, self.shard.ingested().unwrap_or(0));
                let seconds = self.begin.elapsed().as_secs();
                tracing::info!(
                    shard,
                    seconds,
                    "waiting for WAL: {asked}, the shard is at {:X}/{:X}",
                    at >> 32,
                    at as u32
                );
            }
        }
        None
    }

    /// No answer in time. A READY read waits for nothing: then the server is no use. A FUTURE one goes back to those that
    /// wait (S10).
    fn waited(&self, rest: &[Asked], answers: &mut Answers<'_>) {
        let Some(first) = rest.first() else { return };
        if self.kind != Kind::Ready {
            for one in rest {
                let e = ServiceError::not_yet(one.lsns.not_modified_since, self.shard.number);
                one.blocks.iter().for_each(|(i, block)| answers(*i, Err(e.clone().about(*block))));
            }
            return;
        }
        let e = silent(&self.error(first), self.limit());
        self.shard.lost(self.link.generation, &e);
        self.ended(rest, &e, None, answers);
    }

    /// The stream has ended; the rest has no answers.
    fn ended(&self, rest: &[Asked], e: &ServiceError, status: Option<&Status>, answers: &mut Answers<'_>) {
        if status.is_some_and(is_of_connection) {
            self.shard.lost(self.link.generation, e);
        }
        for (i, block) in rest.iter().flat_map(|a| &a.blocks) {
            answers(*i, Err(e.clone().about(*block)));
        }
    }

    fn came(&mut self, asked: &Asked, pages: Vec<bytes::Bytes>, answers: &mut Answers<'_>) {
        let lsn = asked.lsns.request_lsn.unwrap_or(asked.lsns.not_modified_since);
        for (page, (i, block)) in pages.into_iter().zip(&asked.blocks) {
            if page.iter().all(|b| *b == 0) {
                self.zero(*i, asked, *block, lsn);
            } else {
                answers(*i, Ok(Answer { value: Value::Page(Page::part(page)), lsn }));
            }
        }
    }

    /// A zero page: of a block that was never written, or past the end of the relation. Its size says which.
    fn zero(&mut self, index: usize, asked: &Asked, block: u32, lsn: Lsn) {
        let (first, rel) = (self.first.clone(), asked.rel);
        // Nothing newer than the page itself is asked for: that may wait.
        let (lsns, attempt, kind) = (asked.lsns, asked.attempt, self.kind);
        self.singles.spawn(async move {
            let result = match rel_size(&first, None, kind, rel, lsns, attempt).await {
                Ok(Some(blocks)) if block < blocks => {
                    Ok(Answer { value: Value::Page(Page::one(vec![0; PAGE_SIZE])), lsn })
                }
                Ok(Some(blocks)) => Err(ServiceError::past_end(rel, block, blocks)),
                Ok(None) => Err(ServiceError::missing_relation(rel).about(block)),
                Err(e) => Err(e.about(block)),
            };
            (index, result)
        });
    }

    /// What the server says of a request.
    fn said(&self, asked: &Asked, code: GetPageStatusCode, reason: &str) -> ServiceError {
        of_code(&self.error(asked), code, reason, gave_up(self.shard, self.kind, asked.lsns, self.begin))
    }

    /// Asks by a call of its own.
    fn ask(&mut self, index: usize, read: Read) {
        let (shard, link, kind) = (self.shard.clone(), self.link.clone(), self.kind);
        self.singles.spawn(async move { (index, single(&shard, &link, kind, read).await) });
    }
}

/// Whether an internal error may be a wait for WAL that the server has given up: the protocol has no code for that.
fn gave_up(shard: &Shard, kind: Kind, lsns: ReadLsn, begin: Instant) -> bool {
    match shard.ingested() {
        Some(at) => at < lsns.not_modified_since,
        None => kind != Kind::Ready && begin.elapsed() >= LSN_WAIT,
    }
}

/// Asks for anything but pages.
pub(super) async fn single(shard: &Arc<Shard>, link: &Link, kind: Kind, read: Read) -> Result<Answer> {
    let Read { what, lsns, attempt } = read;
    let call = Call { shard, link, kind, lsns, attempt };
    match what {
        What::RelSize(rel) => {
            let blocks = rel_size(shard, Some(link), kind, rel, lsns, attempt).await?;
            Ok(Answer { value: Value::RelSize(blocks), lsn: 0 })
        }
        What::DbSize(db_oid) => {
            let message = GetDbSizeRequest { read_lsn: Some(lsns_out(lsns)), db_oid };
            let mut client = link.reads(call.lane());
            let answer = call.end(client.get_db_size(link.request(message)), || format!("size of database {db_oid}"));
            Ok(Answer { value: Value::DbSize(answer.await?.num_bytes), lsn: 0 })
        }
        What::Slru(kind, segno) => {
            let message = GetSlruSegmentRequest { read_lsn: Some(lsns_out(lsns)), kind, segno };
            let mut client = link.reads(call.lane());
            let what = || format!("SLRU segment {kind}/{segno:04X}");
            let segment = call.end(client.get_slru_segment(link.request(message)), what).await?.segment;
            match check::segment(segment) {
                Ok(segment) => Ok(Answer { value: Value::Segment(Arc::new(segment)), lsn: 0 }),
                Err(why) => Err(broken(&shard.about(&link.server, what(), attempt), why)),
            }
        }
        What::Page(..) | What::Near(..) | What::Nothing => Err(ServiceError::unsupported("a page by a single call")),
    }
}

async fn rel_size(
    shard: &Arc<Shard>,
    link: Option<&Link>,
    kind: Kind,
    rel: RelTag,
    lsns: ReadLsn,
    attempt: u32,
) -> Result<Option<u32>> {
    let own;
    let link = match link {
        Some(link) => link,
        None => {
            own = shard.link().await?;
            &own
        }
    };
    let call = Call { shard, link, kind, lsns, attempt };
    let message = GetRelSizeRequest { read_lsn: Some(lsns_out(lsns)), rel: Some(rel_out(rel)), allow_missing: true };
    let mut client = link.reads(call.lane());
    let answer = client.get_rel_size(link.request(message));
    let answer = call.end(answer, || format!("size of relation {}", Rel(rel))).await?;
    Ok((!answer.missing).then_some(answer.num_blocks))
}

/// A call under way.
struct Call<'a> {
    shard: &'a Arc<Shard>,
    link: &'a Link,
    kind: Kind,
    lsns: ReadLsn,
    attempt: u32,
}

impl Call<'_> {
    fn lane(&self) -> Lane {
        if self.kind == Kind::Ready {
            Lane::Single
        } else {
            Lane::Future
        }
    }

    /// Waits for its end, within the time for it.
    async fn end<T>(
        &self,
        answer: impl std::future::Future<Output = core::result::Result<Response<T>, Status>>,
        what: impl Fn() -> String,
    ) -> Result<T> {
        let Self { shard, link, kind, lsns, attempt } = self;
        let options = &shard.shared.options;
        let begin = Instant::now();
        let limit = if *kind == Kind::Ready { options.answer } else { options.lsn_wait };
        let about = || {
            let mut what = what() + " (";
            let _ = write_lsns(*lsns, &mut what);
            shard.about(&link.server, what + ")", *attempt)
        };
        let status = match tokio::time::timeout(limit, answer).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => status,
            Err(_) if *kind == Kind::Ready => {
                let e = silent(&about(), limit);
                shard.lost(link.generation, &e);
                return Err(e);
            }
            Err(_) => return Err(ServiceError::not_yet(lsns.not_modified_since, shard.number)),
        };
        let e = of_status(&about(), &status);
        if is_of_connection(&status) {
            shard.lost(link.generation, &e);
            return Err(e);
        }
        Err(match status.code() {
            Code::Internal if gave_up(shard, *kind, *lsns, begin) => {
                ServiceError { errno: libc::EAGAIN, ..e }.with_retry(Retry::NotYet)
            }
            _ => e,
        })
    }
}
