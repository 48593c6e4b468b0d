//! A communicator over three page servers, of which one has stopped ingesting; each backend a process.
#![cfg(feature = "grpc")]

mod support;

use shmuring::lsn::shards::Sharding;
use shmuring::request::RelTag;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use support::{kill, page, pages, shmuring, soon, Site, REL};

/// The relation of the tests.
const TAG: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
const SHARDS: Sharding = Sharding { count: 3, stripe: 2 };
const BLOCKS: u32 = 24;

/// A page server; killed when dropped.
struct PageServer {
    child: Child,
    address: String,
    log: PathBuf,
    settings: PathBuf,
}

impl PageServer {
    fn start(site: &Site, number: u16) -> Self {
        let path = |what: &str| site.path(&format!("pages-{number}.{what}"));
        let (log, settings) = (path("log"), path("settings"));
        std::fs::write(&settings, "").unwrap();
        let mut command = shmuring();
        command.args(["page-server", "--listen", "127.0.0.1:0", "--store"]).arg(path("store"));
        command.arg("--shard").arg(format!("{number}/{}", SHARDS.count)).arg("--settings").arg(&settings);
        command.arg("--stripe").arg(SHARDS.stripe.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.trim().is_empty(), "{}", std::fs::read_to_string(&log).unwrap());
        Self { child, address: line.trim().into(), log, settings }
    }

    /// Changes the settings, and waits until they hold.
    fn set(&self, text: &str) {
        let said = || std::fs::read_to_string(&self.log).unwrap().matches("settings").count();
        let before = said();
        std::fs::write(&self.settings, text).unwrap();
        kill(self.child.id(), libc::SIGHUP);
        assert!(soon(|| said() > before));
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A backend process that reads a block, not modified since `lsn`.
fn reader(site: &Site, block: u32, lsn: u32, out: &str) -> Child {
    let mut command = shmuring();
    command.arg("read").arg("--region").arg(site.region()).args(["--rel", REL, "--timeout", "60000"]);
    command.args(["--block", &block.to_string(), "--lsn", &lsn.to_string(), "--out"]).arg(site.path(out));
    command.stdin(Stdio::null()).spawn().unwrap()
}

#[test]
fn reads_of_what_has_not_changed_go_on_at_every_shard_while_one_of_them_ingests_nothing() {
    let site = Site::new();
    let servers: Vec<_> = (0..SHARDS.count).map(|n| PageServer::start(&site, n)).collect();
    let addresses: Vec<_> = servers.iter().map(|s| format!("http://{}", s.address)).collect();
    let service =
        format!("grpc:{}?tenant={:032x}&timeline={:032x}&stripe={}", addresses.join(","), 1, 1, SHARDS.stripe);
    let mut serve = site.serve_with(&service, &["--cache-memory", "0", "--prefetch-buffer", "0"]);
    site.write(0, &pages(0..BLOCKS, 1), &["--create", "--extend", "--lsn", "100"]).good();
    let shard = |block: &u32| SHARDS.block(TAG, *block);
    assert!((0..3).all(|s| (0..BLOCKS).any(|b| shard(&b) == s)), "every shard has some");
    // Not that of the sizes.
    let hot = (0..BLOCKS).find(|b| shard(b) != 0).unwrap();
    let held = &servers[usize::from(shard(&hot))];
    held.set("ingest_stall = on\n");
    // Acknowledged at once, and not seen.
    site.write(hot, &page(hot, 2), &["--lsn", "200"]).good();
    let mut waiting: Vec<_> = (0..2).map(|i| reader(&site, hot, 200, &format!("hot-{i}"))).collect();
    // Four at a time, each a process: were they to wait for what was stopped, they would for ever.
    std::thread::scope(|scope| {
        for of_four in 0..4 {
            let site = &site;
            scope.spawn(move || {
                for block in (of_four..BLOCKS).step_by(4) {
                    let found = site.read(block, 1, &["--lsn", "100", "--timeout", "60000"]);
                    assert!(found == page(block, 1), "block {block}");
                }
            });
        }
    });
    for child in &mut waiting {
        assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    }
    held.set("");
    for (i, child) in waiting.iter_mut().enumerate() {
        assert!(child.wait().unwrap().success());
        assert!(std::fs::read(site.path(&format!("hot-{i}"))).unwrap() == page(hot, 2));
    }
    serve.drain();
    for mut server in servers {
        kill(server.child.id(), libc::SIGTERM);
        assert!(soon(|| server.child.try_wait().unwrap().is_some()));
        assert_eq!(server.child.wait().unwrap().code(), Some(0));
    }
}
