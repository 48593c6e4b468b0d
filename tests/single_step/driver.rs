//! Runs cases: for each instruction of an operation a victim that is killed there, and the recovery after it.
//!
//! The test starts one driver, a process with a single thread, which forks the victims: they all begin alike, and no
//! other test's descriptors are theirs. The test itself watches.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use shmuring::layout::SET;
use shmuring::region::{Options, Region};

use crate::recovery::{self, Left};
use crate::requests::Kind;
use crate::servers;
use crate::support::process::{shared, Board, Child, Site, OWN};
use crate::trace::{ways, Trace, Way};
use crate::tracee::{hear_of_children, Marks, Tracee, CAN_RUN};
use crate::world::{Fault, World, SLOTS};

/// Moves with every kill.
const HEART: usize = OWN + 3;
/// Number of the case, and of the instruction, that is under way.
const CASE: usize = OWN + 4;
const INSTRUCTION: usize = OWN + 5;
/// First of the figures of each case.
const FIGURES: usize = OWN + 650;
/// How long nothing may move. The longest way to an instruction takes less than a second.
const HANG: Duration = Duration::from_secs(60);
/// A system call that takes longer sleeps.
const ASLEEP: Duration = Duration::from_micros(400);
/// More often no operation sleeps: it waits for what does not come.
const MOST_SLEEPS: usize = 10;
/// How often a run may go another way (as when a sleeper that was woken sleeps again meanwhile, and a compare-exchange
/// meets its waiter bit) before its victim is stepped all the way, wherever that leads.
const RETRIES: u32 = 2;
/// Bytes of the text that a driver leaves.
const TEXT: usize = 1 << 16;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Backend,
    Communicator,
    Server,
}

