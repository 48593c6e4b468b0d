//! How far the server has ingested: its last record LSN (L), which may be held back.
//!
//! What is written is durable and in the store at once. It is *visible* once L has come to its LSN, since reads see the
//! store as of min(L, r): so holding back L holds back ingest, of pages and sizes alike. L is one line of LSNs, whatever
//! the order in which they came; it never goes back while the process lives.
//!
//! # The rule
//! *Received* is the highest LSN that came. L is the lower of what was received a lag ago and of what was received less
//! the lag in bytes; a stall keeps it where it is. Without any of them L is what was received.
//!
//! # Mutations that cannot be held back
//! A mutation whose own LSN L has passed is visible as soon as it is there: pages are written long after their LSN. One
//! that takes effect at an LSN beyond its own ([`Store::whole_from`]) raises L to that: its reader waits for its own LSN
//! alone, and must find it then. So does one without an LSN, for which nobody could wait.
//!
//! [`Store::whole_from`]: crate::service::store::Store::whole_from

use shmuring::request::Lsn;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{watch, Notify};

/// Arrivals that are told apart within the time of the lag.
const STEPS: u32 = 1024;
/// When a wait is logged first, and how often from then on.
const FIRST_LOG: Duration = Duration::from_secs(1);
const NEXT_LOG: Duration = Duration::from_secs(10);

/// What holds ingest back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Ingest is so late.
    pub lag: Duration,
    /// Ingest is so many bytes of WAL behind.
    pub lag_bytes: u64,
    /// Ingest stands still.
    pub stall: bool,
}

/// The server's ingest. Shared by all that read and write.
#[derive(Debug)]
pub struct Ingest {
    state: Mutex<State>,
    /// L. Written under the lock alone.
    at: watch::Sender<Lsn>,
    /// Something changed that brings L on earlier than was thought.
    changed: Notify,
    begun: Instant,
}

#[derive(Debug)]
struct State {
    hold: Hold,
    /// Highest LSN that came.
    received: Lsn,
    /// The same, a lag ago.
    due: Lsn,
    /// What came within the lag: when, and the highest LSN by then. Both rise.
    arrivals: VecDeque<(Duration, Lsn)>,
}

