//! The commands as a shell sees them: exit codes, messages, bytes.

mod support;

use shmuring::region::{Options, Region};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use support::{page, pages, run, Said, Site, PAGE, REL};

#[test]
fn serve_serves_until_it_is_told_to_stop_then_drains_and_exits_0() {
    let site = Site::new();
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let mut serve = site.serve(&[]);
        let mode = std::fs::metadata(site.region()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "others may not read the region");
        assert_eq!(site.stat()["communicator"]["pid"], serve.pid());
        serve.signal(signal);
        assert_eq!(serve.ended().code(), Some(0), "{}", serve.log());
        let log = serve.log();
        assert!(log.contains("draining") && log.contains("stopped") && log.contains("unanswered=0"), "{log}");
        assert_eq!(site.stat()["communicator"]["alive"], false);
    }
}

#[test]
fn a_second_serve_is_refused_and_names_the_first() {
    let site = Site::new();
    let mut first = site.serve(&[]);
    let other = format!("store:{}", site.path("other").display());
    for service in [site.store(), other] {
        let (path, pid) = (site.region().display().to_string(), format!("pid {}", first.pid()));
        site.refused(&service).failed_as(5, &[&path, &pid, "--replace"]);
    }
    assert!(first.is_running());
    site.write(0, &page(0, 1), &["--create", "--extend"]).good();
    first.drain();
}

#[test]
fn after_kill_9_a_new_serve_takes_over_with_a_higher_epoch() {
    let site = Site::new();
    let mut first = site.serve(&[]);
    site.write(0, &pages(0..3, 1), &["--create", "--extend"]).good();
    first.kill_9();
    let mut second = site.serve(&[]);
    let now = site.stat();
    assert_eq!((&now["communicator"]["epoch"], &now["communicator"]["alive"]), (&2.into(), &true.into()));
    site.check(0..3, 1);
    second.drain();
}

#[test]
fn replace_kills_the_holder_and_takes_over_even_if_it_is_stopped() {
    let site = Site::new();
    // Nobody to kill.
    let mut holder = site.serve(&["--replace"]);
    site.write(0, &pages(0..3, 1), &["--create", "--extend"]).good();
    for stopped in [false, true] {
        if stopped {
            holder.stop();
        }
        let next = site.serve(&["--replace"]);
        assert!(next.log().contains("killed the communicator") && next.log().contains(&holder.pid().to_string()));
        let status = holder.ended();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(libc::SIGKILL));
        assert_eq!(site.stat()["communicator"]["pid"], next.pid());
        site.check(0..3, 1);
        holder = next;
    }
    holder.drain();
}

#[test]
fn what_is_written_is_read_back_byte_for_byte() {
    let site = Site::new();
    let mut serve = site.serve(&[]);
    let size = || site.run("relsize", &["--rel", REL]).good();
    site.write(0, &pages(0..40, 1)[..32 * PAGE], &["--create", "--extend"]).good();
    site.write(32, &pages(32..40, 1), &["--extend", "--sync"]).good();
    assert_eq!(size(), "40\n");
    site.check(0..40, 1);
    // Some again, as one vector; what is around them stays.
    site.write(7, &pages(7..20, 2), &["--lsn", "500"]).good();
    site.check(0..7, 1);
    site.check(7..20, 2);
    site.check(20..40, 1);
    // As of an LSN before.
    assert!(site.read(7, 13, &["--at", "0/1F3"]) == pages(7..20, 1), "block 7 at LSN 499");
    assert!(site.read(7, 13, &["--at", "500"]) == pages(7..20, 2), "block 7 at LSN 500");
    // Other forks and relations are others.
    let fsm = format!("{REL}.fsm");
    assert_eq!(site.run("relsize", &["--rel", &fsm, "--allow-missing"]).good(), "missing\n");
    // A line a page, for people.
    let lines = site.run("read", &["--rel", REL, "--block", "7", "--count", "2"]).good();
    assert!(lines.starts_with("block 7: page LSN ") && lines.lines().count() == 2, "{lines}");
    serve.drain();
    // And all of it is there the next day.
    let mut serve = site.serve(&[]);
    assert_eq!(size(), "40\n");
    site.check(7..20, 2);
    serve.drain();
}

