//! One connection to a server: who it is, what is asked of it, and a deadline on everything.
//!
//! Questions are pipelined: they may be asked from many tasks at once, and are answered in order. After a deadline has
//! passed or the connection has failed, every question fails; whoever holds it drops it and makes another.
#![cfg_attr(not(feature = "cli"), allow(dead_code))] // `shmuring compare` asks for more.

use super::answer::Blocks;
use super::conninfo::ConnInfo;
use crate::service::{Result, Retry, ServiceError};
use shmuring::request::{Lsn, RelTag};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio_postgres::error::{DbError, SqlState};
use tokio_postgres::types::{PgLsn, ToSql};
use tokio_postgres::{Client, NoTls, Statement};

/// For a question that waits for nothing: longer, and the server or the way to it is not well.
pub(crate) const CALL: Duration = Duration::from_secs(5);

const WHO: &str = "SELECT (pg_control_system()).system_identifier::text, pg_postmaster_start_time()::text, \
     pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn(), '0/0'), current_setting('block_size'), \
     current_setting('server_version_num')::int / 10000";
const PAGES: &str = "SELECT shmuring_source_pages($1, $2, $3, $4, $5, $6, 0, $7)";
const SIZES: &str = "SELECT shmuring_source_sizes($1, $2, $3, $4, $5, 0)";
const MASKED: &str = "SELECT shmuring_source_masked($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
const REPLAYED: &str = "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0'), pg_is_in_recovery()";
const DB_SIZE: &str = "SELECT pg_database_size($1::oid)";

/// A server process: while it lives, what it has replayed does not go back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    /// Of the cluster.
    pub(crate) system: String,
    /// When this server was started.
    started: String,
}

/// What a statement is asked with.
type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Statements that are prepared.
struct Statements {
    pages: Statement,
    sizes: Statement,
    masked: Statement,
    replayed: Statement,
    db_size: Statement,
}

/// See the module.
pub(crate) struct Link {
    client: Client,
    statements: Statements,
    at: String,
    /// Who answers.
    pub(crate) server: Server,
    /// Whether it was in recovery when the connection was made.
    pub(crate) in_recovery: bool,
    /// Its major version.
    pub(crate) version: i32,
    /// What it had replayed when the connection was made.
    pub(crate) replayed: Lsn,
    /// Set once nothing will be answered any more.
    broken: AtomicBool,
    ended: watch::Receiver<bool>,
    /// A stopped server would keep it waiting for what was asked.
    _driver: OnDrop,
}

/// What is asked about masked blocks of a relation.
pub(crate) struct Masked<'a> {
    pub(crate) rel: RelTag,
    /// What kind of relation it is: an access method that has a mask.
    pub(crate) kind: &'a str,
    pub(crate) blocks: &'a [i64],
    /// Replay is waited for up to here ...
    pub(crate) after: Lsn,
    /// ... and for so long.
    pub(crate) wait: Duration,
    /// Of a primary: the answer's LSN is the end of WAL.
    pub(crate) exact: bool,
    /// With the masked pages.
    pub(crate) pages: bool,
}

impl Link {
    /// Connects, asks who is there, and prepares.
    pub(crate) async fn open(to: &ConnInfo) -> Result<Self> {
        let at = to.to_string();
        let (client, connection) = within(to.patience(), &at, to.config().connect(NoTls)).await?;
        let (end, ended) = watch::channel(false);
        let driver = tokio::spawn(async move {
            let _ = connection.await;
            end.send_replace(true);
        });
        let driver = OnDrop(driver.abort_handle());
        let who = within(to.patience(), &at, client.query_one(WHO, &[])).await?;
        let text = |i| who.try_get::<_, String>(i).map_err(|e| error(&at, &e));
        let server = Server { system: text(0)?, started: text(1)? };
        let in_recovery = who.try_get(2).map_err(|e| error(&at, &e))?;
        let replayed: PgLsn = who.try_get(3).map_err(|e| error(&at, &e))?;
        if text(4)? != crate::service::PAGE_SIZE.to_string() {
            let what = format!("{at}: pages of {} bytes", text(4)?);
            return Err(ServiceError::new(libc::EPROTONOSUPPORT, what));
        }
        let version = who.try_get(5).map_err(|e| error(&at, &e))?;
        let all = async {
            tokio::try_join!(
                client.prepare(PAGES),
                client.prepare(SIZES),
                client.prepare(MASKED),
                client.prepare(REPLAYED),
                client.prepare(DB_SIZE)
            )
        };
        let (pages, sizes, masked, replayed_stmt, db_size) = within(to.patience(), &at, all).await?;
        let statements = Statements { pages, sizes, masked, replayed: replayed_stmt, db_size };
        let (replayed, broken) = (replayed.into(), AtomicBool::new(false));
        Ok(Self { client, statements, at, server, in_recovery, version, replayed, broken, ended, _driver: driver })
    }

