//! What comes over the network: answers of page servers, as the communicator checks them, and requests of clients, as our
//! page server does; what standbys answer, where servers are said to be, and how an embedder in C says it. No bytes make it panic; a page has 8192
//! bytes and is the one that was asked for; what is accepted and what is refused is what a model says; and messages come
//! back from the wire as they went.
//!
//! The communicator's files are compiled into this program, by path. With its crate would come those of its stores and of
//! a network, which take minutes to build with the fuzzer's flags, and have no part in this.
#![no_main]

// By this name the files of the C interface know the communicator.
extern crate self as shmuring_communicator;

#[path = "wire/answers.rs"]
mod answers;
#[path = "wire/cache.rs"]
mod cache;
#[path = "wire/group.rs"]
mod group;
#[allow(dead_code)]
#[path = "wire/host.rs"]
mod host;
#[path = "wire/input.rs"]
mod input;
#[allow(dead_code)]
#[path = "wire/page_server.rs"]
mod page_server;
#[path = "wire/reads.rs"]
mod reads;
#[allow(dead_code, unused_imports)]
#[path = "wire/service.rs"]
mod service;
#[path = "wire/texts.rs"]
mod texts;
#[allow(dead_code)]
#[path = "../../communicator/src/wire/mod.rs"]
mod wire;
#[path = "wire/writes.rs"]
mod writes;

use input::Input;
use libfuzzer_sys::fuzz_target;
use shmuring_ffi::region;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let kind = input.byte();
    match kind % 12 {
        _ if (160..180).contains(&kind) => texts::standby(&mut input),
        _ if (180..200).contains(&kind) => host::configuration(&mut input),
        0 | 1 => answers::pages(&mut input),
        2 => reads::pages(&mut input),
        3 => writes::groups(&mut input),
        4 => writes::terms_and_failures(&mut input),
        5 => reads::metadata(&mut input),
        6 => answers::standby(&mut input),
        7 | 8 => group::journey(&mut input),
        9 => writes::fences(&mut input),
        10 => group::words(&mut input),
        _ => texts::servers(&mut input),
    }
});
