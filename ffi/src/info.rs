//! Versions: what an embedder asks before there is a region.

use core::ffi::{c_char, c_int};

use shmuring::error::Error;
use shmuring::layout::{ABI_VERSION, FEATURES};

/// The version of the library as text, `"1.2.3"`; static.
#[no_mangle]
pub extern "C" fn shmuring_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// A part of a version as a number.
const fn parsed(text: &str) -> u32 {
    let mut rest = text.as_bytes();
    let mut n = 0;
    while let [digit, tail @ ..] = rest {
        n = n * 10 + (*digit - b'0') as u32;
        rest = tail;
    }
    n
}

const MILLION: u32 = 1_000_000;
const THOUSAND: u32 = 1000;
const VERSION: u32 = parsed(env!("CARGO_PKG_VERSION_MAJOR")) * MILLION
    + parsed(env!("CARGO_PKG_VERSION_MINOR")) * THOUSAND
    + parsed(env!("CARGO_PKG_VERSION_PATCH"));

/// The version as a number: `SHMURING_VERSION_NUMBER` of the library.
#[no_mangle]
pub extern "C" fn shmuring_version_number() -> u32 {
    VERSION
}

/// The ABI version of the library: that of the regions that it makes and attaches.
#[no_mangle]
pub extern "C" fn shmuring_abi_version() -> u32 {
    ABI_VERSION
}

/// The features of regions that the library knows.
#[no_mangle]
pub extern "C" fn shmuring_features() -> u64 {
    FEATURES
}

/// Whether the library of version `has` serves a program that was compiled with the header of version `wants`.
const fn serves(has: u32, wants: u32) -> bool {
    // Before version 1 a minor version may break what was there, later a major one.
    let promise = if has < MILLION { THOUSAND } else { MILLION };
    has >= wants && has / promise == wants / promise
}

/// Whether the library serves a program that was compiled with a header of these versions.
#[no_mangle]
pub extern "C" fn shmuring_check_version(version_number: u32, abi_version: u32) -> c_int {
    if abi_version == ABI_VERSION && serves(VERSION, version_number) {
        0
    } else {
        -Error::WrongAbi.errno()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_serves_headers_of_its_own_series_that_are_not_newer() {
        assert!(serves(1_002, 1_002) && serves(1_003, 1_002));
        assert!(!serves(1_002, 1_003) && !serves(2_000, 1_999) && !serves(1_000_000, 1_000));
        assert!(serves(2_003_000, 2_000_007) && !serves(3_000_000, 2_999_999) && !serves(2_000_000, 2_000_001));
    }
}
