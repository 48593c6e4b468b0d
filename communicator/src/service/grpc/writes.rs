//! Writes: fences, mutations, sync, and how far the writer has come, by the service that is shmuring's own.
//!
//! With several shards a mutation is what each of them must hear of it: a page goes to its shard, and that the fork has
//! grown, was cut, made or removed, to all. Shard 0 has the sizes, so it hears last: what it says exists is there. Until
//! then nothing is acknowledged, and a second run changes nothing of what was done. Mutations of a group touch different
//! things (the scheduler keeps conflicting ones apart), so that each shard may go at its own pace.

use super::check::{results, NoResults};
use super::errors::{broken, is_of_connection, of_status, silent, About};
use super::link::Link;
use super::plan::{Outcome, Plan};
use super::shard::{lock, Shard};
use crate::service::{MutationRequest, Result, Retry, ServiceError};
use crate::wire::failure::failure_in;
use crate::wire::mutation::{mutation_out, Term};
use crate::wire::proto::write::{self, ApplyRequest, FenceRequest, Mutation, SyncRequest};
use shmuring::request::Lsn;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{watch, Notify};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

/// Pause after a server would not hear how far the writer has come; doubles up to the longest of all.
const PAUSE: Duration = Duration::from_millis(20);
/// No server writes so much WAL; as the store has it.
const LAST_LSN: Lsn = Lsn::MAX >> 1;

/// See the module.
pub(super) struct Writes {
    region: Mutex<u128>,
    /// The highest LSN of a mutation that was sent.
    written: AtomicU64,
    shards: Vec<Arc<Writer>>,
}

/// What one shard is written.
pub(super) struct Writer {
    shard: Arc<Shard>,
    /// Held for one call: the server hears what is sent in this order. The term that it has acknowledged, and on which
    /// attachment.
    fenced: tokio::sync::Mutex<Option<(u64, Term)>>,
    /// The term that writes, once there is one.
    term: Mutex<Option<Term>>,
    /// The attachment whose server does not know the service. The next may lead to one that does.
    takes_none: AtomicU64,
    /// Up to where the writer has come.
    wanted: AtomicU64,
    /// Up to where a server was told so, and on which attachment: whoever comes next may be further behind.
    told: Mutex<(u64, Lsn)>,
    more: Notify,
}

impl Writes {
    pub(super) fn new(shards: &[Arc<Shard>]) -> Self {
        let writer = |shard: &Arc<Shard>| {
            Arc::new(Writer {
                shard: shard.clone(),
                fenced: tokio::sync::Mutex::default(),
                term: Mutex::default(),
                takes_none: AtomicU64::new(u64::MAX),
                wanted: AtomicU64::new(0),
                told: Mutex::default(),
                more: Notify::new(),
            })
        };
        Self { region: Mutex::new(0), written: AtomicU64::new(0), shards: shards.iter().map(writer).collect() }
    }

    /// Names the region that writes.
    pub(super) fn of_region(&self, region: u128) {
        *lock(&self.region) = region;
    }

    /// The tasks that tell each server how far the writer has come.
    pub(super) fn tasks(&self) -> Vec<impl Future<Output = ()> + Send + 'static> {
        self.shards.iter().map(|w| tell(w.clone())).collect()
    }

    /// Everything up to `lsn` that a shard must hear of has been sent to it, by the time that this gets there: a read that
    /// depends on it begins when the write is acknowledged.
    pub(super) fn told_to(&self, shard: usize, lsn: Lsn) {
        if let Some(writer) = self.shards.get(shard) {
            writer.told_to(lsn);
        }
    }

    /// The highest LSN of a mutation that was sent.
    pub(super) fn written(&self) -> Lsn {
        self.written.load(Ordering::Acquire)
    }

    fn term(&self, life: u32, epoch: u32) -> Term {
        Term { region: *lock(&self.region), life, epoch }
    }

    /// Has every server refuse older terms. One that cannot be reached hears it later: in any case before its first
    /// mutation of this term. A refusal is told before that.
    pub(super) async fn fence(&self, life: u32, epoch: u32) -> Result<()> {
        let term = self.term(life, epoch);
        self.all(|w| async move { w.begin(term).await }).await
    }

    /// Has every server make durable what it acknowledged.
    pub(super) async fn sync(&self) -> Result<()> {
        self.all(|w| async move { w.sync().await }).await
    }

    /// Does the same at all servers, side by side, to the end of each. Of several errors one that lasts counts.
    async fn all<F: Future<Output = Result<()>> + Send + 'static>(&self, f: impl Fn(Arc<Writer>) -> F) -> Result<()> {
        let mut calls: JoinSet<_> = self.shards.iter().map(|w| f(w.clone())).collect();
        let mut all = Ok(());
        while let Some(call) = calls.join_next().await {
            let call = call.unwrap_or_else(|e| Err(ServiceError::new(libc::EIO, format!("a task ended early: {e}"))));
            if let Err(e) = call {
                if all.is_ok() || e.retry == Retry::Never {
                    all = Err(e);
                }
            }
        }
        all
    }

    /// Applies a group: see the module.
    pub(super) async fn apply(&self, life: u32, epoch: u32, group: &[MutationRequest]) -> Vec<Result<u64>> {
        let term = self.term(life, epoch);
        let Some((first, others)) = self.shards.split_first() else { return Vec::new() };
        let lsn = group.iter().map(|r| r.mutation.lsn()).max().unwrap_or(0);
        self.written.fetch_max(lsn, Ordering::AcqRel);
        let sharding = first.shard.shared.config().map.sharding();
        let mut plan = Plan::of(group, sharding);
        let mut outcome = Outcome::new(group.len());
        let mut calls = JoinSet::new();
        for (shard, writer) in (1..).zip(others) {
            let part = plan.take(shard, &outcome);
            if part.is_empty() {
                continue;
            }
            let writer = writer.clone();
            calls.spawn(async move {
                let requests = part.iter().map(|(_, r)| mutation_out(r)).collect();
                (part, writer.apply(term, requests, lsn).await)
            });
        }
        while let Some(call) = calls.join_next().await {
            match call {
                Ok((part, results)) => outcome.add(&part, results),
                Err(e) => {
                    return vec![Err(ServiceError::new(libc::EIO, format!("a task ended early: {e}"))); group.len()]
                }
            }
        }
        let part = plan.take(0, &outcome);
        if !part.is_empty() {
            let requests = part.iter().map(|(_, r)| mutation_out(r)).collect();
            let results = first.apply(term, requests, lsn).await;
            outcome.add(&part, results);
        }
        self.shards.iter().for_each(|w| w.told_to(lsn));
        outcome.results()
    }
}