#[test]
fn what_cannot_be_done_is_a_sentence_with_its_reason() {
    let site = Site::new();
    let _serve = site.serve(&[]);
    let read = |rel: &str, block: &str| site.run("read", &["--rel", rel, "--block", block]);
    read("1663/5/1", "0").failed_as(6, &["1663/5/1.0", "no such relation", "errno 2"]);
    site.run("relsize", &["--rel", "1663/5/1"]).failed_as(6, &["no such relation"]);
    site.write(0, &page(0, 1), &[]).failed_as(6, &["no such relation"]);
    site.write(0, &pages(0..2, 1), &["--create", "--extend"]).good();
    read(REL, "2").failed_as(6, &["block 2", "past the end"]);
    read(REL, "4294967294").failed_as(6, &["past the end"]);
    site.run("read", &["--rel", REL, "--block", "4294967294", "--count", "2"]).failed(&["largest block number"]);
    site.run("read", &["--rel", REL, "--block", "1", "--count", "4"]).failed_as(6, &["block 2", "past the end"]);
    site.write(0, &page(0, 2), &["--create"]).failed_as(6, &["create", "errno 17"]);
    site.write(5, &page(5, 1), &[]).failed_as(6, &["past the end"]);
    site.write(0, &[7; 100], &[]).failed(&["100 bytes", "pages"]);
    site.write(0, &[], &[]).failed(&["0 bytes"]);
    site.run("write", &["--rel", REL, "--block", "0", "--in", "/no/such/file"]).failed(&["/no/such/file"]);
    site.check(0..2, 1);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let site = Site::new();
    let region = site.region().display().to_string();
    let wrong: [&[&str]; 9] = [
        &[],
        &["fly"],
        &["read", "--region", &region],
        &["read", "--region", &region, "--rel", "1/2", "--block", "0"],
        &["read", "--region", &region, "--rel", REL, "--block", "0", "--count", "33"],
        &["read", "--region", &region, "--rel", REL, "--block", "-1"],
        &["serve", "--region", &region, "--service", "floppy:A"],
        &["serve", "--region", &region, "--service", &site.store(), "--slots", "0"],
        &["demo", "--backends", "0"],
    ];
    for args in wrong {
        let said = run(args);
        assert_eq!(said.code, Some(2), "{args:?}: {said:?}");
        assert!(said.err.contains("Usage") || said.err.contains("error:"), "{args:?}: {said:?}");
    }
    assert!(!site.region().exists(), "wrong usage leaves nothing behind");
    for args in [&["--help"][..], &["--version"], &["serve", "--help"]] {
        assert!(!run(args).good().is_empty());
    }
}

/// Must have failed in time: not before `least` ms, and not long after.
fn took(begin: Instant, least: u64) {
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(least) && took < Duration::from_secs(15), "{took:?}");
}

#[test]
fn without_a_communicator_a_request_ends_at_its_timeout_and_says_why() {
    let site = Site::new();
    let mut serve = site.serve(&[]);
    site.write(0, &pages(0..2, 1), &["--create", "--extend"]).good();
    let read = || site.run("read", &["--rel", REL, "--block", "0", "--timeout", "400"]);
    serve.stop();
    let begin = Instant::now();
    read().failed_as(3, &["no answer within 400 ms", &format!("pid {}", serve.pid())]);
    took(begin, 400);
    serve.signal(libc::SIGCONT);
    site.check(0..2, 1);
    serve.kill_9();
    let begin = Instant::now();
    read().failed_as(4, &["no communicator serves", &site.region().display().to_string()]);
    took(begin, 0);
    // What was left behind is settled, and nobody is the worse for it.
    let mut serve = site.serve(&[]);
    site.check(0..2, 1);
    serve.drain();
    read().failed_as(4, &["no communicator serves"]);
}

