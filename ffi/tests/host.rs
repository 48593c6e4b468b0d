//! The communicator of shmuring inside a process that is written in C.
#![cfg(feature = "host")]

#[path = "support/child.rs"]
mod child;
mod support;

use child::InC;
use shmuring::region::{Options, Region};
use std::path::PathBuf;
use std::process::Command;
use support::{build_with, manifest, run, Scratch};

fn program(name: &str, scratch: &Scratch) -> PathBuf {
    build_with(&manifest().join(format!("tests/c/{name}.c")), scratch, &["-Wl,--gc-sections,-S"])
}

#[test]
fn a_host_starts_serves_and_stops_in_a_c_process_and_refuses_misuse() {
    let scratch = Scratch::new("host");
    let path = scratch.0.join("region");
    Region::create_named(&path, &Options::new(16)).unwrap();
    let exe = program("host", &scratch);
    let service = format!("store:{}", scratch.0.join("store").display());
    run(Command::new(exe).arg("check").arg(&path).arg(service).arg(scratch.0.join("cache")));
}

#[test]
fn of_two_hosts_in_a_process_one_goes_on_while_the_other_is_stopped_at_work_and_started_again() {
    let scratch = Scratch::new("hosts");
    let said = run(Command::new(program("hosts", &scratch)).arg(&scratch.0));
    assert!(said.starts_with("answered "), "{said}");
}

#[test]
fn backends_in_c_read_the_sizes_that_a_host_in_c_keeps_without_a_request() {
    let scratch = Scratch::new("sizes");
    let path = scratch.0.join("region");
    let options = Options { rel_sizes: 64, ..Options::new(16) };
    Region::create_named(&path, &options).unwrap();
    let (host, sizes) = (program("host", &scratch), program("sizes", &scratch));
    let service = format!("store:{}", scratch.0.join("store").display());
    let serve = || InC::start(Command::new(&host).arg("serve").arg(&path).arg(&service));
    let first = serve();
    run(Command::new(&sizes).arg("change").arg(&path));
    run(Command::new(&sizes).arg("look").arg(&path).arg("7"));
    assert_eq!(first.stop(), "stopped 0\n");
    // What a communicator has left its successor forgets, until it is asked for or changed (R2).
    let _second = serve();
    let region = Region::attach(&path).unwrap();
    let rel = shmuring::request::RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16385, fork: 0 };
    assert_eq!(shmuring::backend::Backend::attach(&region, 0, 1).unwrap().cached_rel_size(rel), None);
}

#[cfg(feature = "grpc")]
#[test]
fn a_host_in_c_reads_and_writes_pages_of_a_page_server() {
    use shmuring::backend::{Backend, Wait};
    use shmuring::request::{Buffers, Opcode, RelTag, Request};
    use shmuring_communicator::page_server::{Options as ServerOptions, PageServer};

    let scratch = Scratch::new("grpc");
    let path = scratch.0.join("region");
    let (region, _) = Region::create_named(&path, &Options::new(16)).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let options = ServerOptions::new("127.0.0.1:0", scratch.0.join("store"));
    let server = runtime.block_on(PageServer::start(&options)).unwrap();
    let ids = "tenant=0000000000000000000000000000000a&timeline=0000000000000000000000000000000b";
    let service = format!("grpc:http://{}?{ids}", server.address());
    let host = InC::start(Command::new(program("host", &scratch)).arg("serve").arg(&path).arg(&service));

    let rel = RelTag { spc_oid: 1663, db_oid: 5, rel_number: 16384, fork: 0 };
    let mut backend = Backend::attach(&region, 0, 4).unwrap();
    let mut call = |request: &Request<'_>, pages: &mut [u8]| {
        let done = backend.call(request, &Wait::for_ms(60_000), pages).unwrap();
        assert!(done.is_ok(), "{}: {done:?}", request.opcode.name());
        done.value
    };
    let at = |opcode| Request { lsn: 8, ..Request::new(opcode, rel) };
    call(&at(Opcode::Create), &mut []);
    let image: Vec<u8> = (0..8192_u32).map(|i| (i * 7) as u8).collect();
    let extend = Request { count: 1, buffers: Buffers::Image(&image), ..at(Opcode::Extend) };
    call(&extend, &mut []);
    let mut page = vec![0; 8192];
    call(&Request::get_page(rel, 0, 1, 8), &mut page);
    assert!(page == image, "it has other bytes");
    assert_eq!(call(&at(Opcode::RelSize), &mut []), 1);
    assert_eq!(host.stop(), "stopped 0\n");
    runtime.block_on(server.stop(std::time::Duration::from_secs(20))).unwrap();
}
