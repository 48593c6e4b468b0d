//! The connections of the service: several to one server, each kept up by a task of its own.
//!
//! # Generations
//! What a server process has replayed holds for all connections to that process (S1). A connection that meets another
//! process, after a restart or by another host of the connection string, begins a new generation: what older ones
//! proved is forgotten, and connections of older generations are not used any more.

use super::conninfo::ConnInfo;
use super::link::{Link, OnDrop, Server};
use crate::service::{Result, Retry, ServiceError, Watermarks};
use shmuring::request::Lsn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{watch, Notify};

/// Pauses between attempts to connect: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));
/// How often a failure that goes on is logged.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// A connection, and the generation that it belongs to.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) link: Arc<Link>,
    pub(super) generation: u64,
}

/// Connections that are used in turn.
pub(super) struct Lane {
    kept: watch::Sender<Vec<Option<Kept>>>,
    turn: AtomicUsize,
}

impl Lane {
    pub(super) fn new(links: usize) -> Self {
        Self { kept: watch::Sender::new((0..links).map(|_| None).collect()), turn: AtomicUsize::new(0) }
    }

    fn pick(&self, kept: &[Option<Kept>], generation: u64) -> Option<Kept> {
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let usable = |k: &&Kept| k.generation == generation && !k.link.is_broken();
        (0..kept.len()).filter_map(|i| kept.get(first.wrapping_add(i) % kept.len())?.as_ref()).find(usable).cloned()
    }
}

/// Who the server is, and what is known of it.
struct Known {
    server: Option<Server>,
    generation: u64,
    /// Why there is no connection.
    trouble: Option<ServiceError>,
    said: Option<(String, Instant)>,
}

