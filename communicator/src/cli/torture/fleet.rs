//! The processes of a run: who is started, killed, stopped and replaced.

use super::super::child::{self, Communicator};
use super::super::region::attach;
use super::super::{pool, stat, Failure};
use super::buffers::POOL_PER_SLOT;
use super::checker::{Past, Summary};
use super::log::Writer;
use super::plan::{Blow, Schedule};
use super::watchdog::{lock, Heart, Living};
use super::{checker, mix, sweep, watchdog, Args};
use crate::service::PAGE_SIZE;
use shmuring::backend::Wait;
use shmuring::communicator::ServerLife;
use shmuring::region::Region;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Number of the communicator in the log of signals.
pub(super) const COMMUNICATOR: u32 = u32::MAX;
/// Slots of the parent itself, behind those of the backends.
pub(super) const OWN_SLOTS: u32 = 8;
/// How long a child may take for what it was told.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing may move at all.
const HANG: Duration = Duration::from_secs(180);

/// One range of slots, and the process that owns it now.
struct Post {
    index: u32,
    child: Child,
    incarnation: u32,
    killed: bool,
    done: bool,
    stopped_until: Option<Instant>,
}

/// Everything that a run has, and where.
pub(super) struct Fleet {
    temporary: Option<tempfile::TempDir>,
    dir: PathBuf,
    paths: Paths,
    region: &'static Region,
    communicator: Communicator,
    communicator_killed: bool,
    communicator_stopped_until: Option<Instant>,
    posts: Vec<Post>,
    schedule: Schedule,
    signals: Writer,
    heart: Heart,
    living: Living,
    args: Sizes,
    killed: (u32, u32),
    _life: ServerLife,
    interrupted: Arc<AtomicBool>,
}

#[derive(Clone, Copy)]
struct Sizes {
    backends: u32,
    depth: u32,
    patience: u32,
    seed: u64,
}

/// Files in shared memory; removed when this is dropped.
struct Paths {
    region: PathBuf,
    pool: PathBuf,
}

impl Drop for Paths {
    fn drop(&mut self) {
        let _ = Region::unlink(&self.region);
        let _ = std::fs::remove_file(&self.pool);
    }
}

