//! The page server process of a shard: how far it has ingested the WAL.

use super::scenario::{Plan, Time, MS};
use super::wal::Wal;
use shmuring::request::Lsn;

/// See the module.
#[derive(Debug)]
pub(super) struct Server {
    plan: Plan,
    /// L: its last record.
    pub(super) at: Lsn,
    /// What it will begin with after its death (disk_consistent_lsn).
    pub(super) durable: Lsn,
    next_checkpoint: Time,
    /// It is dead.
    pub(super) down: bool,
    looked_at: Time,
    /// Millionths of a byte that the last look left over.
    rest: u64,
    /// When L changed, and to what.
    history: Vec<(Time, Lsn)>,
}

impl Server {
    pub(super) fn new(plan: &Plan) -> Self {
        Self {
            plan: plan.clone(),
            at: plan.start,
            durable: plan.start,
            next_checkpoint: plan.checkpoint,
            down: false,
            looked_at: 0,
            rest: 0,
            history: vec![(0, plan.start)],
        }
    }

    /// Ingests what has come. True if L rose.
    pub(super) fn ingest(&mut self, wal: &Wal, now: Time) -> bool {
        let passed = now.saturating_sub(self.looked_at);
        self.looked_at = now;
        let stalled = self.plan.stalls.iter().any(|(from, to)| (*from..*to).contains(&now));
        if self.down || stalled {
            return false;
        }
        let target = now.checked_sub(self.plan.lag).map_or(0, |then| wal.at(then)).min(self.plan.cap);
        let parts = u128::from(self.plan.rate) * u128::from(passed) + u128::from(self.rest);
        self.rest = (parts % u128::from(MS)) as u64;
        let most = u64::try_from(parts / u128::from(MS)).unwrap_or(u64::MAX);
        let at = target.min(self.at.saturating_add(most));
        if now >= self.next_checkpoint {
            self.next_checkpoint = now + self.plan.checkpoint;
            self.durable = self.at;
        }
        let rose = at > self.at;
        if rose {
            self.set(at, now);
        }
        rose
    }

    fn set(&mut self, at: Lsn, now: Time) {
        self.at = at;
        self.history.push((now, at));
    }

    /// Another process begins at what is durable.
    pub(super) fn restart(&mut self, now: Time) {
        self.looked_at = now;
        self.set(self.durable, now);
    }

    /// The first time from `since` on at which it had `n`; `now` if it never did.
    pub(super) fn had(&self, n: Lsn, since: Time, now: Time) -> Time {
        let first = self.history.partition_point(|h| h.0 <= since).saturating_sub(1);
        let found = self.history.get(first..).unwrap_or(&[]).iter().find(|h| h.1 >= n);
        found.map_or(now, |h| h.0.max(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::scenario::SECOND;

    #[test]
    fn it_follows_the_wal_with_its_lag_and_catches_up_at_its_rate_after_a_stall() {
        let mut wal = Wal::new(100);
        wal.append(SECOND, 10_100);
        let stalls = vec![(2 * SECOND, 3 * SECOND)];
        let mut server = Server::new(&Plan { lag: 500 * MS, rate: 1000, stalls, ..Plan::new(100) });
        assert!(!server.ingest(&wal, 1499 * MS));
        assert!(server.ingest(&wal, 1504 * MS) && server.at == 5100);
        assert!(!server.ingest(&wal, 2500 * MS) && server.at == 5100);
        assert!(server.ingest(&wal, 3000 * MS) && server.at == 10_100);
        assert_eq!(server.had(5000, 0, 9), 1504 * MS);
        assert_eq!(server.had(10_100, 1600 * MS, 9), 3000 * MS);
        assert_eq!(server.had(10_101, 0, 9), 9);
    }

    #[test]
    fn a_restart_begins_at_what_was_durable() {
        let mut wal = Wal::new(100);
        wal.append(MS, 900);
        let mut server = Server::new(&Plan { rate: 1 << 40, checkpoint: SECOND, ..Plan::new(100) });
        server.ingest(&wal, 2 * MS);
        assert_eq!((server.at, server.durable), (900, 100));
        server.ingest(&wal, SECOND);
        server.restart(SECOND);
        assert_eq!((server.at, server.durable), (900, 900), "the checkpoint had it");
    }
}
