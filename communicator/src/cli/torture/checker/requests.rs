//! Each request by itself: answered exactly once, in time, by an answer that is its own; cancelled buffers stay.

use super::super::log::{cancel, fate, Kind, Record, MAY_EXPIRE};
use super::load::{Post, Stops};
use super::registers::{Ran, Registers};
use super::{Faults, Summary};
use shmuring::buffers::BOUNCE;
use shmuring::request::Opcode;
use shmuring::slot::State;
use std::collections::{HashMap, HashSet};

/// How late a process may be that is not stopped: others run on its cpu.
const GRACE: u64 = 5_000_000_000;
/// How long a cancel may take: the session allows it so much.
const CANCEL: u64 = 20_000_000_000;

/// A request and what became of it.
pub(super) struct Story {
    pub(super) asked: Record,
    process: usize,
    submitted: bool,
    pub(super) got: Option<Record>,
    pub(super) pages: Vec<Record>,
    finished: Option<Record>,
    cancel_asked: Option<Record>,
    cancel: Option<Record>,
    slot_back: Option<Record>,
    gave_up: Option<Record>,
    leftover: Option<Record>,
}

impl Story {
    pub(super) fn opcode(&self) -> Option<Opcode> {
        Opcode::from_u8(self.asked.opcode)
    }

    fn deadline(&self) -> u64 {
        self.asked.time + u64::from(self.asked.code & !MAY_EXPIRE) * 1_000_000
    }

    fn may_expire(&self) -> bool {
        self.asked.code & MAY_EXPIRE != 0
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(|c| matches!(c.code, cancel::WITHDRAWN | cancel::ABANDONED))
    }
}

/// What one process found when it came, and how far it got.
#[derive(Default)]
struct Arrival {
    found: HashMap<(u32, u32), u32>,
    looked: Option<u64>,
    settled: bool,
    ended: bool,
    last: u64,
}

struct Digest<'d> {
    post: &'d Post,
    stops: &'d Stops,
    faults: &'d mut Faults,
    stories: Vec<Story>,
    by_slot: HashMap<(u32, u32), usize>,
    arrivals: Vec<Arrival>,
}

/// Checks every request of a post, and hands what it changed or saw to the registers.
pub(super) fn digest(
    post: &Post,
    stops: &Stops,
    registers: &mut Registers,
    faults: &mut Faults,
    summary: &mut Summary,
) {
    let (stories, by_slot, arrivals) = (Vec::new(), HashMap::new(), Vec::new());
    let mut digest = Digest { post, stops, faults, stories, by_slot, arrivals };
    for (i, records) in post.processes.iter().enumerate() {
        digest.process(i, records, summary);
    }
    if post.processes.is_empty() || digest.arrivals.last().is_some_and(|a| !a.ended) {
        digest.fault(None, "d", "its last process did not end cleanly");
    }
    let stories = std::mem::take(&mut digest.stories);
    for story in &stories {
        digest.judge(story);
        summary.requests += 1;
        summary.answers += u64::from(story.got.is_some());
        summary.pages += story.pages.len() as u64;
        summary.leftovers += u64::from(story.leftover.is_some());
        summary.cancelled += u64::from(story.is_cancelled());
        summary.expired += u64::from(story.gave_up.is_some());
        let ran = digest.ran(story);
        registers.add(&post.name, story, ran, digest.faults);
    }
}