impl Writer {
    fn told_to(&self, lsn: Lsn) {
        if lsn <= LAST_LSN && self.wanted.fetch_max(lsn, Ordering::AcqRel) < lsn {
            self.more.notify_one();
        }
    }

    /// Whether the server of the present attachment was told `wanted`. While there is none, whether the last one was.
    fn is_told(&self, wanted: Lsn) -> bool {
        let (generation, told) = *lock(&self.told);
        let is_here = self.shard.current().is_none_or(|link| link.generation == generation);
        wanted == 0 || wanted <= told && is_here
    }

    /// Whether the server of an attachment does not know the service.
    fn takes_none(&self, generation: u64) -> bool {
        // Relaxed: no data hangs off it.
        self.takes_none.load(Ordering::Relaxed) == generation
    }

    /// The same of the present attachment; of none nothing is known.
    fn takes_none_now(&self) -> bool {
        self.shard.current().is_some_and(|link| self.takes_none(link.generation))
    }

    /// Comes when there may be more to tell: to the same server, or to the one of a new attachment.
    async fn news(&self, attached: &mut watch::Receiver<u64>) {
        tokio::select! {
            () = self.more.notified() => {}
            // The sender lives as long as the shard does.
            _ = attached.changed() => {}
        }
    }

    fn about(&self, link: &Link, what: &str) -> About {
        self.shard.about(&link.server, what, 0)
    }

