//! Relation sizes that a communicator in C has the library keep (R2): what backends find, and what they never find.
#![cfg(feature = "communicator")]

#[path = "support/child.rs"]
mod child;
mod support;

use child::InC;
use shmuring::backend::{Backend, Wait};
use shmuring::region::{Options, Region};
use shmuring::request::{Opcode, RelTag, Request};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use support::{build_with, manifest, run, Scratch, POSTGRES};

const REL: RelTag = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 7, fork: 0 };

fn program(name: &str, scratch: &Scratch) -> PathBuf {
    let options = [&POSTGRES[..], &["-Wl,--gc-sections,-S"]].concat();
    build_with(&manifest().join(format!("tests/c/{name}.c")), scratch, &options)
}

struct Bed {
    scratch: Scratch,
    path: PathBuf,
    region: Region,
    communicator: PathBuf,
}

impl Bed {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new(name);
        let path = scratch.0.join("region");
        let (region, _) = Region::create_named(&path, &Options { rel_sizes: 64, ..Options::new(16) }).unwrap();
        let communicator = program("relations", &scratch);
        Self { scratch, path, region, communicator }
    }

    /// The communicator in C; what it knows of relations survives it.
    fn serve(&self, how: &str) -> InC {
        let mut command = Command::new(&self.communicator);
        let serves = InC::start(command.arg(&self.path).arg(self.scratch.0.join("forks")).arg(how));
        assert!(serves.serving.starts_with("serving "), "{}", serves.serving);
        serves
    }
}

/// Blocks of the fork, as far as the region tells.
fn known(b: &Backend<'_>, rel: RelTag) -> Option<Option<u32>> {
    b.cached_rel_size(rel).map(|size| size.blocks)
}

fn does(b: &mut Backend<'_>, request: &Request<'_>) -> (i32, u64) {
    let done = b.call(request, &Wait::for_ms(60_000), &mut []).unwrap();
    (i32::from(done.errno), done.value)
}

fn create(rel: RelTag) -> Request<'static> {
    Request { lsn: 100, ..Request::new(Opcode::Create, rel) }
}

fn zero_extend(rel: RelTag, block: u32, arg: u32) -> Request<'static> {
    Request { block, arg, lsn: 110, ..Request::new(Opcode::ZeroExtend, rel) }
}

#[test]
fn each_claim_does_to_the_sizes_what_the_header_says_and_misuse_is_refused() {
    let scratch = Scratch::new("keep");
    run(&mut Command::new(program("keep", &scratch)));
}

#[test]
fn memcheck_finds_nothing_in_a_communicator_that_keeps_sizes() {
    let scratch = Scratch::new("keep-memcheck");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite,possible", "--error-exitcode=9"]);
    run(valgrind.arg("--child-silent-after-fork=yes").arg(program("keep", &scratch)));
}

#[test]
fn backends_in_c_read_the_sizes_that_a_communicator_in_c_keeps_and_a_successor_forgets_them() {
    let bed = Bed::new("sizes-of-c");
    let backend = program("sizes", &bed.scratch);
    let first = bed.serve("");
    run(Command::new(&backend).arg("change").arg(&bed.path));
    run(Command::new(&backend).arg("look").arg(&bed.path).arg("7"));
    assert_eq!(first.stop(), "stopped\n");
    let left = RelTag { rel_number: 16385, ..REL };
    let mut b = Backend::attach(&bed.region, 0, 4).unwrap();
    assert_eq!(known(&b, left), Some(Some(7)), "still right: nobody serves");
    let _second = bed.serve("");
    assert_eq!(known(&b, left), None);
    assert_eq!(does(&mut b, &Request::new(Opcode::RelSize, left)), (0, 7));
    assert_eq!(known(&b, left), Some(Some(7)));
}

#[test]
fn a_relation_just_made_has_no_block_at_once_and_what_is_not_certain_is_asked_for() {
    let bed = Bed::new("sizes-just-made");
    let _server = bed.serve("");
    let mut b = Backend::attach(&bed.region, 0, 4).unwrap();
    assert_eq!((does(&mut b, &create(REL)), known(&b, REL)), ((0, 0), Some(Some(0))));
    // It fails, and has made the fork longer all the same.
    assert_eq!((does(&mut b, &zero_extend(REL, 0, 1000)), known(&b, REL)), ((libc::ENOSPC, 0), None));
    assert_eq!(does(&mut b, &Request::new(Opcode::RelSize, REL)), (0, 1000));
    assert_eq!(known(&b, REL), Some(Some(1000)));
    let again = does(&mut b, &create(REL));
    assert_eq!((again, known(&b, REL)), ((libc::EEXIST, 0), None), "it is there, and not empty");
    // The communicator is not sure of this one, and says so.
    let doubted = RelTag { fork: 3, ..REL };
    assert_eq!((does(&mut b, &create(doubted)), known(&b, doubted)), ((0, 0), None));
    // Nobody answers this one: it may come to be later than any answer.
    let lost = RelTag { rel_number: 8, ..REL };
    assert_eq!((does(&mut b, &create(lost)), known(&b, lost)), ((0, 0), Some(Some(0))));
    assert_eq!((does(&mut b, &zero_extend(lost, 0, 999)), known(&b, lost)), ((libc::ECANCELED, 0), None));
    assert_eq!(does(&mut b, &Request::new(Opcode::RelSize, lost)), (0, 999));
    assert_eq!(known(&b, lost), None);
}

#[test]
fn a_size_is_a_miss_from_the_death_in_the_middle_of_an_extend_until_a_successor_has_answered() {
    let bed = Bed::new("sizes-death");
    let mut b = Backend::attach(&bed.region, 0, 4).unwrap();
    let mut server = bed.serve("hold");
    assert_eq!(does(&mut b, &create(REL)), (0, 0));
    assert_eq!((does(&mut b, &zero_extend(REL, 0, 3)), known(&b, REL)), ((0, 0), Some(Some(3))));
    let slot = b.free_slot().unwrap();
    let held = b.fill(slot, &zero_extend(REL, 3, 500)).unwrap();
    b.submit(held).unwrap();
    // It is done each time, and answered by none of the first three.
    for inherited in [0, 1, 1] {
        assert!(server.serving.ends_with(&format!("inherited {inherited}\n")), "{}", server.serving);
        assert_eq!(server.line(), "holding\n");
        assert_eq!(known(&b, REL), None);
        server.signal(libc::SIGKILL);
        drop(server);
        assert_eq!(known(&b, REL), None);
        assert_eq!(b.poll(held), Ok(false));
        server = bed.serve("hold");
    }
    drop(server);
    let _last = bed.serve("");
    b.wait(held, &Wait::for_ms(60_000)).unwrap();
    assert!(b.finish(held).unwrap().is_ok());
    // At least 503 blocks: that is no size.
    assert_eq!(known(&b, REL), None);
    assert_eq!(does(&mut b, &Request::new(Opcode::RelSize, REL)), (0, 503));
    assert_eq!(known(&b, REL), Some(Some(503)));
}

#[test]
fn no_size_is_ever_too_small_while_communicators_are_killed() {
    let bed = Bed::new("sizes-storm");
    let backends = program("sizes", &bed.scratch);
    let mut server = bed.serve("slow");
    let storm = InC::start(Command::new(&backends).arg("storm").arg(&bed.path));
    for death in 0..8 {
        std::thread::sleep(Duration::from_millis(30 + death * 17));
        server.signal(libc::SIGKILL);
        drop(server);
        server = bed.serve("slow");
    }
    let said = storm.stop();
    assert!(said.starts_with("relations "), "{said}");
    println!("{said}");
    server.stop();
}
