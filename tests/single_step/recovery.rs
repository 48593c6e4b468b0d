//! After the kill: the living go on, the successor settles, and nothing is lost, doubled, stuck or written late.

use std::sync::atomic::Ordering::Relaxed;

use shmuring::backend::{Backend, Fate, Leftover};
use shmuring::error::Error;
use shmuring::ring::Consumer;
use shmuring::slot::{State, Word};
use shmuring::stats::{OwnerCounter, RoleCounter};

use crate::requests::{fill, take, Asked, Kind};
use crate::world::{Fault, World, NOW, SLOTS, VICTIMS};

/// What the victim left.
pub struct Left {
    /// What it had asked for, from its first slot on.
    pub kinds: &'static [Kind],
    /// Every word at its death.
    pub words: Vec<Word>,
    /// Whether the living go on before the successor comes, or after.
    pub living_first: bool,
}

impl Left {
    /// A request that is not over, and was handed in.
    pub fn is_unfinished(&self, slot: u32) -> bool {
        let live = [State::Submitted, State::Processing, State::Copying, State::Completed];
        live.iter().any(|s| self.words[slot as usize].is(*s))
    }
}

/// A backend died: slots 0 to [`VICTIMS`] are settled by the next owner.
pub fn of_backend(w: &mut World<'_>, left: &Left) -> Result<(), String> {
    for (slot, kind) in (0..).zip(left.kinds) {
        let word = left.words[slot];
        if let (Kind::ReadPool(index), true) = (*kind, word.is(State::Abandoned) || word.is(State::Withdrawn)) {
            w.guard(index);
        }
    }
    if left.living_first {
        go_on(w)?;
    }
    let mut next = Backend::attach(w.region, 0, VICTIMS).map_err(|e| format!("the next owner is refused: {e}"))?;
    let mut settled = Vec::new();
    if w.fault != Fault::Unsettled {
        settled = settle(w, || next.next_leftover(&NOW), |slot| left.kinds.get(slot as usize).copied())?;
    }
    if !left.living_first {
        go_on(w)?;
    }
    w.serve();
    check_leftovers(w, left, &settled)?;
    w.take_all(1)?;
    check_words(w, left, 0..VICTIMS)?;
    use_all(w, &mut next)?;
    check_region(w)
}

/// A communicator died: the next one goes on.
pub fn of_communicator(w: &mut World<'_>, left: &Left) -> Result<(), String> {
    w.succeed()?;
    // Asked before anything is finished, since that wakes as well.
    for asked in w.asked.clone() {
        if w.other().poll(asked.at) != Ok(true) {
            return Err(format!("{:?} {} in slot {} is not answered", asked.kind, asked.number, asked.at.slot));
        }
    }
    for sleeper in std::mem::take(&mut w.sleepers) {
        let outcome = sleeper.join().map_err(|_| "a sleeper panicked")?;
        if outcome == shmuring::futex::Outcome::TimedOut {
            return Err("a sleeper was not woken".into());
        }
    }
    let all = w.asked.clone();
    // Claimed before the death, it may have run before it, and then again.
    w.take_all(2)?;
    for asked in all.iter().filter(|a| left.words[a.at.slot as usize].is(State::Submitted)) {
        if w.times_applied(asked.number) > 1 {
            return Err(format!("{:?} {} was never claimed, and ran twice", asked.kind, asked.number));
        }
    }
    check_words(w, left, VICTIMS..SLOTS)?;
    go_on(w)?;
    check_region(w)
}

/// The living backend asks, and the communicator (or the next one) answers, whatever the dead one left.
pub fn go_on(w: &mut World<'_>) -> Result<(), String> {
    let was_parked = w.parked.as_ref().is_some_and(|p| !p.is_finished());
    let rung = w.other().counter(OwnerCounter::DoorbellRings);
    let before = std::mem::take(&mut w.asked);
    for kind in [Kind::Read, Kind::Truncate] {
        let slot = w.other().free_slot().map_err(|e| format!("beside the dead: {e}"))?;
        w.ask(slot, kind);
    }
    if let Some(parked) = w.parked.take() {
        // A flag that is set is seen, whoever died after it was rung for (I8).
        if was_parked && !parked.is_finished() && w.other().counter(OwnerCounter::DoorbellRings) == rung {
            return Err("the communicator sleeps, and was not rung".into());
        }
        parked.join().map_err(|_| "the park panicked")?;
    }
    w.succeed()?;
    w.serve_hints();
    let taken = w.take_all(1).map_err(|e| format!("beside the dead: {e}"));
    w.asked = before;
    taken
}

/// Settles every leftover that `next` gives, with the communicator's help where a mutation is to run. `kind`: what a slot
/// asked for.
pub fn settle(
    w: &mut World<'_>,
    mut next: impl FnMut() -> shmuring::error::Result<Option<Leftover>>,
    kind: impl Fn(u32) -> Option<Kind>,
) -> Result<Vec<Leftover>, String> {
    let mut settled = Vec::new();
    // One try for each that must be waited for, and one more.
    for _ in 0..=SLOTS {
        loop {
            match next() {
                Ok(None) => return Ok(settled),
                Ok(Some(l)) => {
                    if let (Some(Kind::ReadPool(index)), Fate::Abandoned | Fate::Withdrawn) = (kind(l.slot), l.fate) {
                        w.guard(index);
                    }
                    settled.push(l);
                }
                Err(Error::TimedOut | Error::CommunicatorGone) => break,
                Err(e) => return Err(format!("settling: {e}")),
            }
        }
        w.succeed()?;
        w.serve();
    }
    Err("the leftovers are not settled".into())
}