    /// Waits for the end of a call.
    async fn end<T>(
        &self,
        link: &Link,
        what: &str,
        call: impl Future<Output = core::result::Result<Response<T>, Status>>,
    ) -> Result<T> {
        let limit = self.shard.shared.options.answer;
        let e = match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let e = of_status(&self.about(link, what), &status);
                if !is_of_connection(&status) {
                    if status.code() == Code::Unimplemented {
                        self.takes_none.store(link.generation, Ordering::Relaxed);
                    }
                    return Err(e);
                }
                e
            }
            Err(_) => silent(&self.about(link, what), limit),
        };
        self.shard.lost(link.generation, &e);
        Err(e)
    }

    /// Says in which term is written from now on. If the server cannot be reached, `tell` goes on trying.
    async fn begin(&self, term: Term) -> Result<()> {
        let term = self.newest(term);
        let mut fenced = self.fenced.lock().await;
        let link = self.shard.link_at_once().await;
        let begun = match link {
            Ok(link) => self.fence(&mut fenced, &link, term).await,
            Err(e) => Err(e),
        };
        drop(fenced);
        self.more.notify_one();
        begun
    }

    /// The term in which to write: the newest of this communicator that anybody knows.
    fn newest(&self, term: Term) -> Term {
        let mut last = lock(&self.term);
        match *last {
            Some(last) if last.life > term.life && last.epoch == term.epoch => last,
            _ => *last.insert(term),
        }
    }

    async fn fence(&self, fenced: &mut Option<(u64, Term)>, link: &Link, term: Term) -> Result<()> {
        // Where nothing can be written every term is fenced.
        if *fenced == Some((link.generation, term)) || self.takes_none(link.generation) {
            return Ok(());
        }
        let mut client = link.writes();
        let attachment = link.generation;
        let request = FenceRequest { term: Some(term.out()), shard: Some(self.shape()), attachment };
        let answer = match self.end(link, "fence", client.fence(link.request(request))).await {
            Err(_) if self.takes_none(link.generation) => return Ok(()),
            answer => answer?,
        };
        if let Some(failure) = answer.failure {
            return Err(self.failed(link, "fence", failure_in(failure)));
        }
        *fenced = Some((link.generation, term));
        Ok(())
    }

    /// What the server is taken for.
    fn shape(&self) -> write::Shard {
        let sharding = self.shard.shared.config().map.sharding();
        let number = u32::try_from(self.shard.number).unwrap_or(u32::MAX);
        write::Shard { number, count: sharding.count.into(), stripe: sharding.stripe }
    }

    /// Whether the term is still to be told to the server, on this attachment.
    async fn is_unfenced(&self, term: Term) -> bool {
        let fenced = *self.fenced.lock().await;
        !self.takes_none_now() && fenced.map(|(_, fenced)| fenced) != Some(term)
    }

    /// The server's error, with whose it is.
    fn failed(&self, link: &Link, what: &str, e: ServiceError) -> ServiceError {
        let detail = format!("{}: {}", self.about(link, what), e.detail);
        ServiceError { detail, ..e }
    }

    /// Applies mutations; fences first where this attachment or the term is new. Where there are none only where the term
    /// is: a server that another region writes by now is taken from nobody for word of how far this one is.
    async fn apply(&self, term: Term, mutation: Vec<Mutation>, written_lsn: Lsn) -> Result<Vec<Result<u64>>> {
        if self.takes_none_now() {
            return Err(ServiceError::read_only());
        }
        let count = mutation.len();
        let mut fenced = self.fenced.lock().await;
        // What else is under way may have begun a server life meanwhile.
        let term = self.newest(term);
        let link = self.shard.link().await?;
        if count > 0 || fenced.is_none_or(|(_, last)| last != term) {
            self.fence(&mut fenced, &link, term).await?;
        }
        if self.takes_none(link.generation) {
            return Err(ServiceError::read_only());
        }
        let mut client = link.writes();
        let attachment = link.generation;
        let request = link.request(ApplyRequest { term: Some(term.out()), mutation, written_lsn, attachment });
        let results = results(self.end(&link, "mutations", client.apply(request)).await?, count);
        let results = results.map_err(|e| match e {
            NoResults::Refused(e) => self.failed(&link, "mutations", e),
            NoResults::Broken(what) => broken(&self.about(&link, "mutations"), what),
        })?;
        let mut told = lock(&self.told);
        let before = if told.0 == attachment { told.1 } else { 0 };
        *told = (attachment, written_lsn.max(before));
        drop(told);
        Ok(results.into_iter().map(|r| r.map_err(|e| self.failed(&link, "a mutation", e))).collect())
    }

    async fn sync(&self) -> Result<()> {
        if self.takes_none_now() {
            return Ok(());
        }
        let link = self.shard.link().await?;
        let mut client = link.writes();
        let answer = match self.end(&link, "sync", client.sync(link.request(SyncRequest {}))).await {
            Err(_) if self.takes_none(link.generation) => return Ok(()),
            answer => answer?,
        };
        match answer.failure {
            None => Ok(()),
            Some(failure) => Err(self.failed(&link, "sync", failure_in(failure))),
        }
    }
}

/// Tells a server who writes, if it could not be reached at the beginning of the term; and how far the writer has come,
/// when a write of another shard, or a read that waits, has shown it, and anew on each attachment.
async fn tell(writer: Arc<Writer>) {
    let mut pause = PAUSE;
    let mut said = None;
    let mut attached = writer.shard.attached.subscribe();
    loop {
        let wanted = writer.wanted.load(Ordering::Acquire);
        let Some(term) = *lock(&writer.term) else {
            writer.news(&mut attached).await;
            continue;
        };
        let is_late = writer.is_unfenced(term).await;
        if !is_late && writer.is_told(wanted) {
            writer.news(&mut attached).await;
            continue;
        }
        let shard = writer.shard.number;
        match writer.apply(term, Vec::new(), wanted).await {
            Ok(_) => {
                if is_late {
                    tracing::info!(shard, "the server has heard of this communicator");
                }
                pause = PAUSE;
            }
            // Nobody writes there, and nobody need know how far writes are, until it is another server.
            Err(_) if writer.takes_none_now() => writer.news(&mut attached).await,
            Err(e) => {
                if is_late && said.as_ref() != Some(&e) {
                    tracing::warn!(shard, "the server has not heard of this communicator: {e}");
                } else {
                    tracing::debug!(shard, "the server was not told how far writes are: {e}");
                }
                said = Some(e);
                tokio::time::sleep(pause).await;
                pause = pause.saturating_mul(2).min(writer.shard.shared.options.backoff_max);
            }
        }
    }
}
