//! `shmuring compare`: the pages of a primary against those of its hot standby, while both are in use.
//!
//! | file | role |
//! |---|---|
//! | `relations` | what there is to compare |
//! | `side` | one server: connections, replay |
//! | `judge` | what answers about a block come to |
//! | `feed` | what is to be looked at, by whom |
//! | `look` | the first look at all blocks, the second at doubtful ones |
//! | `rate` | the throttle |
//! | `report` | what came of it |
//!
//! Both servers mask their pages themselves and send digests, by one function of the extension: pages travel only where
//! they differ. Nothing is locked, and nothing evicted from shared buffers.

mod feed;
mod judge;
mod look;
mod rate;
mod relations;
mod report;
mod side;

pub use judge::Kind;
pub use report::{Difference, Report, Skipped};

use crate::service::standby::ConnInfo;
use crate::service::{Result, ServiceError};
use feed::Feed;
use look::Looker;
use rate::Rate;
use relations::Fork;
use side::Side;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::{JoinSet, LocalSet};

/// Forks whose sizes are asked for at once.
const SIZES: usize = 512;

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The primary; the database that it names has the extension.
    pub primary: ConnInfo,
    /// Its hot standby, likewise.
    pub standby: ConnInfo,
    /// Databases; none: all that take connections.
    pub databases: Vec<String>,
    /// Pages a second at most.
    pub rate: Option<u64>,
    /// Connections to each server that look at all blocks; half as many more look at doubtful ones.
    pub links: usize,
    /// For how long a server may be away, and replay stand still.
    pub patience: Duration,
}

/// How far it is.
#[derive(Debug, Default)]
pub struct Progress {
    /// Blocks in all.
    pub blocks: AtomicU64,
    /// Blocks that were looked at.
    pub looked: AtomicU64,
    /// Blocks that wait for a second look.
    pub doubts: AtomicU64,
    /// Differences found.
    pub differences: AtomicU64,
}

/// What the tasks share.
struct Shared {
    forks: Vec<Fork>,
    feed: Feed,
    rate: Rate,
    report: Mutex<Report>,
    progress: Arc<Progress>,
}

impl Shared {
    fn report(&self, f: impl FnOnce(&mut Report)) {
        f(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Compares. What was found before an error is in the report, which then says why it is not complete.
///
/// # Errors
/// Nothing could be compared: the servers are not a pair, or not there, or without the extension.
pub async fn run(options: &Options, progress: Arc<Progress>) -> Result<Report> {
    let begin = Instant::now();
    let mut primary = Side::new(&options.primary, false, Duration::ZERO);
    let mut standby = Side::new(&options.standby, true, Duration::ZERO);
    is_a_pair(&mut primary, &mut standby).await?;
    let mut report = Report::default();
    let forks = list(options, &mut primary, &mut report).await?;
    drop((primary, standby));
    let blocks: u64 = forks.iter().map(|f| u64::from(f.blocks)).sum();
    progress.blocks.store(blocks, Ordering::Relaxed);
    let links = options.links.max(1);
    let shared = Arc::new(Shared {
        feed: Feed::new(forks.iter().map(|f| f.blocks).collect(), links),
        forks,
        rate: Rate::new(options.rate),
        report: Mutex::new(report),
        progress,
    });
    let failed = look_at_all(&shared, options, links).await;
    let mut report = core::mem::take(&mut *shared.report.lock().unwrap_or_else(PoisonError::into_inner));
    report.failed = failed.map(|e| e.detail);
    report.took = begin.elapsed();
    Ok(report)
}

/// Looks at everything; why it ended early. All in one thread: the work is the servers'.
async fn look_at_all(shared: &Arc<Shared>, options: &Options, links: usize) -> Option<ServiceError> {
    let all = async {
        let mut tasks = JoinSet::new();
        for i in 0..links + links.div_ceil(2) {
            let mut looker = Looker::new(shared.clone(), options);
            tasks.spawn_local(async move {
                if i < links {
                    looker.first().await
                } else {
                    looker.second().await
                }
            });
        }
        let mut failed = None;
        while let Some(ended) = tasks.join_next().await {
            let ended = ended.unwrap_or_else(|e| Err(ServiceError::new(libc::EIO, e.to_string())));
            if let Err(e) = ended {
                failed.get_or_insert(e);
                tasks.abort_all();
            }
        }
        failed
    };
    LocalSet::new().run_until(all).await
}

/// That the standby is one of this primary.
async fn is_a_pair(primary: &mut Side, standby: &mut Side) -> Result<()> {
    let (p, s) = (primary.link().await?, standby.link().await?);
    if p.server.system != s.server.system {
        let what = format!("the servers are of different clusters: {} and {}", p.server.system, s.server.system);
        return Err(ServiceError::new(libc::EINVAL, what));
    }
    if p.version != s.version {
        let what = format!("the servers are of different versions: {} and {}", p.version, s.version);
        return Err(ServiceError::new(libc::EINVAL, what));
    }
    Ok(())
}

/// Every fork with its size.
async fn list(options: &Options, primary: &mut Side, report: &mut Report) -> Result<Vec<Fork>> {
    let databases = relations::databases(&options.primary, &options.databases).await?;
    let mut forks = Vec::new();
    let mut left_out = relations::LeftOut::default();
    for (i, database) in databases.iter().enumerate() {
        forks.extend(relations::forks(&options.primary, database, i == 0, &mut left_out).await?);
    }
    for some in forks.chunks_mut(SIZES) {
        let rels: Vec<_> = some.iter().map(|f| f.rel).collect();
        let sizes = primary.sizes(&rels).await?;
        some.iter_mut().zip(sizes).for_each(|(f, n)| f.blocks = n.unwrap_or(0));
    }
    // A visibility map that is not there, say.
    forks.retain(|f| f.blocks > 0);
    report.databases = databases;
    report.forks = forks.len() as u64;
    (report.unlogged, report.temporary) = (left_out.unlogged, left_out.temporary);
    Ok(forks)
}