    /// Whether it is of no use any more.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed) || self.client.is_closed()
    }

    /// Waits until the connection has ended, or a deadline has passed on it.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        while !self.is_broken() {
            let tick = tokio::time::sleep(Duration::from_millis(50));
            tokio::select! {
                _ = ended.wait_for(|e| *e) => return,
                () = tick => {}
            }
        }
    }

    async fn ask<T>(
        &self,
        most: Duration,
        question: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let result = within(most, &self.at, question).await;
        if matches!(&result, Err(e) if e.retry == Retry::Reconnect) {
            // Relaxed: who does not see it yet fails as this one did.
            self.broken.store(true, Ordering::Relaxed);
        }
        result
    }

    /// Blocks of any relations, all of which must have been replayed up to `after`. Without `pages` they are only
    /// brought near.
    pub(crate) async fn pages(&self, of: &[(RelTag, u32)], after: Lsn, pages: bool) -> Result<Blocks> {
        let [spc, db, rel] = tags(of.iter().map(|(rel, _)| rel));
        let fork: Vec<i16> = of.iter().map(|(rel, _)| rel.fork.into()).collect();
        let block: Vec<i64> = of.iter().map(|(_, block)| (*block).into()).collect();
        let after = PgLsn::from(after);
        let with: Params<'_> = &[&spc, &db, &rel, &fork, &block, &after, &pages];
        let row = self.ask(CALL, self.client.query_one(&self.statements.pages, with)).await?;
        let bytes: &[u8] = row.try_get(0).map_err(|e| error(&self.at, &e))?;
        Blocks::parse(bytes, of.len(), pages)
    }

    /// Masked blocks of a relation.
    pub(crate) async fn masked(&self, of: &Masked<'_>) -> Result<Blocks> {
        let Masked { rel, kind, blocks, after, wait, exact, pages } = of;
        let (fork, after) = (i16::from(rel.fork), PgLsn::from(*after));
        let wait_ms = i32::try_from(wait.as_millis()).unwrap_or(i32::MAX);
        let (spc, db, number) = (rel.spc_oid, rel.db_oid, rel.rel_number);
        let with: Params<'_> = &[&spc, &db, &number, &fork, kind, blocks, &after, &wait_ms, exact, pages];
        let row = self.ask(CALL + *wait, self.client.query_one(&self.statements.masked, with)).await?;
        let bytes: &[u8] = row.try_get(0).map_err(|e| error(&self.at, &e))?;
        Blocks::parse(bytes, blocks.len(), *pages)
    }

    /// Blocks of relation forks; `None` where there is no such fork. `Err` with `NotYet` if replay is not at `after`.
    pub(crate) async fn sizes(&self, of: &[RelTag], after: Lsn) -> Result<Vec<Option<u32>>> {
        let [spc, db, rel] = tags(of.iter());
        let fork: Vec<i16> = of.iter().map(|rel| rel.fork.into()).collect();
        let n = PgLsn::from(after);
        let with: Params<'_> = &[&spc, &db, &rel, &fork, &n];
        let row = self.ask(CALL, self.client.query_one(&self.statements.sizes, with)).await?;
        let sizes: Option<Vec<i64>> = row.try_get(0).map_err(|e| error(&self.at, &e))?;
        let sizes = sizes.ok_or_else(|| ServiceError::not_yet(after, 0))?;
        if sizes.len() != of.len() {
            return Err(ServiceError::new(libc::EPROTO, format!("{} sizes for {} forks", sizes.len(), of.len())));
        }
        Ok(sizes.into_iter().map(|n| u32::try_from(n).ok()).collect())
    }

    /// What has been replayed, and whether the server is in recovery.
    pub(crate) async fn replayed(&self) -> Result<(Lsn, bool)> {
        let row = self.ask(CALL, self.client.query_one(&self.statements.replayed, &[])).await?;
        let lsn: PgLsn = row.try_get(0).map_err(|e| error(&self.at, &e))?;
        Ok((lsn.into(), row.try_get(1).map_err(|e| error(&self.at, &e))?))
    }

    /// Bytes of a database; `None` if there is none.
    pub(crate) async fn db_size(&self, db: u32) -> Result<Option<i64>> {
        let row = self.ask(10 * CALL, self.client.query_one(&self.statements.db_size, &[&db])).await?;
        row.try_get(0).map_err(|e| error(&self.at, &e))
    }
}

