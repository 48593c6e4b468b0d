//! The processes of a demo: a communicator that is restarted when it dies, and backends that get successors when they do.

use super::super::child::{self, Communicator};
use super::super::region::attach;
use super::super::Failure;
use super::ledger::Ledger;
use super::page_servers::PageServers;
use super::report::Report;
use super::tally::Tally;
use super::{pages, Args, BOUNCE};
use serde_json::Value;
use shmuring::backend::{Backend, Wait};
use shmuring::communicator::ServerLife;
use shmuring::region::Region;
use shmuring::stats::{OwnerCounter, RoleCounter};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Everything a demo has running, and where.
pub(super) struct Fleet {
    /// Keeps the temporary directory; `None` for one that the user named.
    _temporary: Option<tempfile::TempDir>,
    dir: PathBuf,
    region_path: PathBuf,
    /// Lives as long as the process, so that threads may use it.
    region: &'static Region,
    service: String,
    slots: u32,
    /// Behind the communicator, so they go after it.
    communicator: Communicator,
    page_servers: Option<PageServers>,
    /// The demo is the server: it holds the life of the region.
    _life: ServerLife,
    interrupted: Arc<AtomicBool>,
}

/// One backend and its successors.
struct Post {
    index: u32,
    child: Child,
    attempt: u32,
    done: bool,
}

