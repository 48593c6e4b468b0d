//! The communicator as a process under faults of its store: damage, a second user, kill -9, a full disk.

mod support;

use support::{page, pages, pause, soon, Site};

#[test]
fn a_damaged_store_is_refused_by_name_and_left_alone() {
    let site = Site::new();
    let mut serve = site.serve(&[]);
    site.write(0, &pages(0..8, 1), &["--create", "--extend", "--sync"]).good();
    serve.drain();
    let store = site.path("store");
    let marker = store.join("SHMURING_STORE");
    let good = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, good.replace("format 1", "format 9")).unwrap();
    let path = store.display().to_string();
    site.refused(&site.store()).failed(&[&path, "format"]);
    std::fs::write(&marker, "").unwrap();
    site.refused(&site.store()).failed(&[&path, "errno 117"]);
    std::fs::write(&marker, &good).unwrap();
    let lists = find(&store, "current");
    assert!(!lists.is_empty());
    for list in lists {
        support::flip(&list, 9);
        site.refused(&site.store()).failed(&[&path, "damaged", "errno 117"]);
        support::flip(&list, 9);
    }
    // The refusals changed nothing.
    let mut serve = site.serve(&[]);
    site.check(0..8, 1);
    serve.drain();
}

fn find(dir: &std::path::Path, name: &str) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|p| p.is_dir());
    let here = files.into_iter().filter(|p| p.ends_with(name));
    here.chain(dirs.iter().flat_map(|d| find(d, name))).collect()
}

#[test]
fn what_is_no_store_is_refused_by_name() {
    let site = Site::new();
    let foreign = site.path("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("letter.txt"), "hello").unwrap();
    let service = |p: &std::path::Path| format!("store:{}", p.display());
    site.refused(&service(&foreign)).failed(&[&foreign.display().to_string(), "errno 39"]);
    site.refused(&service(&foreign.join("letter.txt"))).failed(&["letter.txt"]);
    site.refused("datadir:/no/such/directory").failed(&["/no/such/directory", "errno 2"]);
    site.refused(&format!("datadir:{}", foreign.display())).failed(&[&foreign.display().to_string()]);
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1);
}

#[test]
fn a_store_in_use_by_another_process_is_refused() {
    let (first, second) = (Site::new(), Site::new());
    let mut serve = first.serve(&[]);
    let store = first.path("store").display().to_string();
    let pid = format!("pid {}", serve.pid());
    second.refused(&first.store()).failed_as(5, &[&store, "in use by another process", &pid]);
    // A stopped process still uses it.
    serve.stop();
    second.refused(&first.store()).failed_as(5, &["in use by another process"]);
    serve.kill_9();
    second.serve_with(&first.store(), &[]).drain();
}

#[test]
fn a_store_outlives_its_region_as_it_must_over_a_reboot() {
    let site = Site::new();
    for round in 0..3 {
        // Each round a higher epoch in the region, which then is gone, as /dev/shm is after a reboot.
        let mut serve = site.serve(&[]);
        site.write(round, &page(round, 1), if round == 0 { &["--create", "--extend"] } else { &["--extend"] }).good();
        for _ in 0..=(2 - round) {
            serve.kill_9();
            serve = site.serve(&[]);
        }
        serve.drain();
        std::fs::remove_file(site.region()).unwrap();
    }
    let mut serve = site.serve(&[]);
    assert_eq!(site.stat()["communicator"]["epoch"], 1);
    site.check(0..3, 1);
    serve.drain();
}

#[test]
fn every_write_is_answered_and_kept_through_kill_9_of_communicators() {
    let site = Site::new();
    let mut serve = site.serve(&[]);
    site.write(0, &page(0, 1), &["--create", "--extend"]).good();
    let done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::SeqCst;
    let blocks = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut next = 1;
            while !done.load(order) {
                // A dead communicator's successor answers: no write fails, none is applied twice in a way that shows.
                site.write(next, &page(next, 1), &["--extend", "--timeout", "30000"]).good();
                next += 1;
            }
            next
        });
        for round in 0..10u64 {
            pause(20 + 13 * (round * 7 % 10));
            serve.kill_9();
            serve = site.serve(&[]);
        }
        done.store(true, order);
        writer.join().unwrap()
    });
    assert!(blocks > 10, "{blocks} blocks");
    assert_eq!(site.run("relsize", &["--rel", support::REL]).good(), format!("{blocks}\n"));
    site.check(0..blocks, 1);
    // Each was acknowledged, so each survives the last one's death as well.
    serve.kill_9();
    serve = site.serve(&[]);
    site.check(0..blocks, 1);
    assert_eq!(site.stat()["communicator"]["epoch"], 12);
    serve.drain();
}

/// `serve` over a file system of 48 MiB that only it sees, at `small`.
fn serve_on_a_small_disk(site: &Site) -> support::Serve {
    let small = site.path("small");
    let command = support::shmuring_on_a_small_disk(&small);
    let service = format!("store:{}", small.join("store").display());
    let mut serve = site.spawn(command, &service, &[]);
    let up = soon(|| serve.log().contains("serving") || !serve.is_running());
    assert!(up && serve.is_running(), "needs root, or user namespaces, to mount a tmpfs: {}", serve.log());
    serve
}

#[test]
fn a_full_disk_fails_writes_by_name_and_is_left_behind_when_space_is_freed() {
    let site = Site::new();
    let mut serve = serve_on_a_small_disk(&site);
    // The file system as the communicator sees it.
    let small = support::as_seen_by(serve.pid(), &site.path("small"));
    let ballast = small.join("ballast");
    std::fs::write(&ballast, vec![1; 16 << 20]).unwrap();
    site.write(0, &page(0, 1), &["--create", "--extend"]).good();
    let mut next = 1;
    let mut refusals = 0;
    while refusals < 3 {
        assert!(next < 48 * 128, "{next} pages of 8 KiB went onto 48 MiB");
        let said = site.write(next, &pages(next..next + 16, 1), &["--extend"]);
        if said.code == Some(0) {
            next += 16;
            continue;
        }
        // Perhaps some of the 16 were still written: those were answered one by one.
        said.failed_as(6, &["extend", "No space left on device", "errno 28"]);
        next = site.run("relsize", &["--rel", support::REL]).good().trim().parse().unwrap();
        refusals += 1;
        assert!(serve.is_running(), "{}", serve.log());
        site.check(0..next, 1);
    }
    std::fs::remove_file(&ballast).unwrap();
    // The store opens its engine anew, at most once a second.
    let again = soon(|| {
        pause(100);
        site.write(next, &page(next, 1), &["--extend"]).code == Some(0)
    });
    assert!(again, "{}", serve.log());
    next += 1;
    site.write(next, &pages(next..next + 16, 1), &["--extend", "--sync"]).good();
    site.check(0..next + 16, 1);
    assert!(serve.log().contains("no space left"), "the log says why: {}", serve.log());
    serve.drain();
}