#[test]
fn what_is_no_region_is_refused_by_name() {
    let site = Site::new();
    let read = || site.run("read", &["--rel", REL, "--block", "0"]);
    let each = |f: &dyn Fn(&Said)| {
        [read(), site.run("stat", &[]), site.run("relsize", &["--rel", REL])].iter().for_each(f);
    };
    let path = site.region().display().to_string();
    each(&|said| said.failed_as(4, &[&path, "no such region", "shmuring serve"]));
    // Random bytes: of no length is it taken for a region, and serve does not overwrite it.
    let noise = pages(0..64, 9);
    for len in [0, 1, 100, 4096, 8191, 65536, noise.len()] {
        std::fs::write(site.region(), &noise[..len]).unwrap();
        each(&|said| said.failed(&[&path]));
        let named = ["shorter", "not a shmuring region"];
        assert!(named.iter().any(|n| read().err.contains(n)), "{len} bytes: {:?}", read());
        site.refused(&site.store()).failed(&[&path]);
        assert!(std::fs::read(site.region()).unwrap() == noise[..len], "serve wrote to a foreign file");
    }
    // A region that was cut short.
    std::fs::remove_file(site.region()).unwrap();
    site.serve(&[]).drain();
    let len = std::fs::metadata(site.region()).unwrap().len();
    std::fs::File::options().write(true).open(site.region()).unwrap().set_len(len - 1).unwrap();
    each(&|said| said.failed(&[&path, "shorter"]));
    site.refused(&site.store()).failed(&[&path]);
    // A directory.
    std::fs::remove_file(site.region()).unwrap();
    std::fs::create_dir(site.region()).unwrap();
    each(&|said| said.failed(&[&path]));
    site.refused(&site.store()).failed(&[&path]);
}

#[test]
fn stat_shows_slots_the_communicator_and_the_oldest_request() {
    let site = Site::new();
    Region::create_named(&site.region(), &Options::new(64)).unwrap();
    assert!(site.run("stat", &[]).good().contains("none yet"));
    let mut serve = site.serve(&[]);
    site.write(0, &pages(0..3, 1), &["--create", "--extend"]).good();
    let now = site.stat();
    assert_eq!(now["slots"]["idle"], 64, "{now:#}");
    assert_eq!((&now["oldest"], &now["communicator"]["alive"]), (&serde_json::Value::Null, &true.into()));
    assert_eq!(now["owners"]["finished"], 4, "a create and 3 extends: {now:#}");
    assert!(site.run("stat", &[]).good().contains(&format!("pid {}", serve.pid())));
    // A read waits for a communicator that is stopped.
    serve.stop();
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| site.read(2, 1, &["--timeout", "30000"]));
        let seen = || site.stat()["oldest"].clone();
        assert!(support::soon(|| seen()["waited_for"] == true), "{:#}", site.stat());
        let first = seen();
        assert_eq!((&first["opcode"], &first["block"]), (&"get_page".into(), &2.into()), "{first:#}");
        assert_eq!(first["rel"], format!("{REL}.0"));
        assert_eq!(site.stat()["slots"]["submitted"], 1);
        assert!(support::soon(|| seen()["age_ms"].as_u64() > first["age_ms"].as_u64()));
        let each = site.run("stat", &["--slots"]).good();
        assert!(each.contains("submitted  epoch 0") && each.contains("slept on since"), "{each}");
        let text = site.run("stat", &[]).good();
        assert!(text.contains("get_page of 1663/5/16384.0 block 2") && text.contains("sleeps on it"), "{text}");
        assert!(text.contains("STOPPED by a signal") && site.stat()["communicator"]["alive"] == true, "{text}");
        serve.signal(libc::SIGCONT);
        assert!(reader.join().unwrap() == page(2, 1));
    });
    serve.kill_9();
    let text = site.run("stat", &[]).good();
    assert!(text.contains("GONE") && text.contains(&format!("pid {}", serve.pid())), "{text}");
    assert_eq!(site.stat()["communicator"]["alive"], false);
    // Stopped as it should be is not gone.
    site.serve(&[]).drain();
    let text = site.run("stat", &[]).good();
    assert!(text.contains("was stopped") && !text.contains("GONE"), "{text}");
}

#[test]
fn a_pool_must_be_a_file_of_whole_blocks() {
    let site = Site::new();
    let file = site.path("pool");
    let serve = |pool: &std::path::Path| {
        site.run("serve", &["--slots", "64", "--service", &site.store(), "--pool", &pool.display().to_string()])
    };
    serve(&file).failed(&["pool", "No such file"]);
    for wrong in [0, 1, PAGE as u64 + 1] {
        std::fs::File::create(&file).unwrap().set_len(wrong).unwrap();
        serve(&file).failed(&["no pool of 8192 byte blocks"]);
    }
}
