//! The signals of a command that serves: SIGTERM and SIGINT end it, SIGHUP has it read its files anew.

use super::Failure;
use std::time::Duration;
use tokio::signal::unix::{signal, Signal, SignalKind};

/// SIGTERM, SIGINT and SIGHUP, caught from when this is made: before the command says that it serves, since whoever reads
/// that may send one at once.
pub(super) struct Told {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Told {
    /// In a runtime's context.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for an end, and says which; reloads when told to. Fails as soon as `check` does, which is asked each second.
    pub(super) async fn wait(
        &mut self,
        reload: impl Fn(),
        check: impl Fn() -> Result<(), Failure>,
    ) -> Result<&'static str, Failure> {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                _ = self.term.recv() => return Ok("SIGTERM"),
                _ = self.int.recv() => return Ok("SIGINT"),
                _ = self.hup.recv() => reload(),
                _ = tick.tick() => check()?,
            }
        }
    }
}
