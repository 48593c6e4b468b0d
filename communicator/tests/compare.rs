//! `debug_compare_local` on a real cluster: nothing is reported where nothing is wrong, and what is wrong is found.

mod cluster;
mod support;

use cluster::{largest_file, Cluster};
use shmuring::backend::{Backend, Wait};
use shmuring::region::Region;
use shmuring::request::{Completion, RelTag, Request};
use shmuring_communicator::service::datadir::list_relations;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use support::{soon, Serve, Site, PAGE};

/// A communicator on a copy of a cluster, with the cluster beside it.
struct Bench<'r> {
    site: &'r Site,
    serve: Serve,
    backend: Backend<'r>,
    rel: RelTag,
    /// The file of the relation that is served, and of the local copy.
    served: File,
    local: File,
    settings: PathBuf,
}

fn open(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn block_of(file: &File, block: u32) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    file.read_exact_at(&mut page, u64::from(block) * PAGE as u64).unwrap();
    page
}

fn put(file: &File, block: u32, page: &[u8]) {
    file.write_all_at(page, u64::from(block) * PAGE as u64).unwrap();
}

fn lsn(page: &[u8]) -> u64 {
    let half = |at: usize| u64::from(u32::from_le_bytes(page[at..at + 4].try_into().unwrap()));
    half(0) << 32 | half(4)
}

impl Bench<'_> {
    fn counter(&self, name: &str) -> u64 {
        self.site.stat()["role"][name].as_u64().unwrap()
    }

    fn set(&self, mode: &str, is_error: bool) {
        let said = self.serve.log().matches("settings file=").count();
        let error = if is_error { "on" } else { "off" };
        let text = format!("debug_compare_local = {mode}\ndebug_compare_local_error = {error}\n");
        std::fs::write(&self.settings, text).unwrap();
        self.serve.signal(libc::SIGHUP);
        assert!(soon(|| self.serve.log().matches("settings file=").count() > said), "{}", self.serve.log());
    }

    fn call(&mut self, request: &Request<'_>, to: &mut [u8]) -> Completion {
        self.backend.call(request, &Wait::for_ms(30_000), to).unwrap()
    }

    fn read(&mut self, block: u32) -> i32 {
        let mut page = vec![0; PAGE];
        self.call(&Request::get_page(self.rel, block, 1, 0), &mut page).errno.into()
    }

    /// Reads a block; how many differences that reported, and how many comparisons.
    fn differences(&mut self, block: u32) -> (u64, u64) {
        let before = (self.counter("differed"), self.counter("compared"));
        assert_eq!(self.read(block), 0);
        (self.counter("differed") - before.0, self.counter("compared") - before.1)
    }

    /// Reads everything; how many pages there were.
    fn read_all(&mut self, data: &Path) -> u64 {
        let mut pages = 0;
        let mut to = vec![0; 32 * PAGE];
        for (rel, blocks) in list_relations(data).unwrap() {
            for block in (0..blocks).step_by(32) {
                let count = (blocks - block).min(32);
                let done = self.call(&Request::get_page(rel, block, count as u8, 0), &mut to[..count as usize * PAGE]);
                assert_eq!(done.errno, 0, "{rel:?} block {block}");
                pages += u64::from(count);
            }
        }
        pages
    }

    /// What is changed in a served block is found, and named in the log.
    fn is_found(&mut self, block: u32, page: &[u8], what: &str) {
        let was = block_of(&self.served, block);
        put(&self.served, block, page);
        assert_eq!(self.differences(block), (1, 1), "{what}");
        let RelTag { spc_oid, db_oid, rel_number, fork } = self.rel;
        let key = format!("{spc_oid}/{db_oid}/{rel_number}.{fork} block {block} from");
        let log = self.serve.log();
        let line = log.lines().find(|l| l.contains(&key)).unwrap_or_else(|| panic!("{what}: no {key} in {log}"));
        for word in ["a page differs", " at offset ", "page LSN ", "local LSN "] {
            assert!(line.contains(word), "{what}: no '{word}' in {line}");
        }
        put(&self.served, block, &was);
        assert_eq!(self.differences(block), (0, 1), "{what}: put right again");
    }

    /// What is changed in a served block is no difference.
    fn is_masked(&mut self, block: u32, page: &[u8], what: &str) {
        let was = block_of(&self.served, block);
        assert!(was != page, "{what}");
        put(&self.served, block, page);
        assert_eq!(self.differences(block), (0, 1), "{what}");
        put(&self.served, block, &was);
    }
}

