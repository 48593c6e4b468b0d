//! A backend and a communicator, as two threads over one private region: `cargo run --example quickstart`.

use shmuring::backend::{Backend, Wait};
use shmuring::communicator::{Claim, Communicator};
use shmuring::region::{Options, Region};
use shmuring::request::{Completion, RelTag, Request};
use shmuring::slot::State;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 8192;

/// The page service of this example: every byte of a page is its block number.
fn serve(mut claim: Claim<'_>) {
    let (first, count) = (claim.job().block, claim.job().count);
    let Ok(mut copying) = claim.copying() else { return }; // cancelled: its slot was given back
    for i in 0..count {
        let page = [(first + u32::from(i)) as u8; PAGE];
        if let Err(e) = copying.deliver(usize::from(i), &page) {
            let _ = claim.fail(e.errno(), u64::from(i), 1);
            return;
        }
    }
    let _ = claim.complete(Completion::ok(u64::from(count)));
}

fn communicate(region: &Region, stop: &AtomicBool) -> shmuring::error::Result<()> {
    let parts = region.parts();
    let (mut communicator, inherited) = Communicator::take_role(region, &parts)?;
    // What a dead predecessor had claimed comes first, then what it never reaped, then new requests.
    inherited.mutations.into_iter().chain(inherited.reads).for_each(serve);
    communicator.sweep(State::Copying, serve);
    while !stop.load(Ordering::Relaxed) {
        // Spins, then parks for at most 100 ms; when idle, the audit looks at every slot once a second.
        if communicator.reap_or_park(64, State::Copying, Default::default(), 100_000_000, serve) == 0 {
            communicator.audit(State::Copying, serve);
        }
    }
    Ok(())
}

fn backend(region: &Region) -> shmuring::error::Result<()> {
    let mut b = Backend::attach(region, 0, 8)?; // slots 0 to 7 are ours
    let wait = Wait::for_ms(10_000);
    while let Some(leftover) = b.next_leftover(&wait)? {
        println!("an earlier owner of the slots left {leftover:?}");
    }
    let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };

    // The short way: one request, its pages copied out.
    let mut pages = vec![0; 2 * PAGE];
    let done = b.call(&Request::get_page(rel, 7, 2, 0), &wait, &mut pages)?;
    println!("call: {} pages, first bytes {} and {}", { done.value }, pages[0], pages[PAGE]);

    // The long way: several in flight, one doorbell for all, the page looked at in place.
    let mut batch = Vec::new();
    for block in 20..24 {
        let slot = b.free_slot()?;
        batch.push(b.fill(slot, &Request::get_page(rel, block, 1, 0))?);
    }
    b.submit_many(&batch)?;
    while !batch.is_empty() {
        let i = b.wait_any(&batch, &wait)?;
        let request = batch.remove(i);
        println!("batch: first byte {}", b.page(request, 0)?[0]);
        b.finish(request)?;
    }
    b.detach(&wait)?;
    Ok(())
}

pub fn main() -> shmuring::error::Result<()> {
    // For processes: Region::create_named, or create_memfd and pass the descriptor on.
    let region = Region::create_private(&Options::new(64))?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        let communicator = s.spawn(|| communicate(&region, &stop));
        let result = backend(&region);
        stop.store(true, Ordering::Relaxed);
        communicator.join().map_err(|_| shmuring::error::Error::Os(libc::ECANCELED))?.and(result)
    })
}
