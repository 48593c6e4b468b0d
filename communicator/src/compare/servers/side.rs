//! One server of the pair: a connection that is made anew when it is lost, within bounds.

use crate::service::standby::answer::Blocks;
use crate::service::standby::link::{Link, Masked};
use crate::service::standby::ConnInfo;
use crate::service::{Result, Retry, ServiceError};
use shmuring::request::{Lsn, RelTag};
use std::time::{Duration, Instant};

/// Pauses between attempts: the first, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Between two looks at how far replay is.
const LOOK: Duration = Duration::from_millis(3);

/// See the module. A task's own.
pub(super) struct Side {
    conninfo: ConnInfo,
    is_standby: bool,
    /// For how long a server may be away.
    patience: Duration,
    link: Option<Link>,
}

impl Side {
    pub(super) fn new(conninfo: &ConnInfo, is_standby: bool, patience: Duration) -> Self {
        Self { conninfo: conninfo.clone(), is_standby, patience, link: None }
    }

    /// The server's role must be what it was taken for: a promoted standby has a history of its own.
    fn check(&self, in_recovery: bool) -> Result<()> {
        if in_recovery == self.is_standby {
            return Ok(());
        }
        let what = if self.is_standby { "is no standby, or was promoted" } else { "is in recovery: it is no primary" };
        Err(ServiceError::new(libc::EPROTO, format!("{} {what}", self.conninfo)))
    }

    /// A connection; a lost one is made anew.
    pub(super) async fn link(&mut self) -> Result<&Link> {
        if self.link.as_ref().is_some_and(Link::is_broken) {
            self.link = None;
        }
        if self.link.is_none() {
            let link = Link::open(&self.conninfo).await?;
            self.check(link.in_recovery)?;
            self.link = Some(link);
        }
        self.link.as_ref().ok_or_else(|| ServiceError::new(libc::ENOTCONN, "no connection"))
    }

    /// Asks until there is an answer, or the server was away for too long. An answer that says no is one.
    async fn ask<T>(&mut self, mut question: impl AsyncFnMut(&Link) -> Result<T>) -> Result<T> {
        let (begin, mut pause) = (Instant::now(), PAUSE.0);
        loop {
            let result = match self.link().await {
                Ok(link) => question(link).await,
                Err(e) => Err(e),
            };
            match result {
                Err(e) if e.retry == Retry::Reconnect && begin.elapsed() < self.patience => {
                    self.link = None;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
                result => return result,
            }
        }
    }

    pub(super) async fn masked(&mut self, of: &Masked<'_>) -> Result<Blocks> {
        let blocks = self.ask(async |link| link.masked(of).await).await?;
        self.check(blocks.in_recovery)?;
        Ok(blocks)
    }

    pub(super) async fn sizes(&mut self, of: &[RelTag]) -> Result<Vec<Option<u32>>> {
        self.ask(async |link| link.sizes(of, 0).await).await
    }

    /// Waits here, not in the server, until the standby has replayed `lsn`: a query that waits there could hold up
    /// replay.
    pub(super) async fn replayed(&mut self, lsn: Lsn) -> Result<()> {
        let (mut begin, mut furthest) = (Instant::now(), 0);
        loop {
            let (now, in_recovery) = self.ask(async |link| link.replayed().await).await?;
            self.check(in_recovery)?;
            if now >= lsn {
                return Ok(());
            }
            if now > furthest {
                (begin, furthest) = (Instant::now(), now);
            }
            if begin.elapsed() >= self.patience {
                let [has, wants] = [now, lsn].map(|l| format!("{:X}/{:X}", l >> 32, l & 0xFFFF_FFFF));
                let what = format!("{}: replay stands still at {has}, {wants} is wanted", self.conninfo);
                return Err(ServiceError::new(libc::ETIMEDOUT, what));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