/// Where the first tuple of a heap page begins.
fn first_tuple(page: &[u8]) -> usize {
    let lines = page[24..1024].chunks_exact(4).map(|l| u32::from_le_bytes(l.try_into().unwrap()));
    let is_normal = |line: &u32| line >> 15 & 3 == 1;
    (lines.into_iter().find(is_normal).unwrap() & 0x7FFF) as usize
}

fn changed(page: &[u8], at: usize, xor: u8) -> Vec<u8> {
    let mut page = page.to_vec();
    page[at] ^= xor;
    page
}

#[test]
fn what_differs_from_the_local_copy_is_found_and_nothing_else() {
    let checksums: &[&str] = if is_on_by_default() { &["--no-data-checksums"] } else { &[] };
    let cluster = Cluster::make(checksums);
    cluster.fill();
    let old = cluster.copy("old");
    cluster.running(|| cluster.client("pgbench", &["-c", "2", "-t", "1000"]));
    let (data, served) = (cluster.data(), cluster.copy("served"));
    let file = largest_file(&data.join("base"));
    let inside = file.strip_prefix(&data).unwrap();
    let numbers: Vec<u32> = inside.iter().filter_map(|p| p.to_str()?.parse().ok()).collect();
    let rel = RelTag { spc_oid: 1663, db_oid: numbers[0], rel_number: numbers[1], fork: 0 };

    let site = Site::new();
    let settings = site.path("settings");
    let start = |mode: &str| {
        std::fs::write(&settings, format!("debug_compare_local = {mode}")).unwrap();
        let (local, settings) = (data.display().to_string(), settings.display().to_string());
        let compare = ["--compare-local", &local, "--settings", &settings];
        let caches = ["--cache-memory", "64", "--prefetch-buffer", "4", "--bounce", "32"];
        site.serve_with(&format!("datadir:{}", served.display()), &[&compare[..], &caches[..]].concat())
    };
    let serve = start("all");
    let region = Region::attach(&site.region()).unwrap();
    let backend = Backend::attach(&region, 0, 8).unwrap();
    let (served_file, local) = (open(&served.join(inside)), open(&file));
    let mut b = Bench { site: &site, serve, backend, rel, served: served_file, local, settings: settings.clone() };

    // Nothing is wrong, and nothing is reported.
    let pages = b.read_all(&data);
    let compared = b.counter("compared");
    assert!(pages > 2000 && compared > pages * 9 / 10, "{compared} of {pages} pages compared");
    assert_eq!(b.counter("differed"), 0, "{}", b.serve.log());

    all(&mut b, &open(&old.join(inside)));
    b.serve.drain();
    // With caches that are empty.
    b.serve = start("none");
    caches(&mut b);
    errors_and_nothing(&mut b);
}