/// Rows of any other question, over a connection of its own.
pub(crate) async fn rows(of: &ConnInfo, sql: &str) -> Result<Vec<tokio_postgres::Row>> {
    let at = of.to_string();
    let (client, connection) = within(of.patience(), &at, of.config().connect(NoTls)).await?;
    let _driver = OnDrop(tokio::spawn(async move { drop(connection.await) }).abort_handle());
    within(10 * CALL, &at, client.query(sql, &[])).await
}

/// Aborts a task.
pub(super) struct OnDrop(pub(super) AbortHandle);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn tags<'a>(of: impl Iterator<Item = &'a RelTag> + Clone) -> [Vec<u32>; 3] {
    [
        of.clone().map(|rel| rel.spc_oid).collect(),
        of.clone().map(|rel| rel.db_oid).collect(),
        of.map(|rel| rel.rel_number).collect(),
    ]
}

/// A question with a deadline. One that passes it leaves a connection whose answers nobody waits for.
async fn within<T>(
    most: Duration,
    at: &str,
    question: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(most, question).await {
        Ok(result) => result.map_err(|e| error(at, &e)),
        Err(_) => {
            let what = format!("{at}: no answer for {} ms", most.as_millis());
            Err(ServiceError::new(libc::ETIMEDOUT, what).with_retry(Retry::Reconnect))
        }
    }
}

/// The server's error, or the client's.
fn error(at: &str, e: &tokio_postgres::Error) -> ServiceError {
    if let Some(db) = e.as_db_error() {
        return refused(at, db);
    }
    let source = std::error::Error::source(e);
    let errno = source.and_then(|s| s.downcast_ref::<std::io::Error>()).and_then(std::io::Error::raw_os_error);
    let errno = match errno {
        None => libc::ECONNRESET,
        // The server's socket is not there. As an answer it would mean that the relation is not.
        Some(libc::ENOENT) => libc::ECONNREFUSED,
        Some(errno) => errno,
    };
    let cause = source.map(|s| format!(": {s}")).unwrap_or_default();
    ServiceError::new(errno, format!("{at}: {e}{cause}")).with_retry(Retry::Reconnect)
}

fn refused(at: &str, e: &DbError) -> ServiceError {
    let code = e.code();
    let (errno, retry) = match code {
        // Shutdown, crash, start-up.
        c if c.code().starts_with("57P") => (libc::ECONNREFUSED, Retry::Reconnect),
        c if c.code().starts_with("28") => (libc::EACCES, Retry::Never),
        c if *c == SqlState::INSUFFICIENT_PRIVILEGE => (libc::EACCES, Retry::Never),
        c if *c == SqlState::UNDEFINED_FUNCTION || *c == SqlState::UNDEFINED_FILE => (libc::ENOSYS, Retry::Never),
        c if *c == SqlState::INVALID_CATALOG_NAME => (libc::ECONNREFUSED, Retry::Never),
        c if *c == SqlState::DATA_CORRUPTED || *c == SqlState::INDEX_CORRUPTED => (libc::EBADMSG, Retry::Later),
        // A conflict with recovery, a cancel, no room: another time.
        _ => (libc::EIO, Retry::Later),
    };
    let hint = if errno == libc::ENOSYS { "; CREATE EXTENSION shmuring in that database" } else { "" };
    ServiceError::new(errno, format!("{at}: {} (SQLSTATE {}){hint}", e.message(), code.code())).with_retry(retry)
}