impl Digest<'_> {
    fn fault(&mut self, story: Option<&Record>, class: &str, what: impl std::fmt::Display) {
        let name = &self.post.name;
        match story {
            None => self.faults.add(format_args!("({class}) {name}: {what}")),
            Some(a) => {
                let op = Opcode::from_u8(a.opcode).map_or("?", Opcode::name);
                self.faults.add(format_args!(
                    "({class}) {name} process {} request {} ({op} of relation {} block {}+{} in slot {} generation {}): \
                     {what}",
                    a.incarnation, a.id, a.rel, a.block, a.count, a.slot, a.generation
                ));
            }
        }
    }

    /// One process's records, in order.
    fn process(&mut self, number: usize, records: &[Record], summary: &mut Summary) {
        let mut ids = HashMap::new();
        let mut canaries: HashMap<(u8, u32), u64> = HashMap::new();
        let mut arrival = Arrival { last: records.last().map_or(0, |r| r.time), ..Arrival::default() };
        for r in records {
            match r.kind {
                Kind::Start | Kind::Signal => {}
                Kind::Found => {
                    arrival.found.insert((r.slot, r.generation), r.code);
                }
                Kind::Looked => arrival.looked = Some(r.time),
                Kind::Settled => {
                    arrival.settled = true;
                    let since = arrival.looked.unwrap_or(r.time);
                    self.in_time(None, number, since, since + u64::from(r.code) * 1_000_000, r.time, "settled");
                }
                Kind::End => arrival.ended = true,
                Kind::Leftover => self.leftover(r),
                Kind::Asked => {
                    ids.insert(r.id, self.stories.len());
                    self.asked(number, r);
                }
                Kind::Submitted => {
                    for story in self.stories.iter_mut().rev().take_while(|s| s.process == number && !s.submitted) {
                        story.submitted = story.asked.id <= r.id;
                    }
                }
                Kind::Canary => {
                    canaries.insert((r.pool, r.block), r.a);
                }
                Kind::CanaryRead => {
                    summary.canaries += 1;
                    if canaries.remove(&(r.pool, r.block)) != Some(r.a) {
                        let asked = ids.get(&r.id).and_then(|i| self.stories.get(*i)).map(|s| s.asked);
                        let what = format!("block {} of pool {} changed after its cancel returned", r.block, r.pool);
                        self.fault(asked.as_ref(), "e", what);
                    }
                }
                _ => match ids.get(&r.id) {
                    Some(i) => self.step(*i, r),
                    None => self.fault(None, "a", format_args!("{:?} of a request {} that nobody made", r.kind, r.id)),
                },
            }
        }
        summary.processes += 1;
        summary.killed_at_work += u64::from(!arrival.ended && !ids.is_empty());
        self.arrivals.push(arrival);
    }

    fn asked(&mut self, process: usize, r: &Record) {
        if self.by_slot.insert((r.slot, r.generation), self.stories.len()).is_some() {
            self.fault(Some(r), "c", "its slot and generation were those of an earlier request");
        }
        self.stories.push(Story {
            asked: *r,
            process,
            submitted: false,
            got: None,
            pages: Vec::new(),
            finished: None,
            cancel_asked: None,
            cancel: None,
            slot_back: None,
            gave_up: None,
            leftover: None,
        });
    }

    /// A step of a request, by the process that made it.
    fn step(&mut self, i: usize, r: &Record) {
        let Some(story) = self.stories.get_mut(i) else { return };
        let asked = story.asked;
        let doubled = match r.kind {
            Kind::Got => {
                let twice = story.is_cancelled() || story.got.replace(*r).is_some();
                if (r.slot, r.generation) != (asked.slot, asked.generation) {
                    self.fault(Some(&asked), "a", "the answer of another slot or generation");
                }
                twice
            }
            Kind::Page => {
                story.pages.push(*r);
                false
            }
            Kind::Finished => {
                let same = story.got.is_some_and(|g| (g.code, g.a) == (r.code, r.a));
                let twice = story.finished.replace(*r).is_some();
                if !same {
                    self.fault(Some(&asked), "c", "its answer changed between a look and the end");
                }
                twice
            }
            Kind::CancelAsked => story.cancel_asked.replace(*r).is_some(),
            Kind::CancelReturned => story.cancel.replace(*r).is_some() || story.got.is_some(),
            Kind::SlotBack => story.slot_back.replace(*r).is_some(),
            _ => story.gave_up.replace(*r).is_some(),
        };
        if doubled {
            self.fault(Some(&asked), "c", format_args!("{:?} twice, or after its end", r.kind));
        }
    }

    /// A request of a dead process, as its successor settled it.
    fn leftover(&mut self, r: &Record) {
        let Some(i) = self.by_slot.get(&(r.slot, r.generation)).copied() else {
            self.fault(Some(r), "a", "a leftover that nobody asked for");
            return;
        };
        let Some(story) = self.stories.get_mut(i) else { return };
        let asked = story.asked;
        let over = story.finished.is_some() || story.is_cancelled();
        let twice = story.leftover.replace(*r).is_some();
        let differs = story.got.is_some_and(|g| g.code != r.code & 0xFFFF || g.a != r.a || r.code >> 16 != 0);
        // ZeroExtend has its number of blocks where the log has a count.
        let own = (asked.opcode, asked.rel, asked.block, asked.a) == (r.opcode, r.rel, r.block, r.b);
        if over || twice {
            self.fault(Some(&asked), "c", "it was over, and is a leftover");
        }
        if differs {
            self.fault(Some(&asked), "c", "its answer is another one as a leftover");
        }
        if !own {
            self.fault(Some(&asked), "a", "its slot has another request as a leftover");
        }
    }

    /// ns for which a process was stopped between two times.
    fn stopped(&self, process: usize, from: u64, to: u64) -> u64 {
        let incarnation = self.post.processes.get(process).and_then(|p| p.first()).map_or(0, |r| r.incarnation);
        let stops = self.stops.get(&(self.post.name.clone(), incarnation));
        stops.into_iter().flatten().map(|(a, b)| (*b).min(to).saturating_sub((*a).max(from))).sum()
    }

    /// (d) Something that was due by then happened at `at`.
    fn in_time(&mut self, asked: Option<&Record>, process: usize, since: u64, due: u64, at: u64, what: &str) {
        let late = at.saturating_sub(due);
        if late > GRACE && late > GRACE + self.stopped(process, since, at) {
            self.fault(asked, "d", format_args!("{what} {} ms too late", late / 1_000_000));
        }
    }

    fn judge(&mut self, story: &Story) {
        let asked = &story.asked;
        self.judge_times(story);
        self.judge_cancel(story);
        if story.got.is_none() && !story.is_cancelled() {
            self.account(story);
        }
        let Some(got) = story.got else {
            if let Some(left) = story.leftover {
                self.judge_fate(asked, left);
            }
            return;
        };
        let expired = got.code == libc::ETIMEDOUT as u32 && story.may_expire() && got.time >= story.deadline();
        let past_end = got.code == libc::ENXIO as u32 && asked.opcode == Opcode::GetPage as u8;
        if got.code != 0 && !expired && !past_end {
            self.fault(Some(asked), "a", format_args!("errno {}", got.code));
        }
        let due = if got.code == 0 && story.opcode().is_some_and(Opcode::fills_buffers) { asked.count } else { 0 };
        let own = story.pages.iter().enumerate().all(|(i, p)| p.block == asked.block + i as u32);
        // A process that was killed may have written down a part.
        let whole = story.pages.len() == usize::from(due) || story.finished.is_none();
        if !own || !whole {
            self.fault(Some(asked), "a", format_args!("{} pages", story.pages.len()));
        }
    }

    /// What a mutation, or a read, that outlived its process may have come to.
    fn judge_fate(&mut self, asked: &Record, left: Record) {
        let is_mutation = Opcode::from_u8(asked.opcode).is_some_and(Opcode::is_mutation);
        let by_pool = asked.pool != BOUNCE as u8;
        let errno = left.code & 0xFFFF;
        let expected = match left.code >> 16 {
            fate::COMPLETED if is_mutation => errno == 0 || (by_pool && errno == libc::EOWNERDEAD as u32),
            fate::COMPLETED => true,
            fate::OWNER_DEAD => is_mutation && by_pool,
            _ => !is_mutation,
        };
        if !expected {
            self.fault(Some(asked), "b", format_args!("as a leftover it had fate {} errno {errno}", left.code >> 16));
        }
    }

    /// (d) An answer, a giving up, a cancel: all in time; and nothing that was due is missing.
    fn judge_times(&mut self, story: &Story) {
        let (asked, process, due) = (&story.asked, story.process, story.deadline());
        let last = self.arrivals.get(process).map_or(0, |a| a.last);
        let end = story.got.or(story.gave_up).or(story.cancel_asked).map_or(last, |r| r.time);
        self.in_time(Some(asked), process, asked.time, due, end, "its end came");
        if let Some(c) = story.cancel_asked {
            let end = story.cancel.map_or(last, |r| r.time);
            self.in_time(Some(asked), process, c.time, c.time + CANCEL, end, "the cancel returned");
        }
        if story.gave_up.is_some() && !story.may_expire() {
            self.fault(Some(asked), "d", "it was not answered by its deadline");
        }
    }

    /// (e) What was never claimed touches no buffer, not even before its slot comes back.
    fn judge_cancel(&mut self, story: &Story) {
        let (Some(returned), Some(back)) = (story.cancel, story.slot_back) else { return };
        if returned.code == cancel::WITHDRAWN && returned.a != back.a {
            self.fault(Some(&story.asked), "e", "it was withdrawn, and its buffers changed before the slot came back");
        }
        if returned.code >= cancel::FAILED {
            self.fault(Some(&story.asked), "d", format_args!("its cancel failed with {}", returned.code));
        }
    }

    /// (b) A request without an answer was left by a process that died, and its successor found it.
    fn account(&mut self, story: &Story) {
        let asked = &story.asked;
        if self.arrivals.get(story.process).is_none_or(|a| a.ended) {
            self.fault(Some(asked), "b", "it was never answered, and its process ended");
            return;
        }
        let at = (asked.slot, asked.generation);
        let mut seen = false;
        for arrival in self.arrivals.iter().skip(story.process + 1).filter(|a| a.looked.is_some()) {
            let live =
                arrival.found.get(&at).and_then(|s| State::ALL.get(*s as usize)).is_some_and(|s| {
                    matches!(s, State::Submitted | State::Processing | State::Copying | State::Completed)
                });
            if !live {
                break;
            }
            seen = true;
            if arrival.settled && story.leftover.is_none() {
                self.fault(Some(asked), "b", "a successor found it, settled everything, and did not report it");
                return;
            }
        }
        if !seen && story.submitted && story.cancel_asked.is_none() {
            self.fault(Some(asked), "b", "it was submitted, and its successor did not find it");
        }
    }

    /// Whether, and by when, a request did what it asked for.
    fn ran(&self, story: &Story) -> Ran {
        if let Some(got) = story.got {
            return if got.code == 0 { Ran::By(got.time) } else { Ran::Maybe };
        }
        if let Some(left) = story.leftover {
            return match (left.code >> 16, left.code & 0xFFFF) {
                (fate::COMPLETED, 0) => Ran::By(left.time),
                (fate::COMPLETED, _) => Ran::Maybe,
                _ => Ran::Never,
            };
        }
        let at = (story.asked.slot, story.asked.generation);
        let next = self.arrivals.iter().skip(story.process + 1).find(|a| a.looked.is_some());
        let states: HashSet<u32> =
            [State::Submitted, State::Processing, State::Copying, State::Completed].map(|s| s as u32).into();
        match next.map(|a| a.found.get(&at).is_some_and(|s| states.contains(s))) {
            // Killed before it was submitted.
            Some(false) if !story.submitted => Ran::Never,
            _ => Ran::Maybe,
        }
    }
}