/// What all connections share.
pub(super) struct Links {
    pub(super) conninfo: ConnInfo,
    pub(super) ready: Lane,
    pub(super) future: Lane,
    pub(super) watch: Lane,
    known: Mutex<Known>,
    reports: Mutex<Option<Arc<dyn Watermarks>>>,
    /// The generation, and what its server is known to have replayed.
    pub(super) replayed: watch::Sender<(u64, Lsn)>,
    /// Somebody waits for more to be replayed.
    pub(super) wanted: Notify,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Links {
    /// Of a server that was met once; it need not be there any more.
    pub(super) fn new(conninfo: ConnInfo, first: &Link, ready: usize, future: usize) -> Arc<Self> {
        let known = Known { server: Some(first.server.clone()), generation: 0, trouble: None, said: None };
        Arc::new(Self {
            conninfo,
            ready: Lane::new(ready),
            future: Lane::new(future),
            watch: Lane::new(1),
            known: Mutex::new(known),
            reports: Mutex::default(),
            replayed: watch::Sender::new((0, first.replayed)),
            wanted: Notify::new(),
        })
    }

    /// Starts a task for each connection; they end when what is given back is dropped.
    pub(super) fn keep_up(self: &Arc<Self>) -> Vec<OnDrop> {
        let one = |lane: fn(&Self) -> &Lane, slot| {
            let links = self.clone();
            OnDrop(tokio::spawn(async move { links.keep(lane, slot).await }).abort_handle())
        };
        let lanes: [fn(&Self) -> &Lane; 3] = [|l| &l.ready, |l| &l.future, |l| &l.watch];
        let slots = |lane: fn(&Self) -> &Lane| (0..lane(self).kept.borrow().len()).map(move |slot| (lane, slot));
        lanes.into_iter().flat_map(slots).map(|(lane, slot)| one(lane, slot)).collect()
    }

    /// From now on; with what has been heard before.
    pub(super) fn report_to(&self, watermarks: Arc<dyn Watermarks>) {
        // Under the lock, as in `admit`: no generation is told twice, or not at all.
        let _known = lock(&self.known);
        *lock(&self.reports) = Some(watermarks.clone());
        let (generation, replayed) = *self.replayed.borrow();
        if generation > 0 {
            watermarks.reconnected(0, generation, replayed);
        } else {
            watermarks.ingested(0, replayed);
        }
    }

    fn reports(&self) -> Option<Arc<dyn Watermarks>> {
        lock(&self.reports).clone()
    }

    pub(super) fn generation(&self) -> u64 {
        self.replayed.borrow().0
    }

    /// A connection of the present generation; waits a moment for one.
    ///
    /// # Errors
    /// Why there is none. Trying again may help.
    pub(super) async fn get(&self, lane: &Lane, patience: Duration) -> Result<Kept> {
        let mut kept = lane.kept.subscribe();
        let found = async {
            loop {
                let picked = lane.pick(&kept.borrow_and_update(), self.generation());
                match picked {
                    Some(k) => return k,
                    None => drop(kept.changed().await),
                }
            }
        };
        tokio::time::timeout(patience, found).await.map_err(|_| {
            let unknown = || ServiceError::new(libc::ENOTCONN, format!("{}: no connection", self.conninfo));
            lock(&self.known).trouble.clone().unwrap_or_else(unknown).with_retry(Retry::Reconnect)
        })
    }

    /// A server of `generation` says that it has replayed `lsn`.
    pub(super) fn heard(&self, generation: u64, lsn: Lsn) {
        let news = self.replayed.send_if_modified(|(now, known)| {
            let news = *now == generation && lsn > *known;
            if news {
                *known = lsn;
            }
            news
        });
        if news {
            if let Some(reports) = self.reports() {
                reports.ingested(0, lsn);
            }
        }
    }

    /// Keeps one connection up, for ever.
    async fn keep(&self, lane: fn(&Self) -> &Lane, slot: usize) {
        let mut pause = PAUSE.0;
        loop {
            match self.connect().await {
                Ok(kept) => {
                    pause = PAUSE.0;
                    let put = |new: Option<Kept>| lane(self).kept.send_modify(|all| set(all, slot, new));
                    put(Some(kept.clone()));
                    kept.link.ended().await;
                    put(None);
                    tracing::debug!("a connection to {} has ended", self.conninfo);
                }
                Err(e) => self.say(e),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    async fn connect(&self) -> Result<Kept> {
        let link = Link::open(&self.conninfo).await?;
        check_recovery(&self.conninfo, link.in_recovery)?;
        let generation = self.admit(&link)?;
        self.heard(generation, link.replayed);
        Ok(Kept { link: Arc::new(link), generation })
    }

    /// The generation of a new connection. Another server process begins the next.
    fn admit(&self, link: &Link) -> Result<u64> {
        let mut known = lock(&self.known);
        let generation = match &known.server {
            Some(server) if *server == link.server => known.generation,
            Some(server) if server.system != link.server.system => {
                let what = format!("{}: another cluster answers there now", self.conninfo);
                return Err(ServiceError::new(libc::EPROTO, what));
            }
            _ => {
                known.generation += 1;
                known.server = Some(link.server.clone());
                let generation = known.generation;
                self.replayed.send_replace((generation, link.replayed));
                // Told under the lock, so that generations are told in their order.
                if let Some(reports) = self.reports() {
                    reports.reconnected(0, generation, link.replayed);
                }
                tracing::info!(
                    generation,
                    "{}: another server process, which has replayed less perhaps",
                    self.conninfo
                );
                generation
            }
        };
        if let Some(trouble) = known.trouble.take() {
            known.said = None;
            tracing::info!("connected again, after: {trouble}");
        }
        Ok(generation)
    }

    /// Logs why there is no connection: a new cause at once, the same one now and then.
    pub(super) fn say(&self, e: ServiceError) {
        let text = e.to_string();
        let mut known = lock(&self.known);
        let is_old = known.said.as_ref().is_some_and(|(said, at)| *said == text && at.elapsed() < SAY_AGAIN);
        if !is_old {
            known.said = Some((text, Instant::now()));
            tracing::warn!("no connection to the standby: {e}");
        }
        known.trouble = Some(e);
    }
}

fn set(all: &mut [Option<Kept>], slot: usize, new: Option<Kept>) {
    if let Some(old) = all.get_mut(slot) {
        *old = new;
    }
}

/// A server that was promoted goes on with a history of its own: its pages are not those that are asked for.
pub(super) fn check_recovery(at: &ConnInfo, in_recovery: bool) -> Result<()> {
    if in_recovery {
        Ok(())
    } else {
        Err(ServiceError::new(libc::EPROTO, format!("{at}: the server is no standby, or was promoted")))
    }
}
