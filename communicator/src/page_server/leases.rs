//! LSN leases: what reads as of an LSN need is kept while a lease of it, or of an earlier one, holds.
//!
//! Leases are in memory alone. So nothing is forgotten in the first lease time of a process: whoever had one of the
//! process before may renew it.

use crate::service::{Result, ServiceError};
use shmuring::request::Lsn;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

#[derive(Debug)]
pub(super) struct Leases {
    length: Duration,
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Reads below it are refused, or will be in a moment.
    horizon: Lsn,
    /// Until when each LSN is leased.
    until: BTreeMap<Lsn, Instant>,
}

impl Leases {
    pub(super) fn new(length: Duration, horizon: Lsn) -> Self {
        let state = State { horizon, until: BTreeMap::new() };
        Self { length, begun: Instant::now(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leases `lsn`, or renews its lease: until when. ERANGE if its history may be gone.
    pub(super) fn lease(&self, lsn: Lsn) -> Result<SystemTime> {
        let mut state = self.state();
        if lsn < state.horizon {
            let what = format!("LSN {lsn:#x} is below the horizon {:#x}: its versions may be gone", state.horizon);
            return Err(ServiceError::new(libc::ERANGE, what));
        }
        state.until.insert(lsn, Instant::now() + self.length);
        Ok(SystemTime::now() + self.length)
    }

    /// Moves the horizon to `wanted`, or to what is leased if that is lower; `None`: nothing may be forgotten yet.
    pub(super) fn move_horizon(&self, wanted: Lsn) -> Option<Lsn> {
        if self.begun.elapsed() < self.length {
            return None;
        }
        let (now, mut state) = (Instant::now(), self.state());
        state.until.retain(|_, until| *until > now);
        let leased = state.until.keys().next().copied().unwrap_or(Lsn::MAX);
        let horizon = wanted.min(leased);
        let moves = horizon > state.horizon;
        if moves {
            state.horizon = horizon;
        }
        moves.then_some(horizon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_keeps_the_horizon_and_below_it_there_is_none() {
        let leases = Leases::new(Duration::ZERO, 100);
        assert_eq!(leases.lease(99).map_err(|e| e.errno), Err(libc::ERANGE));
        assert_eq!(leases.move_horizon(150), Some(150));
        assert_eq!(leases.move_horizon(120), None, "never back");
        let leases = Leases { length: Duration::from_secs(3600), begun: Instant::now(), state: leases.state };
        assert_eq!(leases.move_horizon(500), None, "leases of the process before may be renewed");
        let long_ago = Instant::now().checked_sub(Duration::from_secs(3600));
        let Some(begun) = long_ago else { return };
        let leases = Leases { begun, ..leases };
        leases.lease(200).unwrap();
        assert_eq!(leases.move_horizon(500), Some(200));
        assert!(leases.lease(199).is_err() && leases.lease(200).is_ok());
    }
}