impl Ingest {
    /// Begins with everything up to `at` ingested.
    #[must_use]
    pub fn new(at: Lsn, hold: Hold) -> Self {
        let state = State { hold, received: at, due: at, arrivals: VecDeque::new() };
        Self { state: Mutex::new(state), at: watch::Sender::new(at), changed: Notify::new(), begun: Instant::now() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// L.
    #[must_use]
    pub fn last_record(&self) -> Lsn {
        *self.at.borrow()
    }

    /// Tells of each new L.
    pub fn watch(&self) -> watch::Receiver<Lsn> {
        self.at.subscribe()
    }

    /// What holds it back.
    #[must_use]
    pub fn hold(&self) -> Hold {
        self.state().hold
    }

    /// WAL up to `lsn` came, and L may not be below `whole_from` any more.
    pub fn receive(&self, lsn: Lsn, whole_from: Lsn) {
        let now = self.begun.elapsed();
        let mut state = self.state();
        state.receive(lsn, now);
        let _ = self.advance(&mut state, now, whole_from);
        drop(state);
        self.changed.notify_one();
    }

    /// Holds it back by another rule from now on.
    pub fn set_hold(&self, hold: Hold) {
        let mut state = self.state();
        state.hold = hold;
        let _ = self.advance(&mut state, self.begun.elapsed(), 0);
        drop(state);
        self.changed.notify_one();
    }

    /// Brings L to where it may be; answers how long until time alone brings it on.
    fn advance(&self, state: &mut State, now: Duration, at_least: Lsn) -> Option<Duration> {
        let target = state.target(now).max(at_least);
        self.at.send_if_modified(|at| {
            let rises = target > *at;
            if rises {
                *at = target;
            }
            rises
        });
        let next = state.arrivals.front().filter(|_| !state.hold.stall);
        next.map(|(came, _)| (*came + state.hold.lag).saturating_sub(now))
    }

    /// Brings L on as time passes, for ever.
    pub async fn run(&self) {
        loop {
            let next = {
                let mut state = self.state();
                self.advance(&mut state, self.begun.elapsed(), 0)
            };
            let changed = self.changed.notified();
            match next {
                Some(next) => drop(tokio::time::timeout(next, changed).await),
                None => changed.await,
            }
        }
    }

    /// Waits until L has come to `lsn`, and says so in the log if that takes long. False: it did not within `limit`.
    pub async fn wait(&self, lsn: Lsn, limit: Duration) -> bool {
        let mut at = self.at.subscribe();
        let begin = tokio::time::Instant::now();
        let mut pause = FIRST_LOG.min(limit);
        loop {
            if let Ok(came) = tokio::time::timeout(pause, at.wait_for(|at| *at >= lsn)).await {
                return came.is_ok();
            }
            let passed = begin.elapsed();
            if passed >= limit {
                return false;
            }
            let (lsn, at) = (PrintLsn(lsn), PrintLsn(self.last_record()));
            tracing::info!("a read waits for LSN {lsn} since {} s: the server is at {at}", passed.as_secs());
            pause = NEXT_LOG.min(limit - passed);
        }
    }
}

impl State {
    fn receive(&mut self, lsn: Lsn, now: Duration) {
        if lsn <= self.received {
            return;
        }
        self.received = lsn;
        // Rounded up, so that they are few and none is early.
        let step = (self.hold.lag / STEPS).max(Duration::from_millis(1)).as_nanos();
        let came = Duration::from_nanos(u64::try_from(now.as_nanos().div_ceil(step) * step).unwrap_or(u64::MAX));
        match self.arrivals.back_mut() {
            Some((last, highest)) if *last >= came => *highest = lsn,
            _ => self.arrivals.push_back((came, lsn)),
        }
    }

    /// Where L may be now.
    fn target(&mut self, now: Duration) -> Lsn {
        if self.hold.lag.is_zero() {
            self.arrivals.clear();
            self.due = self.received;
        }
        while let Some((came, lsn)) = self.arrivals.front().copied() {
            if came + self.hold.lag > now {
                break;
            }
            self.due = lsn;
            self.arrivals.pop_front();
        }
        if self.hold.stall {
            return 0;
        }
        self.due.min(self.received.saturating_sub(self.hold.lag_bytes))
    }
}

/// Writes an LSN as PostgreSQL does.
pub(super) struct PrintLsn(pub(super) Lsn);

impl std::fmt::Display for PrintLsn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn state(hold: Hold) -> State {
        State { hold, received: 10, due: 10, arrivals: VecDeque::new() }
    }

    #[test]
    fn without_a_hold_what_came_is_visible() {
        let ingest = Ingest::new(10, Hold::default());
        ingest.receive(50, 0);
        ingest.receive(40, 0);
        assert_eq!(ingest.last_record(), 50);
    }

    #[test]
    fn a_lag_in_time_is_kept_for_each_lsn() {
        let mut s = state(Hold { lag: 500 * MS, ..Hold::default() });
        s.receive(20, 3 * MS);
        s.receive(15, 4 * MS);
        s.receive(30, 100 * MS);
        for (now, at) in [(400, 10), (502, 10), (503, 20), (599, 20), (600, 30), (9000, 30)] {
            assert_eq!(s.target(now * MS), at, "at {now} ms");
        }
    }

    #[test]
    fn arrivals_take_bounded_room_and_none_is_early() {
        let mut s = state(Hold { lag: 10_000 * MS, ..Hold::default() });
        for i in 0..100_000_u32 {
            let now = Duration::from_micros(150) * i;
            let visible = s.target(now);
            // LSN 10 + k came at 150 us * k.
            assert!(Duration::from_micros(150) * (visible as u32 - 10) + 10_000 * MS <= now || visible == 10);
            s.receive(10 + u64::from(i), now);
            assert!(s.arrivals.len() <= STEPS as usize + 2, "{}", s.arrivals.len());
        }
    }

    #[test]
    fn a_lag_in_bytes_and_a_stall_hold_l_and_their_end_lets_it_go() {
        let ingest = Ingest::new(10, Hold { lag_bytes: 100, ..Hold::default() });
        ingest.receive(105, 0);
        assert_eq!(ingest.last_record(), 10);
        ingest.receive(150, 0);
        assert_eq!(ingest.last_record(), 50);
        ingest.set_hold(Hold { stall: true, ..Hold::default() });
        ingest.receive(200, 0);
        assert_eq!(ingest.last_record(), 50);
        // What must not be held back is not.
        ingest.receive(0, 120);
        assert_eq!(ingest.last_record(), 120);
        ingest.set_hold(Hold { lag_bytes: 100, ..Hold::default() });
        assert_eq!(ingest.last_record(), 120, "it never goes back");
        ingest.set_hold(Hold::default());
        assert_eq!(ingest.last_record(), 200);
    }

    #[tokio::test]
    async fn waits_end_when_l_has_come_or_at_their_limit() {
        let ingest = std::sync::Arc::new(Ingest::new(10, Hold { lag: 50 * MS, ..Hold::default() }));
        assert!(ingest.wait(10, MS).await);
        assert!(!ingest.wait(11, 20 * MS).await);
        let helper = tokio::spawn({
            let ingest = ingest.clone();
            async move { ingest.run().await }
        });
        let begin = Instant::now();
        ingest.receive(20, 0);
        assert!(ingest.wait(20, 60_000 * MS).await);
        assert!(begin.elapsed() >= 50 * MS, "{:?}", begin.elapsed());
        helper.abort();
    }
}