impl Fleet {
    /// Starts the communicator, begins a server life, and makes what all backends read.
    pub(super) fn start(args: &Args) -> Result<Self, Failure> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, interrupted.clone())?;
        }
        let temporary = match &args.dir {
            None => Some(tempfile::Builder::new().prefix("shmuring-demo-").tempdir()?),
            Some(dir) => std::fs::create_dir_all(dir).map(|()| None)?,
        };
        let dir = temporary.as_ref().map_or_else(|| args.dir.clone().unwrap_or_default(), |t| t.path().to_path_buf());
        let region_path = PathBuf::from(format!("/dev/shm/shmuring-demo-{}", std::process::id()));
        let (page_servers, service) = service(args, &dir)?;
        // A few slots more for the demo itself.
        let slots = args.backends * args.depth + 8;
        let serve = serve_args(slots, &service, page_servers.is_some());
        let mut communicator = Communicator::start(&region_path, &dir.join("communicator.log"), serve)?;
        let ready = communicator.wait_for_role().and_then(|()| attach(&region_path)).and_then(|region| {
            ServerLife::begin(&region, u64::from(std::process::id())).map(|l| (region, l)).map_err(Failure::from)
        });
        let (region, life) = match ready {
            Ok(ready) => ready,
            Err(e) => {
                drop(communicator);
                let _ = Region::unlink(&region_path);
                return Err(e);
            }
        };
        let region: &'static Region = Box::leak(Box::new(region));
        let mut fleet = Self {
            _temporary: temporary,
            dir,
            region_path,
            region,
            service,
            slots,
            communicator,
            page_servers,
            _life: life,
            interrupted,
        };
        fleet._life.settle(fleet.region, &Wait::for_ms(10_000))?;
        if args.pgdata.is_none() {
            // What an earlier demo wrote in this directory is in nobody's table.
            let wal = Ledger::shared(&fleet.dir)?.wal().load(Ordering::SeqCst);
            fleet.region.parts().last_written().note_all(wal);
            fleet.seed()?;
        }
        Ok(fleet)
    }

    /// Makes what all backends read, through the demo's own few slots behind those of the backends, while communicator and
    /// page servers are watched as at any other time.
    fn seed(&mut self) -> Result<(), Failure> {
        let (region, first) = (self.region, self.slots - 8);
        let seeding = std::thread::spawn(move || pages::seed(&mut Backend::attach(region, first, 8)?));
        while !seeding.is_finished() {
            self.watch_communicator()?;
            self.watch_page_servers()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        seeding.join().map_err(|_| "the seeding thread panicked")?
    }

    /// Runs the backends to their end.
    pub(super) fn run(&mut self, args: &Args) -> Result<Report, Failure> {
        let begin = Instant::now();
        let until = begin + Duration::from_secs(args.seconds);
        let before = self.counters();
        let mut killed = 0;
        let mut posts = Vec::new();
        for index in 0..args.backends {
            let child = self.spawn_backend(args, index, 0, until)?;
            posts.push(Post { index, child, attempt: 0, done: false });
        }
        let mut progress = Progress::new(begin);
        let mut failed = Vec::new();
        while posts.iter().any(|p| !p.done) {
            if self.interrupted.load(Ordering::Relaxed) {
                posts.iter_mut().for_each(|p| drop(p.child.kill()));
                return Err("interrupted".into());
            }
            self.watch_communicator()?;
            self.watch_page_servers()?;
            if let Some(servers) = &mut self.page_servers {
                servers.take_turns(&self.dir)?;
            }
            for post in posts.iter_mut().filter(|p| !p.done) {
                let Some(status) = post.child.try_wait()? else { continue };
                if status.signal() == Some(libc::SIGKILL) {
                    // A successor takes the slots over, settles what is left, and goes on.
                    killed += 1;
                    post.attempt += 1;
                    post.child = self.spawn_backend(args, post.index, post.attempt, until)?;
                } else {
                    post.done = true;
                    if !status.success() {
                        let said = child::last_line(&self.dir.join("backends.log"));
                        failed.push(format!("backend {} ended with {status}: {said}", post.index));
                    }
                }
            }
            std::thread::sleep(Duration::from_millis(20));
            progress.show(self.counters().finished);
        }
        let elapsed = begin.elapsed();
        let mut tally = self.collect(&posts);
        failed.into_iter().for_each(|why| tally.error(why));
        let counters = self.counters().since(&before);
        self.stop_communicator(&mut tally)?;
        if let Some(servers) = &mut self.page_servers {
            servers.stop()?.into_iter().for_each(|why| tally.error(why));
        }
        Ok(Report {
            tally,
            counters,
            elapsed,
            backends: args.backends,
            depth: args.depth,
            service: self.service.clone(),
            backends_killed: killed,
            communicator_restarts: self.communicator.restarts(),
            page_server_restarts: self.page_servers.as_ref().map_or(0, PageServers::restarts),
            held_back_ms: args.hold_back,
        })
    }

    fn spawn_backend(&self, args: &Args, index: u32, attempt: u32, until: Instant) -> Result<Child, Failure> {
        let left = until.saturating_duration_since(Instant::now());
        let mut command = child::command(&self.dir.join("backends.log"))?;
        command.arg("demo-backend").arg("--region").arg(&self.region_path).arg("--dir").arg(&self.dir);
        if let Some(root) = &args.pgdata {
            command.arg("--pgdata").arg(root);
        }
        for (name, value) in [("--index", index), ("--backends", args.backends), ("--depth", args.depth)] {
            command.arg(name).arg(value.to_string());
        }
        command.arg("--milliseconds").arg(left.as_millis().to_string());
        command.arg("--tally").arg(self.tally_path(index, attempt));
        Ok(command.spawn()?)
    }

    fn tally_path(&self, index: u32, attempt: u32) -> PathBuf {
        self.dir.join(format!("tally-{index}-{attempt}.json"))
    }

    /// Adds up what the backends wrote; one that was killed wrote only if something was amiss.
    fn collect(&self, posts: &[Post]) -> Tally {
        let mut tally = Tally::default();
        for post in posts {
            for attempt in 0..=post.attempt {
                let path = self.tally_path(post.index, attempt);
                let parsed = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
                match parsed {
                    Some(v) => tally.add_json(&v),
                    None if attempt == post.attempt => tally.error(format!("backend {} wrote no tally", post.index)),
                    None => {}
                }
            }
        }
        tally
    }

    /// Restarts a communicator that died.
    fn watch_communicator(&mut self) -> Result<(), Failure> {
        if let Some(status) = self.communicator.watch()? {
            eprintln!("the communicator ended with {status}: started another");
        }
        Ok(())
    }

    /// Restarts page servers that died.
    fn watch_page_servers(&mut self) -> Result<(), Failure> {
        self.page_servers.as_mut().map_or(Ok(()), PageServers::watch)
    }

    /// SIGTERM, and it must drain and exit 0. Its last sync needs the page servers, so they are watched to its end.
    fn stop_communicator(&mut self, tally: &mut Tally) -> Result<(), Failure> {
        self.watch_communicator()?;
        let servers = &mut self.page_servers;
        let status = self.communicator.stop(|| servers.as_mut().map_or(Ok(()), PageServers::watch))?;
        if !status.success() {
            tally.error(format!("the communicator did not drain: {status}"));
        }
        Ok(())
    }

    fn counters(&self) -> Counters {
        let parts = self.region.parts();
        let owners = |c| parts.owner_stats.iter().map(|o| o.get(c)).sum();
        let role = |c| parts.role_stats.get(c);
        Counters {
            finished: owners(OwnerCounter::Finished),
            doorbell_rings: owners(OwnerCounter::DoorbellRings),
            futex_waits: owners(OwnerCounter::FutexWaits),
            parks: role(RoleCounter::Parks),
            wakes: role(RoleCounter::Wakes),
            lost_hints: role(RoleCounter::LostHints),
            stepped_over: role(RoleCounter::SteppedOver),
            take_overs: role(RoleCounter::TakeOvers),
            reclaimed: role(RoleCounter::Reclaimed),
        }
    }
}

