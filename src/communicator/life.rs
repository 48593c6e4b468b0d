//! The life of the server that a region serves (R1): its writes must never run after the next life's redo.

use crate::backend::{Backend, Leftover, Wait};
use crate::error::{Error, Result};
use crate::liveness::{LockFile, LIFE_BYTE};
use crate::region::Region;
use crate::request::Lsn;
use crate::sync::Ordering;

/// A server's hold on a region. Lives as long as the server; the kernel lets go of it at death.
#[derive(Debug)]
pub struct ServerLife {
    life: u32,
    lock: LockFile,
}

impl ServerLife {
    /// Begins a new life of `region` for the server with this system identifier: `LifeHeld` while another server lives.
    /// Raises the life, so that no request of an older one is claimed any more. Call [`ServerLife::settle`] next, before
    /// redo or anything else issues a request.
    pub fn begin(region: &Region, system_identifier: u64) -> Result<Self> {
        region.check_process()?;
        let lock = region.lock_file()?;
        if !lock.try_lock(LIFE_BYTE, 1)? {
            return Err(Error::LifeHeld);
        }
        let shared = &region.parts().header.life;
        // Relaxed: only the holder of the life lock writes them, and its backends start afterwards.
        let life = shared.life.load(Ordering::Relaxed).wrapping_add(1).max(1);
        shared.life.store(life, Ordering::Relaxed);
        shared.pid.store(std::process::id(), Ordering::Relaxed);
        shared.system_identifier.store(system_identifier, Ordering::Relaxed);
        Ok(Self { life, lock })
    }

    /// Settles every slot of older lives: reads and mutations that nobody claimed are withdrawn, claimed mutations waited
    /// for. Returns how many there were. `OwnerAlive` while a process of an older life still owns slots; after `TimedOut`,
    /// `Interrupted` or `CommunicatorGone` log it and call again.
    pub fn settle(&self, region: &Region, wait: &Wait<'_>) -> Result<u32> {
        self.leftovers(region)?.0.settle(wait, true)
    }

    /// The same one by one, for an embedder that logs each. Holds every slot until it is dropped.
    pub fn leftovers<'r>(&self, region: &'r Region) -> Result<Leftovers<'r>> {
        Ok(Leftovers(Backend::attach(region, 0, region.parts().slots.len() as u32)?))
    }

    /// Forgets what older lives noted in the last-written table, and starts it anew from `floor`: the redo LSN, since
    /// redo touches and notes every page changed after it (R12). If another life has run redo, raise the floor to the
    /// end of recovery with [`crate::lsn::written::Written::note_all`]. Call it after [`ServerLife::settle`], before
    /// redo or anything else issues a request.
    pub fn reset_written(&self, region: &Region, floor: Lsn) -> Result<()> {
        region.check_process()?;
        region.parts().last_written().reset(floor);
        Ok(())
    }

    /// Number of this life.
    #[must_use]
    pub fn life(&self) -> u32 {
        self.life
    }
}

impl Drop for ServerLife {
    /// A child that was forked while the server lived shares the lock's description, and may outlive it: a closed
    /// descriptor alone would leave the lock with the child.
    fn drop(&mut self) {
        // An error in such a child, where the handle is no hold: the parent's life goes on.
        let _ = self.lock.unlock(LIFE_BYTE, 1);
    }
}

/// What older lives left; see [`ServerLife::leftovers`].
pub struct Leftovers<'r>(Backend<'r>);

impl Leftovers<'_> {
    /// Settles the next one; `None` when there are no more. Errors as of [`ServerLife::settle`].
    pub fn next(&mut self, wait: &Wait<'_>) -> Result<Option<Leftover>> {
        self.0.settle_next(wait, true)
    }
}
