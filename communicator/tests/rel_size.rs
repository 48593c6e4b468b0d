//! Relation sizes without a round trip, with a real communicator in a process of its own: what a b-tree build asks of a
//! relation that was just made, and what it says at its end.

mod support;

use shmuring::backend::{Backend, Wait};
use shmuring::lsn::rel_size::Size;
use shmuring::region::Region;
use shmuring::request::{Completion, Opcode, RelTag, Request, MISSING};
use shmuring::stats::OwnerCounter;
use support::{page, Site};

const INDEX: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 24576, fork: 0 };

fn request(opcode: Opcode, block: u32, lsn: u64) -> Request<'static> {
    let mut request = Request::new(opcode, INDEX);
    (request.block, request.lsn) = (block, lsn);
    request
}

fn done(b: &mut Backend<'_>, r: &Request<'_>) -> Completion {
    b.call(r, &Wait::for_ms(20_000), &mut []).unwrap()
}

fn good(b: &mut Backend<'_>, r: &Request<'_>) -> u64 {
    let done = done(b, r);
    assert!(done.is_ok(), "{:?}: errno {}", r.opcode, { done.errno });
    done.value
}

fn blocks(b: &Backend<'_>) -> Option<Option<u32>> {
    b.cached_rel_size(INDEX).map(|size| size.blocks)
}

/// Runs `f` with the communicator stopped: what it finds, it finds without a round trip.
fn alone<T>(serve: &support::Serve, f: impl FnOnce() -> T) -> T {
    serve.stop();
    let found = f();
    serve.signal(libc::SIGCONT);
    found
}

#[test]
fn an_index_build_asks_for_no_size_and_its_end_is_known_at_once() {
    let site = Site::new();
    let mut serve = site.serve(&[]);
    let region = Region::attach(&site.region()).unwrap();
    let mut b = Backend::attach_any(&region, 4).unwrap();
    assert_eq!(blocks(&b), None);
    good(&mut b, &request(Opcode::Create, 0, 1000));
    let now = alone(&serve, || b.cached_rel_size(INDEX));
    assert_eq!(now, Some(Size { blocks: Some(0), lsn: 1000, is_changed: true }), "a relation just made has no block");
    for n in 0..3 {
        let image = page(n, 1);
        good(&mut b, &Request::extend(INDEX, n, 1010 + u64::from(n), &image));
        assert_eq!(alone(&serve, || blocks(&b)), Some(Some(n + 1)));
    }
    let mut zeros = request(Opcode::ZeroExtend, 3, 1020);
    zeros.arg = 5;
    good(&mut b, &zeros);
    assert_eq!(blocks(&b), Some(Some(8)));
    // The end of the build: blocks that were written by other means.
    good(&mut b, &request(Opcode::UpdateRelSize, 100, 1030));
    let now = alone(&serve, || b.cached_rel_size(INDEX));
    assert_eq!(
        now,
        Some(Size { blocks: Some(100), lsn: 1030, is_changed: true }),
        "the end updates, it does not forget"
    );
    good(&mut b, &request(Opcode::Truncate, 6, 1040));
    assert_eq!(blocks(&b), Some(Some(6)));
    good(&mut b, &request(Opcode::Unlink, 0, 1050));
    assert_eq!(blocks(&b), Some(None));
    good(&mut b, &request(Opcode::Create, 0, 1060));
    assert_eq!(blocks(&b), Some(Some(0)));

    // What failed leaves nothing that is not certain.
    assert_eq!({ done(&mut b, &request(Opcode::Create, 0, 1070)).errno }, libc::EEXIST as u16);
    assert_eq!(blocks(&b), None);
    let submitted = b.counter(OwnerCounter::Submitted);
    assert_eq!(good(&mut b, &request(Opcode::RelSize, 0, 1070)), 0);
    assert_eq!(b.cached_rel_size(INDEX).map(|s| (s.blocks, s.is_changed)), Some((Some(0), false)), "a miss is filled");
    assert_eq!(b.counter(OwnerCounter::Submitted), submitted + 1, "by one request");
    let counted = [OwnerCounter::RelSizeHits, OwnerCounter::RelSizeSpared, OwnerCounter::RelSizeMisses];
    assert_eq!(counted.map(|c| b.counter(c)), [10, 9, 2]);
    let told = site.stat();
    assert_eq!(told["owners"]["rel_size_spared"], 9);
    assert_eq!(told["tables"]["rel_sizes"], 4096);

    // A successor starts with nothing, and learns.
    serve.kill_9();
    let mut second = site.serve(&[]);
    assert_eq!(blocks(&b), None);
    assert_eq!(good(&mut b, &request(Opcode::RelExists, 0, 1070)), 1);
    assert_eq!(blocks(&b), Some(Some(0)));
    second.drain();
}

#[test]
fn a_missing_relation_is_known_to_be_missing_until_it_is_made() {
    let site = Site::new();
    let mut serve = site.serve(&["--rel-sizes", "16"]);
    let region = Region::attach(&site.region()).unwrap();
    let mut b = Backend::attach_any(&region, 4).unwrap();
    let mut size = request(Opcode::RelSize, 0, 1000);
    size.allow_missing = true;
    assert_eq!(good(&mut b, &size), MISSING);
    assert_eq!(blocks(&b), Some(None));
    // The same by the ring, and from the shell.
    assert_eq!({ done(&mut b, &request(Opcode::RelSize, 0, 1000)).errno }, libc::ENOENT as u16);
    let rel = ["--rel", "1663/5/24576"];
    assert_eq!(site.run("relsize", &[&rel[..], &["--allow-missing"]].concat()).good(), "missing\n");
    site.run("relsize", &rel).failed_as(6, &["there is no such relation"]);
    good(&mut b, &request(Opcode::Create, 0, 1010));
    assert_eq!(blocks(&b), Some(Some(0)));
    assert_eq!(site.run("relsize", &rel).good(), "0\n");
    assert_eq!(site.run("relsize", &[&rel[..], &["--ask"]].concat()).good(), "0\n");
    serve.drain();
}

#[test]
fn a_region_without_room_for_sizes_has_misses_alone() {
    let site = Site::new();
    let mut serve = site.serve(&["--rel-sizes", "0", "--written", "0"]);
    let region = Region::attach(&site.region()).unwrap();
    let mut b = Backend::attach_any(&region, 1).unwrap();
    good(&mut b, &request(Opcode::Create, 0, 1000));
    assert_eq!(blocks(&b), None);
    assert_eq!(good(&mut b, &request(Opcode::RelSize, 0, 1000)), 0);
    assert_eq!(blocks(&b), None);
    b.last_written().note(INDEX, 0, 800);
    assert_eq!((b.last_written().get(INDEX, 0), b.last_written().floor()), (800, 800));
    serve.drain();
}
