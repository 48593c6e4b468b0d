//! A region whose bytes an attacker writes before it is attached, and goes on writing, in another thread, while it is
//! attached, owned, filled, reaped, served, cancelled, audited and taken over: nobody panics, hangs, or touches a byte
//! outside of the region and of his own memory (I10).
#![no_main]

#[path = "support/attacker.rs"]
mod attacker;
#[path = "support/clock.rs"]
mod clock;

use attacker::ground;
use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use shmuring::backend::{Backend, SlotRef, Wait};
use shmuring::communicator::{Claim, Communicator, Gather};
use shmuring::layout::Geometry;
use shmuring::liveness::{LockFile, ROLE_BYTE};
use shmuring::parts::Parts;
use shmuring::region::{Options, Region};
use shmuring::request::{Buffers, Completion, Opcode, RelTag, Request};
use shmuring::slot::State;

const BLOCK: usize = 512;
/// Most operations of a run.
const STEPS: usize = 24;
fn serve(u: &mut Unstructured<'_>, mut claim: Claim<'_>) -> Result<()> {
    let n = usize::from(claim.job().count);
    match u.int_in_range(0..=5)? {
        0 => drop(claim),
        1 => std::mem::forget(claim),
        2 => drop(claim.fail(5, 1, 1)),
        how => {
            if let Ok(mut copying) = claim.copying() {
                for i in 0..=n {
                    let _ = copying.deliver(i, &[7; BLOCK]);
                    let _ = copying.take_image(i, &mut [0; BLOCK]);
                }
                if how == 3 && copying.suspend().is_err() {
                    return Ok(());
                }
            }
            let _ = claim.complete(Completion::ok(1));
        }
    }
    Ok(())
}

/// Who works on the region while it changes.
struct World<'r> {
    region: &'r Region,
    parts: &'r Parts<'r>,
    backend: Option<Backend<'r>>,
    refs: Vec<SlotRef>,
    server: Option<Communicator<'r>>,
    claims: Vec<Claim<'r>>,
    audits: u32,
}

impl<'r> World<'r> {
    fn own(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let soon = Wait::for_ns(if u.ratio(1, 4)? { 5000 } else { 0 });
        let Some(b) = &mut self.backend else {
            // Refused if the word of a slot says that it has an owner, and then the marks change all the time.
            self.backend = Backend::attach(self.region, 0, self.parts.geometry.slots).ok();
            return Ok(());
        };
        let r = self.refs.get(u.int_in_range(0..=3)?).copied().unwrap_or(SlotRef { slot: 0, generation: 0 });
        match u.int_in_range(0..=11)? {
            0..=3 => {
                let rel = RelTag::default();
                let request = match u.int_in_range(0..=4)? {
                    0 => Request::get_page(rel, 1, u.int_in_range(1..=3)?, 1),
                    1 => Request::extend(rel, 1, 1, &[3; BLOCK]),
                    2 => Request::get_page(rel, 1, 2, 1).with_buffers(Buffers::Pool(1, &[2, 0])),
                    3 => Request::new(Opcode::Create, rel),
                    _ => Request::new(Opcode::Nop, rel),
                };
                for slot in 0..self.parts.geometry.slots {
                    if let Ok(filled) = b.fill(slot, &request) {
                        self.refs.insert(0, filled);
                    }
                }
                let _ = b.submit_many(&self.refs[..self.refs.len().min(4)]);
            }
            4 => drop(b.submit(r)),
            5 => drop(b.cancel(r, &soon)),
            6 => drop(b.wait(r, &soon)),
            7 => drop(b.wait_any(&[r, self.refs.first().copied().unwrap_or(r)], &soon)),
            8 => drop(b.wait_free(&soon)),
            9 => {
                let _ = (b.result(r), b.copy_out(r, 1, &mut [0; BLOCK]), b.page(r, 0).map(<[u8]>::len), b.finish(r));
            }
            10 => drop(b.settle(&soon, u.arbitrary()?)),
            _ => {
                let _ = b.detach(&soon);
                self.backend = None;
            }
        }
        Ok(())
    }