/// Each request that the dead one had handed in is reported once, with a fate that it may have.
fn check_leftovers(w: &World<'_>, left: &Left, settled: &[Leftover]) -> Result<(), String> {
    for (slot, kind) in (0..).zip(left.kinds) {
        let (number, word) = (w.base + 2 * slot, left.words[slot as usize]);
        let of_slot: Vec<&Leftover> = settled.iter().filter(|l| l.slot == slot).collect();
        if of_slot.len() != usize::from(left.is_unfinished(slot)) {
            return Err(format!("slot {slot} was {word:?}, and has the leftovers {of_slot:?}"));
        }
        for l in of_slot {
            let own = l.generation == word.generation()
                && { l.request.block } == number
                && l.request.opcode() == Some(kind.opcode());
            let fits = match l.fate {
                Fate::Completed(done) => done == kind.answer(number),
                Fate::Withdrawn | Fate::Abandoned => !kind.is_mutation(),
                Fate::OwnerDead => false,
            };
            if !own || !fits {
                return Err(format!("{kind:?} {number} in slot {slot}, {word:?}, became {l:?}"));
            }
        }
        let times = w.times_applied(number);
        let expected = match word.state() {
            _ if !kind.is_mutation() => 0..=0,
            // Never handed in, or withdrawn; or over, and then it may have been withdrawn before.
            Some(State::Filling | State::Withdrawn) => 0..=0,
            Some(State::Idle) => 0..=1,
            _ => 1..=1,
        };
        if !expected.contains(&times) {
            return Err(format!("{kind:?} {number} in slot {slot}, {word:?}, was applied {times} times"));
        }
    }
    Ok(())
}

/// Each slot is Idle, one generation on if it was in use: no more, no less.
pub fn check_words(w: &World<'_>, left: &Left, slots: std::ops::Range<u32>) -> Result<(), String> {
    for slot in slots {
        let (before, now) = (left.words[slot as usize], w.word(slot));
        let used = u32::from(!before.is(State::Idle));
        let expected = Word::new(State::Idle, before.generation() + used, 0);
        if now != expected {
            return Err(format!("slot {slot} was {before:?} and became {now:?}, not {expected:?}"));
        }
    }
    Ok(())
}

/// Every slot of the next owner carries a request.
pub fn use_all(w: &mut World<'_>, next: &mut Backend<'_>) -> Result<(), String> {
    let mut all = Vec::new();
    for (slot, kind) in (0..VICTIMS).zip([Kind::Read, Kind::Truncate, Kind::ReadPool(15), Kind::Write]) {
        let number = w.number();
        all.push(Asked { at: fill(next, slot, kind, number), kind, number });
    }
    let refs: Vec<_> = all.iter().map(|a| a.at).collect();
    next.submit_many(&refs).map_err(|e| format!("the next owner cannot submit: {e}"))?;
    w.serve_hints();
    all.iter().try_for_each(|asked| take(w.site, next, asked).map_err(|e| format!("the next owner: {e}")))
}

/// What must hold of the region when nothing is under way.
pub fn check_region(w: &mut World<'_>) -> Result<(), String> {
    if let Some(i) = w.words().iter().position(|word| !word.is(State::Idle)) {
        return Err(format!("slot {i} is stuck in {:?}", w.word(i as u32)));
    }
    if !Consumer::is_idle(w.parts) {
        return Err("the ring does not come to rest".into());
    }
    let never = [
        RoleCounter::LostHints,
        RoleCounter::Damage,
        RoleCounter::BadWords,
        RoleCounter::Refused,
        RoleCounter::Dropped,
        RoleCounter::OldLife,
    ];
    let excused = std::mem::take(&mut w.excused);
    for counter in never {
        let most = excused.iter().find(|(c, _)| *c as usize == counter as usize).map_or(0, |(_, most)| *most);
        let n = w.count(counter);
        if n > most {
            return Err(format!("{n} of {counter:?}"));
        }
    }
    for index in std::mem::take(&mut w.cancelled) {
        if w.fault == Fault::LateByte {
            w.scribble(index);
        }
        if w.site.look(index) != World::GUARD {
            return Err(format!("block {index} of the registered pool was written after its cancel"));
        }
    }
    Ok(())
}

/// The state of everything, for who looks into a failure.
pub fn picture(parts: &shmuring::parts::Parts<'_>) -> String {
    let h = parts.header;
    let slots = parts.slots.iter().map(shmuring::slot::owner::look).enumerate();
    let slots: String = slots.map(|(i, word)| format!("\n  slot {i}: {word:?}")).collect();
    format!(
        "{slots}\n  head {} tail {} any {} parked {} sequence {} epoch {}",
        h.head.0.load(Relaxed),
        h.tail.0.load(Relaxed),
        h.any.0.load(Relaxed),
        h.parked.0.load(Relaxed),
        h.sequence.0.load(Relaxed),
        h.role.epoch.load(Relaxed),
    )
}