impl Fleet {
    /// Starts a communicator on an empty store, and makes the relations.
    pub(super) fn start(args: &Args, seed: u64) -> Result<Self, Failure> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, interrupted.clone())?;
        }
        let temporary = match &args.dir {
            None => Some(tempfile::Builder::new().prefix("shmuring-torture-").tempdir()?),
            Some(dir) => std::fs::create_dir_all(dir).map(|()| None)?,
        };
        let dir = temporary.as_ref().map_or_else(|| args.dir.clone().unwrap_or_default(), |t| t.path().to_path_buf());
        if std::fs::read_dir(&dir)?.next().is_some() {
            return Err(format!("{}: not empty", dir.display()).into());
        }
        let name = format!("/dev/shm/shmuring-torture-{}", std::process::id());
        let paths = Paths { region: name.clone().into(), pool: format!("{name}-pool").into() };
        let slots = args.backends * args.depth + OWN_SLOTS;
        let pool = std::fs::File::create(&paths.pool)?;
        pool.set_len(u64::from(slots * POOL_PER_SLOT) * PAGE_SIZE as u64)?;
        let communicator =
            Communicator::start(&paths.region, &dir.join("communicator.log"), serve(&dir, &paths, slots))?;
        let mut this = Starting { communicator, paths };
        this.communicator.wait_for_role()?;
        let mut region = attach(&this.paths.region)?;
        pool::register(&mut region, &this.paths.pool)?;
        let region: &'static Region = Box::leak(Box::new(region));
        let life = ServerLife::begin(region, u64::from(std::process::id()))?;
        life.settle(region, &Wait::for_ms(10_000))?;
        sweep::seed(region, args.backends)?;
        let (heart, living) = (Heart::default(), Living::default());
        let known = living.clone();
        heart.watch(HANG, move || watchdog::give_up(region, &known));
        lock(&living).push(this.communicator.pid());
        let signals = Writer::open(&dir.join("signals"), 0)?;
        Ok(Self {
            temporary,
            signals,
            dir,
            paths: this.paths,
            region,
            communicator: this.communicator,
            communicator_killed: false,
            communicator_stopped_until: None,
            posts: Vec::new(),
            schedule: Schedule::new(seed, args.backends, args.rate, args.kills, args.communicator_kills),
            heart,
            living,
            args: Sizes { backends: args.backends, depth: args.depth, patience: args.patience, seed },
            killed: (0, 0),
            _life: life,
            interrupted,
        })
    }

    /// What is still to be done.
    pub(super) fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// Backends and communicators killed so far.
    pub(super) fn killed(&self) -> (u32, u32) {
        self.killed
    }

    /// The state of every slot, and the counters.
    pub(super) fn picture(&self) -> String {
        stat::everything(self.region)
    }

    /// Leaves the directory where it is.
    pub(super) fn keep(&mut self) -> PathBuf {
        self.temporary.take().map_or_else(|| self.dir.clone(), tempfile::TempDir::keep)
    }

    fn round_dir(&self, number: u32) -> PathBuf {
        self.dir.join(format!("round-{number}"))
    }

    /// So many kills, then the end of all backends.
    pub(super) fn round(&mut self, number: u32, kills: u32) -> Result<(), Failure> {
        let logs = self.round_dir(number);
        std::fs::create_dir_all(&logs)?;
        self.signals = Writer::open(&logs.join("signals"), 0)?;
        if number > 1 {
            self.communicator.restart()?;
            lock(&self.living).push(self.communicator.pid());
        }
        self.communicator.wait_for_role()?;
        for index in 0..self.args.backends {
            let child = self.spawn(index, 0, &logs)?;
            self.posts.push(Post { index, child, incarnation: 0, killed: false, done: false, stopped_until: None });
        }
        let mut due = Instant::now();
        let end = self.killed.0 + kills;
        while self.killed.0 < end {
            let Some(event) = self.schedule.next() else { break };
            due += event.after;
            self.until(&logs, "the next blow", |_| Instant::now() >= due)?;
            // One that had to be waited for does not make the next ones come in a burst.
            due = due.max(Instant::now() - Duration::from_millis(100));
            self.strike(event.blow, &logs)?;
        }
        self.end_backends(&logs)
    }

    /// Tends everybody until it is so.
    fn until(&mut self, logs: &Path, what: &str, mut f: impl FnMut(&mut Self) -> bool) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.tend(logs)?;
            if f(self) {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("hangs: waited {PATIENCE:?} for {what}").into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn strike(&mut self, blow: Blow, logs: &Path) -> Result<(), Failure> {
        match blow {
            Blow::KillBackend(post) => {
                let i = post as usize;
                self.until(logs, "a backend to come up again", |f| !f.posts[i].killed)?;
                self.posts[i].killed = true;
                self.killed.0 += 1;
                self.signal(post, libc::SIGKILL)
            }
            Blow::KillCommunicator => {
                self.until(logs, "a communicator to come up again", |f| !f.communicator_killed)?;
                // One that is killed before it serves has nothing to lose: let most come to serve.
                let region = self.region;
                self.until(logs, "a communicator to take the role", |_| region.liveness().role_held())?;
                self.communicator_killed = true;
                self.killed.1 += 1;
                self.signal(COMMUNICATOR, libc::SIGKILL)
            }
            Blow::StopBackend(post, time) => {
                let post = &mut self.posts[post as usize];
                if post.killed || post.stopped_until.is_some() {
                    return Ok(());
                }
                post.stopped_until = Some(Instant::now() + time);
                let index = post.index;
                self.signal(index, libc::SIGSTOP)
            }
            Blow::StopCommunicator(time) => {
                if self.communicator_killed || self.communicator_stopped_until.is_some() {
                    return Ok(());
                }
                self.communicator_stopped_until = Some(Instant::now() + time);
                self.signal(COMMUNICATOR, libc::SIGSTOP)
            }
        }
    }

    /// Written down before a process is stopped and after it goes on, so that the time between covers the stop.
    fn signal(&mut self, whom: u32, signal: i32) -> Result<(), Failure> {
        let post = self.posts.get(whom as usize);
        let incarnation = post.map_or(self.communicator.restarts(), |p| p.incarnation);
        if signal == libc::SIGSTOP {
            self.signals.put_signal(whom, incarnation, signal)?;
        }
        match self.posts.get(whom as usize) {
            Some(post) => child::signal(&post.child, signal),
            None => self.communicator.signal(signal),
        }
        if signal != libc::SIGSTOP {
            self.signals.put_signal(whom, incarnation, signal)?;
        }
        Ok(())
    }

    /// Continues who was stopped for long enough, and replaces who was killed; everybody else must live.
    fn tend(&mut self, logs: &Path) -> Result<(), Failure> {
        self.heart.beat();
        if self.interrupted.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        let now = Instant::now();
        for i in 0..self.posts.len() {
            if self.posts[i].stopped_until.is_some_and(|t| t <= now) && !self.posts[i].killed {
                self.posts[i].stopped_until = None;
                self.signal(i as u32, libc::SIGCONT)?;
            }
            self.tend_post(i, logs)?;
        }
        if self.communicator_stopped_until.is_some_and(|t| t <= now) && !self.communicator_killed {
            self.communicator_stopped_until = None;
            self.signal(COMMUNICATOR, libc::SIGCONT)?;
        }
        let mut living = lock(&self.living);
        let old = self.communicator.pid();
        if let Some(status) = self.communicator.watch()? {
            living.retain(|pid| *pid != old);
            living.push(self.communicator.pid());
            if !std::mem::replace(&mut self.communicator_killed, false) {
                let said = child::last_line(&self.dir.join("communicator.log"));
                return Err(format!("a communicator ended with {status}: {said}").into());
            }
            self.communicator_stopped_until = None;
        }
        Ok(())
    }

    fn tend_post(&mut self, i: usize, logs: &Path) -> Result<(), Failure> {
        let post = &mut self.posts[i];
        if post.done {
            return Ok(());
        }
        let ended = {
            let mut living = lock(&self.living);
            let ended = post.child.try_wait()?;
            if ended.is_some() {
                living.retain(|pid| *pid != post.child.id());
            }
            ended
        };
        let Some(status) = ended else { return Ok(()) };
        if post.killed && status.signal() == Some(libc::SIGKILL) {
            let incarnation = post.incarnation + 1;
            let child = self.spawn(i as u32, incarnation, logs)?;
            let index = i as u32;
            self.posts[i] = Post { index, child, incarnation, killed: false, done: false, stopped_until: None };
        } else if status.success() {
            post.done = true;
        } else {
            let said = child::last_line(&self.dir.join("backends.log"));
            return Err(format!("backend {i} ended with {status}: {said}").into());
        }
        Ok(())
    }

    fn spawn(&self, post: u32, incarnation: u32, logs: &Path) -> Result<Child, Failure> {
        let mut command = child::command(&self.dir.join("backends.log"))?;
        command.arg("torture-backend").arg("--region").arg(&self.paths.region).arg("--pool").arg(&self.paths.pool);
        command.arg("--log").arg(logs.join(format!("backend-{post}")));
        let numbers = [
            ("--post", u64::from(post)),
            ("--posts", self.args.backends.into()),
            ("--incarnation", incarnation.into()),
            ("--depth", self.args.depth.into()),
            ("--patience", self.args.patience.into()),
            ("--seed", self.args.seed),
        ];
        for (name, value) in numbers {
            command.arg(name).arg(value.to_string());
        }
        let child = command.spawn()?;
        lock(&self.living).push(child.id());
        Ok(child)
    }

    /// Everybody ends: what is out is answered first.
    fn end_backends(&mut self, logs: &Path) -> Result<(), Failure> {
        self.until(logs, "those killed to be replaced", |f| {
            !f.communicator_killed
                && f.communicator_stopped_until.is_none()
                && f.posts.iter().all(|p| !p.killed && p.stopped_until.is_none())
        })?;
        for i in 0..self.args.backends {
            self.until_it_handles_signals(i, logs)?;
            self.signal(i, libc::SIGTERM)?;
        }
        self.until(logs, "the backends to end", |f| f.posts.iter().all(|p| p.done))?;
        self.posts.clear();
        Ok(())
    }

    /// A backend that was just started dies of SIGTERM: wait until its log is longer than it found it.
    fn until_it_handles_signals(&mut self, post: u32, logs: &Path) -> Result<(), Failure> {
        let log = logs.join(format!("backend-{post}"));
        let incarnation = self.posts[post as usize].incarnation;
        self.until(logs, "a backend to start", |_| super::log::last(&log).is_some_and(|r| r.incarnation == incarnation))
    }

    /// Sweeps everything through the ring, ends the communicator, reads the store itself, and holds it all against the
    /// logs. They are removed if nothing is wrong.
    pub(super) fn prove(&mut self, number: u32, past: &Past) -> Result<(Summary, Past), Failure> {
        let logs = self.round_dir(number);
        let relations = sweep::Relations { backends: self.args.backends };
        self.heart.beat();
        let unread = checker::Round::load(&logs, past)?.unread();
        self.heart.beat();
        sweep::through_the_ring(self.region, &logs, relations, unread)?;
        self.heart.beat();
        // It is waited for from here on, by who may not be killed by number any more.
        lock(&self.living).clear();
        let status = self.communicator.stop(|| Ok(()))?;
        if !status.success() {
            return Err(format!("the communicator did not drain: {status}").into());
        }
        self.heart.beat();
        let acknowledged = checker::Round::load(&logs, past)?.acknowledged();
        sweep::straight_from_the_store(&self.dir.join("store"), &logs, relations, &acknowledged)?;
        self.heart.beat();
        let (summary, after) = checker::Round::load(&logs, past)?.judge()?;
        self.heart.beat();
        if self.temporary.is_some() {
            std::fs::remove_dir_all(&logs)?;
        }
        Ok((summary, after))
    }
}

/// What must go if a start fails half way: first the process, then the files.
struct Starting {
    communicator: Communicator,
    paths: Paths,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _living = lock(&self.living);
        for post in &mut self.posts {
            let _ = post.child.kill();
            let _ = post.child.wait();
        }
    }
}

fn serve(dir: &Path, paths: &Paths, slots: u32) -> Vec<std::ffi::OsString> {
    let store = format!("store:{}", dir.join("store").display());
    let fixed = [
        ("--slots", slots.to_string()),
        ("--bounce", mix::MAX_VECTOR.to_string()),
        ("--service", store),
        // A successor is to come up fast, and every version is to be there when the round ends.
        ("--memtable", "8".into()),
        ("--forget-every", "0".into()),
    ];
    let args = fixed.into_iter().flat_map(|(name, value)| [name.into(), value.into()]);
    args.chain(["--pool".into(), paths.pool.clone().into()]).collect()
}
