//! The whole path: backends, a communicator and page servers, each a process.

#[path = "../support/mod.rs"]
mod command;

use crate::support::{Fake, IDS};
use command::{page, pages, run, shmuring, soon, Serve, Site, REL};
use shmuring::lsn::shards::Sharding;
use shmuring::region::Region;
use shmuring::request::RelTag;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A page server; killed when dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Shard `number` of three, on a port that is free.
    fn start(site: &Site, number: usize) -> Self {
        Self::start_at(site, number, "127.0.0.1:0", &[])
    }

    fn start_at(site: &Site, number: usize, address: &str, args: &[&str]) -> Self {
        Self::of(shmuring(), site, number, address, args)
    }

    fn of(mut command: Command, site: &Site, number: usize, address: &str, args: &[&str]) -> Self {
        command.args(["page-server", "--listen", address, "--stripe", "4"]).args(args);
        command.args(["--shard", &format!("{number}/3"), "--store"]).arg(site.path(&format!("pages-{number}")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the page server does not serve");
        Self { child, url: format!("http://{}", line.trim()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_map(site: &Site, servers: &[Server]) {
    let mut text = format!("stripe = 4\n{}\n", IDS.replace('&', "\n"));
    for (i, server) in servers.iter().enumerate() {
        text += &format!("shard.{i} = {}\n", server.url);
    }
    std::fs::write(site.path("map"), text).unwrap();
}

fn serve(site: &Site) -> Serve {
    let service = format!("grpc:{}", site.path("map").display());
    // Every read is to reach the servers.
    site.serve_with(&service, &["--cache-memory", "0", "--prefetch-buffer", "0"])
}

#[test]
fn pages_survive_page_servers_that_die_and_move_and_communicators_that_die() {
    let site = Site::new();
    let mut servers: Vec<_> = (0..3).map(|i| Server::start(&site, i)).collect();
    write_map(&site, &servers);
    let mut communicator = serve(&site);
    site.write(0, &pages(0..24, 1), &["--create", "--extend"]).good();
    site.check(0..24, 1);
    assert!(site.run("relsize", &["--rel", REL]).good().contains("24"));
    site.run("read", &["--rel", REL, "--block", "24", "--out", "/dev/null"])
        .failed_as(6, &["block 24", "past the end"]);

    // A server dies, and comes back at another address.
    for moved in [1, 0] {
        drop(servers.remove(moved));
        servers.insert(moved, Server::start(&site, moved));
        write_map(&site, &servers);
        communicator.signal(libc::SIGHUP);
        let version = 2 + moved as u32;
        site.write(3, &pages(3..21, version), &[]).good();
        site.check(3..21, version);
        site.check(0..3, 1);
    }
    assert!(communicator.log().contains("the shard map has changed"), "{}", communicator.log());

    // A communicator dies; the next fences it at every server.
    communicator.kill_9();
    let mut next = serve(&site);
    assert_eq!(site.stat()["communicator"]["epoch"], 2);
    site.check(3..21, 2);
    site.write(24, &page(24, 1), &["--extend"]).good();
    site.check(24..25, 1);
    next.drain();
    assert!(soon(|| !next.is_running()));
}

/// The pages of the test: stripes of four blocks, three shards.
const TAG: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
const SHARDING: Sharding = Sharding { count: 3, stripe: 4 };

/// Blocks that lie on a shard.
fn on(shard: u16) -> impl Iterator<Item = u32> {
    (0..24).filter(move |b| SHARDING.block(TAG, *b) == shard)
}

#[test]
fn a_communicator_serves_the_other_shards_while_one_page_server_is_away() {
    let site = Site::new();
    // An address that refuses connections, and is nobody else's meanwhile: bound, and not listening.
    let held = tokio::net::TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = held.local_addr().unwrap().to_string();
    let mut servers: Vec<_> = (0..2).map(|i| Server::start(&site, i)).collect();
    servers.push(Server::start_at(&site, 2, &address, &[]));
    write_map(&site, &servers);
    let mut first = serve(&site);
    site.write(0, &pages(0..24, 1), &["--create", "--extend"]).good();
    first.kill_9();
    drop(servers.pop());

    // The next communicator starts without it, and names it.
    let mut next = serve(&site);
    assert_eq!(site.stat()["communicator"]["epoch"], 2);
    assert!(next.log().contains(&format!("http://{address} (shard 2 of 3)")), "{}", next.log());
    for shard in [0, 1] {
        let block = on(shard).next().unwrap();
        site.write(block, &page(block, 2), &[]).good();
        site.check(block..block + 1, 2);
        on(shard).skip(1).for_each(|b| site.check(b..b + 1, 1));
    }
    let away: Vec<_> = on(2).collect();
    let ask = |block: u32, out: &str| {
        let mut command = shmuring();
        command.arg("read").arg("--region").arg(site.region()).args(["--rel", REL, "--timeout", "60000"]);
        command.args(["--block", &block.to_string(), "--out"]).arg(site.path(out));
        command.stdin(Stdio::null()).spawn().unwrap()
    };
    let mut waiting = ask(away[1], "read");
    std::thread::scope(|scope| {
        let written = scope.spawn(|| site.write(away[0], &page(away[0], 2), &["--timeout", "60000"]));
        // It does not hold up what is for other shards.
        for block in on(1).skip(1).chain(on(0).skip(1)) {
            site.check(block..block + 1, 1);
            site.write(block, &page(block, 2), &[]).good();
        }
        assert!(waiting.try_wait().unwrap().is_none() && !written.is_finished(), "it did not wait");
        servers.push(Server::start_at(&site, 2, &address, &[]));
        written.join().unwrap().good();
    });
    assert!(waiting.wait().unwrap().success());
    assert!(std::fs::read(site.path("read")).unwrap() == page(away[1], 1));
    site.check(away[0]..away[0] + 1, 2);
    next.drain();
}

#[test]
fn a_shard_that_took_no_writes_takes_them_once_the_map_leads_to_a_server_that_does() {
    let site = Site::new();
    let mut servers: Vec<_> = (0..3).map(|i| Server::start(&site, i)).collect();
    let none = Fake::new(2);
    none.state.lock().unwrap().writes_unknown = true;
    let url = std::mem::replace(&mut servers[2].url, none.url());
    write_map(&site, &servers);
    let mut communicator = serve(&site);
    let create = || site.write(0, &pages(0..24, 1), &["--create", "--extend"]);
    create().failed_as(6, &["errno 30"]);
    // Nothing but this: no restart.
    servers[2].url = url;
    write_map(&site, &servers);
    communicator.signal(libc::SIGHUP);
    assert!(soon(|| create().code == Some(0)), "{}", communicator.log());
    site.check(0..24, 1);
    assert_eq!(site.stat()["communicator"]["epoch"], 1);
    communicator.drain();
}

#[test]
fn a_map_that_does_not_fit_the_servers_is_refused_by_name() {
    let site = Site::new();
    let servers: Vec<_> = (0..3).map(|i| Server::start(&site, i)).collect();
    let urls = |numbers: &[usize]| numbers.iter().map(|i| servers[*i].url.clone()).collect::<Vec<_>>().join(",");
    for (numbers, stripe, says) in [
        (&[0, 1, 2][..], 8, "of 3, stripes of 8 blocks, is not here: this is shard"),
        (&[0, 1], 4, "of 3, stripes of 4 blocks"),
        (&[0, 2, 1], 4, "this is shard"),
        (&[1], 4, "this is shard 1 of 3, stripes of 4 blocks"),
        (&[0], 4, "this is shard 0 of 3, stripes of 4 blocks"),
    ] {
        let refused = site.refused(&format!("grpc:{}?{IDS}&stripe={stripe}", urls(numbers)));
        refused.failed_as(6, &["the page service refused this communicator", says]);
        assert!(!site.region().exists(), "a region that nobody served is left behind");
    }
    serve_and_drain(&site, &format!("grpc:{}?{IDS}&stripe=4", urls(&[0, 1, 2])));
}

fn serve_and_drain(site: &Site, service: &str) {
    site.serve_with(service, &[]).drain();
}

#[test]
fn tokens_that_are_refused_are_the_last_word_and_new_ones_are_called_so() {
    let site = Site::new();
    let (theirs, ours) = (site.path("tokens"), site.path("token"));
    let token = |path: &std::path::Path, text: &str| {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    token(&theirs, "first\nsecond\n");
    let server = Server::start_at(&site, 0, "127.0.0.1:0", &["--token-file", theirs.to_str().unwrap()]);
    // One alone, of three: read-only calls would be let in.
    let spec = |more: &str| format!("grpc:{}?{IDS}{more}", server.url);
    site.refused(&spec("")).failed_as(6, &["a token is missing", &server.url]);
    token(&ours, "third");
    let file = format!("&token_file={}", ours.display());
    site.refused(&spec(&file)).failed_as(6, &["the token is not valid"]);
}

#[test]
fn a_token_that_changes_is_no_change_of_the_map() {
    let site = Site::new();
    let servers: Vec<_> = (0..3).map(|i| Server::start(&site, i)).collect();
    let token = site.path("token");
    std::fs::write(&token, "first").unwrap();
    let urls: Vec<_> = servers.iter().map(|s| s.url.clone()).collect();
    let mut serve =
        site.serve_with(&format!("grpc:{}?{IDS}&stripe=4&token_file={}", urls.join(","), token.display()), &[]);
    std::fs::write(&token, "second").unwrap();
    serve.signal(libc::SIGHUP);
    assert!(soon(|| serve.log().contains("the token has changed")), "{}", serve.log());
    assert!(!serve.log().contains("shard map"), "{}", serve.log());
    serve.drain();
}

#[test]
fn a_read_of_what_nobody_wrote_waits_in_vain_and_moves_no_server() {
    let site = Site::new();
    let servers: Vec<_> = (0..3).map(|i| Server::start(&site, i)).collect();
    write_map(&site, &servers);
    let mut serve = serve(&site);
    site.write(0, &pages(0..24, 1), &["--create", "--extend", "--lsn", "100"]).good();
    let in_vain = |block: &str, lsn: &str| {
        let args = ["--rel", REL, "--block", block, "--lsn", lsn, "--timeout", "400", "--out", "/dev/null"];
        site.run("read", &args).failed_as(3, &[]);
    };
    in_vain("3", "0/7F000000");
    // A writer has noted that block 3 may change, and then thought better of it.
    let region = Region::attach(&site.region()).unwrap();
    region.parts().last_written().note(TAG, 3, 0x5000);
    assert!(site.read(3, 1, &["--lsn", "0/5000", "--timeout", "60000"]) == page(3, 1));
    in_vain("3", "0/5008");
    serve.drain();
}

#[test]
fn a_page_server_with_a_full_disk_fails_writes_by_name_and_goes_on_when_there_is_room() {
    let site = Site::new();
    let small = site.path("pages-2");
    let full = Server::of(command::shmuring_on_a_small_disk(&small), &site, 2, "127.0.0.1:0", &[]);
    let ballast = command::as_seen_by(full.child.id(), &small).join("ballast");
    let servers = [Server::start(&site, 0), Server::start(&site, 1), full];
    write_map(&site, &servers);
    let mut serve = serve(&site);
    site.write(0, &pages(0..24, 1), &["--create", "--extend"]).good();
    // As much as there is room for.
    std::fs::write(&ballast, vec![1; 64 << 20]).unwrap_err();
    let stripe = on(2).next().unwrap()..on(2).next().unwrap() + 4;
    let write = |version| site.write(stripe.start, &pages(stripe.clone(), version), &[]);
    let mut version = 1;
    let refused = loop {
        assert!(version < 48 * 32, "{version} versions of 4 pages went onto 48 MiB");
        let said = write(version + 1);
        if said.code != Some(0) {
            break said;
        }
        version += 1;
    };
    refused.failed_as(6, &["No space left on device", "errno 28"]);
    // It is read all the same, and the other shards are written.
    site.check(stripe.clone(), version);
    let other = on(1).next().unwrap();
    site.write(other, &page(other, 2), &[]).good();
    // So does the next communicator.
    serve.kill_9();
    let mut next = self::serve(&site);
    site.check(stripe.clone(), version);
    site.check(other..other + 1, 2);
    std::fs::remove_file(&ballast).unwrap();
    assert!(soon(|| write(9999).code == Some(0)), "{}", next.log());
    site.check(stripe, 9999);
    next.drain();
}

#[test]
fn an_address_that_is_none_is_wrong_usage() {
    let said = run(&["page-server", "--listen", "bogus", "--store", "/nowhere"]);
    assert!(said.code == Some(2) && said.err.contains("it is not HOST:PORT"), "{said:?}");
}

#[test]
fn a_map_with_a_hole_is_a_mistake_that_names_the_shard() {
    let site = Site::new();
    let spec = format!("grpc:http://127.0.0.1:1,,http://127.0.0.1:3?{IDS}");
    let said = run(&["serve", "--region", &site.region().display().to_string(), "--service", &spec]);
    assert!(said.code == Some(2) && said.err.contains("shard 1 of 3 has no server"), "{said:?}");
}