/// Everything the page service says is compared.
fn all(b: &mut Bench<'_>, old: &File) {
    let page = block_of(&b.served, 5);
    let tuple = first_tuple(&page);
    b.is_found(5, &changed(&page, tuple + 40, 0x01), "a flipped bit in a tuple");
    b.is_found(5, &changed(&page, tuple + 2, 0x80), "another xmin");
    b.is_found(6, &page.clone(), "the page of another block");
    b.is_found(7, &vec![0; PAGE], "a zeroed page");
    let changed_since = |n: &u32| lsn(&block_of(old, *n)) < lsn(&block_of(&b.served, *n));
    let block = (0..500).find(changed_since).expect("pgbench changed some block");
    b.is_found(block, &block_of(old, block), "an old version");

    // What a hint, a checksum or leftover bytes are, differs from server to server.
    b.is_masked(5, &changed(&page, tuple + 21, 0x08), "a hint bit");
    b.is_masked(5, &changed(&page, 8, 0xFF), "a checksum");
    b.is_masked(5, &changed(&page, 20, 0xFF), "the oldest prunable transaction");
    let page = block_of(&b.served, 6);
    let [lower, upper] = [12, 14].map(|at| usize::from(u16::from_le_bytes([page[at], page[at + 1]])));
    assert!(lower < upper, "block 6 has unused space");
    b.is_masked(6, &changed(&page, lower, 0xFF), "unused space");

    // The local copy may be ahead.
    let was = block_of(&b.local, 9);
    let mut ahead = changed(&was, first_tuple(&was) + 40, 0x01);
    assert_eq!(b.differences(9), (0, 1));
    put(&b.local, 9, &ahead);
    assert_eq!(b.differences(9), (1, 1));
    ahead[..8].fill(0x7F);
    put(&b.local, 9, &ahead);
    assert_eq!(b.differences(9), (0, 0), "a local page that is newer than the answer");
    put(&b.local, 9, &was);
}

/// What is found in the prefetch buffer, and in either cache.
fn caches(b: &mut Bench<'_>) {
    let (cached, prefetched) = (20, 21);
    assert_eq!(b.differences(cached), (0, 0), "nothing is compared; and now it is in the page cache");
    assert_eq!(b.call(&Request::prefetch(b.rel, prefetched, 1, 0), &mut []).errno, 0);
    for block in [cached, prefetched] {
        let was = block_of(&b.local, block);
        put(&b.local, block, &changed(&was, first_tuple(&was) + 40, 0x01));
    }
    b.set("prefetch", false);
    assert_eq!(b.differences(cached), (0, 0), "what is in the page cache is not compared");
    assert_eq!((b.counter("cache_hits"), b.counter("prefetch_hits")), (1, 0));
    assert_eq!(b.differences(prefetched), (1, 1), "what is in the prefetch buffer is");
    assert_eq!(b.differences(prefetched), (0, 0), "which it has left for the page cache");
    assert_eq!(b.differences(22), (0, 0), "what is in neither is not");
    assert_eq!((b.counter("cache_hits"), b.counter("prefetch_hits")), (2, 1));
    assert!(b.serve.log().contains("from the prefetch buffer"), "{}", b.serve.log());
    b.set("lfc", false);
    assert_eq!(b.differences(cached), (1, 1), "what is in the page cache is compared now");
    assert_eq!(b.differences(prefetched), (1, 1));
    assert!(b.serve.log().contains("from the page cache"), "{}", b.serve.log());
    assert_eq!(b.differences(22), (0, 1), "it was read before, and does not differ");
}

/// Differences as errors; and settings that are none.
fn errors_and_nothing(b: &mut Bench<'_>) {
    b.set("lfc", true);
    assert_eq!(b.read(20), libc::EUCLEAN, "a difference is an error now");
    b.set("all", true);
    assert_eq!(b.read(20), libc::EUCLEAN);
    assert_eq!(b.read(0), 0);
    std::fs::write(&b.settings, "debug_compare_local = nonsense").unwrap();
    b.serve.signal(libc::SIGHUP);
    assert!(soon(|| b.serve.log().contains("the settings stay as they are")), "{}", b.serve.log());
    assert_eq!(b.read(20), libc::EUCLEAN, "as before");
    b.set("none", true);
    assert_eq!(b.differences(20), (0, 0));
}

/// Whether initdb of the newest version turns checksums on by itself.
fn is_on_by_default() -> bool {
    std::fs::read_dir("/usr/lib/postgresql").is_ok_and(|mut d| d.any(|e| e.is_ok_and(|e| e.file_name() == "18")))
}
