//! How a new region is handed over: whoever sees its magic sees all of it.
//!
//! # What
//! The creator writes configuration and cells, and the magic last; nobody else uses the bytes before. The rest of a new
//! region is zeros: a slot word of 0 is Idle, generation 0. Over a [`Header`], so that a model runs it.
//!
//! # Orderings
//! RG_1 the configuration and the cells before the magic.
//!
//! # Recovery
//! A creator that dies before the magic leaves bytes that are no region; named ones get their name after it (R17).
#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::layout::{Cell, Config, Header, MAGIC};
use crate::ring;
use crate::sync::{ord, Ordering};

/// Makes a region of zeroed bytes that nobody else uses yet.
pub fn publish(header: &Header, cells: &[Cell], config: Config) {
    for cell in cells {
        // Relaxed: the magic publishes it.
        cell.0.store(ring::empty(0), Ordering::Relaxed);
    }
    // SAFETY: nobody reads it before the magic is there (RG_1), and only the creator writes it.
    header.config.with_mut(|c| unsafe { c.write(config) });
    // ORD(RG_1): pairs with the Acquire in `read`; publishes the configuration and the cells.
    header.magic.store(MAGIC, ord!(RG_1, Release));
}

/// One copy of what the creator fixed, which the caller checks: the bytes may be hostile. `WrongMagic` if there is no
/// region.
pub fn read(header: &Header) -> Result<Config> {
    // ORD(RG_1): pairs with the Release in `publish`; whoever sees the magic sees the configuration and the cells.
    if header.magic.load(ord!(RG_1, Acquire)) != MAGIC {
        return Err(Error::WrongMagic);
    }
    // SAFETY: any bytes are a Config, and the creator no longer writes it (RG_1). Volatile: copied once, so that nothing
    // can change between a check and a use.
    Ok(header.config.with(|c| unsafe { c.read_volatile() }))
}
