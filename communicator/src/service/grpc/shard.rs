//! One shard: who serves it now, since when, and how far its ingest is.
//!
//! Generations count attachments, from 0. While there is none, whoever wants one waits for the next, for as long as an
//! outage may last. When one is lost the scheduler is told: what the old process proved says nothing of the next (S1).

use super::config::{Config, GrpcOptions};
use super::errors::About;
use super::link::Link;
use crate::service::{Result, Retry, ServiceError, Watermarks};
use shmuring::request::Lsn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// What all shards share.
pub(super) struct Shared {
    pub(super) options: GrpcOptions,
    pub(super) config: RwLock<Arc<Config>>,
    pub(super) reports: Mutex<Option<Arc<dyn Watermarks>>>,
}

impl Shared {
    pub(super) fn config(&self) -> Arc<Config> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn reports(&self) -> Option<Arc<dyn Watermarks>> {
        lock(&self.reports).clone()
    }
}

/// Whoever panics with it leaves no half-made state: each change is one assignment.
pub(super) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the module.
pub(super) struct Shard {
    pub(super) number: usize,
    pub(super) shared: Arc<Shared>,
    state: Mutex<(u64, Option<Arc<Link>>)>,
    /// The last attachment that was made.
    pub(super) attached: watch::Sender<u64>,
    connecting: tokio::sync::Mutex<Attempts>,
    why: Mutex<String>,
    /// Last record LSN of the present attachment as its server last said; 0: it has said nothing.
    ingested: AtomicU64,
    /// disk_consistent_lsn as last heard, of whatever attachment.
    durable: AtomicU64,
}

/// When to try next, and after which pause if that fails.
struct Attempts {
    next: Instant,
    pause: Duration,
}

impl Shard {
    pub(super) fn new(number: usize, shared: Arc<Shared>) -> Self {
        let attempts = Attempts { next: Instant::now(), pause: shared.options.backoff };
        Self {
            number,
            shared,
            state: Mutex::default(),
            attached: watch::Sender::new(0),
            connecting: tokio::sync::Mutex::new(attempts),
            why: Mutex::default(),
            ingested: AtomicU64::new(0),
            durable: AtomicU64::new(0),
        }
    }

    /// What errors say of a call.
    pub(super) fn about(&self, server: &str, what: impl std::fmt::Display, attempt: u32) -> About {
        let shards = self.shared.config().map.servers.len();
        About { server: server.into(), shard: self.number, shards, what: what.to_string(), attempt: attempt + 1 }
    }

    /// The attachment, if there is one.
    pub(super) fn current(&self) -> Option<Arc<Link>> {
        lock(&self.state).1.clone()
    }

    /// Number of the attachment, present or next.
    pub(super) fn generation(&self) -> u64 {
        lock(&self.state).0
    }

    /// The attachment, made if there is none: waits for a server that cannot be reached, but not for long.
    pub(super) async fn link(&self) -> Result<Arc<Link>> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let outage = self.shared.options.outage;
        match tokio::time::timeout(outage, self.connect()).await {
            Ok(link) => Ok(link),
            Err(_) => Err(self.unreachable(&format!("not within {} ms", outage.as_millis()))),
        }
    }

    /// The attachment, if it is there or can be made by one attempt.
    pub(super) async fn link_at_once(&self) -> Result<Arc<Link>> {
        let attempt = async {
            let mut attempts = self.connecting.lock().await;
            self.attempt(&mut attempts).await
        };
        let limit = self.shared.options.connect + self.shared.options.backoff_max;
        let link = tokio::time::timeout(limit, attempt).await.ok().flatten();
        link.ok_or_else(|| self.unreachable("no attachment"))
    }

    fn unreachable(&self, how: &str) -> ServiceError {
        let server = self.shared.config().map.servers.get(self.number).cloned().unwrap_or_default();
        let about = self.about(&server, "connecting", 0);
        let why = lock(&self.why).clone();
        ServiceError::new(libc::EHOSTUNREACH, format!("{about}: {how}: {why}")).with_retry(Retry::Reconnect)
    }

    /// Tries until there is an attachment. Those who wait take turns: they share the attempts and their pauses.
    async fn connect(&self) -> Arc<Link> {
        loop {
            let mut attempts = self.connecting.lock().await;
            if let Some(link) = self.attempt(&mut attempts).await {
                return link;
            }
        }
    }

    /// The attachment that somebody else has made meanwhile, or one more attempt when it is time.
    async fn attempt(&self, attempts: &mut Attempts) -> Option<Arc<Link>> {
        if let Some(link) = self.current() {
            return Some(link);
        }
        tokio::time::sleep_until(attempts.next).await;
        let options = &self.shared.options;
        let config = self.shared.config();
        let opened = Link::open(&config, self.number, self.generation(), options.connect).await;
        let pause = attempts.pause;
        attempts.next = Instant::now() + pause;
        match opened {
            Ok(link) => {
                attempts.pause = options.backoff;
                let link = Arc::new(link);
                let mut state = lock(&self.state);
                if !Arc::ptr_eq(&config, &self.shared.config()) {
                    // Read again meanwhile: it may be reached in another way, and nobody could tell that it has moved.
                    attempts.next = Instant::now();
                    return None;
                }
                self.ingested.store(0, Ordering::Relaxed);
                state.1 = Some(link.clone());
                drop(state);
                self.attached.send_replace(link.generation);
                tracing::debug!(shard = self.number, server = link.server, generation = link.generation, "attached");
                Some(link)
            }
            Err(e) => {
                attempts.pause = pause.saturating_mul(2).min(options.backoff_max);
                let news = core::mem::replace(&mut *lock(&self.why), e.clone()) != e;
                if news {
                    tracing::warn!(shard = self.number, "no attachment: {e}");
                }
                None
            }
        }
    }

    /// Attachment `generation` is over. Told once each; the scheduler hears of it.
    pub(super) fn lost(&self, generation: u64, why: &dyn std::fmt::Display) {
        let next = {
            let mut state = lock(&self.state);
            if state.0 != generation || state.1.is_none() {
                return;
            }
            *state = (generation + 1, None);
            state.0
        };
        *lock(&self.why) = String::new();
        tracing::warn!(shard = self.number, generation, "the attachment is lost: {why}");
        if let Some(reports) = self.shared.reports() {
            reports.reconnected(self.number, next, self.durable.load(Ordering::Relaxed));
        }
    }

    /// The shard is reached in another way from now on.
    pub(super) fn moved(&self, why: &str) {
        self.lost(self.generation(), &why);
    }

    /// What the server of attachment `generation` says of its ingest.
    pub(super) fn heard(&self, generation: u64, ingested: Lsn, durable: Lsn) {
        if self.generation() != generation {
            return;
        }
        self.ingested.store(ingested, Ordering::Relaxed);
        self.durable.store(durable, Ordering::Relaxed);
        if let Some(reports) = self.shared.reports() {
            reports.ingested(self.number, ingested);
        }
    }

    /// Tells whoever listens from now on what has been heard before. Attachments may have been lost before as well.
    pub(super) fn report(&self) {
        let generation = self.generation();
        let Some(reports) = self.shared.reports() else { return };
        if generation > 0 {
            reports.reconnected(self.number, generation, self.durable.load(Ordering::Relaxed));
        }
        if let Some(ingested) = self.ingested() {
            reports.ingested(self.number, ingested);
        }
    }

    /// Last record LSN as heard on this attachment; `None`: nothing was.
    pub(super) fn ingested(&self) -> Option<Lsn> {
        Some(self.ingested.load(Ordering::Relaxed)).filter(|l| *l > 0)
    }
}