/// Where the pages are to be, and the servers that have them, if there are to be some.
fn service(args: &Args, dir: &Path) -> Result<(Option<PageServers>, String), Failure> {
    let start = |n| PageServers::start(dir, n, args.hold_back);
    let page_servers = args.page_servers.map(start).transpose()?;
    let service = match (&page_servers, &args.pgdata) {
        (Some(servers), _) => servers.service(),
        (None, Some(root)) => format!("datadir:{}", root.display()),
        (None, None) => format!("store:{}", dir.join("store").display()),
    };
    Ok((page_servers, service))
}

/// Arguments of `serve`. With page servers without caches, so that reads of what was just written get to them.
fn serve_args(slots: u32, service: &str, with_page_servers: bool) -> Vec<OsString> {
    let (slots, bounce) = (slots.to_string(), BOUNCE.to_string());
    let mut serve = vec!["--slots", &slots, "--bounce", &bounce, "--service", service];
    if with_page_servers {
        serve.extend(["--cache-memory", "0", "--prefetch-buffer", "0"]);
    }
    serve.into_iter().map(Into::into).collect()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = Region::unlink(&self.region_path);
    }
}

/// Counters of the region that the report shows.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counters {
    pub(super) finished: u64,
    pub(super) doorbell_rings: u64,
    pub(super) futex_waits: u64,
    pub(super) parks: u64,
    pub(super) wakes: u64,
    pub(super) lost_hints: u64,
    pub(super) stepped_over: u64,
    pub(super) take_overs: u64,
    pub(super) reclaimed: u64,
}

impl Counters {
    fn since(&self, before: &Self) -> Self {
        Self {
            finished: self.finished - before.finished,
            doorbell_rings: self.doorbell_rings - before.doorbell_rings,
            futex_waits: self.futex_waits - before.futex_waits,
            parks: self.parks - before.parks,
            wakes: self.wakes - before.wakes,
            ..*self
        }
    }
}

/// A line each second while it runs.
struct Progress {
    begin: Instant,
    shown: Instant,
    last: u64,
}

impl Progress {
    fn new(begin: Instant) -> Self {
        Self { begin, shown: begin, last: 0 }
    }

    fn show(&mut self, finished: u64) {
        let passed = self.shown.elapsed();
        if passed >= Duration::from_secs(1) {
            let rate = (finished.saturating_sub(self.last)) as f64 / passed.as_secs_f64();
            eprintln!("{:>4} s  {finished:>10} requests  {rate:>9.0} requests/s", self.begin.elapsed().as_secs());
            self.shown = Instant::now();
            self.last = finished;
        }
    }
}
