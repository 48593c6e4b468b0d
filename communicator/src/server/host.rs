//! A communicator whole: page service, server and the rounds of forgetting. `shmuring serve` runs one, and so does a
//! process that embeds the communicator through the C interface.

use super::{Feedback, Served, Server, ServerOptions, StartError};
use crate::holder;
use crate::service::spec::ServiceSpec;
use crate::service::{PageService, ServiceError};
use shmuring::error::Error;
use shmuring::region::Region;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// What a host serves, and how.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Where pages come from.
    pub service: ServiceSpec,
    /// Bytes of writes that a store gathers in memory before they become files.
    pub memtable_bytes: u64,
    /// Of the server.
    pub server: ServerOptions,
    /// Keep what reads as of the last so many bytes of WAL need.
    pub history: u64,
    /// Time between two rounds of forgetting what is older; zero: never.
    pub forget_every: Duration,
}

impl HostOptions {
    /// This service, and the defaults of `shmuring serve`.
    #[must_use]
    pub fn new(service: ServiceSpec) -> Self {
        Self {
            service,
            memtable_bytes: 64 << 20,
            server: ServerOptions::default(),
            history: 1 << 30,
            forget_every: Duration::from_secs(60),
        }
    }
}

/// Why a host did not start. The region is as it was.
#[derive(Debug)]
pub enum HostError {
    /// A living communicator holds the role: the process of this pid; 0: one that cannot be seen from here.
    RoleHeld {
        /// For messages alone.
        pid: u32,
    },
    /// The region was served before, by another store: this one would have to be made.
    NoSuchStore(ServiceSpec),
    /// The page service did not open.
    Service(ServiceSpec, ServiceError),
    /// The page service does not take this communicator for a writer.
    Refused(ServiceSpec, ServiceError),
    /// The server did not start.
    Server(Error),
}

impl HostError {
    /// A positive errno.
    #[must_use]
    pub fn errno(&self) -> i32 {
        match self {
            Self::RoleHeld { .. } => Error::RoleHeld.errno(),
            Self::NoSuchStore(_) => libc::ENOENT,
            Self::Service(_, e) | Self::Refused(_, e) => e.errno,
            Self::Server(e) => e.errno(),
        }
    }
}

impl std::fmt::Display for HostError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RoleHeld { pid: 0 } => {
                write!(f, "another communicator serves this region, and {}", holder::NOT_HERE)
            }
            Self::RoleHeld { pid } => write!(f, "another communicator (pid {pid}) serves this region"),
            Self::NoSuchStore(spec) => write!(f, "{spec}: there is no such store, and the region was served before"),
            Self::Service(spec, e) => write!(f, "{spec}: {e}"),
            Self::Refused(spec, e) => write!(f, "{spec}: the page service refused this communicator: {e}"),
            Self::Server(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for HostError {}

/// A running communicator. End it with [`Host::stop`].
pub struct Host {
    server: Server,
    service: Arc<dyn PageService>,
    runtime: Handle,
}

/// What a host came to.
#[derive(Debug)]
pub struct Stopped {
    /// What it served.
    pub served: Served,
    /// Whether everything that was acknowledged is durable.
    pub synced: crate::service::Result<()>,
}

impl Host {
    /// Opens the page service, takes the role of `region` and serves it on `runtime`, which must outlive the host. Blocks;
    /// call it outside of async code.
    pub fn start(
        region: &'static Region,
        runtime: Handle,
        options: &HostOptions,
    ) -> std::result::Result<Self, HostError> {
        // Asked before the page service is opened: its own lock would give a less clear message.
        if region.liveness().role_held() {
            return Err(role_held(region));
        }
        // What a region holds was asked of the store that it had: none is made beside a region that somebody has served,
        // since a mistyped path would acknowledge writes into another store. Relaxed: whoever served has died.
        let was_served = region.parts().header.role.epoch.load(Ordering::Relaxed) > 0;
        if was_served && !options.service.exists() {
            return Err(HostError::NoSuchStore(options.service.clone()));
        }
        let service = options.service.open(options.memtable_bytes, &runtime);
        let service = service.map_err(|e| HostError::Service(options.service.clone(), e))?;
        let server =
            Server::start(region, service.clone(), runtime.clone(), options.server.clone()).map_err(|e| match e {
                StartError::Region(Error::RoleHeld) => role_held(region),
                StartError::Region(e) => HostError::Server(e),
                StartError::Refused(e) => HostError::Refused(options.service.clone(), e),
            })?;
        if !options.forget_every.is_zero() {
            runtime.spawn(forget(service.clone(), options.history, options.forget_every));
        }
        Ok(Self { server, service, runtime })
    }

    /// Number of this term of the role.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.server.epoch()
    }

    /// Requests that a dead communicator had claimed and this one finishes.
    #[must_use]
    pub fn inherited(&self) -> usize {
        self.server.inherited()
    }

    /// Where to tell what is heard of the page servers' ingest elsewhere than on the service's own connections.
    #[must_use]
    pub fn feedback(&self) -> &Feedback {
        self.server.feedback()
    }

    /// Whether the reaper still runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.server.is_running()
    }

    /// Has the page service read its files anew. What it refuses is in the log, and changes nothing.
    pub fn reload(&self) {
        if let Err(e) = self.service.reload() {
            tracing::error!("the page service stays as it is: {e}");
        }
    }

    /// Drains, gives the role up and makes durable what was acknowledged. Blocks, for the grace period and a sync; call
    /// it outside of async code.
    pub fn stop(self) -> Stopped {
        let served = self.server.stop();
        Stopped { served, synced: self.runtime.block_on(self.service.sync()) }
    }
}

fn role_held(region: &Region) -> HostError {
    HostError::RoleHeld { pid: holder::of_role(region).unwrap_or(0) }
}

/// Forgets old versions from time to time, for as long as the runtime lives.
async fn forget(service: Arc<dyn PageService>, history: u64, every: Duration) {
    loop {
        tokio::time::sleep(every).await;
        match service.forget(history).await {
            Ok(0) => {}
            Ok(versions) => tracing::info!(versions, history, "forgot old versions"),
            Err(e) => tracing::warn!("forgetting old versions failed: {e}"),
        }
    }
}