    fn communicate(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let to = if u.arbitrary()? { State::Copying } else { State::Processing };
        let what = u.int_in_range(0..=9)?;
        let Some(server) = self.server.as_mut().filter(|_| what > 0) else {
            std::mem::take(&mut self.claims).into_iter().for_each(std::mem::forget);
            // SAFETY: the role lock is the caller's; claims of the last one have been forgotten; one thread.
            let (server, left) = unsafe { Communicator::over(self.parts, self.region.liveness(), None) };
            self.claims.extend(left.mutations.into_iter().chain(left.reads));
            self.server = Some(server);
            return Ok(());
        };
        let claims = &mut self.claims;
        match what {
            1..=4 => {
                server.reap(u.int_in_range(0..=8)?, to, |claim| claims.push(claim));
            }
            5 => {
                server.sweep(to, |claim| claims.push(claim));
            }
            6 => {
                // Further on each time, and back: the kernel's sleeps end by its own clock.
                self.audits += 1;
                (0..self.audits).for_each(|_| clock::pass_an_audit());
                server.audit(to, |claim| claims.push(claim));
                clock::reset();
            }
            7 => {
                let gather = Gather { requests: 2, ns: 2000 };
                server.reap_or_park(4, to, gather, 5000, |claim| claims.push(claim));
            }
            8 => {
                for _ in 0..600 {
                    server.reap(4, to, |claim| claims.push(claim));
                }
            }
            _ => {
                server.park(5000);
            }
        }
        while self.claims.len() > 8 {
            serve(u, self.claims.remove(0))?;
        }
        Ok(())
    }

    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        match u.int_in_range(0..=5)? {
            0..=2 => self.own(u),
            3 | 4 => self.communicate(u),
            _ => match self.claims.pop() {
                Some(claim) => serve(u, claim),
                None => self.communicate(u),
            },
        }
    }
}

/// The whole cycle, from attach on, while the bytes change.
fn cycle(u: &mut Unstructured<'_>, base: usize, len: usize) -> Result<()> {
    let mut pool = vec![0u8; 3 * BLOCK];
    // SAFETY: mapped for good; the attacker breaks the promise that nobody else writes, which is the point.
    let attached = unsafe { Region::attach_adopted(base as *mut u8, len, &ground().lock_path) };
    let Ok(mut region) = attached else { return Ok(()) };
    // SAFETY: the pool outlives the region, and is touched through it alone.
    let _ = unsafe { region.register_pool(1, pool.as_mut_ptr(), BLOCK, 3) };
    let role: LockFile = region.lock_file().unwrap();
    assert!(role.try_lock(ROLE_BYTE, 1).unwrap());
    let parts = region.parts();
    let mut world = World {
        region: &region,
        parts: &parts,
        backend: None,
        refs: Vec::new(),
        server: None,
        claims: Vec::new(),
        audits: 0,
    };
    for _ in 0..STEPS {
        if u.is_empty() {
            break;
        }
        world.step(u)?;
    }
    Ok(())
}

fn run(data: &[u8]) -> Result<()> {
    clock::reset();
    let ground = ground();
    let mut u = Unstructured::new(data);
    let slots = u.int_in_range(1..=5)?;
    let options = Options { bounce_per_slot: u.int_in_range(0..=2)?, block_size: BLOCK as u32, ..Options::new(slots) };
    let g = Geometry::new(options.slots, options.bounce_per_slot, options.block_size).unwrap();
    let len = g.total_len as usize;
    let base = ground.place(len);
    // SAFETY: mapped for good; nobody uses it now.
    let made = unsafe { Region::init_adopted(base as *mut u8, len, &options, &ground.lock_path) };
    drop(made.unwrap());
    attacker::strike(base, &attacker::writes(&mut u, &g)?, 0);
    let writes = attacker::writes(&mut u, &g)?;
    ground.under_attack(base, writes, || cycle(&mut u, base, len))
}

fuzz_target!(|data: &[u8]| {
    let _ = run(data);
});
