//! A new region: whoever sees its magic sees its configuration and its cells (RG_1).

mod support;

use loom::thread;
use shmuring::error::Error;
use shmuring::handshake;
use shmuring::layout::{Cell, Config, Header};
use shmuring::ring;
use shmuring::sync::{AtomicU64, Ordering};
use std::sync::Arc;
use support::{check_deaths, check_reaching, dies, saw, twin};

/// A creator, which dies at `step`, and somebody who attaches meanwhile.
fn create_and_attach(step: usize) {
    let new = Arc::new((Header::default(), [Cell(AtomicU64::new(0)), Cell(AtomicU64::new(0))]));
    let config = Config { slots: 7, total_len: u64::MAX, ..Config::default() };
    let shared = new.clone();
    let creator = thread::spawn(move || {
        if dies(step, || handshake::publish(&shared.0, &shared.1, config)).is_none() {
            saw("a death");
        }
    });
    match handshake::read(&new.0) {
        Ok(found) => {
            saw("attached");
            assert_eq!(found, config);
            for cell in &new.1 {
                assert_eq!(cell.0.load(Ordering::Relaxed), ring::empty(0), "a cell of an unfinished region");
            }
        }
        Err(e) => {
            saw("too early");
            assert_eq!(e, Error::WrongMagic);
        }
    }
    creator.join().unwrap();
}

#[test]
fn rg_1_a_region_with_a_magic_is_whole() {
    check_reaching(None, &["attached", "too early"], || create_and_attach(usize::MAX));
    check_deaths(None, &["attached", "too early", "a death"], create_and_attach);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn rg_1_weakened_attaches_to_half_a_region() {
    twin("RG_1", None, || create_and_attach(usize::MAX));
}