/// An operation, and what it meets.
pub struct Case {
    pub name: &'static str,
    pub side: Side,
    /// What the victim asks for, from its first slot on.
    pub kinds: &'static [Kind],
    /// Before the victim is there.
    pub prepare: fn(&mut World<'_>),
    /// The victim: gets ready, and does the operation between its marks.
    pub victim: fn(&Region, &Marks),
    /// When it stands at its first mark.
    pub stage: fn(&mut World<'_>),
    /// Asked before each instruction, with the number of those executed, until it has done something.
    pub hook: Option<fn(&mut World<'_>, usize) -> bool>,
    /// Whether rounds of a loop are left out, all but the first and the last few: it polls as "wait whose time is up" does, or
    /// fills memory of its own.
    pub few_rounds: bool,
    /// When it is found asleep for the first time: what is to wake it.
    pub asleep: Option<fn(&mut World<'_>)>,
    /// What the living must find beside the dead, before anything is repaired.
    pub beside: Check,
    /// What they must find when everything is.
    pub at_last: Check,
}

/// What is wrong, if anything.
pub type Check = fn(&mut World<'_>) -> Result<(), String>;

/// What a case came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub instructions: u32,
    pub kills: u32,
    /// Kills inside of system calls that slept.
    pub asleep: u32,
    /// Kills whose victim had to be stepped all the way.
    pub stepped: u32,
    /// Kills whose victim went another way even then: it died, but at another instruction.
    pub elsewhere: u32,
}

/// Words of the board for each case.
const WORDS: usize = 5;

/// How a victim came to where it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Landing {
    Run,
    Stepped,
    Elsewhere,
}

impl Figures {
    fn put(self, board: Board, case: usize) {
        let all: [u32; WORDS] = [self.instructions, self.kills, self.asleep, self.stepped, self.elsewhere];
        all.iter().enumerate().for_each(|(i, n)| board.set(FIGURES + case * WORDS + i, *n));
    }

    fn get(board: Board, case: usize) -> Self {
        let [instructions, kills, asleep, stepped, elsewhere] =
            std::array::from_fn(|i| board.get(FIGURES + case * WORDS + i));
        Self { instructions, kills, asleep, stepped, elsewhere }
    }
}

/// Kills a victim at every instruction of every case, and prints how many there were. What is wrong, if anything.
pub fn kill_everywhere(name: &str, cases: &'static [Case], fault: Fault) -> Result<(), String> {
    assert!(FIGURES + cases.len() * WORDS <= 1024);
    // Of the tables so little that whatever comes in must push something out.
    let site = Site::with(name, &Options { written_buckets: 1, rel_sizes: SET as u32, ..Options::new(SLOTS) });
    let board = site.board;
    let text = shared(TEXT) as usize;
    let begin = Instant::now();
    let mut driver = site.child(|_, _| {
        if let Err(why) = all(&site, cases, fault) {
            leave(text, &why);
        }
    });
    watch(&mut driver, &site, cases)?;
    match found(text) {
        Some(why) => return Err(why),
        None if fault != Fault::None => return Ok(()),
        None => {}
    }
    let mut sum = Figures::default();
    for (i, case) in cases.iter().enumerate() {
        let f = Figures::get(board, i);
        println!("{:<66} {:>6} instructions, {:>6} kills, {:>2} asleep", case.name, f.instructions, f.kills, f.asleep);
        sum.instructions += f.instructions;
        sum.kills += f.kills;
        sum.stepped += f.stepped;
        sum.elsewhere += f.elsewhere;
    }
    println!(
        "{name}: {} instructions, {} kills ({} stepped from the mark, {} elsewhere), {:.1?}",
        sum.instructions,
        sum.kills,
        sum.stepped,
        sum.elsewhere,
        begin.elapsed()
    );
    Ok(())
}

/// Waits for the driver; without a sign of life it is ended, and the state of every slot told.
fn watch(driver: &mut Child, site: &Site, cases: &[Case]) -> Result<(), String> {
    let board = site.board;
    let where_it_is = || {
        let name = cases.get(board.get(CASE) as usize).map_or("?", |c| c.name);
        format!("{name}, instruction {}:{}", board.get(INSTRUCTION), recovery::picture(&site.region.parts()))
    };
    let (mut last, mut since) = (board.get(HEART), Instant::now());
    loop {
        if let Some(status) = driver.poll(libc::WNOHANG) {
            let good = libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0;
            return good.then_some(()).ok_or_else(|| format!("driver ended with {status:#x} in {}", where_it_is()));
        }
        if board.get(HEART) != last {
            (last, since) = (board.get(HEART), Instant::now());
        } else if since.elapsed() > HANG {
            let what = format!("nothing moves in {}", where_it_is());
            driver.kill();
            return Err(what);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn leave(text: usize, why: &str) {
    let why = &why.as_bytes()[..why.len().min(TEXT - 1)];
    // SAFETY: as many bytes as are mapped there; the test reads them when this process has ended.
    unsafe { std::ptr::copy_nonoverlapping(why.as_ptr(), text as *mut u8, why.len()) };
}

fn found(text: usize) -> Option<String> {
    // SAFETY: mapped for good, and zeros where nothing was written; the writer has ended.
    let bytes = unsafe { std::slice::from_raw_parts(text as *const u8, TEXT) };
    let end = bytes.iter().position(|b| *b == 0)?;
    (end > 0).then(|| String::from_utf8_lossy(&bytes[..end]).into_owned())
}

/// The driver.
fn all(site: &Site, cases: &[Case], fault: Fault) -> Result<(), String> {
    let board = site.board;
    hear_of_children();
    let mut world = World::new(site, fault);
    for (number, case) in cases.iter().enumerate() {
        board.set(CASE, number as u32);
        let figures = every_instruction(&mut world, case).map_err(|e| {
            let picture = recovery::picture(world.parts);
            format!("{}, killed at instruction {}: {e}{picture}", case.name, board.get(INSTRUCTION))
        })?;
        figures.put(board, number);
    }
    Ok(())
}

fn every_instruction(w: &mut World<'_>, case: &Case) -> Result<Figures, String> {
    let trace = follow(w, case)?;
    let mut killing = Killing::at_any(&trace, case);
    let mut figures = Figures { instructions: (trace.at.len() - trace.go) as u32, kills: 1, ..Figures::default() };
    let skipped = if case.few_rounds { trace.middle_rounds() } else { HashSet::new() };
    let between = (trace.go..trace.at.len()).filter(|k| !skipped.contains(k)).map(|k| (k, false));
    let inside = trace.asleep.iter().map(|k| (*k, true));
    for (k, is_inside) in between.chain(inside) {
        w.board.set(INSTRUCTION, (k - trace.go) as u32);
        let landing = killing.kill(w, k, is_inside)?;
        figures.kills += 1;
        figures.asleep += u32::from(is_inside && landing != Landing::Elsewhere);
        figures.stepped += u32::from(landing == Landing::Stepped);
        figures.elsewhere += u32::from(landing == Landing::Elsewhere);
    }
    Ok(figures)
}

/// Steps a victim through the whole operation; it is killed at its end.
fn follow(w: &mut World<'_>, case: &Case) -> Result<Trace, String> {
    let mut t = begin(w, case)?;
    let mut trace = Trace::default();
    let mut go = None;
    while !t.is_over() {
        let k = trace.at.len();
        trace.at.push(t.at()?);
        if t.has_begun() {
            let go = *go.get_or_insert(k);
            w.board.set(INSTRUCTION, (k - go) as u32);
            if trace.acted.is_none() && case.hook.is_some_and(|hook| hook(w, k - go)) {
                trace.acted = Some(k);
            }
        }
        if !t.step_within(ASLEEP)? {
            trace.asleep.extend(go.map(|_| k));
            if trace.asleep.len() > MOST_SLEEPS {
                return Err("it sleeps again and again".into());
            }
            if let (Some(act), None) = (case.asleep, trace.acted) {
                act(w);
                (trace.acted, trace.in_its_sleep) = (Some(k), true);
            }
            t.stopped()?;
        }
        w.board.add(HEART);
    }
    trace.go = go.ok_or("the operation has not one instruction")?;
    end(w, case, t, false)?;
    Ok(trace)
}

/// Kills at the instructions of a case.
struct Killing<'c> {
    case: &'c Case,
    trace: &'c Trace,
    /// The ways to each from the mark.
    ways: Vec<Way>,
    /// And from where others had acted.
    later: Vec<Way>,
    /// Whether the living go on first next time.
    turn: bool,
}

impl<'c> Killing<'c> {
    fn at_any(trace: &'c Trace, case: &'c Case) -> Self {
        let ways_from = |from| ways(&trace.at, from, CAN_RUN);
        Self { case, trace, ways: ways_from(0), later: trace.resumed().map(ways_from).unwrap_or_default(), turn: false }
    }

    /// Kills a victim that has executed the instructions before `k`; or, `inside` of it, one that sleeps in it.
    fn kill(&mut self, w: &mut World<'_>, k: usize, inside: bool) -> Result<Landing, String> {
        self.turn = !self.turn;
        for retry in 0..=RETRIES {
            let stepped = retry == RETRIES;
            let mut t = begin(w, self.case)?;
            self.lead(&mut t, w, k, stepped)?;
            let mut is_there = !t.is_over() && t.at()? == self.trace.at[k];
            if is_there && inside {
                is_there = !t.step_within(ASLEEP)?;
            }
            end(w, self.case, t, self.turn)?;
            if is_there {
                return Ok(if stepped { Landing::Stepped } else { Landing::Run });
            }
        }
        Ok(Landing::Elsewhere)
    }

    /// Leads a victim to instruction `k`.
    fn lead(&self, t: &mut Tracee, w: &mut World<'_>, k: usize, stepped: bool) -> Result<(), String> {
        let (case, trace) = (self.case, self.trace);
        let way = |ways: &[Way], n: usize| if stepped { Way { run: None, steps: n } } else { ways[n] };
        let Some((acted, resumed)) = trace.acted.zip(trace.resumed()).filter(|(_, resumed)| *resumed <= k) else {
            return go(t, way(&self.ways, k)).map(drop);
        };
        if !go(t, way(&self.ways, acted))? {
            return Ok(());
        }
        if trace.in_its_sleep {
            let is_asleep = !t.step_within(ASLEEP)?;
            case.asleep.iter().for_each(|act| act(w));
            if is_asleep {
                t.stopped()?;
            }
        } else {
            case.hook.map(|hook| hook(w, acted - trace.go));
        }
        go(t, way(&self.later, k - resumed)).map(drop)
    }
}

/// Prepares, and starts a victim, which stands at its first mark.
fn begin(w: &mut World<'_>, case: &Case) -> Result<Tracee, String> {
    w.board.add(HEART);
    w.number_victims();
    (case.prepare)(w);
    let t = Tracee::start(w.site, w.base, case.victim)?;
    (case.stage)(w);
    Ok(t)
}

/// Leads a victim on. False: it went another way, and where to is unknown.
fn go(t: &mut Tracee, way: Way) -> Result<bool, String> {
    if let Some((address, hits)) = way.run {
        if !t.run_to(address, hits)? {
            return Ok(false);
        }
    }
    for _ in 0..way.steps {
        if t.is_over() {
            return Ok(false);
        }
        t.step()?;
    }
    Ok(!t.is_over())
}

/// Kills the victim, and lets the others recover.
fn end(w: &mut World<'_>, case: &Case, t: Tracee, living_first: bool) -> Result<(), String> {
    t.kill()?;
    let left = Left { kinds: case.kinds, words: w.words(), living_first };
    (case.beside)(w)?;
    match case.side {
        Side::Backend => recovery::of_backend(w, &left),
        Side::Communicator => recovery::of_communicator(w, &left),
        Side::Server => servers::recover(w, &left),
    }?;
    (case.at_last)(w)
}
