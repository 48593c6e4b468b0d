//! Mistakes of whoever runs the communicator: each is refused by name before anything is lost.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use support::{page, run, Site, REL};

#[test]
fn a_store_is_its_owners_alone() {
    let site = Site::new();
    let store = site.path("store");
    let mode = || std::fs::metadata(&store).unwrap().permissions().mode() & 0o777;
    // An empty directory that others may enter, as mkdir makes it.
    std::fs::create_dir(&store).unwrap();
    std::fs::set_permissions(&store, PermissionsExt::from_mode(0o755)).unwrap();
    site.serve(&[]).drain();
    assert_eq!(mode(), 0o700);
    std::fs::set_permissions(&store, PermissionsExt::from_mode(0o750)).unwrap();
    site.refused(&site.store()).failed(&["open to other users", "mode 750", "chmod 700"]);
    std::fs::set_permissions(&store, PermissionsExt::from_mode(0o700)).unwrap();
    site.serve(&[]).drain();
}

#[test]
fn a_take_over_makes_no_store_at_a_mistyped_path() {
    let site = Site::new();
    site.serve(&[]).kill_9();
    let wrong = site.path("stroe");
    site.refused(&format!("store:{}", wrong.display())).failed(&["no such store", "was served before"]);
    assert!(!wrong.exists());
    site.serve(&[]).drain();
}

#[test]
fn a_serve_that_fails_leaves_no_region_that_it_made() {
    let site = Site::new();
    site.refused("datadir:/no/such/directory").failed(&["/no/such/directory"]);
    assert!(!site.region().exists());
    // One that was there stays.
    site.serve(&[]).drain();
    site.refused("datadir:/no/such/directory").failed(&["/no/such/directory"]);
    assert!(site.region().exists());
}

#[test]
fn an_lsn_past_any_wal_is_refused_and_history_stays() {
    let site = Site::new();
    let mut serve = site.serve(&["--forget-every", "1", "--history", "1"]);
    site.write(0, &page(0, 1), &["--create", "--extend", "--lsn", "0/64"]).good();
    let last = site.write(0, &page(0, 2), &["--lsn", "FFFFFFFF/FFFFFFFF"]);
    last.failed_as(6, &["Invalid argument", "errno 22"]);
    support::pause(2500);
    assert_eq!(site.read(0, 1, &["--at", "0/64"]), page(0, 1));
    serve.drain();
}

#[test]
fn the_last_block_of_a_relation_can_be_written_and_read() {
    let site = Site::new();
    let mut serve = site.serve(&[]);
    let last = u32::MAX - 1;
    site.write(last, &page(last, 1), &["--create", "--extend"]).good();
    assert_eq!(site.run("relsize", &["--rel", REL]).good(), format!("{}\n", u32::MAX));
    site.write(last, &page(last, 2), &[]).good();
    assert_eq!(site.read(last, 1, &[]), page(last, 2));
    serve.drain();
}

#[test]
fn a_region_is_not_taken_for_a_pool() {
    let (site, other) = (Site::new(), Site::new());
    other.serve(&[]).drain();
    let (region, service, pool) = (site.region(), site.store(), other.region());
    let args = ["serve", "--region", region.to_str().unwrap(), "--service", &service, "--pool", pool.to_str().unwrap()];
    run(&args).failed(&["a region is no pool"]);
}

#[test]
fn a_write_that_times_out_says_whether_it_may_still_be_done() {
    let site = Site::new();
    let serve = site.serve(&[]);
    site.write(0, &page(0, 1), &["--create", "--extend"]).good();
    serve.stop();
    // Nobody has claimed it, so it is withdrawn.
    site.write(0, &page(0, 2), &["--timeout", "200"]).failed_as(3, &["no answer within 200 ms", "it was not done"]);
    serve.signal(libc::SIGCONT);
    assert_eq!(site.read(0, 1, &[]), page(0, 1));
}

#[test]
fn bounds_of_a_gathering_are_refused_by_name() {
    for (option, value) in [("--gather", "65"), ("--gather-us", "1000001"), ("--threads", "0")] {
        let said = run(&["serve", "--region", "/dev/shm/none", "--service", "store:/none", option, value]);
        assert_eq!(said.code, Some(2));
        assert!(said.err.contains(option) && said.err.contains(value), "{}", said.err);
    }
}

#[test]
fn a_settings_file_that_is_none_stops_neither_the_settings_nor_the_signals() {
    let site = Site::new();
    let settings = site.path("settings");
    std::fs::write(&settings, "# nothing\n").unwrap();
    let mut serve = site.serve(&["--settings", &settings.display().to_string()]);
    let fifo = |path: &std::path::Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    let huge = |path: &std::path::Path| std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
    let garbage = |path: &std::path::Path| std::fs::write(path, [0xFF; 100]).unwrap();
    let makes: [&dyn Fn(&std::path::Path); 4] = [&fifo, &|path| std::fs::create_dir(path).unwrap(), &huge, &garbage];
    for (n, make) in (1..).zip(makes) {
        let _ = std::fs::remove_file(&settings);
        let _ = std::fs::remove_dir(&settings);
        make(&settings);
        serve.signal(libc::SIGHUP);
        let refused = || serve.log().matches("the settings stay as they are").count() == n;
        assert!(support::soon(refused), "{n}: {}", serve.log());
    }
    site.write(0, &page(0, 1), &["--create", "--extend"]).good();
    // At the start it is refused.
    serve.drain();
    let said = site.run("serve", &["--service", &site.store(), "--settings", &settings.display().to_string()]);
    said.failed(&["settings"]);
}
